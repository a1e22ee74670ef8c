"""Entries from NDJSON: the same file twice is the same entries."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import count
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audit_pipeline import AuditPipeline
from audit_pipeline.event import (
    FUTURE_WINDOW_MS,
    PAST_WINDOW_MS,
    AuditEvent,
    format_timestamp,
    id_time,
    is_id,
    now_ms,
    uuid7,
)
from audit_pipeline.importing import NDJSONReader, Rejected, json_value
from audit_pipeline.privacy import same_content
from audit_pipeline.settings import Settings

NOW = now_ms()
LINE = {
    "timestamp": format_timestamp(NOW),
    "action": "domain.created",
    "target": "a",
    "user": "bob",
    "ip": "203.0.113.9",
}


@pytest.fixture(scope="module")
def pipeline() -> Iterator[AuditPipeline]:
    with AuditPipeline.open(settings=Settings(store_url="memory://"), ship=False) as opened:
        yield opened


def read(
    pipeline: AuditPipeline, *lines: bytes | dict[str, Any], org: str | None = None
) -> list[AuditEvent | Rejected]:
    encoded = [line if isinstance(line, bytes) else json.dumps(line).encode() + b"\n" for line in lines]
    return list(NDJSONReader(pipeline, org).read(encoded))


def entries(pipeline: AuditPipeline, *lines: bytes | dict[str, Any], org: str | None = None) -> list[AuditEvent]:
    found = read(pipeline, *lines, org=org)
    events = [item for item in found if isinstance(item, AuditEvent)]
    assert len(events) == len(found), found
    return events


def ids(pipeline: AuditPipeline, *lines: bytes | dict[str, Any], org: str | None = None) -> list[str]:
    return [event.id for event in entries(pipeline, *lines, org=org)]


# Ids


def test_a_second_run_makes_the_same_ids(pipeline: AuditPipeline) -> None:
    """A line's id has its time, and is the same in each run; equal lines stay apart."""
    lines = [LINE, LINE, LINE | {"target": "b"}, LINE]
    first = ids(pipeline, *lines)
    assert len(set(first)) == 4
    assert all(is_id(text) and id_time(text) == NOW for text in first)
    assert ids(pipeline, *lines) == first
    assert ids(pipeline, *lines[1:]) == [first[0], first[2], first[1]]


def test_a_second_run_is_a_repetition(pipeline: AuditPipeline) -> None:
    """A store takes the entries of a second run for those it has, flawed ones too."""
    lines = [LINE, LINE | {"id": "7", "outcome": "maybe", "detail": "x" * 100_000}]
    for first, second in zip(entries(pipeline, *lines), entries(pipeline, *lines), strict=True):
        assert same_content(first, second)


def test_layout_does_not_count(pipeline: AuditPipeline) -> None:
    """The order of keys, white space and the spelling of a time or an address are not what a line says."""
    (first,) = ids(pipeline, LINE)
    moment = format_timestamp(NOW).replace("Z", "+00:00")
    spelled = dict(reversed((LINE | {"timestamp": moment, "ip": "::ffff:203.0.113.9"}).items()))
    assert ids(pipeline, json.dumps(spelled, indent=1).replace("\n", " ").encode()) == [first]


@pytest.mark.parametrize(
    "change",
    [
        {"timestamp": format_timestamp(NOW - 1)},
        {"action": "domain.deleted"},
        {"outcome": "failure"},
        {"org": "b"},
        {"target": "b"},
        {"detail": "b"},
        {"user": "b"},
        {"ip": "203.0.114.9"},
        {"ip": None},
        {"context": {"a": 1}},
        {"other": 1},
    ],
    ids=count(),
)
def test_what_a_line_says_counts(pipeline: AuditPipeline, change: dict[str, Any]) -> None:
    """A line that differs in any visible part has another id."""
    assert ids(pipeline, LINE | change) != ids(pipeline, LINE)


def test_the_id_tells_nothing_of_the_masked_part(pipeline: AuditPipeline) -> None:
    """For all 256 addresses behind a mask it is one id, also where texts and context repeat the address."""
    found = set()
    for octet in range(256):
        ip = f"203.0.113.{octet}"
        line = LINE | {"ip": ip, "detail": f"from {ip}.", "user": f"bob@{ip}", "context": {ip: [ip]}, "id": f"x-{ip}"}
        found.update(ids(pipeline, line))
    assert len(found) == 1


def test_the_id_tells_nothing_of_the_last_group(pipeline: AuditPipeline) -> None:
    """For IPv6 addresses that look the same it is one id, and another for others."""
    hidden = {
        ids(pipeline, LINE | {"ip": f"2001:db8::{group:x}", "target": f"[2001:db8::{group:x}]"})[0]
        for group in range(0, 65_536, 999)
    }
    assert len(hidden) == 1
    assert ids(pipeline, LINE | {"ip": "2001:db8::1:1"})[0] not in hidden


def test_a_given_id_is_kept(pipeline: AuditPipeline) -> None:
    """A UUIDv7 stays the entry's id, whatever the entry says."""
    own = uuid7(NOW - 5, 7)
    assert ids(pipeline, LINE | {"id": own}, LINE | {"id": own, "target": "b"}) == [own, own]


@pytest.mark.parametrize("bad", ["", "7", 7, uuid7(NOW, 5).upper(), uuid7(5, 5), ["x"], {"a": 1}, True], ids=count())
def test_a_bad_id_gives_way_to_one_that_a_second_run_makes_again(pipeline: AuditPipeline, bad: Any) -> None:
    """The entry is kept with a problem, the given value in its context, and an id of its content."""
    (first,), (second,) = entries(pipeline, LINE | {"id": bad}), entries(pipeline, LINE | {"id": bad})
    assert first.id == second.id != bad
    assert first.context == {"given_id": bad}
    assert any(problem.startswith("id: not a UUIDv7") for problem in first.problems)


# Lines


def test_a_byte_order_mark_and_blank_lines_are_passed_over(pipeline: AuditPipeline) -> None:
    """They are no entries and no rejections; line numbers count them."""
    line = json.dumps(LINE).encode()
    found = read(pipeline, b"\xef\xbb\xbf" + line + b"\r\n", b"\n", b"  \r\n", b"\t", line, b"{\n", b"")
    assert [type(item) for item in found] == [AuditEvent, AuditEvent, Rejected]
    assert isinstance(found[2], Rejected)
    assert found[2].line == 6
    assert read(pipeline, b"\xef\xbb\xbf\r\n") == []


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"{", "is not JSON"),
        (b"domain.created", "is not JSON"),
        (b'{"a": 1} {"b": 2}', "is not JSON"),
        (b"\xef\xbb\xbf\xef\xbb\xbf{}", "is not JSON"),
        (b'{"action": "domain.created\xff"}', "is not UTF-8"),
        (b"[" * 100_000, "nested deeper than 1,024 levels"),
        (b"[]", "is no JSON object"),
        (b"null", "is no JSON object"),
        (b'"text"', "is no JSON object"),
        (b"{}", "no action is given"),
        ({"event": "domain.created"}, "no action is given: its key is `action`, not `event`"),
        ({**LINE, "action": "domain.create"}, "unknown action 'domain.create': did you mean domain.created"),
        ({**LINE, "action": 7}, "unknown action 7"),
        ({**LINE, "action": ["domain.created"]}, "unknown action"),
        ({**LINE, "action": "\ud800\n"}, "unknown action"),
        ({"action": "domain.created"}, "timestamp: is missing or no time"),
        ({**LINE, "timestamp": None}, "timestamp: is missing or no time"),
        ({**LINE, "timestamp": "yesterday"}, "timestamp: is missing or no time"),
        ({**LINE, "timestamp": True}, "timestamp: is missing or no time"),
        ({**LINE, "timestamp": float("nan")}, "timestamp: is missing or no time"),
        ({**LINE, "timestamp": "1900-01-01T00:00:00Z"}, "timestamp: lies outside the last ten years and the next day"),
        ({**LINE, "timestamp": format_timestamp(NOW - PAST_WINDOW_MS - 60_000)}, "timestamp: lies outside"),
        ({**LINE, "timestamp": format_timestamp(NOW + 2 * FUTURE_WINDOW_MS)}, "timestamp: lies outside"),
        ({**LINE, "timestamp": 1e300}, "timestamp: lies outside"),
    ],
    ids=count(),
)
def test_a_line_that_is_no_entry_is_rejected(
    pipeline: AuditPipeline, line: bytes | dict[str, Any], reason: str
) -> None:
    """With its number, its reason and its text, as one line of JSON; the lines around it are read."""
    found = read(pipeline, LINE, line, LINE)
    assert [type(item) for item in found] == [AuditEvent, Rejected, AuditEvent]
    rejected = found[1]
    assert isinstance(rejected, Rejected)
    assert rejected.line == 2
    assert rejected.reason.startswith(reason)
    assert len(rejected.reason) < 300
    kept = json.loads(rejected.to_json())
    assert rejected.to_json().count(b"\n") == 1
    assert kept == {"line": 2, "reason": rejected.reason, "input": rejected.text}


def test_invalid_bytes_of_a_rejected_line_can_be_seen(pipeline: AuditPipeline) -> None:
    """They are written as escapes, since the file of rejected lines is text."""
    (rejected,) = read(pipeline, b'{"\xff": 1}\r\n')
    assert isinstance(rejected, Rejected)
    assert rejected.text == r'{"\xff": 1}'


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"ip": "nowhere"}, "ip: not an IP address"),
        ({"outcome": "maybe"}, "outcome: allowed are"),
        ({"user": None}, "user: none given"),
        ({"timestamp": format_timestamp(NOW).rstrip("Z")}, "timestamp: without a time zone"),
        ({"target": "x" * 2000}, "target: cut from 2,000 characters"),
        ({"context": 5}, None),
        ({"size": float("inf")}, "size: inf is no JSON number"),
        ({"size": 2**60}, "size: an integer beyond 2^53"),
        ({"detail": "\ud800"}, "detail: had lone surrogates"),
    ],
    ids=count(),
)
def test_every_other_flaw_is_recorded(pipeline: AuditPipeline, change: dict[str, Any], problem: str | None) -> None:
    """The entry is imported with what is valid, and its problem."""
    (event,) = entries(pipeline, LINE | change)
    assert problem is None or any(said.startswith(problem) for said in event.problems)


def test_numbers_of_any_size_are_read(pipeline: AuditPipeline) -> None:
    """An integer longer than Python reads is JSON all the same: its digits are kept as text."""
    digits = "9" * 5000
    line = json.dumps(LINE).removesuffix("}").encode() + b', "size": ' + digits.encode() + b"}"
    (event,) = entries(pipeline, line)
    assert event.context == {"size": digits}


def test_deep_nesting_is_read(pipeline: AuditPipeline) -> None:
    """A thousand levels are JSON: what is too deep in them is cut, and named."""
    line = json.dumps(LINE).removesuffix("}").encode() + b', "deep": ' + b"[" * 1000 + b"]" * 1000 + b"}"
    (event,) = entries(pipeline, line)
    assert any("nested deeper than 8 levels" in problem for problem in event.problems)


@pytest.mark.parametrize(("given_org", "kept"), [("b", "b"), (None, "acme"), ("", "acme")])
def test_lines_without_an_organisation_belong_to_the_readers(
    pipeline: AuditPipeline, given_org: str | None, kept: str
) -> None:
    """A line that names none, or an empty one, is the organisation's that the import is for."""
    assert entries(pipeline, LINE | {"org": given_org}, org="acme")[0].org == kept
    assert entries(pipeline, LINE, org="acme")[0].org == "acme"
    assert entries(pipeline, LINE)[0].org == "default"


@given(st.binary(max_size=60) | st.text(max_size=60).map(str.encode))
def test_json_value_raises_nothing_else(text: bytes) -> None:
    """Any bytes are a value or a ValueError with a short reason."""
    try:
        json_value(text)
    except ValueError as error:
        assert 0 < len(str(error)) < 120  # noqa: PT017 - some bytes are JSON
