"""Cursors: encrypted, or signed; bound to their query, and of no use when altered."""

from __future__ import annotations

import base64
import zlib
from contextlib import suppress
from itertools import product
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audit_pipeline.errors import InvalidCursor
from audit_pipeline.event import uuid7
from audit_pipeline.query import (
    SORTS,
    CursorSigner,
    Encryption,
    PageRequest,
    Query,
    ResumePoint,
    Signature,
    SortKey,
    Window,
    parse_query,
)
from audit_pipeline.query.sealing import Seal

KEY = SortKey(1_795_405_260_123, "domain.created", uuid7(1_795_405_260_123, 7))
QUERY = Query("default")
KEYS = [b"newest", b"older"]
SIGNERS = {kind: CursorSigner(KEYS, kind) for kind in (Encryption, Signature)}
SIGNER = CursorSigner(KEYS)
each_seal = pytest.mark.parametrize("seal", SIGNERS)


def is_refused(text: str, query: Query = QUERY, signer: CursorSigner = SIGNER) -> bool:
    try:
        signer.window(query, PageRequest(cursor=text))
    except InvalidCursor:
        return True
    return False


@each_seal
@given(offset=st.integers(0, 10**9), size=st.sampled_from([10, 25, 50, 100]), timestamp=st.integers(0, 2**47))
def test_a_cursor_reads_back(seal: type[Seal], offset: int, size: int, timestamp: int) -> None:
    """`next` goes on after its key, at its offset; `previous` ends before it, a page earlier."""
    key = SortKey(timestamp, "domain.created", uuid7(timestamp, 7))
    signer = SIGNERS[seal]
    following = signer.sign(QUERY, Window(size, offset, after=key))
    assert signer.window(QUERY, PageRequest(size, cursor=following)) == Window(size, offset, after=key)
    previous = signer.sign(QUERY, Window(size, offset, before=key))
    assert signer.window(QUERY, PageRequest(size, cursor=previous)) == Window(size, max(0, offset - size), before=key)


def test_without_a_cursor_a_page_is_an_offset() -> None:
    """Page n of a size begins after n - 1 pages."""
    assert SIGNER.window(QUERY, PageRequest(50, 3)) == Window(50, 100)


def test_another_page_size_is_no_other_query() -> None:
    """A cursor goes on with whatever page size is asked for."""
    text = SIGNER.sign(QUERY, Window(25, 50, after=KEY))
    assert SIGNER.window(QUERY, PageRequest(100, cursor=text)) == Window(100, 50, after=KEY)


@each_seal
@pytest.mark.parametrize("offset", [5, 50, 5_000_000])
def test_every_altered_character_is_noticed(seal: type[Seal], offset: int) -> None:
    """At each place, another character, one less or one more makes the cursor invalid: no bit of it is slack."""
    text = SIGNERS[seal].sign(QUERY, Window(25, offset, after=KEY))

    def refused(text: str) -> bool:
        return is_refused(text, signer=SIGNERS[seal])

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
    assert is_refused(SIGNER.sign(QUERY, Window(25, after=KEY)), other)
    assert is_refused(SIGNER.sign(other, Window(25, after=KEY)), QUERY)
    same = parse_query({**{name: ["", value] for name, value in parameters.items()}, "tz": ["UTC"]}, "default")
    assert not is_refused(SIGNER.sign(other, Window(25, after=KEY)), same)


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
    assert is_refused(SIGNER.sign(Query("a"), Window(25, after=KEY)), Query("b"))


@each_seal
def test_keys_are_changed_without_ending_a_walk(seal: type[Seal]) -> None:
    """The newest key makes cursors; older ones are accepted for as long as they are listed."""
    signer = SIGNERS[seal]
    text = CursorSigner([b"older"], seal).sign(QUERY, Window(25, after=KEY))
    assert not is_refused(text, signer=signer)
    assert is_refused(text, signer=CursorSigner([b"newest"], seal))
    assert is_refused(signer.sign(QUERY, Window(25, after=KEY)), signer=CursorSigner([b"older"], seal))


def test_what_is_only_signed_is_not_taken_for_encrypted() -> None:
    """The same keys read no text of the other kind, nor with a key used as it is where it is derived."""
    window = Window(25, after=KEY)
    for signer in SIGNERS.values():
        for other in SIGNERS.values():
            assert is_refused(signer.sign(QUERY, window), signer=other) == (signer is not other)


def read(text: str) -> list[bytes]:
    """All that somebody without a key may try to see in a text."""
    raw = [base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)) for part in text.split(".")]
    seen = [text.encode(), *raw]
    for body in raw:
        for start, form in product(range(len(body)), (zlib.MAX_WBITS, -zlib.MAX_WBITS)):
            with suppress(zlib.error):
                seen.append(zlib.decompressobj(form).decompress(body[start:]))
    return seen


def test_neither_a_cursor_nor_a_resume_token_can_be_read() -> None:
    """Nothing of what it holds stands in it, as it is or compressed; two of the same content have nothing in common."""
    position = '[1795405260123,{"0123456789abcdef":[4711,1795405260123]}]'
    given = frozenset([KEY.id])
    for make, secrets in (
        (lambda: SIGNER.sign(QUERY, Window(25, 50, after=KEY)), [KEY.action, KEY.id, str(KEY.timestamp)]),
        (lambda: SIGNER.sign_resume(QUERY, ResumePoint(position, given)), [position, "4711", "0123456789abcdef"]),
    ):
        one, other = make(), make()
        # But for Fernet's version and time.
        assert sum(a == b for a, b in zip(one[12:], other[12:], strict=True)) < len(one) / 8
        for seen in read(one):
            assert not any(secret.encode() in seen for secret in secrets)
            assert UUID(KEY.id).bytes not in seen


def test_the_length_of_a_text_tells_nothing_of_a_position() -> None:
    """From the first entry to the last that can be counted, whoever wrote it, tokens are equally long."""
    positions = [str(10**power) for power in range(18)]
    positions += [f'[1795405260123,{{"{"0123456789abcdef"[:16]}":[{10**power},1795405260123]}}]' for power in range(12)]
    for number in (0, 1, 16):
        given = frozenset(KEY.id[:-4] + f"{one:04}" for one in range(number))
        tokens = {SIGNER.sign_resume(QUERY, ResumePoint(position, given)) for position in positions}
        assert len({len(token) for token in tokens}) == 1
        assert {SIGNER.resume_point(QUERY, token) for token in tokens} == {
            ResumePoint(position, given) for position in positions
        }
    cursors = [SIGNER.sign(Query("default", sort=sort), Window(25, 10**3, after=KEY)) for sort in SORTS]
    assert len({len(cursor) for cursor in cursors}) == 1


@settings(deadline=None)
@given(st.text(max_size=2000), st.sets(st.integers(1, 2**128 - 1), max_size=100))
def test_a_resume_token_reads_back(position: str, given: set[int]) -> None:
    """Whatever a store calls a position, and however many ids there are, the token gives them back."""
    point = ResumePoint(position.encode(errors="replace").decode(), frozenset(str(UUID(int=one)) for one in given))
    assert SIGNER.resume_point(QUERY, SIGNER.sign_resume(QUERY, point)) == point
    assert SIGNER.resume_point(Query("default", sort="action"), SIGNER.sign_resume(QUERY, point)) == point
    with pytest.raises(InvalidCursor):
        SIGNER.resume_point(Query("other"), SIGNER.sign_resume(QUERY, point))


@pytest.mark.parametrize(
    "text", ["", ".", "..", "a", "a.b", "\0", "é.é", "\ud800.\ud800", "W10.", "x" * 10_000, "." * 10_000]
)
def test_garbage_is_is_refused(text: str) -> None:
    """What is no cursor raises InvalidCursor, which says what to do."""
    with pytest.raises(InvalidCursor, match="ask again without it"):
        SIGNER.window(QUERY, PageRequest(cursor=text))


@settings(max_examples=200)
@given(st.text(st.characters(exclude_categories=()), max_size=200))
def test_any_text_is_refused_alike(text: str) -> None:
    """No text raises anything but InvalidCursor."""
    assert all(is_refused(text, signer=signer) for signer in SIGNERS.values())
