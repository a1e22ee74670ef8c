"""What an endpoint needs, as `Annotated` aliases."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial, wraps
from typing import Annotated, Any, TypeVar

from anyio import CapacityLimiter, to_thread
from fastapi import Depends, Request
from fastapi.security import HTTPBearer

from audit_pipeline.integrations.asgi import client_ip
from audit_pipeline.listening import Hub
from audit_pipeline.processor import AuditPipeline
from audit_pipeline.query import CursorSigner
from audit_pipeline.settings import Settings
from audit_pipeline.stores import Store

from .auth import Caller, TokenVerifier, unauthorized
from .edge import is_loopback
from .metrics import Metrics
from .problems import Problem
from .stopping import server_stops

__all__ = [
    "MAX_BODY",
    "MAX_EVENTS",
    "MAX_EXPORTS",
    "MAX_PROBES",
    "MAX_SEARCHES",
    "MAX_STREAMS",
    "Body",
    "Exporter",
    "Parameters",
    "Reader",
    "Scraper",
    "Service",
    "ServiceDep",
    "Slots",
    "Writer",
    "current_caller",
    "probing",
    "searching",
]

A = TypeVar("A")

MAX_BODY = 16 * 2**20
"""Bytes in the body of a request."""
MAX_EVENTS = 1000
"""Events in one POST."""
MAX_EXPORTS = 4
"""Exports of one organisation at the same time, in one process: each of them holds a snapshot of the store."""
MAX_SEARCHES, MAX_PROBES = 32, 4
"""Requests that read the store, or ask whether it answers, at the same time in one process; others wait, but not those
that record."""
MAX_STREAMS = 500
"""Streams of one organisation at the same time, in one process: each entry is held against the filters of each."""


class Slots:
    """Counts what is under way, by organisation: `most` of it at the same time; one more is answered with `refusal`."""

    def __init__(self, most: int, refusal: Callable[[], Problem]) -> None:
        self._most = most
        self._refusal = refusal
        self._lock = threading.Lock()
        self._taken: Counter[str] = Counter()

    def take(self, org: str) -> None:
        """Take a slot, to be given back with `free`. Raises Problem where none is left."""
        with self._lock:
            if self._taken[org] >= self._most:
                raise self._refusal()
            self._taken[org] += 1

    def free(self, org: str) -> None:
        """Give a slot back."""
        with self._lock:
            self._taken[org] -= 1
            self._taken += Counter()  # forgets organisations that have none

    @contextmanager
    def held(self, org: str) -> Iterator[None]:
        """Hold a slot. Raises Problem where none is left."""
        self.take(org)
        try:
            yield
        finally:
            self.free(org)


def _too_many_exports() -> Problem:
    detail = f"{MAX_EXPORTS} exports of this organisation are under way. Try again when one has ended."
    return Problem(429, "too-many-exports", detail, headers={"Retry-After": "5"})


def _too_many_streams() -> Problem:
    detail = f"{MAX_STREAMS} streams of this organisation are open here. Try again when one has ended."
    return Problem(429, "too-many-streams", detail, headers={"Retry-After": "5"})


@dataclass(frozen=True, slots=True)
class Service:
    """What the application was made of; kept in `app.state.audit`."""

    settings: Settings
    pipeline: AuditPipeline
    cursors: CursorSigner
    tokens: TokenVerifier | None
    """None where the application around this one says who is asking."""
    metrics: Metrics = field(default_factory=Metrics)
    exports: Slots = field(default_factory=lambda: Slots(MAX_EXPORTS, _too_many_exports))
    streams: Slots = field(default_factory=lambda: Slots(MAX_STREAMS, _too_many_streams))
    searches: CapacityLimiter = field(default_factory=lambda: CapacityLimiter(MAX_SEARCHES))
    probes: CapacityLimiter = field(default_factory=lambda: CapacityLimiter(MAX_PROBES))
    hub: Hub = field(init=False)
    _installed: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        object.__setattr__(self, "hub", Hub(lambda: self.store, server_stops))

    @property
    def store(self) -> Store:
        """The store; the first to ask for it installs what is missing. Raises StoreError."""
        store = self.pipeline.store
        if not self._installed.is_set():
            store.setup()
            self._installed.set()
        return store

    def client_ip(self, request: Request) -> str | None:
        """The address that a request came from."""
        return client_ip(request.scope, self.settings.trusted_proxies)


def _in_threads_of(
    limiter: Callable[[Service], CapacityLimiter],
) -> Callable[[Callable[..., A]], Callable[..., Coroutine[Any, Any, A]]]:
    def decorated(endpoint: Callable[..., A]) -> Callable[..., Coroutine[Any, Any, A]]:
        @wraps(endpoint)
        async def asked(*, service: Service, **given: Any) -> A:
            return await to_thread.run_sync(partial(endpoint, service=service, **given), limiter=limiter(service))

        return asked

    return decorated


# Threads of their own: however long a store takes for these, there are others that record.
searching = _in_threads_of(lambda service: service.searches)
probing = _in_threads_of(lambda service: service.probes)


# What waits for nothing is `async`: each way into a thread and back takes a fifth of a millisecond. Dependencies of
# dependencies are gone through once for each that names them: these ask the request for the service.
async def _service(request: Request) -> Service:
    return _service_of(request)


def _service_of(request: Request) -> Service:
    service: Service = request.app.state.audit
    return service


ServiceDep = Annotated[Service, Depends(_service)]


_bearer = HTTPBearer(auto_error=False, scheme_name="bearer", bearerFormat="JWT", description="A JWT.")


async def current_caller(request: Request, _: Annotated[object, Depends(_bearer)]) -> Caller:
    """Who the bearer token speaks for. An application around this one puts a dependency of its own in its place."""
    return await _token_holder(request)


async def _token_holder(request: Request) -> Caller:
    kind, _, token = request.headers.get("authorization", "").partition(" ")
    if kind.lower() != "bearer" or not token.strip():
        raise unauthorized("A bearer token is needed: send `Authorization: Bearer <token>`.")
    tokens = _service_of(request).tokens
    assert tokens is not None
    if tokens.fetches_keys:
        return await to_thread.run_sync(tokens.verify, token.strip())
    return tokens.verify(token.strip())


def _caller(scope: str) -> Callable[[Request, Caller], Awaitable[Caller]]:
    async def caller(request: Request, caller: Annotated[Caller, Depends(current_caller)]) -> Caller:
        if not isinstance(caller, Caller):
            raise TypeError(
                f"create_subapp: `caller` returned {type(caller).__name__}; allowed is a Caller, or to raise "
                "HTTPException(401) where nobody is signed in"
            )
        if caller.expires <= time.time():
            raise unauthorized("The session has expired. Sign in again.")
        caller.require(scope, _service_of(request).settings.entitled_plans)
        return caller

    return caller


async def _scraper(request: Request) -> None:
    """Lets monitoring in: a program on this machine, or one with a token for it."""
    if not is_loopback(request.scope):
        (await _token_holder(request)).require("audit:metrics", _service_of(request).settings.entitled_plans)


Scraper = Depends(_scraper)


Reader = Annotated[Caller, Depends(_caller("audit:read"))]
Exporter = Annotated[Caller, Depends(_caller("audit:export"))]
Writer = Annotated[Caller, Depends(_caller("audit:write"))]


async def _parameters(request: Request) -> dict[str, list[str]]:
    parameters: dict[str, list[str]] = {}
    for name, value in request.query_params.multi_items():
        parameters.setdefault(name, []).append(value)
    return parameters


Parameters = Annotated[dict[str, list[str]], Depends(_parameters)]


async def _body(request: Request) -> bytes:
    """The whole body, where its kind and size are allowed."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise Problem(415, "unsupported-media-type", "Send JSON, with `Content-Type: application/json`.")
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise Problem(415, "unsupported-media-type", "Send the body as it is, without a `Content-Encoding`.")
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY:
            detail = f"The body has more than {MAX_BODY // 2**20} MiB. Send fewer events at a time."
            raise Problem(413, "too-large", detail)
    return bytes(body)


Body = Annotated[bytes, Depends(_body)]
