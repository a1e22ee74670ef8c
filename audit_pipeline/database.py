"""What the spool and the embedded store do alike with SQLite. Knows the tables of neither."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import apsw

__all__ = ["transaction", "use_wal", "wait_for_locks"]

PAUSES_S = (0.0001, 0.002)
"""The first and the longest pause before a lock is asked for again, in seconds."""


def wait_for_locks(db: apsw.Connection, busy_ms: int) -> None:
    """Let a connection wait up to `busy_ms` for the locks of others; then it raises BusyError.

    SQLite's own waiting pauses for a millisecond at the least: ten times as long as others hold a lock here.
    """
    end = 0.0

    def wait(tries: int) -> bool:
        nonlocal end
        if tries == 0:
            end = time.monotonic() + busy_ms / 1000
        time.sleep(min(PAUSES_S[0] * (1 + tries // 4), PAUSES_S[1]))
        return time.monotonic() < end

    db.set_busy_handler(wait)


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
