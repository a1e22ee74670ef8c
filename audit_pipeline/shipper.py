"""Moves entries from the spool into the store: one at a time for each spool, in order, retrying for ever.

Who ships is decided by a lock of the operating system (`shipping`). A process that does not hold it asks again several
times a second, and so takes over at once.

Log calls in the same process come first: while there are some, it ships in larger batches, pauses between them and
between entries, and writes its mark down every now and then. What it sends twice for that, after a crash, the store
keeps once.
"""

from __future__ import annotations

import logging
import random
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from .errors import AuditError, SpoolError
from .event import AuditEvent
from .forking import prepare_for_forks, take_no_signals
from .shipping import ShippingLock, Stopped
from .spool import Quarantined, Spool
from .stores import Store

__all__ = ["Shipper"]

POLL_S = 0.1
"""How often an idle shipper looks whether another process wrote to the spool, in seconds."""
TAKEOVER_S = 0.2
"""How often a waiting shipper asks for the lock, in seconds."""
RETRY_S = (0.1, 5.0)
"""The first and the longest pause before a store is tried again, in seconds."""
BATCH, BACKLOG = 4000, 8000
"""Entries in a batch, at the most: usually, and while there are more than that."""
MANY = 250
"""Entries in a batch, from which on the next one gathers for longer."""
GATHER_S, GATHER_LOAD_S, GATHER_MANY_S = 0.05, 0.3, 0.75
"""How long entries gather before the next batch, in seconds: after an idle time, under load, and where many come. Log
calls share the disk and the processors with a store that stores, most of all when each batch is synced."""
FOUND_S = 1.5
"""Within how many seconds an entry is to be found, at a pace at which the store keeps up: one that comes while a batch
is under way waits for the rest of that, for the pause, and for its own batch."""
LOAD_S = 1.0
"""For how long after a log call of this process it counts as being under load, in seconds."""
NAP_S, RUN_S, RUN_BEHIND_S = 0.00005, 0.00003, 0.00025
"""The pause under load, in seconds, and after which time; where shipping is behind, after more. Python runs one
thread at a time, and takes that right away from a busy one only after 5 ms."""
MARK_S = 2.0
"""How often, under load, the mark is written down, in seconds: log calls wait for the same lock."""
TRIES = 3
"""How often a store may break down over a single entry, and over how many in a row, before something else is done."""
TIDY_S = 5.0
"""How often other work is done for the spool, in seconds."""
TRIM_S = 60.0
"""How often what was shipped is trimmed, in seconds."""
TRIM_PAUSE_S = 0.02
"""The pause after each part of that, in seconds."""

_log = logging.getLogger("audit_pipeline.shipper")


class Shipper:
    """Ships one spool into one store, in a daemon thread (`start`) or in the caller's (`run`).

    `tidy` is called every few seconds by the one that ships, between two batches.
    """

    def __init__(self, spool: Path, identity: str, store: Store, tidy: Callable[[], None] | None = None) -> None:
        self._path = spool
        self._identity = identity
        self._store = store
        self._tidy = tidy
        self._lock = ShippingLock(spool)
        self._wake = threading.Event()
        self._hurry = threading.Event()
        self._stop = threading.Event()
        self._choosing = threading.RLock()
        self._thread: threading.Thread | None = None
        self._is_refused = False
        self._tidied = self._trimmed = self._marked = self._recorded = self._rested = -TRIM_S
        self._limit = BATCH
        self._broke = self._in_a_row = 0
        self.trouble: Exception | None = None
        """Why nothing is shipped at the moment; None while all is well, or another process ships."""
        self.stopped: Stopped | None = None
        """The same, as it is told."""
        self.retries = 0
        """How often the store did not take a batch, which was then sent again."""
        prepare_for_forks(self)

    def start(self) -> None:
        """Ship in a daemon thread from now on. Does nothing where one runs already.

        Where the system has no thread to give, that is logged, and the next call tries again.
        """
        if self._thread is not None or self._stop.is_set():
            return
        refusal: Exception | None = None
        with self._choosing:
            if self._thread is None:
                thread = threading.Thread(target=self._run_if_chosen, name="audit-shipper", daemon=True)
                try:
                    thread.start()
                except (RuntimeError, MemoryError) as error:
                    refusal = error
                else:
                    self._thread = self._thread or thread
        is_news = refusal is not None and not self._is_refused
        self._is_refused = refusal is not None
        if is_news:  # not under the lock: a handler that records could wait for it
            _log.warning("this process ships nothing at the moment, the next log call tries again: %s", refusal)

    def _run_if_chosen(self) -> None:
        # A signal handler may have started a thread in the middle of `start`, or raised there: one of them ships.
        with self._choosing:
            self._thread = self._thread or threading.current_thread()
        if self._thread is threading.current_thread():
            take_no_signals()
            try:
                self.run()
            finally:
                self._thread = None  # where something broke it off, the next log call starts another

    def wake(self) -> None:
        """Say that this process put something into the spool."""
        self._recorded = time.monotonic()
        self._wake.set()

    def hurry(self) -> None:
        """Say that somebody waits for what is in the spool to be stored."""
        self._hurry.set()
        self._wake.set()

    def stop(self, timeout: float = 5.0) -> None:
        """End the thread after the batch under way; wait for that up to `timeout` seconds."""
        self._stop.set()
        self.hurry()
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout)

    def before_fork(self) -> None:
        """The spool and the store see to their connections themselves."""
        self._lock.before_fork()

    def after_fork_in_parent(self) -> None:
        """Go on."""
        self._lock.after_fork_in_parent()

    def after_fork_in_child(self) -> None:
        """The child has no such thread, and does not hold the lock."""
        self._lock.after_fork_in_child()
        self._wake, self._hurry, self._stop = threading.Event(), threading.Event(), threading.Event()
        self._choosing, self._thread = threading.RLock(), None

    def run(self) -> None:
        """Ship until `stop` is called. Nothing that a store or a spool does ends it."""
        pause = RETRY_S[0]
        while not self._stop.is_set():
            try:
                if self._lock.acquire():
                    self._ship()
                else:
                    self.trouble = self.stopped = None
                    self._stop.wait(TAKEOVER_S)
                pause = RETRY_S[0]
            except Exception as error:  # noqa: BLE001 - whatever it was, the thread lives on: entries would wait for ever
                if self.trouble is None:
                    pause = RETRY_S[0]
                self._report(error)
                self._lock.release()  # another process may try meanwhile
                self._stop.wait(pause * random.uniform(0.8, 1.2))
                pause = min(pause * 2, RETRY_S[1])
            finally:
                self._lock.release()

    def _ship(self) -> None:
        """Ship for as long as this process holds the lock."""
        spool = Spool(self._path, self._identity)
        try:
            while not self._stop.is_set():
                self._ship_some(spool)
        finally:
            with suppress(SpoolError):
                spool.mark_stored()
            spool.close()

    def _ship_some(self, spool: Spool) -> None:
        """Ship a batch, or wait for there to be one."""
        self._wake.clear()
        self._hurry.clear()
        seen = spool.version()
        limit = self._limit
        begin = time.monotonic()
        shipped = self._ship_batch(spool)
        took = time.monotonic() - begin
        quiet = spool.version() == seen and not self._wake.is_set()
        if quiet or self._hurry.is_set() or time.monotonic() - self._marked > MARK_S:
            self._marked = time.monotonic()
            spool.mark_stored()
        if shipped:
            # Batches may come without a rest: as many entries are trimmed as came, or the spool would grow.
            self._see_to(spool, self._hurry.is_set, shipped)
            if shipped < limit:
                self._hurry.wait(self._gathering_s(shipped, took))
            return

        def is_disturbed(after: float = TRIM_PAUSE_S) -> bool:
            return self._stop.is_set() or self._wake.wait(after) or spool.version() != seen

        self._see_to(spool, is_disturbed)
        while not is_disturbed(POLL_S):
            self._see_to(spool, is_disturbed)
        self._hurry.wait(GATHER_S)

    def _see_to(self, spool: Spool, is_disturbed: Callable[[], bool], most: int = sys.maxsize) -> None:
        """Do what is due beside shipping; trim until disturbed, or about `most` entries: the rest another time."""
        now = time.monotonic()
        if self._tidy is not None and now - self._tidied > TIDY_S:
            self._tidied = now
            self._tidy()
        if now - self._trimmed > TRIM_S:
            while most > 0 and not is_disturbed():
                trimmed = spool.trim()
                if not trimmed:
                    self._trimmed = now
                    return
                most -= trimmed

    def _ship_batch(self, spool: Spool) -> int:
        # A spool may have been recorded under another AUDIT_IP_STORAGE.
        events = self._store.to_keep(spool.pending(limit=self._limit, between=self._give_way))
        if events:
            refused = self._append(events)
            if refused:
                # Before anything else: no mark may pass an entry that is neither stored nor in quarantine.
                spool.mark_shipped(events[-1].sequence, refused)
            for one in refused:
                _say(logging.WARNING, "entry %s is in quarantine: %s", one.event.id, one.reason)
            spool.note_stored(events[-1].sequence)
        if self.trouble is not None or self._lock.stopped is not None:
            spool.mark_stored()
            self._say_going()
        return len(events)

    def _append(self, events: Sequence[AuditEvent]) -> list[Quarantined]:
        """The entries that the store will never take. Raises what the store raises, while trying again may help."""
        try:
            refusals = self._store.append(_Unhurried(events, self._give_way))
        except AuditError:
            self.retries += 1
            self._limit = min(self._limit, BATCH)
            raise
        except Exception as error:
            self.retries += 1
            # Not one of the errors that a store may raise: a fault of its own, perhaps over one entry. Smaller batches
            # show which; where they fail one after another, it is the store, and they wait.
            if len(events) > 1:
                self._limit = max(1, len(events) // 4)
                self._broke = 0
                raise
            self._broke += 1
            if self._broke < TRIES or self._in_a_row >= TRIES:
                raise
            self._broke = 0
            self._in_a_row += 1
            _say(logging.ERROR, "the store breaks down over entry %s", events[0].id, exc_info=error)
            return [Quarantined(events[0], f"the store breaks down over it ({type(error).__name__})")]
        self._limit = min(BACKLOG, self._limit * 2) if len(events) == self._limit else BATCH
        self._broke = self._in_a_row = 0
        return [Quarantined(refusal.event, refusal.reason) for refusal in refusals]

    def _is_under_load(self) -> bool:
        return time.monotonic() - self._recorded < LOAD_S and not self._hurry.is_set()

    def _gathering_s(self, shipped: int, took: float) -> float:
        if not self._is_under_load():
            return GATHER_S
        most = GATHER_LOAD_S if shipped < MANY else GATHER_MANY_S
        return min(most, max(GATHER_S, FOUND_S - 2 * took))

    def _give_way(self) -> None:
        """Let other threads of this process go first."""
        ran = time.monotonic() - self._rested
        if ran > (RUN_S if self._limit < BACKLOG else RUN_BEHIND_S) and self._is_under_load():
            time.sleep(NAP_S)
            self._rested = time.monotonic()

    def _say_going(self) -> None:
        if self.trouble is not None:
            _say(logging.WARNING, "shipping again after: %s", self.trouble)
        self.trouble = self.stopped = None
        self._lock.tell_going()

    def _report(self, error: Exception) -> None:
        if repr(error) != repr(self.trouble):
            known = isinstance(error, AuditError)
            _say(logging.ERROR, "nothing is shipped at the moment: %s", error, exc_info=None if known else error)
            self.stopped = self._lock.tell_stopped(error)
        self.trouble = error


def _say(level: int, text: str, *given: object, exc_info: Exception | None = None) -> None:
    """Log. What a handler or a filter of the application raises is printed, and ends no shipping."""
    try:
        _log.log(level, text, *given, exc_info=exc_info)
    except Exception:  # noqa: BLE001 - the application's code: entries would wait for ever
        with suppress(Exception):  # there may be nowhere to print to
            traceback.print_exc()


class _Unhurried(list[AuditEvent]):
    """Entries that give way to other threads while somebody goes through them."""

    def __init__(self, events: Sequence[AuditEvent], give_way: Callable[[], None]) -> None:
        super().__init__(events)
        self._give_way = give_way

    def __iter__(self) -> Iterator[AuditEvent]:
        for event in super().__iter__():
            self._give_way()
            yield event
