"""A spool is damaged while processes emit and ship: what can be read of it is stored, the rest is told; it goes on."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest

from audit_pipeline.pages import Pages

from .conftest import ROOT, Start
from .life import SPOOL
from .operator import operator
from .place import Place, Until, counted, emit
from .tally import LONG, Said, check, stored_in

HARMS = ("noise", "zeros", "cut", "emptied", "header", "log") if LONG else ("noise",)
HEALED = ("header", "log")
"""Of these SQLite has another copy, or overwrites them before anybody reads them: there may be nothing to repair."""
PAGE = 4096


def leaves(path: Path) -> dict[int, set[int]]:
    """The sequences of the entries on each page of a spool that is not in its log, by the page's place in the file."""
    pages = Pages(path)
    found: dict[int, set[int]] = {}
    for number in pages.numbers:
        page = pages.page(number) if number not in pages._logged else None
        rows = list(pages._rows(page, 100 if number == 1 else 0, 2**16)) if page else []
        if rows and [type(value) for value in rows[0].values] == [type(None), int, bytes]:
            found[number - 1] = {row.number for row in rows}
    pages.close()
    return found


def damage(path: Path, harm: str, chosen: random.Random) -> int | None:
    """Harm a spool that others use; return how many entries that takes away, where it can be known beforehand."""
    known = leaves(path)
    last = max(max(found) for found in known.values())
    old = [place for place, found in sorted(known.items()) if max(found) < last - 100]
    size = path.stat().st_size
    if harm in ("noise", "zeros"):
        places = chosen.sample(old, 3)
        for place in places:
            overwrite(path, place * PAGE, chosen.randbytes(PAGE) if harm == "noise" else bytes(PAGE))
        return len(set().union(*(known[place] for place in places)))
    if harm == "header":
        overwrite(path, 0, bytes(100))
        return 0
    if harm == "log":
        log = path.with_name(f"{path.name}-wal")
        overwrite(log, log.stat().st_size // 2, chosen.randbytes(PAGE))
        return None
    truncate(path, size // 2 // PAGE * PAGE if harm == "cut" else 0)
    return None


def overwrite(path: Path, place: int, content: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(place)
        file.write(content)


def truncate(path: Path, size: int) -> None:
    with path.open("r+b") as file:
        file.truncate(size)


@pytest.mark.parametrize("harm", HARMS)
def test_a_damaged_spool(tmp_path: Path, start: Start, until: Until, harm: str) -> None:
    """It is set aside as it is; entries elsewhere than on damaged pages are stored, and the number of the others told.

    Seen to miss 192 in place of 18 where a repair does not read the log (pages).
    """
    tries = 1
    for number in range(tries):
        folder = tmp_path / str(number)
        folder.mkdir()
        one_try(Place(folder, (("AUDIT_SPOOL_LIMIT", str(2**30)),)), harm, start, until, random.Random(number))
    # Each try has its own place; the row has all of them. What is told as missing counts as stored.
    total, stored, uncounted = Said(), [], 0
    for number in range(tries):
        place = Place(tmp_path / str(number))
        said, there = Said.by(*place.said()), [pair for pair in stored_in(place.url) if pair[1] != "last"]
        lost = said.accepted.keys() - {event_id for event_id, _ in there}
        gaps = place.gaps()
        if harm == "emptied" and any("cannot be told" in gap.detail for gap in gaps):
            # The mark is lost too, and the store might have had them: it is told that some may miss, not how many.
            uncounted += len(lost)
        else:
            assert counted(gaps) == len(lost), f"{counted(gaps)} are told, {len(lost)} are missing"
            assert not lost or harm not in HEALED
        stored += [*there, *((event_id, said.accepted[event_id]) for event_id in lost)]
        total.accepted |= said.accepted
        total.begun |= said.begun
    without = f" ({uncounted} told as missing without their number)" if uncounted else ""
    check(f"spool damaged: {harm}{without}", tries, total, stored)


def one_try(place: Place, harm: str, start: Start, until: Until, chosen: random.Random) -> None:
    path = place.folder / "audit.spool.db"
    emitters = [emit(start, place, f"{place.folder.name}-{name}", "--pause", 0.003, "--detail", 300)
                for name in range(3)]  # fmt: skip
    until(lambda: len(Said.by(*place.said()).accepted) > 400, 120)
    # By a process of its own: a file that is closed here loses the locks that connections of this process have on it.
    code = "import sys, random; from pathlib import Path; from tests.faults.test_damaged import damage; "
    code += "print(damage(Path(sys.argv[1]), sys.argv[2], random.Random(sys.argv[3])))"
    harmed = subprocess.run([sys.executable, "-c", code, path, harm, str(chosen.random())],
                            capture_output=True, text=True, check=True, cwd=ROOT)  # fmt: skip
    place.store_up()
    shipper = start("-m", "audit_pipeline", "ship", env=place.environment)
    with operator(place.environment) as sees:
        if harm not in HEALED:
            sees.sees("spool-damaged", ".damaged-20", "move them elsewhere")
        done = len(Said.by(*place.said()).accepted)
        until(lambda: len(Said.by(*place.said()).accepted) > done + 100, 60)
        assert [process.poll() for process in (shipper, *emitters)] == [None] * 4
        for emitter in emitters:
            emitter.terminate()
            emitter.wait()
        place.finish()
        aside = [file for file in place.folder.iterdir() if ".damaged-" in file.name]
        assert len([file for file in aside if file.name.endswith("Z")]) == (harm not in HEALED or bool(aside))
        for file in aside:
            file.rename(place.folder / file.name.replace(SPOOL, "moved"))
        sees.sees_nothing()
    shipper.terminate()
    shipper.wait()
    if harmed.stdout.strip() != "None":
        assert counted(place.gaps()) == int(harmed.stdout)
