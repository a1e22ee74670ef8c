"""A host application: it records entries, and notes in a side file which calls began and which returned.

A program of its own, so that it can be killed: `python -m tests.faults.emitter --said FILE --events 100 STORE`.
"""

from __future__ import annotations

import argparse
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from audit_pipeline import AuditError, AuditPipeline

__all__ = ["Notebook", "beside", "main"]


class Notebook:
    """A side file. Each line is one write: a kill leaves all of it or a part without its end, never a gap."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def begin(self, target: str) -> None:
        """A call begins."""
        os.write(self._file, f"?{target}\n".encode())

    def accepted(self, event_id: str, target: str) -> None:
        """It returned."""
        os.write(self._file, f"={event_id} {target}\n".encode())

    def call(self, audit: AuditPipeline, target: str, **given: Any) -> str:
        """Record an entry, and note both. Raises what `record` raises: then the entry was not accepted."""
        self.begin(target)
        event_id = audit.record("domain.created", target=target, user="alice", ip="192.0.2.1", **given)
        self.accepted(event_id, target)
        return event_id


def beside(place: int) -> float:
    """How many seconds from the border an entry's time lies: before it and after it in turn."""
    return (place * 997 % 2000 - 1000) / 10


def main() -> int:
    """Record entries until there are enough, or somebody kills this."""
    known = argparse.ArgumentParser()
    known.add_argument("store")
    known.add_argument("--said", type=Path, required=True)
    known.add_argument("--name", default="")
    known.add_argument("--events", type=int, default=10**9)
    known.add_argument("--border", type=float, help="a moment that the entries' times lie around")
    known.add_argument("--detail", type=int, default=0, help="how many characters each entry has")
    known.add_argument("--pause", type=float, default=0.0, help="between two entries, in seconds")
    known.add_argument("--threads", type=int, default=1)
    known.add_argument("--ship", action="store_true")
    known.add_argument("--durability", default="disk")
    known.add_argument("--stubborn", action="store_true", help="go on where an entry is refused")
    chosen = known.parse_args()
    notes = Notebook(chosen.said)
    audit = _opened(chosen)
    name = chosen.name or str(os.getpid())

    def emit(thread: int) -> None:
        for place in range(chosen.events):
            given: dict[str, Any] = {"detail": "d" * chosen.detail}
            if chosen.border is not None:
                given["timestamp"] = chosen.border + beside(place)
            try:
                notes.call(audit, f"{name}-{thread}-{place}.example.com", **given)
            except AuditError as error:
                if not chosen.stubborn:
                    raise
                print(error, file=sys.stderr)
            time.sleep(chosen.pause)

    _together(chosen.threads, emit)
    return 0


def _opened(chosen: argparse.Namespace) -> AuditPipeline:
    while True:
        try:
            return AuditPipeline.open(chosen.store, ship=chosen.ship, durability=chosen.durability)
        except AuditError as error:
            if not chosen.stubborn:
                raise
            print(error, file=sys.stderr)
            time.sleep(0.01)


def _together(number: int, run: Callable[[int], None]) -> None:
    if number == 1:
        run(0)
        return
    threads = [threading.Thread(target=run, args=(thread,)) for thread in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    sys.exit(main())
