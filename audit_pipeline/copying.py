"""Copies one store into another, entry for entry, with the place that each had in its spool.

It goes through the organisations by name, and through each by time, and after each batch writes a mark down: how far
it came. A copy that was interrupted, however that happened, goes on from its mark. The mark is always behind what
the target has; what is read a second time for that is the same entry again, which a store keeps once.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from pathlib import Path

from .errors import StoreMissing
from .event import AuditEvent
from .files import replacing
from .offering import in_batches, offer_patiently
from .query import Query, Window
from .settings import state_folder
from .stores import Refusal, Store

__all__ = ["Copied", "Copy", "same_place"]

PART = 1_000_000
"""So many entries are looked up at once: of all there are, a store may take too long, and more memory than there is."""


@dataclass(frozen=True, slots=True)
class Copied:
    """What a copy did so far, interrupted runs included."""

    entries: int = 0
    """Entries that the target has now."""
    refused: int = 0
    """Entries that it refused."""


@dataclass(frozen=True, slots=True)
class _Mark:
    """How far a copy came: every organisation before this one is done, and this one up to this entry."""

    org: str
    timestamp: int
    id: str
    copied: Copied

    def passed(self, event: AuditEvent) -> bool:
        return event.org == self.org and (event.timestamp, event.id) <= (self.timestamp, self.id)


def same_place(source: Store, target: Store) -> bool:
    """Whether two stores are one."""
    return _identity(source) == _identity(target)


def _identity(store: Store) -> str:
    # Seen from one folder, whichever: both stores, and every run, from the same.
    return store.identity(Path("/spool"))


class Copy:
    """A copy of one store into another. Resumes the last one of the same two stores, if that was interrupted."""

    def __init__(self, source: Store, target: Store, *, restart: bool = False) -> None:
        """Raises SettingsError where the user has no folder for the mark, and StoreError where one does not answer."""
        self._source = source
        self._target = target
        digest = sha256(json.dumps([_identity(source), _identity(target)]).encode()).hexdigest()[:16]
        self._file = state_folder() / f"copy-{digest}.json"
        if restart:
            self._file.unlink(missing_ok=True)
        self._mark = self._known_mark()
        self.copied = self._mark.copied if self._mark else Copied()
        """What was done so far."""
        self.resumed_at = (self._mark.org, self._mark.timestamp) if self._mark else None
        """The organisation, and the time (ms) in it, from which an interrupted copy is resumed; None for a new one."""

    def left(self) -> int:
        """About how many entries are to be read. Raises StoreError."""
        return sum(self._source.search(query, Window(1)).total for query in self._queries())

    def run(self) -> Iterator[tuple[int, list[Refusal]]]:
        """Copy; after each batch, give the number of entries that were read, and those of them that were refused.

        A target that is unavailable is waited for up to a minute with each batch. Raises StoreError: what was
        copied stays, and another run goes on from there.
        """
        for org in self._source.organisations():
            most = PART
            while (query := self._rest_of(org)) is not None:
                resumed, read = self._mark, 0
                with closing(self._source.snapshot(query, most)) as snapshot:
                    for part in snapshot.batches():
                        read += len(part)
                        for batch in in_batches(event for event in part if not (resumed and resumed.passed(event))):
                            refusals = offer_patiently(self._target, batch, "the target")
                            self._note(batch, len(refusals))
                            yield len(batch), refusals
                if read < most:
                    break
                if self._mark is resumed:  # all of one millisecond, and copied before
                    most *= 2
        self._file.unlink(missing_ok=True)

    def _queries(self) -> Iterator[Query]:
        """All entries that are left, one organisation after another, each by time."""
        return filter(None, map(self._rest_of, self._source.organisations()))

    def _rest_of(self, org: str) -> Query | None:
        """What is left of an organisation, by time; None where it is done."""
        mark = self._mark
        if mark is None or org > mark.org:
            return Query(org, sort="timestamp")
        return Query(org, start=mark.timestamp, sort="timestamp") if org == mark.org else None

    # The mark

    def _note(self, batch: Sequence[AuditEvent], refused: int) -> None:
        done = self.copied
        self.copied = replace(done, entries=done.entries + len(batch) - refused, refused=done.refused + refused)
        last = batch[-1]
        mark = _Mark(last.org, last.timestamp, last.id, self.copied)
        with replacing(self._file) as file:
            file.write(json.dumps(asdict(mark)).encode())
        self._mark = mark

    def _known_mark(self) -> _Mark | None:
        """The mark of an interrupted copy. None where there is none, or one of the stores was replaced since."""
        try:
            written = json.loads(self._file.read_bytes())
            mark = _Mark(**(written | {"copied": Copied(**written["copied"])}))
        except (FileNotFoundError, ValueError, TypeError, KeyError):
            return None
        try:
            there = all(store.get(mark.org, mark.id) for store in (self._source, self._target))
        except StoreMissing:
            return None
        return mark if there else None
