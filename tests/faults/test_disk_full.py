"""A disk that is full, or read-only: nothing accepted is lost, what is refused is told or counted, and it goes on."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from .conftest import Start
from .life import SPOOL
from .operator import operator
from .place import Place, Until, emit, ended
from .tally import Said, of

NO_LIMIT = ("AUDIT_SPOOL_LIMIT", str(2**30))
"""The disk is to be full first, however slowly entries are shipped."""


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 24 MiB for the spool."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount("-t", "tmpfs", "-o", "size=24m", "tmpfs", str(folder))
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def mount(*arguments: str) -> None:
    done = subprocess.run(["mount", *arguments], capture_output=True, text=True)
    if done.returncode:
        pytest.fail(f"mount: {done.stderr.strip()}; run this as root, or with `unshare -rm` before it", pytrace=False)


def fill(disk: Path) -> Path:
    """Take all the room there is."""
    filler = disk / "filler"
    with suppress(OSError), filler.open("ab", buffering=0) as file:
        while True:
            file.write(bytes(2**12))
    return filler


def accepted(*files: Path) -> int:
    return len(Said.by(*files).accepted)


@pytest.mark.parametrize("on_full", ["fail_closed", "fail_open"])
def test_a_full_disk(tmp_path: Path, disk: Path, start: Start, until: Until, on_full: str) -> None:
    """While the disk is full calls are refused, or counted in room that was taken before; with room again all goes on.

    Without the lock that processes share in `_changed` (gaps), seen to tell of fewer than were counted.
    """
    place = Place(tmp_path, (("AUDIT_ON_FULL", on_full), ("AUDIT_SPOOL", str(disk / SPOOL)), NO_LIMIT))
    # The store is down at first: what is shipped makes room, and the disk might never be full for the spool.
    shipper = start("-m", "audit_pipeline", "ship", env=place.environment)
    emitters = [emit(start, place, name, "--pause", 0.002) for name in range(3)]
    times = of(3, 1)
    with operator(place.environment) as sees:
        until(lambda: accepted(*place.said()) > 100, 60)
        for _ in range(times):
            filler = fill(disk)
            refused = len(Said.by(*place.said()).begun)
            if on_full == "fail_open":
                sees.sees("disk-full", "the disk is full", "Free some room", "gap-open")
                before = sees.missing()
                until(lambda least=before: sees.missing() > least, 30)
            else:
                sees.sees("disk-full", "the disk is full", "Free some room")
                until(lambda least=refused: len(Said.by(*place.said()).begun) > least + 5, 30)
            filler.unlink()
            sees.await_troubles("disk-full", "gap-open", gone=True)
            done = accepted(*place.said())
            until(lambda least=done: accepted(*place.said()) > least + 50, 60)
        for emitter in emitters:
            emitter.terminate()
            emitter.wait()
        assert shipper.poll() is None
        place.store_up()
        place.finish()
        sees.await_troubles("disk-full", "gap-open", gone=True)
    ended(place, f"full disk, {on_full}", times, "disk" if on_full == "fail_open" else None)


def test_a_disk_that_others_filled_while_entries_are_kept(
    tmp_path: Path, disk: Path, start: Start, until: Until
) -> None:
    """Where not even the deletion of shipped entries can be written, that is told as long as calls are refused.

    Seen to tell `disk-low` alone, while every call was refused, where `refusal` (room) trusts in shipped entries.
    """
    place = Place(tmp_path, (("AUDIT_SPOOL", str(disk / SPOOL)), NO_LIMIT))
    place.store_up()
    shipper = start("-m", "audit_pipeline", "ship", env=place.environment)
    assert emit(start, place, "before", "--events", 300).wait(60) == 0
    place.finish()
    during = tmp_path / "said-during"
    with operator(place.environment) as sees:  # open before: with fail_closed, a pipeline does not open on a full disk
        filler = fill(disk)
        emitter = emit(start, place, "during", "--pause", 0.005)
        until(lambda: len(Said.by(during).begun) > 20, 60)
        sees.sees("disk-full", "the disk is full", "Free some room")
        refused = len(Said.by(during).begun)
        until(lambda: len(Said.by(during).begun) > refused + 20, 60)
        filler.unlink()
        until(lambda: accepted(during) > 50, 60)
        sees.await_troubles("disk-full", gone=True)
    emitter.terminate()
    emitter.wait()
    assert shipper.poll() is None
    place.finish()
    ended(place, "full disk, shipped entries kept", 1, None)


def test_a_file_system_becomes_read_only(tmp_path: Path, disk: Path, start: Start, until: Until) -> None:
    """What was accepted stays on a disk that is read-only; calls are counted by whoever makes them, and told later.

    Seen to lose 186 of 250 where counts that cannot be written are not kept in memory (`_change`, gaps).
    """
    place = Place(tmp_path, (("AUDIT_ON_FULL", "fail_open"), ("AUDIT_SPOOL", str(disk / SPOOL)), NO_LIMIT))
    times = of(5, 1)
    for number in range(times):
        before, during = (tmp_path / f"said-{when}-{number}" for when in ("before", "during"))
        emitter = emit(start, place, f"before-{number}", "--pause", 0.005)
        until(lambda file=before: accepted(file) > 30, 60)
        emitter.kill()  # a file that is open for writing keeps a disk from becoming read-only
        emitter.wait()
        mount("-o", "remount,ro", str(disk))
        emitter = emit(start, place, f"during-{number}", "--pause", 0.005)
        until(lambda file=during: accepted(file) > 20, 60)
        with operator(place.environment, on_full="fail_open") as sees:
            sees.sees("spool-read-only", "cannot be", "Mount its disk for writing")
        mount("-o", "remount,rw", str(disk))
        done = accepted(during)
        until(lambda file=during, least=done: accepted(file) > least + 30, 60)
        emitter.terminate()
        emitter.wait()
    place.store_up()
    place.finish()
    with operator(place.environment) as sees:
        sees.await_troubles("spool-read-only", "gap-open", gone=True)
    ended(place, "file system read-only for a while, fail_open", times, "read-only")
