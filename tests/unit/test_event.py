"""One entry: its id and its canonical bytes."""

from __future__ import annotations

import json
import os
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
import rfc8785
from hypothesis import given, settings
from hypothesis import strategies as st

from audit_pipeline.event import (
    FUTURE_WINDOW_MS,
    PAST_WINDOW_MS,
    AuditEvent,
    IdFactory,
    canonical_json,
    format_timestamp,
    id_time,
    in_window,
    is_id,
    now_ms,
    uuid7,
)

EVENT = AuditEvent(
    id="019ab1c2-d3e4-7000-8000-000000000001",
    timestamp=1_763_869_260_123,
    action="domain.created",
    category="domains",
    label="Domain created",
    tone="green",
    outcome="success",
    org="default",
    target="example.com",
    detail="DKIM enabled",
    user="alice@example.com",
    ip="203.0.113.9",
    context={"request_id": "r1", "sizes": [1, 2.5, None, True]},
    problems=("ip: none given",),
    received=1_763_869_260_200,
)

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53) + 1, 2**53 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda items: st.lists(items, max_size=5) | st.dictionaries(st.text(max_size=5), items, max_size=5),
    max_leaves=20,
)


# Ids


@given(st.integers(0, 2**48 - 1), st.integers(0, 2**74 - 1))
def test_an_id_is_a_uuid7_of_its_time(timestamp: int, tail: int) -> None:
    """Version, variant and time are where RFC 9562 has them, and the other 74 bits are the tail."""
    made = uuid.UUID(text := uuid7(timestamp, tail))
    assert (made.version, made.variant, str(made)) == (7, uuid.RFC_4122, text)
    assert made.int >> 80 == timestamp == id_time(text)
    assert (made.int >> 64 & 0xFFF) << 62 | made.int & (1 << 62) - 1 == tail
    assert is_id(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        None,
        7,
        str(uuid.UUID(int=0)),
        "019ab1c2-d3e4-4000-8000-000000000001",
        "019ab1c2-d3e4-7000-c000-000000000001",
        "019AB1C2-d3e4-7000-8000-000000000001",
        "019ab1c2d3e470008000000000000001",
        "{019ab1c2-d3e4-7000-8000-000000000001}",
        "019ab1c2-d3e4-7000-8000-000000000001\n",
        "٠19ab1c2-d3e4-7000-8000-000000000001",
    ],
)
def test_other_forms_are_no_ids(text: object) -> None:
    """An id is a version 7 UUID in lower case with hyphens, and nothing else."""
    assert not is_id(text)


def test_ids_rise_within_a_millisecond_from_many_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of one millisecond, each thread's ids rise, and no two of any are equal, however the threads take turns."""

    def urandom(size: int, original: Callable[[int], bytes] = os.urandom) -> bytes:
        time.sleep(1e-5)  # another thread's turn, in the middle of making an id
        return original(size)

    monkeypatch.setattr(os, "urandom", urandom)
    ids, moment = IdFactory(), now_ms()
    made: list[list[str]] = [[] for _ in range(8)]
    start = threading.Barrier(8)

    def make(place: int) -> None:
        start.wait()
        for _ in range(100):
            made[place].append(ids.next(moment)[1])
            time.sleep(1e-5)

    threads = [threading.Thread(target=make, args=(place,)) for place in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(own == sorted(own) for own in made)
    assert len({text for own in made for text in own}) == 800
    assert {id_time(text) for own in made for text in own} == {moment}


def test_ids_of_the_current_time_rise_over_milliseconds() -> None:
    """Ids made one after another sort in that order, with the time at which they were made."""
    ids, before = IdFactory(), now_ms()
    pairs = [ids.next() for _ in range(5000)]
    assert [text for _, text in pairs] == sorted({text for _, text in pairs})
    assert all(before <= moment == id_time(text) <= now_ms() for moment, text in pairs)


def test_the_room_for_rising_is_used() -> None:
    """However high the first random tail was, the next ones are higher."""
    ids = IdFactory()
    ids._time, ids._tail = 1000, (1 << 73) - 1
    made = [ids.next(1000)[1] for _ in range(1000)]
    assert made == sorted(made)


# Times


@pytest.mark.parametrize(
    ("timestamp", "text"),
    [
        (0, "1970-01-01T00:00:00.000Z"),
        (1_795_405_260_123, "2026-11-23T03:41:00.123Z"),
        (-1, "1969-12-31T23:59:59.999Z"),
        (-2_208_988_800_000, "1900-01-01T00:00:00.000Z"),
        (-62_135_596_800_000, "0001-01-01T00:00:00.000Z"),
        (253_402_300_799_999, "9999-12-31T23:59:59.999Z"),
    ],
)
def test_timestamps_are_rfc3339_in_utc(timestamp: int, text: str) -> None:
    """Milliseconds are written with four digits of year and three of milliseconds, before 1970 too."""
    assert format_timestamp(timestamp) == text


@given(st.integers(-62_135_596_800_000, 253_402_300_799_999))
def test_a_written_timestamp_reads_back(timestamp: int) -> None:
    """No millisecond is lost or rounded."""
    moment = datetime.fromisoformat(format_timestamp(timestamp)) - datetime(1970, 1, 1, tzinfo=UTC)
    assert round(moment.total_seconds() * 1000) == timestamp


def test_the_window_is_ten_years_back_and_one_day_ahead() -> None:
    """Both ends belong to the window, and nothing beyond them."""
    now = now_ms()
    assert abs(now - time.time() * 1000) < 1000
    assert in_window(now - PAST_WINDOW_MS, now)
    assert not in_window(now - PAST_WINDOW_MS - 1, now)
    assert in_window(now + FUTURE_WINDOW_MS, now)
    assert not in_window(now + FUTURE_WINDOW_MS + 1, now)


# Bytes


@settings(max_examples=200, deadline=None)
@given(json_values)
def test_canonical_json_is_rfc8785(value: Any) -> None:
    """The fast way writes what the reference implementation writes."""
    assert canonical_json(value) == rfc8785.dumps(value)


@given(st.floats(2**53, 1e22) | st.floats(-1e22, -(2**53)))
def test_a_large_float_that_reads_back_as_an_integer_is_written_as_before(value: float) -> None:
    """RFC 8785 writes 1e17 without exponent: a parser makes an integer of it, and its canonical form is the same."""
    assert canonical_json([json.loads(canonical_json(value))]) == canonical_json([value])


@pytest.mark.parametrize("value", [2**53 + 1, 2**64 - 1, -(2**60) - 1])
def test_an_integer_that_is_no_double_has_no_canonical_form(value: int) -> None:
    """It would be written as another number: rfc8785 refuses it, and so does this."""
    with pytest.raises(rfc8785.IntegerDomainError):
        canonical_json({"a": value})


def test_keys_sort_by_utf16() -> None:
    """A key beyond the BMP comes before one at its end, as RFC 8785 has it and sorting by code point has not."""
    assert canonical_json({"\uffff": 1, "\U0001f600": 2}) == '{"\U0001f600":2,"\uffff":1}'.encode()


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(st.text(max_size=5), json_values, max_size=4), st.text(), st.floats(2**53, 1e25))
def test_bytes_round_trip(context: dict[str, Any], text: str, large: float) -> None:
    """An event read back is the event, and has the same bytes again; large floats stay numbers."""
    event = replace(EVENT, context={**context, "large": large, "small": -large}, detail=text)
    read = AuditEvent.from_bytes(event.to_bytes(), "spool-1", 7)
    assert read == replace(event, origin="spool-1", sequence=7)
    assert read.to_bytes() == event.to_bytes()


def test_the_bytes_say_nothing_of_the_spool() -> None:
    """The same event has the same bytes whichever spool it goes through, before and after."""
    assert replace(EVENT, origin="a", sequence=1).to_bytes() == EVENT.to_bytes()
    assert b"origin" not in EVENT.to_bytes()


def test_keys_of_a_newer_version_are_left_out() -> None:
    """An older version reads what a newer one wrote."""
    body = EVENT.to_bytes().removesuffix(b"}") + b',"weather":"rain"}'
    assert AuditEvent.from_bytes(body) == EVENT
