"""Calls that are made while their caller does something else."""

from __future__ import annotations

import threading

import pytest

from audit_pipeline.ahead import Ahead


def test_what_it_returns_and_raises() -> None:
    """It runs beside its caller, who gets what it returned, or what it raised."""
    goes = threading.Event()
    ahead = Ahead(lambda: goes.wait(10))
    goes.set()
    assert ahead.answer() is True
    with pytest.raises(ZeroDivisionError):
        Ahead(lambda: 1 / 0).answer()


def test_where_there_can_be_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """At the end of a process, or where the system gives no more threads, the call is made all the same."""

    def start(_: threading.Thread) -> None:
        raise RuntimeError("can't create new thread at interpreter shutdown")

    monkeypatch.setattr(threading.Thread, "start", start)
    assert Ahead(lambda: 7).answer() == 7
