"""Spans of time for histograms: they cover what was asked for, in whole units of a time zone."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from audit_pipeline.errors import InvalidQuery
from audit_pipeline.query import MAX_BUCKETS, MIN_BUCKETS, Spans, parse_buckets, spans_between

FIRST, LAST = 0, 32_503_593_600_000  # 1970-01-01 and 2999-12-31
MINUTE, HOUR, DAY = 60_000, 3_600_000, 86_400_000
# Half hours and quarters, clocks that change by half an hour or at midnight, days that were left out, times of the sun.
ZONES = (
    "UTC", "Europe/Berlin", "America/New_York", "Asia/Kathmandu", "Australia/Lord_Howe", "Pacific/Apia",
    "Pacific/Kiritimati", "Pacific/Chatham", "America/Sao_Paulo", "America/Havana", "Africa/Monrovia", "Asia/Beirut",
    "Africa/Casablanca", "America/St_Johns",
)  # fmt: skip
zones = st.sampled_from(ZONES).map(ZoneInfo)
lengths = st.one_of(st.integers(0, DAY), st.integers(0, 400 * DAY), st.integers(0, LAST))


def ms(text: str) -> int:
    """The time of a text, in milliseconds."""
    return (datetime.fromisoformat(text) - datetime.fromtimestamp(0, UTC)) // timedelta(milliseconds=1)


def local(edge: int, zone: ZoneInfo) -> datetime:
    """What the clocks show."""
    return (datetime.fromtimestamp(0, UTC) + timedelta(milliseconds=edge)).astimezone(zone)


def starts_of(days: int, months: int, edge: int, zone: ZoneInfo) -> bool:
    """Whether a day, week or month begins at an edge: the clocks show it, and did not a moment before."""
    now, before = local(edge, zone), local(edge - 1, zone)
    if days == 7 and now.weekday():
        return False
    if months and (now.day > 1 or (now.year * 12 + now.month - 1) % months):
        return False
    # A midnight that comes twice, or never, is left to the zone: but never is it far from the edge.
    return now.date() != before.date() or now.replace(tzinfo=None) - now.replace(
        hour=0, minute=0, second=0, microsecond=0, tzinfo=None
    ) <= timedelta(hours=1)


@given(st.integers(FIRST, LAST - 1), lengths, st.integers(MIN_BUCKETS, MAX_BUCKETS), zones)
@example(ms("2011-12-29T00:00:00Z"), 4 * DAY, 6, ZoneInfo("Pacific/Apia"))
@example(ms("2018-11-04T02:00:00Z"), DAY, 2, ZoneInfo("America/Sao_Paulo"))
@example(ms("2026-11-01T05:30:00Z"), HOUR, 2, ZoneInfo("America/Havana"))
@example(FIRST, LAST, 2, ZoneInfo("Pacific/Kiritimati"))
@example(FIRST, LAST, 1, ZoneInfo("Pacific/Kiritimati"))
def test_spans_cover_what_was_asked_for(start: int, length: int, most: int, zone: ZoneInfo) -> None:
    """Each moment from start to end lies in one span, and there are no more spans than asked for."""
    end = min(start + length, LAST)
    spans = spans_between(start, end, most, zone)
    edges = spans.edges
    assert 1 <= len(edges) - 1 <= most
    assert all(one < other for one, other in pairwise(edges))
    assert edges[0] <= start < edges[1]
    assert edges[-2] < max(end, start + 1) <= edges[-1]


@given(st.integers(FIRST + DAY, LAST - 1), lengths, st.integers(MIN_BUCKETS, MAX_BUCKETS), zones)
def test_spans_are_whole_units_of_the_zone(start: int, length: int, most: int, zone: ZoneInfo) -> None:
    """Spans of a day or more begin as the zone's days, weeks, months or years do; shorter ones last what they say."""
    spans = spans_between(start, min(start + length, LAST), most, zone)
    if re.fullmatch(r"PT\d+\.\d{3}S", spans.interval):
        assert most == 1
        return
    if clock := re.fullmatch(r"PT(\d+)([SMH])", spans.interval):
        step = int(clock[1]) * {"S": 1000, "M": MINUTE, "H": HOUR}[clock[2]]
        assert {other - one for one, other in pairwise(spans.edges)} == {step}
        midnight = local(spans.edges[0], zone).replace(hour=0, minute=0, second=0, microsecond=0)
        assert (spans.edges[0] - ms(midnight.astimezone(UTC).isoformat())) % step == 0
        return
    days, months = {"P1D": (1, 0), "P7D": (7, 0), "P1M": (0, 1), "P3M": (0, 3)}.get(spans.interval, (0, 0))
    if years := re.fullmatch(r"P(\d+)Y", spans.interval):
        months = 12 * int(years[1])
    assert days or months
    # The date line: a day that a zone left out cannot begin.
    inner = spans.edges if zone.key not in ("Pacific/Apia", "Pacific/Kiritimati") or months else ()
    assert all(starts_of(days, months, edge, zone) for edge in inner), spans


@pytest.mark.parametrize(
    ("start", "end", "most", "zone", "interval", "count", "first"),
    [
        ("2026-11-23T03:41:07.500Z", "2026-11-23T03:41:09Z", 60, "UTC", "PT1S", 2, "2026-11-23T03:41:07Z"),
        ("2026-11-23T00:00:00Z", "2026-11-24T00:00:00Z", 24, "UTC", "PT1H", 24, "2026-11-23T00:00:00Z"),
        ("2026-11-23T00:00:00Z", "2026-11-24T00:00:00.001Z", 24, "UTC", "PT3H", 9, "2026-11-23T00:00:00Z"),
        # Half past in UTC is the full hour in India, and a quarter to in Nepal.
        ("2026-11-23T03:41:00Z", "2026-11-23T10:00:00Z", 8, "Asia/Kolkata", "PT1H", 7, "2026-11-23T03:30:00Z"),
        ("2026-11-23T03:41:00Z", "2026-11-23T10:00:00Z", 8, "Asia/Kathmandu", "PT1H", 7, "2026-11-23T03:15:00Z"),
        # On the last Sunday of March the day has 23 hours, of October 25.
        ("2026-03-28T23:00:00Z", "2026-03-29T22:00:00Z", 23, "Europe/Berlin", "PT1H", 23, "2026-03-28T23:00:00Z"),
        ("2026-10-23T22:00:00Z", "2026-10-26T23:00:00Z", 3, "Europe/Berlin", "P1D", 3, "2026-10-23T22:00:00Z"),
        ("2026-01-01T00:00:00Z", "2026-12-31T00:00:00Z", 60, "UTC", "P7D", 53, "2025-12-29T00:00:00Z"),
        ("2026-01-15T00:00:00Z", "2026-12-31T00:00:00Z", 12, "America/New_York", "P1M", 12, "2026-01-01T05:00:00Z"),
        ("2017-01-15T00:00:00Z", "2026-12-31T00:00:00Z", 10, "UTC", "P1Y", 10, "2017-01-01T00:00:00Z"),
        ("2026-11-23T03:41:00Z", "2026-11-23T10:00:00Z", 1, "UTC", "P1D", 1, "2026-11-23T00:00:00Z"),
        ("1999-12-01T23:59:59Z", "2000-01-31T23:59:59.5Z", 1, "UTC", "PT5270400.500S", 1, "1999-12-01T23:59:59Z"),
    ],
)
def test_the_finest_spans_that_fit(
    start: str, end: str, most: int, zone: str, interval: str, count: int, first: str
) -> None:
    """The interval is the finest of which there are few enough, aligned where people would look for its beginning."""
    spans = spans_between(ms(start), ms(end), most, ZoneInfo(zone))
    assert (spans.interval, len(spans.edges) - 1, spans.edges[0]) == (interval, count, ms(first))


def test_a_day_that_was_left_out_has_no_span() -> None:
    """Samoa had no 30 December 2011: from the 29th the next day is the 31st."""
    zone = ZoneInfo("Pacific/Apia")
    spans = spans_between(ms("2011-12-28T10:00:00Z"), ms("2012-01-01T10:00:00Z"), 4, zone)
    assert [local(edge, zone).day for edge in spans.edges] == [28, 29, 31, 1, 2]


def test_times_outside_the_calendar_are_left_out() -> None:
    """Before 1970 and after 2999 there are no entries: a range that lies there has no spans, or one."""
    utc = ZoneInfo("UTC")
    assert spans_between(-(10**15), -(10**14), 60, utc) == Spans("PT1S", (0,))
    assert len(spans_between(10**15, 10**15 + 1, 60, utc).edges) == 1
    assert spans_between(-(10**15), 10**15, 2, utc).interval == "P1000Y"


def test_how_many_spans_are_asked_for() -> None:
    """`buckets` is a whole number from 1 to 400; left out or empty it is 60."""
    assert [parse_buckets(given) for given in ({}, {"buckets": [""]}, {"buckets": ["400"]})] == [60, 60, 400]
    assert parse_buckets({"buckets": ["1"], "q": ["x"]}) == 1
    for wrong in (["0"], ["401"], ["-5"], ["0x10"], ["٣٠"], ["9" * 5000], ["2", "3"], ["60.0"], [" 60"]):
        with pytest.raises(InvalidQuery) as raised:
            parse_buckets({"buckets": wrong})
        assert [name for name, _ in raised.value.errors] == ["buckets"]
