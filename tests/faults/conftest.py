"""What the rounds share. `make faults` runs them with all their tries; a plain run with some."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from .running import eventually

ROOT = Path(__file__).parent.parent.parent

Start = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture(autouse=True)
def folders_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes that a round starts keep their spools below its folder."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts a program of this project, `start("-m", "audit_pipeline", "ship", …)`; all end with the test."""
    processes: list[subprocess.Popen[bytes]] = []

    def begin(*arguments: object, env: dict[str, str] | None = None, **more: Any) -> subprocess.Popen[bytes]:
        command = [sys.executable, *map(str, arguments)]
        more.setdefault("stderr", subprocess.DEVNULL)
        processes.append(subprocess.Popen(command, cwd=ROOT, env=os.environ | (env or {}), **more))
        return processes[-1]

    yield begin
    for process in processes:
        process.kill()
        process.wait()


@pytest.fixture
def until() -> Callable[[Callable[[], bool], float], None]:
    """Waits until something holds, for so many seconds at the most."""

    def wait(holds: Callable[[], bool], seconds: float) -> None:
        eventually(holds, seconds, "what the round waits for")

    return wait


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[Path]:
    """A folder for thousands of disks: in memory, where there is one; what is synced is known by the record."""
    shared = Path("/dev/shm")
    if not os.access(shared, os.W_OK):
        yield tmp_path
        return
    with TemporaryDirectory(dir=shared) as folder:
        yield Path(folder)
