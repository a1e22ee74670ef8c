"""`ship --replay`: what the spool still has is sent again, and the store has each entry once."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import apsw
import orjson
import pytest

from audit_pipeline import AuditPipeline, StoreUnavailable, offering
from audit_pipeline import replay as replay_module
from audit_pipeline import spool as spool_module
from audit_pipeline.actions import catalogue
from audit_pipeline.cli import main
from audit_pipeline.event import AuditEvent
from audit_pipeline.quarantine import retry
from audit_pipeline.query import Query, Window
from audit_pipeline.replay import replay
from audit_pipeline.spool import Spool
from audit_pipeline.stores import Refusal, Store, open_store
from audit_pipeline.stores.memory import MemoryStore

TAKEN_ID = "01a206e3-901f-7632-bda1-8f0c9edc9b83"


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'audit.db'}"


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    return tmp_path / "audit.spool.db"


def recorded(url: str, number: int = 50) -> list[str]:
    """Entries that were recorded and stored."""
    with AuditPipeline.open(url) as audit:
        made = [audit.record("domain.created", target=str(place)) for place in range(number)]
        assert audit.flush(10)
    return made


def stored(url: str) -> list[str]:
    with closing(open_store(url)) as store:
        return [event.id for event in store.search(Query("default", sort="timestamp"), Window(5000)).items]


def command(url: str, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "audit_pipeline", "ship", "--replay", "--store", url, *options],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def test_a_store_that_lost_entries_gets_them_again(url: str, tmp_path: Path) -> None:
    """After an old copy of the store was put back, a replay brings what it lacks, and doubles nothing."""
    made = recorded(url)
    old = (tmp_path / "audit.db").read_bytes()
    made += recorded(url)
    (tmp_path / "audit.db").write_bytes(old)
    assert stored(url) == made[:50]
    done = command(url)
    assert done.returncode == 0
    assert done.stdout.startswith("100 entries sent again; the store has each of them once. The first was recorded 20")
    assert done.stdout.endswith("Z; what came before, this spool has no more.\n")
    assert stored(url) == made
    again = command(url, "--json")
    assert orjson.loads(again.stdout).items() >= {"sent": 100, "refused": 0}.items()
    assert stored(url) == made


def test_the_mark_stays_and_others_go_on(url: str, spool: Path) -> None:
    """A replay moves no mark, and runs while another process records and ships."""
    made = recorded(url)
    with AuditPipeline.open(url) as audit:
        ended = threading.Event()
        more: list[str] = []

        def record() -> None:
            while not ended.is_set():
                more.append(audit.record("domain.created"))

        thread = threading.Thread(target=record)
        thread.start()
        try:
            assert command(url).returncode == 0
        finally:
            ended.set()
            thread.join()
        assert audit.flush(20)
        assert audit.spool.shipped() == audit.status().accepted == len(made) + len(more)
    assert sorted(stored(url)) == sorted(made + more)


def test_pending_entries_are_sent_too_and_stay_pending(url: str) -> None:
    """Where nothing ships, a replay stores what waits; it is shipped all the same later, and stored once."""
    with AuditPipeline.open(url, ship=False) as audit:
        made = [audit.record("domain.created") for _ in range(3)]
        assert command(url).stdout.startswith("3 entries sent again")
        assert audit.status().pending == 3
    assert stored(url) == made


def test_what_the_store_refuses_it_refuses_again(url: str) -> None:
    """An entry whose id was taken is named, and stays in quarantine once; the exit status says that it is a part."""
    with AuditPipeline.open(url) as audit:
        audit.record("domain.created", id=TAKEN_ID, target="first")
        audit.record("domain.created", id=TAKEN_ID, target="second")
        assert audit.flush(10)
    done = command(url)
    assert done.returncode == 3
    assert done.stdout.startswith(
        "2 entries sent again; the store has each of them once; 1 entry refused, as before. The first"
    )
    assert "refused: 2: its id is taken" in done.stderr
    with closing(Spool(Path(url.removeprefix("sqlite:///")).with_name("audit.spool.db"), None)) as opened:
        assert len(opened.quarantined()) == 1


def test_what_was_settled_has_its_new_id_again(url: str, tmp_path: Path) -> None:
    """An entry that has got a new id is refused no more; a store that lost it gets it again, under that id, once."""
    with AuditPipeline.open(url) as audit:
        audit.record("domain.created", id=TAKEN_ID, target="first")
        audit.record("domain.created", id=TAKEN_ID, target="second")
        assert audit.flush(10)
        old = tmp_path / "old.db"
        with closing(apsw.Connection(str(tmp_path / "audit.db"))) as db:
            db.execute("VACUUM INTO ?", (str(old),))
        with closing(open_store(url)) as store:
            assert len(retry(audit.spool, store, audit.spool.quarantine(), new_ids=True).renamed) == 1
    settled = stored(url)
    assert len(settled) == 2
    assert TAKEN_ID in settled
    assert command(url).returncode == 0
    assert stored(url) == settled
    for suffix in ("", "-wal", "-shm"):
        (tmp_path / f"audit.db{suffix}").unlink(missing_ok=True)
    old.rename(tmp_path / "audit.db")
    assert stored(url) == [TAKEN_ID]
    done = command(url)
    assert (done.returncode, done.stderr) == (0, "")
    assert stored(url) == settled


def test_a_damaged_row_is_passed_over(url: str, spool: Path) -> None:
    """A row that cannot be read does not hold up those behind it."""
    recorded(url, 10)
    with closing(apsw.Connection(str(spool))) as db:
        db.execute("UPDATE entries SET body = x'00' WHERE sequence IN (1, 5)")
    assert command(url).stdout.startswith("8 entries sent again")


def test_a_store_that_is_away_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch is offered again for a while; then the command ends with the store's error, and can be run again."""
    monkeypatch.setattr(offering, "PAUSE_S", (0.001, 0.002))
    monkeypatch.setattr(offering, "PATIENCE_S", 0.1)
    failures = [StoreUnavailable("down")] * 5

    class Failing(MemoryStore):
        def append(self, events: Sequence[AuditEvent]) -> list[Refusal]:
            if failures:
                raise failures.pop()
            return super().append(events)

    store = Failing()
    with AuditPipeline.open("memory://", ship=False, spool=tmp_path / "s.db") as audit:
        audit.record("domain.created")
        assert [len(batch.events) for batch in replay(audit.spool, store)] == [1]
        failures += [StoreUnavailable("down")] * 10_000
        with pytest.raises(StoreUnavailable):
            list(replay(audit.spool, store))
        failures.clear()
        assert len(list(replay(audit.spool, store))) == 1
        assert store.search(Query("default"), Window(10)).total == 1


@pytest.mark.parametrize(
    ("parts", "more", "skips"),
    [(3, 0, range(1)), (10, 0, range(100, 1900)), (50, 0, range(1999, 2001)), (50, 1, range(2000, 2002))],
    ids=["what was sent already", "a part", "all but the newest", "all"],
)
def test_what_is_deleted_meanwhile_is_counted(
    url: str,
    spool: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    parts: int,
    more: int,
    skips: range,
) -> None:
    """Where trimming overtakes a replay, it says how many entries it did not send, and its exit status is 3."""
    with AuditPipeline.open(url) as audit:
        audit.accept([audit.prepare(catalogue["domain.created"], {}) for _ in range(3000)])
        assert audit.flush(20)
    with closing(Spool(spool, None)) as held:
        # Rows that cannot be read are passed over as before: between two batches too.
        held.file.ask(lambda db: db.execute("UPDATE entries SET body = x'00' WHERE sequence IN (1000, 1001, 1002)"))
    offer, left = replay_module.offer_patiently, [True]

    def slow(store: Store, events: Sequence[AuditEvent], called: str) -> list[Refusal]:
        if left and left.pop():
            with closing(Spool(spool, None)) as held:
                if more:
                    held.append(events[:more])
                held.mark_shipped(held.status().accepted)
                monkeypatch.setattr(spool_module, "KEEP_MS", -(10**6))
                for _ in range(parts):
                    held.trim()
        return offer(store, events, called)

    monkeypatch.setattr(replay_module, "offer_patiently", slow)
    monkeypatch.setattr(sys, "argv", ["audit-pipeline", "ship", "--replay", "--json", "--store", url])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == (3 if skips[0] else 0)
    told = orjson.loads(capsys.readouterr().out)
    assert told["skipped"] in skips
    assert told["skipped"] + told["sent"] in range(2997, 3001)


def test_without_a_spool_it_says_so(url: str) -> None:
    """Where there is no spool, one line says so, and none is made."""
    done = command(url)
    assert done.returncode == 1
    assert "there is no spool yet" in done.stderr
    assert not os.path.exists(url.removeprefix("sqlite:///"))
