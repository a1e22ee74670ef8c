"""Moves entries from the spool into the store: one at a time for each spool, in order, retrying for ever.

Who ships is decided by a lock of the operating system, which ends with its process, however that ends; not by a
lease. A process that does not hold it asks again several times a second, and so takes over at once.
"""

from __future__ import annotations

import fcntl
import logging
import os
import random
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from .errors import AuditError, SpoolError
from .event import AuditEvent
from .forking import prepare_for_forks
from .spool import Quarantined, Spool
from .stores import Store

__all__ = ["Shipper", "ShipperLock"]

POLL_S = 0.1
"""How often an idle shipper looks whether another process wrote to the spool, in seconds."""
TAKEOVER_S = 0.2
"""How often a waiting shipper asks for the lock, in seconds."""
RETRY_S = (0.1, 5.0)
"""The first and the longest pause before a store is tried again, in seconds."""
BATCH = 1000
"""Entries in a batch, at the most."""
TRIES = 3
"""How often a store may break down over a single entry, and over how many in a row, before something else is done."""
TRIM_S = 60.0
"""How often what was shipped is trimmed, in seconds."""

_log = logging.getLogger("audit_pipeline.shipper")


class ShipperLock:
    """The right to ship one spool: held by one process of a machine at a time, and freed when that process ends."""

    def __init__(self, spool: Path) -> None:
        self._path = spool.with_name(spool.name + ".lock")
        self._file: int | None = None

    def acquire(self) -> bool:
        """Take the lock if it is free. Raises SpoolError where the file cannot be made."""
        try:
            file = os.open(self._path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise SpoolError(f"{self._path}: cannot be opened: {error.strerror}") from error
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(file)
            return False
        self._file = file
        return True

    def release(self) -> None:
        """Give the lock up. In a forked child, this leaves the parent's lock as it is."""
        if self._file is not None:
            os.close(self._file)
            self._file = None


class Shipper:
    """Ships one spool into one store, in a daemon thread (`start`) or in the caller's (`run`)."""

    def __init__(self, spool: Path, identity: str, store: Store) -> None:
        self._path = spool
        self._identity = identity
        self._store = store
        self._lock = ShipperLock(spool)
        self._wake = threading.Event()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._trimmed = 0.0
        self._limit = BATCH
        self._broke = self._in_a_row = 0
        self.trouble: Exception | None = None
        """Why nothing is shipped at the moment; None while all is well."""
        self.retries = 0
        """How often the store did not take a batch, which was then sent again."""
        prepare_for_forks(self)

    def start(self) -> None:
        """Ship in a daemon thread from now on. Does nothing where one runs already."""
        if self._thread is None and not self._stop.is_set():
            self._thread = threading.Thread(target=self.run, name="audit-shipper", daemon=True)
            self._thread.start()

    def wake(self) -> None:
        """Say that the spool has something new."""
        self._wake.set()

    def stop(self, timeout: float = 5.0) -> None:
        """End the thread after the batch under way; wait for that up to `timeout` seconds."""
        self._stop.set()
        self._wake.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(timeout)

    def before_fork(self) -> None:
        """The spool and the store see to their connections themselves."""

    def after_fork_in_parent(self) -> None:
        """Go on."""

    def after_fork_in_child(self) -> None:
        """The child has no such thread, and does not hold the lock."""
        self._lock.release()
        self._wake = threading.Event()
        self._stop = threading.Event()
        self._thread = None

    def run(self) -> None:
        """Ship until `stop` is called. Nothing that a store or a spool does ends it."""
        pause = RETRY_S[0]
        while not self._stop.is_set():
            try:
                if self._lock.acquire():
                    try:
                        self._ship()
                    finally:
                        self._lock.release()
                else:
                    self.trouble = None
                    self._stop.wait(TAKEOVER_S)
                pause = RETRY_S[0]
            except Exception as error:  # noqa: BLE001 - whatever it was, the thread lives on: entries would wait for ever
                if self.trouble is None:
                    pause = RETRY_S[0]
                self._report(error)
                self._stop.wait(pause * random.uniform(0.8, 1.2))
                pause = min(pause * 2, RETRY_S[1])

    def _ship(self) -> None:
        """Ship for as long as this process holds the lock."""
        spool = Spool(self._path, self._identity)
        try:
            while not self._stop.is_set():
                self._wake.clear()
                while not self._stop.is_set() and self._ship_batch(spool):
                    pass
                if time.monotonic() - self._trimmed > TRIM_S:
                    while spool.trim() and not self._stop.is_set():
                        pass
                    self._trimmed = time.monotonic()
                spool.changed()
                while not self._stop.is_set() and not self._wake.wait(POLL_S) and not spool.changed():
                    pass
        finally:
            spool.close()

    def _ship_batch(self, spool: Spool) -> int:
        events = spool.pending(limit=self._limit)
        if events:
            refused = self._append(events)
            for one in refused:
                _log.warning("entry %s is in quarantine: %s", one.event.id, one.reason)
            spool.mark_shipped(events[-1].sequence, refused)
        if self.trouble is not None:
            _log.warning("shipping again after: %s", self.trouble)
            self.trouble = None
        return len(events)

    def _append(self, events: Sequence[AuditEvent]) -> list[Quarantined]:
        """The entries that the store will never take. Raises what the store raises, while trying again may help."""
        try:
            refusals = self._store.append(events)
        except AuditError:
            self.retries += 1
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
            _log.exception("the store breaks down over entry %s", events[0].id)
            return [Quarantined(events[0], f"the store breaks down over it ({type(error).__name__})")]
        self._limit = min(BATCH, self._limit * 2)
        self._broke = self._in_a_row = 0
        return [Quarantined(refusal.event, refusal.reason) for refusal in refusals]

    def _report(self, error: Exception) -> None:
        if repr(error) != repr(self.trouble):
            known = isinstance(error, AuditError)
            _log.error("nothing is shipped at the moment: %s", error, exc_info=None if known else error)
        self.trouble = error
