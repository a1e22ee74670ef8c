"""The viewer in other people's dashboards: other frameworks, another origin, a strict CSP, hostile styles."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated

import pytest
import uvicorn
from audit_pipeline.api import Caller, create_subapp
from fastapi import Cookie, FastAPI, HTTPException, Response
from playwright.sync_api import Page, expect

from audit_pipeline.settings import Settings

from .chromium import Heard
from .hosts import NAMES, Hosts
from .server import Live
from .viewing import rows, shows


@pytest.fixture
def asked(page: Page, live_once: Live) -> list[str]:
    """The tokens that the host page was asked for, in order."""
    given: list[str] = []

    def ask(_: object) -> str:
        given.append(live_once.token())
        return given[-1]

    page.expose_function("askToken", ask)
    return given


@pytest.mark.parametrize("name", NAMES)
def test_it_works_in_a_dashboard_of_another_origin(
    page: Page, live_once: Live, hosts: Hosts, asked: list[str], axe: Callable[[Page], list[str]], name: str
) -> None:
    """With one tag and a function for tokens, each framework shows the log, and hears its events."""
    live_once.record_all({"action": "domain.created", "target": f"d{at}.example"} for at in range(30))
    live_once.stored()
    page.goto(hosts.page(name, live_once.url, page_size="10"))
    shows(page, "30 entries")
    expect(rows(page)).to_have_count(10)
    assert asked
    for heard in ("hostEvents", "frameworkEvents"):
        events = page.evaluate(f"{heard}.filter((event) => event.name === 'audit-loaded')")
        assert events[-1]["detail"]["total"] == 30
    assert [found for found in axe(page) if "audit-log" in found] == []
    # What the framework changes later gets through; and the element may leave the page and come back.
    page.get_by_role("button", name="Dark", exact=True).click()
    expect(page.locator("audit-log")).to_have_js_property("theme", "dark")
    page.get_by_role("button", name="Remove", exact=True).click()
    expect(page.locator("audit-log")).to_have_count(0)
    page.get_by_role("button", name="Restore", exact=True).click()
    shows(page, "30 entries")


@pytest.mark.parametrize("name", NAMES)
def test_the_token_is_nowhere_in_the_host_page(
    page: Page, live_once: Live, hosts: Hosts, asked: list[str], name: str
) -> None:
    """The token is no attribute, and in no storage and no address of the page."""
    live_once.record("domain.created")
    live_once.stored()
    page.goto(hosts.page(name, live_once.url, url_state="query"))
    shows(page, "1 entry")
    kept = page.evaluate(
        "document.documentElement.outerHTML + location.href"
        " + JSON.stringify([{ ...localStorage }, { ...sessionStorage }, document.cookie])"
    )
    assert not any(token in kept for token in asked)


def test_an_origin_that_is_not_listed_gets_nothing(page: Page, live_once: Live, hosts: Hosts, heard: Heard) -> None:
    """Where AUDIT_CORS_ORIGINS does not list the dashboard, the browser does not even load the viewer."""
    heard.expect("error: Access to script at .* has been blocked by CORS policy")
    heard.expect("Failed to load resource: net::ERR_FAILED")
    address = hosts.page("plain", live_once.url).replace(hosts.origin, hosts.unlisted_origin)
    page.goto(address)
    expect(page.get_by_role("button", name="Restore", exact=True)).to_be_visible()
    assert page.evaluate("customElements.get('audit-log') === undefined")


@pytest.fixture
def embedded(page: Page, live_once: Live, hosts: Hosts, asked: list[str]) -> Callable[..., Page]:
    """Open the dashboard without a framework, with 30 entries in the log, and these attributes."""
    live_once.record_all(
        {"action": "domain.created", "target": f"d{at}.example", "user": "alice@example.com"} for at in range(30)
    )
    live_once.stored()

    def opened(extra: str = "", **attributes: str) -> Page:
        page.goto(hosts.page("plain", live_once.url, **attributes) + extra)
        shows(page, "30 entries")
        return page

    return opened


def test_what_changes_later_is_taken(embedded: Callable[..., Page]) -> None:
    """Theme, locale and page size may be changed at any time, as attributes or as properties; and taken back."""
    page = embedded()
    log = page.locator("audit-log")
    expect(rows(page)).to_have_count(25)
    log.evaluate("(log) => log.setAttribute('page-size', '10')")
    expect(rows(page)).to_have_count(10)
    log.evaluate("(log) => { log.pageSize = 50 }")
    expect(rows(page)).to_have_count(30)
    log.evaluate("(log) => { log.pageSize = 7 }")
    expect(rows(page)).to_have_count(25)
    log.evaluate("(log) => { log.locale = 'de' }")
    expect(page.get_by_role("searchbox", name="Suche")).to_be_visible()
    log.evaluate("(log) => { log.locale = 'xx-nonsense' }")
    expect(page.get_by_role("searchbox", name="Search")).to_be_visible()
    for theme, scheme in (("dark", "dark"), ("light", "light"), ("auto", "light dark")):
        log.evaluate("(log, theme) => { log.theme = theme }", theme)
        expect(log).to_have_attribute("theme", theme)
        expect(log).to_have_css("color-scheme", scheme)


@pytest.mark.parametrize("state", ["none", "query", "hash"])
def test_the_host_keeps_its_address(embedded: Callable[..., Page], state: str) -> None:
    """The view is in the query, in the fragment, or nowhere, as the host says; what else is in its address stays."""
    page = embedded("?tab=audit&id=7" + ("#top" if state != "hash" else ""), url_state=state)
    page.get_by_role("searchbox", name="Search").fill("d17")
    shows(page, "1 entry")
    address = page.url.partition("/?")[2]
    assert address == {
        "none": "tab=audit&id=7#top", "query": "tab=audit&id=7&q=d17#top", "hash": "tab=audit&id=7#q=d17",
    }[state]  # fmt: skip
    page.get_by_role("button", name="Clear all").click()
    shows(page, "30 entries")
    assert page.url.partition("/?")[2].rstrip("#") == "tab=audit&id=7" + ("" if state == "hash" else "#top")
    if state != "none":
        page.go_back()
        shows(page, "1 entry")
        expect(page.get_by_role("searchbox", name="Search")).to_have_value("d17")


def test_it_leaves_and_comes_back(embedded: Callable[..., Page]) -> None:
    """Taken out and put in elsewhere, it still has its view; meanwhile it asks for nothing."""
    page = embedded()
    page.get_by_role("searchbox", name="Search").fill("d17")
    shows(page, "1 entry")
    page.get_by_role("switch", name="Live").click()
    expect(page.get_by_role("switch", name="Live")).to_be_checked()
    page.evaluate("globalThis.kept = document.querySelector('audit-log'); kept.remove()")
    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    page.evaluate("window.dispatchEvent(new Event('online')); document.dispatchEvent(new Event('visibilitychange'))")
    assert requests == []
    page.evaluate("document.body.append(kept)")
    shows(page, "1 entry")
    expect(page.get_by_role("searchbox", name="Search")).to_have_value("d17")
    expect(page.get_by_role("switch", name="Live")).not_to_be_checked()
    expect(page.get_by_role("slider")).to_have_count(2)


def test_two_of_them_do_not_meet(embedded: Callable[..., Page], live_once: Live) -> None:
    """Two logs in one page have a view, a token and an organisation each."""
    page = embedded()
    token = live_once.token(org=f"{live_once.org}-other")
    page.evaluate(
        """([api, token]) => {
            const other = document.createElement("audit-log");
            other.id = "other";
            Object.assign(other, { apiBase: api, token, theme: "dark" });
            document.body.append(other);
        }""",
        [live_once.url, token],
    )
    first, other = page.locator("audit-log").nth(0), page.locator("#other")
    expect(other.get_by_role("status").first).to_have_text("0 entries")
    first.get_by_role("searchbox", name="Search").fill("d17")
    expect(first.get_by_role("status").first).to_have_text("1 entry")
    expect(other.get_by_role("searchbox", name="Search")).to_have_value("")
    expect(other.get_by_role("status").first).to_have_text("0 entries")
    assert token not in page.evaluate("document.documentElement.outerHTML")


def test_the_host_chooses_the_looks(embedded: Callable[..., Page]) -> None:
    """Custom properties and parts change the looks; nothing else of the host's gets in; no element has a style."""
    page = embedded()
    page.get_by_role("button", name="Show details").first.click()
    page.evaluate(
        """() => {
            const sheet = new CSSStyleSheet();
            sheet.replaceSync(`
                audit-log { --audit-accent: rgb(1, 2, 3); --audit-radius: 11px; }
                audit-log { --audit-surface: light-dark(rgb(250, 240, 230), rgb(9, 9, 9)); }
                audit-log::part(toolbar) { padding-top: 13px; }
                audit-log::part(badge) { text-transform: uppercase; }
                input { color: rgb(255, 0, 0); }
            `);
            document.adoptedStyleSheets.push(sheet);
        }"""
    )
    log = page.locator("audit-log")
    expect(log).to_have_css("background-color", "rgb(250, 240, 230)")
    log.evaluate("(log) => { log.theme = 'dark' }")
    expect(log).to_have_css("background-color", "rgb(9, 9, 9)")
    export = page.get_by_role("button", name="Export CSV")
    expect(export).to_have_css("background-color", "rgb(1, 2, 3)")
    expect(export).to_have_css("border-radius", "11px")
    expect(export).to_have_css("transform", "none")
    expect(page.locator(".toolbar")).to_have_css("padding-top", "13px")
    expect(page.locator(".badge").first).to_have_css("text-transform", "uppercase")
    expect(page.get_by_role("searchbox")).not_to_have_css("color", "rgb(255, 0, 0)")
    parts = page.evaluate(
        "[...document.querySelector('audit-log').shadowRoot.querySelectorAll('[part]')].map((one) => one.part.value)"
    )
    assert {"toolbar", "search", "export", "timeline", "status", "table", "row", "badge", "details", "pager"} <= set(
        parts
    )
    assert (
        page.evaluate("document.querySelector('audit-log').shadowRoot.querySelectorAll('[style], style').length") == 0
    )


@contextmanager
def dashboard(live: Live) -> Iterator[str]:
    """A dashboard that knows its users by a cookie, and has the API mounted in it; its address."""

    def who(session: Annotated[str, Cookie()] = "") -> Caller:
        if session != "good":
            raise HTTPException(401, "Sign in first")
        scopes = frozenset({"audit:read", "audit:export"})
        return Caller("alice", live.org, scopes, "business", int(time.time()) + 60)

    app = FastAPI()
    app.mount("/audit", create_subapp(pipeline=live.pipeline, caller=who, settings=Settings(cursor_keys=("k" * 32,))))

    @app.get("/")
    def page(signed_in: bool = True) -> Response:
        tags = '<link rel="icon" href="data:,"><script type="module" src="/audit/viewer/audit-log.js"></script>'
        answer = Response(f"<!doctype html>{tags}<audit-log session></audit-log>", media_type="text/html")
        answer.set_cookie("session", "good" if signed_in else "over", httponly=True, samesite="strict")
        return answer

    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            time.sleep(0.01)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/"
    finally:
        server.should_exit = True
        thread.join()


def test_a_session_of_the_dashboard_is_enough(page: Page, live_once: Live, heard: Heard) -> None:
    """With `session`, the dashboard's own cookies say who asks, also for the CSV; without one, nobody is signed in."""
    live_once.record("domain.created", target="example.com")
    live_once.stored()
    with dashboard(live_once) as url:
        page.goto(url)
        shows(page, "1 entry")
        with page.expect_download() as saved:
            page.get_by_role("button", name="Export CSV").click()
        assert "example.com" in saved.value.path().read_text()
        heard.expect("401")
        page.goto(f"{url}?signed_in=false")
        expect(page.get_by_text("You are signed out.")).to_be_visible()
        page.context.add_cookies([{"name": "session", "value": "good", "url": url}])
        page.get_by_role("button", name="Try again").click()
        shows(page, "2 entries")
