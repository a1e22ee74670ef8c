"""How host applications run and end: forks, workers, tasks, threads, signals, and clocks that jump."""

from __future__ import annotations

import http.client
import itertools
import os
import random
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from glob import glob
from pathlib import Path

import apsw
import pytest

from audit_pipeline.event import id_time
from audit_pipeline.shipping import shipping_of
from audit_pipeline.spool import Spool
from audit_pipeline.stores import open_store

from ..engine import Cluster
from ..opensearch.proxy import Exchange, Proxy
from .conftest import Start
from .tally import Said, check, of, stored_in
from .test_killed import free_port

Until = Callable[[Callable[[], bool], float], None]
Settle = Callable[..., None]

ENDS_S = 20.0
"""Within how many seconds a program ends that is asked to: `ship` and `serve` wait 5 s for a store, others 1 s."""


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'audit.db'}"


@pytest.fixture
def settle(tmp_path: Path, start: Start, until: Until) -> Settle:
    """Ships what is left, and compares it with the side files; the spool's numbers are without gaps."""

    def end(
        fault: str, tries: int, url: str, paths: Sequence[Path] = (tmp_path / "audit.spool.db",), first_kept: int = 1
    ) -> Said:
        shippers = [start("-m", "audit_pipeline", "ship", "--store", url, "--spool", path) for path in paths]
        for path in paths:
            with closing(Spool(path, None)) as spool:
                until(lambda spool=spool: not spool.status().pending, 120)
                assert not spool.quarantine()
                first, last, number = spool.file.ask(
                    lambda db: db.execute("SELECT min(sequence), max(sequence), count(*) FROM entries").get
                )
            assert 1 <= first <= first_kept
            assert last - first + 1 == number
            until(lambda path=path: ships(path), 60)
        for shipper in shippers:
            shipper.send_signal(signal.SIGTERM)
            assert shipper.wait(60) == 0
        said = Said.by(*tmp_path.glob("said*"))
        check(fault, tries, said, stored_in(url))
        return said

    return end


def test_forks_of_an_open_pipeline(tmp_path: Path, url: str, start: Start, settle: Settle) -> None:
    """Children forked from a process whose pipeline is open, and whose threads record, record and ship like it.

    Seen to hang for ever in a child, on a lock that a thread of its parent held, with nothing told of forks.
    """
    tries = of(12, 1)
    for each in range(tries):
        host = start("-m", "tests.faults.hosts", "fork", url, "--said", tmp_path / f"said-{each}", "--events", 50)
        assert host.wait(120) == 0
    said = settle("forks of an open pipeline (8 children each)", tries, url)
    assert len(said.accepted) > tries * 8 * 50


def test_tasks_that_are_cancelled(tmp_path: Path, url: str, start: Start, settle: Settle) -> None:
    """Tasks of asyncio that record by structlog, most cancelled somewhere, leave each entry whole or not at all.

    Seen to lose 3 of 973 with entries gathered by fives before they are written.
    """
    tries = of(8, 1)
    cancelled = 0
    for each in range(tries):
        host = start(
            *("-m", "tests.faults.hosts", "tasks", url, "--said", tmp_path / f"said-{each}", "--events", 50),
            stdout=subprocess.PIPE,
        )
        cancelled += int(host.communicate(timeout=120)[0])
        assert host.returncode == 0
    assert cancelled > 5 * tries
    settle("tasks of asyncio cancelled", cancelled, url)


def test_threads(tmp_path: Path, url: str, start: Start, settle: Settle) -> None:
    """Eight threads of a process that ships too.

    Seen to refuse 648 of 800, one thread's transaction inside another's, with the spool's connection not locked.
    """
    events = of(2_000, 100)
    arguments = ("--said", tmp_path / "said", "--events", events, "--threads", 8, "--ship")
    assert start("-m", "tests.faults.emitter", url, *arguments).wait(300) == 0
    said = settle("eight threads", 8, url)
    assert len(said.accepted) == 8 * events


def test_ends_without_closing(tmp_path: Path, url: str, start: Start, settle: Settle) -> None:
    """A process that ends by sys.exit, os._exit or an exception, in the middle of its threads' calls, loses none.

    Seen to lose 9 of 599 with entries gathered by fives before they are written.
    """
    ways = {"sys.exit": 0, "os._exit": 0, "exception": 1}
    tries = of(12, 1)
    for each in range(tries):
        for way, status in ways.items():
            said = tmp_path / f"said-{way}-{each}"
            host = start("-m", "tests.faults.hosts", way, url, "--said", said, "--events", 20)
            assert host.wait(60) == status
    settle("ends without closing (sys.exit, os._exit, an exception)", tries * len(ways), url)


# gunicorn


@pytest.mark.parametrize("preload", [(), ("--preload",)], ids=["without preload", "preload"])
def test_gunicorn(
    preload: tuple[str, ...], tmp_path: Path, url: str, start: Start, until: Until, settle: Settle
) -> None:
    """Four workers of gunicorn on one spool, opened before the fork or after, killed with -9 and started again.

    Seen to lose 14 of 69, and 12 of 32 with preload, with entries gathered by fives before they are written.
    """
    kills = of(30, 4)
    port = free_port()
    environment = {"AUDIT_STORE_URL": url, "SAID": str(tmp_path / "said")}
    master = start(
        *("-m", "gunicorn", "--workers", "4", "--bind", f"127.0.0.1:{port}", *preload, "tests.faults.wsgi:application"),
        env=environment,
    )
    chosen = random.Random(7)
    answered: Counter[int] = Counter()
    stop = threading.Event()
    clients = [threading.Thread(target=_ask, args=(port, client, stop, answered)) for client in range(4)]
    for client in clients:
        client.start()
    try:
        killed: set[int] = set()
        while len(killed) < kills:
            # Each of those killed had recorded something, and others have since.
            until(lambda: bool(worked(answered, killed)), 60)
            victim = chosen.choice(worked(answered, killed))
            time.sleep(chosen.random() / 20)
            os.kill(victim, signal.SIGKILL)
            killed.add(victim)
        until(lambda: len(answered.keys() - killed) >= 2, 60)
    finally:
        stop.set()
        for client in clients:
            client.join()
    master.send_signal(signal.SIGTERM)
    assert master.wait(60) == 0
    settle(f"gunicorn's workers killed, {'with' if preload else 'without'} preload", kills, url)


def worked(answered: Counter[int], killed: set[int]) -> list[int]:
    """Workers that live and have answered."""
    return sorted(answered.keys() - killed)


def _ask(port: int, client: int, stop: threading.Event, answered: Counter[int]) -> None:
    place = 0
    while not stop.is_set():
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        with suppress(OSError, http.client.HTTPException), closing(connection):
            connection.request("GET", f"/client-{client}-{place}.example.com")
            place += 1
            answer = connection.getresponse()
            pid = int(answer.read())
            assert answer.status == 200
            answered[pid] += 1


# SIGTERM


@contextmanager
def locked(folder: Path, request: pytest.FixtureRequest) -> Iterator[tuple[str, Callable[[], object]]]:
    """The embedded store, which another program's transaction blocks until the function is called."""
    url = f"sqlite:///{folder / 'audit.db'}"
    with closing(open_store(url)) as store:
        store.setup()
    with closing(apsw.Connection(str(folder / "audit.db"))) as db:
        db.execute("BEGIN IMMEDIATE")
        yield url, lambda: db.execute("ROLLBACK")


@contextmanager
def hung(folder: Path, request: pytest.FixtureRequest) -> Iterator[tuple[str, Callable[[], object]]]:
    """OpenSearch, behind a network that lets nothing through until the function is called."""
    cluster: Cluster = request.getfixturevalue("opensearch")
    prefix = f"t-hung-x{secrets.token_hex(4)}"
    go_on = threading.Event()

    def wait(exchange: Exchange) -> None:
        go_on.wait()

    with Proxy(cluster.hosts[0], before_sending=wait) as proxy:
        try:
            yield proxy.before(cluster.url(prefix)), go_on.set
        finally:
            go_on.set()
            cluster.clear(prefix)


@pytest.mark.parametrize("away", [locked, pytest.param(hung, marks=pytest.mark.long)])
def test_asked_to_end_while_the_store_is_away(
    away: Callable[..., AbstractContextManager[tuple[str, Callable[[], object]]]],
    tmp_path: Path,
    request: pytest.FixtureRequest,
    start: Start,
    until: Until,
    settle: Settle,
) -> None:
    """`ship`, `serve` and an application end within 20 s of SIGTERM, with 0, and what they had is shipped later.

    Seen not to end, the application, with its last wait for the store for 600 s in place of 1 s.
    """
    with away(tmp_path, request) as (url, back):
        spools = [tmp_path / f"{name}.spool.db" for name in ("ship", "serve", "host")]
        said = [tmp_path / f"said-{spool.name}" for spool in spools]
        backlog = [
            start("-m", "tests.faults.emitter", url, "--said", file, "--events", 300, env={"AUDIT_SPOOL": str(spool)})
            for spool, file in zip(spools, said, strict=True)
        ]
        assert [emitter.wait(60) for emitter in backlog] == [0, 0, 0]
        commands = [
            ("audit_pipeline", "ship", "--store", url),
            ("audit_pipeline", "serve", "--store", url, "--port", free_port()),
            ("tests.faults.hosts", "signal", url, "--said", tmp_path / "said-signal"),
        ]
        programs = [
            start("-m", *command, env={"AUDIT_SPOOL": str(spool)}, stdout=subprocess.DEVNULL)
            for command, spool in zip(commands, spools, strict=True)
        ]
        until(lambda: all(map(ships, spools)) and (tmp_path / "said-signal").stat().st_size > 10_000, 60)
        for program in programs:
            program.send_signal(signal.SIGTERM)
        end = time.monotonic() + ENDS_S
        assert [program.wait(end - time.monotonic()) for program in programs] == [0, 0, 0]
        back()
        settle(f"SIGTERM with a backlog, the store {away.__name__}", 3, url, spools)


def ships(spool: Path) -> bool:
    """Whether somebody ships it."""
    return shipping_of(spool).process is not None


def test_asked_to_end_in_the_middle_of_a_backlog(
    tmp_path: Path, url: str, start: Start, until: Until, settle: Settle
) -> None:
    """`ship` and `serve` that are asked to end while they drain a large backlog do so, and the next one goes on.

    Seen to count all as shipped after the first of 4 tries, with the mark moved to the last entry at the end.
    """
    tries = of(20, 4)
    arguments = ("--said", tmp_path / "said", "--events", of(20_000, 5_000), "--threads", 2, "--durability", "process")
    assert start("-m", "tests.faults.emitter", url, *arguments).wait(300) == 0
    chosen = random.Random(7)
    path = tmp_path / "audit.spool.db"
    halfway = 0
    with closing(Spool(path, None)) as spool:
        for each in range(tries):
            command = ("serve", "--port", free_port()) if each % 2 else ("ship",)
            program = start("-m", "audit_pipeline", *command, "--store", url, stdout=subprocess.DEVNULL)
            before = spool.shipped()
            until(lambda: ships(path), 60)
            time.sleep(chosen.random() * 0.2)
            program.send_signal(signal.SIGTERM)
            assert program.wait(ENDS_S) == 0
            halfway += before < spool.shipped() < spool.status().accepted
    assert halfway > 0
    settle("SIGTERM in the middle of a backlog", tries, url)


# Clocks


@pytest.fixture
def clock(tmp_path: Path) -> tuple[dict[str, str], Callable[[str], None]]:
    """The environment of a process whose clock is off by what the function was told last, such as `-3d`."""
    libraries = glob("/usr/lib*/faketime/libfaketimeMT.so.1") + glob("/usr/lib/*/faketime/libfaketimeMT.so.1")
    assert libraries, "libfaketime is missing: apt-get install libfaketime"
    file = tmp_path / "clock"

    def turn(by: str) -> None:
        new = file.with_name("clock.new")
        new.write_text(by + "\n")
        new.rename(file)

    turn("+0")
    environment = {
        "LD_PRELOAD": libraries[0],
        "FAKETIME_TIMESTAMP_FILE": str(file),
        "FAKETIME_NO_CACHE": "1",
        "NO_FAKE_STAT": "1",
        # Python measures durations by the monotonic clock, which no one sets.
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "DONT_FAKE_MONOTONIC": "1",
    }
    return environment, turn


PACE_S = 0.02
"""Seconds between two calls: libfaketime makes threads that ask for the time wait for each other, up to 0.7 s."""


def test_clocks_that_jump(
    clock: tuple[dict[str, str], Callable[[str], None]],
    tmp_path: Path,
    url: str,
    start: Start,
    until: Until,
    settle: Settle,
) -> None:
    """A clock set hours and days back and forth: the order is that of the calls, and shipping goes on all the while.

    Seen to ship nothing for a minute with the shipper's durations taken from the clock that was set.
    """
    environment, turn = clock
    path = tmp_path / "audit.spool.db"
    jumps = of(40, 4)
    chosen = random.Random(7)
    jumping = tmp_path / "said-jumping"
    arguments = ("--said", jumping, "--pause", PACE_S, "--ship", "--name", "jumping")
    host = start("-m", "tests.faults.clocked", url, *arguments, env=environment)
    started = ("--said", tmp_path / "said-right", "--pause", PACE_S, "--name", "right")
    right = start("-m", "tests.faults.emitter", url, *started)
    until(lambda: jumping.exists() and jumping.stat().st_size > 200, 60)
    with closing(Spool(path, None)) as spool:
        for _ in range(jumps):
            turn(f"{chosen.choice('+-')}{chosen.randrange(1, 72)}{chosen.choice('hd')}")
            # The next entries have the new time, and are shipped.
            size = jumping.stat().st_size
            until(lambda size=size: jumping.stat().st_size > size + 500, 60)
            upto = spool.status().accepted
            until(lambda upto=upto: spool.shipped() >= upto, 60)
    for program in (host, right):
        assert program.poll() is None
        program.kill()
        program.wait()
    # To a clock that is a day ahead, what was shipped before is a day old, and is trimmed.
    said = settle("clocks that jump by hours and days", jumps, url, first_kept=sys.maxsize)
    times = [id_time(event_id) for event_id, target in said.accepted.items() if target.startswith("jumping")]
    steps = [abs(after - before) for before, after in itertools.pairwise(times)]
    assert sum(step > 3_000_000 for step in steps) >= jumps * 3 // 4  # some are the same again
