"""Entries that could not be recorded, counted where that needs no room, and told by an entry once there is some.

The counts lie in a small file beside the spool, whose room is taken beforehand. It has two halves, written in turn,
each with a checksum: whatever a power loss cuts, the other half is whole. Where not even that can be written, the
process counts in memory.

What is to be told is sealed first: from then on its entries have the same ids and the same content, however often they
are made, so that a crash between telling and forgetting makes no doubles.
"""

from __future__ import annotations

import errno
import logging
import os
import struct
import zlib
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import orjson

from .actions import catalogue
from .event import AuditEvent, canonical_json, format_timestamp, now_ms, uuid7
from .files import Locked, linked_file, locked, sync_folder
from .forking import ForkLock, prepare_for_forks

__all__ = ["REASONS", "Gaps", "Told", "gap_entry"]

HALF = 4096
"""Bytes of each half: a disk writes so many, or a part of them, at once."""
LOCK_S = 1.0
"""How long the lock is waited for that processes share, in seconds; then the counts stay in memory for now."""
OTHERS = ""
"""Stands for the organisations for which the file has no room left; their gap is told to `default`."""

_HEADER = struct.Struct(">8sQII")  # magic, number of this writing, length and checksum of what follows
_MAGIC = b"audgaps1"
_ROOM = (HALF - _HEADER.size) * 3 // 4  # for names; the rest is for counts that grow
_REASONS = {
    "limit": "the spool had reached its limit (AUDIT_SPOOL_LIMIT)",
    "age": "the oldest entry in the spool had waited for too long (AUDIT_SPOOL_AGE)",
    "disk": "the disk was full",
    "read-only": "the spool could not be written",
    "unusable": "the spool could not be used",
}
REASONS = tuple(_REASONS)
"""Why entries may be missing: the words of SpoolError."""

_log = logging.getLogger("audit_pipeline.gaps")


@dataclass(slots=True)
class _Count:
    """How many entries of an organisation are missing."""

    count: int
    first: int
    """When the first of them was made: milliseconds since the epoch, UTC."""
    last: int
    reasons: int
    """A bit for each word of `REASONS`."""

    def add(self, other: _Count) -> None:
        """Take another count in."""
        self.first, self.last = min(self.first, other.first), max(self.last, other.last)
        self.count += other.count
        self.reasons |= other.reasons

    def words(self) -> list[str]:
        """Why they are missing."""
        return [word for bit, word in enumerate(REASONS) if self.reasons >> bit & 1]


@dataclass(slots=True)
class _Book:
    """What is counted, and what of it is being told."""

    name: str = field(default_factory=lambda: os.urandom(8).hex())
    """A name that no other book has."""
    generation: int = 1
    """How often counts were sealed."""
    open: dict[str, _Count] = field(default_factory=dict)
    sealed: dict[str, _Count] = field(default_factory=dict)

    def note(self, org: str, count: _Count) -> None:
        """Count. An organisation that finds no room is one of the others."""
        if org not in self.open and len(self.encoded()) + len(orjson.dumps(org)) > _ROOM:
            org = OTHERS
        known = self.open.setdefault(org, _Count(0, count.first, count.last, 0))
        known.add(count)

    def seal(self) -> None:
        """Begin to tell what was counted, unless something is being told."""
        if self.open and not self.sealed:
            self.sealed, self.open = self.open, {}
            self.generation += 1

    def settle(self, generation: int) -> None:
        """Forget what was told in this generation."""
        if self.generation == generation:
            self.sealed = {}

    def total(self) -> int:
        """How many entries are counted, told or not."""
        return sum(one.count for some in (self.open, self.sealed) for one in some.values())

    def encoded(self) -> bytes:
        """The book as bytes."""
        counts = [
            {org: [one.count, one.first, one.last, one.reasons] for org, one in some.items()}
            for some in (self.open, self.sealed)
        ]
        return orjson.dumps([self.name, self.generation, *counts])


@dataclass(frozen=True, slots=True)
class Told:
    """Gaps as entries: to be appended, and then settled."""

    events: Sequence[AuditEvent]
    generations: tuple[int, int]
    """Of the file's book, and of that in memory."""


class Gaps:
    """The counts beside one spool, which a machine's processes share. Serves all threads. Raises nothing."""

    def __init__(self, spool: Path) -> None:
        spool = linked_file(spool)
        self._path = spool.with_name(spool.name + ".gaps")
        self._spool = spool.name
        self._lock = ForkLock()
        self._busy = self._failing = False
        self._memory = _Book()
        self._coming: list[tuple[str, _Count]] = []
        self._unsaid: deque[Exception] = deque()
        prepare_for_forks(self)

    def reserve(self) -> None:
        """Take the room on the disk. Where there is none, it is tried again with the first count."""
        self._change(lambda book: None)

    def count(self, events: Sequence[AuditEvent], reason: str) -> None:
        """Count entries that could not be recorded, and why: a word of SpoolError."""
        bit = 1 << REASONS.index(reason)
        # A signal handler may count in the middle of its thread's own count: this is all that it then does.
        self._coming += [(event.org, _Count(1, event.received, event.received, bit)) for event in events]
        while self._coming and self._change(lambda book: None) is not None:
            pass

    def missing(self) -> int:
        """How many entries are counted, and not told yet."""
        with self._lock.lock:
            book = self._read()
            coming = sum(one.count for _, one in self._coming)
            return coming + self._memory.total() + (book.total() if book else 0)

    def in_memory(self) -> int:
        """How many of them are lost with this process: those that could not be written."""
        with self._lock.lock:
            return sum(one.count for _, one in self._coming) + self._memory.total()

    def told(self) -> Told | None:
        """The entries that tell what was counted: the same ones until `settle` is called. None where nothing was."""
        with self._lock.lock:
            if not self.missing():
                return None
            book = self._change(_Book.seal)
            if book is None:
                self._memory.seal()
            books = [one for one in (book, self._memory) if one is not None]
            events = [event for one in books for event in _entries(one, self._spool)]
            told = Told(events, (book.generation if book else 0, self._memory.generation))
        self._say()
        return told

    def settle(self, told: Told) -> None:
        """Say that these entries are in the spool, on disk."""
        with self._lock.lock:
            in_file, in_memory = told.generations
            self._memory.settle(in_memory)
            if in_file:
                self._change(lambda book: book.settle(in_file))
        self._say()

    def before_fork(self) -> None:
        """Finish what is under way."""
        self._lock.before_fork()

    def after_fork_in_parent(self) -> None:
        """Go on."""
        self._lock.after_fork_in_parent()

    def after_fork_in_child(self) -> None:
        """Go on with counts of its own."""
        self._busy = False
        self._memory, self._coming = _Book(), []  # the parent writes what it has counted
        self._lock.after_fork_in_child()

    # The file

    def _change(self, change: Callable[[_Book], None]) -> _Book | None:
        """Bring what is counted in memory into the file's book, and change that; None where it cannot be written."""
        try:
            return self._changed_alone(change)
        finally:
            self._say()

    def _changed_alone(self, change: Callable[[_Book], None]) -> _Book | None:
        with self._lock.lock:
            if self._busy:
                return None  # in a signal handler, in the middle of a change
            self._busy = True
            try:
                self._take_in()
                book = self._changed(change)
                self._failing = False
            except (OSError, Locked) as error:
                if not self._failing:
                    self._unsaid.append(error)
                self._failing = True
                return None
            finally:
                self._busy = False
            return book

    def _take_in(self) -> None:
        """Add what is coming to what is counted in memory. A signal handler that raises leaves it counted once."""
        coming = self._coming[:]  # other threads, and handlers, add to its end
        number = len(coming)
        counted = _Book(open={org: replace(one) for org, one in self._memory.open.items()})
        for org, one in coming:
            counted.note(org, one)
        # Python runs no handler between these two: nothing is called there.
        self._memory.open = counted.open
        del self._coming[:number]

    def _say(self) -> None:
        """Log what there is to say. Not while the lock is held: a handler that records could wait for it."""
        # Held by this thread: in a signal handler, or in `told` and `settle`.
        if self._unsaid and not self._lock.is_owned:
            with suppress(IndexError):  # another thread says the last of it
                while True:
                    _log.error("%s: cannot be written (%s); entries that are missing are counted in memory",
                               self._path, self._unsaid.popleft())  # fmt: skip

    def _changed(self, change: Callable[[_Book], None]) -> _Book:
        with locked(self._path, LOCK_S):
            file = os.open(self._path, os.O_RDWR | os.O_CLOEXEC)
            try:
                book, number = _newest(os.pread(file, 2 * HALF, 0))
                before = book.encoded() if number else b""
                for org, one in self._memory.open.items():
                    book.note(org, one)
                change(book)
                written = book.encoded()
                try:
                    if written != before:
                        _write(file, number + 1, written)
                    self._memory.open = {}
                except OSError:
                    raise
                except BaseException:
                    # A signal handler raised: before it was written, or after that.
                    if _newest(os.pread(file, 2 * HALF, 0))[0].encoded() == written:
                        self._memory.open = {}
                    raise
                if not number:
                    sync_folder(self._path.parent)
                return book
            finally:
                os.close(file)

    def _read(self) -> _Book | None:
        try:
            return _newest(self._path.read_bytes())[0]
        except OSError:
            return None


def _newest(content: bytes) -> tuple[_Book, int]:
    """The newer of the books that are whole, and the number of its writing; a new one, and 0, where there is none."""
    found: list[tuple[int, _Book]] = []
    for start in (0, HALF):
        half = content[start : start + HALF]
        with suppress(struct.error, ValueError, TypeError):
            magic, number, length, checksum = _HEADER.unpack_from(half)
            written = half[_HEADER.size : _HEADER.size + length]
            if magic == _MAGIC and len(written) == length and zlib.crc32(written) == checksum:
                name, generation, *both = orjson.loads(written)
                counts = [{org: _Count(*one) for org, one in some.items()} for some in both]
                found.append((number, _Book(name, generation, *counts)))
    number, book = max(found, key=lambda pair: pair[0], default=(0, _Book()))
    return book, number


def _write(file: int, number: int, written: bytes) -> None:
    """Write a book into the half that the newest one is not in, and sync it. Raises OSError: then the newest stays."""
    if len(written) > HALF - _HEADER.size:
        raise OSError(errno.EFBIG, "the counts take more than their room")
    if os.fstat(file).st_size < 2 * HALF:
        os.pwrite(file, bytes(2 * HALF), 0)
    half = _HEADER.pack(_MAGIC, number, len(written), zlib.crc32(written)) + written
    place = number % 2 * HALF
    try:
        os.pwrite(file, half.ljust(HALF, b"\0"), place)
        os.fsync(file)
    except OSError:
        # What the disk did not confirm must not be read again: it would be counted twice.
        with suppress(OSError):
            os.pwrite(file, bytes(HALF), place)
        raise


# Entries


def gap_entry(
    event_id: str, org: str, spool: str, detail: str, timestamp: int, context: Mapping[str, Any]
) -> AuditEvent:
    """The entry that tells of a gap in what went through a spool."""
    action = catalogue["audit.gap"]
    return AuditEvent(
        id=event_id,
        timestamp=timestamp,
        action=action.id,
        category=action.category,
        label=action.label,
        tone=action.tone,
        outcome=action.outcome,
        org=org,
        target=spool,
        detail=detail,
        user="",
        ip=None,
        context=context,
        problems=(),
        received=now_ms(),
    )


def _entries(book: _Book, spool: str) -> Iterator[AuditEvent]:
    for org, one in sorted(book.sealed.items()):
        digest = sha256(canonical_json([book.name, book.generation, org])).digest()
        first, last = format_timestamp(one.first), format_timestamp(one.last)
        number = "1 entry" if one.count == 1 else f"{one.count:,} entries"
        why = "; ".join(_REASONS[word] for word in one.words())
        whose = " of other organisations" if org == OTHERS else ""
        yield gap_entry(
            uuid7(one.last, int.from_bytes(digest[:10], "big") & (1 << 74) - 1),
            org if org != OTHERS else "default",
            spool,
            f"{number}{whose} could not be recorded, from {first} to {last}: {why}",
            one.last,
            {"count": one.count, "from": first, "to": last, "reason": ",".join(one.words())},
        )
