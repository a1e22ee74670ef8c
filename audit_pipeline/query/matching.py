"""Which entries a Query selects, in plain Python: what every store must answer, and what a live listener hears.

Hundreds of listeners may ask the same entry, with sixteen words each. So its tokens are put in order once, and a word
is then found in the time that it takes to look it up, however long the entry's texts are.
"""

from __future__ import annotations

from bisect import bisect_left
from functools import cached_property

from ..event import AuditEvent
from ..privacy import network_key, network_range
from .filters import Query
from .text import FIELD_BREAK, Word, search_texts

__all__ = ["Searchable"]


class Searchable:
    """An entry, with its search texts made when a query first asks for them."""

    def __init__(self, event: AuditEvent) -> None:
        self.event = event

    def matches(self, query: Query) -> bool:
        """Whether a query selects this entry."""
        event = self.event
        if event.org != query.org:
            return False
        if query.actions and event.action not in query.actions:
            return False
        if query.categories and event.category not in query.categories:
            return False
        if query.start is not None and event.timestamp < query.start:
            return False
        if query.end is not None and event.timestamp >= query.end:
            return False
        if query.user is not None and event.user != query.user:
            return False
        if query.outcome is not None and event.outcome != query.outcome:
            return False
        if query.network is not None:
            first, last = network_range(query.network)
            if not first <= network_key(event.ip) <= last:
                return False
        return all(self._has(word) is not word.excluded for word in query.words)

    def _has(self, word: Word) -> bool:
        if not self._anywhere.has_tokens(word):
            return False
        return len(word.tokens) == 1 or any(field.has(word) for field in self._fields)

    @cached_property
    def _fields(self) -> tuple[_Field, ...]:
        return tuple(map(_Field, search_texts(self.event)))

    @cached_property
    def _anywhere(self) -> _Field:
        """All fields as one: most words are not found in any, and one look says so."""
        return _Field(f" {FIELD_BREAK} ".join(field.text for field in self._fields))


class _Field:
    """A field's tokens, as search_texts joined them."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._tokens = frozenset(text.split(" "))
        self._sorted = sorted(self._tokens)

    def has_tokens(self, word: Word) -> bool:
        """Whether it has each token of a word; of a phrase, in any order."""
        last = word.tokens[-1]
        if word.phrase:
            return self._tokens.issuperset(word.tokens)
        place = bisect_left(self._sorted, last)
        if place == len(self._sorted) or not self._sorted[place].startswith(last):
            return False
        return len(word.tokens) == 1 or self._tokens.issuperset(word.tokens[:-1])

    def has(self, word: Word) -> bool:
        """Whether it has what a word asks for. Only for a phrase that may be there is the text read."""
        return self.has_tokens(word) and (not word.phrase or f" {' '.join(word.tokens)} " in f" {self.text} ")
