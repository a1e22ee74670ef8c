"""In which order entries came, though the engine keeps none over several indices and shards.

Entries are written in batches, and each has a number: its writer (one store object of one process) counts them, and
begins the next when the last was answered and can be found. So a batch is known to be whole in what a search can see
when all of its entries are seen, or any entry of a later batch of its writer; or, where a writer ended or entries of
the batch had been there before, when so much time has passed that it cannot be under way any more. Only whole batches
are given out.

A search looks at one shard after the other, and may have been at one before a batch came that the later one proves. So
where that alone proves it, it is asked once more: what was there before the later batch began is in the second answer.

A position has a moment, and for each writer that wrote since then the last batch that was given out; within a batch,
also the last entry. Clocks of writers may differ by an hour.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from time import monotonic
from typing import Any, NamedTuple

import orjson

from ...event import AuditEvent, now_ms
from ..base import Arrival, Arrivals
from .queries import among
from .reading import Reader
from .writing import BATCH, BATCH_TIMEOUT_S

__all__ = ["Following"]

SKEW_MS = 3_600_000
"""By how much the clocks of writers may differ, in milliseconds."""
OVER_MS = int(BATCH_TIMEOUT_S * 1000) + 10_000
"""After which time no batch can be under way any more, in milliseconds."""
MOST = 10_000
"""Documents that are looked at in one request, at the most: the engine's limit."""


class _Part(NamedTuple):
    """A batch of which a part was given out, and the last entry of that part."""

    batch: int
    sequence: int
    id: str


class _Seen(NamedTuple):
    """The last batch of a writer that was given out whole, when the last was sent (ms), and of which one a part was."""

    batch: int
    at: int
    part: _Part | None = None


class _Hit(NamedTuple):
    """An entry with its place in the order."""

    event: AuditEvent
    writer: str
    batch: int
    size: int
    at: int

    @property
    def place(self) -> tuple[int, str, int, int, str]:
        """What it is sorted by: batches of one writer rise, and a batch's entries stand together."""
        return (self.at, self.writer, self.batch, self.event.sequence, self.event.id)


class Following:
    """Follows what comes into the indices of a reader."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._waited: dict[tuple[int, str], float] = {}
        """Since when a batch is known that is not whole: a time of `time.monotonic`, since clocks may differ."""

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

    def after(self, position: str, limit: int) -> Arrivals:
        """The entries of whole batches after a position. See Store.arrivals."""
        since, seen = _read(position)
        size = min(max(limit, BATCH + 1), MOST)  # so the first batch is there to its end
        waiting: set[str] = set()
        while True:
            found, cut = self._hits(since, seen, size, waiting)
            latest = {hit.writer: hit.batch for hit in found}  # lower numbers come first
            if not _is_proven(found, seen, latest):
                again, cut = self._hits(since, seen, size, waiting)
                found = [hit for hit in again if hit.batch <= latest.get(hit.writer, 0)]
            whole, others = self._whole(found, cut, seen, latest)
            if whole or not cut or not others:
                break
            waiting |= others  # what they have must not hide what comes behind it
        entries = []
        for _, group in groupby(sorted(whole, key=lambda hit: hit.place), _batch_of):
            hits = list(group)
            for hit in hits:
                part = _Part(hit.batch, hit.event.sequence, hit.event.id)
                before = seen.get(hit.writer, _Seen(0, hit.at))
                last = hit is hits[-1]
                seen[hit.writer] = _Seen(hit.batch, hit.at) if last else _Seen(before.batch, hit.at, part)
                entries.append(Arrival(hit.event, _written(since, seen)))
        now = now_ms()
        if now - since > 2 * SKEW_MS and not cut:
            # Writers of whom nothing has come for long are left out: what they write now is later than this moment.
            since = now - SKEW_MS
            seen = {writer: last for writer, last in seen.items() if last.at >= since}
        return Arrivals(entries, _written(since, seen), more=cut and bool(whole))

    def _hits(self, since: int, seen: dict[str, _Seen], size: int, waiting: set[str]) -> tuple[list[_Hit], bool]:
        """Documents of later batches of other writers, lower numbers first; and whether there are more."""
        passed = [among({"term": {"arrival.writer": writer}}, _passed(last)) for writer, last in seen.items()]
        if waiting:
            passed.append({"terms": {"arrival.writer": sorted(waiting)}})
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

    def _whole(
        self, found: Sequence[_Hit], cut: bool, seen: dict[str, _Seen], latest: dict[str, int]
    ) -> tuple[list[_Hit], set[str]]:
        """Those of whole batches, of each writer none after one that is not whole; and the writers of such a one."""
        whole: list[_Hit] = []
        waiting: set[str] = set()
        for (batch, writer), group in groupby(found, _batch_of):
            hits = list(group)
            if writer in waiting or (cut and (batch, writer) == _batch_of(found[-1])):
                continue
            done = _is_begun(seen, writer, batch) or len(hits) >= hits[0].size or batch < latest[writer]
            if done or self._is_over(hits[0]):
                whole += hits
            else:
                waiting.add(writer)
        return whole, waiting

    def _is_over(self, hit: _Hit) -> bool:
        """Whether a batch cannot be under way any more, whatever is missing of it."""
        if hit.at < now_ms() - SKEW_MS - OVER_MS:
            return True
        if len(self._waited) > MOST:
            self._waited.clear()
        since = self._waited.setdefault(_batch_of(hit), monotonic())
        return monotonic() - since >= OVER_MS / 1000


def _is_begun(seen: dict[str, _Seen], writer: str, batch: int) -> bool:
    """Whether a part of a batch was given out, which was whole then."""
    last = seen.get(writer)
    return last is not None and last.part is not None and last.part.batch == batch


def _is_proven(found: Sequence[_Hit], seen: dict[str, _Seen], latest: dict[str, int]) -> bool:
    """Whether every batch before the last of its writer is there, with all of its entries."""
    there = {writer: last.batch for writer, last in seen.items()}
    for (batch, writer), group in groupby(found, _batch_of):
        hits = list(group)
        is_short = len(hits) < hits[0].size and batch < latest[writer] and not _is_begun(seen, writer, batch)
        if is_short or batch > there.get(writer, 0) + 1:
            return False
        there[writer] = batch
    return True


def _batch_of(hit: _Hit) -> tuple[int, str]:
    return (hit.batch, hit.writer)


def _passed(last: _Seen) -> dict[str, Any]:
    """Which entries of a writer were given out."""
    whole = {"range": {"arrival.batch": {"lte": last.batch}}}
    if last.part is None:
        return whole
    batch, sequence, event_id = last.part
    lower = {"range": {"event.sequence": {"lt": sequence}}}
    equal = among({"term": {"event.sequence": sequence}}, {"range": {"event.id": {"lte": event_id}}})
    part = among({"term": {"arrival.batch": batch}}, _any(lower, equal))
    return _any(whole, part)


def _any(*choices: dict[str, Any]) -> dict[str, Any]:
    return {"bool": {"should": list(choices), "minimum_should_match": 1}}


def _since(moment: int) -> dict[str, Any]:
    return {"range": {"arrival.at": {"gte": moment, "format": "epoch_millis"}}}


def _written(since: int, seen: dict[str, _Seen]) -> str:
    lists = {writer: [last.batch, last.at, *(last.part or ())] for writer, last in seen.items()}
    return orjson.dumps([since, lists]).decode()


def _read(position: str) -> tuple[int, dict[str, _Seen]]:
    try:
        since, seen = orjson.loads(position)
        return int(since), {str(writer): _seen(*last) for writer, last in seen.items()}
    except (ValueError, TypeError, AttributeError):
        raise ValueError("this is no position of this store") from None


def _seen(batch: int, at: int, *part: Any) -> _Seen:
    return _Seen(int(batch), int(at), _Part(int(part[0]), int(part[1]), str(part[2])) if part else None)
