"""What is asked: each case as the parameters of a request, as an OpenSearch filter, and as SQL."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from audit_pipeline.query import Query, parse_query

from .data import MONTH, RARE, TENTH, USER

__all__ = ["FILTERS", "ORG", "SEARCHES", "SORTS", "Case"]

ORG = "default"
SORTS = ("-timestamp", "timestamp", "action", "-action")

_FIELDS = ["search.action", "search.target", "search.detail", "search.user"]


@dataclass(frozen=True)
class Case:
    """A question, in the three languages."""

    name: str
    parameters: dict[str, list[str]] = field(default_factory=dict)
    filters: tuple[dict[str, Any], ...] = ()
    without: tuple[dict[str, Any], ...] = ()
    where: str = ""
    bindings: tuple[Any, ...] = ()
    match: str = ""
    """An FTS5 expression."""
    exclude: str = ""
    """An FTS5 expression for what must not match."""

    def query(self, sort: str = "-timestamp") -> Query:
        """The question as the stores take it."""
        return parse_query({**self.parameters, "sort": [sort]}, ORG)

    def clause(self) -> dict[str, Any]:
        """The question as OpenSearch takes it."""
        filters = [{"term": {"organization.id": ORG}}, *self.filters]
        return {"bool": {"filter": filters, **({"must_not": list(self.without)} if self.without else {})}}


def _word(text: str) -> dict[str, Any]:
    return {"multi_match": {"query": text, "type": "bool_prefix", "operator": "and", "fields": _FIELDS}}


def _phrase(text: str) -> dict[str, Any]:
    return {"multi_match": {"query": text, "type": "phrase", "fields": _FIELDS}}


def _searched(name: str, q: str, words: tuple[dict[str, Any], ...], match: str, **more: Any) -> Case:
    return Case(name, {"q": [q]}, words, match=match, **more)


FILTERS = (
    Case("all"),
    Case(
        "an action (10 %)",
        {"action": [TENTH]},
        ({"term": {"event.action": TENTH}},),
        where="action = ?",
        bindings=(TENTH,),
    ),
    Case("a user (1 %)", {"user": [USER]}, ({"term": {"user.name": USER}},), where="user = ?", bindings=(USER,)),
    Case(
        "a category in a month (0.3 %)",
        {"category": ["queue"], "from": [MONTH[0]], "to": [MONTH[1]]},
        (
            {"term": {"audit.category": "queue"}},
            {"range": {"@timestamp": {"gte": 1_735_689_600_000, "lt": 1_738_368_000_000, "format": "epoch_millis"}}},
        ),
        where="category = ? AND timestamp >= ? AND timestamp < ?",
        bindings=("queue", 1_735_689_600_000, 1_738_368_000_000),
    ),
)
"""Without and with filters."""

SEARCHES = (
    _searched("a rare word", RARE, (_word(RARE),), f"{RARE}*"),
    _searched("a common word", "nightly", (_word("nightly"),), "nightly*"),
    _searched("a prefix", "quar", (_word("quar"),), "quar*"),
    _searched(
        "three words", "quota premium example", tuple(map(_word, ("quota", "premium", "example"))),
        "quota* AND premium* AND example*",
    ),
    _searched("a phrase", '"quota raised to"', (_phrase("quota raised to"),), '"quota raised to"'),
    _searched(
        "an excluded word", "quota -premium", (_word("quota"),), "quota*",
        without=(_word("premium"),), exclude="premium*",
    ),
)  # fmt: skip
"""The kinds of search text."""
