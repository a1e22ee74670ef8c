"""The endpoints. Each asks the pipeline or its store, and gives back what `privacy` lets out."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from functools import partial
from tempfile import TemporaryFile
from typing import IO, Any, TypeVar
from zoneinfo import ZoneInfo

from anyio import CancelScope, CapacityLimiter, to_thread
from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, StreamingResponse
from starlette.types import Receive, Scope, Send

from audit_pipeline.actions import catalogue
from audit_pipeline.errors import InvalidQuery
from audit_pipeline.event import NO_ID, format_timestamp, is_id, is_new_id
from audit_pipeline.export import csv_chunks, export_context, file_name
from audit_pipeline.importing import json_value
from audit_pipeline.privacy import public_details, public_item
from audit_pipeline.query import (
    PageRequest,
    Query,
    Window,
    parse_buckets,
    parse_page,
    parse_query,
    parse_zone,
    sort_key,
    spans_between,
)

from .deps import MAX_EVENTS, Body, Exporter, Parameters, Reader, ServiceDep, Writer, searching
from .openapi import BODY, CSV, PAGE, PAGING, SELECTING, problems, takes
from .problems import Problem
from .schemas import Accepted, ActionList, EventDetails, EventPage, Histogram
from .sending import while_taken

__all__ = ["router"]

READING = ("plan-required", "store-unavailable")
"""The problems of what is read from the store."""
FINEST = "PT1S"
"""The interval of a histogram without entries."""

A = TypeVar("A")
B = TypeVar("B")

router = APIRouter()


@router.get(
    "/v1/events",
    response_model=EventPage,
    responses={200: PAGE, **problems(*READING, "invalid-cursor", "invalid-query")},
    openapi_extra=takes(*SELECTING, *PAGING),
)
@searching
def list_events(service: ServiceDep, caller: Reader, parameters: Parameters) -> JSONResponse:
    """A page of the entries that match all filters, in order, with their exact number."""
    query, request = _asked(parameters, caller.org)
    window = service.cursors.window(query, request)
    page = service.store.search(query, window)
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
            "page": replace(window, offset=offset).number(page.total),
            "page_size": request.size,
            "pages": -(-page.total // request.size),
            "next": after,
            "previous": before,
        },
        headers={"X-Row-Limit": str(service.settings.export_limit)},
    )


def _asked(parameters: dict[str, list[str]], org: str) -> tuple[Query, PageRequest]:
    """Which entries, and which page of them. Raises InvalidQuery, which names what is wrong with either."""
    return _both(
        lambda: parse_query(parameters, org, also=("page_size", "page", "cursor")), lambda: parse_page(parameters)
    )


def _both(one: Callable[[], A], other: Callable[[], B]) -> tuple[A, B]:
    """What both give. Raises InvalidQuery, which names what is wrong with either."""
    try:
        first = one()
    except InvalidQuery as error:
        errors = list(error.errors)
        try:
            other()
        except InvalidQuery as further:
            errors += further.errors
        raise InvalidQuery(errors) from None
    return first, other()


@router.get(
    "/v1/events/histogram",
    response_model=Histogram,
    responses=problems(*READING, "invalid-query"),
    openapi_extra=takes(*SELECTING, "buckets"),
)
@searching
def histogram(service: ServiceDep, caller: Reader, parameters: Parameters) -> JSONResponse:
    """How many of the entries that match all filters lie in each span of time, by their tone."""
    query, most = _both(
        lambda: parse_query(parameters, caller.org, also=("buckets",)), lambda: parse_buckets(parameters)
    )
    start, end = query.start, query.end
    if start is None or end is None:
        ends = [
            service.store.search(replace(query, sort=sort), Window(1)).items for sort in ("timestamp", "-timestamp")
        ]
        if not all(ends):
            return JSONResponse({"interval": FINEST, "buckets": []})
        start = ends[0][0].timestamp if start is None else start
        end = ends[1][0].timestamp + 1 if end is None else end
    spans = spans_between(start, end, most, _zone(parameters))
    counts = service.store.histogram(query, spans.edges)
    buckets = [
        {"start": format_timestamp(edge), "count": sum(tones.values()), "tones": tones}
        for edge, tones in zip(spans.edges, counts, strict=False)
    ]
    return JSONResponse({"interval": spans.interval, "buckets": buckets})


def _zone(parameters: dict[str, list[str]]) -> ZoneInfo:
    return parse_zone(next((name for name in parameters.get("tz", ()) if name), "UTC"))


@router.get(
    "/v1/events/export.csv",
    response_class=StreamingResponse,
    responses={200: CSV, **problems(*READING, "invalid-query", "too-many-exports", "spool-unavailable")},
    openapi_extra=takes(*SELECTING),
)
@searching
def export_csv(service: ServiceDep, caller: Exporter, parameters: Parameters, request: Request) -> StreamingResponse:
    """The entries that match all filters, in order, as CSV; the export itself becomes an entry."""
    query = parse_query(parameters, caller.org)
    limit = service.settings.export_limit
    name = file_name(_zone(parameters))
    store = service.store
    try:
        service.exports.take(caller.org)
    except Problem:
        service.metrics.exported("refused")
        raise
    try:
        snapshot = store.snapshot(query, limit, in_full=False)
    except BaseException:
        service.exports.free(caller.org)
        service.metrics.exported("failed")
        raise

    def release(complete: bool) -> None:
        try:
            snapshot.close()
        finally:
            service.exports.free(caller.org)
            service.metrics.exported("complete" if complete else "failed")

    chunks = csv_chunks(snapshot)
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
        headers = {
            "Content-Disposition": f'attachment; filename="{name}"',
            "X-Total-Count": str(snapshot.total),
            "X-Row-Limit": str(limit),
            "X-Truncated": "true" if snapshot.total > limit else "false",
        }
        if request.scope["http_version"] == "1.0":
            chunks, headers["Content-Length"] = _measured(chunks)
    except BaseException:
        release(complete=False)
        raise
    return _SnapshotResponse(chunks, release, service.searches, headers)


def _measured(chunks: Iterator[bytes]) -> tuple[Iterator[bytes], str]:
    """All of it, and its size: to HTTP/1.0, which has no chunks, an answer without a size that ends is a whole one."""
    file = TemporaryFile()  # noqa: SIM115 - closed by whoever reads it
    try:
        file.writelines(chunks)
        size = file.tell()
        file.seek(0)
    except BaseException:
        file.close()
        raise
    return _read(file), str(size)


def _read(file: IO[bytes]) -> Iterator[bytes]:
    with file:
        yield from iter(partial(file.read, 2**16), b"")


class _SnapshotResponse(StreamingResponse):
    """Streams what comes of a snapshot, and releases it in the end, also when the client leaves in the middle."""

    def __init__(
        self,
        chunks: Iterator[bytes],
        release: Callable[[bool], None],
        threads: CapacityLimiter,
        headers: dict[str, str],
    ) -> None:
        super().__init__(self._to_the_end(chunks), media_type="text/csv; charset=utf-8", headers=headers)
        self._release = release
        self._threads = threads
        self._complete = False

    async def _to_the_end(self, chunks: Iterator[bytes]) -> AsyncIterator[bytes]:
        while (chunk := await to_thread.run_sync(next, chunks, None, limiter=self._threads)) is not None:
            yield chunk
        self._complete = True

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, while_taken(send))
        finally:
            with CancelScope(shield=True):
                await to_thread.run_sync(self._release, self._complete, limiter=self._threads)


@router.get("/v1/events/{event_id}", response_model=EventDetails, responses=problems(*READING, "not-found"))
@searching
def one_event(service: ServiceDep, caller: Reader, event_id: str) -> JSONResponse:
    """One entry, with its context and its problems."""
    event = service.store.get(caller.org, event_id) if is_id(event_id) else None
    if event is None:
        raise Problem(404, "not-found", "There is no entry with this id.")
    return JSONResponse(public_details(event))


@router.get("/v1/actions", response_model=ActionList, responses=problems("plan-required"))
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


@router.post(
    "/v1/events",
    status_code=202,
    response_model=Accepted,
    responses=problems("invalid-query", "too-large", "unsupported-media-type", "spool-unavailable"),
    openapi_extra={"requestBody": BODY},
)
def record_events(service: ServiceDep, caller: Writer, body: Body) -> Accepted:
    """Record one event, or a list of up to 1000: all, or none where one of them is refused."""
    given = _events(body)
    errors = [error for where, event in given for error in _refusals(event, where, caller.org)]
    if errors:
        raise InvalidQuery(errors)
    prepared = []
    for _, event in given:
        action = catalogue[event["action"]]
        prepared.append(service.pipeline.prepare(action, _without(event, "action") | {"org": caller.org}))
    service.pipeline.accept(prepared)
    return Accepted(ids=[event.id for event in prepared])


def _events(body: bytes) -> list[tuple[str, Any]]:
    """The events, each with how an error names it: `[3].` in a list."""
    try:
        given = json_value(body)
    except ValueError as error:
        raise InvalidQuery([("body", f"{error}; send one event, or a list of events, as JSON")]) from None
    if not isinstance(given, list):
        return [("", given)]
    if not 1 <= len(given) <= MAX_EVENTS:
        raise InvalidQuery([("body", f"has {len(given):,} events; allowed are 1 to {MAX_EVENTS}")])
    return [(f"[{place}].", event) for place, event in enumerate(given)]


def _refusals(event: Any, where: str, org: str) -> Iterator[tuple[str, str]]:
    """What a sender must put right; everything else is recorded, with its problems."""
    if not isinstance(event, dict):
        yield where.rstrip(".") or "body", "not an object; allowed is one with action, target, detail, user, ip …"
        return
    if event.get("action") not in catalogue:
        yield f"{where}action", catalogue.refusal(event)
    if event.get("id") is not None and not is_new_id(event["id"]):
        yield f"{where}id", NO_ID
    if event.get("org") not in (None, org):
        yield f"{where}org", "not the organisation of the token; leave it out"


def _given(parameters: dict[str, list[str]]) -> dict[str, Any]:
    """The parameters as given, for the entry about an export."""
    return {name: values[0] if len(values) == 1 else values for name, values in parameters.items()}


def _without(event: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in event.items() if key != name}
