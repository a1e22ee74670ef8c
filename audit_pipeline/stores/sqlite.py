"""The embedded store: one SQLite file, with FTS5 for the search text.

Three tables: `entries` is narrow, so that filters and counts read little; `contents` has the canonical bytes;
`search` has the tokens that `query.search_texts` made. FTS5's own tokenizer only splits them at spaces again.
"""

from __future__ import annotations

import os
import threading
from array import array
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import pairwise
from pathlib import Path
from time import monotonic
from typing import Any

import apsw

from ..database import cut_log, sync_failed, transaction, use_wal
from ..errors import SettingsError, StoreError, StoreMismatch, StoreMissing, StoreUnavailable
from ..event import AuditEvent
from ..files import FileId, file_id, make_private
from ..forking import WAIT_S, abandon, prepare_for_forks
from ..privacy import network_key, network_range, same_content
from ..query import SEARCH_FIELDS, Query, SortKey, Window, Word, search_texts, sort_key
from .base import QUERY_S, Arrival, Arrivals, Page, Refusal, Snapshot, Store, StoreURL, numbered

__all__ = ["STORE", "SQLiteStore"]

APPLICATION_ID = 0x41554454
VERSION = 1
BUSY_MS = 10_000
"""How long a statement waits for another process's lock, in milliseconds."""

_SCHEMA = f"""
CREATE TABLE orgs (org INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE) STRICT;
CREATE TABLE entries (
    number INTEGER PRIMARY KEY,
    org INTEGER NOT NULL,
    id BLOB NOT NULL,
    timestamp INTEGER NOT NULL,
    action TEXT NOT NULL,
    category TEXT NOT NULL,
    user TEXT NOT NULL,
    outcome TEXT NOT NULL,
    network TEXT NOT NULL,
    tone TEXT NOT NULL
) STRICT;
CREATE UNIQUE INDEX entries_by_id ON entries (org, id);
CREATE INDEX entries_by_time ON entries (org, timestamp, id);
CREATE INDEX entries_by_action ON entries (org, action, timestamp, id);
CREATE INDEX entries_by_user ON entries (org, user, timestamp, id);
CREATE TABLE contents (
    number INTEGER PRIMARY KEY, origin TEXT NOT NULL, sequence INTEGER NOT NULL, body BLOB NOT NULL
) STRICT;
CREATE VIRTUAL TABLE search USING fts5({", ".join(SEARCH_FIELDS)}, content='', columnsize=0, tokenize='ascii');
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {VERSION};
"""

RARE = 5_000
"""Fewer entries than these, found by their words, are all looked at; of more, only those that come first in order."""

# For each sort: its columns, the first of them the one that leads, each with whether it descends.
_ORDERS = {
    "-timestamp": (("timestamp", True), ("id", True)),
    "timestamp": (("timestamp", False), ("id", False)),
    "action": (("action", False), ("timestamp", True), ("id", True)),
    "-action": (("action", True), ("timestamp", True), ("id", True)),
}


class SQLiteStore(Store):
    """One file, for any number of processes of one machine."""

    schemes = ("sqlite",)

    def __init__(self, path: Path) -> None:
        self.path = path
        self.spool_path: Path | None = path.with_name(f"{path.stem}.spool.db")
        self._freed = threading.Condition()
        self._idle: list[apsw.Connection] = []
        self._file: FileId | None = None
        self._used = 0
        self._held = self._forking = False
        prepare_for_forks(self)

    @classmethod
    def from_url(cls, url: StoreURL) -> SQLiteStore:
        """`sqlite:///relative.db` or `sqlite:////absolute.db`."""
        url.only_options()
        path = url.path.removeprefix("/")
        if url.hosts or not path or path.endswith("/") or path == ":memory:" or "\0" in path:
            raise SettingsError(
                "AUDIT_STORE_URL: sqlite needs a file; allowed are sqlite:///relative.db, sqlite:////absolute.db "
                "(three or four slashes), and memory:// for a store without a file"
            )
        return cls(Path(path).absolute())

    def identity(self, spool: Path) -> str:
        """The way from the spool to the store, so that both may be moved together."""
        return "sqlite:" + os.path.relpath(os.path.realpath(self.path), os.path.realpath(spool.parent))

    def setup(self) -> list[str]:
        """Create the file and its tables. See Store.setup."""
        with self._translated():
            if self._file_id() is None:
                make_private(self.path)
            with self._connection(installing=True) as db, transaction(db, "IMMEDIATE"):
                if _version(db, self.path) == VERSION:
                    return []
                db.execute(_SCHEMA)
                return [f"{self.path}: created"]

    def append(self, events: Sequence[AuditEvent]) -> list[Refusal]:
        """See Store.append."""
        try:
            return self._append(events)
        except StoreMissing:
            self.setup()
            return self._append(events)

    def _append(self, events: Sequence[AuditEvent]) -> list[Refusal]:
        refusals: list[Refusal] = []
        contents: list[tuple[int, str, int, bytes]] = []
        texts: list[tuple[Any, ...]] = []
        with self._translated(), self._connection() as db, transaction(db, "IMMEDIATE"):
            orgs = {name: _org(db, name) for name in {event.org for event in events}}
            number = db.execute("SELECT coalesce(max(number), 0) FROM entries").get
            for event in events:
                number += 1
                db.execute(
                    "INSERT INTO entries VALUES (?,?,?,?,?,?,?,?,?,?) ON CONFLICT (org, id) DO NOTHING",
                    (
                        number,
                        orgs[event.org],
                        _id_bytes(event.id),
                        event.timestamp,
                        event.action,
                        event.category,
                        event.user,
                        event.outcome,
                        network_key(event.ip),
                        event.tone,
                    ),
                )
                if db.changes():
                    # Written at once: the next event may have the same id.
                    contents.append((number, event.origin, event.sequence, event.to_bytes()))
                    texts.append((number, *search_texts(event)))
                    continue
                number -= 1
                _write(db, contents, texts)
                if not same_content(event, _stored(db, orgs[event.org], event.id)):
                    refusals.append(Refusal(event, "its id is taken by an entry of other content"))
            _write(db, contents, texts)
        return refusals

    def get(self, org: str, event_id: str) -> AuditEvent | None:
        """See Store.get."""
        with self._translated(), self._connection() as db:
            row = db.execute(
                "SELECT body, origin, sequence FROM contents WHERE number = "
                "(SELECT number FROM entries WHERE org = (SELECT org FROM orgs WHERE name = ?) AND id = ?)",
                (org, _id_bytes(event_id)),
            ).fetchone()
            return AuditEvent.from_bytes(*row) if row else None

    def search(self, query: Query, window: Window) -> Page:
        """See Store.search."""
        backwards = window.before is not None
        key = window.before or window.after
        with self._translated(), self._connection() as db, _in_time(db), transaction(db):
            found = _Selection(query)
            total = found.count(db)
            numbers = found.numbers(
                db, window.size + 1, 0 if key else min(window.offset, 2**62), beyond=key, backwards=backwards
            )
            more = len(numbers) > window.size
            numbers = numbers[: window.size]
            if backwards:
                numbers.reverse()
            items = tuple(AuditEvent.from_bytes(*row) for row in _contents(db, numbers))
            if not items:
                return Page((), total, has_previous=False, has_next=False)
            if backwards:
                rest = bool(found.numbers(db, 1, beyond=sort_key(items[-1])))
                return Page(items, total, has_previous=more, has_next=rest)
            rest = bool(found.numbers(db, 1, beyond=sort_key(items[0]), backwards=True)) if key else window.offset > 0
            return Page(items, total, has_previous=rest, has_next=more)

    def snapshot(self, query: Query, limit: int) -> Snapshot:
        """See Store.snapshot."""
        with self._translated():
            db = self._take()
            try:
                return _SQLiteSnapshot(self, db, query, limit)
            except BaseException:
                db.close()
                self._give(None)
                raise

    def arrivals(self, position: str | None, limit: int = 1000) -> Arrivals:
        """See Store.arrivals. The position is the number of the last entry: they rise in the order of transactions."""
        with self._translated(), self._connection() as db:
            if position is None:
                return Arrivals((), str(db.execute("SELECT coalesce(max(number), 0) FROM entries").get))
            rows: list[Any] = db.execute(
                "SELECT number, body, origin, sequence FROM contents WHERE number > ? ORDER BY number LIMIT ?",
                (numbered(position), limit),
            ).fetchall()
        entries = [Arrival(AuditEvent.from_bytes(*row[1:]), str(row[0])) for row in rows]
        return Arrivals(entries, entries[-1].position if entries else position, more=len(rows) == limit)

    def histogram(self, query: Query, edges: Sequence[int]) -> list[dict[str, int]]:
        """See Store.histogram."""
        spans: list[dict[str, int]] = [{} for _ in edges[1:]]
        numbered = ",".join(f"({place},{first},{end})" for place, (first, end) in enumerate(pairwise(edges)))
        if not numbered:
            return spans
        with self._translated(), self._connection() as db, _in_time(db), transaction(db):
            found, source = _Selection(query), "spans CROSS JOIN entries"
            if found.is_rare(db):
                source, condition, bindings = f"{found.hits} CROSS JOIN spans", *found.led_by_words()
            else:
                condition, bindings = found.led_by_order()
            rows = db.execute(
                f"WITH spans (place, first, ending) AS (VALUES {numbered}) "
                f"SELECT place, tone, count(*) FROM {source} "
                f"WHERE timestamp >= first AND timestamp < ending AND {condition} GROUP BY place, tone",
                bindings,
            )
            for place, tone, count in rows:
                spans[place][tone] = count
        return spans

    def organisations(self) -> list[str]:
        """See Store.organisations."""
        with self._translated(), self._connection() as db:
            # An index answers EXISTS; SQLite's order of texts, that of their UTF-8, is the order of code points.
            rows = db.execute(
                "SELECT name FROM orgs WHERE EXISTS (SELECT * FROM entries WHERE entries.org = orgs.org) ORDER BY name"
            )
            return [name for (name,) in rows]

    def check(self) -> str:
        """See Store.check."""
        with self._translated(), self._connection() as db:
            empty = db.execute("SELECT NOT EXISTS (SELECT * FROM entries)").get
        size = self.path.stat().st_size / 1e6
        return f"sqlite {self.path}: version {VERSION}, {size:,.1f} MB, {'no entries yet' if empty else 'has entries'}"

    def close(self) -> None:
        """See Store.close."""
        with self._freed:
            self._close_idle()

    def _close_idle(self) -> None:
        for db in self._idle:
            db.close()
        self._idle = []

    def before_fork(self) -> None:
        """Close the connections between two transactions. See forking."""
        self._held = self._freed.acquire(timeout=WAIT_S)
        if self._held:
            self._forking = True
            self._freed.wait_for(lambda: self._used == 0, WAIT_S)
            self._close_idle()

    def after_fork_in_parent(self) -> None:
        """Go on."""
        if self._held:
            self._forking = False
            self._freed.notify_all()
            self._freed.release()

    def after_fork_in_child(self) -> None:
        """Go on, with connections of its own."""
        self._freed = threading.Condition()
        self._forking = False
        self._used = 0
        abandon(self._idle)
        self._idle = []

    # Connections

    @contextmanager
    def _connection(self, installing: bool = False) -> Iterator[apsw.Connection]:
        """A connection of this process that nobody else uses meanwhile."""
        db = self._take(installing)
        try:
            yield db
        except BaseException as error:
            if sync_failed(error):
                with suppress(apsw.Error, OSError):
                    cut_log(db, self.path)
            db.close()
            self._give(None)
            raise
        self._give(db)

    def _take(self, installing: bool = False) -> apsw.Connection:
        with self._freed:
            self._freed.wait_for(lambda: not self._forking)
            file = self._file_id()
            if file != self._file:
                # Deleted, or replaced: what is open would be written where nobody looks. Closing it would delete the
                # journal of whatever is at its path now.
                abandon(self._idle)
                self._idle, self._file = [], file
            self._used += 1
            if self._idle:
                return self._idle.pop()
        try:
            return self._open(installing)
        except BaseException:
            self._give(None)
            raise

    def _give(self, db: apsw.Connection | None) -> None:
        """Give a connection back, to be used again; None for one that was closed."""
        with self._freed:
            self._used -= 1
            if db is not None:
                self._idle.append(db)
            self._freed.notify_all()

    def _open(self, installing: bool = False) -> apsw.Connection:
        if self._file_id() is None:
            raise StoreMissing(
                f"{self.path}: there is no audit store yet; check the path, or create one with `audit-pipeline setup`"
            )
        db = apsw.Connection(str(self.path), flags=apsw.SQLITE_OPEN_READWRITE)
        try:
            db.set_busy_timeout(BUSY_MS)
            if not installing and _version(db, self.path) == 0:
                raise StoreMissing(f"{self.path}: is empty; install the store with `audit-pipeline setup`")
            if installing:
                use_wal(db, BUSY_MS)
            db.execute("PRAGMA synchronous = FULL; PRAGMA temp_store = MEMORY")
        except BaseException:
            db.close()
            raise
        return db

    def _file_id(self) -> FileId | None:
        with self._translated():
            return file_id(self.path)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """SQLite's errors as this package's."""
        try:
            yield
        except OSError as error:
            raise StoreUnavailable(f"{self.path}: cannot be used: {error.strerror}") from error
        except apsw.InterruptError as error:
            raise StoreUnavailable(
                f"{self.path}: the query took longer than {QUERY_S:g} s and was given up; ask for less at once"
            ) from error
        except apsw.NotADBError as error:
            raise StoreMismatch(f"{self.path}: is no SQLite database; choose another path") from error
        except apsw.BusyError as error:
            raise StoreUnavailable(f"{self.path}: another process holds its lock; trying again helps") from error
        except apsw.FullError as error:
            raise StoreUnavailable(f"{self.path}: the disk is full; free some room") from error
        except apsw.CorruptError as error:
            raise StoreUnavailable(
                f"{self.path}: is damaged ({error}); copy it away, and recover it with `sqlite3 FILE .recover`"
            ) from error
        except (apsw.ReadOnlyError, apsw.CantOpenError, apsw.PermissionsError, apsw.AuthError) as error:
            raise StoreUnavailable(
                f"{self.path}: cannot be opened for writing ({error}); check the rights of the file and its folder"
            ) from error
        except apsw.Error as error:
            raise StoreUnavailable(f"{self.path}: {type(error).__name__}: {error}") from error


@contextmanager
def _in_time(db: apsw.Connection) -> Iterator[None]:
    """Give up what takes longer than QUERY_S. Raises InterruptError."""
    end = monotonic() + QUERY_S
    db.set_progress_handler(lambda: monotonic() > end, 50_000)
    try:
        yield
    finally:
        db.set_progress_handler(None)


def _version(db: apsw.Connection, path: Path) -> int:
    """The version of the store in this file; 0 where there is nothing yet. Raises StoreMismatch."""
    application = db.execute("PRAGMA application_id").get
    version: int = db.execute("PRAGMA user_version").get
    if application == APPLICATION_ID and version == VERSION:
        return VERSION
    if application == APPLICATION_ID:
        raise StoreMismatch(
            f"{path}: is an audit store of version {version}, this program knows version {VERSION}; "
            "upgrade audit-pipeline"
        )
    if application or version or db.execute("SELECT count(*) FROM sqlite_schema").get:
        raise StoreMismatch(f"{path}: is another program's database, no audit store; choose another path")
    return 0


def _id_bytes(event_id: str) -> bytes:
    return bytes.fromhex(event_id.replace("-", ""))


def _org(db: apsw.Connection, name: str) -> int:
    db.execute("INSERT INTO orgs (name) VALUES (?) ON CONFLICT DO NOTHING", (name,))
    number: int = db.execute("SELECT org FROM orgs WHERE name = ?", (name,)).get
    return number


def _write(db: apsw.Connection, contents: list[tuple[int, str, int, bytes]], texts: list[tuple[Any, ...]]) -> None:
    db.executemany("INSERT INTO contents VALUES (?,?,?,?)", contents)
    db.executemany("INSERT INTO search (rowid, action, target, detail, user) VALUES (?,?,?,?,?)", texts)
    contents.clear()
    texts.clear()


def _stored(db: apsw.Connection, org: int, event_id: str) -> AuditEvent:
    row = db.execute(
        "SELECT body, origin, sequence FROM contents "
        "WHERE number = (SELECT number FROM entries WHERE org = ? AND id = ?)",
        (org, _id_bytes(event_id)),
    ).fetchone()
    assert row is not None
    return AuditEvent.from_bytes(*row)


def _contents(db: apsw.Connection, numbers: Sequence[int]) -> Iterator[tuple[bytes, str, int]]:
    for number in numbers:
        row = db.execute("SELECT body, origin, sequence FROM contents WHERE number = ?", (number,)).fetchone()
        if row is None:
            raise StoreError(f"entry {number} has lost its content: the file is damaged, restore it from a backup")
        yield row


class _Selection:
    """A Query as SQL."""

    def __init__(self, query: Query) -> None:
        self._order = _ORDERS[query.sort]
        conditions = ["org = (SELECT org FROM orgs WHERE name = ?)"]
        self.bindings: list[Any] = [query.org]
        for column, values in (("action", query.actions), ("category", query.categories)):
            if values:
                conditions.append(f"{column} IN ({','.join('?' * len(values))})")
                self.bindings += sorted(values)
        if query.network is not None:
            conditions.append("network BETWEEN ? AND ?")
            self.bindings += network_range(query.network)
        for condition, value in (
            ("timestamp >= ?", query.start),
            ("timestamp < ?", query.end),
            ("user = ?", query.user),
            ("outcome = ?", query.outcome),
        ):
            if value is not None:
                conditions.append(condition)
                self.bindings.append(value)
        wanted = [word for word in query.words if not word.excluded]
        self._words = " AND ".join(f"({_match(word)})" for word in wanted)
        if unwanted := [word for word in query.words if word.excluded]:
            conditions.append("number NOT IN (SELECT rowid FROM search WHERE search MATCH ?)")
            self.bindings.append(" OR ".join(f"({_match(word)})" for word in unwanted))
        self.where = " AND ".join(conditions)

    hits = "(SELECT rowid AS hit FROM search WHERE search MATCH ?) CROSS JOIN entries ON number = hit"
    """The entries that have the words, whatever else is asked of them."""

    def led_by_words(self) -> tuple[str, list[Any]]:
        """A condition on `hits`, and all bindings."""
        # The plus hides the organisation's index, which SQLite would go through for every hit.
        return f"+{self.where}", [self._words, *self.bindings]

    def led_by_order(self) -> tuple[str, list[Any]]:
        """A condition on `entries` that an index of the order can be walked with, and its bindings."""
        if not self._words:
            return self.where, self.bindings
        condition = f"{self.where} AND number IN (SELECT rowid FROM search WHERE search MATCH ?)"
        return condition, [*self.bindings, self._words]

    def is_rare(self, db: apsw.Connection) -> bool:
        """Whether words are asked for, and few entries have them."""
        if not self._words:
            return False
        some = "SELECT * FROM search WHERE search MATCH ? LIMIT ?"
        return bool(db.execute(f"SELECT count(*) < ? FROM ({some})", (RARE, self._words, RARE)).get)

    def count(self, db: apsw.Connection) -> int:
        """How many entries there are."""
        source = self.hits if self._words else "entries"
        condition, bindings = self.led_by_words() if self._words else self.led_by_order()
        total: int = db.execute(f"SELECT count(*) FROM {source} WHERE {condition}", bindings).get
        return total

    def numbers(
        self,
        db: apsw.Connection,
        limit: int,
        offset: int = 0,
        *,
        beyond: SortKey | None = None,
        backwards: bool = False,
    ) -> array[int]:
        """The numbers of entries in order (or against it); with a key, only those beyond it in that direction."""
        rare = self.is_rare(db)
        where, bindings = self.led_by_words() if rare else self.led_by_order()
        bindings = list(bindings)
        if beyond is not None:
            condition, values = self._beyond(beyond, backwards)
            where += f" AND {condition}"
            bindings += values
        order = ", ".join(
            f"{column} {'DESC' if descending != backwards else 'ASC'}" for column, descending in self._order
        )
        rows = db.execute(
            f"SELECT number FROM {self.hits if rare else 'entries'} WHERE {where} ORDER BY {order} LIMIT ? OFFSET ?",
            [*bindings, limit, offset],
        )
        return array("q", (number for (number,) in rows))

    def _beyond(self, key: SortKey, backwards: bool) -> tuple[str, list[Any]]:
        last = (key.timestamp, _id_bytes(key.id))
        descending = self._order[-1][1] != backwards
        row = f"(timestamp, id) {'<' if descending else '>'} (?, ?)"
        if len(self._order) == 2:
            return row, [*last]
        sign = "<" if self._order[0][1] != backwards else ">"
        # The first condition says nothing new, but is one that the index can be entered by.
        return f"action {sign}= ? AND (action {sign} ? OR {row})", [key.action, key.action, *last]


def _match(word: Word) -> str:
    """A word of `q` as an FTS5 expression. Tokens hold no quotes."""
    if word.phrase:
        return f'"{" ".join(word.tokens)}"'
    *whole, beginning = (f'"{token}"' for token in word.tokens)
    if not whole:
        return f"{beginning}*"
    together = " AND ".join([*whole, f"{beginning}*"])
    return " OR ".join(f"{{{field}}} : ({together})" for field in SEARCH_FIELDS)


class _SQLiteSnapshot(Snapshot):
    """One read transaction: it sees the file as it was when it began."""

    def __init__(self, store: SQLiteStore, db: apsw.Connection, query: Query, limit: int) -> None:
        self._store = store
        self._db = db
        self._lock = threading.Lock()
        self._closed = False
        db.execute("BEGIN")
        found = _Selection(query)
        with _in_time(db):
            self.total = found.count(db)
            self._numbers = found.numbers(db, limit)

    def batches(self, size: int = 1000) -> Iterator[Sequence[AuditEvent]]:
        for first in range(0, len(self._numbers), size):
            # A client that leaves closes the snapshot from another thread, in the middle of this.
            with self._lock, self._store._translated():
                rows = _contents(self._db, self._numbers[first : first + size])
                batch = [AuditEvent.from_bytes(*row) for row in rows]
            yield batch

    def close(self) -> None:
        with self._lock:
            if not self._closed:
                self._closed = True
                self._db.close()
                self._store._give(None)


STORE = SQLiteStore
