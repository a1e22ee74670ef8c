"""Processes that emit, and a shipper that is killed again and again: each entry is stored exactly once."""

from __future__ import annotations

import itertools
import random
import signal
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

from audit_pipeline.query import Query, Window, sort_key
from audit_pipeline.stores import Store, open_store

PROCESSES = 4
EVENTS = 100_000

# The oracle: an id is written down after its call returned, so it is one that was promised to be kept.
EMITTER = """
import sys
from audit_pipeline import AuditPipeline
store, number, events = sys.argv[1], sys.argv[2], int(sys.argv[3])
with AuditPipeline.open(store, ship=False) as audit, open(sys.argv[4], "w") as said:
    for place in range(events):
        event_id = audit.record("domain.created", target=f"{number}-{place}.example.com", user="alice", ip="192.0.2.1")
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


def test_four_processes_emit_while_the_shipper_is_killed(tmp_path: Path) -> None:
    """100,000 events of four processes on one spool, its shipper killed with -9 throughout: none lost, none doubled.

    Without the store's idempotence (a key of organisation and id) entries double; with the mark moved before the
    store has a batch, they are lost.
    """
    url = f"sqlite:///{tmp_path / 'audit.db'}"
    files = [tmp_path / f"said-{number}" for number in range(PROCESSES)]
    emitters = [
        subprocess.Popen([sys.executable, "-c", EMITTER, url, str(number), str(EVENTS // PROCESSES), str(file)])
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
        assert [emitter.returncode for emitter in emitters] == [0] * PROCESSES
        promised = set(itertools.chain.from_iterable(file.read_text().split() for file in files))
        assert len(promised) == EVENTS
        with closing(open_store(url)) as store:
            end = time.monotonic() + 120
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
