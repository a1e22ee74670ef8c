"""CSV of a snapshot, for spreadsheets: RFC 4180 with a byte order mark, and no cell that a spreadsheet would run."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from datetime import datetime, tzinfo
from typing import Any

from .privacy import public_item
from .query import Query
from .stores import Snapshot

__all__ = ["HEADER", "csv_chunks", "export_context", "file_name", "inert"]

HEADER = ("Timestamp", "Action", "Target", "Detail", "User", "IP Address")
_COLUMNS = ("timestamp", "label", "target", "detail", "user", "ip")
# What begins a formula, or may be stripped before one; each also in its full-width form.
_RUNS = frozenset("=+-@\t\r\n＝＋－＠")
BATCH = 1000
"""Rows in a chunk: one row a chunk is slow to send, all rows in one are held in memory."""


def inert(cell: str) -> str:
    """The cell, with a `'` before it where a spreadsheet would run it (OWASP, CSV injection)."""
    return f"'{cell}" if cell[:1] in _RUNS and cell else cell


def csv_chunks(snapshot: Snapshot) -> Iterator[bytes]:
    """The CSV of a snapshot in chunks of rows, header first. Raises StoreError midway rather than end early."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\r\n")
    writer.writerow(HEADER)
    yield b"\xef\xbb\xbf" + buffer.getvalue().encode()
    for batch in snapshot.batches(BATCH):
        buffer.seek(0)
        buffer.truncate()
        for event in batch:
            item = public_item(event)
            writer.writerow([inert(item[column]) for column in _COLUMNS])
        yield buffer.getvalue().encode()


def file_name(zone: tzinfo) -> str:
    """The name of an export: today's date in a time zone."""
    return f"audit-log-{datetime.now(zone):%Y-%m-%d}.csv"


def export_context(query: Query, filters: dict[str, Any], rows: int, total: int) -> dict[str, Any]:
    """What the entry `audit.exported` says of an export: what was asked for, and how much of it went out."""
    return {"filters": {**filters, "sort": query.sort}, "rows": rows, "total": total, "truncated": rows < total}
