"""What it is measured against and no part of this project: installed when it is first asked for, into a folder."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any

__all__ = ["Contender", "contender_python", "elasticdump"]

HERE = Path(__file__).parent


def contender_python(folder: Path) -> str:
    """A Python with what `requirements.txt` names.

    To choose versions anew: `uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url`
    of the packages that are not marked as `via` others there.
    """
    requirements = HERE / "requirements.txt"
    place = folder / f"contenders-{_digest(requirements)}"
    python = place / "bin/python"
    if not (place / ".ready").exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(place)], check=True)
        subprocess.run(
            [
                *(str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"),
                *("--require-hashes", "-r", str(requirements)),
            ],
            check=True,
        )  # fmt: skip
        (place / ".ready").touch()
    return str(python)


def elasticdump(folder: Path) -> list[str]:
    """The command `elasticdump`. Empty where there is no npm."""
    npm, node = shutil.which("npm"), shutil.which("node")
    if npm is None or node is None:
        return []
    place = folder / f"npm-{_digest(HERE / 'package-lock.json')}"
    command = place / "node_modules/elasticdump/bin/elasticdump"
    if not (place / ".ready").exists():
        place.mkdir(exist_ok=True)
        for name in ("package.json", "package-lock.json"):
            shutil.copy(HERE / name, place)
        subprocess.run([npm, "ci", "--silent", "--ignore-scripts", "--no-audit", "--no-fund"], cwd=place, check=True)
        (place / ".ready").touch()
    return [node, str(command)]


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:8]


class Contender:
    """A module of this folder in a process of its own, that answers one line of JSON with another."""

    def __init__(self, python: str, module: str, *arguments: str, **environment: str) -> None:
        self._process = subprocess.Popen(
            [python, "-m", f"benchmarks.{module}", *arguments],
            cwd=HERE.parent, env=os.environ | environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.about = self._read()

    @property
    def pid(self) -> int:
        """The number of its process."""
        return self._process.pid

    def ask(self, **question: Any) -> Any:
        """Its answer."""
        self.begin(**question)
        return self._read()

    def begin(self, **question: Any) -> None:
        """Let it work; its answer is not waited for."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()

    def kill(self) -> None:
        """End it at once, in the middle of what it does."""
        self._process.kill()

    def _read(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"a contender ended with {self._process.wait(10)}")
        return json.loads(line)

    def __enter__(self) -> Contender:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(60)
