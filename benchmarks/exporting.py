"""Stage `export`: 50,000 rows as CSV over HTTP, the first byte, and the memory of the server meanwhile."""

from __future__ import annotations

import json
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import closing
from typing import Any

from audit_pipeline.query import Window

from .asked import Case
from .contenders import elasticdump
from .direct import Direct, DirectOpenSearch
from .places import Server, Setting, serving
from .results import Results, at_least, at_most
from .timing import alternating, best_of, timed

__all__ = ["measure"]

ROWS, FEW = 50_000, 10_000
"""Rows of an export; at less than a million entries, few."""
CASE = Case("all")


def measure(setting: Setting, results: Results) -> None:
    """All of it."""
    for row in ("export", "first byte", "memory"):
        results.forget(row)
    most = ROWS if setting.options.size >= 1_000_000 else FEW
    rows = min(most, setting.store.search(CASE.query(), Window(1)).total)
    with closing(setting.connect()) as direct, serving(setting, AUDIT_EXPORT_LIMIT=str(rows)) as server:
        _whole(setting, results, direct, server, rows)
        _first_byte(setting, results, direct, server)
    _memory(setting, results, most)


def _whole(setting: Setting, results: Results, direct: Direct, server: Server, rows: int) -> None:
    client = server.client()

    def export() -> None:
        body = client.get("/v1/events/export.csv")
        came = body.count(b"\r\n") - 1
        if came < rows:
            raise RuntimeError(f"{came} of {rows} rows came")

    raw: dict[str, Callable[[], Any]] = {
        f"{size} at a time": direct.drained(CASE, rows, size)
        for size in ((1000, 5000) if isinstance(direct, DirectOpenSearch) else (1000,))
    }
    way, drain = best_of(raw, 2)
    asked = {"HTTP": export, "raw": drain}
    if isinstance(direct, DirectOpenSearch):
        asked["helpers.scan"] = direct.scanned(CASE, rows)
        dump = elasticdump(setting.options.folder) if setting.options.installs else []
        if dump:
            asked["elasticdump"] = lambda: _dumped(setting, dump, rows)
    found = alternating(asked, 3 if setting.options.brief else 5, 25, 1)
    rates = {
        name: {"median": rows / value["median"] * 1000, "p99": rows / value["p99"] * 1000, "n": value["n"]}
        for name, value in found.items()
    }
    ratio = rates["HTTP"]["median"] / rates["raw"]["median"]
    checks = []
    if isinstance(direct, DirectOpenSearch):
        checks.append(at_least("HTTP / raw", ratio, 0.85))
        if "elasticdump" in rates:
            checks.append(at_least("HTTP / elasticdump", rates["HTTP"]["median"] / rates["elasticdump"]["median"], 3))
    results.put("export", f"{rows:,} rows", rates, checks, unit="rows/s", note=f"raw: {way}")


def _dumped(setting: Setting, command: list[str], rows: int) -> None:
    """elasticdump of the same rows in the same order into a CSV file."""
    target = setting.scratch("dump.csv")
    asked = {"query": {"match_all": {}}, "_source": {"excludes": ["search"]}}
    order = {"sort": [{"@timestamp": "desc"}, {"event.id": "desc"}]}
    subprocess.run(
        [
            *command, f"--input=http://{setting.host}/{setting.index}", f"--output=csv://{target}", "--type=data",
            "--limit=1000", f"--size={rows}", f"--searchBody={json.dumps(asked | order)}", "--quiet",
        ],
        check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    with target.open("rb") as file:
        lines = sum(1 for _ in file)
    target.unlink()
    if lines < rows:
        raise RuntimeError(f"elasticdump gave {lines} of {rows} rows")


def _first_byte(setting: Setting, results: Results, direct: Direct, server: Server) -> None:
    client = server.client()
    way, page = best_of(direct.pages(CASE, "-timestamp", 1000))
    waits: list[float] = []

    def first() -> None:
        begin = time.perf_counter()
        with client.answer("/v1/events/export.csv") as answer:
            answer.read1(1)
            waits.append((time.perf_counter() - begin) * 1000)
            answer.read()

    found = alternating({"page of 1,000, direct": page, "export": first}, 3 if setting.options.brief else 5, 25, 1)
    ordered = sorted(waits[1:])
    found["export"] = {"median": ordered[len(ordered) // 2], "p99": ordered[-1], "n": len(ordered)}
    ratio = found["export"]["median"] / found["page of 1,000, direct"]["median"]
    results.put(
        "first byte", CASE.name, found, [at_most("first byte / page of 1,000", ratio, 1.5)], note=f"direct: {way}"
    )


def _memory(setting: Setting, results: Results, most: int) -> None:
    """The most anonymous memory of a server that does nothing else; each time a new one."""
    peaks = {}
    for rows in (most // 10, most):
        with serving(setting, AUDIT_EXPORT_LIMIT=str(rows)) as server:
            client = server.client()
            client.page({})
            peak = _Peak(server)
            for _ in range(3):
                timed(lambda client=client: client.get("/v1/events/export.csv"))  # type: ignore[misc]
            peaks[rows] = peak.stop() / 1e6
    found = {f"{rows:,} rows": {"median": peak, "p99": peak, "n": 3} for rows, peak in peaks.items()}
    results.put(
        "memory", "anonymous memory of the server", found,
        [at_most(f"{most:,} / {most // 10:,} rows", peaks[most] / peaks[most // 10], 1.1)],
        unit="MB",
    )  # fmt: skip


class _Peak:
    """Looks at a server's memory until it is stopped."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._most = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def _watch(self) -> None:
        while not self._stop.wait(0.01):
            self._most = max(self._most, self._server.anonymous_memory())

    def stop(self) -> int:
        self._stop.set()
        self._thread.join()
        return self._most
