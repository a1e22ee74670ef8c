"""Middleware for ASGI applications (FastAPI, Starlette, Litestar, Quart …): binds who and where for each request, and
watches that each change leaves an entry.
"""

from __future__ import annotations

import inspect
import logging
import re
import uuid
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import Any

from ..actions import catalogue
from ..context import bind_actor, trace_request, unaudited
from ..errors import SettingsError
from ..privacy import normalize_ip
from ..settings import Networks, Settings

__all__ = ["AuditMiddleware", "client_ip"]

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]

MUTATING = frozenset(("POST", "PUT", "PATCH", "DELETE"))
_WITH_PORT = re.compile(r"(?:\[(?P<v6>[^\]]*)\]|(?P<v4>\d+\.\d+\.\d+\.\d+))(?::\d{1,5})?\Z", re.ASCII)
MOST_PLACES, OTHERS = 1000, "others"
"""How many places `unaudited` counts by themselves, and what the rest of them are called."""
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}\Z")

_log = logging.getLogger("audit_pipeline.completeness")


class AuditMiddleware:
    """Binds user, address, request id and user agent for the entries made during a request.

    `user` is asked, with the ASGI scope, when an entry is made, so it may be known as late as in the endpoint; the
    default is `scope["user"]` as Starlette's authentication sets it, else (where that is nobody) `request.state.user`:
    a text, or an object or mapping with an `email`, a `username` … Forwarding headers are believed from
    `trusted_proxies` only (default: AUDIT_TRUSTED_PROXIES): a list of networks, or one text with commas between them.

    A POST, PUT, PATCH or DELETE that succeeded (a status below 400) without leaving an entry is logged as a warning,
    and counted in `audit_pipeline.context.unaudited`. `exempt` has names of routes, or of endpoints, that need none.
    Raises SettingsError for a `user` that cannot be called, and for wrong networks.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        user: Callable[[Scope], str | None] | None = None,
        trusted_proxies: Iterable[str | IPv4Network | IPv6Network] | None = None,
        exempt: Iterable[str] = (),
    ) -> None:
        self.app = app
        if user is not None and (not callable(user) or _is_async(user)):
            kind = "an async function" if callable(user) else f"of type {type(user).__name__}"
            raise SettingsError(
                f"AuditMiddleware: user is {repr(user)[:40]}, {kind}; allowed is a function that is given the ASGI "
                "scope and returns the user's name; where that has to be awaited, let a dependency set "
                "request.state.user"
            )
        self._user = user or _user_in_scope
        if trusted_proxies is None:
            self._trusted = Settings.from_environment().trusted_proxies
        else:
            listed = trusted_proxies if isinstance(trusted_proxies, str) else ",".join(map(str, trusted_proxies))
            self._trusted = Settings.from_environment({"AUDIT_TRUSTED_PROXIES": listed}).trusted_proxies
        self._exempt = frozenset([exempt] if isinstance(exempt, str) else exempt)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        status = 0

        async def watching(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        about: dict[str, Any] = {"request_id": _request_id(scope)}
        if agent := _header(scope, b"user-agent"):
            about["user_agent"] = agent
        actor = bind_actor(user=lambda: self._user(scope), ip=client_ip(scope, self._trusted), **about)
        with actor, trace_request() as trace:
            await self.app(scope, receive, watching)
        # Looked at after the application is through: a background task may leave the entry.
        if scope.get("method") in MUTATING and 200 <= status < 400 and not trace.entries:
            self._report(scope, trace.unknown)

    def _report(self, scope: Scope, unknown: str) -> None:
        route, endpoint = scope.get("route"), scope.get("endpoint")
        names = {getattr(route, "name", None), getattr(endpoint, "__name__", None)}
        if not names & self._exempt:
            place = f"{scope['method']} {_template(scope)}"
            unaudited[place if place in unaudited or len(unaudited) < MOST_PLACES else OTHERS] += 1
            meant = f"; {question}" if (question := catalogue.meant(unknown)) else ""
            logged = f" (it logged {unknown[:64]!r}, which is no action{meant})" if unknown else ""
            _log.warning(
                "%r succeeded and left no audit entry%s: record one there, or name the route in `exempt`",
                place, logged,
            )  # fmt: skip


def _is_async(user: object) -> bool:
    return any(map(inspect.iscoroutinefunction, (user, getattr(user, "__call__", None))))  # noqa: B004


def _template(scope: Scope) -> str:
    """The path of the route that took a request, with the names of its parameters: `/domains/{name}`.

    A route knows only its own end of the path, not the prefix or the mount that it is under: of what stands before
    it, the parts that are parameters are named. So there are as many of these as routes, not as paths, but where a
    framework tells of no route.
    """
    path, route = scope.get("path", ""), scope.get("route")
    own: str = getattr(route, "path", "")
    pattern = getattr(getattr(route, "path_regex", None), "pattern", "")
    match = re.search(pattern.removeprefix("^"), path) if own and pattern else None
    before = path[: match.start()] if match else own or path
    named = {str(value): f"{{{name}}}" for name, value in (scope.get("path_params") or {}).items()}
    prefix = "/".join(named.get(part, part) for part in before.split("/"))
    return (prefix + (own if match else ""))[:200]


def client_ip(scope: Scope, trusted: Networks) -> str | None:
    """The address of the client: the peer, or behind trusted proxies the right-most hop that is not one of them.

    Only X-Forwarded-For is read, and only from a trusted peer. What is given back may be no address at all where a
    proxy passed on nonsense; None where the connection has none.
    """
    client = scope.get("client")
    # Unix sockets and test clients have a peer, but no address.
    address = normalize_ip(str(client[0])) if client and client[0] else None
    if address is None or not _among(address, trusted):
        return address
    lines = [value for name, value in scope["headers"] if name.lower() == b"x-forwarded-for"]
    hops = [hop.strip() for hop in b",".join(lines).decode("latin-1").split(",") if hop.strip()]
    for hop in reversed(hops):
        # Some proxies add the port: `203.0.113.9:4711`, `[2001:db8::1]:4711`.
        match = _WITH_PORT.match(hop)
        address = (match["v6"] or match["v4"]) if match else hop
        if not _among(address, trusted):
            break
    return address


def _among(address: str, networks: Networks) -> bool:
    known = normalize_ip(address)
    return known is not None and any(ip_address(known) in network for network in networks)


def _header(scope: Scope, wanted: bytes) -> str | None:
    for name, value in scope["headers"]:
        if name.lower() == wanted:
            return bytes(value).decode("latin-1")
    return None


def _request_id(scope: Scope) -> str:
    given = _header(scope, b"x-request-id") or ""
    return given if _REQUEST_ID.match(given) else uuid.uuid4().hex


def _user_in_scope(scope: Scope) -> str | None:
    user = scope.get("user")
    if not user or _is_nobody(user):  # authentication that found nobody does not speak for what comes after it
        user = (scope.get("state") or {}).get("user")
    if user is None or isinstance(user, str):
        return user
    if _is_nobody(user):
        return None
    for name in ("email", "username", "display_name", "name", "sub", "id"):
        value = user.get(name) if isinstance(user, Mapping) else getattr(user, name, None)
        if value is not None and value != "":
            return str(value)
    # Not its text form: that of a model has every field, the hash of the password among them.
    return None


def _is_nobody(user: object) -> bool:
    return getattr(user, "is_authenticated", True) is False
