"""The description for programs: `docs/openapi.json` is that of the code, and the code keeps to it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from audit_pipeline.api import openapi
from audit_pipeline.api.problems import KINDS, TYPE_PREFIX

from audit_pipeline.query import FILTERS

from .conftest import API, served

ROOT = Path(__file__).parent.parent.parent
DOCUMENT = ROOT / "docs" / "openapi.json"
METHODS = {"get", "post"}


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    """The committed description."""
    read: dict[str, Any] = json.loads(DOCUMENT.read_text())
    return read


def resolved(document: dict[str, Any], part: dict[str, Any]) -> dict[str, Any]:
    """A part of the description, or the one that it refers to."""
    while "$ref" in part:
        found: Any = document
        for name in part["$ref"].removeprefix("#/").split("/"):
            found = found[name]
        part = found
    return part


def test_the_committed_description_is_that_of_the_code(memory_api: API) -> None:
    """`make openapi` would change nothing."""
    assert openapi.text(memory_api.app.routes) == DOCUMENT.read_text(), "run `make openapi`"


def test_every_call_of_the_readme_is_described_and_no_other(document: dict[str, Any]) -> None:
    """The README's table and the description have the same calls."""
    table = re.findall(r"^\| (`(?:GET|POST) /[^|]*`) \|", (ROOT / "README.md").read_text(), re.M)
    shown = {tuple(call.split(" ")) for row in table for call in re.findall(r"`((?:GET|POST) /\S*)`", row)}
    described = {
        (method.upper(), re.sub(r"\{\w+\}", "{id}", path))
        for path, calls in document["paths"].items()
        for method in calls
    }
    assert described == shown - {("GET", "/")}


def test_every_parameter_is_described(document: dict[str, Any]) -> None:
    """What the query parser takes stands in the description of each call that selects entries, and nothing else."""
    more = {
        "/v1/events": {"page_size", "page", "cursor"},
        "/v1/events/export.csv": set(),
        "/v1/events/histogram": {"buckets"},
        "/v1/events/stream": set(),
    }
    for path, own in more.items():
        parameters = document["paths"][path]["get"]["parameters"]
        assert {one["name"] for one in parameters if one["in"] == "query"} == set(FILTERS) | own
        assert not any(one["required"] for one in parameters)


def test_every_answer_is_described(document: dict[str, Any]) -> None:
    """Each call has what it answers, its request id, and its problems by status with their types; each is used."""
    used = {"method-not-allowed"}  # which belongs to no call
    for calls in document["paths"].values():
        for method, call in calls.items():
            assert method in METHODS
            assert call["description"]
            assert {"403", "414", "421", "500"} < set(call["responses"])
            assert any(status.startswith("2") for status in call["responses"])
            for status, given in call["responses"].items():
                answer = resolved(document, given)
                assert answer["description"]
                assert "X-Request-ID" in answer["headers"]
                if status >= "400" and "application/json" not in answer["content"]:
                    (kind, body) = next(iter(answer["content"].items()))
                    assert kind == "application/problem+json"
                    base, own = body["schema"]["allOf"]
                    assert base == {"$ref": "#/components/schemas/Problem"}
                    assert own["properties"]["status"] == {"const": int(status)}
                    names = [name.removeprefix(TYPE_PREFIX) for name in own["properties"]["type"]["enum"]]
                    assert all(KINDS[name][0] == int(status) for name in names)
                    assert list(body["examples"]) == names
                    used |= set(names)
    assert used == set(KINDS)


def test_calls_need_a_token_or_say_that_they_do_not(document: dict[str, Any]) -> None:
    """Bearer tokens are described, and only health is for everyone."""
    assert document["components"]["securitySchemes"]["bearer"]["scheme"] == "bearer"
    security = {path: call.get("security") for path, calls in document["paths"].items() for call in calls.values()}
    assert {path for path, needed in security.items() if needed is None} == {"/healthz", "/readyz"}
    assert security.pop("/metrics") == [{"bearer": []}, {}]
    assert all(needed in (None, [{"bearer": []}]) for needed in security.values())


def test_files_and_streams_have_their_media_types(document: dict[str, Any]) -> None:
    """What is no JSON is described as what it is."""
    for path, kind in (
        ("/v1/events/export.csv", "text/csv"),
        ("/v1/events/stream", "text/event-stream"),
        ("/metrics", "text/plain"),
    ):
        assert list(document["paths"][path]["get"]["responses"]["200"]["content"]) == [kind]


def test_each_reference_leads_somewhere(document: dict[str, Any]) -> None:
    """No part refers to one that is not there, and none is there that nothing refers to."""
    references = set(re.findall(r'"\$ref": "#/components/([^"]+)"', DOCUMENT.read_text()))
    parts = {
        f"{kind}/{name}"
        for kind, named in document["components"].items()
        for name in named
        if kind != "securitySchemes"
    }
    assert references == parts


def test_made_up_requests_are_answered_as_described(slow_api: API, tmp_path: Path) -> None:
    """Schemathesis, which makes up right and wrong requests from the description, finds no other answer."""
    for number, action in enumerate(("domain.created", "user.deleted", "settings.updated")):
        slow_api.record(action, target=str(number), user="alice@example.com", ip="203.0.113.9")
    slow_api.stored()
    checks = (
        "not_a_server_error", "status_code_conformance", "content_type_conformance", "response_headers_conformance",
        "response_schema_conformance", "allow_header_conformance", "unsupported_method",
    )  # fmt: skip
    with served(slow_api.app) as address:
        done = subprocess.run(
            [
                *(sys.executable, "-m", "schemathesis.cli", "run", str(DOCUMENT), "--url", address, "--no-color"),
                *("--checks", ",".join(checks), "--phases", "examples,coverage,fuzzing", "--exclude-path"),
                *("/v1/events/stream", "--max-examples", "60", "--seed", "1", "--request-timeout", "20"),
                *("--suppress-health-check", "all", "--warnings", "off", "--max-failures", "5"),
                *("--header", f"Authorization: Bearer {slow_api.token(exp=4_000_000_000)}"),
            ],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=180,
        )
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr
    assert re.search(r"Tested: +9\n", done.stdout), done.stdout
