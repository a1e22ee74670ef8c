"""Who is answered: tokens, scopes, plans, organisations, hosts and addresses; and what is answered without a store."""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import apsw
import jwt
import pytest
from audit_pipeline.api.app import create_app
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from audit_pipeline import AuditPipeline, SettingsError
from audit_pipeline.settings import Settings

from .conftest import API, SECRET, check_problem, served

READING = ("/v1/events", "/v1/events/histogram", "/v1/events/019ab3c0-7d1b-7c3e-9f00-3d5a0b6c1e2f", "/v1/actions")


def part(value: object) -> str:
    """A part of a token."""
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


def forged(api: API) -> dict[str, str]:
    """Tokens that must not be believed, each with what is wrong with it."""
    good = api.token()
    header, _, signature = good.split(".")
    more = {"sub": "mallory", "exp": time.time() + 60, "scope": "audit:read", "plan": "business"}
    return {
        "expired": api.token(exp=time.time() - 1),
        "not yet valid": api.token(nbf=time.time() + 60),
        "another key": api.token("another secret that is long enough as well"),
        "algorithm none": f"{part({'alg': 'none', 'typ': 'JWT'})}.{part(more)}.",
        "other claims": f"{header}.{part(more)}.{signature}",
        "no exp": api.token(exp=None),
        "no sub": api.token(sub=None),
        "an empty sub": api.token(sub=""),
        "exp is no number": api.token(exp="soon"),
        "exp beyond all time": api.token(exp=2**53 + 1),
        "exp of 400 digits": api.token(exp=10**400),
        "exp as large as a double": api.token(exp=1e308),
        "exp without end": f"{header}.{part(more | {'exp': float('inf')})}.{signature}",
        "scope is a list": api.token(scope=["audit:read"]),
        "plan is a list": api.token(plan=["business"]),
        "org is a number": api.token(org=1),
        "org is empty": api.token(org=""),
        "claims are no object": jwt.api_jws.encode(b"[]", SECRET.encode()),
        "cut": good[:-2],
        "text": "abc",
        "no ASCII": "é.ü.ß",
    }


def test_only_good_tokens_are_believed(memory_api: API) -> None:
    """Whatever is wrong with a token, the answer is the same 401, which asks for one."""
    details = set()
    for why, token in forged(memory_api).items():
        answer = memory_api.get("/v1/events", token=None, headers=[("authorization", f"Bearer {token}".encode())])
        assert answer.status_code == 401, why
        details.add(check_problem(answer, 401, "unauthorized")["detail"])
        assert answer.headers["www-authenticate"].startswith("Bearer")
    assert len(details) == 1


def test_a_token_of_a_clock_that_is_ahead_is_believed(memory_api: API) -> None:
    """When it was made is no condition (RFC 7519): an issuer's clock may be some seconds ahead."""
    assert memory_api.get("/v1/events", token=memory_api.token(iat=time.time() + 30)).status_code == 200


REASONS = {
    "expired": "Signature has expired",
    "another key": "Signature verification failed",
    "algorithm none": "The specified alg value is not allowed",
    "no exp": 'Token is missing the "exp" claim',
    "an empty sub": "`sub` is no text, or an empty one",
    "exp as large as a double": "`exp` is no time",
    "scope is a list": "`scope` is no text; it is one, with spaces between the scopes",
    "plan is a list": "`plan` is no text",
    "org is a number": "`org` is no text of 1 to 256 characters",
    "text": "Not enough segments",
}


def test_why_a_token_was_refused_is_in_the_log(memory_api: API, caplog: pytest.LogCaptureFixture) -> None:
    """The operator finds the reason of each refusal, and nothing of what the token says."""
    for why, token in forged(memory_api).items():
        caplog.clear()
        api = memory_api.with_settings()
        api.get("/v1/events", token=None, headers=[("authorization", f"Bearer {token}".encode())])
        (said,) = (record.getMessage() for record in caplog.records if record.name == "audit_pipeline.api")
        assert said.startswith(f"a bearer token was refused: {REASONS.get(why, '')}"), why
        assert not any(part in said for part in token.split(".") if len(part) > 3), why
        assert "mallory" not in said
        assert "alice" not in said


def test_a_reason_is_logged_once_a_minute(
    memory_api: API, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bad tokens do not fill the log, not those that differ either; after a minute a reason is said again."""
    heads = [{"alg": "HS256", "crit": [f"one {number}"]} for number in range(3)]
    tokens = [memory_api.token(exp=1)] * 3 + [f"{part(head)}.{part({})}.AAAA" for head in heads]
    tokens += [f"{part({})[:-2]}{'A' * 4 * number}.e30.AAAA" for number in range(3)]

    def said() -> int:
        caplog.clear()
        for token in tokens:
            check_problem(memory_api.get("/v1/events", token=token), 401, "unauthorized")
        return len([record for record in caplog.records if record.name == "audit_pipeline.api"])

    first = said()
    assert 2 <= first <= 4
    assert said() == 0
    assert "one 1" not in caplog.text
    monkeypatch.setattr("audit_pipeline.api.auth.AGAIN_S", 0)
    assert said() == len(tokens)


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer ", "Basic YTpi", "Token abc"])
def test_no_token(memory_api: API, header: str | None) -> None:
    """Without a bearer token every call but the health checks is 401."""
    headers = {} if header is None else {"authorization": header}
    for path in (*READING, "/v1/events/export.csv"):
        check_problem(memory_api.get(path, token=None, headers=headers), 401, "unauthorized")
    check_problem(memory_api.post({"action": "domain.created"}, token=None, headers=headers), 401, "unauthorized")


def test_issuer_and_audience_count_where_they_are_set(memory_api: API) -> None:
    """With an issuer and an audience in the settings, a token of another one is not believed."""
    strict = memory_api.with_settings(jwt_issuer="https://id.example", jwt_audience="audit")
    good = {"iss": "https://id.example", "aud": ["audit", "mail"]}
    assert strict.get("/v1/events", token=strict.token(**good)).status_code == 200
    for wrong in ({"iss": "https://evil.example"}, {"aud": "mail"}, {"iss": None}, {"aud": None}):
        check_problem(strict.get("/v1/events", token=strict.token(**(good | wrong))), 401, "unauthorized")
    assert memory_api.get("/v1/events", token=memory_api.token(aud="mail", iss="anyone")).status_code == 200


def test_a_short_secret_works_without_a_warning(memory_api: API) -> None:
    """A short secret signs and verifies like any other, and no library complains in the middle of a request."""
    short = memory_api.with_settings(jwt_secret="short")
    mine = b"short".ljust(32, b"\0")  # to HMAC the same key, for which PyJWT does not warn here
    for algorithm, length in (("HS256", 32), ("HS384", 48), ("HS512", 64)):
        token = short.token(mine.ljust(length, b"\0"), algorithm)
        assert short.get("/v1/events", token=token).status_code == 200


# Scopes and plans


def test_each_call_has_its_scope(memory_api: API) -> None:
    """A call is answered with its own scope, and refused with all the others."""
    api = memory_api
    calls: dict[str, list[Callable[[str], Any]]] = {
        "audit:read": [lambda token, path=path: api.get(path, token=token) for path in READING],  # type: ignore[misc]
        "audit:export": [lambda token: api.get("/v1/events/export.csv", token=token)],
        "audit:write": [lambda token: api.post({"action": "domain.created"}, token=token)],
    }
    for scope, asks in calls.items():
        others = " ".join({"audit:read", "audit:export", "audit:write", "audit", "read"} - {scope})
        for ask in asks:
            assert ask(api.token(scope=f"  {scope} profile")).status_code in (200, 202, 404)
            assert check_problem(ask(api.token(scope=others)), 403, "forbidden")["scope"] == scope
            check_problem(ask(api.token(scope=None)), 403, "forbidden")


@pytest.mark.parametrize("plan", [None, "", "free", "Business", "business,enterprise"])
def test_viewing_and_exporting_need_a_plan_and_recording_does_not(memory_api: API, plan: str | None) -> None:
    """Under a plan that is not entitled nothing can be seen, and the answer names those that are; recording goes on."""
    token = memory_api.token(plan=plan)
    for path in (*READING, "/v1/events/export.csv"):
        body = check_problem(memory_api.get(path, token=token), 403, "plan-required")
        assert body["plans"] == ["business", "enterprise"]
        assert body["detail"].startswith("The caller has no `plan`; the audit log is") == (plan is None)
    assert memory_api.post({"action": "domain.created"}, token=token).status_code == 202


def test_which_plans_are_entitled_is_a_setting(memory_api: API) -> None:
    """Other plans may be entitled; with none at all, no plan is asked for."""
    gold = memory_api.with_settings(entitled_plans=("gold",))
    assert gold.get("/v1/events", token=gold.token(plan="gold")).status_code == 200
    assert check_problem(gold.get("/v1/events"), 403, "plan-required")["plans"] == ["gold"]
    free = memory_api.with_settings(
        entitled_plans=Settings.from_environment({"AUDIT_ENTITLED_PLANS": ""}).entitled_plans
    )
    assert free.get("/v1/events", token=free.token(plan=None)).status_code == 200


# Public keys


@pytest.fixture(scope="module")
def private_key() -> rsa.RSAPrivateKey:
    """A key pair."""
    return rsa.generate_private_key(65_537, 2048)


@pytest.fixture
def key_set(private_key: rsa.RSAPrivateKey) -> bytes:
    """Its public half as a JSON Web Key Set."""
    key = jwt.algorithms.RSAAlgorithm.to_jwk(private_key.public_key(), as_dict=True)
    return json.dumps({"keys": [key | {"kid": "one", "use": "sig", "alg": "RS256"}]}).encode()


@pytest.fixture(params=["file", "url"])
def keyed(request: pytest.FixtureRequest, memory_api: API, key_set: bytes, tmp_path: Path) -> Iterator[API]:
    """The API with public keys, from a file and from an address."""
    if request.param == "file":
        (tmp_path / "keys.json").write_bytes(key_set)
        yield memory_api.with_settings(jwt_secret=None, jwks_file=tmp_path / "keys.json")
        return

    class Keys(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(key_set)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with HTTPServer(("127.0.0.1", 0), Keys) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield memory_api.with_settings(jwt_secret=None, jwks_url=f"http://127.0.0.1:{server.server_port}/keys")
        server.shutdown()
        thread.join()


def signed(api: API, key: Any, algorithm: str, **header: Any) -> str:
    """A token with good claims and this header."""
    claims = jwt.decode(api.token(), options={"verify_signature": False})
    return jwt.encode(claims, key, algorithm, headers=header)


def test_public_keys_verify_and_are_never_taken_for_secrets(
    keyed: API, private_key: rsa.RSAPrivateKey, caplog: pytest.LogCaptureFixture
) -> None:
    """A token of the private key is good; one signed with the public key as if it were a secret is not."""
    assert keyed.get("/v1/events", token=signed(keyed, private_key, "RS256", kid="one")).status_code == 200
    public = private_key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    header, claims = part({"alg": "HS256", "kid": "one"}), signed(keyed, SECRET, "HS256").split(".")[1]
    digest = jwt.algorithms.HMACAlgorithm(jwt.algorithms.HMACAlgorithm.SHA256).sign(
        f"{header}.{claims}".encode(), public
    )
    confused = f"{header}.{claims}.{base64.urlsafe_b64encode(digest).decode().rstrip('=')}"
    for token in (
        confused,
        signed(keyed, SECRET, "HS256", kid="one"),
        signed(keyed, private_key, "RS256", kid="two"),
        signed(keyed, private_key, "RS256"),
        signed(keyed, private_key, "RS512", kid="one"),
        signed(keyed, rsa.generate_private_key(65_537, 2048), "RS256", kid="one"),
    ):
        check_problem(keyed.get("/v1/events", token=token), 401, "unauthorized")
    assert "its header has no `kid`" in caplog.text
    assert "the key set has no key with the `kid`" in caplog.text
    assert "two" not in caplog.text


def test_keys_that_cannot_be_fetched(memory_api: API, private_key: rsa.RSAPrivateKey) -> None:
    """When the keys are out of reach nobody is called a forger: the answer is 503, and names no address."""
    away = memory_api.with_settings(jwt_secret=None, jwks_url="http://127.0.0.1:9/keys")
    answer = away.get("/v1/events", token=signed(away, private_key, "RS256", kid="one"))
    check_problem(answer, 503, "keys-unavailable")
    assert answer.headers["retry-after"]
    assert "127.0.0.1" not in answer.text


def test_a_key_for_encryption_verifies_nothing(
    memory_api: API, private_key: rsa.RSAPrivateKey, key_set: bytes, tmp_path: Path
) -> None:
    """Beside one that may, a key that says `use: enc` is none; a file with no other key stops the start."""
    (key,) = json.loads(key_set)["keys"]
    file = tmp_path / "keys.json"
    file.write_text(json.dumps({"keys": [key, key | {"kid": "two", "use": "enc"}]}))
    api = memory_api.with_settings(jwt_secret=None, jwks_file=file)
    assert api.get("/v1/events", token=signed(api, private_key, "RS256", kid="one")).status_code == 200
    check_problem(api.get("/v1/events", token=signed(api, private_key, "RS256", kid="two")), 401, "unauthorized")
    for unusable in ({"use": "enc"}, {"kid": ""}):
        file.write_text(json.dumps({"keys": [key | unusable]}))
        with pytest.raises(SettingsError, match=r"AUDIT_JWKS_FILE: .* no key that verifies .* `kid`"):
            memory_api.with_settings(jwt_secret=None, jwks_file=file)


@pytest.mark.parametrize("algorithm", ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"])
def test_a_key_need_not_say_its_algorithm(
    memory_api: API, private_key: rsa.RSAPrivateKey, key_set: bytes, tmp_path: Path, algorithm: str
) -> None:
    """`alg` may be left out: an RSA key verifies then whatever such keys sign. One that says it, only that."""
    (said,) = json.loads(key_set)["keys"]
    without = {name: value for name, value in said.items() if name != "alg"} | {"kid": "without"}
    file = tmp_path / "keys.json"
    file.write_text(json.dumps({"keys": [said, without]}))
    api = memory_api.with_settings(jwt_secret=None, jwks_file=file)
    assert api.get("/v1/events", token=signed(api, private_key, algorithm, kid="without")).status_code == 200
    named = api.get("/v1/events", token=signed(api, private_key, algorithm, kid="one"))
    assert named.status_code == (200 if algorithm == "RS256" else 401)


def test_a_key_file_that_is_none(memory_api: API, tmp_path: Path) -> None:
    """A key file that cannot be used stops the start, with its setting's name."""
    for text in ("", "{}", '{"keys": 1}', '{"keys": []}', "[1]"):
        (tmp_path / "keys.json").write_text(text)
        with pytest.raises(SettingsError, match="AUDIT_JWKS_FILE"):
            memory_api.with_settings(jwt_secret=None, jwks_file=tmp_path / "keys.json")


# Without keys, and Host


def test_without_keys_only_this_machine_is_answered(memory_api: API) -> None:
    """With a key made for the run, only a loopback peer is answered, whatever it forwards; with keys, all are."""
    open_api = memory_api.with_settings(jwt_secret=None)
    key = open_api.app.state.audit.tokens.run_key
    token = open_api.token(key)
    for peer in ("127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1"):
        assert open_api.get("/v1/events", token=token, peer=peer).status_code == 200
    for peer in ("10.0.0.1", "::ffff:10.0.0.1", "fe80::1%eth0", "nonsense", "0.0.0.0"):
        forwarded = {"x-forwarded-for": "127.0.0.1", "forwarded": "for=127.0.0.1"}
        check_problem(open_api.get("/v1/events", token=token, peer=peer, headers=forwarded), 403, "forbidden")
        check_problem(open_api.get("/healthz", token=None, peer=peer), 403, "forbidden")
        assert memory_api.get("/v1/events", peer=peer).status_code == 200
    check_problem(open_api.get("/v1/events", token=open_api.token()), 401, "unauthorized")
    assert key != memory_api.with_settings(jwt_secret=None).app.state.audit.tokens.run_key


@pytest.mark.parametrize(
    ("hosts", "known"),
    [
        (["localhost"], True),
        (["LOCALHOST:8000"], True),
        (["127.0.0.1:1"], True),
        (["[::1]"], True),
        (["[::1]:8000"], True),
        (["evil.example"], False),
        (["evil.example:8000"], False),
        (["localhost.evil.example"], False),
        (["localhost@evil.example"], False),
        (["[::2]:8000"], False),
        (["localhost", "evil.example"], False),
        (["localhost", "localhost"], False),
        ([""], False),
    ],
)
def test_only_known_hosts_are_answered(memory_api: API, hosts: list[str], known: bool) -> None:
    """A page of another name cannot reach the API by pointing that name here (DNS rebinding)."""
    sent = [("host", host) for host in hosts]
    answer = memory_api.get("/v1/events", headers=sent)
    if known:
        assert answer.status_code == 200
    else:
        check_problem(answer, 421, "unknown-host")


def test_which_hosts_are_known_is_a_setting(memory_api: API) -> None:
    """Names, and all names under one, can be allowed; then the loopback names are no longer."""
    hosts = Settings.from_environment({"AUDIT_ALLOWED_HOSTS": "Audit.example.com,*.corp.example"}).allowed_hosts
    api = memory_api.with_settings(allowed_hosts=hosts)
    for host in ("audit.example.com", "a.corp.example:443", "a.b.corp.example"):
        assert api.get("/healthz", headers={"host": host}).status_code == 200
    for host in ("localhost", "corp.example", "example.com", "evilcorp.example"):
        check_problem(api.get("/healthz", headers={"host": host}), 421, "unknown-host")
    anyone = memory_api.with_settings(allowed_hosts=("*",))
    assert anyone.get("/healthz", headers={"host": "any.example"}).status_code == 200


# Without a store


def test_a_store_of_a_newer_version_is_unavailable_and_nothing_is_told_of_it(tmp_path: Path) -> None:
    """Where the store cannot answer, every call that needs it is 503, without its path or its own words."""
    db = apsw.Connection(str(tmp_path / "audit.db"))
    db.execute("PRAGMA application_id = 0x41554454; PRAGMA user_version = 99")
    db.close()
    settings = Settings(store_url=f"sqlite:///{tmp_path / 'audit.db'}", jwt_secret=SECRET)
    with AuditPipeline.open(settings=settings, ship=False) as pipeline:
        api = API(settings, pipeline)
        for path in (*READING[:3], "/v1/events/export.csv"):
            answer = api.get(path)
            check_problem(answer, 503, "store-unavailable")
            assert int(answer.headers["retry-after"]) > 0
            assert str(tmp_path) not in answer.text
            assert "version" not in answer.text
        ready = api.get("/readyz", token=None)
        assert (ready.status_code, ready.json()) == (503, {"status": "unavailable"})
        assert api.get("/healthz", token=None).status_code == 200
        assert api.post({"action": "domain.created"}).status_code == 202


def test_a_store_that_comes_later_is_installed_then(tmp_path: Path) -> None:
    """A server that was started before its store could be reached answers once it can be, without an entry first."""
    folder = tmp_path / "later"
    url, spool = f"sqlite:///{folder / 'audit.db'}", tmp_path / "spool.db"
    settings = Settings(store_url=url, spool=spool, jwt_secret=SECRET)
    with AuditPipeline.open(settings=settings) as pipeline:
        api = API(settings, pipeline)
        with served(api.app):
            check_problem(api.get("/v1/events"), 503, "store-unavailable")
            folder.mkdir()
            assert api.list()["total"] == 0
            assert api.get("/readyz", token=None).status_code == 200


def test_a_spool_that_takes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When an entry cannot be put on disk the sender hears of it, and no path of ours."""
    settings = Settings(store_url=f"sqlite:///{tmp_path / 'audit.db'}", jwt_secret=SECRET)
    with AuditPipeline.open(settings=settings, ship=False) as pipeline:
        api = API(settings, pipeline)
        db = apsw.Connection(str(tmp_path / "audit.spool.db"))
        db.execute("CREATE TRIGGER none BEFORE INSERT ON entries BEGIN SELECT raise(ABORT, 'no'); END")
        answer = api.post({"action": "domain.created"})
        check_problem(answer, 503, "spool-unavailable")
        assert answer.headers["retry-after"]
        assert str(tmp_path) not in answer.text
        # An export that cannot be recorded does not happen.
        check_problem(api.get("/v1/events/export.csv"), 503, "spool-unavailable")
        db.close()


def test_the_application_opens_and_closes_its_own_pipeline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Made by a server's factory call, the application reads the environment, and closes what it opened."""
    monkeypatch.setenv("AUDIT_STORE_URL", f"sqlite:///{tmp_path / 'audit.db'}")
    monkeypatch.setenv("AUDIT_JWT_SECRET", SECRET)
    app = create_app()
    with served(app):
        app.state.audit.pipeline.record("domain.created")
    with pytest.raises(Exception, match="closed"):
        app.state.audit.pipeline.record("domain.created")
