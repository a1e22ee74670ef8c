"""Makes the application: `uvicorn --factory audit_pipeline.api.app:create_app`; or a part of somebody else's."""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from importlib.resources import files
from typing import Any

from fastapi import FastAPI
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import FileResponse
from starlette.staticfiles import StaticFiles

from audit_pipeline.errors import StoreError
from audit_pipeline.keys import cursor_keys
from audit_pipeline.processor import AuditPipeline
from audit_pipeline.query import CursorSigner
from audit_pipeline.settings import Settings

from . import operating, problems, routes, stream
from .auth import TokenVerifier
from .deps import Service, current_caller
from .edge import Edge

__all__ = ["create_app", "create_subapp"]

_log = logging.getLogger("audit_pipeline.api")


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

    app = _application(service, lifespan=lifespan)
    app.include_router(operating.router)
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
    app.add_middleware(
        Edge,
        metrics=service.metrics,
        hosts=settings.allowed_hosts,
        origins=settings.cors_origins,
        loopback_only=tokens.run_key is not None,
    )
    return app


def create_subapp(*, pipeline: AuditPipeline, caller: Callable[..., Any], settings: Settings | None = None) -> FastAPI:
    """The `/v1` calls, to be mounted in a FastAPI application that knows its users: `app.mount("/audit", …)`.

    `caller` is a dependency as any endpoint of that application may have, and returns the Caller who asks, or raises
    HTTPException. Scopes, plans, limits, masking and the form of errors are those of `create_app`; bearer tokens,
    `Host`, CORS, health and metrics are the application's own affair. What `settings` leaves out comes from the
    environment. The pipeline is left open at the end. Raises SettingsError.
    """
    settings = settings or Settings.from_environment()
    service = Service(settings, pipeline, CursorSigner(cursor_keys(settings, pipeline.spool.path)), None)
    app = _application(service)
    app.dependency_overrides[current_caller] = caller
    app.add_middleware(Edge, metrics=service.metrics)
    return app


def _application(service: Service, **more: Any) -> FastAPI:
    # The description is `docs/openapi.json`: of a running server nobody needs to ask for it without a token.
    app = FastAPI(
        openapi_url=None, redirect_slashes=False, generate_unique_id_function=lambda route: route.name, **more
    )
    app.state.audit = service
    problems.install(app)
    app.include_router(stream.router)
    app.include_router(routes.router)
    return app


class _ViewerFiles(StaticFiles):
    """The viewer's own files; the folder is a Python package too, of which nothing is served."""

    def lookup_path(self, path: str) -> tuple[str, os.stat_result | None]:
        return super().lookup_path(path) if path.endswith((".css", ".html", ".js", ".svg")) else ("", None)
