"""The local spool: one SQLite file that a host's processes share, where an entry is on disk before its call returns.

Entries get a `sequence` here: 1, 2, 3 … without gaps. The shipper reads them in that order, and moves a mark when a
store has taken them. What it shipped is kept for a day, within a size, so that it can be sent again.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import apsw

from .errors import SpoolError
from .event import AuditEvent, now_ms
from .files import FileId, free_bytes
from .group_commit import GroupCommit, Row
from .room import Limits, Room, delete_shipped, oldest_ms, try_write, used_bytes
from .salvage import DAMAGED, damaged_files, readable
from .spool_file import SpoolFile, appending, repairing

__all__ = ["Limits", "QuarantineRow", "Quarantined", "Spool", "SpoolStatus"]

KEEP_MS = 86_400_000
"""How long shipped entries are kept, in milliseconds."""
KEEP_BYTES = 256 * 2**20
"""How many bytes of shipped entries are kept at the most."""
TRIM_BYTES = 2**16
"""How many bytes are deleted at a time: log calls wait meanwhile."""
NO_LIMITS = Limits()


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
    used: int
    """How many bytes of them hold entries: what AUDIT_SPOOL_LIMIT limits, without the quarantine's own room."""
    crowding: int
    """Bytes of these that the quarantine takes of the room for entries that wait, since it has outgrown its own."""
    free: int
    """Bytes that are free on its disk."""
    damaged: tuple[Path, ...]
    """Damaged spools that were set aside, and that nobody has moved away yet."""


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

    A file that turns out to be damaged, in whichever call, is set aside; what can be read of it goes on in a new one.
    """

    def __init__(
        self,
        path: Path,
        store: str | None,
        durability: str = "disk",
        limits: Limits = NO_LIMITS,
        *,
        at_once: bool = True,
    ) -> None:
        """Opens the file, unless it is not to be done `at_once`: then the first call does. Raises SpoolError."""
        self.file = SpoolFile(path, store, durability)
        self.path = self.file.path
        self._durability = durability
        self._room = Room(self.path, limits)
        self._group = GroupCommit()
        self._read_from: FileId | None = None
        self._stored = self._written = 0
        if at_once:
            self.serves()

    @property
    def origin(self) -> str:
        """The name this spool gave itself when it was made."""
        return self.file.origin

    # Entries

    def append(self, events: Sequence[AuditEvent]) -> int:
        """Put entries on disk, all or none, and return the last one's sequence. Raises SpoolError: none is recorded.

        SpoolFull where they find no room.
        """
        rows = [(event.received, event.to_bytes()) for event in events]
        is_main = threading.get_ident() == threading.main_thread().ident
        try:
            if not (is_main or self._group.is_inside or self.file.is_held):
                return self._group.append(rows, self._append, self._is_kept)
            if self.file.interrupts(rows):
                return 0
            return self._append(rows)
        finally:
            if not self._group.is_inside:
                self.file.say()

    @appending
    def _append(
        self, db: apsw.Connection, rows: Sequence[Row], note: Callable[[int], None] = lambda sequence: None
    ) -> int:
        looked = self._room.take(db, sum(len(body) for _, body in rows))
        try:
            sequence = self.file.insert(rows, note)
        except apsw.FullError:
            self._room.make(db)
            sequence = self.file.insert(rows, note)
        # Of what is not synced yet, a power loss may take entries and leave the card.
        if looked and self._durability == "disk":
            self.file.card.note(sequence, self.origin)
        return sequence

    @repairing
    def _is_kept(self, db: apsw.Connection, sequence: int, body: bytes) -> bool:
        found: bytes | None = db.execute("SELECT body FROM entries WHERE sequence = ?", (sequence,)).get
        return found == body

    def pending(
        self, limit: int = 1000, size: int = 4 * 2**20, between: Callable[[], None] = lambda: None
    ) -> list[AuditEvent]:
        """The next entries to ship, in order: up to `limit` of them, and about `size` bytes.

        `between` is called between two of them; nobody waits for this object meanwhile.
        """
        while rows := self._rows(None, limit, size):
            events, damaged = self._events(rows, between)
            if damaged:
                # Set aside as it is: one damaged row must not hold up those behind it.
                self._set_aside(damaged)
            if events:
                return events
            self.mark_shipped(rows[-1][0])
        return []

    def kept(self, after: int, limit: int = 1000, size: int = 4 * 2**20) -> list[AuditEvent]:
        """The entries after a sequence, whether they were shipped or not: as `pending` otherwise."""
        while rows := self._rows(after, limit, size):
            events, _ = self._events(rows, lambda: None)
            if events:
                return events
            after = rows[-1][0]
        return []

    @repairing
    def first_kept(self, db: apsw.Connection) -> int:
        """The sequence of the oldest entry that is still there: those before it were deleted. 0 where there is none."""
        first: int = db.execute("SELECT coalesce(min(sequence), 0) FROM entries").get
        return first

    @repairing
    def _rows(self, db: apsw.Connection, after: int | None, limit: int, size: int) -> list[tuple[int, bytes]]:
        """Sequence and body of the entries after a sequence, or of those that no store has."""
        found: list[tuple[int, bytes]] = []
        if after is None:
            if self._read_from != self.file.id:
                self._read_from, self._stored, self._written = self.file.id, 0, 0
            after = max(self._stored, db.execute("SELECT shipped FROM meta").get)
        rows = db.execute(
            "SELECT sequence, body FROM entries WHERE sequence > ? ORDER BY sequence LIMIT ?", (after, limit)
        )
        for sequence, body in rows:
            found.append((sequence, body))
            size -= len(body)
            if size <= 0:
                break
        rows.close()
        return found

    def _events(
        self, rows: Sequence[tuple[int, bytes]], between: Callable[[], None]
    ) -> tuple[list[AuditEvent], list[tuple[int, int, str, bytes]]]:
        """The entries of rows, and, as rows of the quarantine, those that cannot be read."""
        events: list[AuditEvent] = []
        damaged: list[tuple[int, int, str, bytes]] = []
        for sequence, body in rows:
            between()
            event = readable(body, self.origin, sequence)
            if event is None:
                damaged.append((sequence, now_ms(), DAMAGED, body))
            else:
                events.append(event)
        return events, damaged

    @repairing
    def _set_aside(self, db: apsw.Connection, damaged: Sequence[tuple[int, int, str, bytes]]) -> None:
        if self._read_from == self.file.id:
            with db:
                db.executemany("INSERT OR IGNORE INTO quarantine VALUES (?, ?, ?, ?)", damaged)

    # The mark

    def note_stored(self, upto: int) -> None:
        """Remember that a store has all that `pending` gave up to this sequence; `mark_stored` writes it down."""
        self._stored = max(self._stored, upto)

    def mark_stored(self) -> None:
        """Write down what `note_stored` was told."""
        if self._stored > self._written:
            self.mark_shipped(self._stored)
            self._written = self._stored

    @repairing
    def mark_shipped(self, db: apsw.Connection, upto: int, refused: Sequence[Quarantined] = ()) -> None:
        """Say that a store has all entries up to this sequence but the refused ones, which are put in quarantine.

        Where `pending` read them from a file that was replaced since, this does nothing: they are given out again.
        """
        if self._read_from not in (None, self.file.id):
            return
        with db:
            db.executemany(
                "INSERT OR IGNORE INTO quarantine VALUES (?, ?, ?, ?)",
                [(one.event.sequence, now_ms(), one.reason, one.event.to_bytes()) for one in refused],
            )
            db.execute("UPDATE meta SET shipped = max(shipped, ?)", (upto,))

    @repairing
    def trim(self, db: apsw.Connection) -> int:
        """Delete some of the shipped entries that are older than a day, or beyond the size kept; say how many."""
        crowded = used_bytes(db)[0] > KEEP_BYTES
        return delete_shipped(db, TRIM_BYTES, None if crowded else now_ms() - KEEP_MS)

    @repairing
    def shipped(self, db: apsw.Connection) -> int:
        """The sequence up to which a store has everything."""
        upto: int = db.execute("SELECT shipped FROM meta").get
        return upto

    @repairing
    def version(self, db: apsw.Connection) -> tuple[int, int]:
        """What is something else when another connection has written to the spool, or may have."""
        # SQLite counts for each connection by itself, and from the same number.
        return self.file.openings, db.execute("PRAGMA data_version").get

    # Quarantine

    def quarantined(self) -> list[Quarantined]:
        """The entries in quarantine, in order; without those that are damaged."""
        return [Quarantined(row.event, row.reason) for row in self.quarantine() if row.event is not None]

    def quarantine(self, limit: int = -1) -> list[QuarantineRow]:
        """What lies in quarantine, in order; with a limit, the first of it."""
        return [
            QuarantineRow(sequence, at, reason, readable(body, self.origin, sequence))
            for sequence, at, reason, body in self._quarantine(limit)
        ]

    @repairing
    def _quarantine(self, db: apsw.Connection, limit: int) -> list[Any]:
        rows: list[Any] = db.execute(
            "SELECT sequence, at, reason, body FROM quarantine ORDER BY sequence LIMIT ?", (limit,)
        ).fetchall()
        return rows

    def settle(self, taken: Iterable[int], refused: Mapping[int, str]) -> None:
        """Say what became of entries in quarantine that a store was offered again: all of it, or nothing.

        Those taken leave it; those refused stay, each (by its sequence) with its new reason. The mark of what is
        shipped has passed them all, and does not move.
        """
        self._settle(list(taken), refused)

    @repairing
    def _settle(self, db: apsw.Connection, taken: Sequence[int], refused: Mapping[int, str]) -> None:
        # Pages that are freed keep their rows, which a repair would find again, unless they are overwritten.
        db.execute("PRAGMA secure_delete = ON")
        try:
            with db:
                db.executemany("DELETE FROM quarantine WHERE sequence = ?", [(sequence,) for sequence in taken])
                db.executemany(
                    "UPDATE quarantine SET reason = ? WHERE sequence = ?",
                    [(reason, sequence) for sequence, reason in refused.items()],
                )
        finally:
            db.execute("PRAGMA secure_delete = OFF")

    @repairing
    def quarantine_reasons(self, db: apsw.Connection) -> list[str]:
        """Why there are entries in quarantine, each reason once."""
        return [str(reason) for (reason,) in db.execute("SELECT DISTINCT reason FROM quarantine ORDER BY reason")]

    # State

    @repairing
    def status(self, db: apsw.Connection) -> SpoolStatus:
        """How the spool stands now."""
        accepted, shipped, quarantined = db.execute(
            "SELECT coalesce(max(sequence), 0), (SELECT shipped FROM meta), (SELECT count(*) FROM quarantine) "
            "FROM entries"
        ).get
        waited = oldest_ms(db)
        used, crowding = self._room.counted(db)
        files = [self.path.with_name(self.path.name + suffix) for suffix in ("", "-wal", "-shm")]
        return SpoolStatus(
            accepted=accepted,
            pending=accepted - shipped,
            oldest_ms=waited,
            quarantined=quarantined,
            bytes=sum(file.stat().st_size for file in files if file.exists()),
            used=used,
            crowding=crowding,
            free=free_bytes(self.path.parent)[0],
            damaged=damaged_files(self.path),
        )

    def refusal(self) -> SpoolError | None:
        """Why an entry would be refused at the moment; None where it would be recorded."""
        try:
            return self._refusal()
        except SpoolError as error:
            return error

    @repairing
    def _refusal(self, db: apsw.Connection) -> SpoolError | None:
        refusal = self._room.refusal(db)
        if refusal is None:
            # Neither rights nor how a disk is mounted tell whether it still takes what is written.
            try_write(db)
        return refusal

    @repairing
    def serves(self, db: apsw.Connection) -> str:
        """The identity of the store that this spool remembers."""
        store: str = db.execute("SELECT store FROM meta").get
        return store

    def close(self) -> None:
        """Free what this process holds. What is in the spool stays. May be called twice."""
        self.file.close()
