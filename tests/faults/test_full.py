"""The spool at its limits, with real processes: what is accepted is stored, what is refused is told or counted once."""

from __future__ import annotations

import random
from contextlib import closing
from pathlib import Path

import apsw

from audit_pipeline.event import AuditEvent, now_ms
from audit_pipeline.spool import Spool

from .conftest import Start
from .operator import operator
from .place import MIB, Place, Until, counted, emit
from .tally import Said, check, of, stored_in


def test_several_processes_at_the_limit(tmp_path: Path, start: Start) -> None:
    """With the store down four processes fill the spool: refused calls raise, accepted ones are stored, and it goes on.

    Seen never to be full, as it deleted what waited, where `delete_shipped` (room) does not look at the mark.
    """
    place = Place(tmp_path)
    shipper = start("-m", "audit_pipeline", "ship", env=place.environment)
    emitters = [emit(start, place, name, "--events", of(3000, 300), "--pause", 0.001) for name in range(4)]
    with operator(place.environment) as sees:
        sees.sees("spool-limit", "AUDIT_SPOOL_LIMIT is 1,048,576", "AUDIT_SPOOL_LIMIT", "shipping-stopped")
        used = Spool(tmp_path / "audit.spool.db", None).status().used
        assert MIB <= used < MIB * 1.2, "four processes together go over the limit by a part of it alone"
        place.store_up()
        sees.await_troubles("spool-limit", "shipping-stopped", gone=True)
        assert [emitter.wait(120) for emitter in emitters] == [0] * 4
        assert shipper.poll() is None
        place.finish()
        sees.sees_nothing()
    said = Said.by(*place.said())
    assert len(said.begun) > 0, "none was refused"
    assert place.gaps() == []
    stored = [pair for pair in stored_in(place.url) if pair[1] != "last"]
    check("spool at its limit, 4 processes, fail_closed", 1, said, stored)


def test_an_entry_waits_for_too_long(tmp_path: Path, start: Start, until: Until) -> None:
    """Once the oldest entry has waited for AUDIT_SPOOL_AGE calls are refused, and taken again when the store is back.

    Seen to refuse two at the most where `_made` (room) deletes the oldest to make room.
    """
    place = Place(tmp_path, (("AUDIT_SPOOL_AGE", "1"), ("AUDIT_SPOOL_LIMIT", str(2**30))))
    emitters = [emit(start, place, name, "--pause", 0.005) for name in range(2)]
    with operator(place.environment) as sees:
        start("-m", "audit_pipeline", "ship", env=place.environment)
        sees.sees("spool-age", "AUDIT_SPOOL_AGE is 1", "AUDIT_SPOOL_AGE", "shipping-stopped")
        until(lambda: len(Said.by(*place.said()).begun) > 2, 60)
        place.store_up()
        sees.await_troubles("spool-age", "shipping-stopped", gone=True)
        for emitter in emitters:
            emitter.terminate()
            emitter.wait()
        place.finish()
        sees.sees_nothing()
    said = Said.by(*place.said())
    stored = [pair for pair in stored_in(place.url) if pair[1] != "last"]
    check("an entry older than AUDIT_SPOOL_AGE, 2 processes", 1, said, stored)


def test_what_is_kept_for_a_replay_goes_first(tmp_path: Path, start: Start) -> None:
    """Shipped entries give way to new ones: none is refused, though several times the limit goes through the spool.

    What the store lost meanwhile is sent again as far as the spool still has it, the newest, and none is doubled.

    Seen never to tell what was refused where `_made` (room) deletes nothing: there was no room for it.
    """
    place = Place(tmp_path)
    place.store_up()
    rounds = of(8, 2)
    spool = None
    start("-m", "audit_pipeline", "ship", env=place.environment)
    for number in range(rounds):
        assert emit(start, place, number, "--events", 300, "--pause", 0.01).wait(120) == 0
        place.finish()
        spool = spool or Spool(tmp_path / "audit.spool.db", None)
    assert spool is not None
    kept = spool.kept(0, 10_000, 2**30)
    spool.close()
    assert spool_is_contiguous(kept)
    assert 160 < len(kept) < 300 * rounds
    said = Said.by(*place.said())
    assert not said.begun, "some were refused"
    with closing(apsw.Connection(str(tmp_path / "store" / "audit.db"))) as db:  # the store lost its newest entries
        db.execute("DELETE FROM entries WHERE number > (SELECT max(number) FROM entries) - 150")
        db.execute("DELETE FROM contents WHERE number > (SELECT max(number) FROM entries)")
    assert start("-m", "audit_pipeline", "ship", "--replay", env=place.environment).wait(60) == 0
    stored = [pair for pair in stored_in(place.url) if pair[1] != "last"]
    check("shipped entries give way, then a replay", rounds, said, stored)


def spool_is_contiguous(kept: list[AuditEvent]) -> bool:
    return [event.sequence for event in kept] == [*range(kept[0].sequence, kept[-1].sequence + 1)]


def test_processes_are_killed_while_they_count(tmp_path: Path, start: Start, until: Until) -> None:
    """With fail_open each call that returned is stored or counted once, though its process is killed at any point.

    Seen to lose 34 of 3,384 without the lock that processes share in `_changed` (gaps).
    """
    chosen = random.Random(8)
    place = Place(tmp_path, (("AUDIT_ON_FULL", "fail_open"),))
    began = now_ms()
    kills = of(60, 4)
    shipper = start("-m", "audit_pipeline", "ship", env=place.environment)
    emitters = [emit(start, place, name) for name in range(3)]
    with operator(place.environment) as sees:
        # The shipper has no store, and the gap can not be told: what is counted meanwhile stays open.
        sees.sees("gap-open", "not recorded, and counted", "audit.gap", "spool-limit", "shipping-stopped")
        for number in range(kills):
            (victim, *rest) = emitters
            said = place.folder / f"said-{number + 2}"
            until(lambda file=said: file.exists() and file.stat().st_size > 3000, 60)
            victim.kill()
            victim.wait()
            emitters = [*rest, emit(start, place, number + 3)]
            if number == kills // 2:  # in the midst of it there is room again for a while, and what was counted is told
                place.store_up()
                sees.await_troubles("spool-limit", gone=True)
                place.store_away()
            elif chosen.random() < 0.3:
                shipper.kill()
                shipper.wait()
                shipper = start("-m", "audit_pipeline", "ship", env=place.environment)
        for process in (shipper, *emitters):
            process.kill()
            process.wait()
        place.store_up()
        place.finish()
        sees.sees_nothing()
    said = Said.by(*place.said())
    stored = [pair for pair in stored_in(place.url) if pair[1] != "last"]
    there = {event_id for event_id, _ in stored}
    missing = [pair for pair in said.accepted.items() if pair[0] not in there]
    under_way = len(said.begun - {target for _, target in stored})
    gaps = place.gaps()
    assert len(missing) > 100
    assert len({gap.id for gap in gaps}) == len(gaps)
    for gap in gaps:
        assert gap.context["reason"] == "limit"
        assert began <= gap.timestamp <= now_ms()
    more = counted(gaps) - len(missing)
    assert more <= under_way, f"{more} were counted that no call can account for ({under_way} were killed)"
    check("kill of a process at the limit, fail_open", kills, said, stored + missing[: counted(gaps)])
