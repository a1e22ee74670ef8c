"""GET /v1/events, /v1/events/{id}, /v1/actions, and the shape of every error."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from audit_pipeline import StoreUnavailable
from audit_pipeline.actions import catalogue

from .conftest import API, check_problem

NOON = datetime.now(UTC).replace(hour=12, minute=0, second=0, microsecond=0) - timedelta(days=20)


def day(number: int) -> str:
    """The date of a day of the story."""
    return f"{NOON + timedelta(days=number):%Y-%m-%d}"


@pytest.fixture
def story(api: API) -> API:
    """Six entries on six days, at noon, and one of another organisation."""
    entries: list[tuple[str, str, str, str, dict[str, Any]]] = [
        ("domain.created", "example.com", "alice@example.com", "192.168.1.77", {"detail": "DKIM enabled"}),
        ("domain.deleted", "example.org", "bob@example.com", "192.168.2.9", {}),
        ("user.created", "carol", "alice@example.com", "2001:db8::1", {"detail": "by invitation"}),
        ("auth.login_failed", "", "mallory", "192.168.1.3", {}),
        ("queue.flushed", "mail.example.com", "bob@example.com", "10.0.0.5", {"outcome": "failure"}),
        ("user.deleted", "carol", "alice@example.com", "", {}),
    ]
    for number, (action, target, user, ip, more) in enumerate(entries):
        api.record(action, target=target, user=user, ip=ip, timestamp=NOON + timedelta(days=number), **more)
    api.record("domain.created", target="theirs.example", user="eve", ip="192.168.1.8", org="other")
    api.stored()
    return api


def days(found: dict[str, Any]) -> list[int]:
    """Which days of the story a page shows."""
    return [(datetime.fromisoformat(item["timestamp"]) - NOON).days for item in found["items"]]


def test_an_item_has_exactly_the_fields_of_the_interface_and_a_masked_address(story: API) -> None:
    """An item has the fields that are promised, and no more; its address is masked."""
    item = story.list(q="example.com", action="domain.created")["items"][0]
    assert re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", item.pop("id"))
    assert item == {
        "timestamp": f"{day(0)}T12:00:00.000Z",
        "action": "domain.created",
        "label": "Domain created",
        "category": "domains",
        "tone": "green",
        "target": "example.com",
        "detail": "DKIM enabled",
        "user": "alice@example.com",
        "ip": "192.168.1.xxx",
        "outcome": "success",
    }


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ({}, [5, 4, 3, 2, 1, 0]),
        ({"q": "carol -invitation"}, [5]),
        ({"q": '"login failed"'}, [3]),
        ({"action": ["domain.created", "queue.flushed"]}, [4, 0]),
        ({"category": ["users", "auth"]}, [5, 3, 2]),
        ({"from_": day(4)}, [5, 4]),
        ({"to": day(1)}, [1, 0]),
        ({"to": f"{day(1)}T12:00:00Z"}, [0]),
        ({"from_": f"{day(1)}T12:00:00Z", "to": f"{day(2)}T12:00:00.001Z"}, [2, 1]),
        # At noon in UTC the next day has begun in Kiribati, and ended nowhere.
        ({"from_": day(5), "tz": "Pacific/Kiritimati"}, [5, 4]),
        ({"user": "bob@example.com"}, [4, 1]),
        ({"user": "bob"}, []),
        ({"outcome": "failure"}, [4, 3]),
        ({"ip": "192.168.0.0/16"}, [3, 1, 0]),
        ({"ip": "192.168.1.xxx"}, [3, 0]),
        ({"ip": "2001:db8::/32"}, [2]),
        ({"q": "", "action": "", "from_": "", "user": ""}, [5, 4, 3, 2, 1, 0]),
        ({"sort": "timestamp"}, [0, 1, 2, 3, 4, 5]),
        ({"sort": "action"}, [3, 0, 1, 4, 2, 5]),
        ({"sort": "-action"}, [5, 2, 4, 1, 0, 3]),
    ],
)
def test_each_filter_and_order(story: API, parameters: dict[str, Any], expected: list[int]) -> None:
    """Each filter keeps its entries only, the total counts them, and each order is kept."""
    found = story.list(**parameters)
    assert days(found) == expected
    assert found["total"] == len(expected)


def test_a_page_tells_how_many_rows_an_export_may_have(api: API) -> None:
    """Each page has the row limit of exports, so that a viewer can say before one what it will leave out."""
    assert api.get("/v1/events").headers["x-row-limit"] == "50000"
    assert api.with_settings(export_limit=7).get("/v1/events").headers["x-row-limit"] == "7"


def test_all_filters_hold_together(story: API) -> None:
    """All filters at once find what matches every one of them."""
    every = {
        "q": "exam",
        "action": ["domain.created", "domain.deleted"],
        "category": "domains",
        "from_": day(0),
        "to": day(1),
        "tz": "Europe/Berlin",
        "user": "alice@example.com",
        "outcome": "success",
        "ip": "192.168.0.0/16",
        "sort": "timestamp",
        "page_size": 10,
        "page": 1,
    }
    assert days(story.list(**every)) == [0]
    assert story.list(**every | {"user": "bob@example.com"})["total"] == 1
    assert story.list(**every | {"outcome": "failure"})["total"] == 0


def test_another_organisation_sees_its_own_only(story: API) -> None:
    """Entries, totals and ids belong to one organisation; an id of another is as unknown as any."""
    theirs = story.list(story.token(org="other"))
    assert [item["target"] for item in theirs["items"]] == ["theirs.example"]
    assert theirs["total"] == 1
    path = f"/v1/events/{theirs['items'][0]['id']}"
    assert story.get(path, token=story.token(org="other")).status_code == 200
    hidden = check_problem(story.get(path), 404, "not-found")
    unknown = check_problem(story.get("/v1/events/019ab3c0-7d1b-7c3e-9f00-3d5a0b6c1e2f"), 404, "not-found")
    assert hidden["detail"] == unknown["detail"]


def test_an_empty_log(api: API) -> None:
    """Before the first entry there is a first page, without entries."""
    assert api.list() == {
        "items": [], "total": 0, "page": 1, "page_size": 25, "pages": 0, "next": None, "previous": None,
    }  # fmt: skip


# Pages


@pytest.fixture
def sixty(api: API) -> API:
    """Sixty entries, numbered in their order of time."""
    for number in range(60):
        api.record("user.created", target=str(number), timestamp=NOON + timedelta(minutes=number))
    api.stored()
    return api


def targets(found: dict[str, Any]) -> list[int]:
    """The numbers of a page's entries."""
    return [int(item["target"]) for item in found["items"]]


def test_a_walk_forward_and_back(sixty: API) -> None:
    """Following `next` shows each entry once, `previous` leads back the same way, and pages keep their numbers."""
    there = [sixty.list()]
    while there[-1]["next"]:
        there.append(sixty.list(cursor=there[-1]["next"]))
    assert [targets(page) for page in there] == [
        list(range(59, 34, -1)), list(range(34, 9, -1)), list(range(9, -1, -1)),
    ]  # fmt: skip
    assert [(page["page"], page["pages"], page["total"]) for page in there] == [(1, 3, 60), (2, 3, 60), (3, 3, 60)]
    assert there[0]["previous"] is None
    back = [there[-1]]
    while back[-1]["previous"]:
        back.append(sixty.list(cursor=back[-1]["previous"]))
    assert [targets(page) for page in back] == [targets(page) for page in reversed(there)]
    assert [page["page"] for page in back] == [3, 2, 1]


def test_a_page_by_number_and_on_from_there(sixty: API) -> None:
    """`page` jumps, a cursor goes on from there, and its page size may be another one."""
    second = sixty.list(page=2, page_size=10, sort="timestamp")
    assert targets(second) == list(range(10, 20))
    assert (second["page"], second["pages"], second["page_size"]) == (2, 6, 10)
    third = sixty.list(cursor=second["next"], page_size=50, sort="timestamp")
    assert targets(third) == list(range(20, 60))
    assert third["next"] is None


@pytest.mark.parametrize("page", [4, 10**9, 10**15])
def test_a_page_past_the_end_is_empty(sixty: API, page: int) -> None:
    """Past the end there is nothing, and no error; the total is still told."""
    found = sixty.list(page=page)
    assert (found["items"], found["total"], found["page"], found["pages"]) == ([], 60, page, 3)
    assert found["next"] is found["previous"] is None
    assert sixty.list(page="9" * 5000)["items"] == []


def test_a_walk_while_others_write(sixty: API) -> None:
    """Entries written during a walk neither repeat nor hide those that were there when it began."""
    seen, page = [], sixty.list(page_size=10)
    while True:
        seen += targets(page)
        if not page["next"]:
            break
        for moment in (NOON + timedelta(minutes=55, seconds=len(seen)), NOON + timedelta(days=1)):
            sixty.record("user.created", target="1000", timestamp=moment)
        sixty.stored()
        page = sixty.list(page_size=10, cursor=page["next"])
    assert [number for number in seen if number < 1000] == list(range(59, -1, -1))
    assert page["total"] == 60 + 2 * 5


def test_cursors_serve_one_query_of_one_organisation(sixty: API) -> None:
    """A cursor that was altered, made up, or made for another query or organisation is refused."""
    cursor = sixty.list(sort="timestamp")["next"]
    body, _, signature = cursor.partition(".")
    swapped = body[:-1] + ("A" if body[-1] != "A" else "B")
    for wrong in ("x", "é.ü", "..", cursor + "A", f"{swapped}.{signature}", f"{body}.", f"{body}.{signature[::-1]}"):
        answer = sixty.get("/v1/events", params={"sort": "timestamp", "cursor": wrong})
        check_problem(answer, 400, "invalid-cursor")
    check_problem(sixty.get("/v1/events", params={"cursor": cursor}), 400, "invalid-cursor")
    asked = {"sort": "timestamp", "cursor": cursor}
    check_problem(sixty.get("/v1/events", params=asked, token=sixty.token(org="other")), 400, "invalid-cursor")
    assert sixty.get("/v1/events", params=asked).status_code == 200


def test_a_page_after_a_cursor_has_the_number_that_fits_its_size(sixty: API) -> None:
    """With another page size, a page that begins within a numbered one is the next one, and the last one the last."""
    asked: dict[str, Any] = {"sort": "timestamp"}
    first = sixty.list(page_size=10, **asked)
    second = sixty.list(page_size=10, cursor=first["next"], **asked)
    longer = sixty.list(page_size=50, cursor=second["next"], **asked)
    assert (longer["page"], longer["pages"], len(longer["items"])) == (2, 2, 40)
    assert longer["previous"]
    shorter = sixty.list(page_size=25, cursor=first["next"], **asked)
    assert (shorter["page"], shorter["pages"]) == (2, 3)
    following = sixty.list(page_size=25, cursor=shorter["next"], **asked)
    assert (following["page"], following["pages"], len(following["items"])) == (3, 3, 25)
    assert sixty.list(page_size=100, cursor=first["next"], **asked)["page"] == 1
    assert sixty.list(page_size=10, page=99, **asked)["page"] == 99


# One entry, the catalogue, and the state


def test_one_entry_has_its_context_and_problems(api: API) -> None:
    """One entry alone shows all that may be seen of it, with secrets and its address hidden."""
    given = {"target": "seen from 10.0.0.5", "ip": "10.0.0.5", "port": 25, "password": "hunter2", "outcome": "perhaps"}
    event_id = api.record("settings.updated", user="alice", **given)
    api.stored()
    answer = api.get(f"/v1/events/{event_id}")
    assert answer.status_code == 200
    body = answer.json()
    listed = api.list()["items"][0]
    assert {name: body.pop(name) for name in listed} == listed
    assert body.pop("received").endswith("Z")
    assert body == {
        "context": {"port": 25, "password": "[redacted]", "given_outcome": "perhaps"},
        "problems": ["outcome: allowed are success and failure; taken as success"],
    }
    assert "10.0.0.5" not in answer.text


@pytest.mark.parametrize("wrong", ["x", "%00", "019AB3C0-7D1B-7C3E-9F00-3D5A0B6C1E2F", "first"])
def test_an_id_that_is_none_is_unknown(api: API, wrong: str) -> None:
    """What cannot be an id is answered like an unknown one."""
    check_problem(api.get(f"/v1/events/{wrong}"), 404, "not-found")


def test_the_catalogue_in_its_order(memory_api: API) -> None:
    """/v1/actions has every category and action in the order of the interface, and nothing else about them."""
    categories = memory_api.get("/v1/actions").json()["categories"]
    assert [category["id"] for category in categories][:11] == [
        "domains", "users", "aliases", "dkim", "services", "queue", "backups", "accounts", "auth", "settings", "system",
    ]  # fmt: skip
    assert categories[8]["label"] == "Authentication"
    assert categories[8]["actions"][1] == {"id": "auth.login_failed", "label": "Login failed", "tone": "red"}
    listed = {action["id"] for category in categories for action in category["actions"]}
    assert listed == {action.id for action in catalogue}


def test_health_and_readiness_need_no_token(api: API) -> None:
    """Both say one word to anyone."""
    assert api.get("/healthz", token=None).json() == {"status": "ok"}
    assert api.get("/readyz", token=None).json() == {"status": "ready"}


def test_load_balancers_may_ask_without_wanting_a_body(api: API, monkeypatch: pytest.MonkeyPatch) -> None:
    """HEAD has the status and the headers of GET, ready or not, and nothing after them."""

    def same() -> int:
        for path in ("/healthz", "/readyz"):
            get, head = api.get(path, token=None), api.request("HEAD", path, token=None)
            assert head.content == b""
            assert head.status_code == get.status_code
            assert {**head.headers, "x-request-id": ""} == {**get.headers, "x-request-id": ""}
        return get.status_code

    def down(*_: object) -> None:
        raise StoreUnavailable("it is down")

    assert same() == 200
    monkeypatch.setattr(api.pipeline.store, "check", down)
    assert same() == 503


# Errors


def test_every_wrong_parameter_is_named(memory_api: API) -> None:
    """One answer names all that is wrong, filters and page alike."""
    wrong = {
        "q": "x" * 257, "action": ["nope", "domain.created"], "category": "nope", "from": "yesterday",
        "to": "2026-13-01", "tz": "Mars/Olympus", "user": ["a", "b"], "outcome": "maybe", "ip": "10.0.0.5",
        "sort": "size", "page_size": "7", "page": "0", "colour": "red",
    }  # fmt: skip
    body = check_problem(memory_api.get("/v1/events", params=wrong), 422, "invalid-query")
    assert {error["parameter"] for error in body["errors"]} == set(wrong)
    assert all(error["detail"] for error in body["errors"])


@pytest.mark.parametrize(
    ("parameters", "named"),
    [
        ({"from": day(2), "to": day(1)}, "from"),
        ({"ip": "192.168.1.0/25"}, "ip"),
        ({"ip": "2001:db8::/113"}, "ip"),
        ({"page": "2", "cursor": "x"}, "page"),
        ({"page": "-" + "9" * 5000}, "page"),
        ({"q": " ".join("abcdefghijklmnopq")}, "q"),
    ],
)
def test_a_wrong_parameter(memory_api: API, parameters: dict[str, str], named: str) -> None:
    """What is not allowed is 422, and named; nothing finer than the mask can be asked for."""
    body = check_problem(memory_api.get("/v1/events", params=parameters), 422, "invalid-query")
    assert [error["parameter"] for error in body["errors"]] == [named]


def test_unknown_paths_and_methods_are_problems_too(memory_api: API) -> None:
    """A path or a method that is not there is answered as a problem."""
    check_problem(memory_api.get("/v2/events"), 404, "not-found")
    check_problem(memory_api.get("/v1/events/"), 404, "not-found")
    answer = memory_api.request("DELETE", "/v1/events")
    check_problem(answer, 405, "method-not-allowed")
    assert "GET" in answer.headers["allow"]


def test_an_unforeseen_error_says_nothing_but_its_request(
    memory_api: API, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A bug is answered with 500 and a request id, under which its cause is logged, and with no text of it."""

    def search(*_: object) -> None:
        raise ZeroDivisionError("/var/lib/secret.db")

    monkeypatch.setattr(memory_api.pipeline.store, "search", search)
    answer = memory_api.get("/v1/events")
    body = check_problem(answer, 500, "internal-error")
    assert "secret" not in answer.text
    assert "ZeroDivision" not in answer.text
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert body["request_id"] in caplog.text
    assert "ZeroDivisionError" in caplog.text


def test_each_answer_has_a_request_id(memory_api: API) -> None:
    """A request keeps the id it came with where that is a plain one; each other gets its own."""
    assert memory_api.get("/healthz", headers={"x-request-id": "abc-1"}).headers["x-request-id"] == "abc-1"
    for given in ("a b", "x" * 129, "<script>", ""):
        made = [memory_api.get("/v1/events", headers={"x-request-id": given}).headers["x-request-id"] for _ in "ab"]
        assert made[0] != made[1]
        assert given not in made
