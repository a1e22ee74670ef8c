"""Asks for pages, counts and the places of deep pages. Nothing is held in the engine between two requests."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from itertools import pairwise
from typing import Any, NamedTuple

import orjson

from ...ecs import event_of
from ...errors import StoreError, StoreUnavailable
from ...event import AuditEvent
from ...query import Query, SortKey, Window
from ..base import QUERY_S, Page
from .engine import TIMEOUT_S, Engine
from .queries import Order, after, among, at, beyond, conditions, nearest, order, reversed_order, simplified, span, upto

__all__ = ["Reader", "failure"]

SHALLOW = 1000
"""Rows that a search may skip by `from`; what lies deeper is found by counting first. The engine's limit is 10,000."""
MOST_SKIPPED = 9_999
KEPT_ENDS = 1000
"""Of how many queries it is remembered where their first page ended."""
STEPS_MS = (86_400_000, 60_000, 1000, 1)
"""The ever shorter spans by which entries are counted on the way to a deep page, in milliseconds."""

# Otherwise an answer could lack what a failed shard holds. Neither are closed indices left out: they are an error.
_WHOLE = {"allow_partial_search_results": "false", "cancel_after_time_interval": f"{QUERY_S:g}s"}
_NEEDED = ("timed_out", "_shards", "hits.total.value", "hits.hits._id", "hits.hits._source", "status", "error.type")
_PAGE = ",".join(f"responses.{part}" for part in _NEEDED)
# Before the first entry there is no index, and so no alias.
_NOTHING: dict[str, Any] = {"hits": {"total": {"value": 0}, "hits": []}, "_shards": {"total": 0, "failed": 0}}


class _Start(NamedTuple):
    """Where a deep page begins: `rest` rows after what these bounds leave out."""

    bounds: Any
    rest: int
    near: list[Any]
    """Ever wider bounds of what comes first there."""


class Reader:
    """Reads through the alias of one name."""

    def __init__(self, engine: Engine, index: str) -> None:
        self.engine = engine
        self._index = index
        self._where = f"{engine.name}/{index}"
        self._ends: dict[tuple[Query, int], int | str] = {}
        """The time, or the action, at which the first page of a query, of so many rows, ended when it was last read."""
        self.seen = False
        """Whether there was an index to ask: before, an empty answer may mean that nothing has been set up."""

    def page(self, query: Query, window: Window) -> Page:
        """See Store.search."""
        query = simplified(query)
        fields = order(query.sort)
        backwards = window.before is not None
        direction = reversed_order(fields) if backwards else fields
        key = window.before or window.after
        wanted = conditions(query)
        body: dict[str, Any] = {"size": window.size + 1, "query": wanted}
        near: list[Any] = []
        if key is not None:
            body |= {"query": among(wanted, beyond(direction, key)), "search_after": after(direction, key)}
            near = nearest(direction, key)
        elif window.offset > SHALLOW:
            start = self._start(query, window.offset)
            if start is None:
                return Page((), self.count(query), has_previous=False, has_next=False)
            body |= {"query": among(wanted, start.bounds), "from": start.rest}
            near = start.near
        else:
            body["from"] = window.offset
            end = self._ends.get((query, window.size)) if window.offset == 0 else None
            near = [] if end is None else [_by_lead(fields, end)]
        # Without having to count, the engine leaves out most of what is not among the newest that match a filter; words
        # are looked for everywhere, and in a limited span there is not much to leave out.
        is_counted_apart = query.sort == "-timestamp" and not query.words and None in (query.start, query.end)
        is_whole = body["query"] is wanted and not is_counted_apart
        for bounds in (*near, None):
            asked = body if bounds is None else body | {"query": among(body["query"], bounds)}
            rows, total, beside = self._page(query, asked, direction, key, is_whole and bounds is None)
            if len(rows) > window.size:
                break
        if key is None and window.offset == 0:
            self._keep_end(query, window.size, rows)
        more = len(rows) > window.size
        rows = rows[: window.size]
        if backwards:
            rows.reverse()
        if key is None and window.offset == 0 and not more:
            return Page(tuple(rows), len(rows), has_previous=False, has_next=False)
        if not rows:
            return Page((), total, has_previous=False, has_next=False)
        if backwards:
            return Page(tuple(rows), total, has_previous=more, has_next=beside)
        return Page(tuple(rows), total, has_previous=beside if key else window.offset > 0, has_next=more)

    def _keep_end(self, query: Query, size: int, rows: Sequence[AuditEvent]) -> None:
        """Remember where a first page ended: there it ends again, or nearer, and most indices have no row of it.

        Not of a limited span, outside of which the engine leaves indices alone anyway.
        """
        if len(rows) <= size or None not in (query.start, query.end):
            self._ends.pop((query, size), None)
            return
        if len(self._ends) >= KEPT_ENDS:
            self._ends.clear()
        end = rows[size]
        self._ends[query, size] = end.action if query.sort.endswith("action") else end.timestamp

    def histogram(self, query: Query, edges: Sequence[int]) -> list[dict[str, int]]:
        """See Store.histogram."""
        if len(edges) < 2:
            return []
        ranges = [
            {"key": str(place), "from": max(first, 0), "to": max(end, 0)}  # no entry is older than 1970
            for place, (first, end) in enumerate(pairwise(edges))
        ]
        body = {
            "size": 0,
            "query": among(conditions(query), span(edges[0], edges[-1])),
            "aggs": {
                "spans": {
                    "date_range": {"field": "@timestamp", "format": "epoch_millis", "ranges": ranges, "keyed": True},
                    "aggs": {"tones": {"terms": {"field": "audit.tone", "size": 100}}},
                }
            },
        }
        found = self.search(body, query.org).get("aggregations", {}).get("spans", {}).get("buckets", {})
        tones = [found.get(str(place), {}).get("tones", {}).get("buckets", []) for place in range(len(ranges))]
        return [{tone["key"]: tone["doc_count"] for tone in buckets} for buckets in tones]

    def search(self, body: dict[str, Any], org: str = "", *, once: bool = False, **params: str) -> Any:
        """A whole answer, or StoreUnavailable. `once`: see Engine.ask."""
        path = f"/{self._index}/_search"
        params = {**_WHOLE, **_preference(org), **params}
        return self._answered(self.engine.ask("POST", path, body, params, needs=["_shards"], once=once))

    def _searches(self, bodies: Sequence[Any], org: str, filter_path: str) -> list[Any]:
        """As `search`, several in one request: each sees what the one before has seen, and perhaps more."""
        header = orjson.dumps({"index": self._index, **_WHOLE, **_preference(org)})
        lines = b"".join(b"%s\n%s\n" % (header, orjson.dumps(body)) for body in bodies)
        # One after the other: otherwise the engine asks them in any order.
        params = {"max_concurrent_searches": 1, "filter_path": filter_path}
        # Each may take as long as one may.
        timeout = TIMEOUT_S + QUERY_S * (len(bodies) - 1)
        answer = self.engine.ask("POST", "/_msearch", lines, params, needs=["responses"], timeout=timeout)
        if answer is None or len(answer["responses"]) != len(bodies):
            raise StoreUnavailable(f"{self._where}: answered in part; trying again helps")
        return [self._answered(one) for one in answer["responses"]]

    def _answered(self, answer: Any) -> Any:
        answer = answer or _NOTHING
        self.whole(answer)
        self.seen = self.seen or answer["_shards"]["total"] > 0
        return answer

    def whole(self, answer: Any) -> None:
        """Raises StoreUnavailable for an answer that lacks something."""
        if answer.get("timed_out") or answer["_shards"]["failed"]:
            why = failure(answer)
            raise StoreUnavailable(f"{self._where}: a part of the indices did not answer{why}; trying again helps")

    def event(self, document: Any) -> AuditEvent:
        """The entry of a document. Raises StoreError where it is another kind of document."""
        try:
            return event_of(document)
        except (KeyError, TypeError, ValueError) as error:
            raise StoreError(
                f"{self._where}: has a document that is no audit entry; find it by its missing fields, and delete it"
            ) from error

    def _page(
        self, query: Query, rows: dict[str, Any], direction: Order, key: SortKey | None, is_whole: bool
    ) -> tuple[list[AuditEvent], int, bool]:
        """Rows in a direction, how many entries there are, and, with a key, whether any are on its other side.

        `is_whole` says that the rows' own query is of all entries: then they are counted with it.
        """
        rows = rows | {"sort": _sort(direction), "track_total_hits": is_whole, "_source": {"excludes": ["search"]}}
        # Where they are counted by themselves, after the rows, and so not older than they are.
        asked = [rows] if is_whole else [rows, _counting(query)]
        if key is not None:
            asked.append(
                {
                    "size": 1,
                    "terminate_after": 1,
                    "track_total_hits": False,
                    "_source": False,
                    "query": among(conditions(query), at(key)),
                }
            )
        found, *others = self._searches(asked, query.org, _PAGE)
        events = [self.event(hit["_source"]) for hit in _hits(found)]
        total = (found if is_whole else others[0])["hits"]["total"]["value"]
        beside = any(_hits(one) for one in others[1:])
        if key is not None and not beside:  # its entry was deleted, with the index it was in
            beside = bool(
                _hits(self.search(asked[-1] | {"query": among(conditions(query), upto(direction, key))}, query.org))
            )
        return events, total, beside

    def count(self, query: Query) -> int:
        """How many entries there are."""
        total: int = self.search(_counting(query), query.org)["hits"]["total"]["value"]
        return total

    def leading(self, query: Query, rows: int) -> list[Any]:
        """What bounds the first so many rows, and not many more; nothing where there are fewer."""
        inside = [conditions(query)]
        fields = order(query.sort)
        lead, way = fields[0]
        if lead == "event.action":
            found = _bucket(self._counts(query, inside, _by_action(descends=way == "desc")), rows - 1)
            return [_by_lead(fields, found[0])] if found else []
        step = STEPS_MS[0]
        found = _bucket(self._counts(query, inside, _by_time(step, way == "desc")), rows - 1)
        return [_by_lead(fields, found[0], step)] if found else []

    # Deep pages

    def _start(self, query: Query, offset: int) -> _Start | None:
        """Where the row lies before which a query has `offset` rows; None where it has no such row.

        By `from`, the engine goes no deeper than 10,000 rows, and slowly. So entries are counted by action and by time,
        in ever shorter spans, until few enough are left to skip; those of one millisecond are skipped by their ids.
        """
        fields = order(query.sort)
        descends = dict(fields)["@timestamp"] == "desc"
        inside = [conditions(query)]
        rest, action = offset, ""
        if query.sort.endswith("action"):
            counts = self._counts(query, inside, _by_action(descends=query.sort.startswith("-")))
            if (found := _bucket(counts, rest)) is None:
                return None
            action, rest = found
            inside.append({"term": {"event.action": action}})
        begin = end = 0
        for step in STEPS_MS:
            if rest <= SHALLOW:
                break
            if (found := _bucket(self._counts(query, inside, _by_time(step, descends)), rest)) is None:
                return None
            begin, rest = found
            end = begin + step
            inside.append(span(begin, end))
        last = ""
        while rest > SHALLOW:
            skipped = min(rest, MOST_SKIPPED)
            body = {"size": 1, "from": skipped - 1, "query": among(*inside), "_source": ["event.id"]}
            body |= {"sort": _sort(fields[-1:]), "track_total_hits": False}
            hits = self.search(body, query.org)["hits"]["hits"]
            if not hits:
                return None
            last = hits[0]["_source"]["event"]["id"]
            inside.append({"range": {"event.id": {"lt" if descends else "gt": last}}})
            rest -= skipped
        if end == 0:
            first = among({"range": {"event.action": {_sign(fields[0]): action}}})
            return _Start(first, rest, [{"term": {"event.action": action}}])
        # Of equal times, no id comes before the empty one, upwards; and none is equal to it.
        key = SortKey(end if descends and not last else begin, action, last)
        return _Start(beyond(fields, key, strictly=True), rest, nearest(fields, key))

    def _counts(self, query: Query, inside: list[Any], aggregation: dict[str, Any]) -> list[tuple[Any, int]]:
        body = {"size": 0, "query": among(*inside), "aggs": {"counts": aggregation}}
        answer = self.search(body, query.org)
        buckets = answer.get("aggregations", {}).get("counts", {}).get("buckets", [])
        return [(bucket["key"], bucket["doc_count"]) for bucket in buckets]


def failure(answer: Any) -> str:
    """Why the first shard failed, in brackets: the kind alone, since the engine's text may quote what was asked."""
    failures = answer["_shards"].get("failures") or [{}]
    kind = (failures[0].get("reason") or {}).get("type")
    return f" ({kind})" if kind else ""


def _preference(org: str) -> dict[str, str]:
    # Of each shard, an organisation's requests go to the same copy: two copies need not have been refreshed at the same
    # moment.
    return {"preference": sha256(org.encode()).hexdigest()[:16]} if org else {}


def _hits(answer: Any) -> list[Any]:
    hits: list[Any] = answer.get("hits", {}).get("hits", [])
    return hits


def _counting(query: Query) -> dict[str, Any]:
    return {"size": 0, "track_total_hits": True, "query": conditions(query)}


def _by_lead(fields: Order, value: Any, step: int = 1) -> Any:
    """The bounds of what comes first: up to this value, or to the end of the step that begins with it."""
    lead, way = fields[0]
    if lead == "event.action":
        return {"range": {lead: {_sign(reversed_order(fields)[0]): value}}}
    return span(None, value + step) if way == "asc" else span(value, None)


def _sort(direction: Order) -> list[dict[str, str]]:
    return [{field: way} for field, way in direction]


def _sign(field: tuple[str, str]) -> str:
    return "gte" if field[1] == "asc" else "lte"


def _by_action(*, descends: bool) -> dict[str, Any]:
    # More than any catalogue has: with all of them the counts are exact.
    return {"terms": {"field": "event.action", "size": 10_000, "order": {"_key": "desc" if descends else "asc"}}}


def _by_time(step: int, descends: bool) -> dict[str, Any]:
    return {
        "date_histogram": {
            "field": "@timestamp",
            "fixed_interval": f"{step}ms",
            "min_doc_count": 1,
            "order": {"_key": "desc" if descends else "asc"},
        }
    }


def _bucket(counts: list[tuple[Any, int]], rest: int) -> tuple[Any, int] | None:
    """The bucket that has the row after `rest` rows, and how many of them are its own."""
    for key, count in counts:
        if rest < count:
            return key, rest
        rest -= count
    return None
