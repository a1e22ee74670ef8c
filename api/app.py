"""Makes the application: `uvicorn --factory audit_pipeline.api.app:create_app`."""

from __future__ import annotations

import logging
import os
import re
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.resources import files
from ipaddress import ip_address

from fastapi import FastAPI
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import FileResponse
from starlette.datastructures import Headers, MutableHeaders
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from audit_pipeline.errors import StoreError
from audit_pipeline.keys import cursor_keys
from audit_pipeline.privacy import normalize_ip
from audit_pipeline.processor import AuditPipeline
from audit_pipeline.query import CursorSigner
from audit_pipeline.settings import Settings

from . import problems
from .auth import TokenVerifier
from .deps import Service
from .problems import Problem, problem_for, problem_response
from .routes import router

__all__ = ["create_app"]

_log = logging.getLogger("audit_pipeline.api")

_SECURITY = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "cross-origin",
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
    ),
}


def create_app(settings: Settings | None = None, pipeline: AuditPipeline | None = None) -> FastAPI:
    """The API and the viewer's page, for one store; ships the spool too.

    What is left out comes from the environment. A pipeline that is handed in is left open at the end. Without keys
    in the settings, tokens are verified with a key made for this run, and only loopback is answered. Raises
    SettingsError and SpoolError, each in one line.
    """
    settings = settings or Settings.from_environment()
    tokens = TokenVerifier(settings)
    opened = pipeline or AuditPipeline.open(settings=settings)
    try:
        cursors = CursorSigner(cursor_keys(settings, opened.spool.path))
    except BaseException:
        if pipeline is None:
            opened.close()
        raise
    service = Service(settings, opened, cursors, tokens)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        try:
            await run_in_threadpool(lambda: service.store)
        except StoreError as error:
            _log.warning("the store cannot be used yet, and is tried again with each request: %s", error)
        yield
        if pipeline is None:
            await run_in_threadpool(opened.close)

    app = FastAPI(
        title="Audit log", version="1", lifespan=lifespan, docs_url=None, redoc_url=None, redirect_slashes=False
    )
    app.state.audit = service
    problems.install(app)
    app.include_router(router)
    viewer = files(__package__ or "") / "viewer"
    app.mount("/viewer", _ViewerFiles(directory=str(viewer)), name="viewer")
    app.add_api_route(
        "/", lambda: FileResponse(str(viewer / "index.html")), include_in_schema=False, response_class=FileResponse
    )
    if tokens.run_key is not None:
        logging.getLogger("audit_pipeline.keys").warning(
            "no keys are set: only this machine is answered, and only `audit-pipeline serve` prints a token that is "
            "good; set AUDIT_JWT_SECRET, AUDIT_JWKS_URL or AUDIT_JWKS_FILE"
        )
    app.add_middleware(_Edge, settings=settings, loopback_only=tokens.run_key is not None)
    return app


class _ViewerFiles(StaticFiles):
    """The viewer's own files; the folder is a Python package too, of which nothing is served."""

    def lookup_path(self, path: str) -> tuple[str, os.stat_result | None]:
        return super().lookup_path(path) if path.endswith((".css", ".html", ".js", ".svg")) else ("", None)


class _Edge:
    """What holds for every answer: a request id, the `Host` check, and headers that keep browsers careful.

    An error that nothing else answers is logged with the request's id, and answered without a word of its text.
    """

    def __init__(self, app: ASGIApp, settings: Settings, loopback_only: bool) -> None:
        self._app = app
        self._hosts = settings.allowed_hosts
        self._loopback_only = loopback_only

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        given = headers.get("x-request-id", "")
        request_id = given if re.fullmatch(r"[A-Za-z0-9._:-]{1,128}", given) else uuid.uuid4().hex
        scope["audit_request_id"] = request_id

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
            await send(message)

        problem = self._refused(scope, headers)
        if problem is not None:
            await problem_response(problem, request_id)(scope, receive, sending)
            return
        try:
            await self._app(scope, receive, sending)
        except Exception as error:
            if started:
                raise  # only a broken transfer tells the client that what it has is a part
            _log.exception("request %s failed", request_id)
            await problem_response(problem_for(error), request_id)(scope, receive, sending)

    def _refused(self, scope: Scope, headers: Headers) -> Problem | None:
        if not self._knows(headers.getlist("host")):
            detail = "This host name is not answered. AUDIT_ALLOWED_HOSTS says which are."
            return Problem(421, "unknown-host", detail)
        if self._loopback_only and not _is_loopback(scope):
            detail = (
                "Without AUDIT_JWT_SECRET, AUDIT_JWKS_URL or AUDIT_JWKS_FILE, only this machine itself is answered."
            )
            return Problem(403, "forbidden", detail)
        return None

    def _knows(self, hosts: list[str]) -> bool:
        if len(hosts) != 1:
            return False
        host = re.sub(r":\d*\Z", "", hosts[0]).lower()
        return any(
            host == allowed or allowed == "*" or (allowed.startswith("*.") and host.endswith(allowed[1:]))
            for allowed in self._hosts
        )


def _is_loopback(scope: Scope) -> bool:
    client = scope.get("client")
    if not client:  # a Unix socket
        return True
    address = normalize_ip(str(client[0]))
    return address is not None and ip_address(address).is_loopback
