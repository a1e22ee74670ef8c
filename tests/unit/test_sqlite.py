"""What only the embedded store has: a limit of its own on how long a query may take, counts by day, and forks."""

from __future__ import annotations

import gc
import os
import random
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import apsw
import pytest

from audit_pipeline.actions import catalogue
from audit_pipeline.database import transaction
from audit_pipeline.errors import StoreMissing, StoreUnavailable
from audit_pipeline.event import AuditEvent, IdFactory, uuid7
from audit_pipeline.normalize import build_event
from audit_pipeline.query import Query, Window, parse_words
from audit_pipeline.stores import Store, open_store, sqlite
from audit_pipeline.stores.sqlite.selection import Selection


def test_a_query_that_takes_too_long_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A search, a histogram and an export end with an error when their time is over, and the next is answered."""
    made = build_event(catalogue["domain.created"], {"target": "mail"}, IdFactory())
    query = Query("default", words=parse_words("mail"), start=made.timestamp - 1)  # words alone are counted at once
    edges = [made.timestamp - 1, made.timestamp + 1]
    with closing(open_store(f"sqlite:///{tmp_path / 'audit.db'}")) as store:
        store.append([replace(made, id=uuid7(made.timestamp, number)) for number in range(20_000)])
        monkeypatch.setattr(sqlite, "QUERY_S", -1)
        monkeypatch.setattr(sqlite, "AGAIN_S", 0.0001)  # these queries end by themselves soon
        for ask in (
            lambda: store.search(query, Window(10)),
            lambda: store.histogram(query, edges),
            lambda: store.snapshot(query, 10),
        ):
            with pytest.raises(StoreUnavailable, match="given up; ask for less at once"):
                ask()
        monkeypatch.undo()
        assert store.search(query, Window(10)).total == 20_000
        with closing(store.snapshot(query, 10)) as snapshot:
            assert snapshot.total == 20_000
        assert store.histogram(query, edges) == [{"green": 20_000}]


def without_counts(db: apsw.Connection) -> None:
    """Make a file what it was in version 1."""
    db.execute("DROP TABLE counts; DROP TRIGGER counts_insert; DROP TRIGGER counts_delete; PRAGMA user_version = 1")


DAY_MS = 86_400_000
ACTIONS = ("domain.created", "domain.deleted", "queue.flushed")


def spread(number: int, days: int) -> list[AuditEvent]:
    """Entries at random times of so many days, of which many begin or end a day; three actions, two outcomes."""
    chosen = random.Random(number)
    made = [
        build_event(catalogue[action], {"target": "mail", "outcome": outcome, "user": chosen.choice("ab")}, IdFactory())
        for action in ACTIONS
        for outcome in ("success", "failure")
    ]
    times = [
        (20_000 + chosen.randrange(days)) * DAY_MS + chosen.choice((-1, 0, 1, chosen.randrange(DAY_MS)))
        for _ in range(number)
    ]
    return [
        replace(chosen.choice(made), id=uuid7(moment, place), timestamp=moment) for place, moment in enumerate(times)
    ]


def check_against(oracle: Store, store: Store, seed: int) -> None:
    """Totals, jumps and timelines of random selections are those of the oracle."""
    chosen = random.Random(seed)
    for _ in range(60):
        start, end = (
            chosen.choice(
                (None, (20_000 + chosen.randrange(-40, 140)) * DAY_MS + chosen.choice((0, 0, -1, 1, 7_200_000)))
            )
            for _ in "ab"
        )
        query = Query(
            "default",
            actions=frozenset(
                chosen.sample(("domain.created", "domain.deleted", "queue.flushed"), chosen.randrange(3))
            ),
            categories=chosen.choice((frozenset(), frozenset({"domains"}), frozenset({"domains", "queue"}))),
            outcome=chosen.choice((None, "failure")),
            user=chosen.choice((None, None, "a")),
            start=start,
            end=end,
            sort=chosen.choice(("timestamp", "-timestamp", "action", "-action")),
        )
        total = oracle.search(query, Window(1)).total
        window = Window(7, offset=chosen.choice((0, 1, total - 1, total, chosen.randrange(total + 1))) if total else 3)
        assert store.search(query, window) == oracle.search(query, window), query
        edges = sorted(20_000 * DAY_MS + chosen.randrange(-40 * 24, 140 * 24) * 3_600_000 for _ in range(9))
        assert store.histogram(query, edges) == oracle.histogram(query, edges), query


@pytest.mark.parametrize("days", [1, 3, 100])
def test_counts_by_day_say_what_counting_says(tmp_path: Path, days: int) -> None:
    """Totals, pages at any depth and timelines are the plain store's, whatever part of a day they begin and end in."""
    with closing(open_store("memory://")) as oracle, closing(open_store(f"sqlite:///{tmp_path / 'audit.db'}")) as store:
        entries = spread(1_500, days)
        for some in (entries[first : first + 100] for first in range(0, 1_500, 100)):
            oracle.append(some)
            store.append(some)
            store.append(some)  # what is there already is not counted again
        check_against(oracle, store, days)


def test_an_older_file_is_upgraded_with_its_entries_counted(tmp_path: Path) -> None:
    """A file without counts refuses questions, is upgraded by the next entry, and then counts those it had too."""
    path = tmp_path / "audit.db"
    url = f"sqlite:///{path}"
    entries = spread(400, 80)
    with closing(open_store("memory://")) as oracle:
        oracle.append(entries)
        with closing(open_store(url)) as store:
            store.append(entries[:-1])
        with closing(apsw.Connection(str(path))) as db:
            without_counts(db)
        with closing(open_store(url)) as store:
            with pytest.raises(StoreMissing, match="version 1; upgrade it with `audit-pipeline setup`"):
                store.search(Query("default"), Window(1))
            store.append(entries[-1:])
            check_against(oracle, store, 1)


def test_an_upgrade_does_not_keep_all_entries_in_memory(tmp_path: Path) -> None:
    """What it sorts is in files: a store of ten million entries took a gigabyte of memory."""
    path = tmp_path / "audit.db"
    with closing(open_store(f"sqlite:///{path}")) as store:
        store.append(spread(1, 3))
    with closing(apsw.Connection(str(path))) as db:
        without_counts(db)
        db.execute(  # few entries, but large ones
            "WITH RECURSIVE n(i) AS (SELECT 2 UNION ALL SELECT i + 1 FROM n WHERE i < 10000) INSERT INTO entries "
            "SELECT i, org, randomblob(16), timestamp, action, category, user, outcome, network, hex(zeroblob(1000)) "
            "FROM n, entries WHERE number = 1"
        )
    with closing(open_store(f"sqlite:///{path}")) as store:
        apsw.memory_high_water(True)
        before = apsw.memory_used()
        assert store.setup() == [f"{path}: upgraded"]
        assert apsw.memory_high_water() - before < 8e6
    with closing(apsw.Connection(str(path))) as db:
        assert db.execute("SELECT sum(n) FROM counts WHERE level = 0").get == 10_000


def test_an_entry_that_somebody_deletes_is_counted_no_more(tmp_path: Path) -> None:
    """The counts follow the entries, whoever changes them."""
    path = tmp_path / "audit.db"
    with closing(open_store(f"sqlite:///{path}")) as store:
        store.append(spread(50, 3))
        with closing(apsw.Connection(str(path))) as db:
            db.execute("DELETE FROM entries WHERE number % 5 = 0")
        assert store.search(Query("default"), Window(1)).total == 40


def test_a_store_that_is_replaced_during_a_request_is_left_by_it(tmp_path: Path) -> None:
    """The connection of a request that was under way is to the old file: nothing is written there later."""
    path = tmp_path / "audit.db"
    first, second = (build_event(catalogue["domain.created"], {}, IdFactory()) for _ in range(2))
    with closing(open_store(f"sqlite:///{path}")) as store, closing(open_store(f"sqlite:///{path}")) as other:
        assert isinstance(store, sqlite.SQLiteStore)
        store.append([first])
        with store._connection() as db:
            assert db.execute("SELECT count(*) FROM entries").get == 1
            (tmp_path / "old").mkdir()
            for file in list(tmp_path.glob("audit.db*")):
                file.rename(tmp_path / "old" / file.name)
            other.setup()
            store.check()
        store.append([second])
        assert other.search(Query("default"), Window(10)).total == 1


def test_a_store_that_is_replaced_during_an_append_is_offered_it_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was committed to a file that is gone by then is not told as stored."""
    path = tmp_path / "audit.db"
    made = build_event(catalogue["domain.created"], {}, IdFactory())
    write = sqlite._write

    def replaced(*given: Any) -> None:
        write(*given)
        (tmp_path / "old").mkdir()
        for file in list(tmp_path.glob("audit.db*")):
            file.rename(tmp_path / "old" / file.name)

    with closing(open_store(f"sqlite:///{path}")) as store:
        store.setup()
        monkeypatch.setattr(sqlite, "_write", replaced)
        with pytest.raises(StoreUnavailable, match="was replaced"):
            store.append([made])
        monkeypatch.undo()
        store.append([made])
        assert store.search(Query("default"), Window(10)).total == 1


def test_a_sync_that_fails_in_a_replaced_store_cuts_no_log(tmp_path: Path) -> None:
    """The log at its path is that of another file by then."""
    path, log = tmp_path / "audit.db", tmp_path / "audit.db-wal"
    failed = apsw.IOError()
    failed.extendedresult = apsw.SQLITE_IOERR_FSYNC
    with closing(open_store(f"sqlite:///{path}")) as store, closing(open_store(f"sqlite:///{path}")) as other:
        assert isinstance(store, sqlite.SQLiteStore)
        store.append(spread(1, 3))
        with suppress(apsw.IOError), store._connection():
            (tmp_path / "old").mkdir()
            for file in list(tmp_path.glob("audit.db*")):
                file.rename(tmp_path / "old" / file.name)
            other.append(spread(20, 3))
            content = log.read_bytes()
            raise failed
        assert log.read_bytes() == content
        assert len(content) > 20_000


@pytest.mark.parametrize("emptied", [False, True])
def test_a_log_without_its_file_is_not_deleted(tmp_path: Path, emptied: bool) -> None:
    """A new file beside it would make SQLite delete what only the log has."""
    path, log = tmp_path / "audit.db", tmp_path / "audit.db-wal"
    with closing(open_store(f"sqlite:///{tmp_path / 'other.db'}")) as other:
        other.append([build_event(catalogue["domain.created"], {}, IdFactory())])
        content = (tmp_path / "other.db-wal").read_bytes()
    log.write_bytes(content)
    if emptied:
        path.touch()
    with closing(open_store(f"sqlite:///{path}")) as store:
        with pytest.raises(StoreUnavailable, match="its log is there"):
            store.append([build_event(catalogue["domain.created"], {}, IdFactory())])
        assert log.read_bytes() == content
        log.unlink()
        store.append([build_event(catalogue["domain.created"], {}, IdFactory())])


# Forks


LONG = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1e10) SELECT count(*) FROM n"


def in_child(work: Callable[[], object]) -> tuple[int, float]:
    """Fork, and let the child work; its exit code (0 where nothing was raised), and how long the fork took."""
    began = time.monotonic()
    child = os.fork()
    took = time.monotonic() - began
    if child == 0:
        signal.alarm(10)
        try:
            work()
        except BaseException:  # noqa: BLE001 - the child ends here, whatever it was
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), took


def test_a_fork_does_not_wait_for_the_client_of_an_export(tmp_path: Path) -> None:
    """A snapshot that is being read goes on after it, and the child uses the store as ever."""
    entries = spread(30, 3)
    with closing(open_store(f"sqlite:///{tmp_path / 'audit.db'}")) as store:
        store.append(entries[:20])
        with closing(store.snapshot(Query("default"), 100)) as snapshot:
            batches = snapshot.batches(5)
            read = list(next(batches))
            exit_code, took = in_child(lambda: store.append(entries[20:]))
            assert (exit_code, took < sqlite.END_S) == (0, True)
            read += [event for batch in batches for event in batch]
        assert sorted(event.id for event in read) == sorted(event.id for event in entries[:20])
        assert store.search(Query("default"), Window(1)).total == 30


@pytest.mark.parametrize("long", ["search", "append", "append behind another process"])
def test_a_fork_breaks_off_what_takes_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, long: str) -> None:
    """It is done again after the fork, as if nothing had been; and the child uses the store as ever."""
    path = tmp_path / "audit.db"
    entries = spread(200, 3)
    begun, forked = threading.Event(), threading.Event()
    count, texts = Selection.count, sqlite.search_texts

    def count_long(self: Selection) -> int:
        if not begun.is_set():
            begun.set()
            self._db.execute(LONG)
        return count(self)

    def texts_long(event: AuditEvent) -> Any:
        begun.set()
        time.sleep(0 if forked.is_set() else 0.02)
        return texts(event)

    def search() -> int:
        return store.search(Query("default"), Window(1)).total

    with closing(open_store(f"sqlite:///{path}")) as store, ThreadPoolExecutor() as pool:
        store.append(entries[:100])
        monkeypatch.setattr(Selection, "count", count_long)
        if long == "search":
            asked: Future[object] = pool.submit(search)
        else:
            begun.set()
            monkeypatch.setattr(sqlite, "search_texts", texts_long)
            held = hold(path) if long == "append behind another process" else None
            asked = pool.submit(store.append, entries[100:])
        assert begun.wait(5)
        time.sleep(0.05)
        exit_code, took = in_child(search)
        forked.set()
        assert (exit_code, took < 1) == (0, True)
        if long == "append behind another process":
            assert held is not None
            held.communicate(timeout=10)
        assert asked.result(10) == (100 if long == "search" else [])
        assert search() == (100 if long == "search" else 200)


def hold(path: Path) -> subprocess.Popen[bytes]:
    """A process that holds the lock for writing, until it is told to end."""
    script = (
        "import sys, apsw; db = apsw.Connection(sys.argv[1]); db.execute('BEGIN IMMEDIATE'); print(flush=True);"
        "sys.stdin.read()"
    )
    process = subprocess.Popen([sys.executable, "-c", script, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline()
    return process


def test_a_child_keeps_off_a_store_that_its_parent_was_in_the_middle_of(tmp_path: Path) -> None:
    """Where a call does not end (its disk hangs), the fork goes on; the child says so, and the parent loses nothing."""
    entries = spread(2, 3)
    begun, forked = threading.Event(), threading.Event()
    found: list[int] = []

    def hang() -> None:
        with store._connection() as db, transaction(db, "IMMEDIATE"):
            begun.set()
            assert forked.wait(10)
            found.append(db.execute("SELECT count(*) FROM entries").get)

    def work() -> None:
        gc.collect()
        with pytest.raises(StoreUnavailable, match="start it again"):
            store.search(Query("default"), Window(1))
        store.close()

    with closing(open_store(f"sqlite:///{tmp_path / 'audit.db'}")) as store:
        assert isinstance(store, sqlite.SQLiteStore)
        store.append(entries[:1])
        thread = threading.Thread(target=hang)
        thread.start()
        assert begun.wait(5)
        exit_code, took = in_child(work)
        forked.set()
        thread.join()
        assert (exit_code, took < 1) == (0, True)
        assert found == [1]
        store.append(entries[1:])
        assert store.search(Query("default"), Window(1)).total == 2


def test_an_export_does_not_go_on_in_another_file(tmp_path: Path) -> None:
    """Where the file is replaced while a snapshot is read, the numbers are those of other entries."""
    path = tmp_path / "audit.db"
    with closing(open_store(f"sqlite:///{path}")) as store, closing(open_store(f"sqlite:///{path}")) as other:
        store.append(spread(10, 3))
        with closing(store.snapshot(Query("default"), 100)) as snapshot:
            batches = snapshot.batches(5)
            next(batches)
            (tmp_path / "old").mkdir()
            for file in list(tmp_path.glob("audit.db*")):
                file.rename(tmp_path / "old" / file.name)
            other.append(spread(10, 2))
            with pytest.raises(StoreUnavailable, match="was replaced"):
                next(batches)
