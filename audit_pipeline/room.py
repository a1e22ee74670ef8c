"""How much room the spool has: its limits, and what its disk still gives.

What a store has already, and is only kept to be sent again, goes first. That is looked at every so many bytes, and once
a second: an append in between costs a subtraction. What lies in quarantine never gives way, and has
room of its own.
"""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import apsw

from .database import log_of
from .errors import SpoolFull
from .event import now_ms
from .files import free_bytes

__all__ = ["Limits", "QuarantineFull", "Room", "delete_shipped", "oldest_ms", "try_write", "used_bytes"]

FLOOR = 16 * 2**20
"""Bytes that are left free on the disk at the least (of a small disk an eighth): to mark and to trim what is recorded
already, and to move SQLite's log into its file, takes some."""
SPARE = 2**20
"""Bytes in the spool's own file that were freed; with so many, it needs nothing from the disk."""
OFTEN_S = 1.0
"""How long what was seen counts, in seconds."""
STEP = 2**20
"""After how many appended bytes there is another look, at the latest."""
CALL = 8192
"""Bytes that an append takes beside its entries."""
ROUNDS, PORTION = 16, 2**17
"""How often an append deletes what was shipped to make room, and how many bytes of it at a time."""
EASE = 15 / 16
"""Once it was full, the spool takes entries again below this part of its limit: not one by one, each with its gap."""
QUARANTINE = 4
"""What lies in quarantine has room of its own, of the limit divided by this; only what is beyond that counts too."""
SELDOM_S = 10.0
"""How often all that lies in quarantine is added up anew for a spool that is full, in seconds."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How much may wait in a spool."""

    size: int = 2**30
    """Bytes that entries may take. What was shipped, and is kept to be sent again, makes room where it is needed."""
    age_s: int | None = None
    """For how long the oldest entry may wait, in seconds; None: for ever."""


class QuarantineFull(SpoolFull):
    """There would be room for the entry, had the quarantine not outgrown its own."""


class Room:
    """Whether there is room for entries, as one process sees it."""

    def __init__(self, path: Path, limits: Limits) -> None:
        self._path = path
        self._limits = limits
        self._left = 0
        self._again = 0.0
        self._was_full = False
        self._aside, self._newest, self._anew = 0, 0, 0.0

    def take(self, db: apsw.Connection, size: int) -> bool:
        """Take the room for entries of `size` bytes; say whether there was a look. Raises SpoolFull."""
        self._left -= size + CALL
        if self._left >= 0 and time.monotonic() < self._again:
            return False
        for _ in range(ROUNDS):
            full, self._left = self._look(db)
            if full is None:
                break
            if not self._made(db, full.reason):
                self._was_full = True
                raise full
        self._was_full = False
        self._again = time.monotonic() + OFTEN_S
        self._left -= size + CALL
        return True

    def refusal(self, db: apsw.Connection) -> SpoolFull | None:
        """Why an entry would be refused now; None where it would not."""
        full, _ = self._look(db)
        if full is None or full.reason == "age" or not _has_shipped(db):
            return full
        # What was shipped makes room for the next entry. On a full disk that may fail: whoever can, keeps some spare.
        return full if full.reason == "disk" and used_bytes(db)[1] < SPARE // 2 else None

    def counted(self, db: apsw.Connection) -> tuple[int, int]:
        """How many bytes count towards the limit, and how many of these are the quarantine's, beyond its own room."""
        self._anew = 0.0
        return self._counted(db)

    def _counted(self, db: apsw.Connection) -> tuple[int, int]:
        if time.monotonic() >= self._anew:
            self._aside, self._newest, self._anew = 0, 0, time.monotonic() + SELDOM_S
        more, self._newest = db.execute(
            "SELECT coalesce(sum(length(body) + length(reason)), 0), coalesce(max(sequence), ?1) FROM quarantine "
            "WHERE sequence > ?1",
            (self._newest,),
        ).get
        self._aside += more
        own = min(self._aside, self._limits.size // QUARANTINE)
        return used_bytes(db)[0] - own, self._aside - own

    def make(self, db: apsw.Connection) -> None:
        """Make what room there can be made on a disk that is full."""
        with suppress(apsw.Error, OSError):
            self._made(db, "disk")

    def _made(self, db: apsw.Connection, reason: str) -> bool:
        """Whether some room was made."""
        if reason != "disk":
            return reason != "age" and delete_shipped(db, PORTION) > 0
        log = self._log_size()
        # What is deleted is written to SQLite's log first, which may be full itself: then it is used from its beginning
        # again, once all of it is in the database. Only in the end is what it takes given back to the disk.
        for mode in ("PASSIVE", "RESTART", "TRUNCATE"):
            with suppress(apsw.FullError):
                if delete_shipped(db, PORTION):
                    return True
            with suppress(apsw.FullError):
                if log > CALL:
                    db.execute(f"PRAGMA wal_checkpoint({mode})")
        return self._log_size() < log

    def _log_size(self) -> int:
        return log_of(self._path).stat().st_size

    def _look(self, db: apsw.Connection) -> tuple[SpoolFull | None, int]:
        """Why there is no room; where there is, how many bytes may be appended before another look."""
        used, spare = used_bytes(db)
        ease = EASE if self._was_full else 1
        beyond = 0
        if used > (most := self._limits.size * ease):
            used, beyond = self._counted(db)
        if used > most:
            return self._full(used, beyond, most), 0
        free, size = free_bytes(self._path.parent)
        floor = min(FLOOR, size // 8)
        if free < floor / ease and spare < SPARE:
            return SpoolFull(
                f"{self._path}: the disk is full: {free:,} bytes are free, and {floor:,} are left for what is recorded "
                "already; free some room",
            ), 0
        if self._limits.age_s is not None and (waited := oldest_ms(db)) > self._limits.age_s * 1000:
            return SpoolFull(
                f"{self._path}: the oldest entry in the spool has waited for {waited // 1000:,} s, and AUDIT_SPOOL_AGE "
                f"is {self._limits.age_s:,}; see to the store (`audit-pipeline doctor`), or raise the limit",
                "age",
            ), 0
        # Other processes take of it too.
        return None, min((self._limits.size - used) // 4, max(free - floor, spare) // 4, STEP)

    def _full(self, used: int, beyond: int, most: float) -> SpoolFull:
        if used - beyond <= most:
            return QuarantineFull(
                f"{self._path}: the spool is full: {self._aside:,} bytes of entries lie in quarantine, which is "
                f"{beyond:,} more than it has room of its own, and AUDIT_SPOOL_LIMIT is {self._limits.size:,}; see "
                "`audit-pipeline quarantine list`, let `audit-pipeline quarantine retry` store them, or raise it",
                "limit",
            )
        return SpoolFull(
            f"{self._path}: the spool is full: it holds {used:,} bytes of entries that no store has yet, and "
            f"AUDIT_SPOOL_LIMIT is {self._limits.size:,}; see to the store (`audit-pipeline doctor`), or raise the "
            "limit",
            "limit",
        )


def used_bytes(db: apsw.Connection) -> tuple[int, int]:
    """How many bytes of the spool's file are in use, and how many are free for more."""
    pages, free, size = (db.execute(f"PRAGMA {name}").get for name in ("page_count", "freelist_count", "page_size"))
    return (pages - free) * size, free * size


def delete_shipped(db: apsw.Connection, size: int, before: int | None = None) -> int:
    """Delete the oldest of the entries that were shipped, of about `size` bytes, and return how many.

    Where `before` is given (ms), only those received earlier.
    """
    rows = db.execute(
        "SELECT sequence, length(body) FROM entries WHERE sequence <= (SELECT shipped FROM meta) "
        "AND sequence < (SELECT max(sequence) FROM entries) AND (?1 IS NULL OR received < ?1) ORDER BY sequence",
        (before,),
    )
    last = 0
    for sequence, length in rows:
        last = sequence
        size -= length
        if size <= 0:
            break
    rows.close()
    if not last:
        return 0
    with db:
        db.execute("DELETE FROM entries WHERE sequence <= ?", (last,))
    return db.changes()


def _has_shipped(db: apsw.Connection) -> bool:
    return bool(
        db.execute(
            "SELECT min(sequence) <= (SELECT shipped FROM meta) AND min(sequence) < max(sequence) FROM entries"
        ).get
    )


def try_write(db: apsw.Connection) -> None:
    """Write a page. Raises SQLite's errors."""
    with db:
        # Changed and changed back, a page is written; an UPDATE to what is there already would write nothing.
        db.execute("INSERT INTO quarantine VALUES (0, 0, '', x''); DELETE FROM quarantine WHERE sequence = 0")


def oldest_ms(db: apsw.Connection) -> int:
    """For how long the oldest pending entry has waited, in milliseconds."""
    oldest = db.execute(
        "SELECT received FROM entries WHERE sequence > (SELECT shipped FROM meta) ORDER BY sequence LIMIT 1"
    ).get
    return max(0, now_ms() - oldest) if oldest is not None else 0
