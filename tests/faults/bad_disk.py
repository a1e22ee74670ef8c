"""The emitter on a disk that fails now and then: `python -m tests.faults.bad_disk SEED CHANCE`, then as the emitter.

Every way to the disk fails with this chance: SQLite's through a VFS around its own, the rest through the functions of
`os`. A write is refused (EIO, ENOSPC), or cut; a sync fails. Reads are right.
"""

from __future__ import annotations

import errno
import os
import random
import sys
from typing import Any

import apsw

from . import emitter

__all__ = ["fail"]


class _VFS(apsw.VFS):
    def __init__(self, chance: float, chosen: random.Random) -> None:
        self._chance, self._chosen = chance, chosen
        super().__init__("bad-disk", "unix", makedefault=True)

    def xOpen(self, name: Any, flags: list[int]) -> apsw.VFSFile:
        return _File(name, flags, self._chance, self._chosen)


class _File(apsw.VFSFile):
    def __init__(self, name: Any, flags: list[int], chance: float, chosen: random.Random) -> None:
        super().__init__("unix", name, flags)
        self._chance, self._chosen = chance, chosen

    def xWrite(self, content: Any, place: int) -> None:
        if self._chosen.random() < self._chance:
            super().xWrite(bytes(content)[: self._chosen.choice((0, 1, 512, len(content) // 2))], place)
            raise apsw.exception_for(self._chosen.choice((apsw.SQLITE_IOERR_WRITE, apsw.SQLITE_FULL)))
        super().xWrite(content, place)

    def xTruncate(self, size: int) -> None:
        if self._chosen.random() < self._chance:
            raise apsw.exception_for(apsw.SQLITE_IOERR_TRUNCATE)
        super().xTruncate(size)

    def xSync(self, flags: int) -> None:
        if self._chosen.random() < self._chance:
            raise apsw.exception_for(apsw.SQLITE_IOERR_FSYNC)
        super().xSync(flags)


def fail(chance: float, chosen: random.Random) -> apsw.VFS:
    """Let this process's disk fail from now on."""
    pwrite, fsync = os.pwrite, os.fsync

    def bad_pwrite(file: int, content: bytes, place: int) -> int:
        if chosen.random() < chance:
            pwrite(file, content[: len(content) // 2], place)
            number = chosen.choice((errno.EIO, errno.ENOSPC))
            raise OSError(number, os.strerror(number))
        return pwrite(file, content, place)

    def bad_fsync(file: int) -> None:
        if chosen.random() < chance:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        fsync(file)

    os.pwrite, os.fsync = bad_pwrite, bad_fsync  # type: ignore[assignment]
    return _VFS(chance, chosen)


if __name__ == "__main__":
    program, seed, how_often, *sys.argv[1:] = sys.argv
    kept = fail(float(how_often), random.Random(seed))
    sys.exit(emitter.main())
