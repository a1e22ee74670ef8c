"""Pages: any of them, however deep; and what is being read stands still."""

from __future__ import annotations

import re

from playwright.sync_api import Page, expect

from .chromium import Heard
from .server import Live
from .steps import button, drawn, file_rows, fill, find_new, items_seen, looked_at, pager, recorded, rows_seen, sees
from .viewing import rows, shows


def targets(first: int, last: int) -> list[str]:
    """The targets that `fill` makes, from one down to another."""
    return [f"d{at}.example" for at in range(first, last - 1, -1)]


def current(page: Page, number: int) -> None:
    """Wait until this is the page that is marked as the one shown."""
    expect(pager(page).locator("[aria-current=page]")).to_have_attribute("aria-label", f"Page {number}")


def counted(page: Page) -> int:
    """The sum of the timeline's counts, as text."""
    lines = page.locator(".counts li").all_inner_texts()
    return sum(int(re.search(r": ([\d,]+)", line)[1].replace(",", "")) for line in lines)  # type: ignore[index]


def test_every_page_is_reached(page: Page, live: Live) -> None:
    """First, previous, numbers, next, last, go to page: each shows its rows; the total stays said."""
    fill(live, 112)
    looked_at(page, live, "112 entries", "/?page_size=10")
    sees(page, *targets(111, 102))
    numbers = pager(page).locator(".number")
    assert numbers.all_inner_texts() == ["1", "2", "3", "4", "5"]
    first, previous, after, last = (
        pager(page).get_by_role("button", name=f"{name} page") for name in ("First", "Previous", "Next", "Last")
    )
    expect(first).to_be_disabled()
    expect(previous).to_be_disabled()
    for press, number in (
        (after, 2), (after, 3), (previous, 2), (pager(page).get_by_role("button", name="Page 4", exact=True), 4),
        (last, 12), (previous, 11), (after, 12), (first, 1),
    ):  # fmt: skip
        press.click()
        sees(page, *targets(121 - 10 * number, max(0, 112 - 10 * number)))
        current(page, number)
        shows(page, "112 entries")
        assert ("page=" in page.url) is (number != 1)
    go = pager(page).get_by_role("spinbutton", name="Go to page")
    for typed, number in (("7", 7), ("999", 12), ("1", 1)):
        go.fill(typed)
        go.press("Enter")
        sees(page, *targets(121 - 10 * number, max(0, 112 - 10 * number)))
        current(page, number)
        expect(go).to_have_value("")
    pager(page).get_by_role("button", name="Page 5").click()
    sees(page, *targets(71, 62))
    assert numbers.all_inner_texts() == ["3", "4", "5", "6", "7"]
    last.click()
    current(page, 12)
    assert numbers.all_inner_texts() == ["8", "9", "10", "11", "12"]
    expect(after).to_be_disabled()
    expect(last).to_be_disabled()


def test_the_number_of_rows(page: Page, live: Live) -> None:
    """10, 25, 50 and 100 rows; the first row that was seen stays on the page, and the address says the size."""
    fill(live, 130)
    looked_at(page, live, "130 entries")
    size = page.get_by_role("combobox", name="Rows per page")
    assert size.locator("option").all_inner_texts() == ["10", "25", "50", "100"]
    expect(size).to_have_value("25")
    for number in (10, 25, 50, 100):
        size.select_option(str(number))
        sees(page, *targets(129, 130 - number))
        shows(page, "130 entries")
    size.select_option("25")
    pager(page).get_by_role("button", name="Page 4").click()
    sees(page, *targets(54, 30))
    size.select_option("10")
    sees(page, *targets(59, 50))
    current(page, 8)
    assert "page_size=10&page=8" in page.url
    size.select_option("100")
    sees(page, *targets(129, 30))
    page.reload()
    sees(page, *targets(129, 30))
    expect(size).to_have_value("100")


def test_what_is_read_stands_still(page: Page, live: Live) -> None:
    """Entries recorded meanwhile change neither rows, total, pages, timeline nor CSV, until "Show" brings them."""
    fill(live, 60)
    looked_at(page, live, "60 entries")
    pager(page).get_by_role("button", name="Next page").click()
    sees(page, *targets(34, 10))
    fill(live, 12, first=60)
    find_new(page)
    news = page.get_by_text("12 new", exact=True)
    expect(news).to_be_visible()
    assert items_seen(page) == targets(34, 10)
    for name, shown in (
        ("Next page", (9, 0)),
        ("Previous page", (34, 10)),
        ("First page", (59, 35)),
        ("Last page", (9, 0)),
        ("Page 2", (34, 10)),
    ):
        pager(page).get_by_role("button", name=name).click()
        sees(page, *targets(*shown))
        shows(page, "60 entries")
    expect(pager(page).locator(".number")).to_have_count(3)
    page.get_by_role("combobox", name="Rows per page").select_option("50")
    sees(page, *targets(59, 10))
    page.get_by_role("combobox", name="Rows per page").select_option("25")
    sees(page, *targets(59, 35))
    button(page, "As text").click()
    assert counted(page) == 60
    page.get_by_role("columnheader").get_by_role("button", name="Timestamp").click()
    sees(page, *targets(24, 0)[::-1])
    button(page, "Timeline").click()
    button(page, "Timeline").click()
    assert counted(page) == 60
    with page.expect_download() as waiting:
        button(page, "Export CSV").click()
    table = file_rows(waiting.value.path().read_bytes())
    assert [row[2] for row in table[1:]] == targets(59, 0)[::-1]
    page.get_by_role("columnheader").get_by_role("button", name="Timestamp").click()
    sees(page, *targets(59, 35))
    find_new(page)
    expect(page.get_by_text("13 new", exact=True)).to_be_visible()  # the export is an entry too
    button(page, "Show").click()
    shows(page, "73 entries")
    sees(page, "audit-log" + rows_seen(page)[0][2].removeprefix("audit-log"), *targets(71, 48))
    expect(page.get_by_text(re.compile(r"\d new"))).to_have_count(0)
    expect(page.locator(".counts")).to_be_visible()
    drawn(page, 73)


def test_new_entries_are_counted_by_the_filters(page: Page, live: Live) -> None:
    """The bar counts what the view would show, also where nothing was there before; and asks by itself in time."""
    recorded(live, {"target": "a", "user": "bob"})
    page.clock.install()
    looked_at(page, live, "0 entries", "/?user=alice")
    recorded(live, *[{"target": "b", "user": "bob"}] * 2, *[{"target": "c", "user": "alice"}] * 3)
    page.clock.run_for(10_100)
    expect(page.get_by_text("3 new", exact=True)).to_be_visible()
    expect(rows(page)).to_have_count(0)
    button(page, "Show").click()
    page.clock.run_for(100)
    sees(page, "c", "c", "c")
    shows(page, "3 entries")


def test_another_question_begins_with_the_newest(page: Page, live: Live) -> None:
    """A filter is another question: what is new is in its answer, on page 1."""
    fill(live, 30)
    looked_at(page, live, "30 entries")
    pager(page).get_by_role("button", name="Next page").click()
    sees(page, *targets(4, 0))
    fill(live, 1, first=30)
    page.get_by_role("searchbox").fill("example")
    shows(page, "31 entries")
    sees(page, *targets(30, 6))


def test_a_page_past_the_end_leads_back(page: Page, live: Live) -> None:
    """A page that there is not is said so, and the last one is a click away."""
    fill(live, 30)
    looked_at(page, live, "30 entries", "/?page=999")
    expect(page.get_by_text("Page 999 is past the end; the last one is 2.")).to_be_visible()
    expect(rows(page)).to_have_count(0)
    button(page, "Go to the last page").click()
    sees(page, *targets(4, 0))
    current(page, 2)
    page.goto(f"{live.url}/?page=999")
    pager(page).get_by_role("button", name="Previous page").click()
    current(page, 2)


def test_an_expired_cursor_is_no_matter(page: Page, live: Live, heard: Heard) -> None:
    """Where the server refuses the place to go on from, the page comes all the same, without a word."""
    fill(live, 60)
    looked_at(page, live, "60 entries")
    pager(page).get_by_role("button", name="Next page").click()
    sees(page, *targets(34, 10))
    heard.expect("Failed to load resource: .* 400")
    refused = []
    page.on("response", lambda answer: refused.append(answer.url) if answer.status == 400 else None)
    page.route(
        "**/v1/events?*cursor=*",
        lambda route: route.continue_(url=re.sub("cursor=[^&]+", "cursor=aged", route.request.url)),
    )
    pager(page).get_by_role("button", name="Next page").click()
    sees(page, *targets(9, 0))
    assert refused
    expect(page.get_by_role("alert")).to_have_count(0)
