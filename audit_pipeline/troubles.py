"""What is wrong with a spool and its shipping at the moment, and what to do: one list, which `doctor` and metrics show.

It is looked at anew each time; what has passed is no longer there.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from .errors import SpoolError
from .event import format_timestamp, now_ms
from .files import free_bytes
from .gaps import Gaps
from .room import FLOOR, QuarantineFull
from .shipping import shipping_of
from .spool import Spool, SpoolStatus

__all__ = ["KINDS", "Trouble", "troubles"]

LOW = 4 * FLOOR
"""Bytes free on a disk that is soon full; of a small disk a quarter."""
GONE_MS = 30_000
"""A process that ships tries again sooner than this, in milliseconds."""
STUCK_MS = 60_000
"""An entry that waited longer in the spool means that nothing ships it."""

KINDS = (
    "spool-limit",
    "spool-age",
    "disk-full",
    "disk-low",
    "spool-read-only",
    "spool-unusable",
    "spool-damaged",
    "gap-open",
    "quarantine",
    "quarantine-full",
    "shipping-stopped",
    "waiting",
)
"""Everything that can be wrong."""
_REFUSALS = {
    "limit": ("spool-limit", "See to the store, which does not take entries; or raise AUDIT_SPOOL_LIMIT."),
    "age": ("spool-age", "See to the store, which does not take entries; or raise AUDIT_SPOOL_AGE."),
    "disk": ("disk-full", "Free some room on the spool's disk; entries are taken again at once."),
    "read-only": ("spool-read-only", "Mount its disk for writing again, or give its owner the right to write."),
    "unusable": ("spool-unusable", "Put that right; entries are taken again at once."),
}
_QUARANTINE_FULL = (
    "quarantine-full",
    "Correct what sends them; `audit-pipeline quarantine retry` offers them to the store again, with --new-id those "
    "whose id is taken under a new one; or raise AUDIT_SPOOL_LIMIT.",
)


@dataclass(frozen=True, slots=True)
class Trouble:
    """Something that is wrong."""

    kind: str
    """One of KINDS."""
    text: str
    """What is wrong: one line."""
    advice: str
    """What to do about it: one line."""


def troubles(spool: Spool, gaps: Gaps) -> Iterator[Trouble]:
    """All that is wrong at the moment. Raises nothing."""
    refusal = spool.refusal()
    if refusal is not None:
        kind, advice = _QUARANTINE_FULL if isinstance(refusal, QuarantineFull) else _REFUSALS[refusal.reason]
        yield Trouble(kind, f"no entry is recorded: {refusal}", advice)
    if missing := gaps.missing():
        advice = "An entry `audit.gap` will tell of it, as soon as the spool takes entries again."
        number = "1 entry was" if missing == 1 else f"{missing:,} entries were"
        yield Trouble("gap-open", f"{number} not recorded, and counted", advice)
    try:
        status = spool.status()
        low = min(LOW, free_bytes(spool.path.parent)[1] // 4)
    except (SpoolError, OSError):
        return
    if status.free < low and (refusal is None or refusal.reason != "disk"):
        text = f"{status.free / 1e6:,.1f} MB are free on its disk; that is less than {low / 1e6:,.1f}"
        yield Trouble("disk-low", text, "Free some room there.")
    if status.damaged:
        names = ", ".join(file.name for file in status.damaged)
        advice = (
            "Find out why (a failing disk, a copy that was put in its place), and move them elsewhere. What could "
            "be read of them was recorded; an entry `audit.gap` says how many entries were lost."
        )
        yield Trouble("spool-damaged", f"was damaged, and repaired; set aside: {names}", advice)
    if status.quarantined:
        number = "1 entry lies" if status.quarantined == 1 else f"{status.quarantined:,} entries lie"
        yield Trouble("quarantine", f"{number} in quarantine", "See `audit-pipeline quarantine list`.")
    if status.crowding and not isinstance(refusal, QuarantineFull):
        kind, advice = _QUARANTINE_FULL
        text = f"what lies in quarantine takes {status.crowding / 1e6:,.1f} MB of the room for entries that wait"
        yield Trouble(kind, text, advice)
    yield from _shipping(spool, status)


def _shipping(spool: Spool, status: SpoolStatus) -> Iterator[Trouble]:
    shipping = shipping_of(spool.path)
    if shipping.stopped is not None and status.pending:
        since = format_timestamp(shipping.stopped.since)
        if shipping.process is None and now_ms() - shipping.tried > GONE_MS:
            waits = f"{status.pending:,} waiting, and no process ships them; the last that did was stopped by this"
            yield Trouble("waiting", f"{waits}: {shipping.stopped.text}", "Start `audit-pipeline ship`.")
            return
        advice = "Entries stay in the spool meanwhile, and are shipped as soon as that is put right."
        yield Trouble("shipping-stopped", f"nothing is shipped since {since}: {shipping.stopped.text}", advice)
    elif status.oldest_ms > STUCK_MS:
        waits = f"{status.pending:,} waiting, the oldest for {status.oldest_ms // 1000:,} s"
        if shipping.process is None:
            yield Trouble("waiting", f"{waits}, and no process ships them", "Start `audit-pipeline ship`.")
        else:
            advice = "The store is slow, or does not answer: see below. `audit-pipeline ship` ships them too."
            yield Trouble("waiting", f"{waits}, though process {shipping.process} ships them", advice)
