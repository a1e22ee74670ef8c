"""GET /metrics."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Sequence

import pytest
from audit_pipeline.api.deps import MAX_EXPORTS
from audit_pipeline.api.metrics import SECONDS

from audit_pipeline import AuditPipeline, StoreUnavailable
from audit_pipeline.event import AuditEvent
from audit_pipeline.settings import Settings
from audit_pipeline.stores import Snapshot, open_store

from .conftest import API, SECRET, check_problem

FAR = "203.0.113.9"


def samples(api: API) -> dict[str, float]:
    """All samples, each by its name and labels; the text keeps to the format."""
    answer = api.get("/metrics", token=None)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    kinds: dict[str, str] = {}
    found: dict[str, float] = {}
    for line in answer.text.splitlines():
        if match := re.fullmatch(r"# TYPE (\w+) (counter|gauge|histogram)", line):
            assert match[1] not in kinds
            kinds[match[1]] = match[2]
            continue
        if re.fullmatch(r"# HELP \w+ [ -~]+", line):
            continue
        match = re.fullmatch(r'(\w+)(\{(?:\w+="[^"\\]*",?)+\})? (\d+(?:\.\d+)?(?:e-\d+)?)', line)
        assert match, line
        family = re.sub(r"_(bucket|sum|count)\Z", "", match[1]) if match[1] not in kinds else match[1]
        assert family in kinds, line
        assert (kinds[family] == "counter") == match[1].endswith("_total"), line
        assert match[1] + (match[2] or "") not in found
        found[match[1] + (match[2] or "")] = float(match[3])
    assert answer.text.endswith("\n")
    return found


def test_who_may_read_them(memory_api: API) -> None:
    """A token for it opens them from anywhere; without one, they are for a program on this machine alone."""
    for peer in ("127.0.0.1", "::1", "::ffff:127.0.0.1"):
        assert memory_api.get("/metrics", token=None, peer=peer).status_code == 200
        for header in ("x-forwarded-for", "forwarded", "x-real-ip"):
            answer = memory_api.get("/metrics", token=None, peer=peer, headers={header: "127.0.0.1"})
            check_problem(answer, 401, "unauthorized")
    for peer in (FAR, "10.0.0.1", None):
        check_problem(memory_api.get("/metrics", token=None, peer=peer), 401, "unauthorized")
        check_problem(memory_api.get("/metrics", peer=peer), 403, "forbidden")
        token = memory_api.token(scope="audit:metrics", plan=None)
        assert memory_api.get("/metrics", token=token, peer=peer).status_code == 200


def test_the_spool(api: API) -> None:
    """What was accepted and shipped is told as the spool knows it."""
    for _ in range(3):
        api.record("domain.created")
    api.stored()
    found = samples(api)
    assert found["audit_spool_accepted_total"] == found["audit_spool_shipped_total"] == 3
    assert found["audit_spool_pending"] == found["audit_spool_oldest_seconds"] == found["audit_spool_quarantined"] == 0
    assert found["audit_spool_bytes"] > 0
    assert found["audit_shipper_retries_total"] == 0


def test_a_store_that_is_down(monkeypatch: pytest.MonkeyPatch) -> None:
    """While the store takes nothing, what waits and how often it was tried is told; then what it refused."""
    settings = Settings(store_url="memory://", jwt_secret=SECRET)
    store = open_store("memory://")
    real, down = store.append, True

    def append(events: Sequence[AuditEvent]) -> object:
        if down:
            raise StoreUnavailable("no")
        return real(events)

    monkeypatch.setattr(store, "append", append)
    with AuditPipeline.open(store, settings=settings) as pipeline:
        api = API(settings, pipeline)
        event_id = api.record("domain.created")
        api.record("domain.deleted", id=event_id)
        end = time.monotonic() + 10
        while not (found := samples(api))["audit_shipper_retries_total"]:
            assert time.monotonic() < end
        assert (found["audit_spool_pending"], found["audit_spool_shipped_total"]) == (2, 0)
        down = False
        api.stored()
        assert samples(api)["audit_spool_quarantined"] == 1


def test_answers_are_counted_by_route(memory_api: API) -> None:
    """Answers are counted under the route's template, never under a path, which may be anything."""
    for name in ("one", "two", "019ab3c0-7d1b-7c3e-9f00-3d5a0b6c1e2f"):
        memory_api.get(f"/v1/events/{name}")
    memory_api.get("/v1/events")
    memory_api.get("/v1/events?sort=size")
    memory_api.request("BREW", "/v1/events")
    memory_api.get("/viewer/icon.svg")
    memory_api.get("/viewer/secret-path")
    for path in ("/secret-path", "/wp-login.php"):
        memory_api.get(path)
    memory_api.get("/", headers={"host": "evil.example"})
    found = samples(memory_api)
    counted = {
        tuple(re.findall(r'"([^"]*)"', name)): number
        for name, number in found.items()
        if name.startswith("audit_http_requests_total")
    }
    assert counted == {
        ("/v1/events/{event_id}", "GET", "4xx"): 3,
        ("/v1/events", "GET", "2xx"): 1,
        ("/v1/events", "GET", "4xx"): 1,
        ("/v1/events", "other", "4xx"): 1,
        ("/viewer/{path:path}", "GET", "3xx"): 1,
        ("/viewer/{path:path}", "GET", "4xx"): 1,
        ("none", "GET", "4xx"): 3,
    }
    name = "audit_http_request_duration_seconds"
    bounds = [found[f'{name}_bucket{{route="/v1/events",le="{bound}"}}'] for bound in (*SECONDS, "+Inf")]
    assert bounds == sorted(bounds)
    assert bounds[-1] == found[f'{name}_count{{route="/v1/events"}}'] == 3
    assert 0 < found[f'{name}_sum{{route="/v1/events"}}'] < 60
    memory_api.get("/metrics", token=None)
    assert samples(memory_api)['audit_http_requests_total{route="/metrics",method="GET",status="2xx"}'] == 2


def test_exports_are_counted_by_how_they_ended(memory_api: API, monkeypatch: pytest.MonkeyPatch) -> None:
    """A whole file, a broken one and a refused one are three things."""
    api = memory_api
    api.record("domain.created")
    api.stored()
    api.get("/v1/events/export.csv")
    api.get("/v1/events/export.csv")

    class Broken(Snapshot):
        total = 1

        def batches(self, size: int = 1000) -> Iterator[Sequence[AuditEvent]]:
            raise StoreUnavailable("gone")
            yield []

        def close(self) -> None:
            """Holds nothing."""

    with monkeypatch.context() as patched:
        patched.setattr(api.pipeline.store, "snapshot", lambda *_, **__: Broken())
        with pytest.raises(RuntimeError):  # the transfer breaks
            api.get("/v1/events/export.csv")
    for _ in range(MAX_EXPORTS):
        api.app.state.audit.exports.take("default")
    check_problem(api.get("/v1/events/export.csv"), 429, "too-many-exports")
    found = samples(api)
    outcomes = [found[f'audit_exports_total{{outcome="{name}"}}'] for name in ("complete", "failed", "refused")]
    assert outcomes == [2, 1, 1]
