"""A spool and a store for real processes, and what is asked of both in the end."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from audit_pipeline import AuditPipeline
from audit_pipeline.event import AuditEvent
from audit_pipeline.query import Query, Window
from audit_pipeline.settings import Settings
from audit_pipeline.stores import open_store

from .conftest import Start
from .tally import Said, check, stored_in

__all__ = ["MIB", "Place", "Until", "counted", "emit", "ended"]

MIB = 2**20
Until = Callable[[Callable[[], bool], float], None]


@dataclass(frozen=True, slots=True)
class Place:
    """A spool of a mebibyte, and a store whose folder is not there yet: it is down."""

    folder: Path
    more: tuple[tuple[str, str], ...] = ()

    @property
    def url(self) -> str:
        return f"sqlite:///{self.folder / 'store' / 'audit.db'}"

    @property
    def environment(self) -> dict[str, str]:
        return {
            "AUDIT_STORE_URL": self.url,
            "AUDIT_SPOOL": str(self.folder / "audit.spool.db"),
            "AUDIT_SPOOL_LIMIT": str(MIB),
            "AUDIT_JWT_SECRET": "a secret of the rounds, which is long enough for HS256",
            **dict(self.more),
        }

    def store_up(self) -> None:
        """The store answers from now on."""
        away = self.folder / "away"
        if away.exists():
            away.rename(self.folder / "store")
        else:
            (self.folder / "store").mkdir()

    def store_away(self) -> None:
        """The store is down again; what it has stays."""
        (self.folder / "store").rename(self.folder / "away")

    def said(self) -> list[Path]:
        return sorted(self.folder.glob("said-*"))

    def gaps(self) -> list[AuditEvent]:
        with closing(open_store(self.url)) as store:
            page = store.search(Query("default", actions=frozenset(["audit.gap"])), Window(1000))
        return [store_event for store_event in page.items if store_event.action == "audit.gap"]

    def finish(self) -> None:
        """Ship all that is left, and tell what was counted."""
        settings = Settings.from_environment({**self.environment, "AUDIT_ON_FULL": "fail_open"})
        with AuditPipeline.open(settings=settings) as audit:
            end = time.monotonic() + 60
            while audit.gaps.missing():  # they are told once there is room
                audit._tell_gaps()
                assert time.monotonic() < end, "what was counted is not told"
                time.sleep(0.05)
            audit.record("domain.created", target="last")
            assert audit.flush(60)


def emit(start: Start, place: Place, name: object, *more: object) -> subprocess.Popen[bytes]:
    said = place.folder / f"said-{name}"
    return start("-m", "tests.faults.emitter", place.url, "--said", said, "--name", name, "--detail", 2000,
                 "--stubborn", *more, env=place.environment)  # fmt: skip


def counted(gaps: list[AuditEvent]) -> int:
    """How many entries gaps tell of; None stands for a number that cannot be told."""
    return sum(gap.context["count"] or 0 for gap in gaps)


def ended(place: Place, fault: str, tries: int, reason: str | None) -> None:
    """Each call that returned is stored, or counted for this reason where the host chose so; each was told once."""
    said = Said.by(*place.said())
    stored = [pair for pair in stored_in(place.url) if pair[1] != "last"]
    there = {event_id for event_id, _ in stored}
    missing = [pair for pair in said.accepted.items() if pair[0] not in there]
    gaps = place.gaps()
    assert {gap.context["reason"] for gap in gaps} == ({reason} if reason else set())
    assert not missing or reason, f"{fault}: {len(missing)} of {len(said.accepted)} are lost"
    more = counted(gaps) - len(missing)
    assert more <= len(said.begun - {target for _, target in stored}), f"{more} were counted that no call accounts for"
    check(fault, tries, said, stored + missing[: counted(gaps)])
