"""Makes the application: `uvicorn --factory audit_pipeline.api.app:create_app`; or a part of somebody else's."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI
from fastapi.concurrency import run_in_threadpool

from audit_pipeline.errors import SettingsError, StoreError
from audit_pipeline.keys import cursor_keys
from audit_pipeline.processor import AuditPipeline
from audit_pipeline.query import CursorSigner
from audit_pipeline.settings import Settings, unknown_line

from . import operating, problems, routes, stream, viewer_files
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
    if settings is None:
        if line := unknown_line():
            _log.warning("%s", line)
        settings = Settings.from_environment()
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
    app.include_router(viewer_files.page_router)
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
    """The `/v1` calls and the viewer's files, for a FastAPI application that knows its users: `app.mount("/audit", …)`.

    `caller` is a dependency as any endpoint of that application may have, and returns the Caller who asks, or raises
    HTTPException. Scopes, plans, limits, masking and the form of errors are those of `create_app`; bearer tokens,
    `Host`, CORS, health, metrics and pages are the application's own affair. What `settings` leaves out comes from the
    environment. The pipeline is left open at the end. Raises SettingsError.
    """
    if not callable(caller):
        raise SettingsError(
            f"create_subapp: caller is {repr(caller)[:40]}, of type {type(caller).__name__}; allowed is a function, a "
            "dependency as endpoints have them, that returns the Caller who asks"
        )
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
    app.state.viewer = viewer_files.ViewerFiles()
    problems.install(app)
    app.include_router(stream.router)
    app.include_router(routes.router)
    app.include_router(viewer_files.router)
    return app
