"""AuditMiddleware: who and where for each request, and changes that left no entry."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from functools import partial
from types import SimpleNamespace
from typing import Any

import anyio
import httpx
import pytest
import structlog
from fastapi import APIRouter, BackgroundTasks, FastAPI, Request
from fastapi.responses import JSONResponse
from starlette.applications import Starlette
from starlette.authentication import UnauthenticatedUser
from starlette.background import BackgroundTask
from starlette.requests import Request as StarletteRequest
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

from audit_pipeline import AuditEvent, AuditMiddleware, SettingsError, bind_actor
from audit_pipeline.context import current_actor, unaudited
from audit_pipeline.integrations.asgi import MOST_PLACES, OTHERS
from audit_pipeline.testing import AuditLog, audit_log

PROXIES = ("10.0.0.0/8", "fd00::/8", "192.0.2.1")


def ask(
    app: Any, method: str, path: str, *, client: tuple[str, int] | None = ("203.0.113.9", 4711), headers: Any = ()
) -> httpx.Response:
    """One request to an application, from a peer."""

    async def send() -> httpx.Response:
        async def from_peer(scope: Any, receive: Any, send: Any) -> None:
            await app(scope | {"client": client}, receive, send)

        transport = httpx.ASGITransport(from_peer, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
            return await http.request(method, path, headers=headers)

    return anyio.run(send)


@pytest.fixture
def log() -> Iterator[AuditLog]:
    """The entries of an application; requests without one are looked at by each test."""
    with audit_log(on_invalid="record") as made:
        yield made
        unaudited.clear()  # what a test does not mind is no failure at its end


def recording(log: AuditLog, **options: Any) -> Any:
    """An application with one endpoint, which leaves one entry."""

    async def endpoint(request: StarletteRequest) -> PlainTextResponse:
        request.state.user = SimpleNamespace(email="late@example.com")
        log.pipeline.record("domain.created", target="x")
        return PlainTextResponse("done")

    return AuditMiddleware(Starlette(routes=[Route("/", endpoint, methods=["POST"])]), **options)


def entry(log: AuditLog, app: Any, **request: Any) -> AuditEvent:
    """The entry that a request leaves."""
    assert ask(app, "POST", "/", **request).status_code == 200
    return log.entries[-1]


# Where


@pytest.mark.parametrize(
    ("peer", "forwarded", "expected"),
    [
        ("203.0.113.9", [], "203.0.113.9"),
        ("::ffff:203.0.113.9", [], "203.0.113.9"),
        ("fe80::1%eth0", [], "fe80::1"),
        # Not from a trusted peer: what it forwards counts for nothing.
        ("203.0.113.9", ["198.51.100.7"], "203.0.113.9"),
        # From a trusted one: the right-most hop that is no proxy; what stands before it may be made up.
        ("10.0.0.1", ["198.51.100.7"], "198.51.100.7"),
        ("10.0.0.1", ["1.1.1.1, 198.51.100.7"], "198.51.100.7"),
        ("10.0.0.1", ["1.1.1.1, 198.51.100.7, 10.2.2.2, 192.0.2.1"], "198.51.100.7"),
        ("10.0.0.1", ["1.1.1.1", "198.51.100.7", "10.2.2.2"], "198.51.100.7"),
        ("10.0.0.1", ["10.9.9.9, , ,198.51.100.7,,"], "198.51.100.7"),
        ("::ffff:10.0.0.1", ["198.51.100.7"], "198.51.100.7"),
        ("10.0.0.1", ["198.51.100.7:4711"], "198.51.100.7"),
        ("10.0.0.1", ["[2001:db8::7]:4711"], "2001:db8::7"),
        ("10.0.0.1", ["[2001:db8::7]"], "2001:db8::7"),
        ("10.0.0.1", ["2001:db8::7"], "2001:db8::7"),
        ("fd00::1", ["2001:db8::7, fd00::2, [fd00::3]:80, 10.0.0.2:8080"], "2001:db8::7"),
        ("10.0.0.1", ["10.3.3.3, 10.2.2.2"], "10.3.3.3"),
        ("10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.1", [""], "10.0.0.1"),
        # A hop that is no address hides who was before it: none is better than a made up one.
        ("10.0.0.1", ["198.51.100.7, unknown"], None),
        ("10.0.0.1", ["198.51.100.7, <script>, 10.2.2.2"], None),
        ("10.0.0.1", ["198.51.100.7:99:99"], None),
        ("unix:", [], None),
        (None, ["198.51.100.7"], None),
    ],
)
def test_the_address_of_the_client(log: AuditLog, peer: str | None, forwarded: list[str], expected: str | None) -> None:
    """The address is the peer's, or behind trusted proxies the one that the first of them saw."""
    headers = [("x-forwarded-for", line) for line in forwarded]
    client = None if peer is None else (peer, 80)
    made = entry(log, recording(log, trusted_proxies=PROXIES), client=client, headers=headers)
    assert made.ip == expected
    assert any(problem.startswith("ip: ") for problem in made.problems) == (expected is None)


def test_trusted_proxies_come_from_the_environment(log: AuditLog, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an argument, AUDIT_TRUSTED_PROXIES says whom to believe; what is wrong there stops the start."""
    monkeypatch.setenv("AUDIT_TRUSTED_PROXIES", "203.0.113.0/24")
    assert entry(log, recording(log), headers={"x-forwarded-for": "198.51.100.7"}).ip == "198.51.100.7"
    assert entry(log, recording(log, trusted_proxies=[]), headers={"x-forwarded-for": "1.1.1.1"}).ip == "203.0.113.9"
    for wrong in (["proxy.example"], "10.0.0.0/8,proxy.example"):
        with pytest.raises(SettingsError, match=r"AUDIT_TRUSTED_PROXIES: '(10\.0\.0\.0/8,)?proxy\.example' is no list"):
            recording(log, trusted_proxies=wrong)


@pytest.mark.parametrize("proxies", ["203.0.113.0/24", "10.0.0.0/8, 203.0.113.0/24"])
def test_one_text_is_a_list_of_proxies(log: AuditLog, proxies: str) -> None:
    """As the setting is, and not a list of letters."""
    made = entry(log, recording(log, trusted_proxies=proxies), headers={"x-forwarded-for": "198.51.100.7"})
    assert made.ip == "198.51.100.7"


def test_request_id_and_user_agent_are_in_the_context(log: AuditLog) -> None:
    """An entry has the request's id, as given where that is a plain one, and the client's name."""
    given = entry(log, recording(log), headers={"x-request-id": "abc-1", "user-agent": "curl/8"})
    assert given.context == {"request_id": "abc-1", "user_agent": "curl/8"}
    made = [entry(log, recording(log), headers={"x-request-id": "a b"}).context["request_id"] for _ in "ab"]
    assert made[0] != made[1]
    assert "a b" not in made


def test_the_address_is_in_no_ordinary_log_line(log: AuditLog) -> None:
    """What the middleware binds does not reach other log lines of the request, nor those after it."""
    lines: list[Any] = []

    def keep(_: Any, __: str, event: Any) -> Any:
        lines.append(dict(event))
        raise structlog.DropEvent

    plain = structlog.wrap_logger(None, processors=[structlog.contextvars.merge_contextvars, keep])

    async def endpoint(request: StarletteRequest) -> PlainTextResponse:
        plain.info("an ordinary line")
        log.pipeline.record("domain.created")
        return PlainTextResponse("done")

    app = AuditMiddleware(Starlette(routes=[Route("/", endpoint, methods=["POST"])]))
    ask(app, "POST", "/", headers={"user-agent": "curl/8"})
    assert lines == [{"event": "an ordinary line"}]
    assert current_actor().ip is None


# Who


def with_user(log: AuditLog, user: object, place: str = "user") -> str:
    """The user of an entry, where an outer middleware set this one in the scope or in its state."""
    inner = recording_without_user(log)

    async def authenticating(scope: Any, receive: Any, send: Any) -> None:
        await inner(scope | ({"user": user} if place == "user" else {"state": {"user": user}}), receive, send)

    return entry(log, authenticating).user


def recording_without_user(log: AuditLog, **options: Any) -> Any:
    """An application whose endpoint leaves an entry, and knows no user."""

    async def endpoint(request: StarletteRequest) -> PlainTextResponse:
        log.pipeline.record("domain.created")
        return PlainTextResponse("done")

    return AuditMiddleware(Starlette(routes=[Route("/", endpoint, methods=["POST"])]), **options)


@pytest.mark.parametrize("place", ["user", "state"])
@pytest.mark.parametrize(
    ("user", "expected"),
    [
        ("alice", "alice"),
        (SimpleNamespace(email="a@example.com", username="a", id=7), "a@example.com"),
        (SimpleNamespace(username="a", email=None), "a"),
        (SimpleNamespace(display_name="Alice", is_authenticated=True), "Alice"),
        (SimpleNamespace(id=7), "7"),
        ({"sub": "a", "password_hash": "$2b$"}, "a"),
        # Never the text form of a whole object.
        (SimpleNamespace(login="a", password_hash="$2b$"), ""),
        ({"password_hash": "$2b$"}, ""),
        (SimpleNamespace(is_authenticated=False, display_name="anonymous"), ""),
        (None, ""),
    ],
)
def test_the_user_of_the_scope_or_the_state(log: AuditLog, user: object, expected: str, place: str) -> None:
    """The user is what Starlette's authentication set, or `request.state.user`, by its name; nobody is nobody."""
    assert with_user(log, user, place) == expected


def test_nobody_in_the_scope_does_not_hide_the_user_of_the_state(log: AuditLog) -> None:
    """Starlette's authentication sets someone also where it knows nobody; a login dependency may know who it is."""
    inner = recording(log)  # its endpoint sets request.state.user

    async def authenticating(scope: Any, receive: Any, send: Any) -> None:
        await inner(scope | {"user": UnauthenticatedUser()}, receive, send)

    assert entry(log, authenticating).user == "late@example.com"
    assert with_user(log, UnauthenticatedUser()) == ""
    assert with_user(log, UnauthenticatedUser(), "state") == ""


@pytest.mark.parametrize("user", ["bob", "", 7, {"name": "bob"}])
def test_a_user_that_is_no_function_is_refused(log: AuditLog, user: Any) -> None:
    """It is refused at start: asked with each entry, it would leave all of them without a user."""
    with pytest.raises(SettingsError, match=r"^AuditMiddleware: user is .*; allowed is a function that is given the"):
        recording(log, user=user)


class _Asked:
    async def __call__(self, scope: Any) -> str:
        return "bob"


async def _asked(scope: Any) -> str:
    return "bob"


@pytest.mark.parametrize("user", [_asked, partial(_asked), _Asked()])
def test_an_async_function_is_refused(log: AuditLog, user: Any) -> None:
    """Nothing can be awaited in the middle of a log call: it is refused at start, and told what to do instead."""
    with pytest.raises(SettingsError, match=r"an async function; allowed is a function .* request\.state\.user$"):
        recording(log, user=user)


def test_a_user_that_has_to_be_awaited_is_none(log: AuditLog, caplog: pytest.LogCaptureFixture) -> None:
    """Where it comes out with the first entry only, the entry has no user, and the log says so, once a minute."""
    app = recording(log, user=lambda scope: _asked(scope))  # noqa: PLW0108 - that it is async cannot be seen
    for _ in range(3):
        made = entry(log, app)
        assert (made.user, made.context["user_lookup_failed"]) == ("", "TypeError")
    (warning,) = (record for record in caplog.records if "without their user" in record.message)
    assert "raised TypeError" in warning.message
    assert "allowed is a plain one" in caplog.text


def test_the_user_may_be_known_late(log: AuditLog) -> None:
    """A user that the endpoint itself finds out is in the entry that it makes then."""
    assert entry(log, recording(log)).user == "late@example.com"


def test_the_user_may_be_asked_for(log: AuditLog) -> None:
    """An application's own function is asked with the scope, when an entry is made; its failure loses no entry."""
    by_header = recording(log, user=lambda scope: dict(scope["headers"])[b"x-user"].decode())
    assert entry(log, by_header, headers={"x-user": "bob"}).user == "bob"
    failed = entry(log, by_header)
    assert (failed.user, failed.context["user_lookup_failed"]) == ("", "KeyError")


def test_what_the_application_says_itself_wins(log: AuditLog) -> None:
    """An inner `bind_actor`, and the call itself, say it better than the middleware."""

    async def endpoint(request: StarletteRequest) -> PlainTextResponse:
        with bind_actor(user="inner"):
            log.pipeline.record("domain.created")
            log.pipeline.record("domain.deleted", user="call", ip="198.51.100.7")
        return PlainTextResponse("done")

    ask(AuditMiddleware(Starlette(routes=[Route("/", endpoint, methods=["POST"])])), "POST", "/")
    assert [(one.user, one.ip) for one in log.entries] == [("inner", "203.0.113.9"), ("call", "198.51.100.7")]


def test_other_connections_pass(log: AuditLog) -> None:
    """The start and the end of an application pass through untouched."""
    seen: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["type"])

    async def run() -> None:
        await AuditMiddleware(app)({"type": "lifespan"}, None, None)  # type: ignore[arg-type]
        await AuditMiddleware(app)({"type": "websocket", "headers": [], "path": "/"}, None, None)  # type: ignore[arg-type]

    anyio.run(run)
    assert seen == ["lifespan", "websocket"]


# Completeness


def dashboard(log: AuditLog) -> FastAPI:
    """An application of FastAPI with changes that leave an entry, late or in a thread, and some that leave none."""
    app = FastAPI()
    domains = APIRouter(prefix="/domains")

    @domains.api_route("/{name}", methods=["POST", "PUT", "PATCH", "DELETE", "GET"], name="forgets")
    async def forgets(name: str) -> None: ...

    @domains.post("/{name}/thread")
    def in_thread(name: str) -> None:
        log.pipeline.record("domain.created", target=name)

    @domains.post("/{name}/later")
    async def later(name: str, tasks: BackgroundTasks) -> None:
        tasks.add_task(log.pipeline.record, "domain.created", target=name)

    @app.post("/status/{code}", name="Status of a name")
    async def answers(code: int) -> JSONResponse:
        return JSONResponse({}, code)

    @app.post("/bug")
    async def fails() -> None:
        raise ZeroDivisionError

    app.include_router(domains, prefix="/v1/{tenant}")
    mounted = FastAPI()
    mounted.include_router(domains)
    app.mount("/mounted", mounted)
    return app


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
def test_a_change_without_an_entry_is_logged_and_counted(
    log: AuditLog, caplog: pytest.LogCaptureFixture, method: str
) -> None:
    """A change that succeeded and left no entry is a warning and a number, by its route and not by its path."""
    app = AuditMiddleware(dashboard(log))
    for path in ("/v1/acme/domains/a.example", "/v1/acme/domains/b.example", "/v1/other/domains/c.example"):
        assert ask(app, method, path).status_code == 200
    assert ask(app, method, "/mounted/domains/a.example").status_code == 200
    place = f"{method} /v1/{{tenant}}/domains/{{name}}"
    assert dict(unaudited) == {place: 3, f"{method} /mounted/domains/{{name}}": 1}
    assert [record.levelno for record in caplog.records if "left no audit entry" in record.message] == [
        logging.WARNING
    ] * 4
    assert place in caplog.text
    assert "a.example" not in caplog.text


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("domain.creatd", "(it logged 'domain.creatd', which is no action; did you mean domain.created"),
        ("qqqqqq", "(it logged 'qqqqqq', which is no action):"),
    ],
)
def test_a_misspelt_action_is_named(log: AuditLog, caplog: pytest.LogCaptureFixture, name: str, said: str) -> None:
    """What was logged with a target, and is no action, was probably meant to be the entry that is missing."""

    async def endpoint(request: StarletteRequest) -> PlainTextResponse:
        log.pipeline.processor(None, "info", {"event": name, "target": "example.com"})
        return PlainTextResponse("done")

    ask(AuditMiddleware(Starlette(routes=[Route("/", endpoint, methods=["POST"])])), "POST", "/")
    assert f"'POST /' succeeded and left no audit entry {said}" in caplog.text


def test_plain_starlette_is_watched_too(log: AuditLog) -> None:
    """Routes and mounts of Starlette are named the same way, with an entry left by its background task."""

    async def forgets(request: StarletteRequest) -> PlainTextResponse:
        return PlainTextResponse("done")

    async def later(request: StarletteRequest) -> PlainTextResponse:
        task = BackgroundTask(log.pipeline.record, "domain.created")
        return PlainTextResponse("done", background=task)

    def thread(request: StarletteRequest) -> PlainTextResponse:
        log.pipeline.record("domain.created")
        return PlainTextResponse("done")

    routes = [
        Route("/domains/{name}", forgets, methods=["POST"]),
        Route("/files/{path:path}", forgets, methods=["POST"]),
        Route("/later", later, methods=["POST"]),
        Route("/thread", thread, methods=["POST"]),
    ]
    app = AuditMiddleware(Starlette(routes=[*routes, Mount("/of/{tenant}", routes=routes)]))
    for path in ("/domains/a", "/of/acme/domains/a", "/files/a/b/c", "/later", "/of/acme/later", "/thread"):
        assert ask(app, "POST", path).status_code == 200
    assert dict(unaudited) == {
        "POST /domains/{name}": 1, "POST /of/{tenant}/domains/{name}": 1, "POST /files/{path:path}": 1,
    }  # fmt: skip
    assert len(log.entries) == 3


def test_an_application_without_routes_is_counted_by_its_path(log: AuditLog) -> None:
    """Where a framework names no route the path stands for it; of very many, the rest is counted together."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await PlainTextResponse("done")(scope, receive, send)

    ask(AuditMiddleware(app), "POST", "/x")
    assert dict(unaudited) == {"POST /x": 1}
    for number in range(MOST_PLACES + 5):
        ask(AuditMiddleware(app), "POST", f"/{number}")
    assert (len(unaudited), unaudited[OTHERS], unaudited["POST /7"]) == (MOST_PLACES + 1, 6, 1)


def test_what_left_an_entry_or_changed_nothing_is_not_counted(log: AuditLog) -> None:
    """Entries of a thread or a background task count; reading, refusals and failures need none."""
    app = AuditMiddleware(dashboard(log))
    calls = [
        ("POST", "/v1/acme/domains/a/thread", 200),
        ("POST", "/v1/acme/domains/a/later", 200),
        ("GET", "/v1/acme/domains/a", 200),
        ("POST", "/status/400", 400),
        ("POST", "/status/503", 503),
        ("POST", "/nowhere", 404),
        ("POST", "/bug", 500),
    ]
    for method, path, status in calls:
        assert ask(app, method, path).status_code == status
    assert not unaudited
    assert ask(app, "POST", "/status/302").status_code == 302
    assert dict(unaudited) == {"POST /status/{code}": 1}


def test_an_entry_of_another_request_does_not_count(log: AuditLog) -> None:
    """Of two requests at the same time, the entry of one is not taken for the other's."""
    both = anyio.Event

    async def run() -> None:
        inside, done = both(), both()

        async def forgets(request: StarletteRequest) -> PlainTextResponse:
            inside.set()
            await done.wait()
            return PlainTextResponse("done")

        async def records(request: StarletteRequest) -> PlainTextResponse:
            await inside.wait()
            log.pipeline.record("domain.created")
            done.set()
            return PlainTextResponse("done")

        routes = [Route("/forgets", forgets, methods=["POST"]), Route("/records", records, methods=["POST"])]
        transport = httpx.ASGITransport(AuditMiddleware(Starlette(routes=routes)))
        async with (
            httpx.AsyncClient(transport=transport, base_url="http://test") as http,
            anyio.create_task_group() as group,
        ):
            group.start_soon(http.post, "/forgets")
            group.start_soon(http.post, "/records")

    anyio.run(run)
    assert dict(unaudited) == {"POST /forgets": 1}


@pytest.mark.parametrize("exempt", [["Status of a name"], ["answers"], "answers"])
def test_routes_can_be_exempt(log: AuditLog, exempt: Any) -> None:
    """A route may be named, or its endpoint, as one that needs no entry; the others are still watched."""
    app = AuditMiddleware(dashboard(log), exempt=exempt)
    ask(app, "POST", "/status/204")
    assert not unaudited
    ask(app, "POST", "/v1/acme/domains/a")
    assert sum(unaudited.values()) == 1


def test_it_is_added_like_any_middleware(log: AuditLog) -> None:
    """`app.add_middleware(AuditMiddleware, …)` works as with any other."""
    app = dashboard(log)

    @app.post("/who")
    async def who(request: Request) -> None:
        log.pipeline.record("domain.created")

    app.add_middleware(AuditMiddleware, user=lambda scope: "bob", exempt=["forgets"])
    for path in ("/who", "/v1/acme/domains/a"):
        assert ask(app, "POST", path).status_code == 200
    assert [(one.user, one.ip) for one in log.entries] == [("bob", "203.0.113.9")]
    assert not unaudited
