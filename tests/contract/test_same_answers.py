"""Every store is held to `memory`: same ids, same order, same totals."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from audit_pipeline.query import Query, Window, sort_key
from audit_pipeline.stores import Store, open_store

from ..places import new_store_url
from .conftest import ORACLE
from .generate import HOUR, NOW, ORGS, entries, queries, random_entry

LOOSE = {"deadline": None, "suppress_health_check": list(HealthCheck)}


@contextmanager
def pair(engine: str) -> Iterator[tuple[Store, Store]]:
    """A new store, and a new oracle beside it."""
    with tempfile.TemporaryDirectory() as folder:
        stores = [open_store(new_store_url(name, Path(folder))) for name in (engine, ORACLE)]
        for store in stores:
            store.setup()
        try:
            yield stores[0], stores[1]
        finally:
            for store in stores:
                store.close()


def agree(store: Store, oracle: Store, query: Query, window: Window) -> None:
    """Both give the same page."""
    ours, expected = store.search(query, window), oracle.search(query, window)
    assert [event.id for event in ours.items] == [event.id for event in expected.items], (query, window)
    assert ours == expected, (query, window)


@given(data=st.data())
@settings(max_examples=80, **LOOSE)  # type: ignore[arg-type]
def test_generated_queries_over_generated_entries(engine: str, data: st.DataObject) -> None:
    """Whatever is stored and asked: the same page, the same total, the same refusals."""
    with pair(engine) as (store, oracle):
        for batch in data.draw(st.lists(st.lists(entries, max_size=12), min_size=1, max_size=3)):
            refused = [sorted(one.event.to_bytes() for one in each.append(batch)) for each in (store, oracle)]
            assert refused[0] == refused[1]
        for query in data.draw(st.lists(queries(), min_size=6, max_size=12)):
            size = data.draw(st.sampled_from((1, 3, 10, 25)))
            agree(store, oracle, query, Window(size, data.draw(st.integers(0, 20))))
            edges = data.draw(st.lists(st.integers(NOW - 8 * HOUR, NOW + HOUR), max_size=8, unique=True).map(sorted))
            assert store.histogram(query, edges) == oracle.histogram(query, edges), (query, edges)
            whole = oracle.search(query, Window(1000)).items
            if whole:
                key = sort_key(data.draw(st.sampled_from(whole)))
                agree(store, oracle, query, Window(size, after=key))
                agree(store, oracle, query, Window(size, before=key))


@given(data=st.data())
@settings(max_examples=40, **LOOSE)  # type: ignore[arg-type]
def test_walks_with_writes_between_the_pages(engine: str, data: st.DataObject) -> None:
    """Walking on and back by keys, with entries arriving between the pages, both stores show the same pages."""
    with pair(engine) as (store, oracle):
        first = data.draw(st.lists(entries, min_size=1, max_size=25))
        for each in (store, oracle):
            each.append(first)
        query = data.draw(queries())
        size = data.draw(st.integers(1, 6))
        existing = [event.id for event in oracle.search(query, Window(1000)).items]
        met: list[str] = []
        window = Window(size)
        while True:
            agree(store, oracle, query, window)
            page = store.search(query, window)
            met += [event.id for event in page.items]
            if page.items:
                agree(store, oracle, query, Window(size, before=sort_key(page.items[0])))
            if not page.has_next:
                break
            window = Window(size, after=sort_key(page.items[-1]))
            late = data.draw(st.lists(entries, max_size=4))
            for each in (store, oracle):
                each.append(late)
        assert len(met) == len(set(met))
        assert set(existing) <= set(met)


@given(data=st.data())
@settings(max_examples=30, **LOOSE)  # type: ignore[arg-type]
def test_snapshots(engine: str, data: st.DataObject) -> None:
    """An export has the same rows in the same order from every store."""
    with pair(engine) as (store, oracle):
        made = data.draw(st.lists(entries, max_size=30))
        for each in (store, oracle):
            each.append(made)
        query, limit = data.draw(queries()), data.draw(st.integers(1, 40))
        with closing(store.snapshot(query, limit)) as ours, closing(oracle.snapshot(query, limit)) as expected:
            assert ours.total == expected.total
            assert [e.id for b in ours.batches(7) for e in b] == [e.id for b in expected.batches(7) for e in b]


def test_three_hundred_queries_over_many_entries(engine: str) -> None:
    """A large, fixed lot: 300 queries over 20,000 entries of mixed alphabets give the same ids, order and totals."""
    chosen = random.Random(1)
    lot = [random_entry(chosen) for _ in range(20_000)]
    asked = 0
    with pair(engine) as (store, oracle):
        for each in (store, oracle):
            for first in range(0, len(lot), 5000):
                assert each.append(lot[first : first + 5000]) == []
        for org in ORGS:
            assert store.search(Query(org), Window(1)).total > 8000

        @seed(2)
        @settings(max_examples=330, database=None, phases=[Phase.generate], **LOOSE)  # type: ignore[arg-type]
        @given(query=queries(), size=st.sampled_from((10, 25, 100)), offset=st.sampled_from((0, 0, 25, 1000, 5000)))
        def ask(query: Query, size: int, offset: int) -> None:
            nonlocal asked
            asked += 1
            agree(store, oracle, query, Window(size, offset))

        ask()
    assert asked >= 300
