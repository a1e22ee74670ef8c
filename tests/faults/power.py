"""Power loss, as far as software can tell: what was written, synced and renamed is recorded, and disks made of it.

`Disk` plays the record of a `Recorder` up to a moment, and says what may be on the disk if
the power goes then: of each file what was synced, and of what was written since nothing, all, a part in any order, or a
write that was cut. Names are like that too, but in order: a journalling file system keeps that of one folder.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from .tally import Row, Said, check

__all__ = ["HOWS", "Disk", "Name", "Op", "Sum", "Sync", "SyncNames", "Truncate", "Write", "put"]

HOWS = ("nothing", "all", "names", "some", "torn")
"""What of the unsynced is there after a cut: nothing, all, the names alone, any part of it in any order, or what came
first and a piece of the next write."""
SECTOR = 512


@dataclass(frozen=True, slots=True)
class Write:
    """Bytes written to a file, at a place."""

    file: int
    place: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Truncate:
    """A file was given a size."""

    file: int
    size: int


@dataclass(frozen=True, slots=True)
class Sync:
    """A file was synced. A sync that failed dropped what it was to write."""

    file: int
    failed: bool


@dataclass(frozen=True, slots=True)
class Name:
    """A name in the folder now stands for a file, or for none; another one that it had is gone with the same step."""

    name: str
    file: int | None
    before: str = ""


@dataclass(frozen=True, slots=True)
class SyncNames:
    """The folder was synced."""


Op = Write | Truncate | Sync | Name | SyncNames


# The disk


@dataclass(slots=True)
class _Content:
    synced: bytearray = field(default_factory=bytearray)
    since: list[Write | Truncate] = field(default_factory=list)


class Disk:
    """What may be on a disk after the first operations of a record."""

    def __init__(self) -> None:
        self._files: dict[int, _Content] = {}
        self._names: dict[str, int] = {}
        self._since: list[Name] = []

    def play(self, op: Op) -> None:
        """Go on by one operation."""
        match op:
            case Write() | Truncate():
                self._file(op.file).since.append(op)
            case Sync():
                content = self._file(op.file)
                for one in () if op.failed else content.since:
                    _apply(content.synced, one)
                content.since.clear()
            case Name():
                self._since.append(op)
            case SyncNames():
                self._names = self._named(len(self._since))
                self._since.clear()

    def after_cut(self, how: str, chosen: random.Random) -> dict[str, bytes]:
        """The files that are there when the power goes now, one of `HOWS`."""
        names = {"nothing": 0, "all": len(self._since), "names": len(self._since)}
        there = self._named(names.get(how, chosen.randint(0, len(self._since))))
        return {name: self._content(file, how, chosen) for name, file in there.items()}

    def _file(self, file: int) -> _Content:
        return self._files.setdefault(file, _Content())

    def _named(self, number: int) -> dict[str, int]:
        named = dict(self._names)
        for op in self._since[:number]:
            for gone in (op.name, op.before):
                named.pop(gone, None)
            if op.file is not None:
                named[op.name] = op.file
        return named

    def _content(self, file: int, how: str, chosen: random.Random) -> bytes:
        content = self._file(file)
        made = bytearray(content.synced)
        for one in _of(content.since, how, chosen):
            _apply(made, one)
        return bytes(made)


def _of(since: list[Write | Truncate], how: str, chosen: random.Random) -> Iterable[Write | Truncate]:
    if how == "all":
        return since
    if how == "some":
        part = chosen.choice((0.2, 0.5, 0.9))
        return [_torn(one, chosen) if chosen.random() < 0.1 else one for one in since if chosen.random() < part]
    if how == "torn" and since:
        place = chosen.randrange(len(since))
        return [*since[:place], _torn(since[place], chosen)]
    return ()


def _torn(one: Write | Truncate, chosen: random.Random) -> Write | Truncate:
    if isinstance(one, Truncate):
        return one
    size = chosen.randint(0, len(one.data))
    if chosen.random() < 0.5:
        size -= size % SECTOR
    if chosen.random() < 0.3:  # the end of it is there, the beginning is not
        return Write(one.file, one.place + size, one.data[size:])
    return Write(one.file, one.place, one.data[:size])


def _apply(content: bytearray, one: Write | Truncate) -> None:
    if isinstance(one, Truncate):
        size = one.size
        del content[size:]
        content.extend(bytes(size - len(content)))
    else:
        content.extend(bytes(max(0, one.place - len(content))))
        content[one.place : one.place + len(one.data)] = one.data


def put(files: dict[str, bytes], folder: Path) -> Path:
    """A folder with these files, and no others."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


class Sum:
    """What was said and stored in many tries, as one row of the table."""

    def __init__(self) -> None:
        self.tries = 0
        self._said = Said()
        self._stored: list[tuple[str, str]] = []

    def add(self, accepted: Iterable[str], begun: Iterable[str], stored: Iterable[str]) -> None:
        """Take in the ids of one try: `begun` of all calls, `accepted` of those that returned."""
        self.tries += 1
        self._said.accepted |= {f"{self.tries} {event_id}": event_id for event_id in accepted}
        self._said.begun |= {f"{self.tries} {event_id}" for event_id in begun} - self._said.accepted.keys()
        self._stored += [(f"{self.tries} {event_id}", f"{self.tries} {event_id}") for event_id in stored]

    def check(self, fault: str) -> Row:
        """Compare, and write the row."""
        return check(fault, self.tries, self._said, self._stored)
