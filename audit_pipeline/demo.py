"""The demo: the dashboard of a small mail host, and administrators who use it over HTTP for 90 days.

Its entries take the way that an application's own take: log call, processor, spool, shipper, store. The one trick is
the header `X-Demo-Time`, by which a request says when it is made. What happens is told in `demo_story`.
"""

from __future__ import annotations

import secrets
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, MutableMapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Annotated, Any

import httpx
import structlog
import uvicorn
from fastapi import Body, Depends, FastAPI, Header, HTTPException, Request

from .actions import catalogue
from .context import unaudited
from .demo_story import LOGIN, LOGIN_FAILED, LOGOUT, OPERATIONS, Operation, Step, tell
from .errors import AuditError
from .integrations.asgi import AuditMiddleware
from .processor import AuditPipeline
from .settings import Settings

__all__ = ["DemoFailed", "dashboard", "fill"]

SHIPPING_SECONDS = 60.0
"""For how long the store may take to get what is left in the spool at the end."""

Processor = Callable[[Any, str, MutableMapping[str, Any]], MutableMapping[str, Any]]


class DemoFailed(AuditError):
    """The demo did not do what it is there to show; its text says which part."""


def fill(settings: Settings, events: int) -> int:
    """Use a dashboard for about `events` entries, and return how many there were, once the store has them all.

    Raises DemoFailed where a request went wrong or left no entry, an action never occurred, or the store did not take
    the entries; SettingsError and SpoolError as `AuditPipeline.open` does.
    """
    before = unaudited.copy()
    recorded: Counter[str] = Counter()

    def count(logger: Any, method_name: str, event_dict: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        if event_dict["event"] in catalogue:
            recorded[event_dict["event"]] += 1
        return event_dict

    with AuditPipeline.open(settings=settings) as audit:
        with _served(dashboard(audit.processor, count)) as address:
            _use(address, tell(events, datetime.now(UTC)))
        if missed := unaudited - before:
            raise DemoFailed(f"requests left no entry: {', '.join(sorted(missed))}")
        if absent := [name.action for name in (*OPERATIONS, LOGIN, LOGIN_FAILED, LOGOUT) if not recorded[name.action]]:
            raise DemoFailed(f"actions never occurred: {', '.join(absent)}; ask for more events")
        if not audit.flush(SHIPPING_SECONDS):
            raise DemoFailed(f"the store did not take {audit.unshipped():,} entries; `audit-pipeline doctor` says why")
    return recorded.total()


# The dashboard

_moment: ContextVar[str | None] = ContextVar("audit_pipeline_demo_moment", default=None)


async def _travel(x_demo_time: Annotated[str | None, Header()] = None) -> None:
    _moment.set(x_demo_time)


def _set_timestamp(logger: Any, method_name: str, event_dict: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    if (moment := _moment.get()) is not None:
        event_dict["timestamp"] = moment
    return event_dict


async def _signed_in(request: Request, authorization: Annotated[str, Header()] = "") -> None:
    user = request.app.state.sessions.get(authorization.removeprefix("Bearer "))
    if user is None:
        raise HTTPException(401, "Sign in first.")
    request.state.user = user  # where AuditMiddleware looks for it


Parameters = Annotated[dict[str, Any], Body(default_factory=dict)]
Fault = Annotated[str | None, Header(alias="X-Demo-Fault")]


def dashboard(*processors: Processor) -> FastAPI:
    """The application. `processors` are those of its log: among them that of the audit pipeline."""
    # A logger of its own: structlog's configuration is left as whoever calls this has it.
    log = structlog.wrap_logger(
        structlog.ReturnLogger(),
        processors=[_set_timestamp, *processors],
        wrapper_class=structlog.BoundLogger,
        context_class=dict,
    )
    app = FastAPI(dependencies=[Depends(_travel)], openapi_url=None)
    app.state.sessions = {}
    app.add_middleware(AuditMiddleware, trusted_proxies=["127.0.0.1"])

    @app.post(LOGIN.path, status_code=201)
    def sign_in(user: Annotated[str, Body()], method: Annotated[str, Body()], fault: Fault = None) -> dict[str, str]:
        if fault is not None:
            log.info(LOGIN_FAILED.action, user=user, target=LOGIN.target, detail=fault, method=method)
            raise HTTPException(401, fault)
        token = secrets.token_urlsafe()
        app.state.sessions[token] = user
        log.info(LOGIN.action, user=user, target=LOGIN.target, detail=method)
        return {"token": token}

    for operation in (*OPERATIONS, LOGOUT):
        app.add_api_route(
            operation.path,
            _endpoint(log, operation),
            methods=[operation.method],
            name=operation.action,
            dependencies=[Depends(_signed_in)],
        )
    return app


def _endpoint(log: Any, operation: Operation) -> Callable[..., dict[str, str]]:
    def operate(request: Request, body: Parameters, fault: Fault = None) -> dict[str, str]:
        parameters = {**request.path_params, **body}
        target = operation.target.format_map(parameters)
        if fault is not None:
            log.info(operation.action, target=target, detail=fault, outcome="failure", **parameters)
            raise HTTPException(409, fault)
        log.info(operation.action, target=target, detail=operation.detail.format_map(parameters), **parameters)
        return {"target": target}

    return operate


@contextmanager
def _served(app: FastAPI) -> Iterator[str]:
    """The application on a free port of this machine; gives its address."""
    # Said to be TCP: only then does asyncio turn Nagle's algorithm off, which costs 40 ms a request.
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.bind(("127.0.0.1", 0))
    listening.listen()
    # The forwarding headers are AuditMiddleware's to read, and the logging configuration is the caller's.
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        proxy_headers=False,
        lifespan="off",
        ws="none",
        timeout_graceful_shutdown=5,
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, args=([listening],), name="audit-pipeline-demo", daemon=True)
    with listening:
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


# The administrators


def _use(address: str, steps: Iterable[Step]) -> None:
    sessions: dict[int, str] = {}
    # trust_env=False: a proxy of the environment has no part in this.
    with httpx.Client(base_url=address, timeout=30, trust_env=False) as client:
        for step in steps:
            headers = {
                "X-Demo-Time": step.moment.isoformat(),
                "X-Forwarded-For": step.ip,
                "User-Agent": step.agent,
            }
            if step.visit in sessions:
                headers["Authorization"] = f"Bearer {sessions[step.visit]}"
            if step.fault is not None:
                headers["X-Demo-Fault"] = step.fault
            operation = step.operation
            answer = client.request(operation.method, step.path, json=step.body or None, headers=headers)
            if not (answer.is_success if step.fault is None else answer.is_client_error):
                raise DemoFailed(f"{operation.method} {operation.path} answered {answer.status_code}")
            if operation is LOGIN:
                sessions[step.visit] = answer.json()["token"]
