"""What all tests share."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from . import places
from .engine import Cluster


@pytest.fixture(autouse=True)
def no_settings_from_outside(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """A test sees the settings that it makes, not those of whoever runs it, and leaves nothing in their folders."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path_factory.getbasetemp() / "state"))
    for name in os.environ:
        if name.startswith("AUDIT_"):
            monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def opensearch() -> Cluster:
    """The one OpenSearch node that all tests share. Leave it as it was: it is no node to kill."""
    return places.shared_engine()


@pytest.fixture(scope="session", autouse=True)
def engine_ends_with_the_run() -> Iterator[None]:
    """The shared node, which the first test that needs it starts, ends after the last test."""
    yield
    places.close_engine()


@pytest.fixture(autouse=True)
def stores_end_with_the_test() -> Iterator[None]:
    """What a test made in the shared node is deleted after it."""
    yield
    places.remove_stores()
