"""Where tests keep their entries: a new, empty place in every kind of store, and the engine that all tests share."""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from .engine import Cluster, running_engine

__all__ = ["close_engine", "new_store_url", "remove_stores", "shared_engine", "store_of_several_tests"]

# Another run may use the same engine. All names are equally long, so that none begins with another.
_RUN = f"t-x{secrets.token_hex(4)}-"
_NUMBERS = itertools.count()
_MANY = 50
_made: dict[str, Path] = {}


@cache
def shared_engine() -> Cluster:
    """The one node that all tests share, started when it is first asked for."""
    return running_engine()


def new_store_url(name: str, folder: Path) -> str:
    """The URL of a new, empty store of this kind. It lasts as long as its folder, and no longer than the test."""
    if name == "memory":
        return "memory://"
    if name == "opensearch":
        # A property test makes hundreds in one test: those of earlier examples, whose folders are gone, are in the way.
        gone = [prefix for prefix, place in _made.items() if not place.exists()]
        if len(gone) >= _MANY:
            shared_engine().clear(*gone)
            for each in gone:
                del _made[each]
        prefix = f"{_RUN}{next(_NUMBERS):06}"
        _made[prefix] = folder
        # Entries of many months would be many indices, and each takes its time to be made.
        return shared_engine().url(prefix, granularity="year")
    return f"{name}:///{folder / 'audit.db'}"


@contextmanager
def store_of_several_tests(name: str, folder: Path) -> Iterator[str]:
    """The URL of a new, empty store of this kind, which lasts as long as this block and its folder do."""
    if name != "opensearch":
        yield new_store_url(name, folder)
        return
    prefix = f"t-y{secrets.token_hex(4)}-000000"  # other than what `remove_stores` deletes
    try:
        yield shared_engine().url(prefix, granularity="year")
    finally:
        shared_engine().clear(prefix)


def remove_stores() -> None:
    """Delete what the test made in the engine: it has room for 1,000 shards."""
    if _made:
        shared_engine().clear(_RUN)
        _made.clear()


def close_engine() -> None:
    """End the engine, if there is one."""
    if shared_engine.cache_info().currsize:
        shared_engine().close()
