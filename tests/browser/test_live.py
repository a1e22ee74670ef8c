"""Live: entries appear as they come, none is lost, and whoever reads is left in peace."""

from __future__ import annotations

import re

from playwright.sync_api import Page, expect

from .chromium import Heard
from .server import Live
from .steps import button, fill, find_new, hidden, holding, items_seen, looked_at, recorded, sees
from .viewing import rows, shows, table


def go_live(page: Page) -> None:
    """Switch it on, and wait until the stream is open."""
    with page.expect_response("**/v1/events/stream*"), page.expect_response("**/v1/events?*"):
        page.get_by_role("switch", name="Live").click()
    expect(page.get_by_role("switch", name="Live")).to_be_checked()


def test_entries_appear_as_they_come(page: Page, live: Live) -> None:
    """Switched on, each entry that matches is on top soon after, and counted; switched off, the view stands still."""
    fill(live, 30)
    looked_at(page, live, "30 entries", "/?q=example&page=2")
    go_live(page)
    assert page.url == f"{live.url}/?q=example"
    recorded(live, {"target": "new.example"}, {"target": "unlike"})
    expect(rows(page).first).to_contain_text("new.example")
    expect(rows(page)).to_have_count(25)
    shows(page, "31 entries")
    recorded(live, {"target": "newer.example"})
    expect(rows(page).first).to_contain_text("newer.example")
    shows(page, "32 entries")
    assert items_seen(page)[:3] == ["newer.example", "new.example", "d29.example"]
    with page.expect_event("requestfailed", lambda request: "/stream" in request.url):
        page.get_by_role("switch", name="Live").click()
    expect(page.get_by_role("switch", name="Live")).not_to_be_checked()
    recorded(live, {"target": "later.example"})
    expect(table(page)).to_have_attribute("aria-busy", "false")
    find_new(page)
    expect(page.get_by_text("1 new", exact=True)).to_be_visible()
    assert items_seen(page)[0] == "newer.example"


def test_what_comes_while_it_is_switched_on_is_there(page: Page, live: Live) -> None:
    """An entry that falls between the page's answer and the stream's beginning is shown all the same."""
    fill(live, 2)
    looked_at(page, live, "2 entries")
    with holding(page, "**/v1/events/stream*") as held:
        with page.expect_response("**/v1/events?*"):
            page.get_by_role("switch", name="Live").click()
        recorded(live, {"target": "between"})
        sees(page, "d1.example", "d0.example")
        assert held
    expect(rows(page).first).to_contain_text("between")
    shows(page, "3 entries")


def test_it_follows_the_days_of_another_zone(page: Page, live_once: Live) -> None:
    """Where the zone is switched, the stream is one of the days of that zone."""
    fill(live_once, 2)
    looked_at(page, live_once, "2 entries", "/?from=2024-01-01")
    go_live(page)
    with page.expect_response("**/v1/events/stream*") as opened:
        page.get_by_role("switch", name="UTC").click()
    assert "tz=UTC" in opened.value.url
    expect(page.get_by_role("switch", name="Live")).to_be_checked()


def test_a_hidden_tab_holds_no_connection(page: Page, live: Live) -> None:
    """Hidden, the stream is closed; seen again, it goes on where it was, without a loss and nothing twice."""
    fill(live, 2)
    looked_at(page, live, "2 entries")
    go_live(page)
    recorded(live, {"target": "seen"})
    sees(page, "seen", "d1.example", "d0.example")
    streams: list[str] = []
    page.on("request", lambda request: streams.append(request.url) if "/stream" in request.url else None)
    with page.expect_event("requestfailed", lambda request: "/stream" in request.url), hidden(page):
        recorded(live, {"target": "meanwhile 1"}, {"target": "meanwhile 2"})
        assert streams == []
        assert items_seen(page)[0] == "seen"
    sees(page, "meanwhile 2", "meanwhile 1", "seen", "d1.example", "d0.example")
    shows(page, "5 entries")
    assert len(streams) == 1
    # Paused, nothing but the stream counts.
    rows(page).first.get_by_role("button", name="Show details").click()
    with page.expect_event("requestfailed", lambda request: "/stream" in request.url), hidden(page):
        recorded(live, *[{"target": "more"}] * 3)
    expect(page.get_by_text("3 new", exact=True)).to_be_visible()


def test_a_server_that_comes_back_is_followed_on(page: Page, live_once: Live, heard: Heard) -> None:
    """Cut off, it says so and tries again; what was recorded meanwhile is there then."""
    heard.expect("Failed to load resource|net::ERR_")
    fill(live_once, 1)
    looked_at(page, live_once, "1 entry")
    go_live(page)
    recorded(live_once, {"target": "before"})
    sees(page, "before", "d0.example")
    live_once.server.kill()
    expect(page.get_by_text("Live is cut off, and tries again.")).to_be_visible()
    live_once.record("domain.created", target="meanwhile")
    live_once.server.start()
    sees(page, "meanwhile", "before", "d0.example")


def test_scrolling_pauses(page: Page, live_once: Live) -> None:
    """Whoever scrolls is left in peace, and sees that; "Resume" shows what came."""
    fill(live_once, 60)
    looked_at(page, live_once, "60 entries", "/?page_size=50")
    go_live(page)
    top = items_seen(page)
    page.mouse.move(400, 500)
    page.mouse.wheel(0, 300)
    expect(page.get_by_text("Live is paused.")).to_be_visible()
    recorded(live_once, {"target": "one"}, {"target": "two"})
    expect(page.get_by_text("2 new", exact=True)).to_be_visible()
    assert items_seen(page) == top
    button(page, "Resume").click()
    expect(rows(page).first).to_contain_text("two")
    expect(page.get_by_text("Live is paused.")).to_have_count(0)
    shows(page, "62 entries")
    recorded(live_once, {"target": "three"})
    expect(rows(page).first).to_contain_text("three")


def test_opening_an_entry_pauses(page: Page, live_once: Live) -> None:
    """An entry that is read stays where it is; "Resume" closes it."""
    fill(live_once, 3)
    looked_at(page, live_once, "3 entries")
    go_live(page)
    rows(page).nth(1).get_by_role("button", name="Show details").click()
    expect(page.get_by_text("Live is paused.")).to_be_visible()
    recorded(live_once, {"target": "one"})
    expect(page.get_by_text("1 new", exact=True)).to_be_visible()
    assert items_seen(page) == ["d2.example", "d1.example", "d0.example"]
    expect(page.locator(".details .whole")).to_contain_text("d1.example")
    button(page, "Resume").click()
    sees(page, "one", "d2.example", "d1.example", "d0.example")
    expect(page.locator(".details")).to_have_count(0)
    expect(page.get_by_text(re.compile("Live is"))).to_have_count(0)
