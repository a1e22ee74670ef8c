"""The embedded store: one SQLite file, with FTS5 for the search text.

Of its tables, `entries` is narrow, so that filters read little; `contents` has the canonical bytes; `search` has the
tokens that `query.search_texts` made, which FTS5's own tokenizer only splits at spaces again; `counts` has how many
entries there are.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import wraps
from pathlib import Path
from time import monotonic
from typing import Any, Concatenate, ParamSpec, TypeVar

import apsw

from ...database import (
    close_aside,
    cut_log,
    has_orphaned_log,
    log_of,
    sync_failed,
    transaction,
    use_wal,
    wait_for_locks,
)
from ...errors import SettingsError, StoreError, StoreMismatch, StoreMissing, StoreUnavailable
from ...event import AuditEvent
from ...files import FileId, file_id, make_private
from ...forking import ForkLock, abandon, is_carried, prepare_for_forks
from ...privacy import network_key, same_content
from ...query import Query, Window, search_texts, sort_key
from ..base import QUERY_S, Arrival, Arrivals, Page, Refusal, Snapshot, Store, StoreURL, numbered
from .remembered import Memory
from .selection import Selection, content_of, id_bytes
from .tables import VERSION, install, version_of

__all__ = ["STORE", "SQLiteStore"]

BUSY_MS = 10_000
"""How long a statement waits for another process's lock, in milliseconds."""
PAUSES_S = (0.001, 0.02)
"""The first and the longest pause before that lock is asked for again, in seconds."""
AGAIN_S = 0.005
"""How soon what is interrupted is interrupted again, in seconds: between two statements, that has no effect."""
END_S, BREAK_OFF_S = 0.2, 0.3
"""How long a fork waits for what is under way, in seconds: to end by itself, and to be broken off."""
_TOO_LONG = f"the query took longer than {QUERY_S:g} s and was given up; ask for less at once"
TRIES = 5
"""How often a call is done that forks break off."""

P = ParamSpec("P")
R = TypeVar("R")


class _BrokenOff(StoreUnavailable):
    """A fork came while the call was under way."""


def _through_forks(ask: Callable[Concatenate[SQLiteStore, P], R]) -> Callable[Concatenate[SQLiteStore, P], R]:
    """A method that is called again where a fork breaks it off: it has done nothing then."""

    @wraps(ask)
    def again(self: SQLiteStore, /, *args: P.args, **named: P.kwargs) -> R:
        for _ in range(TRIES - 1):
            with suppress(_BrokenOff):
                return ask(self, *args, **named)
        return ask(self, *args, **named)

    return again


class SQLiteStore(Store):
    """One file, for any number of processes of one machine."""

    schemes = ("sqlite",)

    def __init__(self, path: Path) -> None:
        self.path = path
        self.spool_path: Path | None = path.with_name(f"{path.stem}.spool.db")
        self._lock = ForkLock()
        self._freed = threading.Condition(self._lock.lock)
        self._idle: list[apsw.Connection] = []
        self._file: FileId | None = None
        self._memory = Memory()
        self._used = 0
        self._lent: list[apsw.Connection] = []
        """Those of the connections in use that are open."""
        self._forking = self._breaks_off = False
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

    @_through_forks
    def setup(self) -> list[str]:
        """Create the file and its tables. See Store.setup."""
        with self._translated():
            self._keep_log()
            with self._freed:  # no fork comes between: a child would keep the file open
                if self._file_id() is None:
                    make_private(self.path)
            with self._connection(installing=True) as db:
                db.execute("PRAGMA temp_store = FILE")  # an upgrade sorts all entries
                with transaction(db, "IMMEDIATE"):
                    found = version_of(db, self.path)
                    if found != VERSION:
                        install(db, found)
                db.execute("PRAGMA temp_store = MEMORY")
            return [f"{self.path}: {'upgraded' if found else 'created'}"] if found != VERSION else []

    @_through_forks
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
        file = self._file_id()
        with self._translated(), self._connection() as db, transaction(db, "IMMEDIATE"):
            orgs = {name: _org(db, name) for name in {event.org for event in events}}
            number = db.execute("SELECT coalesce(max(number), 0) FROM entries").get
            for event in events:
                if self._breaks_off:
                    raise self._broken_off()
                number += 1
                db.execute(
                    "INSERT INTO entries VALUES (?,?,?,?,?,?,?,?,?,?) ON CONFLICT (org, id) DO NOTHING",
                    (
                        number,
                        orgs[event.org],
                        id_bytes(event.id),
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
        if self._file_id() != file:
            raise StoreUnavailable(f"{self.path}: was replaced during an append; trying again helps")
        return refusals

    @_through_forks
    def get(self, org: str, event_id: str) -> AuditEvent | None:
        """See Store.get."""
        with self._translated(), self._connection() as db:
            row = db.execute(
                "SELECT body, origin, sequence FROM contents WHERE number = "
                "(SELECT number FROM entries WHERE org = (SELECT org FROM orgs WHERE name = ?) AND id = ?)",
                (org, id_bytes(event_id)),
            ).fetchone()
            return AuditEvent.from_bytes(*row) if row else None

    @_through_forks
    def search(self, query: Query, window: Window) -> Page:
        """See Store.search."""
        end = monotonic() + QUERY_S
        while True:
            file = self._file_id()
            memory = self._memory_of(file)
            with (
                self._translated(),
                self._connection(of=file) as db,
                _in_time(db, query, end),
                transaction(db),
            ):
                found = Selection(db, query, memory)
                is_new = not found.is_known
                others = memory.begin(query) if is_new else None
                if others is None:
                    if is_new:
                        try:
                            found.remember()
                        finally:
                            memory.end(query)
                    return self._page(db, found, window)
            # Who asks the same at the same time waits for the answer, rather than do the same work beside it.
            if not others.wait(end - monotonic()):
                memory.end(query)
                raise StoreUnavailable(f"{self.path}: {_TOO_LONG}")

    def _page(self, db: apsw.Connection, found: Selection, window: Window) -> Page:
        backwards = window.before is not None
        key = window.before or window.after
        offset = 0 if key else min(window.offset, 2**62)
        numbers = found.numbers(window.size + 1, offset, beyond=key, backwards=backwards)
        found.remember(() if key or offset else numbers)
        more = len(numbers) > window.size
        numbers = numbers[: window.size]
        if backwards:
            numbers.reverse()
        items = tuple(AuditEvent.from_bytes(*content_of(db, number)) for number in numbers)
        total = found.count()
        if not items:
            return Page((), total, has_previous=False, has_next=False)
        if backwards:
            rest = found.has(window.before) or bool(found.numbers(1, beyond=sort_key(items[-1])))
            return Page(items, total, has_previous=more, has_next=rest)
        rest = window.offset > 0
        if key:
            rest = found.has(key) or bool(found.numbers(1, beyond=sort_key(items[0]), backwards=True))
        return Page(items, total, has_previous=rest, has_next=more)

    def _memory_of(self, file: FileId | None) -> Memory:
        """What is remembered of a file: of another one that took its place, nothing."""
        if self._memory.file != file:
            self._memory = Memory(file)
        return self._memory

    @_through_forks
    def snapshot(self, query: Query, limit: int, *, in_full: bool = True) -> Snapshot:
        """See Store.snapshot."""
        with self._translated():
            file = self._file_id()
            with self._connection(of=file) as db, _in_time(db, query), transaction(db):
                found = Selection(db, query, self._memory_of(file))
                return _SQLiteSnapshot(self, file, found.count(), found.numbers(limit))

    @_through_forks
    def _entries(self, file: FileId | None, numbers: Sequence[int]) -> list[AuditEvent]:
        """The entries of these numbers in a file; another one that took its place has others."""
        with self._translated(), self._connection(of=file) as db:
            return [AuditEvent.from_bytes(*content_of(db, number)) for number in numbers]

    @_through_forks
    def arrivals(self, position: str | None, limit: int = 1000) -> Arrivals:
        """See Store.arrivals. The position is the number of the last entry: they rise in the order of transactions."""
        with self._translated(), self._connection() as db:
            last = db.execute("SELECT coalesce(max(number), 0) FROM entries").get
            if position is None:
                return Arrivals((), str(last))
            number = numbered(position)
            if number > last:
                # Of another file, in whose place a backup was put: of this one, nothing would be given for long.
                raise ValueError("this is no position of this store")
            rows: list[Any] = db.execute(
                "SELECT number, body, origin, sequence FROM contents WHERE number > ? ORDER BY number LIMIT ?",
                (number, limit),
            ).fetchall()
        entries = [Arrival(AuditEvent.from_bytes(*row[1:]), str(row[0])) for row in rows]
        return Arrivals(entries, entries[-1].position if entries else position, more=len(rows) == limit)

    @_through_forks
    def histogram(self, query: Query, edges: Sequence[int]) -> list[dict[str, int]]:
        """See Store.histogram."""
        with self._translated(), self._connection() as db, _in_time(db, query), transaction(db):
            return Selection(db, query, Memory()).histogram(edges)

    @_through_forks
    def organisations(self) -> list[str]:
        """See Store.organisations."""
        with self._translated(), self._connection() as db:
            # An index answers EXISTS; SQLite's order of texts, that of their UTF-8, is the order of code points.
            rows = db.execute(
                "SELECT name FROM orgs WHERE EXISTS (SELECT * FROM entries WHERE entries.org = orgs.org) ORDER BY name"
            )
            return [name for (name,) in rows]

    @_through_forks
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
        self._memory = Memory()  # once it is open no more, another file may be told by the same number
        for db in self._idle:
            db.close()
        self._idle = []

    def before_fork(self) -> None:
        """Close the connections between two transactions. See forking.

        Log calls wait meanwhile: what takes long is broken off, and done again afterwards.
        """
        if self._lock.before_fork():
            self._forking = True
            self._freed.wait_for(self._is_unused, END_S)
            self._breaks_off = True
            end = monotonic() + BREAK_OFF_S
            while self._used and monotonic() < end:
                for db in self._lent:
                    db.interrupt()
                self._freed.wait_for(self._is_unused, AGAIN_S)
            while self._idle:
                self._idle.pop().close(True)

    def after_fork_in_parent(self) -> None:
        """Go on."""
        self._forking = self._breaks_off = False
        if self._lock.is_owned:
            self._freed.notify_all()
        self._lock.after_fork_in_parent()

    def after_fork_in_child(self) -> None:
        """Go on, with connections of its own."""
        self._lock = ForkLock()
        self._freed = threading.Condition(self._lock.lock)
        self._memory = Memory()
        self._forking = self._breaks_off = False
        # A disk that does not answer cannot be broken off.
        if self._used or self._idle:
            abandon([*self._idle, *self._lent], self._file)
        self._used = 0
        self._idle, self._lent = [], []

    def _is_unused(self) -> bool:
        return self._used == 0

    def _broken_off(self) -> _BrokenOff:
        return _BrokenOff(f"{self.path}: the process was forked in the middle of this; trying again helps")

    # Connections

    @contextmanager
    def _connection(self, installing: bool = False, of: FileId | None = None) -> Iterator[apsw.Connection]:
        """A connection of this process that nobody else uses meanwhile; where `of` is given, to that file only."""
        db, file = self._take(installing)
        try:
            if of not in (None, file):
                raise StoreUnavailable(f"{self.path}: was replaced in the middle of this; trying again helps")
            yield db
        except BaseException as error:
            broken_off = self._breaks_off and isinstance(error, apsw.InterruptError | apsw.BusyError)
            self._recall(db)
            if sync_failed(error):
                with suppress(apsw.Error, OSError):
                    if file_id(self.path) == file:  # the log at its path is that of this connection
                        db.set_busy_timeout(BUSY_MS)  # no fork breaks this off
                        cut_log(db, self.path)
            db.close()
            self._give(None)
            if broken_off:
                raise self._broken_off() from error
            raise
        self._recall(db)
        self._give(db, file)

    def _take(self, installing: bool = False) -> tuple[apsw.Connection, FileId | None]:
        """A connection, and the file that it is to."""
        with self._freed:
            self._freed.wait_for(lambda: not self._forking)
            file = self._file_id()
            if is_carried(file):
                raise StoreUnavailable(
                    f"{self.path}: this process was forked in the middle of a call that did not end, and cannot use "
                    "the store; start it again"
                )
            if file != self._file:  # deleted, or replaced: what is open would be written where nobody looks
                while self._idle:
                    close_aside(self._idle.pop())
                self._file = file
            self._used += 1
            if self._idle:
                self._lent.append(self._idle.pop())
                return self._lent[-1], file
        try:
            db = self._open(installing)
        except BaseException:
            self._give(None)
            raise
        with self._freed:
            self._lent.append(db)
        return db, file

    def _recall(self, db: apsw.Connection) -> None:
        """Let no fork break off what is done with a connection from now on."""
        with self._freed:
            self._lent = [other for other in self._lent if other is not db]

    def _give(self, db: apsw.Connection | None, file: FileId | None = None) -> None:
        """Give a connection back, to be used again; None for one that was closed."""
        with self._freed:
            self._used -= 1
            if db is not None and file == self._file:
                self._idle.append(db)
            elif db is not None:  # the file was replaced meanwhile
                close_aside(db)
            self._freed.notify_all()

    def _open(self, installing: bool = False) -> apsw.Connection:
        self._keep_log()
        if self._file_id() is None:
            missing = "" if self.path.parent.exists() else f" (the folder {self.path.parent} does not exist)"
            raise StoreMissing(
                f"{self.path}: there is no audit store yet{missing}; check the path, or create one with "
                "`audit-pipeline setup`"
            )
        db = apsw.Connection(str(self.path), flags=apsw.SQLITE_OPEN_READWRITE)
        try:
            wait_for_locks(db, lambda: BUSY_MS, PAUSES_S, lambda: self._breaks_off)  # unless a fork waits for it
            if not installing and (found := version_of(db, self.path)) != VERSION:
                is_old = (
                    f"is an audit store of version {found}; upgrade it with"
                    if found
                    else "is empty; install the store with"
                )
                raise StoreMissing(f"{self.path}: {is_old} `audit-pipeline setup`")
            if installing:
                use_wal(db, BUSY_MS)
            db.execute("PRAGMA synchronous = FULL; PRAGMA temp_store = MEMORY")
        except BaseException:
            db.close()
            raise
        return db

    def _keep_log(self) -> None:
        """Refuse to begin a new file beside the log of one that is gone or was emptied: SQLite would delete that."""
        if has_orphaned_log(self.path):
            raise StoreUnavailable(
                f"{self.path}: its file is missing or empty, but its log is there; put the file back, or move "
                f"{log_of(self.path).name} away"
            )

    def _file_id(self) -> FileId | None:
        with self._translated():
            return file_id(self.path)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """SQLite's errors as this package's."""
        try:
            yield
        except OSError as error:
            folder = self.path.parent
            if isinstance(error, FileNotFoundError) and not folder.exists():
                raise StoreUnavailable(
                    f"{self.path}: cannot be used: the folder {folder} does not exist; make it, or choose another path"
                ) from error
            raise StoreUnavailable(f"{self.path}: cannot be used: {error.strerror}") from error
        except apsw.InterruptError as error:
            raise StoreUnavailable(f"{self.path}: {_TOO_LONG}") from error
        except apsw.NotADBError as error:
            raise StoreMismatch(
                f"{self.path}: is no SQLite database: choose another path; or, where it was the store, its beginning "
                "is damaged: copy it away, and put a backup in its place"
            ) from error
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
def _in_time(db: apsw.Connection, query: Query, end: float | None = None) -> Iterator[None]:
    """Give up a query that takes longer than QUERY_S, or until `end`. Raises InterruptError."""
    end = monotonic() + QUERY_S if end is None else end
    if query.words:
        # FTS5 may go through all that begins with a word in one step of SQLite's, so that no handler is called.
        ended = threading.Event()
        watch = threading.Thread(target=_watch, args=(db, ended, end), daemon=True)
        watch.start()
        try:
            yield
        except apsw.SQLError as error:
            # An index that is opened in that moment says that it cannot be.
            if monotonic() > end:
                raise apsw.InterruptError(str(error)) from error
            raise
        finally:
            ended.set()
            watch.join()
        return
    db.set_progress_handler(lambda: monotonic() > end, 50_000)
    try:
        yield
    finally:
        db.set_progress_handler(None)


def _watch(db: apsw.Connection, ended: threading.Event, end: float) -> None:
    """Interrupt a query when its time is over, until it has ended."""
    wait = end - monotonic()
    while not ended.wait(wait):
        db.interrupt()
        wait = AGAIN_S


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
        (org, id_bytes(event_id)),
    ).fetchone()
    assert row is not None
    return AuditEvent.from_bytes(*row)


class _SQLiteSnapshot(Snapshot):
    """The numbers of entries, which never change. It holds no connection while its client takes its time."""

    def __init__(self, store: SQLiteStore, file: FileId | None, total: int, numbers: Sequence[int]) -> None:
        self.total = total
        self._store = store
        self._file = file
        self._numbers = numbers
        self._closed = False

    def batches(self, size: int = 1000) -> Iterator[Sequence[AuditEvent]]:
        for first in range(0, len(self._numbers), size):
            # A client that leaves closes the snapshot from another thread, in the middle of this.
            if self._closed:
                raise StoreError("the snapshot is closed")
            yield self._store._entries(self._file, self._numbers[first : first + size])

    def close(self) -> None:
        self._closed = True


STORE = SQLiteStore
