"""OpenSearch as a store: entries are ECS documents, in indices named by the time in their ids, behind one alias."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...errors import SettingsError, StoreError, StoreUnavailable
from ...event import AuditEvent
from ...index_templates import GRANULARITIES
from ...query import Query, Window
from ..base import Arrivals, Page, Refusal, Snapshot, Store, StoreURL
from .arrivals import Following
from .engine import Engine
from .reading import Reader
from .scroll import Scroll
from .template import IndexTemplate
from .writing import Writer, place

__all__ = ["STORE", "OpenSearchStore"]

_OPTIONS = {
    # No "-2" in it: that begins what is added to the name, and two stores could get into each other's indices.
    "index": (r"(?!.*-2)[a-z0-9][a-z0-9_-]{0,99}", "up to 100 of a-z, 0-9, - and _ without -2, such as audit-events"),
    "granularity": ("|".join(GRANULARITIES), ", ".join(GRANULARITIES)),
    "shards": (r"[1-9]\d{0,2}", "whole numbers from 1 to 999"),
    "replicas": (r"\d{1,2}(-\d{1,2}|-all)?", "whole numbers, and ranges such as 0-2 (as there are nodes)"),
}


class OpenSearchStore(Store):
    """One index name of one cluster, for any number of machines."""

    schemes = ("opensearch", "opensearch+https")
    spool_path: Path | None = None

    def __init__(self, engine: Engine, index: str, options: dict[str, str]) -> None:
        self._engine = engine
        self._index = index
        self._template = IndexTemplate(engine, index, options)
        self._writer = Writer(engine, index, self._template)
        self._reader = Reader(engine, index)
        self._following = Following(self._reader)

    @classmethod
    def from_url(cls, url: StoreURL) -> OpenSearchStore:
        """`opensearch://host:9200[,host2:9200]`, `opensearch+https://user:password@host:9200`, with options."""
        url.only_options(*_OPTIONS, "ca_certs", "api_key")
        for name, (pattern, allowed) in _OPTIONS.items():
            given = url.options.get(name)
            if given is not None and not re.fullmatch(pattern, given, re.ASCII):
                raise SettingsError(f"AUDIT_STORE_URL: {name} {given[:40]!r} is not allowed; allowed are {allowed}")
        if url.path.strip("/"):
            raise SettingsError(
                "AUDIT_STORE_URL: opensearch takes no path; an index is named as in "
                "opensearch://host:9200?index=audit-events"
            )
        if url.user and "api_key" in url.options:
            raise SettingsError("AUDIT_STORE_URL: has a user and an api_key; allowed is one of them")
        options = {name: value for name, value in url.options.items() if name in ("granularity", "shards", "replicas")}
        return cls(Engine(url), str(url.options.get("index", "audit-events")), dict[str, str](options))

    def identity(self, spool: Path) -> str:
        """The first host and the index name. Further hosts may be added, and accounts be changed."""
        return f"opensearch:{self._engine.name.split(',')[0]}/{self._index}"

    def setup(self) -> list[str]:
        """Install the index template, or upgrade an older one. See Store.setup."""
        return self._template.install()

    def append(self, events: Sequence[AuditEvent]) -> list[Refusal]:
        """See Store.append."""
        try:
            return self._writer.write(events)
        except StoreError:
            self._template.forget()
            raise

    def get(self, org: str, event_id: str) -> AuditEvent | None:
        """See Store.get."""
        where = place(self._index, self._template.for_reading().granularity, org, event_id)
        path = f"/{where.index_name}/_doc/{where.document_id}"
        found = self._engine.ask("GET", path, params={"_source_excludes": "search"})
        return self._reader.event(found["_source"]) if found is not None and found.get("found") else None

    def search(self, query: Query, window: Window) -> Page:
        """See Store.search."""
        page = self._reader.page(query, window)
        self._there()
        return page

    def snapshot(self, query: Query, limit: int, *, in_full: bool = True) -> Snapshot:
        """See Store.snapshot."""
        scroll = Scroll(self._reader, query, limit, in_full)
        try:
            self._there()
        except BaseException:
            scroll.close()
            raise
        return scroll

    def arrivals(self, position: str | None, limit: int = 1000) -> Arrivals:
        """See Store.arrivals."""
        came = self._following.after(position, limit) if position is not None else Arrivals((), self._following.now())
        self._there()
        return came

    def histogram(self, query: Query, edges: Sequence[int]) -> list[dict[str, int]]:
        """See Store.histogram."""
        spans = self._reader.histogram(query, edges)
        self._there()
        return spans

    def organisations(self) -> list[str]:
        """See Store.organisations."""
        names: list[str] = []
        composite: dict[str, Any] = {"sources": [{"org": {"terms": {"field": "organization.id"}}}], "size": 1000}
        while True:
            answer = self._reader.search({"size": 0, "aggs": {"orgs": {"composite": composite}}})
            self._there()
            buckets = answer.get("aggregations", {}).get("orgs", {}).get("buckets", [])
            if not buckets:
                return names
            names += [bucket["key"]["org"] for bucket in buckets]
            composite["after"] = buckets[-1]["key"]

    def check(self) -> str:
        """See Store.check."""
        about = self._engine.ask("GET", "/", needs=["version"])
        template = self._template.state()
        health = self._engine.ask("GET", "/_cluster/health", needs=["status", "number_of_nodes"])
        count = self._engine.ask("GET", f"/{self._index}/_count", needs=["count"]) or {"count": 0}
        shards = count.get("_shards", {"total": 0, "successful": 0})
        if missing := shards["total"] - shards["successful"]:
            # A count is answered without them; a search is not.
            raise StoreUnavailable(
                f"{self._engine.name}/{self._index}: {missing} of {shards['total']} shards have no copy that can be "
                f"asked (the cluster is {health['status']}); start the missing nodes, or ask the cluster why with "
                "GET /_cluster/allocation/explain"
            )
        nodes = health["number_of_nodes"]
        return (
            f"{self._engine.name}/{self._index}: OpenSearch {about['version']['number']}, {health['status']}, "
            f"{nodes} node{'' if nodes == 1 else 's'}; {template}; {count['count']:,} entries"
        )

    def close(self) -> None:
        """See Store.close."""
        self._engine.close()

    def _there(self) -> None:
        """Raises StoreMissing where there was no index to ask, since nothing has been set up."""
        if not self._reader.seen:
            self._template.for_reading()


STORE = OpenSearchStore
