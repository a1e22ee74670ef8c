"""What was promised, and what is there: the oracle of every round, and the table of all of them."""

from __future__ import annotations

import json
import os
import platform
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import apsw

from audit_pipeline.query import Query, Window, sort_key
from audit_pipeline.stores import open_store

from ..engine import VERSION

__all__ = ["LONG", "RESULTS", "Row", "Said", "check", "of", "stored_in", "table"]

LONG = os.environ.get("FAULTS") == "long"
"""Whether `make faults` asks: then each round has as many tries as its table promises, else some of them."""
ROOT = Path(__file__).parent.parent.parent
RESULTS = ROOT / "build" / "faults.json"
DOCUMENT = ROOT / "docs" / "durability.md"
BEGIN, END = "<!-- results: written by `make faults` -->", "<!-- end of results -->"


def of(long: int, short: int) -> int:
    """How many tries: so many for `make faults`, so many otherwise."""
    return long if LONG else short


# The oracle


@dataclass(slots=True)
class Said:
    """What emitters wrote to their side files: `?target` before a call, and `=id target` after it returned."""

    accepted: dict[str, str] = field(default_factory=dict)
    """The target of each id whose call returned: those are promised."""
    begun: set[str] = field(default_factory=set)
    """Targets whose call did not return, killed or refused: there may be an entry or not."""

    @classmethod
    def by(cls, *files: Path) -> Said:
        """What these files say. A line that was cut by a kill counts as not written."""
        said = cls()
        for file in files:
            for line in file.read_text().splitlines(keepends=True) if file.exists() else ():
                if not line.endswith("\n"):
                    continue
                if line.startswith("?"):
                    said.begun.add(line[1:-1])
                else:
                    event_id, _, target = line[1:-1].partition(" ")
                    said.accepted[event_id] = target
                    said.begun.discard(target)
        return said


def stored_in(url: str, org: str = "default") -> list[tuple[str, str]]:
    """Id and target of all entries of a store, in order, but those that tell of gaps; doubles as often as they are."""
    query = Query(org, sort="timestamp")
    found: list[tuple[str, str]] = []
    window = Window(1000)
    with closing(open_store(url)) as store:
        while True:
            page = store.search(query, window)
            found += [(event.id, event.target) for event in page.items if event.action != "audit.gap"]
            if not page.has_next:
                return found
            window = Window(1000, after=sort_key(page.items[-1]))


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the table."""

    fault: str
    tries: int
    accepted: int
    stored: int
    lost: int
    doubled: int


def check(fault: str, tries: int, said: Said, stored: Sequence[tuple[str, str]]) -> Row:
    """Compare what was promised with what is there, write it into the table, and raise AssertionError at a difference.

    `stored` has id and target of each entry, doubles as often as they are there. An entry that nobody accepted is
    allowed only where its call was under way, once.
    """
    ids = Counter(event_id for event_id, _ in stored)
    lost = said.accepted.keys() - ids.keys()
    doubled = sum(number - 1 for number in ids.values())
    beyond = [target for event_id, target in stored if event_id not in said.accepted]
    row = Row(fault, tries, len(said.accepted), len(stored), len(lost), doubled)
    _note(row)
    assert not lost, f"{fault}: {len(lost)} of {row.accepted} are lost: {sorted(lost)[:5]}"
    assert not doubled, f"{fault}: {doubled} are there twice"
    assert not [target for target in beyond if target not in said.begun], f"{fault}: entries that nobody began"
    assert len(beyond) == len(set(beyond)), f"{fault}: one call made two entries"
    return row


# The table


def _note(row: Row) -> None:
    rows = {one.fault: one for one in _noted()} | {row.fault: row}
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps([asdict(one) for one in rows.values()], indent=1))


def _noted() -> Iterator[Row]:
    if RESULTS.exists():
        for row in json.loads(RESULTS.read_text()):
            yield Row(**row)


def table(rows: Iterable[Row]) -> str:
    """The rows, and their sum, as Markdown."""
    lines = ["| fault | tries | accepted | stored | lost | doubled |", "|---|--:|--:|--:|--:|--:|"]
    total = Counter[str]()
    for row in rows:
        figures = {name: value for name, value in asdict(row).items() if name != "fault"}
        total.update(figures)
        lines.append(f"| {row.fault} | {' | '.join(f'{value:,}' for value in figures.values())} |")
    lines.append(f"| **all** | {' | '.join(f'**{total[name]:,}**' for name in list(asdict(row))[1:])} |")
    return "\n".join(lines) + "\n"


def _versions() -> str:
    return (
        f"{datetime.now(UTC):%Y-%m-%d}: Python {platform.python_version()}, SQLite {apsw.sqlite_lib_version()}, "
        f"OpenSearch {VERSION}, {platform.system()} {platform.release().partition('-')[0]}, "
        f"{os.cpu_count()} processors."
    )


def main() -> int:
    """Print the table, and write it into docs/durability.md."""
    rows = list(_noted())
    if not rows:
        sys.exit(f"{RESULTS}: nothing was noted; run `make faults`")
    text = table(rows)
    print(text, end="")
    document = DOCUMENT.read_text()
    before, _, rest = document.partition(BEGIN)
    after = rest.partition(END)[2]
    note = (
        "Stored can be more than accepted: a call that was killed had written its entry, and could not say so. Entries "
        "on the damaged pages of a spool, which an `audit.gap` tells by their number, count as stored."
    )
    DOCUMENT.write_text(f"{before}{BEGIN}\n\n{_versions()} {note}\n\n{text}\n{END}{after}")
    return 1 if any(row.lost or row.doubled for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
