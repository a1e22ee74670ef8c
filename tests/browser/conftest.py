"""A browser, a server over each store that lasts, and pages that are listened to. One set for all tests of the folder.

The browser's driver keeps an event loop in the main thread while it runs: no test here may start another one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from audit_pipeline.stores import store_names

from ..places import store_of_several_tests
from .axe import violations
from .chromium import TIMEOUT_MS, Heard, launched
from .hosts import Hosts, built_pages
from .packages import installed_packages
from .server import Live, Server

STORES = [name for name in store_names() if name != "memory"]
"""Those whose entries more than one process can see."""


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    """The Chromium that all tests here share."""
    expect.set_options(timeout=TIMEOUT_MS)
    with launched() as found:
        yield found


@pytest.fixture(scope="package")
def packages() -> Path:
    """The folder `node_modules` of the tests."""
    return installed_packages()


@pytest.fixture(scope="package")
def hosts(packages: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosts]:
    """Pages of another origin that embed the viewer: `hosts.page("react18", live.url, theme="dark")`."""
    with Hosts(built_pages(packages, tmp_path_factory.mktemp("hosts"))).serving() as serving:
        yield serving


@contextmanager
def _live_over(name: str, folder: Path, origin: str) -> Iterator[Callable[[], Live]]:
    with store_of_several_tests(name, folder) as url, Live.pipeline_of(url, folder) as pipeline:
        server = Server(url, folder, AUDIT_CORS_ORIGINS=origin)
        try:
            yield lambda: Live(server, url, folder, pipeline)
        finally:
            server.stop()
        assert "Traceback" not in server.log(), server.log()


@pytest.fixture(scope="package", params=STORES)
def new_live(
    request: pytest.FixtureRequest, hosts: Hosts, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[], Live]]:
    """Makes a `live`, over each store."""
    with _live_over(request.param, tmp_path_factory.mktemp("live"), hosts.origin) as new:
        yield new


@pytest.fixture(scope="package")
def new_live_once(hosts: Hosts, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], Live]]:
    """Makes a `live_once`."""
    with _live_over("sqlite", tmp_path_factory.mktemp("live"), hosts.origin) as new:
        yield new


@pytest.fixture
def live(new_live: Callable[[], Live]) -> Live:
    """A running server over each store, and an organisation of the test's own in it, without entries."""
    made = new_live()
    made.server.start()  # the test before may have ended it
    return made


@pytest.fixture
def live_once(new_live_once: Callable[[], Live]) -> Live:
    """The same over one store: for what is the page's own doing, whatever the store."""
    made = new_live_once()
    made.server.start()
    return made


@pytest.fixture
def heard() -> Iterator[Heard]:
    """What the test's pages said. The test fails at its end over anything that it did not say it `expect`s."""
    heard = Heard()
    yield heard
    assert heard.complaints() == []


@pytest.fixture
def new_context(browser: Browser, heard: Heard) -> Iterator[Callable[..., BrowserContext]]:
    """Makes browser contexts, each like a new browser: `new_context(locale="de", color_scheme="dark")`."""
    made: list[BrowserContext] = []

    def make(**options: Any) -> BrowserContext:
        usual = {"locale": "en-US", "timezone_id": "Europe/Berlin", "viewport": {"width": 1280, "height": 800}}
        context = browser.new_context(**(usual | options))
        context.set_default_timeout(TIMEOUT_MS)
        heard.listen(context)
        made.append(context)
        return context

    yield make
    for context in made:
        context.close()


@pytest.fixture
def page(new_context: Callable[..., BrowserContext]) -> Page:
    """A page in a browser context of its own: English, in Berlin, 1280 × 800."""
    return new_context().new_page()


@pytest.fixture
def axe(packages: Path) -> Callable[..., list[str]]:
    """What axe-core finds in a page: `assert axe(page) == []`; or of some rules: `axe(page, "color-contrast")`."""
    return lambda page, *rules: violations(page, packages, rules)
