"""Files on disk: made private, replaced whole, and watched for being replaced under a process that has them open."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

__all__ = ["FileId", "file_id", "make_private", "replacing"]

FileId = tuple[int, int]
"""A file as the system knows it: device and inode."""


def file_id(path: Path) -> FileId | None:
    """Which file is at this path; None where there is none. Raises OSError where that cannot be told.

    A process that goes on with a deleted or replaced file would write where nobody looks.
    """
    try:
        found = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return found.st_dev, found.st_ino


def make_private(path: Path) -> None:
    """Make an empty file that only its owner can read, if there is none. Raises OSError.

    SQLite gives its -wal and -shm files the mode of the database.
    """
    os.close(os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A new file that only its owner can read, and that takes the place of `path` when the block ends.

    Whoever reads `path` meets the old file or the new one, whole; where the block raises, the old one. Raises OSError.
    """
    # A name of its own for each process: two at once must not write into one file.
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with os.fdopen(os.open(part, os.O_CREAT | os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC, 0o600), "wb") as file:
            os.fchmod(file.fileno(), 0o600)
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
