"""What whoever runs the server asks: is it alive, can it record and answer, and what has it counted."""

from __future__ import annotations

from fastapi import APIRouter, Response
from fastapi.responses import JSONResponse, PlainTextResponse

from audit_pipeline.errors import AuditError

from .deps import Scraper, ServiceDep, probing
from .metrics import MEDIA_TYPE
from .openapi import problems
from .schemas import Status

__all__ = ["router"]

router = APIRouter()


@router.get("/healthz", response_model=Status, responses=problems(token=False))
async def healthz() -> Status:
    """Whether this process answers."""
    return Status(status="ok")


@router.get(
    "/readyz",
    response_model=Status,
    responses={**problems(token=False), 503: {"model": Status, "description": "Not at the moment."}},
)
@probing
def readyz(service: ServiceDep) -> JSONResponse:
    """Whether entries can be recorded and found."""
    try:
        if (refusal := service.pipeline.spool.refusal()) is not None:
            raise refusal
        service.store.check()
    except AuditError:
        return JSONResponse({"status": "unavailable"}, 503, headers={"Retry-After": "5"})
    return JSONResponse({"status": "ready"})


@router.head("/healthz", include_in_schema=False)
async def healthz_head() -> Response:
    """As GET: load balancers ask like this."""
    return _head(JSONResponse((await healthz()).model_dump()))


@router.head("/readyz", include_in_schema=False)
async def readyz_head(service: ServiceDep) -> Response:
    """As GET."""
    return _head(await readyz(service=service))


def _head(answer: Response) -> Response:
    """An answer without its body; its headers tell of that (RFC 9110, section 9.3.2)."""
    return Response(status_code=answer.status_code, headers=dict(answer.headers))


@router.get(
    "/metrics",
    response_class=PlainTextResponse,
    dependencies=[Scraper],
    responses=problems(),
    openapi_extra={"security": [{"bearer": []}, {}]},
)
def metrics(service: ServiceDep) -> PlainTextResponse:
    """The spool's figures, what is wrong with it, and what this process counted, for Prometheus."""
    return PlainTextResponse(service.metrics.text(service.pipeline, service.hub.listeners), media_type=MEDIA_TYPE)
