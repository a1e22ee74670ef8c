"""The spool's file: how it is opened, shared by threads and processes, kept through forks, and repaired.

Knows the tables, and none of what is asked of them (`spool`).
"""

from __future__ import annotations

import errno
import logging
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from functools import wraps
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar, cast

import apsw

from . import salvage
from .card import Card, Known
from .database import close_aside, cut_log, has_orphaned_log, is_waiting, sync_failed, use_wal, wait_for_locks
from .errors import SettingsError, SpoolError, SpoolFull, SpoolMismatch
from .files import FileId, Locked, account, file_id, foreign_owner, free_bytes, linked_file, locked, make_private
from .forking import ForkLock, abandon, is_carried, prepare_for_forks
from .group_commit import Row

__all__ = ["BUSY_MS", "SpoolFile", "appending", "repairing"]

APPLICATION_ID = 0x41554453
VERSION = 1
BUSY_MS = 5_000
"""How long a call waits for another process's write, in milliseconds, before it raises."""
STUCK_MS, STUCK_S = 50, 10.0
"""The same, in milliseconds, of the calls after such a one, for so many seconds: they wait for each other too."""
REPAIR_WAIT_S = 30.0
"""How long a call waits for another process's repair, in seconds, before it raises."""
PART_WAIT_S = 2.0
"""How long the end of a connection waits for such a repair, in seconds."""
REPAIR_PAUSE_S = 10.0
"""How soon after a repair another one is tried, in seconds: a disk that breaks everything must not be filled."""
DOUBT_S = (0.0, 0.01, 0.05)
"""The pauses, in seconds, after which the disk is asked again before what it gave is taken for damage."""
END_S = 1.0
"""How long a call waits for others, in seconds, while the interpreter ends: a daemon thread may hold on for ever."""
TRIES = 3
"""How often a call is done again because the file was replaced meanwhile."""
LITTLE = 256 * 1024
"""Bytes free on a disk that is full: SQLite says so in several ways."""

# The newest row is never deleted: its number is how SQLite knows the next one, so that there are no gaps.
SCHEMA = f"""
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


class _Damaged(SpoolError):
    """The file cannot be read where it should be: it is to be repaired."""

    def __init__(self, text: str, file: FileId | None) -> None:
        super().__init__(text)
        self.file = file


P = ParamSpec("P")
R = TypeVar("R")
Asked = Callable[Concatenate[Any, apsw.Connection, P], R]
Way = Callable[["SpoolFile", Callable[[apsw.Connection], R]], R]


def repairing(method: Asked[P, R]) -> Callable[Concatenate[Any, P], R]:
    """A method of what has a SpoolFile as `file`, which is given its connection.

    Where the file proves to be damaged, it is repaired, and the method called again.
    """
    repaired = _repairing(method, SpoolFile.ask)

    @wraps(method)
    def ask(self: Any, *args: P.args, **named: P.kwargs) -> R:
        try:
            return repaired(self, *args, **named)
        finally:
            self.file.say()

    return cast("Callable[Concatenate[Any, P], R]", ask)


def appending(method: Asked[P, R]) -> Callable[Concatenate[Any, P], R]:
    """As `repairing`, for a method that calls `insert`; and whoever calls it calls the file's `say` afterwards."""
    return _repairing(method, SpoolFile.ask_to_insert)


def _repairing(method: Asked[P, R], way: Way[R]) -> Callable[Concatenate[Any, P], R]:
    @wraps(method)
    def ask(self: Any, *args: P.args, **named: P.kwargs) -> R:
        file: SpoolFile = self.file

        def work(db: apsw.Connection) -> R:
            return method(self, db, *args, **named)

        for _ in range(TRIES):
            for pause in () if file.waits_to_repair else DOUBT_S:
                try:
                    return way(file, work)
                except _Damaged:
                    file.reopen()
                    time.sleep(pause)
            try:
                return way(file, work)
            except _Damaged as damage:
                file.repair(damage)
        return way(file, work)

    return cast("Callable[Concatenate[Any, P], R]", ask)


class SpoolFile:
    """A process's connection to the spool's file. Serves all threads, one at a time, and survives fork.

    `store` is the identity of the store that the spool serves; None opens a spool that exists already, whatever it
    serves.
    """

    def __init__(self, path: Path, store: str | None, durability: str) -> None:
        if durability not in _DURABILITY:
            raise SettingsError(f"durability: {durability!r} is not allowed; allowed are {', '.join(_DURABILITY)}")
        self.path = linked_file(path)
        self.card = Card(self.path)
        self.origin = ""
        """The name this spool gave itself when it was made."""
        self.openings = 0
        """How often it was opened here."""
        self._store = store
        self._durability = durability
        self._lock = ForkLock()
        self._busy = self._in_doubt = False
        self._interrupting: list[Row] = []
        self._left_over = 0
        self._unsaid: deque[tuple[int, str, tuple[object, ...]]] = deque()
        self._db: apsw.Connection | None = None
        self._file: FileId | None = None
        self._closed = False
        self._next_repair = 0.0
        self._hindrance: SpoolError | None = None
        self._stuck_until = 0.0
        prepare_for_forks(self)

    @property
    def id(self) -> FileId | None:
        """Which file the last call was about."""
        return self._file

    @property
    def waits_to_repair(self) -> bool:
        """Whether a repair was tried a short time ago, and another one would be too early."""
        return time.monotonic() < self._next_repair

    @property
    def is_held(self) -> bool:
        """Whether this thread is in the middle of a call."""
        return self._lock.is_owned

    # No generator stands around a call: it could be left between two of its steps, by a signal handler that raises, and
    # would keep the lock, or an open transaction, until it is forgotten.

    def ask(self, work: Callable[[apsw.Connection], R]) -> R:
        """What `work` makes of the connection, alone. Raises SpoolError, also in place of SQLite's errors in it."""
        return self._alone(self._ready, work)

    def ask_to_insert(self, work: Callable[[apsw.Connection], R]) -> R:
        """As `ask`, for `insert`, which sees to it afterwards that the file is still the one at its path."""
        return self._alone(self._opened, work)

    def _alone(self, ready: Callable[[], apsw.Connection], work: Callable[[apsw.Connection], R]) -> R:
        with self._lock.lock:
            if self._busy:
                raise SpoolError(f"{self.path}: asked in a signal handler, in the middle of a call; only record there")
            if self._closed:
                raise SpoolError(f"{self.path}: the pipeline is closed; open another one")
            try:
                self._busy = True
                made = self._translated(lambda: self._worked(ready, work))
            finally:
                # Nothing is called here before this is said: a signal handler that raises could come between.
                self._busy = False
                if self._closed:  # by a signal handler
                    self._part()
            # One more may have come between the last look and the line above.
            if len(self._interrupting) > self._left_over and not self._closed:
                self.ask(lambda db: None)
            return made

    def _worked(self, ready: Callable[[], apsw.Connection], work: Callable[[apsw.Connection], R]) -> R:
        try:
            made = _through_forks(lambda: work(ready()))
            self._write_interrupting()
            return made
        except apsw.IOError as error:
            self._in_doubt = self._in_doubt or sync_failed(error)
            with suppress(apsw.Error, OSError, Locked):
                self._cut_log()
            self._write_interrupting()
            raise
        except BaseException:
            # Perhaps a signal handler raised, before what it had recorded was written.
            self._write_interrupting()
            raise

    def insert(self, rows: Sequence[Row], note: Callable[[int], None] = lambda sequence: None) -> int:
        """Inside `appending`: put entries on disk, and return the last one's sequence.

        Of several, `note` is told it before the commit.
        """
        for _ in range(TRIES):
            try:
                sequence = _insert(self._opened(), rows, note)
            except _CLOSED:  # for a fork: before the commit, or after it
                sequence = _through_forks(lambda: _kept(self._opened(), rows))
            # Where a repair took the file away meanwhile, these may have come too late to be read out of it.
            if sequence and not self._is_replaced():
                return sequence
        raise SpoolError(f"{self.path}: was replaced again and again; leave it where it is")

    def interrupts(self, rows: Sequence[Row]) -> bool:
        """Whether this thread asks in the middle of a call of its own (a signal handler): that writes these too."""
        if sys.is_finalizing():
            if not self._lock.lock.acquire(timeout=END_S):
                raise SpoolError(f"{self.path}: the interpreter ends, and froze a thread in the middle of a call")
            self._lock.lock.release()
        with self._lock.lock:
            if self._busy:
                self._interrupting += rows
            return self._busy

    def say(self) -> None:
        """Log what there is to say. Not while the lock is held: a handler that records could wait for it."""
        if self._unsaid and not self.is_held:
            with suppress(IndexError):  # another thread says the last of it
                while True:
                    level, text, given = self._unsaid.popleft()
                    _log.log(level, text, *given)

    def reopen(self) -> None:
        """Go on with a new connection."""
        with self._lock.lock:
            try:
                self._busy = True
                self._leave()
            finally:
                self._busy = False

    def close(self) -> None:
        """Free what this process holds. What is in the spool stays. May be called twice."""
        self.write_left_over()
        with self._lock.lock:
            if self._interrupting and not self._busy and not self._closed:
                text = "%s: %d entries of signal handlers are lost: the spool is closed, and never took them"
                self._unsaid.append((logging.ERROR, text, (self.path, len(self._interrupting))))
            self._closed = True
            if not self._busy:  # else a signal handler closes, and the call in whose middle it came still ends
                self._part()
        self.say()

    def write_left_over(self) -> None:
        """Write what signal handlers recorded, and no call could write so far: there may be none to come."""
        with self._lock.lock:
            if self._interrupting and not self._busy and not self._closed:
                with suppress(SpoolError):  # told by what is left
                    self.ask(lambda db: None)

    # Forks

    def before_fork(self) -> None:
        """Close the connection between two transactions. See forking."""
        if self._lock.before_fork() and not is_waiting():
            self._part()

    def after_fork_in_parent(self) -> None:
        """Go on."""
        self._lock.after_fork_in_parent()

    def after_fork_in_child(self) -> None:
        """Go on, with a connection of its own."""
        self._busy = False
        self._interrupting = []  # the parent writes them
        if self._db is not None:
            abandon(self._db, self._file)
            self._db = None
        self._lock.after_fork_in_child()

    # Opening

    def _patience_ms(self) -> int:
        """How long to wait for the lock of another process: not again and again for one that does not give it up."""
        return STUCK_MS if time.monotonic() < self._stuck_until else BUSY_MS

    def _write_interrupting(self) -> None:
        """Write what signal handlers recorded in the middle of a call, whichever call it was.

        What cannot be written is no failure of that call: it waits, and is tried with each one that follows.
        """
        place, alone = 0, False
        while place < len(self._interrupting):
            # Handlers add to its end meanwhile.
            rows = self._interrupting[place : place + 1] if alone else self._interrupting[place:]
            try:
                self._translated(lambda rows=rows: self.insert(rows))  # type: ignore[misc]
            except SpoolError as error:
                if len(rows) > 1:
                    alone = True
                    continue
                place += 1
                if self._left_over != place:
                    text = "%s: %d entries of signal handlers are not recorded yet, and tried again: %s"
                    self._unsaid.append((logging.ERROR, text, (self.path, place, error)))
            else:
                del self._interrupting[place : place + len(rows)]
        self._left_over = place

    def _ready(self) -> apsw.Connection:
        self._is_replaced()
        return self._opened()

    def _is_replaced(self) -> bool:
        """Whether the file at the path is another one than that of the connection, which is then left."""
        if self._db is None or file_id(self.path) == self._file:
            return False
        self._leave_replaced()
        return True

    def _leave_replaced(self) -> None:
        self._unsaid.append(
            (logging.ERROR, "%s: the spool was deleted or replaced; going on with what is there now", (self.path,))
        )
        self._leave()

    def _opened(self) -> apsw.Connection:
        while True:
            if self._db is None:
                if is_carried(file_id(self.path)):
                    raise SpoolError(
                        f"{self.path}: this process was forked in the middle of a call that did not end, and cannot "
                        "use the spool; start it again"
                    )
                # No repair may rename the files between the opening of one and of the next.
                self._in_place(self._open_repaired)
            elif self._db.in_transaction:  # a signal handler raised before it could be ended
                self._db.execute("ROLLBACK")
            self._cut_log()
            if self._db is not None:
                return self._db

    def _cut_log(self) -> None:
        """After a sync that failed, see to it that nothing is built on what it should have written."""
        if self._in_doubt and self._db is not None:
            # A log is cut by its name: where a repair put the files aside, it is that of the new spool.
            self._in_place(self._cut_its_log)
            self._in_doubt = False

    def _cut_its_log(self) -> None:
        if self._db is not None and file_id(self.path) == self._file:
            cut_log(self._db, self.path)
        else:
            self._leave_replaced()

    def _in_place(self, work: Callable[[], None]) -> None:
        """Do it while no repair renames the files; a fork in the middle of it closes connections without waiting."""
        keeper = self._keeper()
        with locked(self.card.path, REPAIR_WAIT_S):
            try:
                _keepers.add(keeper)
                work()
            finally:
                _keepers.discard(keeper)

    def _open_repaired(self) -> None:
        if salvage.is_unfinished(self.path):
            raise _Damaged(f"{self.path}: the spool is damaged, and its repair was interrupted", None)
        self._open()

    def _open(self) -> None:
        before = self._file
        known = self.card.read()
        # A card of another store's spool tells nothing of this one.
        had = known.accepted if known is not None and known.store == self._store else 0
        self._file = file_id(self.path)
        is_new = self._file is None
        if is_new:
            if self._store is None:
                raise SpoolError(f"{self.path}: there is no spool; check AUDIT_SPOOL")
            make_private(self.path)
        orphaned = has_orphaned_log(self.path)
        was_here = had or self.origin or (known and not is_new)
        if not self.path.stat().st_size and (orphaned or was_here):
            # SQLite would take it for a new database, and delete the log of the old one.
            how = f"missing{', and its log is there' if orphaned else ''}" if is_new else "empty"
            raise _Damaged(f"{self.path}: the spool is damaged: its file is {how}", file_id(self.path))
        self._file = file_id(self.path)
        # A signal handler may fork from here on, which closes it.
        db = self._db = apsw.Connection(str(self.path), flags=apsw.SQLITE_OPEN_READWRITE)
        try:
            wait_for_locks(db, self._patience_ms)
            use_wal(db, BUSY_MS)
            # Checked cells: otherwise SQLite may write entries into a page of noise, and over each other.
            db.execute(f"PRAGMA synchronous = {_DURABILITY[self._durability]}; PRAGMA cell_size_check = ON")
            db.transaction_mode = "IMMEDIATE"
            with db:
                is_made = not self._is_spool(db)
                if is_made:
                    if had:
                        raise _Damaged(f"{self.path}: the spool is damaged: its log is gone", self._file)
                    db.execute(SCHEMA)
                    db.execute("INSERT INTO meta VALUES (?, ?, 0)", (self._store, os.urandom(8).hex()))
                found: Any = db.execute("SELECT store, origin FROM meta").fetchone()
                if found is None:
                    raise _Damaged(f"{self.path}: the spool is damaged: it does not say whose it is", self._file)
                store, self.origin = found
            if is_made:
                # Otherwise it would be in the log alone whose spool this is: without the log, a new one.
                db.wal_checkpoint()
            if self._store is not None and store != self._store:
                raise SpoolMismatch(
                    f"{self.path}: this spool serves the store {store}, not {self._store} (a path is as seen from the "
                    "spool's folder); give each store a spool of its own (AUDIT_SPOOL), and where one of them was "
                    "moved, move it back, or the other one along"
                )
            accepted = db.execute("SELECT coalesce(max(sequence), 0) FROM entries").get
            if known is not None and known.origin == self.origin and known.accepted > accepted:
                # A copy from before was put in its place, or its log is gone: what is missing is told as of any damage.
                raise _Damaged(
                    f"{self.path}: the spool is not whole: it has {accepted:,} entries, and had {known.accepted:,} "
                    "before",
                    self._file,
                )
            if known is None or (known.store, known.origin) != (store, self.origin):
                self.card.write(store, self.origin)
            self._file = file_id(self.path)
            self._in_doubt = self._in_doubt and self._file == before
            self.openings += 1
        except BaseException as error:
            self._db = None
            if isinstance(error, _Damaged | apsw.CorruptError | apsw.NotADBError | apsw.IOError):
                close_aside(db)
            db.close(True)  # a second time, this does nothing
            raise

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

    def _part(self) -> None:
        """Close the connection, where that is safe; the caller holds the lock of this object."""
        if self._db is None:
            return
        # The last one to close a database deletes its log, by its name: no repair may put another there meanwhile.
        # Where a signal handler forks while this thread sees to that already, it would wait for itself.
        is_kept = self._keeper() in _keepers
        with suppress(Locked, OSError), nullcontext() if is_kept else locked(self.card.path, PART_WAIT_S):
            if file_id(self.path) == self._file:
                # A signal handler may raise at any point: what is closed must not be asked any more.
                db, self._db = self._db, None
                db.close(True)
                return
        self._leave()

    def _keeper(self) -> tuple[int, Path]:
        return threading.get_ident(), self.card.path

    def _leave(self) -> None:
        """Go on without the connection, whatever is at its path now."""
        if self._db is not None:
            db, self._db = self._db, None
            close_aside(db)

    # Repair

    def repair(self, damage: _Damaged) -> None:
        """Set the damaged file aside, and go on with a new one of what can be read. One process does; others wait.

        Raises SpoolError where it cannot be done now: it is tried again later.
        """
        with self._lock.lock:
            self.reopen()
            if self.waits_to_repair:
                raise self._hindrance or damage
            try:
                # What a signal handler records meanwhile is written by the call that needed the repair.
                self._busy = True
                self._translated(lambda: self._repair(damage))
            except SpoolError as error:
                self._hindrance = error
                raise
            finally:
                self._busy = False

    def _repair(self, damage: _Damaged) -> None:
        with locked(self.card.path, REPAIR_WAIT_S):
            there = file_id(self.path)
            if not salvage.is_unfinished(self.path) and (there is None or there != damage.file):
                return
            self._next_repair, self._hindrance = time.monotonic() + REPAIR_PAUSE_S, None
            known = self.card.read() or Known(self._store or "", "", 0)
            done = salvage.repair(self.path, SCHEMA, known)
        missing = f", at least {salvage.entries_are(done.missing)} missing" if done.missing else ""
        self._unsaid.append((
            logging.ERROR,
            "%s. Its files were set aside as %s; what can be read of them goes on in a new spool%s; `audit-pipeline "
            "doctor` says what to do",
            (damage, done.aside.name, missing),
        ))  # fmt: skip

    # Errors

    def _translated(self, work: Callable[[], R]) -> R:
        """What `work` gives; SQLite's errors as this package's."""
        try:
            return work()
        except OSError as error:
            read_only = error.errno == errno.EROFS
            folder = self.path.parent
            if error.errno == errno.ENOENT and not folder.exists():
                raise SpoolError(
                    f"{self.path}: cannot be created: the folder {folder} does not exist; make it, or choose another "
                    "path: that of the store (AUDIT_STORE_URL), beside which its spool lies, or AUDIT_SPOOL"
                ) from error
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise SpoolFull(f"{self.path}: the disk is full; free some room") from error
            whose = foreign_owner(self.path) if error.errno in (errno.EACCES, errno.EPERM) else None
            if whose is not None:
                raise SpoolError(
                    f"{self.path}: {error.strerror}: the spool belongs to {whose}, and this process runs as "
                    f"{account(os.geteuid())}; run both as one user, or choose another one (AUDIT_SPOOL)"
                ) from error
            raise SpoolError(
                f"{self.path}: the spool cannot be created: {error.strerror}; it has to lie in a folder that exists "
                "and can be written: beside the store (AUDIT_STORE_URL), or where AUDIT_SPOOL names it",
                "read-only" if read_only else "unusable",
            ) from error
        except Locked as error:
            raise SpoolError(f"{self.path}: another process repairs the spool; trying again helps") from error
        except apsw.FullError as error:
            raise SpoolFull(f"{self.path}: the disk is full; free some room") from error
        except apsw.NotADBError as error:
            if self.card.read() is not None:
                raise _Damaged(f"{self.path}: the spool is damaged ({error})", self._file) from error
            raise SpoolMismatch(f"{self.path}: is no spool; AUDIT_SPOOL must name a file of its own") from error
        except apsw.BusyError as error:
            self._stuck_until = time.monotonic() + STUCK_S
            raise SpoolError(f"{self.path}: another process has held the spool for {BUSY_MS // 1000} s") from error
        except apsw.Error as error:
            raise self._known(error) from error

    def _known(self, error: apsw.Error) -> SpoolError:
        code = getattr(error, "extendedresult", 0)
        if isinstance(error, apsw.CorruptError) or "no such table" in str(error) or "no such column" in str(error):
            return _Damaged(f"{self.path}: the spool is damaged ({error})", self._file)
        if code in (apsw.SQLITE_IOERR_READ, apsw.SQLITE_IOERR_SHORT_READ, apsw.SQLITE_IOERR_CORRUPTFS):
            return _Damaged(f"{self.path}: the spool cannot be read ({error})", self._file)
        # Some of what SQLite cannot do for want of room it calls by other names.
        with suppress(OSError):
            if isinstance(error, apsw.IOError | apsw.CantOpenError) and free_bytes(self.path.parent)[0] < LITTLE:
                return SpoolFull(f"{self.path}: the disk is full; free some room")
        read_only = isinstance(error, apsw.ReadOnlyError)
        return SpoolError(
            f"{self.path}: the spool cannot be {'written' if read_only else 'used'} ({type(error).__name__}: {error}); "
            "check its disk, its rights and its folder's",
            "read-only" if read_only else "unusable",
        )


_keepers: set[tuple[int, Path]] = set()
"""The threads that see to it, in the middle of a call, that no repair renames the files of a spool."""

_CLOSED = (apsw.ConnectionClosedError, apsw.CursorClosedError)


def _through_forks(work: Callable[[], R]) -> R:
    """What `work` gives, which is done again where a signal handler forked in the middle of it.

    The connection was closed for that. What is done with one is a statement or a transaction, which may be done twice.
    """
    for _ in range(TRIES - 1):
        try:
            return work()
        except _CLOSED:
            continue
    return work()


_INSERT = "INSERT INTO entries (received, body) VALUES (?, ?)"


NEAR = 10_000
"""Among so many of the newest entries is one whose call was broken off."""


def _kept(db: apsw.Connection, rows: Sequence[Row]) -> int:
    """The sequence of the last of these rows where they are in the spool already; else 0."""
    found = db.execute(
        "SELECT max(sequence) FROM entries WHERE sequence > (SELECT max(sequence) FROM entries) - ? AND body = ?",
        (NEAR, rows[-1][1]),
    ).get
    return int(found or 0)


def _insert(db: apsw.Connection, rows: Sequence[Row], note: Callable[[int], None]) -> int:
    if len(rows) == 1:  # a statement of its own is a transaction too, and the shortest
        db.execute(_INSERT, rows[0])
        return db.last_insert_rowid()
    with db:
        db.executemany(_INSERT, rows)
        sequence = db.last_insert_rowid()
        note(sequence)
    return sequence
