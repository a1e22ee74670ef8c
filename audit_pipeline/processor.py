"""The pipeline as an application sees it: a structlog processor, and the direct call beside it.

When either returns, the entry is in the spool, on disk. A thread ships it to the store from there.
"""

from __future__ import annotations

import atexit
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Mapping, MutableMapping, Sequence
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any

from .actions import Action, catalogue, load_catalogue_file
from .context import Actor, count_entries, current_actor
from .errors import AuditError, InvalidEvent
from .event import AuditEvent, IdFactory
from .normalize import FIELDS, MAX_VALUES, build_event, refusable
from .settings import Settings, one_of, spool_path
from .shipper import Shipper
from .spool import Spool, SpoolStatus
from .stores import Store, open_store

__all__ = ["AuditPipeline"]

_log = logging.getLogger("audit_pipeline")

_STRUCTLOG_KEYS = frozenset(("event", "_record", "_from_structlog"))


class AuditPipeline:
    """Takes audit events, and sees to it that they reach the store. Open one for each process; threads share it."""

    def __init__(
        self,
        store: Store,
        spool: Path,
        *,
        on_invalid: str = "record",
        durability: str = "disk",
        ip_storage: str = "full",
        ship: bool = True,
    ) -> None:
        self.store = store
        self.spool = Spool(spool, store.identity(spool), durability)
        self.shipper: Shipper | None = Shipper(spool, store.identity(spool), store) if ship else None
        self._raises = one_of("on_invalid", on_invalid, ("record", "raise")) == "raise"
        self._masks = one_of("ip_storage", ip_storage, ("full", "masked")) == "masked"
        self._ids = IdFactory()
        self._last = 0
        self._folder: Path | None = None
        self._process = os.getpid()
        if self.shipper is not None:
            self.shipper.start()
        atexit.register(self._at_exit)

    @classmethod
    def open(
        cls,
        store: str | Store | None = None,
        *,
        spool: str | Path | None = None,
        on_invalid: str = "record",
        durability: str = "disk",
        ip_storage: str | None = None,
        ship: bool = True,
        settings: Settings | None = None,
    ) -> AuditPipeline:
        """Open a pipeline into a store, given by its URL. What is left out comes from the environment.

        Contacts no store, and never fails because one is down. `on_invalid` says what becomes of an invalid entry:
        `record` keeps it with its problems, `raise` raises InvalidEvent (for development and tests). `durability`:
        `disk`, or `process` for entries that survive the end of the process but not a power loss. `ship=False`
        leaves shipping to another process. Raises SettingsError and SpoolError, each in one line.
        """
        if settings is None:
            settings = Settings.from_environment(store=store if isinstance(store, str) else None, spool=spool)
        if settings.catalogue is not None:
            load_catalogue_file(settings.catalogue)
        opened = store if isinstance(store, Store) else open_store(settings.store_url)
        folder = None
        if opened.lasting or settings.spool is not None:
            path = spool_path(settings, opened)
        else:
            folder = Path(tempfile.mkdtemp(prefix="audit-pipeline-"))
            path = folder / "memory.spool.db"
        pipeline = cls(
            opened,
            path,
            on_invalid=on_invalid,
            durability=durability,
            ip_storage=ip_storage or settings.ip_storage,
            ship=ship,
        )
        pipeline._folder = folder
        return pipeline

    # Taking events

    def processor(
        self, logger: Any, method_name: str, event_dict: MutableMapping[str, Any]
    ) -> MutableMapping[str, Any]:
        """The structlog processor: takes what is a catalogued action, and passes every event on, unchanged.

        Raises SpoolError where the entry could not be put on disk, and InvalidEvent where the pipeline was opened
        to; bad input raises nothing otherwise.
        """
        name = event_dict.get("event")
        if isinstance(name, str) and (name := str.__str__(name)) in catalogue:  # a subclass may have no hash
            given = {key: value for key, value in event_dict.items() if key not in _STRUCTLOG_KEYS}
            self.accept([self.prepare(catalogue[name], given)])
        return event_dict

    def record(self, action: str, **given: Any) -> str:
        """Record an entry, and return its id.

        Takes the keywords `target`, `detail`, `user`, `ip`, `outcome`, `org`, `timestamp`, `id` and `context`; others
        become part of its context. Raises UnknownAction, SpoolError, and InvalidEvent where the pipeline was opened
        to.
        """
        event = self.prepare(catalogue[action], given)
        self.accept([event])
        return event.id

    def prepare(self, action: Action, given: Mapping[str, Any]) -> AuditEvent:
        """The entry that `given` makes, with who and where as bound here. Nothing is recorded yet."""
        actor = current_actor()
        own = {key: value for key, value in given.items() if key in FIELDS}
        # What the call says wins over what is bound.
        context = {**actor.context, **_stated(own.get("context"))}
        context |= {key: value for key, value in given.items() if key not in FIELDS}
        own["context"] = context
        for name in ("user", "ip", "org"):
            if own.get(name) is None:
                own[name] = _from_actor(actor, name, context)
        event = build_event(action, own, self._ids, mask_storage=self._masks)
        if self._raises and (problems := refusable(event.problems)):
            raise InvalidEvent(problems)
        return event

    def accept(self, events: Sequence[AuditEvent]) -> None:
        """Put prepared entries on disk, all or none. Raises SpoolError."""
        self._last = max(self._last, self.spool.append(events))
        count_entries(len(events))
        if self.shipper is not None:
            self.shipper.start()
            self.shipper.wake()

    # State and end

    def status(self) -> SpoolStatus:
        """How the spool stands. Raises SpoolError."""
        return self.spool.status()

    def unshipped(self) -> int:
        """How many entries the store does not have yet, up to the last one that this pipeline took."""
        return max(0, self._last - self.spool.shipped())

    def flush(self, timeout: float = 5.0) -> bool:
        """Wait until the store has everything that this pipeline took, up to `timeout` seconds; say whether it has."""
        end = time.monotonic() + timeout
        while self.unshipped():
            if time.monotonic() > end:
                return False
            time.sleep(0.005)
        return True

    def close(self, timeout: float = 5.0) -> None:
        """Ship what is left, for up to `timeout` seconds, and let go. What is not shipped stays in the spool.

        Nothing is lost where this is never called. May be called twice.
        """
        atexit.unregister(self._at_exit)
        try:
            if self._last and self.shipper is not None and not self.flush(timeout):
                _log.warning("entries are left in the spool %s; the next pipeline ships them", self.spool.path)
        except AuditError as error:
            _log.warning("closing without knowing what is left in the spool: %s", error)
        self._last = 0
        if self.shipper is not None:
            self.shipper.stop()
        self.spool.close()
        self.store.close()
        self._remove_folder()

    def _at_exit(self) -> None:
        """Ship what is left. The spool stays open: a handler that was registered earlier runs later, and may record."""
        try:
            if self._last and self.shipper is not None:
                self.flush(1.0)
        except AuditError as error:
            _log.warning("ending without knowing what is left in the spool: %s", error)
        if self.shipper is not None:
            self.shipper.stop(1.0)
        self._remove_folder()

    def _remove_folder(self) -> None:
        """Remove the spool of a store that does not outlive its process; in a forked child, it is the parent's."""
        if self._folder is not None and os.getpid() == self._process:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    def __enter__(self) -> AuditPipeline:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _stated(context: Any) -> dict[str, Any]:
    """The context that a call gave as such; what is no readable mapping stays one value of it."""
    try:
        if context is None:
            return {}
        if isinstance(context, Mapping):
            return dict(islice(context.items(), MAX_VALUES))
    except Exception:  # noqa: BLE001 - the application's own mapping; what cannot be read is named when it is cleaned
        return {"context": context}
    return {"context": context}


def _from_actor(actor: Actor, name: str, context: dict[str, Any]) -> Any:
    try:
        return actor.resolved_user() if name == "user" else getattr(actor, name)
    except Exception as error:  # noqa: BLE001 - the application's own function; its failure must not lose the entry
        context["user_lookup_failed"] = type(error).__name__
        return None
