"""Entries and queries that make engines differ."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

from hypothesis import strategies as st

from audit_pipeline.actions import catalogue
from audit_pipeline.event import AuditEvent, IdFactory, now_ms, uuid7
from audit_pipeline.normalize import build_event
from audit_pipeline.privacy import parse_network
from audit_pipeline.query import SORTS, Query, parse_words

NOW = now_ms()
HOUR = 3_600_000
YEAR = 366 * 24 * HOUR
IDS = IdFactory()
ORGS = ("default", "acme")
USERS = ("", "alice@example.com", "Ålice", "bob@example.com\0", "müller", "Σίσυφος")
NETWORKS = ("10.0.0.0/8", "10.0.0.0/24", "0.0.0.0/0", "2001:db8::/32", "::/0", "203.0.113.0/24", "2001:db8::/112")
ADDRESSES = ("10.0.0.1", "10.0.0.255", "10.0.1.7", "203.0.113.9", "2001:db8::1", "2001:db8::ffff", "2001:db8:1::9", "")
ACTIONS = ("domain.created", "domain.deleted", "user.created", "auth.login_failed", "settings.ai_updated")

# Few words of many alphabets, so that queries meet them: with marks, ligatures, digits, and letters that fold.
WORDS = (
    "mail", "mailbox", "example", "exam", "com", "a", "ab", "abc", "Straße", "strasse", "STRASSE", "ﬁle", "file",
    "é", "e\u0301", "Ærø", "œuvre", "łódź", "Þór", "İstanbul", "ıstanbul", "Σίσυφος", "ΣΊΣΥΦΟΣ", "ελένη", "Жанна",
    "жанна", "שלום", "שָׁלוֹם", "مرحبا", "مَرحبًا", "नमस्ते", "नम", "株式会社", "株式", "ｱｲｳ", "アイウ", "가나다", "가",
    "👍", "👩‍👧", "½", "²", "x²", "µ", "μ", "K", "Å", "Ⅷ", "٣", "१२", "ǅ", "ß", "ẞ", "ͅ", "\u0345a", "\u200b", "\u00ad",
    "ＦＵＬＬ", "full", "①", "ﷺ", "𝔘nicode", "unicode", "𐐷", "꙳", "_", "a_b", "x" * 300, "x" * 255, "y" * 254 + "é",
)  # fmt: skip
JOINTS = (
    " ",
    " ",
    " ",
    "-",
    ".",
    "@",
    "_",
    "/",
    ":",
    "'",
    '"',
    "\u00a0",
    "\u3000",
    "\u2028",
    "\t",
    "\0",
    "*",
    "^",
    "(",
    ")",
    "¶",
    "",
)


def mixed_text(chosen: random.Random) -> str:
    """A text of some words and what may stand between them."""
    return "".join(chosen.choice(WORDS) + chosen.choice(JOINTS) for _ in range(chosen.randint(0, 5)))


TEXTS = tuple(mixed_text(random.Random(seed)) for seed in range(300))
texts = st.one_of(st.sampled_from(TEXTS), st.sampled_from(TEXTS), st.text(max_size=8))


def make_entry(moment: int, tail: int, shift: int, action: str, **given: Any) -> AuditEvent:
    """An entry whose id has its own time, which need not be the entry's: that is `shift` ms earlier."""
    given |= {"id": uuid7(moment, tail), "timestamp": moment / 1000}
    return replace(build_event(catalogue[action], given, IDS), timestamp=moment - shift)


# Times and ids are few, so that they meet.
entries = st.builds(
    make_entry,
    moment=st.sampled_from([NOW - hours * HOUR - more for hours in range(6) for more in (0, 0, 1)]),
    tail=st.one_of(st.integers(0, 40), st.integers(0, 2**74 - 1)),
    shift=st.sampled_from((0, 0, HOUR)),
    action=st.sampled_from(ACTIONS),
    target=texts,
    detail=texts,
    user=st.one_of(st.sampled_from(USERS), texts),
    ip=st.sampled_from(ADDRESSES),
    outcome=st.sampled_from(("success", "failure")),
    org=st.sampled_from(ORGS),
)


def random_entry(chosen: random.Random) -> AuditEvent:
    """An entry for a large lot, made fast."""
    return make_entry(
        NOW - chosen.randrange(2000) - chosen.choice((0, 0, YEAR)),
        chosen.getrandbits(74),
        chosen.choice((0, 0, HOUR)),
        chosen.choice(ACTIONS),
        target=mixed_text(chosen),
        detail=mixed_text(chosen),
        user=chosen.choice(USERS) if chosen.random() < 0.7 else mixed_text(chosen),
        ip=chosen.choice(ADDRESSES),
        outcome=chosen.choice(("success", "failure")),
        org=chosen.choice(ORGS),
    )


@st.composite
def searches(draw: st.DrawFn) -> str:
    """A text for `q`: known words and parts of them, phrases, exclusions, and noise."""
    parts = []
    for _ in range(draw(st.integers(0, 3))):
        word = draw(st.one_of(st.sampled_from(WORDS), texts))
        word = word[: draw(st.integers(1, 40))]
        form = draw(st.sampled_from(("{}", "{}", "{}", "-{}", '"{}"', '-"{}"', '"{} {}"', "{}.{}", '"{}')))
        parts.append(form.format(word, draw(st.sampled_from(WORDS))[:20]))
    return " ".join(parts)[:256]


@st.composite
def queries(draw: st.DrawFn, org: str | None = None) -> Query:
    """A query with any of the filters."""
    some: dict[str, Any] = {}
    if draw(st.booleans()):
        try:
            some["words"] = parse_words(draw(searches()))
        except ValueError:
            some["words"] = ()
    if draw(st.integers(0, 3)) == 0:
        some["actions"] = frozenset(draw(st.lists(st.sampled_from(ACTIONS), min_size=1, max_size=2)))
    if draw(st.integers(0, 3)) == 0:
        some["categories"] = frozenset(draw(st.lists(st.sampled_from(("domains", "auth")), min_size=1)))
    if draw(st.integers(0, 3)) == 0:
        some["start"] = NOW - draw(st.integers(0, 7)) * HOUR
    if draw(st.integers(0, 3)) == 0:
        some["end"] = NOW - draw(st.integers(-1, 6)) * HOUR
    if draw(st.integers(0, 4)) == 0:
        some["user"] = draw(st.sampled_from(USERS[1:]))
    if draw(st.integers(0, 4)) == 0:
        some["outcome"] = draw(st.sampled_from(("success", "failure")))
    if draw(st.integers(0, 4)) == 0:
        some["network"] = parse_network(draw(st.sampled_from(NETWORKS)))
    return Query(org or draw(st.sampled_from(ORGS)), sort=draw(st.sampled_from(SORTS)), **some)
