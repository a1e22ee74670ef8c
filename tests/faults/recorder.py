"""Records what this process writes, syncs and renames in a folder: SQLite by a VFS around its own, the rest by `os`."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

import apsw

from audit_pipeline.event import AuditEvent

from .power import Name, Op, Sync, SyncNames, Truncate, Write

__all__ = ["Recorder"]

OWN_SYNC = apsw.SQLITE_OPEN_MAIN_JOURNAL | apsw.SQLITE_OPEN_WAL
"""SQLite syncs the folder too when it first syncs one of these."""


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
