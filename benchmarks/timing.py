"""Times functions in turn, so that whatever else the machine does meets all of them alike."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from time import perf_counter
from typing import Any

import apsw

__all__ = ["Figure", "alternating", "best_of", "figure", "timed"]

Figure = dict[str, float]
"""`median`, `p99` and `n`; for times in milliseconds."""


def figure(samples: Sequence[float]) -> Figure:
    """The median and the 99th percentile of samples."""
    ordered = sorted(samples)
    return {
        "median": statistics.median(ordered),
        "p99": ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))],
        "n": len(ordered),
    }


def timed(function: Callable[[], Any]) -> float:
    """How long one call takes, in milliseconds."""
    begin = perf_counter()
    function()
    return (perf_counter() - begin) * 1000


def alternating(
    functions: Mapping[str, Callable[[], Any]], rounds: int = 30, budget_s: float = 10.0, warm: int = 2
) -> dict[str, Figure]:
    """Milliseconds of each function, called in turn: `rounds` times, or (but 3 times) until time is used up."""
    for _ in range(warm):
        for function in functions.values():
            function()
    samples: dict[str, list[float]] = {name: [] for name in functions}
    names = list(functions)
    end = perf_counter() + budget_s
    for count in range(rounds):
        for name in names:
            samples[name].append(timed(functions[name]))
        names = [*names[1:], names[0]]
        if count >= 2 and perf_counter() > end:
            break
    return {name: figure(values) for name, values in samples.items()}


def best_of(variants: Mapping[str, Callable[[], Any]], tries: int = 5) -> tuple[str, Callable[[], Any]]:
    """The fastest of several ways to ask the same: its name and itself."""
    found: dict[str, float] = {}
    for name, ask in variants.items():
        try:
            once = timed(ask)
        except apsw.InterruptError:  # it took too long
            continue
        if found and once > 1000 + 3 * min(found.values()):
            continue
        found[name] = statistics.median(timed(ask) for _ in range(tries))
    name = min(found, key=lambda each: found[each])
    return name, variants[name]
