"""A dashboard's parameters as a Query: the one place where filters, sorts and pages are parsed.

Stores only compile what stands in a Query; the HTTP API and the command line both parse here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, tzinfo
from difflib import get_close_matches
from hashlib import sha256
from ipaddress import IPv4Network, IPv6Network
from typing import Any, TypeVar
from zoneinfo import ZoneInfo

from ..actions import catalogue
from ..errors import InvalidQuery
from ..event import canonical_json
from ..privacy import parse_network
from .histogram import MAX_BUCKETS, MIN_BUCKETS
from .text import Word, parse_words

__all__ = [
    "BUCKETS",
    "FILTERS",
    "PAGE_SIZES",
    "SORTS",
    "PageRequest",
    "Query",
    "parse_buckets",
    "parse_page",
    "parse_query",
    "parse_zone",
]

SORTS = ("-timestamp", "timestamp", "action", "-action")
PAGE_SIZES = (10, 25, 50, 100)
BUCKETS = 60
"""Spans of time in a histogram, at the most, unless it is asked for with another number."""
FILTERS = ("q", "action", "category", "from", "to", "tz", "user", "outcome", "ip", "sort")
"""The parameters of a Query. `action` and `category` may be repeated."""
MOST_HINTS = 3
"""For how many wrong names of a query the nearest right ones are looked for."""

T = TypeVar("T")
_INSTANT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)", re.ASCII)
_DATE = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LAST = 253_402_300_800_000_000  # the year 10000, in µs: after any time there is


@dataclass(frozen=True, slots=True)
class Query:
    """Which entries of one organisation, in which order. All parts hold together."""

    org: str
    words: tuple[Word, ...] = ()
    actions: frozenset[str] = frozenset()
    categories: frozenset[str] = frozenset()
    start: int | None = None
    """Inclusive, in milliseconds since the epoch."""
    end: int | None = None
    """Exclusive, in milliseconds since the epoch."""
    user: str | None = None
    outcome: str | None = None
    network: IPv4Network | IPv6Network | None = None
    sort: str = "-timestamp"

    def digest(self) -> bytes:
        """16 bytes that stand for this query: cursors are bound to it."""
        parts = [
            self.org,
            [[list(word.tokens), word.phrase, word.excluded] for word in self.words],
            sorted(self.actions),
            sorted(self.categories),
            self.start,
            self.end,
            self.user,
            self.outcome,
            str(self.network),
            self.sort,
        ]
        return sha256(canonical_json(parts)).digest()[:16]


@dataclass(frozen=True, slots=True)
class PageRequest:
    """Which page: by number, or by a cursor (still unread)."""

    size: int = 25
    page: int = 1
    cursor: str | None = None


class _Parameters:
    """Parameters as given, and what is wrong with them."""

    def __init__(self, given: Mapping[str, Sequence[str]], allowed: Sequence[str]) -> None:
        self.errors: list[tuple[str, str]] = []
        self._given = given
        for name in given:
            if name not in allowed:
                self.errors.append((name[:64], f"no such parameter here; allowed are {', '.join(allowed)}"))

    def all(self, name: str) -> list[str]:
        return [value for value in self._given.get(name, ()) if value != ""]

    def one(self, name: str) -> str | None:
        values = self.all(name)
        if len(values) > 1:
            self.errors.append((name, f"given {len(values)} times; allowed is once"))
        return values[0] if values else None

    def parsed(self, name: str, parse: Callable[[str], T], default: T) -> T:
        value = self.one(name)
        if value is None:
            return default
        try:
            return parse(value)
        except ValueError as error:
            self.errors.append((name, str(error)))
            return default

    def refuse(self) -> None:
        if self.errors:
            raise InvalidQuery(self.errors)


def parse_query(given: Mapping[str, Sequence[str]], org: str, also: Sequence[str] = ()) -> Query:
    """The Query of these parameters, for one organisation. Empty values count as not given.

    `also` names further parameters that may be there, and that are not read here. Raises InvalidQuery, which names
    each wrong parameter.
    """
    parameters = _Parameters(given, (*FILTERS, *also))
    zone: tzinfo = parameters.parsed("tz", parse_zone, ZoneInfo("UTC"))
    start, end = _range(parameters, zone)
    query = Query(
        org=org,
        words=parameters.parsed("q", parse_words, ()),
        actions=_members(parameters, "action", [action.id for action in catalogue]),
        categories=_members(parameters, "category", [category.id for category in catalogue.categories()]),
        start=start,
        end=end,
        user=parameters.parsed("user", _exact, None),
        outcome=parameters.parsed("outcome", _one_of(("success", "failure")), None),
        network=parameters.parsed("ip", parse_network, None),
        sort=parameters.parsed("sort", _one_of(SORTS), SORTS[0]),
    )
    parameters.refuse()
    return query


def parse_page(given: Mapping[str, Sequence[str]]) -> PageRequest:
    """The page that `page_size`, `page` and `cursor` ask for. Raises InvalidQuery."""
    names = ("page_size", "page", "cursor")
    parameters = _Parameters({name: given[name] for name in names if name in given}, names)
    size = parameters.parsed("page_size", _page_size, 25)
    page = parameters.parsed("page", _page, None)
    cursor = parameters.one("cursor")
    if cursor is not None and page is not None:
        parameters.errors.append(("page", "goes not with cursor; give one of them"))
    parameters.refuse()
    return PageRequest(size, page or 1, cursor)


def parse_buckets(given: Mapping[str, Sequence[str]]) -> int:
    """How many spans `buckets` asks for, at the most. Raises InvalidQuery."""
    parameters = _Parameters({name: given[name] for name in ("buckets",) if name in given}, ("buckets",))
    most = parameters.parsed("buckets", _buckets, BUCKETS)
    parameters.refuse()
    return most


def parse_zone(name: str) -> ZoneInfo:
    """The time zone of an IANA name. Raises ValueError."""
    try:
        return ZoneInfo(name)
    except (ValueError, OSError, KeyError):  # ZoneInfoNotFoundError is a KeyError; a folder's name an OSError
        raise ValueError("no such time zone; allowed are IANA names such as Europe/Berlin or UTC") from None


def _exact(value: str) -> str | None:
    # As an entry keeps it: no lone surrogates, which a command line may pass on.
    return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _one_of(allowed: Sequence[str]) -> Callable[[str], Any]:
    def parse(value: str) -> str:
        if value not in allowed:
            raise ValueError(f"not allowed; allowed are {', '.join(allowed)}")
        return value

    return parse


def _members(parameters: _Parameters, name: str, allowed: Sequence[str]) -> frozenset[str]:
    values = parameters.all(name)
    for value in values:
        if value not in allowed:
            # A hint takes a millisecond, and a request has room for a thousand names.
            near = get_close_matches(value[:64], allowed, 3) if len(parameters.errors) < MOST_HINTS else []
            hint = f"did you mean {' or '.join(near)}? " if near else ""
            listed = "`audit-pipeline actions` and GET /v1/actions list all"
            parameters.errors.append((name, f"no such {name}: {hint}{listed}, the file of AUDIT_CATALOGUE adds more"))
    return frozenset(values)


def _page_size(value: str) -> int:
    if value not in map(str, PAGE_SIZES):
        raise ValueError(f"not allowed; allowed are {', '.join(map(str, PAGE_SIZES))}")
    return int(value)


def _page(value: str) -> int | None:
    digits = value.lstrip("0")
    if not re.fullmatch(r"\d+", digits, re.ASCII):
        raise ValueError("not a page number; allowed are whole numbers from 1")
    # No page beyond 10^15 has entries, and Python refuses to read a number of over 4,300 digits.
    return int(digits) if len(digits) <= 15 else 10**15


def _buckets(value: str) -> int:
    if not re.fullmatch(r"\d{1,3}", value, re.ASCII) or not MIN_BUCKETS <= int(value) <= MAX_BUCKETS:
        raise ValueError(f"not allowed; allowed are whole numbers from {MIN_BUCKETS} to {MAX_BUCKETS}")
    return int(value)


# Dates


def _range(parameters: _Parameters, zone: tzinfo) -> tuple[int | None, int | None]:
    start = parameters.parsed("from", lambda value: _bound(value, zone, 0), None)
    end = parameters.parsed("to", lambda value: _bound(value, zone, 1), None)
    if start is not None and end is not None:
        given, last = parameters.all("from")[0], parameters.all("to")[0]
        # `to` as a date takes in that day: a `from` at its very end is after it. (A day that a zone left out is empty.)
        if given != last and (start >= end if _DATE.fullmatch(last) else start > end):
            parameters.errors.append(("from", "is after to; allowed is the same time or an earlier one"))
    return (None if start is None else -(-start // 1000)), (None if end is None else -(-end // 1000))


def _bound(value: str, zone: tzinfo, days: int) -> int | None:
    """An instant, or the start of a date (or of `days` later) in a zone, in microseconds; rounded up."""
    try:
        if _DATE.fullmatch(value):
            day = date.fromisoformat(value) + timedelta(days)
            # fold=0: of an hour that comes twice, the first; of a midnight that is skipped, the moment of the change.
            moment = datetime.combine(day, datetime.min.time(), zone)
        else:
            # A "+" in a query string that was not encoded arrives as a space.
            text = value.strip().upper().replace(" ", "+") if " " in value[19:] else value.upper()
            match = _INSTANT.fullmatch(text)
            if match is None:
                raise ValueError(value)
            leap = text[17:19] == "60"
            moment = datetime.fromisoformat(f"{text[:17]}59{text[19:]}" if leap else text)
            # datetime drops what is finer than a microsecond: it counts as one.
            moment += timedelta(seconds=leap, microseconds=bool((match[1] or "")[7:].strip("0")))
        return (moment - _EPOCH) // timedelta(microseconds=1)
    except OverflowError:
        return _LAST if value.startswith("9999") else -_LAST
    except ValueError:
        raise ValueError(
            "not a time; allowed are RFC 3339 instants such as 2026-11-23T03:41:00Z, and dates such as 2026-11-23"
        ) from None
