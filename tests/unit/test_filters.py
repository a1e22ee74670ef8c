"""A dashboard's parameters: filters, dates and pages."""

from __future__ import annotations

from datetime import UTC, datetime
from ipaddress import ip_network
from itertools import count
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audit_pipeline.errors import InvalidQuery
from audit_pipeline.query import PageRequest, Query, Word, parse_page, parse_query, parse_zone

PAST, NEVER = -62_135_596_800_000, 253_402_300_800_000


def query(**given: str | list[str]) -> Query:
    """The query of these parameters; `from_` stands for `from`."""
    return parse_query(
        {name.rstrip("_"): [value] if isinstance(value, str) else value for name, value in given.items()}, "acme"
    )


def errors(**given: str | list[str]) -> list[tuple[str, str]]:
    with pytest.raises(InvalidQuery) as raised:
        query(**given)
    return list(raised.value.errors)


def page_errors(**given: str | list[str]) -> list[tuple[str, str]]:
    with pytest.raises(InvalidQuery) as raised:
        parse_page({name: [value] if isinstance(value, str) else value for name, value in given.items()})
    return list(raised.value.errors)


def ms(text: str) -> int:
    return round(datetime.fromisoformat(text).astimezone(UTC).timestamp() * 1000)


# Filters


def test_without_parameters_everything_is_asked_for() -> None:
    """All entries of the organisation, newest first."""
    assert query() == Query("acme", sort="-timestamp")


@pytest.mark.parametrize(
    ("given", "field", "value"),
    [
        ({"q": "mail -x"}, "words", (Word(("mail",)), Word(("x",), excluded=True))),
        ({"q": "-"}, "words", ()),
        ({"action": "domain.created"}, "actions", {"domain.created"}),
        (
            {"action": ["domain.created", "domain.deleted", "domain.created"]},
            "actions",
            {"domain.created", "domain.deleted"},
        ),
        ({"category": ["domains", "audit"]}, "categories", {"domains", "audit"}),
        ({"user": " Alice "}, "user", " Alice "),
        ({"user": "a\ud800"}, "user", "a\ufffd"),
        ({"outcome": "success"}, "outcome", "success"),
        ({"outcome": "failure"}, "outcome", "failure"),
        ({"ip": "10.1.2.3/24"}, "network", ip_network("10.1.2.0/24")),
        ({"ip": "2001:db8::xxxx"}, "network", ip_network("2001:db8::/112")),
        *[({"sort": sort}, "sort", sort) for sort in ("-timestamp", "timestamp", "action", "-action")],
        ({"from_": "2026-11-23"}, "start", ms("2026-11-23T00:00:00Z")),
        ({"to": "2026-11-23"}, "end", ms("2026-11-24T00:00:00Z")),
        ({"tz": "Europe/Berlin"}, "start", None),
    ],
    ids=count(),
)
def test_each_filter_is_read(given: dict[str, Any], field: str, value: Any) -> None:
    """Each parameter sets its own part of the query, and no other."""
    found = query(**given)
    assert getattr(found, field) == value
    assert [name for name in Query.__slots__ if getattr(found, name) != getattr(query(), name)] in ([field], [])
    assert len(found.digest()) == 16


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"q": "a" * 257}, "has 257 characters; allowed are 256"),
        ({"q": "a " * 17}, "has 17 words; allowed are 16"),
        ({"action": "domain.create"}, "no such action: did you mean domain.created"),
        ({"action": "x" * 100_000}, "no such action: `audit-pipeline actions` and GET /v1/actions list all"),
        ({"action": "Domain created"}, "no such action"),
        ({"category": "domain"}, "no such category: did you mean domains"),
        ({"tz": "Mars/Olympus"}, "no such time zone; allowed are IANA names"),
        ({"user": ["a", "b"]}, "given 2 times; allowed is once"),
        ({"outcome": "maybe"}, "allowed are success, failure"),
        ({"outcome": "Success"}, "allowed are success, failure"),
        ({"ip": "10.0.0.1"}, "finer than the masked part"),
        ({"ip": "10.0.0.0/25"}, "finer than the masked part"),
        ({"ip": "x"}, "not a network; allowed are"),
        ({"sort": "user"}, "allowed are -timestamp, timestamp, action, -action"),
        ({"sort": "-ip"}, "allowed are -timestamp, timestamp, action, -action"),
        ({"from_": "today"}, "not a time; allowed are RFC 3339 instants"),
        ({"to": "tomorrow"}, "not a time; allowed are RFC 3339 instants"),
        ({"colour": "red"}, "no such parameter here; allowed are q, action, category, from, to, tz"),
        ({"Q": "x"}, "no such parameter here"),
        ({"page": "1"}, "no such parameter here"),
    ],
    ids=str,
)
def test_each_wrong_filter_is_named(given: dict[str, Any], said: str) -> None:
    """An error has the parameter's name, and what is allowed; of a long value nothing is repeated."""
    ((parameter, detail),) = errors(**given)
    assert parameter == next(iter(given)).rstrip("_")
    assert said in detail
    assert len(detail) < 300


def test_all_wrong_parameters_are_named_at_once() -> None:
    """One answer names each of them, and each wrong value of one that may be repeated."""
    found = errors(
        q="a" * 257,
        action=["x", "domain.created", "y"],
        category="z",
        from_="1",
        to="2",
        tz="3",
        user=["a", "b"],
        outcome="4",
        ip="5",
        sort="6",
        seven="7",
    )
    names = ["action", "action", "category", "from", "ip", "outcome", "q", "seven", "sort", "to", "tz", "user"]
    assert sorted(name for name, _ in found) == names


@pytest.mark.parametrize("name", ["q", "from", "to", "tz", "user", "outcome", "ip", "sort"])
def test_single_parameters_are_given_once(name: str) -> None:
    """A second value is an error, said once, even where both are equal and right; an empty one does not count."""
    right = {
        "from": "2026-11-23",
        "to": "2026-11-23",
        "tz": "UTC",
        "outcome": "success",
        "ip": "::/0",
        "sort": "action",
    }
    value = right.get(name, "x")
    assert errors(**{name: [value, value]}) == [(name, "given 2 times; allowed is once")]
    assert query(**{name: ["", value, ""]}) == query(**{name: value})


@pytest.mark.parametrize(
    "name",
    ["q", "action", "category", "from", "to", "tz", "user", "outcome", "ip", "sort", "page", "page_size", "cursor"],
)
def test_empty_values_count_as_not_given(name: str) -> None:
    """A form that sends empty fields asks for what one without them asks for."""
    if name in ("page", "page_size", "cursor"):
        assert parse_page({name: [""]}) == PageRequest()
    else:
        assert query(**{name: ["", ""]}) == query()


def test_other_parameters_may_be_allowed() -> None:
    """`also` names what the caller reads itself; an unknown name is cut in the error."""
    assert parse_query({"page": ["2"]}, "acme", also=["page"]) == query()
    assert errors(**{"x" * 1000: "1"})[0][0] == "x" * 64


# Dates


@pytest.mark.parametrize(
    ("zone", "day", "start", "end"),
    [
        ("UTC", "2026-11-23", "2026-11-23T00:00:00Z", "2026-11-24T00:00:00Z"),
        ("Asia/Kathmandu", "2026-11-23", "2026-11-22T18:15:00Z", "2026-11-23T18:15:00Z"),
        ("America/New_York", "2026-02-28", "2026-02-28T05:00:00Z", "2026-03-01T05:00:00Z"),
        # 23 and 25 hours
        ("Europe/Berlin", "2026-03-29", "2026-03-28T23:00:00Z", "2026-03-29T22:00:00Z"),
        ("Europe/Berlin", "2026-10-25", "2026-10-24T22:00:00Z", "2026-10-25T23:00:00Z"),
        # midnight is skipped: the day begins at 01:00
        ("America/Sao_Paulo", "2018-11-04", "2018-11-04T03:00:00Z", "2018-11-05T02:00:00Z"),
        ("America/Sao_Paulo", "2018-11-03", "2018-11-03T03:00:00Z", "2018-11-04T03:00:00Z"),
        # midnight comes twice: the day begins with the first
        ("America/Havana", "2026-11-01", "2026-11-01T04:00:00Z", "2026-11-02T05:00:00Z"),
        ("America/Havana", "2026-10-31", "2026-10-31T04:00:00Z", "2026-11-01T04:00:00Z"),
        ("UTC", "2028-02-29", "2028-02-29T00:00:00Z", "2028-03-01T00:00:00Z"),
    ],
)
def test_a_date_is_a_whole_day_of_its_zone(zone: str, day: str, start: str, end: str) -> None:
    """`from` and `to` as one date take in that day from its first to its last moment, and the days meet."""
    found = query(from_=day, to=day, tz=zone)
    assert (found.start, found.end) == (ms(start), ms(end))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-11-23T03:41:00Z", "2026-11-23T03:41:00Z"),
        ("2026-11-23t03:41:00z", "2026-11-23T03:41:00Z"),
        ("2026-11-23T03:41:00.123Z", "2026-11-23T03:41:00.123Z"),
        ("2026-11-23T03:41:00+05:30", "2026-11-22T22:11:00Z"),
        ("2026-11-23T03:41:00 05:30", "2026-11-22T22:11:00Z"),
        ("2026-11-23T03:41:00.5 00:00", "2026-11-23T03:41:00.500Z"),
        ("2026-11-23T03:41:00-23:59", "2026-11-24T03:40:00Z"),
        # finer than a millisecond: only entries of the next one lie at or after it, or before it
        ("2026-11-23T03:41:00.1230Z", "2026-11-23T03:41:00.123Z"),
        ("2026-11-23T03:41:00.1231Z", "2026-11-23T03:41:00.124Z"),
        ("2026-11-23T03:41:00.123000001Z", "2026-11-23T03:41:00.124Z"),
        ("2026-11-23T03:41:00.999999999999Z", "2026-11-23T03:41:01Z"),
        ("1969-12-31T23:59:59.9995Z", "1970-01-01T00:00:00Z"),
        ("2016-12-31T23:59:60Z", "2017-01-01T00:00:00Z"),
        ("2016-12-31T23:59:60.25Z", "2017-01-01T00:00:00.250Z"),
    ],
)
def test_instants(text: str, expected: str) -> None:
    """An instant is the same bound for `from` and `to`, whatever the zone of dates is, rounded up to a millisecond."""
    found = query(from_=text, to=text, tz="Asia/Tokyo")
    assert found.start == found.end == ms(expected)


@pytest.mark.parametrize("zone", ["UTC", "Pacific/Kiritimati", "Pacific/Niue"])
def test_the_first_and_the_last_dates_are_open_ends(zone: str) -> None:
    """Every entry there can be lies between the years 1 and 9999, in any zone."""
    found = query(from_="0001-01-01", to="9999-12-31", tz=zone)
    assert found.start is not None
    assert found.end is not None
    assert found.start <= ms("1000-01-01T00:00:00Z")
    assert found.end >= ms("9999-12-30T00:00:00Z")
    assert query(from_="0001-01-01T00:00:00+23:59", to="9999-12-31T23:59:60Z").end == NEVER
    assert query(to="9999-12-31T23:59:59.9999999Z").end == NEVER
    assert query(from_="0001-01-01").start == PAST


@pytest.mark.parametrize(
    "text",
    [
        "2026-11-23T03:41Z",
        "2026-11-23T03:41:00",
        "2026-11-23 03:41:00Z",
        "20261123",
        "2026-11-31",
        "2026-02-29",
        "2026-13-01",
        "2026-1-1",
        "0000-01-01",
        "2026-11-23T24:00:01Z",
        "2026-11-23T03:60:00Z",
        "2026-11-23T03:41:61Z",
        "2026-W48-1",
        "2026-11-23T03:41:00+24:00",
        "2026-11-23T03:41:00+0100",
        "2026-11-23T03:41:00.Z",
        "２026-11-23",
        "2026-11-23\n",
        "1795405260",
        "now",
        "-",
        "\ud800",
        "9" * 10000,
    ],
)
def test_other_times_are_refused(text: str) -> None:
    """Whatever is neither a date nor an RFC 3339 instant is an error of that parameter."""
    assert [name for name, _ in errors(from_=text, to=text)] == ["from", "to"]


@pytest.mark.parametrize(
    ("start", "end", "zone"),
    [
        ("2026-11-24", "2026-11-23", "UTC"),
        ("2026-11-23T00:00:01Z", "2026-11-23T00:00:00Z", "UTC"),
        ("2026-11-24T00:00:00Z", "2026-11-23", "UTC"),
        ("2026-11-23T23:00:00Z", "2026-11-23", "Europe/Berlin"),
        ("2026-11-24", "2026-11-23T22:59:59Z", "Europe/Berlin"),
        ("9999-12-31", "0001-01-01", "UTC"),
    ],
)
def test_from_after_to_is_refused(start: str, end: str, zone: str) -> None:
    """For dates, instants, and one of each."""
    assert errors(from_=start, to=end, tz=zone) == [("from", "is after to; allowed is the same time or an earlier one")]


@pytest.mark.parametrize(
    ("start", "end", "zone"),
    [
        ("2026-11-23", "2026-11-23", "UTC"),
        ("2026-11-23T00:00:00Z", "2026-11-23T00:00:00Z", "UTC"),
        ("2026-11-23T23:59:59.999Z", "2026-11-23", "UTC"),
        ("2026-11-23T22:59:59Z", "2026-11-23", "Europe/Berlin"),
        ("2026-11-24", "2026-11-23T23:00:00Z", "Europe/Berlin"),
    ],
)
def test_from_may_be_to(start: str, end: str, zone: str) -> None:
    """The same time, or day, is a range, though it may be an empty one."""
    found = query(from_=start, to=end, tz=zone)
    assert found.start is not None
    assert found.end is not None
    assert found.start <= found.end


@given(
    st.dates(), st.sampled_from(["UTC", "Europe/Berlin", "America/Sao_Paulo", "America/Havana", "Australia/Lord_Howe"])
)
def test_days_meet(day: Any, zone: str) -> None:
    """The end of a day is the start of the next one: no moment is left out, and none is in both."""
    if day.isoformat() == "9999-12-31":
        return
    after = day.fromordinal(day.toordinal() + 1).isoformat()
    assert query(to=day.isoformat(), tz=zone).end == query(from_=after, tz=zone).start


@given(st.text(st.characters(exclude_categories=()), max_size=40), st.text(max_size=30))
def test_any_text_is_read_or_refused(text: str, zone: str) -> None:
    """No text in any parameter raises anything but InvalidQuery."""
    for name in ("q", "action", "from", "to", "tz", "user", "outcome", "ip", "sort", text):
        try:
            parse_query({name: [text], "tz": [zone]}, "acme").digest()
        except InvalidQuery as error:
            assert error.errors  # noqa: PT017 - some texts are read


@pytest.mark.parametrize(
    "name",
    [
        "",
        " ",
        ".",
        "..",
        "/",
        "/etc/localtime",
        "../../etc/passwd",
        "Europe",
        "Europe/Berlin/",
        "europe\x00",
        "+01:00",
        "zone.tab",
        "__init__.py",
        "x" * 10000,
        "é",
        "\ud800",
        "a.b/c",
    ],
)
def test_wrong_zones_are_refused(name: str) -> None:
    """Names, folders and files that are no time zone raise ValueError only."""
    with pytest.raises(ValueError, match="no such time zone"):
        parse_zone(name)


# Pages


def test_a_first_page_is_the_default() -> None:
    """25 entries, from the first page on; other parameters are not looked at."""
    assert parse_page({"q": ["x"], "wrong": ["y"]}) == PageRequest(25, 1, None)


@pytest.mark.parametrize("size", ["10", "25", "50", "100"])
def test_page_sizes(size: str) -> None:
    """Four sizes are allowed."""
    assert parse_page({"page_size": [size]}).size == int(size)


@pytest.mark.parametrize("size", ["0", "-10", "11", "1000", "010", "10.0", "ten", "١٠", " 10", "9" * 5000])
def test_other_page_sizes_are_refused(size: str) -> None:
    """Any other size is an error that names the four."""
    assert page_errors(page_size=size) == [("page_size", "not allowed; allowed are 10, 25, 50, 100")]


@pytest.mark.parametrize(
    ("page", "number"),
    [
        ("1", 1),
        ("007", 7),
        ("123456789012345", 123456789012345),
        ("9" * 16, 10**15),
        ("1" + "0" * 5000, 10**15),
        ("0" * 5000 + "7", 7),
    ],
    ids=["1", "007", "15 digits", "16 digits", "5001 digits", "5000 zeros"],
)
def test_any_page_may_be_asked_for(page: str, number: int) -> None:
    """However deep; beyond 10^15, where no entries can be, all pages are one."""
    assert parse_page({"page": [page]}).page == number


@pytest.mark.parametrize("page", ["0", "000", "-1", "+1", "1.5", "1e3", "one", "١", "²", " 1", "1\n", "0x1", "1_000"])
def test_other_pages_are_refused(page: str) -> None:
    """Pages are whole numbers from 1."""
    assert page_errors(page=page) == [("page", "not a page number; allowed are whole numbers from 1")]


def test_a_page_goes_not_with_a_cursor() -> None:
    """Only one of them says where to begin; a page size goes with both."""
    assert page_errors(page="1", cursor="x") == [("page", "goes not with cursor; give one of them")]
    assert parse_page({"page_size": ["50"], "cursor": ["x"]}) == PageRequest(50, 1, "x")


def test_all_wrong_places_are_named_at_once() -> None:
    """Page size, page and cursor are each named, and once."""
    found = page_errors(page_size=["10", "25"], page="0", cursor=["a", "b"])
    assert [name for name, _ in found] == ["page_size", "page", "cursor"]


def test_of_very_many_wrong_names_only_some_are_compared() -> None:
    """A hint takes a millisecond, and a request has room for a thousand names."""
    wrong = [f"domain.create{number}" for number in range(1000)]
    with pytest.raises(InvalidQuery) as raised:
        parse_query({"action": wrong}, "default")
    assert len(raised.value.errors) == 1000
    assert [("did you mean" in why) for _, why in raised.value.errors[:5]] == [True, True, True, False, False]
