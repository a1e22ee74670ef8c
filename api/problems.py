"""Errors over HTTP: RFC 9457 problem details, and the one table that says which error becomes which answer.

No text of a backend goes out: details that could name a host, a path or an index are replaced by a sentence of ours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from audit_pipeline.errors import (
    AuditError,
    InvalidCursor,
    InvalidEvent,
    InvalidQuery,
    SpoolError,
    StoreError,
    UnknownAction,
)

__all__ = ["TYPE_PREFIX", "Problem", "install", "problem_response"]

TYPE_PREFIX = "urn:audit-pipeline:problem:"


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
        return Problem(422, "invalid-query", str(error), errors=error.errors)
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


def install(app: FastAPI) -> None:
    """Make every error of an application a problem."""

    def answer(request: Request, error: Exception) -> JSONResponse:
        problem = error if isinstance(error, Problem) else problem_for(error)
        return problem_response(problem, request.scope.get("audit_request_id"))

    def answer_http(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        phrase = HTTPStatus(error.status_code).phrase
        name = {404: "not-found", 405: "method-not-allowed"}.get(error.status_code, phrase.lower().replace(" ", "-"))
        problem = Problem(error.status_code, name, f"{phrase}.", headers=error.headers)
        return problem_response(problem, request.scope.get("audit_request_id"))

    app.add_exception_handler(Problem, answer)
    app.add_exception_handler(AuditError, answer)
    app.add_exception_handler(HTTPException, answer_http)
