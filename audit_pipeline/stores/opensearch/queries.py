"""A Query as OpenSearch asks it: bool, range and multi_match. Contacts nothing."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ...privacy import network_range
from ...query import SEARCH_FIELDS, Query, SortKey, Word

__all__ = [
    "Order",
    "after",
    "among",
    "at",
    "beyond",
    "conditions",
    "nearest",
    "order",
    "reversed_order",
    "simplified",
    "span",
    "upto",
]

Clause = dict[str, Any]

_EARLIEST, _LATEST = 0, 253_402_300_799_999
"""What OpenSearch reads as a number of milliseconds: the years 1970 to 9999."""

NEAR_MS = 86_400_000
"""What is near, in milliseconds."""

_ORDERS: dict[str, tuple[tuple[str, str], ...]] = {
    "-timestamp": (("@timestamp", "desc"), ("event.id", "desc")),
    "timestamp": (("@timestamp", "asc"), ("event.id", "asc")),
    "action": (("event.action", "asc"), ("@timestamp", "desc"), ("event.id", "desc")),
    "-action": (("event.action", "desc"), ("@timestamp", "desc"), ("event.id", "desc")),
}
_OTHER = {"asc": "desc", "desc": "asc"}

Order = tuple[tuple[str, str], ...]


def simplified(query: Query) -> Query:
    """The same entries in the same order, by fewer fields where that can be: of one action, by time alone."""
    return replace(query, sort="-timestamp") if len(query.actions) == 1 and query.sort.endswith("action") else query


def order(sort: str) -> Order:
    """The fields of a sort, each with its direction; the last of them makes the order full."""
    return _ORDERS[sort]


def reversed_order(fields: Order) -> Order:
    """The same order from its end."""
    return tuple((field, _OTHER[direction]) for field, direction in fields)


def after(fields: Order, key: SortKey) -> list[Any]:
    """The `search_after` of a key."""
    values = {"event.action": key.action, "@timestamp": key.timestamp, "event.id": key.id}
    return [values[field] for field, _ in fields]


def among(*filters: Clause, without: list[Clause] | None = None) -> Clause:
    """Documents that all of these filters have, and none of the others."""
    return {"bool": {"filter": list(filters), **({"must_not": without} if without else {})}}


def conditions(query: Query) -> Clause:
    """Which documents a query is for."""
    filters: list[Clause] = [{"term": {"organization.id": query.org}}]
    if query.actions:
        filters.append({"terms": {"event.action": sorted(query.actions)}})
    if query.categories:
        filters.append({"terms": {"audit.category": sorted(query.categories)}})
    if query.start is not None or query.end is not None:
        filters.append(span(query.start, query.end))
    if query.user:
        filters.append({"term": {"user.name": query.user}})
    elif query.user is not None:
        filters.append(among(without=[{"exists": {"field": "user.name"}}]))
    if query.outcome is not None:
        filters.append({"term": {"event.outcome": query.outcome}})
    if query.network is not None:
        first, last = network_range(query.network)
        filters.append({"range": {"audit.network": {"gte": first, "lte": last}}})
    filters += [_match(word) for word in query.words if not word.excluded]
    return among(*filters, without=[_match(word) for word in query.words if word.excluded])


def span(start: int | None, end: int | None) -> Clause:
    """Entries of a span of time: start inclusive, end exclusive, in milliseconds."""
    bounds: dict[str, Any] = {"format": "epoch_millis"}
    if start is not None:
        bounds["gte"] = min(max(start, _EARLIEST), _LATEST)
    if end is not None:
        bounds["lt"] = min(max(end, _EARLIEST), _LATEST)
    return {"range": {"@timestamp": bounds}}


def beyond(fields: Order, key: SortKey, strictly: bool = False) -> Clause:
    """What may come at this key or after it in an order.

    By itself `search_after` looks at every match; with this beside it, at those of one range. Strictly, it is exactly
    what comes after the key, and `search_after` is not needed.
    """
    values = dict(zip((field for field, _ in fields), after(fields, key), strict=True))
    choices: list[Clause] = []
    equal: list[Clause] = []
    for place, (field, direction) in enumerate(fields):
        last = place == len(fields) - 1
        if last and not strictly:
            break
        sign = "gt" if direction == "asc" else "lt"
        if not strictly and place == len(fields) - 2:
            sign += "e"
        choices.append(among(*equal, {"range": {field: {sign: values[field]} | _format(field)}}))
        equal.append({"range": {field: {"gte": values[field], "lte": values[field]} | _format(field)}})
    return choices[0] if len(choices) == 1 else {"bool": {"should": choices, "minimum_should_match": 1}}


def nearest(fields: Order, key: SortKey) -> list[Clause]:
    """What comes first of all that is at a key or after it: a day of it; and, by actions, the rest of the same one.

    Where time falls, a search looks at every entry of the range, the oldest ones first; of a day there are few.
    """
    moment = key.timestamp
    day = span(moment, moment + NEAR_MS) if dict(fields)["@timestamp"] == "asc" else span(moment - NEAR_MS, moment + 1)
    if fields[0][0] != "event.action":
        return [day]
    same = {"term": {"event.action": key.action}}
    return [among(same, day), same]


def at(key: SortKey) -> Clause:
    """The entry of a key."""
    return among(span(key.timestamp, key.timestamp + 1), {"term": {"event.id": key.id}})


def upto(fields: Order, key: SortKey) -> Clause:
    """What comes before this key in an order, or is at it."""
    before = beyond(reversed_order(fields), key, strictly=True)
    return {"bool": {"should": [at(key), before], "minimum_should_match": 1}}


def _format(field: str) -> dict[str, str]:
    return {"format": "epoch_millis"} if field == "@timestamp" else {}


def _match(word: Word) -> Clause:
    """A word of `q`. The analyzer of `search.*` splits at spaces only, so its tokens are asked for as they are."""
    fields = [f"search.{field}" for field in SEARCH_FIELDS]
    if word.phrase:
        return {"multi_match": {"query": " ".join(word.tokens), "type": "phrase", "fields": fields}}
    return {"multi_match": {"query": " ".join(word.tokens), "type": "bool_prefix", "operator": "and", "fields": fields}}
