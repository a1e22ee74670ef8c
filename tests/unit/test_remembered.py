"""What the embedded store remembers of a query: answers stay exact, whatever comes or goes in between."""

from __future__ import annotations

import random
import shutil
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import apsw
import pytest

from audit_pipeline.errors import StoreUnavailable
from audit_pipeline.event import AuditEvent, uuid7
from audit_pipeline.privacy import parse_network
from audit_pipeline.query import SORTS, Query, Window, parse_words, sort_key
from audit_pipeline.stores import Store, open_store, sqlite
from audit_pipeline.stores.sqlite import remembered, selection
from audit_pipeline.stores.sqlite.remembered import Answer, Memory

from ..contract.generate import ACTIONS, NETWORKS, NOW, ORGS, USERS, WORDS, YEAR, random_entry

WORD = Query("default", words=parse_words("mail"))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the store is."""
    return tmp_path / "audit.db"


@pytest.fixture
def store(path: Path) -> Iterator[Store]:
    """A store that is asked again and again."""
    with closing(open_store(f"sqlite:///{path}")) as opened:
        yield opened


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few entries take all the ways that many take: none is rare, and of each query few rows are kept."""
    monkeypatch.setattr(selection, "RARE", 2)
    monkeypatch.setattr(selection, "READING", 0)
    monkeypatch.setattr(selection, "MOST_NEW", 30)
    monkeypatch.setattr(selection, "MOST_READ", 1500)
    monkeypatch.setattr(selection, "MOST_ROWS", 9)
    monkeypatch.setattr(remembered, "MOST_ROWS", 9)
    monkeypatch.setattr(remembered, "KEPT", 60)


def random_query(chosen: random.Random, org: str) -> Query:
    """A query of words, a user or a network, with or without other filters."""
    texts = ("mail", "exam", "-mail", "mail -exam", '"mail"', "a", "é -a", chosen.choice(WORDS), "-" + WORDS[0])
    return Query(
        org,
        words=parse_words(chosen.choice(texts)) if chosen.random() < 0.7 else (),
        actions=frozenset(chosen.sample(ACTIONS, chosen.choice((0, 0, 2)))),
        start=chosen.choice((None, None, NOW - 1500)),
        end=chosen.choice((None, None, NOW - 200)),
        user=chosen.choice((None, None, chosen.choice(USERS[1:]))),
        outcome=chosen.choice((None, None, "failure")),
        network=chosen.choice((None, None, parse_network(chosen.choice(NETWORKS)))),
        sort=chosen.choice(SORTS),
    )


def pages(chosen: random.Random, store: Store, query: Query) -> list[tuple[Window, object]]:
    """First pages, a jump, and what lies on either side of an entry."""
    windows = [Window(chosen.choice((1, 3, 5, 8, 9))) for _ in "ab"] + [Window(3, offset=chosen.randrange(40))]
    if rows := store.search(query, Window(200)).items:
        key = sort_key(chosen.choice(rows))
        windows += [Window(3, offset=3, after=key), Window(3, offset=3, before=key)]
    return [(window, store.search(query, window)) for window in windows]


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("seed", range(6))
def test_answers_are_those_of_a_store_that_remembers_nothing(path: Path, store: Store, seed: int) -> None:
    """Entries come early and late, few and many, of two organisations; each query is asked again each time."""
    chosen = random.Random(seed)
    orgs = ORGS if seed % 2 else ORGS[:1]
    queries = [random_query(chosen, chosen.choice(orgs)) for _ in range(25)]
    with closing(open_store("memory://")) as oracle:
        for number in (1, 0, 5, 80, 3, 12, 0, 14, 1):
            made = [replace(random_entry(chosen), org=chosen.choice(orgs)) for _ in range(number)]
            assert store.append(made) == oracle.append(made) == []
            for query in (*queries, *queries):
                state = chosen.getstate()
                expected = pages(chosen, oracle, query)
                chosen.setstate(state)
                assert pages(chosen, store, query) == expected, query


def _entries(number: int, *, text: str = "mail", ago: int = 0) -> list[AuditEvent]:
    chosen = random.Random(f"{number} {text} {ago}")
    return [
        replace(random_entry(chosen), org="default", detail=text, target="", user="", timestamp=NOW - ago - place)
        for place in range(number)
    ]


@pytest.mark.parametrize("gone", ["number = 3", "number % 5 = 0", "number > 28", "TRUE"])
def test_what_somebody_deletes_is_counted_no_more(path: Path, store: Store, gone: str) -> None:
    """An answer is forgotten when an entry of it is gone, and the entries that take its number are others."""
    for some in (_entries(30), _entries(4, text="other"), _entries(5, text="mail more", ago=YEAR)):
        store.append(some)
        assert store.search(WORD, Window(10)).total == store.search(WORD, Window(10)).total
    with closing(apsw.Connection(str(path))) as db:
        left: int = db.execute(f"SELECT count(*) FROM entries WHERE NOT ({gone}) AND number NOT BETWEEN 31 AND 34").get
        numbers = db.execute(f"SELECT number FROM entries WHERE {gone}").fetchall()
        for table in ("contents", "entries"):
            db.executemany(f"DELETE FROM {table} WHERE number = ?", numbers)
    assert store.search(WORD, Window(10)).total == left
    assert len(store.search(WORD, Window(100)).items) == left


def test_a_file_that_takes_the_place_of_another_gives_its_own_answers(path: Path, store: Store) -> None:
    """Those of an older copy, of the copy with other entries, and of a longer one."""
    store.append(_entries(30))
    assert store.search(WORD, Window(5)).total == 30
    store.close()
    older, longer = path.with_name("older.db"), path.with_name("longer.db")
    shutil.copy(path, older)
    store.append(_entries(6, ago=99))
    assert store.search(WORD, Window(5)).total == 36
    store.close()
    shutil.copy(path, longer)
    older.replace(path)
    assert store.search(WORD, Window(5)).total == 30
    store.append(_entries(6, text="other", ago=99))
    assert store.search(WORD, Window(5)).total == 30
    store.close()
    longer.replace(path)
    assert store.search(WORD, Window(5)).total == 36


def test_nothing_is_looked_for_again_that_was_found_before(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Asked again, a query reads the entries that came since, and no other; after too many, it is counted anew."""
    read: list[int] = []
    counted: list[str] = []
    content_of, counted_up = selection.content_of, selection.Selection._counted_up

    def note_content(db: apsw.Connection, number: int) -> selection.Content:
        read.append(number)
        return content_of(db, number)

    def note_count(self: selection.Selection) -> int:
        counted.append("once")
        return counted_up(self)

    monkeypatch.setattr(selection, "RARE", 2)
    monkeypatch.setattr(selection, "content_of", note_content)
    monkeypatch.setattr(selection.Selection, "_counted_up", note_count)
    monkeypatch.setattr(selection, "MOST_NEW", 10)
    store.append(_entries(50))
    store.search(WORD, Window(5))
    store.append(_entries(4, text="other", ago=7) + _entries(6, ago=99))
    read.clear()
    page = store.search(WORD, Window(5))
    assert (page.total, read, counted) == (56, list(range(51, 61)), ["once"])
    read.clear()
    assert store.search(WORD, Window(5)) == page
    assert (read, counted) == ([], ["once"])
    store.append(_entries(11, ago=1999))
    assert store.search(WORD, Window(5)).total == 67
    assert counted == ["once"] * 2


@pytest.mark.usefixtures("small")
def test_entries_are_looked_at_in_order_until_that_takes_too_long(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the first matches lie behind many others, their words lead to them after all."""
    sorted_by_words = []
    by_words = selection.Selection._sorted

    def note(self: selection.Selection, limit: int, *rest: object) -> object:
        sorted_by_words.append(limit)
        return by_words(self, limit, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(selection.Selection, "_sorted", note)
    store.append(_entries(60, ago=YEAR))
    assert [row.detail for row in store.search(WORD, Window(4)).items] == ["mail"] * 4
    assert sorted_by_words == []
    store.append(_entries(90, text="other"))
    another = replace(WORD, words=parse_words("mail -zephyr"))  # of which nothing is known
    page = store.search(another, Window(4))
    assert (page.total, [row.detail for row in page.items]) == (60, ["mail"] * 4)
    assert sorted_by_words == [5]


def test_few_queries_are_kept() -> None:
    """What is asked by anybody does not fill the memory."""
    memory = Memory()
    for number in range(3 * remembered.KEPT):
        memory.put(replace(WORD, user=str(number)), Answer(number, (), 1, b"", 1))
    kept = [memory.get(replace(WORD, user=str(number))) for number in range(3 * remembered.KEPT)]
    assert 1 <= sum(one is not None for one in kept) <= remembered.KEPT


def test_who_asks_the_same_at_once_waits_for_the_first(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twenty threads count once; who waits for too long gives up; what nothing is kept of is asked side by side."""
    counted: list[Query] = []
    counted_up = selection.Selection._counted_up

    def slowly(self: selection.Selection) -> int:
        counted.append(self._query)
        time.sleep(0.2)
        return counted_up(self)

    store.append(_entries(30))
    monkeypatch.setattr(selection.Selection, "_counted_up", slowly)
    with ThreadPoolExecutor(20) as pool:
        begin = time.monotonic()
        found = list(pool.map(lambda _: store.search(WORD, Window(5)), range(20)))
        assert (counted, len({page.total for page in found})) == ([WORD], 1)
        assert time.monotonic() - begin < 2
        counted.clear()
        list(pool.map(lambda _: store.search(Query("default"), Window(5)), range(20)))  # nothing is kept of this one
        assert len(counted) == 20
        monkeypatch.setattr(sqlite, "QUERY_S", 0.05)
        other = replace(WORD, user="bob")
        first = pool.submit(store.search, other, Window(5))
        while other not in counted:
            time.sleep(0.005)
        with pytest.raises(StoreUnavailable, match="given up; ask for less at once"):
            store.search(other, Window(5))
        assert first.result() == store.search(other, Window(5))


def test_pages_of_one_search_are_read_side_by_side(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only its counting is waited for: pages that take long fail nobody."""
    numbers = selection.Selection.numbers

    def slowly(self: selection.Selection, limit: int, offset: int = 0, **more: Any) -> Any:
        time.sleep(0.5)
        return numbers(self, limit, offset, **more)

    store.append(_entries(30))
    monkeypatch.setattr(selection.Selection, "numbers", slowly)
    monkeypatch.setattr(sqlite, "QUERY_S", 2.5)
    with ThreadPoolExecutor(10) as pool:
        pages = list(pool.map(lambda place: store.search(WORD, Window(2, offset=place)), range(10)))
    assert [(page.total, len(page.items)) for page in pages] == [(30, 2)] * 10


def test_an_answer_that_is_outdated_is_found_once_too(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where more came than is looked at, twenty threads count once."""
    monkeypatch.setattr(selection, "MOST_NEW", 3)
    counted = []
    counted_up = selection.Selection._counted_up

    def slowly(self: selection.Selection) -> int:
        counted.append(1)
        time.sleep(0.3)
        return counted_up(self)

    monkeypatch.setattr(selection.Selection, "_counted_up", slowly)
    for number in (30, 35):
        store.append(_entries(number, ago=number * 100))
        with ThreadPoolExecutor(20) as pool:
            found = list(pool.map(lambda _: store.search(WORD, Window(5)), range(20)))
        assert {page.total for page in found} == {30 if number == 30 else 65}
    assert len(counted) == 2


def test_a_copy_in_another_order_takes_the_place_of_a_file(path: Path, store: Store) -> None:
    """Its entries have other numbers, but for the last; what was remembered of the older file is not shown."""
    made = [*_entries(3, text="mail", ago=YEAR), *_entries(3, text="noise", ago=YEAR), *_entries(1, text="noise")]
    made = [replace(entry, id=uuid7(NOW + place, place)) for place, entry in enumerate(made)]
    store.append(made)
    before = store.search(WORD, Window(2))
    other = path.with_name("copy.db")
    with closing(open_store(f"sqlite:///{other}")) as copy:
        copy.append([*reversed(made[:-1]), made[-1]])
    other.replace(path)
    for suffix in ("-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    assert store.search(WORD, Window(2)) == before


@pytest.mark.usefixtures("small")
def test_long_entries_are_not_read_in_search_of_words(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither where first matches are looked for nor where many bytes came since: the index of the words has them."""
    read: list[bytes] = []
    has_words = selection.Selection._has_words

    def note(self: selection.Selection, content: selection.Content) -> bool:
        read.append(content[0])
        return has_words(self, content)

    monkeypatch.setattr(selection, "READING", 40)
    monkeypatch.setattr(selection.Selection, "_has_words", note)
    store.append(_entries(600, ago=YEAR))
    query = replace(WORD, words=parse_words("mail -zephyr"))
    assert len(store.search(query, Window(2)).items) == 2
    assert 0 < len(read) <= 3
    read.clear()
    store.append(_entries(10, text="x" * 7_000))
    assert store.search(query, Window(2)).total == 600
    assert store.search(replace(query, sort="timestamp", words=parse_words("mail -sephyr")), Window(2)).total == 600
    assert store.search(replace(query, words=parse_words("mail -tephyr")), Window(2)).total == 600
    assert max(map(len, read), default=0) < 2_000
    assert store.search(replace(WORD, words=parse_words("mail zephyr")), Window(2)).total == 0
    read.clear()
    store.append(_entries(3, text="mail zephyr", ago=3))
    rare = replace(WORD, words=parse_words("mail zephyr"))
    assert (store.search(rare, Window(2)).total, read) == (3, [])  # few have them: their index is quicker
