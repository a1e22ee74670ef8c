"""For everybody: what axe-core checks in every state, and what it cannot: keys, focus, announcements, sizes, reflow."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Literal

import pytest
from playwright.sync_api import BrowserContext, Locator, Page, expect

from .chromium import Heard
from .server import Live
from .states import NOISES, STATES, rich, shown
from .viewing import rows, shows, signed_in, table

# What a pointer can meet: a label belongs to its box, and a native control's own parts are the browser's.
TARGETS = """() => {
    const roots = [document, document.querySelector("audit-log").shadowRoot];
    const found = [];
    const wanted = "button, input, select, a[href], [role=slider] .grip, [tabindex='0']:not([role=slider])";
    for (const one of roots.flatMap((root) => [...root.querySelectorAll(wanted)])) {
        const met = one.closest("label")?.matches(".groups label") ? one.closest("label") : one;
        if (!met.checkVisibility({ visibilityProperty: true })) continue;
        const { x, y, width, height } = met.getBoundingClientRect();
        if (width && height) found.push({ x, y, width, height, name: one.outerHTML.slice(0, 90) });
    }
    return found;
}"""
OVERFLOW = """() => {
    const wide = document.documentElement;
    const host = document.querySelector("audit-log");
    const edge = host.getBoundingClientRect();
    const wanted = "button, input, select, p, strong, li, dd, dt, td, .chip, .bar, .badge";
    const boxes = host.shadowRoot.querySelectorAll(wanted);
    const out = [...boxes].filter((one) => {
        if (!one.checkVisibility() || one.closest(".hidden, .counts, [popover], th:not(:has(.sort))")) return false;
        const { left, right } = one.getBoundingClientRect();
        return left < edge.left - 1 || right > edge.right + 1;
    });
    const page = wide.scrollWidth > wide.clientWidth ? [`page ${wide.scrollWidth} > ${wide.clientWidth}`] : [];
    return [...page, ...out.map((one) => one.outerHTML.slice(0, 120))];
}"""
# What a screen reader is told: the text of a live region whenever it changes, parts that are off left out.
SPEECH = """() => {
    globalThis.said = [];
    const root = document.querySelector("audit-log").shadowRoot;
    const known = new Map();
    const look = () => {
        for (const region of root.querySelectorAll("[aria-live]:not([aria-live=off]), [role=alert], [role=status]")) {
            const copy = region.cloneNode(true);
            for (const off of copy.querySelectorAll("[aria-live=off]")) off.remove();
            const text = copy.textContent.replace(/\\s+/g, " ").trim();
            if (text && known.get(region) !== text) said.push(text);
            known.set(region, text);
        }
    };
    look();
    said.length = 0;
    new MutationObserver(look).observe(root, { subtree: true, childList: true, characterData: true });
}"""


def button(page: Page, name: str) -> Locator:
    return page.get_by_role("button", name=name, exact=True)


def opened(page: Page, live: Live, number: int = 120, path: str = "/") -> Page:
    """The log of so many entries."""
    rich(live, number)
    signed_in(page, live, path)
    shown(page)
    return page


def tab_to(page: Page, wanted: Locator, key: str = "Tab") -> Locator:
    """Press Tab until this has the focus, as somebody without a mouse does."""
    for _ in range(150):
        page.keyboard.press(key)
        if wanted.evaluate_all(
            "(found) => found[0] !== undefined && found[0] === found[0].getRootNode().activeElement"
        ):
            return wanted
    pytest.fail(f"{wanted} cannot be reached by {key}")


def told(page: Page) -> list[str]:
    """What a screen reader was told since the last time that this was asked."""
    return list(page.evaluate("said.splice(0)"))


def cramped(targets: list[dict[str, Any]]) -> list[str]:
    """Those smaller than 24 × 24 px that the spacing exception of WCAG 2.5.8 does not cover either: a circle of 24 px
    around the middle of each must meet no other target."""
    small = [one for one in targets if one["width"] < 23.9 or one["height"] < 23.9]

    def apart(one: dict[str, Any], other: dict[str, Any]) -> bool:
        x, y = one["x"] + one["width"] / 2, one["y"] + one["height"] / 2
        dx = max(other["x"] - x, x - other["x"] - other["width"], 0)
        dy = max(other["y"] - y, y - other["y"] - other["height"], 0)
        return bool((dx * dx + dy * dy) ** 0.5 >= 12)

    return [str(one) for one in small if not all(one is other or apart(one, other) for other in targets)]


@pytest.mark.parametrize("narrow_first", [False, pytest.param(True, marks=pytest.mark.long)])
@pytest.mark.parametrize("name", STATES)
def test_a_state_is_for_everybody(
    new_context: Callable[..., BrowserContext],
    live_once: Live,
    axe: Callable[..., list[str]],
    heard: Heard,
    name: str,
    narrow_first: bool,
) -> None:
    """axe finds nothing, light and dark, wide and narrow; targets have 24 px; nothing overflows or has a style."""
    if name in NOISES:
        heard.expect(NOISES[name])
    rich(live_once)
    page = new_context(reduced_motion="reduce").new_page()
    STATES[name](page, live_once)
    looks: tuple[tuple[int, Literal["light", "dark"]], ...]
    looks = ((360, "light"), (1280, "dark")) if narrow_first else ((1280, "light"), (360, "dark"))
    for width, scheme in looks:
        page.set_viewport_size({"width": width, "height": 800})
        page.emulate_media(color_scheme=scheme)
        # What is dark is built as what is light: its colours alone are others.
        assert axe(page, *["color-contrast"] * (scheme == "dark")) == [], f"{width} {scheme}"
        assert cramped(page.evaluate(TARGETS)) == []
        assert page.evaluate(OVERFLOW) == []
    assert page.evaluate("document.querySelector('audit-log').shadowRoot.querySelectorAll('[style]').length") == 0
    page.mouse.up()


# Keys alone


def test_search_and_actions_by_keys(page: Page, live: Live) -> None:
    """Search, choose actions in the menu, leave it by Escape, take chips away: by keys alone, the focus never lost."""
    opened(page, live)
    search = tab_to(page, page.get_by_role("searchbox", name="Search"))
    page.keyboard.type("mail11")
    shows(page, "11 entries")
    expect(search).to_be_focused()
    menu = tab_to(page, button(page, "Action").first)
    page.keyboard.press("Enter")
    expect(page.get_by_role("textbox", name="Find")).to_be_focused()
    page.keyboard.type("login")
    box = tab_to(page, page.get_by_role("checkbox", name="Login failed"))
    page.keyboard.press("Space")
    shows(page, "2 entries")
    expect(box).to_be_focused()
    tab_to(page, page.get_by_role("checkbox", name="Authentication"), "Shift+Tab")
    page.keyboard.press("Space")
    shows(page, "4 entries")
    page.keyboard.press("Escape")
    expect(page.get_by_role("textbox", name="Find")).to_be_hidden()
    expect(menu).to_be_focused()
    chip = tab_to(page, button(page, "Remove filter: Search: mail11"))
    page.keyboard.press("Enter")
    shows(page, "40 entries")
    expect(chip).to_have_count(0)
    expect(page.locator(".chip button").first).to_be_focused()
    tab_to(page, button(page, "Clear all"))
    page.keyboard.press("Enter")
    shows(page, "120 entries")
    expect(search).to_be_focused()


def test_dates_by_keys(page: Page, live_once: Live) -> None:
    """A date is typed, its chip taken away, a period chosen: by keys alone."""
    opened(page, live_once)
    first = tab_to(page, page.get_by_label("From", exact=True))
    page.keyboard.type("01022030")
    shows(page, "0 entries")
    expect(page.get_by_text("From: Jan 2, 2030")).to_be_visible()
    expect(first).to_have_value("2030-01-02")
    tab_to(page, page.get_by_role("button", name=re.compile("^Remove filter: From")))
    page.keyboard.press("Enter")
    shows(page, "120 entries")
    expect(page.get_by_role("searchbox", name="Search")).to_be_focused()
    period = tab_to(page, page.get_by_role("combobox", name="Period"))
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    expect(button(page, "Remove filter: Period: Last 7 days")).to_be_visible()
    expect(period).to_be_focused()
    timed = tab_to(page, button(page, "With time"))
    page.keyboard.press("Space")
    expect(page.get_by_label("From", exact=True)).to_have_attribute("type", "datetime-local")
    expect(timed).to_be_focused()


def test_rows_and_pages_by_keys(page: Page, live: Live) -> None:
    """Sort, open and close an entry, and turn pages in every way: by keys alone, the focus where it was after each."""
    opened(page, live)
    sort = tab_to(page, table(page).get_by_role("button", name="Timestamp"))
    page.keyboard.press("Enter")
    expect(rows(page).first).to_contain_text("mail0.")
    expect(sort).to_be_focused()
    more = tab_to(page, button(page, "Show details").first)
    page.keyboard.press("Enter")
    expect(more).to_have_attribute("aria-expanded", "true")
    expect(button(page, "Copy entry")).to_be_visible()
    expect(more).to_be_focused()
    tab_to(page, page.get_by_role("button", name="Show only this: Action"))
    tab_to(page, more, "Shift+Tab")
    page.keyboard.press("Space")
    expect(button(page, "Copy entry")).to_have_count(0)
    expect(more).to_be_focused()
    following = tab_to(page, button(page, "Next page"))
    for first in (25, 50, 75, 100):
        page.keyboard.press("Enter")
        expect(rows(page).first).to_contain_text(f"mail{first}.")
        expect(following).to_be_focused()
    expect(following).to_be_disabled()
    tab_to(page, button(page, "Page 2"), "Shift+Tab")
    page.keyboard.press("Enter")
    expect(rows(page).first).to_contain_text("mail25.")
    expect(button(page, "Page 2")).to_be_focused()
    go = tab_to(page, page.get_by_role("spinbutton", name="Go to page"))
    page.keyboard.type("4")
    page.keyboard.press("Enter")
    expect(rows(page).first).to_contain_text("mail75.")
    expect(go).to_be_focused()
    size = tab_to(page, page.get_by_role("combobox", name="Rows per page"))
    page.keyboard.press("ArrowDown")
    expect(rows(page)).to_have_count(50)
    expect(rows(page).first).to_contain_text("mail50.")
    expect(size).to_be_focused()


def test_far_pages_keep_the_focus(page: Page, live_once: Live) -> None:
    """A number that moves when its page is shown, since others come before it, keeps the focus."""
    opened(page, live_once, path="/?page_size=10")
    for number in (5, 7, 9, 8):
        button(page, f"Page {number}").focus()
        page.keyboard.press("Enter")
        expect(button(page, f"Page {number}")).to_have_attribute("aria-current", "page")
        expect(button(page, f"Page {number}")).to_be_focused()


def test_only_this_by_keys(page: Page, live_once: Live) -> None:
    """What is chosen in an entry that goes away with it leaves the focus in the log."""
    opened(page, live_once)
    tab_to(page, button(page, "Show details").first)
    page.keyboard.press("Enter")
    tab_to(page, page.get_by_role("button", name="Show only this: Outcome"))
    page.keyboard.press("Enter")
    shows(page, "100 entries")
    expect(
        page.get_by_role("button", name=re.compile("^Show only this: Outcome")).or_(page.get_by_role("searchbox"))
    ).to_have_count(2)


def test_export_by_keys(page: Page, live_once: Live) -> None:
    """An export is started, and what it says is closed, by keys alone."""
    opened(page, live_once)
    export = tab_to(page, button(page, "Export CSV"))
    with page.expect_download():
        page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("Rows: 120.")
    expect(export).to_be_focused()
    tab_to(page, button(page, "Close"))
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_have_count(0)
    expect(page.get_by_role("searchbox", name="Search")).to_be_focused()


def test_live_by_keys(page: Page, live: Live) -> None:
    """Live is switched on, shows what comes without moving the focus, is paused by opening a row, and resumed."""
    opened(page, live, 30)
    switch = tab_to(page, page.get_by_role("switch", name="Live"))
    with page.expect_response("**/stream*"):
        page.keyboard.press("Space")
    expect(switch).to_be_checked()
    live.record("domain.created", target="one.example")
    live.stored()
    expect(rows(page).first).to_contain_text("one.example")
    expect(switch).to_be_focused()
    row = rows(page).filter(has_text="mail29.")
    more = tab_to(page, row.get_by_role("button", name="Show details"))
    live.record("domain.created", target="two.example")
    live.stored()
    expect(rows(page).first).to_contain_text("two.example")
    expect(more).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_text("Live is paused.")).to_be_visible()
    expect(more).to_be_focused()
    tab_to(page, button(page, "Resume"), "Shift+Tab")
    page.keyboard.press("Enter")
    expect(page.get_by_text("Live is paused.")).to_have_count(0)
    expect(switch).to_be_focused()
    page.keyboard.press("Space")
    expect(switch).not_to_be_checked()


def test_the_timeline_by_keys(page: Page, live: Live) -> None:
    """Both handles move by arrows, say where they are, and set the dates; Escape takes a choice back."""
    opened(page, live)
    start = tab_to(page, page.get_by_role("slider", name="Start"))
    before = start.get_attribute("aria-valuetext")
    page.keyboard.press("PageUp")
    page.keyboard.press("ArrowRight")
    expect(start).to_have_attribute("aria-valuenow", "11")
    assert before != start.get_attribute("aria-valuetext")
    page.keyboard.press("Escape")
    expect(start).to_have_attribute("aria-valuenow", "0")
    end = tab_to(page, page.get_by_role("slider", name="End"))
    page.keyboard.press("PageDown")
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name=re.compile("^Remove filter: To: "))).to_be_visible()
    expect(end).to_be_focused()
    tab_to(page, button(page, "As text"), "Shift+Tab")
    page.keyboard.press("Enter")
    expect(page.get_by_role("list", name="Timeline").get_by_role("listitem").first).to_be_visible()
    tab_to(page, button(page, "Timeline"), "Shift+Tab")
    page.keyboard.press("Enter")
    expect(page.get_by_role("slider")).to_have_count(0)
    expect(button(page, "Timeline")).to_be_focused()


def test_what_came_by_keys(page: Page, live_once: Live) -> None:
    """What is new is loaded by keys alone, and the focus is then on the first of it."""
    rich(live_once)
    STATES["news"](page, live_once)
    tab_to(page, button(page, "Show"))
    page.keyboard.press("Enter")
    expect(rows(page).first).to_contain_text("new.nordwind.example")
    expect(button(page, "Show details").first).to_be_focused()


def test_a_linked_entry_by_keys(page: Page, live_once: Live) -> None:
    """The entry of a link is closed by keys alone, and the focus goes to the search."""
    rich(live_once)
    STATES["entry-by-link"](page, live_once)
    tab_to(page, button(page, "Close"))
    page.keyboard.press("Enter")
    expect(page.get_by_role("region", name="The entry of this link")).to_have_count(0)
    expect(page.get_by_role("searchbox", name="Search")).to_be_focused()


def test_signing_in_by_keys(page: Page, live_once: Live) -> None:
    """A token is given by keys alone; the focus is then in the log. Signing out brings the panel back."""
    rich(live_once, 3)
    page.goto(live_once.url)
    tab_to(page, page.get_by_label("Access token"))
    page.keyboard.insert_text(live_once.token())
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    shows(page, "3 entries")
    expect(page.get_by_role("searchbox", name="Search")).to_be_focused()
    tab_to(page, button(page, "Sign out"), "Shift+Tab")
    page.keyboard.press("Enter")
    expect(page.get_by_label("Access token")).to_be_visible()


@pytest.mark.parametrize("name", ["fault", "busy", "bad-address", "page-past-the-end"])
def test_the_way_out_of_trouble_by_keys(page: Page, live_once: Live, heard: Heard, name: str) -> None:
    """What helps is pressed by keys alone; it goes away, and the focus is in the log."""
    if name in NOISES:
        heard.expect(NOISES[name])
    rich(live_once)
    STATES[name](page, live_once)
    page.unroute_all()
    tab_to(page, page.get_by_role("button", name=re.compile("^(Try again|Remove these|Go to the last page)$")))
    page.keyboard.press("Enter")
    expect(rows(page).first).to_be_visible()
    expect(page.get_by_role("searchbox", name="Search")).to_be_focused()


# What is said


def test_each_result_is_told_once(page: Page, live: Live) -> None:
    """A screen reader is told each result, politely, once: the number, or where that stays, the page and the order."""
    opened(page, live)
    page.evaluate(SPEECH)
    search = page.get_by_role("searchbox", name="Search")
    search.fill("mail11")
    shows(page, "11 entries")
    assert told(page) == ["11 entries"]
    search.fill("nothing like it")
    shows(page, "0 entries")
    assert told(page) == ["0 entries"]
    search.fill("")
    shows(page, "120 entries")
    assert told(page) == ["120 entries"]
    button(page, "Next page").click()
    expect(rows(page).first).to_contain_text("mail94.")
    assert told(page) == ["Page 2 of 5, Newest first"]
    table(page).get_by_role("button", name="Action").click()
    expect(page.get_by_text("By action, A to Z", exact=True)).to_be_visible()
    expect(rows(page).first).to_contain_text("Account updated")
    assert told(page) == ["Page 1 of 5, By action, A to Z"]
    page.get_by_role("combobox", name="Rows per page").select_option("100")
    expect(rows(page)).to_have_count(100)
    assert told(page) == ["Page 1 of 2, By action, A to Z"]
    button(page, "Show details").first.click()
    expect(button(page, "Copy entry")).to_be_visible()
    assert told(page) == []


def test_trouble_and_news_are_told_once(page: Page, live_once: Live, heard: Heard) -> None:
    """Trouble is told at once, its countdown is not; what is new is told politely."""
    heard.expect("status of 503")
    rich(live_once)
    STATES["news"](page, live_once)
    page.evaluate(SPEECH)
    page.route("**/v1/events?*", lambda route: route.fulfill(status=503, headers={"retry-after": "2"}))
    button(page, "Next page").click()
    expect(page.get_by_text("Trying again in 1 s.")).to_be_visible()
    (said,) = told(page)
    assert said.startswith("The log cannot be read at the moment.")
    assert "Trying" not in said
    page.unroute_all()
    expect(rows(page).first).to_contain_text("mail94.")
    live_once.record("domain.created")
    live_once.stored()
    told(page)
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    expect(page.get_by_text("2 new")).to_be_visible()
    (said,) = told(page)
    assert said.startswith("2 new")


@pytest.mark.parametrize(
    ("locale", "said"), [("en-US", "1,234 entries"), ("de-DE", "1.234 Einträge"), ("en-IN", "1,234 entries")]
)
def test_one_status_has_the_number(
    new_context: Callable[..., BrowserContext], live_once: Live, locale: str, said: str
) -> None:
    """One status says how many entries there are, as the locale groups it; no other has that word."""
    live_once.record_all({"action": "domain.created"} for _ in range(1234))
    live_once.stored()
    page = signed_in(new_context(locale=locale).new_page(), live_once)
    expect(rows(page)).to_have_count(25) if locale != "de-DE" else expect(page.get_by_role("row")).to_have_count(26)
    expect(page.get_by_role("status").filter(has_text=re.compile("entr|Eintr"))).to_have_text([said])


# Sizes, colours, directions, paper


@pytest.mark.parametrize(("locale", "direction"), [("en-US", "ltr"), ("de-DE", "ltr"), ("en-US", "rtl")])
@pytest.mark.parametrize("name", ["entry", "filters", "exporting", "following-paused", "signed-out", "no-match"])
def test_nothing_overflows(
    new_context: Callable[..., BrowserContext], live_once: Live, name: str, locale: str, direction: str
) -> None:
    """From 320 px to wide, in both languages and directions, nothing is cut off or has to be scrolled sideways."""
    rich(live_once)
    page = new_context().new_page()
    STATES[name](page, live_once)
    page.evaluate("(dir) => { document.documentElement.dir = dir }", direction)
    page.locator("audit-log").evaluate("(log, locale) => { log.locale = locale }", locale)
    expect(page.locator("audit-log > *, audit-log .log").first).to_have_attribute("lang", locale)
    for width in (320, 480, 641, 821, 1001, 1600):
        page.set_viewport_size({"width": width, "height": 800})
        assert page.evaluate(OVERFLOW) == [], f"{width}px"
    if direction == "rtl" and name == "entry":
        cells = rows(page).first.get_by_role("cell")
        boxes = [cells.nth(at).bounding_box() for at in (0, 5)]
        assert [box["x"] for box in boxes if box] == sorted((box["x"] for box in boxes if box), reverse=True)


def test_everything_is_reached_at_320_px(new_context: Callable[..., BrowserContext], live_once: Live) -> None:
    """At 320 px every control can be pressed where it is, and nothing lies over it."""
    page = new_context(viewport={"width": 320, "height": 640}).new_page()
    opened(page, live_once)
    page.get_by_role("searchbox", name="Search").fill("nordwind")
    expect(button(page, "Clear all")).to_be_visible()
    for name in (
        "Export CSV",
        "Clear all",
        "Timeline",
        "As text",
        "Copy link",
        "Timestamp",
        "Next page",
        "Last page",
        "Show details",
    ):
        page.get_by_role("button", name=name, exact=True).first.click(trial=True)
    for role, name in (
        ("switch", "Live"),
        ("switch", "UTC"),
        ("spinbutton", "Go to page"),
        ("combobox", "Rows per page"),
    ):
        page.get_by_role(role, name=name).click(trial=True)  # type: ignore[arg-type]
    button(page, "Action").first.click()
    page.get_by_role("checkbox", name="Domain deleted").check()
    box = page.get_by_role("dialog").bounding_box()
    assert box is not None
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= 320


@pytest.mark.parametrize("width", [1280, 360])
def test_a_table_stays_a_table(new_context: Callable[..., BrowserContext], live_once: Live, width: int) -> None:
    """Cards are rows of a table still, to whoever does not see them: with headers, and a cell for each value."""
    rich(live_once, 12)
    page = new_context(viewport={"width": width, "height": 800}).new_page()
    signed_in(page, live_once)
    shown(page)
    devtools = page.context.new_cdp_session(page)
    nodes = devtools.send("Accessibility.getFullAXTree")["nodes"]
    parts = [(node["role"]["value"], node.get("name", {}).get("value", "")) for node in nodes if not node["ignored"]]
    assert ("table", "Audit log") in parts
    assert [name.strip() for role, name in parts if role == "columnheader"] == [
        "Timestamp", "Action", "Target", "Detail", "User", "IP Address",
    ]  # fmt: skip
    assert sum(role == "row" for role, _ in parts) == 13
    # Chromium sees a table in any case; elsewhere one that is shown as blocks is none, unless it says so.
    said = "table[role=table] > tbody[role=rowgroup] > tr[role=row] > td[role=cell]"
    expect(page.locator(said)).to_have_count(72)
    expect(page.locator("thead[role=rowgroup] > tr[role=row] > th[role=columnheader]")).to_have_count(6)
    # A card leaves out what is empty: no value, no cell.
    assert sum(role == "cell" for role, _ in parts) == 72 - (4 if width == 360 else 0)


@pytest.mark.parametrize(("motion", "moving"), [("reduce", False), ("no-preference", True)])
def test_reduced_motion(new_context: Callable[..., BrowserContext], live_once: Live, motion: str, moving: bool) -> None:
    """Nothing moves for whoever asked for that: what loads shows a bar that stands, what is new does not fade."""
    rich(live_once)
    page = new_context(reduced_motion=motion).new_page()
    STATES["following"](page, live_once)
    expect(page.locator("tr.new").first).to_be_attached()
    names = page.evaluate(
        "[['tr.new > td', null], ['.thin', '::after']].map(([at, part]) =>"
        " getComputedStyle(document.querySelector('audit-log').shadowRoot.querySelector(at), part).animationName)"
    )
    assert [name != "none" for name in names] == [moving, moving]


def test_forced_colours(new_context: Callable[..., BrowserContext], live_once: Live) -> None:
    """Where the system has the colours, bars of the timeline, badges and what is switched on are still told apart."""
    rich(live_once)
    page = new_context(forced_colors="active").new_page()
    STATES["log"](page, live_once)
    page.get_by_role("switch", name="UTC").click()
    seen = page.evaluate(
        """() => {
            const root = document.querySelector("audit-log").shadowRoot;
            const style = (at, part) => getComputedStyle(root.querySelector(at), part);
            const [on, off] = ["true", "false"].map((value) => `[role=switch][aria-checked=${value}]`);
            return {
                bars: style(".bars rect").fill !== style(".ground").fill,
                badge: style(".badge").borderTopStyle,
                on: style(`${on} .knob`).backgroundColor !== style(`${off} .knob`).backgroundColor,
                knob: style(`${off} .knob`, "::after").borderTopStyle,
                current: style("[aria-current]").backgroundColor !== style(".number + .number").backgroundColor,
            };
        }"""
    )
    assert seen == {"bars": True, "badge": "solid", "on": True, "knob": "solid", "current": True}


def test_paper(new_context: Callable[..., BrowserContext], live_once: Live) -> None:
    """Printed, it is light and whole: every value without an ellipsis, an opened entry, and no control."""
    live_once.record("domain.created", target="a long target " * 12, detail="word " * 50)
    live_once.stored()
    page = new_context(color_scheme="dark").new_page()
    signed_in(page, live_once)
    shown(page)
    button(page, "Show details").click()
    expect(button(page, "Copy entry")).to_be_visible()
    page.emulate_media(media="print")
    for control in (
        page.get_by_role("searchbox"),
        button(page, "Export CSV"),
        page.get_by_role("navigation"),
        button(page, "Copy entry"),
        page.get_by_role("button", name=re.compile("^Show only this")),
    ):
        expect(control).to_have_count(0)
    expect(page.get_by_text("1 entry", exact=True)).to_be_visible()
    cut = page.evaluate(
        "[...document.querySelector('audit-log').shadowRoot.querySelectorAll('td')].filter((one) =>"
        " one.checkVisibility() && (one.scrollWidth > one.clientWidth + 1"
        " || getComputedStyle(one).whiteSpace === 'nowrap')).length"
    )
    assert cut == 0
    for column in ("target", "detail", "user"):  # on the screen, a box of three lines
        expect(page.locator(f"td.{column} bdi")).to_have_css("display", "inline")
    assert page.locator("audit-log").evaluate("(log) => getComputedStyle(log).color") == "rgb(31, 35, 40)"
    assert page.pdf().startswith(b"%PDF")
