"""Stage `topology`: 24 monthly indices beside one, and three nodes beside one."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing
from typing import Any

from audit_pipeline.query import Window
from audit_pipeline.stores import Store, open_store
from tests.engine import Cluster, start_cluster

from .asked import FILTERS, SEARCHES, Case
from .importing import merged
from .places import Setting
from .results import Check, Results, at_most
from .shipping import ship, some_events, spooled
from .timing import alternating

__all__ = ["measure"]

COPYING = {"index.refresh_interval": "-1", "index.translog.durability": "async"}
USUAL = {"index.refresh_interval": "1s", "index.translog.durability": "request"}
"""Settings of the index into which the others are copied, meanwhile and afterwards."""
CASES: tuple[Case, ...] = (*FILTERS, *SEARCHES[:2])
WARM = 100
"""How often each question is asked of both before any answer is timed: three nodes that have just started are cold, and
still compile what the engine of all other stages has compiled for hours."""


def measure(setting: Setting, results: Results) -> None:
    """Both; nothing on SQLite, which is one file."""
    if setting.cluster is None:
        return
    for row in ("indices", "nodes", "nodes, ship"):
        results.forget(row)
    _indices(setting, results, setting.cluster)
    if not setting.options.brief:
        _nodes(setting, results, setting.cluster)


def _indices(setting: Setting, results: Results, cluster: Cluster) -> None:
    """The store's monthly indices, and all of them copied into one."""
    single = f"{setting.index}-one"
    cluster.clear(single)
    with closing(open_store(cluster.url(single, granularity="year"))) as one:
        one.setup()
        cluster.call("PUT", f"/{single}-2025", {"settings": COPYING})
        copied = cluster.call("POST", "/_reindex?wait_for_completion=false&refresh=true&slices=2", {
            "source": {"index": setting.index, "size": 5000}, "dest": {"index": f"{single}-2025"}
        })  # fmt: skip
        _wait(cluster, copied["task"])
        cluster.call("PUT", f"/{single}-2025/_settings", USUAL)
        merged(cluster, single)
        months = len(cluster.call("GET", f"/_resolve/index/{setting.index}-2*")["indices"])
        _compare(setting, results, "indices", (f"{months} indices", setting.store), ("1 index", one))
    cluster.clear(single)


def _wait(cluster: Cluster, task: str) -> None:
    while True:
        time.sleep(1)
        found = cluster.call("GET", f"/_tasks/{task}")
        if found["completed"]:
            if found.get("error") or found["response"]["failures"]:
                raise RuntimeError(f"the copy failed: {found}")
            return


def _nodes(setting: Setting, results: Results, single: Cluster) -> None:
    """As many entries through the shipper into one node and into a cluster of three on this machine."""
    count = min(setting.options.size, setting.options.topology)
    events = some_events(setting, count)
    spool = spooled(setting, events)
    del events
    index = f"{setting.index}-nodes"
    three = start_cluster(3, "512m", jvm=())
    try:
        with (
            closing(open_store(single.url(index, granularity="year"))) as alone,
            closing(open_store(three.url(index, granularity="year"))) as together,
        ):
            single.clear(index)
            rates = {}
            for name, store in (("1 node", alone), ("3 nodes", together)):
                store.setup()
                rate = ship(spool, store, count)
                rates[name] = {"median": rate, "p99": rate, "n": 1}
            results.put("nodes, ship", f"{count:,} entries, replicas on both others", rates, unit="entries/s")
            _compare(setting, results, "nodes", ("3 nodes", together), ("1 node", alone))
        single.clear(index)
    finally:
        three.close()
        setting.scratch("ship.spool.db")


def _compare(setting: Setting, results: Results, row: str, many: tuple[str, Store], few: tuple[str, Store]) -> None:
    for case in CASES:
        for what, part in (("page 1", 0.0), ("the page in the middle", 0.5)):
            if part and case not in FILTERS:
                continue
            query = case.query()
            total = few[1].search(query, Window(1)).total
            window = Window(25, offset=int(total * part))
            asked: dict[str, Callable[[], Any]] = {
                name: lambda store=store, query=query, window=window: store.search(query, window)  # type: ignore[misc]
                for name, store in (many, few)
            }
            warm = 2 if setting.options.brief else WARM
            found = alternating(asked, setting.options.rounds, setting.options.budget_s, warm)
            ratio = found[many[0]]["median"] / found[few[0]]["median"]
            checks: list[Check] = [at_most(f"{many[0]} / {few[0]}", ratio, 1.5)]
            results.put(row, f"{case.name}, {what}", found, checks)
