"""GET /v1/events/export.csv."""

from __future__ import annotations

import csv
import io
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import httpx
import pytest
from audit_pipeline.api import deps, sending
from audit_pipeline.api.deps import MAX_EXPORTS

from audit_pipeline import AuditEvent, SpoolFull, StoreUnavailable
from audit_pipeline.query import Query
from audit_pipeline.stores import Snapshot

from .conftest import API, check_problem, served

PATH = "/v1/events/export.csv"
HEADER = ["Timestamp", "Action", "Target", "Detail", "User", "IP Address"]


def rows(answer: httpx.Response) -> list[list[str]]:
    """The cells of an export, header first."""
    assert answer.status_code == 200, answer.text
    return list(csv.reader(io.StringIO(answer.content.decode("utf-8-sig"), newline="")))


def exports(api: API) -> list[dict[str, Any]]:
    """The entries about exports, newest first, with their contexts."""
    api.stored()
    found = api.list(action="audit.exported")["items"]
    return [api.get(f"/v1/events/{item['id']}").json() for item in found]


def test_the_csv_to_the_byte(api: API) -> None:
    """A BOM, the header, CRLF after each line, quotes where they are needed, and nothing that a spreadsheet runs."""
    when = datetime.now(UTC).replace(microsecond=0)
    api.record("domain.created", target='a "b", c', detail="two\nlines", user="=1+1", ip="10.0.0.5", timestamp=when)
    api.stored()
    answer = api.get(PATH)
    assert answer.content.decode() == (
        "\ufeffTimestamp,Action,Target,Detail,User,IP Address\r\n"
        f"{when:%Y-%m-%dT%H:%M:%S}.000Z,Domain created,"
        '"a ""b"", c","two\nlines",\'=1+1,10.0.0.xxx\r\n'
    )
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    assert (answer.headers["x-total-count"], answer.headers["x-truncated"]) == ("1", "false")
    assert answer.headers["x-row-limit"] == "50000"


def test_the_file_is_named_by_the_day_in_the_time_zone(memory_api: API) -> None:
    """The name has today's date where the viewer is, which may not be today's in UTC."""
    for zone in ("Pacific/Kiritimati", "Pacific/Pago_Pago"):
        before = datetime.now(ZoneInfo(zone))
        disposition = memory_api.get(PATH, params={"tz": zone}).headers["content-disposition"]
        days = {f"{moment:%Y-%m-%d}" for moment in (before, datetime.now(ZoneInfo(zone)))}
        assert disposition in {f'attachment; filename="audit-log-{day}.csv"' for day in days}


@pytest.mark.parametrize("sort", ["-timestamp", "timestamp", "action", "-action"])
def test_an_export_has_the_order_and_the_filters_of_the_view(api: API, sort: str) -> None:
    """The rows are those of the view, one after the other."""
    start = datetime.now(UTC) - timedelta(days=1)
    for number in range(1200):
        action = ("user.created", "user.deleted", "domain.created")[number % 3]
        api.record(action, target=str(number), timestamp=start + timedelta(seconds=number // 2))
    api.stored()
    asked = {"category": "users", "sort": sort}
    shown, page = [], api.list(page_size=100, **asked)
    while True:
        shown += [item["target"] for item in page["items"]]
        if not page["next"]:
            break
        page = api.list(page_size=100, cursor=page["next"], **asked)
    header, *found = rows(api.get(PATH, params=asked))
    assert header == HEADER
    assert [row[2] for row in found] == shown
    assert len(shown) == 800


def test_a_limit_is_said_not_hidden(api: API) -> None:
    """Where there are more entries than rows, the headers say so, and the first rows of the view come."""
    for number in range(5):
        api.record("domain.created", target=str(number))
    api.stored()
    for limit, truncated in ((4, "true"), (5, "false")):
        answer = api.with_settings(export_limit=limit).get(
            PATH, params={"sort": "timestamp", "action": "domain.created"}
        )
        assert [row[2] for row in rows(answer)[1:]] == list("01234")[:limit]
        headers = [answer.headers[name] for name in ("x-total-count", "x-row-limit", "x-truncated")]
        assert headers == ["5", str(limit), truncated]


def test_an_export_is_recorded_and_not_part_of_itself(api: API) -> None:
    """Who exported what, from where and how much is an entry; the next export shows it, its own does not."""
    api.record("domain.created", target="x", user="bob")
    api.stored()
    asked = {"q": "x", "action": ["domain.created", "audit.exported"], "tz": "Europe/Berlin"}
    proxied = api.with_settings(trusted_proxies=()).get
    first = proxied(PATH, params=asked, peer="203.0.113.9", headers={"x-forwarded-for": "10.9.9.9"})
    assert len(rows(first)) == 2
    (entry,) = exports(api)
    assert (entry["user"], entry["ip"], entry["label"]) == ("alice@example.com", "203.0.113.xxx", "Audit exported")
    assert entry["target"] in first.headers["content-disposition"]
    assert entry["context"] == {
        "filters": asked | {"sort": "-timestamp"}, "rows": 1, "total": 1, "truncated": False,
    }  # fmt: skip
    assert [row[1] for row in rows(api.get(PATH))[1:]] == ["Audit exported", "Domain created"]
    assert exports(api)[0]["detail"] == "2 of 2 entries"


def test_an_export_is_of_one_organisation(api: API) -> None:
    """Neither rows nor the number nor the entry about it cross from one organisation to another."""
    api.record("domain.created", target="theirs", org="other")
    api.record("domain.created", target="mine")
    api.stored()
    answer = api.get(PATH)
    assert [row[2] for row in rows(answer)[1:]] == ["mine"]
    assert answer.headers["x-total-count"] == "1"
    api.stored()
    assert api.list(api.token(org="other"))["total"] == 1


@pytest.mark.parametrize(
    "parameters", [{"page": "1"}, {"cursor": "x"}, {"page_size": "10"}, {"sort": "size"}, {"tz": "x"}]
)
def test_a_wrong_export_is_refused_and_not_recorded(memory_api: API, parameters: dict[str, str]) -> None:
    """An export has no pages; what is refused leaves no entry."""
    body = check_problem(memory_api.get(PATH, params=parameters), 422, "invalid-query")
    assert [error["parameter"] for error in body["errors"]] == list(parameters)
    assert exports(memory_api) == []


# Snapshots


class Watched(Snapshot):
    """A snapshot whose batches have ten rows, and can be stopped; tells when it is closed."""

    def __init__(self, inner: Snapshot) -> None:
        self.total = inner.total
        self.first = threading.Event()
        self.go_on = threading.Event()
        self.closed = threading.Event()
        self.error: Exception | None = None
        self.endless = False
        self._inner = inner

    def batches(self, size: int = 1000) -> Iterator[Sequence[AuditEvent]]:
        batch: Sequence[AuditEvent] = ()
        for number, batch in enumerate(self._inner.batches(10)):
            if number == 1:
                self.first.set()
                assert self.go_on.wait(10)
                if self.error is not None:
                    raise self.error
            yield batch
        while self.endless and not self.closed.is_set():
            yield list(batch) * 100

    def close(self) -> None:
        self._inner.close()
        self.closed.set()


@pytest.fixture
def watched(api: API, monkeypatch: pytest.MonkeyPatch) -> list[Watched]:
    """Thirty entries; and the snapshots that are taken of them, as they are taken."""
    for number in range(30):
        api.record("domain.created", target=str(number))
    api.stored()
    taken: list[Watched] = []
    real = api.pipeline.store.snapshot

    def snapshot(query: Query, limit: int, **given: bool) -> Snapshot:
        taken.append(Watched(real(query, limit)))
        return taken[-1]

    monkeypatch.setattr(api.pipeline.store, "snapshot", snapshot)
    return taken


def streamed(api: API, address: str, token: str = "", **more: Any) -> Any:
    """An export over a real connection, read piece by piece."""
    headers = {"authorization": f"Bearer {token or api.token()}"}
    return httpx.stream("GET", address + PATH, headers=headers, timeout=10, **more)


def test_what_is_written_meanwhile_does_not_appear(api: API, watched: list[Watched]) -> None:
    """An export is as of its beginning, though entries are written while it is sent."""
    with served(api.app) as address, streamed(api, address) as answer:
        assert watched[0].first.wait(10)
        api.record("domain.created", target="late")
        api.record("domain.created", target="early", timestamp=datetime.now(UTC) - timedelta(days=1))
        api.stored()
        watched[0].go_on.set()
        text = b"".join(answer.iter_bytes()).decode("utf-8-sig")
    found = list(csv.reader(io.StringIO(text, newline="")))
    assert [row[2] for row in found[1:]] == [str(number) for number in range(29, -1, -1)]
    assert watched[0].closed.wait(10)


def test_a_plan_that_is_downgraded_in_the_middle_of_an_export(api: API, watched: list[Watched]) -> None:
    """What was allowed when it began is sent whole, though the token ends meanwhile; the next export is refused."""
    token = api.token(exp=int(time.time()) + 4)
    with served(api.app) as address, streamed(api, address, token) as answer:
        assert watched[0].first.wait(10)
        check_problem(api.get(PATH, token=api.token(plan="free")), 403, "plan-required")
        end = time.monotonic() + 10
        while api.get("/v1/actions", token=token).status_code == 200:
            assert time.monotonic() < end
        watched[0].go_on.set()
        found = list(csv.reader(io.StringIO(b"".join(answer.iter_bytes()).decode("utf-8-sig"), newline="")))
        check_problem(api.get(PATH, token=token), 401, "unauthorized")
    assert len(found) == 31
    assert len(watched) == 1


def test_a_failure_midway_breaks_the_transfer(api: API, watched: list[Watched]) -> None:
    """When the store fails in the middle the client sees a broken transfer, never a short file; all is freed."""
    with served(api.app) as address:
        received = b""
        with pytest.raises(httpx.RemoteProtocolError), streamed(api, address) as answer:  # noqa: PT012
            assert answer.status_code == 200
            for piece in answer.iter_raw():
                received += piece
                if received.count(b"\r\n") > 1:
                    watched[0].error = StoreUnavailable("/var/lib/audit.db: the disk is gone")
                    watched[0].go_on.set()
        assert received.count(b"\r\n") == 11
        assert b"disk" not in received
        assert watched[0].closed.wait(10)
        assert httpx.get(f"{address}/healthz").status_code == 200


def test_to_http_1_0_it_is_sent_with_its_size_or_not_at_all(api: API, watched: list[Watched]) -> None:
    """There are no chunks there, by which a broken transfer could be told from a whole one: some proxies ask so."""
    expected = 0
    with served(api.app) as address:
        for error in (None, StoreUnavailable("/var/lib/audit.db: the disk is gone")):
            host, _, port = address.removeprefix("http://").partition(":")
            with socket.create_connection((host, int(port)), 10) as connection:
                head = (f"GET {PATH} HTTP/1.0", f"Host: {host}", f"Authorization: Bearer {api.token()}", "", "")
                connection.sendall("\r\n".join(head).encode())
                end = time.monotonic() + 10
                while len(watched) <= expected:
                    assert time.monotonic() < end
                    time.sleep(0.01)
                watched[expected].error = error
                watched[expected].go_on.set()
                answer = b"".join(iter(lambda: connection.recv(65536), b""))
            first, _, rest = answer.partition(b"\r\n")
            headers, _, body = rest.partition(b"\r\n\r\n")
            if error is None:
                assert b" 200 " in first
                assert f"content-length: {len(body)}".encode() in headers.lower().splitlines()
                assert body.count(b"\r\n") == 31
            else:
                assert b" 503 " in first
                assert b"store-unavailable" in body
                assert b"disk" not in body
            assert watched[expected].closed.wait(10)
            expected += 1


def test_a_client_that_leaves_frees_the_snapshot(api: API, watched: list[Watched]) -> None:
    """A client that hangs up in the middle ends the export, frees its snapshot, and its slot."""
    with served(api.app) as address:
        for number in range(MAX_EXPORTS + 2):
            with streamed(api, address) as answer:
                watched[number].endless = True
                watched[number].go_on.set()
                next(answer.iter_raw())
            assert watched[number].closed.wait(10)


def test_a_client_that_takes_nothing_frees_the_snapshot(
    api: API, watched: list[Watched], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that stays, and does not read, has its transfer broken after a while; snapshot and slot are for others."""
    monkeypatch.setattr(sending, "SEND_S", 0.3)
    monkeypatch.setattr(deps, "MAX_EXPORTS", 1)
    api = api.with_settings()
    with served(api.app) as address, ExitStack() as stack:
        for number in range(2):
            answer = stack.enter_context(streamed(api, address))
            watched[number].endless = True
            watched[number].go_on.set()
            assert watched[number].closed.wait(10)
            with pytest.raises(httpx.RemoteProtocolError):
                answer.read()


def test_a_client_that_reads_slowly_gets_everything(
    api: API, watched: list[Watched], monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long it takes in all, and however large one part is: what counts is that it reads at all."""
    monkeypatch.setattr(sending, "SEND_S", 1.0)
    api.record("domain.created", detail="x" * 60_000)
    api.stored()
    real = api.pipeline.store.snapshot

    def large(query: Query, limit: int, **given: bool) -> Snapshot:
        snapshot = real(query, limit)
        batches = snapshot.batches

        def many(size: int = 1000) -> Iterator[Sequence[AuditEvent]]:
            for batch in batches(size):
                yield list(batch) * 300  # one part of 18 MB, which no buffer takes

        monkeypatch.setattr(snapshot, "batches", many)
        snapshot.go_on.set()  # type: ignore[attr-defined]
        return snapshot

    monkeypatch.setattr(api.pipeline.store, "snapshot", large)
    with served(api.app) as address, streamed(api, address) as answer:
        began, received = time.monotonic(), 0
        for piece in answer.iter_raw(2**19):
            received += len(piece)
            time.sleep(0.1)
    assert time.monotonic() - began > 2
    assert received > 60_000 * 300


def test_too_many_exports_at_once(api: API, watched: list[Watched]) -> None:
    """An organisation has a number of exports at a time; one more is 429, another organisation's goes on."""
    with served(api.app) as address, ExitStack() as stack:
        for _ in range(MAX_EXPORTS):
            stack.enter_context(streamed(api, address))
        refused = api.get(PATH)
        check_problem(refused, 429, "too-many-exports")
        assert refused.headers["retry-after"]
        assert len(rows(api.get(PATH, token=api.token(org="other")))) == 1
        for one in watched:
            one.go_on.set()
        for one in watched:
            assert one.closed.wait(10)
    for one in watched[:MAX_EXPORTS]:
        assert one.closed.is_set()
    assert len(exports(api)) == MAX_EXPORTS


def test_an_export_is_on_record_before_its_first_byte(api: API, watched: list[Watched]) -> None:
    """When the first byte arrives, the entry about the export is on disk."""
    with served(api.app) as address, streamed(api, address) as answer:
        next(answer.iter_raw())
        assert api.pipeline.status().accepted == 31
        watched[0].go_on.set()


def test_an_export_that_cannot_be_recorded_frees_its_snapshot(
    api: API, watched: list[Watched], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without its entry there is no export; the snapshot and the slot are freed each time."""

    def full(*_: object) -> int:
        raise SpoolFull("no room")

    monkeypatch.setattr(api.pipeline.spool, "append", full)
    for number in range(MAX_EXPORTS + 1):
        check_problem(api.get(PATH), 503, "spool-unavailable")
        assert watched[number].closed.is_set()
