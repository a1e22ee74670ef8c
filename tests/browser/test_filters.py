"""The filter bar: search, actions, dates; what is applied, and how it is taken back; the order."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qs, urlsplit
from zoneinfo import ZoneInfo

import pytest
from playwright.sync_api import BrowserContext, Page, expect

from .server import Live
from .steps import (
    action_box,
    ago,
    button,
    chips,
    fill,
    find_new,
    holding,
    items_seen,
    looked_at,
    recorded,
    search,
    sees,
)
from .viewing import rows, shows, table

BERLIN = ZoneInfo("Europe/Berlin")


def asked(page: Page) -> list[str]:
    """A list that gets what each question for a page of the log searches for."""
    heard: list[str] = []

    def hear(url: str) -> None:
        if urlsplit(url).path == "/v1/events":
            heard.append(parse_qs(urlsplit(url).query).get("q", [""])[0])

    page.on("request", lambda request: hear(request.url))
    return heard


def open_menu(page: Page) -> None:
    """Open the menu of actions."""
    page.get_by_role("button", name="Action", exact=True).first.click()
    expect(page.get_by_role("dialog").get_by_role("textbox", name="Find")).to_be_focused()


def choose_period(page: Page, name: str) -> None:
    """Choose a period by its name."""
    page.get_by_role("combobox", name="Period").select_option(label=name)


# Search


def test_a_search_waits_for_the_typing_to_rest(page: Page, live_once: Live) -> None:
    """Keys in quick succession are one question, asked without a further key."""
    fill(live_once, 12)
    looked_at(page, live_once, "12 entries")
    questions = asked(page)
    search(page).press_sequentially("d11.example", delay=20)
    shows(page, "1 entry")
    assert questions == ["d11.example"]


def test_the_last_answer_wins(page: Page, live_once: Live) -> None:
    """An answer that comes late, to a question that was asked before, changes nothing."""
    fill(live_once, 12)
    looked_at(page, live_once, "12 entries")
    with holding(page, "**/v1/events?*", lambda url: "q=d3&" in url) as held:
        with page.expect_request("**/v1/events?*q=d3&*"):
            search(page).fill("d3")
        search(page).fill("d11")
        sees(page, "d11.example")
        expect(table(page)).to_have_attribute("aria-busy", "false")
        held.pop().continue_()
    for _ in range(2):  # asked after the late answer
        with page.expect_response("**/v1/events?*q=d11&*"):
            find_new(page)
    assert items_seen(page) == ["d11.example"]
    shows(page, "1 entry")


def test_an_answer_leaves_what_is_being_typed(page: Page, live_once: Live) -> None:
    """Whoever types on while an answer comes keeps each letter."""
    fill(live_once, 12)
    looked_at(page, live_once, "12 entries")
    with holding(page, "**/v1/events?*", lambda url: "q=d1&" in url) as held:
        with page.expect_request("**/v1/events?*q=d1&*"):
            search(page).press_sequentially("d1")
        with page.expect_response("**/v1/events?*q=d1&*"):
            search(page).press_sequentially("1")
            held.pop().continue_()
        search(page).press_sequentially(".ex")
        expect(search(page)).to_have_value("d11.ex")
        sees(page, "d11.example")
    expect(search(page)).to_have_value("d11.ex")


def test_words_phrases_and_exclusions(page: Page, live: Live) -> None:
    """The search is that of the API: words are ANDed, a phrase holds together, `-` excludes; nothing is an error."""
    recorded(
        live,
        {"target": "mail.example.com", "detail": "DKIM enabled", "user": "alice"},
        {"target": "mail.example.net", "detail": "enabled again, DKIM too", "user": "bob"},
        {"target": "Müller GmbH", "detail": "100 %", "action": "user.deleted"},
    )
    looked_at(page, live, "3 entries")
    for text, *found in (
        ("dkim enabled", "mail.example.net", "mail.example.com"),
        ('"dkim enabled"', "mail.example.com"),
        ("mail -alice", "mail.example.net"),
        ("MULLER gmbh", "Müller GmbH"),
        ("domain created ali", "mail.example.com"),
        ('"unclosed AND (', *()),
        ("?*\\ &", "Müller GmbH", "mail.example.net", "mail.example.com"),
    ):
        search(page).fill(text)
        search(page).press("Enter")
        sees(page, *found)


# Actions


def test_actions_are_found_and_chosen(page: Page, live: Live) -> None:
    """The menu is searched; several actions count together; a heading takes its group, half of it is shown as such."""
    recorded(
        live,
        *({"action": action, "target": action} for action in (
            "domain.created", "domain.deleted", "user.created", "user.deleted", "auth.login_failed", "queue.flushed",
        )),
    )  # fmt: skip
    looked_at(page, live, "6 entries")
    open_menu(page)
    groups = page.get_by_role("dialog").get_by_role("group")
    assert [group.get_attribute("aria-label") for group in groups.all()][:4] == ["Domains", "Users", "Aliases", "DKIM"]
    page.get_by_role("textbox", name="Find").fill("login")
    expect(groups).to_have_count(1)
    expect(page.get_by_role("dialog").get_by_role("checkbox")).to_have_count(3)
    action_box(page, "Login failed").check()
    sees(page, "auth.login_failed")
    expect(action_box(page, "Login failed")).to_be_checked()
    page.get_by_role("textbox", name="Find").fill("no such thing")
    expect(page.get_by_role("dialog")).to_contain_text("No action has this name.")
    page.get_by_role("textbox", name="Find").fill("")
    action_box(page, "Domain deleted").check()
    sees(page, "auth.login_failed", "domain.deleted")
    expect(action_box(page, "Domains")).to_have_js_property("indeterminate", True)
    action_box(page, "Domains").click()
    sees(page, "auth.login_failed", "domain.deleted", "domain.created")
    expect(action_box(page, "Domains")).to_be_checked()
    expect(action_box(page, "Domains")).to_have_js_property("indeterminate", False)
    expect(action_box(page, "Domain created")).to_be_checked()
    assert sorted(chips(page)) == ["Action: Domains", "Action: Login failed"]
    action_box(page, "Domains").click()
    sees(page, "auth.login_failed")
    expect(action_box(page, "Domain created")).not_to_be_checked()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()
    expect(page.get_by_role("button", name="Action", exact=True).first).to_have_accessible_description("1 chosen")


def test_all_headings_together(page: Page, live: Live) -> None:
    """Every group at once finds everything, and one taken back leaves the others."""
    recorded(live, {"target": "a"}, {"target": "b", "action": "system.factory_reset"})
    looked_at(page, live, "2 entries")
    open_menu(page)
    groups = page.get_by_role("dialog").get_by_role("group").all()
    for group in groups:
        group.get_by_role("checkbox").first.check()
    expect(page.get_by_role("button", name="Remove filter: Action")).to_have_count(len(groups))
    shows(page, "2 entries")
    action_box(page, "System").uncheck()
    sees(page, "a")


# Dates


def midnights() -> list[tuple[str, datetime]]:
    """Around the midnight in Berlin that began the day before yesterday: names of moments, and the moments."""
    start = datetime.now(BERLIN).replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=2)
    start = start.replace(tzinfo=None).replace(tzinfo=BERLIN).astimezone(UTC)
    utc = start.astimezone(BERLIN).replace(tzinfo=UTC)
    return [
        ("the evening before", start - timedelta(milliseconds=1)),
        ("midnight in Berlin", start),
        ("before midnight in UTC", utc - timedelta(milliseconds=1)),
        ("midnight in UTC", utc),
        ("the last moment in Berlin", start + timedelta(days=1, milliseconds=-1)),
        ("the next day in Berlin", start + timedelta(days=1)),
        ("the last moment in UTC", utc + timedelta(days=1, milliseconds=-1)),
        ("the next day in UTC", utc + timedelta(days=1)),
    ]


def test_days_are_those_of_the_zone(page: Page, live: Live) -> None:
    """From and To take in whole days of the zone that is shown; the switch makes them those of UTC, in the address."""
    moments = midnights()
    names = [name for name, _ in moments]
    recorded(live, *({"target": name, "timestamp": moment} for name, moment in moments))
    looked_at(page, live, "8 entries")
    day = moments[1][1].astimezone(BERLIN)
    page.get_by_label("From", exact=True).fill(f"{day:%Y-%m-%d}")
    sees(page, *names[:0:-1])
    page.get_by_label("To", exact=True).fill(f"{day:%Y-%m-%d}")
    sees(page, *names[4:0:-1])
    assert f"from={day:%Y-%m-%d}&to={day:%Y-%m-%d}" in page.url
    shown = f"{day:%b} {day.day}, {day.year}"
    assert chips(page) == [f"From: {shown}", f"To: {shown}"]
    expect(page.get_by_text("Times in Europe/Berlin")).to_be_visible()
    expect(rows(page).last.locator("time")).to_have_text(f"{shown}, 00:00:00")
    page.get_by_role("switch", name="UTC").click()
    sees(page, *names[6:2:-1])
    expect(page.get_by_role("switch", name="UTC")).to_be_checked()
    expect(page.get_by_text("Times in UTC")).to_be_visible()
    assert "zone=utc" in page.url
    expect(rows(page).last.locator("time")).to_have_text(f"{shown}, 00:00:00")
    expect(page.get_by_label("From", exact=True)).to_have_value(f"{day:%Y-%m-%d}")
    page.reload()
    sees(page, *names[6:2:-1])
    page.get_by_role("switch", name="UTC").click()
    sees(page, *names[4:0:-1])
    assert "zone" not in page.url
    page.get_by_label("From", exact=True).fill("")
    sees(page, *names[4::-1])


@pytest.mark.parametrize("path", ["/", "/?zone=utc"])
def test_where_local_is_utc_nothing_is_switched(
    new_context: Callable[..., BrowserContext], live_once: Live, path: str
) -> None:
    """In a browser whose zone is UTC the switch is on, as the times are in UTC, and stays so."""
    recorded(live_once, {"target": "a"})
    page = looked_at(new_context(timezone_id="UTC").new_page(), live_once, "1 entry", path)
    expect(page.get_by_text("Times in UTC")).to_be_visible()
    switch = page.get_by_role("switch", name="UTC")
    expect(switch).to_be_checked()
    expect(switch).to_be_disabled()
    switch.click(force=True)
    expect(switch).to_be_checked()
    assert page.url == f"{live_once.url}{path}"


def test_times_are_finer_than_days(page: Page, live: Live) -> None:
    """With time, the bounds are moments of the zone: From inclusive, To exclusive; and days again without."""
    noon = (datetime.now(BERLIN) - timedelta(days=3)).replace(hour=12, minute=0, second=0, microsecond=0)
    recorded(live, *({"target": f"{seconds}", "timestamp": noon + timedelta(seconds=seconds)} for seconds in range(6)))
    looked_at(page, live, "6 entries")
    page.get_by_label("From", exact=True).fill(f"{noon:%Y-%m-%d}")
    page.get_by_label("To", exact=True).fill(f"{noon:%Y-%m-%d}")
    shows(page, "6 entries")
    button(page, "With time").click()
    from_, to = (page.get_by_label(name, exact=True) for name in ("From", "To"))
    expect(from_).to_have_value(f"{noon:%Y-%m-%d}T00:00")
    expect(to).to_have_value(f"{noon + timedelta(days=1):%Y-%m-%d}T00:00")
    shows(page, "6 entries")
    from_.fill(f"{noon:%Y-%m-%d}T12:00:02")
    sees(page, "5", "4", "3", "2")
    to.fill(f"{noon:%Y-%m-%d}T12:00:04")
    sees(page, "3", "2")
    page.get_by_role("switch", name="UTC").click()
    expect(from_).to_have_value(f"{noon.astimezone(UTC):%Y-%m-%dT%H}:00:02")
    sees(page, "3", "2")  # the same moments
    page.reload()
    sees(page, "3", "2")
    expect(from_).to_have_attribute("type", "datetime-local")
    button(page, "With time").click()
    expect(from_).to_have_value(f"{noon.astimezone(UTC):%Y-%m-%d}")
    expect(to).to_have_value(f"{noon.astimezone(UTC):%Y-%m-%d}")
    shows(page, "6 entries")


def test_periods_stay_relative(page: Page, live: Live) -> None:
    """Today, 7, 30 and 90 days count from the reader's today, also when the same address is opened days later."""
    today = datetime.now(BERLIN).replace(hour=0, minute=0, second=0, microsecond=0)
    for days in (0, 6, 29, 89):
        first = (today.replace(tzinfo=None) - timedelta(days=days)).replace(tzinfo=BERLIN)
        recorded(
            live,
            {"target": f"the first of {days + 1}", "timestamp": first},
            {"target": f"before {days + 1}", "timestamp": first.astimezone(UTC) - timedelta(milliseconds=1)},
        )
    looked_at(page, live, "8 entries")
    for name, total, value in (
        ("Today", "1 entry", "today"), ("Last 7 days", "3 entries", "7d"), ("Last 30 days", "5 entries", "30d"),
        ("Last 90 days", "7 entries", "90d"),
    ):  # fmt: skip
        choose_period(page, name)
        shows(page, total)
        assert page.url == f"{live.url}/?period={value}"
        assert chips(page) == [f"Period: {name}"]
    choose_period(page, "Last 7 days")
    expect(page.get_by_label("From", exact=True)).to_have_value(f"{today - timedelta(days=6):%Y-%m-%d}")
    expect(page.get_by_label("To", exact=True)).to_have_value("")
    shows(page, "3 entries")
    page.clock.set_fixed_time(today + timedelta(days=1, hours=12))
    page.reload()
    shows(page, "2 entries")  # today's, and that of the evening before today
    expect(page.get_by_role("combobox", name="Period")).to_have_value("7d")
    choose_period(page, "All time")
    shows(page, "8 entries")
    assert page.url == f"{live.url}/"


# Together


def test_all_filters_work_together_and_are_taken_back(page: Page, live: Live) -> None:
    """Search, actions, dates and a user apply at once, by the server; each chip removes its own, Clear all the rest."""
    day = ago(days=2)
    good = {"target": "match.example", "timestamp": day, "user": "alice", "action": "domain.created"}
    recorded(
        live,
        good,
        good | {"action": "domain.deleted"},
        good | {"action": "user.created"},  # lacks: the action
        good | {"timestamp": ago(days=9)},  # the date
        good | {"target": "other.example"},  # the word
        good | {"user": "bob"},  # the user
        *({"target": f"x{number}", "user": "carol"} for number in range(30)),
    )
    looked_at(page, live, "36 entries", "/?page=2")
    search(page).fill("match")
    shows(page, "5 entries")
    assert "page=" not in page.url
    open_menu(page)
    action_box(page, "Domains").check()
    shows(page, "4 entries")
    page.keyboard.press("Escape")
    page.get_by_label("From", exact=True).fill(f"{day - timedelta(days=1):%Y-%m-%d}")
    shows(page, "3 entries")
    rows(page).filter(has_text="alice").first.get_by_role("button", name="Show details").click()
    page.get_by_role("button", name="Show only this: User alice").click()
    shows(page, "2 entries")
    named = chips(page)
    assert [name.partition(":")[0] for name in named] == ["Search", "Action", "From", "User"]
    assert named[0] == "Search: match"
    assert named[1] == "Action: Domains"
    for name, total in (("User: alice", 3), ("Action: Domains", 4), ("Search: match", 35)):
        button(page, f"Remove filter: {name}").click()
        shows(page, f"{total} entries")
    assert [name.partition(":")[0] for name in chips(page)] == ["From"]
    button(page, "Clear all").click()
    shows(page, "36 entries")
    assert chips(page) == []
    expect(search(page)).to_have_value("")
    expect(page.get_by_label("From", exact=True)).to_have_value("")
    assert page.url == f"{live.url}/"


def test_no_match_names_what_is_applied(page: Page, live_once: Live) -> None:
    """Where nothing matches, the filters are named; the last can be removed there, or all."""
    fill(live_once, 3)
    looked_at(page, live_once, "0 entries", "/?q=d1&user=nobody")
    expect(page.get_by_text("Nothing matches.")).to_be_visible()
    assert page.locator(".applied").all_inner_texts() == ["Search: d1", "User: nobody"]
    button(page, "Remove the last filter").click()
    sees(page, "d1.example")
    page.go_back()
    shows(page, "0 entries")
    button(page, "Clear all").click()
    shows(page, "3 entries")


# Order


def test_headers_toggle_the_order(page: Page, live: Live) -> None:
    """Timestamp and Action each turn their order round; `aria-sort` says which it is; others are no buttons."""
    for action, target in (
        ("user.created", "u1"),
        ("domain.created", "d1"),
        ("user.created", "u2"),
        ("alias.created", "a1"),
    ):
        recorded(live, {"action": action, "target": target})
    looked_at(page, live, "4 entries")
    headers = table(page).get_by_role("columnheader")
    sorts = "all => all.map(one => one.ariaSort)"
    expect(headers.get_by_role("button")).to_have_count(2)
    sees(page, "a1", "u2", "d1", "u1")
    assert headers.evaluate_all(sorts) == ["descending", "none", None, None, None, None]
    for name, order, found, address in (
        ("Timestamp", ["ascending", "none"], ("u1", "d1", "u2", "a1"), "?sort=timestamp"),
        ("Action", ["none", "ascending"], ("a1", "d1", "u2", "u1"), "?sort=action"),
        ("Action", ["none", "descending"], ("u2", "u1", "d1", "a1"), "?sort=-action"),
        ("Action", ["none", "ascending"], ("a1", "d1", "u2", "u1"), "?sort=action"),
        ("Timestamp", ["descending", "none"], ("a1", "u2", "d1", "u1"), ""),
    ):
        headers.get_by_role("button", name=name).click()
        sees(page, *found)
        assert headers.evaluate_all(sorts)[:2] == order
        assert page.url == f"{live.url}/{address}"
