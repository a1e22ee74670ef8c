"""Pages, counts and exports over many indices, and over a network and an engine that fail in between."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import closing
from itertools import product

import pytest

from audit_pipeline.errors import StoreError, StoreUnavailable
from audit_pipeline.event import now_ms
from audit_pipeline.query import SORTS, Query, Window, sort_key
from audit_pipeline.stores import Store, open_store
from audit_pipeline.stores.opensearch import engine, reading

from ..engine import Cluster
from .conftest import entry
from .proxy import CUT, RESET, Exchange, Proxy

ALL = Query("default")
DAY_S = 86_400


def scrolls(opensearch: Cluster) -> int:
    """How many scrolls the engine keeps open."""
    stats = opensearch.call("GET", "/_nodes/stats/indices/search")
    return sum(node["indices"]["search"]["scroll_current"] for node in stats["nodes"].values())


def many(store: Store, number: int = 2500) -> list[str]:
    """So many entries over four months, as ids from the newest to the oldest."""
    now = now_ms() / 1000
    events = [entry(timestamp=now - place * 120 * DAY_S / number, target=str(place)) for place in range(number)]
    for first in range(0, number, 500):
        assert store.append(events[first : first + 500]) == []
    return [event.id for event in events]


def test_pages_go_over_the_border_of_indices(store: Store, opensearch: Cluster, index: str) -> None:
    """A page with entries of two months, and walks and jumps over several, are as of one list."""
    expected = many(store, 400)
    assert len(opensearch.call("GET", f"/_resolve/index/{index}-*")["indices"]) >= 4
    for sort, ids in (("-timestamp", expected), ("timestamp", expected[::-1])):
        query = Query("default", sort=sort)
        met: list[str] = []
        window = Window(33)
        while True:
            page = store.search(query, window)
            assert page.total == 400
            met += [event.id for event in page.items]
            if not page.has_next:
                break
            window = Window(33, after=sort_key(page.items[-1]))
        assert met == ids
        for offset in range(0, 400, 50):
            assert [event.id for event in store.search(query, Window(50, offset)).items] == ids[offset : offset + 50]


def test_an_index_that_is_deleted_between_two_pages(store: Store, opensearch: Cluster, index: str) -> None:
    """Retention in the middle of a walk: what is left comes in order, once each, and totals say what is there."""
    expected = many(store, 200)
    page = store.search(ALL, Window(60))
    months = sorted(one["name"] for one in opensearch.call("GET", f"/_resolve/index/{index}-*")["indices"])
    opensearch.call("DELETE", f"/{months[-2]}")
    left = {event.id for event in store.search(ALL, Window(1000)).items}
    assert len(left) < 200
    met = [event.id for event in page.items]
    while page.has_next:
        page = store.search(ALL, Window(60, after=sort_key(page.items[-1])))
        met += [event.id for event in page.items]
        assert page.total == len(left)
        assert page.has_previous
    assert met[60:] == [event_id for event_id in expected[60:] if event_id in left]
    for month in months:
        opensearch.call("DELETE", f"/{month}?ignore_unavailable=true")
    assert store.search(ALL, Window(60)).total == 0
    assert store.get("default", expected[0]) is None


@pytest.mark.parametrize("sort", SORTS)
def test_first_pages_that_were_read_before(
    store: Store, opensearch: Cluster, index: str, sort: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where they ended is remembered; what comes, early or late, and what is deleted, shows as if it were not."""
    monkeypatch.setattr(reading, "KEPT_ENDS", 5)
    actions = ("user.created", "domain.created", "alias.created")
    now = now_ms() / 1000
    queries = [Query("default", sort=sort), Query("default", actions=frozenset(actions[:1]), sort=sort)]

    def same() -> int:
        with closing(open_store(opensearch.url(index))) as fresh:
            for query, size in product(queries, (3, 10)):
                known, asked = (each.search(query, Window(size)) for each in (store, fresh))
                assert (known.items, known.total, known.has_next) == (asked.items, asked.total, asked.has_next)
        return known.total

    for days in ((100, 70, 40, 10, 100, 70), (1, 0, 130), (55,)):
        made = [
            entry(timestamp=now - day * DAY_S - place, action=action)
            for day in days
            for place, action in enumerate(actions)
        ]
        assert store.append(made) == []
        assert same() == same() > 0
    for month in sorted(one["name"] for one in opensearch.call("GET", f"/_resolve/index/{index}-*")["indices"]):
        opensearch.call("DELETE", f"/{month}?ignore_unavailable=true")
        same()
    assert same() == 0


@pytest.mark.parametrize("sort", SORTS)
def test_any_page_can_be_jumped_to(store: Store, sort: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """However deep a page lies, it is the one that walking there would show."""
    monkeypatch.setattr(reading, "SHALLOW", 3)
    monkeypatch.setattr(reading, "MOST_SKIPPED", 7)
    now = now_ms()
    # Several in a day, in a minute, in a second, and many in one millisecond.
    offsets = (
        [0] * 60 + [1, 2, 2, 900, 1500, 61_000, 61_001, 3_600_000] * 6 + [place * 86_400_123 for place in range(60)]
    )
    names = ("user.created", "domain.created", "domain.deleted")
    store.append([entry(names[place % 3], timestamp=(now - offset) / 1000) for place, offset in enumerate(offsets)])
    query = Query("default", sort=sort, categories=frozenset(("users", "domains")))
    whole = store.search(query, Window(1000)).items
    assert len(whole) == len(offsets)
    for offset in range(len(whole)):
        page = store.search(query, Window(10, offset))
        assert page.items == whole[offset : offset + 10], offset
        assert (page.total, page.has_previous, page.has_next) == (
            len(whole),
            offset > 0,
            offset + 10 < len(whole),
        )
    for offset in (len(whole), len(whole) + 1, 10**18):
        assert store.search(query, Window(10, offset)).items == ()


def test_pages_are_not_skipped_through(far: Store, store: Store, proxy: Proxy) -> None:
    """No request asks the engine to skip more rows than it does at once, however deep the page lies."""
    many(store)
    for offset in (2400, 2410):  # half a day apart: one of them may be a day's first
        assert len(far.search(ALL, Window(25, offset)).items) == 25
    sent = b"".join(exchange.body + b"\n" for exchange in proxy.seen if "search" in exchange.path)
    bodies = [json.loads(line) for line in sent.splitlines() if line]
    assert any(body.get("from", 0) > 0 for body in bodies)
    assert max(body.get("from", 0) for body in bodies) <= reading.SHALLOW
    assert not any("scroll" in exchange.path or "point_in_time" in exchange.path for exchange in proxy.seen)


def test_an_index_that_goes_in_the_middle_of_a_search_is_no_empty_log(far: Store, store: Store, proxy: Proxy) -> None:
    """The engine fails such a search with 404, as it does where there is no index at all; it is asked again."""
    expected = many(store, 30)
    gone = {"error": {"type": "search_phase_execution_exception"}, "status": 404}
    spoilt: list[str] = []

    def once(exchange: Exchange) -> object:
        path = exchange.path.partition("?")[0]
        if path in spoilt:
            return None
        spoilt.append(path)
        if path != "/_msearch":
            return 404, json.dumps(gone).encode()
        answer = json.loads(exchange.answer)
        answer["responses"][0] = gone
        return 200, json.dumps(answer).encode()

    proxy.after_answer = once
    for ask in (
        lambda: [event.id for event in far.search(ALL, Window(50)).items],
        lambda: [event.id for batch in far.snapshot(ALL, 50).batches() for event in batch],
    ):
        spoilt.clear()
        assert ask() == expected
        assert spoilt
    spoilt.clear()
    assert sum(far.histogram(ALL, [0, 2**42])[0].values()) == 30
    spoilt.clear()
    assert far.organisations() == ["default"]


def test_a_part_is_never_taken_for_the_whole(
    far: Store, store: Store, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An answer of which a shard failed, or that ran out of time, is an error, and no shorter page."""
    monkeypatch.setattr(engine, "PAUSES_S", (0.01,) * len(engine.PAUSES_S))  # it asks as often, and waits less
    many(store, 30)

    def spoiled(**change: object) -> Callable[[Exchange], object]:
        def spoil(exchange: Exchange) -> object:
            answer = json.loads(exchange.answer)
            *_, last = answer.get("responses", [answer])  # of several, one is enough
            last.update(change)
            return 200 if "responses" in answer else change.get("status", 200), json.dumps(answer).encode()

        return spoil

    for fault in (
        spoiled(timed_out=True),
        spoiled(_shards={"total": 2, "successful": 1, "failed": 1}),
        spoiled(status=503, error={"type": "no_shard_available_action_exception"}),
        spoiled(status=500, error="text"),
        spoiled(status=404, error={"type": "search_phase_execution_exception"}),
        lambda exchange: (404, b'{"error":{"type":"search_phase_execution_exception"},"status":404}'),
        lambda exchange: (404, b'{"error":"no such route"}'),
        lambda exchange: (200, b'{"responses":[]}'),
        lambda exchange: (200, b'{"responses":null}'),
        lambda exchange: (503, b'{"error":{"type":"search_phase_execution_exception"}}'),
        lambda exchange: RESET,
    ):
        proxy.after_answer = fault
        for ask in (
            lambda: far.search(ALL, Window(10)),
            lambda: far.search(ALL, Window(10, 5)),
            lambda: far.snapshot(ALL, 10),
            far.organisations,
        ):
            with pytest.raises(StoreUnavailable):
                ask()
    proxy.after_answer = lambda exchange: None
    assert far.search(ALL, Window(10)).total == 30
    asked = [one.path for one in proxy.seen if "/_search?" in one.path]
    assert all("allow_partial_search_results=false" in path for path in asked)
    assert all("cancel_after_time_interval=20s" in path for path in asked)
    pages = [one for one in proxy.seen if "/_msearch?" in one.path]
    assert all("max_concurrent_searches=1" in one.path for one in pages)  # the total is counted after the rows
    headers = [json.loads(line) for one in pages for line in one.body.splitlines()[::2]]
    assert all(header["allow_partial_search_results"] == "false" for header in headers)
    assert all(header["cancel_after_time_interval"] == "20s" for header in headers)
    assert len(asked) > 4
    assert len(pages) > 4


def test_a_closed_index_is_an_error(store: Store, opensearch: Cluster, index: str) -> None:
    """Where a month was closed by hand, nothing is answered without it."""
    many(store, 100)
    months = sorted(one["name"] for one in opensearch.call("GET", f"/_resolve/index/{index}-*")["indices"])
    opensearch.call("POST", f"/{months[1]}/_close")
    for ask in (
        lambda: store.search(ALL, Window(10)),
        lambda: store.search(ALL, Window(10, 50)),
        lambda: store.snapshot(ALL, 10),
        store.organisations,
        store.check,
    ):
        with pytest.raises(StoreUnavailable, match="an index is closed"):
            ask()
    opensearch.call("POST", f"/{months[1]}/_open?wait_for_active_shards=1")
    assert store.search(ALL, Window(10)).total == 100


def test_scrolls_are_freed(store: Store, opensearch: Cluster) -> None:
    """Read to the end, left in the middle, or never begun: closing an export frees it at once."""
    expected = many(store)
    before = scrolls(opensearch)
    for take in (0, 1, 3, 99):
        snapshot = store.snapshot(ALL, 2300)
        assert scrolls(opensearch) > before
        ids: list[str] = []
        for place, batch in enumerate(snapshot.batches(700)):
            if place == take:
                break
            ids += [event.id for event in batch]
        assert ids == expected[: min(700 * take, 2300)]
        snapshot.close()
        snapshot.close()
        assert scrolls(opensearch) == before
        if take < 4:
            with pytest.raises(StoreError, match="closed"):
                list(snapshot.batches(5000))


def test_a_scroll_is_freed_when_a_page_of_it_fails(far: Store, store: Store, proxy: Proxy, opensearch: Cluster) -> None:
    """An export that breaks in the middle raises, and what the engine holds for it is freed by closing it."""
    many(store)
    before = scrolls(opensearch)

    def fault(exchange: Exchange) -> object:
        if exchange.path.startswith("/_search/scroll") and exchange.method == "POST":
            return 200, json.dumps(json.loads(exchange.answer) | {"timed_out": True}).encode()
        return None

    proxy.after_answer = fault
    with closing(far.snapshot(ALL, 2500)) as snapshot, pytest.raises(StoreUnavailable):
        list(snapshot.batches(1000))
    assert scrolls(opensearch) == before


@pytest.mark.parametrize("fault", [CUT, RESET])
def test_a_page_of_an_export_is_never_passed_over(far: Store, store: Store, proxy: Proxy, fault: object) -> None:
    """Where an answer with a page is lost on its way, the export breaks: asked again, the engine gives the next one."""
    many(store)
    faults = [fault]
    proxy.after_answer = lambda exchange: (
        faults.pop() if exchange.path.startswith("/_search/scroll") and exchange.method == "POST" and faults else None
    )
    with closing(far.snapshot(ALL, 2000)) as snapshot, pytest.raises(StoreUnavailable):
        list(snapshot.batches(500))
    assert faults == []
    with closing(far.snapshot(ALL, 2000)) as snapshot:
        assert sum(map(len, snapshot.batches(500))) == 2000


def test_an_export_that_is_opened_over_a_bad_network_leaves_no_scroll(
    far: Store, store: Store, proxy: Proxy, opensearch: Cluster
) -> None:
    """Where the first answer is lost, nothing is opened a second time behind the back of whoever closes it."""
    many(store)
    before = scrolls(opensearch)
    proxy.after_answer = lambda exchange: RESET if "scroll=" in exchange.path else None
    with pytest.raises(StoreUnavailable):
        far.snapshot(ALL, 2500)
    proxy.after_answer = lambda exchange: None
    opened = [exchange for exchange in proxy.seen if "scroll=" in exchange.path]
    assert len(opened) == 1
    opensearch.call("DELETE", "/_search/scroll/_all")
    assert before == 0


def test_what_was_read_whole_is_not_broken_by_its_freeing(far: Store, store: Store, proxy: Proxy) -> None:
    """Where a scroll cannot be freed, the export that was read from it stands: the engine frees it by itself."""
    many(store, 700)
    proxy.before_sending = lambda exchange: (429, b"{}") if exchange.method == "DELETE" else None
    with closing(far.snapshot(ALL, 1000)) as snapshot:
        assert sum(map(len, snapshot.batches())) == 700


def test_small_exports_hold_nothing(store: Store, opensearch: Cluster) -> None:
    """What came whole with the first answer is freed before it is read."""
    store.append([entry() for _ in range(30)])
    before = scrolls(opensearch)
    for limit in (1, 30, 1000):
        with closing(store.snapshot(ALL, limit)) as snapshot:
            assert scrolls(opensearch) == before
            assert sum(map(len, snapshot.batches())) == min(limit, 30)


def test_a_scroll_that_the_engine_gave_up_breaks_the_export(store: Store, opensearch: Cluster) -> None:
    """Where the engine no longer knows a scroll, the export ends with an error, and never early."""
    many(store)
    with closing(store.snapshot(ALL, 2500)) as snapshot:
        batches = snapshot.batches(1000)
        assert len(next(batches)) == 1000
        opensearch.call("DELETE", "/_search/scroll/_all")
        with pytest.raises(StoreUnavailable, match="start it again"):
            list(batches)


def test_a_scroll_that_a_part_of_the_indices_gave_up_breaks_the_export(far: Store, store: Store, proxy: Proxy) -> None:
    """The same, where a node left that had some of the indices: going on would leave out what they have."""
    many(store)

    def fault(exchange: Exchange) -> object:
        answer = json.loads(exchange.answer)
        if exchange.path.startswith("/_search/scroll") and exchange.method == "POST":
            gone = {"shard": -1, "reason": {"type": "search_context_missing_exception", "reason": "10.0.0.5"}}
            answer["_shards"] |= {"failed": 1, "failures": [gone]}
            return 200, json.dumps(answer).encode()
        return None

    proxy.after_answer = fault
    said = r"up \(search_context_missing_exception\); start it again"
    with closing(far.snapshot(ALL, 2500)) as snapshot, pytest.raises(StoreUnavailable, match=said):
        list(snapshot.batches(1000))


def test_an_export_of_a_snapshot_ends_with_its_total(far: Store, store: Store, proxy: Proxy) -> None:
    """Where the engine gives fewer entries than it counted, the export breaks."""
    many(store)

    def fault(exchange: Exchange) -> object:
        answer = json.loads(exchange.answer)
        if exchange.path.startswith("/_search/scroll") and exchange.method == "POST":
            answer["hits"]["hits"] = []
            return 200, json.dumps(answer).encode()
        return None

    proxy.after_answer = fault
    with closing(far.snapshot(ALL, 2500)) as snapshot, pytest.raises(StoreUnavailable, match="fewer entries"):
        list(snapshot.batches(1000))


def test_a_foreign_document_is_an_error(store: Store, opensearch: Cluster, index: str) -> None:
    """A document that is no entry, put there by hand, is said to be one; nothing is left out silently."""
    store.append([entry()])
    body = {"organization": {"id": "default"}, "@timestamp": "2026-11-23T00:00:00Z", "event": {"id": "x"}}
    opensearch.call("POST", f"/{index}-2026.11/_doc?refresh=true", body)
    with pytest.raises(StoreError, match="no audit entry"):
        store.search(ALL, Window(10))
