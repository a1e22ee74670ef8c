"""What an application's own tests are given."""

from __future__ import annotations

from pathlib import Path

import anyio
import httpx
import pytest
import structlog
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from audit_pipeline import AuditMiddleware, AuditPipeline, InvalidEvent
from audit_pipeline.testing import audit_log, no_unaudited_requests


def test_entries_are_seen_at_once_and_afterwards() -> None:
    """What an application logs or records is there, in order, inside the block and after it."""
    with audit_log() as log:
        processors = [log.pipeline.processor, structlog.processors.JSONRenderer()]
        structlog.wrap_logger(structlog.ReturnLogger(), processors=processors).info(
            "domain.created", target="a", port=25
        )
        log.pipeline.record("domain.deleted", target="a")
        assert [event.action for event in log.entries] == ["domain.created", "domain.deleted"]
    assert [event.action for event in log.entries] == ["domain.created", "domain.deleted"]
    assert log.assert_recorded("domain.created", port=25).target == "a"


def test_one_within_another_gives_back_what_it_took(tmp_path: Path) -> None:
    """A fixture may have begun one for the same application: it goes on afterwards; and then the application's own."""
    with AuditPipeline.open("memory://", spool=tmp_path / "s.db", ship=False) as audit:
        with audit_log(audit) as outer:
            with audit_log(audit) as inner:
                audit.record("domain.created", user="a", ip="")
            audit.record("domain.deleted", user="a", ip="")
        audit.record("user.created", user="a", ip="")
        assert [event.action for event in inner.entries] == ["domain.created"]
        assert [event.action for event in outer.entries] == ["domain.deleted"]
        assert audit.status().accepted == 1


def test_an_entry_is_found_by_fields_and_context() -> None:
    """`assert_recorded` gives the newest entry whose fields, address in full and context keys are as expected."""
    with audit_log() as log:
        for number in (1, 2):
            log.pipeline.record("domain.created", target="a", user="alice", ip="10.0.0.5", number=number, to_bytes="x")
    assert log.assert_recorded("domain.created").context["number"] == 2
    assert log.assert_recorded("domain.created", ip="10.0.0.5", number=1, to_bytes="x").user == "alice"


def test_a_missing_entry_is_told_with_those_that_there_are() -> None:
    """The failure says what was expected, and lists what was recorded."""
    with audit_log() as log:
        with pytest.raises(AssertionError, match=r"no entry domain\.deleted with {'target': 'a'}; there are: none"):
            log.assert_recorded("domain.deleted", target="a")
        log.assert_nothing_recorded()
        log.pipeline.record("domain.created", target="a", user="alice")
        with pytest.raises(AssertionError, match=r"(?s)there are:.*domain\.created target='a' user='alice'"):
            log.assert_recorded("domain.created", target="b")
        with pytest.raises(AssertionError, match=r"with {'tagret': 'a'}; no entry has tagret; there are:"):
            log.assert_recorded("domain.created", tagret="a")
        with pytest.raises(AssertionError, match=r"did you mean domain\.created"):
            log.assert_recorded("domain.craeted", target="a")
        with pytest.raises(AssertionError, match=r"entries were made:.*\n.*domain\.created"):
            log.assert_nothing_recorded()


def test_invalid_entries_raise() -> None:
    """A test hears of an entry with problems; an application that wants to see how they are kept says so."""
    with audit_log() as log:
        with pytest.raises(InvalidEvent, match="ip: not an IP address"):
            log.pipeline.record("domain.created", ip="nonsense")
        log.pipeline.record("domain.created")
    with audit_log(on_invalid="record") as log:
        log.pipeline.record("domain.created", ip="nonsense")
    assert log.entries[0].problems[0].startswith("ip: ")


def test_nothing_is_written_where_the_environment_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A test never reaches the store or the spool of the environment, and leaves no file behind."""
    monkeypatch.setenv("AUDIT_STORE_URL", f"sqlite:///{tmp_path / 'audit.db'}")
    monkeypatch.setenv("AUDIT_SPOOL", str(tmp_path / "spool.db"))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with audit_log() as log:
        log.pipeline.record("domain.created")
        folder = log.pipeline.spool.path.parent
    assert not folder.exists()
    assert list(tmp_path.iterdir()) == []


async def _done(request: Request) -> PlainTextResponse:
    return PlainTextResponse("done")


def _post(path: str) -> None:
    app = AuditMiddleware(Starlette(routes=[Route("/domains/{name}", _done, methods=["POST"])]))

    async def send() -> None:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as http:
            assert (await http.post(path)).status_code == 200

    anyio.run(send)


def test_a_request_without_an_entry_fails_with_its_route() -> None:
    """Both blocks fail at their end, and name the routes that changed something without an entry."""
    with (
        pytest.raises(AssertionError, match=r"without an audit entry: POST /domains/{name} \(1×\)"),
        no_unaudited_requests(),
    ):
        _post("/domains/a")
    with pytest.raises(AssertionError, match=r"POST /domains/{name} \(1×\)"), audit_log():
        _post("/domains/a")


def test_an_error_inside_is_not_hidden() -> None:
    """An error of the test itself comes out, whatever requests there were."""
    with pytest.raises(ZeroDivisionError), audit_log():
        raise ZeroDivisionError(_post("/domains/a"))
    with no_unaudited_requests():
        pass


def test_an_applications_own_pipeline_is_redirected(tmp_path: Path) -> None:
    """What an application's pipeline takes during a test comes to the test, and not into its own spool."""
    with AuditPipeline.open(f"sqlite:///{tmp_path / 'audit.db'}", ship=False) as audit:
        log = structlog.wrap_logger(structlog.ReturnLogger(), processors=[audit.processor, lambda *given: given[2]])
        with audit_log(audit) as entries:
            log.info("domain.created", target="example.com")
            with pytest.raises(InvalidEvent):
                log.info("domain.created", ip="nonsense")
        entries.assert_recorded("domain.created", target="example.com")
        assert audit.status().accepted == 0
        log.info("domain.deleted", ip="nonsense")
        assert audit.status().accepted == 1
