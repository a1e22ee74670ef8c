"""What holds for every answer: who may ask at all, how long a question may be, a request id, the headers that keep
browsers careful, CORS, and a last answer where nothing else answered.

Starlette's CORSMiddleware is not used: it tells origins that are not listed which methods and headers there are, and
answers their preflights with a plain text, where every error of this API is a problem.
"""

from __future__ import annotations

import logging
import re
import time
import uuid
from collections.abc import Sequence
from ipaddress import ip_address

from fastapi import Response
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from audit_pipeline.privacy import normalize_ip

from .metrics import Metrics
from .problems import Problem, problem_for, problem_response

__all__ = ["MAX_TARGET", "Edge", "is_loopback"]

MAX_TARGET = 32 * 2**10
"""Bytes in a path and its query string. The longest filters there are need about half of it."""

_log = logging.getLogger("audit_pipeline.api")

_SECURITY = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
        "trusted-types lit-html; require-trusted-types-for 'script'"
    ),
}
_EXPOSED = "Content-Disposition, Retry-After, X-Request-ID, X-Row-Limit, X-Total-Count, X-Truncated"
_PREFLIGHT = {
    "Access-Control-Allow-Methods": "GET, POST",
    "Access-Control-Allow-Headers": "Authorization, Content-Type, Last-Event-ID",
    "Access-Control-Max-Age": "600",
}
_FORWARDING = re.compile(
    r"(x-)?forwarded(-.*)?|via|.*client-ip|x-(real|remote|originating|proxyuser)-ip|x-(original|envoy|azure|appengine)-.*"
    r"|cdn-loop|(cf|fastly|fly)-.*"
)
"""Headers that proxies add, by their names. A proxy that adds none cannot be told from a client."""


class Edge:
    """The outermost layer of the application.

    `hosts` are the names that are answered; None answers all. `loopback_only` refuses whoever is not on this machine.
    `origins` are those whose pages may ask; there are no credentials but the bearer token, so cookies never count.
    An error that nothing else answers is logged with the request's id, and answered without a word of its text.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        metrics: Metrics,
        hosts: Sequence[str] | None = None,
        origins: Sequence[str] = (),
        loopback_only: bool = False,
    ) -> None:
        self._app = app
        self._metrics = metrics
        self._hosts = hosts
        self._origins = frozenset(origins)
        self._loopback_only = loopback_only

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        given = headers.get("x-request-id", "")
        request_id = given if re.fullmatch(r"[A-Za-z0-9._:-]{1,128}", given) else uuid.uuid4().hex
        scope["audit_request_id"] = request_id
        # No answer comes in parts. Starlette's files would, and answer a range that is none without a problem's form.
        scope["headers"] = [(name, value) for name, value in scope["headers"] if name != b"range"]
        origin = headers.get("origin", "")
        outside = scope.get("route")
        began = time.monotonic()
        started = False

        async def sending(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                answer = MutableHeaders(scope=message)
                answer["X-Request-ID"] = request_id
                for name, value in _SECURITY.items():
                    answer[name] = value
                if "cache-control" not in answer:
                    answer["Cache-Control"] = "no-store"
                if self._origins:
                    answer.add_vary_header("Origin")
                if origin in self._origins:
                    answer["Access-Control-Allow-Origin"] = origin
                    answer["Access-Control-Expose-Headers"] = _EXPOSED
                route = _template(scope, outside)
                self._metrics.answered(route, scope["method"], message["status"], time.monotonic() - began)
            await send(message)

        problem = self._refused(scope, headers)
        if problem is not None:
            await problem_response(problem, request_id)(scope, receive, sending)
            return
        if scope["method"] == "OPTIONS" and origin in self._origins and "access-control-request-method" in headers:
            await Response(status_code=204, headers=_PREFLIGHT)(scope, receive, sending)
            return
        try:
            await self._app(scope, receive, sending)
        except ClientDisconnect:
            if started:
                raise
            _log.debug("request %s was left before it was complete", request_id)
        except Exception as error:
            if started:
                raise  # only a broken transfer tells the client that what it has is a part
            _log.exception("request %s failed", request_id)
            await problem_response(problem_for(error), request_id)(scope, receive, sending)

    def _refused(self, scope: Scope, headers: Headers) -> Problem | None:
        if self._hosts is not None and not _knows(self._hosts, headers.getlist("host")):
            detail = "This host name is not answered. AUDIT_ALLOWED_HOSTS says which are."
            return Problem(421, "unknown-host", detail)
        if self._loopback_only and not (is_loopback(scope) or _is_unix_socket(scope)):
            detail = (
                "Without AUDIT_JWT_SECRET, AUDIT_JWKS_URL or AUDIT_JWKS_FILE, only this machine itself is answered, "
                "and nothing that a proxy passed on."
            )
            return Problem(403, "forbidden", detail)
        if len(scope.get("raw_path") or scope["path"].encode()) + len(scope["query_string"]) > MAX_TARGET:
            return Problem(414, "too-long", f"The path and the query string have more than {MAX_TARGET:,} bytes.")
        return None


def _knows(allowed: Sequence[str], hosts: Sequence[str]) -> bool:
    if len(hosts) != 1:
        return False
    host = re.sub(r":\d*\Z", "", hosts[0]).lower()
    return any(host == name or name == "*" or (name.startswith("*.") and host.endswith(name[1:])) for name in allowed)


def is_loopback(scope: Scope) -> bool:
    """Whether a program on this machine asks, and not for somebody else.

    What a proxy passed on is not from here, whichever addresses it names: some servers (uvicorn with `--proxy-headers`)
    believe them, and then tell the client's own word as its address.
    """
    address = normalize_ip(str(scope["client"][0])) if scope.get("client") else None
    return address is not None and ip_address(address).is_loopback and not _is_forwarded(scope)


def _is_unix_socket(scope: Scope) -> bool:
    return not scope.get("client") and not _is_forwarded(scope)


def _is_forwarded(scope: Scope) -> bool:
    return any(_FORWARDING.fullmatch(name.decode("latin-1").lower()) for name, _ in scope["headers"])


def _template(scope: Scope, outside: object) -> str:
    """The path of the route that took a request, with the names of its parameters: as many of these as routes.

    `none` stands for paths that are not there.
    """
    route = scope.get("route")
    path = None if route is outside else getattr(route, "path", None)
    return path if isinstance(path, str) else "none"
