"""Who ships a spool, and how that goes: the lock that one process holds, and what it writes into it for all to read.

The lock is one of the operating system: it ends with its process, however that ends. It is no lease.
"""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import orjson

from .errors import SpoolError, StoreError
from .event import now_ms
from .files import linked_file, lockable
from .forking import ForkLock

__all__ = ["KINDS", "Shipping", "ShippingLock", "Stopped", "shipping_of"]

SIZE = 4096
"""Bytes of what is written: at one go, so that a reader meets all of it or all of what was there before."""
LONGEST = 1000
"""Characters of the reason that are told."""
KINDS = ("store-unavailable", "store-missing", "store-mismatch", "store-error", "spool-error", "fault")
"""What can stop shipping."""


@dataclass(frozen=True, slots=True)
class Stopped:
    """Why nothing is shipped at the moment."""

    kind: str
    """One of KINDS."""
    text: str
    """One line, safe to show to an operator."""
    since: int
    """Since when: milliseconds since the epoch, UTC."""

    @classmethod
    def by(cls, error: Exception) -> Stopped:
        """What an error says, from now on."""
        kind = "fault"
        if isinstance(error, SpoolError):
            kind = "spool-error"
        elif isinstance(error, StoreError):
            name = type(error).__name__.removeprefix("Store").lower()
            kind = f"store-{name}" if f"store-{name}" in KINDS else "store-error"
        text = f"a fault ({type(error).__name__}); the log has the details" if kind == "fault" else str(error)
        return cls(kind, text[:LONGEST], now_ms())


@dataclass(frozen=True, slots=True)
class Shipping:
    """How shipping goes."""

    process: int | None
    """The process that ships; None where none does."""
    stopped: Stopped | None = None
    """None while all is well."""
    tried: int = field(default=0, compare=False)
    """When a process last took the right to ship, or told how it goes: milliseconds since the epoch, UTC."""


class ShippingLock:
    """The right to ship one spool: held by one process of a machine at a time, and freed when that process ends.

    What stopped one process is told until some process ships again.
    """

    def __init__(self, spool: Path) -> None:
        self._path = _lock_path(spool)
        self._file: int | None = None
        self._changing = ForkLock()
        self.stopped: Stopped | None = None
        """Why nothing was shipped the last time, as any process told it."""

    def acquire(self) -> bool:
        """Take the lock if it is free. Raises SpoolError where the file cannot be made."""
        with self._changing.lock:
            return self._acquired()

    def _acquired(self) -> bool:
        try:
            file = os.open(self._path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise SpoolError(f"{self._path}: cannot be opened: {error.strerror}") from error
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(file)
            if isinstance(error, BlockingIOError):
                return False
            raise SpoolError(f"{self._path}: cannot be locked: {error.strerror}") from error
        self._file = file
        self.stopped = _read(file).stopped
        self._tell(self.stopped)
        return True

    def tell_stopped(self, error: Exception) -> Stopped:
        """Let others know that, and why, nothing is shipped; and return what they are told."""
        stopped = Stopped.by(error)
        if self.stopped is not None and self.stopped.kind == stopped.kind:
            stopped = replace(stopped, since=self.stopped.since)
        self._tell(stopped)
        return stopped

    def tell_going(self) -> None:
        """Let others know that shipping goes on."""
        self._tell(None)

    def release(self) -> None:
        """Give the lock up. In a forked child, this leaves the parent's lock as it is."""
        with self._changing.lock:
            if self._file is not None:
                os.close(self._file)
                self._file = None

    def before_fork(self) -> None:
        """Let no fork come between taking the lock and noting that: a child would hold it without knowing."""
        self._changing.before_fork()

    def after_fork_in_parent(self) -> None:
        """Go on."""
        self._changing.after_fork_in_parent()

    def after_fork_in_child(self) -> None:
        """Go on without the lock, which is the parent's."""
        self._changing.after_fork_in_child()
        self.release()

    def _tell(self, stopped: Stopped | None) -> None:
        self.stopped = stopped
        if self._file is not None:
            told = {"process": os.getpid(), "stopped": asdict(stopped) if stopped else None}
            with suppress(OSError):  # on a full disk others do not learn of it
                os.pwrite(self._file, orjson.dumps(told).ljust(SIZE), 0)


def shipping_of(spool: Path) -> Shipping:
    """How shipping goes, in whichever process; nobody ships where that cannot be told."""
    try:
        file = lockable(_lock_path(spool))
    except OSError:
        return Shipping(None)
    with file:
        told = _read(file.fileno())
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return told
        except OSError:
            return Shipping(None)
        return replace(told, process=None)


def _read(file: int) -> Shipping:
    with suppress(OSError, ValueError, KeyError, TypeError):
        told = orjson.loads(os.pread(file, SIZE, 0))
        tried = int(os.fstat(file).st_mtime * 1000)
        return Shipping(int(told["process"]), Stopped(**told["stopped"]) if told["stopped"] else None, tried)
    return Shipping(0)


def _lock_path(spool: Path) -> Path:
    spool = linked_file(spool)
    return spool.with_name(spool.name + ".lock")
