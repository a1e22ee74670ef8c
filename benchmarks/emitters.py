"""Ways to log an event, each in a process of its own: `python -m benchmarks.emitters KIND FOLDER [URL]`.

Answers each `{"calls": n, "threads": t}` (and `every`, in seconds, where calls come at a pace) with the microseconds of
the calls and the seconds of all of them together.
Some kinds need what `requirements.txt` names, the others this project: so imports are made where they are needed.
"""

from __future__ import annotations

import json
import logging
import logging.handlers
import os
import queue
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

__all__ = ["KINDS"]

Call = Callable[[int], Any]

EVENT = {"target": "host-4711.example.com", "detail": "DKIM enabled, selector s4711"}
THOUSAND = 1000
USER, IP = "alice@example.com", "203.0.113.9"


def _structlog(folder: Path, *processors: Any) -> Any:
    """A logger into a file, as applications set it up."""
    import structlog

    file = (folder / "log.json").open("a", encoding="utf-8")
    return structlog.wrap_logger(
        structlog.WriteLogger(file),
        processors=[structlog.contextvars.merge_contextvars, *processors, structlog.processors.JSONRenderer()],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        cache_logger_on_first_use=True,
    )


def _pipeline(folder: Path, url: str, durability: str, ship: bool) -> Call:
    from audit_pipeline import AuditPipeline, bind_actor

    pipeline = AuditPipeline.open(url, spool=folder / "spool.db", durability=durability, ship=ship)
    log = _structlog(folder, pipeline.processor)

    def call(number: int) -> None:
        with bind_actor(user=USER, ip=IP):
            log.info("dkim.key_generated", **EVENT, number=number)

    return call


def disk(folder: Path, url: str) -> Call:
    """The processor; each entry is on disk when the call returns."""
    return _pipeline(folder, url, "disk", ship=False)


def process(folder: Path, url: str) -> Call:
    """The processor; each entry survives the end of the process."""
    return _pipeline(folder, url, "process", ship=False)


def disk_shipping(folder: Path, url: str) -> Call:
    """The same as `disk`, with the shipper in this process."""
    return _pipeline(folder, url, "disk", ship=True)


def process_shipping(folder: Path, url: str) -> Call:
    """The same as `process`, with the shipper in this process."""
    return _pipeline(folder, url, "process", ship=True)


def _entry() -> Any:
    """What the processor makes of EVENT."""
    from audit_pipeline import AuditPipeline
    from audit_pipeline.actions import catalogue

    with AuditPipeline.open("memory://", ship=False) as pipeline:
        return pipeline.prepare(catalogue["dkim.key_generated"], {**EVENT, "user": USER, "ip": IP, "number": 1})


def straight(folder: Path, url: str) -> Call:
    """A thousand entries straight into the store with each call, and nothing on this machine's disk."""
    from dataclasses import replace

    from audit_pipeline.event import now_ms, uuid7
    from audit_pipeline.stores import open_store

    made = _entry()
    store = open_store(url)

    def call(number: int) -> None:
        now = now_ms()
        store.append([replace(made, id=uuid7(now, number * THOUSAND + place)) for place in range(THOUSAND)])

    return call


def _bare(folder: Path, synchronous: str) -> Call:
    """structlog into a file, and one SQLite commit of the bytes that an entry has."""
    import apsw

    body = _entry().to_bytes()
    database = apsw.Connection(str(folder / "bare.db"))
    database.execute("PRAGMA journal_mode = WAL").fetchall()
    database.execute(f"PRAGMA synchronous = {synchronous}")
    database.execute("CREATE TABLE IF NOT EXISTS entries (n INTEGER PRIMARY KEY, received INTEGER, body BLOB)")
    log = _structlog(folder)

    def call(number: int) -> None:
        log.info("dkim.key_generated", **EVENT, number=number)
        database.execute("INSERT INTO entries (received, body) VALUES (?, ?)", (number, body))

    return call


def bare_full(folder: Path, url: str) -> Call:
    """structlog to a file and a bare commit, FULL."""
    return _bare(folder, "FULL")


def bare_normal(folder: Path, url: str) -> Call:
    """structlog to a file and a bare commit, NORMAL."""
    return _bare(folder, "NORMAL")


def only_file(folder: Path, url: str) -> Call:
    """structlog to a file."""
    log = _structlog(folder)
    return lambda number: log.info("dkim.key_generated", **EVENT, number=number)


def _logger(handler: logging.Handler) -> Call:
    logger = logging.getLogger("benchmarks")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    logger.addHandler(handler)
    return lambda number: logger.info("dkim.key_generated", extra={**EVENT, "user": USER, "ip": IP, "number": number})


def queue_handler(folder: Path, url: str) -> Call:
    """logging's QueueHandler, and a listener that writes a file. What is in the queue is lost with the process."""
    events: queue.SimpleQueue[Any] = queue.SimpleQueue()
    file = logging.FileHandler(folder / "queue.log")
    logging.handlers.QueueListener(events, file).start()  # type: ignore[arg-type]
    return _logger(logging.handlers.QueueHandler(events))  # type: ignore[arg-type]


def opensearch_logger(folder: Path, url: str) -> Call:
    """opensearch-logger into the engine. What is in its buffer is lost with the process."""
    from opensearch_logger import OpenSearchHandler

    return _logger(OpenSearchHandler(index_name="bench-logger", hosts=[f"http://{url}"], use_ssl=False))


def persist_queue_file(folder: Path, url: str) -> Call:
    """persist-queue's queue of files."""
    import persistqueue

    kept = persistqueue.Queue(str(folder / "persist-queue"), autosave=True)
    return lambda number: kept.put({**EVENT, "action": "dkim.key_generated", "user": USER, "ip": IP, "number": number})


def persist_queue_sqlite(folder: Path, url: str) -> Call:
    """persist-queue's queue in SQLite."""
    import persistqueue

    kept = persistqueue.SQLiteQueue(str(folder / "persist-sqlite"), auto_commit=True, multithreading=True)
    return lambda number: kept.put({**EVENT, "action": "dkim.key_generated", "user": USER, "ip": IP, "number": number})


def no_event(folder: Path, url: str) -> Call:
    """A log call that is no audit event: microseconds with the processor, without it, and again."""
    from audit_pipeline import AuditPipeline

    pipeline = AuditPipeline.open(url, spool=folder / "spool.db", ship=False)
    logs = {"with": _structlog(folder, pipeline.processor), "without": _structlog(folder)}

    def call(number: int) -> dict[str, float]:
        spent = {}
        for name in ("with", "without") if number % 2 else ("without", "with"):
            info = logs[name].info
            begin = time.perf_counter()
            for each in range(500):
                info("cache.refreshed", region="eu", hits=each, took=0.25)
            spent[name] = (time.perf_counter() - begin) / 500 * 1e6
        return spent

    return call


KINDS: dict[str, Callable[[Path, str], Call]] = {
    made.__name__: made
    for made in (
        disk, process, disk_shipping, process_shipping, straight, bare_full, bare_normal, only_file, queue_handler,
        opensearch_logger, persist_queue_file, persist_queue_sqlite, no_event,
    )
}  # fmt: skip
"""All of them by their names."""


def _measured(call: Call, calls: int, threads: int, every: float = 0.0) -> dict[str, Any]:
    """Calls of each thread, one in so many seconds, or one right after the other."""
    spent: list[Any] = []
    barrier = threading.Barrier(threads + 1)

    def work() -> None:
        own = []
        barrier.wait()
        due = time.perf_counter()
        for number in range(calls):
            if every:
                due += every
                time.sleep(max(0.0, due - time.perf_counter()))
            begin = time.perf_counter()
            said = call(number)
            own.append(said if said is not None and isinstance(said, dict) else (time.perf_counter() - begin) * 1e6)
        spent.extend(own)

    workers = [threading.Thread(target=work) for _ in range(threads)]
    for worker in workers:
        worker.start()
    barrier.wait()
    begin = time.perf_counter()
    for worker in workers:
        worker.join()
    return {"seconds": time.perf_counter() - begin, "microseconds": spent}


def main() -> None:
    """Answer until the input ends."""
    kind, folder = sys.argv[1], Path(sys.argv[2]) / sys.argv[1]
    folder.mkdir(parents=True, exist_ok=True)
    call = KINDS[kind](folder, sys.argv[3] if len(sys.argv) > 3 else "")
    print(json.dumps({"kind": kind}), flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        print(json.dumps(_measured(call, **asked)), flush=True)
    # What it has in its queues is of no interest any more.
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
