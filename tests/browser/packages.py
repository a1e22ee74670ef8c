"""What the browser tests take from npm, by the versions of `package-lock.json`; installed once for each of these."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from pathlib import Path

from ..engine import alone

__all__ = ["PackagesMissing", "installed_packages"]

FOLDER = Path(__file__).parent


class PackagesMissing(Exception):
    """npm is not there, or did not bring them; the text says what to do."""


def installed_packages() -> Path:
    """The folder `node_modules`, with what the lock file names. Raises PackagesMissing."""
    target = FOLDER / "node_modules"
    locked = hashlib.sha256((FOLDER / "package-lock.json").read_bytes()).hexdigest()
    stamp = target / ".of-lock"
    with alone(FOLDER):
        if not stamp.exists() or stamp.read_text() != locked:
            _install()
            stamp.write_text(locked)
    return target


def _install() -> None:
    npm = shutil.which("npm")
    if npm is None:
        raise PackagesMissing("the browser tests need Node.js and npm on PATH: apt-get install nodejs npm")
    done = subprocess.run(
        [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"], cwd=FOLDER, capture_output=True, text=True
    )
    if done.returncode:
        raise PackagesMissing(f"npm ci in {FOLDER} did not bring what the browser tests need: {done.stderr[-2000:]}")
