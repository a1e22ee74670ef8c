"""Every state that the log can be in, reached as it comes about: by tokens, by time, by a server that ends."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from playwright.sync_api import BrowserContext, Locator, Page, expect

from . import states
from .chromium import Heard
from .hosts import Hosts
from .server import Live
from .states import problem
from .viewing import rows, shows, signed_in, table

REQUEST_ID = re.compile(r"Request [0-9a-f-]{16,}")


def fill(live: Live, number: int) -> None:
    """So many entries, d0.example the oldest."""
    live.record_all({"action": "domain.created", "target": f"d{at}.example"} for at in range(number))
    live.stored()


def button(page: Page, name: str) -> Locator:
    return page.get_by_role("button", name=name, exact=True)


def trouble(page: Page) -> Locator:
    """What is said above the rows, of what went wrong."""
    return page.get_by_role("alert")


@pytest.fixture
def giving(page: Page) -> Callable[[Callable[[dict[str, Any]], str]], list[dict[str, Any]]]:
    """Let the host page ask a function of the test for tokens: what it is asked with, in order."""

    def give(token: Callable[[dict[str, Any]], str]) -> list[dict[str, Any]]:
        asked: list[dict[str, Any]] = []

        def ask(given: dict[str, Any]) -> str:
            asked.append(given)
            return token(given)

        page.expose_function("askToken", ask)
        return asked

    return give


# Loading


@pytest.mark.parametrize("size", [10, 50])
def test_the_first_load_shows_a_skeleton(
    page: Page, live_once: Live, hosts: Hosts, giving: Callable[..., Any], size: int
) -> None:
    """While the first answer takes its time there are as many grey rows as the page will have; to no screen reader."""
    fill(live_once, 60)
    with ExitStack() as stopped:

        def stop(_: object) -> str:
            if len(asked) == 1:
                stopped.enter_context(live_once.server.paused())
            return live_once.token()

        asked = giving(stop)
        page.goto(hosts.page("plain", live_once.url, page_size=str(size)))
        expect(table(page)).to_have_attribute("aria-busy", "true")
        expect(page.locator("tr.skeleton")).to_have_count(size)
        expect(page.locator("tr.skeleton[aria-hidden=true]")).to_have_count(size)
        expect(page.get_by_role("status")).to_have_text("")
        height = page.evaluate("document.querySelector('audit-log').getBoundingClientRect().height")
        assert height > size * 36
    expect(rows(page)).to_have_count(size)
    expect(page.locator("tr.skeleton")).to_have_count(0)
    expect(table(page)).to_have_attribute("aria-busy", "false")


def test_later_loads_keep_the_rows(page: Page, live_once: Live) -> None:
    """While another page takes its time the rows stay, and after 150 ms a thin bar says that something is under way."""
    fill(live_once, 60)
    signed_in(page, live_once)
    shows(page, "60 entries")
    page.evaluate(
        """() => {
            const root = document.querySelector("audit-log").shadowRoot;
            root.addEventListener("click", () => { globalThis.clicked = performance.now() }, true);
            new MutationObserver(() => {
                if (root.querySelector(".thin.shown")) globalThis.slowFor ??= performance.now() - clicked;
            }).observe(root, { subtree: true, attributes: true });
        }"""
    )
    with live_once.server.paused():
        button(page, "Next page").click()
        expect(page.locator(".thin")).to_have_class(re.compile("shown"))
        assert 140 <= page.evaluate("slowFor") < 1000
        expect(page.locator(".thin")).to_be_visible()
        expect(page.locator(".thin")).to_be_in_viewport()
        expect(rows(page)).to_have_count(25)
        expect(rows(page).first).to_contain_text("d59.example")
        expect(table(page)).to_have_attribute("aria-busy", "true")
    expect(rows(page).first).to_contain_text("d34.example")
    expect(page.locator(".thin")).to_be_hidden()


# Nothing to show


def test_nothing_was_ever_recorded(page: Page, live: Live) -> None:
    """Where there is no entry at all, that is what it says; no filter is blamed."""
    signed_in(page, live)
    expect(page.get_by_text("Nothing has been recorded yet.")).to_be_visible()
    shows(page, "0 entries")
    expect(rows(page)).to_have_count(0)
    expect(button(page, "Clear all")).to_have_count(0)


def test_nothing_matches(page: Page, live: Live) -> None:
    """Where filters leave nothing, it says what is applied; the last of them can be taken away, and all at once."""
    fill(live, 3)
    signed_in(page, live, "/?q=d1&user=bob&outcome=failure")
    none = page.locator(".panel", has_text="Nothing matches.")
    for applied in ("Search: d1", "User: bob", "Outcome: failure"):
        expect(none).to_contain_text(applied)
    shows(page, "0 entries")
    button(page, "Remove the last filter").click()
    expect(none).not_to_contain_text("Outcome: failure")
    button(page, "Remove filter: User: bob").click()
    shows(page, "1 entry")
    page.get_by_role("searchbox", name="Search").fill("nothing like it")
    expect(none).to_contain_text("Search: nothing like it")
    with live.server.paused():
        button(page, "Clear all").click()
        expect(page.locator(".chip")).to_have_count(0)
        expect(none).to_be_visible()  # not "Nothing has been recorded yet.", which nobody knows
    shows(page, "3 entries")
    assert "?" not in page.url


def test_a_page_past_the_end(page: Page, live: Live) -> None:
    """It says which page is the last, and leads there."""
    fill(live, 60)
    signed_in(page, live, "/?page=7")
    expect(page.get_by_text("Page 7 is past the end; the last one is 3.")).to_be_visible()
    shows(page, "60 entries")
    button(page, "Go to the last page").click()
    expect(rows(page)).to_have_count(10)
    expect(button(page, "Page 3")).to_have_attribute("aria-current", "page")


def test_an_entry_that_there_is_not(page: Page, live: Live, heard: Heard) -> None:
    """A link to an entry that is not there, or of another organisation, says so above the log, which works."""
    heard.expect("status of 404")
    fill(live, 3)
    elsewhere = live.org
    live.org = f"{elsewhere}-other"
    foreign = live.record("domain.deleted", target="foreign.example")
    live.stored()
    live.org = elsewhere
    for found in ("01890a5d-ac96-774b-bcce-b302099a8057", foreign):
        page.goto("about:blank")
        signed_in(page, live, f"/?entry={found}")
        linked = page.get_by_role("region", name="The entry of this link")
        expect(linked).to_contain_text("There is no such entry.")
        shows(page, "3 entries")
    button(page, "Close").click()
    expect(linked).to_have_count(0)
    assert "entry" not in page.url


@pytest.mark.parametrize("name", ["histogram", "stream", "export.csv", "..", "../actions", "%2e%2e", "a%00b"])
def test_an_entry_is_no_way_to_other_answers(page: Page, live_once: Live, name: str) -> None:
    """What a link names as an entry is asked for as one, or not at all: no other address of the API is."""
    fill(live_once, 1)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url.removeprefix(live_once.url).partition("?")[0]))
    signed_in(page, live_once, f"/?entry={name}")
    expect(page.get_by_text("There is no such entry.")).to_be_visible()
    expect(page.get_by_role("slider").first).to_be_visible()
    assert {path for path in asked if path.startswith("/v1")} == {"/v1/events", "/v1/actions", "/v1/events/histogram"}


@pytest.mark.parametrize(
    "address",
    ["sort=size", "action=nonsense", "from=yesterday", "from=2026-02-30", "zone=mars", "page=0",
     "page=x&page_size=7&pin=later&period=1y&outcome=perhaps&category=nonsense"],
)  # fmt: skip
def test_a_bad_value_in_the_address(page: Page, live_once: Live, heard: Heard, address: str) -> None:
    """It says which value is not allowed, keeps the others, and takes back what is wrong when it is told to."""
    if address != "zone=mars":  # which the server does not know
        heard.expect("status of 422")
    fill(live_once, 3)
    signed_in(page, live_once, f"/?{address}&q=d1")
    expect(trouble(page)).to_contain_text("This view asks for something that is not allowed.")
    for name in {pair.partition("=")[0] for pair in address.split("&")}:
        expect(
            trouble(page).get_by_role("listitem").filter(has=page.locator("code", has_text=re.compile(f"^{name}$")))
        ).to_have_count(1)
    button(page, "Remove these").click()
    shows(page, "1 entry")
    assert page.url.endswith("/?q=d1")
    expect(trouble(page)).to_have_count(0)


def test_a_refused_view_offers_no_export(page: Page, live_once: Live, heard: Heard) -> None:
    """Where the server refused the view there is no CSV; what it says has commands as such. Then there is one."""
    heard.expect("status of 422")
    fill(live_once, 3)
    signed_in(page, live_once, "/?action=nonsense&category=backup")
    reasons = trouble(page).get_by_role("listitem")
    listed = "audit-pipeline actions and GET /v1/actions list all, the file of AUDIT_CATALOGUE adds more"
    expect(reasons).to_have_text([
        f"action: no such action: {listed}",
        f"category: no such category: did you mean backups? {listed}",
    ])  # fmt: skip
    expect(reasons.locator("kbd").get_by_text("audit-pipeline actions", exact=True)).to_have_count(2)
    expect(button(page, "Export CSV")).to_be_disabled()
    exports: list[str] = []
    page.on("request", lambda request: exports.append(request.url) if "/export.csv" in request.url else None)
    button(page, "Export CSV").click(force=True)
    button(page, "Remove these").click()
    shows(page, "3 entries")
    assert exports == []
    expect(button(page, "Export CSV")).to_be_enabled()


def test_an_expired_cursor_restarts_silently(page: Page, live: Live, heard: Heard) -> None:
    """Where the server no longer takes a cursor, the page is asked for by its number, and nobody is told."""
    fill(live, 60)
    signed_in(page, live)
    shows(page, "60 entries")
    button(page, "Next page").click()
    expect(rows(page).first).to_contain_text("d34.example")
    heard.expect("status of 400")
    page.route(
        "**/v1/events?*cursor=*", lambda route: route.continue_(url=re.sub("cursor=..", "cursor=AA", route.request.url))
    )
    with page.expect_response(lambda answer: answer.status == 400):
        button(page, "Next page").click()
    expect(rows(page).first).to_contain_text("d9.example")
    expect(trouble(page)).to_have_count(0)


# Servers and networks


def test_a_fault_can_be_tried_again(page: Page, live_once: Live, heard: Heard) -> None:
    """An error says its request id; the rows stay; trying again helps where the fault has passed."""
    heard.expect("status of 500")
    fill(live_once, 60)
    signed_in(page, live_once)
    shows(page, "60 entries")
    page.route("**/v1/events?*", problem(500, "internal-error", "Something went wrong here."))
    button(page, "Next page").click()
    expect(trouble(page)).to_contain_text("The log could not be loaded.")
    expect(trouble(page)).to_contain_text("Request 5f0c1d9be8a24c3f9d1e6b7a8c9d0e1f")
    expect(trouble(page)).to_contain_text("As of")
    expect(rows(page).first).to_contain_text("d59.example")
    page.unroute("**/v1/events?*")
    button(page, "Try again").click()
    expect(rows(page).first).to_contain_text("d34.example")
    expect(trouble(page)).to_have_count(0)


def test_an_answer_that_is_no_json_is_a_fault(page: Page, live_once: Live, heard: Heard) -> None:
    """What a proxy says in HTML instead is never shown; it says that the log could not be loaded."""
    heard.expect("status of 502")
    page.route("**/v1/events?*", lambda route: route.fulfill(status=502, content_type="text/html", body="<h1>Bad</h1>"))
    signed_in(page, live_once)
    expect(trouble(page)).to_contain_text("The log could not be loaded.")
    expect(page.get_by_text("Bad")).to_have_count(0)
    page.unroute("**/v1/events?*")
    page.route("**/v1/events?*", lambda route: route.fulfill(content_type="text/html", body="<h1>Bad</h1>"))
    button(page, "Try again").click()
    expect(trouble(page)).to_contain_text("The log could not be loaded.")


@pytest.mark.parametrize(
    ("status", "name", "said"),
    [
        (429, "too-many-requests", "The server is busy."),
        (503, "store-unavailable", "The log cannot be read at the moment."),
    ],
)
def test_what_passes_is_tried_again(
    page: Page, live_once: Live, heard: Heard, status: int, name: str, said: str
) -> None:
    """It counts the seconds that the answer says down, and asks again by itself."""
    heard.expect(f"status of {status}")
    fill(live_once, 3)
    page.clock.install()
    page.route("**/v1/events?*", problem(status, name, "Later.", "30"))
    signed_in(page, live_once)
    expect(trouble(page)).to_contain_text(said)
    expect(trouble(page)).to_contain_text("Trying again in 30 s.")
    page.unroute("**/v1/events?*")
    page.clock.run_for(18_000)
    expect(trouble(page)).to_contain_text("Trying again in 12 s.")
    expect(rows(page)).to_have_count(0)
    page.clock.run_for(12_000)
    shows(page, "3 entries")
    expect(trouble(page)).to_have_count(0)


def test_a_proxy_may_say_a_date(page: Page, live_once: Live, heard: Heard) -> None:
    """Retry-After may be a date; and nobody has to wait for it."""
    heard.expect("status of 503")
    fill(live_once, 3)
    page.clock.install(time="2026-11-23T12:00:00Z")
    page.route("**/v1/events?*", problem(503, "x", "Later.", "Mon, 23 Nov 2026 12:02:00 GMT"))
    signed_in(page, live_once)
    expect(trouble(page)).to_contain_text(re.compile(r"Trying again in 1(20|1\d) s\."))
    page.unroute("**/v1/events?*")
    button(page, "Try again").click()
    expect(rows(page)).to_have_count(3)
    expect(trouble(page)).to_have_count(0)


def test_the_server_is_gone(page: Page, live_once: Live, heard: Heard) -> None:
    """Where nothing answers any more it says so, and as of when the rows are; trying again helps once it is back."""
    heard.expect("net::ERR_CONNECTION_REFUSED")
    fill(live_once, 60)
    signed_in(page, live_once)
    shows(page, "60 entries")
    expect(page.get_by_role("slider").first).to_be_visible()
    live_once.server.kill()
    button(page, "Next page").click()
    expect(trouble(page)).to_contain_text("There is no connection.")
    expect(trouble(page)).to_contain_text(re.compile(r"As of \w+ \d+, \d{4}, \d\d:\d\d:\d\d"))
    expect(rows(page)).to_have_count(25)
    live_once.server.start()
    button(page, "Try again").click()
    expect(rows(page).first).to_contain_text("d34.example")
    expect(trouble(page)).to_have_count(0)


def test_the_network_is_gone(page: Page, live_once: Live, heard: Heard) -> None:
    """Offline, it says as of when the rows are; back online, what was asked for meanwhile comes by itself."""
    heard.expect("net::ERR_INTERNET_DISCONNECTED")
    fill(live_once, 60)
    signed_in(page, live_once)
    shows(page, "60 entries")
    page.context.set_offline(True)
    expect(trouble(page)).to_contain_text(re.compile(r"There is no connection\. As of \w+ \d+"))
    page.context.set_offline(False)
    expect(trouble(page)).to_have_count(0)
    page.context.set_offline(True)
    button(page, "Next page").click()
    expect(button(page, "Try again")).to_be_visible()
    page.context.set_offline(False)
    expect(rows(page).first).to_contain_text("d34.example")
    expect(trouble(page)).to_have_count(0)


# Who may look


def test_nothing_stays_for_somebody_else(page: Page, live_once: Live, heard: Heard) -> None:
    """With the token of another organisation rows, an opened entry, the linked one, and Live are that one's alone."""
    heard.expect("status of 404")
    other = f"{live_once.org}-other"
    linked = live_once.record("domain.created", target="mine.example", timestamp=datetime.now(UTC) - timedelta(hours=1))
    live_once.record("domain.created", target="theirs.example", org=other)
    live_once.stored()
    signed_in(page, live_once, f"/?entry={linked}")
    shows(page, "1 entry")
    expect(page.get_by_role("region", name="The entry of this link")).to_contain_text("mine.example")
    log = page.locator("audit-log")
    button(page, "Show details").click()
    page.get_by_role("switch", name="Live").click()
    expect(page.get_by_role("switch", name="Live")).to_be_checked()
    log.evaluate("(log, token) => (log.token = token)", live_once.token(org=other))
    expect(rows(page)).to_have_count(1)
    expect(rows(page)).to_contain_text("theirs.example")
    shows(page, "1 entry")
    expect(page.get_by_role("region", name="The entry of this link")).to_contain_text("There is no such entry.")
    expect(page.get_by_role("switch", name="Live")).to_be_checked()
    live_once.record("domain.created", target="later-mine.example")
    live_once.record("domain.created", target="later-theirs.example", org=other)
    live_once.stored()
    shows(page, "2 entries")
    expect(page.get_by_text("mine.example")).to_have_count(0)


def test_a_panel_takes_a_token(page: Page, live: Live, heard: Heard) -> None:
    """Signed out, nothing but a panel is seen; a bad token leaves it there, a good one opens the log, and is hidden."""
    heard.expect("status of 401")
    fill(live, 3)
    page.goto(live.url)
    panel = page.get_by_label("Access token")
    expect(page.get_by_text("You are signed out.")).to_be_visible()
    for way in ("audit-pipeline serve", "audit-pipeline token"):
        expect(page.locator(".panel kbd").get_by_text(way, exact=True)).to_be_visible()
    expect(page.get_by_text("not accepted")).to_have_count(0)
    expect(table(page)).to_have_count(0)
    for bad in ("nonsense", "nonsense", live.token(ttl=-60)):
        panel.fill(bad)
        with page.expect_response(lambda answer: answer.status == 401):
            button(page, "Sign in").click()
        expect(page.get_by_text("You are signed out.")).to_be_visible()
        expect(trouble(page)).to_have_text("The token was not accepted, or is no longer valid.")
        expect(button(page, "Sign out")).to_have_count(0)
        expect(panel).to_be_focused()
    good = live.token()
    panel.fill(good)
    panel.press("Enter")
    shows(page, "3 entries")
    expect(button(page, "Sign out")).to_be_visible()
    kept = page.evaluate(
        "document.documentElement.outerHTML + document.querySelector('audit-log').shadowRoot.innerHTML + location.href"
    )
    assert good not in kept


def test_an_old_link(page: Page, live: Live, heard: Heard, axe: Callable[[Page], list[str]]) -> None:
    """A link whose token is over says so, and has nobody to sign out; signed out by hand, no token is blamed."""
    heard.expect("status of 401")
    fill(live, 3)
    signed_in(page, live, ttl=-60)
    expect(trouble(page)).to_have_text("The token was not accepted, or is no longer valid.")
    expect(button(page, "Sign out")).to_have_count(0)
    assert axe(page) == []
    signed_in(page, live)
    shows(page, "3 entries")
    button(page, "Sign out").click()
    expect(page.get_by_label("Access token")).to_be_visible()
    expect(trouble(page)).to_have_count(0)
    expect(button(page, "Sign out")).to_have_count(0)


def test_signing_in_shows_that_it_loads(page: Page, live_once: Live) -> None:
    """A token that was given is answered at once, by the skeleton, however long the server takes."""
    fill(live_once, 3)
    page.goto(live_once.url)
    page.get_by_label("Access token").fill(live_once.token())
    with live_once.server.paused():
        button(page, "Sign in").click()
        expect(page.locator("tr.skeleton")).to_have_count(25)
    shows(page, "3 entries")


def test_a_token_expires_while_it_is_read(page: Page, live: Live, heard: Heard) -> None:
    """When the token is over, the next question closes the log; a new one opens the same view."""
    heard.expect("status of 401")
    fill(live, 60)
    signed_in(page, live, "/?q=example", ttl=2)
    shows(page, "60 entries")
    panel = page.get_by_label("Access token")
    while not panel.is_visible():
        with page.expect_response("**/v1/events?*"):
            button(page, "Next page" if button(page, "Previous page").is_disabled() else "Previous page").click()
        expect(table(page).and_(page.locator("[aria-busy=false]")).or_(panel)).to_be_visible()
    expect(table(page)).to_have_count(0)
    expect(panel).to_be_focused()
    panel.fill(live.token())
    button(page, "Sign in").click()
    expect(rows(page)).to_have_count(25)
    expect(button(page, "Remove filter: Search: example")).to_be_visible()


def test_a_host_is_asked_once_more(
    page: Page, live_once: Live, hosts: Hosts, giving: Callable[..., Any], heard: Heard
) -> None:
    """After a 401 the host is asked for a token exactly once more, with `renew`; with a good one, nobody notices."""
    heard.expect("status of 401")
    fill(live_once, 3)
    good: list[str] = []

    def token(given: dict[str, Any]) -> str:
        if given["renew"]:
            good.append(live_once.token())
        return good[-1] if good else live_once.token(ttl=-1)

    asked = giving(token)
    page.goto(hosts.page("plain", live_once.url))
    shows(page, "3 entries")
    expect(page.get_by_role("slider").first).to_be_visible()
    assert asked[:2] == [{"renew": False}, {"renew": True}]
    assert [given for given in asked if given["renew"]] == [{"renew": True}]


def test_a_host_without_a_good_token(
    page: Page, live_once: Live, hosts: Hosts, giving: Callable[..., Any], heard: Heard
) -> None:
    """Where the new token is no better, it says so, asks no third time, and tries again when it is told to."""
    heard.expect("status of 401")
    fill(live_once, 3)
    signs: list[float] = [-1]
    asked = giving(lambda given: live_once.token(ttl=signs[-1]))
    page.goto(hosts.page("plain", live_once.url))
    expect(page.get_by_text("You are signed out.")).to_be_visible()
    expect(page.get_by_label("Access token")).to_have_count(0)
    assert asked == [{"renew": False}, {"renew": True}]
    problems = page.evaluate(
        "hostEvents.filter((event) => event.name === 'audit-problem').map((event) => event.detail)"
    )
    assert [(one["name"], one["status"]) for one in problems] == [("unauthorized", 401)]
    assert re.fullmatch("[0-9a-f-]{16,}", problems[0]["requestId"])
    signs.append(3600)
    button(page, "Try again").click()
    shows(page, "3 entries")


def test_a_host_that_fails_to_give_a_token(page: Page, live_once: Live, hosts: Hosts) -> None:
    """A function that throws, or has nothing to give, means signed out, and no error."""
    page.goto(hosts.page("plain", live_once.url))
    log = page.locator("audit-log")
    for broken in ("() => { throw new Error('no') }", "async () => Promise.reject(new Error('no'))", "() => undefined"):
        log.evaluate(f"(log) => {{ log.getToken = {broken} }}")
        expect(page.get_by_text("You are signed out.")).to_be_visible()


def test_a_scope_is_missing(page: Page, live: Live, heard: Heard) -> None:
    """Where the token may not read, it says which scope is missing, with the request's id, and shows no log."""
    heard.expect("status of 403")
    fill(live, 3)
    signed_in(page, live, scope="audit:export audit:write")
    expect(page.get_by_text("This account may not view the audit log.")).to_be_visible()
    expect(page.get_by_text("It lacks the permission audit:read.")).to_be_visible()
    expect(page.get_by_text(REQUEST_ID)).to_be_visible()
    expect(table(page)).to_have_count(0)


def test_export_is_not_allowed(page: Page, live: Live, heard: Heard) -> None:
    """Where the token may read and not export, the export says so; nothing is saved, and reading goes on."""
    heard.expect("status of 403")
    fill(live, 60)
    signed_in(page, live, scope="audit:read")
    shows(page, "60 entries")
    page.on("download", lambda download: pytest.fail("something was saved"))
    button(page, "Export CSV").click()
    expect(trouble(page)).to_contain_text("This account may view the log, but not export it.")
    expect(trouble(page)).to_contain_text(REQUEST_ID)
    button(page, "Next page").click()
    expect(rows(page).first).to_contain_text("d34.example")
    button(page, "Close").click()
    expect(trouble(page)).to_have_count(0)


@pytest.mark.parametrize("plan", ["starter", None])
def test_a_plan_without_the_log(
    page: Page, live: Live, hosts: Hosts, giving: Callable[..., Any], heard: Heard, plan: str | None
) -> None:
    """It says which plans have it, and links to where people change theirs, if given; a better one opens the log."""
    heard.expect("status of 403")
    fill(live, 3)
    plans = [plan]
    giving(lambda given: live.token(plan=plans[-1]))
    page.goto(hosts.page("plain", live.url))
    expect(page.get_by_text("The audit log is not part of your plan.")).to_be_visible()
    expect(page.get_by_text(re.compile(r"It is part of: \w+(, \w+)*,? or \w+\."))).to_contain_text("business")
    expect(page.get_by_role("link")).to_have_count(0)
    page.locator("audit-log").evaluate("(log) => log.setAttribute('upgrade-url', '/plans')")
    expect(page.get_by_role("link", name="Upgrade")).to_have_attribute("href", "/plans")
    plans.append("business")
    button(page, "Try again").click()
    shows(page, "3 entries")


def test_every_state_has_its_pictures() -> None:
    """The states that are pictured and that axe looks at are all functions of `states.py`: none is forgotten."""
    made = {
        name.replace("_", "-")
        for name, one in vars(states).items()
        if getattr(one, "__annotations__", {}).keys() == {"page", "live", "return"}
        and one.__annotations__["return"] == "None"
    }
    assert made == set(states.STATES)
    assert set(states.STATES) >= set(states.NOISES)


def test_the_document_says_its_language(new_context: Callable[..., BrowserContext], live_once: Live) -> None:
    """States speak the reader's language, and say which it is."""
    page = new_context(locale="de-AT").new_page()
    signed_in(page, live_once)
    expect(page.get_by_text("Noch wurde nichts aufgezeichnet.")).to_be_visible()
    expect(page.locator(".log")).to_have_attribute("lang", "de-AT")
    shows_german = page.get_by_role("status").filter(has_text="0 Einträge")
    expect(shows_german).to_be_visible()
