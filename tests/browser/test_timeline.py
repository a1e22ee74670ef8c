"""The timeline: how many entries when, in which tone; and a choice of dates by mouse and by keys."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from playwright.sync_api import Page, expect

from .server import Live
from .steps import button, chips, drawn, fill, looked_at, recorded, sees
from .viewing import rows, shows

BERLIN = ZoneInfo("Europe/Berlin")
TONES = {"created": "green", "changed": "yellow", "deleted or failed": "red", "service or access": "accent"}


def counts(page: Page) -> list[tuple[str, int, dict[str, int]]]:
    """The timeline as text: each span's label, count, and count by tone."""
    found = []
    for text in page.locator(".counts li").all_inner_texts():
        label, _, rest = text.rpartition(": ")
        count, *tones = rest.split(" · ")
        by_tone = {TONES[tone.rpartition(" ")[0]]: int(tone.rpartition(" ")[2]) for tone in tones}
        found.append((label, int(count), by_tone))
    return found


def as_text(page: Page) -> None:
    """Show it as text."""
    if button(page, "As text").get_attribute("aria-pressed") == "false":
        button(page, "As text").click()
    expect(page.locator(".counts li").first).to_be_visible()


def spread(live: Live, days: int = 20) -> datetime:
    """An entry at noon of each of so many days, and a second one of another tone on each fifth; the first noon."""
    noon = (datetime.now(BERLIN) - timedelta(days=days)).replace(hour=12, minute=0, second=0, microsecond=0)
    recorded(live, *({"target": f"day {day}", "timestamp": noon + timedelta(days=day)} for day in range(days)))
    more = ({"target": f"more {day}", "timestamp": noon + timedelta(days=day)} for day in range(0, days, 5))
    recorded(live, *more, action="domain.deleted")
    return noon


def drag(page: Page, first: float, last: float) -> None:
    """Drag over the chart, between these shares of its width."""
    box = page.locator(".chart svg").bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] * first, box["y"] + 30)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * (first + last) / 2, box["y"] + 20)
    page.mouse.move(box["x"] + box["width"] * last, box["y"] + 25)
    page.mouse.up()


def test_the_bars_add_up(page: Page, live: Live) -> None:
    """As text, the spans add up to the total, and the tones of each to its count; a bar for each; and it collapses."""
    spread(live)
    looked_at(page, live, "24 entries")
    as_text(page)
    found = counts(page)
    assert sum(count for _, count, _ in found) == 24
    assert all(sum(tones.values()) == count for _, count, tones in found)
    assert sum(tones.get("red", 0) for _, _, tones in found) == 4
    for tone in ("green", "red"):
        expect(page.locator(f".bars rect.{tone}")).to_have_count(sum(tone in tones for _, _, tones in found))
    page.get_by_role("searchbox").fill("more")
    shows(page, "4 entries")
    expect(page.locator(".bars rect.green")).to_have_count(0)
    found = counts(page)
    assert (sum(count for _, count, _ in found), sum(tones.get("red", 0) for _, _, tones in found)) == (4, 4)
    button(page, "Timeline").click()
    expect(page.locator(".chart")).to_have_count(0)
    expect(button(page, "Timeline")).to_have_attribute("aria-expanded", "false")
    with page.expect_request("**/v1/events?*") as waiting:
        page.get_by_role("searchbox").fill("")
    assert "histogram" not in waiting.value.url
    shows(page, "24 entries")
    button(page, "Timeline").click()
    expect(page.locator(".bars rect.green")).not_to_have_count(0)
    assert sum(count for _, count, _ in counts(page)) == 24


@pytest.mark.parametrize("zone", ["local", "utc"])
def test_dragging_chooses_days(page: Page, live: Live, zone: str) -> None:
    """Where spans are days, dragging over some sets From and To to days; what they take in is what is shown then."""
    days = 120
    noon = spread(live, days)
    looked_at(page, live, "144 entries", f"/?page_size=100&zone={zone}")
    as_text(page)
    expect(page.locator(".counts li")).to_have_count(days)
    drag(page, 0.25, 0.5)
    expect(page.get_by_role("button", name="Remove filter: ")).to_have_count(2)
    from_, to = (page.get_by_label(name, exact=True).input_value() for name in ("From", "To"))
    first, last = (datetime.fromisoformat(text).date() for text in (from_, to))
    assert abs((first - noon.date()).days - days / 4) <= 1
    assert abs((last - noon.date()).days - days / 2) <= 1
    number = (last - first).days + 1
    more = sum(not (first - noon.date() + timedelta(day)).days % 5 for day in range(number))
    shows(page, f"{number + more} entries")
    assert f"from={first}&to={last}" in page.url
    as_text(page)
    drawn(page, number + more)


def test_dragging_chooses_moments(page: Page, live: Live) -> None:
    """Where spans are finer than a day, it sets moments, and the inputs have times."""
    start = (datetime.now(BERLIN) - timedelta(days=3)).replace(hour=10, minute=0, second=0, microsecond=0)
    recorded(live, *({"target": f"{at}", "timestamp": start + timedelta(minutes=at)} for at in range(60)))
    looked_at(page, live, "60 entries", "/?page_size=100")
    expect(page.locator(".bars rect")).to_have_count(60)
    drag(page, 0.34, 0.65)
    expect(page.get_by_label("From", exact=True)).to_have_attribute("type", "datetime-local")
    first, last = (datetime.fromisoformat(page.get_by_label(name, exact=True).input_value()) for name in ("From", "To"))
    assert abs((first - start.replace(tzinfo=None)).total_seconds() / 60 - 20) <= 1
    assert abs((last - start.replace(tzinfo=None)).total_seconds() / 60 - 40) <= 1
    shows(page, f"{(last - first).total_seconds() / 60:.0f} entries")
    begin = int((first - start.replace(tzinfo=None)).total_seconds() / 60)
    expect(rows(page).last.locator("td.target")).to_have_text(str(begin))
    assert re.search(r"from=[^&]+T[^&]+Z&to=[^&]+T[^&]+Z", page.url)
    assert [chip.partition(":")[0] for chip in chips(page)] == ["From", "To"]


def test_handles_are_moved_by_keys(page: Page, live: Live) -> None:
    """Two handles choose the same by keyboard: arrows, page keys, Home and End; Escape takes it back; they say what."""
    start = (datetime.now(BERLIN) - timedelta(days=3)).replace(hour=10, minute=0, second=0, microsecond=0)
    recorded(live, *({"target": f"{at}", "timestamp": start + timedelta(minutes=at)} for at in range(60)))
    looked_at(page, live, "60 entries")
    first, last = (page.get_by_role("slider", name=name) for name in ("Start", "End"))
    all_spans = int(last.get_attribute("aria-valuemax") or 0)
    expect(last).to_have_attribute("aria-valuenow", str(all_spans))
    first.focus()
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    page.keyboard.press("Escape")
    expect(first).to_have_attribute("aria-valuenow", "0")
    page.keyboard.press("PageUp")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowLeft")
    expect(first).to_have_attribute("aria-valuenow", "10")
    expect(first).to_have_attribute("aria-valuetext", re.compile(r", 10:10: 1 · created 1"))
    last.focus()
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("PageDown")
    expect(last).to_have_attribute("aria-valuenow", str(all_spans - 11))
    page.keyboard.press("Enter")
    shows(page, f"{all_spans - 21} entries")
    expect(rows(page).first.locator("td.target")).to_have_text(str(all_spans - 12))
    page.go_back()
    shows(page, "60 entries")
    expect(last).to_have_attribute("aria-valuenow", str(all_spans))
    last.focus()
    page.keyboard.press("Home")
    expect(last).to_have_attribute("aria-valuenow", "1")
    sees(page, "0")  # once the keys rest


def test_the_pin_is_the_timelines_too(page: Page, live: Live) -> None:
    """What came later is in no bar, however often it is drawn anew."""
    fill(live, 5)
    looked_at(page, live, "5 entries")
    fill(live, 4, first=5)
    page.set_viewport_size({"width": 900, "height": 800})
    as_text(page)
    with page.expect_response("**/v1/events/histogram?*"):
        page.set_viewport_size({"width": 1100, "height": 800})
    assert sum(count for _, count, _ in counts(page)) == 5


def test_a_day_is_as_long_as_its_zone_says(page: Page, live_once: Live) -> None:
    """In UTC, for a reader whose clocks are put back in that night, the last day that is chosen is the last day."""
    noon = datetime(2026, 10, 25, 12, tzinfo=ZoneInfo("UTC"))
    recorded(live_once, *({"target": f"{day}", "timestamp": noon - timedelta(days=day)} for day in range(60)))
    looked_at(page, live_once, "60 entries", "/?zone=utc")
    expect(page.locator(".bars rect")).to_have_count(60)
    page.get_by_role("slider", name="Start").focus()
    page.keyboard.press("End")
    sees(page, "0")
    expect(page.get_by_label("To", exact=True)).to_have_value("2026-10-25")
