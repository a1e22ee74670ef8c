"""The same questions put to the engines without this project's code: the best queries that are known for them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic
from typing import Any

import apsw
import opensearchpy
import orjson

from .asked import ORG, Case

__all__ = ["Direct", "DirectOpenSearch", "DirectSQLite", "Place"]

Ask = Callable[[], Any]
Place = tuple[int, str, str]
"""Time (ms), action and id of an entry: where a page begins after it."""

PATIENCE_S = 20.0
"""After how many seconds a way to ask is given up."""

_ORDERS = {
    "-timestamp": (("@timestamp", "desc"), ("event.id", "desc")),
    "timestamp": (("@timestamp", "asc"), ("event.id", "asc")),
    "action": (("event.action", "asc"), ("@timestamp", "desc"), ("event.id", "desc")),
    "-action": (("event.action", "desc"), ("@timestamp", "desc"), ("event.id", "desc")),
}
_SQL_ORDERS = {
    "-timestamp": "timestamp DESC, id DESC",
    "timestamp": "timestamp, id",
    "action": "action, timestamp DESC, id DESC",
    "-action": "action DESC, timestamp DESC, id DESC",
}


class _JSON(opensearchpy.serializer.JSONSerializer):
    """The client's own is slower, also for whoever asks it directly."""

    def loads(self, text: Any) -> Any:
        return orjson.loads(text)


class DirectOpenSearch:
    """opensearch-py, as a program uses it."""

    def __init__(self, host: str, index: str) -> None:
        name, _, port = host.partition(":")
        self.client = opensearchpy.OpenSearch(
            [{"host": name, "port": int(port)}], pool_maxsize=16, timeout=300, serializers={"application/json": _JSON()}
        )
        self.index = index

    def close(self) -> None:
        """Close the connections."""
        self.client.close()

    def search(self, body: dict[str, Any], **params: Any) -> Any:
        """One search."""
        return self.client.search(body=body, index=self.index, **params)

    def count(self, case: Case) -> int:
        """The engine's own count."""
        total: int = self.client.count(body={"query": case.clause()}, index=self.index)["count"]
        return total

    def counts(self, case: Case) -> dict[str, Ask]:
        """The ways to count."""
        body = {"size": 0, "track_total_hits": True, "query": case.clause()}
        return {"_count": lambda: self.count(case), "size 0": lambda: self.search(body)}

    def rows(self, case: Case, sort: str, size: int = 25, after: Place | None = None) -> Ask:
        """A page without a total."""
        body = self._page(case, sort, size, after) | {"track_total_hits": False}
        return lambda: self.search(body)

    def pages(self, case: Case, sort: str, size: int = 25, after: Place | None = None) -> dict[str, Ask]:
        """The ways to ask for a page and the exact total."""
        rows = self._page(case, sort, size, after)
        total = {"size": 0, "track_total_hits": True, "query": case.clause()}
        apart = [{"index": self.index}, rows | {"track_total_hits": False}, {"index": self.index}, total]
        both: dict[str, Ask] = {"one _msearch": lambda: self.client.msearch(body=apart)}
        if after is None:
            both["one search"] = lambda: self.search(rows | {"track_total_hits": True})
        return both

    def skipped(self, case: Case, sort: str, offset: int) -> Ask:
        """A page by `from`."""
        body = self._page(case, sort, 25, None) | {"from": offset, "track_total_hits": True}
        return lambda: self.search(body)

    def drained(self, case: Case, limit: int, size: int) -> Ask:
        """A scroll of the first rows, read to its end."""
        body = self._page(case, "-timestamp", size, None)

        def drain() -> int:
            answer = self.search(body, scroll="5m")
            got = len(answer["hits"]["hits"])
            while got < min(limit, answer["hits"]["total"]["value"]):
                answer = self.client.scroll(body={"scroll": "5m", "scroll_id": answer["_scroll_id"]})
                got += len(answer["hits"]["hits"])
            self.client.clear_scroll(body={"scroll_id": [answer["_scroll_id"]]})
            return got

        return drain

    def scanned(self, case: Case, limit: int) -> Ask:
        """`helpers.scan`, in order, with its defaults otherwise."""
        body = {name: value for name, value in self._page(case, "-timestamp", 1, None).items() if name != "size"}

        def scan() -> int:
            got = 0
            for _ in opensearchpy.helpers.scan(self.client, query=body, index=self.index, preserve_order=True):
                got += 1
                if got == limit:
                    break
            return got

        return scan

    def _page(self, case: Case, sort: str, size: int, after: Place | None) -> dict[str, Any]:
        fields = _ORDERS[sort]
        clause = case.clause()
        body: dict[str, Any] = {"size": size, "_source": {"excludes": ["search"]}}
        body["sort"] = [{name: way} for name, way in fields]
        if after is not None:
            values = dict(zip(("@timestamp", "event.action", "event.id"), after, strict=True))
            body["search_after"] = [values[name] for name, _ in fields]
            lead, way = fields[0]
            sign = "gte" if way == "asc" else "lte"
            bound = {sign: values[lead]} | ({"format": "epoch_millis"} if lead == "@timestamp" else {})
            clause = {"bool": {"filter": [clause, {"range": {lead: bound}}]}}
        return body | {"query": clause}


class DirectSQLite:
    """apsw, with the tables of the store."""

    def __init__(self, path: Path) -> None:
        self.db = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE)
        self.db.set_busy_timeout(60_000)
        self.db.execute("PRAGMA temp_store = MEMORY")
        self.org = self.db.execute("SELECT org FROM orgs WHERE name = ?", (ORG,)).get

    def close(self) -> None:
        """Close the connection."""
        self.db.close()

    def ask(self, sql: str, bindings: tuple[Any, ...]) -> Ask:
        """A statement, its rows read. Raises apsw.InterruptError where it takes too long."""

        def asked() -> Any:
            end = monotonic() + PATIENCE_S
            self.db.set_progress_handler(lambda: monotonic() > end, 1_000_000)
            return self.db.execute(sql, bindings).fetchall()

        return asked

    def counts(self, case: Case) -> dict[str, Ask]:
        """The ways to count."""
        where, bindings = self._where(case)
        ways = {"count(*)": self.ask(f"SELECT count(*) FROM entries WHERE {where}", bindings)}
        if case.match:  # there is one organisation
            match = f"({case.match}) NOT ({case.exclude})" if case.exclude else case.match
            ways["words alone"] = self.ask("SELECT count(*) FROM search WHERE search MATCH ?", (match,))
        if case.match and not case.exclude:
            ways["joined"] = self.ask(
                "SELECT count(*) FROM search CROSS JOIN entries ON number = search.rowid "
                "WHERE search MATCH ? AND org = ?",
                (case.match, self.org),
            )
        return ways

    def rows(self, case: Case, sort: str, size: int = 25, after: Place | None = None) -> Ask:
        """A page without a total; of several ways, see `pages`, the first."""
        return next(iter(self._rows(case, sort, size, after).values()))

    def pages(self, case: Case, sort: str, size: int = 25, after: Place | None = None) -> dict[str, Ask]:
        """The ways to ask for a page and the exact total."""

        def both(rows: Ask, count: Ask) -> Ask:
            return lambda: (rows(), count())

        return {
            f"{way}, {counting}": both(rows, count)
            for way, rows in self._rows(case, sort, size, after).items()
            for counting, count in self.counts(case).items()
        }

    def skipped(self, case: Case, sort: str, offset: int) -> Ask:
        """A page by OFFSET."""
        where, bindings = self._where(case)
        return self.ask(
            "SELECT body FROM contents JOIN (SELECT number AS n FROM entries WHERE "
            f"{where} ORDER BY {_SQL_ORDERS[sort]} LIMIT 25 OFFSET ?) ON number = n", (*bindings, offset),
        )  # fmt: skip

    def drained(self, case: Case, limit: int, size: int) -> Ask:
        """The first rows, `size` at a time."""
        where, bindings = self._where(case)
        table = "entries JOIN contents USING (number)"
        sql = f"SELECT body FROM {table} WHERE {where} ORDER BY timestamp DESC, id DESC LIMIT ?"

        def drain() -> int:
            rows: Iterator[Any] = self.db.execute(sql, (*bindings, limit))
            return sum(1 for _ in rows)

        return drain

    def _rows(self, case: Case, sort: str, size: int, after: Place | None) -> dict[str, Ask]:
        where, bindings = self._where(case)
        way = _SQL_ORDERS[sort]
        if after is not None:
            where, bindings = f"{where} AND {_beyond(sort)}", (*bindings, *_values(sort, after))
        inner = "SELECT body FROM contents JOIN ({}) ON number = n"
        plain = f"SELECT number AS n FROM entries WHERE {where} ORDER BY {way} LIMIT ?"
        ways = {"IN": self.ask(inner.format(plain), (*bindings, size))}
        if case.match:
            excluded = (
                "AND NOT EXISTS (SELECT 1 FROM search WHERE search MATCH ? AND rowid = number)" if case.exclude else ""
            )
            more = (case.exclude,) if case.exclude else ()
            joined = (
                "SELECT number AS n FROM search CROSS JOIN entries ON number = search.rowid WHERE search MATCH ? "
                f"AND org = ? {excluded} ORDER BY {way} LIMIT ?"
            )
            ways["joined"] = self.ask(inner.format(joined), (case.match, self.org, *more, size))
        return ways

    def _where(self, case: Case) -> tuple[str, tuple[Any, ...]]:
        where, bindings = "org = ?", (self.org,)
        if case.where:
            where, bindings = f"{where} AND {case.where}", (*bindings, *case.bindings)
        for expression, sign in ((case.match, "IN"), (case.exclude, "NOT IN")):
            if expression:
                where += f" AND number {sign} (SELECT rowid FROM search WHERE search MATCH ?)"
                bindings = (*bindings, expression)
        return where, bindings


Direct = DirectOpenSearch | DirectSQLite


def _beyond(sort: str) -> str:
    if sort.endswith("timestamp"):
        return f"(timestamp, id) {'<' if sort[0] == '-' else '>'} (?, ?)"
    sign = "<" if sort[0] == "-" else ">"
    return f"action {sign}= ? AND (action {sign} ? OR (timestamp, id) < (?, ?))"


def _values(sort: str, after: Place) -> tuple[Any, ...]:
    timestamp, action, event_id = after
    last = (timestamp, bytes.fromhex(event_id.replace("-", "")))
    return last if sort.endswith("timestamp") else (action, action, *last)
