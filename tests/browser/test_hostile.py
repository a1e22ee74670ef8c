"""Values that somebody wrote to harm whoever looks at them: in every field, and in the address."""

from __future__ import annotations

import json
from collections.abc import Callable
from urllib.parse import urlencode

import pytest
from playwright.sync_api import BrowserContext, Page, expect

from .chromium import Heard
from .server import Live
from .test_access import OVERFLOW
from .viewing import rows, shows, signed_in

VALUES = {
    "script": ("</title></bdi><script>alert(1)</script>", None),
    "image": ("<img src=x onerror=alert(1)>", None),
    "address": ("javascript:alert(1)//https://example.com", None),
    "quotes": ("\"><svg onload=alert(1)> ' ` ${alert(1)} {{alert(1)}} --> ]]>", None),
    "bidi": ("invoice\u202egnp.exe \u2066a\u2069 \u061c", "invoice⟨U+202E⟩gnp.exe ⟨U+2066⟩a⟨U+2069⟩ ⟨U+061C⟩"),
    "hidden": ("pay\u200bpal\u00ad.exa\ufeffmple\u2060", "pay⟨U+200B⟩pal⟨U+00AD⟩.exa⟨U+FEFF⟩mple⟨U+2060⟩"),
    "controls": ("a\x00b\x1b[31mc\x7f\x85d", "a␀b␛[31mc␡⟨U+0085⟩d"),
    "surrogate": ("lone \ud800 end", "lone \ufffd end"),
    "tower": ("Z" + "\u0335\u0300\u0301\u030b" * 60 + " end", None),
    "word": ("w" * 10_000, None),
}
"""What was recorded; and what is shown, where that is something else."""
INERT = """() => {
    const root = document.querySelector("audit-log").shadowRoot;
    const all = [...root.querySelectorAll("*")];
    const active = "script, img, iframe, object, embed, a, base, form, link, meta, style";
    const acts = (name) => name.startsWith("on") || name === "style";
    return {
        ran: globalThis.ran === true,
        elements: all.filter((one) => one.matches(active)).length,
        handlers: all.filter((one) => one.getAttributeNames().some(acts)).length,
        title: document.title,
    };
}"""
NOTHING = {"ran": False, "elements": 0, "handlers": 0, "title": "Audit log"}


@pytest.fixture
def watched(page: Page) -> Page:
    """A page in which whatever runs is noticed."""
    page.add_init_script("globalThis.alert = () => { globalThis.ran = true }")
    page.on("dialog", lambda dialog: pytest.fail(f"a dialog: {dialog.message}"))
    return page


def record(live: Live, value: str) -> None:
    """An entry with the value in every field that takes a text."""
    context = {value[:500]: value[:5_000], "deep": [{value[:100]: [value[:1_000], None, True]}]}
    live.record("domain.created", target=value, detail=value, user=value, context=context)
    live.stored()


@pytest.mark.parametrize("name", VALUES)
def test_every_field_is_inert_and_readable(watched: Page, live_once: Live, name: str) -> None:
    """In the table, the details and the chips, whatever the value is, it is text that can be read, and nothing else."""
    value, written = VALUES[name]
    record(live_once, value)
    page = signed_in(watched, live_once)
    shows(page, "1 entry")
    whole = written or value
    cells = rows(page).first.locator("td bdi")
    for at in range(3):
        assert cells.nth(at).text_content() == (whole if len(whole) <= 300 else f"{whole[:300]}…")
    page.get_by_role("button", name="Show details").click()
    details = page.locator("tr.details")
    for field, longest in (("Target", 1024), ("Detail", 10_000), ("User", 1024)):
        shown = details.locator(".line", has=page.get_by_text(field, exact=True)).first.locator(".value").first
        text = shown.text_content() or ""
        assert text[: longest - 100] == whole[: longest - 100], field
    assert details.locator(".tree dt").first.text_content() in (whole[:500], "deep")
    assert page.evaluate(INERT) == NOTHING
    for width in (320, 800, 1280):
        page.set_viewport_size({"width": width, "height": 800})
        assert page.evaluate(OVERFLOW) == [], width
    only = details.get_by_role("button", name="Show only this: User")
    only.click()
    expect(page.get_by_role("button", name="Remove filter: User")).to_be_visible()
    assert page.evaluate(INERT) == NOTHING
    assert page.evaluate(OVERFLOW) == []
    shows(page, "1 entry")


@pytest.mark.parametrize("name", [name for name in VALUES if name not in ("surrogate", "word")])
def test_the_address_is_inert(watched: Page, live_once: Live, heard: Heard, name: str) -> None:
    """What a link says is shown as text where it filters, and refused by its name where it is none."""
    record(live_once, "a value")
    value = VALUES[name][0]
    page = signed_in(watched, live_once, "/?" + urlencode({"q": value, "user": value}))
    expect(page.get_by_role("button", name="Remove filter: User")).to_be_visible()
    expect(page.get_by_role("status").filter(has_text="0 entries").or_(page.get_by_role("alert"))).to_be_visible()
    assert page.evaluate(INERT) == NOTHING
    heard.expect("status of 422")
    names = [
        "action",
        "category",
        "from",
        "to",
        "outcome",
        "ip",
        "sort",
        "page",
        "page_size",
        "period",
        "zone",
        "pin",
        "entry",
    ]
    page.goto("about:blank")
    signed_in(page, live_once, "/?" + urlencode(dict.fromkeys(names, value)))
    refused = page.get_by_role("alert").get_by_role("listitem")
    expect(refused.filter(has_text="zone")).to_have_count(1)
    expect(refused.filter(has_text="sort")).to_have_count(1)
    expect(page.get_by_text("There is no such entry.")).to_be_visible()
    assert page.evaluate(INERT) == NOTHING
    page.set_viewport_size({"width": 320, "height": 800})
    assert page.evaluate(OVERFLOW) == []
    page.get_by_role("button", name="Remove these").click()
    shows(page, "1 entry")


def test_a_huge_context_is_readable(new_context: Callable[..., BrowserContext], live_once: Live) -> None:
    """A context of 60,000 bytes, eight levels deep, opens, and makes nothing overflow."""
    deep: object = "the end"
    for level in range(6):
        deep = {f"level {level}": deep}
    context = {"deep": deep} | {f"key {at} " + "k" * 40: "v" * 100 for at in range(350)}
    assert len(json.dumps(context)) > 50_000
    live_once.record("domain.created", context=context)
    live_once.stored()
    page = signed_in(new_context(viewport={"width": 320, "height": 800}).new_page(), live_once)
    page.get_by_role("button", name="Show details").click()
    expect(page.get_by_text("the end")).to_be_visible()
    expect(page.locator("tr.details .tree dt", has_text="key 349")).to_have_count(1)
    for width in (320, 1280):
        page.set_viewport_size({"width": width, "height": 800})
        assert page.evaluate(OVERFLOW) == []


def test_an_unknown_answer_shows_no_html(watched: Page, live_once: Live, heard: Heard) -> None:
    """What a problem says, of whoever made it, is text."""
    heard.expect("status of 422")
    body = {
        "type": "urn:x:invalid-query",
        "errors": [{"parameter": "<img src=x onerror=alert(1)>", "detail": "<b>no</b>"}],
    }
    watched.route("**/v1/events?*", lambda route: route.fulfill(status=422, json=body))
    page = signed_in(watched, live_once)
    expect(page.get_by_role("alert")).to_contain_text("<img src=x onerror=alert(1)>: <b>no</b>")
    assert page.evaluate(INERT) == NOTHING
