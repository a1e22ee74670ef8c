"""Matching in plain Python: the answer is that of the rule as it reads, and does not cost more for longer texts."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audit_pipeline.actions import catalogue
from audit_pipeline.event import AuditEvent, IdFactory
from audit_pipeline.normalize import build_event
from audit_pipeline.query import Query, Searchable, Word, parse_query, parse_words, search_texts

IDS = IdFactory()


def entry(**given_values: Any) -> AuditEvent:
    """An entry as an application makes it."""
    return build_event(catalogue["domain.created"], given_values, IDS)


def has(text: str, word: Word) -> bool:
    """The rule as it reads, for one field."""
    if word.phrase:
        return f" {' '.join(word.tokens)} " in f" {text} "
    *whole, beginning = word.tokens
    field = text.split(" ")
    return all(token in field for token in whole) and any(token.startswith(beginning) for token in field)


pieces = st.lists(st.sampled_from(["a", "ab", "abc", "b", "ba", "é", "domain", "created", "1", ".", " "]), max_size=12)
texts = pieces.map("".join) | pieces.map(" ".join)
asked = st.lists(st.tuples(st.booleans(), st.booleans(), texts), min_size=1, max_size=4)


@settings(max_examples=500, deadline=None)
@given(texts, texts, texts, asked)
def test_words_are_found_as_the_rule_says(target: str, detail: str, user: str, words: list[tuple[Any, ...]]) -> None:
    """Prefixes, phrases, words of several tokens and excluded ones, over all fields, are found as if each was read."""
    q = " ".join(f"{'-' * excluded}{text.join(chr(34) * 2) if phrase else text}" for excluded, phrase, text in words)
    event = entry(target=target, detail=detail, user=user)
    parsed = parse_words(q[:256]) if len(q.split()) <= 16 else ()
    expected = all(any(has(text, word) for text in search_texts(event)) != word.excluded for word in parsed)
    assert Searchable(event).matches(Query("default", words=parsed)) == expected


@pytest.mark.parametrize(
    "other", [{"user": "bob"}, {"action": "user.created"}, {"outcome": "failure"}, {"from": "2990-01-01"}]
)
def test_texts_are_looked_at_last(monkeypatch: pytest.MonkeyPatch, other: dict[str, str]) -> None:
    """An entry that another filter leaves out, or of another organisation, is not folded at all."""

    def folding(_: AuditEvent) -> tuple[str, ...]:
        raise AssertionError("the texts were looked at")

    monkeypatch.setattr("audit_pipeline.query.matching.search_texts", folding)
    event = entry(target="x", user="alice")
    parameters = {name: [value] for name, value in other.items()}
    assert not Searchable(event).matches(parse_query({"q": ["x"], **parameters}, "default"))
    assert not Searchable(event).matches(parse_query({"q": ["x"]}, "other"))


def test_a_long_text_costs_many_queries_nothing() -> None:
    """Two hundred queries of sixteen words, asked of 64 KiB of text, take about the time of one."""
    searchable = Searchable(entry(detail=" ".join(f"{number:x}" for number in range(12_000))))
    queries = [
        parse_query({"q": [" ".join(f"-z{query}y{word}" for word in range(16))]}, "default") for query in range(201)
    ]

    def seconds(some: list[Query]) -> float:
        began = time.thread_time()
        assert all(searchable.matches(query) for query in some)
        return time.thread_time() - began

    assert seconds(queries[1:]) < 5 * seconds(queries[:1]) + 0.05
