"""The demo: what it records, what it refuses to pass over, and the command as a user starts it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import unquote, urlsplit

import httpx
import pytest
import structlog

from audit_pipeline import AuditEvent, demo
from audit_pipeline.demo_story import OPERATIONS, tell
from audit_pipeline.errors import AuditError
from audit_pipeline.event import now_ms
from audit_pipeline.privacy import public_item
from audit_pipeline.processor import AuditPipeline
from audit_pipeline.query import parse_query
from audit_pipeline.settings import Settings
from audit_pipeline.stores import open_store

EVENTS = 120
DAY = 86_400_000
ACTIONS = {
    f"{category}.{verb}"
    for category, verbs in {
        "domain": "created deleted",
        "user": "created password_changed deleted bulk_imported",
        "alias": "created deleted",
        "dkim": "key_generated key_deleted",
        "service": "started stopped restarted",
        "queue": "flushed cleared item_deleted",
        "backup": "created deleted schedule_updated",
        "account": "created updated deleted",
        "auth": "login_succeeded login_failed logged_out",
        "settings": "updated ai_updated",
        "system": "factory_reset relay_configured relay_removed update_initiated",
    }.items()
    for verb in verbs.split()
}
MASKED = re.compile(r"(192\.0\.2|198\.51\.100|203\.0\.113)\.xxx|2001:db8:[0-9a-f:]*:xxxx")


def settings_in(folder: Path) -> Settings:
    return Settings.from_environment({}, store=f"sqlite:///{folder / 'demo.db'}")


def entries_of(settings: Settings) -> list[AuditEvent]:
    store = open_store(settings.store_url)
    snapshot = store.snapshot(parse_query({}, "default"), 100_000)
    try:
        return [event for batch in snapshot.batches() for event in batch]
    finally:
        snapshot.close()
        store.close()


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> tuple[int, list[AuditEvent]]:
    """What `fill` returned, and the entries in the store, newest first."""
    settings = settings_in(tmp_path_factory.mktemp("demo"))
    return demo.fill(settings, EVENTS), entries_of(settings)


Filled = tuple[int, list[AuditEvent]]


def test_fill_returns_how_many_entries_the_store_has(filled: Filled) -> None:
    """`fill` makes about as many entries as asked for, and returns only when the store has them all."""
    made, entries = filled
    assert made == len(entries)
    assert abs(made - EVENTS) <= EVENTS // 10


def test_every_action_occurs(filled: Filled) -> None:
    """The entries have all 31 actions of the catalogue, and none besides."""
    assert len(ACTIONS) == 31
    assert {event.action for event in filled[1]} == ACTIONS


def test_entries_are_without_problems(filled: Filled) -> None:
    """Every entry is valid, and says who, from where, in which request, and to what."""
    for event in filled[1]:
        assert event.problems == ()
        assert event.user
        assert event.ip
        assert event.target
        assert event.context["request_id"]


def test_addresses_are_those_of_the_clients(filled: Filled) -> None:
    """The addresses are varied ones of the documentation networks, IPv4 and IPv6, as the trusted proxy forwarded."""
    addresses = {event.ip or "" for event in filled[1]}
    assert len([address for address in addresses if ":" in address]) >= 2
    assert len([address for address in addresses if "." in address]) >= 4
    assert {public_item(event)["ip"] for event in filled[1] if not MASKED.fullmatch(public_item(event)["ip"])} == set()


def test_failures_occur(filled: Filled) -> None:
    """Logins fail, and so do some changes, a backup and the start of a service among them."""
    failed = {event.action for event in filled[1] if event.outcome == "failure"}
    assert failed >= {"auth.login_failed", "backup.created", "service.started"}
    succeeded = {event.action for event in filled[1] if event.outcome == "success"}
    assert succeeded == ACTIONS - {"auth.login_failed"}


def test_entries_span_the_last_90_days(filled: Filled) -> None:
    """The entries are spread over 90 days that end now, and none of them is in the future."""
    times = [event.timestamp for event in filled[1]]
    now = now_ms()
    assert times == sorted(times, reverse=True)
    assert max(times) < now
    assert now - max(times) < 5 * 60_000
    assert 89 * DAY < max(times) - min(times) < 91 * DAY


def test_working_hours_are_busier() -> None:
    """Most happens in the hours of working days; weekends and nights are quiet, but not empty."""
    moments = [step.moment for step in tell(2000, datetime(2026, 11, 23, 9, 30, tzinfo=UTC))]
    weekend = sum(moment.weekday() >= 5 for moment in moments)
    working = sum(moment.weekday() < 5 and 7 <= moment.hour < 18 for moment in moments)
    assert len({moment.date() for moment in moments}) > 50
    assert 0 < weekend < len(moments) * 0.12
    assert len(moments) * 0.7 < working < len(moments)


@pytest.mark.parametrize("events", [100, 120, 600, 5000])
def test_the_story_is_the_same_whenever_it_is_told(events: int) -> None:
    """The demo tells of the same visits and deeds at any time, as many as asked for, in the order of time."""
    told = [
        list(tell(events, now)) for now in (datetime(2026, 11, 23, 9, tzinfo=UTC), datetime(2027, 2, 28, tzinfo=UTC))
    ]
    first, second = (
        sorted((step.visit, step.operation.action, step.ip, step.fault or "") for step in steps) for steps in told
    )
    assert first == second
    assert len(first) == events
    for steps in told:
        assert [step.moment for step in steps] == sorted(step.moment for step in steps)


def test_secrets_are_redacted_and_names_are_of_all_scripts(filled: Filled) -> None:
    """A password given to the dashboard is nowhere in the entries, while names that are not ASCII come through."""
    relay = next(event for event in filled[1] if event.action == "system.relay_configured")
    assert relay.context["smtp_password"] == "[redacted]"
    assert relay.context["port"] in (465, 587)
    text = " ".join(f"{event.user} {event.target} {event.detail} {event.context}" for event in filled[1])
    assert "tr0ub4dor" not in text
    for name in ("müller", "Ελένη", "株式会社"):
        assert name in text


def test_names_of_all_scripts_occur_at_any_time() -> None:
    """What is drawn depends on the moment the demo ends, but not that Latin, Greek and Japanese names occur."""
    for hours in range(0, 2000, 37):
        steps = tell(EVENTS, datetime(2026, 11, 23, tzinfo=UTC) + timedelta(hours=hours))
        text = unquote(" ".join(f"{step.path} {step.body}" for step in steps))
        assert [name for name in ("Müller", "Ελένη", "株式会社") if name not in text] == []


def test_structlog_stays_as_configured(tmp_path: Path) -> None:
    """The dashboard logs by a logger of its own: structlog's configuration is the caller's before and after."""
    structlog.configure(processors=[], cache_logger_on_first_use=False)
    try:
        before = structlog.get_config()
        demo.fill(settings_in(tmp_path), 100)
        assert structlog.get_config() == before
    finally:
        structlog.reset_defaults()


def test_a_route_that_leaves_no_entry_fails_the_demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a change of the dashboard leaves no entry, the demo fails and names the route."""
    silent = [
        replace(operation, action="alias.made") if operation.action == "alias.created" else operation
        for operation in OPERATIONS
    ]
    monkeypatch.setattr("audit_pipeline.demo_story.OPERATIONS", tuple(silent))
    monkeypatch.setattr(demo, "OPERATIONS", tuple(silent))
    with pytest.raises(AuditError, match=r"left no entry: POST /aliases$"):
        demo.fill(settings_in(tmp_path), 100)


def test_an_action_that_never_occurs_fails_the_demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where one of the actions does not occur, the demo fails and names it."""
    told = [operation for operation in OPERATIONS if operation.action != "queue.cleared"]
    monkeypatch.setattr("audit_pipeline.demo_story.OPERATIONS", tuple(told))
    with pytest.raises(AuditError, match=r"never occurred: queue\.cleared;"):
        demo.fill(settings_in(tmp_path), 100)


def test_a_request_that_goes_wrong_fails_the_demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the dashboard answers other than the story has it, the demo fails and names the request."""
    monkeypatch.setattr(demo, "OPERATIONS", OPERATIONS[1:])  # the route is missing, the story has it
    with pytest.raises(AuditError, match=r"^POST /domains answered 404$"):
        demo.fill(settings_in(tmp_path), 100)


def test_a_store_that_takes_nothing_fails_the_demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where entries stay in the spool, the demo fails and says how many, rather than show a part."""
    monkeypatch.setattr(AuditPipeline, "flush", lambda self, timeout: False)
    with pytest.raises(AuditError, match="the store did not take"):
        demo.fill(settings_in(tmp_path), 100)


def test_the_command_serves_what_it_recorded(tmp_path: Path) -> None:
    """`audit-pipeline demo` prints a link; its token opens the API, and its address is the viewer's page."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AUDIT_")}
    command = [str(Path(sys.executable).with_name("audit-pipeline")), "demo", "--port", "0", "--events", str(EVENTS)]
    with (
        (tmp_path / "stderr").open("w+") as errors,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True, env=environment) as process,
    ):
        try:
            assert process.stdout is not None
            link = urlsplit(process.stdout.readline().strip())
            assert link.fragment.startswith("token="), (tmp_path / "stderr").read_text()
            headers = {"Authorization": "Bearer " + link.fragment.removeprefix("token=")}
            with httpx.Client(base_url=f"http://{link.netloc}", trust_env=False, timeout=30) as client:
                assert client.get("/v1/events").status_code == 401
                answer = client.get("/v1/events", headers=headers, params={"page_size": 100}).json()
                page = client.get("/")
                parts = [client.get(part) for part in re.findall(r'(?:href|src)="([^"]+)"', page.text)]
        finally:
            process.terminate()
            process.wait(30)
    times = [item["timestamp"] for item in answer["items"]]
    assert abs(answer["total"] - EVENTS) <= EVENTS // 10
    assert len(times) == 100
    assert times == sorted(times, reverse=True)
    assert times[0] > time.strftime("%Y-%m-%dT%H:%M", time.gmtime(time.time() - 600))
    assert [item["ip"] for item in answer["items"] if not MASKED.fullmatch(item["ip"])] == []
    assert page.headers["content-type"].startswith("text/html")
    assert {part.status_code for part in parts} == {200}
    assert {part.headers["content-type"].partition(";")[0] for part in parts} == {
        "image/svg+xml",
        "text/css",
        "text/javascript",
    }
