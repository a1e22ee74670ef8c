"""Steps of a reader that several tests take: entries to read, what is seen of them, answers that are held back."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

from playwright.sync_api import Locator, Page, Route, expect

from .server import Live
from .viewing import rows, shows, signed_in, table

__all__ = [
    "action_box", "ago", "button", "chips", "drawn", "file_rows", "fill", "find_new", "hidden", "holding", "items_seen",
    "looked_at", "pager", "read_back", "recorded", "rows_seen", "search", "sees", "with_clipboard",
]  # fmt: skip

CELLS = """lines => lines.map(line => [...line.cells].map((cell, place) => place === 0
    ? cell.querySelector("time").dateTime
    : place === 1 ? cell.querySelector(".badge").lastChild.textContent : cell.textContent))"""


def recorded(live: Live, *events: dict[str, Any], action: str = "domain.created") -> list[str]:
    """Record these entries, of that action where they name none, and wait until they can be found; their ids."""
    ids = live.record_all({"action": action} | event for event in events)
    live.stored()
    return ids


def fill(live: Live, number: int, first: int = 0, **given: Any) -> list[str]:
    """So many entries whose targets are `d0.example` and on, which can be found."""
    return recorded(live, *({"target": f"d{at}.example"} | given for at in range(first, first + number)))


def looked_at(page: Page, live: Live, count: str, path: str = "/", **claims: Any) -> Page:
    """Open the page, and wait until it says so many entries."""
    signed_in(page, live, path, **claims)
    shows(page, count)
    return page


def rows_seen(page: Page) -> list[list[str]]:
    """The six values of each row, in order; the time as in JSON."""
    return table(page).locator("tr.entry").evaluate_all(CELLS)  # type: ignore[no-any-return]


def items_seen(page: Page) -> list[str]:
    """The target of each row, in order."""
    return [row[2] for row in rows_seen(page)]


def sees(page: Page, *targets: str) -> None:
    """Wait until the rows are those of these targets, in this order."""
    expect(rows(page).locator("td.target")).to_have_text(list(targets))


def button(page: Page, name: str) -> Locator:
    """The first button of this name."""
    return page.get_by_role("button", name=name, exact=True).first


def search(page: Page) -> Locator:
    """The field to search in."""
    return page.get_by_role("searchbox", name="Search")


def pager(page: Page) -> Locator:
    """Where pages are chosen."""
    return page.get_by_role("navigation", name="Pages")


def chips(page: Page) -> list[str]:
    """The filters that can be removed, by their names."""
    found = page.get_by_role("button", name="Remove filter: ").evaluate_all("all => all.map(one => one.ariaLabel)")
    return [name.removeprefix("Remove filter: ") for name in found]


def action_box(page: Page, name: str) -> Locator:
    """A box of the open menu of actions."""
    return page.get_by_role("dialog").get_by_role("checkbox", name=name, exact=True)


def find_new(page: Page) -> None:
    """Let the page look for new entries at once, as a tab does that is seen again."""
    page.evaluate("void document.dispatchEvent(new Event('visibilitychange'))")


@contextmanager
def hidden(page: Page) -> Iterator[None]:
    """While this block runs, the page is told that nobody sees it."""
    tell = "hidden => { Object.defineProperty(document, 'hidden', { value: hidden, configurable: true });"
    tell += " document.dispatchEvent(new Event('visibilitychange')); }"
    page.evaluate(tell, True)
    try:
        yield
    finally:
        page.evaluate(tell, False)


@contextmanager
def holding(page: Page, pattern: str, wanted: Callable[[str], bool] = lambda url: True) -> Iterator[list[Route]]:
    """Requests that match wait in the list, until the test lets them `continue_`; those left go on after the block."""
    held: list[Route] = []

    def hold(route: Route) -> None:
        if wanted(route.request.url):
            held.append(route)
        else:
            route.continue_()

    page.route(pattern, hold)
    try:
        yield held
    finally:
        while held:
            held.pop().continue_()
        page.unroute(pattern, hold)


def with_clipboard(page: Page) -> Page:
    """Let the page write to the clipboard, and the test read it."""
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    return page


def read_back(page: Page) -> str:
    """What the clipboard has."""
    return page.evaluate("navigator.clipboard.readText()")  # type: ignore[no-any-return]


def file_rows(content: bytes) -> list[list[str]]:
    """The rows of a CSV as the interface promises it: with a mark at its beginning, and CRLF at each line's end."""
    assert content.startswith(b"\xef\xbb\xbf")
    text = content.decode("utf-8-sig")
    assert text.endswith("\r\n")
    return list(csv.reader(io.StringIO(text, newline=""), strict=True))


def drawn(page: Page, count: int) -> None:
    """Wait until the bars of the timeline stand for so many entries."""
    page.wait_for_function(
        "count => document.querySelector('audit-log').timeline.answer.buckets.reduce((sum, one) => sum + one.count, 0)"
        " === count",
        arg=count,
    )


def ago(**span: float) -> datetime:
    """A moment so long ago, to the millisecond."""
    now = datetime.now(UTC) - timedelta(**span)
    return now.replace(microsecond=now.microsecond // 1000 * 1000)
