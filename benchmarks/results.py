"""What was measured, in a JSON file into which later runs merge: a run that breaks off loses nothing."""

from __future__ import annotations

import json
import os
import platform
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

import apsw

from .timing import Figure

__all__ = ["Check", "Results", "at_least", "at_most"]


class Check(NamedTuple):
    """A goal, and what came out."""

    what: str
    value: float
    goal: str
    met: bool


def at_most(what: str, value: float, limit: float, unit: str = "×") -> Check:
    """The goal that a value is no larger than this."""
    return Check(what, value, f"≤ {limit:g}{unit}", value <= limit)


def at_least(what: str, value: float, limit: float, unit: str = "×") -> Check:
    """The goal that a value is no smaller than this."""
    return Check(what, value, f"≥ {limit:g}{unit}", value >= limit)


class Results:
    """The file of results, and what this run adds to it under one store and size."""

    def __init__(self, path: Path, store: str, size: int) -> None:
        self.path = path
        self.store = store
        self.size = size
        self.engine = ""
        self._anew: set[str] = set()

    def put(
        self,
        row: str,
        case: str,
        figures: dict[str, Figure],
        checks: list[Check] | None = None,
        *,
        unit: str = "ms",
        **more: Any,
    ) -> None:
        """Keep what a case of a row gave; what an earlier run gave is replaced. `more`: note, series."""
        rows = read(self.path)  # a run over the other store may have written meanwhile
        kept = rows.setdefault(self.store, {}).setdefault(row, {})
        about = {"size": self.size, "at": datetime.now(UTC).strftime("%Y-%m-%d %H:%M"), "machine": machine(self.path)}
        about["versions"] = versions(self.engine)
        if kept.get("size") != self.size or row in self._anew:
            kept["cases"] = {}
            self._anew.discard(row)
        kept.update(about)
        kept["cases"][case] = {
            "unit": unit,
            "figures": figures,
            "checks": [check._asdict() for check in checks or ()],
            **more,
        }
        making = self.path.with_suffix(f".{os.getpid()}")
        making.write_text(json.dumps(rows, indent=1, ensure_ascii=False))
        making.rename(self.path)
        shown = "  ".join(f"{name} {value['median']:,.4g}" for name, value in figures.items())
        print(f"{row:10} {case}: {shown} {unit}", flush=True)
        for check in checks or ():
            print(
                f"{'':10} {'met   ' if check.met else 'MISSED'} {check.what}: {check.value:.3g} ({check.goal})",
                flush=True,
            )

    def forget(self, row: str) -> None:
        """A row is measured anew: what it had goes when its first case is there."""
        self._anew.add(row)


def read(path: Path) -> dict[str, Any]:
    """All that was measured so far: by store, then by row."""
    found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    return found


def machine(path: Path) -> str:
    """Cores, memory and disk."""
    cpu = platform.processor() or platform.machine()
    with open("/proc/cpuinfo", encoding="utf-8") as lines:
        names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    disk = os.statvfs(path.parent)
    return (
        f"{os.cpu_count()} cores ({names[0] if names else cpu}), {memory:.0f} GB of memory, a disk of "
        f"{disk.f_blocks * disk.f_frsize / 2**30:.0f} GB, Linux {platform.release().split('-')[0]}"
    )


def versions(engine: str) -> str:
    """The versions of what is measured."""
    named = [f"Python {platform.python_version()}", f"SQLite {apsw.sqlite_lib_version()} (apsw)"]
    for name in ("audit-pipeline", "structlog", "opensearch-py", "orjson", "fastapi", "uvicorn"):
        try:
            named.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    return ", ".join(named + ([engine] if engine else []))
