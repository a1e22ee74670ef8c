"""Offers what lies in a spool's quarantine to the store again.

Any process may, at any time: a store keeps an entry once, and the shipper has passed what is in quarantine. A retry
that is interrupted, at whichever point, is done again: it makes the same ids, and so no doubles.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256

from .event import AuditEvent, uuid7
from .offering import in_batches, offer
from .privacy import content, same_content
from .spool import QuarantineRow, Spool
from .stores import Store

__all__ = ["Retried", "is_taken", "retry", "with_new_id"]


@dataclass(slots=True)
class Retried:
    """What became of the entries, each named by its sequence."""

    stored: list[int] = field(default_factory=list)
    """Those that left the quarantine."""
    renamed: dict[int, str] = field(default_factory=dict)
    """The new ids of those among them that got one."""
    kept: dict[int, str] = field(default_factory=dict)
    """Why the others stay."""


def retry(spool: Spool, store: Store, rows: Sequence[QuarantineRow], *, new_ids: bool = False) -> Retried:
    """Offer entries in quarantine to the store again; with `new_ids`, those whose id is taken under a new one.

    Damaged rows stay. Raises the StoreErrors of the store; what was not offered by then is as it was.
    """
    done = Retried(kept={row.sequence: row.reason for row in rows if row.event is None})
    for batch in in_batches(row.event for row in rows if row.event is not None):
        refused = _offer(store, batch)
        if new_ids:
            fresh = [with_new_id(event) for event in batch if event.sequence in refused and is_taken(store, event)]
            again = _offer(store, fresh)
            for event in fresh:
                del refused[event.sequence]
                if event.sequence not in again:
                    done.renamed[event.sequence] = event.id
            refused |= again
        taken = [event.sequence for event in batch if event.sequence not in refused]
        spool.settle(taken, refused)
        done.stored += taken
        done.kept |= refused
    return done


def _offer(store: Store, events: Sequence[AuditEvent]) -> dict[int, str]:
    """Why the store refuses entries, by sequence."""
    return {refusal.event.sequence: refusal.reason for refusal in offer(store, events)} if events else {}


def is_taken(store: Store, event: AuditEvent) -> bool:
    """Whether another content has this entry's id; it may be refused for another reason."""
    stored = store.get(event.org, event.id)
    return stored is not None and not same_content(event, stored)


def with_new_id(event: AuditEvent) -> AuditEvent:
    """The entry under another id, always the same one, that says so in its problems.

    The id has the entry's own time, and a digest of what it says, the id that it had included: entries that were
    refused twice, since they were sent or imported again, are one entry.
    """
    digest = sha256(content(event)).digest()
    tail = int.from_bytes(digest[:10], "big") & (1 << 74) - 1
    problem = f"id: {event.id} was taken by another entry; a new one was made"
    return replace(event, id=uuid7(event.timestamp, tail), problems=(*event.problems, problem))
