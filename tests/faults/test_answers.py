"""What OpenSearch may answer, all of it at random; and each state that stops shipping by itself, as doctor tells it."""

from __future__ import annotations

import json
import random
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

import pytest

from audit_pipeline.event import uuid7
from audit_pipeline.stores import open_store

from ..engine import Cluster
from ..opensearch.conftest import entry
from ..opensearch.proxy import CUT, RESET, Exchange, Proxy
from ..places import new_store_url, store_of_several_tests
from .running import Running, eventually
from .tally import of

MONTH_S = 31 * 86_400

# The storm

POISON = re.compile(rb'"[^"]*-\d*07\.example\.com"')
"""The target of an entry that the engine refuses for ever: one of a hundred."""
TAKEN = "its id is taken by an entry of other content"
POISONED = "the index cannot take one of its fields (mapper_parsing_exception)"
ERRORS = {
    429: ("opensearch_rejected_execution_exception", "circuit_breaking_exception"),
    500: ("exception",),
    503: ("unavailable_shards_exception", "cluster_block_exception"),
}


def refused(status: int, kind: str) -> dict[str, Any]:
    """An item of a bulk's answer."""
    return {"create": {"status": status, "error": {"type": kind, "reason": "203.0.113.9"}}}


class Storm:
    """Decides what a proxy says to each request; tells nothing of it but how often it did what.

    Several are under way at a time: what belongs to one stands in its exchange.
    """

    def __init__(self, seed: int) -> None:
        self.did: Counter[str] = Counter()
        self.over = False
        """From then on only poison is refused."""
        self._random = random.Random(seed)

    @property
    def spoiled(self) -> int:
        """How many answers were not the engine's own."""
        return sum(number for what, number in self.did.items() if what not in ("passed", "poison"))

    def before(self, exchange: Exchange) -> tuple[int, bytes] | None:
        """Answer in the engine's place, or keep entries of a bulk back from it."""
        if not self.over and self._random.random() < (0.15 if self._is_bulk(exchange) else 0.03):
            return self._instead(exchange)
        if not self._is_bulk(exchange):
            return None
        lines = exchange.body.splitlines()
        entries = list(zip(lines[::2], lines[1::2], strict=True))
        kept = exchange.kept_back
        for place, (_, document) in enumerate(entries):
            if POISON.search(document):
                kept[place] = refused(400, "mapper_parsing_exception")
                self.did["poison"] += 1
        if not self.over and self._random.random() < 0.2:
            # Some of them, as a shard that is overloaded, or away, does.
            self.did["items before"] += 1
            for place in self._some(len(entries)):
                kept.setdefault(place, self._item())
        passed = [line for place, both in enumerate(entries) if place not in kept for line in both]
        exchange.body = b"".join(line + b"\n" for line in passed)
        return None if passed else (200, json.dumps({"items": [kept[place] for place in sorted(kept)]}).encode())

    def after(self, exchange: Exchange) -> Any:
        """Spoil the answer of the engine, which has done what it was asked."""
        if not self._is_bulk(exchange):
            return None
        answer = json.loads(exchange.answer)
        given, kept = iter(answer["items"]), exchange.kept_back
        items = [kept.get(place) or next(given) for place in range(len(kept) + len(answer["items"]))]
        chosen = 1.0 if self.over else self._random.random()
        if chosen < 0.05:
            self.did["reset"] += 1
            return RESET
        if chosen < 0.1:
            self.did["cut"] += 1
            return CUT
        if chosen < 0.15:
            return self._instead(exchange)
        if chosen < 0.3:
            self.did["items after"] += 1
            for place in self._some(len(items)):
                if place not in kept:
                    items[place] = self._random.choice(
                        (self._item(), refused(409, "version_conflict_engine_exception"))
                    )
        else:
            self.did["passed"] += 1
        return 200, json.dumps({"items": items}).encode()

    def _instead(self, exchange: Exchange) -> tuple[int, bytes]:
        status = self._random.choice((200, 401, 403, 413, 429, 500, 502, 503))
        if status == 413 and exchange.body.count(b"\n") < 4:
            status = 503  # of a single entry it would be true for ever
        self.did[str(status)] += 1
        if status == 200:
            size = exchange.body.count(b"\n") // 2 + len(exchange.kept_back)
            whole = json.dumps({"items": [{"create": {"status": 201}}] * size}).encode()
            return 200, self._random.choice((whole[: len(whole) // 2], b"", b'{"items":[]}', b"<html>"))
        return status, self._random.choice((b'{"error":{"type":"exception"},"status":0}', b"<html>203.0.113.9", b""))

    def _item(self) -> dict[str, Any]:
        status = self._random.choice(list(ERRORS))
        return refused(status, self._random.choice(ERRORS[status]))

    def _some(self, number: int) -> list[int]:
        return self._random.sample(range(number), self._random.randint(1, number))

    @staticmethod
    def _is_bulk(exchange: Exchange) -> bool:
        return exchange.path.startswith("/_bulk")


def test_a_storm_of_answers(opensearch: Cluster, tmp_path: Path) -> None:
    """Whatever is answered, for requests and for entries: only what is refused for ever goes to quarantine.

    Seen to double 1,200 entries with documents that have no id of their own, and to lose 159 of 573 where an item's
    status above 400 was not looked at in `_create`.
    """
    tries = of(100, 8)
    url = new_store_url("opensearch", tmp_path)
    storm = Storm(5)
    with Proxy(opensearch.hosts[0]) as proxy, Running(proxy.before(url), tmp_path, url) as running:
        # An id that is taken by an entry of other content.
        taken = entry(id=uuid7(int(time.time() * 1000), 7), target="first.example.com")
        with closing(open_store(url)) as store:
            assert store.append([taken]) == []
        running.here.record("domain.created", id=taken.id, target="second.example.com")
        proxy.before_sending, proxy.after_answer = storm.before, storm.after
        running.emit("--threads", 2, pause=0.01)
        running.ship()
        eventually(lambda: storm.spoiled >= tries, tries * 3 + 30, "answers are spoiled")
        running.quiet()
        storm.over = True
        running.drain()
        rows = running.here.spool.quarantine(100_000)
        assert {row.reason for row in rows} == {TAKEN, POISONED}
        assert [row.event.target for row in rows if row.event and row.reason == TAKEN] == ["second.example.com"]
        poisoned = {row.event.target for row in rows if row.event and row.reason == POISONED}
        said = running.said()
        assert {target for target in said.accepted.values() if is_poison(target)} <= poisoned
        assert all(map(is_poison, poisoned))
        status, wrong = running.doctor()
        assert (status, set(wrong)) == (1, {"quarantine"})
        assert "`audit-pipeline quarantine retry` offers them to the store again" in wrong["quarantine"]
        proxy.before_sending, proxy.after_answer = Proxy.before_sending, Proxy.after_answer
        assert running.command("quarantine", "retry")[0] == 3
        assert running.here.status().quarantined == 1
        assert running.command("quarantine", "retry", "--new-id")[0] == 0
        running.well()
        said.accepted[taken.id] = taken.target
        said.begun.add("second.example.com")
        assert storm.did["poison"]
        running.check("answers: a storm of all kinds", storm.spoiled, said)


def is_poison(target: str) -> bool:
    """Whether the storm refuses it."""
    return POISON.search(f'"{target}"'.encode()) is not None


# Each state by itself


class State(NamedTuple):
    """What stops shipping, and what is told of it."""

    harm: Callable[[Cluster, str, Proxy], AbstractContextManager[None]]
    words: str
    kind: str = "store-unavailable"
    store: str = ""
    """What doctor says of the store itself; empty where that answers well."""
    months_ago: int = 0


def answered(status: int) -> Callable[[Cluster, str, Proxy], AbstractContextManager[None]]:
    """A gateway, or the security plugin, says so to everything."""

    @contextmanager
    def harm(engine: Cluster, index: str, proxy: Proxy) -> Iterator[None]:
        proxy.before_sending = lambda exchange: (status, b'{"error":{"type":"security_exception"}}')
        try:
            yield
        finally:
            proxy.before_sending = Proxy.before_sending

    return harm


def names_of(engine: Cluster, index: str) -> list[str]:
    return [one["name"] for one in engine.call("GET", f"/_resolve/index/{index}-*")["indices"]]


def month_of(index: str, ago: int) -> str:
    """The index of entries that are so many months old."""
    return f"{index}-{datetime.fromtimestamp(time.time() - ago * MONTH_S, UTC):%Y.%m}"


@contextmanager
def read_only(engine: Cluster, index: str, proxy: Proxy) -> Iterator[None]:
    names = ",".join(names_of(engine, index))
    engine.call("PUT", f"/{names}/_settings", {"index.blocks.read_only": True})
    try:
        yield
    finally:
        engine.call("PUT", f"/{names}/_settings", {"index.blocks.read_only": None})


@contextmanager
def red(engine: Cluster, index: str, proxy: Proxy) -> Iterator[None]:
    """The primary shard of the entries' month may be on no node."""
    name, setting = month_of(index, 6), "index.routing.allocation.require._name"
    engine.call("PUT", f"/{name}?wait_for_active_shards=0&timeout=1s", {"settings": {setting: "nobody"}})
    assert engine.call("GET", f"/_cluster/health/{name}")["status"] == "red"
    try:
        yield
    finally:
        engine.call("PUT", f"/{name}/_settings", {setting: None})


@contextmanager
def no_more_shards(engine: Cluster, index: str, proxy: Proxy) -> Iterator[None]:
    setting = "cluster.max_shards_per_node"
    engine.call("PUT", "/_cluster/settings", {"persistent": {setting: 1}})
    try:
        yield
    finally:
        engine.call("PUT", "/_cluster/settings", {"persistent": {setting: None}})


@contextmanager
def foreign_index(engine: Cluster, index: str, proxy: Proxy) -> Iterator[None]:
    """Made while the template was gone, for the month of the entries: searches would not find what is in it."""
    name = month_of(index, 4)
    template = f"/_index_template/{index}"
    (found,) = engine.call("GET", template)["index_templates"]
    engine.call("DELETE", template)
    engine.call("PUT", f"/{name}")
    engine.call("PUT", template, found["index_template"])
    try:
        yield
    finally:
        engine.call("DELETE", f"/{name}")


STATES = {
    "answers: expired password (401)": State(
        answered(401), "user, password or API key; correct AUDIT_STORE_URL", store="correct AUDIT_STORE_URL"
    ),
    "answers: rights lost (403)": State(answered(403), "give the account the rights", store="give the account"),
    "answers: read-only index": State(read_only, "writing is blocked; is the disk nearly full, or an index read-only?"),
    "answers: limit on shards": State(no_more_shards, "limit on shards (cluster.max_shards_per_node)", months_ago=2),
    "answers: index made without the template": State(
        foreign_index, "made without the index template", "store-mismatch", "made without the index template", 4
    ),
    "answers: red cluster": State(
        red, "too few copies of a shard are there; wait for nodes", store="have no copy that can be asked", months_ago=6
    ),
}
QUICK = ("answers: expired password (401)", "answers: read-only index", "answers: limit on shards")


class Place(NamedTuple):
    """A pipeline that ships through a proxy."""

    running: Running
    proxy: Proxy
    index: str


@pytest.fixture(scope="module")
def place(opensearch: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """One that all states happen to, one after the other: a server, which ships, and a store of months."""
    folder = tmp_path_factory.mktemp("states")
    with store_of_several_tests("opensearch", folder) as yearly, Proxy(opensearch.hosts[0]) as proxy:
        url = yearly.replace("granularity=year", "granularity=month")
        index = parse_qs(urlsplit(url).query)["index"][0]
        with Running(proxy.before(url), folder, url) as running:
            running.serve()
            running.emit("--events", 20)
            running.finish()
            running.drain()
            running.well()
            yield Place(running, proxy, index)


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.long) for name in STATES]
)
def test_a_state_that_stops_shipping(opensearch: Cluster, place: Place, name: str) -> None:
    """Shipping stops and says why, nothing goes to quarantine, and afterwards it goes on by itself.

    Seen to lose all 50 entries of a state (401, 403, read-only, limit on shards) with the shipper's mark moved before
    the store has a batch; and to go on into the index that searches leave out, without the look at it in template.
    """
    running, state = place.running, STATES[name]
    border = time.time() - state.months_ago * MONTH_S
    with state.harm(opensearch, place.index, place.proxy):
        running.emit("--events", 50, "--border", border, pause=0)
        eventually(lambda: state.words in getattr(running.stopped, "text", ""), 40, "shipping stops")
        running.finish()
        assert running.told() == ({"shipping-stopped", state.kind}, 503 if state.store else 200)
        status, wrong = running.doctor()
        assert status == 1
        assert set(wrong) == ({"shipping", "store"} if state.store else {"shipping"})
        assert state.words in wrong["shipping"]
        assert "Entries stay in the spool meanwhile, and are shipped as soon as that is put right." in wrong["shipping"]
        assert state.store in wrong.get("store", "")
        assert running.here.status().pending == 50
        assert running.here.status().quarantined == 0
    running.drain()
    running.well()
    running.check_last(name)


def test_a_template_that_is_gone(opensearch: Cluster, tmp_path: Path) -> None:
    """Where somebody deleted the template, doctor says so; the next writer puts it back before it makes an index.

    Seen to ship nothing any more (50 of 100 waited) where a template is put back only in a store without indices.
    """
    url = new_store_url("opensearch", tmp_path)
    index = parse_qs(urlsplit(url).query)["index"][0]
    tries = of(6, 1)
    with Running(url, tmp_path) as running:
        shipper = running.ship()
        for number in range(tries + 1):
            if number:
                opensearch.call("DELETE", f"/_index_template/{index}")
                status, wrong = running.doctor()
                assert (status, set(wrong)) == (1, {"store"})
                assert "the index template is gone, though there are indices" in wrong["store"]
                assert "put it back with `audit-pipeline setup`" in wrong["store"]
                shipper = running.ship()
            running.emit("--events", 50, "--border", time.time() - number * 11 * MONTH_S, pause=0)
            running.finish()
            running.drain()
            shipper.kill()
            shipper.wait()
            running.well()
        running.check("answers: template deleted", tries)
