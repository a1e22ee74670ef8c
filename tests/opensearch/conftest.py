"""What only OpenSearch has: an index template, results for each entry of a bulk, scrolls, a network in between."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from audit_pipeline.actions import catalogue
from audit_pipeline.event import AuditEvent, IdFactory
from audit_pipeline.normalize import build_event
from audit_pipeline.stores import Store, open_store

from ..engine import Cluster
from ..places import new_store_url
from .proxy import Proxy

IDS = IdFactory()


def entry(action: str = "domain.created", **given: Any) -> AuditEvent:
    """An entry as an application makes it."""
    return build_event(catalogue[action], given, IDS)


@pytest.fixture
def url(tmp_path: Path) -> str:
    """The URL of a new, empty place in the shared engine."""
    return new_store_url("opensearch", tmp_path).partition("&granularity")[0]


@pytest.fixture
def index(url: str) -> str:
    """The index name in that URL."""
    return parse_qs(urlsplit(url).query)["index"][0]


@pytest.fixture
def opened(url: str) -> Iterator[Callable[..., Store]]:
    """Opens that place, with options."""
    made: list[Store] = []

    def open_it(options: str = "", at: str = url) -> Store:
        made.append(open_store(f"{at}&{options}" if options else at))
        return made[-1]

    yield open_it
    for store in made:
        store.close()


@pytest.fixture
def store(opened: Callable[..., Store]) -> Store:
    """That place, set up."""
    store = opened()
    store.setup()
    return store


@pytest.fixture
def until() -> Callable[[Callable[[], bool], float], None]:
    """Waits until something holds, for so many seconds at the most."""

    def wait(holds: Callable[[], bool], seconds: float) -> None:
        end = time.monotonic() + seconds
        while not holds():
            assert time.monotonic() < end
            time.sleep(0.02)

    return wait


@pytest.fixture
def proxy(opensearch: Cluster) -> Iterator[Proxy]:
    """A network between the store and the engine, which does as it is told."""
    with Proxy(opensearch.hosts[0]) as between:
        yield between


@pytest.fixture
def far(proxy: Proxy, opened: Callable[..., Store], url: str) -> Store:
    """The same place, through the proxy."""
    return opened(at=proxy.before(url))
