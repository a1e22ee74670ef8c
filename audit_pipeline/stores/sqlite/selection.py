"""A Query as SQL, and how its entries are found in order.

Three ways lead to them: an index of the order, which is walked; one such walk for each action, brought together; or the
words, where few entries have them. Where many have them, the first are found by looking at entries in order; and what a
query answered before is remembered, so that only what came since is looked at. See remembered.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from functools import cached_property
from heapq import merge
from itertools import chain, islice, pairwise
from typing import Any

import apsw

from ...errors import StoreError
from ...event import AuditEvent
from ...privacy import network_range
from ...query import SEARCH_FIELDS, Query, Searchable, SortKey, Word
from .counts import Counted
from .remembered import MOST_NEW, MOST_READ, MOST_ROWS, Answer, Memory, Row, is_kept

__all__ = ["RARE", "Selection", "content_of", "id_bytes"]

RARE = 5_000
"""Fewer entries than these, found by their words, are all looked at; of more, only those that come first in order."""
MOST_LOOKED_AT = 100_000
"""How many entries are looked at in order, at the most, before their words lead to them all the same."""
READING = 40
"""How many times as long it takes to read a usual entry's words as to look at its place in an index (40 µs and 1)."""
USUAL_SIZE = 200
"""Bytes of a usual entry; a longer one takes longer in proportion."""

Place = tuple[int, bytes, int, int]
"""The time, id and number of an entry, and whether it is what the query asks for, words aside."""


Content = tuple[bytes, str, int]
"""The canonical bytes of an entry, and the origin and sequence that belong to them."""


def content_of(db: apsw.Connection, number: int) -> Content:
    """What an entry is. Raises StoreError where it is gone."""
    row: Content | None = db.execute(
        "SELECT body, origin, sequence FROM contents WHERE number = ?", (number,)
    ).fetchone()
    if row is None:
        raise StoreError(f"entry {number} has lost its content: the file is damaged, restore it from a backup")
    return row


def id_bytes(event_id: str) -> bytes:
    """An id as it is stored."""
    return bytes.fromhex(event_id.replace("-", ""))


class Selection:
    """The entries that a Query selects, as a connection sees them in its transaction."""

    def __init__(self, db: apsw.Connection, query: Query, memory: Memory) -> None:
        self._db = db
        self._query = query
        self._memory = memory
        self._total: int | None = None
        row = db.execute("SELECT org FROM orgs WHERE name = ?", (query.org,)).fetchone()
        self._org: int = row[0] if row else -1
        # What is counted by day, and what else an entry must be.
        chosen, self._chosen = ["TRUE"], list[Any]()
        for column, values in (("action", query.actions), ("category", query.categories)):
            if values:
                chosen.append(f"{column} IN ({','.join('?' * len(values))})")
                self._chosen += sorted(values)
        if query.outcome is not None:
            chosen.append("outcome = ?")
            self._chosen.append(query.outcome)
        self._choice = " AND ".join(chosen)
        self._rest, self._bindings = self._choice, list(self._chosen)
        if query.user is not None:
            self._also("user = ?", query.user)
        if query.network is not None:
            self._also("network BETWEEN ? AND ?", *network_range(query.network))
        self._but_words, self._but_words_bindings = self._rest, list(self._bindings)
        self._words = " AND ".join(f"({_match(word)})" for word in query.words if not word.excluded)
        self._unwanted = " OR ".join(f"({_match(word)})" for word in query.words if word.excluded)
        if self._words and self._unwanted:
            self._words = f"({self._words}) NOT ({self._unwanted})"
        elif self._unwanted:
            self._also("number NOT IN (SELECT rowid FROM search WHERE search MATCH ?)", self._unwanted)

    def _also(self, condition: str, *values: Any) -> None:
        self._rest += f" AND {condition}"
        self._bindings += values

    @cached_property
    def _counts(self) -> Counted:
        """The counts by day, of what is counted at all."""
        return Counted(self._db, self._org, self._choice, self._chosen)

    @property
    def _counted(self) -> Counted | None:
        """The same, where they are about all that is asked."""
        return None if is_kept(self._query) else self._counts

    @cached_property
    def _last(self) -> int:
        """The number of the newest entry of all organisations."""
        return int(self._db.execute("SELECT coalesce(max(number), 0) FROM entries").get)

    @cached_property
    def _all(self) -> int:
        """How many entries the organisation has."""
        return Counted(self._db, self._org, "TRUE", ()).total(None, None)

    @property
    def _words_alone(self) -> bool:
        """Whether the words say all: nothing else is asked, and no entry is another organisation's, or was deleted."""
        is_all = self._but_words == self._choice == "TRUE" and self._query.start is self._query.end is None
        return is_all and self._last == self._all

    @cached_property
    def _is_rare(self) -> bool:
        """Whether words are asked for, and few entries have them."""
        if not self._words:
            return False
        if self._total is not None and (self._total >= RARE or self._words_alone):
            return self._total < RARE
        some = "SELECT * FROM search WHERE search MATCH ? LIMIT ?"
        return bool(self._db.execute(f"SELECT count(*) < ? FROM ({some})", (RARE, self._words, RARE)).get)

    # Counts

    def count(self) -> int:
        """How many entries there are."""
        if self._total is None:
            self._total = self._counted_up() if self._known is None else self._known.total
        return self._total

    def _counted_up(self) -> int:
        if self._counted is not None:
            return self._counted.total(self._query.start, self._query.end)
        if self._words_alone:
            # The index of the words counts ten times as fast as the entries are found that it leads to.
            sql = "SELECT count(*) FROM search WHERE search MATCH ? AND rowid <= ?"
            hits: int = self._db.execute(sql, (self._words or self._unwanted, self._last)).get
            return hits if self._words else self._all - hits
        source, where, bindings = self._source(by_words=bool(self._words))
        total: int = self._db.execute(f"SELECT count(*) FROM {source} WHERE {where}", bindings).get
        return total

    @property
    def is_known(self) -> bool:
        """Whether what is asked needs no more than a look at what came since it was asked before."""
        return self._counted is not None or self._known is not None

    @cached_property
    def _known(self) -> Answer | None:
        """What the query answered before, with what came since; None where too much came, or entries were deleted."""
        known = None if self._counted is not None else self._memory.get(self._query)
        if known is None or not 0 <= self._last - known.upto <= MOST_NEW:
            return None
        if self._db.execute("SELECT id FROM entries WHERE number = ?", (known.upto,)).get != known.last_id:
            return None
        row: Any = self._db.execute(
            "SELECT count(*), coalesce(sum(length(body)), 0) FROM contents CROSS JOIN entries USING (number) "
            "WHERE contents.number > ? AND +org = ?",
            (known.upto, self._org),
        ).fetchone()
        came, size = row
        if known.entries + came != self._all:
            return None
        if (self._words or self._query.user is not None) and came > known.total:
            return None  # what the words or the user lead to is counted sooner
        by_index = known.total < RARE or size > MOST_READ
        return known.with_rows(list(self._rows_since(known.upto, by_index)), self._query.sort)

    def _rows_since(self, number: int, by_index: bool) -> Iterator[Row]:
        """The entries after a number that the query selects; their words are read, or found by their index."""
        times, limits = self._times()
        where = f"number > ? AND +org = ? AND {self._but_words}{times}"
        bindings = [number, self._org, *self._but_words_bindings, *limits]
        if self._query.words and by_index:
            hits = "SELECT rowid FROM search WHERE search MATCH ? AND rowid > ?"
            where += f" AND number {'IN' if self._words else 'NOT IN'} ({hits})"
            bindings += [self._words or self._unwanted, number]
        # The plus and NOT INDEXED keep SQLite to the numbers, whatever it knows of its indices.
        rows = self._db.execute(
            f"SELECT action, timestamp, id, number FROM entries NOT INDEXED WHERE {where}", bindings
        )
        for row in rows:
            if not self._query.words or by_index or self._has_words(content_of(self._db, row[-1])):
                yield Row(*row)

    def remember(self, numbers: Sequence[int] = ()) -> None:
        """Keep the answer, and its first page, for when the query is asked again."""
        if self._counted is not None or self._last == 0:
            return
        last_id = self._db.execute("SELECT id FROM entries WHERE number = ?", (self._last,)).get
        rows = self._known.rows if self._known is not None else ()
        if len(rows) < len(numbers) <= MOST_ROWS:
            sql = "SELECT action, timestamp, id, number FROM entries WHERE number = ?"
            rows = tuple(Row(*row) for number in numbers for row in self._db.execute(sql, (number,)))
        self._memory.put(self._query, Answer(self.count(), rows, self._last, last_id, self._all))

    def _has_words(self, content: Content) -> bool:
        """Whether an entry has the words that are asked for, and none of the others."""
        return Searchable(AuditEvent.from_bytes(*content)).matches(self._query)

    def has(self, key: SortKey | None) -> bool:
        """Whether the entry of a key, which was selected once, is there still: then no other has to be looked for."""
        if key is None:
            return False
        sql = "SELECT count(*) FROM entries WHERE org = ? AND id = ?"
        return bool(self._db.execute(sql, (self._org, id_bytes(key.id))).get)

    def histogram(self, edges: Sequence[int]) -> list[dict[str, int]]:
        """How many entries of each tone there are between each two edges (ms)."""
        start, end = self._query.start, self._query.end
        bounded = [
            (first if start is None else max(first, start), last if end is None else min(last, end))
            for first, last in pairwise(edges)
        ]
        if self._counted is not None:
            return [self._counted.tones(first, last) if first < last else {} for first, last in bounded]
        numbered = ",".join(f"({place},{first},{last})" for place, (first, last) in enumerate(bounded))
        spans: list[dict[str, int]] = [{} for _ in bounded]
        if not spans:
            return spans
        source, where, bindings = self._source(by_words=self._is_rare)
        source = f"{source} CROSS JOIN spans" if self._is_rare else f"spans CROSS JOIN {source}"
        rows = self._db.execute(
            f"WITH spans (place, first, ending) AS (VALUES {numbered}) SELECT place, tone, count(*) FROM {source} "
            f"WHERE {where} AND timestamp >= first AND timestamp < ending GROUP BY place, tone",
            bindings,
        )
        for place, tone, number in rows:
            spans[place][tone] = number
        return spans

    # Order

    def numbers(
        self, limit: int, offset: int = 0, *, beyond: SortKey | None = None, backwards: bool = False
    ) -> array[int]:
        """The numbers of entries in order (or against it); with a key, only those beyond it in that direction."""
        if self._known is not None and beyond is None and not backwards:
            rows = self._known.rows
            if len(rows) == self.count() or offset + limit <= len(rows):
                return array("q", (row.number for row in rows[offset : offset + limit]))
        if self._words or self._query.user is not None:
            if self.count() == 0:
                return array("q")
            found = self._looked_at(limit, offset, beyond, backwards)
            return self._sorted(limit, offset, beyond, backwards) if found is None else found
        if self._query.sort in ("timestamp", "-timestamp"):
            descending = (self._query.sort == "-timestamp") != backwards
            actions = self._actions if self._query.actions or self._query.categories else [None]
            return self._walked(actions, limit, offset, beyond, descending)
        return self._by_action(limit, offset, beyond, backwards)

    @cached_property
    def _actions(self) -> list[str]:
        """The actions that come into question, in their order."""
        return self._counts.actions()

    def _by_action(self, limit: int, offset: int, beyond: SortKey | None, backwards: bool) -> array[int]:
        found = array("q")
        for action in self._actions_beyond(beyond, backwards):
            if offset and (there := self._count_of(action)) <= offset:
                offset -= there
                continue
            key = beyond if beyond is not None and action == beyond.action else None
            found += self._walked([action], limit - len(found), offset, key, not backwards)
            offset = 0
            if len(found) == limit:
                break
        return found

    def _actions_beyond(self, beyond: SortKey | None, backwards: bool) -> Iterator[str]:
        """In order (or against it), the actions from that of a key on."""
        descending = (self._query.sort == "-action") != backwards
        for action in reversed(self._actions) if descending else self._actions:
            if beyond is None or action == beyond.action or (action < beyond.action) == descending:
                yield action

    def _looked_at(self, limit: int, offset: int, beyond: SortKey | None, backwards: bool) -> array[int] | None:
        """As `numbers`, by looking at entries in order, one by one; None where that takes longer than other ways."""
        by_time = self._query.sort in ("timestamp", "-timestamp")
        if not self._query.words and by_time:
            return None  # an index of the user's times has them
        # An entry that its words or its user lead to takes half a microsecond.
        left = min(self.count() // 2, MOST_LOOKED_AT)
        each = READING if self._query.words else 1
        if (offset + limit) * each >= left:
            return None
        in_order = self._counts.total(self._query.start, self._query.end)
        if (offset + limit) * in_order * each >= left * self.count():
            return None
        found = array("q")
        with ExitStack() as stack:
            for _, _, number, is_wanted in self._in_order(stack, by_time, left, beyond, backwards):
                left -= 1
                if is_wanted and self._query.words:
                    content = content_of(self._db, number)
                    left -= READING * len(content[0]) // USUAL_SIZE
                if is_wanted and left > 0 and (not self._query.words or self._has_words(content)):
                    found.append(number)
                    if len(found) == offset + limit:
                        break
                if left <= 0:
                    return None
        return found[offset:]

    def _in_order(
        self, stack: ExitStack, by_time: bool, limit: int, beyond: SortKey | None, backwards: bool
    ) -> Iterator[Place]:
        """So many places in order, whatever is asked of entries but their action and time."""

        def walk(action: str | None, beyond: SortKey | None, descending: bool) -> apsw.Cursor:
            start, end = self._query.start, self._query.end
            return self._walk(action, limit, 0, start, end, beyond, descending, but_rest=True)

        if by_time:
            descending = (self._query.sort == "-timestamp") != backwards
            actions = self._actions if self._query.actions or self._query.categories else [None]
            return _together(stack, (walk(action, beyond, descending) for action in actions), descending)
        return chain.from_iterable(
            walk(action, beyond if beyond is not None and beyond.action == action else None, not backwards)
            for action in self._actions_beyond(beyond, backwards)
        )

    def _count_of(self, action: str) -> int:
        if self._counted is not None:
            return self._counts_of(action).total(self._query.start, self._query.end)
        _, where, bindings = self._source(by_words=False)
        sql = f"SELECT count(*) FROM entries WHERE {where} AND action = ?"
        number: int = self._db.execute(sql, (*bindings, action)).get
        return number

    def _counts_of(self, action: str) -> Counted:
        return Counted(self._db, self._org, f"{self._choice} AND action = ?", [*self._chosen, action])

    def _walked(
        self, actions: Sequence[str | None], limit: int, offset: int, beyond: SortKey | None, descending: bool
    ) -> array[int]:
        """The numbers of entries of these actions (None stands for all), in order of time."""
        start, end = self._query.start, self._query.end
        if offset and self._counted is not None:
            counted = self._counted if len(actions) != 1 or actions[0] is None else self._counts_of(actions[0])
            if (there := counted.skipped(offset, start, end, descending)) is None:
                return array("q")
            first, last, offset = there
            start, end = (start, last) if descending else (first, end)
        with ExitStack() as stack:
            # Where there is one walk, the engine skips faster.
            alone = len(actions) == 1
            skipped, passed = (offset, 0) if alone else (0, offset)
            walks = (self._walk(action, limit + passed, skipped, start, end, beyond, descending) for action in actions)
            places = _together(stack, walks, descending)
            return array("q", (number for _, _, number, _ in islice(places, passed, passed + limit)))

    def _walk(
        self, action: str | None, limit: int, offset: int, start: int | None, end: int | None,
        beyond: SortKey | None, descending: bool, *, but_rest: bool = False,
    ) -> apsw.Cursor:  # fmt: skip
        """A walk through the index of the time, or of an action's times; with `but_rest`, of all that it has."""
        where, bindings = "org = ?", list[Any]([self._org])
        conditions: list[tuple[str, tuple[Any, ...]]] = []
        if action is not None:
            conditions.append(("action = ?", (action,)))
        if start is not None:
            conditions.append(("timestamp >= ?", (start,)))
        if end is not None:
            conditions.append(("timestamp < ?", (end,)))
        if beyond is not None:
            sign = "<" if descending else ">"
            conditions.append((f"(timestamp, id) {sign} (?, ?)", (beyond.timestamp, id_bytes(beyond.id))))
        for condition, values in conditions:
            where += f" AND {condition}"
            bindings += values
        way = "DESC" if descending else "ASC"
        index = "entries_by_time" if action is None else "entries_by_action"
        if but_rest:
            shown, bindings = self._but_words, [*self._but_words_bindings, *bindings]
        else:
            shown, where, bindings = "TRUE", f"{where} AND {self._rest}", [*bindings, *self._bindings]
        return self._db.execute(
            f"SELECT timestamp, id, number, {shown} FROM entries INDEXED BY {index} WHERE {where} "
            f"ORDER BY timestamp {way}, id {way} LIMIT ? OFFSET ?",
            [*bindings, limit, offset],
        )

    def _sorted(self, limit: int, offset: int, beyond: SortKey | None, backwards: bool) -> array[int]:
        """As `numbers`: the words or the user lead to the entries."""
        source, where, bindings = self._source(by_words=self._is_rare)
        by_action = self._query.sort in ("action", "-action")
        descending = [(self._query.sort == "-action") != backwards] if by_action else []
        descending += [(self._query.sort != "timestamp") != backwards] * 2
        columns = ["action", "timestamp", "id"][-len(descending) :]
        if beyond is not None:
            last = (beyond.timestamp, id_bytes(beyond.id))
            row = f"(timestamp, id) {'<' if descending[-1] else '>'} (?, ?)"
            if by_action:
                sign = "<" if descending[0] else ">"
                # The first condition says nothing new, but is one that the index can be entered by.
                where += f" AND action {sign}= ? AND (action {sign} ? OR {row})"
                bindings += [beyond.action, beyond.action, *last]
            else:
                where += f" AND {row}"
                bindings += last
        order = ", ".join(
            f"{column} {'DESC' if down else 'ASC'}" for column, down in zip(columns, descending, strict=True)
        )
        rows = self._db.execute(
            f"SELECT number FROM {source} WHERE {where} ORDER BY {order} LIMIT ? OFFSET ?", [*bindings, limit, offset]
        )
        return array("q", (number for (number,) in rows))

    def _times(self) -> tuple[str, list[int]]:
        """The span of time that is asked for, as further conditions, and their bindings."""
        bounds = (("timestamp >= ?", self._query.start), ("timestamp < ?", self._query.end))
        given = [(condition, value) for condition, value in bounds if value is not None]
        return "".join(f" AND {condition}" for condition, _ in given), [value for _, value in given]

    def _source(self, by_words: bool) -> tuple[str, str, list[Any]]:
        """What to select from, a condition, and the bindings of both."""
        where, bindings = self._rest, [self._org, *self._bindings]
        times, limits = self._times()
        where, bindings = where + times, bindings + limits
        if by_words:
            hits = "(SELECT rowid AS hit FROM search WHERE search MATCH ?) CROSS JOIN entries ON number = hit"
            # The plus hides the organisation's index, which SQLite would go through for every hit.
            return hits, f"+org = ? AND {where}", [self._words, *bindings]
        if self._words:
            where += " AND number IN (SELECT rowid FROM search WHERE search MATCH ?)"
            bindings.append(self._words)
        source = "entries INDEXED BY entries_by_user" if self._query.user is not None else "entries"
        return source, f"org = ? AND {where}", bindings


def _together(stack: ExitStack, walks: Iterable[apsw.Cursor], descending: bool) -> Iterator[Place]:
    """Several walks, brought together in the order of time. The stack closes them."""
    opened = []
    for walk in walks:
        opened.append(walk)
        stack.callback(walk.close)
    return iter(opened[0]) if len(opened) == 1 else merge(*opened, reverse=descending)


def _match(word: Word) -> str:
    """A word of `q` as an FTS5 expression. Tokens hold no quotes."""
    if word.phrase:
        return f'"{" ".join(word.tokens)}"'
    *whole, beginning = (f'"{token}"' for token in word.tokens)
    if not whole:
        return f"{beginning}*"
    together = " AND ".join([*whole, f"{beginning}*"])
    return " OR ".join(f"{{{field}}} : ({together})" for field in SEARCH_FIELDS)
