"""Gives entries to a store directly, as they are: for what has its place in a spool already, or came from a store.

A store that keeps addresses masked gets them masked. The shipper does not use this: it waits for ever, which a command
cannot.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator, Sequence

from .errors import AuditError, StoreUnavailable
from .event import AuditEvent
from .stores import Refusal, Store

__all__ = ["in_batches", "offer", "offer_patiently"]

BATCH = 1000
"""Entries in a batch, at the most."""
BATCH_BYTES = 4 * 2**20
"""About how many bytes a batch has, at the most: a store has a limit for one request."""
PATIENCE_S = 60.0
"""For how long a batch is offered again to a store that is unavailable, in seconds."""
PAUSE_S = (0.1, 5.0)
"""The first and the longest pause between two tries, in seconds."""

_log = logging.getLogger("audit_pipeline.offering")


def in_batches(events: Iterable[AuditEvent]) -> Iterator[list[AuditEvent]]:
    """The events in batches that a store can take at once."""
    batch: list[AuditEvent] = []
    size = 0
    for event in events:
        batch.append(event)
        size += len(event.to_bytes())
        if len(batch) == BATCH or size >= BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def offer(store: Store, events: Sequence[AuditEvent]) -> list[Refusal]:
    """Append a batch, and return what the store refuses; an entry that it breaks down over is one of those.

    Raises the AuditErrors that the store raises.
    """
    try:
        return store.append(store.to_keep(events))
    except AuditError:
        raise
    except Exception as error:  # noqa: BLE001 - a fault of the store: one entry must not hold up the others
        if len(events) > 1:
            return [refusal for event in events for refusal in offer(store, [event])]
        return [Refusal(event, f"the store breaks down over it ({type(error).__name__})") for event in events]


def offer_patiently(store: Store, events: Sequence[AuditEvent], called: str) -> list[Refusal]:
    """As `offer`; a store that is unavailable is waited for up to a minute. The log says so, and what it is called."""
    end = time.monotonic() + PATIENCE_S
    pause = PAUSE_S[0]
    while True:
        try:
            return offer(store, events)
        except StoreUnavailable as error:
            if time.monotonic() + pause > end:
                raise
            if pause == PAUSE_S[0]:
                _log.warning("waiting for %s: %s", called, error)
            time.sleep(pause)
            pause = min(pause * 2, PAUSE_S[1])
