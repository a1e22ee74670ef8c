"""The page at `/`, as whoever opens the link meets it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import BrowserContext, Page, expect

from .server import Live
from .viewing import rows, shows, signed_in, table

HEADERS = ["Timestamp", "Action", "Target", "Detail", "User", "IP Address"]


def fill(live: Live, number: int) -> None:
    """So many entries, which can be found."""
    live.record_all(
        {"action": "domain.created", "target": f"d{at}.example", "user": "alice@example.com", "ip": "203.0.113.9"}
        for at in range(number)
    )
    live.stored()


def test_the_page_lists_what_was_recorded(page: Page, live: Live) -> None:
    """The first page of the table, newest first, with the exact number of entries, and the ways to the others."""
    fill(live, 1_234)
    signed_in(page, live)
    shows(page, "1,234 entries")
    headers = table(page).get_by_role("columnheader")
    for name in HEADERS:
        expect(headers.filter(has_text=name)).to_have_count(1)
    expect(rows(page)).to_have_count(25)
    expect(rows(page).first).to_contain_text("d1233.example")
    expect(rows(page).first).to_contain_text("203.0.113.xxx")
    pages = page.get_by_role("navigation", name="Pages")
    pages.get_by_role("button", name="Next page").click()
    expect(rows(page).first).to_contain_text("d1208.example")
    pages.get_by_role("button", name="Last page").click()
    expect(rows(page)).to_have_count(1_234 % 25)
    pages.get_by_role("button", name="First page").click()
    expect(rows(page).first).to_contain_text("d1233.example")
    page.get_by_role("combobox", name="Rows per page").select_option("100")
    expect(rows(page)).to_have_count(100)


def test_typing_searches(page: Page, live: Live) -> None:
    """What is typed is searched for without a further key; emptied, everything is there again."""
    fill(live, 30)
    signed_in(page, live)
    shows(page, "30 entries")
    search = page.get_by_role("searchbox", name="Search")
    search.press_sequentially("d17.example")
    shows(page, "1 entry")
    expect(rows(page)).to_contain_text(["d17.example"])
    search.clear()
    shows(page, "30 entries")


def test_the_token_leaves_the_address(page: Page, live_once: Live) -> None:
    """The token is gone from the address at once, and from history; a reload still shows the log."""
    fill(live_once, 3)
    signed_in(page, live_once)
    shows(page, "3 entries")
    assert "token" not in page.url
    page.reload()
    shows(page, "3 entries")


def test_the_view_is_exported(page: Page, live: Live, tmp_path: Path) -> None:
    """The file has the server's name, and each entry of the view."""
    fill(live, 30)
    signed_in(page, live)
    shows(page, "30 entries")
    with page.expect_download() as waiting:
        page.get_by_role("button", name="Export CSV").click()
    download = waiting.value
    assert download.suggested_filename.startswith("audit-log-2")
    download.save_as(tmp_path / "log.csv")
    lines = (tmp_path / "log.csv").read_bytes().decode("utf-8-sig").split("\r\n")
    assert lines[0] == ",".join(["Timestamp", "Action", "Target", "Detail", "User", "IP Address"])
    assert len(lines) == 32


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(
    new_context: Callable[..., BrowserContext], live_once: Live, axe: Callable[[Page], list[str]], scheme: str
) -> None:
    """No rule of accessibility that a program can check is broken, in light and in dark."""
    fill(live_once, 60)
    page = signed_in(new_context(color_scheme=scheme).new_page(), live_once)
    shows(page, "60 entries")
    assert axe(page) == []


def test_files_come_compressed_and_from_one_version(page: Page, live_once: Live) -> None:
    """Every file of the viewer is fetched once, zipped, from the versioned folder; none is led to by a redirect."""
    answers = []
    page.on("response", lambda answer: answers.append(answer) if "/viewer/" in answer.url else None)
    fill(live_once, 1)
    signed_in(page, live_once)
    shows(page, "1 entry")
    addresses = [answer.url for answer in answers]
    assert len(addresses) == len(set(addresses)) > 5
    assert {answer.status for answer in answers} == {200}
    assert len({address.removeprefix(live_once.url).split("/")[2] for address in addresses}) == 1
    assert all(answer.headers.get("content-encoding") == "gzip" for answer in answers)
