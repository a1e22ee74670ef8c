"""Files on disk: made private, replaced whole, locked, and watched for being replaced under a process that has them."""

from __future__ import annotations

import errno
import fcntl
import os
import pwd
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path
from typing import BinaryIO
from weakref import WeakSet

from .forking import prepare_for_forks

__all__ = [
    "FileId",
    "Locked",
    "account",
    "file_id",
    "foreign_owner",
    "free_bytes",
    "linked_file",
    "lockable",
    "locked",
    "make_private",
    "replacing",
    "sync_folder",
]

FileId = tuple[int, int]
"""A file as the system knows it: device and inode."""

POLL_S = 0.005
"""How often a lock is asked for that another process holds, in seconds."""


class Locked(Exception):
    """Another process holds the lock, and did not give it up in time."""


class _OwnLocks:
    """The files that this process locks: such a lock belongs to all who have the file open, so no child may keep it."""

    def __init__(self) -> None:
        self._files = WeakSet[FileIO]()
        self._forks = 0
        prepare_for_forks(self)

    def opened(self, open_file: Callable[[], FileIO]) -> FileIO:
        """A file, about to be locked."""
        # No lock of ours, which a fork would wait for beside those of who opens files. Where one came between the
        # opening and the note of it, the child has the file, and does not know.
        while True:
            forks = self._forks
            file = open_file()
            self._files.add(file)
            if forks == self._forks:
                return file
            file.close()

    def before_fork(self) -> None:
        """Let what is being opened be opened anew."""
        self._forks += 1

    def after_fork_in_parent(self) -> None:
        """The same."""
        self._forks += 1

    def after_fork_in_child(self) -> None:
        """Close them, which leaves the parent its locks; to unlock them would not."""
        for file in list(self._files):
            file.close()


_own = _OwnLocks()


def file_id(path: Path) -> FileId | None:
    """Which file is at this path; None where there is none. Raises OSError where that cannot be told.

    A process that goes on with a deleted or replaced file would write where nobody looks.
    """
    try:
        found = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return found.st_dev, found.st_ino


def linked_file(path: Path) -> Path:
    """The file that a symbolic link leads to; another path as it is.

    SQLite keeps its log beside the file, not beside the link; what renames both must know them by one name.
    """
    return Path(os.path.realpath(path)) if os.path.islink(path) else path


def make_private(path: Path) -> None:
    """Make an empty file that only its owner can read, if there is none. Raises OSError.

    SQLite gives its -wal and -shm files the mode of the database.
    """
    os.close(os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))


def foreign_owner(path: Path) -> str | None:
    """The name of the user to whom a file belongs; None where that is this process's own, or cannot be seen."""
    try:
        owner = path.stat().st_uid
    except OSError:
        return None
    return account(owner) if owner != os.geteuid() else None


def account(number: int) -> str:
    """The name of a user; the number of one that has none."""
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return f"user {number}"


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


def locked(path: Path, wait_s: float) -> FileIO:
    """A lock of the system on a file, for a `with` block; the file is made where it is missing.

    The lock ends with its process, however that ends. Raises Locked where another one holds it for longer than
    `wait_s`, and OSError.
    """
    # A file of the standard library, not a generator: between the steps of one, a signal handler may raise.
    file = _own.opened(lambda: _lockable(path))
    end = time.monotonic() + wait_s
    try:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return file
            except BlockingIOError:
                if time.monotonic() > end:
                    raise Locked(str(path)) from None
                time.sleep(POLL_S)
    except BaseException:
        file.close()
        raise


def lockable(path: Path) -> FileIO:
    """A file to ask for its lock, for a `with` block. Raises OSError where it is missing, or cannot be read."""
    return _own.opened(lambda: FileIO(path, "r"))


def _lockable(path: Path) -> FileIO:
    try:
        return FileIO(path, "r+", opener=_opened)
    except OSError as error:
        if error.errno != errno.EROFS or not path.exists():
            raise
        return FileIO(path, "r")


def _opened(path: str, _: int) -> int:
    return os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)


def free_bytes(path: Path) -> tuple[int, int]:
    """How many bytes this user may still write to the disk that a path is on, and how many it has. Raises OSError."""
    disk = os.statvfs(path)
    return disk.f_bavail * disk.f_frsize, disk.f_blocks * disk.f_frsize


def sync_folder(path: Path) -> None:
    """See to it that the names in a folder survive a power loss. Raises OSError."""
    folder = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
