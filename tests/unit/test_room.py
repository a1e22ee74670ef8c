"""The limits of the spool: what is refused, what makes room first, and what looking costs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import apsw
import pytest

from audit_pipeline import SpoolFull, room
from audit_pipeline.actions import catalogue
from audit_pipeline.event import AuditEvent, IdFactory
from audit_pipeline.normalize import build_event
from audit_pipeline.room import Limits, QuarantineFull
from audit_pipeline.spool import Quarantined, Spool

IDS = IdFactory()
MIB = 2**20


def entry(target: str = "", detail: str = "") -> AuditEvent:
    return build_event(catalogue["domain.created"], {"target": target, "detail": detail}, IDS)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "audit.spool.db"


@pytest.fixture
def small(path: Path) -> Iterator[Spool]:
    with closing(Spool(path, "store", limits=Limits(MIB))) as spool:
        yield spool


def fill(spool: Spool, detail: str = "d" * 2000) -> int:
    """Append until it is refused; return how many were taken."""
    for number in range(10_000):
        try:
            spool.append([entry(str(number), detail)])
        except SpoolFull:
            return number
    raise AssertionError("it was never full")


def test_a_full_spool_refuses_and_says_what_to_do(small: Spool) -> None:
    """At its limit a spool takes no entry, says what is full and what to do, and keeps every entry that it took."""
    taken = fill(small)
    assert 200 < taken < 300
    with pytest.raises(
        SpoolFull, match=r"holds 1,0\d\d,\d\d\d bytes .*AUDIT_SPOOL_LIMIT is 1,048,576; .*doctor"
    ) as error:
        small.append([entry()])
    assert error.value.reason == "limit"
    assert "\n" not in str(error.value)
    assert isinstance(small.refusal(), SpoolFull)
    assert [event.target for event in small.pending(10_000, 2**30)] == [str(number) for number in range(taken)]
    assert small.status().used <= MIB * 1.05


def test_what_was_shipped_goes_first(small: Spool) -> None:
    """Entries that a store has, and that are only kept, make room for new ones, oldest first; pending ones stay."""
    taken = fill(small)
    small.mark_shipped(taken - 10)
    assert small.refusal() is None
    kept = small.kept(0, 1)[0].sequence
    for number in range(50):
        small.append([entry(f"more {number}", "d" * 2000)])
    assert small.kept(0, 1)[0].sequence > kept
    assert len(small.pending(10_000, 2**30)) == 60
    assert fill(small) > 50


def test_a_full_spool_takes_entries_again_a_little_below_its_limit(small: Spool) -> None:
    """Once it was full, it is not so that each entry that is shipped lets one in, with a gap each time."""
    taken = fill(small)
    small.mark_shipped(1)
    small.file.ask(lambda db: db.execute("DELETE FROM entries WHERE sequence <= 2"))
    assert isinstance(small.refusal(), SpoolFull)
    small.mark_shipped(taken // 8)
    assert small.append([entry()]) == taken + 1


def set_aside(spool: Spool, number: int) -> None:
    """Let a store refuse entries of two thousand bytes for ever, ten at a time."""
    for _ in range(number // 10):
        spool.append([entry("refused", "d" * 2000) for _ in range(10)])
        spool.mark_shipped(spool.status().accepted, [Quarantined(one, "because") for one in spool.pending()])


def test_quarantine_has_room_of_its_own(small: Spool) -> None:
    """What lies in quarantine takes none of the room for entries that wait, up to a quarter of the limit beside it."""
    set_aside(small, 100)
    assert fill(small) > 190
    assert small.status().crowding == 0
    assert small.status().used <= MIB * 1.05
    with pytest.raises(SpoolFull, match="that no store has yet"):
        small.append([entry()])


def test_a_quarantine_that_outgrows_its_room_is_told_as_what_it_is(small: Spool) -> None:
    """Where it leaves no room, no store is blamed: what refuses names it and its commands; settled, all is well."""
    with pytest.raises(
        SpoolFull, match=r"lie in quarantine, .*AUDIT_SPOOL_LIMIT is 1,048,576; .*quarantine re"
    ) as full:
        set_aside(small, 10_000)
    assert full.value.reason == "limit"
    assert isinstance(small.refusal(), QuarantineFull)
    assert small.status().crowding > MIB // 4
    assert small.status().pending == 0
    assert len(small.quarantine()) > 300
    small.settle([row.sequence for row in small.quarantine()], {})
    assert small.refusal() is None
    assert fill(small) > 200


def test_a_full_spool_does_not_add_up_its_quarantine_each_time(small: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    """What came into it since the last look is added; all of it every ten seconds, not by each call that is refused."""
    set_aside(small, 50)
    fill(small)
    with pytest.raises(SpoolFull):
        small.append([entry()])
    small.file.ask(lambda db: db.execute("UPDATE quarantine SET body = zeroblob(1)"))
    assert small._room._aside > 100_000
    small.refusal()
    assert small._room._aside > 100_000
    now = time.monotonic()
    monkeypatch.setattr(room.time, "monotonic", lambda: now + 11)
    small.refusal()
    assert small._room._aside < 1000


def test_the_oldest_entry_may_wait_for_so_long(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With an age set, a spool whose oldest entry waited for longer refuses, until a store has that one."""
    monkeypatch.setattr(room, "OFTEN_S", 0.0)
    with closing(Spool(path, "store", limits=Limits(age_s=60))) as spool:
        spool.append([entry("old"), entry("new")])
        now = time.time_ns() // 10**6
        monkeypatch.setattr(room, "now_ms", lambda: now + 61_000)
        with pytest.raises(SpoolFull, match=r"has waited for 61 s, and AUDIT_SPOOL_AGE is 60; .*doctor") as error:
            spool.append([entry()])
        assert error.value.reason == "age"
        spool.mark_shipped(2)
        assert spool.append([entry()]) == 3


def test_age_is_looked_at_though_little_is_appended(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A look holds for a second, however little was appended since."""
    with closing(Spool(path, "store", limits=Limits(age_s=60))) as spool:
        spool.append([entry("old")])
        now, clock = time.time_ns() // 10**6, time.monotonic()
        monkeypatch.setattr(room, "now_ms", lambda: now + 61_000)
        spool.append([entry()])
        monkeypatch.setattr(room.time, "monotonic", lambda: clock + 2)
        with pytest.raises(SpoolFull):
            spool.append([entry()])


Disk = Callable[[int], None]


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    """Says how many bytes are free on the disk."""
    monkeypatch.setattr(room, "OFTEN_S", 0.0)

    def free(size: int) -> None:
        monkeypatch.setattr(room, "free_bytes", lambda path: (size, 2**40))

    return free


def test_the_last_of_the_disk_is_left_for_what_is_recorded(path: Path, disk: Disk) -> None:
    """Where the disk is nearly full, entries are refused before nothing works any more; with room, taken again."""
    with closing(Spool(path, "store")) as spool:
        spool.append([entry()])
        disk(room.FLOOR - 1)
        with pytest.raises(SpoolFull, match=r"the disk is full: 16,777,215 bytes are free, and 16,777,216") as error:
            spool.append([entry()])
        assert error.value.reason == "disk"
        disk(room.FLOOR * 2)
        assert spool.append([entry()]) == 2


def test_on_a_full_disk_what_was_shipped_makes_room(path: Path, disk: Disk) -> None:
    """A spool with enough room inside its own file needs none of the disk; what was shipped is given up for it."""
    with closing(Spool(path, "store")) as spool:
        for number in range(1000):
            spool.append([entry(str(number), "d" * 2000)])
        disk(0)
        with pytest.raises(SpoolFull):
            spool.append([entry()])
        spool.mark_shipped(990)
        for number in range(20):
            assert spool.append([entry("more")]) == 1001 + number
        assert len(spool.pending(10_000, 2**30)) == 30


def test_a_write_that_finds_the_disk_full_is_tried_once_more(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where SQLite finds no room, what was shipped is deleted, and the entry written again; else it is refused."""
    with closing(Spool(path, "store")) as spool:
        spool.append([entry(str(number)) for number in range(100)])
        spool.mark_shipped(90)
        real, failing = spool.file.insert, [True]

        def insert(*given: object) -> int:
            if failing and failing.pop():
                raise apsw.FullError("database or disk is full")
            return real(*given)  # type: ignore[arg-type]

        monkeypatch.setattr(spool.file, "insert", insert)
        assert spool.append([entry()]) == 101
        assert spool.kept(0, 1)[0].sequence > 1
        failing += [True, True]
        with pytest.raises(SpoolFull, match="the disk is full"):
            spool.append([entry()])


def test_looking_is_rare(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Far from any limit, a thousand appends look a few times."""
    looks = []
    real = room.used_bytes
    monkeypatch.setattr(room, "used_bytes", lambda db: looks.append(1) or real(db))
    monkeypatch.setattr(room, "OFTEN_S", 3600.0)
    with closing(Spool(path, "store")) as spool:
        for _ in range(1000):
            spool.append([entry()])
    assert 1 <= len(looks) <= 12
