"""What is installed in OpenSearch, as JSON that an operator can read and PUT by hand.

`audit-events.json` is the index template as it is with no option set. Its `_meta.digest` is that of all the rest, so
that a template which somebody changed by hand can be told from one of ours. Contacts nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import orjson

__all__ = ["GRANULARITIES", "VERSION", "changed_by_hand", "digest", "index_template"]

VERSION = 1
"""Of the template. Raise it with every change of `audit-events.json`: what is installed of a lower one is upgraded."""

GRANULARITIES = ("day", "month", "year")
"""How long a time one index holds."""


@lru_cache
def _text() -> bytes:
    return (Path(__file__).parent / "audit-events.json").read_bytes()


def index_template(
    index: str = "audit-events",
    granularity: str = "month",
    shards: str | None = None,
    replicas: str | None = None,
) -> dict[str, Any]:
    """The body of `PUT /_index_template/INDEX`. `replicas`: a number, or a range such as `0-2` (as there are nodes)."""
    body: dict[str, Any] = orjson.loads(_text())
    # The 2 is the first digit of the year: `audit-2*` does not match what belongs to `audit-events`.
    body["index_patterns"] = [f"{index}-2*"]
    body["_meta"]["granularity"] = granularity
    body["template"]["aliases"] = {index: {}}
    settings = body["template"]["settings"]["index"]
    if shards is not None:
        settings["number_of_shards"] = shards
    if replicas is not None and "-" in replicas:
        settings["auto_expand_replicas"] = replicas
    elif replicas is not None:
        del settings["auto_expand_replicas"]
        settings["number_of_replicas"] = replicas
    body["_meta"]["digest"] = digest(body)
    return body


def digest(body: Mapping[str, Any]) -> str:
    """What a template says, in 16 characters; the same for what was sent and for what OpenSearch gives back of it."""
    said = {path: value for path, value in _leaves(body, ()) if path != ("_meta", "digest") and value != []}
    lines = sorted(orjson.dumps([*path, value]) for path, value in said.items())
    return sha256(b"\n".join(lines)).hexdigest()[:16]


def changed_by_hand(body: Mapping[str, Any]) -> bool:
    """Whether an installed template is another one than the one that was installed."""
    return bool(body.get("_meta", {}).get("digest") != digest(body))


def _leaves(value: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Each value with its path, as text: OpenSearch gives settings back as texts, and with other nesting."""
    if isinstance(value, Mapping) and value:
        for key, item in value.items():
            yield from _leaves(item, (*path, *key.split(".")))
    elif isinstance(value, list):
        yield path, [str(item) for item in value]
    else:
        yield path, "" if value == {} else str(value).lower() if isinstance(value, bool) else str(value)
