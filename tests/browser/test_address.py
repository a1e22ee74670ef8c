"""The view in the page's address: typed, pushed, gone back to, copied; and what must not be in it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from playwright.sync_api import BrowserContext, Page, expect

from .chromium import Heard
from .server import Live
from .steps import (
    action_box,
    ago,
    button,
    chips,
    fill,
    find_new,
    items_seen,
    looked_at,
    pager,
    read_back,
    recorded,
    search,
    sees,
    with_clipboard,
)
from .viewing import rows, shows

WHEREVER = """() => {
    const texts = [location.href, JSON.stringify(history.state), JSON.stringify({ ...localStorage }), document.cookie,
                   document.title];
    const walk = (node) => {
        for (const one of node.querySelectorAll("*")) {
            for (const { value } of one.attributes) texts.push(value);
            if ("value" in one) texts.push(String(one.value));
            if (one.shadowRoot) walk(one.shadowRoot);
        }
        texts.push(node.textContent);
    };
    walk(document);
    return texts.join("\\n");
}"""


def test_typing_replaces_and_choices_are_pushed(page: Page, live_once: Live) -> None:
    """A word that is typed is one step of the history, however long it took; each choice is one; Back undoes them."""
    fill(live_once, 30)
    looked_at(page, live_once, "30 entries")
    steps = page.evaluate("history.length")
    for text, total in (("d", 30), ("d1", 11), ("d17", 1)):
        with page.expect_response(f"**/v1/events?*q={text}&*"):
            search(page).press_sequentially(text[-1])
        shows(page, f"{total} entr")
    assert page.url == f"{live_once.url}/?q=d17"
    assert page.evaluate("history.length") == steps
    search(page).press("Enter")
    assert page.evaluate("history.length") == steps + 1
    button(page, "Remove filter: Search: d17").click()
    shows(page, "30 entries")
    pager(page).get_by_role("button", name="Next page").click()
    sees(page, *(f"d{at}.example" for at in range(4, -1, -1)))
    page.get_by_role("combobox", name="Rows per page").select_option("10")
    page.get_by_role("columnheader").get_by_role("button", name="Action").click()
    expect(page.get_by_text("By action, A to Z", exact=True)).to_be_visible()
    assert page.evaluate("history.length") == steps + 5
    assert page.url == f"{live_once.url}/?sort=action&page_size=10"
    for address in ("?page_size=10&page=3", "?page=2", "", "?q=d17", ""):
        page.go_back()
        expect(page).to_have_url(f"{live_once.url}/{address}")
    shows(page, "30 entries")
    expect(search(page)).to_have_value("")
    page.go_forward()
    shows(page, "1 entry")
    expect(search(page)).to_have_value("d17")
    page.go_forward()
    page.go_forward()
    sees(page, *(f"d{at}.example" for at in range(4, -1, -1)))


def test_back_stays_with_what_is_being_read(page: Page, live: Live) -> None:
    """Back to another page of the same question shows what it showed, though there is more by now."""
    fill(live, 40)
    looked_at(page, live, "40 entries")
    before = items_seen(page)
    pager(page).get_by_role("button", name="Next page").click()
    expect(rows(page)).to_have_count(15)
    fill(live, 3, first=40)
    page.go_back()
    sees(page, *before)
    shows(page, "40 entries")
    find_new(page)
    expect(page.get_by_text("3 new", exact=True)).to_be_visible()


FORWARD_TWICE = """() => new Promise((done) => {
    const second = () => { addEventListener("popstate", done, { once: true }); history.forward(); };
    addEventListener("popstate", second, { once: true });
    history.forward();
})"""


def test_another_question_does_not_end_where_the_one_before_it_did(page: Page, live_once: Live) -> None:
    """Who goes forward twice, before the first answer came, sees the page there, and not the end of an older search."""
    fill(live_once, 30)
    looked_at(page, live_once, "30 entries")
    search(page).fill("d17")
    search(page).press("Enter")
    shows(page, "1 entry")
    button(page, "Remove filter: Search: d17").click()
    shows(page, "30 entries")
    pager(page).get_by_role("button", name="Next page").click()
    sees(page, *(f"d{at}.example" for at in range(4, -1, -1)))
    page.go_back()
    page.go_back()
    shows(page, "1 entry")
    page.evaluate(FORWARD_TWICE)
    sees(page, *(f"d{at}.example" for at in range(4, -1, -1)))


def test_a_reload_keeps_everything(page: Page, live: Live) -> None:
    """Search, actions, dates, order, size, page and zone are as they were after a reload."""
    recorded(live, *({"target": f"d{at}.example", "timestamp": ago(days=2)} for at in range(30)))
    fill(live, 5, action="alias.created")
    looked_at(page, live, "35 entries")
    search(page).fill("example")
    search(page).press("Enter")
    button(page, "Action").click()
    action_box(page, "Domains").check()
    page.keyboard.press("Escape")
    page.get_by_role("combobox", name="Period").select_option(label="Last 30 days")
    shows(page, "30 entries")
    page.get_by_role("columnheader").get_by_role("button", name="Timestamp").click()
    page.get_by_role("combobox", name="Rows per page").select_option("10")
    page.get_by_role("switch", name="UTC").click()
    pager(page).get_by_role("button", name="Page 2").click()
    expect(pager(page).locator("[aria-current=page]")).to_have_text("2")
    expect(page.get_by_role("table")).to_have_attribute("aria-busy", "false")
    seen = (items_seen(page), chips(page), page.url)
    page.reload()
    sees(page, *seen[0])
    expect(page.get_by_role("button", name="Remove filter: ")).to_have_count(3)
    assert (items_seen(page), chips(page), page.url) == seen
    expect(page.get_by_role("switch", name="UTC")).to_be_checked()
    expect(page.locator("th.timestamp")).to_have_attribute("aria-sort", "ascending")


def test_a_copied_link_shows_the_same_to_others(
    page: Page, live: Live, new_context: Callable[..., BrowserContext]
) -> None:
    """A copied link has absolute dates and its moment: in another zone, with more recorded, it shows the same rows."""
    midnight = datetime.now(ZoneInfo("Europe/Berlin")).replace(hour=0, minute=0, second=0, microsecond=0)
    recorded(live, {"target": "yesterday", "timestamp": midnight - timedelta(days=7, seconds=1)})
    recorded(live, *({"target": f"d{at}", "timestamp": midnight - timedelta(days=6, minutes=-at)} for at in range(30)))
    with_clipboard(looked_at(page, live, "31 entries"))
    page.get_by_role("combobox", name="Period").select_option(label="Last 7 days")
    shows(page, "30 entries")
    pager(page).get_by_role("button", name="Next page").click()
    expect(rows(page)).to_have_count(5)
    button(page, "Copy link").click()
    expect(button(page, "Copied")).to_be_visible()
    link = read_back(page)
    assert link.startswith(f"{live.url}/?")
    assert "period" not in link
    assert "pin=" in link
    assert live.token()[:20] not in link
    seen = items_seen(page)
    fill(live, 3)
    other = new_context(timezone_id="Asia/Tokyo").new_page()
    other.goto(f"{link}#token={live.token()}")
    sees(other, *seen)
    shows(other, "30 entries")
    expect(other.get_by_text("As of ")).to_be_visible()
    other.clock.set_fixed_time(datetime.now() + timedelta(days=3))
    other.reload()
    sees(other, *seen)
    button(other, "Back to now").click()
    shows(other, "33 entries")
    assert "pin" not in other.url


def test_the_token_is_nowhere(page: Page, live_once: Live) -> None:
    """Neither address, history, storage that lasts, cookies nor any attribute has the token, whatever was done."""
    ids = fill(live_once, 30)
    token = live_once.token()
    page.goto(f"{live_once.url}/?q=example#token={token}")
    shows(page, "30 entries")
    with_clipboard(page)
    pager(page).get_by_role("button", name="Next page").click()
    expect(rows(page)).to_have_count(5)
    rows(page).first.get_by_role("button", name="Show details").click()
    expect(page.locator(".details .whole")).to_contain_text(ids[4])
    for name, part in (("Copy link", "pin="), ("Copy link to entry", "?entry="), ("Copy entry", '"id"')):
        button(page, name).click()
        page.wait_for_function("part => navigator.clipboard.readText().then(text => text.includes(part))", arg=part)
        assert token not in read_back(page)
    assert token not in page.evaluate(WHEREVER)
    assert ids[4] in page.evaluate(WHEREVER)  # it looked everywhere
    page.go_back()
    shows(page, "30 entries")
    assert page.url == f"{live_once.url}/?q=example"


@pytest.mark.parametrize(
    ("address", "named"),
    [
        ("sort=size", ["sort"]),
        ("category=nonsense&action=no.such", ["action", "category"]),
        ("page=0&page_size=7", ["page", "page_size"]),
        ("page=x&page_size=many", ["page", "page_size"]),
        ("from=2026-02-30", ["from"]),
        ("from=2026-02-03&to=2026-02-01", ["from"]),
        ("ip=192.0.2.7", ["ip"]),
        ("period=soon&zone=mars&pin=never", ["period", "pin", "zone"]),
        ("q=" + "x" * 300, ["q"]),
    ],
)
def test_a_bad_value_in_the_address_is_named(
    page: Page, live_once: Live, heard: Heard, address: str, named: list[str]
) -> None:
    """Each parameter that is not allowed is named, and taken away at the press of a button; others stay."""
    fill(live_once, 2)
    if "period" not in address:
        heard.expect("Failed to load resource: .* 422")
    page.goto(live_once.link(f"/?{address}&user=nobody"))
    alert = page.get_by_role("alert")
    expect(alert).to_contain_text("This view asks for something that is not allowed.")
    assert sorted({text for text in alert.locator("code").all_inner_texts()}) == named
    button(page, "Remove these").click()
    shows(page, "0 entries")
    expect(alert).to_have_count(0)
    assert page.url == f"{live_once.url}/?user=nobody"


def test_a_bad_size_is_left_by_another(page: Page, live_once: Live, heard: Heard) -> None:
    """A size that means nothing is left by choosing one."""
    heard.expect("Failed to load resource: .* 422")
    fill(live_once, 60)
    page.goto(live_once.link("/?page_size=many"))
    expect(page.get_by_role("alert")).to_be_visible()
    page.get_by_role("combobox", name="Rows per page").select_option("50")
    expect(rows(page)).to_have_count(50)
    assert page.url == f"{live_once.url}/?page_size=50"
