"""The local spool: one SQLite file that a host's processes share, where an entry is on disk before its call returns.

Entries get a `sequence` here: 1, 2, 3 … without gaps. The shipper reads them in that order, and moves a mark when a
store has taken them. What it shipped is kept for a day, within a size, so that it can be sent again.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import apsw

from .database import transaction, use_wal
from .errors import SettingsError, SpoolError, SpoolFull, SpoolMismatch
from .event import AuditEvent, now_ms
from .files import FileId, file_id, make_private
from .forking import WAIT_S, abandon, prepare_for_forks

__all__ = ["QuarantineRow", "Quarantined", "Spool", "SpoolStatus"]

APPLICATION_ID = 0x41554453
VERSION = 1
BUSY_MS = 5_000
"""How long a call waits for another process's write, in milliseconds, before it raises."""
KEEP_MS = 86_400_000
"""How long shipped entries are kept, in milliseconds."""
KEEP_BYTES = 256 * 2**20
"""How many bytes of shipped entries are kept at the most."""

# The newest row is never deleted: its number is how SQLite knows the next one, so that there are no gaps.
_SCHEMA = f"""
CREATE TABLE meta (
    store TEXT NOT NULL, origin TEXT NOT NULL, shipped INTEGER NOT NULL
) STRICT;
CREATE TABLE entries (sequence INTEGER PRIMARY KEY, received INTEGER NOT NULL, body BLOB NOT NULL) STRICT;
CREATE TABLE quarantine (
    sequence INTEGER PRIMARY KEY, at INTEGER NOT NULL, reason TEXT NOT NULL, body BLOB NOT NULL
) STRICT;
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {VERSION};
"""

_log = logging.getLogger("audit_pipeline.spool")

_DURABILITY = {"disk": "FULL", "process": "NORMAL"}


@dataclass(frozen=True, slots=True)
class SpoolStatus:
    """How a spool stands."""

    accepted: int
    """Entries that this spool ever took."""
    pending: int
    """Entries that no store has yet."""
    oldest_ms: int
    """For how long the oldest pending entry has waited, in milliseconds."""
    quarantined: int
    """Entries that the store can never take."""
    bytes: int
    """The size of the spool's files."""


@dataclass(frozen=True, slots=True)
class Quarantined:
    """An entry that the store refused, and why."""

    event: AuditEvent
    reason: str


@dataclass(frozen=True, slots=True)
class QuarantineRow:
    """What lies in quarantine at one place."""

    sequence: int
    """Its place in the spool."""
    at: int
    """When it was put there: milliseconds since the epoch, UTC."""
    reason: str
    event: AuditEvent | None
    """None where it is damaged, and cannot be read."""


class Spool:
    """A process's way into the spool file. Serves all threads, and survives fork.

    `store` is the identity of the store that the spool serves; None opens a spool that exists already, whatever it
    serves. `durability` is `disk` (on disk when a call returns) or `process` (survives the end of the process, not a
    power loss). A local disk is needed: SQLite's locks do not hold on network file systems.
    """

    def __init__(self, path: Path, store: str | None, durability: str = "disk") -> None:
        if durability not in _DURABILITY:
            raise SettingsError(f"durability: {durability!r} is not allowed; allowed are {', '.join(_DURABILITY)}")
        self.path = path
        self._store = store
        self._durability = durability
        self._lock = threading.RLock()
        self._busy = False
        self._interrupting: list[tuple[int, bytes]] = []
        self._db: apsw.Connection | None = None
        self._file: FileId | None = None
        self._closed = False
        self._held = False
        self._changes = -1
        self.origin = ""
        """The name this spool gave itself when it was made."""
        prepare_for_forks(self)
        with self._connection():
            pass

    def append(self, events: Sequence[AuditEvent]) -> int:
        """Put entries on disk, all or none, and return the last one's sequence. Raises SpoolError: none is recorded."""
        rows = [(event.received, event.to_bytes()) for event in events]
        with self._lock:
            if self._busy:
                # A signal handler recorded in the middle of this thread's own call, which writes these too.
                self._interrupting += rows
                return 0
        with self._connection() as db:
            return _insert(db, rows)

    def pending(self, limit: int = 1000, size: int = 4 * 2**20) -> list[AuditEvent]:
        """The next entries to ship, in order: up to `limit` of them, and about `size` bytes."""
        events: list[AuditEvent] = []
        damaged: list[tuple[int, int, str, bytes]] = []
        with self._connection() as db:
            rows = db.execute(
                "SELECT body, sequence FROM entries WHERE sequence > (SELECT shipped FROM meta) "
                "ORDER BY sequence LIMIT ?",
                (limit,),
            )
            for body, sequence in rows:
                event = _readable(body, self.origin, sequence)
                if event is None:
                    damaged.append((sequence, now_ms(), "it is damaged, and cannot be read", body))
                    continue
                events.append(event)
                size -= len(body)
                if size <= 0:
                    break
            if damaged:
                # Set aside as it is: one damaged row must not hold up those behind it.
                with transaction(db, "IMMEDIATE"):
                    db.executemany("INSERT OR IGNORE INTO quarantine VALUES (?, ?, ?, ?)", damaged)
        if damaged and not events:
            self.mark_shipped(damaged[-1][0])
            return self.pending(limit, size)
        return events

    def mark_shipped(self, upto: int, refused: Sequence[Quarantined] = ()) -> None:
        """Say that a store has all entries up to this sequence but the refused ones, which are put in quarantine."""
        with self._connection() as db, transaction(db, "IMMEDIATE"):
            db.executemany(
                "INSERT OR IGNORE INTO quarantine VALUES (?, ?, ?, ?)",
                [(one.event.sequence, now_ms(), one.reason, one.event.to_bytes()) for one in refused],
            )
            db.execute("UPDATE meta SET shipped = max(shipped, ?)", (upto,))

    def trim(self, batch: int = 10_000) -> int:
        """Delete shipped entries that are older than a day, or beyond the size kept. Returns how many."""
        with self._connection() as db, transaction(db, "IMMEDIATE"):
            used = db.execute("SELECT (SELECT * FROM pragma_page_count) - (SELECT * FROM pragma_freelist_count)").get
            crowded = used * db.execute("PRAGMA page_size").get > KEEP_BYTES
            db.execute(
                "DELETE FROM entries WHERE sequence IN (SELECT sequence FROM entries WHERE "
                "sequence <= (SELECT shipped FROM meta) AND sequence < (SELECT max(sequence) FROM entries) "
                "AND (? OR received < ?) ORDER BY sequence LIMIT ?)",
                (crowded, now_ms() - KEEP_MS, batch),
            )
            return db.changes()

    def shipped(self) -> int:
        """The sequence up to which a store has everything."""
        with self._connection() as db:
            upto: int = db.execute("SELECT shipped FROM meta").get
            return upto

    def changed(self) -> bool:
        """Whether another connection wrote to the spool since this was last asked."""
        with self._connection() as db:
            version: int = db.execute("PRAGMA data_version").get
            changed, self._changes = version != self._changes, version
            return changed

    def quarantined(self) -> list[Quarantined]:
        """The entries in quarantine, in order; without those that are damaged."""
        return [Quarantined(row.event, row.reason) for row in self.quarantine() if row.event is not None]

    def quarantine(self, limit: int = -1) -> list[QuarantineRow]:
        """What lies in quarantine, in order; with a limit, the first of it."""
        with self._connection() as db:
            rows: list[Any] = db.execute(
                "SELECT sequence, at, reason, body FROM quarantine ORDER BY sequence LIMIT ?", (limit,)
            ).fetchall()
        return [
            QuarantineRow(sequence, at, reason, _readable(body, self.origin, sequence))
            for sequence, at, reason, body in rows
        ]

    def settle(self, taken: Iterable[int], refused: Mapping[int, str]) -> None:
        """Say what became of entries in quarantine that a store was offered again: all of it, or nothing.

        Those taken leave it; those refused stay, each (by its sequence) with its new reason. The mark of what is
        shipped has passed them all, and does not move.
        """
        with self._connection() as db, transaction(db, "IMMEDIATE"):
            db.executemany("DELETE FROM quarantine WHERE sequence = ?", [(sequence,) for sequence in taken])
            db.executemany(
                "UPDATE quarantine SET reason = ? WHERE sequence = ?",
                [(reason, sequence) for sequence, reason in refused.items()],
            )

    def quarantine_reasons(self) -> list[str]:
        """Why there are entries in quarantine, each reason once."""
        with self._connection() as db:
            return [str(reason) for (reason,) in db.execute("SELECT DISTINCT reason FROM quarantine ORDER BY reason")]

    def status(self) -> SpoolStatus:
        """How the spool stands now."""
        with self._connection() as db:
            accepted, shipped, oldest, quarantined = next(
                db.execute(
                    "SELECT coalesce(max(sequence), 0), (SELECT shipped FROM meta), (SELECT received FROM entries "
                    "WHERE sequence > (SELECT shipped FROM meta) ORDER BY sequence LIMIT 1), "
                    "(SELECT count(*) FROM quarantine) FROM entries"
                )
            )
        size = sum(file.stat().st_size for file in self._files() if file.exists())
        waited = max(0, now_ms() - oldest) if oldest is not None else 0
        return SpoolStatus(accepted, accepted - shipped, waited, quarantined, size)

    def serves(self) -> str:
        """The identity of the store that this spool remembers."""
        with self._connection() as db:
            store: str = db.execute("SELECT store FROM meta").get
            return store

    def close(self) -> None:
        """Free what this process holds. What is in the spool stays. May be called twice."""
        with self._lock:
            self._closed = True
            if self._db is not None:
                self._db.close()
                self._db = None

    def before_fork(self) -> None:
        """Close the connection between two transactions. See forking."""
        self._held = self._lock.acquire(timeout=WAIT_S)
        if self._held and self._db is not None:
            self._db.close()
            self._db = None

    def after_fork_in_parent(self) -> None:
        """Go on."""
        if self._held:
            self._lock.release()

    def after_fork_in_child(self) -> None:
        """Go on, with a connection of its own."""
        self._lock = threading.RLock()
        self._busy = False
        self._interrupting = []  # the parent writes them
        if self._db is not None:
            abandon(self._db)
            self._db = None

    def _files(self) -> list[Path]:
        return [self.path.with_name(self.path.name + suffix) for suffix in ("", "-wal", "-shm")]

    # The file

    @contextmanager
    def _connection(self) -> Iterator[apsw.Connection]:
        with self._lock, self._translated():
            if self._busy:
                raise SpoolError(f"{self.path}: asked in a signal handler, in the middle of a call; only record there")
            self._busy = True
            try:
                yield self._ready()
            finally:
                self._finish()

    def _finish(self) -> None:
        """End a call: first write what signal handlers recorded in the middle of it, whichever call it was."""
        try:
            while self._interrupting:
                rows = list(self._interrupting)
                _insert(self._ready(), rows)
                del self._interrupting[: len(rows)]
        finally:
            self._busy = False
        if self._interrupting:  # one more came between the last look and the line above
            with self._connection():
                pass

    def _ready(self) -> apsw.Connection:
        if self._closed:
            raise SpoolError(f"{self.path}: the pipeline is closed; open another one")
        if self._db is not None and file_id(self.path) != self._file:
            _log.error("%s: the spool was deleted or replaced; going on with what is there now", self.path)
            # Closing it would delete the journal of whatever is at its path now.
            abandon(self._db)
            self._db = None
        if self._db is None:
            self._db = self._open()
        return self._db

    def _open(self) -> apsw.Connection:
        if file_id(self.path) is None:
            if self._store is None:
                raise SpoolError(f"{self.path}: there is no spool; check AUDIT_SPOOL")
            make_private(self.path)
        db = apsw.Connection(str(self.path), flags=apsw.SQLITE_OPEN_READWRITE)
        try:
            db.set_busy_timeout(BUSY_MS)
            use_wal(db, BUSY_MS)
            db.execute(f"PRAGMA synchronous = {_DURABILITY[self._durability]}")
            with transaction(db, "IMMEDIATE"):
                if not self._is_spool(db):
                    db.execute(_SCHEMA)
                    db.execute("INSERT INTO meta VALUES (?, ?, 0)", (self._store, os.urandom(8).hex()))
                store, self.origin = next(db.execute("SELECT store, origin FROM meta"))
            if self._store is not None and store != self._store:
                raise SpoolMismatch(
                    f"{self.path}: this spool serves the store {store}, not {self._store}; give each store a spool of "
                    "its own (AUDIT_SPOOL)"
                )
        except BaseException:
            db.close()
            raise
        self._file = file_id(self.path)
        return db

    def _is_spool(self, db: apsw.Connection) -> bool:
        application = db.execute("PRAGMA application_id").get
        version = db.execute("PRAGMA user_version").get
        if application == APPLICATION_ID and version == VERSION:
            return True
        if application == APPLICATION_ID:
            raise SpoolMismatch(
                f"{self.path}: is a spool of version {version}, this program knows version {VERSION}; "
                "upgrade audit-pipeline"
            )
        if application or version or db.execute("SELECT count(*) FROM sqlite_schema").get or self._store is None:
            raise SpoolMismatch(f"{self.path}: is no spool; AUDIT_SPOOL must name a file of its own")
        return False

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """SQLite's errors as this package's."""
        try:
            yield
        except OSError as error:
            raise SpoolError(
                f"{self.path}: the spool cannot be created: {error.strerror}; AUDIT_SPOOL names a file in a folder "
                "that exists and can be written"
            ) from error
        except apsw.FullError as error:
            raise SpoolFull(f"{self.path}: the disk is full; free some room") from error
        except apsw.NotADBError as error:
            raise SpoolMismatch(f"{self.path}: is no spool; AUDIT_SPOOL must name a file of its own") from error
        except apsw.BusyError as error:
            raise SpoolError(f"{self.path}: another process has held the spool for {BUSY_MS // 1000} s") from error
        except apsw.Error as error:
            raise SpoolError(
                f"{self.path}: the spool cannot be used ({type(error).__name__}: {error}); check its disk, its rights "
                "and its folder's"
            ) from error


def _readable(body: bytes, origin: str, sequence: int) -> AuditEvent | None:
    try:
        return AuditEvent.from_bytes(body, origin, sequence)
    except (ValueError, KeyError, TypeError):
        return None


def _insert(db: apsw.Connection, rows: Sequence[tuple[int, bytes]]) -> int:
    with transaction(db, "IMMEDIATE"):
        db.executemany("INSERT INTO entries (received, body) VALUES (?, ?)", rows)
        return db.last_insert_rowid()
