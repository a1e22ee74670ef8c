"""A store in the memory of one process: for tests, and the plain statement of what every other store must answer."""

from __future__ import annotations

import threading
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from ..errors import SettingsError
from ..event import AuditEvent
from ..privacy import same_content
from ..query import Query, Searchable, SortKey, Window, sort_key
from .base import Arrival, Arrivals, Page, Refusal, Snapshot, Store, StoreURL, numbered

__all__ = ["STORE", "MemoryStore"]


class MemoryStore(Store):
    """Keeps entries in a dictionary. Each opening is a store of its own."""

    schemes = ("memory",)
    lasting = False
    spool_path: Path | None = None

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._entries: dict[tuple[str, str], Searchable] = {}

    @classmethod
    def from_url(cls, url: StoreURL) -> MemoryStore:
        """A new, empty store."""
        url.only_options()
        if url.hosts or url.path.strip("/"):
            raise SettingsError("AUDIT_STORE_URL: memory:// takes no host and no path")
        return cls()

    def identity(self, spool: Path) -> str:
        """See Store.identity."""
        return "memory"

    def setup(self) -> list[str]:
        """There is nothing to install."""
        return []

    def append(self, events: Sequence[AuditEvent]) -> list[Refusal]:
        """See Store.append."""
        refusals = []
        with self._lock:
            for event in events:
                stored = self._entries.setdefault((event.org, event.id), Searchable(event))
                if not same_content(event, stored.event):
                    refusals.append(Refusal(event, "its id is taken by an entry of other content"))
        return refusals

    def get(self, org: str, event_id: str) -> AuditEvent | None:
        """See Store.get."""
        with self._lock:
            stored = self._entries.get((org, event_id))
        return stored.event if stored else None

    def search(self, query: Query, window: Window) -> Page:
        """See Store.search."""
        found = self._found(query)
        places = [_place(query.sort, sort_key(event)) for event in found]
        if window.after is not None:
            first = bisect_right(places, _place(query.sort, window.after))
        elif window.before is not None:
            first = bisect_left(places, _place(query.sort, window.before)) - window.size
        else:
            first = window.offset
        items = tuple(found[max(first, 0) : max(first + window.size, 0)])
        return Page(
            items,
            total=len(found),
            has_previous=bool(items) and first > 0,
            has_next=bool(items) and first + window.size < len(found),
        )

    def snapshot(self, query: Query, limit: int, *, in_full: bool = True) -> Snapshot:
        """See Store.snapshot."""
        return _MemorySnapshot(self._found(query), limit)

    def arrivals(self, position: str | None, limit: int = 1000) -> Arrivals:
        """See Store.arrivals. The position is how many entries there were."""
        with self._lock:
            number = len(self._entries)
            first = number if position is None else numbered(position)
            found = list(islice(self._entries.values(), first, first + limit))
        entries = [Arrival(one.event, str(place)) for place, one in enumerate(found, first + 1)]
        return Arrivals(entries, str(first + len(found)), more=first + len(found) < number)

    def histogram(self, query: Query, edges: Sequence[int]) -> list[dict[str, int]]:
        """See Store.histogram."""
        spans: list[dict[str, int]] = [{} for _ in edges[1:]]
        for event in self._found(query):
            place = bisect_right(edges, event.timestamp) - 1
            if 0 <= place < len(spans):
                spans[place][event.tone] = spans[place].get(event.tone, 0) + 1
        return spans

    def organisations(self) -> list[str]:
        """See Store.organisations."""
        with self._lock:
            return sorted({org for org, _ in self._entries})

    def check(self) -> str:
        """See Store.check."""
        return f"memory: {len(self._entries):,} entries, kept until this process ends"

    def close(self) -> None:
        """Nothing is held."""

    def _found(self, query: Query) -> list[AuditEvent]:
        with self._lock:
            entries = list(self._entries.values())
        found = [one.event for one in entries if one.matches(query)]
        return sorted(found, key=lambda event: _place(query.sort, sort_key(event)))


class _MemorySnapshot(Snapshot):
    def __init__(self, found: Sequence[AuditEvent], limit: int) -> None:
        self.total = len(found)
        self._found = found[:limit]

    def batches(self, size: int = 1000) -> Iterator[Sequence[AuditEvent]]:
        for first in range(0, len(self._found), size):
            yield self._found[first : first + size]

    def close(self) -> None:
        self._found = ()


def _place(sort: str, key: SortKey) -> tuple[Any, ...]:
    """What to sort by, ascending, for each of the four orders."""
    number = int(key.id.replace("-", ""), 16)
    if sort == "timestamp":
        return (key.timestamp, number)
    newest_first = (-key.timestamp, -number)
    if sort == "-timestamp":
        return newest_first
    if sort == "action":
        return (key.action, *newest_first)
    # The closing 1 lets "ab" come before "a", as descending order wants.
    return ((*(-ord(character) for character in key.action), 1), *newest_first)


STORE = MemoryStore
