"""Stage `import`: the file through `audit-pipeline import`; how fast at the start and at the end, and how large."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import apsw

from audit_pipeline.query import Window
from tests.engine import Cluster

from .asked import Case
from .data import lines_file
from .places import ROOT, Setting
from .results import Results, at_least

__all__ = ["measure", "merged"]

Series = list[tuple[float, int]]
"""Seconds, and how many were in the store by then."""


def measure(setting: Setting, results: Results) -> None:
    """Fill the store anew."""
    size = setting.options.size
    file = lines_file(setting.options.folder, size)
    _empty(setting)
    spool = setting.scratch("import.spool.db")
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "audit_pipeline", "import", str(file)),
            *("--store", setting.url, "--spool", str(spool), "--json"),
        ],
        cwd=ROOT, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    series, memory = _watched(process, spool)
    assert process.stdout is not None
    said = json.loads(process.stdout.read())
    if process.returncode or said["entries"] != size or said["rejected"] or said["quarantined"]:
        raise RuntimeError(f"the import ended with {process.returncode}: {said}")
    total = setting.store.search(Case("all").query(), Window(1)).total
    if total != size:
        raise RuntimeError(f"{total:,} of {size:,} entries are in the store")
    setting.scratch("import.spool.db")

    seconds = series[-1][0]
    start, end = _rate(series, size, 0.02, 0.12), _rate(series, size, 0.88, 0.98)
    rates = {name: {"median": rate, "p99": rate, "n": 1} for name, rate in (
        ("whole", size / seconds), ("at the start", start), ("at the end", end)
    )}  # fmt: skip
    results.put(
        "import", "rate", rates, [at_least("end / start", end / start, 0.8)],
        unit="entries/s", series=_thinned(series),
    )  # fmt: skip
    sizes = {"store": _stored_bytes(setting) / size, "NDJSON": file.stat().st_size / size}
    results.put(
        "import", "bytes an entry", {name: {"median": value, "p99": value, "n": 1} for name, value in sizes.items()},
        unit="bytes",
    )  # fmt: skip
    results.put(
        "import", "memory of the import", {"most": {"median": memory / 1e6, "p99": memory / 1e6, "n": 1}}, unit="MB"
    )


def _watched(process: subprocess.Popen[str], spool: Path) -> tuple[Series, int]:
    """How many were shipped when, until the process has ended; and the most memory it had."""
    begin = time.monotonic()
    series: Series = [(0.0, 0)]
    memory = 0
    database: apsw.Connection | None = None
    while process.poll() is None:
        time.sleep(0.05 if len(series) < 200 else 0.5)
        try:
            with open(f"/proc/{process.pid}/status", encoding="utf-8") as lines:
                memory = max([memory, *(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))])
            if database is None:
                database = apsw.Connection(str(spool), flags=apsw.SQLITE_OPEN_READWRITE)
                database.set_busy_timeout(10_000)
            shipped = database.execute("SELECT shipped FROM meta").get
        except (apsw.Error, OSError):  # it is not there yet, or not any more
            database = None
            continue
        if shipped != series[-1][1]:
            series.append((time.monotonic() - begin, shipped))
    if database is not None:
        shipped = database.execute("SELECT shipped FROM meta").get
        database.close()
        if shipped != series[-1][1]:
            series.append((time.monotonic() - begin, shipped))
    return series, memory


def _rate(series: Series, size: int, first: float, last: float) -> float:
    """Entries a second between two parts of the whole."""
    begin = min(series, key=lambda point: abs(point[1] - first * size))
    end = min(series, key=lambda point: abs(point[1] - last * size))
    if end[0] <= begin[0]:
        begin, end = series[0], series[-1]
    return (end[1] - begin[1]) / (end[0] - begin[0])


def _thinned(series: Series) -> Series:
    step = max(1, len(series) // 100)
    return [(round(seconds, 2), count) for seconds, count in [*series[::step], series[-1]]]


def _empty(setting: Setting) -> None:
    """Take away what an earlier run filled."""
    setting.store.close()
    if setting.cluster is not None:
        setting.cluster.clear(setting.index)
        return
    for suffix in ("", "-wal", "-shm"):
        setting.path.with_name(setting.path.name + suffix).unlink(missing_ok=True)


def _stored_bytes(setting: Setting) -> float:
    """What is on disk, once nothing is being merged."""
    if setting.cluster is None:
        with closing(apsw.Connection(str(setting.path))) as database:
            database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return os.path.getsize(setting.path)
    merged(setting.cluster, setting.index)
    setting.cluster.call("POST", f"/{setting.index}/_flush")
    stats = setting.cluster.call("GET", f"/{setting.index}/_stats/store")
    size: float = stats["_all"]["primaries"]["store"]["size_in_bytes"]
    return size


def merged(cluster: Cluster, index: str) -> None:
    """Wait until the engine merges nothing there."""
    end = time.monotonic() + 600
    while time.monotonic() < end:
        if not cluster.call("GET", f"/{index}/_stats/merge")["_all"]["total"]["merges"]["current"]:
            return
        time.sleep(0.5)
