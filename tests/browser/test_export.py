"""Export CSV: the view as a file, whole or not at all."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from zoneinfo import ZoneInfo

import httpx
import pytest
from playwright.sync_api import Page, expect

from .chromium import Heard
from .server import Live
from .states import problem
from .steps import button, file_rows, fill, looked_at, recorded, rows_seen
from .viewing import shows, signed_in

HEADER = ["Timestamp", "Action", "Target", "Detail", "User", "IP Address"]


@pytest.fixture
def downloads(page: Page) -> list[str]:
    """The names of the files that the page saved."""
    names: list[str] = []
    page.on("download", lambda download: names.append(download.suggested_filename))
    return names


@contextmanager
def slow(page: Page) -> Iterator[None]:
    """While this block runs, what the server sends arrives at 400 kB a second."""
    devtools = page.context.new_cdp_session(page)
    free = {"offline": False, "latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
    devtools.send("Network.enable")
    devtools.send("Network.emulateNetworkConditions", free | {"downloadThroughput": 400_000})
    try:
        yield
    finally:
        devtools.send("Network.emulateNetworkConditions", free)


@pytest.mark.parametrize("path", ["/", "/?q=example&sort=action&zone=utc", "/?action=domain.deleted&period=7d"])
def test_the_file_has_what_the_view_has(page: Page, live: Live, path: str) -> None:
    """Each row of the view, in its order and by its filters, with the server's name; the file is an entry later."""
    recorded(
        live,
        *(
            {"target": f"d{at}.example", "action": ("domain.created", "domain.deleted", "alias.created")[at % 3],
             "detail": f'one, "two"\n{at}' if at % 7 else "", "user": "ålice\u202e", "ip": "192.0.2.7"}
            for at in range(38)
        ),
        {"target": "other", "user": "=1+1"},
    )  # fmt: skip
    signed_in(page, live, f"{path}{'&' if '?' in path else '?'}page_size=100")
    expect(page.locator("tr.entry").first).to_be_visible()
    with page.expect_download() as waiting:
        button(page, "Export CSV").click()
    content = waiting.value.path().read_bytes()
    assert content.count(b"\r\n") == len(file_rows(content))
    header, *found = file_rows(content)
    assert header == HEADER
    shown = [[text.replace("↵", "\n").replace("⟨U+202E⟩", "\u202e") for text in row] for row in rows_seen(page)]
    assert len(shown) in {39, 38, 13}
    assert [[text.removeprefix("'") for text in row] for row in found] == shown
    assert all(("'=1+1" in row) is (row[2] == "other") for row in found)
    today = datetime.now(ZoneInfo("UTC" if "utc" in path else "Europe/Berlin"))
    assert waiting.value.suggested_filename == f"audit-log-{today:%Y-%m-%d}.csv"
    expect(page.get_by_text(f"was saved. Rows: {len(shown)}.")).to_be_visible()


def test_a_big_one_shows_how_far_it_is_and_can_be_cancelled(page: Page, live_once: Live, downloads: list[str]) -> None:
    """Rows are counted while they come; Cancel ends it, saves nothing, and says so. Meanwhile the log can be read."""
    recorded(live_once, *({"target": f"d{at}", "detail": secrets.token_hex(100)} for at in range(20_000)))
    looked_at(page, live_once, "20,000 entries")
    with slow(page):
        button(page, "Export CSV").click()
        bar = page.get_by_role("progressbar", name="Export CSV")
        expect(bar).to_have_attribute("max", "20000")
        before = bar.evaluate("bar => bar.value")
        expect(page.get_by_text("of 20,000 rows")).to_be_visible()
        page.wait_for_function(f"() => document.querySelector('audit-log').exporting.rows > {before}")
        expect(button(page, "Export CSV")).to_be_disabled()
        with page.expect_event("requestfailed", lambda request: "/export.csv" in request.url):
            button(page, "Cancel").click()
        expect(page.get_by_text("The export was cancelled. Nothing was saved.")).to_be_visible()
    expect(button(page, "Export CSV")).to_be_enabled()
    assert downloads == []
    with page.expect_download() as waiting:
        button(page, "Export CSV").click()
    assert len(file_rows(waiting.value.path().read_bytes())) == 20_001


def test_a_broken_transfer_saves_nothing(page: Page, live_once: Live, heard: Heard, downloads: list[str]) -> None:
    """Where the server goes away midway, no part of the file is saved, and it says so; tried again, all of it is."""
    heard.expect("Failed to load resource|net::ERR_")
    recorded(live_once, *({"target": f"d{at}", "detail": secrets.token_hex(2_000)} for at in range(4_000)))
    looked_at(page, live_once, "4,000 entries")
    with slow(page):
        button(page, "Export CSV").click()
        expect(page.get_by_text("of 4,000 rows")).to_be_visible()
        live_once.server.kill()
    expect(page.get_by_text("The export broke off. Nothing was saved.")).to_be_visible()
    assert downloads == []
    live_once.server.start()
    with page.expect_download() as waiting:
        page.get_by_role("alert").get_by_role("button", name="Try again").click()
    assert len(file_rows(waiting.value.path().read_bytes())) == 4_001


def test_a_transfer_that_ends_early_saves_nothing(page: Page, live_once: Live, downloads: list[str]) -> None:
    """A proxy may end a broken transfer as if it were whole: rows that lack are missed."""
    fill(live_once, 30)
    looked_at(page, live_once, "30 entries")

    def cut(route) -> None:  # type: ignore[no-untyped-def]
        answer = route.fetch()
        route.fulfill(response=answer, body=answer.body()[:900])

    page.route("**/v1/events/export.csv?*", cut)
    button(page, "Export CSV").click()
    expect(page.get_by_text("The export broke off. Nothing was saved.")).to_be_visible()
    assert downloads == []


def test_the_limit_is_said_before(page: Page, live_once: Live) -> None:
    """Where the view has more rows than a file may have, it says so before, and how many were left out after."""
    fill(live_once, 9)
    with live_once.with_settings(
        AUDIT_EXPORT_LIMIT="7", AUDIT_JWT_SECRET=live_once.server._settings["AUDIT_JWT_SECRET"]
    ) as limited:
        looked_at(page, limited, "9 entries")
        expect(page.get_by_text("CSV: first 7 rows")).to_be_visible()
        with page.expect_download() as waiting:
            button(page, "Export CSV").click()
        assert [row[2] for row in file_rows(waiting.value.path().read_bytes())[1:]] == [
            f"d{at}.example" for at in range(8, 1, -1)
        ]
        expect(page.get_by_text("These are the first 7 of 9.")).to_be_visible()
        page.get_by_role("searchbox").fill("d1")
        shows(page, "1 entry")
        expect(page.get_by_text("CSV: first 7 rows")).to_have_count(0)


def test_too_many_exports_are_waited_for(page: Page, live_once: Live, heard: Heard) -> None:
    """Where others export, it counts the seconds down, and then exports by itself."""
    heard.expect("Failed to load resource: .* 429")
    recorded(live_once, *({"target": f"d{at}", "detail": secrets.token_hex(2_000)} for at in range(4_000)))
    page.clock.install()
    looked_at(page, live_once, "4,000 entries")
    address = f"{live_once.url}/v1/events/export.csv"
    others = [httpx.Client(headers={"authorization": f"Bearer {live_once.token()}"}) for _ in range(4)]
    try:
        for other in others:
            other.send(other.build_request("GET", address), stream=True)
        button(page, "Export CSV").click()
        expect(page.get_by_role("alert")).to_contain_text("4 exports of this organisation are under way.")
        expect(page.get_by_text("Trying again in 5 s.")).to_be_visible()
        page.clock.run_for(2_000)
        expect(page.get_by_text(re.compile("Trying again in [123] s."))).to_be_visible()
    finally:
        for other in others:
            other.close()
    with page.expect_download() as waiting:
        page.clock.run_for(3_000)
    assert len(file_rows(waiting.value.path().read_bytes())) == 4_001


def test_a_log_that_left_the_page_exports_nothing(page: Page, live_once: Live, heard: Heard) -> None:
    """Taken out while it waits to try again, it asks for nothing any more: no file comes, and no entry tells of one."""
    heard.expect("Failed to load resource: .* 429")
    fill(live_once, 2)
    page.clock.install()
    looked_at(page, live_once, "2 entries")
    page.route("**/v1/events/export.csv?*", problem(429, "too-many-exports", "Others export.", retry_after="5"))
    button(page, "Export CSV").click()
    expect(page.get_by_text("Trying again in 5 s.")).to_be_visible()
    page.evaluate("document.querySelector('audit-log').remove()")
    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    page.clock.run_for(20_000)
    page.evaluate("fetch('/healthz')")
    assert requests == [f"{live_once.url}/healthz"]


def test_who_may_not_export_is_told(page: Page, live_once: Live, heard: Heard) -> None:
    """A token that may only read reads on, and hears that it may not export."""
    heard.expect("Failed to load resource: .* 403")
    fill(live_once, 2)
    looked_at(page, live_once, "2 entries", scope="audit:read")
    button(page, "Export CSV").click()
    expect(page.get_by_text("This account may view the log, but not export it.")).to_be_visible()
    shows(page, "2 entries")
