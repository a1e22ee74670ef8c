"""Stage `pages`: first pages, deep pages, jumps and totals, each beside the engine asked directly."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from itertools import product
from typing import Any

from audit_pipeline.query import SortKey, Window, sort_key

from .asked import FILTERS, SORTS, Case
from .direct import Direct
from .places import Client, Setting, serving
from .results import Check, Results, at_least, at_most
from .timing import alternating, best_of

__all__ = ["measure"]

DEPTHS = {"a tenth deep": 0.1, "nine tenths deep": 0.9}
"""1M and 9M of 10M."""
JUMP = 0.75
"""Page 300,000 of 10M entries, 25 on a page."""
FROM = 9_975
"""The deepest page of 25 that OpenSearch gives by `from`."""


def measure(setting: Setting, results: Results) -> None:
    """All of it."""
    for row in ("first", "deep", "jump", "total"):
        results.forget(row)
    cases = FILTERS[:2] if setting.options.brief else FILTERS
    with closing(setting.connect()) as direct:
        with serving(setting) as server:
            client = server.client()
            for case, sort in product(cases, SORTS):
                _first(setting, results, direct, case, sort, client)
        for case, sort in product(cases, SORTS):
            _deep(setting, results, direct, case, sort)
        for case in FILTERS[:2]:
            _jump(setting, results, direct, case)
        for case in cases:
            _total(setting, results, direct, case)


def _first(setting: Setting, results: Results, direct: Direct, case: Case, sort: str, client: Client) -> None:
    query = case.query(sort)
    parameters = {**case.parameters, "sort": sort}
    way, ask = best_of(direct.pages(case, sort))
    found = _timed(
        setting,
        {
            "store": lambda: setting.store.search(query, Window(25)),
            "store, first asked": lambda: setting.first_asked(query, Window(25)),
            "direct": ask,
            "HTTP": lambda: client.get("/v1/events", parameters),
        },
    )
    results.put(
        "first", f"{case.name}, {sort}", found,
        [
            at_most("store / direct", found["store"]["median"] / found["direct"]["median"], 1.3),
            at_most("first asked / direct", found["store, first asked"]["median"] / found["direct"]["median"], 1.3),
            at_most("HTTP adds", found["HTTP"]["median"] - found["store"]["median"], 4, " ms"),
        ],
        note=f"direct: {way}",
    )  # fmt: skip


def _deep(setting: Setting, results: Results, direct: Direct, case: Case, sort: str) -> None:
    query = case.query(sort)
    search = setting.store.search
    total = search(query, Window(1)).total
    asked: dict[str, Callable[[], Any]] = {"page 1": lambda: search(query, Window(25))}
    ways = []
    for name, part in DEPTHS.items():
        page = search(query, Window(1, offset=int(total * part)))
        if not page.items:
            continue
        key = sort_key(page.items[0])
        way, ask = best_of(direct.pages(case, sort, after=tuple(key)))
        ways.append(way)
        asked[name] = _after(setting, query, key)
        asked[f"{name}, direct"] = ask
    found = _timed(setting, asked)
    limit = found["page 1"]["median"] * 1.5 + 5
    checks = [
        Check(f"{name} / (1.5 × page 1 + 5 ms)", found[name]["median"] / limit, "≤ 1", found[name]["median"] <= limit)
        for name in DEPTHS
        if name in found
    ]
    results.put("deep", f"{case.name}, {sort}", found, checks, note=f"direct: {'; '.join(dict.fromkeys(ways))}")


def _after(setting: Setting, query: Any, key: SortKey) -> Callable[[], Any]:
    return lambda: setting.store.search(query, Window(25, offset=25, after=key))


def _jump(setting: Setting, results: Results, direct: Direct, case: Case) -> None:
    for sort in SORTS:
        query = case.query(sort)
        total = setting.store.search(query, Window(1)).total
        offset = int(total * (JUMP if case.name == "all" else 0.5)) // 25 * 25
        window = Window(25, offset=offset)
        skipped = offset if setting.embedded else max(0, min(FROM, total - 25))
        other = "OFFSET" if setting.embedded else f"from: {skipped}"
        found = _timed(
            setting,
            {
                "page 1": lambda query=query: setting.store.search(query, Window(25)),  # type: ignore[misc]
                "jump": lambda query=query, window=window: setting.store.search(query, window),  # type: ignore[misc]
                other: direct.skipped(case, sort, skipped),
            },
        )
        ratio = found[other]["median"] / found["jump"]["median"]
        goal = at_least(f"{other} / jump", ratio, 100 if setting.embedded else 1)
        results.put("jump", f"{case.name}, {sort}, page {offset // 25 + 1:,}", found, [goal])


def _total(setting: Setting, results: Results, direct: Direct, case: Case) -> None:
    query = case.query()
    way, count = best_of(direct.counts(case))
    found = _timed(
        setting,
        {
            "page with total": lambda: setting.first_asked(query, Window(1)),
            "page without, direct": direct.rows(case, "-timestamp", 2),
            "count, direct": count,
        },
    )
    cost = max(0.0, found["page with total"]["median"] - found["page without, direct"]["median"])
    found["what the total costs"] = {"median": cost, "p99": cost, "n": 1}
    checks = [at_most("(with − without) / count", cost / found["count, direct"]["median"], 1.5)]
    results.put("total", case.name, found, checks, note=f"count: {way}")


def _timed(setting: Setting, asked: dict[str, Callable[[], Any]]) -> Any:
    return alternating(asked, setting.options.rounds, setting.options.budget_s, 1 if setting.options.brief else 2)
