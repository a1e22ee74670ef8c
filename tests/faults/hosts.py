"""Host applications of several kinds: how they fork, run tasks, and end.

Programs of their own: `python -m tests.faults.hosts fork STORE --said FILE --events 100`.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import multiprocessing
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable, MutableMapping
from pathlib import Path
from typing import Any

import structlog

from audit_pipeline import AuditPipeline
from audit_pipeline.event import now_ms, uuid7

from .emitter import Notebook

__all__ = ["KINDS", "main"]

CHILDREN = 8
TASKS = 40


def fork(audit: AuditPipeline, notes: Notebook, events: int) -> None:
    """Fork children with the pipeline open, some by multiprocessing, while threads of the parent record; all record."""
    stop = _in_threads(audit, notes, f"parent-{os.getpid()}")
    context = multiprocessing.get_context("fork")
    others, pids = [], []
    for each in range(CHILDREN // 2):
        others.append(context.Process(target=_record, args=(audit, notes, f"other-{os.getpid()}-{each}", events)))
        others[-1].start()
        if not (pid := os.fork()):
            _record(audit, notes, f"child-{os.getpid()}-{each}", events)
            os._exit(0)
        pids.append(pid)
    ends = [os.waitpid(pid, 0)[1] for pid in pids]
    for other in others:
        other.join()
        ends.append(other.exitcode or 0)
    stop()
    if any(ends):
        sys.exit(f"children ended with {ends}")


def tasks(audit: AuditPipeline, notes: Notebook, events: int) -> None:
    """Record by structlog in many tasks, in the loop and in threads of it, and cancel most of them somewhere."""
    structlog.configure(processors=[audit.processor, _drop])
    log = structlog.get_logger()
    chosen = random.Random(7)

    async def work(task: int) -> None:
        for place in range(events):
            target, event_id = f"task-{os.getpid()}-{task}-{place}.example.com", uuid7(now_ms(), chosen.getrandbits(74))
            notes.begin(target)
            if place % 2:
                log.info("domain.created", target=target, id=event_id)
            else:
                await log.ainfo("domain.created", target=target, id=event_id)
            notes.accepted(event_id, target)
            await asyncio.sleep(0)

    async def run() -> int:
        working = [asyncio.create_task(work(task)) for task in range(TASKS)]
        while any(not task.done() for task in working):
            await asyncio.sleep(chosen.random() * events / 1000)
            if len(left := [task for task in working if not task.done()]) > 4:
                chosen.choice(left).cancel()
        ends = await asyncio.gather(*working, return_exceptions=True)
        return sum(isinstance(end, asyncio.CancelledError) for end in ends)

    print(asyncio.run(run()))


def _drop(logger: object, method: str, event: MutableMapping[str, Any]) -> Any:
    raise structlog.DropEvent


# Ends in the middle of calls of other threads, with entries still to ship


def by_exit(audit: AuditPipeline, notes: Notebook, events: int) -> None:
    """End by sys.exit, without closing."""
    _end(audit, notes, events)
    sys.exit(0)


def by_os_exit(audit: AuditPipeline, notes: Notebook, events: int) -> None:
    """End by os._exit."""
    _end(audit, notes, events)
    os._exit(0)


def by_exception(audit: AuditPipeline, notes: Notebook, events: int) -> None:
    """End by an exception that nobody handles."""
    _end(audit, notes, events)
    raise RuntimeError("nobody handles this")


def by_signal(audit: AuditPipeline, notes: Notebook, events: int) -> None:
    """End when asked to: SIGTERM is a sys.exit, as applications do."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    _end(audit, notes, events)
    while True:
        time.sleep(60)


def _end(audit: AuditPipeline, notes: Notebook, events: int) -> None:
    _in_threads(audit, notes, f"daemon-{os.getpid()}")
    _record(audit, notes, f"main-{os.getpid()}", events)


def _in_threads(audit: AuditPipeline, notes: Notebook, name: str) -> Callable[[], None]:
    """Record in two threads from now on, until this process ends or what is returned is called."""
    ended = threading.Event()

    def go_on(thread: int) -> None:
        for place in itertools.count():
            if ended.is_set():
                return
            notes.call(audit, f"{name}-{thread}-{place}.example.com")

    threads = [threading.Thread(target=go_on, args=(thread,), daemon=True) for thread in range(2)]
    for thread in threads:
        thread.start()

    def stop() -> None:
        ended.set()
        for thread in threads:
            thread.join()

    return stop


def _record(audit: AuditPipeline, notes: Notebook, name: str, events: int) -> None:
    for place in range(events):
        notes.call(audit, f"{name}-{place}.example.com")


KINDS = {
    "fork": fork,
    "tasks": tasks,
    "sys.exit": by_exit,
    "os._exit": by_os_exit,
    "exception": by_exception,
    "signal": by_signal,
}


def main() -> int:
    """Be one of the kinds, until its end."""
    known = argparse.ArgumentParser()
    known.add_argument("kind", choices=KINDS)
    known.add_argument("store")
    known.add_argument("--said", type=Path, required=True)
    known.add_argument("--events", type=int, default=100)
    chosen = known.parse_args()
    KINDS[chosen.kind](AuditPipeline.open(chosen.store), Notebook(chosen.said), chosen.events)
    return 0


if __name__ == "__main__":
    sys.exit(main())
