"""Stage `emit`: what a log call costs the application, beside other ways to keep an event."""

from __future__ import annotations

import shutil
import statistics
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from .contenders import Contender, contender_python
from .places import Setting
from .results import Check, Results, at_least, at_most
from .timing import Figure, figure

__all__ = ["measure"]

OWN = ("disk", "disk_shipping", "bare_full", "process", "process_shipping", "bare_normal", "only_file", "queue_handler")
INSTALLED = ("opensearch_logger", "persist_queue_file", "persist_queue_sqlite")
HERE = Path(__file__).parent


def measure(setting: Setting, results: Results) -> None:
    """All of it."""
    for row in ("emit", "threads", "no event"):
        results.forget(row)
    folder = setting.options.folder / f"scratch-{setting.options.store}-emit"
    try:
        _calls(setting, results, folder)
        _threads(setting, results, folder / "threads", {}, "as the disk is", 1.5)
        shim = _slow_fsync(setting.options.folder)
        if shim:
            _threads(setting, results, folder / "slow", {"LD_PRELOAD": str(shim)}, "2 ms added to each fsync", 4)
        _no_event(setting, results, folder)
    finally:
        if setting.cluster is not None:
            setting.cluster.clear("bench-logger", "bench-emit")
        shutil.rmtree(folder, ignore_errors=True)


def _calls(setting: Setting, results: Results, folder: Path) -> None:
    """Microseconds of a call, a part of each kind in turn."""
    options = setting.options
    rounds, calls = (3, 40) if options.brief else (20, 250) if options.size >= 1_000_000 else (8, 80)
    spent: dict[str, list[float]] = {}
    with ExitStack() as stack:
        started = {kind: stack.enter_context(_emitter(setting, kind, folder)) for kind in OWN}
        if setting.options.installs:
            python = contender_python(setting.options.folder)
            for kind in INSTALLED:
                if kind != "opensearch_logger" or not setting.embedded:
                    started[kind] = stack.enter_context(_emitter(setting, kind, folder, python))
        for number in range(rounds + 1):
            for kind, emitter in started.items():
                found = emitter.ask(calls=calls, threads=1)["microseconds"]
                if number:
                    spent.setdefault(kind, []).extend(found)
    figures = {kind: _spent(values) for kind, values in spent.items()}
    ratios = {
        "durable / (structlog + FULL commit)": ("disk", "bare_full", 1.3),
        "process / (structlog + NORMAL commit)": ("process", "bare_normal", 1.6),
    }
    checks: list[Check] = [
        at_most(what, figures[own]["median"] / figures[other]["median"], limit)
        for what, (own, other, limit) in ratios.items()
    ]
    shipping = [
        f"{name} / {other}, by the mean: {figures[name]['mean'] / figures[other]['mean']:.2f}"
        for name, other in (("disk_shipping", "bare_full"), ("process_shipping", "bare_normal"))
    ]
    results.put("emit", "a call", figures, checks, unit="µs", note="; ".join(shipping))


def _threads(
    setting: Setting, results: Results, folder: Path, environment: dict[str, str], case: str, goal: float
) -> None:
    """Durable entries a second by one thread and by eight."""
    rounds, calls = (1, 5) if setting.options.brief else (5, 300 if not environment else 80)
    rates: dict[str, list[float]] = {"1 thread": [], "8 threads": []}
    with _emitter(setting, "disk", folder, **environment) as emitter:
        emitter.ask(calls=20, threads=1)
        for _ in range(rounds):
            rates["1 thread"].append(calls * 2 / emitter.ask(calls=calls * 2, threads=1)["seconds"])
            rates["8 threads"].append(calls * 8 / emitter.ask(calls=calls, threads=8)["seconds"])
    figures = {name: figure(values) for name, values in rates.items()}
    ratio = figures["8 threads"]["median"] / figures["1 thread"]["median"]
    results.put("threads", case, figures, [at_least("8 threads / 1", ratio, goal)], unit="entries/s")


def _no_event(setting: Setting, results: Results, folder: Path) -> None:
    with _emitter(setting, "no_event", folder) as emitter:
        emitter.ask(calls=2, threads=1)
        found = emitter.ask(calls=4 if setting.options.brief else 200, threads=1)["microseconds"]
    figures = {f"{name} the processor": figure([each[name] for each in found]) for name in ("with", "without")}
    ratio = statistics.median(each["with"] / each["without"] for each in found)
    results.put(
        "no event", "a log call that is no audit event", figures, [at_most("with / without", ratio, 1.05)], unit="µs"
    )


def _emitter(setting: Setting, kind: str, folder: Path, python: str = sys.executable, **environment: str) -> Contender:
    folder.mkdir(parents=True, exist_ok=True)
    if kind == "opensearch_logger":
        url = setting.host
    elif setting.cluster is not None:
        url = setting.cluster.url("bench-emit")
    else:
        url = f"sqlite:///{folder / kind}.db"
    return Contender(python, "emitters", kind, str(folder), url, **environment)


def _spent(values: list[Any]) -> Figure:
    return figure(values) | {"mean": statistics.fmean(values)}


def _slow_fsync(folder: Path) -> Path | None:
    """The shim, compiled; None where there is no C compiler."""
    compiler = shutil.which("cc")
    if compiler is None:
        return None
    target = folder / "slow_fsync.so"
    subprocess.run(
        [compiler, "-O2", "-shared", "-fPIC", "-o", str(target), str(HERE / "slow_fsync.c"), "-ldl"], check=True
    )
    return target
