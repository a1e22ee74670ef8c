"""Cursors: signed, bound to their query, and of no use when altered."""

from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audit_pipeline.errors import InvalidCursor
from audit_pipeline.event import uuid7
from audit_pipeline.query import CursorSigner, PageRequest, Query, SortKey, Window, parse_query

KEY = SortKey(1_795_405_260_123, "domain.created", uuid7(1_795_405_260_123, 7))
QUERY = Query("default")
SIGNER = CursorSigner([b"newest", b"older"])


def refused(text: str, query: Query = QUERY, signer: CursorSigner = SIGNER) -> bool:
    try:
        signer.window(query, PageRequest(cursor=text))
    except InvalidCursor:
        return True
    return False


@given(st.integers(0, 10**9), st.sampled_from([10, 25, 50, 100]), st.integers(0, 2**47))
def test_a_cursor_reads_back(offset: int, size: int, timestamp: int) -> None:
    """`next` goes on after its key, at its offset; `previous` ends before it, a page earlier."""
    key = SortKey(timestamp, "domain.created", uuid7(timestamp, 7))
    following = SIGNER.sign(QUERY, Window(size, offset, after=key))
    assert SIGNER.window(QUERY, PageRequest(size, cursor=following)) == Window(size, offset, after=key)
    previous = SIGNER.sign(QUERY, Window(size, offset, before=key))
    assert SIGNER.window(QUERY, PageRequest(size, cursor=previous)) == Window(size, max(0, offset - size), before=key)


def test_without_a_cursor_a_page_is_an_offset() -> None:
    """Page n of a size begins after n - 1 pages."""
    assert SIGNER.window(QUERY, PageRequest(50, 3)) == Window(50, 100)


def test_another_page_size_is_no_other_query() -> None:
    """A cursor goes on with whatever page size is asked for."""
    text = SIGNER.sign(QUERY, Window(25, 50, after=KEY))
    assert SIGNER.window(QUERY, PageRequest(100, cursor=text)) == Window(100, 50, after=KEY)


def test_every_altered_character_is_noticed() -> None:
    """At each place, another character, one less or one more makes the cursor invalid: no bit of it is slack."""
    text = SIGNER.sign(QUERY, Window(25, 50, after=KEY))
    for place, character in enumerate(text):
        before, after = text[:place], text[place + 1 :]
        others = {*"AaBQgw01_-.=?+/ \0é\ud800\U0001f600", chr(ord(character) ^ 1), chr(ord(character) + 1), ""}
        for other in others - {character}:
            assert refused(before + other + after), (place, other)
        assert refused(before + character * 2 + after), place
    assert refused(text + "=")
    assert refused(" " + text)
    assert not refused(text)


@pytest.mark.parametrize(
    "parameters",
    [
        {"sort": "timestamp"},
        {"sort": "action"},
        {"q": "mail"},
        {"q": "-mail"},
        {"q": '"mail"'},
        {"action": "domain.created"},
        {"category": "domains"},
        {"from": "2026-01-01"},
        {"to": "2026-01-01"},
        {"user": "alice"},
        {"outcome": "failure"},
        {"ip": "10.0.0.0/8"},
    ],
    ids=str,
)
def test_a_cursor_serves_one_query(parameters: dict[str, str]) -> None:
    """Other filters or another order refuse it, in both directions; the same filters, written otherwise, do not."""
    other = parse_query({name: [value] for name, value in parameters.items()}, "default")
    assert refused(SIGNER.sign(QUERY, Window(25, after=KEY)), other)
    assert refused(SIGNER.sign(other, Window(25, after=KEY)), QUERY)
    same = parse_query({**{name: ["", value] for name, value in parameters.items()}, "tz": ["UTC"]}, "default")
    assert not refused(SIGNER.sign(other, Window(25, after=KEY)), same)


def test_every_part_of_a_query_is_told_apart() -> None:
    """No two of these queries have one digest, although their parts look alike."""
    given = [
        {},
        *({name: ["None"]} for name in ("user", "q")),
        *({"action": actions} for actions in (["user.created"], ["user.deleted"], ["user.created", "user.deleted"])),
        *({"q": [q]} for q in ("a b", "a.b", '"a b"', "a -b", "-a b", "ab")),
        *({"ip": [ip]} for ip in ("10.0.0.0/8", "10.0.0.0/16", "::/0", "0.0.0.0/0")),
        *({name: ["2026-01-01T00:00:00Z"]} for name in ("from", "to")),
    ]
    digests = {parse_query(parameters, "default").digest() for parameters in given}
    assert len(digests) == len(given)


def test_a_cursor_serves_one_organisation() -> None:
    """Another organisation's cursor is refused, for the same filters."""
    assert refused(SIGNER.sign(Query("a"), Window(25, after=KEY)), Query("b"))


def test_keys_are_changed_without_ending_a_walk() -> None:
    """The newest key signs; older ones are accepted for as long as they are listed."""
    text = CursorSigner([b"older"]).sign(QUERY, Window(25, after=KEY))
    assert not refused(text)
    assert refused(text, signer=CursorSigner([b"newest"]))
    assert refused(SIGNER.sign(QUERY, Window(25, after=KEY)), signer=CursorSigner([b"older"]))


def test_a_cursor_shows_nothing_that_is_hidden() -> None:
    """It holds the time, action and id of an entry that the viewer saw, and an offset."""
    body = SIGNER.sign(QUERY, Window(25, 50, after=KEY)).partition(".")[0]
    assert json.loads(base64.urlsafe_b64decode(body + "==")) == ["n", 50, *KEY]


@pytest.mark.parametrize(
    "text", ["", ".", "..", "a", "a.b", "\0", "é.é", "\ud800.\ud800", "W10.", "x" * 10_000, "." * 10_000]
)
def test_garbage_is_refused(text: str) -> None:
    """What is no cursor raises InvalidCursor, which says what to do."""
    with pytest.raises(InvalidCursor, match="ask again without it"):
        SIGNER.window(QUERY, PageRequest(cursor=text))


@settings(max_examples=200)
@given(st.text(st.characters(exclude_categories=()), max_size=200))
def test_any_text_is_refused_alike(text: str) -> None:
    """No text raises anything but InvalidCursor."""
    assert refused(text)
