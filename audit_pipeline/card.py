"""A small file beside the spool that says what is known of it, should its own file be damaged.

Its lock is held by who opens or repairs the spool. It is a help in need, and no condition: where it cannot be written,
nothing else suffers.
"""

from __future__ import annotations

import os
import struct
import zlib
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import orjson

__all__ = ["Card", "Known"]

_ACCEPTED_AT = 8192
_ACCEPTED = struct.Struct(">QI")  # a sequence, and a checksum of it and the origin


@dataclass(frozen=True, slots=True)
class Known:
    """What a card says."""

    store: str
    origin: str
    accepted: int
    """A sequence that the spool has given, perhaps not the last one."""


class Card:
    """The card of the spool at a path."""

    def __init__(self, spool: Path) -> None:
        self.path = spool.with_name(spool.name + ".card")

    def read(self) -> Known | None:
        """What it says; None where it says nothing that can be read."""
        try:
            written = self.path.read_bytes()
            said = orjson.loads(written[:_ACCEPTED_AT].rstrip(b"\0"))
            store, origin = str(said["store"]), str(said["origin"])
        except (OSError, ValueError, KeyError, TypeError):
            return None
        accepted = 0
        with suppress(struct.error):
            number, checksum = _ACCEPTED.unpack_from(written, _ACCEPTED_AT)
            accepted = number if checksum == _checksum(number, origin) else 0
        return Known(store, origin, accepted)

    def write(self, store: str, origin: str) -> None:
        """Say which store the spool serves, and what it calls itself. In place: a lock is held on this very file."""
        said = orjson.dumps({"store": store, "origin": origin}).ljust(_ACCEPTED_AT, b"\0")
        self._write(said, 0, sync=True)

    def note(self, accepted: int, origin: str) -> None:
        """Say that the spool has given this sequence."""
        self._write(_ACCEPTED.pack(accepted, _checksum(accepted, origin)), _ACCEPTED_AT, sync=False)

    def _write(self, content: bytes, place: int, sync: bool) -> None:
        with suppress(OSError):
            file = os.open(self.path, os.O_WRONLY | os.O_CLOEXEC)
            try:
                os.pwrite(file, content, place)
                if sync:
                    os.fsync(file)
            finally:
                os.close(file)


def _checksum(accepted: int, origin: str) -> int:
    return zlib.crc32(f"{accepted} {origin}".encode())
