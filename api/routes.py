"""The endpoints. Each asks the pipeline or its store, and gives back what `privacy` lets out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from anyio import CancelScope
from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse, StreamingResponse
from starlette.types import Receive, Scope, Send

from audit_pipeline.actions import catalogue
from audit_pipeline.errors import AuditError, InvalidQuery
from audit_pipeline.event import is_id
from audit_pipeline.export import csv_chunks, export_context, file_name
from audit_pipeline.importing import json_value
from audit_pipeline.privacy import public_details, public_item
from audit_pipeline.query import Window, parse_page, parse_query, parse_zone, sort_key
from audit_pipeline.stores import Snapshot

from .deps import Body, Exporter, Parameters, Reader, ServiceDep, Writer
from .problems import Problem
from .schemas import Accepted, ActionList, EventDetails, EventPage, Status

__all__ = ["router"]

MAX_EVENTS = 1000
"""Events in one POST."""

router = APIRouter()


@router.get("/v1/events", response_model=EventPage)
def list_events(service: ServiceDep, caller: Reader, parameters: Parameters) -> JSONResponse:
    """A page of the entries that match all filters, in order, with their exact number."""
    query = parse_query(parameters, caller.org, also=("page_size", "page", "cursor"))
    request = parse_page(parameters)
    window = service.cursors.window(query, request)
    page = service.pipeline.store.search(query, window)
    items = page.items
    offset = window.offset if page.has_previous or window.before is None else 0
    after = before = None
    if items and page.has_next:
        after = service.cursors.sign(query, Window(0, offset + len(items), after=sort_key(items[-1])))
    if items and page.has_previous:
        before = service.cursors.sign(query, Window(0, offset, before=sort_key(items[0])))
    return JSONResponse(
        {
            "items": [public_item(event) for event in items],
            "total": page.total,
            "page": offset // request.size + 1,
            "page_size": request.size,
            "pages": -(-page.total // request.size),
            "next": after,
            "previous": before,
        }
    )


@router.get("/v1/events/export.csv", response_class=StreamingResponse)
def export_csv(service: ServiceDep, caller: Exporter, parameters: Parameters, request: Request) -> StreamingResponse:
    """The entries that match all filters, in order, as CSV; the export itself becomes an entry."""
    query = parse_query(parameters, caller.org)
    zone = parse_zone(next((name for name in parameters.get("tz", ()) if name), "UTC"))
    limit = service.settings.export_limit
    name = file_name(zone)
    snapshot = service.pipeline.store.snapshot(query, limit)
    try:
        rows = min(snapshot.total, limit)
        service.pipeline.record(
            "audit.exported",
            target=name,
            detail=f"{rows:,} of {snapshot.total:,} entries",
            user=caller.sub,
            ip=service.client_ip(request),
            org=caller.org,
            context=export_context(query, _given(parameters), rows, snapshot.total),
        )
    except BaseException:
        snapshot.close()
        raise
    headers = {
        "Content-Disposition": f'attachment; filename="{name}"',
        "X-Total-Count": str(snapshot.total),
        "X-Row-Limit": str(limit),
        "X-Truncated": "true" if snapshot.total > limit else "false",
    }
    return _SnapshotResponse(snapshot, csv_chunks(snapshot), headers)


class _SnapshotResponse(StreamingResponse):
    """Streams what comes of a snapshot, and frees it in the end, also when the client leaves in the middle."""

    def __init__(self, snapshot: Snapshot, chunks: Iterator[bytes], headers: dict[str, str]) -> None:
        super().__init__(chunks, media_type="text/csv; charset=utf-8", headers=headers)
        self._snapshot = snapshot

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            with CancelScope(shield=True):
                await run_in_threadpool(self._snapshot.close)


@router.get("/v1/events/{event_id}", response_model=EventDetails)
def one_event(service: ServiceDep, caller: Reader, event_id: str) -> JSONResponse:
    """One entry, with its context and its problems."""
    event = service.pipeline.store.get(caller.org, event_id) if is_id(event_id) else None
    if event is None:
        raise Problem(404, "not-found", "There is no entry with this id.")
    return JSONResponse(public_details(event))


@router.get("/v1/actions", response_model=ActionList)
def list_actions(caller: Reader) -> dict[str, Any]:
    """The catalogue of actions, by category."""
    return {
        "categories": [
            {
                "id": category.id,
                "label": category.label,
                "actions": [
                    {"id": action.id, "label": action.label, "tone": action.tone} for action in category.actions
                ],
            }
            for category in catalogue.categories()
        ]
    }


@router.post("/v1/events", status_code=202, response_model=Accepted)
def record_events(service: ServiceDep, caller: Writer, body: Body) -> Accepted:
    """Record one event, or a list of up to 1000: all, or none where one of them is refused."""
    given = _events(body)
    errors = [error for place, event in enumerate(given) for error in _refusals(event, place, caller.org)]
    if errors:
        raise InvalidQuery(errors)
    prepared = []
    for event in given:
        action = catalogue[event["action"]]
        prepared.append(service.pipeline.prepare(action, _without(event, "action") | {"org": caller.org}))
    service.pipeline.accept(prepared)
    return Accepted(ids=[event.id for event in prepared])


def _events(body: bytes) -> list[Any]:
    try:
        given = json_value(body)
    except ValueError as error:
        raise InvalidQuery([("body", f"{error}; send one event, or a list of events, as JSON")]) from None
    events = given if isinstance(given, list) else [given]
    if not 1 <= len(events) <= MAX_EVENTS:
        raise InvalidQuery([("body", f"has {len(events):,} events; allowed are 1 to {MAX_EVENTS}")])
    return events


def _refusals(event: Any, place: int, org: str) -> Iterator[tuple[str, str]]:
    """What a sender must put right; everything else is recorded, with its problems."""
    if not isinstance(event, dict):
        yield f"[{place}]", "not an object; allowed is one with action, target, detail, user, ip …"
        return
    if event.get("action") not in catalogue:
        yield f"[{place}].action", catalogue.unknown(event.get("action"))
    if event.get("id") is not None and not is_id(event["id"]):
        yield f"[{place}].id", "not a UUIDv7 in lower case with hyphens; leave it out to have one made"
    if event.get("org") not in (None, org):
        yield f"[{place}].org", "not the organisation of the token; leave it out"


@router.get("/healthz", response_model=Status)
async def healthz() -> Status:
    """Whether this process answers."""
    return Status(status="ok")


@router.get("/readyz", response_model=Status)
def readyz(service: ServiceDep) -> JSONResponse:
    """Whether entries can be recorded and found."""
    try:
        service.pipeline.status()
        service.pipeline.store.check()
    except AuditError:
        return JSONResponse({"status": "unavailable"}, 503, headers={"Retry-After": "5"})
    return JSONResponse({"status": "ready"})


def _given(parameters: dict[str, list[str]]) -> dict[str, Any]:
    """The parameters as given, for the entry about an export."""
    return {name: values[0] if len(values) == 1 else values for name, values in parameters.items()}


def _without(event: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in event.items() if key != name}
