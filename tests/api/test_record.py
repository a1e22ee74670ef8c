"""POST /v1/events."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from typing import Any

import httpx
import pytest
from audit_pipeline.api.deps import MAX_BODY

from audit_pipeline.actions import catalogue
from audit_pipeline.event import now_ms, uuid7

from .conftest import API, check_problem

ID = f"{int(time.time() * 1000):012x}"
OWN_ID = f"{ID[:8]}-{ID[8:]}-7000-8000-000000000001"


def recorded(api: API, token: str = "") -> list[dict[str, Any]]:
    """What can be found, newest first."""
    api.stored()
    items: list[dict[str, Any]] = api.list(token)["items"]
    return items


def test_one_event_and_several(api: API) -> None:
    """One event or a list is answered with the ids in order, and can be found within a second."""
    one = api.post({"action": "domain.created", "target": "a", "user": "alice", "ip": "10.0.0.5"})
    assert one.status_code == 202
    (first,) = one.json()["ids"]
    several = api.post([{"action": "domain.deleted", "target": str(number)} for number in range(3)])
    ids = several.json()["ids"]
    assert api.pipeline.flush(1.0)
    found = api.list()["items"]
    assert [item["id"] for item in found] == [*reversed(ids), first]
    assert [item["target"] for item in found] == ["2", "1", "0", "a"]
    assert found[-1]["ip"] == "10.0.0.xxx"
    assert "10.0.0.5" not in one.text


def test_no_more_than_a_thousand_at_once(api: API) -> None:
    """A thousand events are taken at once; one more, or none at all, are refused whole."""
    events = [{"action": "domain.created"}] * 1000
    assert len(set(api.post(events).json()["ids"])) == 1000
    for wrong in ([*events, events[0]], []):
        body = check_problem(api.post(wrong), 422, "invalid-query")
        assert [error["parameter"] for error in body["errors"]] == ["body"]
    api.stored()
    assert api.list()["total"] == 1000


def test_one_wrong_event_refuses_all_and_each_is_named(api: API) -> None:
    """Where one event is refused none is recorded, and the answer names each wrong one."""
    events: list[Any] = [
        {"action": "domain.created"},
        {"action": "domain.craeted"},
        {"target": "no action"},
        {"action": "domain.created", "id": "1"},
        {"action": "domain.created", "org": "other"},
        "domain.created",
        {"action": ["domain.created"]},
        None,
        {"event": "domain.created"},
        {"action": "domain.created", "id": uuid7(now_ms() + 2 * 86_400_000, 5)},
        {"action": "domain.created", "id": uuid7(5, 5)},
    ]
    body = check_problem(api.post(events), 422, "invalid-query")
    named = {error["parameter"]: error["detail"] for error in body["errors"]}
    assert set(named) == {"[1].action", "[2].action", "[3].id", "[4].org", "[5]", "[6].action", "[7]", "[8].action",
                          "[9].id", "[10].id"}  # fmt: skip
    assert "domain.created" in named["[1].action"]
    assert "its key is `action`, not `event`" in named["[8].action"]
    alone = check_problem(api.post({"action": "nope"}), 422, "invalid-query")
    assert [error["parameter"] for error in alone["errors"]] == ["action"]
    assert recorded(api) == []
    assert api.pipeline.status().accepted == 0


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[", b'{"action"}', b"\xff\xfe", b'"domain.created"', b"1", b"null", b"{}", b"[" * 100_000]
)
def test_what_is_no_event_is_refused(memory_api: API, body: bytes) -> None:
    """A body that is no JSON, or no event, is 422."""
    answer = memory_api.request("POST", "/v1/events", content=body, headers={"content-type": "application/json"})
    check_problem(answer, 422, "invalid-query")
    assert recorded(memory_api) == []


@pytest.mark.parametrize(
    "place", ["action", "id", "org", "target", "user", "ip", "outcome", "timestamp", "context", "x"]
)
@pytest.mark.parametrize(
    "value", ["[" * 1000 + "]" * 1000, '{"a":' * 1000 + "1" + "}" * 1000, "NaN", "1" * 5000, "1e999"]
)
def test_odd_values_are_recorded_with_problems_or_refused(memory_api: API, place: str, value: str) -> None:
    """Deep nesting, NaN and huge numbers in any place end in an entry with problems or in 422, never in 500."""
    event = {"action": '"domain.created"'} | {place: value}
    text = "{" + ",".join(f'"{name}":{given}' for name, given in event.items()) + "}"
    answer = memory_api.request("POST", "/v1/events", content=text, headers={"content-type": "application/json"})
    assert answer.status_code in (202, 422), answer.text
    for item in recorded(memory_api):
        entry = memory_api.get(f"/v1/events/{item['id']}").json()
        kept_as_text = value.isdigit() and place in ("context", "x")
        assert kept_as_text or set(entry["problems"]) - {"user: none given", "ip: none given"}


def test_other_kinds_and_sizes_of_bodies(memory_api: API) -> None:
    """Only JSON is taken, so that no form of another site can post; and no more than fits."""
    text = json.dumps({"action": "domain.created"})
    for kind in ("text/plain", "application/x-www-form-urlencoded", "application/jsonx", ""):
        answer = memory_api.request("POST", "/v1/events", content=text, headers={"content-type": kind})
        check_problem(answer, 415, "unsupported-media-type")
    for kind in ("application/json; charset=utf-8", "Application/JSON"):
        answer = memory_api.request("POST", "/v1/events", content=text, headers={"content-type": kind})
        assert answer.status_code == 202
    huge = b'"' + b"x" * MAX_BODY
    answer = memory_api.request("POST", "/v1/events", content=huge, headers={"content-type": "application/json"})
    check_problem(answer, 413, "too-large")


def test_an_invalid_entry_is_kept_with_its_problems(api: API) -> None:
    """Flaws other than the action, the id and the organisation lose nothing."""
    (event_id,) = api.post({"action": "domain.created", "ip": "10.0.0.999", "timestamp": "soon", "port": 25}).json()[
        "ids"
    ]
    api.stored()
    entry = api.get(f"/v1/events/{event_id}").json()
    assert entry["ip"] == ""
    assert [problem.partition(":")[0] for problem in entry["problems"]] == ["ip", "timestamp", "user"]
    assert entry["context"] == {"port": 25, "given_timestamp": "soon"}


def test_the_same_id_is_the_same_entry(api: API) -> None:
    """Posted again, in one list or later, an entry of the same id stays one; of other content, the first stays."""
    event = {"action": "domain.created", "target": "first", "id": OWN_ID}
    assert api.post([event, event]).json()["ids"] == [OWN_ID, OWN_ID]
    assert api.post(event).status_code == 202
    assert api.post(event | {"target": "second"}).status_code == 202
    assert [(item["id"], item["target"]) for item in recorded(api)] == [(OWN_ID, "first")]


def test_an_id_of_another_organisation_can_be_neither_taken_nor_probed(api: API) -> None:
    """An id that another organisation uses is free for us: each has its own entry, and neither hears of the other."""
    theirs = api.token(org="other")
    api.post({"action": "domain.created", "target": "theirs", "id": OWN_ID}, token=theirs)
    api.stored()
    mine = api.post({"action": "domain.deleted", "target": "mine", "id": OWN_ID})
    assert (mine.status_code, mine.json()) == (202, {"ids": [OWN_ID]})
    assert [item["target"] for item in recorded(api)] == ["mine"]
    assert [item["target"] for item in recorded(api, theirs)] == ["theirs"]
    assert api.get(f"/v1/events/{OWN_ID}").json()["target"] == "mine"
    assert api.pipeline.status().quarantined == 0


def test_the_organisation_is_that_of_the_token(api: API) -> None:
    """An event may name the token's organisation, and no other."""
    token = api.token(org="acme")
    assert api.post({"action": "domain.created", "org": "acme"}, token=token).status_code == 202
    check_problem(api.post({"action": "domain.created", "org": "default"}, token=token), 422, "invalid-query")
    assert len(recorded(api, token)) == 1
    assert recorded(api) == []


def test_each_action_of_the_catalogue_can_be_posted(memory_api: API) -> None:
    """Every action there is can be recorded over HTTP."""
    assert memory_api.post([{"action": action.id} for action in catalogue]).status_code == 202
    assert {item["action"] for item in (memory_api.stored(), memory_api.list(page_size=50))[1]["items"]} == {
        action.id for action in catalogue
    }


@pytest.mark.parametrize(
    ("method", "path"),
    [("search", "/v1/events"), ("snapshot", "/v1/events/export.csv"), ("check", "/readyz")],
)
def test_a_store_that_takes_long_holds_up_no_recording(
    memory_api: API, monkeypatch: pytest.MonkeyPatch, method: str, path: str
) -> None:
    """However many searches, exports or probes wait for the store, an entry is recorded; and a probe is answered."""
    asked = getattr(memory_api.pipeline.store, method)
    answered = threading.Event()
    monkeypatch.setattr("audit_pipeline.api.deps.MAX_EXPORTS", 100)
    memory_api = memory_api.with_settings()

    def slow(*given: Any, **more: Any) -> Any:
        assert answered.wait(20)
        return asked(*given, **more)

    async def work() -> list[int]:
        transport = httpx.ASGITransport(memory_api.app, client=("127.0.0.1", 40_000))
        bearer = {"authorization": f"Bearer {memory_api.token()}"}
        async with (
            httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000", headers=bearer) as client,
            asyncio.TaskGroup() as tasks,
        ):
            waiting = [tasks.create_task(client.get(path)) for _ in range(60)]
            try:
                await asyncio.sleep(0.1)
                recorded = await asyncio.wait_for(client.post("/v1/events", json={"action": "domain.created"}), 5)
                probed = await asyncio.wait_for(client.get("/healthz" if path == "/readyz" else "/readyz"), 5)
                assert not any(task.done() for task in waiting)
            finally:
                answered.set()
        return [recorded.status_code, probed.status_code, *{task.result().status_code for task in waiting}]

    monkeypatch.setattr(memory_api.pipeline.store, method, slow)
    assert asyncio.run(work()) == [202, 200, 200]
