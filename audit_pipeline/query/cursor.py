"""Where a page begins, and the signed text that says so between two requests.

A cursor holds what its last shown entry was: its time, action and id, all of which the viewer saw. The signature
covers the query too, so that a cursor serves one organisation, one set of filters and one order only.
"""

from __future__ import annotations

import base64
import hmac
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ..errors import InvalidCursor
from ..event import AuditEvent, is_id
from .filters import PageRequest, Query

__all__ = ["CursorSigner", "SortKey", "Window", "sort_key"]


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


class CursorSigner:
    """Makes and reads cursors. The first key signs; all of them are accepted, so that keys can be changed."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        self._keys = tuple(keys)

    def sign(self, query: Query, window: Window) -> str:
        """The text of a window that has a key."""
        key = window.after or window.before
        assert key is not None
        direction = "n" if window.after else "p"
        content = json.dumps([direction, window.offset, *key], separators=(",", ":")).encode()
        body = base64.urlsafe_b64encode(content).decode().rstrip("=")
        return f"{body}.{_signature(self._keys[0], query, body)}"

    def window(self, query: Query, request: PageRequest) -> Window:
        """The window that a request asks for. Raises InvalidCursor for a cursor that was not made for this query."""
        if request.cursor is None:
            return Window(request.size, (request.page - 1) * request.size)
        body, _, signature = request.cursor.partition(".")
        given = signature.encode(errors="replace")
        # The texts are compared, not what they decode to: of a base64 text, some bits do not count.
        if not any(hmac.compare_digest(_signature(key, query, body).encode(), given) for key in self._keys):
            raise InvalidCursor(
                "this cursor is damaged, or belongs to another query; ask again without it, from the first page"
            )
        direction, offset, timestamp, action, event_id = json.loads(
            base64.urlsafe_b64decode(body + "=" * (-len(body) % 4))
        )
        assert is_id(event_id)
        key = SortKey(timestamp, action, event_id)
        if direction == "n":
            return Window(request.size, offset, after=key)
        return Window(request.size, max(0, offset - request.size), before=key)


def _signature(key: bytes, query: Query, body: str) -> str:
    digest = hmac.digest(key, query.digest() + body.encode(errors="replace"), "sha256")
    return base64.urlsafe_b64encode(digest).decode().rstrip("=")
