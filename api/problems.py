"""Errors over HTTP: RFC 9457 problem details, and the one table that says which error becomes which answer.

No text of a backend goes out: details that could name a host, a path or an index are replaced by a sentence of ours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from http.client import responses
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.routing import Match

from audit_pipeline.errors import (
    AuditError,
    InvalidCursor,
    InvalidEvent,
    InvalidQuery,
    SpoolError,
    StoreError,
    UnknownAction,
)

__all__ = ["KINDS", "MAX_ERRORS", "TYPE_PREFIX", "Problem", "install", "problem_for", "problem_response"]

MAX_ERRORS = 32
"""Wrong parameters or fields that one answer names: a list of a thousand events may have thousands."""
TYPE_PREFIX = "urn:audit-pipeline:problem:"
KINDS = {
    "invalid-cursor": (400, "The cursor is damaged, forged, or belongs to another query."),
    "unauthorized": (401, "There is no bearer token, or none that is good."),
    "forbidden": (403, "The caller lacks the scope; or, without keys in the settings, the client is another machine."),
    "plan-required": (403, "The audit log is not part of the plan; `plans` has those that it is part of."),
    "not-found": (404, "There is no such entry, or no such path."),
    "method-not-allowed": (405, "This path has other methods: see `Allow`."),
    "too-large": (413, "The body is too large."),
    "too-long": (414, "The path and the query string are too long."),
    "unsupported-media-type": (415, "The body is not JSON, or compressed."),
    "unknown-host": (421, "The `Host` is none that is answered."),
    "invalid-query": (422, "Something asked for is not allowed; `errors` names each parameter or field."),
    "too-many-exports": (429, "The organisation has too many exports under way."),
    "too-many-streams": (429, "The organisation has too many streams open."),
    "internal-error": (500, "A fault of the server; the request id tells the operator where."),
    "keys-unavailable": (503, "The keys that verify tokens cannot be fetched at the moment."),
    "spool-unavailable": (503, "Entries cannot be recorded at the moment."),
    "store-unavailable": (503, "The store cannot answer at the moment."),
}
"""Every problem that there is, by the name that ends its type: its status, and what it says."""
_PLAIN = {status: name for name, (status, _) in reversed(KINDS.items()) if status not in (400, 429, 503)}
"""What the framework's errors are called, and those of a dependency of an application around this one."""


class Problem(Exception):
    """An answer that is an error: `name` ends its type, `detail` says what was wrong and what to do."""

    def __init__(
        self,
        status: int,
        name: str,
        detail: str,
        *,
        errors: Sequence[tuple[str, str]] = (),
        headers: Mapping[str, str] | None = None,
        **extra: Any,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.name = name
        self.detail = detail
        self.errors = tuple(errors)
        self.headers = dict(headers or {})
        self.extra = extra


def problem_response(problem: Problem, request_id: str | None = None) -> JSONResponse:
    """The answer for a problem."""
    body: dict[str, Any] = {
        "type": TYPE_PREFIX + problem.name,
        "title": problem.name.replace("-", " ").capitalize(),
        "status": problem.status,
        "detail": problem.detail,
        **problem.extra,
    }
    if problem.errors:
        body["errors"] = [{"parameter": name, "detail": detail} for name, detail in problem.errors]
    if request_id is not None:
        body["request_id"] = request_id
    return JSONResponse(body, problem.status, headers=problem.headers, media_type="application/problem+json")


def problem_for(error: Exception) -> Problem:
    """The problem that an error becomes. The table is read from the top."""
    if isinstance(error, InvalidQuery):
        return _invalid(error.errors)
    if isinstance(error, InvalidCursor):
        return Problem(400, "invalid-cursor", str(error))
    if isinstance(error, UnknownAction):
        return Problem(422, "invalid-query", str(error), errors=[("action", str(error))])
    if isinstance(error, InvalidEvent):
        return Problem(422, "invalid-query", str(error), errors=[("body", text) for text in error.problems])
    if isinstance(error, StoreError):
        detail = "The store cannot answer at the moment. Nothing is lost; ask again in a few seconds."
        return Problem(503, "store-unavailable", detail, headers={"Retry-After": "5"})
    if isinstance(error, SpoolError):
        detail = "Entries cannot be recorded at the moment, and nothing was. Send them again in a few seconds."
        return Problem(503, "spool-unavailable", detail, headers={"Retry-After": "5"})
    return Problem(500, "internal-error", "Something went wrong here. The request id tells the operator where.")


def _invalid(errors: Sequence[tuple[str, str]], detail: str = "") -> Problem:
    """The problem of wrong parameters or fields, with the first of them, and how many more there are."""
    shown = list(errors[:MAX_ERRORS])
    if len(errors) > MAX_ERRORS:
        shown.append(("more", f"{len(errors) - MAX_ERRORS:,} more are wrong; put these right first"))
    detail = detail or "; ".join(f"{name}: {why}" for name, why in shown)
    return Problem(422, "invalid-query", detail, errors=shown)


def install(app: FastAPI) -> None:
    """Make every error of an application a problem."""

    def answer(request: Request, error: Exception) -> JSONResponse:
        problem = error if isinstance(error, Problem) else problem_for(error)
        return problem_response(problem, request.scope.get("audit_request_id"))

    def answer_http(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        status, headers = error.status_code, dict(error.headers or {})
        phrase = responses.get(status, "Error")
        said = error.detail if isinstance(error.detail, str) else phrase
        if status == 405:
            headers["Allow"] = allowed = ", ".join(_methods(request))
            said = f"{request.method} is not allowed here; allowed are {allowed}"
        elif status == 404 and said == phrase:
            said = (
                "There is nothing at this path; the calls begin with /v1/ and end without a slash (docs/openapi.json)"
            )
        problem = Problem(
            status, _PLAIN.get(status) or phrase.lower().replace(" ", "-"), f"{said.rstrip('.')}.", headers=headers
        )
        return problem_response(problem, request.scope.get("audit_request_id"))

    def answer_invalid(request: Request, error: Exception) -> JSONResponse:
        """What the dependency of an application around this one takes, and is not there, or wrong."""
        assert isinstance(error, RequestValidationError)
        errors = [(".".join(map(str, one["loc"])), str(one["msg"])) for one in error.errors()]
        problem = _invalid(errors, "The request lacks something, or has it wrong.")
        return problem_response(problem, request.scope.get("audit_request_id"))

    app.add_exception_handler(Problem, answer)
    app.add_exception_handler(AuditError, answer)
    app.add_exception_handler(HTTPException, answer_http)
    app.add_exception_handler(RequestValidationError, answer_invalid)


def _methods(request: Request) -> list[str]:
    """The methods of a path, whichever route has them: a framework names those of the first one only."""
    routes = request.app.router.routes
    return [
        method
        for method in ("DELETE", "GET", "HEAD", "PATCH", "POST", "PUT")
        if any(route.matches(dict(request.scope) | {"method": method})[0] is Match.FULL for route in routes)
    ]
