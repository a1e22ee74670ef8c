"""The pipeline as an application sees it: a structlog processor, and the direct call beside it.

When either returns, the entry is in the spool, on disk. A thread ships it to the store from there. Where the host chose
`fail_open`, an entry that the spool does not take is counted instead, and told as a gap once it takes entries again.
"""

from __future__ import annotations

import atexit
import logging
import os
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, MutableMapping, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any

from .actions import Action, catalogue, load_catalogue_file
from .context import Actor, count_entries, current_actor, note_unknown
from .errors import AuditError, InvalidEvent, SettingsError, SpoolError, SpoolMismatch
from .event import AuditEvent, IdFactory
from .gaps import Gaps, Told
from .normalize import FIELDS, MAX_VALUES, build_event, numbered_key, refusable
from .settings import ON_FULL, Settings, one_of, spool_path, unknown_line
from .shipper import Shipper
from .shipper_process import ShipperProcess
from .spool import Limits, Spool, SpoolStatus
from .stores import Store, open_store

__all__ = ["AuditPipeline"]

_log = logging.getLogger("audit_pipeline")

GAPS_S = 1.0
"""How often a log call looks whether another process counted entries that are to be told, in seconds."""
AGAIN_S = 60.0
"""For how long it is not told again that a user could not be asked for, in seconds."""

_NEVER_UNRECORDED = frozenset(("audit.exported",))
"""What this product does itself, and leaves undone where it cannot be recorded, whatever the host chose for its own."""

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
        on_full: str = "fail_closed",
        limits: Limits | None = None,
    ) -> None:
        self._raises = one_of("on_invalid", on_invalid, ("record", "raise")) == "raise"
        self.masks = one_of("ip_storage", ip_storage, ("full", "masked")) == "masked"
        """Whether no address is written in full, anywhere."""
        self._goes_on = one_of("on_full", on_full, ON_FULL) == "fail_open"
        self.store = store
        self.store.keeps_masked = self.masks
        identity = store.identity(spool)
        self.limits = limits or Limits()
        """What may wait in the spool."""
        self.spool = Spool(spool, identity, durability, self.limits, at_once=False)
        self.gaps = Gaps(spool)
        """What could not be recorded, and was counted."""
        self.refused: Counter[str] = Counter()
        """How many entries this process could not record, by the reason (see SpoolError)."""
        self._counting = False
        self._look_at = 0.0
        self._lookups_told = -AGAIN_S
        self._open_spool()
        self.shipper: Shipper | ShipperProcess | None = (
            Shipper(spool, identity, store, self._tell_gaps) if ship else None
        )
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
        on_full: str | None = None,
        settings: Settings | None = None,
    ) -> AuditPipeline:
        """Open a pipeline into a store, given by its URL. What is left out comes from the environment.

        Contacts no store, and never fails because one is down. Where it reads the environment, it logs what looks like
        a setting and is none. `on_invalid` says what becomes of an invalid entry: `record` keeps it with its problems,
        `raise` raises InvalidEvent (for development and tests). `durability`:
        `disk`, or `process` for entries that survive the end of the process but not a power loss. `ship=False`
        leaves shipping to another process. `on_full` says what becomes of a log call while the spool takes no entries:
        `fail_closed` raises SpoolError, `fail_open` counts the entry and returns, and the gap is recorded later.
        Raises SettingsError and SpoolError, each in one line.
        """
        if not isinstance(store, str | Store | None):
            raise SettingsError(
                f"store: is of type {type(store).__name__}; allowed is a URL (sqlite:////srv/audit.db), or a Store"
            )
        if settings is None:
            if line := unknown_line():
                _log.warning("%s", line)
            settings = Settings.from_environment(store=store if isinstance(store, str) else None, spool=spool)
        else:
            url = store if isinstance(store, str) else settings.store_url
            settings = replace(settings, store_url=url, spool=Path(spool) if spool else settings.spool)
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
            on_full=on_full or settings.on_full,
            limits=Limits(settings.spool_limit, settings.spool_age),
        )
        pipeline._folder = folder
        return pipeline

    # Taking events

    def processor(
        self, logger: Any, method_name: str, event_dict: MutableMapping[str, Any]
    ) -> MutableMapping[str, Any]:
        """The structlog processor: takes what is a catalogued action, and passes every event on, unchanged.

        Raises SpoolError where the entry could not be put on disk (`fail_closed`), and InvalidEvent where the pipeline
        was opened to; TypeError behind a renderer, which leaves no event to take. Bad input raises nothing otherwise.
        """
        try:
            name = event_dict.get("event")
        except AttributeError:
            raise TypeError(
                f"audit.processor was given {type(event_dict).__name__}, an event that is rendered already; put it "
                "before the renderer (JSONRenderer, wrap_for_formatter …) in structlog's processors"
            ) from None
        if isinstance(name, str) and (name := str.__str__(name)) in catalogue:  # a subclass may have no hash
            given = {key: value for key, value in event_dict.items() if key not in _STRUCTLOG_KEYS}
            self._take(self.prepare(catalogue[name], given))
        elif "target" in event_dict and isinstance(name, str):
            note_unknown(name)
        return event_dict

    def record(self, action: str, **given: Any) -> str:
        """Record an entry, and return its id.

        Takes the keywords `target`, `detail`, `user`, `ip`, `outcome`, `org`, `timestamp`, `id` and `context`; others
        become part of its context. Raises UnknownAction, SpoolError (`fail_closed`), and InvalidEvent where the
        pipeline was opened to.
        """
        event = self.prepare(catalogue[action], given)
        self._take(event)
        return event.id

    def prepare(self, action: Action, given: Mapping[str, Any]) -> AuditEvent:
        """The entry that `given` makes, with who and where as bound here. Nothing is recorded yet."""
        actor = current_actor()
        own: dict[str, Any] = {}
        others: dict[str, Any] = {}
        for key, value in given.items():
            (own if key in FIELDS else others)[key] = value
        # What the call says wins over what is bound.
        stated = _stated(own.get("context"))
        own["context"] = context = {**actor.context, **stated}
        for key, value in others.items():
            context[numbered_key(key, stated)[0] if key in stated else key] = value
        for name in ("user", "ip", "org"):
            if own.get(name) is None:
                own[name] = self._from_actor(actor, name, context)
        event = build_event(action, own, self._ids, mask_storage=self.masks)
        if self._raises and (problems := refusable(event.problems)):
            raise InvalidEvent(problems)
        return event

    def accept(self, events: Sequence[AuditEvent]) -> None:
        """Put prepared entries on disk, all or none. Raises SpoolError, whatever `on_full` says."""
        try:
            self._append(events)
        except SpoolError as error:
            self.refused[error.reason] += len(events)
            self._look_at = 0.0
            raise
        count_entries(len(events))
        if self.shipper is not None:
            self.shipper.start()
            self.shipper.wake()

    def _from_actor(self, actor: Actor, name: str, context: dict[str, Any]) -> Any:
        try:
            return actor.resolved_user() if name == "user" else getattr(actor, name)
        except Exception as error:  # the application's own function's: it must not lose the entry
            kind = type(error).__name__
            if self._raises:
                raise InvalidEvent([f"user: the function that was to tell it raised {kind}"]) from error
            context["user_lookup_failed"] = kind
            now = time.monotonic()
            if now >= self._lookups_told + AGAIN_S:
                self._lookups_told = now
                _log.warning(
                    "entries are recorded without their user: the function that was to tell it raised %s (logged once "
                    "a minute at the most)", kind, exc_info=error,
                )  # fmt: skip
            return None

    def _take(self, event: AuditEvent) -> None:
        """Accept an entry, or count it, as the host chose."""
        try:
            self.accept([event])
        except SpoolError as error:
            if not self._goes_on or event.action in _NEVER_UNRECORDED:
                raise
            self.gaps.count([event], error.reason)
            count_entries(1)
            self._say_counting(error)

    def _append(self, events: Sequence[AuditEvent]) -> None:
        """Append entries, and before them those that tell of gaps."""
        told = self._told() if time.monotonic() >= self._look_at else None
        rows = [*told.events, *events] if told else events
        if rows:
            self._last = max(self._last, self.spool.append(rows))
        if told is not None:
            self.gaps.settle(told)
            self._counting = False
            _log.warning("entries are recorded again; what is missing is told by %d of them", len(told.events))

    def _told(self) -> Told | None:
        """The entries that tell of gaps, where there are some, and room for them."""
        self._look_at = time.monotonic() + GAPS_S
        return self.gaps.told() if self.gaps.missing() and self.spool.refusal() is None else None

    def _tell_gaps(self) -> None:
        """Tell of gaps where no log call comes to do so."""
        with suppress(SpoolError):
            self._look_at = 0.0
            self._append([])

    def _say_counting(self, error: SpoolError) -> None:
        if not self._counting:
            _log.error("entries are not recorded at the moment, and counted: %s", error)
        self._counting = True

    def _open_spool(self) -> None:
        """Open the spool now. With `fail_open`, one that cannot be used at the moment is tried with each entry."""
        try:
            self.spool.serves()
        except SpoolMismatch:
            raise
        except SpoolError as error:
            if not self._goes_on:
                raise
            self._say_counting(error)
        if self._goes_on:
            self.gaps.reserve()

    # State and end

    def status(self) -> SpoolStatus:
        """How the spool stands. Raises SpoolError."""
        return self.spool.status()

    def unshipped(self) -> int:
        """How many entries the store does not have yet, up to the last one that this pipeline took.

        Whoever asks is taken to wait for them: they are shipped without further delay.
        """
        left = max(0, self._last - self.spool.shipped())
        if left and self.shipper is not None:
            self.shipper.hurry()
        return left

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
        self._say_untold()
        end = time.monotonic() + timeout
        try:
            if self._last and self.shipper is not None and not self.flush(timeout):
                _log.warning("entries are left in the spool %s; the next pipeline ships them", self.spool.path)
        except AuditError as error:
            _log.warning("closing without knowing what is left in the spool: %s", error)
        self._last = 0
        if self.shipper is not None:
            self.shipper.stop(max(0.5, end - time.monotonic()))
        self.spool.close()
        self.store.close()
        self._remove_folder()

    def _at_exit(self) -> None:
        """Ship what is left. The spool stays open: a handler that was registered earlier runs later, and may record."""
        self._say_untold()
        self.spool.file.write_left_over()
        try:
            if self._last and self.shipper is not None:
                self.flush(1.0)
        except AuditError as error:
            _log.warning("ending without knowing what is left in the spool: %s", error)
        if self.shipper is not None:
            self.shipper.stop(1.0)
        self._remove_folder()

    def _say_untold(self) -> None:
        if count := self.gaps.in_memory():
            _log.error("%d entries were not recorded, and no entry will tell of it: not even their count could be "
                       "written", count)  # fmt: skip

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
