"""What the viewer weighs, and how long it keeps people waiting: from the bytes that are sent, and recorded traces."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect

from .server import Live
from .states import rich, shown
from .viewing import rows, shows, signed_in

LIMIT_BYTES = 40_000
LIMIT_PAINT_MS = 100
LIMIT_TASK_MS = 50
TRIES = 16
"""Other processes may take the processor from a measurement: the best of several says what the viewer takes."""
CATEGORIES = [
    "devtools.timeline", "disabled-by-default-devtools.timeline", "blink.user_timing", "loading", "toplevel",
]  # fmt: skip


def test_all_files_together_are_light(
    page: Page, live_once: Live, record_property: Callable[[str, object], None]
) -> None:
    """The page, its icon, and all that it loads are under 40,000 bytes, as sent; it names all that is loaded."""
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    rich(live_once, 12)
    signed_in(page, live_once)
    shown(page)
    bodies: dict[str, int] = {}
    with httpx.Client(base_url=live_once.url, headers={"accept-encoding": "gzip"}) as client:
        page_text = client.get("/").text
        for path in {"/", *(f"/{name}" for name in re.findall(r'(?:href|src)="([^"]+)"', page_text))}:
            with client.stream("GET", path) as answer:
                assert answer.status_code == 200
                assert answer.headers["content-encoding"] == "gzip", path
                bodies[path] = len(b"".join(answer.iter_raw()))
                versioned = re.fullmatch(r"/viewer/[0-9a-f]{12}/[\w./-]+", path) is not None
                assert versioned or path == "/"
                caching = answer.headers["cache-control"]
                assert caching == ("public, max-age=31536000, immutable" if versioned else "no-cache")
    loaded = {url.removeprefix(live_once.url).partition("#")[0] for url in asked if "/v1/" not in url}
    assert loaded <= set(bodies)
    assert {"/" + name for name in ("lit.js", "texts.js", "icon.svg", "page.css")} <= {
        re.sub(r".*/", "/", path) for path in bodies
    }
    total = sum(bodies.values())
    record_property("bytes", total)
    print(f"{total:,} bytes in {len(bodies)} files")
    assert total < LIMIT_BYTES


def test_a_second_visit_loads_the_page_alone(page: Page, live_once: Live) -> None:
    """What was loaded once is kept: the second visit asks the server for the page, and for no file of the viewer."""
    devtools = page.context.new_cdp_session(page)
    devtools.send("Network.enable")
    answers: list[dict[str, Any]] = []
    kept: set[str] = set()
    loaded: set[str] = set()
    devtools.on("Network.responseReceived", lambda event: answers.append(event))  # noqa: PLW0108 - Playwright wraps no built-in
    devtools.on("Network.requestServedFromCache", lambda event: kept.add(event["requestId"]))
    devtools.on("Network.loadingFinished", lambda event: loaded.add(event["requestId"]))
    signed_in(page, live_once)
    expect(page.get_by_text("Nothing has been recorded yet.")).to_be_visible()
    # Chromium asks for the icon when it has time, after all else.
    for _ in range(200):
        if any("icon" in one["response"]["url"] and one["requestId"] in loaded for one in answers):
            break
        page.wait_for_timeout(50)
    answers.clear()
    page.reload()
    expect(page.get_by_text("Nothing has been recorded yet.")).to_be_visible()
    files = [one for one in answers if "/viewer/" in one["response"]["url"]]
    assert len(files) > 10
    asked = [one for one in files if one["requestId"] not in kept and not one["response"].get("fromDiskCache")]
    assert [one["response"]["url"] for one in asked] == []


class Trace:
    """What Chromium recorded while something was done in a page."""

    def __init__(self, recorded: bytes) -> None:
        self.events: list[dict[str, Any]] = json.loads(recorded)["traceEvents"]

    def named(self, name: str) -> list[dict[str, Any]]:
        """The events of this name, by their time."""
        return sorted((one for one in self.events if one["name"] == name), key=lambda one: one["ts"])

    def mark(self, name: str) -> dict[str, Any]:
        """A mark that the page made (`performance.mark`): it is of the page's main thread."""
        return next(one for one in self.named(name) if "blink.user_timing" in one["cat"])


def traced(browser: Browser, page: Page, act: Callable[[], None]) -> Trace:
    browser.start_tracing(page=page, categories=CATEGORIES)
    try:
        act()
    finally:
        recorded = browser.stop_tracing()
    return Trace(recorded)


MARK_ROWS = """(wanted) => {
    const root = document.querySelector("audit-log").shadowRoot;
    const seen = new MutationObserver(() => {
        if (root.querySelectorAll("tr.entry").length !== wanted) return;
        performance.mark("rows-there");
        seen.disconnect();
        requestAnimationFrame(() => setTimeout(() => { globalThis.painted = true }));
    });
    globalThis.painted = false;
    seen.observe(root, { subtree: true, childList: true });
}"""

ROWS_THERE = """(wanted) => new Promise((done) => {
    const root = document.querySelector("audit-log").shadowRoot;
    const look = () => root.querySelectorAll("tr.entry").length === wanted ? done() : setTimeout(look, 20);
    look();
})"""
"""Waits for rows, and asks nothing else of the page: to look for them by their role is a task of its own."""


@pytest.mark.alone
def test_a_hundred_rows_are_painted_at_once(
    page: Page, browser: Browser, live_once: Live, record_property: Callable[[str, object], None]
) -> None:
    """From the last byte of the answer to the paint with 100 rows it takes less than 100 ms."""
    rich(live_once, 120)
    signed_in(page, live_once)
    shown(page)
    size = page.get_by_role("combobox", name="Rows per page")

    def once() -> float:
        size.select_option("10")
        expect(rows(page)).to_have_count(10)
        page.evaluate(MARK_ROWS, 100)

        def act() -> None:
            size.select_option("100")
            page.evaluate(
                "new Promise((done) => { const look = () => painted ? done() : setTimeout(look, 5); look() })"
            )

        trace = traced(browser, page, act)
        expect(rows(page)).to_have_count(100)
        asked = next(
            one["args"]["data"]["requestId"]
            for one in trace.named("ResourceSendRequest")
            if "/v1/events?" in one["args"]["data"]["url"] and "page_size=100" in one["args"]["data"]["url"]
        )
        answered = next(one for one in trace.named("ResourceFinish") if one["args"]["data"]["requestId"] == asked)
        there = trace.mark("rows-there")
        painted = next(
            one
            for one in trace.named("Paint")
            if one["ts"] > there["ts"] and one["pid"] == there["pid"] and "dur" in one
        )
        return float(painted["ts"] + painted["dur"] - answered["ts"]) / 1000

    best = once()
    took = [best]
    while best >= LIMIT_PAINT_MS and len(took) < TRIES:
        took.append(once())
        best = min(took)
    record_property("paint_ms", best)
    print(f"answer to paint of 100 rows: {', '.join(f'{one:.0f}' for one in took)} ms")
    assert best < LIMIT_PAINT_MS


@pytest.mark.alone
@pytest.mark.parametrize("size", [100])
def test_typing_is_never_held_up(
    page: Page, browser: Browser, live_once: Live, record_property: Callable[[str, object], None], size: int
) -> None:
    """While somebody types, over 100 rows that change as they do, no task of the page takes more than 50 ms."""
    rich(live_once, 120)
    signed_in(page, live_once, f"/?page_size={size}")
    shown(page)
    search = page.get_by_role("searchbox", name="Search")

    def once() -> float:
        def act() -> None:
            page.evaluate("performance.mark('typing')")
            search.press_sequentially("mail1", delay=60)
            shows(page, "31 entries")
            search.press("Backspace")
            shows(page, "120 entries")
            page.evaluate(ROWS_THERE, size)

        trace = traced(browser, page, act)
        expect(rows(page)).to_have_count(size)
        mark = trace.mark("typing")
        search.fill("")
        shows(page, "120 entries")
        # Time that the thread had a processor: what other processes took of it is not the page's.
        tasks = [
            one.get("tdur", one["dur"]) / 1000
            for name in ("RunTask", "ThreadControllerImpl::RunTask")
            for one in trace.named(name)
            if (one["pid"], one["tid"]) == (mark["pid"], mark["tid"]) and one["ts"] > mark["ts"] and "dur" in one
        ]
        assert len(tasks) > 50  # that the trace has them
        return float(max(tasks))

    best = once()
    took = [best]
    while best >= LIMIT_TASK_MS and len(took) < TRIES:
        took.append(once())
        best = min(took)
    record_property("longest_task_ms", best)
    print(f"longest task while typing: {', '.join(f'{one:.0f}' for one in took)} ms")
    assert best < LIMIT_TASK_MS
