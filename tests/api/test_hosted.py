"""The API inside somebody else's application, which says who is asking."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Annotated, Any

import anyio
import httpx
import pytest
from audit_pipeline.api import Caller, create_subapp
from audit_pipeline.api.edge import MAX_TARGET
from fastapi import FastAPI, Header, HTTPException

from audit_pipeline import AuditPipeline, SettingsError
from audit_pipeline.settings import Settings

from .conftest import API, check_problem

README = Path(__file__).parent.parent.parent / "README.md"
ALL = frozenset({"audit:read", "audit:export", "audit:write"})
LATER = int(time.time()) + 86_400
PEOPLE = {
    "alice": Caller("alice", "acme", ALL, "business", LATER),
    "bob": Caller("bob", "other", ALL, "business", LATER),
    "carol": Caller("carol", "acme", frozenset({"audit:write"}), "business", LATER),
    "dave": Caller("dave", "acme", ALL, "free", LATER),
}


def who(x_user: Annotated[str, Header()]) -> Caller:
    """An application's own dependency."""
    if x_user not in PEOPLE:
        raise HTTPException(401, "Sign in first", {"WWW-Authenticate": "Session"})
    return PEOPLE[x_user]


class Hosted(API):
    """An application with the API under a path of its own."""

    def __init__(self, pipeline: AuditPipeline, app: FastAPI | None = None) -> None:
        self.pipeline = pipeline
        self.app = app or FastAPI()
        self.settings = Settings()
        if app is None:
            self.app.mount("/admin/audit", create_subapp(pipeline=pipeline, caller=who))

    def ask(self, path: str, user: str | None = "alice", method: str = "GET", **more: Any) -> httpx.Response:
        """The answer to a user of the application."""
        headers = dict(more.pop("headers", {})) | ({} if user is None else {"x-user": user})
        return self.request(method, path, token=None, headers=headers, **more)


@pytest.fixture
def hosted(api: API) -> Hosted:
    """The application, over each store."""
    return Hosted(api.pipeline)


def test_a_user_of_the_application_reads_exports_and_records(hosted: Hosted) -> None:
    """Every call works under the application's path, for the organisation that it names."""
    recorded = hosted.ask("/admin/audit/v1/events", method="POST", json=[{"action": "domain.created"}] * 12)
    assert recorded.status_code == 202
    hosted.stored()
    page = hosted.ask("/admin/audit/v1/events", params={"page_size": 10}).json()
    rest = hosted.ask("/admin/audit/v1/events", params={"page_size": 10, "cursor": page["next"]}).json()
    shown = [item["id"] for item in (*page["items"], *rest["items"])]
    assert sorted(shown) == sorted(recorded.json()["ids"])
    assert hosted.ask(f"/admin/audit/v1/events/{shown[0]}").json()["id"] == shown[0]
    assert hosted.ask("/admin/audit/v1/events/export.csv").headers["x-total-count"] == "12"
    hosted.stored()
    exported = hosted.ask("/admin/audit/v1/events", params={"action": "audit.exported"}).json()["items"]
    assert [(item["user"], item["ip"]) for item in exported] == [("alice", "127.0.0.xxx")]
    assert hosted.ask("/admin/audit/v1/events/histogram").status_code == 200
    assert hosted.ask("/admin/audit/v1/actions").status_code == 200
    assert hosted.ask("/admin/audit/v1/events", "bob").json()["total"] == 0
    check_problem(hosted.ask(f"/admin/audit/v1/events/{shown[0]}", "bob"), 404, "not-found")


def test_errors_are_problems_under_the_path_too(hosted: Hosted) -> None:
    """Scopes, plans, limits, unknown paths, and what the application's own dependency refuses: each is a problem."""
    events = "/admin/audit/v1/events"
    check_problem(hosted.ask(events, "carol"), 403, "forbidden")
    check_problem(hosted.ask(events, "dave"), 403, "plan-required")
    unknown = hosted.ask(events, "mallory")
    assert check_problem(unknown, 401, "unauthorized")["detail"] == "Sign in first."
    assert unknown.headers["www-authenticate"] == "Session"
    assert check_problem(hosted.ask(events, None), 422, "invalid-query")["errors"][0]["parameter"] == "header.x-user"
    check_problem(hosted.ask(f"{events}?sort=size"), 422, "invalid-query")
    check_problem(hosted.ask(f"{events}?cursor=x"), 400, "invalid-cursor")
    check_problem(hosted.ask(f"{events}?q={'x' * MAX_TARGET}"), 414, "too-long")
    check_problem(hosted.ask("/admin/audit/nowhere"), 404, "not-found")
    check_problem(hosted.ask(events, method="DELETE"), 405, "method-not-allowed")
    check_problem(hosted.ask(events, method="POST", data={"action": "domain.created"}), 415, "unsupported-media-type")
    assert hosted.ask(events, headers={"x-request-id": "theirs-1"}).headers["x-request-id"] == "theirs-1"
    # The application's own answers stay as they are.
    assert hosted.ask("/nowhere").json() == {"detail": "Not Found"}
    assert "x-request-id" not in hosted.ask("/nowhere").headers


def test_a_fault_is_a_problem_under_the_path_too(hosted: Hosted, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bug of ours is answered by us, without its text; the application's handlers never see it."""

    def search(*_: object) -> None:
        raise ZeroDivisionError("/var/lib/secret.db")

    monkeypatch.setattr(hosted.pipeline.store, "search", search)
    answer = hosted.ask("/admin/audit/v1/events")
    check_problem(answer, 500, "internal-error")
    assert "secret" not in answer.text


@pytest.mark.parametrize("returned", [None, {"sub": "alice"}, "alice"])
def test_what_is_no_caller_is_a_fault_that_says_so(
    memory_api: API, caplog: pytest.LogCaptureFixture, returned: object
) -> None:
    """A dependency that forgets to raise opens nothing; the log says what it has to return."""
    app = FastAPI()
    app.mount("/audit", create_subapp(pipeline=memory_api.pipeline, caller=lambda: returned))
    check_problem(Hosted(memory_api.pipeline, app).ask("/audit/v1/events"), 500, "internal-error")
    assert f"`caller` returned {type(returned).__name__}; allowed is a Caller, or to raise" in caplog.text


def test_a_session_that_is_over_opens_nothing(memory_api: API) -> None:
    """`expires` counts for each call, as that of a token does."""
    app = FastAPI()
    late = Caller("alice", "acme", ALL, "business", int(time.time()) - 1)
    app.mount("/audit", create_subapp(pipeline=memory_api.pipeline, caller=lambda: late))
    check_problem(Hosted(memory_api.pipeline, app).ask("/audit/v1/events"), 401, "unauthorized")


def test_scopes_are_no_text() -> None:
    """In a text, `audit:read` would be found in `audit:readonly` too."""
    with pytest.raises(TypeError, match=r"^Caller: scopes is a text; allowed is a set of texts, such as \{'audit:re"):
        Caller("alice", "acme", "audit:readonly", None, 0)  # type: ignore[arg-type]


def test_a_caller_that_is_no_function_is_refused(memory_api: API) -> None:
    """It is refused at start, not with each request."""
    with pytest.raises(SettingsError, match=r"^create_subapp: caller is 'alice', of type str; allowed is a function"):
        create_subapp(pipeline=memory_api.pipeline, caller="alice")  # type: ignore[arg-type]


@pytest.mark.parametrize("path", ["/", "/healthz", "/readyz", "/metrics", "/openapi.json"])
def test_only_the_calls_and_the_viewers_files_are_there(hosted: Hosted, path: str) -> None:
    """Health, metrics and pages are the application's own affair; a bearer token of ours opens nothing."""
    check_problem(hosted.ask(f"/admin/audit{path}"), 404, "not-found")
    token = {"authorization": f"Bearer {hosted.token()}"}
    check_problem(hosted.ask("/admin/audit/v1/events", "mallory", headers=token), 401, "unauthorized")


def test_the_example_of_the_readme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The application that the README shows answers its users, and nobody else."""
    monkeypatch.chdir(tmp_path)
    (block,) = (
        text for text in re.findall(r"^```python\n(.*?)^```", README.read_text(), re.M | re.S) if "who(" in text
    )
    made: dict[str, Any] = {"__name__": "example"}
    exec(compile(block, "README.md", "exec"), made)
    with made["audit"] as pipeline:
        pipeline.record("domain.created", user="alice", ip="203.0.113.9")
        assert pipeline.flush(10)
        example = Hosted(pipeline, made["app"])
        items = example.ask("/audit/v1/events", "alice").json()["items"]
        assert [(item["action"], item["ip"]) for item in items] == [("domain.created", "203.0.113.xxx")]
        check_problem(example.ask("/audit/v1/events", None), 401, "unauthorized")
        check_problem(example.ask("/audit/v1/events", "alice", method="POST", json={}), 403, "forbidden")


def test_requests_at_once_are_told_apart(hosted: Hosted) -> None:
    """Who asks is found out for each request, however many there are at once."""
    for name, org in (("alice", "acme"), ("bob", "other")):
        hosted.record("domain.created", target=name, org=org)
    hosted.stored()
    found: list[tuple[str, list[str]]] = []

    async def ask(client: httpx.AsyncClient, name: str) -> None:
        answer = await client.get("/admin/audit/v1/events", headers={"x-user": name})
        found.append((name, [item["target"] for item in answer.json()["items"]]))

    async def all_at_once() -> None:
        transport = httpx.ASGITransport(hosted.app)
        client = httpx.AsyncClient(transport=transport, base_url="http://any.example")
        async with client, anyio.create_task_group() as group:
            for number in range(20):
                group.start_soon(ask, client, ("alice", "bob")[number % 2])

    anyio.run(all_at_once)
    assert sorted(found) == [("alice", ["alice"])] * 10 + [("bob", ["bob"])] * 10


@pytest.mark.parametrize("org", ["", "x" * 257, "\ud800", None])
def test_a_caller_has_an_organisation_of_its_own(org: Any) -> None:
    """A name that would be cut or changed on its way into an entry is refused: it could be another organisation's."""
    with pytest.raises(ValueError, match=r"Caller: org is no text of 1 to 256 characters; allowed is one, such as"):
        Caller("alice", org, ALL, "business", LATER)
