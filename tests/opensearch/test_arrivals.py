"""Arrivals over several batches and indices: what only a store without an order of its own can get wrong."""

from __future__ import annotations

import time

import pytest

from audit_pipeline.stores import Store
from audit_pipeline.stores.opensearch import arrivals

from .conftest import entry


def test_an_old_position_is_not_moved_past_what_was_not_given_yet(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More entries than one answer has, all written longer ago than clocks may differ: each is met."""
    monkeypatch.setattr(arrivals, "BATCH", 10)
    monkeypatch.setattr(arrivals, "SKEW_MS", 50)
    store.append([entry()])
    position = store.arrivals(None).position
    written = [entry() for _ in range(60)]
    for first in range(0, 60, 10):
        store.append(written[first : first + 10])
    time.sleep(0.2)  # time itself is what this is about
    met, more = [], True
    while more:
        came, position, more = store.arrivals(position, 10)
        assert came
        met += [event.id for event, _ in came]
    assert met == [event.id for event in written]
