"""A damaged spool: set aside, read as far as it can be, told of; and the pipeline goes on."""

from __future__ import annotations

import logging
import os
import random
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import apsw
import pytest

from audit_pipeline import SpoolError, SpoolFull, spool_file
from audit_pipeline import salvage as salvage_module
from audit_pipeline.actions import catalogue
from audit_pipeline.card import Known
from audit_pipeline.errors import SpoolMismatch
from audit_pipeline.event import AuditEvent, IdFactory
from audit_pipeline.group_commit import Row
from audit_pipeline.normalize import build_event
from audit_pipeline.pages import Pages
from audit_pipeline.salvage import repair
from audit_pipeline.spool import Quarantined, Spool

IDS = IdFactory()
PAGE = 4096
MANY = 10**6


def entry(target: str = "", detail: str = "", org: str = "default") -> AuditEvent:
    return build_event(catalogue["domain.created"], {"target": target, "detail": detail, "org": org}, IDS)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "audit.spool.db"


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second damage soon after the first is repaired too."""
    monkeypatch.setattr(spool_file, "REPAIR_PAUSE_S", 0.0)


def filled(path: Path, number: int = 200, shipped: int = 0, detail: str = "") -> list[AuditEvent]:
    """A spool with entries, all in its file, closed."""
    with closing(Spool(path, "store")) as spool:
        made = [entry(str(place), detail) for place in range(number)]
        spool.append(made)
        if shipped:
            spool.mark_shipped(shipped)
        return [replace(event, origin=spool.origin, sequence=place) for place, event in enumerate(made, 1)]


def overwrite(path: Path, page: int, content: bytes = b"") -> None:
    """Damage a page (from 1) of a closed database."""
    with path.open("r+b") as file:
        file.seek((page - 1) * PAGE)
        file.write((content or random.Random(page).randbytes(PAGE))[:PAGE])


def leaves(path: Path) -> dict[int, list[int]]:
    """The sequences on each leaf page of the entries."""
    pages = Pages(path)
    found: dict[int, list[int]] = {}
    for number in pages.numbers:
        page = pages.page(number)
        assert page is not None
        rows = list(pages._rows(page, 100 if number == 1 else 0, 2**16))
        if rows and [type(value) for value in rows[0].values] == [type(None), int, bytes]:
            found[number] = [row.number for row in rows]
    pages.close()
    return found


def root_of_entries(path: Path) -> int:
    with closing(apsw.Connection(str(path))) as db:
        root: int = db.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'entries'").get
    return root


def the_gap(events: list[AuditEvent]) -> AuditEvent:
    """The one entry that tells of a gap."""
    (gap,) = [event for event in events if event.action == "audit.gap"]
    return gap


def aside(path: Path) -> list[str]:
    """The damaged databases that were set aside."""
    return sorted(file.name for file in path.parent.iterdir() if file.name.endswith("Z") and ".damaged-" in file.name)


# What can be read goes on


def test_a_leaf_in_the_middle(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The entries of one damaged page are missing, are counted, and are told; all others keep place and origin."""
    made = filled(path, shipped=50)
    lost = next(leaf for leaf in leaves(path).items() if 100 in leaf[1])
    overwrite(path, lost[0])
    with closing(Spool(path, "store")) as spool, caplog.at_level(logging.ERROR):
        events = spool.pending(MANY, MANY)
        gap = the_gap(events)
        assert [event for event in events if event is not gap] == [
            event for event in made if event.sequence > 50 and event.sequence not in lost[1]
        ]
        assert gap.context["count"] == len(lost[1])
        assert gap.context["reason"] == "damaged"
        assert gap.context["from"] <= gap.context["to"]
        assert (gap.org, gap.outcome, gap.sequence) == ("default", "failure", 201)
        assert f"at least {len(lost[1])} entries are missing, of any organisation" in gap.detail
        assert spool.append([entry("next")]) == 202
        assert spool.shipped() == 50
        status = spool.status()
        assert [file.name for file in status.damaged] == aside(path)
    assert caplog.text.count("set aside") == 1
    assert f"at least {len(lost[1])} entries are missing" in caplog.text


def test_the_root_of_the_tree(path: Path) -> None:
    """Where the way to the entries is damaged, and no entry is, all of them are there, and nothing is missing."""
    made = filled(path)
    root = root_of_entries(path)
    assert root not in leaves(path)
    overwrite(path, root)
    with closing(Spool(path, "store")) as spool:
        events = spool.pending(MANY, MANY)
        assert events[:-1] == made
        assert the_gap(events).context == {"count": 0, "from": None, "to": None, "reason": "damaged"}
        assert "no entry is known to be missing" in the_gap(events).detail


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda path: overwrite(path, 1, b"\0" * PAGE), id="zeroes at its head"),
        pytest.param(lambda path: overwrite(path, 1), id="noise at its head"),
        pytest.param(lambda path: overwrite(path, 2), id="its own account"),
        pytest.param(lambda path: _sql(path, "DELETE FROM meta"), id="no account"),
        pytest.param(lambda path: _sql(path, "DROP TABLE meta"), id="no table"),
        pytest.param(
            lambda path: _sql(
                path, "PRAGMA writable_schema = ON; UPDATE sqlite_schema SET sql = 'CREATE TABLE x' WHERE name = 'meta'"
            ),
            id="malformed schema",
        ),
    ],
)
def test_a_head_that_says_nothing(path: Path, damage: Callable[[Path], None]) -> None:
    """Where a file is no database any more, or does not say what it is, every entry is read all the same."""
    made = filled(path, shipped=150)
    damage(path)
    with closing(Spool(path, "store")) as spool:
        events = spool.pending(MANY, MANY)
        assert events[:-1] in (made, made[150:])  # all of them again, where the mark cannot be read
        assert [event.sequence for event in events][-1] == the_gap(events).sequence == 201
        assert spool.serves() == "store"
        assert spool.append([entry()]) == 202


def _sql(path: Path, sql: str) -> None:
    with closing(apsw.Connection(str(path))) as db:
        db.config(apsw.SQLITE_DBCONFIG_DEFENSIVE, 0)
        db.execute(sql)


def test_the_end_is_cut_off(path: Path) -> None:
    """Of a file that was cut, the missing end is counted, and none of its numbers is given again."""
    made = filled(path)
    cut = sorted(leaves(path).items(), key=lambda leaf: leaf[1])[-3:]
    os.truncate(path, (min(page for page, _ in cut) - 1) * PAGE + 100)
    with closing(Spool(path, "store")) as spool:
        events = spool.pending(MANY, MANY)
        left = [event for event in events if event.action != "audit.gap"]
        assert left == made[: len(left)]
        assert the_gap(events).context["count"] == 200 - len(left) > 0
        assert the_gap(events).sequence == 201


def test_an_empty_file(path: Path) -> None:
    """Of a spool whose file was emptied, what its log still has is kept; that it cannot tell the rest, it says."""
    filled(path)
    keeper = Spool(path, "store")
    late = entry("late")
    keeper.append([late])
    log = path.with_name(path.name + "-wal").read_bytes()
    keeper.close()
    os.truncate(path, 0)
    path.with_name(path.name + "-wal").write_bytes(log)
    with closing(Spool(path, "store")) as spool:
        events = spool.pending(MANY, MANY)
        assert events[-2].id == late.id
        assert events[-2].sequence == 201
        assert "how many entries are missing cannot be told" in the_gap(events).detail
        assert the_gap(events).sequence == 202


def test_a_signal_handler_in_the_middle_of_a_repair(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it records is written by the call that needed the repair; it does not wait for its own thread."""
    filled(path)
    overwrite(path, 1)
    real = salvage_module.repair
    with closing(Spool(path, "store", at_once=False)) as spool:

        def repair(*given: Any) -> salvage_module.Repaired:
            assert spool.append([entry("in the handler")]) == 0
            return real(*given)

        monkeypatch.setattr(salvage_module, "repair", repair)
        spool.append([entry("outer")])
        assert [event.target for event in spool.kept(0)][-2:] == ["outer", "in the handler"]


@pytest.mark.parametrize("gone", [("", "-wal", "-shm"), ("-wal", "-shm")])
@pytest.mark.parametrize("ended", [True, False], ids=["it was closed", "it was never closed"])
def test_a_spool_that_is_gone_is_told(path: Path, gone: tuple[str, ...], ended: bool) -> None:
    """Where the spool was deleted, or its log before any of it was in the file, that is told; only a card is left."""
    spool = Spool(path, "store")
    spool.append([entry()])
    if ended:
        spool.close()
    for suffix in gone:
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    with closing(Spool(path, "store")) as fresh:
        found = fresh.kept(0)
        if ended and "" not in gone:
            assert [event.action for event in found] == ["domain.created"]
        else:
            assert [event.action for event in found] == ["audit.gap"]
            told = "at least 1 entry is missing" if "" not in gone else "how many entries are missing cannot be told"
            assert told in found[0].detail
            assert aside(path)
    spool.close()


def test_a_card_of_another_stores_spool_tells_nothing(path: Path) -> None:
    """A spool that was deleted to serve another store from now on begins anew."""
    filled(path)
    path.unlink()
    with closing(Spool(path, "another")) as spool:
        assert spool.append([entry()]) == 1


def test_a_file_of_which_nothing_can_be_read(path: Path) -> None:
    """Where all is noise, the pipeline goes on with an empty spool, under the old name and after the old numbers."""
    made = filled(path)
    path.write_bytes(random.Random(1).randbytes(path.stat().st_size))
    with closing(Spool(path, "store")) as spool:
        (gap,) = spool.pending()
        assert "cannot be told" in gap.detail
        assert gap.sequence == 201
        assert spool.origin == made[0].origin


def test_long_entries_and_those_in_the_log(path: Path) -> None:
    """Entries that fill several pages, and those that are only in the write-ahead log, are read like others."""
    made = filled(path, 20, detail="long " * 3000)
    keeper = Spool(path, "store")
    late = [entry(f"late {place}", "long " * 3000 if place % 2 else "") for place in range(50)]
    for event in late:
        keeper.append([event])
    files = {suffix: path.with_name(path.name + suffix).read_bytes() for suffix in ("", "-wal")}
    keeper.close()
    for suffix, content in files.items():
        path.with_name(path.name + suffix).write_bytes(content)
    repair(path, spool_file.SCHEMA, Known("store", "", 0))
    with closing(Spool(path, "store")) as spool:
        found = spool.pending(MANY, 2**30)
    assert [event.id for event in found[:-1]] == [event.id for event in (*made, *late)]
    assert [event.detail for event in found[:-1]] == [event.detail for event in (*made, *late)]


def test_a_log_that_was_cut(path: Path) -> None:
    """Of a log that ends in the middle of a commit, the commits before it count, and nothing of the cut one."""
    filled(path, 5)
    keeper = Spool(path, "store")
    late = [entry(f"late {place}") for place in range(10)]
    sizes = []
    log = path.with_name(path.name + "-wal")
    for event in late:
        keeper.append([event])
        sizes.append(log.stat().st_size)
    whole = log.read_bytes()
    database = path.read_bytes()
    keeper.close()
    for size in range(sizes[4], sizes[6], 397):
        _clear(path)
        path.write_bytes(database)
        log.write_bytes(whole[:size])
        overwrite(path, 1)
        with closing(Spool(path, "store")) as spool:
            found = [event.id for event in spool.pending() if event.action != "audit.gap"][5:]
        complete = sum(end <= size for end in sizes)
        assert found == [event.id for event in late[:complete]], size


def _clear(path: Path) -> None:
    for file in path.parent.iterdir():
        if not file.name.endswith(".card"):
            file.unlink()


def test_the_quarantine_is_kept(path: Path) -> None:
    """What lies in quarantine lies there still, with its reasons."""
    made = filled(path, 30)
    with closing(Spool(path, "store")) as spool:
        spool.mark_shipped(20, [Quarantined(made[3], "because")])
    overwrite(path, root_of_entries(path) if len(leaves(path)) > 1 else 2)
    with closing(Spool(path, "store")) as spool:
        spool.pending()
        assert spool.quarantined() == [Quarantined(made[3], "because")]


@pytest.mark.parametrize("left", [0, 1, 77])
def test_what_left_the_quarantine_does_not_come_back(path: Path, left: int) -> None:
    """Entries that a store took in the end are found on no page again, long ones neither; those that stay are."""
    made = filled(path, detail="long " * 3000 if left == 1 else "")
    with closing(Spool(path, "store")) as spool:
        spool.mark_shipped(200, [Quarantined(event, "because") for event in made])
        spool.settle(range(1, 201 - left), {})
    with path.open("r+b") as file:
        file.write(random.Random(1).randbytes(100))
    with closing(Spool(path, "store")) as spool:
        assert spool.quarantined() == [Quarantined(event, "because") for event in made[200 - left :]]


@pytest.mark.parametrize("durability", ["disk", "process"])
def test_no_number_of_the_quarantine_is_given_again(path: Path, durability: str) -> None:
    """Not where the spool does not say how far it was, either: under it, no other refused entry could be kept."""
    with closing(Spool(path, "memory:", durability)) as spool:
        spool.append([entry(str(number)) for number in range(5)])
        *_, last = spool.pending()
        spool.mark_shipped(5, [Quarantined(last, "it is bad")])
    with closing(apsw.Connection(str(path))) as db:
        roots = dict(db.execute("SELECT name, rootpage FROM sqlite_schema").fetchall())
    for name in ("meta", "entries"):
        overwrite(path, roots[name])
    with closing(Spool(path, "memory:", durability)) as spool:
        kept = {row.sequence for row in spool.quarantine()}
        assert spool.append([entry("next")]) > max(kept) == 5
        *_, newest = spool.pending()
        spool.mark_shipped(newest.sequence, [Quarantined(newest, "it is bad")])
        assert [one.event.target for one in spool.quarantined()] == ["4", "next"]


def test_a_row_that_is_damaged_itself(path: Path) -> None:
    """An entry whose text is noise goes to quarantine as it is; its neighbours go on, and nothing is missing."""
    made = filled(path)
    content = path.read_bytes()
    place = content.index(made[99].id.encode())
    path.write_bytes(content[: place - 2] + b"\xff\xff" + content[place:])
    overwrite(path, 1)
    with closing(Spool(path, "store")) as spool:
        events = spool.pending(MANY, MANY)
        assert [event.sequence for event in events] == [*range(1, 100), *range(101, 202)]
        assert the_gap(events).context["count"] == 0
        assert [(row.sequence, row.event) for row in spool.quarantine()] == [(100, None)]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to somebody")
@pytest.mark.parametrize("gone", ["", ".card", "the spool"])
def test_a_repair_by_root_locks_nobody_out(path: Path, gone: str) -> None:
    """Where `sudo audit-pipeline doctor` meets the damage, the new files belong to whom the spool belonged."""
    filled(path)
    for file in path.parent.iterdir():
        os.chown(file, 65_534, 65_533)
    if gone == "the spool":
        path.unlink()
    else:
        overwrite(path, root_of_entries(path))
    if gone == ".card":
        path.with_name(path.name + gone).unlink()
    with closing(Spool(path, "store")) as spool:
        spool.append([entry()])
        assert aside(path)
        for suffix in ("", "-wal", "-shm", ".card"):
            found = path.with_name(path.name + suffix).stat()
            assert (found.st_uid, found.st_gid) == (65_534, 65_533), suffix


def test_everything_set_aside_is_left_as_it_was(path: Path) -> None:
    """The damaged file is renamed with its log, byte for byte, private, and stays; the spool has its name back."""
    filled(path)
    root, log = root_of_entries(path), path.with_name(path.name + "-wal")
    with closing(Spool(path, "store")) as spool:
        spool.append([entry("late")])
        before = path.read_bytes(), log.read_bytes()
    path.write_bytes(before[0])
    log.write_bytes(before[1])
    overwrite(path, root)
    before = path.read_bytes(), log.read_bytes()
    with closing(Spool(path, "store")) as spool:
        assert spool.pending(MANY, MANY)[200].target == "late"
        (kept,) = spool.status().damaged
        assert (kept.read_bytes(), kept.with_name(kept.name + "-wal").read_bytes()) == before
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        kept.rename(kept.with_name("moved away"))
        assert spool.status().damaged == ()


# In any call, and at its opening


CALLS: dict[str, Callable[[Spool], object]] = {
    "append": lambda spool: spool.append([entry("more")]),
    "pending": lambda spool: spool.pending(),
    "kept": lambda spool: spool.kept(0),
    "trim": lambda spool: spool.trim(),
    "status": lambda spool: spool.status(),
    "quarantine": lambda spool: spool.quarantine(),
    "mark_shipped": lambda spool: spool.mark_shipped(1),
    "refusal": lambda spool: spool.refusal(),
}


@pytest.mark.parametrize("call", CALLS)
def test_in_whichever_call_it_shows(path: Path, call: str) -> None:
    """A spool that is damaged while it is open goes on, whichever call meets the damage first, and loses nothing."""
    made = filled(path)
    spool = Spool(path, "store")
    with closing(spool):
        for page in (1, root_of_entries(path), 2, 4):
            overwrite(path, page)
        spool.file.ask(lambda db: db.release_memory())
        CALLS[call](spool)
        with closing(Spool(path, "store")) as other:
            found = other.kept(0, MANY, MANY)
        assert found[:200] == made
        assert spool.append([entry("next")]) > 201


def test_a_shippers_mark_does_not_reach_into_another_file(path: Path) -> None:
    """What was read from a file that was then replaced is not marked in the new one, which may count anew."""
    filled(path)
    with closing(Spool(path, "store")) as spool:
        events = spool.pending()
        for file in list(path.parent.iterdir()):
            file.unlink()
        spool.append([entry("new")])
        spool.mark_shipped(events[-1].sequence)
        assert [event.target for event in spool.pending()] == [path.name, "new"]


def test_a_broken_disk_is_not_filled(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Damage that comes again at once is an error, not another copy each time."""
    monkeypatch.setattr(spool_file, "REPAIR_PAUSE_S", 60.0)
    filled(path)
    with closing(Spool(path, "store")) as spool:
        for _ in range(5):
            spool.file.reopen()
            overwrite(path, 1)
            with suppress(SpoolError):
                spool.append([entry()])
        with pytest.raises(SpoolError, match="damaged"):
            spool.append([entry()])
    assert len(aside(path)) == 1


def test_a_moments_failure_to_read_is_no_damage(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the disk fails to give something, it is asked again; only what fails again and again is set aside."""
    made = filled(path)
    failures = [1]

    class Failing(Spool):
        @spool_file.repairing
        def shipped(self, db: apsw.Connection) -> int:
            if failures and failures.pop():
                error = apsw.IOError("disk I/O error")
                error.extendedresult = apsw.SQLITE_IOERR_READ  # type: ignore[attr-defined]
                raise error
            return 0

    with closing(Failing(path, "store")) as spool:
        assert spool.shipped() == 0
        assert aside(path) == []
        failures += [1] * len(spool_file.DOUBT_S)
        assert spool.shipped() == 0
        assert aside(path) == []
        failures += [1] * (len(spool_file.DOUBT_S) + 1)
        assert spool.shipped() == 0
        assert len(aside(path)) == 1
        assert spool.pending(MANY, MANY)[:-1] == made


def test_a_repair_that_finds_no_room_is_tried_again(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While there is no room for what was read, entries are refused with that reason; then nothing is missing."""
    made = filled(path)
    overwrite(path, root_of_entries(path))

    def full(*_: object) -> int:
        raise apsw.FullError("database or disk is full")

    with closing(Spool(path, "store", at_once=False)) as spool, monkeypatch.context() as patched:
        patched.setattr(salvage_module, "_rebuild", full)
        patched.setattr(spool_file, "REPAIR_PAUSE_S", 60.0)
        for _ in range(3):
            with pytest.raises(SpoolFull, match="the disk is full"):
                spool.pending()
        assert isinstance(spool.refusal(), SpoolFull)
        with pytest.raises(SpoolError):
            Spool(path, "store")
    with closing(Spool(path, "store")) as spool:
        assert spool.pending(MANY, MANY)[:-1] == made
        assert len(spool.status().damaged) == 1


def test_another_programs_file_stays(path: Path) -> None:
    """Where there never was a spool, a file that is none is refused, and not set aside."""
    path.write_bytes(b"something else" * 1000)
    for _ in range(2):
        with pytest.raises(SpoolMismatch, match="no spool"):
            Spool(path, "store")
    assert path.read_bytes() == b"something else" * 1000


# Several processes


def test_what_came_too_late_is_written_again(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An entry that was committed to a file that was being set aside, and so may not be read out of it, is not lost."""
    real, late = spool_file._insert, [True]

    def insert(db: apsw.Connection, rows: Sequence[Row], note: Callable[[int], None]) -> int:
        sequence = real(db, rows, note)
        if late and late.pop():
            for file in list(path.parent.iterdir()):
                if not file.name.endswith(".card"):
                    file.rename(file.with_name(f"aside-{file.name}"))
            Spool(path, "store").close()
        return sequence

    monkeypatch.setattr(spool_file, "_insert", insert)
    with closing(Spool(path, "store")) as spool:
        spool.append([entry("late")])
    with closing(Spool(path, "store")) as spool:
        assert [event.target for event in spool.pending()] == ["late"]


@pytest.mark.parametrize("step", range(10))
def test_a_repair_that_is_killed_is_finished_by_the_next(path: Path, step: int) -> None:
    """Killed before any of its steps, a repair is finished by the next process: nothing is lost, nothing doubled."""
    made = filled(path, shipped=100)
    overwrite(path, root_of_entries(path))
    log = path.with_name(path.name + "-wal")
    log.write_bytes(b"")
    child = os.fork()
    if child == 0:
        try:
            _die_before(step)
            with closing(Spool(path, "store")) as spool:
                spool.pending()
        finally:
            os._exit(0)
    ended = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert ended == -signal.SIGKILL or step > 5
    with closing(Spool(path, "store")) as spool:
        spool.append([entry("next")])
        events = spool.pending(MANY, MANY)
        assert events[:100] == made[100:]
        assert [event.action for event in events[100:]] == ["audit.gap", "domain.created"]
        assert len(spool.status().damaged) == 1
    assert not [file for file in path.parent.iterdir() if file.name.endswith((".new", ".mending"))]


def _die_before(step: int) -> None:
    """Kill this process before the so-manieth change of a name on disk, or sync of one."""
    done = [0]

    def counted(real: Callable[..., object]) -> Callable[..., object]:
        def call(*given: object) -> object:
            if done[0] == step:
                os.kill(os.getpid(), signal.SIGKILL)
            done[0] += 1
            return real(*given)

        return call

    Path.rename = counted(Path.rename)  # type: ignore[method-assign]
    Path.replace = counted(Path.replace)  # type: ignore[method-assign]
    salvage_module.sync_folder = counted(salvage_module.sync_folder)


APPENDING = """
import sys
from pathlib import Path
from audit_pipeline import SpoolError
from audit_pipeline import spool_file
from audit_pipeline.actions import catalogue
from audit_pipeline.event import IdFactory
from audit_pipeline.normalize import build_event
from audit_pipeline.spool import Spool
spool_file.REPAIR_PAUSE_S = 0
spool, ids = Spool(Path(sys.argv[1]), "store"), IdFactory()
while True:
    event = build_event(catalogue["domain.created"], {}, ids)
    spool.append([event])
    print(event.id, flush=True)
"""


@pytest.fixture
def appending(path: Path) -> Iterator[list[subprocess.Popen[str]]]:
    """Three processes that append to one spool, and say each id once it is on disk."""
    filled(path)
    command = [sys.executable, "-c", APPENDING, str(path)]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(3)]
    yield processes
    for process in processes:
        process.kill()
        for pipe in (process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()
        process.wait()


def test_one_repairs_and_the_others_go_on(path: Path, appending: list[subprocess.Popen[str]]) -> None:
    """While three processes append, the spool is damaged again and again: one sets it aside, none loses an entry."""
    said: list[str] = []
    for process in appending:
        assert process.stdout is not None
        said += [process.stdout.readline().strip() for _ in range(20)]
    end = time.monotonic() + 30
    while len(aside(path)) < 3:
        assert time.monotonic() < end
        # Those who have the page in memory may write it anew: then there is no damage, and another try is needed.
        with suppress(apsw.Error, OSError), path.open("r+b") as file:
            file.seek((_root_while_written(path) - 1) * PAGE)
            file.write(b"\x0d" + random.randbytes(PAGE - 1))
        with suppress(SpoolError), closing(Spool(path, "store")) as spool:
            spool.kept(0, MANY, MANY)
        assert [process.stderr.read() for process in appending if process.poll() is not None and process.stderr] == []
    for process in appending:
        process.send_signal(signal.SIGTERM)
    for process in appending:
        assert process.stdout is not None
        said += [line.strip() for line in process.stdout if line.endswith("\n")]
    with closing(Spool(path, "store")) as spool:
        there = [event.id for event in spool.kept(0, MANY, 2**30)]
    assert len(aside(path)) >= 3
    missing = set(said) - set(there)
    assert not missing, f"{len(missing)} of {len(said)}"


def _root_while_written(path: Path) -> int:
    with closing(apsw.Connection(str(path))) as db:
        db.set_busy_timeout(5000)
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        root: int = db.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'entries'").get
    return root
