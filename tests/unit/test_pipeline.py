"""Processor, spool and shipper together, as an application meets them."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import apsw
import pytest
import structlog

from audit_pipeline import (
    AuditPipeline,
    InvalidEvent,
    SettingsError,
    SpoolError,
    StoreUnavailable,
    UnknownAction,
    bind_actor,
)
from audit_pipeline.actions import catalogue
from audit_pipeline.event import AuditEvent
from audit_pipeline.query import Query, Window
from audit_pipeline.settings import Settings
from audit_pipeline.shipper import Shipper
from audit_pipeline.shipping import ShippingLock
from audit_pipeline.stores import Refusal, open_store
from audit_pipeline.stores.memory import MemoryStore

ALL = Query("default")


def eventually(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    """Wait until something holds that another thread or process brings about."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.005)


def stored(store: Any) -> list[AuditEvent]:
    return list(store.search(ALL, Window(1000)).items)


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'audit.db'}"


@pytest.fixture
def audit(url: str) -> Iterator[AuditPipeline]:
    with AuditPipeline.open(url) as pipeline:
        yield pipeline


def logger(pipeline: AuditPipeline, *after: Any) -> Any:
    """A structlog logger as the README configures one, that gives back what was passed on."""
    processors = [structlog.contextvars.merge_contextvars, pipeline.processor, *after]
    return structlog.wrap_logger(structlog.ReturnLogger(), processors=[*processors, lambda *given: given[2]])


def only(pipeline: AuditPipeline) -> AuditEvent:
    assert pipeline.flush()
    (event,) = stored(pipeline.store)
    return event


# The processor


def test_a_catalogued_event_becomes_an_entry(audit: AuditPipeline) -> None:
    """A log call with an action's name is an entry with who, what, where; other keys are its context."""
    with bind_actor(user="alice@example.com", ip="203.0.113.9", request_id="r1"):
        logger(audit).info("domain.created", target="example.com", detail="DKIM enabled", plan="pro", password="x")
    event = only(audit)
    assert (event.action, event.target, event.detail) == ("domain.created", "example.com", "DKIM enabled")
    assert (event.user, event.ip, event.outcome, event.org) == (
        "alice@example.com",
        "203.0.113.9",
        "success",
        "default",
    )
    assert event.context == {"plan": "pro", "password": "[redacted]", "request_id": "r1"}
    assert event.problems == ()


def test_every_event_passes_on_unchanged(audit: AuditPipeline) -> None:
    """The processor gives each event on as it got it, with nothing added, and no address."""
    with bind_actor(user="alice", ip="203.0.113.9"):
        for given in (
            {"event": "domain.created", "target": "x", "a": 1},
            {"event": "anything else", "b": 2},
            {"event": {"no": "text"}},
        ):
            assert logger(audit).info(**given) == ((), given)
    assert only(audit).target == "x"


def test_uncatalogued_events_are_no_entries(audit: AuditPipeline) -> None:
    """Only an exact action name makes an entry."""
    for name in ("domain.created ", "Domain.created", "domain", "", None, 7):
        logger(audit).info(name)
    assert audit.status().accepted == 0


def test_an_earlier_processors_timestamp_counts(url: str) -> None:
    """The entry's time is the one that a time stamper before the processor set."""
    with AuditPipeline.open(url) as audit:
        log = structlog.wrap_logger(
            structlog.ReturnLogger(),
            processors=[
                lambda _, __, event: event | {"timestamp": "2026-01-02T03:04:05.678901Z"},
                audit.processor,
                lambda *given: given[2],
            ],
        )
        log.info("domain.created")
        event = only(audit)
    assert event.timestamp == 1_767_323_045_678
    assert event.id.startswith(f"{1_767_323_045_678:012x}"[:8])


def test_what_the_call_says_wins_over_what_is_bound(audit: AuditPipeline) -> None:
    """Who and where given with the event count; the inner binding covers the outer one, field by field."""
    with bind_actor(user="outer", ip="192.0.2.1", org="acme", job="nightly"), bind_actor(user="inner"):
        audit.record("user.created", ip="192.0.2.2", org="default")
    event = only(audit)
    assert (event.user, event.ip, event.org, event.context) == ("inner", "192.0.2.2", "default", {"job": "nightly"})


def test_a_user_who_cannot_be_asked_for_loses_no_entry(audit: AuditPipeline) -> None:
    """Where the application's own look-up raises, the entry is kept, and says so."""

    def broken() -> str:
        raise LookupError("no session")

    with bind_actor(user=broken, ip="192.0.2.1"):
        logger(audit).info("domain.created")
    event = only(audit)
    assert event.context == {"user_lookup_failed": "LookupError"}
    assert "user: none given" in event.problems


def test_bad_input_never_reaches_the_application(audit: AuditPipeline) -> None:
    """A log call with bad values raises nothing, and leaves an entry with its problems."""

    class Unprintable:
        def __str__(self) -> str:
            raise RuntimeError

    logger(audit).info("domain.created", target=Unprintable(), ip="fe80::1%<script>", timestamp="yesterday", n=2**64)
    problems = " ".join(only(audit).problems)
    for name in ("target", "ip", "timestamp", "n:"):
        assert name in problems


def test_on_invalid_raise_refuses_and_records_nothing(url: str) -> None:
    """A pipeline for development raises for each problem, but not for entries that have no user or address."""
    with AuditPipeline.open(url, on_invalid="raise") as audit:
        with pytest.raises(InvalidEvent, match="ip: not an IP address") as error:
            logger(audit).info("domain.created", ip="1.2.3.04", outcome="maybe")
        assert len(error.value.problems) == 2
        assert str(error.value) == (
            "ip: not an IP address (8 characters); outcome: allowed are success and failure: nothing was recorded"
        )
        with bind_actor(user=lambda: str(1 // 0)), pytest.raises(InvalidEvent, match="raised ZeroDivisionError: noth"):
            logger(audit).info("domain.created")
        logger(audit).info("domain.created")
        assert audit.status().accepted == 1


def test_the_direct_call_refuses_unknown_actions(audit: AuditPipeline) -> None:
    """`record` raises UnknownAction, with the nearest ones, and gives back the id of what it recorded."""
    with pytest.raises(UnknownAction, match=r"domain\.created"):
        audit.record("domain.craeted")
    assert audit.record("domain.created", target="x") == only(audit).id


def test_what_is_said_twice_under_one_name_is_kept_twice(audit: AuditPipeline) -> None:
    """A key beside the context, and the same one in it: neither replaces the other."""
    audit.record("domain.created", context={"reason": "a", "reason~2": "b"}, reason="c", why="d")
    assert only(audit).context == {"reason": "a", "reason~2": "b", "reason~3": "c", "why": "d"}


@pytest.mark.parametrize("store", [Path("audit.db"), b"sqlite:///audit.db", 5])
def test_what_is_no_store_is_none(store: Any) -> None:
    """A path, say, is no URL: another store than the one that is meant would take the entries."""
    with pytest.raises(SettingsError, match=r"store: is of type \w+; allowed is a URL"):
        AuditPipeline.open(store)


def test_the_same_id_is_the_same_entry(audit: AuditPipeline) -> None:
    """A caller who gives an id may repeat the call; another content under that id goes to quarantine."""
    event_id = "01a206e3-901f-7632-bda1-8f0c9edc9b83"
    for _ in range(3):
        assert audit.record("domain.created", id=event_id, target="x") == event_id
    audit.record("domain.created", id=event_id, target="y")
    assert only(audit).target == "x"
    assert [one.event.target for one in audit.spool.quarantined()] == ["y"]


def test_masked_storage_writes_no_full_address_anywhere(tmp_path: Path, url: str) -> None:
    """With AUDIT_IP_STORAGE=masked, no file has the full address, the spool's included."""
    with AuditPipeline.open(url, ip_storage="masked") as audit, bind_actor(ip="203.0.113.199"):
        audit.record("domain.created", detail="from 203.0.113.199", user="root@203.0.113.199", agent="203.0.113.199")
        assert only(audit).ip == "203.0.113.xxx"
    assert all(b"113.199" not in file.read_bytes() for file in tmp_path.iterdir())


# On its way


def test_on_disk_when_the_call_returns(url: str, tmp_path: Path) -> None:
    """The entry is in the spool file when the log call returns, before anything ships it."""
    with AuditPipeline.open(url, ship=False) as audit:
        event_id = audit.record("domain.created")
        with closing(apsw.Connection(str(tmp_path / "audit.spool.db"))) as db:
            assert event_id.encode() in db.execute("SELECT body FROM entries").get
        assert not (tmp_path / "audit.db").exists()


def test_visible_within_a_second(audit: AuditPipeline) -> None:
    """An entry can be found less than a second after its call returned, also when it is the first one."""
    for number in range(3):
        audit.record("domain.created", target=str(number))
        eventually(lambda expected=number + 1: audit.unshipped() == 0 and len(stored(audit.store)) == expected, 1.0)
        time.sleep(0.15)  # longer than the shipper's look-out: it is asleep again


def test_visible_within_a_second_when_another_process_wrote(audit: AuditPipeline, url: str) -> None:
    """What one process records is shipped by another one's shipper within a second."""
    audit.record("domain.created")
    assert audit.flush()
    subprocess.run(
        [sys.executable, "-c", f"from audit_pipeline import AuditPipeline as A; a = A.open({url!r}, ship=False); "
         "a.record('domain.deleted'); a.close()"],
        check=True, timeout=30,
    )  # fmt: skip
    eventually(lambda: len(stored(audit.store)) == 2, 1.0)


def test_opening_contacts_no_store(tmp_path: Path) -> None:
    """A pipeline opens, and takes entries, while its store cannot be reached; they arrive when it can."""
    folder = tmp_path / "not mounted yet"
    with AuditPipeline.open(f"sqlite:///{folder / 'audit.db'}", spool=tmp_path / "spool.db") as audit:
        audit.record("domain.created")
        assert not audit.flush(0.3)
        assert audit.shipper is not None
        eventually(lambda: isinstance(audit.shipper and audit.shipper.trouble, StoreUnavailable))
        folder.mkdir()
        assert audit.flush(10)
        assert len(stored(audit.store)) == 1
        eventually(lambda: audit.shipper is not None and audit.shipper.trouble is None)


def test_close_is_bounded_and_loses_nothing(tmp_path: Path) -> None:
    """With the store away, close gives up after its time, and the next pipeline ships what was left."""
    url, spool = f"sqlite:///{tmp_path / 'away' / 'audit.db'}", tmp_path / "spool.db"
    audit = AuditPipeline.open(url, spool=spool)
    audit.record("domain.created")
    started = time.monotonic()
    audit.close(0.3)
    assert time.monotonic() - started < 3
    audit.close()
    with pytest.raises(SpoolError, match="closed"):
        audit.record("domain.created")
    (tmp_path / "away").mkdir()
    with AuditPipeline.open(url, spool=spool) as again:
        eventually(lambda: again.spool.status().pending == 0)
        assert len(stored(again.store)) == 1


def test_a_process_that_never_closes_loses_nothing(url: str, tmp_path: Path) -> None:
    """A script that just ends has its entries in the store, or in the spool for the next one."""
    script = f"from audit_pipeline import AuditPipeline as A; A.open({url!r}).record('domain.created'); "
    for ending in ("", "import os; os._exit(0)"):
        subprocess.run([sys.executable, "-c", script + ending], check=True, timeout=30)
    with AuditPipeline.open(url) as audit:
        eventually(lambda: len(stored(audit.store)) == 2)


class FailingStore(MemoryStore):
    """A store that fails as often as it is told, in ways that a store may fail."""

    def __init__(self, *failures: Exception) -> None:
        super().__init__()
        self.failures = list(failures)
        self.batches: list[list[str]] = []

    def append(self, events: Any) -> list[Refusal]:
        self.batches.append([event.id for event in events])
        if self.failures:
            failure = self.failures.pop(0)
            super().append(events[: len(events) // 2])
            raise failure
        return super().append(events)


@pytest.mark.parametrize(
    "renderer", [structlog.processors.JSONRenderer(), structlog.stdlib.ProcessorFormatter.wrap_for_formatter]
)
def test_behind_a_renderer_it_says_where_it_belongs(audit: AuditPipeline, renderer: Any) -> None:
    """What is rendered is no event any more: the TypeError says to put the processor before the renderer."""
    log = structlog.wrap_logger(None, processors=[renderer, audit.processor])
    with pytest.raises(TypeError, match="put it before the renderer"):
        log.info("domain.created")


def test_a_misspelt_setting_is_logged(
    url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What looks like a setting and is none is one warning, with what was meant, and no error."""
    monkeypatch.setenv("AUDIT_IP_STORGE", "masked")
    with AuditPipeline.open(url):
        pass
    (record,) = caplog.records
    assert (record.name, record.levelname) == ("audit_pipeline", "WARNING")
    assert record.getMessage() == "AUDIT_IP_STORGE is no setting. Did you mean AUDIT_IP_STORAGE?"


def test_the_shipper_survives_whatever_a_store_does(caplog: pytest.LogCaptureFixture) -> None:
    """Errors of any kind, also after half a batch was taken, delay shipping; nothing is lost or doubled."""
    store = FailingStore(StoreUnavailable("down"), RuntimeError("a bug"), StoreUnavailable("down"))
    with caplog.at_level(logging.WARNING), AuditPipeline.open(store) as audit:
        ids = [audit.record("domain.created") for _ in range(20)]
        assert audit.flush(15)
        assert sorted(event.id for event in stored(store)) == sorted(ids)
    assert "nothing is shipped at the moment: down" in caplog.text
    assert "a bug" in caplog.text
    assert "shipping again" in caplog.text


def test_an_entry_that_breaks_the_store_does_not_block_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a store breaks down over one entry each time, that one goes to quarantine alone; the others arrive."""
    monkeypatch.setattr("audit_pipeline.shipper.RETRY_S", (0.01, 0.02))

    class Picky(MemoryStore):
        def append(self, events: Any) -> list[Refusal]:
            if any(event.target == "poison" for event in events):
                raise ZeroDivisionError
            return super().append(events)

    with AuditPipeline.open(Picky()) as audit:
        audit.accept([audit.prepare(catalogue["domain.created"], {"target": name}) for name in ("a", "poison", "b")])
        assert audit.flush(10)
        assert {event.target for event in stored(audit.store)} == {"a", "b"}
        (one,) = audit.spool.quarantined()
        assert (one.event.target, one.reason) == ("poison", "the store breaks down over it (ZeroDivisionError)")


def test_entries_are_shipped_in_order() -> None:
    """The store gets entries in the order of their sequence."""
    store = FailingStore()
    with AuditPipeline.open(store) as audit:
        ids = [audit.record("domain.created") for _ in range(200)]
        assert audit.flush()
    assert [event_id for batch in store.batches for event_id in batch] == ids


def test_a_log_call_does_not_wait_for_the_store() -> None:
    """While the store hangs, log calls return as fast as ever."""
    released = threading.Event()

    class HangingStore(MemoryStore):
        def append(self, events: Any) -> list[Refusal]:
            released.wait(20)
            return super().append(events)

    with AuditPipeline.open(HangingStore()) as audit:
        audit.record("domain.created")
        started = time.monotonic()
        for _ in range(20):
            audit.record("domain.created")
        assert time.monotonic() - started < 2
        released.set()
        assert audit.flush()


class Interrupted(Exception):
    pass


def test_a_signal_handler_that_raises_leaves_the_spool_usable(url: str, tmp_path: Path) -> None:
    """A call that a time limit or Ctrl-C breaks off in the middle leaves no lock and no transaction behind."""

    def handler(*_: object) -> None:
        raise Interrupted

    with AuditPipeline.open(url, ship=False) as audit:
        audit.record("domain.created")
        before = signal.signal(signal.SIGALRM, handler)
        with closing(apsw.Connection(str(tmp_path / "audit.spool.db"))) as holder:
            holder.execute("BEGIN IMMEDIATE")
            threading.Timer(0.6, lambda: holder.execute("ROLLBACK")).start()
            signal.setitimer(signal.ITIMER_REAL, 0.2)
            try:
                with pytest.raises(Interrupted):
                    audit.record("domain.created")
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
                signal.signal(signal.SIGALRM, before)
            audit.record("domain.created")
        assert audit.status().accepted == 2


def test_a_signal_handler_may_record_in_the_middle_of_a_call(url: str) -> None:
    """A handler that logs `service.stopped` while its own thread is recording does not hang, and loses neither."""
    with AuditPipeline.open(url, ship=False) as audit:
        handled: list[str] = []

        def handler(*_: object) -> None:
            handled.append(audit.record("service.stopped"))

        before = signal.signal(signal.SIGALRM, handler)
        # Where a call takes longer than it is until the next signal, hardly any but the handler's are made.
        signal.setitimer(signal.ITIMER_REAL, 0.001, 0.01)
        try:
            made = [audit.record("domain.created") for _ in range(600)]
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
        assert len(handled) > 10
        kept = [event.id for event in audit.spool.pending(limit=100_000)]
        assert sorted(kept) == sorted(made + handled)


def test_an_exit_handler_that_runs_after_ours_may_record(url: str) -> None:
    """Handlers run last-in-first-out: one that was registered before the pipeline was opened still records."""
    script = (
        "import atexit; from audit_pipeline import AuditPipeline; made = [];"
        "atexit.register(lambda: made[0].record('service.stopped'));"
        f"made.append(AuditPipeline.open({url!r})); made[0].record('service.started')"
    )
    done = subprocess.run([sys.executable, "-c", script], check=True, timeout=30, capture_output=True, text=True)
    assert done.stderr == ""
    with AuditPipeline.open(url) as audit:
        eventually(lambda: {event.action for event in stored(audit.store)} == {"service.started", "service.stopped"})


def test_a_child_leaves_the_parents_temporary_spool(tmp_path: Path) -> None:
    """With a store in memory, a forked child that ends does not take the parent's spool along."""
    with AuditPipeline.open("memory://") as audit:
        child = os.fork()
        if child == 0:
            try:
                audit.close(0)
            finally:
                os._exit(0)
        os.waitpid(child, 0)
        assert audit.spool.path.exists()
        audit.record("domain.created")


def test_threads_share_a_pipeline(audit: AuditPipeline) -> None:
    """Entries of eight threads all arrive, once each."""
    ids: list[str] = []

    def work() -> None:
        ids.extend(audit.record("domain.created") for _ in range(50))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert audit.flush()
    assert len(set(ids)) == 400
    assert {event.id for event in stored(audit.store)} == set(ids)
    assert audit.store.search(ALL, Window(1)).total == 400


# Processes


def test_one_shipper_at_a_time(tmp_path: Path) -> None:
    """The lock is held by one, in this process or another; closing frees it at once."""
    spool = tmp_path / "spool.db"
    first, second = ShippingLock(spool), ShippingLock(spool)
    assert first.acquire()
    assert not second.acquire()
    first.release()
    assert second.acquire()
    second.release()


def test_another_shipper_takes_over_when_one_is_killed(url: str) -> None:
    """When the process that ships is killed, the entries of the others are shipped by one of them within a second."""
    script = (
        f"from audit_pipeline import AuditPipeline as A; import time; a = A.open({url!r}); a.record('domain.created'); "
    )
    script += "a.flush(); print('ready', flush=True); time.sleep(60)"
    holder = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "ready\n"
        with AuditPipeline.open(url) as audit:
            audit.record("domain.created")
            assert audit.flush()
            holder.send_signal(signal.SIGKILL)
            holder.wait()
            audit.record("domain.created")
            assert audit.flush(1.5)
            assert len(stored(audit.store)) == 3
    finally:
        holder.kill()
        holder.stdout.close() if holder.stdout else None
        holder.wait()


def _in_child(audit: AuditPipeline, number: int) -> None:
    # Nothing of the parent's is open here, and nothing of its threads runs.
    if sys.platform == "linux":
        open_files = {os.path.realpath(f"/proc/self/fd/{name}") for name in os.listdir("/proc/self/fd")}
        databases = [file for file in open_files if file.startswith(str(audit.spool.path.parent)) and ".db" in file]
        assert not [file for file in databases if not file.endswith(".lock")]
    ids = {audit.record("domain.created", target=f"child {number}") for _ in range(10)}
    assert "audit-shipper" in {thread.name for thread in threading.enumerate()}
    assert audit.flush(10)
    assert len(ids) == 10


def test_forked_workers_go_on_with_the_parents_pipeline(url: str) -> None:
    """A pipeline opened before a fork works in parent and children: own connections, own shipper, distinct ids."""
    with AuditPipeline.open(url) as audit:
        audit.record("domain.created", target="parent")
        fork = multiprocessing.get_context("fork")
        children = [fork.Process(target=_in_child, args=(audit, number)) for number in range(4)]
        for child in children:
            child.start()
        for number in range(10):
            audit.record("domain.created", target=f"parent {number}")
        for child in children:
            child.join(30)
        assert [child.exitcode for child in children] == [0, 0, 0, 0]
        assert audit.flush()
        assert audit.store.search(ALL, Window(1)).total == 51


def test_a_fork_in_the_middle_of_log_calls_and_shipping(url: str) -> None:
    """Children forked while other threads record and search can do so themselves, at once, and lose nothing."""
    with AuditPipeline.open(url) as audit:
        audit.record("domain.created")
        assert audit.flush()
        ended = threading.Event()
        made = [1]

        def record() -> None:
            while not ended.is_set():
                audit.record("domain.created")
                made[0] += 1

        def look() -> None:
            while not ended.is_set():
                audit.store.search(ALL, Window(10))

        threads = [threading.Thread(target=record), threading.Thread(target=look)]
        for thread in threads:
            thread.start()
        for _ in range(15):
            child = os.fork()
            if child == 0:
                signal.alarm(20)
                try:
                    audit.record("domain.created")
                    audit.store.search(ALL, Window(10))
                    os._exit(0)
                finally:
                    os._exit(4)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
            made[0] += 1
        ended.set()
        for thread in threads:
            thread.join()
        assert audit.flush(20)
        assert audit.store.search(ALL, Window(1)).total == made[0]


def test_a_forked_child_does_not_keep_the_parents_shipping_lock(tmp_path: Path) -> None:
    """After the parent gave the lock up, a child that was forked meanwhile does not hold it."""
    path = tmp_path / "spool.db"
    shipper = Shipper(path, "memory", open_store("memory://"))
    assert shipper._lock.acquire()
    child = os.fork()
    if child == 0:
        time.sleep(30)
        os._exit(0)
    shipper._lock.release()
    other = ShippingLock(path)
    try:
        eventually(other.acquire)
    finally:
        other.release()
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


# Places


def test_a_store_of_a_newer_version_is_left_alone(url: str, tmp_path: Path) -> None:
    """Entries for a store that a newer version wrote stay in the spool, and the store is not touched."""
    open_store(url).setup()
    with closing(apsw.Connection(str(tmp_path / "audit.db"))) as db:
        db.execute("PRAGMA user_version = 99")
    with AuditPipeline.open(url) as audit:
        audit.record("domain.created")
        assert audit.shipper is not None
        eventually(lambda: "version 99" in str(audit.shipper and audit.shipper.trouble))
        assert audit.status().pending == 1
        audit.close(0)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("postgres://x", "memory://, .*sqlite://"),
        ("audit.db", "has no scheme"),
        ("sqlite://audit.db", "sqlite:///relative.db"),
        ("sqlite:///", "needs a file"),
        ("sqlite:///x.db?mode=ro", "no option 'mode'"),
        ("memory://host", "no host"),
    ],
)
def test_a_wrong_store_url_is_one_clear_line(wrong: str, said: str) -> None:
    """A URL that names no store stops the program at start, with what is allowed."""
    with pytest.raises(SettingsError, match=said) as error:
        AuditPipeline.open(wrong)
    assert "\n" not in str(error.value)
    assert "AUDIT_STORE_URL" in str(error.value)


def test_a_deleted_store_is_noticed(audit: AuditPipeline, tmp_path: Path) -> None:
    """After the store's file was deleted, entries go into a new one, not into a file that nobody sees."""
    audit.record("domain.created", target="first")
    assert audit.flush()
    for file in tmp_path.glob("audit.db*"):
        file.unlink()
    audit.record("domain.created", target="second")
    assert audit.flush()
    with closing(open_store(f"sqlite:///{tmp_path / 'audit.db'}")) as fresh:
        assert [event.target for event in stored(fresh)] == ["second"]


def test_a_context_that_cannot_be_read_loses_no_entry(audit: AuditPipeline) -> None:
    """An application's own mapping that raises is named in the problems."""

    class Broken(Mapping[str, Any]):
        def __getitem__(self, key: str) -> Any:
            raise RuntimeError

        def __iter__(self) -> Iterator[str]:
            raise RuntimeError

        def __len__(self) -> int:
            return 1

    audit.record("domain.created", context=Broken(), target="x")
    event = only(audit)
    assert event.target == "x"
    assert any("could not be read (RuntimeError)" in problem for problem in event.problems)


def test_store_and_spool_may_be_moved_together(tmp_path: Path) -> None:
    """A spool knows its store by the way to it: a folder with both can be moved, and refuses a third one."""
    old, new = tmp_path / "old", tmp_path / "new"
    old.mkdir()
    with AuditPipeline.open(f"sqlite:///{old / 'audit.db'}") as audit:
        audit.record("domain.created")
        assert audit.flush()
    old.rename(new)
    with AuditPipeline.open(f"sqlite:///{new / 'audit.db'}") as audit:
        audit.record("domain.created")
        assert audit.flush()
        assert len(stored(audit.store)) == 2
    with pytest.raises(SpoolError, match="serves the store"):
        AuditPipeline.open(f"sqlite:///{new / 'other.db'}", spool=new / "audit.spool.db")


def test_the_environment_says_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the call leaves out comes from AUDIT_ variables; what it says wins."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AUDIT_STORE_URL", "sqlite:///from-environment.db")
    monkeypatch.setenv("AUDIT_SPOOL", str(tmp_path / "chosen.spool"))
    monkeypatch.setenv("AUDIT_IP_STORAGE", "masked")
    with AuditPipeline.open() as audit:
        audit.record("domain.created", ip="192.0.2.77")
        assert only(audit).ip == "192.0.2.xxx"
        assert audit.spool.path == tmp_path / "chosen.spool"
    assert (tmp_path / "from-environment.db").exists()
    monkeypatch.delenv("AUDIT_SPOOL")
    with AuditPipeline.open("sqlite:///other.db"):
        pass
    assert (tmp_path / "other.spool.db").exists()


def test_what_is_given_beside_settings_wins(tmp_path: Path) -> None:
    """A store or a spool that is named is taken, whatever the settings say."""
    settings = Settings(store_url=f"sqlite:///{tmp_path / 'a.db'}", spool=tmp_path / "a.spool.db")
    with AuditPipeline.open(f"sqlite:///{tmp_path / 'b.db'}", spool=tmp_path / "c.db", settings=settings) as audit:
        audit.record("domain.created")
        assert audit.flush(10)
    assert {path.name for path in tmp_path.glob("*.db")} == {"b.db", "c.db"}
    with AuditPipeline.open(settings=settings) as audit:
        assert audit.spool.path == tmp_path / "a.spool.db"
