"""An entry as a document of the Elastic Common Schema, and back: fields that OpenSearch Dashboards and SIEMs know.

ECS has no field for some of what an entry says; those stand under `audit.*`. What `q` searches stands under `search.*`.
Fields of ECS: https://www.elastic.co/guide/en/ecs/current/ecs-field-reference.html. Knows no store.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from .event import AuditEvent, exact_numbers, format_timestamp
from .privacy import mask_ip, network_key
from .query import SEARCH_FIELDS, search_texts

__all__ = ["ECS_VERSION", "document_of", "event_of"]

ECS_VERSION = "8.17.0"
LONGEST_TERM = 32_000
"""Bytes of a key and its value that a `flat_object` takes: Lucene's longest term has 32,766, the field's name too."""

# What ECS allows for event.category and event.type are closed lists, so an entry's category and tone are translated.
_CATEGORIES = {
    "users": "iam",
    "accounts": "iam",
    "auth": "authentication",
    "services": "process",
    "queue": "email",
    "backups": "file",
    "audit": "file",
}
_TYPES = {"green": "creation", "yellow": "change", "red": "deletion", "accent": "info"}
_TYPES_OF_ACTIONS = {
    "auth.login_succeeded": "start",
    "auth.login_failed": "start",
    "auth.logged_out": "end",
    "service.started": "start",
    "service.stopped": "end",
    "service.restarted": "change",
    "audit.exported": "access",
}


def document_of(event: AuditEvent) -> dict[str, Any]:
    """The document of an entry. Empty texts, and what an entry does not have, are left out.

    Whoever stores it may add fields at its top, to tell in which order documents came.
    """
    audit: dict[str, Any] = {
        "category": event.category,
        "label": event.label,
        "tone": event.tone,
        "origin": event.origin,
        "network": network_key(event.ip),
    }
    document: dict[str, Any] = {
        "@timestamp": format_timestamp(event.timestamp),
        "ecs": {"version": ECS_VERSION},
        "event": {
            "id": event.id,
            "kind": "event",
            "dataset": "audit",
            "action": event.action,
            "category": [_CATEGORIES.get(event.category, "configuration")],
            "type": [_TYPES_OF_ACTIONS.get(event.action) or _TYPES.get(event.tone, "info")],
            "outcome": event.outcome,
            "sequence": event.sequence,
            "ingested": format_timestamp(event.received),
        },
        "organization": {"id": event.org},
        "audit": audit,
        "search": dict(zip(SEARCH_FIELDS, search_texts(event), strict=True)),
    }
    if event.detail:
        document["message"] = event.detail
    if event.user:
        document["user"] = {"name": event.user}
    if event.target:
        audit["target"] = event.target
    if event.ip:
        audit["masked_ip"] = mask_ip(event.ip)
        if event.ip != audit["masked_ip"]:
            document["source"] = {"ip": event.ip}
    if event.problems:
        audit["problems"] = list(event.problems)
    if event.context:
        small = all(size <= LONGEST_TERM for size in _term_sizes(event.context, 0))
        audit["context" if small else "large_context"] = dict(event.context)
    return document


def event_of(document: Mapping[str, Any]) -> AuditEvent:
    """The entry of a document that `document_of` made. Raises KeyError, TypeError or ValueError for any other."""
    event, audit = document["event"], document["audit"]
    context = audit.get("context") or audit.get("large_context") or {}
    return AuditEvent(
        id=event["id"],
        timestamp=_milliseconds(document["@timestamp"]),
        action=event["action"],
        category=audit["category"],
        label=audit["label"],
        tone=audit["tone"],
        outcome=event["outcome"],
        org=document["organization"]["id"],
        target=audit.get("target", ""),
        detail=document.get("message", ""),
        user=document.get("user", {}).get("name", ""),
        ip=document.get("source", {}).get("ip") or audit.get("masked_ip"),
        context=exact_numbers(context),
        problems=tuple(audit.get("problems", ())),
        received=_milliseconds(event["ingested"]),
        origin=audit["origin"],
        sequence=event["sequence"],
    )


def _milliseconds(text: str) -> int:
    # No float on the way: 0.1 s and its like have no exact one.
    return _seconds(text[:19]) * 1000 + int(text[20:23])


@lru_cache(maxsize=4096)
def _seconds(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp())


def _term_sizes(value: Any, path: int) -> Iterator[int]:
    """The sizes in bytes, about, of the terms that a `flat_object` makes of a value."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _term_sizes(item, path + 1 + len(key.encode()))
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _term_sizes(item, path)
    else:
        yield path + (len(value.encode()) if isinstance(value, str) else 32)
