"""Stage `ship`: from a full spool into a store that is warm, beside the engine's own ways to take the same entries."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from hashlib import sha256
from pathlib import Path
from typing import Any

import apsw
import opensearchpy
import orjson

from audit_pipeline import AuditPipeline
from audit_pipeline.ecs import document_of
from audit_pipeline.event import AuditEvent, format_timestamp
from audit_pipeline.importing import NDJSONReader, Rejected
from audit_pipeline.query import Window, search_texts
from audit_pipeline.shipper import Shipper
from audit_pipeline.spool import Spool
from audit_pipeline.stores import Store, open_store

from .asked import Case
from .data import lines_file, some_lines
from .direct import DirectOpenSearch
from .places import Setting
from .results import Results, at_least
from .timing import Figure, figure

__all__ = ["measure", "some_events", "spooled"]

MOST, FEW = 100_000, 20_000
BATCH = 1000


def measure(setting: Setting, results: Results) -> None:
    """All of it."""
    results.forget("ship")
    options = setting.options
    count = min(options.size, MOST if options.size >= 1_000_000 else FEW)
    events = some_events(setting, count)
    spool = spooled(setting, events)
    rounds = 1 if options.brief else 3 if options.size >= 1_000_000 else 2
    if setting.embedded:
        _into_sqlite(setting, results, spool, count, rounds)
    else:
        _into_opensearch(setting, results, spool, count, rounds)
    setting.scratch("ship.spool.db")


def some_events(setting: Setting, count: int) -> list[AuditEvent]:
    """The first entries of the file, as an import makes them."""
    file = lines_file(setting.options.folder, setting.options.size)
    path = setting.scratch("made.spool.db")
    with closing(AuditPipeline.open("memory://", spool=path, ship=False)) as pipeline:
        found = [
            made for made in NDJSONReader(pipeline).read(some_lines(file, count)) if not isinstance(made, Rejected)
        ]
    setting.scratch("made.spool.db")
    return found


def spooled(setting: Setting, events: Sequence[AuditEvent]) -> Path:
    """A spool that is full of these entries, for any store: each shipper makes it its own."""
    path = setting.scratch("ship.spool.db")
    with closing(Spool(path, "nobody", "process")) as spool:
        for first in range(0, len(events), BATCH):
            spool.append(events[first : first + BATCH])
    return path


def ship(path: Path, store: Store, count: int) -> float:
    """How many entries a second go from this spool into a store."""
    identity = store.identity(path)
    with closing(apsw.Connection(str(path))) as database:
        database.execute("UPDATE meta SET store = ?, shipped = 0", (identity,))
    shipper = Shipper(path, identity, store)
    with closing(Spool(path, identity)) as watched:
        begin = time.perf_counter()
        shipper.start()
        while watched.shipped() < count:
            time.sleep(0.02)
        seconds = time.perf_counter() - begin
    shipper.stop(30)
    return count / seconds


# OpenSearch


def _into_opensearch(setting: Setting, results: Results, spool: Path, count: int, rounds: int) -> None:
    assert setting.cluster is not None
    cluster = setting.cluster
    index = f"{setting.index}-ship"
    with closing(Spool(spool, None)) as full:
        events = full.pending(count, 2**40)
    made = [document_of(event) | {"arrival": {"at": 0, "writer": "bench", "batch": 1, "size": 1}} for event in events]
    years = sorted({format_timestamp(event.timestamp)[:4] for event in events})
    actions = [
        {"_index": f"{index}-{document['@timestamp'][:4]}", "_id": f"{document['event']['id']}.{_owner(document)}"}
        for document in made
    ]
    lines = [
        b"%s\n%s\n" % (orjson.dumps({"create": where}), orjson.dumps(document))
        for where, document in zip(actions, made, strict=True)
    ]
    bodies = [b"".join(lines[first : first + BATCH]) for first in range(0, count, BATCH)]
    gc.freeze()  # a process that ships has none of these, which would be gone through again and again
    direct = DirectOpenSearch(setting.host, index)
    store = open_store(cluster.url(index, granularity="year"))

    def ours() -> float:
        return ship(spool, store, count)

    def bulk() -> float:
        return _rate(count, lambda: _bulk(direct, actions, made))

    def rebuilt() -> float:
        def work() -> None:
            with closing(Spool(spool, None)) as full:
                read = full.pending(count, 2**40)
            _bulk(direct, actions, [document_of(event) for event in read])

        with closing(apsw.Connection(str(spool))) as database:
            database.execute("UPDATE meta SET shipped = 0")
        return _rate(count, work)

    def posted(refresh: str = "false") -> float:
        return _rate(count, lambda: [_post(direct, body, refresh) for body in bodies])

    def posted_by_two() -> float:
        def work() -> None:
            with ThreadPoolExecutor(2) as pool:
                list(pool.map(lambda body: _post(direct, body, "false"), bodies))

        return _rate(count, work)

    contenders: dict[str, Callable[[], float]] = {
        "shipper": ours,
        "helpers.bulk": bulk,
        "spool → documents → helpers.bulk": rebuilt,
        "raw": posted,
        "raw, two in flight": posted_by_two,
        "raw, found at once": lambda: posted("true"),
    }
    rates: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(rounds + 1):
        for name, contender in contenders.items():
            cluster.clear(index)
            store.setup()
            for year in years:
                cluster.call("PUT", f"/{index}-{year}")
            rate = contender()
            direct.client.indices.refresh(index=index)
            there = direct.client.count(index=index)["count"]
            if there != count:
                raise RuntimeError(f"{name}: {there} of {count} entries are in the index")
            if number or rounds == 1:  # the first round warms
                rates[name].append(rate)
    cluster.clear(index)
    store.close()
    direct.close()
    found = _figures(rates)
    results.put(
        "ship", f"{count:,} entries, spool to OpenSearch", found,
        [
            at_least("shipper / helpers.bulk", found["shipper"]["median"] / found["helpers.bulk"]["median"], 2),
            at_least("shipper / raw", found["shipper"]["median"] / found["raw"]["median"], 0.85),
        ],
        unit="entries/s",
        note="`helpers.bulk` and `raw` are given documents that are ready; the shipper reads the spool, makes them, "
        "and waits until each batch can be found.",
    )  # fmt: skip


def _bulk(direct: DirectOpenSearch, places: Sequence[dict[str, str]], documents: Sequence[dict[str, Any]]) -> None:
    operations = (
        {"_op_type": "create", **place, "_source": document} for place, document in zip(places, documents, strict=True)
    )
    opensearchpy.helpers.bulk(direct.client, operations)
    direct.client.indices.refresh(index=direct.index)


def _post(direct: DirectOpenSearch, body: bytes, refresh: str) -> None:
    params = {"refresh": refresh, "filter_path": "errors"}
    answer = direct.client.transport.perform_request(
        "POST", "/_bulk", params=params, body=body, headers={"content-type": "application/x-ndjson"}
    )
    if answer["errors"]:
        raise RuntimeError("a bulk request had errors")


def _owner(document: dict[str, Any]) -> str:
    return sha256(document["organization"]["id"].encode()).hexdigest()[:32]


# SQLite


def _into_sqlite(setting: Setting, results: Results, spool: Path, count: int, rounds: int) -> None:
    with closing(Spool(spool, None)) as full:
        events = full.pending(count, 2**40)
    path = setting.scratch("ship.db")
    rates: dict[str, list[float]] = {"shipper": [], "the same rows, bare SQL": []}
    for number in range(rounds + 1):
        setting.scratch("ship.db")
        with closing(open_store(f"sqlite:///{path}")) as store:
            store.setup()
            ours = ship(spool, store, count)
            total = store.search(Case("all").query(), Window(1)).total
        if total != count:
            raise RuntimeError(f"{total} of {count} entries are in the store")
        tables = _tables(path, events)
        setting.scratch("ship.db")
        with closing(open_store(f"sqlite:///{path}")) as store:
            store.setup()
        bare = _rate(count, lambda tables=tables: _bare(path, tables, count))
        if number or rounds == 1:
            rates["shipper"].append(ours)
            rates["the same rows, bare SQL"].append(bare)
    setting.scratch("ship.db")
    results.put("ship", f"{count:,} entries, spool to SQLite", _figures(rates), unit="entries/s")


Tables = dict[str, list[tuple[Any, ...]]]


def _tables(path: Path, events: Sequence[AuditEvent]) -> Tables:
    """What the store wrote, as rows."""
    with closing(apsw.Connection(str(path))) as database:
        tables: Tables = {
            name: [tuple(row) for row in database.execute(f"SELECT * FROM {name} ORDER BY 1")]
            for name in ("orgs", "entries", "contents")
        }
    tables["search"] = [(number, *search_texts(event)) for number, event in enumerate(events, 1)]
    return tables


def _bare(path: Path, tables: Tables, count: int) -> None:
    """The same rows in as many transactions."""
    with closing(apsw.Connection(str(path))) as database:
        database.execute("PRAGMA synchronous = FULL")
        columns = {"search": " (rowid, action, target, detail, user)"}
        database.executemany("INSERT INTO orgs VALUES (?, ?)", tables["orgs"])
        for first in range(0, count, BATCH):
            database.execute("BEGIN IMMEDIATE")
            for name in ("entries", "contents", "search"):
                rows = tables[name][first : first + BATCH]
                marks = ",".join("?" * len(rows[0]))
                database.executemany(f"INSERT INTO {name}{columns.get(name, '')} VALUES ({marks})", rows)
            database.execute("COMMIT")


def _rate(count: int, work: Callable[[], Any]) -> float:
    begin = time.perf_counter()
    work()
    return count / (time.perf_counter() - begin)


def _figures(rates: dict[str, list[float]]) -> dict[str, Figure]:
    return {name: figure(values) for name, values in rates.items()}
