"""Reads rows out of the pages of a SQLite file that SQLite itself can no longer open, or not to its end.

Each page is looked at by itself, with no need of the tree that leads to it, so that a row is lost only where its own
page is. The format: https://sqlite.org/fileformat2.html. Knows no tables, and writes nothing.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

__all__ = ["Pages", "Row"]

PAGE = 4096
"""The size of pages where neither the file nor its log says."""
TRIES = 4
"""How often the disk is asked for a page that it does not give back."""
LONGEST = 8 * 2**20
"""Bytes that a row may have; what says that it has more is damaged."""
_LEAF = 13
_HEADER = 100
_LOG_HEADER, _FRAME_HEADER = 32, 24
_LOG_MAGIC = (0x377F0682, 0x377F0683)
_INTEGERS = (0, 1, 2, 3, 4, 6, 8)
_MASK = 0xFFFF_FFFF

Value = None | int | float | str | bytes


class Row(NamedTuple):
    """A row of some table."""

    number: int
    values: tuple[Value, ...]


class Pages:
    """The pages of a file as its last commit left them: from its write-ahead log, else from itself.

    Raises OSError where there is no such file. A page that cannot be read is passed over.
    """

    def __init__(self, path: Path) -> None:
        self._size = PAGE
        # The log first: what is moved from it into the file meanwhile is found in one of the two.
        self._logged = self._read_log(path.with_name(path.name + "-wal"))
        self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        if not self._logged:
            self._size = _page_size(self._read(self._file, 0, _HEADER) or b"")
        in_file = os.fstat(self._file).st_size // self._size
        self.numbers = range(1, max([in_file, *self._logged]) + 1)
        """The pages that there are."""

    def close(self) -> None:
        """Let go of the file."""
        os.close(self._file)

    def rows(self, at_most: int = 2**16) -> Iterator[Row]:
        """The rows of all tables that can be read, page by page: of the pages that have `at_most` so many."""
        for number in self.numbers:
            page = self.page(number)
            if page is not None:
                yield from self._rows(page, _HEADER if number == 1 else 0, at_most)

    def page(self, number: int) -> bytes | None:
        """The content of a page; None where it cannot be read."""
        logged = self._logged.get(number)
        return logged if logged is not None else self._read(self._file, (number - 1) * self._size, self._size)

    def _read(self, file: int, offset: int, size: int) -> bytes | None:
        for _ in range(TRIES):
            with suppress(OSError):  # a sector that the disk does not give back, or not this time
                content = os.pread(file, size, offset)
                return content if len(content) == size else None
        return None

    # The write-ahead log: what was committed, by the chain of its checksums, and no more

    def _read_log(self, path: Path) -> dict[int, bytes]:
        try:
            file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return {}
        try:
            return self._committed(file)
        finally:
            os.close(file)

    def _committed(self, file: int) -> dict[int, bytes]:
        header = self._read(file, 0, _LOG_HEADER)
        if header is None:
            return {}
        magic, _, size, _, *salts = struct.unpack(">6I", header[:24])
        if magic not in _LOG_MAGIC or not _is_page_size(size):
            return {}
        order = ">" if magic & 1 else "<"
        sums = _checksum(header[:24], order, (0, 0))
        if sums != struct.unpack(">2I", header[24:]):
            return {}
        self._size = size
        committed: dict[int, bytes] = {}
        transaction: dict[int, bytes] = {}
        offset = _LOG_HEADER
        while (frame := self._read(file, offset, _FRAME_HEADER + size)) is not None:
            number, pages, *rest = struct.unpack(">6I", frame[:_FRAME_HEADER])
            sums = _checksum(frame[:8] + frame[_FRAME_HEADER:], order, sums)
            if rest[:2] != salts or tuple(rest[2:]) != sums:
                break
            transaction[number] = frame[_FRAME_HEADER:]
            if pages:
                committed |= transaction
                transaction.clear()
            offset += _FRAME_HEADER + size
        return committed

    # Rows

    def _rows(self, page: bytes, start: int, at_most: int) -> Iterator[Row]:
        count = int.from_bytes(page[start + 3 : start + 5], "big")
        if page[start] != _LEAF or count > at_most:
            return
        for pointer in range(start + 8, min(start + 8 + 2 * count, len(page) - 1), 2):
            place = int.from_bytes(page[pointer : pointer + 2], "big")
            try:
                length, place = _varint(page, place)
                number, place = _varint(page, place)
                if 0 < number < 1 << 63 and 0 < length <= LONGEST:
                    yield Row(number, _values(self._payload(page, place, length)))
            except (IndexError, OverflowError, ValueError, struct.error):
                continue

    def _payload(self, page: bytes, place: int, length: int) -> bytes:
        """The bytes of a row, with those that did not fit on its page. Raises ValueError where some are missing."""
        usable = self._size
        most, least = usable - 35, (usable - 12) * 32 // 255 - 23
        local = length
        if length > most:
            local = least + (length - least) % (usable - 4)
            local = local if local <= most else least
        content = page[place : place + local]
        if len(content) < local:
            raise ValueError("it goes beyond its page")
        parts = [content]
        left = length - local
        following = int.from_bytes(page[place + local : place + local + 4], "big") if left else 0
        while left > 0:
            overflow = self.page(following) if following in self.numbers else None
            if overflow is None:
                raise ValueError("a page of it cannot be read")
            parts.append(overflow[4 : 4 + left])
            left -= usable - 4
            following = int.from_bytes(overflow[:4], "big")
        return b"".join(parts)


def _values(payload: bytes) -> tuple[Value, ...]:
    """The columns of a row. Raises IndexError, OverflowError, ValueError and struct.error where it is none."""
    end, place = _varint(payload, 0)
    kinds = []
    while place < end:
        kind, place = _varint(payload, place)
        kinds.append(kind)
    values: list[Value] = []
    place = end
    for kind in kinds:
        if kind == 0:
            values.append(None)
        elif kind <= 6:
            values.append(int.from_bytes(payload[place : place + _INTEGERS[kind]], "big", signed=True))
            place += _INTEGERS[kind]
        elif kind == 7:
            values.append(struct.unpack_from(">d", payload, place)[0])
            place += 8
        elif kind in (8, 9):
            values.append(kind - 8)
        elif kind >= 12:
            size = (kind - 12) // 2
            part = payload[place : place + size]
            values.append(part.decode() if kind % 2 else part)
            place += size
        else:
            raise ValueError("no kind of value")
    if place != len(payload):
        raise ValueError("the columns do not fill the row")
    return tuple(values)


def _varint(content: bytes, place: int) -> tuple[int, int]:
    """A number of 1 to 9 bytes, and the place after it."""
    value = 0
    for step in range(8):
        byte = content[place + step]
        value = value << 7 | byte & 0x7F
        if byte < 0x80:
            return value, place + step + 1
    return value << 8 | content[place + 8], place + 9


def _checksum(content: bytes, order: str, sums: tuple[int, int]) -> tuple[int, int]:
    """The checksum of a write-ahead log, continued."""
    first, second = sums
    for one, two in struct.iter_unpack(f"{order}2I", content):
        first = first + one + second & _MASK
        second = second + two + first & _MASK
    return first, second


def _page_size(header: bytes) -> int:
    size = int.from_bytes(header[16:18], "big")
    size = 65_536 if size == 1 else size
    return size if _is_page_size(size) else PAGE


def _is_page_size(size: int) -> bool:
    return 512 <= size <= 65_536 and size & size - 1 == 0
