"""Which entries a Query selects, in plain Python: what every store must answer, and what a live listener hears."""

from __future__ import annotations

from functools import cached_property

from ..event import AuditEvent
from ..privacy import network_key, network_range
from .filters import Query
from .text import Word, search_texts

__all__ = ["Searchable"]


class Searchable:
    """An entry, with its search texts made when a query first asks for them."""

    def __init__(self, event: AuditEvent) -> None:
        self.event = event

    @cached_property
    def texts(self) -> tuple[str, ...]:
        """What `q` looks at: see search_texts."""
        return search_texts(self.event)

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
        return all(any(_in_field(text, word) for text in self.texts) != word.excluded for word in query.words)


def _in_field(text: str, word: Word) -> bool:
    """Whether a field's tokens, joined by spaces, have what a word asks for."""
    if word.phrase:
        return f" {' '.join(word.tokens)} " in f" {text} "
    *whole, beginning = word.tokens
    field = text.split(" ")
    return all(token in field for token in whole) and any(token.startswith(beginning) for token in field)
