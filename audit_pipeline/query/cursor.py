"""Where a page begins, or a live stream goes on, and the text that says so between two requests.

A cursor holds what its last shown entry was: its time, action and id, all of which the viewer saw. A stream's resume
token holds a store's position among the arrivals of all organisations: so it is encrypted, and as long whatever the
position is. Both are bound to their query: they serve one organisation, one set of filters and one order only.
"""

from __future__ import annotations

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
from .sealing import Encryption, Seal

__all__ = ["RESUME_REFUSED", "CursorSigner", "ResumePoint", "SortKey", "Window", "sort_key"]


RESUME_REFUSED = "this Last-Event-ID is damaged, or belongs to another query; connect again without it"
"""What is wrong with a resume token, and what to do."""

_RESUME = b"r"
"""How the content of a resume token begins. A cursor's is a JSON list: neither can be taken for the other."""
CURSOR_STEP, RESUME_STEP = 64, 256
"""Contents are filled up to multiples of so many bytes, so that the length of a text tells little of them."""
_ID = 16


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
    """Which rows of an ordered result: `size` of them after `offset` rows, or next to a key.

    A key is that of an entry of the result: that it is there tells a store that the page has a neighbour on its side.
    """

    size: int
    """Up to 5,000."""
    offset: int = 0
    """Rows before the window. Beside a key it is not used to find them, but to tell the page's number."""
    after: SortKey | None = None
    """Only rows that come after this one."""
    before: SortKey | None = None
    """Only rows that come before this one, the nearest ones."""

    def number(self, total: int) -> int:
        """The number of its page, where all have as many rows; of one that begins within such a page, the next."""
        number = -(-self.offset // self.size) + 1
        beside = self.after or self.before
        return min(number, max(-(-total // self.size), 1)) if beside else number


@dataclass(frozen=True, slots=True)
class ResumePoint:
    """Where a live stream goes on: after a position among a store's arrivals, but for what was given of these."""

    position: str
    given: frozenset[str] = frozenset()
    """Ids of entries that come after the position, and were given already."""


class CursorSigner:
    """Makes and reads cursors and resume tokens. The first key makes them, all are accepted: keys can be changed.

    What is made with the default `seal` can only be read with the keys.
    """

    def __init__(self, keys: Sequence[bytes], seal: type[Seal] = Encryption) -> None:
        self._seal = seal(keys)

    def sign(self, query: Query, window: Window) -> str:
        """The text of a window that has a key."""
        key = window.after or window.before
        assert key is not None
        content = json.dumps(["n" if window.after else "p", window.offset, *key], separators=(",", ":")).encode()
        return self._seal.text(query.digest(), content.ljust(_filled(len(content), CURSOR_STEP)))

    def window(self, query: Query, request: PageRequest) -> Window:
        """The window that a request asks for. Raises InvalidCursor for a cursor that was not made for this query."""
        if request.cursor is None:
            return Window(request.size, (request.page - 1) * request.size)
        content = self._seal.content(query.digest(), request.cursor)
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
        content = _packed(point.position)
        if point.given:
            ids = b"".join(bytes.fromhex(event_id.replace("-", "")) for event_id in sorted(point.given))
            content += ids.ljust(_filled(len(ids), RESUME_STEP), b"\0")
        return self._seal.text(_unordered(query).digest(), content)

    def resume_point(self, query: Query, token: str) -> ResumePoint:
        """Where the stream of a token goes on. Raises InvalidCursor for one that was not made for this query."""
        content = self._seal.content(_unordered(query).digest(), token)
        if content is None or not content.startswith(_RESUME):
            raise InvalidCursor(RESUME_REFUSED)
        packed = zlib.decompressobj()
        position = packed.decompress(content[len(_RESUME) :]).decode()
        ids = content[_filled(len(content) - len(packed.unused_data), RESUME_STEP) :]
        given = (ids[first : first + _ID] for first in range(0, len(ids), _ID))
        return ResumePoint(position, frozenset(str(UUID(bytes=one)) for one in given if any(one)))


def _filled(length: int, step: int) -> int:
    return -(-length // step) * step


@lru_cache(maxsize=4096)
def _packed(position: str) -> bytes:
    """A position, filled up by itself: of what comes after it, the listener knows how long it is."""
    content = _RESUME + zlib.compress(position.encode())
    return content.ljust(_filled(len(content), RESUME_STEP), b"\0")


def _unordered(query: Query) -> Query:
    return query if query.sort == SORTS[0] else replace(query, sort=SORTS[0])
