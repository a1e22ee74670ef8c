"""How many entries there are, by day: so that a total, a jump and a timeline need not go through all of them.

Two triggers keep the counts, in the transaction of the entries themselves. There is one count for each day and for each
32 days: a span of time is made of few of them, and of entries of its first and last day.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import apsw

__all__ = ["SCHEMA", "Counted"]

DAY_MS = 86_400_000
LONG = 32
"""Days."""
_EVER = 2**40
"""Further away than any day."""
_WIDTHS = (DAY_MS, LONG * DAY_MS)
_KEY = "org, level, span, action, category, outcome, tone"


def _span(time: str, width: int) -> str:
    """The span that a time is in. SQLite rounds quotients towards zero; this rounds down, also before 1970."""
    return f"({time} - ({time} % {width} + {width}) % {width}) / {width}"


def _change(moment: str, row: str, sign: str) -> str:
    """A trigger that counts a row."""
    counted = "".join(
        f"INSERT INTO counts ({_KEY}, n) VALUES ({row}.org, {level}, "
        f"{_span(f'{row}.timestamp', width)}, {row}.action, {row}.category, {row}.outcome, {row}.tone, {sign}1) "
        f"ON CONFLICT DO UPDATE SET n = n {sign} 1; "
        for level, width in enumerate(_WIDTHS)
    )
    return f"CREATE TRIGGER counts_{moment.lower()} AFTER {moment} ON entries BEGIN {counted} END;"


def _filled(level: tuple[int, int]) -> str:
    """What counts the entries that there are already."""
    number, width = level
    columns = f"org, {number}, {_span('timestamp', width)}, action, category, outcome, tone"
    return f"INSERT INTO counts SELECT {columns}, count(*) FROM entries GROUP BY 1, 3, 4, 5, 6, 7;"


SCHEMA = f"""
CREATE TABLE counts (
    org INTEGER NOT NULL,
    level INTEGER NOT NULL,
    span INTEGER NOT NULL,
    action TEXT NOT NULL,
    category TEXT NOT NULL,
    outcome TEXT NOT NULL,
    tone TEXT NOT NULL,
    n INTEGER NOT NULL,
    PRIMARY KEY ({_KEY})
) STRICT, WITHOUT ROWID;
{"".join(map(_filled, enumerate(_WIDTHS)))}
{_change("INSERT", "new", "+")}
{_change("DELETE", "old", "-")}
"""


@dataclass(frozen=True, slots=True)
class _Part:
    """A part of a span of time: so many days or 32 days with their counts, or milliseconds without."""

    level: int | None
    first: int
    end: int


class Counted:
    """What is counted of an organisation's entries, of those that `where` (on action, category, outcome) selects."""

    def __init__(self, db: apsw.Connection, org: int, where: str, bindings: Sequence[Any]) -> None:
        self._db = db
        self._where = f"org = ? AND {where}"
        self._bindings = (org, *bindings)

    def total(self, start: int | None, end: int | None) -> int:
        """How many entries there are from `start` to before `end` (ms)."""
        return sum(n for part in _parts(start, end) for _, n in self._sums(part, "NULL"))

    def tones(self, start: int, end: int) -> dict[str, int]:
        """The same for each tone."""
        found: dict[str, int] = {}
        for part in _parts(start, end):
            for tone, n in self._sums(part, "tone"):
                found[tone] = found.get(tone, 0) + n
        return found

    def actions(self) -> list[str]:
        """The actions of the entries that there are at all, in their order."""
        rows = self._db.execute(
            f"SELECT DISTINCT action FROM counts WHERE {self._where} AND level = 1 ORDER BY action", self._bindings
        )
        return [action for (action,) in rows]

    def skipped(self, offset: int, start: int | None, end: int | None, backwards: bool) -> tuple[int, int, int] | None:
        """Where to find the entry with so many before it, in order of time: from and to when, and after how many there.

        None where there are fewer.
        """
        parts = list(_parts(start, end))
        while parts:
            part = parts.pop(-1 if backwards else 0)
            if part.level is None or part.end - part.first == 1:
                n = sum(n for _, n in self._sums(part, "NULL"))
                if offset < n:
                    if part.level == 1:
                        parts = [_Part(0, part.first * LONG, part.end * LONG)]
                        continue
                    width = 1 if part.level is None else DAY_MS
                    return part.first * width, part.end * width, offset
                offset -= n
                continue
            for span, n in sorted(self._sums(part, "span"), reverse=backwards):
                if offset < n:
                    parts = [_Part(part.level, span, span + 1)]
                    break
                offset -= n
        return None

    def _sums(self, part: _Part, by: str) -> Iterator[tuple[Any, int]]:
        """Counts of a part, for each value of a column."""
        if part.level is None:
            sums = f"SELECT {by}, count(*) FROM entries WHERE {self._where} AND timestamp >= ? AND timestamp < ?"
        else:
            there = f"level = {part.level} AND span >= ? AND span < ?"
            sums = f"SELECT {by}, sum(n) FROM counts WHERE {self._where} AND {there}"
        yield from self._db.execute(f"{sums} GROUP BY 1", (*self._bindings, part.first, part.end))


def _parts(start: int | None, end: int | None) -> Iterator[_Part]:
    """A span of time (ms) in parts, in order."""
    first = -_EVER if start is None else -(-start // DAY_MS)
    last = _EVER if end is None else end // DAY_MS
    if start is not None and end is not None and first > last:
        yield _Part(None, start, end)
        return
    if start is not None and start < first * DAY_MS:
        yield _Part(None, start, first * DAY_MS)
    first_long, last_long = -(-first // LONG), last // LONG
    if first_long < last_long:
        for level, begin, ending in (
            (0, first, first_long * LONG),
            (1, first_long, last_long),
            (0, last_long * LONG, last),
        ):
            if begin < ending:
                yield _Part(level, begin, ending)
    elif first < last:
        yield _Part(0, first, last)
    if end is not None and last * DAY_MS < end:
        yield _Part(None, last * DAY_MS, end)
