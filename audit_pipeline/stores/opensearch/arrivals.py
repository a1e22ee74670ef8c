"""In which order entries came, though the engine keeps none over several indices and shards.

Every bulk request has a number: its writer (one store object of one process) counts them, and sends the next when the
last was answered. So a batch is known to be whole in what a search can see when all of its entries are seen, or any
entry of a later batch of its writer; or, where a writer ended or entries of the batch had been there before, when so
much time has passed that it cannot be under way any more. Only whole batches are given out.

A position has a moment, and for each writer that wrote since then the last batch that was given out. Clocks of
writers may differ by an hour.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any, NamedTuple

import orjson

from ...event import AuditEvent, now_ms
from .queries import among
from .reading import Reader
from .writing import BATCH, BULK_TIMEOUT_S

__all__ = ["Arrivals"]

SKEW_MS = 3_600_000
"""By how much the clocks of writers may differ, in milliseconds."""
OVER_MS = int(BULK_TIMEOUT_S * 1000) + 10_000
"""After which time no request can be under way any more, in milliseconds."""
MOST = 10 * BATCH
"""Documents that are looked at in one request, at the most: the engine's limit."""


class _Seen(NamedTuple):
    """The last batch of a writer that was given out, and when that was sent (ms)."""

    batch: int
    at: int


class _Hit(NamedTuple):
    """An entry with its place in the order."""

    event: AuditEvent
    writer: str
    batch: int
    size: int
    at: int


class Arrivals:
    """Follows what comes into the indices of a reader."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    def now(self) -> str:
        """The position after everything that is whole by now."""
        since = now_ms() - SKEW_MS
        last = {"terms": {"field": "arrival.batch", "size": 1, "order": {"_key": "desc"}}}
        about = {"size": {"max": {"field": "arrival.size"}}, "at": {"max": {"field": "arrival.at"}}}
        body = {
            "size": 0,
            "query": among(_since(since)),
            "aggs": {
                "writers": {
                    "terms": {"field": "arrival.writer", "size": 10_000},
                    "aggs": {"last": last | {"aggs": about}},
                }
            },
        }
        answer = self._reader.search(body, "arrivals")
        seen: dict[str, _Seen] = {}
        for writer in answer.get("aggregations", {}).get("writers", {}).get("buckets", []):
            (batch,) = writer["last"]["buckets"]
            at = int(batch["at"]["value"])
            whole = batch["doc_count"] >= batch["size"]["value"] or at < now_ms() - OVER_MS
            seen[writer["key"]] = _Seen(int(batch["key"]) - (not whole), at)
        return _written(since, seen)

    def after(self, position: str, limit: int) -> tuple[list[AuditEvent], str]:
        """The entries of whole batches after a position, and the position after them. See Store.arrivals."""
        since, seen = _read(position)
        size = min(max(limit, 2 * BATCH), MOST)
        found, cut = self._hits(since, seen, size)
        while cut and size < MOST and found[0].batch == found[-1].batch:
            size = MOST  # many writers with batches of the same number
            found, cut = self._hits(since, seen, size)
        whole = self._whole(found, cut)
        for hit in whole:
            seen[hit.writer] = _Seen(hit.batch, hit.at)
        now = now_ms()
        if now - since > 2 * SKEW_MS:
            # Writers of whom nothing has come for long are left out: what they write now is later than this moment.
            since = now - SKEW_MS
            seen = {writer: last for writer, last in seen.items() if last.at >= since}
        ordered = sorted(whole, key=lambda hit: (hit.at, hit.writer, hit.batch, hit.event.sequence, hit.event.id))
        return [hit.event for hit in ordered], _written(since, seen)

    def _hits(self, since: int, seen: dict[str, _Seen], size: int) -> tuple[list[_Hit], bool]:
        """Documents of later batches, lower numbers first; and whether there are more."""
        passed = [
            among({"term": {"arrival.writer": writer}}, {"range": {"arrival.batch": {"lte": last.batch}}})
            for writer, last in seen.items()
        ]
        body = {
            "size": size,
            "query": among(_since(since), without=passed),
            "sort": [{"arrival.batch": "asc"}, {"arrival.writer": "asc"}, {"event.id": "asc"}],
            "track_total_hits": False,
            "_source": {"excludes": ["search"]},
        }
        sources = [hit["_source"] for hit in self._reader.search(body, "arrivals")["hits"]["hits"]]
        return [self._hit(source) for source in sources], len(sources) == size

    def _hit(self, source: Any) -> _Hit:
        came = source["arrival"]
        return _Hit(self._reader.event(source), came["writer"], came["batch"], came["size"], came["at"])

    def _whole(self, found: Sequence[_Hit], cut: bool) -> list[_Hit]:
        """Those of whole batches; of each writer no batch after one that is not whole."""
        latest: dict[str, int] = {}
        for hit in found:
            latest[hit.writer] = max(latest.get(hit.writer, 0), hit.batch)
        whole: list[_Hit] = []
        waiting: set[str] = set()
        for (batch, writer), group in groupby(found, key=lambda hit: (hit.batch, hit.writer)):
            hits = list(group)
            if writer in waiting or (cut and batch == found[-1].batch):
                continue
            done = len(hits) >= hits[0].size or batch < latest[writer] or hits[0].at < now_ms() - OVER_MS
            if done:
                whole += hits
            else:
                waiting.add(writer)
        return whole


def _since(moment: int) -> dict[str, Any]:
    return {"range": {"arrival.at": {"gte": moment, "format": "epoch_millis"}}}


def _written(since: int, seen: dict[str, _Seen]) -> str:
    return orjson.dumps([since, {writer: list(last) for writer, last in seen.items()}]).decode()


def _read(position: str) -> tuple[int, dict[str, _Seen]]:
    try:
        since, seen = orjson.loads(position)
        return int(since), {str(writer): _Seen(*map(int, last)) for writer, last in seen.items()}
    except (ValueError, TypeError, AttributeError):
        raise ValueError("this is no position of this store") from None
