"""Makes a new spool of what can be read of a damaged one, whose files are set aside. No entry is deleted.

A repair goes through four states, which the names on disk tell, so that whoever comes next finishes what was begun:
the spool; `.mending` (set aside, not read yet); `.mending` and a new spool (read); `.damaged-<time>` and the new spool.
The caller sees to it that nobody else opens or repairs the spool meanwhile.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import apsw

from .card import Card, Known
from .errors import SpoolError
from .event import AuditEvent, format_timestamp, now_ms, uuid7
from .files import make_private, sync_folder
from .gaps import gap_entry
from .pages import Pages, Row

__all__ = ["DAMAGED", "Repaired", "damaged_files", "entries_are", "is_unfinished", "readable", "repair"]

FAR = 2**20
"""How far beyond the last known sequence one may be; what is further away is damaged, and gets another one."""
FILES = ("", "-wal", "-shm")
"""What a database's files are called after its name."""
DAMAGED = "it is damaged, and cannot be read"
"""Why a row that cannot be read lies in quarantine."""


@dataclass(frozen=True, slots=True)
class Repaired:
    """What came of a repair."""

    aside: Path
    """Where the damaged file lies."""
    missing: int
    """How many entries could not be read, at the least: the newest may have left no trace."""


@dataclass(frozen=True, slots=True)
class Meta:
    """What a spool says of itself."""

    store: str
    origin: str
    shipped: int


class Kept(NamedTuple):
    """An entry as its row has it."""

    sequence: int
    received: int
    body: bytes


class Refused(NamedTuple):
    """An entry in quarantine as its row has it."""

    sequence: int
    at: int
    reason: str
    body: bytes


def readable(body: bytes, origin: str, sequence: int) -> AuditEvent | None:
    """The entry that a row holds; None where it is damaged."""
    try:
        return AuditEvent.from_bytes(body, origin, sequence)
    except (ValueError, KeyError, TypeError):
        return None


class Remains:
    """The rows of a damaged spool that can be read. Raises OSError where the file itself cannot be opened."""

    def __init__(self, path: Path) -> None:
        self._pages = Pages(path)
        found = [_meta(row) for row in self._pages.rows(at_most=1)]
        self.meta = max(filter(None, found), key=lambda meta: meta.shipped, default=None)
        """What it says of itself; None where that cannot be read."""

    def rows(self) -> Iterator[Kept | Refused]:
        """Entries and quarantine, in no order; an entry may come twice."""
        for row in self._pages.rows():
            match row.values:
                case (None, int(received), bytes(body)):
                    yield Kept(row.number, received, body)
                case (None, int(at), str(reason), bytes(body)):
                    yield Refused(row.number, at, reason, body)

    def close(self) -> None:
        """Let go of the file."""
        self._pages.close()


def _meta(row: Row) -> Meta | None:
    match row.values:
        case (str(store), str(origin), int(shipped)) if shipped >= 0 and origin and store:
            return Meta(store, origin, shipped)
    return None


# Repair


def repair(path: Path, schema: str, known: Known) -> Repaired:
    """Set the spool at `path` aside, or finish what was begun, and put a new one of what can be read in its place.

    `known` stands for what it does not say itself any more. Raises OSError, SpoolError and SQLite's errors: then what
    was set aside waits for the next try.
    """
    aside = _begin(path)
    missing = 0
    if aside is not None:
        made = path.with_name(path.name + ".new")
        try:
            missing = _rebuild(aside, made, path.name, schema, known)
            _give_back(aside, Card(path).path, made)
            made.replace(path)
            sync_folder(path.parent)
        finally:
            made.unlink(missing_ok=True)
    return Repaired(_end(path), missing)


def _give_back(aside: Path, card: Path, made: Path) -> None:
    """Where root repairs, let those who had the spool have the new one too. Raises OSError.

    SQLite itself gives its log to the owner of the database.
    """
    if os.geteuid() != 0:
        return
    # Of a spool that was gone, root made what was set aside; of one without a card, the card.
    found = [(file.stat().st_uid, file.stat().st_gid) for file in (aside, card) if file.exists()]
    owner, group = next((one for one in found if one[0] != 0), (0, 0))
    if owner:
        for file in (made, card):
            with suppress(PermissionError):  # a root that may not
                os.chown(file, owner, group, follow_symlinks=False)


def is_unfinished(path: Path) -> bool:
    """Whether a repair of the spool at this path was begun, and not finished."""
    return _mending(path).exists()


def damaged_files(path: Path) -> tuple[Path, ...]:
    """The damaged spools that lie beside a spool, oldest first. Raises OSError."""
    begun = (_mending(path),) if is_unfinished(path) else ()
    found = (file for file in path.parent.iterdir() if file.name.startswith(f"{path.name}.damaged-"))
    return (*sorted(file for file in found if not file.name.endswith(FILES[1:])), *begun)


def _rebuild(aside: Path, made: Path, name: str, schema: str, known: Known) -> int:
    """Make a new spool of what can be read of a damaged one, and return how many entries are missing."""
    remains: Remains | None = None
    with suppress(OSError):  # not one byte of it can be read
        remains = Remains(aside)
    try:
        meta = remains.meta if remains else None
        store = meta.store if meta else known.store
        if not store:
            raise SpoolError(f"{aside}: does not say which store it serves; open it with that store's URL")
        made.unlink(missing_ok=True)
        make_private(made)
        with closing(apsw.Connection(str(made), flags=apsw.SQLITE_OPEN_READWRITE)) as db:
            # It counts only once it is whole, and in its place: nothing of it has to be undone.
            db.execute("PRAGMA synchronous = FULL; PRAGMA journal_mode = OFF")
            with db:
                db.execute(f"{schema}; CREATE TEMP TABLE unplaced (received INTEGER, body BLOB)")
                origin = meta.origin if meta else known.origin or os.urandom(8).hex()
                shipped = meta.shipped if meta else None
                db.execute("INSERT INTO meta VALUES (?, ?, ?)", (store, origin, shipped or 0))
                accepted = known.accepted if origin == known.origin else 0
                far = max(shipped or 0, accepted) + FAR
                for row in remains.rows() if remains else ():
                    _take(db, row, range((shipped or 0) + 1, far))
                missing = _tell(db, name, shipped, accepted)
            return missing  # noqa: RET504 - once it is kept
    finally:
        if remains is not None:
            remains.close()


def _take(db: apsw.Connection, row: Kept | Refused, pending: range) -> None:
    """Put a row into the new spool; what a store has already stays behind."""
    if isinstance(row, Refused):
        db.execute("INSERT OR IGNORE INTO quarantine VALUES (?, ?, ?, ?)", row)
    elif row.sequence < pending.start:
        return
    elif readable(row.body, "", row.sequence) is None:
        if row.sequence in pending:
            damaged = (row.sequence, now_ms(), DAMAGED, row.body)
            db.execute("INSERT OR IGNORE INTO quarantine VALUES (?, ?, ?, ?)", damaged)
    elif row.sequence in pending:
        db.execute("INSERT OR IGNORE INTO entries VALUES (?, ?, ?)", row)
        if not db.changes() and db.execute("SELECT body FROM entries WHERE sequence = ?", row[:1]).get != row.body:
            db.execute("INSERT INTO unplaced VALUES (?, ?)", row[1:])
    else:
        db.execute("INSERT INTO unplaced VALUES (?, ?)", row[1:])


def _tell(db: apsw.Connection, name: str, shipped: int | None, accepted: int) -> int:
    """Append the entry that tells of the repair and of what is missing, and return how many entries that are.

    `shipped` is None where the spool did not say it: then the store may have what comes before the first entry.
    """
    # Of an entry whose row was found twice, once damaged, the other one counts.
    db.execute("DELETE FROM quarantine WHERE reason = ? AND sequence IN (SELECT sequence FROM entries)", (DAMAGED,))
    first, newest, found = db.execute(
        "WITH kept AS (SELECT sequence FROM entries UNION SELECT sequence FROM quarantine WHERE reason = ?1 AND "
        "sequence > ?2) SELECT coalesce(min(sequence), 0), coalesce(max(sequence), 0), count(*) FROM kept",
        (DAMAGED, shipped or 0),
    ).get
    last = max(newest, shipped or 0, accepted)
    missing: int = last - found - (shipped if shipped is not None else first - 1 if found else last)
    now = now_ms()
    before, after = db.execute(
        "WITH kept AS (SELECT received, sequence, lead(sequence, 1, ?) OVER w AS next, lead(received, 1, ?) OVER w AS "
        "later FROM entries WINDOW w AS (ORDER BY sequence)) SELECT min(received), max(later) FROM kept "
        "WHERE next > sequence + 1",
        (last + 1, now),
    ).get
    detail = "the spool was damaged, and what could be read of it was kept; "
    if missing:
        detail += f"at least {entries_are(missing)} missing, of any organisation"
    elif shipped is None:
        detail += "how many entries are missing cannot be told"
    else:
        detail += "no entry is known to be missing"
    known = missing if missing or shipped is not None else None
    told = {"count": known, "reason": "damaged", "from": _time(before), "to": _time(after)}
    event = gap_entry(uuid7(now, int.from_bytes(os.urandom(10), "big") >> 6), "default", name, detail, now, told)
    # Nor does it get the number of what the store refused: under that, another entry could not be set aside.
    refused = db.execute("SELECT coalesce(max(sequence), 0) FROM quarantine").get
    db.execute("INSERT INTO entries VALUES (?, ?, ?)", (max(last, refused) + 1, event.received, event.to_bytes()))
    db.execute("INSERT INTO entries (received, body) SELECT received, body FROM unplaced")
    # What comes before the first entry waits no more: a store has it, or it is missing.
    db.execute("UPDATE meta SET shipped = max(shipped, (SELECT min(sequence) FROM entries) - 1)")
    return missing


def entries_are(number: int) -> str:
    """How many, in words."""
    return "1 entry is" if number == 1 else f"{number:,} entries are"


def _time(moment: int | None) -> str | None:
    return None if moment is None else format_timestamp(moment)


# Names


def _begin(path: Path) -> Path | None:
    """Set the spool aside, and return where it is now; None where what it held is in the spool at `path` already.

    Raises OSError.
    """
    aside = _mending(path)
    if aside.exists() and path.exists():
        return None
    # The database before its log: who wrote meanwhile sees by its name being gone that it must write again.
    for suffix in FILES:
        file = path.with_name(path.name + suffix)
        if file.exists():
            file.rename(aside.with_name(aside.name + suffix))
    sync_folder(path.parent)
    return aside


def _end(path: Path) -> Path:
    """Give what was set aside the name that it keeps until somebody moves it away, and return that. Raises OSError."""
    aside = _mending(path)
    now = datetime.now(UTC)
    kept = path.with_name(f"{path.name}.damaged-{now:%Y%m%dT%H%M%S}.{now.microsecond // 1000:03d}Z")
    for suffix in reversed(FILES):
        file = aside.with_name(aside.name + suffix)
        if file.exists():
            file.rename(kept.with_name(kept.name + suffix))
    sync_folder(path.parent)
    return kept


def _mending(path: Path) -> Path:
    return path.with_name(path.name + ".mending")
