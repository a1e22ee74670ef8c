"""What the other tests here rely on: nothing that goes wrong in a page stays unheard, and what is missing is named."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, Page

from . import packages as packages_module
from .chromium import ChromiumMissing, Heard, launched
from .packages import PackagesMissing, installed_packages
from .server import Live


@pytest.mark.parametrize(
    ("code", "complaint"),
    [
        ("console.log('a word')", r"heard log: a word \("),
        ("console.warn('careful')", "heard warning: careful"),
        ("void setTimeout(() => { throw new TypeError('broken') })", "heard uncaught: .*broken"),
        ("void Promise.reject(new Error('dropped'))", "heard uncaught: .*dropped"),
        ("document.body.setAttribute('style', 'color: red')", "heard CSP: style-src-attr refused inline"),
        ("void document.body.append(Object.assign(new Image(), { src: 'http://localhost:9/' }))",
         "heard CSP: img-src refused http://localhost:9"),
        ("try { document.body.innerHTML = '<b>' } catch { 0 }", "heard CSP: require-trusted-types-for"),
        ("fetch('/nowhere').then(() => 0)", "heard error: Failed to load resource.*404"),
    ],
)  # fmt: skip
def test_what_goes_wrong_is_heard(browser: Browser, live_once: Live, code: str, complaint: str) -> None:
    """A console message, an error, a refusal by the CSP: each is a complaint."""
    heard = Heard()
    with browser.new_context() as context:
        heard.listen(context)
        page = context.new_page()
        page.goto(live_once.url)
        page.evaluate(code)
        end = time.monotonic() + 5
        while not any(re.match(complaint, said) for said in heard.complaints()):
            assert time.monotonic() < end, heard.complaints()
            page.wait_for_timeout(10)  # lets events arrive


def test_what_is_expected_has_to_come(browser: Browser) -> None:
    """What a test expects is no complaint; where it does not come, that is one."""
    heard = Heard()
    heard.expect("log: a word")
    with browser.new_context() as context:
        heard.listen(context)
        assert heard.complaints() == ["never heard log: a word"]
        page = context.new_page()
        with page.expect_console_message():
            page.evaluate("console.log('a word')")
        assert heard.complaints() == []


def test_axe_looks_into_shadow_trees(page: Page, axe: Callable[[Page], list[str]], live_once: Live) -> None:
    """A button without a name is found inside a shadow tree, under the page's own CSP, without a trace in the page."""
    page.goto(live_once.link())
    page.evaluate(
        """() => {
            const host = document.createElement("div");
            host.attachShadow({ mode: "open" }).append(document.createElement("button"));
            document.body.append(host);
        }"""
    )
    assert any(found.startswith("button-name (critical): [['div', 'button']]") for found in axe(page))
    assert page.evaluate("typeof axe") == "undefined"


def test_a_test_sees_its_own_entries_only(live: Live, new_live: Callable[[], Live]) -> None:
    """Two tests share a server and see nothing of each other; a restart keeps address and entries."""
    other = new_live()
    live.record_all({"action": "domain.created", "target": f"{number}.example"} for number in range(30))
    other.record("domain.deleted")
    live.stored()
    url = live.url
    live.server.stop()
    with pytest.raises(httpx.ConnectError):
        httpx.get(live.url)
    live.server.start()
    assert live.url == url
    for one, total in ((live, 30), (other, 1)):
        answer = httpx.get(f"{url}/v1/events", headers={"authorization": f"Bearer {one.token()}"})
        assert answer.json()["total"] == total
    with live.with_settings(AUDIT_EXPORT_LIMIT="7") as limited:
        answer = httpx.get(f"{limited.url}/v1/events", headers={"authorization": f"Bearer {limited.token()}"})
        assert (answer.json()["total"], answer.headers["x-row-limit"]) == (30, "7")


def test_a_machine_without_chromium_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Where there is no Chromium, or no npm, the tests fail with what to do; they are never skipped."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ChromiumMissing, match="apt-get install chromium"), launched():
        pass
    monkeypatch.setattr(packages_module, "FOLDER", tmp_path)
    (tmp_path / "package-lock.json").write_text("{}")
    with pytest.raises(PackagesMissing, match="apt-get install nodejs npm"):
        installed_packages()
