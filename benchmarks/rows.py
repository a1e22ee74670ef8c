"""The rows of the table: what is measured, in which stage, and beside what."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["ROWS", "STAGES", "Row"]


class Row(NamedTuple):
    """One of them."""

    key: str
    stage: str
    what: str
    beside: str
    stores: tuple[str, ...] = ("opensearch", "sqlite")
    installs: bool = False
    """Whether it is there only where contenders may be installed."""
    long: bool = False
    """Whether a brief run leaves it out."""


ROWS = (
    Row(
        "first", "pages", "page 1, each of the four sorts, with and without filters", "the engine asked directly; HTTP"
    ),
    Row("deep", "pages", "page at a tenth and at nine tenths of the depth", "page 1; the engine asked directly"),
    Row("jump", "pages", "jump to a page by its number", "`from: 9975` asked directly; OFFSET on SQLite"),
    Row("total", "pages", "the exact total beside the page", "the engine's own count"),
    Row("search", "search", "search, newest 25", "the engine asked directly"),
    Row(
        "django", "django", "search, the whole answer", "django-auditlog's admin search over SQLite", ("sqlite",), True
    ),
    Row(
        "export", "export", "export of 50,000 rows over HTTP", "the engine drained directly; helpers.scan; elasticdump"
    ),
    Row("first byte", "export", "the export's first byte", "one page of 1,000"),
    Row("memory", "export", "the server's anonymous memory, 50,000 and 5,000 rows", ""),
    Row("ship", "ship", "from the spool into the store, warm", "helpers.bulk; the same bytes posted raw; bare SQL"),
    Row("import", "import", "import of all lines; bytes on disk an entry", ""),
    Row(
        "emit",
        "emit",
        'emit, durable and `durability="process"`',
        "structlog to a file plus a bare SQLite commit; others",
    ),
    Row("threads", "emit", "emit, durable, 8 threads and 1", ""),
    Row("no event", "emit", "a log call that is no audit event", "the same without the processor"),
    Row("readers", "readers", "50 readers while 5,000 events/s arrive", "the same readers, nothing arriving"),
    Row("indices", "topology", "24 monthly indices", "one index", ("opensearch",)),
    Row("nodes, ship", "topology", "into a cluster of three nodes", "one node", ("opensearch",), False, True),
    Row("nodes", "topology", "a cluster of three nodes", "one node", ("opensearch",), False, True),
)
STAGES = tuple(dict.fromkeys(["import", *(row.stage for row in ROWS)]))
"""In the order in which they are run: `readers` adds entries to the store, and so comes late."""
