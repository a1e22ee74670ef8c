"""Power loss, as far as software can tell: what was written, synced and renamed is recorded, and disks made of it.

`Recorder` stands between this process and the files of one folder: a VFS around SQLite's own sees what SQLite does, and
the functions of `os` what the rest does. `Disk` plays the record up to a moment, and says what may be on the disk if
the power goes then: of each file what was synced, and of what was written since nothing, all, a part in any order, or a
write that was cut. Names are like that too, but in order: a journalling file system keeps that of one folder.
"""

from __future__ import annotations

import errno
import os
import random
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import apsw

from audit_pipeline.event import AuditEvent

from .tally import Row, Said, check

__all__ = ["HOWS", "Disk", "Recorder", "Sum", "put"]

HOWS = ("nothing", "all", "names", "some", "torn")
"""What of the unsynced is there after a cut: nothing, all, the names alone, any part of it in any order, or what came
first and a piece of the next write."""
SECTOR = 512
OWN_SYNC = apsw.SQLITE_OPEN_MAIN_JOURNAL | apsw.SQLITE_OPEN_WAL
"""SQLite syncs the folder too when it first syncs one of these."""


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


class Recorder:
    """Records what this process does to the files of a folder while the block runs."""

    def __init__(self, folder: Path) -> None:
        self.ops: list[Op] = []
        self.begun: list[tuple[int, AuditEvent]] = []
        """Entries, each with the number of operations before its call."""
        self.accepted: list[tuple[int, AuditEvent]] = []
        """Those whose call returned, with the number of operations before that."""
        self.fails: Callable[[], bool] = lambda: False
        """Whether the next sync fails."""
        self._folder = os.path.realpath(folder)
        self._names: dict[str, int] = {}
        self._files = 0
        self._descriptors: dict[int, int | None] = {}
        self._real: dict[str, Any] = {}
        self._vfs: _VFS | None = None

    def append(self, events: list[AuditEvent], append: Callable[[list[AuditEvent]], object]) -> None:
        """Have entries appended, and note when that began, and when it returned."""
        self.begun += [(len(self.ops), event) for event in events]
        append(events)
        self.accepted += [(len(self.ops), event) for event in events]

    def opened(self, path: Any, is_new: bool) -> int | None:
        """The file at a path that was just opened; None where that is elsewhere."""
        folder, name = os.path.split(os.path.realpath(path))
        if folder != self._folder:
            return None
        if is_new:
            self._files += 1
            self.named(name, self._files)
        return self._names[name]

    def named(self, path: Any, file: int | None, before: Any = "") -> None:
        """A name stands for another file, or for none."""
        name = os.path.basename(path)
        for gone in (name, os.path.basename(before)):
            self._names.pop(gone, None)
        if file is not None:
            self._names[name] = file
        self.ops.append(Name(name, file, os.path.basename(before)))

    def synced(self, file: int) -> bool:
        """A file is synced; say whether that succeeds."""
        failed = self.fails()
        self.ops.append(Sync(file, failed))
        return not failed

    def __enter__(self) -> Recorder:
        own = {"open": self._open, "close": self._close, "pwrite": self._pwrite, "fsync": self._fsync,
               "rename": self._rename, "replace": self._rename, "unlink": self._unlink}  # fmt: skip
        self._real = {name: getattr(os, name) for name in own}
        for name, function in own.items():
            setattr(os, name, function)
        self._vfs = _VFS(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for name, real in self._real.items():
            setattr(os, name, real)
        apsw.set_default_vfs("unix")
        assert self._vfs is not None
        self._vfs.unregister()

    # In place of the functions of `os`

    def _open(self, path: Any, flags: int, *more: Any, **named: Any) -> int:
        is_new = not os.path.lexists(path)
        opened: int = self._real["open"](path, flags, *more, **named)
        if os.path.realpath(path) == self._folder:
            self._descriptors[opened] = None
        elif (file := self.opened(path, is_new)) is not None:
            self._descriptors[opened] = file
        return opened

    def _close(self, opened: int) -> None:
        self._descriptors.pop(opened, None)
        self._real["close"](opened)

    def _pwrite(self, opened: int, content: bytes, place: int) -> int:
        if (file := self._descriptors.get(opened)) is not None:
            self.ops.append(Write(file, place, bytes(content)))
        written: int = self._real["pwrite"](opened, content, place)
        return written

    def _fsync(self, opened: int) -> None:
        if opened not in self._descriptors:
            return
        file = self._descriptors[opened]
        if file is None:
            self.ops.append(SyncNames())
        elif not self.synced(file):
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    def _rename(self, before: Any, after: Any) -> None:
        self._real["rename"](before, after)
        if os.path.dirname(os.path.realpath(after)) == self._folder:
            file = self._names.get(os.path.basename(before))
            if file is not None:  # else a -shm, which need not survive
                self.named(after, file, before)

    def _unlink(self, path: Any, **named: Any) -> None:
        self._real["unlink"](path, **named)
        if os.path.dirname(os.path.realpath(path)) == self._folder:
            self.named(path, None)


class _VFS(apsw.VFS):
    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        super().__init__("recorder", "unix", makedefault=True)

    def xOpen(self, name: Any, flags: list[int]) -> apsw.VFSFile:
        path = name.filename() if isinstance(name, apsw.URIFilename) else name
        is_new = path is not None and not os.path.lexists(path)
        opened = _File(name, flags)
        if path is not None and (file := self._recorder.opened(path, is_new)) is not None:
            opened.record(self._recorder, file, bool(flags[0] & OWN_SYNC and flags[0] & apsw.SQLITE_OPEN_CREATE))
        return opened

    def xDelete(self, name: str, sync: bool) -> None:
        super().xDelete(name, sync)
        self._recorder.named(name, None)
        if sync:
            self._recorder.ops.append(SyncNames())


class _File(apsw.VFSFile):
    def __init__(self, name: Any, flags: list[int]) -> None:
        super().__init__("unix", name, flags)
        self._recorder: Recorder | None = None

    def record(self, recorder: Recorder, file: int, syncs_names: bool) -> None:
        self._recorder, self._file, self._syncs_names = recorder, file, syncs_names

    def xWrite(self, content: Any, place: int) -> None:
        if self._recorder is not None:
            self._recorder.ops.append(Write(self._file, place, bytes(content)))
        super().xWrite(content, place)

    def xTruncate(self, size: int) -> None:
        if self._recorder is not None:
            self._recorder.ops.append(Truncate(self._file, size))
        super().xTruncate(size)

    def xSync(self, flags: int) -> None:
        if self._recorder is None:
            return
        if not self._recorder.synced(self._file):
            raise apsw.exception_for(apsw.SQLITE_IOERR_FSYNC)
        if self._syncs_names:
            self._recorder.ops.append(SyncNames())
            self._syncs_names = False


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
