"""What holds for every answer: who may ask, from which pages, how long a question may be, and the headers."""

from __future__ import annotations

from typing import Any

import pytest

from audit_pipeline.settings import Settings

from .conftest import API, check_problem, served

LISTED = "https://dashboard.example.com"
CALLS = (
    "/v1/events",
    "/v1/events?sort=size",
    "/v1/events/export.csv",
    "/nowhere",
    "/healthz",
    "/viewer/icon.svg",
    "/",
)


@pytest.fixture
def shared(memory_api: API) -> API:
    """The API for the pages of one other origin."""
    origins = Settings.from_environment({"AUDIT_CORS_ORIGINS": f"{LISTED}, http://localhost:5173"}).cors_origins
    return memory_api.with_settings(cors_origins=origins)


def cors(answer: Any) -> dict[str, str]:
    """The headers of an answer that speak to pages of other origins."""
    return {name: value for name, value in answer.headers.items() if name.startswith("access-control-")}


@pytest.mark.parametrize("path", CALLS)
def test_a_listed_origin_may_read_every_answer(shared: API, path: str) -> None:
    """Answers and problems alike may be read by pages of a listed origin, with the headers that a viewer needs."""
    answer = shared.get(path, headers={"origin": LISTED})
    told = cors(answer)
    assert told.pop("access-control-allow-origin") == LISTED
    exposed = set(told.pop("access-control-expose-headers").lower().split(", "))
    assert exposed == {
        "content-disposition", "x-total-count", "x-row-limit", "x-truncated", "retry-after", "x-request-id",
    }  # fmt: skip
    assert told == {}  # cookies, above all, are not let in
    assert "origin" in answer.headers["vary"].lower()


def test_a_fault_can_be_read_too(shared: API, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page hears of a fault of the server, of a store that is away, and of a token that is no longer good."""

    def search(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(shared.pipeline.store, "search", search)
    for token, status in (("", 500), ("nonsense", 401)):
        answer = shared.get("/v1/events", headers={"origin": LISTED}, token=token)
        assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (status, LISTED)


@pytest.mark.parametrize(
    "origin",
    [
        "https://evil.example", "http://dashboard.example.com", "https://dashboard.example.com:8443",
        "https://dashboard.example.com.evil.example", "https://evildashboard.example.com", "null", "*", "",
        "https://DASHBOARD.example.com", f"{LISTED}/", f"{LISTED} https://evil.example",
    ],
)  # fmt: skip
def test_an_origin_that_is_not_listed_learns_nothing(shared: API, origin: str) -> None:
    """To other origins no answer has a word, and their preflights are answered like any method that is not there."""
    for path in CALLS:
        answer = shared.get(path, headers={"origin": origin})
        assert cors(answer) == {}
        assert "origin" in answer.headers["vary"].lower()
    asking = {"origin": origin, "access-control-request-method": "GET"}
    answer = shared.request("OPTIONS", "/v1/events", headers=asking, token=None)
    check_problem(answer, 405, "method-not-allowed")
    assert cors(answer) == {}


def test_a_preflight(shared: API) -> None:
    """A browser hears, without a token, that the listed origin may send a token, JSON, and where a stream goes on."""
    asking = {
        "origin": LISTED,
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization,content-type",
    }
    for path in ("/v1/events", "/v1/events/export.csv"):
        answer = shared.request("OPTIONS", path, headers=asking, token=None)
        assert (answer.status_code, answer.content) == (204, b"")
        told = cors(answer)
        assert told["access-control-allow-origin"] == LISTED
        assert set(told["access-control-allow-headers"].split(", ")) == {
            "Authorization", "Last-Event-ID", "Content-Type",
        }  # fmt: skip
        assert told["access-control-allow-methods"] == "GET, POST"
        assert "access-control-allow-credentials" not in told
    foreign = asking | {"host": "evil.example"}
    check_problem(shared.request("OPTIONS", "/v1/events", headers=foreign, token=None), 421, "unknown-host")


def test_without_listed_origins_there_is_no_cors(memory_api: API) -> None:
    """By default no page of another origin is told anything."""
    answer = memory_api.get("/v1/events", headers={"origin": LISTED})
    assert (answer.status_code, cors(answer)) == (200, {})
    assert "vary" not in answer.headers


def test_an_origin_is_listed_in_lower_case(memory_api: API) -> None:
    """Browsers send host names in lower case, however an operator wrote them."""
    origins = Settings.from_environment({"AUDIT_CORS_ORIGINS": "https://Dashboard.Example.com"}).cors_origins
    answer = memory_api.with_settings(cors_origins=origins).get("/healthz", headers={"origin": LISTED})
    assert cors(answer)["access-control-allow-origin"] == LISTED


@pytest.mark.parametrize("path", CALLS)
def test_every_answer_keeps_browsers_careful(memory_api: API, path: str) -> None:
    """No answer may be framed, sniffed, or run a script that is not a file of its own origin; only files are kept."""
    headers = memory_api.get(path).headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cache-control"] == ("no-cache" if path in ("/", "/viewer/icon.svg") else "no-store")
    policy = dict(part.strip().partition(" ")[::2] for part in headers["content-security-policy"].split(";"))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert policy["frame-ancestors"] == policy["base-uri"] == policy["form-action"] == "'none'"
    assert (policy["trusted-types"], policy["require-trusted-types-for"]) == ("lit-html", "'script'")
    assert "unsafe" not in headers["content-security-policy"]


# Without keys


@pytest.mark.parametrize(
    "header",
    [
        ("x-forwarded-for", "127.0.0.1"), ("X-Forwarded-For", ""), ("x-forwarded-for", "::1, 127.0.0.1"),
        ("forwarded", "for=127.0.0.1"), ("x-real-ip", "127.0.0.1"), ("x-forwarded-host", "localhost"),
        ("x-forwarded-proto", "https"), ("via", "1.1 proxy"), ("cf-connecting-ip", "127.0.0.1"),
        *((name, "127.0.0.1") for name in (
            "forwarded-for", "x-forwarded", "x-original-forwarded-for", "x-original-host", "x-envoy-external-address",
            "client-ip", "x-client-ip", "x-cluster-client-ip", "true-client-ip", "fastly-client-ip", "x-remote-ip",
            "x-originating-ip", "x-proxyuser-ip", "x-azure-clientip", "x-appengine-user-ip", "cdn-loop", "fastly-ff",
            "fly-forwarded-port", "X-Azure-SocketIP",
        )),
    ],
)  # fmt: skip
def test_without_keys_nothing_that_was_passed_on_is_answered(memory_api: API, header: tuple[str, str]) -> None:
    """Whoever is behind a proxy is not on this machine, whatever the proxy, or a server that believes it, says."""
    for proxies in ("", "127.0.0.1"):
        trusted = Settings.from_environment({"AUDIT_TRUSTED_PROXIES": proxies}).trusted_proxies
        keyless = memory_api.with_settings(jwt_secret=None, trusted_proxies=trusted)
        token = keyless.token(keyless.app.state.audit.tokens.run_key)
        for peer in ("127.0.0.1", "::1", "::ffff:127.0.0.1", ""):
            answer = keyless.get("/v1/events", token=token, headers=[header], peer=peer)
            check_problem(answer, 403, "forbidden")
            check_problem(keyless.get("/healthz", token=None, headers=[header], peer=peer), 403, "forbidden")
    assert memory_api.get("/healthz", headers=[header]).status_code == 200


def test_without_keys_a_server_that_believes_proxies_lets_nobody_in(memory_api: API) -> None:
    """uvicorn, told to trust everyone, takes a client's word for its address: such a client is refused all the same."""
    keyless = memory_api.with_settings(jwt_secret=None)
    with served(keyless.app, proxy_headers=True, forwarded_allow_ips="*") as address:
        import httpx

        check_problem(httpx.get(f"{address}/healthz", headers={"x-forwarded-for": "127.0.0.1"}), 403, "forbidden")
        assert httpx.get(f"{address}/healthz").status_code == 200


def test_without_keys_a_unix_socket_is_this_machine(memory_api: API) -> None:
    """A Unix socket has no address: who may open it is a matter of the file's rights, unless a proxy says otherwise."""
    keyless = memory_api.with_settings(jwt_secret=None)
    assert keyless.get("/healthz", token=None, peer=None).status_code == 200
    forwarded = {"x-forwarded-for": "203.0.113.9"}
    check_problem(keyless.get("/healthz", token=None, peer=None, headers=forwarded), 403, "forbidden")
