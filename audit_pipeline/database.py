"""What the spool and the embedded store do alike with SQLite. Knows the tables of neither."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import apsw

__all__ = [
    "close_aside",
    "cut_log",
    "has_orphaned_log",
    "is_waiting",
    "log_of",
    "sync_failed",
    "transaction",
    "use_wal",
    "wait_for_locks",
]

PAUSES_S = (0.0001, 0.002)
"""The first and the longest pause before a lock is asked for again, in seconds."""
_HEADER, _FRAME = 32, 24
"""Bytes before the log's first frame, and before the page in each (https://sqlite.org/fileformat2.html#walformat)."""
_SYNCS = frozenset((apsw.SQLITE_IOERR_FSYNC, apsw.SQLITE_IOERR_DIR_FSYNC))


def wait_for_locks(
    db: apsw.Connection,
    busy_ms: Callable[[], int],
    pauses_s: tuple[float, float] = PAUSES_S,
    gives_up: Callable[[], bool] = lambda: False,
) -> None:
    """Let a connection wait up to `busy_ms` for the locks of others, or until it `gives_up`; then it raises BusyError.

    SQLite's own waiting pauses for a millisecond at the least: ten times as long as others hold a lock here.
    """
    db.set_busy_handler(_Patience(busy_ms, pauses_s, gives_up))


class _Patience:
    """What SQLite calls, with how often it did before, while another connection has a lock."""

    def __init__(self, busy_ms: Callable[[], int], pauses_s: tuple[float, float], gives_up: Callable[[], bool]) -> None:
        self._busy_ms, self._pauses_s, self._gives_up = busy_ms, pauses_s, gives_up
        self._end = 0.0
        self._process = os.getpid()

    def __call__(self, tries: int) -> bool:
        if tries == 0:
            self._end = time.monotonic() + self._busy_ms() / 1000
        time.sleep(min(self._pauses_s[0] * (1 + tries // 4), self._pauses_s[1]))
        # In a child that a signal handler forked meanwhile, this connection is the parent's.
        return os.getpid() == self._process and time.monotonic() < self._end and not self._gives_up()


def is_waiting() -> bool:
    """Whether this thread waits in the middle of a statement: then its connection cannot be closed."""
    frame: FrameType | None = sys._getframe()
    while frame is not None and frame.f_code is not _Patience.__call__.__code__:
        frame = frame.f_back
    return frame is not None


def use_wal(db: apsw.Connection, busy_ms: int) -> None:
    """Change to a write-ahead log. Raises BusyError where another process is in the way for longer than `busy_ms`.

    SQLite does not wait by itself while another process makes the same change.
    """
    end = time.monotonic() + busy_ms / 1000
    while True:
        try:
            db.execute("PRAGMA journal_mode = WAL")
            return
        except apsw.BusyError:
            if time.monotonic() > end:
                raise
            time.sleep(0.005)


@contextmanager
def transaction(db: apsw.Connection, kind: str = "DEFERRED") -> Iterator[None]:
    """A transaction of a kind (`DEFERRED` or `IMMEDIATE`): kept as a whole at the end, or undone by what is raised."""
    # A signal handler may raise at any point here, also right after BEGIN.
    try:
        db.execute(f"BEGIN {kind}")
        yield
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise


def log_of(path: Path) -> Path:
    """Where SQLite keeps the log of a database."""
    return path.with_name(f"{path.name}-wal")


def has_orphaned_log(path: Path) -> bool:
    """Whether a database is missing or empty, and its log is not: SQLite would delete the log. Raises OSError."""
    log = log_of(path)
    return log.exists() and log.stat().st_size > 0 and not (path.exists() and path.stat().st_size)


def close_aside(db: apsw.Connection) -> None:
    """Close a connection, and change nothing at its path: another file may lie there, or one that is to be set aside.

    Otherwise the last one that closes a database deletes its log, by its name.
    """
    db.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
    db.close(True)


def sync_failed(error: BaseException) -> bool:
    """Whether the disk did not confirm what was written."""
    return isinstance(error, apsw.IOError) and getattr(error, "extendedresult", 0) in _SYNCS


def cut_log(db: apsw.Connection, path: Path) -> None:
    """Take what no transaction kept off the end of a database's log. Raises SQLite's errors and OSError.

    A sync that fails may leave in memory, and for all to read, what will never be on the disk. Whoever reads the log
    from its beginning would take it for kept, and everything after it would be gone with the power.
    """
    while True:
        version = db.pragma("data_version")
        frames, _ = db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_NOOP)
        try:
            db.execute("BEGIN IMMEDIATE")
            if db.pragma("data_version") != version:
                continue
            end = _HEADER + frames * (_FRAME + db.pragma("page_size")) if frames > 0 else 0
            log = log_of(path)
            if log.exists() and log.stat().st_size > end:
                os.truncate(log, end)
            return
        finally:
            if db.in_transaction:
                db.execute("ROLLBACK")
