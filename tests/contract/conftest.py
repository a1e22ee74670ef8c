"""Every store there is, from the registry: a new one is held to the contract as soon as its file exists."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from audit_pipeline.stores import Store, open_store, store_names

from ..places import new_store_url

ORACLE = "memory"


@pytest.fixture(params=store_names())
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """A new store of each kind, set up."""
    opened = open_store(new_store_url(request.param, tmp_path))
    opened.setup()
    yield opened
    opened.close()


@pytest.fixture(params=[name for name in store_names() if name != ORACLE])
def engine(request: pytest.FixtureRequest) -> str:
    """The name of each store but the oracle."""
    return str(request.param)
