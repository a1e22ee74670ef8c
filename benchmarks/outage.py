"""What a log call takes while the store is up, hung and down, beside one that ships nothing, and opensearch-logger.

An engine on the same machine takes its part of the disk and of the memory, whoever ships. So one that ships nothing is
also asked while another process stores as much: what that takes is not the shipper's.

`python -m benchmarks.outage` writes its table into docs/durability.md. Each round asks every way in turn, each in a
process of its own, at a steady pace and as fast as it can. `--calls` is how many of each.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path
from typing import Any

from tests.engine import Cluster, start_cluster

from .contenders import Contender, contender_python
from .emitters import THOUSAND

APART = "up, on a processor of its own"
EVERYWHERE = os.sched_getaffinity(0)
PACES = {"one in 1 ms": 0.001, "one after another": 0.0}
"""Seconds between two calls."""
WARM = 1_400_000
"""Calls before anything is measured.

The engine compiles what it does often, and does it by and by: until it has seen enough, its compiler (C2) takes up to a
quarter of a processor, and whatever else runs there waits for that.
"""
LIMITS = (1.25, 10.0)
"""What p99 may be, times that with shipping off; and p99.9, milliseconds more."""
DOCUMENT = Path(__file__).parent.parent / "docs" / "durability.md"
BEGIN, END = "<!-- latencies: written by `make latencies` -->", "<!-- end of latencies -->"

Percentiles = tuple[float, float, float]
"""The median, p99 and p99.9 of a call, in microseconds."""


@contextmanager
def _hung(cluster: Cluster) -> Iterator[str]:
    cluster.nodes[0].pause()
    try:
        yield cluster.hosts[0]
    finally:
        cluster.nodes[0].resume()
        cluster.wait(1, status="yellow")


@contextmanager
def _up(cluster: Cluster) -> Iterator[str]:
    yield cluster.hosts[0]


@contextmanager
def _apart(cluster: Cluster) -> Iterator[str]:
    """The engine on one processor, and everything else on another, as on two machines."""
    _pin(cluster.nodes[0].pid, {1})
    try:
        yield cluster.hosts[0]
    finally:
        _pin(cluster.nodes[0].pid, EVERYWHERE)


def _pin(process: int, processors: set[int]) -> None:
    for thread in Path(f"/proc/{process}/task").iterdir():
        os.sched_setaffinity(int(thread.name), processors)


@contextmanager
def _down(cluster: Cluster) -> Iterator[str]:
    yield "127.0.0.1:1"


STATES: dict[str, Callable[[Cluster], AbstractContextManager[str]]] = {
    APART: _apart,
    "up": _up,
    "hung": _hung,
    "down": _down,
}


def _percentiles(found: dict[str, Any]) -> Percentiles:
    ordered = sorted(found["microseconds"])
    return ordered[len(ordered) // 2], ordered[int(len(ordered) * 0.99)], ordered[int(len(ordered) * 0.999)]


def _asked(python: str, kind: str, folder: Path, url: str, calls: int, every: float, apart: bool) -> dict[str, Any]:
    """The `microseconds` of each call, and the `seconds` of all with the pauses after them."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    with Contender(python, "emitters", kind, str(folder), url) as emitter:
        if apart:
            _pin(emitter.pid, {0})
        emitter.ask(calls=200, threads=1, every=every)
        found = emitter.ask(calls=calls, threads=1, every=every)
    shutil.rmtree(folder)
    return found


@contextmanager
def _another(folder: Path, url: str, every: float, apart: bool) -> Iterator[None]:
    """Meanwhile another process, beside the engine, stores one entry in so many seconds, a thousand at a time."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    with Contender(sys.executable, "emitters", "straight", str(folder), url) as other:
        if apart:
            _pin(other.pid, {1})
        other.ask(calls=2, threads=1)
        other.begin(calls=10**9, threads=1, every=every * THOUSAND)
        try:
            yield
        finally:
            other.kill()
    shutil.rmtree(folder)


def _warm(cluster: Cluster, folder: Path) -> None:
    """Let the engine compile what it does all the time, as one has that runs for longer than some minutes."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    url = f"opensearch://{cluster.hosts[0]}?index=outage-warm"
    with Contender(sys.executable, "emitters", "process_shipping", str(folder), url) as emitter:
        emitter.ask(calls=WARM, threads=1, every=0.0)
        cluster.wait(1, status="yellow")
        while cluster.call("GET", "/outage-warm/_count")["count"] < WARM:
            time.sleep(0.5)
    cluster.clear("outage-")
    shutil.rmtree(folder)


def _measured(cluster: Cluster, folder: Path, rounds: int, calls: int) -> Iterator[tuple[str, str, Percentiles]]:
    """Pace, what was asked, and what it took."""
    for number in range(rounds):
        for pace, every, state in _lines():
            apart = state == APART
            with STATES[state](cluster) as host:
                url = f"opensearch://{host}?index=outage-x{number}"
                for what, kind in ((f"off, beside {state}", "disk"), (state, "disk_shipping")):
                    found = _asked(sys.executable, kind, folder / kind, url, calls, every, apart)
                    yield pace, what, _percentiles(found)
                if state in (APART, "up"):
                    spent = found["seconds"] / calls
                    with _another(folder / "another", f"opensearch://{host}?index=outage-y{number}", spent, apart):
                        found = _asked(sys.executable, "disk", folder / "disk", url, calls, every, apart)
                    yield pace, f"off, while another stores, {state}", _percentiles(found)
        cluster.clear("outage-")
    # After the others: documents of another shape, for which the engine compiles its code anew.
    other = contender_python(folder)
    for _ in range(rounds):
        for pace, every, state in _lines():
            with STATES[state](cluster) as host:
                # A part of the calls shows it, and each may wait for the store.
                found = _asked(other, "opensearch_logger", folder / "other", host, calls // 4, every, state == APART)
                yield pace, f"opensearch-logger, {state}", _percentiles(found)
        cluster.clear("bench-logger")


def _lines() -> list[tuple[str, float, str]]:
    """A pace, the seconds between two of its calls, and a state."""
    return [(pace, every, state) for pace, every in PACES.items() for state in STATES]


def _table(measured: dict[tuple[str, str], list[Percentiles]]) -> str:
    lines = [
        "| calls | the store is | median | p99 | p99.9 | p99, shipping off | times, each round | best "
        "| p99.9, ms more | holds | times, while another stores | opensearch-logger: median, p99, p99.9 |",
        "|---|---|--:|--:|--:|--:|---|--:|--:|---|---|---|",
    ]
    for pace, state in ((pace, state) for pace in dict.fromkeys(pace for pace, _ in measured) for state in STATES):
        own, off = measured[pace, state], measured[pace, f"off, beside {state}"]
        pairs = list(zip(own, off, strict=True))
        times = [one[1] / two[1] for one, two in pairs]
        more = min((one[2] - two[2]) / 1000 for one, two in pairs)
        best = min(own, key=lambda one: one[1])
        holds = min(times) <= LIMITS[0] and more <= LIMITS[1]
        another = measured.get((pace, f"off, while another stores, {state}"), [])
        beside = ", ".join(f"{one[1] / two[1]:.2f}" for one, two in zip(another, off, strict=bool(another)))
        other = min(measured[pace, f"opensearch-logger, {state}"], key=lambda one: one[1])
        lines.append(
            f"| {pace} | {state} | {' | '.join(f'{value:,.0f}' for value in best)} | {min(one[1] for one in off):,.0f} "
            f"| {', '.join(f'{value:.2f}' for value in times)} | {min(times):.2f} | {more:,.1f} "
            f"| {'yes' if holds else 'no'} | {beside or '–'} | {', '.join(f'{value:,.0f}' for value in other)} |"
        )
    return "\n".join(lines) + "\n"


def main() -> int:
    """Measure, print, and write it down."""
    known = argparse.ArgumentParser(description=__doc__)
    known.add_argument("--calls", type=int, default=10_000)
    known.add_argument("--rounds", type=int, default=3)
    known.add_argument("--data", type=Path, default=Path("build"), help="for spools and what is compared")
    known.add_argument("--print-only", action="store_true", help="leave the document as it is")
    chosen = known.parse_args()
    folder = chosen.data.resolve()
    folder.mkdir(exist_ok=True)
    measured: dict[tuple[str, str], list[Percentiles]] = {}
    with closing(start_cluster(1, "1g", jvm=())) as cluster:
        _warm(cluster, folder / "warm")
        for pace, what, found in _measured(cluster, folder, chosen.rounds, chosen.calls):
            measured.setdefault((pace, what), []).append(found)
            print(f"{pace}, {what}: {', '.join(f'{value:,.0f}' for value in found)} µs", file=sys.stderr, flush=True)
    table = _table(measured)
    print(table, end="")
    if not chosen.print_only:
        text = DOCUMENT.read_text()
        before, _, rest = text.partition(BEGIN)
        DOCUMENT.write_text(f"{before}{BEGIN}\n\n{table}\n{END}{rest.partition(END)[2]}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
