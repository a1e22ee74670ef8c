"""The shipper: what stops it is told to all, and nothing that a store answers loses or sets aside an entry."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from audit_pipeline import AuditPipeline, SpoolError, SpoolFull, StoreError, StoreUnavailable, shipper, shipping
from audit_pipeline import spool as spool_module
from audit_pipeline.actions import catalogue
from audit_pipeline.errors import StoreMismatch, StoreMissing
from audit_pipeline.event import AuditEvent, IdFactory
from audit_pipeline.files import Locked, lockable, locked
from audit_pipeline.normalize import build_event
from audit_pipeline.query import Query, Window
from audit_pipeline.shipper import Shipper
from audit_pipeline.shipping import Shipping, ShippingLock, Stopped, shipping_of
from audit_pipeline.spool import Quarantined, Spool
from audit_pipeline.stores import Refusal, open_store
from audit_pipeline.stores.memory import MemoryStore


def eventually(condition: Callable[[], bool], seconds: float = 15.0) -> None:
    """Wait until something holds that another thread or process brings about."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.005)


real = time.sleep


class Failing(MemoryStore):
    """A store that fails for as long as it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.failure: Exception | None = None
        self.batches: list[list[str]] = []

    def append(self, events: Sequence[AuditEvent]) -> list[Refusal]:
        if self.failure is not None:
            raise self.failure
        self.batches.append([event.id for event in events])
        return super().append(events)


@pytest.fixture
def store() -> Failing:
    return Failing()


@pytest.fixture
def audit(store: Failing, tmp_path: Path) -> Iterator[AuditPipeline]:
    with closing(AuditPipeline(store, tmp_path / "s.db")) as pipeline:
        yield pipeline


# What is told


def test_who_ships_is_told_to_other_processes(tmp_path: Path) -> None:
    """The lock says which process ships; when that has ended, however that was, nobody does."""
    spool = tmp_path / "s.db"
    assert shipping_of(spool) == Shipping(None)
    script = (
        "import sys, time; from pathlib import Path; from audit_pipeline.shipping import ShippingLock;"
        f"ShippingLock(Path({str(spool)!r})).acquire(); print('held', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        assert shipping_of(spool) == Shipping(holder.pid)
        assert not ShippingLock(spool).acquire()
        holder.kill()
    assert shipping_of(spool) == Shipping(None)


def test_a_lock_that_cannot_be_had_leaves_no_file_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a file system has no locks, each try says so, and closes what it opened."""
    spool = tmp_path / "s.db"
    assert ShippingLock(spool).acquire()

    def none(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", none)
    lock, before = ShippingLock(spool), len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        with pytest.raises(SpoolError, match=r"s\.db\.lock: cannot be locked: No locks available"):
            lock.acquire()
    assert shipping_of(spool) == Shipping(None)
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize(
    ("failure", "kind"),
    [
        (StoreUnavailable("no answer within 30 s"), "store-unavailable"),
        (StoreMissing("nothing there"), "store-missing"),
        (StoreMismatch("not ours"), "store-mismatch"),
        (StoreError("refused"), "store-error"),
        (ZeroDivisionError("with values of an entry"), "fault"),
    ],
)
def test_what_stops_shipping_is_told_until_it_is_over(
    audit: AuditPipeline, store: Failing, failure: Exception, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every process can say why nothing is shipped, and since when; the texts of faults stay inside."""
    monkeypatch.setattr(shipper, "RETRY_S", (0.01, 0.05))
    monkeypatch.setattr(shipper, "TRIES", 10**9)
    store.failure = failure
    before = time.time_ns() // 10**6
    audit.record("domain.created")
    eventually(lambda: shipping_of(audit.spool.path).stopped is not None)
    first = shipping_of(audit.spool.path).stopped
    assert first is not None
    assert first.kind == kind
    assert before <= first.since <= time.time_ns() // 10**6
    assert "values" not in first.text
    assert str(failure) in first.text or kind == "fault"
    time.sleep(0.2)
    assert shipping_of(audit.spool.path).stopped == first
    store.failure = None
    assert audit.flush(10)
    eventually(lambda: shipping_of(audit.spool.path).stopped is None)
    assert audit.spool.quarantined() == []


def test_what_stopped_one_process_is_told_by_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Taking over does not make a trouble look new, and a lock that nobody holds still says what it was."""
    clock = iter(range(1000, 2000))
    monkeypatch.setattr(shipping, "now_ms", lambda: next(clock))
    spool = tmp_path / "s.db"
    first, second = ShippingLock(spool), ShippingLock(spool)
    assert first.acquire()
    told = first.tell_stopped(StoreUnavailable("down"))
    first.release()
    assert shipping_of(spool) == Shipping(None, told)
    assert second.acquire()
    assert shipping_of(spool) == Shipping(os.getpid(), told)
    assert second.tell_stopped(StoreUnavailable("still down")) == Stopped("store-unavailable", "still down", told.since)
    second.tell_going()
    assert shipping_of(spool) == Shipping(os.getpid())
    second.release()


def test_a_long_or_damaged_note_is_no_harm(tmp_path: Path) -> None:
    """What is told is cut to a size; what cannot be read says nothing, and does not hinder shipping."""
    spool = tmp_path / "s.db"
    lock = ShippingLock(spool)
    assert lock.acquire()
    assert len(lock.tell_stopped(StoreUnavailable("x" * 10_000)).text) == 1000
    assert shipping_of(spool).stopped is not None
    lock.release()
    for noise in (b"", b"{", b"[]", b'{"process": "?"}', b'{"process": 1, "stopped": {"kind": 1}}'):
        spool.with_name("s.db.lock").write_bytes(noise)
        assert shipping_of(spool).process is None
        assert lock.acquire()
        lock.release()


def test_a_full_spool_is_said_once(
    audit: AuditPipeline, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Where the mark cannot be written, that is one trouble until it can be, not one each time."""
    monkeypatch.setattr(shipper, "RETRY_S", (0.01, 0.05))
    full = [True]
    real = shipper.Spool.mark_shipped

    def mark(self: Any, *given: Any) -> None:
        if full:
            raise SpoolFull("the disk is full")
        real(self, *given)

    monkeypatch.setattr(shipper.Spool, "mark_shipped", mark)
    audit.record("domain.created")
    eventually(lambda: "nothing is shipped at the moment: the disk is full" in caplog.text)
    time.sleep(0.3)
    assert caplog.text.count("nothing is shipped at the moment") == 1
    assert "shipping again" not in caplog.text
    full.clear()
    assert audit.flush(10)
    eventually(lambda: "shipping again after: the disk is full" in caplog.text)


# What a store answers


@contextmanager
def answering(status: int, body: bytes, kind: str = "application/json") -> Iterator[str]:
    """A server that gives every request this answer; its address."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *about: object) -> None:
            pass

        def answer(self) -> None:
            self.rfile.read(int(self.headers.get("content-length") or 0))
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_GET = do_POST = do_PUT = do_HEAD = answer

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.mark.parametrize(
    ("status", "body", "kind", "said"),
    [
        (401, b"Unauthorized", "text/plain", "user, password or API key"),
        (
            401,
            b'{"error":{"type":"security_exception","reason":"missing credentials"}}',
            "application/json",
            "user, pass",
        ),
        (403, b'{"error":{"type":"security_exception","reason":"no permissions"}}', "application/json", "rights"),
        (403, b"", "text/plain", "rights"),
    ],
)
def test_a_wrong_password_stops_shipping_and_sets_nothing_aside(
    tmp_path: Path, status: int, body: bytes, kind: str, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    """While the account is refused, every entry waits; all processes can say why, and no secret is said."""
    with answering(status, body, kind) as host:
        url = f"opensearch://audit:hunter2@{host}"
        with closing(AuditPipeline.open(url, spool=tmp_path / "s.db")) as audit:
            for _ in range(20):
                audit.record("domain.created")
            eventually(lambda: audit.shipper is not None and audit.shipper.retries + bool(audit.shipper.trouble) > 1)
            stopped = shipping_of(audit.spool.path).stopped
            assert stopped is not None
            assert stopped.kind == "store-unavailable"
            assert said in stopped.text
            found = audit.status()
            assert (found.pending, found.quarantined) == (20, 0)
            audit.close(0)
    assert "nothing is shipped at the moment" in caplog.text
    assert "hunter2" not in caplog.text
    assert b"hunter2" not in (tmp_path / "s.db.lock").read_bytes()


# Sizes


def test_a_backlog_goes_in_larger_batches(tmp_path: Path, store: Failing, monkeypatch: pytest.MonkeyPatch) -> None:
    """Full batches grow, up to a limit; what a store did not take, and what comes when all is shipped, do not."""
    monkeypatch.setattr(shipper, "BATCH", 10)
    monkeypatch.setattr(shipper, "BACKLOG", 40)
    with closing(Spool(tmp_path / "s.db", "memory:")) as spool:
        ids = IdFactory()
        made = [build_event(catalogue["domain.created"], {}, ids) for _ in range(200)]
        spool.append(made)
        one = Shipper(tmp_path / "s.db", "memory:", store)
        assert [one._ship_batch(spool) for _ in range(4)] == [10, 20, 40, 40]
        store.failure = StoreUnavailable("no")
        with pytest.raises(StoreUnavailable):
            one._ship_batch(spool)
        store.failure = None
        assert [one._ship_batch(spool) for _ in range(4)] == [10, 20, 40, 20]
        spool.append([build_event(catalogue["domain.created"], {}, ids) for _ in range(30)])
        assert [one._ship_batch(spool) for _ in range(2)] == [10, 20]
    assert [one for batch in store.batches for one in batch][:200] == [event.id for event in made]


# Giving way, and the mark


def test_under_load_entries_gather(audit: AuditPipeline, store: Failing) -> None:
    """While log calls come one after another, they are shipped together, and all of them within a second."""
    end = time.monotonic() + 1.5
    made = []
    while time.monotonic() < end:
        made.append(audit.record("domain.created"))
        time.sleep(0.002)
    eventually(lambda: sum(map(len, store.batches)) == len(made), 1.0)
    assert len(store.batches) <= 15
    assert [one for batch in store.batches for one in batch] == made


@pytest.mark.parametrize("took", [0.0, 0.2, 0.4, 0.65, 0.7])
def test_the_more_come_the_longer_they_gather_and_no_longer_than_they_may(
    audit: AuditPipeline, store: Failing, tmp_path: Path, took: float
) -> None:
    """Few: a third of a second; many: longer, where the store is quick; whatever it takes, within two seconds."""
    one = Shipper(tmp_path / "s.db", "memory:", store)
    assert one._gathering_s(shipper.MANY, took) == shipper.GATHER_S  # nothing was recorded just now
    one.wake()
    few, many = (one._gathering_s(shipped, took) for shipped in (shipper.MANY - 1, shipper.MANY))
    assert few <= many
    assert (many > few) == (took <= 0.4)
    assert took + many + took < 2
    one.hurry()
    assert one._gathering_s(shipper.MANY, took) == shipper.GATHER_S


def test_who_waits_is_not_kept_waiting(audit: AuditPipeline, store: Failing) -> None:
    """Where somebody asks for what is not stored yet, no pause is made for entries to gather."""
    for _ in range(10):
        audit.record("domain.created")
        started = time.monotonic()
        assert audit.flush()
        assert time.monotonic() - started < 0.25
    assert len(store.batches) >= 10


def test_under_load_the_mark_is_written_rarely(audit: AuditPipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is stored is remembered between two marks; when it gets quiet, the mark is there."""
    marks = []
    real = shipper.Spool.mark_shipped
    monkeypatch.setattr(shipper.Spool, "mark_shipped", lambda self, *given: marks.append(given) or real(self, *given))
    end = time.monotonic() + 1.5
    while time.monotonic() < end:
        audit.record("domain.created")
    assert len(marks) <= 3
    eventually(lambda: audit.spool.status().pending == 0, 2.0)


def test_going_through_entries_gives_way(audit: AuditPipeline, store: Failing, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under load the shipper pauses between entries, in reading and in the store alike; for who waits it does not."""
    naps = []
    monkeypatch.setattr(shipper, "NAP_S", 0.0)
    monkeypatch.setattr(
        shipper.time, "sleep", lambda seconds: naps.append(seconds) if seconds == 0.0 else real(seconds)
    )
    assert audit.shipper is not None
    ship = audit.shipper
    ship.stop()
    ship._stop.clear()
    ship._recorded = time.monotonic()
    ship._hurry.clear()
    made = shipper._Unhurried([audit.prepare(catalogue["domain.created"], {}) for _ in range(100)], ship._give_way)
    for _ in made:
        real(2 * shipper.RUN_S)
    assert len(naps) == len(made) == 100
    ship.hurry()
    assert len([event.id for event in made]) == 100
    assert len(naps) == 100


def test_a_mark_that_was_not_written_doubles_nothing(tmp_path: Path) -> None:
    """A process that is killed before its mark leaves entries that are sent again, and stored once."""
    url = f"sqlite:///{tmp_path / 'audit.db'}"
    script = (
        "import os, time; from audit_pipeline import AuditPipeline, shipper; from audit_pipeline.spool import Spool;"
        "Spool.mark_stored = lambda self: None;"
        f"a = AuditPipeline.open({url!r}); [a.record('domain.created') for _ in range(50)];"
        "from audit_pipeline.query import Query, Window\n"
        "while a.store.search(Query('default'), Window(1)).total < 50: time.sleep(0.01)\n"
        "os._exit(0)"
    )
    with closing(open_store(url)) as opened:
        opened.setup()
    subprocess.run([sys.executable, "-c", script], check=True, timeout=30)
    with closing(AuditPipeline.open(url)) as audit:
        eventually(lambda: audit.spool.status().pending == 0)
        assert audit.store.search(Query("default"), Window(1)).total == 50


def test_store_that_hangs_does_not_hold_the_end_up(tmp_path: Path) -> None:
    """close() keeps to its time while the store hangs with a backlog; what is left is in the spool."""
    released = threading.Event()

    class Hanging(MemoryStore):
        def append(self, events: Sequence[AuditEvent]) -> list[Refusal]:
            released.wait(30)
            return super().append(events)

    audit = AuditPipeline(Hanging(), tmp_path / "s.db")
    for _ in range(100):
        audit.record("domain.created")
    started = time.monotonic()
    audit.close(1.0)
    assert time.monotonic() - started < 2.5
    released.set()
    with closing(AuditPipeline(MemoryStore(), tmp_path / "s.db", ship=False)) as again:
        assert again.status().accepted == 100


def test_sigterm_with_a_backlog_is_bounded(tmp_path: Path) -> None:
    """`ship` ends within seconds of SIGTERM while its store is down, and its backlog stays."""
    url, spool = "opensearch://127.0.0.1:9", str(tmp_path / "s.db")
    with closing(AuditPipeline.open(url, spool=spool, ship=False)) as audit:
        for _ in range(50):
            audit.record("domain.created")
    command = [sys.executable, "-m", "audit_pipeline", "ship", "--store", url, "--spool", spool]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert "shipping" in process.stderr.readline()
        eventually(lambda: shipping_of(tmp_path / "s.db").stopped is not None, 30)
        started = time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
        assert time.monotonic() - started < 8
    with closing(AuditPipeline.open(url, spool=spool, ship=False)) as audit:
        assert audit.status().pending == 50


def test_errors_of_the_spool_say_why() -> None:
    """Each error has the word that gaps and metrics tell."""
    assert SpoolError("x").reason == "unusable"
    assert SpoolFull("x").reason == "disk"
    assert SpoolFull("x", "age").reason == "age"


def test_a_refused_entry_is_not_passed_before_it_is_in_quarantine(tmp_path: Path) -> None:
    """A spool that is busy at that moment: the entry is offered again, and not marked as shipped."""

    class Refusing(MemoryStore):
        def append(self, events: Sequence[AuditEvent]) -> list[Refusal]:
            return [Refusal(event, "no") for event in events]

    class Busy(Spool):
        def mark_shipped(self, upto: int, refused: Sequence[Quarantined] = ()) -> None:
            if refused:
                raise SpoolError("another process has held the spool for 5 s")
            super().mark_shipped(upto, refused)

    with closing(Busy(tmp_path / "s.db", "memory:")) as spool:
        spool.append([build_event(catalogue["domain.created"], {}, IdFactory())])
        one = Shipper(tmp_path / "s.db", "memory:", Refusing())
        with pytest.raises(SpoolError):
            one._ship_batch(spool)
        spool.mark_stored()
        assert spool.status().pending == 1


def test_a_child_keeps_no_lock_of_its_parent(tmp_path: Path) -> None:
    """Nobody else could repair or open the spool, or ship it, for as long as the child lives."""
    card, lock = tmp_path / "s.db.card", tmp_path / "s.db.lock"
    lock.touch()
    held, asked = locked(card, 1), lockable(lock)
    fcntl.flock(asked, fcntl.LOCK_SH)
    child = os.fork()
    if child == 0:
        time.sleep(30)
        os._exit(0)
    try:
        with pytest.raises(Locked):
            locked(card, 0.1)
        held.close()
        asked.close()
        locked(card, 5).close()
        eventually(ShippingLock(tmp_path / "s.db").acquire, 5)
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_what_is_recorded_right_after_a_fork_is_shipped(tmp_path: Path) -> None:
    """The fork closes the shipper's connection: what comes before it has another is found all the same."""
    store = open_store(f"sqlite:///{tmp_path / 'audit.db'}")
    store.setup()
    with AuditPipeline.open(store, spool=tmp_path / "s.db") as pipeline:
        time.sleep(0.3)
        for number in range(3):
            for records in (False, True):
                child = os.fork()
                if child == 0:
                    if records:
                        pipeline.record("domain.created")
                    os._exit(0)
                os.waitpid(child, 0)
                time.sleep(0.3)
            expected = number + 1
            eventually(lambda expected=expected: store.search(Query("default"), Window(1)).total == expected, 5)


def test_a_fork_while_the_lock_is_taken_does_not_share_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The child would hold it for as long as it lives, and ship nothing."""
    taken = threading.Event()

    def slow(file: int, how: int) -> None:
        flock(file, how)
        taken.set()
        time.sleep(0.2)

    flock = fcntl.flock
    one = Shipper(tmp_path / "s.db", "memory:", MemoryStore())
    monkeypatch.setattr(fcntl, "flock", slow)
    thread = threading.Thread(target=one._lock.acquire)
    thread.start()
    assert taken.wait(5)
    child = os.fork()
    if child == 0:
        time.sleep(30)
        os._exit(0)
    try:
        thread.join()
        monkeypatch.undo()
        one._lock.release()
        eventually(ShippingLock(tmp_path / "s.db").acquire, 5)
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_what_comes_is_shipped_while_much_is_trimmed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A spool that has to be trimmed for long keeps no entry waiting; and it is trimmed, a part at a time.

    Seen to wait for 80 s where a spool of 500 MB was trimmed to 256 in one go.
    """
    monkeypatch.setattr(shipper, "TRIM_S", 0.0)
    monkeypatch.setattr(spool_module, "KEEP_BYTES", 0)
    monkeypatch.setattr(spool_module, "TRIM_BYTES", 1)
    with AuditPipeline.open("memory://", spool=tmp_path / "s.db") as pipeline:
        ids = IdFactory()
        pipeline.accept([build_event(catalogue["domain.created"], {}, ids) for _ in range(2000)])
        eventually(lambda: pipeline.spool.kept(0)[0].sequence > 3)
        for _ in range(3):
            pipeline.record("domain.created")
            assert pipeline.flush(1.0)
        first = pipeline.spool.kept(0)[0].sequence
        assert first < 1000
        eventually(lambda: pipeline.spool.kept(0)[0].sequence > first + 5)


def test_a_spool_that_never_rests_is_trimmed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where each look finds something to ship, what was shipped is trimmed all the same, and gaps are told."""
    monkeypatch.setattr(shipper, "TRIM_S", 0.1)
    monkeypatch.setattr(shipper, "TIDY_S", 0.1)
    monkeypatch.setattr(spool_module, "KEEP_BYTES", 20_000)
    tidied: list[int] = []
    steadily = Shipper._ship_batch

    def with_one_more(self: Shipper, spool: Spool) -> int:
        pipeline.spool.append([build_event(catalogue["domain.created"], {}, ids)])
        return steadily(self, spool)

    ids = IdFactory()
    monkeypatch.setattr(AuditPipeline, "_tell_gaps", lambda self: tidied.append(1))
    with AuditPipeline.open("memory://", spool=tmp_path / "s.db", ship=False) as pipeline:
        pipeline.accept([build_event(catalogue["domain.created"], {}, ids) for _ in range(500)])
        monkeypatch.setattr(Shipper, "_ship_batch", with_one_more)
        one = Shipper(
            tmp_path / "s.db", pipeline.store.identity(tmp_path / "s.db"), pipeline.store, lambda: tidied.append(1)
        )
        one.start()
        try:
            eventually(lambda: pipeline.status().used < 40_000 and len(tidied) > 2)
        finally:
            one.stop()


# The thread


class Raising(logging.Handler):
    """An application's handler that fails, as one does that records while the spool is full."""

    def emit(self, record: logging.LogRecord) -> None:
        raise SpoolFull("from a handler")


@pytest.fixture
def raising() -> Iterator[None]:
    handler = Raising()
    logging.getLogger("audit_pipeline").addHandler(handler)
    yield
    logging.getLogger("audit_pipeline").removeHandler(handler)


def test_a_log_handler_that_raises_ends_no_shipping(
    audit: AuditPipeline, store: Failing, raising: None, capfd: pytest.CaptureFixture[str]
) -> None:
    """What is said of a store that is down, of its return, and of an entry that it refuses, may raise anything."""
    store.failure = StoreUnavailable("away")
    audit.record("domain.created")
    eventually(lambda: audit.shipper is not None and audit.shipper.trouble is not None)
    store.failure = None
    assert audit.flush(10)
    given = audit.record("domain.created", target="one")
    audit.record("domain.created", target="another", id=given)
    audit.record("domain.created", target="behind it")
    assert audit.flush(10)
    assert [one.event.target for one in audit.spool.quarantined()] == ["another"]
    assert sum(map(len, store.batches)) == 4
    assert "from a handler" in capfd.readouterr().err


def test_a_thread_that_ended_is_followed_by_another(
    audit: AuditPipeline, store: Failing, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever broke it off, the next log call starts one."""
    assert isinstance(audit.shipper, Shipper)
    ended = audit.shipper._thread
    assert ended is not None
    monkeypatch.setattr(threading, "excepthook", lambda about: None)
    monkeypatch.setattr(Shipper, "_report", lambda self, error: sys.exit())
    store.failure = StoreUnavailable("away")
    audit.record("domain.created")
    ended.join(10)
    assert not ended.is_alive()
    store.failure = None
    audit.record("domain.created")
    assert audit.flush(10)


def test_a_thread_that_cannot_be_started_is_tried_again(
    store: Failing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """At a limit on threads, log calls go on, the log says so once, and the next call ships; close() raises nothing."""

    def refused(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refused)
    closing_at_once = AuditPipeline(store, tmp_path / "other.db")
    closing_at_once.close()
    caplog.clear()
    with closing(AuditPipeline(store, tmp_path / "s.db")) as audit:
        for _ in range(3):
            audit.record("domain.created")
        assert caplog.text.count("ships nothing at the moment") == 1
        monkeypatch.undo()
        audit.record("domain.created")
        assert audit.flush(5)
        assert sum(map(len, store.batches)) == 4


def test_threads_that_record_at_once_start_one_shipper(
    store: Failing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the first calls in a forked child do."""

    def made_slowly(**given: Any) -> threading.Thread:
        real(0.05)
        return Thread(**given)

    ran: list[threading.Thread] = []
    run = Shipper.run
    Thread = threading.Thread
    one = Shipper(tmp_path / "s.db", "memory:", store)
    threads = [threading.Thread(target=one.start) for _ in range(8)]
    monkeypatch.setattr(Shipper, "run", lambda self: ran.append(threading.current_thread()) or run(self))
    monkeypatch.setattr(shipper.threading, "Thread", made_slowly)
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    eventually(lambda: bool(ran))
    assert ran == [one._thread]
    one.stop()


def test_a_start_that_is_broken_off_leaves_one_shipper(
    store: Failing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A signal handler that raises once the thread runs: it ships, it is the only one, and `stop` waits for it."""

    class Interrupted(Exception):
        pass

    def broken_off(self: threading.Thread) -> None:
        start(self)
        monkeypatch.undo()
        raise Interrupted

    ran: list[threading.Thread] = []
    start, run = threading.Thread.start, Shipper.run
    one = Shipper(tmp_path / "s.db", "memory:", store)
    monkeypatch.setattr(threading.Thread, "start", broken_off)
    with pytest.raises(Interrupted):
        one.start()
    monkeypatch.setattr(Shipper, "run", lambda self: ran.append(threading.current_thread()) or run(self))
    eventually(lambda: one._thread is not None and one._thread.is_alive())
    one.start()
    shipping = one._thread
    assert shipping is not None
    one.stop()
    assert not shipping.is_alive()
    assert not ran or ran == [shipping]


def test_a_fork_in_the_middle_of_a_start_holds_the_child_up_in_nothing(store: Failing, tmp_path: Path) -> None:
    """The child's lock is its own."""
    with closing(AuditPipeline(store, tmp_path / "s.db")) as audit:
        ship = audit.shipper
        assert isinstance(ship, Shipper)
        taken, forked = threading.Event(), threading.Event()

        def hold() -> None:
            with ship._choosing:
                taken.set()
                forked.wait(10)

        thread = threading.Thread(target=hold)
        thread.start()
        assert taken.wait(5)
        child = os.fork()
        if child == 0:
            signal.alarm(10)
            audit.record("domain.created")
            os._exit(0 if ship._thread is not None else 1)
        forked.set()
        thread.join()
        assert os.waitpid(child, 0)[1] == 0
