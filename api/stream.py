"""GET /v1/events/stream: entries as they come, as server-sent events (https://html.spec.whatwg.org/#server-sent-events).

A block is an entry: its `id` is where to go on after it, encrypted like a cursor; its `data` is the entry as a list
shows it. A block that is an `id` alone, such as the first, only tells where to go on. A silent stream beats with such
blocks, whether its place moved on or not: a difference would tell that others write.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Annotated

import orjson
from fastapi import APIRouter, Header
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from audit_pipeline.errors import InvalidCursor
from audit_pipeline.listening import AT_ONCE, Heard, Listener
from audit_pipeline.privacy import public_item
from audit_pipeline.query import RESUME_REFUSED, SORTS, Query, ResumePoint, parse_query

from .auth import Caller
from .deps import Parameters, Reader, Service, ServiceDep
from .openapi import SELECTING, problems, takes
from .sending import ClientStalled, while_taken

__all__ = ["router"]

HEARTBEAT_S = 15.0
"""How long a stream is silent at the most, in seconds: proxies close connections that are silent for a minute."""
RETRY_MS = 2000
"""How long a client waits before it connects again, in milliseconds."""

_log = logging.getLogger("audit_pipeline.api")

# JSON has no line breaks in it; these three are some to readers who split lines as Unicode does.
_BREAKS = {character.encode(): f"\\u{ord(character):04x}".encode() for character in "\u0085\u2028\u2029"}

_EVENTS = {
    "description": "Server-sent events: blocks with the `id` to go on after, and an item as `data`. A block without "
    "`data` only tells where to go on.",
    "content": {"text/event-stream": {"schema": {"type": "string"}}},
}

_PROBLEMS = ("plan-required", "store-unavailable", "invalid-cursor", "invalid-query", "too-many-streams")

LastEventID = Annotated[str, Header(description="Goes on after the event of this `id`, with the same filters.")]

router = APIRouter()


@router.get(
    "/v1/events/stream",
    response_class=Response,
    responses={200: _EVENTS, **problems(*_PROBLEMS)},
    openapi_extra=takes(*SELECTING),
)
async def stream_events(
    service: ServiceDep, caller: Reader, parameters: Parameters, last_event_id: LastEventID = ""
) -> Response:
    """The entries that match all filters, as they come: server-sent events in order of arrival.

    The header `Last-Event-ID` goes on after that event. The stream ends when the bearer token does; `sort` changes
    nothing.
    """
    query = replace(parse_query(parameters, caller.org), sort=SORTS[0])
    point = service.cursors.resume_point(query, last_event_id) if last_event_id else None
    return _Stream(service, caller, query, point)


class _Stream(Response):
    """Listens from the moment it is sent, and until the client leaves."""

    media_type = "text/event-stream"

    def __init__(self, service: Service, caller: Caller, query: Query, point: ResumePoint | None) -> None:
        super().__init__(headers={"X-Accel-Buffering": "no", "Cache-Control": "no-store"})
        del self.headers["content-length"]
        self._service = service
        self._caller = caller
        self._query = query
        self._point = point

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            with self._service.streams.held(self._query.org):
                await self._stream(receive, while_taken(send, self._left))
        except ValueError:
            raise InvalidCursor(RESUME_REFUSED) from None  # of another store
        except ClientStalled as error:
            _log.info("a stream was ended: %s", error)  # it is not completed, so the server breaks the connection

    def _left(self) -> float:
        """For how many seconds the bearer token is good."""
        return self._caller.expires - time.time()

    async def _stream(self, receive: Receive, send: Send) -> None:
        async with self._service.hub.listen(self._query, self._point) as listener:
            leaving = asyncio.create_task(_gone(receive))
            leaving.add_done_callback(lambda _: listener.end())
            try:
                await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
                async for text in self._texts(listener):
                    await send({"type": "http.response.body", "body": text, "more_body": True})
                await send({"type": "http.response.body", "body": b"", "more_body": False})
            finally:
                leaving.cancel()

    async def _texts(self, listener: Listener) -> AsyncIterator[bytes]:
        yield b"retry: %d\n%s" % (RETRY_MS, self._place(listener.point))
        while not listener.ended and (left := self._left()) > 0:
            heard = await listener.next(min(HEARTBEAT_S, left))
            for first in range(0, len(heard), AT_ONCE):
                yield b"".join(map(self._block, heard[first : first + AT_ONCE]))
                await asyncio.sleep(0)  # others have their turn, and it shows whether the client has left
                if listener.ended:
                    return
            if not heard and not listener.ended:
                yield self._place(listener.point)

    def _place(self, point: ResumePoint) -> bytes:
        return b"id: %s\n\n" % self._service.cursors.sign_resume(self._query, point).encode()

    def _block(self, heard: Heard) -> bytes:
        entry, point = heard
        if not entry.data:
            data = orjson.dumps(public_item(entry.event))
            for character, escape in _BREAKS.items():
                data = data.replace(character, escape)
            entry.data = b"data: %s\n" % data
        if point.given:
            return entry.data + self._place(point)
        place = entry.places.get(self._query)
        if place is None:
            place = entry.places[self._query] = self._place(point)
        return entry.data + place


async def _gone(receive: Receive) -> None:
    """Ends when the client leaves."""
    while (await receive())["type"] != "http.disconnect":
        pass
