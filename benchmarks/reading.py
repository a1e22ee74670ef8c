"""Stage `readers`: fifty readers while 5,000 events a second arrive, and the same with nothing arriving."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from typing import Any

from audit_pipeline.query import Window

from .asked import Case
from .places import ROOT, Server, Setting, run_module, serving
from .results import Check, Results, at_least, at_most
from .timing import figure

__all__ = ["measure"]

READERS = 50
RATE = 5_000
PAUSE_S = 2.0
"""How long a reader looks at a page, on average."""


def measure(setting: Setting, results: Results) -> None:
    """Both, in turn, twice."""
    results.forget("readers")
    seconds = 2.0 if setting.options.brief else 20.0
    rounds = 1 if setting.options.brief else 2
    spent: dict[str, list[float]] = {}
    arrived: list[dict[str, Any]] = []
    older = failures = 0
    with serving(setting) as server:
        for number in range(rounds):
            quiet = _read(setting, server, seconds, 0, _name(number))
            arriving, before = _arriving(setting, seconds, number)
            busy = _read(setting, server, seconds, before, _name(number), arriving)
            arrived.append(_said(arriving))
            older += busy["too_small"]
            failures += busy["failures"] + quiet["failures"]
            for name, found in (("quiet", quiet), ("arriving", busy)):
                for kind in ("pages", "searches"):
                    spent.setdefault(f"{kind}, {name}", []).extend(found[kind])
    figures = {name: figure(values) for name, values in spent.items()}
    rate = sum(one["recorded"] for one in arrived) / sum(one["seconds"] for one in arrived)
    most = max(one["most_waiting"] for one in arrived)
    left = max(one["left"] for one in arrived)
    drained = max(one["drained_s"] for one in arrived)
    ratio = figures["pages, arriving"]["p99"] / figures["pages, quiet"]["p99"]
    results.put(
        "readers", f"{READERS} readers, {RATE:,} events/s", figures,
        [
            at_most("p99 of pages, arriving / quiet", ratio, 3),
            at_least("events/s that were recorded", rate, 0.98 * RATE, ""),
            at_most("entries that waited at the end", left, 2 * RATE, ""),
            Check("totals older than their page", older, "0", older == 0),
            Check("answers that failed", failures, "0", failures == 0),
        ],
        note=f"At most {most:,} entries waited in the spool; the last was stored {drained:.1f} s after the end.",
    )  # fmt: skip
    if setting.cluster is not None:
        # What arrived is of this month; the entries of the file are not.
        for index in setting.cluster.call("GET", f"/_resolve/index/{setting.index}-2*")["indices"]:
            if index["name"][len(setting.index) + 1 :] > "2025.12":
                setting.cluster.call("DELETE", f"/{index['name']}")


def _read(
    setting: Setting,
    server: Server,
    seconds: float,
    before: int,
    name: str,
    arriving: subprocess.Popen[str] | None = None,
) -> dict[str, Any]:
    pause = 0.2 if setting.options.brief else PAUSE_S
    if arriving is not None:
        assert arriving.stdin is not None
        begin = threading.Timer(1.0 if not setting.options.brief else 0.3, _begin, (arriving,))
        begin.start()
    return run_module(
        "readers", str(server.port), server.token, str(READERS), str(seconds), str(pause), str(before), name
    )


def _name(number: int) -> str:
    """What arrives in a round is told from what came in an earlier one."""
    return f"round-{number}"


def _begin(arriving: subprocess.Popen[str]) -> None:
    assert arriving.stdin is not None
    arriving.stdin.write("go\n")
    arriving.stdin.flush()


def _arriving(setting: Setting, seconds: float, number: int) -> tuple[subprocess.Popen[str], int]:
    """The program that records, ready to begin; and how many entries there are before."""
    spool = setting.scratch(f"arriving{number}.spool.db")
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.arriving", setting.url, str(spool), str(RATE), str(seconds), _name(number)],
        cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    process.stdout.readline()
    return process, setting.store.search(Case("all").query(), Window(1)).total


def _said(process: subprocess.Popen[str]) -> dict[str, Any]:
    said, _ = process.communicate(timeout=300)
    found: dict[str, Any] = json.loads(said.splitlines()[-1])
    return found
