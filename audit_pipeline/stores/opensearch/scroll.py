"""An export's snapshot: a scroll, for which the engine keeps what it found as it was."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator, Sequence
from typing import Any

from ...ahead import Ahead
from ...errors import StoreError, StoreUnavailable
from ...event import AuditEvent
from ...query import Query
from ..base import Snapshot
from .queries import among, conditions, order, simplified
from .reading import Reader, failure

__all__ = ["Scroll"]

KEPT = "5m"
"""How long the engine keeps a scroll that nobody reads on. One that was closed is freed at once."""
TIMEOUT_S = 60.0
SIZE, SIZE_IN_FULL = 1000, 500
"""Entries in one answer, without and with their contexts. Two answers are in memory whole; an entry may have 130 KB."""
_SEARCHED, _UNSHOWN = ["search"], ["audit.context", "audit.large_context", "audit.problems", "arrival", "ecs"]

_log = logging.getLogger("audit_pipeline.stores.opensearch")


class Scroll(Snapshot):
    """The first `limit` entries of a query. While one part of them is used, the engine is asked for the next."""

    def __init__(self, reader: Reader, query: Query, limit: int, in_full: bool) -> None:
        self._reader = reader
        self._limit = limit
        self._made_by = os.getpid()
        self._lock = threading.Lock()
        self._id: str | None = None
        self._ahead: Ahead[Any] | None = None
        self._fetched: list[AuditEvent] = []
        query = simplified(query)
        # With each part, the engine looks at all entries again that it is asked for: so at no more than are wanted.
        bounds = reader.leading(query, limit) if limit else []
        answer = self._begun(query, bounds, in_full)
        if bounds and answer["hits"]["total"]["value"] < limit:  # some were deleted meanwhile
            self._id = answer.get("_scroll_id")
            self._free()
            bounds = []
            answer = self._begun(query, bounds, in_full)
        self.total = answer["hits"]["total"]["value"]
        self._left = min(limit, self.total)
        self._take(answer)
        if bounds:
            try:
                self.total = max(self.total, reader.count(query))
            except BaseException:
                self._free()
                raise

    def _begun(self, query: Query, bounds: list[Any], in_full: bool) -> Any:
        body = {
            "size": min(SIZE_IN_FULL if in_full else SIZE, max(self._limit, 1)),
            "query": among(conditions(query), *bounds),
            "sort": [{field: direction} for field, direction in order(query.sort)],
            "_source": {"excludes": _SEARCHED if in_full else _SEARCHED + _UNSHOWN},
        }
        # Sent once: sent again, it would leave a scroll that nobody knows of.
        return self._reader.search(body, query.org, once=True, scroll=KEPT)

    def batches(self, size: int = 1000) -> Iterator[Sequence[AuditEvent]]:
        left = min(self._limit, self.total)
        while left:
            wanted = min(size, left)
            # A client that leaves closes the snapshot from another thread, in the middle of this.
            with self._lock:
                while len(self._fetched) < wanted:
                    self._fetch()
                batch, self._fetched = self._fetched[:wanted], self._fetched[wanted:]
            left -= wanted
            yield batch

    def close(self) -> None:
        with self._lock:
            self._free()

    def _fetch(self) -> None:
        if self._ahead is None:
            raise StoreError("the export was closed before its end")
        try:
            answer = self._ahead.answer()
        except BaseException:
            self._free()
            raise
        if answer is None or answer["_shards"]["failed"]:  # all of the indices gave it up, or a part of them
            self._free()
            why = failure(answer) if answer else f" (not read for {KEPT}, or a node left)"
            raise StoreUnavailable(f"OpenSearch gave the export up{why}; start it again")
        before = len(self._fetched)
        self._take(answer)
        if len(self._fetched) == before:
            self._free()
            raise StoreUnavailable("OpenSearch gave fewer entries than it had counted; start the export again")

    def _ask(self) -> Any:
        body = {"scroll": KEPT, "scroll_id": self._id}
        # Sent once: each page of a scroll is given once, and to ask again would pass over the next one.
        return self._reader.engine.send(
            "POST", "/_search/scroll", body, needs=["_shards", "hits"], timeout=TIMEOUT_S, once=True
        )

    def _take(self, answer: Any) -> None:
        self._id = answer.get("_scroll_id", self._id)
        try:
            self._reader.whole(answer)
            fetched = [self._reader.event(hit["_source"]) for hit in answer["hits"]["hits"]]
            self._fetched += fetched
            self._left -= len(fetched)
            if self._left <= 0:
                self._free()
            elif fetched:
                self._ahead = Ahead(self._ask)
        except BaseException:
            self._free()
            raise

    def _free(self) -> None:
        scroll, ahead = self._id, self._ahead
        self._id = self._ahead = None
        if scroll is None or os.getpid() != self._made_by:
            return
        try:
            self._reader.engine.ask("DELETE", "/_search/scroll", {"scroll_id": [scroll]})
        except StoreError as error:
            # What was read is whole, and the engine frees it by itself after a while.
            _log.warning("an export is not freed at once: %s", error)
        if ahead is not None:
            ahead.join()  # an export that was left is over when it asks for nothing any more
