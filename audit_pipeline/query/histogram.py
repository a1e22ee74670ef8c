"""Over which spans of time entries are counted: whole seconds, minutes, hours, days, months or years of a time zone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

__all__ = ["MAX_BUCKETS", "MIN_BUCKETS", "Spans", "spans_between"]

MIN_BUCKETS, MAX_BUCKETS = 1, 400

_SECOND = 1000
# ISO 8601 durations. Up to six hours each is a number of milliseconds; from a day on, of days, months or years.
_CLOCK = {
    "PT1S": _SECOND,
    "PT5S": 5 * _SECOND,
    "PT15S": 15 * _SECOND,
    "PT1M": 60 * _SECOND,
    "PT5M": 300 * _SECOND,
    "PT15M": 900 * _SECOND,
    "PT1H": 3_600 * _SECOND,
    "PT3H": 10_800 * _SECOND,
    "PT6H": 21_600 * _SECOND,
}
_CALENDAR = {"P1D": 1, "P7D": 7}
_MONTHS = {"P1M": 1, "P3M": 3, "P1Y": 12, "P5Y": 60, "P10Y": 120, "P100Y": 1200, "P1000Y": 12_000}
_FIRST, _LAST = datetime(1970, 1, 1, tzinfo=UTC), datetime(2999, 12, 31, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Spans:
    """Spans of time that follow one another."""

    interval: str
    """How long each is: an ISO 8601 duration. A day on which clocks change is an hour shorter or longer."""
    edges: tuple[int, ...]
    """Where each begins, and where the last one ends: milliseconds since the epoch."""


def spans_between(start: int, end: int, most: int, zone: ZoneInfo) -> Spans:
    """The finest spans, `most` of them at the most, that cover the time from `start` to `end` (exclusive), in ms.

    Times before 1970 and after 2999 are left out. One span, where one is the most and no
    unit of the calendar covers it, is this time itself.
    """
    begin, stop = _moment(start), _moment(max(end, start + 1))
    for interval in (*_CLOCK, *_CALENDAR, *_MONTHS):
        edges: list[int] = []
        for edge in _edges(interval, begin, zone):
            if not edges or _milliseconds(edge) > edges[-1]:  # a day that a zone left out lasts no time
                edges.append(_milliseconds(edge))
            if edge >= stop or len(edges) > most + 1:
                break
        if len(edges) <= most + 1 and edges[-1] >= _milliseconds(stop):
            return Spans(interval, tuple(edges))
    # Only one was asked for, and a border of all of these lies within the time.
    length = _milliseconds(stop) - _milliseconds(begin)
    return Spans(f"PT{length / _SECOND:.3f}S", (_milliseconds(begin), _milliseconds(stop)))


def _edges(interval: str, begin: datetime, zone: ZoneInfo) -> Iterator[datetime]:
    """The beginnings of spans, from that of the span which `begin` lies in."""
    local = begin.astimezone(zone)
    midnight = local.replace(hour=0, minute=0, second=0, microsecond=0)
    if interval in _CLOCK:
        step = timedelta(milliseconds=_CLOCK[interval])
        # From local midnight on, by the time that passes: clocks that change do not change how long a span is.
        first = midnight.astimezone(UTC)
        first += (begin - first) // step * step
        while True:
            yield first
            first += step
    day = midnight.replace(tzinfo=None)
    if interval == "P7D":
        day -= timedelta(day.weekday())
    elif interval in _MONTHS:
        day = _month(day.year * 12 + day.month - 1, _MONTHS[interval], 0)
    while True:
        yield day.replace(tzinfo=zone).astimezone(UTC)
        if interval in _CALENDAR:
            day += timedelta(_CALENDAR[interval])
        else:
            day = _month(day.year * 12 + day.month - 1, _MONTHS[interval], 1)


def _month(number: int, step: int, further: int) -> datetime:
    number = (number // step + further) * step
    return datetime(number // 12, number % 12 + 1, 1)  # noqa: DTZ001 - its zone is added afterwards


def _moment(milliseconds: int) -> datetime:
    """A time, kept within what a calendar can step through."""
    return _FIRST + timedelta(milliseconds=min(max(milliseconds, 0), _milliseconds(_LAST)))


def _milliseconds(moment: datetime) -> int:
    return (moment - _FIRST) // timedelta(milliseconds=1)
