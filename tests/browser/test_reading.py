"""The table: what a row says, and what its details add."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import BrowserContext, Page, expect

from audit_pipeline.actions import catalogue

from .chromium import Heard
from .server import Live
from .steps import ago, button, chips, items_seen, looked_at, read_back, recorded, rows_seen, sees, with_clipboard
from .viewing import rows, shows, table

COLUMNS = ["Timestamp", "Action", "Target", "Detail", "User", "IP Address"]
TONES = {
    "green": ("+", "rgb(15, 83, 35)", "rgb(218, 251, 225)"),
    "yellow": ("~", "rgb(107, 71, 0)", "rgb(255, 243, 196)"),
    "red": ("×", "rgb(164, 14, 38)", "rgb(255, 235, 233)"),
    "accent": ("•", "rgb(5, 80, 174)", "rgb(221, 244, 255)"),
}
BADGES = """all => all.map(one => {
    const { color, backgroundColor } = getComputedStyle(one);
    return [one.title, one.lastChild.textContent, one.querySelector("[aria-hidden=true]").textContent, color,
            backgroundColor];
})"""
# Of each mark and the badge around it, by WCAG 2.2.
CONTRASTS = """all => all.map(one => {
    const light = (at) => getComputedStyle(at).backgroundColor.match(/\\d+/g).slice(0, 3).map((part) => part / 255)
        .map((part) => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4)
        .reduce((sum, part, at) => sum + part * [0.2126, 0.7152, 0.0722][at], 0.05);
    const [less, more] = [light(one), light(one.parentElement)].sort((a, b) => a - b);
    return more / less;
})"""


def details_of(page: Page, place: int = 0) -> Any:
    """Open the entry of this row, and return its details."""
    rows(page).nth(place).get_by_role("button", name="Show details").click()
    whole = page.locator(".details .whole")
    expect(whole).to_be_visible()
    return whole


def line(whole: Any, name: str) -> Any:
    """What the details say under this name."""
    return whole.locator(".line").filter(has=whole.page.locator("dt", has_text=name)).locator("dd").first


def test_a_row_has_six_columns_and_the_newest_is_first(page: Page, live: Live) -> None:
    """Timestamp, Action, Target, Detail, User, IP Address; by time, not by arrival; in one ms the greater id."""
    newest, middle, oldest = ago(minutes=1), ago(hours=1), ago(days=3)
    ids = recorded(
        live,
        {"timestamp": middle, "target": "b1", "detail": "DKIM enabled", "user": "alice", "ip": "192.168.1.77"},
        {"timestamp": middle, "target": "b2", "ip": "2001:db8::1"},
        {"timestamp": oldest, "target": "c"},
        {"timestamp": newest, "target": "a", "action": "auth.login_failed", "user": "bob"},
    )
    looked_at(page, live, "4 entries")
    headers = table(page).get_by_role("columnheader")
    assert [text.rstrip("↓↑↕") for text in headers.all_inner_texts()] == COLUMNS
    moments = [f"{at:%Y-%m-%dT%H:%M:%S}.{at.microsecond // 1000:03}Z" for at in (newest, middle, oldest)]
    both = [
        (ids[0], [moments[1], "Domain created", "b1", "DKIM enabled", "alice", "192.168.1.xxx"]),
        (ids[1], [moments[1], "Domain created", "b2", "", "", "2001:db8::xxxx"]),
    ]
    assert rows_seen(page) == [
        [moments[0], "Login failed", "a", "", "bob", ""],
        *(row for _, row in sorted(both, reverse=True)),
        [moments[2], "Domain created", "c", "", "", ""],
    ]


def test_each_action_is_a_badge_in_its_tone(page: Page, live_once: Live) -> None:
    """Every action of the catalogue has icon, label and the colours of its tone."""
    actions = [action for category in catalogue.categories() for action in category.actions]
    recorded(live_once, *({"action": action.id} for action in actions))
    looked_at(page, live_once, f"{len(actions)} entries", "/?page_size=100")
    found = page.locator("td.action .badge").evaluate_all(BADGES)
    assert sorted(found) == sorted([action.id, action.label, *TONES[action.tone]] for action in actions)
    assert {action.tone for action in actions} == set(TONES)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_what_failed_is_marked(
    new_context: Callable[..., BrowserContext], live_once: Live, axe: Callable[[Page], list[str]], scheme: str
) -> None:
    """What failed has a mark that stands out, and is no text: in the table, on cards, in details."""
    tones = ("backup.created", "settings.updated", "domain.deleted", "service.restarted")
    recorded(live_once, *({"action": action} for action in tones))
    recorded(live_once, *({"action": action, "outcome": "failure", "user": "eve"} for action in tones))
    page = looked_at(new_context(color_scheme=scheme).new_page(), live_once, "8 entries", "/?sort=action")
    labels = [catalogue[action].label for action in sorted(tones) for _ in range(2)]
    for width in (1280, 500):
        page.set_viewport_size({"width": width, "height": 800})
        failed = rows(page).filter(has=page.get_by_role("img", name="failed", exact=True))
        expect(failed).to_have_count(4)
        expect(failed.filter(has_text="eve")).to_have_count(4)
        assert [row[1] for row in rows_seen(page)] == labels
        assert page.get_by_role("img").all_text_contents() == [""] * 4
        contrasts = page.get_by_role("img").evaluate_all(CONTRASTS)
        assert min(contrasts) >= 3, contrasts
        assert axe(page) == []
    failed.last.get_by_role("button", name="Show details").click()
    expect(page.locator(".whole").get_by_role("img", name="failed")).to_be_visible()


def test_cells_are_short_and_hide_nothing(page: Page, live_once: Live) -> None:
    """A cell has 300 characters at most, never half of one, in an element of its own direction; marks are symbols."""
    recorded(
        live_once,
        {"target": "x" * 299 + "😀" + "y", "detail": "z" * 10_000, "user": "w" * 300},
        {"target": "pay\u202egpj.exe", "detail": "one\ntwo\tthree", "user": "a\u200bb\u2066c\u2069"},
        {"target": "שלום", "user": "family 👩‍👧"},  # the joiner within is no mark to be seen
    )
    looked_at(page, live_once, "3 entries")
    first, second, third = ([row[2], row[3], row[4]] for row in rows_seen(page))
    assert first == ["שלום", "", "family 👩‍👧"]
    assert second == ["pay⟨U+202E⟩gpj.exe", "one↵two␉three", "a⟨U+200B⟩b⟨U+2066⟩c⟨U+2069⟩"]
    assert third == ["x" * 299 + "…", "z" * 300 + "…", "w" * 300]
    own = rows(page).locator("td:is(.target, .detail, .user, .ip) > bdi:only-child")
    expect(own).to_have_count(12)


@pytest.mark.parametrize("width", [1280, 1000, 800, 500])
def test_columns_fit_what_is_in_them(page: Page, live_once: Live, width: int) -> None:
    """Usual values are seen whole, on several lines where they have to be, and so is the end of each address."""
    usual = {
        "action": "backup.schedule_updated",
        "target": "team1217@nordwind.example",
        "detail": "Plan changed to Enterprise from Business",
        "user": "alice@mx.example",
    }
    addresses = ("2001:db8:1234:5678:9abc:def1:2345:6789", "2001:db8:0:d6:abcd:1234:5678:1", "192.168.100.1", "")
    recorded(live_once, *(usual | {"ip": ip} for ip in addresses))
    page.set_viewport_size({"width": width, "height": 800})
    looked_at(page, live_once, "4 entries")
    assert sorted(row[5] for row in rows_seen(page)) == [
        "", "192.168.100.xxx", "2001:db8:0:d6:abcd:1234:5678:xxxx", "2001:db8:1234:5678:9abc:def1:2345:xxxx",
    ]  # fmt: skip
    cut = (
        rows(page)
        .locator("td, td bdi")
        .evaluate_all(
            "all => all.filter(one => one.scrollWidth > one.clientWidth + 1 || one.scrollHeight > one.clientHeight + 1)"
            ".map(one => one.textContent)"
        )
    )
    assert cut == []
    if width == 1280:
        assert {row.bounding_box()["height"] for row in rows(page).all()} == {36}  # type: ignore[index]
        long = "Forwards to tomasz1175@blue-harbor.example"
        recorded(live_once, usual | {"detail": long})
        looked_at(page, live_once, "1 entry", "/?q=forwards")
        detail = page.locator("td.detail bdi")
        expect(detail).to_have_text(long)
        assert detail.evaluate("one => one.scrollHeight <= one.clientHeight + 1")


def test_details_are_shown_below_the_row(page: Page, live: Live) -> None:
    """The whole entry opens in place: values uncut, both times in both zones, context, problems; and it closes."""
    at = ago(days=2).replace(hour=22, minute=30)
    recorded(
        live,
        {"target": "first"},
        {
            "target": "x" * 400, "detail": "one\ntwo \u202eend", "user": "alice", "ip": "192.0.2.1", "timestamp": at,
            "outcome": "maybe",
            "context": {"request": {"path": "/domains", "tries": [1, None, True]}, "a\u202eb": "c"},
        },
    )  # fmt: skip
    looked_at(page, live, "2 entries")
    whole = details_of(page, 1)
    expect(rows(page).nth(1).get_by_role("button", name="Show details")).to_have_attribute("aria-expanded", "true")
    assert rows(page).count() == 3  # the details are a row of the table, and the other entries are still there
    expect(rows(page).nth(2).locator(".whole")).to_be_visible()
    expect(line(whole, "Timestamp")).to_contain_text(f"{at:%b} ")
    times = line(whole, "Timestamp").inner_text()
    local = (at.hour + (2 if "GMT+2" in times else 1)) % 24
    assert f"{local:02}:30:{at:%S}.{at.microsecond // 1000:03}" in times
    assert f"22:30:{at:%S}.{at.microsecond // 1000:03} UTC" in times
    assert line(whole, "Received").inner_text().count(":") == 4
    assert line(whole, "Received").locator("time").get_attribute("datetime") > f"{at:%Y-%m-%d}"
    expect(line(whole, "Target").locator("bdi")).to_have_text("x" * 400)
    assert line(whole, "Detail").locator("bdi").inner_text() == "one↵\ntwo ⟨U+202E⟩end"
    expect(line(whole, "Action")).to_contain_text("Domain created domain.created", use_inner_text=True)
    expect(line(whole, "Category")).to_contain_text("Domains")
    expect(line(whole, "Outcome")).to_contain_text("success")
    expect(line(whole, "User")).to_contain_text("alice")
    expect(line(whole, "IP Address")).to_contain_text("192.0.2.xxx")
    expect(line(whole, "Problems").get_by_role("listitem")).to_have_text(
        ["outcome: allowed are success and failure; taken as success"]
    )
    context = line(whole, "Context")
    for text in ("request", "/domains", "tries", "null", "true", "a⟨U+202E⟩b"):
        expect(context.get_by_text(text, exact=True)).to_be_visible()
    rows(page).nth(1).get_by_role("button", name="Show details").click()
    expect(whole).to_have_count(0)
    assert items_seen(page) == ["first", "x" * 300 + "…"]


@pytest.mark.parametrize("width", [1280, 360])
def test_values_of_the_context_are_aligned(page: Page, live_once: Live, width: int) -> None:
    """They begin at one place, however long their keys are; those of an object within at one of its own."""
    within = {"quota": 12, "previous_quota": 10}
    recorded(live_once, {"context": {"size": 12, "user_agent": "Mozilla/5.0 " * 30, "k" * 500: "x", "before": within}})
    page.set_viewport_size({"width": width, "height": 800})
    looked_at(page, live_once, "1 entry")
    trees = details_of(page).locator(".tree")
    expect(trees).to_have_count(2)
    for tree, values in ((trees.nth(0), 3), (trees.nth(1), 2)):
        boxes = (
            tree.locator("> div > dd")
            .filter(has=page.locator("> bdi"))
            .evaluate_all("all => all.map(one => one.getBoundingClientRect()).map(({ left, width }) => [left, width])")
        )
        assert len(boxes) == values
        assert len({left for left, _ in boxes}) == 1
        assert min(space for _, space in boxes) > 100
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_an_entry_is_copied(page: Page, live_once: Live) -> None:
    """The clipboard has the entry as the API gives it, and the button says so."""
    (entry,) = recorded(live_once, {"target": 'a "b"', "context": {"deep": [1, {"x": "y"}]}, "ip": "192.0.2.1"})
    with_clipboard(looked_at(page, live_once, "1 entry"))
    details_of(page)
    button(page, "Copy entry").click()
    expect(button(page, "Copied")).to_be_visible()
    copied = json.loads(read_back(page))
    assert copied["id"] == entry
    assert (copied["target"], copied["ip"], copied["context"]) == ('a "b"', "192.0.2.xxx", {"deep": [1, {"x": "y"}]})
    assert {"received", "problems", "outcome", "timestamp"} < set(copied)


def test_what_cannot_be_copied_can_be_by_hand(page: Page, live_once: Live) -> None:
    """Where the browser refuses the clipboard, the text is there to be copied."""
    (entry,) = recorded(live_once, {"target": "a"})
    looked_at(page, live_once, "1 entry")
    page.evaluate(
        "void (navigator.clipboard.writeText = () => Promise.reject(new DOMException('', 'NotAllowedError')))"
    )
    details_of(page)
    button(page, "Copy link to entry").click()
    expect(page.get_by_label("Copy it from here:")).to_have_value(f"{live_once.url}/?entry={entry}")


def test_a_link_opens_the_entry(page: Page, live: Live, new_context: Callable[..., BrowserContext]) -> None:
    """The link that is copied opens that entry for another reader, wherever it lies; closed, it goes."""
    (entry,) = recorded(live, {"target": "the one", "detail": "whole"})
    recorded(live, *({"target": f"later {number}"} for number in range(30)))
    with_clipboard(looked_at(page, live, "31 entries", "/?page=2"))
    details_of(page, 5)
    button(page, "Copy link to entry").click()
    expect(button(page, "Copied")).to_be_visible()
    link = read_back(page)
    assert link == f"{live.url}/?entry={entry}"
    other = new_context().new_page()
    other.goto(f"{link}#token={live.token()}")
    named = other.get_by_role("region", name="The entry of this link")
    expect(named).to_contain_text("the one")
    expect(named).to_contain_text("whole")
    assert other.url == link
    shows(other, "31 entries")
    named.get_by_role("button", name="Close").click()
    expect(named).to_have_count(0)
    assert other.url == f"{live.url}/"


def test_an_entry_that_is_not_there_is_said_so(page: Page, live: Live, heard: Heard) -> None:
    """A link to no entry, or to one of others, says that there is none; the log is below."""
    heard.expect("Failed to load resource: .* 404")
    recorded(live, {"target": "a"})
    looked_at(page, live, "1 entry", "/?entry=0192f0c1-2f3e-7d4a-8b5c-6d7e8f901234")
    named = page.get_by_role("region", name="The entry of this link")
    expect(named).to_contain_text("There is no such entry.")
    sees(page, "a")


SPECIAL = {
    "quotes": 'Say "hi" now',
    "spaces": "New York  City Council",
    "a thousand characters": " ".join(f"word{number}" for number in range(128))[:1000],
    "a thousand letters": "abcdefghij" * 100,
    "signs": "-x+y & z?#%=/100% \\ <b>",
    "another script": "Ökonomie – Größe 東京",
}


@pytest.mark.parametrize("name", SPECIAL)
def test_show_only_this_finds_the_value(page: Page, live: Live, name: str) -> None:
    """Each value of an entry leads to those that share it, however odd it is: the total is theirs, a chip names it."""
    value = SPECIAL[name]
    recorded(
        live,
        {"target": "other", "action": "queue.cleared", "outcome": "failure", "user": "eve", "ip": "198.51.100.1",
         "detail": "quite unlike others here"},
        {"target": "another", "user": f"{value} x", "ip": "203.0.113.5"},
        {"target": "same user", "user": value, "action": "queue.cleared", "outcome": "failure", "ip": "203.0.113.6"},
        {"target": f"about {value}", "user": "carol", "ip": "203.0.113.7"},
        {"target": value, "detail": "unlike others", "user": value, "ip": "203.0.113.8"},
    )  # fmt: skip
    looked_at(page, live, "5 entries")
    # How many share each value; that of a target or detail is looked for in the other texts too.
    shared = {"Action": 3, "Category": 3, "Outcome": 3, "User": 2, "IP Address": 4, "Target": 4, "Detail": 2}
    details_of(page)
    for field, total in shared.items():
        if name != "quotes" and field not in {"User", "Target"}:
            continue  # the others are the same each time
        page.locator(".details").get_by_role("button", name=f"Show only this: {field}").click()
        expect(page.get_by_role("button", name="Remove filter: ")).to_have_count(1)
        shows(page, f"{total} entries")
        assert chips(page)[0].startswith("Search: " if field in {"Target", "Detail"} else f"{field}: ")
        button(page, "Clear all").click()
        shows(page, "5 entries")
        expect(page.get_by_role("button", name="Remove filter: ")).to_have_count(0)
