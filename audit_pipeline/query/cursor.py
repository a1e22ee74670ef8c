"""Where a page begins, or a live stream goes on, and the signed text that says so between two requests.

A cursor holds what its last shown entry was: its time, action and id, all of which the viewer saw. The signature
covers the query too, so that a cursor serves one organisation, one set of filters and one order only. A stream's
resume token holds a store's position among arrivals.
"""

from __future__ import annotations

import base64
import hmac
import json
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import NamedTuple
from uuid import UUID

from ..errors import InvalidCursor
from ..event import AuditEvent, is_id
from .filters import SORTS, PageRequest, Query

__all__ = ["RESUME_REFUSED", "CursorSigner", "ResumePoint", "SortKey", "Window", "sort_key"]


RESUME_REFUSED = "this Last-Event-ID is damaged, or belongs to another query; connect again without it"
"""What is wrong with a resume token, and what to do."""

_RESUME = b"r"
"""How the content of a resume token begins. A cursor's is a JSON list: neither can be taken for the other."""


class SortKey(NamedTuple):
    """What an entry's place in any of the four orders depends on."""

    timestamp: int
    action: str
    id: str


def sort_key(event: AuditEvent) -> SortKey:
    """The sort key of an entry."""
    return SortKey(event.timestamp, event.action, event.id)


@dataclass(frozen=True, slots=True)
class Window:
    """Which rows of an ordered result: `size` of them after `offset` rows, or next to a key."""

    size: int
    """Up to 5,000."""
    offset: int = 0
    """Rows before the window. Beside a key it is not used to find them, but to tell the page's number."""
    after: SortKey | None = None
    """Only rows that come after this one."""
    before: SortKey | None = None
    """Only rows that come before this one, the nearest ones."""


@dataclass(frozen=True, slots=True)
class ResumePoint:
    """Where a live stream goes on: after a position among a store's arrivals, but for what was given of these."""

    position: str
    given: frozenset[str] = frozenset()
    """Ids of entries that come after the position, and were given already."""


class CursorSigner:
    """Makes and reads cursors and resume tokens. The first key signs; all are accepted, so that keys can be changed."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        self._keys = tuple(keys)

    def sign(self, query: Query, window: Window) -> str:
        """The text of a window that has a key."""
        key = window.after or window.before
        assert key is not None
        content = ["n" if window.after else "p", window.offset, *key]
        return self._signed(query, json.dumps(content, separators=(",", ":")).encode())

    def window(self, query: Query, request: PageRequest) -> Window:
        """The window that a request asks for. Raises InvalidCursor for a cursor that was not made for this query."""
        if request.cursor is None:
            return Window(request.size, (request.page - 1) * request.size)
        content = self._content(query, request.cursor)
        if content is None or content.startswith(_RESUME):
            raise InvalidCursor(
                "this cursor is damaged, or belongs to another query; ask again without it, from the first page"
            )
        direction, offset, timestamp, action, event_id = json.loads(content)
        assert is_id(event_id)
        key = SortKey(timestamp, action, event_id)
        if direction == "n":
            return Window(request.size, offset, after=key)
        return Window(request.size, max(0, offset - request.size), before=key)

    def sign_resume(self, query: Query, point: ResumePoint) -> str:
        """The resume token of a query's stream; in which order a query asks for pages does not count."""
        content = _RESUME + _packed(point.position)
        if point.given:
            content += b"".join(bytes.fromhex(event_id.replace("-", "")) for event_id in sorted(point.given))
        return self._signed(_unordered(query), content)

    def resume_point(self, query: Query, token: str) -> ResumePoint:
        """Where the stream of a token goes on. Raises InvalidCursor for one that was not made for this query."""
        content = self._content(_unordered(query), token)
        if content is None or not content.startswith(_RESUME):
            raise InvalidCursor(RESUME_REFUSED)
        packed = zlib.decompressobj()
        position = packed.decompress(content[len(_RESUME) :]).decode()
        ids = packed.unused_data.hex()
        given = (ids[first : first + 32] for first in range(0, len(ids), 32))
        return ResumePoint(position, frozenset(str(UUID(one)) for one in given))

    def _signed(self, query: Query, content: bytes) -> str:
        body = base64.urlsafe_b64encode(content).decode().rstrip("=")
        return f"{body}.{_signature(self._keys[0], query, body)}"

    def _content(self, query: Query, text: str) -> bytes | None:
        """What was signed for a query; None where the text is nothing that was."""
        body, _, signature = text.partition(".")
        given = signature.encode(errors="replace")
        # The texts are compared, not what they decode to: of a base64 text, some bits do not count.
        if not any(hmac.compare_digest(_signature(key, query, body).encode(), given) for key in self._keys):
            return None
        return base64.urlsafe_b64decode(body + "=" * (-len(body) % 4))


@lru_cache(maxsize=4096)
def _packed(position: str) -> bytes:
    return zlib.compress(position.encode())


def _unordered(query: Query) -> Query:
    return query if query.sort == SORTS[0] else replace(query, sort=SORTS[0])


def _signature(key: bytes, query: Query, body: str) -> str:
    digest = hmac.digest(key, query.digest() + body.encode(errors="replace"), "sha256")
    return base64.urlsafe_b64encode(digest).decode().rstrip("=")
