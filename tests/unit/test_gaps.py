"""What could not be recorded is counted, survives whatever happens, and is told once."""

from __future__ import annotations

import logging
import os
import random
import signal
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from audit_pipeline import AuditPipeline, SettingsError, SpoolError, SpoolFull, gaps
from audit_pipeline.actions import catalogue
from audit_pipeline.event import AuditEvent, IdFactory
from audit_pipeline.files import locked
from audit_pipeline.gaps import HALF, Gaps
from audit_pipeline.normalize import build_event
from audit_pipeline.query import Query, Window
from audit_pipeline.spool import Limits, Spool
from audit_pipeline.stores import open_store

IDS = IdFactory()


def entry(org: str = "default") -> AuditEvent:
    return build_event(catalogue["domain.created"], {"org": org}, IDS)


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    return tmp_path / "audit.spool.db"


@pytest.fixture
def file(spool: Path) -> Path:
    return spool.with_name(spool.name + ".gaps")


# Counting and telling


def test_counts_are_told_once_for_each_organisation(spool: Path) -> None:
    """Each organisation has an entry that says how many are missing, since when, until when and why; once."""
    counted = Gaps(spool)
    first, second, other = entry("acme"), entry("acme"), entry()
    counted.count([first], "limit")
    counted.count([second], "disk")
    counted.count([other], "read-only")
    assert counted.missing() == 3
    told = counted.told()
    assert told is not None
    acme, default = told.events
    assert (acme.org, acme.action, acme.label, acme.tone, acme.outcome, acme.target) == (
        "acme", "audit.gap", "Audit gap", "red", "failure", "audit.spool.db",
    )  # fmt: skip
    assert acme.context["count"] == 2
    assert acme.context["reason"] == "limit,disk"
    assert acme.timestamp == second.received
    assert acme.detail.startswith("2 entries could not be recorded, from 20")
    assert "AUDIT_SPOOL_LIMIT" in acme.detail
    assert "the disk was full" in acme.detail
    assert (default.org, default.context["count"], default.context["reason"]) == ("default", 1, "read-only")
    assert "1 entry could not" in default.detail
    counted.settle(told)
    assert counted.missing() == 0
    assert counted.told() is None


def test_telling_again_makes_no_doubles(spool: Path) -> None:
    """Until it is settled the same entries are made, with the same ids and content, whatever is counted meanwhile."""
    counted = Gaps(spool)
    counted.count([entry()], "limit")
    first = counted.told()
    counted.count([entry()], "limit")
    again = Gaps(spool).told()
    assert first is not None
    assert again is not None
    store = open_store("memory://")
    assert store.append(first.events) == []
    assert store.append(again.events) == []
    assert store.search(Query("default"), Window(10)).total == 1
    counted.settle(first)
    rest = counted.told()
    assert rest is not None
    assert rest.events[0].id != first.events[0].id
    assert rest.events[0].context["count"] == 1
    counted.settle(first)  # a process that comes late
    assert counted.missing() == 1


def test_processes_share_the_counts(spool: Path) -> None:
    """What several processes count adds up; one that is killed takes none of it along."""
    counted = Gaps(spool)
    counted.reserve()
    children = []
    for _ in range(4):
        child = os.fork()
        if child == 0:
            for _ in range(50):
                counted.count([entry()], "disk")
            os.kill(os.getpid(), signal.SIGKILL)
        children.append(child)
    for child in children:
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert counted.missing() == 200


def test_threads_and_signal_handlers_count_too(spool: Path) -> None:
    """A handler that counts in the middle of its thread's own count neither hangs nor is lost."""
    counted = Gaps(spool)
    handled = [0]

    def handler(*_: object) -> None:
        counted.count([entry()], "limit")
        handled[0] += 1

    before = signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 0.001, 0.002)
    threads = [threading.Thread(target=lambda: [counted.count([entry()], "disk") for _ in range(50)]) for _ in range(3)]
    try:
        for thread in threads:
            thread.start()
        for _ in range(200):
            counted.count([entry()], "limit")
        for thread in threads:
            thread.join()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert handled[0] > 3
    counted.count([entry()], "limit")
    assert Gaps(spool).missing() == counted.missing() == 351 + handled[0]


# The file


# What a handler raises in the middle of a weak reference's end, Python drops, and tells of.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_handlers_that_raise_count_nothing_twice(spool: Path) -> None:
    """A time limit may come at any moment of a count, mostly right after its sync: it is counted, or not; never twice.

    Seen to count 640 of 300.
    """

    class TimeLimit(Exception): ...

    def limit(number: int, frame: object) -> None:
        raise TimeLimit

    chosen = random.Random(5)
    counted = Gaps(spool)
    calls, returned = 300, 0
    before = signal.signal(signal.SIGALRM, limit)
    try:
        for _ in range(calls):
            event = entry()
            try:
                signal.setitimer(signal.ITIMER_REAL, chosen.uniform(0.00002, 0.002))
                counted.count([event], "disk")
                signal.setitimer(signal.ITIMER_REAL, 0)
                returned += 1
            except TimeLimit:
                pass
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert 0 < returned < calls
    assert returned <= counted.missing() <= calls


def test_its_room_is_taken_beforehand(spool: Path, file: Path) -> None:
    """Counting never makes the file larger than it was when it was reserved; it is its owner's alone."""
    counted = Gaps(spool)
    counted.reserve()
    assert file.stat().st_size == 2 * HALF
    assert file.stat().st_blocks * 512 >= 2 * HALF
    assert file.stat().st_mode & 0o777 == 0o600
    for number in range(300):
        counted.count([entry(f"organisation {number % 100}")], "limit")
    assert file.stat().st_size == 2 * HALF
    assert counted.missing() == 300


def test_more_organisations_than_there_is_room_for(spool: Path) -> None:
    """Organisations that find no room are counted together, and told to `default`; the sum is right all the same."""
    counted = Gaps(spool)
    for _ in range(2):
        for number in range(200):
            counted.count([entry(f"organisation {number}")], "disk")
    told = counted.told()
    assert told is not None
    by_org = {event.org: event for event in told.events}
    assert by_org["organisation 0"].context["count"] == 2
    assert "of other organisations could not be recorded" in by_org["default"].detail
    assert sum(event.context["count"] for event in told.events) == 400
    assert len({event.id for event in told.events}) == len(told.events)


def test_an_organisation_whose_name_grows_in_the_file(spool: Path, file: Path) -> None:
    """A name of control characters takes six times its length there: it finds no room, and no count vanishes for it."""
    counted = Gaps(spool)
    made = 51
    counted.count([entry(f"organisation {number}") for number in range(made)], "disk")
    for number in range(3):
        counted.count([entry(chr(1 + number) * 256)], "disk")
        assert Gaps(spool).missing() == counted.missing() == made + number + 1
    assert counted.in_memory() == 0
    assert file.stat().st_size == 2 * HALF


def test_counts_that_would_take_more_than_their_room_stay_in_memory(
    spool: Path, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither half is written over; what is counted is told all the same."""
    counted = Gaps(spool)
    counted.count([entry()], "disk")
    monkeypatch.setattr(gaps, "_ROOM", 2 * HALF)
    counted.count([entry(f"organisation {number}") for number in range(100)], "disk")
    assert Gaps(spool).missing() == 1
    assert (counted.missing(), counted.in_memory()) == (101, 100)
    assert file.stat().st_size == 2 * HALF
    told = counted.told()
    assert told is not None
    counted.settle(told)
    assert sum(event.context["count"] for event in told.events) == 100
    rest = counted.told()
    assert rest is not None
    assert [event.org for event in rest.events] == ["default"]


@pytest.mark.parametrize("damage", ["noise", "cut", "gone"])
def test_a_torn_write_leaves_the_counts_before_it(spool: Path, file: Path, damage: str) -> None:
    """Whatever becomes of the half that was just being written, the other one holds."""
    counted = Gaps(spool)
    counted.count([entry(), entry()], "limit")
    before = file.read_bytes()
    counted.count([entry()], "limit")
    after = file.read_bytes()
    written = next(start for start in (0, HALF) if before[start : start + HALF] != after[start : start + HALF])
    noise = {"noise": random.Random(1).randbytes(HALF), "cut": after[written : written + 40].ljust(HALF, b"\0"),
             "gone": bytes(HALF)}[damage]  # fmt: skip
    file.write_bytes(after[:written] + noise + after[written + HALF :])
    assert Gaps(spool).missing() == 2


def test_a_sync_that_failed_is_not_believed(spool: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the disk did not confirm a count, the process keeps it, and it is not counted twice."""
    counted = Gaps(spool)
    counted.count([entry()], "limit")
    real = os.fsync

    def failing(file: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fsync", failing)
    counted.count([entry()], "limit")
    assert Gaps(spool).missing() == 1
    monkeypatch.setattr(os, "fsync", real)
    counted.count([entry()], "limit")
    assert Gaps(spool).missing() == counted.missing() == 3


def test_a_file_that_cannot_be_written(spool: Path, file: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The process counts in memory, says so once, tells from there, and brings it into the file when it can."""
    file.mkdir()
    counted = Gaps(spool)
    with caplog.at_level(logging.ERROR):
        counted.count([entry(), entry()], "disk")
        counted.count([entry()], "disk")
    assert caplog.text.count("counted in memory") == 1
    assert counted.missing() == 3
    told = counted.told()
    assert told is not None
    assert told.events[0].context["count"] == 3
    counted.settle(told)
    assert counted.missing() == 0
    counted.count([entry()], "disk")
    file.rmdir()
    counted.count([entry()], "disk")
    assert Gaps(spool).missing() == counted.missing() == 2


def test_a_log_handler_that_counts_waits_for_nobody(spool: Path, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One thread counts in a handler of logs, and another one has to log that the file cannot be written."""
    file.mkdir()
    counted = Gaps(spool)
    handles, counts = threading.Event(), threading.Event()

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.name == "app":
                handles.set()
                assert counts.wait(5)
                counted.count([entry()], "disk")

    def locked_slowly(*given: object) -> object:
        monkeypatch.undo()
        counts.set()
        time.sleep(0.1)  # until the handler waits
        return locked(*given)  # type: ignore[arg-type]

    def count() -> None:
        assert handles.wait(5)
        counted.count([entry()], "disk")

    monkeypatch.setattr(gaps, "locked", locked_slowly)
    handler = Handler()
    logging.getLogger().addHandler(handler)
    logs = threading.Thread(target=logging.getLogger("app").error, args=("trouble",), daemon=True)
    threads = [logs, threading.Thread(target=count, daemon=True)]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(5)
            assert not thread.is_alive()
    finally:
        logging.getLogger().removeHandler(handler)
    assert counted.missing() == 2


# In a pipeline


FULL = Limits(2**20)


def fill(audit: AuditPipeline) -> None:
    while audit.spool.refusal() is None:
        audit.accept([audit.prepare(catalogue["domain.created"], {"detail": "d" * 60_000})])


def test_fail_closed_raises(tmp_path: Path) -> None:
    """By default the log call raises; nothing is counted, and no file for it is made."""
    with closing(AuditPipeline(open_store("memory://"), tmp_path / "s.db", limits=FULL, ship=False)) as audit:
        fill(audit)
        with pytest.raises(SpoolFull, match="AUDIT_SPOOL_LIMIT"):
            audit.record("domain.created")
        with pytest.raises(SpoolFull):
            audit.processor(None, "info", {"event": "domain.created"})
        assert audit.refused == {"limit": 2}
        assert audit.gaps.missing() == 0
    assert not list(tmp_path.glob("*.gaps"))


def test_fail_open_counts_and_records_the_gap(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The log call returns, and says once that it counts; when the spool takes entries again, the gap comes first."""
    store = open_store("memory://")
    with closing(AuditPipeline(store, tmp_path / "s.db", limits=FULL, ship=False, on_full="fail_open")) as audit:
        fill(audit)
        accepted = audit.status().accepted
        with caplog.at_level(logging.WARNING):
            for _ in range(20):
                assert audit.record("domain.created", org="acme")
            assert audit.processor(None, "info", {"event": "domain.deleted"}) == {"event": "domain.deleted"}
        assert caplog.text.count("not recorded at the moment, and counted") == 1
        assert (audit.refused, audit.gaps.missing()) == ({"limit": 21}, 21)
        with pytest.raises(SpoolFull):
            audit.accept([audit.prepare(catalogue["domain.created"], {})])
        with pytest.raises(SpoolFull):
            audit.record("audit.exported")  # an export that cannot be recorded does not happen
        assert audit.gaps.missing() == 21
        audit.spool.mark_shipped(accepted)
        with caplog.at_level(logging.WARNING):
            event_id = audit.record("domain.created", target="after")
        assert "what is missing is told by 2 of them" in caplog.text
        acme, default, after = audit.spool.pending()
        assert (acme.action, acme.org, acme.context["count"], acme.context["reason"]) == (
            "audit.gap",
            "acme",
            20,
            "limit",
        )
        assert (default.action, default.org, default.context["count"]) == ("audit.gap", "default", 1)
        assert after.id == event_id
        audit.record("domain.created")
        assert len(audit.spool.pending()) == 4


def test_a_gap_is_told_though_no_log_call_comes(tmp_path: Path) -> None:
    """The process that ships tells of a gap that a process counted which has ended since."""
    store = open_store("memory://")
    path = tmp_path / "s.db"
    with closing(AuditPipeline(store, path, limits=FULL, ship=False, on_full="fail_open")) as audit:
        fill(audit)
        audit.record("domain.created")
    with closing(AuditPipeline(store, path)) as shipping:
        _eventually(lambda: shipping.gaps.missing() == 0 and shipping.status().pending == 0)
        assert "audit.gap" in {event.action for event in store.search(Query("default"), Window(1000)).items}


def _eventually(condition: Callable[[], bool], seconds: float = 15.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.01)


def test_a_crash_between_telling_and_forgetting_makes_no_double(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the process ends right after the gap was appended, the next one appends it again, and the store has one."""
    store = open_store("memory://")
    path = tmp_path / "s.db"
    with closing(AuditPipeline(store, path, limits=FULL, ship=False, on_full="fail_open")) as audit:
        fill(audit)
        audit.record("domain.created")
        audit.spool.mark_shipped(audit.status().accepted)
        monkeypatch.setattr(Gaps, "settle", lambda *_: None)
        audit.record("domain.created", target="after")
    monkeypatch.undo()
    with closing(AuditPipeline(store, path)) as again:
        again.record("domain.created", target="later")
        assert again.flush(10)
        found = [event for event in store.search(Query("default"), Window(1000)).items if event.action == "audit.gap"]
        assert [event.context["count"] for event in found] == [1]
        assert again.spool.quarantined() == []


def test_fail_open_goes_on_without_a_spool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A spool that cannot be opened at start does not stop the host that chose so; one of another store does."""
    folder = tmp_path / "later"
    store = open_store("memory://")
    with pytest.raises(SpoolError, match="cannot be created"):
        AuditPipeline(store, folder / "s.db", ship=False)
    with closing(AuditPipeline(store, folder / "s.db", ship=False, on_full="fail_open")) as audit:
        audit.record("domain.created")
        assert audit.refused == {"unusable": 1}
        folder.mkdir()
        audit.record("domain.created", target="after")
        assert [event.action for event in audit.spool.pending()] == ["audit.gap", "domain.created"]
    Spool(tmp_path / "other.db", "another store").close()
    with pytest.raises(SpoolError, match="serves the store"):
        AuditPipeline(store, tmp_path / "other.db", ship=False, on_full="fail_open")


def test_on_full_is_one_of_two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The call wins over the environment; what is neither is refused."""
    with pytest.raises(SettingsError, match="fail_closed, fail_open"):
        AuditPipeline.open("memory://", on_full="open")
    monkeypatch.setenv("AUDIT_ON_FULL", "fail_open")
    monkeypatch.setenv("AUDIT_SPOOL_LIMIT", str(2**20))
    monkeypatch.setenv("AUDIT_SPOOL_AGE", "3600")
    with AuditPipeline.open(f"sqlite:///{tmp_path / 'audit.db'}", ship=False) as audit:
        assert audit.limits == Limits(2**20, 3600)
        fill(audit)
        audit.record("domain.created")
        assert audit.gaps.missing() == 1
    with (
        AuditPipeline.open(f"sqlite:///{tmp_path / 'audit.db'}", ship=False, on_full="fail_closed") as audit,
        pytest.raises(SpoolFull),
    ):
        audit.record("domain.created")
