"""The API over every store there is, asked without a socket; and a real server for what needs one."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import httpx
import jwt
import pytest
import uvicorn
from audit_pipeline.api.app import create_app
from fastapi import FastAPI

from audit_pipeline import AuditPipeline
from audit_pipeline.settings import Settings
from audit_pipeline.stores import store_names

from ..places import new_store_url

SECRET = "a secret of the tests, which is long enough for HS256"
SCOPES = "audit:read audit:export audit:write"


class API:
    """An application under test, and a caller of it with a token."""

    def __init__(self, settings: Settings, pipeline: AuditPipeline) -> None:
        self.settings = settings
        self.pipeline = pipeline
        self.app: FastAPI = create_app(settings, pipeline)

    def token(self, key: str | bytes = SECRET, algorithm: str = "HS256", **claims: Any) -> str:
        """A good token, but for what `claims` say; a claim that is None is left out."""
        good = {"sub": "alice@example.com", "exp": time.time() + 60, "scope": SCOPES, "plan": "business"}
        given = {name: value for name, value in (good | claims).items() if value is not None}
        return jwt.encode(given, key, algorithm=algorithm)

    def request(
        self,
        method: str,
        path: str,
        *,
        token: str | None = "",
        peer: str | None = "127.0.0.1",
        headers: Any = (),
        base: str = "http://127.0.0.1:8000",
        **more: Any,
    ) -> httpx.Response:
        """The answer to one request; with a good token unless another, or None, is given."""
        sent = list(headers.items() if isinstance(headers, dict) else headers)
        if token is not None:
            sent.append(("authorization", f"Bearer {token or self.token()}"))

        async def ask() -> httpx.Response:
            transport = httpx.ASGITransport(self.app, client=(peer, 40_000))  # type: ignore[arg-type]
            if peer is None:  # a Unix socket
                transport.client = None  # type: ignore[assignment]
            async with httpx.AsyncClient(transport=transport, base_url=base) as client:
                return await client.request(method, path, headers=sent, **more)

        return anyio.run(ask)

    def get(self, path: str, **more: Any) -> httpx.Response:
        """GET."""
        return self.request("GET", path, **more)

    def post(self, json: Any, **more: Any) -> httpx.Response:
        """POST /v1/events."""
        return self.request("POST", "/v1/events", json=json, **more)

    def list(self, token: str = "", **parameters: Any) -> dict[str, Any]:
        """GET /v1/events, which must succeed. `from` is given as `from_`."""
        named = {name.rstrip("_"): value for name, value in parameters.items()}
        answer = self.get("/v1/events", params=named, token=token)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def record(self, action: str, **given: Any) -> str:
        """Record an entry past HTTP; `stored` says when they can be found."""
        return self.pipeline.record(action, **given)

    def stored(self) -> None:
        """Wait until the store has every entry."""
        assert self.pipeline.flush(10)

    def with_settings(self, **changed: Any) -> API:
        """The same pipeline behind an application with other settings."""
        return API(replace(self.settings, **changed), self.pipeline)


def check_problem(answer: httpx.Response, status: int, name: str) -> dict[str, Any]:
    """Hold an answer to RFC 9457, and return its body."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = answer.json()
    assert body["type"].endswith(f":{name}")
    assert body["status"] == status
    assert body["title"]
    assert body["detail"]
    assert body["request_id"] == answer.headers["x-request-id"]
    return body


@pytest.fixture(params=store_names())
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a new store of each kind."""
    return new_store_url(request.param, tmp_path)


def _api_over(store_url: str) -> Iterator[API]:
    settings = Settings(store_url=store_url, jwt_secret=SECRET)
    with AuditPipeline.open(settings=settings) as pipeline:
        yield API(settings, pipeline)


@pytest.fixture
def api(store_url: str) -> Iterator[API]:
    """The API over each store."""
    yield from _api_over(store_url)


@pytest.fixture(params=[pytest.param(name, marks=[pytest.mark.long] * (name == "memory")) for name in store_names()])
def slow_api(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[API]:
    """The API over each store, for what takes long: over one that nobody keeps entries in, in the long rounds alone."""
    yield from _api_over(new_store_url(request.param, tmp_path))


@pytest.fixture
def memory_api() -> Iterator[API]:
    """The API over one store: for what does not depend on it."""
    yield from _api_over("memory://")


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ready = threading.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.ready.set()


@contextmanager
def served(app: FastAPI, **options: Any) -> Iterator[str]:
    """A real server on a free port; gives its address."""
    # With the protocol named, asyncio turns Nagle's algorithm off: without that, each answer waits some 40 ms.
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.bind(("127.0.0.1", 0))
    listening.listen()
    server = _Server(uvicorn.Config(app, log_config=None, access_log=False, timeout_graceful_shutdown=5, **options))
    thread = threading.Thread(target=server.run, args=([listening],))
    thread.start()
    try:
        assert server.ready.wait(10)
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
        listening.close()
