"""The spool: on disk when the call returns, one sequence without gaps, one store."""

from __future__ import annotations

import logging
import os
import random
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from pathlib import Path
from types import FrameType

import apsw
import pytest

from audit_pipeline import SettingsError, SpoolError, spool_file
from audit_pipeline import spool as spool_module
from audit_pipeline.actions import catalogue
from audit_pipeline.errors import SpoolMismatch
from audit_pipeline.event import AuditEvent, IdFactory
from audit_pipeline.group_commit import Row
from audit_pipeline.normalize import build_event
from audit_pipeline.spool import Quarantined, Spool

IDS = IdFactory()


def entry(target: str = "") -> AuditEvent:
    return build_event(catalogue["domain.created"], {"target": target}, IDS)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "audit.spool.db"


def test_a_process_that_keeps_the_lock_delays_one_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While another process holds the spool for ever, the first call waits for it, and those behind it hardly."""
    monkeypatch.setattr(spool_file, "BUSY_MS", 2000)
    with closing(Spool(tmp_path / "s.db", "store")) as spool, closing(apsw.Connection(str(tmp_path / "s.db"))) as other:
        other.execute("BEGIN IMMEDIATE")
        began = time.monotonic()
        for _ in range(3):
            with pytest.raises(SpoolError, match="another process has held the spool"):
                spool.append([entry()])
        assert time.monotonic() - began < 4
        other.execute("ROLLBACK")
        assert spool.append([entry()]) == 1


def test_entries_come_out_in_order_with_their_place(path: Path) -> None:
    """What went in comes out, numbered 1, 2, 3 …, with the spool's name on it."""
    spool = Spool(path, "store")
    made = [entry(str(number)) for number in range(5)]
    assert spool.append(made[:1]) == 1
    assert spool.append(made[1:]) == 5
    out = spool.pending()
    assert [event.sequence for event in out] == [1, 2, 3, 4, 5]
    assert [event.to_bytes() for event in out] == [event.to_bytes() for event in made]
    assert {event.origin for event in out} == {spool.origin}
    assert [event.sequence for event in spool.pending(limit=2)] == [1, 2]
    assert len(spool.pending(size=1)) == 1
    spool.close()


def test_marking_moves_on_and_never_back(path: Path) -> None:
    """What a store has is not given out again, and an older mark does not bring it back."""
    spool = Spool(path, "store")
    spool.append([entry() for _ in range(5)])
    spool.mark_shipped(3)
    spool.mark_shipped(2)
    assert [event.sequence for event in spool.pending()] == [4, 5]
    assert (spool.status().accepted, spool.status().pending) == (5, 2)
    spool.close()


def test_refused_entries_are_kept_with_their_reason(path: Path) -> None:
    """A quarantined entry stays whole in the spool, beside why it is there."""
    spool = Spool(path, "store")
    spool.append([entry("good"), entry("bad")])
    good, bad = spool.pending()
    spool.mark_shipped(good.sequence)
    spool.mark_shipped(bad.sequence, [Quarantined(bad, "because")])
    assert spool.quarantined() == [Quarantined(bad, "because")]
    assert spool.status().quarantined == 1
    spool.close()


def test_a_damaged_entry_is_set_aside_and_holds_up_nothing(path: Path) -> None:
    """A row that cannot be read goes to quarantine as it is, with the reason; the rows around it are given out."""
    spool = Spool(path, "store")
    spool.append([entry(str(number)) for number in range(5)])
    with closing(apsw.Connection(str(path))) as db:
        db.execute("UPDATE entries SET body = substr(body, 1, 40) WHERE sequence IN (2, 5)")
        db.execute("UPDATE entries SET body = x'30' WHERE sequence = 4")  # JSON, but no object
    assert [event.target for event in spool.pending()] == ["0", "2"]
    spool.mark_shipped(3)
    assert spool.pending() == []
    assert (spool.status().pending, spool.status().quarantined) == (0, 3)
    assert spool.quarantined() == []
    assert spool.quarantine_reasons() == ["it is damaged, and cannot be read"]
    spool.append([entry("next")])
    assert [event.target for event in spool.pending()] == ["next"]
    spool.close()


def test_what_a_signal_handler_records_during_any_call_is_written(path: Path) -> None:
    """A handler that records while its thread is asking, not recording, is not left waiting for a later entry."""
    spool = Spool(path, "store")
    assert spool.file.ask(lambda db: spool.append([entry("in the middle")])) == 0
    with suppress(ZeroDivisionError):
        spool.file.ask(lambda db: spool.append([entry("in a call that fails")]) / 0)
    fresh = Spool(path, "store")
    assert [event.target for event in fresh.pending()] == ["in the middle", "in a call that fails"]
    spool.close()
    fresh.close()


def test_the_sequence_has_no_gaps_whatever_is_trimmed(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trimming deletes what was shipped long ago, never what was not, and the numbering goes on."""
    monkeypatch.setattr(spool_module, "KEEP_MS", -1000)
    spool = Spool(path, "store")
    spool.append([entry() for _ in range(5)])
    spool.mark_shipped(3)
    assert spool.trim() == 3
    assert [event.sequence for event in spool.pending()] == [4, 5]
    spool.mark_shipped(5)
    assert spool.trim() == 1
    assert spool.trim() == 0
    assert spool.append([entry()]) == 6
    assert (spool.status().accepted, spool.status().pending) == (6, 1)
    spool.close()


def test_shipped_entries_are_kept_for_a_day_within_a_size(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was shipped stays for a day, so that it can be sent again, unless it takes too much room."""
    spool = Spool(path, "store")
    spool.append([entry() for _ in range(100)])
    spool.mark_shipped(100)
    assert spool.trim() == 0
    monkeypatch.setattr(spool_module, "KEEP_BYTES", 1)
    assert spool.trim() == 99
    spool.close()


def test_a_spool_serves_one_store(path: Path) -> None:
    """It remembers its store, and refuses another in one clear line."""
    Spool(path, "first").close()
    with pytest.raises(SpoolMismatch, match=r"serves the store first, not second.*AUDIT_SPOOL"):
        Spool(path, "second")
    known = Spool(path, None)
    assert known.serves() == "first"
    known.close()


def test_a_newer_spool_is_refused(path: Path) -> None:
    """A spool of a newer version is left alone, in one clear line."""
    Spool(path, "store").close()
    with closing(apsw.Connection(str(path))) as db:
        db.execute("PRAGMA user_version = 99")
    with pytest.raises(SpoolMismatch, match=r"version 99.*upgrade"):
        Spool(path, "store")


@pytest.mark.parametrize("content", [b"not a database, but a text of some length" * 50, None])
def test_a_file_of_another_program_is_refused(path: Path, content: bytes | None) -> None:
    """A file that is no spool is neither used nor changed."""
    if content is None:
        with closing(apsw.Connection(str(path))) as db:
            db.execute("CREATE TABLE theirs (x)")
    else:
        path.write_bytes(content)
    before = path.read_bytes()
    with pytest.raises(SpoolMismatch, match="no spool"):
        Spool(path, "store")
    assert path.read_bytes()[100:] == before[100:]


def test_files_are_private(path: Path) -> None:
    """Everything that holds entries is readable by its owner only, whatever the umask."""
    before = os.umask(0)
    try:
        spool = Spool(path, "store")
        spool.append([entry()])
    finally:
        os.umask(before)
    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
    assert set(modes.values()) == {0o600}, modes
    assert len(modes) == 4
    spool.close()


def test_a_place_that_cannot_be_written_is_one_clear_line(tmp_path: Path) -> None:
    """A spool in a folder that is none says which file, and what to do."""
    (tmp_path / "file").write_text("")
    with pytest.raises(SpoolError, match=r"cannot be created.*AUDIT_SPOOL") as error:
        Spool(tmp_path / "file" / "audit.spool.db", "store")
    assert "\n" not in str(error.value)


def test_a_closed_spool_says_so(path: Path) -> None:
    """Recording after the end is refused loudly."""
    spool = Spool(path, "store")
    spool.close()
    with pytest.raises(SpoolError, match="closed"):
        spool.append([entry()])


def test_a_deleted_spool_is_noticed(path: Path) -> None:
    """After its files were deleted, a spool goes on with new ones, not with a file nobody sees, and tells of it."""
    spool = Spool(path, "store")
    spool.append([entry("first")])
    for file in path.parent.iterdir():
        file.unlink()
    spool.append([entry("second")])
    fresh = Spool(path, "store")
    assert [(event.action, event.target) for event in fresh.pending()] == [
        ("audit.gap", path.name),
        ("domain.created", "second"),
    ]
    spool.close()
    fresh.close()


def test_a_folder_that_may_not_be_entered_is_one_clear_line(tmp_path: Path) -> None:
    """Without the right to look into its folder, a spool says so, as for each other fault."""
    folder = tmp_path / "closed"
    folder.mkdir(mode=0o700)
    child = os.fork()
    if child == 0:
        try:
            if os.geteuid() == 0:
                os.setresuid(65534, 65534, 65534)
            else:
                folder.chmod(0)
            Spool(folder / "audit.spool.db", "store")
        except SpoolError as error:
            os._exit(0 if "cannot be created: Permission denied" in str(error) else 3)
        finally:
            os._exit(4)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_spool_of_another_user_is_named_as_such() -> None:
    """Not the folder is wrong where root made the spool, and the application runs as somebody else."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    path = folder / "audit.spool.db"
    # Nobody but root can give a file away: others meet one that is root's already.
    is_root = os.geteuid() == 0
    Spool(path, "store").close() if is_root else path.symlink_to("/etc/shadow")
    child = os.fork()
    if child == 0:
        try:
            if is_root:
                os.setresuid(65534, 65534, 65534)
            Spool(path, "store")
        except SpoolError as error:
            os._exit(0 if "the spool belongs to root, and this process runs as" in str(error) else 3)
        finally:
            os._exit(4)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    shutil.rmtree(folder)


def test_durability_is_one_of_two(path: Path) -> None:
    """A durability that does not exist is refused with those that do."""
    with pytest.raises(SettingsError, match="disk, process"):
        Spool(path, "store", "none")


@pytest.mark.parametrize(("durability", "level"), [("disk", 2), ("process", 1)])
def test_the_durability_that_is_promised_is_set(path: Path, durability: str, level: int) -> None:
    """`disk` syncs each commit (FULL), `process` leaves that to the system (NORMAL); both with a write-ahead log."""
    spool = Spool(path, "store", durability)
    for name, value in (("synchronous", level), ("journal_mode", "wal"), ("cell_size_check", 1)):
        assert spool.file.ask(lambda db, name=name: db.execute(f"PRAGMA {name}").get) == value
    spool.close()


def test_another_connection_is_noticed(path: Path) -> None:
    """A shipper sees that another process wrote."""
    ours, theirs = Spool(path, "store"), Spool(path, "store")
    before = ours.version()
    ours.append([entry()])
    assert ours.version() == before
    theirs.append([entry()])
    assert ours.version() != before
    # SQLite begins to count anew with each connection: what came while there was none counts too.
    before = ours.version()
    ours.file.reopen()
    assert ours.version() != before
    ours.close()
    theirs.close()


def test_a_failed_sync_of_a_file_that_was_set_aside_harms_no_other(path: Path) -> None:
    """A log is cut by its name, which is that of another file after a repair: seen to lose 99 of 100."""
    ours, theirs = Spool(path, "store"), Spool(path, "store")
    ours.append([entry("first")])
    with path.open("r+b") as file:
        file.write(os.urandom(path.stat().st_size))
    for _ in range(100):
        theirs.append([entry("theirs")])
    with suppress(SpoolError):
        ours.file.ask_to_insert(lambda db: _fails_to_sync())
    ours.append([entry("ours")])
    with closing(Spool(path, "store")) as fresh:
        targets = [event.target for event in fresh.kept(0)]
    assert targets.count("theirs") == 100
    assert "ours" in targets
    ours.close()
    theirs.close()


def _fails_to_sync() -> None:
    error = apsw.IOError("disk I/O error")
    error.extendedresult = apsw.SQLITE_IOERR_FSYNC
    raise error


KILLED = """
import sys
from pathlib import Path
from types import FrameType
from audit_pipeline.actions import catalogue
from audit_pipeline.event import IdFactory
from audit_pipeline.normalize import build_event
from audit_pipeline.spool import Spool
spool, ids = Spool(Path(sys.argv[1]), "store"), IdFactory()
while True:
    event = build_event(catalogue["domain.created"], {}, ids)
    spool.append([event])
    print(event.id, flush=True)
"""


def test_what_was_accepted_survives_kill_9(path: Path) -> None:
    """Each entry whose call had returned when its process was killed is in the spool, whole and in order."""
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    said = [process.stdout.readline().strip() for _ in range(50)]
    process.send_signal(signal.SIGKILL)
    said += [line.strip() for line in process.stdout if line.endswith("\n")]
    process.stdout.close()
    process.wait()
    spool = Spool(path, "store")
    kept = [event.id for event in spool.pending(limit=100_000)]
    spool.close()
    assert kept[: len(said)] == said
    assert len(kept) - len(said) <= 1


def test_a_held_lock_ends_in_an_error_not_in_a_hang(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where another process holds the spool for too long, the call raises instead of waiting for ever."""
    monkeypatch.setattr(spool_file, "BUSY_MS", 200)
    spool = Spool(path, "store")
    holder = apsw.Connection(str(path))
    holder.execute("BEGIN IMMEDIATE")
    started = time.monotonic()
    with pytest.raises(SpoolError, match="another process has held the spool"):
        spool.append([entry()])
    assert time.monotonic() - started < 5
    holder.execute("ROLLBACK")
    holder.close()
    assert spool.append([entry()]) == 1
    spool.close()


class _Limit(Exception):
    """What a signal handler raises that ends a job for its time."""


def test_signal_handlers_that_raise_at_any_moment_take_nothing_along(path: Path) -> None:
    """A job is broken off in the middle of its entries, and that is recorded: each call that returned is on disk.

    Seen to lose one in 150 with transactions that were generators: one that was left open took the next entry along.
    """

    def stop(*_: object) -> None:
        raise _Limit

    old = signal.signal(signal.SIGALRM, stop)
    chance = random.Random(5)
    recorded: dict[str, int] = {}
    end = time.monotonic() + 3
    try:
        with closing(Spool(path, "store", "process")) as spool:
            while time.monotonic() < end:
                job = [entry("job"), entry("job")]
                broken_off = entry("broken off")
                try:
                    try:
                        signal.setitimer(signal.ITIMER_REAL, chance.uniform(1e-6, 2e-4))
                        spool.append(job)
                        time.sleep(0.001)
                    finally:
                        signal.setitimer(signal.ITIMER_REAL, 0)
                except _Limit:
                    recorded[broken_off.id] = spool.append([broken_off])
        with closing(Spool(path, "store")) as fresh:
            there = {event.id: event.sequence for event in fresh.kept(0, limit=10**6, size=10**9)}
    finally:
        signal.signal(signal.SIGALRM, old)
    assert recorded.items() <= there.items()
    assert len(recorded) > 1000


def test_an_exception_that_lives_on_keeps_nobody_waiting(path: Path) -> None:
    """What a signal handler raised in the middle of a call may be kept for long; other threads record meanwhile."""

    def stop(*_: object) -> None:
        raise _Limit

    old = signal.signal(signal.SIGALRM, stop)
    chance = random.Random(7)
    kept: list[BaseException] = []
    try:
        with closing(Spool(path, "store", "process")) as spool:
            for _ in range(300):
                try:
                    try:
                        signal.setitimer(signal.ITIMER_REAL, chance.uniform(1e-6, 1e-4))
                        spool.append([entry("job"), entry("job")])
                        time.sleep(0.001)
                    finally:
                        signal.setitimer(signal.ITIMER_REAL, 0)
                except _Limit as error:
                    kept.append(error)
                other = threading.Thread(target=spool.append, args=([entry("other")],), daemon=True)
                other.start()
                other.join(5)
                assert not other.is_alive()
                kept.clear()
    finally:
        signal.signal(signal.SIGALRM, old)


def test_a_handlers_entry_that_finds_no_room_is_no_failure_of_others(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It waits in memory, which is said once, while others are recorded; when there is room, it is recorded too."""
    real, full = spool_file._insert, [True]

    def insert(db: apsw.Connection, rows: Sequence[Row], note: Callable[[int], None]) -> int:
        if full and any(b"in the handler" in body for _, body in rows):
            raise apsw.FullError("database or disk is full")
        return real(db, rows, note)

    monkeypatch.setattr(spool_file, "_insert", insert)
    with closing(Spool(path, "store")) as spool:
        assert spool.file.ask(lambda db: [spool.append([entry(target)]) for target in ("in the handler", "b")]) == [
            0,
            0,
        ]
        assert [spool.append([entry("later")]) for _ in "ab"] == [2, 3]
        assert caplog.text.count("1 entries of signal handlers are not recorded yet") == 1
        full.clear()
        spool.status()
        assert [event.target for event in spool.kept(0)] == ["b", "later", "later", "in the handler"]


def test_what_a_handler_recorded_is_written_at_the_end(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """No other call may come: closing writes what waits in memory, or says that it is lost."""
    real, full = spool_file._insert, [True]

    def insert(db: apsw.Connection, rows: Sequence[Row], note: Callable[[int], None]) -> int:
        if full:
            raise apsw.FullError("database or disk is full")
        return real(db, rows, note)

    monkeypatch.setattr(spool_file, "_insert", insert)
    for closes_when_full in (True, False):
        full[:] = [True]
        spool = Spool(path, "store")
        spool.file.ask(lambda db, spool=spool: spool.append([entry("in the handler")]))
        if not closes_when_full:
            full.clear()
        spool.close()
    assert caplog.text.count("1 entries of signal handlers are lost") == 1
    with closing(Spool(path, "store")) as spool:
        assert [event.target for event in spool.kept(0)] == ["in the handler"]


AT_THE_END = """
import sys, threading, time
from pathlib import Path
from audit_pipeline.processor import AuditPipeline

folder = Path(sys.argv[1])
pipeline = AuditPipeline.open(f"sqlite:///{folder}/a.db", spool=folder / "s.db", ship=False)

class Session:
    def __del__(self, record=pipeline.record):
        record("auth.logout")

def record():
    while True:
        pipeline.record("domain.created")

sys.modules["a_module"] = type("A", (), {})()
sys.modules["a_module"].session = Session()
for _ in range(2):
    threading.Thread(target=record, daemon=True).start()
time.sleep(0.3)
"""


def test_a_process_ends_though_its_threads_were_frozen_in_a_call(tmp_path: Path) -> None:
    """Its end freezes daemon threads wherever they are; a finalizer that records does not wait for them for ever."""
    for number in range(3):
        folder = tmp_path / str(number)
        folder.mkdir()
        subprocess.run([sys.executable, "-c", AT_THE_END, folder], check=False, timeout=30, capture_output=True)


def test_a_log_handler_that_records_and_a_spool_that_is_replaced(path: Path) -> None:
    """One thread logs, and its handler records; another finds the spool gone, and says so: neither waits for ever."""
    inside = threading.Event()

    class Recording(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.name == "app.security":
                inside.set()
                time.sleep(0.3)  # as long as the other one needs to be where it logs
                spool.append([entry("from the log")])

    handler = Recording()
    with closing(Spool(path, "store")) as spool:
        spool.append([entry("first")])
        path.unlink()
        logging.getLogger().addHandler(handler)
        try:
            one = threading.Thread(target=logging.getLogger("app.security").warning, args=("no",), daemon=True)
            other = threading.Thread(target=spool.append, args=([entry("other")],), daemon=True)
            one.start()
            inside.wait(5)
            other.start()
            other.join(5)
            one.join(5)
        finally:
            logging.getLogger().removeHandler(handler)
        assert not other.is_alive()
        assert not one.is_alive()


class _Stop(BaseException):
    """What a signal handler raises."""


@pytest.mark.parametrize("records", [False, True])
def test_a_signal_handler_that_raises_at_the_end_of_a_call_ends_that_call(path: Path, records: bool) -> None:
    """Wherever in a call it comes: what is recorded later is on disk, and so is what the handler itself recorded."""
    spool = Spool(path, "store")

    def handle(frame: FrameType, event: str, _: object) -> None:
        if event == "call" and frame.f_code.co_name in ("_write_interrupting", "_finish"):
            sys.settrace(None)
            if records:
                spool.append([entry("in the handler")])
            raise _Stop

    made = [entry("interrupted")]
    sys.settrace(handle)
    with pytest.raises(_Stop):
        spool.append(made)
    assert spool.append([entry("later")]) == 2 + records
    found = [event.target for event in Spool(path, "store").pending()]
    assert found == ["interrupted", *["in the handler"] * records, "later"]
    spool.close()


def test_a_signal_handler_that_records_and_closes(path: Path) -> None:
    """In the middle of a call, it closes after what it recorded, and after the call itself."""
    spool = Spool(path, "store")

    def handle(frame: FrameType, event: str, _: object) -> None:
        if event == "call" and frame.f_code.co_name == "insert":
            sys.settrace(None)
            spool.append([entry("in the handler")])
            spool.close()

    sys.settrace(handle)
    spool.append([entry("interrupted")])
    with pytest.raises(SpoolError, match="is closed"):
        spool.append([entry("later")])
    with closing(Spool(path, "store")) as opened:
        assert [event.target for event in opened.pending()] == ["interrupted", "in the handler"]


_ENDS_WITHOUT_CLOSING = """
import os, sys
from audit_pipeline import AuditPipeline
audit = AuditPipeline.open("memory://", spool=sys.argv[1], ship=False)
for _ in range(5):
    audit.record("domain.created")
os._exit(0)
"""


def test_a_log_without_its_file_is_not_deleted(path: Path) -> None:
    """A spool that was moved away without its log: what the log has goes on."""
    subprocess.run([sys.executable, "-c", _ENDS_WITHOUT_CLOSING, path], check=True)
    path.rename(path.with_name("elsewhere"))
    with closing(Spool(path, "memory")) as spool:
        assert [event.action for event in spool.pending()] == ["domain.created"] * 5 + ["audit.gap"]
        assert len(spool.status().damaged) == 1
    assert [file.stat().st_size > 0 for file in path.parent.glob("*.damaged-*-wal")] == [True]


def test_a_damaged_spool_behind_a_link_is_repaired_with_its_log(tmp_path: Path) -> None:
    """SQLite keeps the log beside the file that the link leads to."""
    (tmp_path / "data").mkdir()
    link, file = tmp_path / "audit.spool.db", tmp_path / "data" / "spool.db"
    file.touch(0o600)
    link.symlink_to(file)
    subprocess.run([sys.executable, "-c", _ENDS_WITHOUT_CLOSING, link], check=True)
    os.truncate(file, 0)
    with closing(Spool(link, "memory")) as spool:
        assert [event.action for event in spool.pending()] == ["domain.created"] * 5 + ["audit.gap"]
    assert link.is_symlink()
