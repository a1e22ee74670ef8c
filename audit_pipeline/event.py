"""One audit entry: its fields, its id and its canonical bytes. Knows no catalogue, spool or store.

The canonical form is RFC 8785 (JSON Canonicalization Scheme): equal events have equal bytes, for ever.
"""

from __future__ import annotations

import os
import re
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, TypeGuard

import orjson
import rfc8785

from .forking import prepare_for_forks

__all__ = [
    "FUTURE_WINDOW_MS",
    "NO_ID",
    "PAST_WINDOW_MS",
    "REPLACED_TIMESTAMP",
    "AuditEvent",
    "IdFactory",
    "canonical_json",
    "exact_numbers",
    "format_timestamp",
    "id_time",
    "in_window",
    "is_id",
    "is_new_id",
    "now_ms",
    "uuid7",
]

PAST_WINDOW_MS = 3653 * 86_400_000
"""How far back a timestamp may lie: ten years (with their three leap days), in milliseconds."""

FUTURE_WINDOW_MS = 86_400_000
"""How far ahead a timestamp may lie: one day, in milliseconds."""

REPLACED_TIMESTAMP = "timestamp: replaced by the time of receipt"
"""How the problem of an entry begins whose own timestamp could not be used."""

NO_ID = "not a UUIDv7 in lower case with hyphens, of the last ten years; leave it out to have one made"
"""What whoever gives an id hears of one that is none."""

_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}\Z")
_EXACT_INTEGER = 2**53 - 1


def now_ms() -> int:
    """The current time, in milliseconds since 1970-01-01T00:00:00Z."""
    return time.time_ns() // 1_000_000


def in_window(timestamp: int, now: int) -> bool:
    """Whether a timestamp (ms) lies within [now − 10 years, now + 1 day]."""
    return now - PAST_WINDOW_MS <= timestamp <= now + FUTURE_WINDOW_MS


def format_timestamp(timestamp: int) -> str:
    """Milliseconds since the epoch as RFC 3339 in UTC: `2026-11-23T03:41:00.123Z`."""
    return f"{_second(timestamp // 1000)}.{timestamp % 1000:03d}Z"


@lru_cache(maxsize=4096)
def _second(seconds: int) -> str:
    # Not strftime: of a year before 1000, glibc leaves out the leading zeros.
    return datetime.fromtimestamp(seconds, UTC).isoformat()[:19]


def uuid7(timestamp: int, tail: int) -> str:
    """The UUIDv7 (RFC 9562, section 5.7) of a time in ms and 74 further bits."""
    value = (timestamp & (1 << 48) - 1) << 80 | 0x7 << 76
    value |= (tail >> 62 & 0xFFF) << 64 | 0b10 << 62 | tail & (1 << 62) - 1
    text = f"{value:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def is_id(text: object) -> TypeGuard[str]:
    """Whether this is a UUIDv7 in its usual form: lower-case, with hyphens."""
    return isinstance(text, str) and _ID.match(text) is not None


def id_time(event_id: str) -> int:
    """The time in an id, in milliseconds since the epoch."""
    return int(event_id[:8] + event_id[9:13], 16)


def is_new_id(text: object) -> bool:
    """Whether a new entry may have this id: its time must lie in the window, too."""
    return is_id(text) and in_window(id_time(text), now_ms())


class IdFactory:
    """Makes UUIDv7s that rise within one millisecond (RFC 9562, section 6.2, method 2). Safe to share by threads."""

    def __init__(self) -> None:
        self._lock = threading.RLock()  # a signal handler may record in the middle of a call
        self._time = -1
        self._tail = 0
        prepare_for_forks(self)

    def next(self, timestamp: int | None = None) -> tuple[int, str]:
        """A (timestamp, id) pair; without a timestamp (ms) the current time, read in the order of the ids."""
        if sys.is_finalizing():  # a daemon thread may be frozen with the lock, and nobody else runs any more
            return self._next(timestamp)
        with self._lock:
            return self._next(timestamp)

    def _next(self, timestamp: int | None) -> tuple[int, str]:
        moment = now_ms() if timestamp is None else timestamp
        if moment == self._time and self._tail < (1 << 74) - (1 << 32):
            self._tail += 1 + int.from_bytes(os.urandom(4), "big")
        else:
            # The top bit stays free, so that the additions above have room.
            self._tail = int.from_bytes(os.urandom(10), "big") & (1 << 73) - 1
        self._time = moment
        return moment, uuid7(moment, self._tail)

    def before_fork(self) -> None:
        """Nothing has to end."""

    def after_fork_in_parent(self) -> None:
        """Go on."""

    def after_fork_in_child(self) -> None:
        """Go on with other ids than the parent's."""
        self._lock = threading.RLock()
        self._time = -1


def canonical_json(value: Any) -> bytes:
    """The RFC 8785 form of a JSON value (text, integers within 2^53, floats, lists, mappings with text keys)."""
    # orjson sorts by code point and writes floats its own way: equal to RFC 8785 for neither floats nor rare keys.
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS) if _plain(value) else rfc8785.dumps(_as_doubles(value))


def _plain(value: object) -> bool:
    if type(value) is str:  # most are
        return True
    if isinstance(value, dict):
        return all(key.isascii() and _plain(item) for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return all(map(_plain, value))
    if isinstance(value, int):
        return -_EXACT_INTEGER <= value <= _EXACT_INTEGER
    return not isinstance(value, float)


def exact_numbers(value: Any) -> Any:
    """A JSON value that was read from RFC 8785 text, with its numbers of the types they had when it was written."""
    return value if _plain(value) else _as_doubles(value)


def _as_doubles(value: Any) -> Any:
    """The value, with a float where RFC 8785 writes one (1e17, say) without exponent, and it was read as an integer."""
    if isinstance(value, dict):
        return {key: _as_doubles(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_as_doubles(item) for item in value]
    if isinstance(value, int) and _EXACT_INTEGER < abs(value) < 10**21:
        double = float(value)
        return double if rfc8785.dumps(double) == str(value).encode() else value
    return value


@dataclass(frozen=True, slots=True)
class AuditEvent:
    """Who did what to what, when and from where. Made once, and never changed.

    Made by `normalize.build_event`, which keeps the limits; a store gives back what it was given.
    """

    id: str
    """UUIDv7."""
    timestamp: int
    """When it happened: milliseconds since the epoch, UTC."""
    action: str
    """The id of the catalogued action, such as `domain.created`."""
    category: str
    """The id of the action's category, such as `domains`."""
    label: str
    """What people read, such as `Domain created`."""
    tone: str
    """`green`, `yellow`, `red` or `accent`."""
    outcome: str
    """`success` or `failure`."""
    org: str
    """The organisation that owns the entry."""
    target: str
    detail: str
    user: str
    ip: str | None
    """The address, in full or (`AUDIT_IP_STORAGE=masked`) masked; never shown but masked."""
    context: Mapping[str, Any]
    """Whatever else the application said, as JSON values."""
    problems: tuple[str, ...]
    """What was wrong with the entry as given, one sentence each."""
    received: int
    """When this package got it: milliseconds since the epoch, UTC."""
    origin: str = ""
    """The spool it came through."""
    sequence: int = 0
    """Its place in that spool: 1, 2, 3 …; 0 before it has one."""

    def to_bytes(self) -> bytes:
        """The canonical bytes of everything but `origin` and `sequence`, which the spool adds."""
        body = {name: getattr(self, name) for name in _BODY}
        # All but the context is of one form: names of letters, text, and times.
        if _plain(self.context) and _plain(self.timestamp) and _plain(self.received):
            return orjson.dumps(body, option=orjson.OPT_SORT_KEYS)
        return canonical_json(body)

    @classmethod
    def from_bytes(cls, body: bytes, origin: str = "", sequence: int = 0) -> AuditEvent:
        """The event that `to_bytes` wrote. Keys that a newer version added are left out."""
        known = orjson.loads(body)
        if not isinstance(known, dict):
            raise ValueError("is no JSON object")
        if known.keys() != _NAMES:
            known = {name: known[name] for name in _BODY if name in known}
        known["problems"] = tuple(known["problems"])
        known["context"] = exact_numbers(known["context"])
        return cls(**known, origin=origin, sequence=sequence)


_BODY = tuple(field.name for field in fields(AuditEvent) if field.name not in ("origin", "sequence"))
_NAMES = frozenset(_BODY)
