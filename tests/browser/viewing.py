"""The viewer as a person, or a screen reader, finds it: by role and name."""

from __future__ import annotations

import re
from typing import Any

from playwright.sync_api import Locator, Page, expect

from .server import Live

__all__ = ["rows", "shows", "signed_in", "table"]


def signed_in(page: Page, live: Live, path: str = "/", **claims: Any) -> Page:
    """Open the page by a link with a token, as `serve` prints it."""
    page.goto(live.link(path, **claims))
    return page


def table(page: Page) -> Locator:
    """The table of entries."""
    return page.get_by_role("table", name="Audit log")


def rows(page: Page) -> Locator:
    """Its rows, but that of the headers: one for each entry."""
    return table(page).get_by_role("row").filter(has=page.get_by_role("cell"))


def shows(page: Page, count: str) -> None:
    """Wait until the status says so many entries: `shows(page, "1,234 entries")`."""
    expect(page.get_by_role("status").filter(has_text=re.compile(r"\bentr(y|ies)\b"))).to_contain_text(count)
