"""What an endpoint's description has beyond its code: its parameters, read from the raw query, and its problems.

`problems` and `takes` stand in the decorators of the endpoints; `description` puts all together. The copy in
`docs/openapi.json` is written by `make openapi`, and held to this by a test.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from fastapi.openapi.utils import get_openapi
from starlette.routing import BaseRoute

from audit_pipeline.query import BUCKETS, FILTERS, MAX_BUCKETS, MIN_BUCKETS, PAGE_SIZES, SORTS

from .deps import MAX_EVENTS
from .problems import KINDS, TYPE_PREFIX

__all__ = ["BODY", "CSV", "PAGE", "PAGING", "SELECTING", "description", "problems", "takes", "text"]

_ABOUT = """Who did what, when, and from where. IP addresses are masked in everything that can be seen or asked here.

Bearer tokens are JWTs with `sub`, `exp`, `scope` (space-separated), `plan` and `org`; each call names its scope.
Every error is a problem (RFC 9457), whose `type` ends in a name that does not change. Every answer has a request id.
"""
_EVERY_CALL = ("forbidden", "too-long", "unknown-host", "internal-error")
"""Problems that any call may be answered with."""
_WITH_A_TOKEN = ("unauthorized", "keys-unavailable")

_WORDS = {"type": "string"}
_PARAMETERS: dict[str, dict[str, Any]] = {
    "q": {
        "description": "Words, all of which must be found in action, target, detail or user. `-word` excludes, "
        '`"a phrase"` stands as it is. The last token of a word counts as a prefix. At most 16 '
        "words, and 128 tokens (runs of letters and digits) in them.",
        "schema": _WORDS | {"maxLength": 256},
        "example": "example.com dkim -deleted",
    },
    "action": {
        "description": "Ids of actions, of which an entry has one; `GET /v1/actions` lists them.",
        "schema": {"type": "array", "items": _WORDS},
        "example": ["domain.created", "domain.deleted"],
    },
    "category": {
        "description": "Ids of categories, of which an entry has one.",
        "schema": {"type": "array", "items": _WORDS},
        "example": ["domains"],
    },
    "from": {
        "description": "The first time: an RFC 3339 instant, or a date in the time zone `tz`.",
        "schema": _WORDS,
        "example": "2026-11-01",
    },
    "to": {
        "description": "The time that is too late: an RFC 3339 instant; or the last date.",
        "schema": _WORDS,
        "example": "2026-11-30T12:00:00Z",
    },
    "tz": {
        "description": "The time zone of dates: an IANA name.",
        "schema": _WORDS | {"default": "UTC"},
        "example": "Europe/Berlin",
    },
    "user": {"description": "The user, exactly.", "schema": _WORDS, "example": "alice@example.com"},
    "outcome": {"schema": _WORDS | {"enum": ["success", "failure"]}},
    "ip": {
        "description": "A network: IPv4 /24 or wider, IPv6 /112 or wider; or a masked address as shown.",
        "schema": _WORDS,
        "example": "203.0.113.0/24",
    },
    "sort": {
        "description": "The order, `-` for descending; equal actions: newest first.",
        "schema": _WORDS | {"enum": list(SORTS), "default": SORTS[0]},
    },
    "page_size": {"schema": {"type": "integer", "enum": list(PAGE_SIZES), "default": 25}},
    "page": {
        "description": "Any page, from 1; past the last one there are no items. Not with `cursor`.",
        "schema": {"type": "integer", "minimum": 1, "default": 1},
    },
    "cursor": {
        "description": "Goes on from a page: its `next` or `previous`, with the same filters and order.",
        "schema": _WORDS,
    },
    "buckets": {
        "description": "How many spans there may be.",
        "schema": {"type": "integer", "minimum": MIN_BUCKETS, "maximum": MAX_BUCKETS, "default": BUCKETS},
    },
}
SELECTING = FILTERS
"""The parameters that say which entries."""
PAGING = ("page_size", "page", "cursor")
"""The parameters that say which page of them."""

_PROBLEM = {
    "type": "object",
    "title": "Problem",
    "description": "What was wrong, and what to do (RFC 9457).",
    "required": ["type", "title", "status", "detail", "request_id"],
    "properties": {
        "type": {"type": "string", "format": "uri"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "request_id": {"type": "string"},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["parameter", "detail"],
                "properties": {"parameter": {"type": "string"}, "detail": {"type": "string"}},
            },
        },
        "scope": {"type": "string", "description": "the scope that the caller lacks"},
        "plans": {"type": "array", "items": {"type": "string"}, "description": "the plans that are entitled"},
    },
}
_HEADERS = {
    "Retry-After": "Seconds to wait.",
    "WWW-Authenticate": "Bearer",
    "X-Request-ID": "Stands in the server's log too; a plain one that came with the request is kept.",
}
_WITH = {401: ["WWW-Authenticate"], 429: ["Retry-After"], 503: ["Retry-After"]}
CSV = {
    "description": "UTF-8 with a byte order mark, CRLF; one line an entry, in the order of the view.",
    "content": {
        "text/csv": {
            "schema": {"type": "string"},
            "example": "\ufeffTimestamp,Action,Target,Detail,User,IP Address\r\n"
            "2026-11-23T03:41:00.123Z,Domain created,example.com,DKIM enabled,alice@example.com,203.0.113.xxx\r\n",
        }
    },
    "headers": {
        name: {"description": about, "schema": {"type": kind}}
        for name, kind, about in (
            ("Content-Disposition", "string", "The file's name: today's date in the time zone `tz`."),
            ("X-Total-Count", "integer", "How many entries match."),
            ("X-Row-Limit", "integer", "How many rows there are at the most."),
            ("X-Truncated", "boolean", "Whether there are more entries than rows."),
        )
    },
}
"""The answer to an export."""
PAGE: dict[str, Any] = {
    "headers": {
        "X-Row-Limit": {
            "description": "How many rows an export of them would have at the most.",
            "schema": {"type": "integer"},
        }
    },
}
"""The answer to a list, beside its shape."""

_EVENT = {
    "type": "object",
    "required": ["action"],
    "description": "Every other key becomes part of the context. What is not as it should be is kept with a problem.",
    "properties": {
        "action": {"type": "string", "description": "an id of `GET /v1/actions`"},
        "target": {"type": "string"},
        "detail": {"type": "string"},
        "user": {"type": "string"},
        "ip": {"type": "string", "description": "IPv4 or IPv6; shown masked"},
        "outcome": {
            "type": "string",
            "enum": ["success", "failure"],
            "description": "the action's own where left out",
        },
        "timestamp": {"type": "string", "format": "date-time", "description": "the time of receipt where left out"},
        "id": {"type": "string", "description": "UUIDv7; the same id is the same entry, for ever"},
        "context": {"type": "object"},
    },
}
_ONE = {"action": "domain.created", "target": "example.com", "user": "alice@example.com", "ip": "203.0.113.9"}
BODY = {
    "required": True,
    "content": {
        "application/json": {
            "schema": {"anyOf": [_EVENT, {"type": "array", "items": _EVENT, "minItems": 1, "maxItems": MAX_EVENTS}]},
            "examples": {
                "one": {"value": _ONE},
                "several": {"value": [_ONE, {"action": "auth.login_failed", "user": "mallory"}]},
            },
        }
    },
}
"""The body of events to record."""


def takes(*names: str, **more: Any) -> dict[str, Any]:
    """The parameters of these names in the query, as a part of an operation."""
    parameters = [{"name": name, "in": "query", "required": False, **_PARAMETERS[name]} for name in names]
    return {"parameters": parameters, **more}


def problems(*names: str, token: bool = True) -> dict[int | str, dict[str, Any]]:
    """The answers that are problems of these names, beside those that every call may have."""
    by_status: dict[int, list[str]] = {}
    for name in (*_EVERY_CALL, *(_WITH_A_TOKEN if token else ()), *names):
        by_status.setdefault(KINDS[name][0], []).append(name)
    return {status: _answer(status, sorted(by_status[status])) for status in sorted(by_status)}


def _answer(status: int, names: Sequence[str]) -> dict[str, Any]:
    schema = {
        "allOf": [
            {"$ref": "#/components/schemas/Problem"},
            {"properties": {"type": {"enum": [TYPE_PREFIX + name for name in names]}, "status": {"const": status}}},
        ]
    }
    examples = {name: {"summary": KINDS[name][1], "value": _example(status, name)} for name in names}
    return {
        "description": " Or: ".join(KINDS[name][1] for name in names),
        "headers": {name: _header(name) for name in _WITH.get(status, ())},
        "content": {"application/problem+json": {"schema": schema, "examples": examples}},
    }


def _example(status: int, name: str) -> dict[str, Any]:
    more: dict[str, Any] = {}
    if name == "invalid-query":
        more["errors"] = [{"parameter": "sort", "detail": f"not allowed; allowed are {', '.join(SORTS)}"}]
    if name == "plan-required":
        more["plans"] = ["business", "enterprise"]
    return {
        "type": TYPE_PREFIX + name,
        "title": name.replace("-", " ").capitalize(),
        "status": status,
        "detail": KINDS[name][1],
        **more,
        "request_id": "5f0c1d9be8a24c3f9d1e6b7a8c9d0e1f",
    }


def _header(name: str) -> dict[str, Any]:
    return {"$ref": f"#/components/headers/{name}"}


def description(routes: Sequence[BaseRoute]) -> dict[str, Any]:
    """The OpenAPI document of these routes."""
    made = get_openapi(title="Audit log", version="1", description=_ABOUT, routes=routes)
    parts = made["components"]
    for name in ("HTTPValidationError", "ValidationError"):
        parts["schemas"].pop(name, None)
    parts["schemas"]["Problem"] = _PROBLEM
    parts["headers"] = {name: {"description": about, "schema": {"type": "string"}} for name, about in _HEADERS.items()}
    parts["responses"] = {}
    for calls in made["paths"].values():
        for call in calls.values():
            if "application/json" in call["responses"].get("422", {}).get("content", {}):
                del call["responses"]["422"]  # the framework's own, which it never gives here
            for status, answer in call["responses"].items():
                answer.setdefault("headers", {})["X-Request-ID"] = _header("X-Request-ID")
                if answer["description"] == "Successful Response":
                    answer["description"] = call["description"]
                if "application/problem+json" in answer.get("content", {}):
                    # Most calls have the same problems: each stands in the document once.
                    name = "-or-".join(answer["content"]["application/problem+json"]["examples"])
                    parts["responses"][name] = answer
                    call["responses"][status] = {"$ref": f"#/components/responses/{name}"}
    return made


def text(routes: Sequence[BaseRoute]) -> str:
    """The OpenAPI document as it is kept in a file."""
    return json.dumps(description(routes), indent=2, ensure_ascii=False) + "\n"
