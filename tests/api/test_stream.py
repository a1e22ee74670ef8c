"""GET /v1/events/stream: each entry as it comes, once, to those who may see it and asked for it."""

from __future__ import annotations

import asyncio
import json
import random
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import httpx
import pytest
from audit_pipeline.api import deps, sending, stream

from audit_pipeline import AuditPipeline, StoreUnavailable, listening
from audit_pipeline.actions import catalogue
from audit_pipeline.query import Query, ResumePoint, Window, parse_query, sort_key

from .conftest import API, check_problem, served

PATH = "/v1/events/stream"


class Stream:
    """One connection, read block by block as a browser reads it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self.last = ""
        """The `id` to go on after."""
        self.raw: list[bytes] = []
        """The blocks as they came."""

    async def block(self) -> dict[str, str]:
        """The fields of the next block."""
        block = await self._reader.readuntil(b"\n\n")
        self.raw.append(block)
        fields = dict(line.split(": ", 1) for line in block.decode().split("\n")[:-2])
        self.last = fields.get("id", self.last)
        return fields

    async def item(self) -> dict[str, Any]:
        """The next entry."""
        while "data" not in (fields := await self.block()):
            pass
        item: dict[str, Any] = json.loads(fields["data"])
        return item

    async def targets(self, number: int) -> list[str]:
        """The targets of so many entries that come next."""
        return [(await self.item())["target"] for _ in range(number)]

    async def plain_targets(self, number: int) -> list[str]:
        """The same, where a target needs no JSON to be read: for many listeners."""
        targets = []
        while len(targets) < number:
            block = await self._reader.readuntil(b"\n\n")
            fields, _, place = block.rpartition(b"id: ")
            self.last = place[:-2].decode() if place else self.last
            if fields.startswith(b"data: "):
                targets.append(fields.partition(b'"target":"')[2].partition(b'"')[0].decode())
        return targets

    def cut(self) -> None:
        """Leave, without a word."""
        self._writer.transport.abort()


@asynccontextmanager
async def listening_at(
    address: str, token: str, last: str = "", *, holds: int = 2**20, **parameters: Any
) -> AsyncIterator[Stream]:
    """A stream, from its first block on. The client holds about so many bytes that nobody has read yet."""
    url = urlsplit(address)
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, holds)
    connection.setblocking(False)
    await asyncio.get_running_loop().sock_connect(connection, (url.hostname, url.port))
    reader, writer = await asyncio.open_connection(sock=connection, limit=holds)
    named = {name.rstrip("_"): value for name, value in parameters.items()}
    head = [f"GET {PATH}?{urlencode(named, doseq=True)} HTTP/1.0", f"Host: {url.netloc}"]
    head += [f"Authorization: Bearer {token}", *([f"Last-Event-ID: {last}"] if last else [])]
    writer.write(("\r\n".join(head) + "\r\n\r\n").encode())
    answer = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 20)
    assert answer.startswith(b"HTTP/1.1 200"), answer + await reader.read()
    assert b"content-type: text/event-stream; charset=utf-8" in answer.lower()
    opened = Stream(reader, writer)
    try:
        first = await opened.block()
        assert set(first) == {"retry", "id"}
        yield opened
    finally:
        opened.cut()


def together(work: Callable[[], Awaitable[None]], patience: float = 60) -> None:
    """Run what a test does, in one event loop; what hangs ends after so many seconds."""

    async def run() -> None:
        await asyncio.wait_for(work(), patience)

    asyncio.run(run())


async def record(api: API, *targets: str, **given: Any) -> None:
    """Record entries, and wait until the store has them."""

    def store_them() -> None:
        for target in targets:
            api.record("domain.created", target=target, **given)
        api.stored()

    await asyncio.to_thread(store_them)


async def until(condition: Callable[[], bool]) -> None:
    """Wait for something that happens in the server."""
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.01)


async def append(api: API, *targets: str, **given: Any) -> None:
    """Put entries into the store, all in one batch."""
    action = catalogue["domain.created"]
    events = [api.pipeline.prepare(action, {"target": target, **given}) for target in targets]
    assert await asyncio.to_thread(api.pipeline.store.append, events) == []


def test_entries_come_in_order_of_arrival_however_late_they_are(api: API) -> None:
    """New ones, one of two minutes and one of a year ago come as they arrive, as a list shows them; no older ones."""

    async def work() -> None:
        await record(api, "before")
        async with listening_at(address, api.token()) as listener:
            await record(api, "now", ip="203.0.113.77", detail="DKIM enabled", user="alice@example.com")
            item = await listener.item()
            assert item == (await asyncio.to_thread(api.list, q="now"))["items"][0]
            assert item["ip"] == "203.0.113.xxx"
            for late in (120, 365 * 86_400):
                await record(api, f"{late} s late", timestamp=time.time() - late)
            await record(api, "new again")
            assert await listener.targets(3) == ["120 s late", "31536000 s late", "new again"]

    with served(api.app) as address:
        together(work)


def test_every_id_resumes_exactly_after_its_entry(api: API) -> None:
    """At the same application, a restarted one, and another process's: from the start, and from each entry of a batch.

    What came meanwhile follows, late entries included; nothing is repeated.
    """
    batch = [f"entry {number}" for number in range(7)]

    async def work() -> None:
        async with listening_at(addresses[0], api.token()) as listener:
            ids = [listener.last]
            await append(api, *batch)
            for target in batch:
                assert (await listener.item())["target"] == target
                ids.append(listener.last)
            listener.cut()
        await append(api, "meanwhile", "too", timestamp=time.time() - 120)
        await append(api, "a year late", timestamp=time.time() - 365 * 86_400)

        async def resumed(address: str, number: int) -> None:
            rest = [*batch[number:], "meanwhile", "too", "a year late"]
            async with listening_at(address, api.token(), ids[number]) as again:
                assert await again.targets(len(rest)) == rest
                await everyone.wait()
                assert await again.targets(1) == ["the end"]

        everyone = asyncio.Barrier(len(addresses) * len(ids) + 1)
        async with asyncio.TaskGroup() as tasks:
            for address in addresses:
                for number in range(len(ids)):
                    tasks.create_task(resumed(address, number))
            await everyone.wait()
            await append(api, "the end")

    with ExitStack() as open_now:
        apps = [api.app, api.with_settings().app]
        if api.pipeline.store.lasting:
            other = AuditPipeline.open(settings=api.settings, ship=False)
            apps.append(API(api.settings, open_now.enter_context(other)).app)
        addresses = [open_now.enter_context(served(app)) for app in apps]
        together(work)


def test_each_listener_hears_what_its_filters_select(api: API) -> None:
    """Each filter, and all together, let through what a list with the same parameters finds; `sort` changes nothing."""
    parameters: list[dict[str, Any]] = [
        {},
        {"q": "carol -invitation"},
        {"q": '"login failed"'},
        {"action": ["domain.created", "queue.flushed"]},
        {"category": "users"},
        {"from_": "2026-01-02", "to": "2026-01-03"},
        {"from_": "2026-01-02", "to": "2026-01-03", "tz": "Pacific/Kiritimati"},
        {"user": "bob@example.com"},
        {"outcome": "failure"},
        {"ip": "192.168.1.xxx"},
        {"sort": "action"},
        {"q": "carol", "category": "users", "user": "alice@example.com", "ip": "2001:db8::/32", "outcome": "success"},
    ]
    entries: list[tuple[str, str, str, str, dict[str, Any]]] = [
        ("domain.created", "example.com", "alice@example.com", "192.168.1.77", {"detail": "DKIM enabled"}),
        ("user.created", "carol", "alice@example.com", "2001:db8::1", {"detail": "by invitation"}),
        ("auth.login_failed", "", "mallory", "192.168.1.3", {}),
        ("queue.flushed", "mail.example.com", "bob@example.com", "10.0.0.5", {"outcome": "failure"}),
        ("user.deleted", "carol", "alice@example.com", "", {}),
    ]

    async def heard(asked: dict[str, Any]) -> None:
        async with listening_at(address, api.token(), **asked) as listener:
            await everyone.wait()
            await everyone.wait()
            expected = (await asyncio.to_thread(api.list, **asked | {"sort": "timestamp"}))["items"]
            assert 0 < len(expected) < 6
            assert [await listener.item() for _ in expected] == expected
            async with listening_at(address, api.token(), listener.last, **asked):
                pass

    def record_all() -> None:
        for number, (action, target, user, ip, more) in enumerate(entries):
            moment = f"2026-01-0{number + 1}T23:00:00Z"
            api.record(action, target=target, user=user, ip=ip, timestamp=moment, **more)
        api.stored()

    async def work() -> None:
        async with asyncio.TaskGroup() as tasks:
            for asked in parameters:
                tasks.create_task(heard(asked))
            await everyone.wait()
            await asyncio.to_thread(record_all)
            await everyone.wait()

    everyone = asyncio.Barrier(len(parameters) + 1)
    with served(api.app) as address:
        together(work)


def test_organisations_do_not_hear_each_other(api: API) -> None:
    """Entries of another organisation never come, neither as they arrive nor when resumed past them."""

    async def work() -> None:
        ours, theirs = api.token(), api.token(org="other")
        async with listening_at(address, ours) as mine, listening_at(address, theirs) as other:
            start = mine.last
            await record(api, "theirs", org="other")
            await record(api, "mine")
            assert await mine.targets(1) == ["mine"]
            assert await other.targets(1) == ["theirs"]
            async with listening_at(address, ours, start) as again:
                assert await again.targets(1) == ["mine"]
            assert not [block for block in mine.raw if b"theirs" in block]

    with served(api.app) as address:
        together(work)


def test_a_token_that_was_not_given_for_this_stream_is_refused(memory_api: API) -> None:
    """Garbage, an altered one, one of other filters or another organisation, a cursor: all are answered alike."""
    api, cursors = memory_api, memory_api.app.state.audit.cursors
    event = api.pipeline.prepare(catalogue["domain.created"], {})
    good = cursors.sign_resume(Query("default"), ResumePoint("0", frozenset([event.id])))
    refused = [
        "garbage",
        "é.è",
        good[:-1],
        "A" + good,
        cursors.sign_resume(Query("other"), ResumePoint("0")),
        cursors.sign_resume(parse_query({"q": ["x"]}, "default"), ResumePoint("0")),
        cursors.sign(Query("default"), Window(25, after=sort_key(event))),
        cursors.sign_resume(Query("default"), ResumePoint("no position of this store")),
    ]
    answers = [
        check_problem(api.get(PATH, headers=[("last-event-id", token.encode())]), 400, "invalid-cursor")
        for token in refused
    ]
    assert len({json.dumps(answer | {"request_id": ""}) for answer in answers}) == 1
    check_problem(api.get("/v1/events", params={"cursor": good}), 400, "invalid-cursor")
    assert cursors.resume_point(Query("default", sort="action"), good).given == {event.id}


@pytest.mark.parametrize(
    ("status", "name", "asked", "claims"),
    [
        (422, "invalid-query", {"page": "1"}, {}),
        (422, "invalid-query", {"cursor": "x"}, {}),
        (422, "invalid-query", {"page_size": "10"}, {}),
        (422, "invalid-query", {"action": "no.such"}, {}),
        (401, "unauthorized", {}, {"exp": 1}),
        (403, "forbidden", {}, {"scope": "audit:write audit:export"}),
        (403, "plan-required", {}, {"plan": "free"}),
    ],
)
def test_who_may_not_listen_is_told(
    memory_api: API, status: int, name: str, asked: dict[str, str], claims: dict[str, Any]
) -> None:
    """Parameters, token, scope and plan are those of the list, but for pages."""
    answer = memory_api.get(PATH, params=asked, token=memory_api.token(**claims))
    body = check_problem(answer, status, name)
    assert [error["parameter"] for error in body.get("errors", [])] == list(asked)


def test_a_store_that_is_down_at_the_start_is_said(memory_api: API, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a position there is nothing to begin at: 503, and when to come again."""

    def down(*_: Any) -> Any:
        raise StoreUnavailable("it is down")

    monkeypatch.setattr(memory_api.pipeline.store, "arrivals", down)
    answer = memory_api.get(PATH)
    check_problem(answer, 503, "store-unavailable")
    assert answer.headers["retry-after"]


def test_a_store_that_goes_down_loses_nothing(api: API, monkeypatch: pytest.MonkeyPatch) -> None:
    """Connections stay, and beat, while the store is down; who comes back meanwhile is let in; all goes on after."""
    monkeypatch.setattr(stream, "HEARTBEAT_S", 0.1)
    store = api.pipeline.store
    whole = store.arrivals

    def down(*_: Any) -> Any:
        raise StoreUnavailable("it is down")

    async def work() -> None:
        async with listening_at(address, api.token()) as listener:
            monkeypatch.setattr(store, "arrivals", down)
            await until(lambda: api.app.state.audit.hub.trouble is not None)
            await record(api, "one", "two")
            async with listening_at(address, api.token(), listener.last) as again:
                for _ in range(3):
                    assert set(await listener.block()) == set(await again.block()) == {"id"}
                monkeypatch.setattr(store, "arrivals", whole)
                assert await listener.targets(2) == await again.targets(2) == ["one", "two"]

    with served(api.app) as address:
        together(work)


def test_a_stream_ends_with_its_token(memory_api: API) -> None:
    """When the bearer token expires the stream ends, as a whole answer; the same token opens no other."""
    expires = int(time.time()) + 2
    token = memory_api.token(exp=expires)
    with served(memory_api.app) as address:
        bearer = {"authorization": f"Bearer {token}"}
        with httpx.stream("GET", address + PATH, headers=bearer, timeout=10) as answer:
            assert answer.headers["cache-control"] == "no-store"
            assert answer.headers["x-accel-buffering"] == "no"
            assert "content-length" not in answer.headers
            text = "".join(answer.iter_text())
        assert expires <= time.time() < expires + 1.5
        assert text.startswith("retry: ")
        assert httpx.get(address + PATH, headers=bearer).status_code == 401


def test_a_silent_stream_beats_and_its_place_moves_on(memory_api: API, monkeypatch: pytest.MonkeyPatch) -> None:
    """An `id` alone keeps a connection alive, and tells where to go on past entries that were not selected."""
    monkeypatch.setattr(stream, "HEARTBEAT_S", 0.1)

    async def work() -> None:
        query = Query("default", user="alice")
        async with listening_at(address, memory_api.token(), user="alice") as listener:

            async def place() -> str:
                assert set(await listener.block()) == {"id"}
                point = memory_api.app.state.audit.cursors.resume_point(query, listener.last)
                position: str = point.position
                return position

            assert {await place() for _ in range(3)} == {"0"}
            await record(memory_api, "not hers", user="bob")
            while (position := await place()) == "0":
                pass
            assert position == memory_api.pipeline.store.arrivals(None).position

    with served(memory_api.app) as address:
        together(work)


def test_silence_does_not_tell_whether_others_write(api: API, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether another organisation writes much or nothing, a quiet stream's blocks are alike in form and length."""
    monkeypatch.setattr(stream, "HEARTBEAT_S", 0.1)

    async def beats(listener: Stream, number: int) -> list[tuple[int, bytes]]:
        for _ in range(number):
            assert set(await listener.block()) == {"id"}
        return [(len(block), block[:10]) for block in listener.raw[-number:]]

    async def work() -> None:
        async with listening_at(address, api.token(org="quiet")) as listener:
            alone = set(await beats(listener, 10))
            for part in range(10):
                await append(api, *(f"{part}-{number}" for number in range(15)), org="busy")
                alone |= set(await beats(listener, 2))
            first = {(len(listener.raw[0]) - len("retry: 2000\n"), b"id: gAAAAA")}
            assert alone == first

    with served(api.app) as address:
        together(work)


def test_no_field_breaks_the_framing(api: API) -> None:
    """CR, LF, NUL, the line breaks of Unicode and what looks like a field of an event stay inside their JSON."""
    nasty = "a\r\n\r\ndata: {}\n\nid: x\revent: y\0\u2028\u2029\u0085\x0b\x0c\ufeff:\U0001f600\u202e"

    async def work() -> None:
        async with listening_at(address, api.token()) as listener:
            await record(api, nasty, detail=nasty, user=nasty, context={"data: x\n\n": nasty})
            item = await listener.item()
            (listed,) = (await asyncio.to_thread(api.list))["items"]
            assert item == listed
            assert nasty[:4] in item["detail"]
            block = listener.raw[-1].decode()
            assert len(block.splitlines()) == 3
            assert all(line.startswith(("id: ", "data: ")) for line in block.splitlines()[:2])
            await record(api, "after")
            assert await listener.targets(1) == ["after"]

    with served(api.app) as address:
        together(work)


def test_a_client_that_leaves_is_forgotten_at_once(memory_api: API) -> None:
    """Cut in the middle, its listener goes; without one, the store is not asked any more."""
    hub = memory_api.app.state.audit.hub

    async def work() -> None:
        async with listening_at(address, memory_api.token()) as one, listening_at(address, memory_api.token()) as two:
            assert hub.listeners == 2
            began = time.monotonic()
            one.cut()
            await until(lambda: hub.listeners == 1)
            assert time.monotonic() - began < 2
            await record(memory_api, "x")
            assert await two.targets(1) == ["x"]
        await until(lambda: hub.listeners == 0)
        begun = hub.begun
        await asyncio.sleep(2 * listening.POLL_S)
        assert hub.begun == begun

    with served(memory_api.app) as address:
        together(work)


def test_a_slow_client_gets_everything_and_holds_up_nobody(api: API, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that does not read has few entries waiting for it; in the end it has each of them once, in order."""
    monkeypatch.setattr(listening, "WAITING", 200)
    number = 1000
    expected = [str(one) for one in range(number)]

    async def work() -> None:
        async with (
            listening_at(address, api.token(), holds=2**15) as slow,
            listening_at(address, api.token()) as quick,
        ):
            hub = api.app.state.audit.hub
            for first in range(0, number, 100):
                await append(api, *expected[first : first + 100], detail="x" * 10_000)
                assert await quick.targets(100) == expected[first : first + 100]
                assert all(len(listener._waiting) <= 200 for listener in hub._listeners)
            assert not all(listener._follows for listener in hub._listeners)
            assert await slow.targets(number) == expected
            await until(lambda: all(listener._follows for listener in hub._listeners))
            await append(api, "the end")
            assert await slow.targets(1) == ["the end"]

    with served(api.app) as address:
        together(work)


@pytest.mark.parametrize("why", ["it takes nothing", "its token ends"])
def test_a_client_that_does_not_read_is_left(memory_api: API, monkeypatch: pytest.MonkeyPatch, why: str) -> None:
    """A stream whose client takes nothing ends after a while, and when its token does at the latest."""
    monkeypatch.setattr(sending, "SEND_S", 0.5 if why == "it takes nothing" else 600)
    hub = memory_api.app.state.audit.hub
    token = memory_api.token(exp=int(time.time()) + (600 if why == "it takes nothing" else 3))

    async def work() -> None:
        async with (
            listening_at(address, token, holds=2**17) as stalled,
            listening_at(address, memory_api.token()) as other,
        ):
            for part in range(10):
                await append(memory_api, *(f"{part}-{number}" for number in range(20)), detail="x" * 60_000)
                await other.targets(20)
            await until(lambda: hub.listeners == 1)
            with pytest.raises(asyncio.IncompleteReadError):
                await stalled.targets(200)
            await record(memory_api, "after")
            assert await other.targets(1) == ["after"]

    with served(memory_api.app) as address:
        together(work)


def test_too_many_streams_at_once(memory_api: API, monkeypatch: pytest.MonkeyPatch) -> None:
    """An organisation has so many streams at a time; one more is 429 until one ends; another organisation's goes on."""
    assert deps.MAX_STREAMS == 500
    monkeypatch.setattr(deps, "MAX_STREAMS", 2)
    api = memory_api.with_settings()

    async def work() -> None:
        async with listening_at(address, api.token()) as one, listening_at(address, api.token()):
            refused = await asyncio.to_thread(api.get, PATH)
            check_problem(refused, 429, "too-many-streams")
            assert refused.headers["retry-after"]
            async with listening_at(address, api.token(org="other")):
                pass
            one.cut()
            await until(lambda: api.app.state.audit.hub.listeners == 1)
            async with listening_at(address, api.token()):
                assert (await asyncio.to_thread(api.get, PATH)).status_code == 429

    with served(api.app) as address:
        together(work)


def test_a_server_that_is_stopped_ends_its_streams(tmp_path: Path) -> None:
    """`serve` does not wait for listeners to leave: their streams end, whole, and so does it."""
    command = [sys.executable, "-m", "audit_pipeline", "serve", "--port", "0"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        address, _, token = server.stdout.readline().strip().partition("/#token=")
        with httpx.stream("GET", address + PATH, headers={"authorization": f"Bearer {token}"}, timeout=20) as answer:
            lines = answer.iter_lines()
            assert next(lines).startswith("retry: ")
            server.send_signal(signal.SIGTERM)
            began = time.monotonic()
            assert all(line.startswith("id: ") for line in lines if line)
        server.wait(10)
        assert time.monotonic() - began < 3  # the grace period has five
        assert server.stderr is not None
        assert server.stderr.read() == f"audit-pipeline: the store is {tmp_path / 'audit.db'}, which is new and empty\n"


def test_two_hundred_listeners_hear_each_of_two_thousand_events_once(slow_api: API) -> None:
    """A third of them is cut and resumes, some events are two minutes late; the list is as fast as without them."""
    listeners, events = 200, 2000
    chance = random.Random(1)
    addressed = [f"event {number}" for number in range(events)]

    async def listed(client: httpx.AsyncClient, number: int) -> float:
        """The median time of a list, in seconds."""
        times = []
        for _ in range(number):
            began = time.perf_counter()
            answer = await client.get(f"{address}/v1/events", headers=bearer)
            times.append(time.perf_counter() - began)
            assert answer.status_code == 200
            await asyncio.sleep(0.02)
        return statistics.median(times)

    async def listen(cuts: int) -> None:
        met: list[str] = []
        last = ""
        for cut in [*sorted(chance.randrange(events) for _ in range(cuts)), events]:
            async with listening_at(address, token, last) as listener:
                if not last:
                    await everyone.wait()
                met += await listener.plain_targets(cut - len(met))
                last = listener.last
        await everyone.wait()
        async with listening_at(address, token, last) as listener:
            met += await listener.targets(1)
        assert len(met) == len(set(met)) == events + 1
        assert set(met) == {*addressed, "the end"}

    def record_all() -> None:
        for number, target in enumerate(addressed):
            late = 120 if number % 10 == 0 else 0
            slow_api.record("domain.created", target=target, timestamp=time.time() - late)
        slow_api.stored()

    async def work() -> None:
        async with httpx.AsyncClient() as client:
            await asyncio.to_thread(slow_api.record, "user.created", target="first")
            alone = await listed(client, 20)
            async with asyncio.TaskGroup() as tasks:
                for number in range(listeners):
                    tasks.create_task(listen(2 if number % 3 == 0 else 0))
                await everyone.wait()
                idle = await listed(client, 20)
                await asyncio.to_thread(record_all)
                await everyone.wait()
                await record(slow_api, "the end")
            assert idle < 3 * alone + 0.01

    everyone = asyncio.Barrier(listeners + 1)
    token = slow_api.token(exp=time.time() + 180)
    bearer = {"authorization": f"Bearer {token}"}
    with served(slow_api.app) as address:
        together(work, 150)  # 400,000 events, each read in this process, take a minute beside another test
