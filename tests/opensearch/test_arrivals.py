"""Arrivals over several batches and indices: what only a store without an order of its own can get wrong."""

from __future__ import annotations

import json
import time
from collections.abc import Callable

import pytest

from audit_pipeline.errors import StoreUnavailable
from audit_pipeline.stores import Store
from audit_pipeline.stores.opensearch import arrivals, writing

from .conftest import entry
from .proxy import RESET, Exchange, Proxy


def met_after(store: Store, position: str, limit: int = 1000) -> list[str]:
    """The ids of what comes after a position."""
    met, more = [], True
    while more:
        came, position, more = store.arrivals(position, limit)
        assert came or not more
        met += [event.id for event, _ in came]
    return met


def test_an_old_position_is_not_moved_past_what_was_not_given_yet(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More entries than one answer has, all written longer ago than clocks may differ: each is met."""
    monkeypatch.setattr(arrivals, "BATCH", 10)
    monkeypatch.setattr(arrivals, "SKEW_MS", 50)
    store.append([entry()])
    position = store.arrivals(None).position
    written = [entry() for _ in range(60)]
    for first in range(0, 60, 10):
        store.append(written[first : first + 10])
    time.sleep(0.2)  # time itself is what this is about
    assert met_after(store, position, 10) == [event.id for event in written]


def test_writers_whose_batches_have_the_same_number(
    opened: Callable[..., Store], store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Together more than one answer holds: each batch is met, one after the other.

    Seen to stand still when only batches of lower numbers than the last one's were taken for whole.
    """
    monkeypatch.setattr(arrivals, "BATCH", 10)
    monkeypatch.setattr(arrivals, "MOST", 15)
    position = store.arrivals(None).position
    written = [entry() for _ in range(30)]
    for first in range(0, 30, 10):
        opened().append(written[first : first + 10])
    assert sorted(met_after(store, position, 5)) == sorted(event.id for event in written)


def test_a_large_batch_is_met_when_it_is_whole(
    far: Store, store: Store, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It goes in several requests. Broken off in the middle, nothing of it is met; sent again, all is met, once."""
    monkeypatch.setattr(writing, "REQUEST", 10)
    batch = [entry(target=str(number)) for number in range(95)]
    position = store.arrivals(None).position
    bulks = 0

    def fail(exchange: object) -> object:
        nonlocal bulks
        bulks += exchange.path.startswith("/_bulk")  # type: ignore[attr-defined]
        return RESET if bulks > 4 else None

    proxy.after_answer = fail
    with pytest.raises(StoreUnavailable):
        far.append(batch)
    store.append([entry()])  # another writer, and what it writes can be found
    assert len(met_after(store, position)) == 1
    proxy.after_answer = lambda exchange: None
    assert far.append(batch) == []
    monkeypatch.setattr(arrivals, "OVER_MS", 0)  # as if much time had passed
    met = met_after(store, position)
    assert len(met) == 96
    assert set(met) > {event.id for event in batch}
    assert len([one for one in proxy.seen if one.path.startswith("/_bulk")]) >= 4 + 10


@pytest.mark.parametrize("lost", [[0], [0, 1, 2], [1, 3]], ids=str)
def test_a_search_that_saw_a_later_batch_first_loses_none(
    far: Store, store: Store, proxy: Proxy, monkeypatch: pytest.MonkeyPatch, lost: list[int]
) -> None:
    """It was at one shard before a batch came, and at another after the next one had: what it lacks is met, too.

    Seen to be passed over for ever.
    """
    position = store.arrivals(None).position
    written = [entry(target=str(number)) for number in range(5)]
    store.append(written[:3])
    store.append(written[3:4])
    store.append(written[4:])
    hidden = {written[number].id for number in lost}
    spoilt = 0

    def spoil(exchange: Exchange) -> object:
        nonlocal spoilt
        if spoilt or "/_search" not in exchange.path:
            return None
        spoilt += 1
        answer = json.loads(exchange.answer)
        hits = answer["hits"]["hits"]
        answer["hits"]["hits"] = [hit for hit in hits if hit["_source"]["event"]["id"] not in hidden]
        assert len(answer["hits"]["hits"]) == 5 - len(lost)
        return 200, json.dumps(answer).encode()

    proxy.after_answer = spoil
    assert sorted(met_after(far, position)) == sorted(event.id for event in written)
    assert spoilt


def test_a_clock_that_is_behind_makes_no_batch_whole(
    far: Store, store: Store, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch of which a part is seen is not over since its writer's clock is some minutes behind: it is waited for."""
    now = writing.now_ms
    position = store.arrivals(None).position
    monkeypatch.setattr(writing, "now_ms", lambda: now() - 300_000)
    written = [entry(target=str(number)) for number in range(3)]
    store.append(written)
    spoilt = 0

    def spoil(exchange: Exchange) -> object:
        nonlocal spoilt
        if spoilt or "/_search" not in exchange.path:
            return None
        spoilt += 1
        answer = json.loads(exchange.answer)
        del answer["hits"]["hits"][0]
        return 200, json.dumps(answer).encode()

    proxy.after_answer = spoil
    came = far.arrivals(position)
    assert (came.entries, spoilt) == ([], 1)
    assert sorted(met_after(far, came.position)) == sorted(event.id for event in written)


def test_a_batch_that_waits_does_not_hide_what_comes_behind_it(
    opened: Callable[..., Store], store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A writer ends in the middle of its batch; a larger batch of another one, with a higher number, is met at once.

    Seen to be told "nothing yet, ask again" without end when the next request had the waiting entries in it again.
    """
    monkeypatch.setattr(arrivals, "BATCH", 10)
    monkeypatch.setattr(arrivals, "MOST", 11)
    position = store.arrivals(None).position
    broken = opened()
    monkeypatch.setattr(writing.Writer, "_next_batch", _one_more(writing.Writer._next_batch))
    broken.append([entry()])
    monkeypatch.undo()
    monkeypatch.setattr(arrivals, "BATCH", 10)
    monkeypatch.setattr(arrivals, "MOST", 11)
    other = opened()
    other.append([entry()])
    written = [entry() for _ in range(10)]
    other.append(written)
    met = met_after(store, position, 5)
    assert met[1:] == [event.id for event in written]


def _one_more(real: Callable[[writing.Writer, int], bytes]) -> Callable[[writing.Writer, int], bytes]:
    """A batch that says it has one entry more than are written."""
    return lambda writer, size: real(writer, size + 1)
