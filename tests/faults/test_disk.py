"""Disks whose writes and syncs fail: what was accepted is stored, once, and what was refused harms nothing."""

from __future__ import annotations

import random
from contextlib import suppress
from pathlib import Path

import pytest

from audit_pipeline import SpoolError
from audit_pipeline.spool import Spool

from .conftest import Start
from .life import IDENTITY, SPOOL, entries, look, often, upto
from .place import Place, Until
from .power import HOWS, Disk, Sum, Sync, put
from .recorder import Recorder
from .tally import Said, check, of, stored_in


def test_a_sync_fails_and_what_it_had_to_write_is_gone(memory: Path) -> None:
    """A failed sync drops what was written; what is accepted afterwards is there after a power loss all the same.

    Seen to lose 4 of 741, and to be corrupt, without `cut_log` (database): a spool that is opened again reads what the
    failed sync left in memory, takes it for kept, and builds on it.
    """
    total = Sum()
    failed = 0
    for seed in range(of(300, 8)):
        chosen = random.Random(seed)
        record, end = emit_while_syncs_fail(put({}, memory / "recorded"), chosen)
        failed += sum(isinstance(op, Sync) and op.failed for op in record.ops)
        disk = Disk()
        moments = {chosen.randint(0, end) for _ in range(5)} | {end}
        for moment, op in enumerate(record.ops[:end], 1):
            disk.play(op)
            if moment in moments:
                shipped, found = look(put(disk.after_cut(chosen.choice(HOWS), chosen), memory / "disk"))
                assert shipped == 0
                total.add(upto(moment, record.accepted), upto(moment, record.begun), found)
    assert failed > total.tries // 2
    total.check("sync fails and drops what was written, power loss")


def emit_while_syncs_fail(folder: Path, chosen: random.Random) -> tuple[Recorder, int]:
    """A record of entries, accepted and refused, and the number of its operations before the end."""
    with Recorder(folder) as record:
        spool = Spool(folder / SPOOL, IDENTITY)
        record.fails = lambda: chosen.random() < 0.3
        for turn in range(30):
            with suppress(SpoolError):
                often(spool)
            with suppress(SpoolError):
                record.append(entries(chosen, str(turn), chosen.randint(1, 3)), spool.append)
            if turn % 10 == 9:
                spool.file.reopen()
        end = len(record.ops)
        record.fails = lambda: False
        spool.close()
    return record, end


@pytest.mark.parametrize("chance", [0.02, 0.2])
def test_writes_and_syncs_fail_at_random(tmp_path: Path, start: Start, until: Until, chance: float) -> None:
    """Writes that fail or are cut and syncs that fail refuse calls; what was accepted survives that, and kill -9.

    Seen to lose 7 of 132 where `_insert` (spool_file) passes over SQLite's IOError and FullError.
    """
    place = Place(tmp_path, (("AUDIT_SPOOL_LIMIT", str(2**30)),))
    place.store_up()
    kills = of(30, 2)
    start("-m", "audit_pipeline", "ship", env=place.environment)
    for number in range(kills):
        said = tmp_path / f"said-{number}"
        emitters = [
            start("-m", "tests.faults.bad_disk", seed, chance, place.url, "--said", said, "--name", seed, "--stubborn",
                  *(["--ship"] if seed % 2 else []), env=place.environment)
            for seed in (2 * number, 2 * number + 1)
        ]  # fmt: skip
        until(lambda file=said: file.exists() and file.read_bytes().count(b"=") > 40, 60)
        for emitter in emitters:
            emitter.kill()
            emitter.wait()
    place.finish()
    said = Said.by(*place.said())
    assert len(said.begun) > kills, "hardly any call was refused"
    stored = [pair for pair in stored_in(place.url) if pair[1] != "last"]
    check(f"writes and syncs fail ({chance:.0%}), then kill -9", kills, said, stored)
