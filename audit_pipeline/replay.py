"""Sends what a spool still has to its store again: shipped entries too, for a store that has lost some.

Any process may, at any time, also while another one ships: a store keeps an entry once. The spool is only read.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from .event import AuditEvent
from .offering import offer_patiently
from .quarantine import is_taken, with_new_id
from .spool import Spool
from .stores import Refusal, Store

__all__ = ["Replayed", "replay"]


@dataclass(frozen=True, slots=True)
class Replayed:
    """A batch that was sent."""

    events: Sequence[AuditEvent]
    refused: Sequence[Refusal]
    """Those that the store does not take, as it did not the first time, and that nobody settled since."""
    skipped: int = 0
    """How many entries before these were deleted from the spool since the replay began, before they could be sent."""


def replay(spool: Spool, store: Store) -> Iterator[Replayed]:
    """Send all entries that the spool has now, in order, and tell of each batch.

    A store that is unavailable is waited for up to a minute with each batch. What is deleted from the spool meanwhile,
    being older than a day or beyond the size kept, is counted; the last batch may have nothing else to tell. Raises
    StoreError: what was sent is stored, and another run sends it again.
    """
    last = spool.status().accepted
    after = 0
    while after < last:
        events = [event for event in spool.kept(after) if event.sequence <= last]
        skipped = _overtaken(spool, after, events[0].sequence if events else last + 1) if after else 0
        if not events:
            if skipped:
                yield Replayed([], [], skipped)
            return
        refused = offer_patiently(store, events, "the store")
        yield Replayed(events, _without_settled(spool, store, refused) if refused else [], skipped)
        after = events[-1].sequence


def _overtaken(spool: Spool, after: int, before: int) -> int:
    """How many entries between two sequences are no longer there. Those that are, and cannot be read, do not count."""
    return max(0, min(spool.first_kept(), before) - after - 1)


def _without_settled(spool: Spool, store: Store, refused: Sequence[Refusal]) -> list[Refusal]:
    """Those that stay refused.

    What was shipped, and is not in quarantine, has its place in the store: where its id is taken, under the new one
    that `quarantine retry --new-id` gave it. It is offered under that one.
    """
    shipped, held = spool.shipped(), {row.sequence for row in spool.quarantine()}
    settled = {
        refusal.event.sequence: with_new_id(refusal.event)
        for refusal in refused
        if refusal.event.sequence <= shipped and refusal.event.sequence not in held and is_taken(store, refusal.event)
    }
    stay = [refusal for refusal in refused if refusal.event.sequence not in settled]
    return stay + (offer_patiently(store, list(settled.values()), "the store") if settled else [])
