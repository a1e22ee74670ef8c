"""The states of the viewer, each as a function that brings a page there: for pictures, and for what holds in all.

Each works over whatever entries there are, as long as `rich` was recorded, or the demo was.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta

from playwright.sync_api import Locator, Page, Route, expect

from .server import Live
from .viewing import rows, signed_in

__all__ = ["NOISES", "STATES", "State", "problem", "rich"]

State = Callable[[Page, Live], None]

# Held back in the page: a request that Playwright held would have to be let go before the browser ends.
NO_ANSWER = """(() => {
    const fetched = fetch;
    globalThis.fetch = (asked, ...more) =>
        String(asked.url ?? asked).includes("/v1/events?") ? new Promise(() => {}) : fetched(asked, ...more);
})()"""
HALF_A_CSV = """(() => {
    const fetched = fetch;
    globalThis.fetch = async (asked, ...more) => {
        const answer = await fetched(asked, ...more);
        if (!String(asked.url ?? asked).includes("/export.csv")) return answer;
        const whole = new Uint8Array(await answer.arrayBuffer());
        const half = { start: (to) => to.enqueue(whole.slice(0, whole.length / 2)) };
        return new Response(new ReadableStream(half), { headers: answer.headers });
    };
})()"""
ACTIONS = (
    "domain.created",
    "domain.deleted",
    "account.updated",
    "auth.login_failed",
    "auth.login_succeeded",
    "service.restarted",
)


def rich(live: Live, number: int = 120) -> None:
    """Record entries of all tones over a month, with targets at nordwind.example, details, contexts and addresses."""
    now = datetime.now(UTC)
    live.record_all(
        {
            "action": ACTIONS[at % len(ACTIONS)],
            "target": f"mail{at}.nordwind.example",
            "detail": f"Quota raised from {at} GB to {at + 5} GB" if at % 3 else "",
            "user": ("alice@example.com", "Bob Example", "cron")[at % 3],
            "ip": f"203.0.113.{at}",
            "context": {"request": f"r-{at}", "before": {"quota": at, "aliases": ["a", "b"]}, "forced": None},
            "timestamp": (now - timedelta(hours=6 * (number - at))).isoformat(),
        }
        for at in range(number)
    )  # fmt: skip
    live.stored()


def problem(status: int, name: str, detail: str, retry_after: str = "30") -> Callable[[Route], None]:
    """Answers as this server does, or one before it, that cannot."""
    request_id = "5f0c1d9be8a24c3f9d1e6b7a8c9d0e1f"
    body = {"type": f"urn:audit-pipeline:problem:{name}", "status": status, "detail": detail, "request_id": request_id}
    headers = {"content-type": "application/problem+json", "retry-after": retry_after, "x-request-id": request_id}
    return lambda route: route.fulfill(status=status, headers=headers, body=json.dumps(body))


def log(page: Page, live: Live) -> None:
    """The first page, as it opens."""
    signed_in(page, live)
    shown(page)


def entry(page: Page, live: Live) -> None:
    """An entry, opened."""
    log(page, live)
    page.get_by_role("button", name="Show details").nth(1).click()
    expect(page.get_by_role("button", name="Copy entry")).to_be_visible()


def entry_by_link(page: Page, live: Live) -> None:
    """An entry that the address names, above the log."""
    entry(page, live)
    found = page.locator("tr.details .line", has_text="ID").locator("code").inner_text()
    page.goto("about:blank")
    signed_in(page, live, f"/?entry={found}")
    expect(
        page.get_by_role("region", name="The entry of this link").get_by_role("button", name="Copy entry")
    ).to_be_visible()
    shown(page)


def entry_not_found(page: Page, live: Live) -> None:
    """An entry that the address names, and that there is not."""
    signed_in(page, live, "/?entry=01890a5d-ac96-774b-bcce-b302099a8057")
    expect(page.get_by_text("There is no such entry.")).to_be_visible()
    shown(page)


def search(page: Page, live: Live) -> None:
    """A search that finds some."""
    log(page, live)
    page.get_by_role("searchbox", name="Search").fill("nordwind")
    expect(rows(page).first).to_contain_text("nordwind")
    expect(page.get_by_role("button", name="Remove filter: Search: nordwind")).to_be_visible()


def filters(page: Page, live: Live) -> None:
    """Several filters, with a chip each."""
    signed_in(
        page,
        live,
        "/?q=nordwind&period=90d&category=domains&outcome=success&user=alice@example.com&sort=action&zone=utc",
    )
    expect(page.get_by_role("button", name=re.compile("^Remove filter: "))).to_have_count(5)
    expect(page.get_by_text("By action, A to Z")).to_be_visible()


def with_time(page: Page, live: Live) -> None:
    """Dates with a time."""
    log(page, live)
    page.get_by_role("combobox", name="Period").select_option("30d")
    expect(page.get_by_role("button", name="Remove filter: Period: Last 30 days")).to_be_visible()
    page.get_by_role("button", name="With time").click()
    expect(page.get_by_role("button", name=re.compile("^Remove filter: From: "))).to_be_visible()
    shown(page)


def action_menu(page: Page, live: Live) -> None:
    """The choice of actions, open, with some chosen."""
    log(page, live)
    page.get_by_role("button", name="Action", exact=True).first.click()
    page.get_by_role("checkbox", name="Domain created").check()
    expect(page.get_by_role("button", name="Remove filter: Action: Domain created")).to_be_attached()


def no_match(page: Page, live: Live) -> None:
    """Filters that leave nothing."""
    signed_in(page, live, "/?q=no+such+thing&outcome=success")
    expect(page.get_by_text("Nothing matches.")).to_be_visible()


def last_page(page: Page, live: Live) -> None:
    """The end of the log."""
    log(page, live)
    page.get_by_role("button", name="Last page").click()
    expect(page.get_by_role("button", name="Next page")).to_be_disabled()


def page_past_the_end(page: Page, live: Live) -> None:
    """A page that the address asks for, and that there is not."""
    signed_in(page, live, "/?page=999")
    expect(page.get_by_text("Page 999 is past the end")).to_be_visible()


def bad_address(page: Page, live: Live) -> None:
    """Values in the address that mean nothing."""
    signed_in(page, live, "/?sort=size&category=nonsense&zone=mars")
    expect(page.get_by_text("This view asks for something that is not allowed.")).to_be_visible()
    expect(page.get_by_role("alert").get_by_role("listitem")).to_have_count(3)


def empty(page: Page, live: Live) -> None:
    """An organisation without any entry."""
    signed_in(page, live, org=f"{live.org}-newcomer")
    expect(page.get_by_text("Nothing has been recorded yet.")).to_be_visible()


def signed_out(page: Page, live: Live) -> None:
    """Nobody has signed in."""
    page.goto(live.url)
    expect(page.get_by_label("Access token")).to_be_visible()


def signed_out_of_host(page: Page, live: Live) -> None:
    """The dashboard around it has no token to give."""
    page.goto(live.url)
    page.locator("audit-log").evaluate("(log) => { log.getToken = () => '' }")
    expect(page.get_by_text("Sign in again, and try again here.")).to_be_visible()


def plan_missing(page: Page, live: Live) -> None:
    """A plan that the audit log is no part of."""
    signed_in(page, live, plan="starter")
    page.locator("audit-log").evaluate("(log) => { log.upgradeUrl = 'https://example.com/plans' }")
    expect(page.get_by_role("link", name="Upgrade")).to_be_visible()


def scope_missing(page: Page, live: Live) -> None:
    """A token that may not read."""
    signed_in(page, live, scope="audit:write")
    expect(page.get_by_text("This account may not view the audit log.")).to_be_visible()


def export_missing(page: Page, live: Live) -> None:
    """A token that may read, and not export."""
    signed_in(page, live, scope="audit:read")
    shown(page)
    page.get_by_role("button", name="Export CSV").click()
    expect(page.get_by_text("This account may view the log, but not export it.")).to_be_visible()


def exporting(page: Page, live: Live) -> None:
    """An export under way."""
    page.add_init_script(HALF_A_CSV)
    log(page, live)
    page.get_by_role("button", name="Export CSV").click()
    expect(page.get_by_text(re.compile(r"^\d+ of \d+ rows$"))).to_be_visible()


def exported(page: Page, live: Live) -> None:
    """An export that was saved."""
    log(page, live)
    with page.expect_download():
        page.get_by_role("button", name="Export CSV").click()
    expect(page.get_by_text("was saved")).to_be_visible()


def loading(page: Page, live: Live) -> None:
    """The first answer takes its time."""
    page.add_init_script(NO_ANSWER)
    signed_in(page, live)
    expect(page.locator("tr.skeleton")).to_have_count(25)


def reloading(page: Page, live: Live) -> None:
    """A later answer takes its time."""
    log(page, live)
    page.evaluate(NO_ANSWER)
    page.get_by_role("button", name="Next page").click()
    expect(page.locator(".thin.shown")).to_be_attached()


def busy(page: Page, live: Live) -> None:
    """A proxy, or the server, asks for patience."""
    page.route("**/v1/events?*", problem(429, "too-many-requests", "Too many requests."))
    signed_in(page, live)
    expect(page.get_by_text("The server is busy.")).to_be_visible()


def store_down(page: Page, live: Live) -> None:
    """The store cannot answer."""
    page.route("**/v1/events?*", problem(503, "store-unavailable", "The store cannot answer at the moment."))
    signed_in(page, live)
    expect(page.get_by_text("The log cannot be read at the moment.")).to_be_visible()


def fault(page: Page, live: Live) -> None:
    """The server has a bug."""
    page.route("**/v1/events?*", problem(500, "internal-error", "Something went wrong here."))
    signed_in(page, live)
    expect(page.get_by_text("The log could not be loaded.")).to_be_visible()


def timeline_fault(page: Page, live: Live) -> None:
    """The timeline alone has no answer."""
    page.route("**/histogram?*", problem(500, "internal-error", "Something went wrong here."))
    signed_in(page, live)
    expect(page.get_by_role("region", name="Timeline").get_by_text("could not be loaded")).to_be_visible()


def offline(page: Page, live: Live) -> None:
    """The network is gone after the first page came."""
    log(page, live)
    page.context.set_offline(True)
    expect(page.get_by_text("There is no connection.")).to_be_visible()


def unreachable(page: Page, live: Live) -> None:
    """The network is gone, and something is asked for."""
    offline(page, live)
    page.get_by_role("button", name="Next page").click()
    expect(page.get_by_role("button", name="Try again")).to_be_visible()


def news(page: Page, live: Live) -> None:
    """Something came since the page was read."""
    log(page, live)
    live.record("domain.created", target="new.nordwind.example")
    live.stored()
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")  # as where the reader comes back to the tab
    expect(page.get_by_text(re.compile("^[1-9][0-9]* new$"))).to_be_visible()


def pinned(page: Page, live: Live) -> None:
    """The log as it was when a link was made."""
    signed_in(page, live, f"/?pin={(datetime.now(UTC) - timedelta(hours=1)).isoformat()[:19]}.000Z")
    expect(page.get_by_role("button", name="Back to now")).to_be_visible()
    shown(page)


def following(page: Page, live: Live) -> None:
    """Live mode, with an entry that just came."""
    log(page, live)
    with page.expect_response("**/stream*"):
        page.get_by_role("switch", name="Live").click()
    live.record("auth.login_failed", target="carol@nordwind.example", user="carol@nordwind.example", ip="198.51.100.7")
    live.stored()
    expect(rows(page).first).to_contain_text("carol@nordwind.example")


def following_paused(page: Page, live: Live) -> None:
    """Live mode, which an opened row paused; something came since."""
    following(page, live)
    page.get_by_role("button", name="Show details").first.click()
    expect(page.get_by_text("Live is paused.")).to_be_visible()
    live.record("domain.created", target="later.nordwind.example")
    live.stored()
    expect(page.get_by_text("1 new", exact=True)).to_be_visible()


def timeline_dragged(page: Page, live: Live) -> None:
    """Half of the timeline chosen, the pointer still down."""
    log(page, live)
    box = chart(page).bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] / 3, box["y"] + 20)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.8, box["y"] + 30, steps=4)
    expect(page.locator(".chart .off")).to_have_count(2)


def timeline_text(page: Page, live: Live) -> None:
    """The timeline's counts as text."""
    log(page, live)
    page.get_by_role("button", name="As text").click()
    expect(page.get_by_role("list", name="Timeline")).to_be_visible()


def forced_colours(page: Page, live: Live) -> None:
    """The colours are the system's."""
    page.emulate_media(forced_colors="active")
    log(page, live)


def printed(page: Page, live: Live) -> None:
    """As paper gets it."""
    entry(page, live)
    page.emulate_media(media="print")


def right_to_left(page: Page, live: Live) -> None:
    """In a page that reads from right to left."""
    entry(page, live)
    page.evaluate("document.documentElement.dir = 'rtl'")


def second_language(page: Page, live: Live) -> None:
    """In German."""
    entry(page, live)
    page.locator("audit-log").evaluate("(log) => { log.locale = 'de' }")
    expect(page.get_by_role("searchbox", name="Suche")).to_be_visible()


STATES: Mapping[str, State] = {
    made.__name__.replace("_", "-"): made
    for made in (
        log, entry, entry_by_link, entry_not_found, search, filters, with_time, action_menu, no_match, last_page,
        page_past_the_end, bad_address, empty, signed_out, signed_out_of_host, plan_missing, scope_missing,
        export_missing, exporting, exported, loading, reloading, busy, store_down, fault, timeline_fault, offline,
        unreachable, news, pinned, following, following_paused, timeline_dragged, timeline_text, forced_colours,
        printed, right_to_left, second_language,
    )
}  # fmt: skip
"""Each by its name. A function leaves the page as it is to be seen."""

NOISES: Mapping[str, str] = {
    "entry-not-found": "status of 404",
    "bad-address": "status of 422",
    "plan-missing": "status of 403",
    "scope-missing": "status of 403",
    "export-missing": "status of 403",
    "busy": "status of 429",
    "store-down": "status of 503",
    "fault": "status of 500",
    "timeline-fault": "status of 500",
    "offline": "net::ERR_INTERNET_DISCONNECTED",
    "unreachable": "net::ERR_INTERNET_DISCONNECTED",
}
"""What the browser itself says on its console of answers that are errors."""


def chart(page: Page) -> Locator:
    """The picture of the timeline."""
    return page.get_by_role("group", name=re.compile("^Entries over time"))


def shown(page: Page) -> None:
    """Wait for the rows, and for the timeline over them."""
    expect(rows(page).first).to_be_visible()
    expect(page.get_by_role("slider").first).to_be_visible()
