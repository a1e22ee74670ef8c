"""What an attacker tries, each under its name. What single calls refuse is in the tests of those calls.

Tokens that are forged or expired, and keys taken for secrets, are in `test_access`; ids of another organisation in
`test_record`; forms of other sites in `test_problems`; pages of other origins, and proxies that are not trusted, in
`test_edge`.
"""

from __future__ import annotations

import base64
import csv
import io
import json
import logging
import random
import threading
import time
import zlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import anyio
import httpx
import jwt
import pytest
from audit_pipeline.api import jwks
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa

from audit_pipeline.actions import catalogue
from audit_pipeline.event import uuid7
from audit_pipeline.export import inert
from audit_pipeline.importing import NDJSONReader
from audit_pipeline.query import SORTS, Query, ResumePoint, tokens
from audit_pipeline.settings import Settings

from .conftest import API, check_problem

NOON = datetime.now(UTC).replace(hour=12, minute=0, second=0, microsecond=0) - timedelta(days=3)
Asked = tuple[str, dict[str, Any]]


def many(api: API, asked: Sequence[Asked], token: str = "", seconds: float = 600) -> list[httpx.Response]:
    """The answers to many GETs, several at a time, in order; as many as fit into the time."""
    answers: dict[int, httpx.Response] = {}
    numbers = iter(range(len(asked)))
    end = time.monotonic() + seconds
    headers = {"authorization": f"Bearer {token or api.token(exp=time.time() + 900)}"}

    async def worker(client: httpx.AsyncClient) -> None:
        for number in numbers:
            path, parameters = asked[number]
            answers[number] = await client.get(path, params=parameters)
            if time.monotonic() > end:
                return

    async def all_of_them() -> None:
        transport = httpx.ASGITransport(api.app, client=("127.0.0.1", 40_000))
        client = httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000", headers=headers)
        async with client, anyio.create_task_group() as group:
            for _ in range(8):
                group.start_soon(worker, client)

    anyio.run(all_of_them)
    return [answers[number] for number in sorted(answers)]


# Another organisation


def number_told(answer: httpx.Response) -> int | None:
    """How many entries there are, as a list, a histogram and an export tell it."""
    if "x-total-count" in answer.headers:
        return int(answer.headers["x-total-count"])
    body = answer.json()
    return sum(bucket["count"] for bucket in body["buckets"]) if "buckets" in body else body.get("total")


@pytest.mark.parametrize("seconds", [6, pytest.param(1800, marks=pytest.mark.long)])
def test_ten_thousand_random_requests_never_return_an_entry_of_another_organisation(api: API, seconds: int) -> None:
    """Whatever is asked with one organisation's token, no word and no id of another organisation's entries comes."""
    theirs = api.token(org="theirs", exp=time.time() + 900)
    their_ids = [
        api.record(action, org="theirs", target="zebra.example", detail="zebra", user="zebra", ip="198.51.100.7")
        for action in ("domain.created", "user.deleted", "queue.flushed", "audit.exported") * 8
    ]
    our_ids = [
        api.record(action, target=f"ours-{number}", user="alice", ip="203.0.113.9")
        for number, action in enumerate(("domain.created", "user.deleted", "settings.updated") * 12)
    ]
    api.stored()
    before = api.list(theirs, page_size=100)
    cursors = [api.list(theirs, page_size=10, sort=sort)["next"] for sort in SORTS]
    chance = random.Random(7)
    pools: dict[str, list[Any]] = {
        "q": ["zebra", "z", "-ours", '"zebra example"', "ours", "*", "alice -zebra", "org:theirs"],
        "action": [action.id for action in catalogue],
        "category": [category.id for category in catalogue.categories()],
        "from": ["2020-01-01", f"{NOON:%Y-%m-%d}", "9999-12-31"],
        "to": ["2020-01-01", "9999-12-31"],
        "tz": ["UTC", "Pacific/Kiritimati", "theirs"],
        "user": ["zebra", "alice"],
        "outcome": ["success", "failure"],
        "ip": ["198.51.100.0/24", "198.51.100.xxx", "203.0.113.0/24", "0.0.0.0/0"],
        "sort": list(SORTS),
        "page_size": [10, 25, 50, 100],
        "page": [1, 2, 3, 10**9],
        "cursor": cursors,
        "buckets": [1, 400],
        "org": ["theirs"],
    }
    paths = ["/v1/events"] * 60 + ["/v1/events/histogram", "/v1/actions", "/v1/events/{id}"] * 10
    paths.append("/v1/events/export.csv")  # each leaves an entry, which makes what follows slower
    asked = []
    for _ in range(10_000):
        path = chance.choice(paths).replace("{id}", chance.choice(their_ids + our_ids))
        names = chance.sample(list(pools), chance.choice((0, 1, 1, 2, 2, 3)))
        asked.append((path, {name: chance.choice(pools[name]) for name in names}))
    # An engine gets as many as it answers in that time; in the long round, all of them.
    answers = many(api, asked, seconds=seconds)
    assert len(answers) == 10_000 or seconds == 6
    assert len(answers) > 100
    seen = set()
    for (path, parameters), answer in zip(asked, answers, strict=False):
        # 429 where more exports than allowed are under way.
        assert answer.status_code in (200, 400, 404, 422, 429), (path, parameters, answer.text)
        seen.add((path.partition("/v1/events")[2][:8], answer.status_code))
        if answer.status_code == 200:
            assert "zebra" not in answer.text, (path, parameters)
            assert not any(event_id in answer.text for event_id in their_ids), (path, parameters)
        if answer.status_code == 200 and number_told(answer) is not None:
            only_theirs = {"zebra", '"zebra example"', "198.51.100.0/24", "198.51.100.xxx"} & set(
                map(str, parameters.values())
            )
            allowed = 0 if only_theirs else len(our_ids) + len(answers)
            assert (number_told(answer) or 0) <= allowed, (path, parameters)
    assert {("", 200), ("", 400), ("", 422), ("/histogr", 200)} <= seen
    api.stored()
    assert api.list(theirs, page_size=100) == before


# Plans and keys


def test_a_plan_that_is_downgraded_between_two_pages_ends_the_walk(memory_api: API) -> None:
    """A cursor is no ticket: what the token of each page says counts, for the plan, the scope and the time alike."""
    for _ in range(30):
        memory_api.record("domain.created")
    memory_api.stored()
    cursor = memory_api.list(page_size=10)["next"]
    asked = {"cursor": cursor, "page_size": "10"}
    for claims, status, name in (
        ({"plan": "free"}, 403, "plan-required"),
        ({"plan": None}, 403, "plan-required"),
        ({"scope": "audit:export"}, 403, "forbidden"),
        ({"exp": time.time() - 1}, 401, "unauthorized"),
    ):
        answer = memory_api.get("/v1/events", params=asked, token=memory_api.token(**claims))
        check_problem(answer, status, name)
    assert memory_api.get("/v1/events", params=asked).status_code == 200


class KeyServer:
    """A place that publishes keys, and counts how often it is asked."""

    def __init__(self) -> None:
        self.body = b""
        self.status = 200
        self.asked = 0
        outer = self

        class Keys(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.asked += 1
                self.send_response(outer.status)
                self.send_header("Location", "/elsewhere")
                self.end_headers()
                self.wfile.write(outer.body)

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self._server = HTTPServer(("127.0.0.1", 0), Keys)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}/keys"
        self.private: dict[str, ed25519.Ed25519PrivateKey] = {}

    def publish(self, *names: str, **more: Any) -> None:
        """Publish the keys of these names."""
        keys = []
        for name in names:
            private = self.private.setdefault(name, ed25519.Ed25519PrivateKey.generate())
            key = jwt.algorithms.OKPAlgorithm.to_jwk(private.public_key(), as_dict=True)
            keys.append(key | {"kid": name, "alg": "EdDSA"} | more)
        self.body, self.status = json.dumps({"keys": keys}).encode(), 200

    def token(self, name: str, kid: str | None = None) -> str:
        """A token signed with the key of this name."""
        claims = {"sub": "alice", "exp": time.time() + 600, "scope": "audit:read", "plan": "business"}
        return jwt.encode(claims, self.private[name], "EdDSA", headers={"kid": kid or name})

    def close(self) -> None:
        """End it."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def keys() -> Iterator[KeyServer]:
    """A place that publishes keys."""
    server = KeyServer()
    yield server
    server.close()


@pytest.fixture
def keyed(memory_api: API, keys: KeyServer) -> API:
    """The API with the keys that are published there."""
    return memory_api.with_settings(jwt_secret=None, jwks_url=keys.url)


def statuses(api: API, *sent: str) -> list[int]:
    """The statuses of a request with each of these tokens."""
    return [api.get("/v1/actions", token=token).status_code for token in sent]


def test_a_new_key_is_fetched_and_an_old_one_is_forgotten(
    keyed: API, keys: KeyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A token of a key that was published meanwhile is good, and one of a key that was withdrawn is good no longer."""
    monkeypatch.setattr(jwks, "PAUSE_S", 0.0)
    keys.publish("one")
    assert statuses(keyed, keys.token("one")) == [200]
    keys.publish("one", "two")
    assert statuses(keyed, keys.token("two"), keys.token("one")) == [200, 200]
    keys.publish("two", "three")
    assert statuses(keyed, keys.token("one"), keys.token("three")) == [200, 200]  # until the set is asked for again
    assert statuses(keyed, keys.token("one"), keys.token("two")) == [401, 200]
    monkeypatch.setattr(jwks, "KEPT_S", 0.0)
    keys.publish("three")
    assert statuses(keyed, keys.token("two"), keys.token("three")) == [401, 200]


def test_unknown_keys_cannot_be_used_to_hammer_the_place_that_publishes_them(keyed: API, keys: KeyServer) -> None:
    """However many key ids are made up, keys are asked for once in a while, and good tokens stay good."""
    keys.publish("one")
    good = keys.token("one")
    assert statuses(keyed, good) == [200]
    made_up = [keys.token("one", kid=f"made-up-{number}") for number in range(100)]
    assert set(statuses(keyed, *made_up)) == {401}
    assert statuses(keyed, good) == [200]
    assert keys.asked == 1


def test_a_place_that_is_down_is_not_hammered_either(
    keyed: API, keys: KeyServer, caplog: pytest.LogCaptureFixture
) -> None:
    """While the keys cannot be had, they are asked for once in a while, not with each request; the log says why."""
    keys.publish("one")
    keys.status = 500
    with caplog.at_level(logging.WARNING):
        for _ in range(30):
            check_problem(keyed.get("/v1/actions", token=keys.token("one")), 503, "keys-unavailable")
    assert keys.asked == 1
    said = [record.getMessage() for record in caplog.records]
    assert said == ["no keys could be had from AUDIT_JWKS_URL: HTTP 500"]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 200), (b"null", 200), (b"1", 200), (b"[]", 200), (b"{}", 200), (b'"keys"', 200), (b"<html>", 200),
        (b'{"keys": null}', 200), (b'{"keys": {}}', 200), (b'{"keys": []}', 200), (b'{"keys": [1, null, "x"]}', 200),
        (b'{"keys": [{"kty": "nonsense", "kid": "one"}]}', 200), (b'{"keys": [{"kid": "one"}]}', 200),
        (b"\xff\xfe", 200), (b"[" * 100_000, 200), (b'{"keys": [' * 5_000, 200), (None, 500), (None, 302), (None, 404),
    ],
)  # fmt: skip
def test_what_is_no_key_set_makes_nobody_a_forger(
    keyed: API, keys: KeyServer, monkeypatch: pytest.MonkeyPatch, body: bytes | None, status: int
) -> None:
    """An answer of the wrong shape is 503, and never 401 or 500; keys that are known already stay good meanwhile."""
    monkeypatch.setattr(jwks, "PAUSE_S", 0.0)
    keys.publish("one", "two")
    good, published = keys.token("one"), keys.body
    keys.body, keys.status = published if body is None else body, status
    answer = keyed.get("/v1/actions", token=good)
    check_problem(answer, 503, "keys-unavailable")
    assert answer.headers["retry-after"]
    assert "127.0.0.1" not in answer.text
    keys.body, keys.status = published, 200
    assert statuses(keyed, good) == [200]
    keys.body, keys.status = published if body is None else body, status
    assert statuses(keyed, good, keys.token("two"), keys.token("one", kid="three")) == [200, 200, 503]


def test_published_keys_serve_no_other_purpose(keyed: API, keys: KeyServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A key for encryption verifies nothing, nor does a shared secret that somebody published by mistake."""
    keys.publish("one", use="enc")
    assert statuses(keyed, keys.token("one")) == [401]
    monkeypatch.setattr(jwks, "PAUSE_S", 0.0)
    secret = b"x" * 32
    keys.body = json.dumps({"keys": [{"kty": "oct", "k": "eHh4" * 10 + "eHg", "kid": "two", "alg": "HS256"}]}).encode()
    claims = {"sub": "alice", "exp": time.time() + 600, "scope": "audit:read", "plan": "business"}
    assert statuses(keyed, jwt.encode(claims, secret, "HS256", headers={"kid": "two"})) == [401]
    other = rsa.generate_private_key(65_537, 2048)
    keys.publish("three")
    assert statuses(keyed, jwt.encode(claims, other, "RS256", headers={"kid": "three"})) == [401]


def test_a_token_cannot_say_where_its_key_is(keyed: API, keys: KeyServer) -> None:
    """Keys and addresses of keys in a token's own header (`jwk`, `jku`, `x5u`) count for nothing."""
    keys.publish("one")
    forger = ed25519.Ed25519PrivateKey.generate()
    claims = {"sub": "mallory", "exp": time.time() + 600, "scope": "audit:read", "plan": "business"}
    own = jwt.algorithms.OKPAlgorithm.to_jwk(forger.public_key(), as_dict=True)
    for header in (
        {"jwk": own},
        {"jku": "http://evil.example/keys"},
        {"x5u": "http://evil.example"},
        {"kid": "../one"},
    ):
        sent = jwt.encode(claims, forger, "EdDSA", headers={"kid": "one"} | header)
        assert statuses(keyed, sent) == [401]


# Cursors


def test_a_cursor_with_one_bit_changed_is_no_cursor(memory_api: API) -> None:
    """Whichever bit of it is turned, a cursor is refused."""
    for _ in range(11):
        memory_api.record("domain.created")
    memory_api.stored()
    cursor = memory_api.list(page_size=10)["next"]
    turned = [
        cursor[:place] + chr(ord(cursor[place]) ^ 1 << bit) + cursor[place + 1 :]
        for place in range(len(cursor))
        for bit in range(7)
    ]
    shorter = [cursor[:place] for place in range(1, len(cursor))]
    asked: list[Asked] = [("/v1/events", {"cursor": text}) for text in turned + shorter]
    for (_, parameters), answer in zip(asked, many(memory_api, asked), strict=True):
        assert answer.status_code == 400, parameters
        assert answer.json()["type"].endswith("invalid-cursor")


@pytest.mark.parametrize(
    "changed",
    [
        {"q": "b"}, {"q": None}, {"action": "domain.deleted"}, {"action": ["domain.created", "domain.deleted"]},
        {"category": "users"}, {"from": "2020-01-02"}, {"from": None}, {"to": "2090-01-02"}, {"tz": "Asia/Tokyo"},
        {"user": "bob"}, {"outcome": "failure"}, {"ip": "203.0.112.0/23"}, {"ip": None}, {"sort": "timestamp"},
    ],
)  # fmt: skip
def test_a_cursor_of_other_filters_is_no_cursor(memory_api: API, changed: dict[str, Any]) -> None:
    """A cursor goes on with the filters and the order that it was made for, and no others; a page may be longer."""
    for _ in range(11):
        memory_api.record("domain.created", target="a", user="alice", ip="203.0.113.9")
    memory_api.stored()
    filters: dict[str, Any] = {
        "q": "a", "action": "domain.created", "category": "domains", "from": "2020-01-01", "to": "2090-01-01",
        "user": "alice", "outcome": "success", "ip": "203.0.113.0/24", "sort": "-timestamp",
    }  # fmt: skip
    cursor = memory_api.get("/v1/events", params=filters | {"page_size": 10}).json()["next"]
    for size in (10, 100):
        again = memory_api.get("/v1/events", params=filters | {"cursor": cursor, "page_size": size})
        assert len(again.json()["items"]) == 1
    other = {name: value for name, value in (filters | changed).items() if value is not None}
    answer = memory_api.get("/v1/events", params=other | {"cursor": cursor, "page_size": 10})
    check_problem(answer, 400, "invalid-cursor")


def test_keys_of_cursors_can_be_changed(memory_api: API) -> None:
    """With the new key before the old one, walks go on; once the old one is gone, its cursors are."""
    for _ in range(30):
        memory_api.record("domain.created")
    memory_api.stored()

    def with_keys(given: str) -> API:
        return memory_api.with_settings(cursor_keys=Settings.from_environment({"AUDIT_CURSOR_KEYS": given}).cursor_keys)

    old, both, new = with_keys("old-key"), with_keys("new-key, old-key"), with_keys("new-key")
    cursor = old.list(page_size=10)["next"]
    further = both.list(page_size=10, cursor=cursor)["next"]
    assert len(new.list(page_size=10, cursor=further)["items"]) == 10
    for api, given in ((new, cursor), (old, further), (memory_api, cursor)):
        check_problem(api.get("/v1/events", params={"cursor": given}), 400, "invalid-cursor")


# The masked part of an address

HIDDEN, CONTROL = 77, 200
WITHOUT_EXPORTS = {"category": ["domains", "users"]}
"""Exports leave entries about themselves, which would be seen by what is asked at the same time."""


def masked_entries(api: API, org: str, octet: int, times: int = 3) -> None:
    """The same entries in each organisation, but for the hidden parts of their addresses."""
    first = int(NOON.timestamp() * 1000)
    addresses = (f"10.0.0.{octet}", "10.0.0.128", f"2001:db8::{octet:x}", "2001:db8::80", f"::ffff:10.0.0.{octet}")
    for number, ip in enumerate(addresses * times):
        api.record(
            ("domain.created", "user.deleted")[number % 2],
            id=uuid7(first + number // 5, number + 1),
            timestamp=NOON + timedelta(milliseconds=number // 5),  # several at the same time: only ids tell them apart
            target=f"seen from {ip}",
            detail=f"[{ip}]:4711",
            user="" if number % 3 else ip,
            ip=ip,
            org=org,
            context={"peer": ip, ip: True},
        )


def told(answer: httpx.Response) -> tuple[int, str, dict[str, str]]:
    """All that an answer tells, but for what names the request; of a cursor, its length."""
    headers = {name: value for name, value in answer.headers.items() if name != "x-request-id"}
    text = answer.text.replace(answer.headers["x-request-id"], "")
    try:
        body = json.loads(text)
        body.pop("received", None)  # when it was recorded, one after the other
        for name in ("next", "previous"):
            if body.get(name):
                body[name] = len(body[name])
        text = json.dumps(body)
    except ValueError:
        pass
    return answer.status_code, text, headers


def test_no_question_tells_the_hidden_octet(slow_api: API) -> None:
    """With every octet tried in every filter, an entry's answers are those of one that differs in the octet alone."""
    for octet in (HIDDEN, CONTROL):
        masked_entries(slow_api, f"org-{octet:03}", octet)
    slow_api.stored()
    asked: list[Asked] = []
    for guess in range(256):
        for address in (f"10.0.0.{guess}", f"2001:db8::{guess:x}"):
            network = f"{address}/{24 if '.' in address else 112}"
            asked += [
                ("/v1/events", {"q": address}),
                ("/v1/events", {"user": address}),
                ("/v1/events", {"ip": network, "sort": "timestamp"}),
                ("/v1/events", {"ip": address}),
            ]
        asked.append(("/v1/events/histogram", {"q": f'"{guess}"', "buckets": "2"}))
    for sort in SORTS:
        asked.append(("/v1/events", {"sort": sort, "page_size": "10"}))
        asked.append(("/v1/events/export.csv", {"sort": sort, "q": "seen"}))
    asked += [("/v1/events/histogram", {}), ("/v1/events", {"ip": f"10.0.0.{HIDDEN}/25"})]
    asked = [(path, parameters | WITHOUT_EXPORTS) for path, parameters in asked]
    first = int(NOON.timestamp() * 1000)
    asked += [(f"/v1/events/{uuid7(first + number // 5, number + 1)}", {}) for number in range(15)]
    tokens = [slow_api.token(org=f"org-{octet:03}", exp=time.time() + 900) for octet in (HIDDEN, CONTROL)]
    answers = [[told(answer) for answer in many(slow_api, asked, token)] for token in tokens]
    assert len(answers[0]) == len(answers[1]) == len(asked)
    for question, one, other in zip(asked, *answers, strict=True):
        assert one == other, question
    assert {status for status, _, _ in answers[0]} == {200, 422}


def test_all_hidden_octets_look_the_same(memory_api: API) -> None:
    """Of 256 organisations whose entries differ in the hidden octet alone, all see the same pages, counts and files."""
    asked: list[Asked] = [
        ("/v1/events", {"q": f"10.0.0.{HIDDEN}"}),
        ("/v1/events", {"q": f"-{HIDDEN}", "page_size": "10"}),
        ("/v1/events", {"ip": f"10.0.0.{HIDDEN}/24", "sort": "action"}),
        ("/v1/events/histogram", {"user": f"10.0.0.{HIDDEN}"}),
        ("/v1/events/export.csv", {"q": "seen"}),
    ]
    asked = [(path, parameters | WITHOUT_EXPORTS) for path, parameters in asked]
    for octet in range(256):
        masked_entries(memory_api, f"org-{octet:03}", octet, times=1)
    memory_api.stored()
    seen = [
        [told(answer) for answer in many(memory_api, asked, memory_api.token(org=f"org-{octet:03}"))]
        for octet in range(256)
    ]
    assert {status for status, _, _ in seen[0]} == {200}
    assert all(answers == seen[0] for answers in seen)


def test_the_ids_of_imported_entries_do_not_tell_the_hidden_octet(memory_api: API) -> None:
    """Of lines that differ in the hidden octet alone, an import makes the same id, whichever octet it is."""
    ids = set()
    for octet in range(256):
        line = {
            "timestamp": f"{NOON:%Y-%m-%dT%H:%M:%SZ}", "action": "domain.created", "ip": f"10.0.0.{octet}",
            "target": f"seen from 10.0.0.{octet}", "user": "alice", "context": {"peer": f"10.0.0.{octet}"},
        }  # fmt: skip
        (read,) = NDJSONReader(memory_api.pipeline).read([json.dumps(line).encode()])
        ids.add(read.id)  # type: ignore[union-attr]
    assert len(ids) == 1


def test_an_id_posted_again_does_not_tell_the_hidden_octet(api: API) -> None:
    """Each of 256 octets is answered alike, none goes to quarantine, and the entry stays as it was."""
    event = {"action": "domain.created", "target": "x", "id": uuid7(int(NOON.timestamp() * 1000), 1)}
    assert api.post(event | {"ip": f"10.0.0.{HIDDEN}"}).status_code == 202
    api.stored()
    before = api.get(f"/v1/events/{event['id']}").json()
    for octet in range(256):
        answer = api.post(event | {"ip": f"10.0.0.{octet}"})
        assert (answer.status_code, answer.json()) == (202, {"ids": [event["id"]]})
    api.stored()
    assert api.pipeline.status().quarantined == 0
    assert api.get(f"/v1/events/{event['id']}").json() == before
    api.post(event | {"ip": "10.0.1.1"})
    api.stored()
    assert api.pipeline.status().quarantined == 1


def test_what_leads_on_shows_nothing_of_what_others_write(api: API) -> None:
    """A cursor and a stream's place are of equal length, and hold no number, whoever wrote how much before."""
    seen: list[tuple[int, int]] = []
    query = Query("quiet")
    for number in range(11):
        api.record("domain.created", org="quiet", timestamp=NOON + timedelta(seconds=number))
    for _ in range(3):
        for number in range(40):
            api.record("domain.created", org="busy", target=str(number))
        api.stored()
        position = api.pipeline.store.arrivals(None).position
        place = api.app.state.audit.cursors.sign_resume(query, ResumePoint(position))
        cursor = api.list(api.token(org="quiet"), page_size=10)["next"]
        for text in (place, cursor):
            raw = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
            for start in range(len(raw)):
                with suppress(zlib.error):
                    assert not zlib.decompressobj().decompress(raw[start:]).endswith(position.encode())
        seen.append((len(place), len(cursor)))
    assert len(set(seen)) == 1


# Texts


HOSTILE = (
    "_exists_:target", "target:*", "/.*hostile.*/", "{!lucene}hostile", "hostile~2", "hostile^1000", "[hostile TO *]",
    "hostile && !x", "hostile OR y", "NEAR(hostile z)", "hostile'; DROP TABLE entries; --", '") OR 1=1 --', "${jndi:x}",
    "{{7*7}}", "<script>alert(1)</script>", "../../etc/passwd", "%00hostile", "\x00w", "\u202eelitsoh", "\x1b[2Jv",
    "a\\b\\c", "hos*tile", "hos?tile", "\ud83d\ude00k".encode("utf-16", "surrogatepass").decode("utf-16"),
)  # fmt: skip
EMPTY = (
    "*",
    "\\",
    '"',
    '""',
    "-",
    '-"',
    "()",
    "[" * 256,
    "{" * 256,
    "(" * 256,
    "\\" * 256,
    '"' * 31,
    "?:!^~",
    "%",
    "'",
)


def test_search_text_is_text_and_no_language(api: API) -> None:
    """Syntax of Lucene, SQL, FTS5, regular expressions and templates finds what has it as text, and breaks nothing."""
    for text in HOSTILE:
        api.record("domain.created", target=text, user="x", ip="")
    api.record("domain.deleted", target="something else", user="x", ip="")
    api.stored()
    everything = len(HOSTILE) + 1
    for text in HOSTILE:
        found = api.list(q=text.replace('"', " "))
        # A word is looked for in each field, and two may be in two: as the texts themselves say.
        assert text in [item["target"] for item in found["items"]], text
        assert 1 <= found["total"] < everything, text
        assert tokens(text)
    for text in EMPTY:
        found = api.list(q=text)
        assert found["total"] == everything, text
    for text in ("[" * 5000, "(" * 5000, "\\" * 5000, " ".join("abcdefghijklmnopqr"), "a*" * 300):
        check_problem(api.get("/v1/events", params={"q": text}), 422, "invalid-query")
    check_problem(api.get("/v1/events", params={"q": "x" * 60_000}), 414, "too-long")
    for raw in ("%ED%A0%80", "%C0%AF", "%FF%FE", "%00", "%F4%90%80%80", "+%2B+", "%", "%zz"):
        answer = api.get(f"/v1/events?q={raw}")
        assert answer.status_code == 200, raw


CELLS = (
    "", " ", "plain", "a,b", 'a "quoted" b', '"', '""', ",", "two\nlines", "two\r\nlines", "a\rb", "=1+1", "+1", "-1",
    "@SUM(A1)", "\t=1", "\r=1", "\n=1", "＝1", "＋1", "－1", "＠x", " =1", "'=1", "'", ";=1", "=HYPERLINK(\"http://x\",\"y\")",
    "-", "--", "1-2", "a=b", "=" * 300, "\u202e=1", "\x00x", "\x1b[31mred", "é", "日本", "😀", "\ufeff=1", "a\x0bb",
    "a\x0cb", "a\u2028b", "a\x85b", "x" * 1024,
)  # fmt: skip


def test_every_kind_of_cell_is_read_back_as_it_was(api: API) -> None:
    """A spreadsheet reads each cell as the entry has it, and runs none: what it might run has a quote before it."""
    for number, cell in enumerate(CELLS):
        api.record(
            "domain.created",
            target=cell,
            detail=cell,
            user=cell,
            ip="203.0.113.9",
            timestamp=NOON + timedelta(0, number),
        )
    api.stored()
    answer = api.get("/v1/events/export.csv", params={"sort": "timestamp", "action": "domain.created"})
    shown = [item for page in (1, 2) for item in api.list(sort="timestamp", page_size=25, page=page)["items"]]
    text = answer.content.decode("utf-8")
    assert text.startswith("\ufeffTimestamp,Action,Target,Detail,User,IP Address\r\n")
    rows = list(csv.reader(io.StringIO(text.removeprefix("\ufeff"), newline=""), strict=True))[1:]
    assert len(rows) == len(CELLS)
    for row, item, cell in zip(rows, shown, CELLS, strict=False):
        assert item["target"] == item["detail"] == item["user"] == cell
        assert row == [item["timestamp"], "Domain created", inert(cell), inert(cell), inert(cell), "203.0.113.xxx"]
        assert row[2][:1] not in (*"=+-@\t\r\n＝＋－＠",) or not cell
        assert row[2].removeprefix("'") == cell.removeprefix("'")


ODD = "a\r\nb\x1b[2J\x00\u202ec\u2028d\x7f</script>"


def test_no_character_splits_an_entry_or_a_header(api: API) -> None:
    """Line breaks, escapes, NUL and characters that turn the line are part of one entry, and escaped on their way."""
    sent = {"action": "domain.created", "target": ODD, "detail": ODD, "user": ODD, "context": {ODD: ODD}, "ip": ODD}
    recorded = api.post(sent, token=api.token(sub=ODD), headers={"x-request-id": "a\tb"})
    assert recorded.status_code == 202
    api.stored()
    answer = api.get("/v1/events")
    assert not set(answer.content) & {0, 10, 13, 27}
    (item,) = answer.json()["items"]
    assert (item["target"], item["detail"], item["user"], item["ip"]) == (ODD, ODD, ODD, "")
    assert api.get(f"/v1/events/{item['id']}").json()["context"][ODD] == ODD
    exported = api.get(
        "/v1/events/export.csv", params={"user": ODD}, token=api.token(sub=ODD), headers={"x-request-id": "x"}
    )
    rows = list(csv.reader(io.StringIO(exported.text.removeprefix("\ufeff"), newline=""), strict=True))
    assert [row[2:5] for row in rows[1:]] == [[ODD, ODD, ODD]]
    for header in exported.headers.values():
        assert header.isprintable()
    api.stored()
    assert api.list(action="audit.exported")["items"][0]["user"] == ODD
    for odd in ("%0d%0aSet-Cookie:%20x", "%00", "%1b"):
        refused = api.get(f"/v1/events/export.csv?tz={odd}")
        check_problem(refused, 422, "invalid-query")
        assert "set-cookie" not in refused.headers
        check_problem(api.get(f"/v1/events/{odd}"), 404, "not-found")


# Proxies


@pytest.mark.parametrize(
    ("headers", "seen"),
    [
        ([], "127.0.0.xxx"),
        ([("x-forwarded-for", "198.51.100.1")], "198.51.100.xxx"),
        ([("x-forwarded-for", "203.0.113.66, 198.51.100.1")], "198.51.100.xxx"),
        ([("x-forwarded-for", "203.0.113.66"), ("x-forwarded-for", "198.51.100.1")], "198.51.100.xxx"),
        ([("x-forwarded-for", "203.0.113.66"), ("X-FORWARDED-FOR", "198.51.100.1, 127.0.0.9")], "198.51.100.xxx"),
        ([("x-forwarded-for", "203.0.113.66, nonsense")], ""),
        ([("x-forwarded-for", "203.0.113.66, 198.51.100.1:4711")], "198.51.100.xxx"),
        ([("forwarded", "for=203.0.113.66"), ("x-real-ip", "203.0.113.66")], "127.0.0.xxx"),
        ([("x-forwarded-host", "evil.example"), ("x-forwarded-for", "198.51.100.1")], "198.51.100.xxx"),
        ([("x-forwarded-for", ", ,")], "127.0.0.xxx"),
        ([("x-forwarded-for", "203.0.113.66," * 2000 + "198.51.100.1")], "198.51.100.xxx"),
    ],
)
def test_a_client_cannot_choose_the_address_that_is_recorded(
    memory_api: API, headers: list[tuple[str, str]], seen: str
) -> None:
    """Behind a trusted proxy the last hop that it did not add itself counts; what a client sent before does not."""
    trusted = Settings.from_environment({"AUDIT_TRUSTED_PROXIES": "127.0.0.0/8"}).trusted_proxies
    api = memory_api.with_settings(trusted_proxies=trusted)
    assert api.get("/v1/events/export.csv", headers=headers).status_code == 200
    api.stored()
    (entry,) = api.list(action="audit.exported")["items"]
    assert entry["ip"] == seen
    untrusted = memory_api.get("/v1/events/export.csv", headers=headers, peer="192.0.2.7")
    assert untrusted.status_code == 200
    memory_api.stored()
    assert memory_api.list(action="audit.exported")["items"][0]["ip"] == "192.0.2.xxx"
