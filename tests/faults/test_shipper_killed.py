"""Processes that emit, and a shipper that is killed again and again: each entry is stored exactly once."""

from __future__ import annotations

import itertools
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest

from audit_pipeline.query import Query, Window, sort_key
from audit_pipeline.stores import Store, open_store

from ..engine import start_cluster

PROCESSES = 4
EVENTS = 100_000

# The oracle: an id is written down after its call returned, so it is one that was promised to be kept. The times are
# those around the beginning of a month, so that indices of two months are written at once.
EMITTER = """
import sys
from audit_pipeline import AuditPipeline
store, number, events, file, border = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4], float(sys.argv[5])
with AuditPipeline.open(store, ship=False) as audit, open(file, "w") as said:
    for place in range(events):
        event_id = audit.record(
            "domain.created", target=f"{number}-{place}.example.com", user="alice", ip="192.0.2.1",
            timestamp=border + (place - events / 2) / 10,
        )
        said.write(event_id + "\\n")
"""


def start_shipper(store: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "audit_pipeline", "ship", "--store", store]
    return subprocess.Popen(command, stderr=subprocess.DEVNULL)


def ids_in(store: Store) -> list[str]:
    query = Query("default", sort="timestamp")
    ids: list[str] = []
    window = Window(1000)
    while True:
        page = store.search(query, window)
        ids += [event.id for event in page.items]
        if not page.has_next:
            return ids
        window = Window(1000, after=sort_key(page.items[-1]))


def emit_and_kill(url: str, folder: Path, halfway: Callable[[], None]) -> None:
    """100,000 events of four processes on one spool, its shipper killed with -9 throughout: none lost, none doubled.

    Without the store's idempotence (a key of organisation and id) entries double; with the mark moved before the
    store has a batch, they are lost.
    """
    border = datetime.now(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0).timestamp()
    files = [folder / f"said-{number}" for number in range(PROCESSES)]
    emitters = [
        subprocess.Popen(
            [sys.executable, "-c", EMITTER, url, str(number), str(EVENTS // PROCESSES), str(file), str(border)]
        )
        for number, file in enumerate(files)
    ]
    chosen = random.Random(7)
    kills = 0
    shipper = start_shipper(url)
    try:
        while any(emitter.poll() is None for emitter in emitters):
            # Long enough to get to work, short enough to be hit in the middle of it.
            try:
                shipper.wait(0.4 + chosen.random() * 0.8)
                raise AssertionError(f"the shipper ended by itself, with {shipper.returncode}")
            except subprocess.TimeoutExpired:
                shipper.send_signal(signal.SIGKILL)
                shipper.wait()
                kills += 1
                shipper = start_shipper(url)
            if kills == 8:
                halfway()
        assert [emitter.returncode for emitter in emitters] == [0] * PROCESSES
        promised = set(itertools.chain.from_iterable(file.read_text().split() for file in files))
        assert len(promised) == EVENTS
        with closing(open_store(url)) as store:
            end = time.monotonic() + 180
            while store.search(Query("default"), Window(1)).total < EVENTS and time.monotonic() < end:
                assert shipper.poll() is None
                time.sleep(0.1)
            stored = ids_in(store)
    finally:
        for process in (shipper, *emitters):
            process.kill()
            process.wait()
    assert len(stored) == len(set(stored))
    assert set(stored) == promised
    assert kills >= 10


def test_four_processes_emit_while_the_shipper_is_killed(tmp_path: Path) -> None:
    """Into the embedded store."""
    emit_and_kill(f"sqlite:///{tmp_path / 'audit.db'}", tmp_path, lambda: None)


@pytest.mark.long
def test_four_processes_emit_while_the_engine_is_restarted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Into OpenSearch, in indices of two months, with the engine killed and started again in the middle."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    with closing(start_cluster(1, "1g")) as cluster:

        def restart() -> None:
            cluster.nodes[0].kill()
            cluster.nodes[0].start()
            cluster.wait()

        emit_and_kill(cluster.url("audit-events"), tmp_path, restart)
        names = {index["name"] for index in cluster.call("GET", "/_resolve/index/audit-events-*")["indices"]}
        assert len(names) == 2
