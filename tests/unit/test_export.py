"""CSV for spreadsheets."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audit_pipeline.actions import catalogue
from audit_pipeline.errors import StoreUnavailable
from audit_pipeline.event import AuditEvent, IdFactory
from audit_pipeline.export import BATCH, csv_chunks, export_context, file_name, inert
from audit_pipeline.normalize import build_event
from audit_pipeline.query import Query, parse_query
from audit_pipeline.stores import Snapshot

STARTS = ["=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20"]
EVENT = build_event(catalogue["domain.created"], {"user": "alice", "ip": "203.0.113.9", "target": "a"}, IdFactory())


class Frozen(Snapshot):
    """A snapshot of these entries, that may break after some of them."""

    def __init__(self, events: list[AuditEvent], breaks: bool = False) -> None:
        self.total = len(events)
        self._events = events
        self._breaks = breaks

    def batches(self, size: int = 1000) -> Iterator[list[AuditEvent]]:
        for first in range(0, len(self._events), size):
            yield self._events[first : first + size]
        if self._breaks:
            raise StoreUnavailable("gone")

    def close(self) -> None:
        pass


def rows(body: bytes) -> list[list[str]]:
    return list(csv.reader(io.StringIO(body.decode("utf-8-sig"), newline=""), strict=True))


@pytest.mark.parametrize("start", STARTS, ids=ascii)
def test_what_a_spreadsheet_would_run_is_made_inert(start: str) -> None:
    """A cell that begins so gets a leading apostrophe, alone or before a formula, and only at its beginning."""
    assert inert(start) == f"'{start}"
    assert inert(f"{start}1+cmd|' /C calc'!A0") == f"'{start}1+cmd|' /C calc'!A0"
    assert inert(f"a{start}") == f"a{start}"


@given(st.text())
def test_nothing_else_is_changed(cell: str) -> None:
    """Any other cell, an empty one too, stays as it is."""
    assert inert(cell) == (f"'{cell}" if cell and cell[0] in STARTS else cell)


def test_a_small_export_byte_by_byte() -> None:
    """A byte order mark, the header, CRLF, quotes only where they are needed, label, masked address, milliseconds."""
    event = replace(EVENT, timestamp=1_795_405_260_123, detail='say "hi", twice\nand -1', target="=1+1", user="ä")
    assert (
        b"".join(csv_chunks(Frozen([event, replace(event, ip=None)])))
        == (
            "\ufeffTimestamp,Action,Target,Detail,User,IP Address\r\n"
            '2026-11-23T03:41:00.123Z,Domain created,\'=1+1,"say ""hi"", twice\nand -1",ä,203.0.113.xxx\r\n'
            '2026-11-23T03:41:00.123Z,Domain created,\'=1+1,"say ""hi"", twice\nand -1",ä,\r\n'
        ).encode()
    )


def test_an_export_without_entries_has_a_header() -> None:
    """An empty result is a CSV too."""
    assert rows(b"".join(csv_chunks(Frozen([])))) == [["Timestamp", "Action", "Target", "Detail", "User", "IP Address"]]


cells = st.text(st.characters(exclude_categories=["Cs"]), max_size=30) | st.text(
    st.sampled_from("=+-@\t\r\n\"',;| a＝\0"), max_size=8
)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(cells, cells, cells), max_size=5))
def test_a_reader_gets_the_cells_back(texts: list[tuple[str, str, str]]) -> None:
    """Parsed by RFC 4180, each cell is the field, but for the apostrophe; no cell begins with a formula."""
    events = [replace(EVENT, target=target, detail=detail, user=user) for target, detail, user in texts]
    _, *read = rows(b"".join(csv_chunks(Frozen(events))))
    for row, fields in zip(read, texts, strict=True):
        assert len(row) == 6
        assert row[1] == "Domain created"
        assert row[5] == "203.0.113.xxx"
        for cell, field in zip(row[2:5], fields, strict=True):
            assert cell == inert(field)
            assert cell[:1] not in STARTS


def test_rows_leave_in_batches() -> None:
    """The header leaves first, alone; then a batch of rows at a time."""
    chunks = [rows(chunk) for chunk in csv_chunks(Frozen([EVENT] * (2 * BATCH + 1)))]
    assert [len(chunk) for chunk in chunks] == [1, BATCH, BATCH, 1]


def test_a_failure_midway_is_no_end() -> None:
    """The error of the store comes through after the rows before it: nobody takes a part for the whole."""
    chunks = csv_chunks(Frozen([EVENT], breaks=True))
    assert len([next(chunks), next(chunks)]) == 2
    with pytest.raises(StoreUnavailable):
        next(chunks)


def test_the_file_is_named_after_today_in_a_zone() -> None:
    """25 hours apart, it is never the same day."""
    east, west = ZoneInfo("Pacific/Kiritimati"), ZoneInfo("Pacific/Niue")
    names = {
        f"audit-log-{moment:%Y-%m-%d}.csv" for moment in (datetime.now(east), datetime.now(east) + timedelta(seconds=5))
    }
    assert file_name(east) in names
    assert file_name(west) < file_name(east)


def test_the_entry_of_an_export_says_what_was_asked_for() -> None:
    """Filters, order, rows and total, and whether rows were left out."""
    asked = {"q": "mail", "action": ["domain.created"]}
    query = parse_query({"q": ["mail"], "action": ["domain.created"], "sort": ["action"]}, "acme")
    said = export_context(query, asked, 10, 12)
    assert said == {"filters": {**asked, "sort": "action"}, "rows": 10, "total": 12, "truncated": True}
    assert export_context(Query("acme"), {}, 10, 10)["truncated"] is False
