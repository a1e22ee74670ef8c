"""What a spool goes through while it is recorded, and what is asked of it after the power was cut."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import pairwise
from pathlib import Path

from audit_pipeline.actions import catalogue
from audit_pipeline.event import AuditEvent, IdFactory
from audit_pipeline.normalize import build_event
from audit_pipeline.spool import Quarantined, Spool

from .power import HOWS, Disk
from .recorder import Recorder

__all__ = [
    "IDENTITY",
    "MANY",
    "OFTEN",
    "SPOOL",
    "STORE",
    "cuts",
    "emit_and_ship",
    "entries",
    "entry",
    "look",
    "often",
    "upto",
]

IDS = IdFactory()
MANY = 10**6
SPOOL, STORE = "audit.spool.db", "audit.db"
IDENTITY = f"sqlite:{STORE}"
OFTEN = 12
"""After how many pages of the log SQLite moves them into the database: in the product it is a thousand."""


def entry(chosen: random.Random, target: str) -> AuditEvent:
    """Small as most are, or of some pages, so that a torn one is seen."""
    detail = target * (chosen.choice((1, 3, 30, 600)))
    return build_event(catalogue["domain.created"], {"target": target, "detail": detail}, IDS)


def entries(chosen: random.Random, name: str, number: int) -> list[AuditEvent]:
    return [entry(chosen, f"{name}-{place}.example.com") for place in range(number)]


def cuts(
    record: Recorder, tries: int, chosen: random.Random, first: int = 0
) -> Iterator[tuple[int, str, dict[str, bytes]]]:
    """Moments, how the cut went, and what the disk then has: each moment from `first` on in turn, so many in all."""
    disk = Disk()
    every = len(HOWS) * (len(record.ops) + 1 - first) / tries
    due = 0.0
    for moment in range(len(record.ops) + 1):
        if moment:
            disk.play(record.ops[moment - 1])
        if moment < first:
            continue
        while due < len(HOWS):
            how = HOWS[(int(due) + moment) % len(HOWS)]
            yield moment, how, disk.after_cut(how, chosen)
            due += every
        due -= len(HOWS)


def often(spool: Spool) -> None:
    spool.file.ask(lambda db: db.execute(f"PRAGMA wal_autocheckpoint = {OFTEN}"))


def emit_and_ship(
    record: Recorder, spool: Spool, take: Callable[[list[AuditEvent]], object], chosen: random.Random
) -> list[tuple[int, int]]:
    """A spool's life: entries alone and together, shipped, refused, trimmed, closed and opened again.

    Returns each mark, with the number of operations before it was moved there.
    """
    marks: list[tuple[int, int]] = []
    for turn in range(12):
        often(spool)
        for number in (1, 1, chosen.randint(1, 5), 1):
            record.append(entries(chosen, str(turn), number), spool.append)
        events = spool.pending(chosen.randint(1, 8))
        refused = events[-1:] if not turn % 3 else []
        take(events[: len(events) - len(refused)])
        marks.append((len(record.ops), events[-1].sequence))
        spool.mark_shipped(events[-1].sequence, [Quarantined(event, "refused") for event in refused])
        spool.trim()
        if turn in (4, 8):
            spool.file.reopen()
    return marks


def look(folder: Path, durability: str = "disk") -> tuple[int, dict[str, AuditEvent]]:
    """The mark, and the entries that are in a spool after a cut, by id. It is whole, and goes on."""
    with closing(Spool(folder / SPOOL, IDENTITY, durability)) as spool:
        events = spool.kept(0, MANY, MANY * 100)
        numbers = [event.sequence for event in events]
        assert all(after == before + 1 for before, after in pairwise(numbers))
        refused = spool.quarantined()
        found = {event.id: event for event in [one.event for one in refused] + events}
        assert len(found) == len({event.sequence for event in found.values()})
        shipped = spool.shipped()
        last = spool.status().accepted
        assert shipped <= last
        waiting = {event.sequence for event in found.values() if event.sequence > shipped}
        assert waiting == {*range(shipped + 1, last + 1)}
        assert spool.file.ask(lambda db: db.execute("PRAGMA integrity_check").get) == "ok"
        more = entry(random.Random(), "more.example.com")
        assert spool.append([more]) == last + 1
        assert spool.pending(MANY, MANY * 100)[-1].id == more.id
        # Power loss is no damage: nothing was set aside.
        assert spool.status().damaged == ()
    return shipped, found


def upto(moment: int, noted: list[tuple[int, AuditEvent]]) -> dict[str, AuditEvent]:
    return {event.id: event for at, event in noted if at <= moment}
