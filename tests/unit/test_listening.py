"""The hub: one poll for all listeners, and each hears what it asked for exactly once, however it comes and goes."""

from __future__ import annotations

import asyncio
import json
import random
import threading
from collections.abc import Awaitable, Callable
from contextlib import closing
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from audit_pipeline import AuditEvent, StoreUnavailable, listening
from audit_pipeline.actions import catalogue
from audit_pipeline.event import IdFactory
from audit_pipeline.listening import Hub, Listener
from audit_pipeline.normalize import build_event
from audit_pipeline.query import Query, ResumePoint, parse_query
from audit_pipeline.stores import Arrival, Arrivals, open_store
from audit_pipeline.stores.memory import MemoryStore

IDS = IdFactory()
ALL = Query("default")


def entry(target: str, **given: Any) -> AuditEvent:
    """An entry as an application makes it."""
    return build_event(catalogue["domain.created"], {"target": target, **given}, IDS)


class Disordered(MemoryStore):
    """Gives each who begins anew an order of his own, as a store may; a position is the set of what was given.

    Counts the requests, and fails while it is `down`.
    """

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0
        self.down = False
        self._began = 0

    def arrivals(self, position: str | None, limit: int = 1000) -> Arrivals:
        self.asked += 1
        if self.down:
            raise StoreUnavailable("it is down")
        with self._lock:
            entries = [one.event for one in self._entries.values()]
            if position is None:
                self._began += 1
                return Arrivals((), json.dumps([self._began, *range(len(entries))]))
        try:
            began, *passed = json.loads(position)
        except ValueError:
            raise ValueError("no position of this store") from None
        there = set(passed)
        left = [number for number in range(len(entries)) if number not in there]
        left.sort(key=lambda number: sha256(f"{began} {number}".encode()).digest())
        found = []
        for number in left[:limit]:
            passed.append(number)
            found.append(Arrival(entries[number], json.dumps([began, *passed])))
        return Arrivals(found, json.dumps([began, *passed]), more=len(left) > limit)


def together(work: Callable[[], Awaitable[None]]) -> None:
    """Run what a test does, in one event loop."""

    async def run() -> None:
        await asyncio.wait_for(work(), 60)

    asyncio.run(run())


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Disordered:
    """A store that is asked often, so that tests are short."""
    monkeypatch.setattr(listening, "POLL_S", 0.01)
    monkeypatch.setattr(listening, "RETRY_S", 0.05)
    return Disordered()


async def hear(listener: Listener, *, until: str) -> list[str]:
    """The targets of what a listener hears, up to one of them."""
    targets: list[str] = []
    while until not in targets:
        assert not listener.ended
        targets += [heard.entry.event.target for heard in await listener.next(5)]
    return targets


async def following(hub: Hub, listener: Listener) -> None:
    """Let a listener catch up until it follows the hub."""
    while not listener._follows:
        assert await listener.next(0.01) == []


@pytest.mark.parametrize("seed", range(6))
def test_each_entry_is_heard_once_by_listeners_that_come_and_go(
    store: Disordered, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """Cut at any entry, resumed at either of two hubs, slow or quick, while others write: none is lost or repeated."""
    monkeypatch.setattr(listening, "BATCH", 20)
    monkeypatch.setattr(listening, "WAITING", 30)
    monkeypatch.setattr(listening, "AT_ONCE", 3)
    number, chance = 500, random.Random(seed)
    hubs = [Hub(lambda: store) for _ in range(2)]
    ready, met_all = asyncio.Barrier(13), asyncio.Barrier(13)
    joined = 0

    async def listen() -> None:
        nonlocal joined
        met: list[str] = []
        point: ResumePoint | None = None
        while len(met) < number:
            async with chance.choice(hubs).listen(ALL, point) as listener:
                if point is None:
                    await ready.wait()
                point = listener.point
                for _ in range(chance.randrange(1, 60)):
                    heard = await listener.next(0.02)
                    kept = heard[: chance.randrange(len(heard) + 1)] if chance.random() < 0.05 else heard
                    met += [one.entry.event.target for one in kept]
                    point = kept[-1].point if kept else point if heard else listener.point
                    if chance.random() < 0.1:
                        await asyncio.sleep(chance.random() / 50)
                    if kept != heard or len(met) >= number:
                        break
                joined += listener._follows
        assert sorted(met) == sorted(map(str, range(number)))
        await met_all.wait()
        assert point is not None
        async with chance.choice(hubs).listen(ALL, point) as listener:
            assert await hear(listener, until="last") == ["last"]

    async def write() -> None:
        await ready.wait()
        left = [entry(str(number)) for number in range(number)]
        while left:
            size = chance.choice((1, 2, 5, 40))
            store.append(left[:size])
            del left[:size]
            await asyncio.sleep(chance.random() / 60)
        await met_all.wait()
        store.append([entry("last")])

    async def work() -> None:
        await asyncio.gather(write(), *(listen() for _ in range(12)))
        assert joined > 12
        assert [hub.listeners for hub in hubs] == [0, 0]

    together(work)


def test_one_poll_serves_all_listeners(store: Disordered) -> None:
    """Fifty listeners, half of them resumed, ask the store no more often than one; without one it is not asked."""
    hub = Hub(lambda: store)

    async def one(point: ResumePoint | None, here: asyncio.Barrier) -> None:
        async with hub.listen(ALL, point) as listener:
            await following(hub, listener)
            await here.wait()
            assert await hear(listener, until="x") == ["x"]
            await here.wait()

    async def work() -> None:
        async with hub.listen(ALL) as first:
            here = asyncio.Barrier(51)
            points = [None, first.point] * 25
            listeners = [asyncio.create_task(one(point, here)) for point in points]
            await here.wait()
            asked, begun = store.asked, hub.begun
            store.append([entry("x")])
            await here.wait()
            assert store.asked - asked <= hub.begun - begun + 1
            await asyncio.gather(*listeners)
        asked = store.asked
        await asyncio.sleep(0.05)
        assert store.asked <= asked + 1

    together(work)


def test_search_texts_are_made_once_and_only_when_they_are_asked_for(
    store: Disordered, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many listeners with search text fold an entry once; those without do not fold it at all."""
    folded: list[str] = []

    def counting(event: AuditEvent) -> tuple[str, ...]:
        folded.append(event.target)
        return ("", event.target, "", "")

    monkeypatch.setattr("audit_pipeline.query.matching.search_texts", counting)
    hub = Hub(lambda: store)

    async def work() -> None:
        async with hub.listen(ALL) as plain:
            store.append([entry("first")])
            assert await hear(plain, until="first") == ["first"]
            assert folded == []
            queries = [parse_query({"q": [q]}, "default") for q in ("sec", "second", "-x")]
            async with hub.listen(queries[0]) as a, hub.listen(queries[1]) as b, hub.listen(queries[2]) as c:
                store.append([entry("second")])
                for listener in (a, b, c):
                    assert await hear(listener, until="second") == ["second"]
        assert folded == ["second"]

    together(work)


def test_entries_of_organisations_to_which_nobody_listens_are_not_looked_at(
    store: Disordered, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many entries another organisation writes, its texts are folded for nobody."""
    folded: list[str] = []

    def counting(event: AuditEvent) -> tuple[str, ...]:
        folded.append(event.org)
        return ("", event.target, "", "")

    monkeypatch.setattr("audit_pipeline.query.matching.search_texts", counting)
    hub = Hub(lambda: store)

    async def work() -> None:
        async with hub.listen(parse_query({"q": ["x"]}, "default")) as listener:
            store.append([*(entry("x", org="busy") for _ in range(50)), entry("x")])
            assert await hear(listener, until="x") == ["x"]
        assert folded == ["default"]

    together(work)


def test_who_comes_while_entries_are_looked_at_hears_them_once(
    store: Disordered, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whenever a listener comes in the middle of a poll, it hears all, and no entry is looked at in the event loop."""
    hub = Hub(lambda: store)
    queries = [parse_query({"q": [q]}, "default") for q in ("x", "x -y", "x -z")]
    selecting = listening._selected
    looked: list[int] = []
    here, go_on = threading.Semaphore(0), threading.Semaphore(0)

    def waiting(entries: Any, asked: Any) -> Any:
        assert threading.current_thread() is not threading.main_thread()
        if entries:
            looked.append(len(asked))
            if len(looked) <= 2:
                here.release()
                assert go_on.acquire(timeout=10)
        return selecting(entries, asked)

    monkeypatch.setattr(listening, "_selected", waiting)

    async def work() -> None:
        async with hub.listen(queries[0]) as first:
            store.append([entry("x")])
            assert await asyncio.to_thread(here.acquire, timeout=10)
            async with hub.listen(queries[1]) as second:
                go_on.release()
                assert await asyncio.to_thread(here.acquire, timeout=10)
                async with hub.listen(queries[2]) as third:
                    go_on.release()
                    for listener in (first, second, third):
                        assert await hear(listener, until="x") == ["x"]
                        await following(hub, listener)
                    store.append([entry("x and more")])
                    for listener in (first, second, third):
                        assert await hear(listener, until="x and more") == ["x and more"]
        assert looked[:3] == [1, 1, 1]

    together(work)


def test_a_slow_listener_catches_up_by_itself_and_holds_little(
    store: Disordered, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only so many entries wait for a listener; it hears all of them all the same, and follows again."""
    monkeypatch.setattr(listening, "WAITING", 50)
    monkeypatch.setattr(listening, "BATCH", 40)
    hub = Hub(lambda: store)

    async def work() -> None:
        async with hub.listen(ALL) as slow, hub.listen(ALL) as quick:
            for part in range(5):
                store.append([entry(str(part * 40 + number)) for number in range(40)])
                met = [await quick.next(5)]
                while sum(map(len, met)) < 40:
                    met.append(await quick.next(5))
                assert len(slow._waiting) <= 50
            assert not slow._follows
            store.append([entry("end")])
            met_slowly = []
            while len(met_slowly) < 201:
                met_slowly += [heard.entry.event.target for heard in await slow.next(5)]
            assert sorted(met_slowly) == sorted([*map(str, range(200)), "end"])
            await following(hub, slow)
            store.append([entry("once more")])
            assert await hear(slow, until="once more") == ["once more"]

    together(work)


def test_nothing_is_lost_while_the_store_is_down(store: Disordered, caplog: pytest.LogCaptureFixture) -> None:
    """Followers, those who catch up and those who come back meanwhile go on where they were; it is said once."""
    hub = Hub(lambda: store)

    async def work() -> None:
        async with hub.listen(ALL) as follower:
            point = follower.point
            store.down = True
            store.append([entry("meanwhile")])
            async with hub.listen(ALL, point) as resumed:
                assert await follower.next(0.2) == []
                assert await resumed.next(0.2) == []
                store.down = False
                assert await hear(follower, until="meanwhile") == ["meanwhile"]
                assert await hear(resumed, until="meanwhile") == ["meanwhile"]

    together(work)
    assert [record.getMessage() for record in caplog.records] == [
        "no live entries at the moment: it is down",
        "live entries go on after: it is down",
    ]


def test_who_begins_while_the_store_is_down_is_told(store: Disordered) -> None:
    """Without a position to begin at there is nothing to wait for; the next one begins when the store is back."""
    hub = Hub(lambda: store)

    async def work() -> None:
        store.down = True
        with pytest.raises(StoreUnavailable):
            async with hub.listen(ALL):
                pass
        assert hub.listeners == 0
        store.down = False
        async with hub.listen(ALL) as listener:
            store.append([entry("x")])
            assert await hear(listener, until="x") == ["x"]

    together(work)


def test_a_fault_of_the_store_is_survived(store: Disordered, caplog: pytest.LogCaptureFixture) -> None:
    """What no store should raise ends neither the poll nor a listener, and is logged with its trace."""
    hub = Hub(lambda: store)
    whole = store.arrivals

    def broken(position: str | None, limit: int = 1000) -> Arrivals:
        raise RuntimeError("a fault")

    async def work() -> None:
        async with hub.listen(ALL) as listener:
            store.arrivals = broken  # type: ignore[method-assign]
            store.append([entry("x")])
            assert await listener.next(0.1) == []
            store.arrivals = whole  # type: ignore[method-assign]
            assert await hear(listener, until="x") == ["x"]

    together(work)
    assert caplog.records[0].exc_info


def test_a_point_of_another_store_is_refused(store: Disordered) -> None:
    """A position that the store does not know raises ValueError before anything is heard."""
    hub = Hub(lambda: store)

    async def work() -> None:
        with pytest.raises(ValueError, match="no position"):
            async with hub.listen(ALL, ResumePoint("nonsense")):
                pass
        assert hub.listeners == 0

    together(work)


def test_a_backup_in_the_stores_place_is_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A position beyond all that the file has is of another one: who resumes is told; who listens hears what comes."""
    monkeypatch.setattr(listening, "POLL_S", 0.01)
    path, backup = tmp_path / "audit.db", tmp_path / "backup.db"
    with closing(open_store(f"sqlite:///{backup}")) as older:
        older.append([entry("first")])
    with closing(open_store(f"sqlite:///{path}")) as store:
        hub = Hub(lambda: store)

        async def work() -> None:
            store.append([entry(str(number)) for number in range(5)])
            async with hub.listen(ALL) as listener:
                point = listener.point
                for suffix in ("", "-wal", "-shm"):
                    path.with_name(path.name + suffix).unlink(missing_ok=True)
                backup.rename(path)
                while hub.position != "1":
                    await asyncio.sleep(0.01)
                store.append([entry("x")])
                assert await hear(listener, until="x") == ["x"]
                with pytest.raises(ValueError, match="no position"):
                    async with hub.listen(ALL, point):
                        pass

        together(work)


def test_a_slow_store_keeps_nobody_waiting_longer_than_they_said(store: Disordered) -> None:
    """`next` is back in time for a heartbeat, although the store still thinks."""
    hub = Hub(lambda: store)
    answers = threading.Event()
    whole = store.arrivals

    def thinking(position: str | None, limit: int = 1000) -> Arrivals:
        answers.wait(10)
        return whole(position, limit)

    async def work() -> None:
        async with hub.listen(ALL) as first:
            store.arrivals = thinking  # type: ignore[method-assign]
            store.append([entry("x")])
            loop = asyncio.get_running_loop()
            began = loop.time()
            async with hub.listen(ALL, first.point) as listener:
                assert await listener.next(0.05) == []
                assert loop.time() - began < listening.START_S + 1
                answers.set()
                assert await hear(listener, until="x") == ["x"]
                assert await hear(first, until="x") == ["x"]

    together(work)


def test_listeners_end_when_the_server_does(store: Disordered) -> None:
    """When the server is told to stop, all listeners end at once, also those that wait."""
    stopping = threading.Event()
    hub = Hub(lambda: store, stopping.is_set)

    async def work() -> None:
        async with hub.listen(ALL) as one, hub.listen(ALL) as two:
            waiting = asyncio.gather(one.next(30), two.next(30))
            await asyncio.sleep(0)
            stopping.set()
            assert await waiting == [[], []]
            assert one.ended
            assert two.ended

    together(work)


def test_ids_that_cannot_come_twice_any_more_are_forgotten(store: Disordered) -> None:
    """A resume point is short again when the listener follows, whatever it was made with, and when it met its ids."""
    hub = Hub(lambda: store)

    async def work() -> None:
        async with hub.listen(ALL) as first:
            store.append([entry("met already"), entry("not yet")])
            (met, *_) = await first.next(5)
            given = frozenset([met.entry.event.id, IDS.next()[1]])
            async with hub.listen(ALL, ResumePoint(json.dumps([9]), given)) as listener:
                (heard,) = await listener.next(5)
                assert heard.entry.event.target != met.entry.event.target
                assert len(listener.point.given) == 1
                while listener.point.given:
                    assert await listener.next(0.02) == []
                assert listener._follows

    together(work)


def test_who_is_cancelled_while_an_entry_comes_ends(store: Disordered) -> None:
    """A cancellation is not lost to a wake-up of the same moment: a server that stops would wait for ever."""
    hub = Hub(lambda: store)

    async def work() -> None:
        async with hub.listen(ALL) as listener:
            waiting = asyncio.create_task(listener.next(30))
            await asyncio.sleep(0)
            listener.wake()
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting

    together(work)


def test_a_point_moves_on_although_nothing_is_selected(store: Disordered) -> None:
    """Who hears nothing for long does not have to walk through all of it to resume."""
    hub = Hub(lambda: store)
    alice = Query("default", user="alice")

    async def work() -> None:
        async with hub.listen(alice) as listener, hub.listen(ALL) as other:
            before = listener.point
            store.append([entry(str(number), user="bob") for number in range(10)])
            await hear(other, until="3")
            assert await listener.next(0.05) == []
            assert listener.point != before
            passed = listener.point
        asked: list[int] = []
        counting = store.arrivals
        store.arrivals = lambda position, limit=1000: (
            asked.append(len(counting(position).entries)) or counting(position)
        )  # type: ignore[method-assign,func-returns-value]
        async with hub.listen(alice, passed):
            pass
        assert asked
        assert set(asked) == {0}

    together(work)
