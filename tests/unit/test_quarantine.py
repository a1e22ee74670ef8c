"""Offering what is in quarantine again: what leaves it, what stays, and that no interruption doubles anything."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import apsw
import pytest

from audit_pipeline import AuditPipeline, StoreUnavailable
from audit_pipeline import spool as spool_module
from audit_pipeline.actions import catalogue
from audit_pipeline.event import AuditEvent, IdFactory, id_time, is_id
from audit_pipeline.normalize import build_event
from audit_pipeline.quarantine import retry, with_new_id
from audit_pipeline.query import Query, Window
from audit_pipeline.spool import Quarantined, Spool
from audit_pipeline.stores import Refusal, Store, open_store
from audit_pipeline.stores.memory import MemoryStore

IDS = IdFactory()
TAKEN = "its id is taken by an entry of other content"


def entry(target: str = "", **given: object) -> AuditEvent:
    return build_event(catalogue["domain.created"], given | {"target": target}, IDS)


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    with closing(Spool(tmp_path / "audit.spool.db", "store")) as opened:
        yield opened


def quarantine(spool: Spool, events: Sequence[AuditEvent], reason: str = "because") -> list[AuditEvent]:
    """Put entries into a spool, as the shipper does with those that the store refuses."""
    spool.append(events)
    placed = spool.pending()
    spool.mark_shipped(placed[-1].sequence, [Quarantined(event, reason) for event in placed])
    return placed


def stored(store: Store) -> list[str]:
    return sorted(event.target for event in store.search(Query("default"), Window(1000)).items)


class Picky(MemoryStore):
    """Refuses what is called bad, breaks down over poison, and is down where told."""

    down = False

    def __init__(self) -> None:
        super().__init__()
        self.offered: list[str] = []

    def append(self, events: Sequence[AuditEvent]) -> list[Refusal]:
        if self.down:
            raise StoreUnavailable("down")
        self.offered += [event.id for event in events]
        if any(event.target == "poison" for event in events):
            raise TypeError("of all things")
        bad = [event for event in events if event.target.startswith("bad")]
        refusals = super().append([event for event in events if event not in bad])
        return refusals + [Refusal(event, "it is bad") for event in bad]


def test_what_the_store_takes_leaves_and_what_it_refuses_stays(spool: Spool) -> None:
    """Entries that are taken leave the quarantine as they are; the others stay, each with its new reason."""
    store = Picky()
    good, bad, poison, last = quarantine(spool, [entry("good"), entry("bad"), entry("poison"), entry("last")])
    before = spool.quarantine()
    done = retry(spool, store, before)
    assert done.stored == [good.sequence, last.sequence]
    reasons = {bad.sequence: "it is bad", poison.sequence: "the store breaks down over it (TypeError)"}
    assert done.kept == reasons
    left = spool.quarantine()
    assert {row.sequence: row.reason for row in left} == reasons
    assert [row.at for row in left] == [row.at for row in before[1:3]]
    assert [row.event for row in left] == [bad, poison]
    assert store.get("default", good.id) == good
    assert retry(spool, store, left).stored == []


def test_only_what_is_chosen_is_offered(spool: Spool) -> None:
    """Rows that are not given to it stay as they are."""
    store = Picky()
    quarantine(spool, [entry("one"), entry("two"), entry("three")])
    assert retry(spool, store, spool.quarantine()[1:2]).stored == [2]
    assert stored(store) == ["two"]
    assert [row.sequence for row in spool.quarantine()] == [1, 3]


def test_a_store_that_is_down_changes_nothing(spool: Spool) -> None:
    """While the store does not answer, the quarantine stays as it is, and the error is the store's."""
    store = Picky()
    store.down = True
    quarantine(spool, [entry("one")])
    before = spool.quarantine()
    with pytest.raises(StoreUnavailable):
        retry(spool, store, before, new_ids=True)
    assert spool.quarantine() == before


def test_damaged_rows_stay(spool: Spool) -> None:
    """What cannot be read is offered to no store; once it can be read, it is."""
    store = Picky()
    quarantine(spool, [entry("one"), entry("two")])
    with closing(apsw.Connection(str(spool.path))) as db:
        body = db.execute("SELECT body FROM quarantine WHERE sequence = 1").get
        db.execute("UPDATE quarantine SET body = x'7b' WHERE sequence = 1")
    done = retry(spool, store, spool.quarantine(), new_ids=True)
    assert (done.stored, done.kept) == ([2], {1: "because"})
    (row,) = spool.quarantine()
    assert (row.sequence, row.event) == (1, None)
    with closing(apsw.Connection(str(spool.path))) as db:
        db.execute("UPDATE quarantine SET body = ? WHERE sequence = 1", (body,))
    assert retry(spool, store, spool.quarantine()).stored == [1]


def test_an_entry_whose_id_is_taken_gets_a_new_one(spool: Spool) -> None:
    """With `new_ids` it is stored beside the other one, under an id of its own time, and says which id it had."""
    store = Picky()
    first = entry("first")
    store.append([first])
    yesterday = first.timestamp / 1000 - 86_400
    newcomer, bad = quarantine(spool, [entry("newcomer", id=first.id, timestamp=yesterday), entry("bad")], TAKEN)
    assert retry(spool, store, spool.quarantine()).kept == {1: TAKEN, 2: "it is bad"}
    done = retry(spool, store, spool.quarantine(), new_ids=True)
    assert (done.stored, done.kept) == ([1], {2: "it is bad"})
    kept = store.get("default", done.renamed[1])
    assert kept is not None
    assert is_id(kept.id)
    assert id_time(kept.id) == kept.timestamp == newcomer.timestamp
    assert (kept.target, kept.origin, kept.sequence) == ("newcomer", newcomer.origin, newcomer.sequence)
    assert kept.problems == (*newcomer.problems, f"id: {first.id} was taken by another entry; a new one was made")
    assert store.get("default", first.id) == first
    assert stored(store) == ["first", "newcomer"]
    assert [row.event for row in spool.quarantine()] == [bad]
    assert with_new_id(bad).id not in store.offered  # its id is its own


def test_an_entry_that_is_refused_under_its_new_id_too_stays(spool: Spool) -> None:
    """A new id is no way around other reasons: the entry stays as it was given, with the reason."""
    store = Picky()
    first = entry("first")
    store.append([first])
    (bad,) = quarantine(spool, [entry("bad", id=first.id)], TAKEN)
    done = retry(spool, store, spool.quarantine(), new_ids=True)
    assert (done.stored, done.renamed, done.kept) == ([], {}, {1: "it is bad"})
    assert with_new_id(bad).id in store.offered
    assert [(row.event, row.reason) for row in spool.quarantine()] == [(bad, "it is bad")]


def test_a_new_id_is_always_the_same(spool: Spool) -> None:
    """It follows from what the entry says and its old id: other content or another id makes another one."""
    one, two = quarantine(spool, [entry("same"), entry("same")])
    assert with_new_id(one) == with_new_id(one)
    made = {with_new_id(event).id for event in (one, two, replace(one, target="other"))}
    assert len(made) == 3
    again = replace(one, origin="other", sequence=9, received=7)
    assert with_new_id(again).id == with_new_id(one).id


def test_an_entry_that_was_refused_twice_is_one(spool: Spool) -> None:
    """Sent again, or imported again, it lies in quarantine twice; under its new id it is stored once."""
    store = Picky()
    first = entry("first")
    store.append([first])
    newcomer = entry("newcomer", id=first.id)
    quarantine(spool, [newcomer, replace(newcomer, received=newcomer.received + 5)], TAKEN)
    done = retry(spool, store, spool.quarantine(), new_ids=True)
    assert (done.stored, done.kept) == ([1, 2], {})
    assert len(set(done.renamed.values())) == 1
    assert stored(store) == ["first", "newcomer"]
    assert spool.quarantine() == []


# Ends itself with -9 after the store has the entries, and before the spool knows of it.
KILLED = """
import os, signal, sys
from pathlib import Path
from audit_pipeline.quarantine import retry
from audit_pipeline.spool import Spool
from audit_pipeline.stores import open_store

spool, store = Spool(Path(sys.argv[2]), None), open_store(sys.argv[1])
spool.settle = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
retry(spool, store, spool.quarantine(), new_ids=True)
"""


def test_a_retry_that_is_killed_doubles_nothing(spool: Spool, tmp_path: Path) -> None:
    """Killed with -9 between store and spool, a retry is done again: the same ids, each entry once, nothing left."""
    url = f"sqlite:///{tmp_path / 'audit.db'}"
    with closing(open_store(url)) as store:
        first = [entry("first") for _ in range(3)]
        store.append(first)
        quarantine(spool, [entry("again", id=event.id) for event in first] + [entry("free")], TAKEN)
        before = spool.quarantine()
        for _ in "ab":
            killed = subprocess.run([sys.executable, "-c", KILLED, url, str(spool.path)], timeout=60)
            assert killed.returncode == -9
            assert spool.quarantine() == before
            assert stored(store) == ["again"] * 3 + ["first"] * 3 + ["free"]
        done = retry(spool, store, before, new_ids=True)
        assert (done.stored, len(done.renamed), done.kept) == ([1, 2, 3, 4], 3, {})
        assert stored(store) == ["again"] * 3 + ["first"] * 3 + ["free"]
        assert spool.quarantine() == []


def test_what_was_retried_is_not_shipped_again(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The mark of what is shipped has passed an entry in quarantine: it stays there, or leaves, whatever is trimmed."""
    monkeypatch.setattr(spool_module, "KEEP_MS", -1000)
    quarantine(spool, [entry("one"), entry("two")])
    spool.append([entry("three")])
    assert spool.trim() == 2
    assert [row.event.target for row in spool.quarantine() if row.event] == ["one", "two"]
    retry(spool, Picky(), spool.quarantine()[:1])
    assert [event.target for event in spool.pending()] == ["three"]
    assert (spool.status().accepted, spool.status().pending, spool.status().quarantined) == (3, 1, 1)


def test_a_retry_gets_along_with_emitters_and_shipper(tmp_path: Path) -> None:
    """While entries are recorded, shipped and refused, retries in another connection lose none and double none."""
    url = f"sqlite:///{tmp_path / 'audit.db'}"
    taken = entry("taken")
    with AuditPipeline.open(url) as audit, closing(open_store(url)) as store:
        store.append([taken])

        def emit() -> None:
            for number in range(300):
                audit.record("domain.created", target=f"{number}", id=taken.id if number % 3 == 0 else None)

        with closing(Spool(audit.spool.path, None)) as spool:
            emitting = threading.Thread(target=emit)
            emitting.start()
            renamed: dict[int, str] = {}
            end = time.monotonic() + 30
            while len(renamed) < 100 and time.monotonic() < end:
                renamed |= retry(spool, store, spool.quarantine(), new_ids=True).renamed
            emitting.join()
            assert audit.flush(20)
            assert len(set(renamed.values())) == 100
            assert spool.quarantine() == []
        assert stored(store) == sorted([*map(str, range(300)), "taken"])
