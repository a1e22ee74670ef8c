"""Database files on disk: made private, and watched for being replaced under a process that has them open."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["FileId", "file_id", "make_private"]

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
