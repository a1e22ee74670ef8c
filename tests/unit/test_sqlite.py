"""What only the embedded store has: a limit of its own on how long a query may take."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from audit_pipeline.actions import catalogue
from audit_pipeline.errors import StoreUnavailable
from audit_pipeline.event import IdFactory, uuid7
from audit_pipeline.normalize import build_event
from audit_pipeline.query import Query, Window, parse_words
from audit_pipeline.stores import open_store, sqlite


def test_a_query_that_takes_too_long_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A search, a histogram and an export end with an error when their time is over, and the next is answered."""
    made = build_event(catalogue["domain.created"], {"target": "mail"}, IdFactory())
    query = Query("default", words=parse_words("mail"))
    edges = [made.timestamp - 1, made.timestamp + 1]
    with closing(open_store(f"sqlite:///{tmp_path / 'audit.db'}")) as store:
        store.append([replace(made, id=uuid7(made.timestamp, number)) for number in range(20_000)])
        monkeypatch.setattr(sqlite, "QUERY_S", -1)
        for ask in (
            lambda: store.search(query, Window(10)),
            lambda: store.histogram(query, edges),
            lambda: store.snapshot(query, 10),
        ):
            with pytest.raises(StoreUnavailable, match="given up; ask for less at once"):
                ask()
        monkeypatch.undo()
        assert store.search(query, Window(10)).total == 20_000
        with closing(store.snapshot(query, 10)) as snapshot:
            assert snapshot.total == 20_000
        assert store.histogram(query, edges) == [{"green": 20_000}]
