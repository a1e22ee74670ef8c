"""Fifty people who page and search: `python -m benchmarks.readers PORT TOKEN READERS SECONDS PAUSE BEFORE NAME`.

Each asks, reads for PAUSE seconds on average, and asks again. Prints the milliseconds of pages and of searches, and how
often a total was smaller than what is there for certain: BEFORE entries, and all of NAME that this reader saw.
"""

from __future__ import annotations

import json
import random
import sys
import threading
import time

from .asked import SEARCHES
from .places import Client

__all__ = ["main"]


class Reader:
    """One of them."""

    def __init__(self, number: int, port: int, token: str, end: float, pause: float, before: int, name: str) -> None:
        self._client = Client(port, token)
        self._chance = random.Random(number)
        self._end = end
        self._pause = pause
        self.spent: dict[str, list[float]] = {"pages": [], "searches": []}
        self.too_small = 0
        self.failures = 0
        self._before = before
        self._arriving = f"arriving {name} "
        self._seen: set[str] = set()
        """The ids of what came meanwhile and was in an answer: it is there for good."""

    def run(self) -> None:
        """Read until the end."""
        cursor = None
        time.sleep(self._chance.random() * self._pause)
        while time.monotonic() < self._end:
            kind, parameters = self._wish(cursor)
            begin = time.perf_counter()
            try:
                page = self._client.page(parameters)
            except RuntimeError:
                self.failures += 1
                continue
            self.spent[kind].append((time.perf_counter() - begin) * 1000)
            if kind == "pages":
                cursor = page["next"]
                self._compare(page)
            time.sleep(self._chance.uniform(0.5, 1.5) * self._pause)

    def _wish(self, cursor: str | None) -> tuple[str, dict[str, object]]:
        luck = self._chance.random()
        if luck < 0.3:
            return "searches", dict(self._chance.choice(SEARCHES).parameters)
        if luck < 0.5 or cursor is None:
            return "pages", {}
        if luck < 0.7:
            return "pages", {"page": self._chance.randrange(1, 2000)}
        return "pages", {"cursor": cursor}

    def _compare(self, page: dict[str, object]) -> None:
        """A total of all entries counts what was there before, what this answer shows, and what was seen earlier."""
        items, total = page["items"], page["total"]
        assert isinstance(items, list)
        assert isinstance(total, int)
        self._seen.update(item["id"] for item in items if str(item["detail"]).startswith(self._arriving))
        self.too_small += total < self._before + len(self._seen)


def main() -> None:
    """Do it."""
    port, token, readers, seconds, pause, before, name = sys.argv[1:]
    end = time.monotonic() + float(seconds)
    people = [Reader(number, int(port), token, end, float(pause), int(before), name) for number in range(int(readers))]
    threads = [threading.Thread(target=person.run) for person in people]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    said: dict[str, object] = {
        name: [round(value, 3) for person in people for value in person.spent[name]] for name in ("pages", "searches")
    }
    said["too_small"] = sum(person.too_small for person in people)
    said["failures"] = sum(person.failures for person in people)
    print(json.dumps(said))


if __name__ == "__main__":
    main()
