"""What queries answered before: asked again, only the entries that came since are looked at.

An entry never changes, and its number is higher than those that were there before. So an answer holds for all entries
up to a number, for as long as none of them is deleted; with those that came since, it is exact. Whether it holds is
told by the entry of that number, which must be the same one, and by how many there are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from threading import Event, get_ident
from typing import NamedTuple

from ...files import FileId
from ...query import Query

__all__ = ["MOST_NEW", "MOST_READ", "MOST_ROWS", "Answer", "Memory", "Row", "is_kept"]

KEPT = 500
"""Of how many queries the answers are kept."""
MOST_ROWS = 101
"""How many rows of a first page are kept."""
MOST_NEW = 20_000
"""Where more entries came since, a query is answered as if it were a new one."""
MOST_READ = 400_000
"""Where more bytes came, words are not looked for by reading them, but in their index, which takes some 50 ms."""


def is_kept(query: Query) -> bool:
    """Whether a query's answer is worth to be remembered: others are told by the counts of days. See counts."""
    return bool(query.words) or query.user is not None or query.network is not None


class Row(NamedTuple):
    """An entry, by what it is sorted by."""

    action: str
    timestamp: int
    id: bytes
    number: int


@dataclass(frozen=True, slots=True)
class Answer:
    """How many entries a query selected, of those up to a number, and the first of them in its order."""

    total: int
    rows: tuple[Row, ...]
    upto: int
    last_id: bytes
    """The id of the entry of that number."""
    entries: int
    """How many the organisation had."""

    def with_rows(self, rows: Sequence[Row], sort: str) -> Answer:
        """The answer with entries that came since."""
        if not rows:
            return self
        merged = [*self.rows, *rows]
        merged.sort(key=lambda row: (row.timestamp, row.id), reverse=sort != "timestamp")
        if sort.endswith("action"):
            merged.sort(key=lambda row: row.action, reverse=sort == "-action")
        total = self.total + len(rows)
        # Behind the last row that was kept there may be others, unless all were.
        kept = MOST_ROWS if len(self.rows) == self.total else min(len(self.rows), MOST_ROWS)
        return replace(self, total=total, rows=tuple(merged[:kept]))


class Memory:
    """The answers of the queries that were asked last, of one file, for any number of threads."""

    def __init__(self, file: FileId | None = None) -> None:
        self.file = file
        self._answers: dict[Query, Answer] = {}
        self._asked: dict[Query, tuple[int, Event]] = {}
        """Who is about to answer a query, and what tells that it is done."""

    def get(self, query: Query) -> Answer | None:
        """What it answered when it was asked last."""
        return self._answers.get(query)

    def put(self, query: Query, answer: Answer) -> None:
        """Keep an answer."""
        self._answers.pop(query, None)
        while len(self._answers) >= KEPT:
            self._answers.pop(list(self._answers)[0], None)  # noqa: RUF015 - other threads change it meanwhile
        self._answers[query] = answer

    def begin(self, query: Query) -> Event | None:
        """Let this thread answer a query; or, where another one does already, what tells that it has."""
        ours = (get_ident(), Event())
        asked = self._asked.setdefault(query, ours)
        return None if asked[0] == ours[0] else asked[1]

    def end(self, query: Query) -> None:
        """Let those go on that wait for an answer: it is there, or another one tries."""
        asked = self._asked.pop(query, None)
        if asked is not None:
            asked[1].set()
