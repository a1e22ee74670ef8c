"""`copy`, as a process, from every lasting store into every lasting store."""

from __future__ import annotations

import json
import os
import random
import signal
import stat
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest

from audit_pipeline.event import AuditEvent
from audit_pipeline.query import Query
from audit_pipeline.stores import open_store, store_names

from ..places import new_store_url
from .conftest import ORACLE
from .generate import random_entry

LASTING = [name for name in store_names() if name != ORACLE]
PAIRS = list(product(LASTING, LASTING))
ORGS = ("default", "acme", "ü 'x' \\ % 𐐷")
COMMAND = (sys.executable, "-m", "audit_pipeline")

# Runs a copy that ends itself by a signal around the writing of its second mark, and counts what it offers.
INTERRUPTED = """
import os, sys
from audit_pipeline import cli, copying

when, number, url_from, url_to = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4]
marks = offered = 0
really_offer, really_note = copying.offer_patiently, copying.Copy._note

def offer(store, events, called):
    global offered
    offered += len(events)
    return really_offer(store, events, called)

def note(*given):
    global marks
    marks += 1
    if when == "before" and marks == 2:
        os.kill(os.getpid(), number)
    really_note(*given)
    if when == "after" and marks == 2:
        os.kill(os.getpid(), number)

copying.offer_patiently, copying.Copy._note = offer, note
sys.argv[1:] = ["copy", url_from, url_to, "--json"]
try:
    cli.main()
finally:
    print(offered)
"""


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that a copy's mark is kept in."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "state" / "audit-pipeline"


@pytest.fixture(params=PAIRS, ids="-".join)
def places(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, str]:
    """The URLs of two new stores, to copy from the one into the other."""
    for name in ("from", "to"):
        (tmp_path / name).mkdir()
    source, target = request.param
    return new_store_url(source, tmp_path / "from"), new_store_url(target, tmp_path / "to")


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*arguments], capture_output=True, text=True, timeout=120, check=False, env=dict(os.environ))


def copy(places: tuple[str, str], *options: str) -> subprocess.CompletedProcess[str]:
    return run(*COMMAND, "copy", *places, *options)


def interrupted(places: tuple[str, str], when: str, number: int) -> subprocess.CompletedProcess[str]:
    return run(sys.executable, "-c", INTERRUPTED, when, str(int(number)), *places)


def lot(seed: int, number: int, orgs: tuple[str, ...] = ORGS) -> list[AuditEvent]:
    """Entries of some organisations that came through two spools."""
    chosen = random.Random(seed)
    made = {}
    for place in range(number):
        event = replace(random_entry(chosen), org=chosen.choice(orgs))
        made[event.org, event.id] = replace(event, origin=f"{seed}{place % 2}", sequence=place // 2 + 1)
    return list(made.values())


def keep(url: str, events: list[AuditEvent]) -> None:
    with closing(open_store(url)) as store:
        assert store.append(events) == []


def content(url: str) -> list[tuple[str, int, bytes]]:
    """All that a store has: of each entry its canonical bytes, and its place in its spool."""
    found = []
    with closing(open_store(url)) as store:
        for org in store.organisations():
            with closing(store.snapshot(Query(org), 1_000_000)) as snapshot:
                found += [_whole(event) for batch in snapshot.batches() for event in batch]
    return sorted(found)


def _whole(event: AuditEvent) -> tuple[str, int, bytes]:
    return event.origin, event.sequence, event.to_bytes()


def test_a_copy_has_the_same_entries(places: tuple[str, str], state: Path) -> None:
    """Every entry of every organisation comes as it is, origin and sequence included; a second run adds what came
    since, older entries among it, and disturbs nothing."""
    first, later = lot(1, 1500), lot(2, 40)
    oldest = min(first, key=lambda event: event.timestamp)
    later.append(replace(oldest, timestamp=oldest.timestamp - 5_000_000, id=oldest.id[:-1] + "0", target="older"))
    keep(places[0], first)
    done = copy(places, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout) == {"entries": len(first), "refused": 0, "resumed": False}
    assert content(places[1]) == content(places[0]) == sorted(map(_whole, first))
    keep(places[0], later)
    done = copy(places)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"{len(first) + len(later):,} entries are in ")
    assert content(places[1]) == sorted(map(_whole, first + later))
    assert list(state.iterdir()) == []


@pytest.mark.parametrize(("when", "left"), [("before", 1400), ("after", 400)])
def test_a_killed_copy_goes_on_where_it_was(places: tuple[str, str], state: Path, when: str, left: int) -> None:
    """Killed with -9 before or after its mark was written, a copy is resumed at the mark: nothing is missing."""
    events = lot(3, 2200, ("acme", "default"))[:2100]
    events = [replace(event, org="acme" if place < 700 else "default") for place, event in enumerate(events)]
    keep(places[0], events)
    killed = interrupted(places, when, signal.SIGKILL)
    assert killed.returncode == -signal.SIGKILL
    assert len(content(places[1])) == 1700
    (file,) = state.glob("copy-*.json")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    resumed = interrupted(places, "never", 0)
    counts, offered = resumed.stdout.splitlines()
    assert resumed.returncode == 0
    assert "resumed at 2" in resumed.stderr
    assert "once more" in resumed.stderr
    assert json.loads(counts) == {"entries": 2100, "refused": 0, "resumed": True}
    assert int(offered) == left
    assert content(places[1]) == sorted(map(_whole, events))
    assert not list(state.glob("copy-*.json"))


def test_what_the_target_refuses_stays_behind(places: tuple[str, str]) -> None:
    """Other content under a taken id stays where it is, three are named, all are counted, and the rest is copied."""
    events = lot(4, 60)
    taken = [replace(event, target="other", origin="theirs") for event in events[:5]]
    keep(places[0], events)
    keep(places[1], taken)
    done = copy(places)
    assert done.returncode == 3
    assert done.stdout.endswith(" now; 5 entries refused\n")
    assert done.stdout.startswith(f"{len(events) - 5} entries are in ")
    named = done.stderr.splitlines()
    assert len(named) == 3
    assert all("content" in line and any(event.id in line for event in taken) for line in named)
    assert content(places[0]) == sorted(map(_whole, events))
    assert content(places[1]) == sorted(map(_whole, taken + events[5:]))
