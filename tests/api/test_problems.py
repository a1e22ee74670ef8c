"""Every error is a problem (RFC 9457), whoever found it: this API, the framework, or the server around both."""

from __future__ import annotations

import re
import socket
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from audit_pipeline.api.deps import MAX_BODY
from audit_pipeline.api.edge import MAX_TARGET
from audit_pipeline.api.problems import KINDS, MAX_ERRORS

from audit_pipeline.errors import SpoolFull, StoreError, StoreMismatch, StoreMissing, StoreUnavailable

from .conftest import API, check_problem, served

JSON = {"content-type": "application/json"}
EVENT = b'{"action": "domain.created"}'
TABLE: list[tuple[str, str, dict[str, Any], int, str]] = [
    # Paths
    ("GET", "/nowhere", {}, 404, "not-found"),
    ("GET", "/v1", {}, 404, "not-found"),
    ("GET", "/v1/events/", {}, 404, "not-found"),
    ("GET", "//v1/events", {}, 404, "not-found"),
    ("GET", "/v1/events/../../etc/passwd", {}, 404, "not-found"),
    ("GET", "/v1/events/%2e%2e%2fsecret", {}, 404, "not-found"),
    ("GET", "/v1/events/%zz", {}, 404, "not-found"),
    ("GET", "/v1/events/%", {}, 404, "not-found"),
    ("GET", "/v1/events/%ff%fe", {}, 404, "not-found"),
    ("GET", "/v1/events/%00", {}, 404, "not-found"),
    ("GET", "/v1/events/" + "x" * 5000, {}, 404, "not-found"),
    ("GET", "/openapi.json", {}, 404, "not-found"),
    ("GET", "/docs", {}, 404, "not-found"),
    ("GET", "/viewer", {}, 404, "not-found"),
    ("GET", "/viewer/", {}, 404, "not-found"),
    ("GET", "/viewer/__init__.py", {}, 404, "not-found"),
    ("GET", "/viewer/../auth.py", {}, 404, "not-found"),
    ("GET", "/viewer/%2e%2e/%2e%2e/etc/passwd.js", {}, 404, "not-found"),
    ("GET", "/viewer/nothing.js", {}, 404, "not-found"),
    ("GET", "/viewer/0123456789ab/nothing.js", {}, 404, "not-found"),
    ("GET", "/viewer/a%00.js", {}, 404, "not-found"),
    ("GET", "/viewer/" + "x" * 5000 + ".js", {}, 404, "not-found"),
    ("GET", "/viewer/%ff.js", {}, 404, "not-found"),
    # Methods
    ("DELETE", "/v1/events", {}, 405, "method-not-allowed"),
    ("PUT", "/v1/events", {}, 405, "method-not-allowed"),
    ("OPTIONS", "/v1/events", {}, 405, "method-not-allowed"),
    ("TRACE", "/v1/events", {}, 405, "method-not-allowed"),
    ("BREW", "/v1/actions", {}, 405, "method-not-allowed"),
    ("DELETE", "/v1/events/019ab3c0-7d1b-7c3e-9f00-3d5a0b6c1e2f", {}, 405, "method-not-allowed"),
    ("POST", "/", {}, 405, "method-not-allowed"),
    ("POST", "/viewer/icon.svg", {}, 405, "method-not-allowed"),
    # Queries
    ("GET", "/v1/events?page=%zz", {}, 422, "invalid-query"),
    ("GET", "/v1/events?%ff=1", {}, 422, "invalid-query"),
    ("GET", "/v1/events?" + "&".join("a" * 1000), {}, 422, "invalid-query"),
    ("GET", "/v1/events?cursor=%00", {}, 400, "invalid-cursor"),
    ("GET", "/v1/events?q=" + "x" * MAX_TARGET, {}, 414, "too-long"),
    ("GET", "/" + "x" * (MAX_TARGET + 1), {}, 414, "too-long"),
    ("GET", "/viewer/" + "%41" * (MAX_TARGET // 3 + 1), {}, 414, "too-long"),
    # Bodies
    ("POST", "/v1/events", {"content": EVENT}, 415, "unsupported-media-type"),
    ("POST", "/v1/events", {"data": {"action": "domain.created"}}, 415, "unsupported-media-type"),
    ("POST", "/v1/events", {"files": {"action": b"domain.created"}}, 415, "unsupported-media-type"),
    ("POST", "/v1/events", {"content": EVENT, "headers": {"content-type": "a/b"}}, 415, "unsupported-media-type"),
    (
        "POST", "/v1/events", {"content": EVENT, "headers": JSON | {"content-encoding": "gzip"}},
        415, "unsupported-media-type",
    ),
    ("POST", "/v1/events", {"content": b"", "headers": JSON}, 422, "invalid-query"),
    ("POST", "/v1/events", {"content": b"\xff", "headers": JSON}, 422, "invalid-query"),
    ("POST", "/v1/events", {"content": b'{"action": "nope"}', "headers": JSON}, 422, "invalid-query"),
    ("POST", "/v1/events", {"content": b" " * (MAX_BODY + 1), "headers": JSON}, 413, "too-large"),
    # Hosts and tokens
    ("GET", "/healthz", {"headers": {"host": "evil.example"}}, 421, "unknown-host"),
    ("GET", "/nowhere", {"headers": {"host": "evil.example"}}, 421, "unknown-host"),
    ("GET", "/v1/events", {"token": None}, 401, "unauthorized"),
    ("GET", "/v1/events", {"token": None, "headers": {"authorization": "Basic YTpi"}}, 401, "unauthorized"),
    ("GET", "/v1/events", {"token": None, "headers": {"authorization": "Bearer " + "x" * 20_000}}, 401, "unauthorized"),
]  # fmt: skip


def check_nothing_of_ours(api: API, text: str) -> None:
    """No answer names a file, a module, an address, an index, or an error of Python's or of a library."""
    names = [".py", "/home", "/tmp", "/var", "sqlite", "apsw", "opensearch", "urllib", "fastapi", "starlette"]
    names += [str(api.pipeline.spool.path), "127.0.0.1", "localhost", "audit-events", "pydantic", "traceback"]
    for name in names:
        assert name not in text.lower(), name
    assert not re.search(r"[a-z](Error|Exception)\b", text)


@pytest.mark.parametrize(
    ("method", "path", "more", "status", "name"), TABLE, ids=[f"{row[0]} {row[1][:40]} {row[4]}" for row in TABLE]
)
def test_every_error_is_a_problem(
    memory_api: API, method: str, path: str, more: dict[str, Any], status: int, name: str
) -> None:
    """Whatever is wrong with a request, the answer is a problem of a documented kind, without a word of ours."""
    answer = memory_api.request(method, path, **more)
    body = check_problem(answer, status, name)
    assert KINDS[name][0] == status
    assert set(body) <= {"type", "title", "status", "detail", "request_id", "errors"}
    assert (status == 422) == ("errors" in body)
    assert (status == 405) == ("allow" in answer.headers)
    check_nothing_of_ours(memory_api, answer.text)


def test_allow_has_all_methods_of_a_path(memory_api: API) -> None:
    """What is allowed instead is told completely, for a path whose methods are several routes too."""
    for path, methods in (
        ("/v1/events", "GET, POST"),
        ("/v1/actions", "GET"),
        ("/v1/events/export.csv", "GET"),
        ("/", "GET, HEAD"),
    ):
        assert memory_api.request("DELETE", path).headers["allow"] == methods


def test_of_very_many_errors_the_first_are_named(memory_api: API) -> None:
    """A parameter given a thousand times wrong, or a list of a thousand wrong events, makes no answer of megabytes."""
    many = [
        memory_api.get("/v1/events?" + "&".join(f"action=no.{number}" for number in range(1000))),
        memory_api.get("/v1/events?" + "&".join(f"x{number}=1" for number in range(1000))),
        memory_api.post([{"action": f"no.{number}"} for number in range(1000)]),
    ]
    for answer in many:
        body = check_problem(answer, 422, "invalid-query")
        *named, rest = body["errors"]
        assert len(named) == MAX_ERRORS
        assert rest == {"parameter": "more", "detail": "968 more are wrong; put these right first"}
        assert body["detail"].endswith("; more: 968 more are wrong; put these right first")
        assert all(f"{error['parameter']}: {error['detail']}" in body["detail"] for error in named)
        assert len(answer.content) < 20_000
    exactly = memory_api.post([{"action": "no"}] * MAX_ERRORS)
    assert [error["parameter"] for error in exactly.json()["errors"]] == [f"[{place}].action" for place in range(32)]


def test_head_is_answered_without_a_body(memory_api: API) -> None:
    """HEAD, which only files and health have, is refused in the form of HEAD: by its status and headers alone."""
    with served(memory_api.app) as address, socket.create_connection(_place(address)) as connection:
        connection.sendall(b"HEAD /v1/events HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        head, _, body = _all(connection).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 405")
        assert body == b""


@pytest.mark.parametrize("given", ["bytes=0-1", "bytes=abc", "bytes=9999999-", "bytes=0-0,2-3", "x" * 1000])
def test_a_part_of_a_file_is_the_whole_file(memory_api: API, given: str) -> None:
    """Ranges are not served, and none of them is an error."""
    for path in ("/", f"/viewer/{memory_api.app.state.viewer.version}/icon.svg"):
        answer = memory_api.get(path, headers={"range": given})
        assert (answer.status_code, answer.content) == (200, memory_api.get(path).content)


@pytest.mark.parametrize(
    ("error", "status", "name"),
    [
        (StoreUnavailable("http://10.0.0.7:9200/audit-events-2026.11: connection refused"), 503, "store-unavailable"),
        (StoreMissing("/var/lib/audit.db: nothing there"), 503, "store-unavailable"),
        (StoreMismatch("/var/lib/audit.db: of a newer version"), 503, "store-unavailable"),
        (StoreError("sqlite: disk I/O error"), 503, "store-unavailable"),
        (SpoolFull("/var/lib/audit.spool.db: the disk is full"), 503, "spool-unavailable"),
        (RuntimeError("Traceback (most recent call last): /home/me/secret.py"), 500, "internal-error"),
        (RecursionError("maximum recursion depth exceeded"), 500, "internal-error"),
        (MemoryError(), 500, "internal-error"),
    ],
)
def test_no_text_of_a_backend_goes_out(
    memory_api: API, monkeypatch: pytest.MonkeyPatch, error: Exception, status: int, name: str
) -> None:
    """Whatever fails behind an answer, what is told is a sentence of ours, and when to ask again where that helps."""

    def fail(*_: object, **__: object) -> None:
        raise error

    for method in ("search", "get", "snapshot", "histogram"):
        monkeypatch.setattr(memory_api.pipeline.store, method, fail)
    monkeypatch.setattr(memory_api.pipeline.spool, "append", fail)
    event_id = "019ab3c0-7d1b-7c3e-9f00-3d5a0b6c1e2f"
    for path in ("", f"/{event_id}", "/export.csv", "/histogram", "/histogram?from=2026-01-01&to=2026-01-02"):
        answer = memory_api.get(f"/v1/events{path}")
        check_problem(answer, status, name)
        check_nothing_of_ours(memory_api, answer.text + str(answer.headers))
        assert (status == 503) == ("retry-after" in answer.headers)
    check_problem(memory_api.post({"action": "domain.created"}), status, name)


def test_every_kind_that_code_names_is_documented() -> None:
    """The table of kinds has each problem that the code makes, with its status, and no other."""
    api = Path(__file__).parent.parent.parent / "api"
    source = "".join(path.read_text() for path in api.glob("*.py"))
    made = {(int(status), name) for status, name in re.findall(r'Problem\(\s*(\d{3}),\s*"([a-z-]+)"', source)}
    made |= {(405, "method-not-allowed")}  # the framework's
    assert made | {(401, "unauthorized")} == {(status, name) for name, (status, _) in KINDS.items()}


# The server around it


def _place(address: str) -> tuple[str, int]:
    return ("127.0.0.1", int(address.rpartition(":")[2]))


def _all(connection: socket.socket) -> bytes:
    connection.settimeout(10)
    received = b""
    while piece := connection.recv(65_536):
        received += piece
    return received


@pytest.mark.parametrize(
    "request_text",
    [
        b"nonsense\r\n\r\n",
        b"GET /v1/events HTTP/9.9\r\nHost: localhost\r\n\r\n",
        b"GET /v1/events?q=" + b"x" * 10**6 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /v1/events HTTP/1.1\r\nHost: localhost\r\nX-Long: " + b"x" * 10**6 + b"\r\n\r\n",
        b"GET /v1/events?q=\x00 HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"POST /v1/events HTTP/1.1\r\nHost: localhost\r\n%b\r\nzz\r\nno chunk",
        b"POST /v1/events HTTP/1.1\r\nHost: localhost\r\n%b\r\n5\r\nabc",
        b"POST /v1/events HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nabcde",
        b"POST /v1/events HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
    ],
    ids=range(9),
)
def test_what_is_no_http_ends_the_connection_and_nothing_else(
    memory_api: API, request_text: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """A broken request never reaches an endpoint: the server ends its connection, and answers the next one."""
    token = memory_api.token()
    chunked = f"Authorization: Bearer {token}\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n"
    with served(memory_api.app) as address:
        answer = b""
        # A server that has read enough closes the connection, whatever still comes.
        with socket.create_connection(_place(address)) as connection, suppress(ConnectionError):
            connection.sendall(request_text.replace(b"%b", chunked.encode()))
            with suppress(OSError):  # not connected any more
                connection.shutdown(socket.SHUT_WR)
            answer = _all(connection)
        assert re.match(rb"(HTTP/1.1 4\d\d .*)?\Z", answer, re.DOTALL), answer
        assert b"Traceback" not in answer
        check_healthy(address)
    assert memory_api.pipeline.status().accepted == 0
    assert not [record for record in caplog.records if record.name.startswith("audit_pipeline")]


def check_healthy(address: str) -> None:
    """The server answers."""
    with socket.create_connection(_place(address)) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        assert _all(connection).startswith(b"HTTP/1.1 200")
