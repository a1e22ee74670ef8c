"""Group commit: threads that record at the same time share a sync; none of them loses, doubles or waits for ever."""

from __future__ import annotations

import ctypes
import gc
import inspect
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import FrameType

import apsw
import pytest

from audit_pipeline import SpoolError, forking, group_commit, spool_file
from audit_pipeline.actions import catalogue
from audit_pipeline.event import AuditEvent, IdFactory
from audit_pipeline.group_commit import Row
from audit_pipeline.normalize import build_event
from audit_pipeline.spool import Spool

IDS = IdFactory()
Found = dict[str, "int | BaseException"]


class Broken(BaseException):
    """What a time limit raises in a thread."""


def entry(target: str) -> AuditEvent:
    return build_event(catalogue["domain.created"], {"target": target}, IDS)


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    spool = Spool(tmp_path / "audit.spool.db", "store")
    yield spool
    # Whatever happened: the next thread records, and then nobody leads or waits.
    assert together(spool, ["afterwards"])["afterwards"] == spool.status().accepted
    assert spool._group._leader is None
    assert not spool._group._waiting
    spool.close()


def together(spool: Spool, targets: list[str], meanwhile: Callable[[list[threading.Thread]], object] = id) -> Found:
    """What each of these got, recorded twice in one call by a thread of its own; all wait before the first writes."""
    found: Found = {}

    def record(target: str) -> None:
        try:
            found[target] = spool.append([entry(target), entry(target)])
        except (SpoolError, Broken) as error:
            found[target] = error

    threads = [threading.Thread(target=record, args=(target,)) for target in targets]
    with spool.file._lock.lock:
        for number, thread in enumerate(threads):
            thread.start()
            # The first one leads, and waits for the file; the others wait behind it.
            wait_for(lambda: spool._group._leader is not None and len(spool._group._waiting) == number)  # noqa: B023
        meanwhile(threads)
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()
    return found


def wait_for(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 5
    while not true():
        assert time.monotonic() < end
        time.sleep(0.001)


def written(spool: Spool) -> dict[str, list[int]]:
    """The sequences of each target."""
    found: dict[str, list[int]] = {}
    for event in spool.pending():
        found.setdefault(event.target, []).append(event.sequence)
    return found


def instead_of_insert(
    monkeypatch: pytest.MonkeyPatch, insert: Callable[[Callable[[], int], list[Row]], int]
) -> list[int]:
    """Let each write call `insert` with the real one and its rows; return how many rows each write had."""
    writes: list[int] = []
    real = spool_file._insert

    def counted(db: apsw.Connection, rows: list[Row], note: Callable[[int], None]) -> int:
        writes.append(len(rows))
        return insert(lambda: real(db, rows, note), rows)

    monkeypatch.setattr(spool_file, "_insert", counted)
    return writes


def test_threads_that_wait_share_a_commit(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Seven calls behind one are on disk with one more sync, in order, each told its own sequence."""
    writes = instead_of_insert(monkeypatch, lambda real, rows: real())
    targets = [str(number) for number in range(8)]
    found = together(spool, targets)
    assert writes == [2, 14]
    assert found == {target: 2 * (number + 1) for number, target in enumerate(targets)}
    assert written(spool) == {target: [2 * number + 1, 2 * number + 2] for number, target in enumerate(targets)}


def test_after_a_stall_nobody_waits_for_others_to_come(spool: Spool) -> None:
    """A commit that took seconds, shared by some, makes the next ones gather for a moment only."""
    together(spool, ["first", "a", "b"])
    spool._group._took = 8.0
    began = time.monotonic()
    together(spool, ["c"])
    assert time.monotonic() - began < 1


def test_a_call_that_fails_takes_no_other_with_it(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of calls that wait together, the one that finds no room is refused, and the others are recorded, once each."""

    def full(real: Callable[[], int], rows: list[Row]) -> int:
        if any(b"large" in body for _, body in rows):
            raise apsw.FullError("no room")
        return real()

    instead_of_insert(monkeypatch, full)
    found = together(spool, ["first", "a", "large", "b"])
    assert isinstance(found.pop("large"), SpoolError)
    assert {target: places[-1] for target, places in written(spool).items()} == found
    assert sorted(written(spool).values()) == [[1, 2], [3, 4], [5, 6]]


@pytest.mark.parametrize("when", ["at its beginning", "before the commit", "after the commit"])
def test_a_leader_that_is_broken_off_takes_no_other_with_it(
    spool: Spool, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    """A time limit raised in the one who writes for all, at any point: the others are recorded once each."""
    broken: list[str] = []
    committed = when == "after the commit"

    def break_off(db: apsw.Connection, rows: list[Row], note: Callable[[int], None]) -> int:
        if len(rows) == 2 or broken:
            return real(db, rows, note)
        broken.append("")
        if committed:
            real(db, rows, note)
        elif when == "before the commit":
            note(8)
        raise Broken

    real = spool_file._insert
    monkeypatch.setattr(spool_file, "_insert", break_off)
    found = together(spool, ["first", "leader", "a", "b"])
    assert isinstance(found.pop("leader"), Broken)
    places = written(spool)
    assert ("leader" in places) == committed
    places.pop("leader", None)
    assert {target: each[-1] for target, each in places.items()} == found
    assert all(len(each) == 2 for each in places.values())


def test_a_call_that_is_broken_off_while_it_waits_is_not_written(spool: Spool) -> None:
    """A time limit raised in the thread that would lead next: it records nothing, and the one behind it leads."""

    def raise_in(threads: list[threading.Thread]) -> None:
        set_error = ctypes.pythonapi.PyThreadState_SetAsyncExc
        assert set_error(ctypes.c_ulong(threads[1].ident or 0), ctypes.py_object(Broken)) == 1

    found = together(spool, ["first", "broken", "a"], raise_in)
    assert isinstance(found.pop("broken"), Broken)
    assert found == {"first": 2, "a": 4}
    assert written(spool) == {"first": [1, 2], "a": [3, 4]}


@pytest.mark.parametrize("carried", [False, True])
def test_a_child_does_not_wait_for_the_parents_threads(
    spool: Spool, monkeypatch: pytest.MonkeyPatch, carried: bool
) -> None:
    """A fork while a thread leads and another one waits: the child's threads record, and nothing of the parent's.

    Where a call did not end in time, and the child carries its connection, they are told so, whichever way they open
    the spool: SQLite would take the parent's locks for the child's, and a log that others delete for the spool's.
    """
    monkeypatch.setattr(forking, "WAIT_S", 0.05)
    exits: list[int] = []

    def fork(threads: list[threading.Thread]) -> None:
        if not carried:
            spool.file._part()

        def record_in_child() -> None:
            refused = 0
            for one in (lambda: spool, lambda: Spool(spool.path, None)):
                try:
                    one().append([entry("child")])
                except SpoolError as error:
                    refused += "was forked in the middle of a call" in str(error)
            if refused:
                os._exit(7 if refused == 2 else 8)

        def from_elsewhere() -> None:
            if child := os.fork():
                exits.append(child)
                return
            signal.alarm(10)
            in_child = threading.Thread(target=record_in_child)
            in_child.start()
            in_child.join()
            os._exit(0)

        forking = threading.Thread(target=from_elsewhere)
        forking.start()
        forking.join()

    found = together(spool, ["first", "a"], fork)
    assert os.waitstatus_to_exitcode(os.waitpid(exits[0], 0)[1]) == (7 if carried else 0)
    assert all(isinstance(each, int) for each in found.values())
    stored = {target: len(places) for target, places in written(spool).items()}
    assert stored == {"first": 2, "a": 2} | ({} if carried else {"child": 2})


def test_a_call_alone_is_told_its_sequence(spool: Spool) -> None:
    """One entry by one thread: the number that it has, which `flush` waits for."""
    found: list[int] = []
    for number in range(3):
        thread = threading.Thread(target=lambda: found.append(spool.append([entry("x")])))
        thread.start()
        thread.join()
        assert found[-1] == spool.status().accepted == number + 1


WHERE = (
    "a finalizer",
    "a finalizer before it writes",
    "a finalizer while it reads",
    "a handler of this package's messages",
)


@pytest.mark.parametrize("where", WHERE)
def test_who_records_in_the_middle_of_a_call_waits_for_nobody(
    spool: Spool, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """Recorded from inside a call of the same thread, while another thread leads or waits: written, and none hangs."""

    class Finalized:
        def __init__(self) -> None:
            self.itself = self

        def __del__(self) -> None:
            spool.append([entry("inner")])

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            spool.append([entry("inner")])

    def collect(real: Callable[[], int], rows: list[Row]) -> int:
        monkeypatch.undo()
        Finalized()
        gc.collect()
        return real()

    def collect_first(*given: object) -> int:
        monkeypatch.undo()
        Finalized()
        gc.collect()
        return spool._append(*given)  # type: ignore[arg-type]

    def read() -> None:
        def finalize(db: apsw.Connection) -> None:
            outer.start()
            wait_for(lambda: spool._group._leader is not None)
            Finalized()
            gc.collect()

        spool.file.ask(finalize)

    gc.collect()
    outer = threading.Thread(target=spool.append, args=([entry("outer")],))
    handler = Handler()
    logging.getLogger("audit_pipeline").addHandler(handler)
    try:
        if where == "a finalizer while it reads":
            reading = threading.Thread(target=read)
            reading.start()
            reading.join(5)
            assert not reading.is_alive()
        else:
            if where == "a finalizer":
                instead_of_insert(monkeypatch, collect)
            elif where == "a finalizer before it writes":
                monkeypatch.setattr(spool, "_append", collect_first)
            else:
                spool.append([entry("before")])
                for file in spool.path.parent.glob(f"{spool.path.name}*"):
                    file.unlink()
            outer.start()
        outer.join(5)
        assert not outer.is_alive()
    finally:
        logging.getLogger("audit_pipeline").removeHandler(handler)
    told = written(spool)
    # Of a deleted spool, two messages are handled, and an entry tells.
    assert (len(told.pop("outer")), len(told.pop("inner"))) == ((1, 2) if "messages" in where else (1, 1))
    assert set(told) <= {spool.path.name}


@pytest.mark.parametrize(
    ("function", "line"),
    [
        ("_leave", "with self._lock"),
        ("_lead", "call.leader = leader"),
        ("_lead", "calls +="),
        ("_lead", "call.wake()"),
        ("append", "_waiting.append"),
    ],
)
def test_a_thread_that_is_broken_off_anywhere_holds_up_nobody(spool: Spool, function: str, line: str) -> None:
    """A time limit raised where a leader hands over, takes the others along, or wakes them, and where it begins."""
    lines = inspect.getsourcelines(group_commit)[0]
    fired: list[str] = []
    found: list[int] = []

    def trace(frame: FrameType, event: str, _: object) -> object:
        code = frame.f_code
        if code.co_filename != group_commit.__file__:
            return None
        at = event == "line" and code.co_name == function and line in lines[frame.f_lineno - 1]
        if at and not fired and (function != "_lead" or len(frame.f_locals["waiting"]) > 1):
            fired.append("")
            raise Broken
        return trace

    def record(traced: bool) -> None:
        if traced:
            sys.settrace(trace)
        try:
            found.append(spool.append([entry("x")]))
        except Broken:
            found.append(0)
        finally:
            sys.settrace(None)

    # The first leads alone, the second leads next, and takes the others along.
    threads = [threading.Thread(target=record, args=(number < 2,)) for number in range(4)]
    with spool.file._lock.lock:
        for thread in threads:
            thread.start()
            time.sleep(0.05)
    for thread in threads:
        thread.join(5)
        assert not thread.is_alive()
    assert fired == [""]
    assert len(found) == 4
    assert len(set(found) - {0}) == 3
    assert set(found) - {0} <= {event.sequence for event in spool.pending()}
    assert len(spool.pending()) in (3, 4)


def test_many_threads_lose_and_double_nothing(spool: Spool) -> None:
    """Sixteen threads record as fast as they can, some broken off at any point; each that returned is there once."""
    made: dict[str, int] = {}
    ends = threading.Event()

    def run() -> None:
        while not ends.is_set():
            with suppress(Broken):
                while not ends.is_set():
                    event = entry("x")
                    made[event.id] = spool.append([event])

    threads = [threading.Thread(target=run) for _ in range(16)]
    for thread in threads:
        thread.start()
    end = time.monotonic() + 3
    while time.monotonic() < end:
        for thread in threads:
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident or 0), ctypes.py_object(Broken))
            time.sleep(0.003)
    ends.set()
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()
    there = {event.id: event.sequence for event in spool.kept(0, limit=10**6, size=10**9)}
    assert len(there) == spool.status().accepted
    assert made.items() <= there.items()
    assert len(made) > 100
