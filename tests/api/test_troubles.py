"""What is wrong is shown while it lasts, with what to do: by `troubles`, `doctor`, `/readyz` and the metrics alike."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from unittest import mock

import apsw
import orjson
import pytest

from audit_pipeline import AuditPipeline, SpoolFull, StoreUnavailable, room
from audit_pipeline import spool as spool_module
from audit_pipeline.actions import catalogue
from audit_pipeline.cli import main
from audit_pipeline.event import AuditEvent
from audit_pipeline.settings import Settings
from audit_pipeline.spool import Quarantined
from audit_pipeline.stores.sqlite import SQLiteStore
from audit_pipeline.troubles import KINDS, troubles

from .conftest import API

MIB = 2**20


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("AUDIT_STORE_URL", f"sqlite:///{tmp_path / 'audit.db'}")
    monkeypatch.setenv("AUDIT_SPOOL_LIMIT", str(MIB))
    monkeypatch.setenv("AUDIT_SPOOL_AGE", "3600")
    monkeypatch.setenv("AUDIT_ON_FULL", "fail_open")
    monkeypatch.setattr(room, "OFTEN_S", 0.0)
    return Settings.from_environment()


@pytest.fixture
def audit(settings: Settings) -> Iterator[AuditPipeline]:
    with AuditPipeline.open(settings=settings, ship=False) as pipeline:
        pipeline.store.setup()
        pipeline.record("domain.created")
        pipeline.spool.mark_shipped(1)
        yield pipeline


# Each harm is a block: while it lasts, the trouble is there, and afterwards it is not.


@contextmanager
def limit(audit: AuditPipeline, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with suppress(SpoolFull):
        while True:
            audit.accept([audit.prepare(catalogue["domain.created"], {"detail": "d" * 60_000})])
    yield
    audit.spool.mark_shipped(audit.status().accepted)


@contextmanager
def age(audit: AuditPipeline, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with _waited(audit, 4_000_000):
        yield


@contextmanager
def full_disk(audit: AuditPipeline, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with _free(0):
        yield


@contextmanager
def low_disk(audit: AuditPipeline, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with _free(room.FLOOR * 2):
        yield


@contextmanager
def _free(size: int) -> Iterator[None]:
    with (
        mock.patch.object(room, "free_bytes", return_value=(size, 2**40)),
        mock.patch.object(spool_module, "free_bytes", return_value=(size, 2**40)),
    ):
        yield


@contextmanager
def read_only(audit: AuditPipeline, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    def refused(db: object) -> None:
        raise apsw.ReadOnlyError("attempt to write a readonly database")

    with mock.patch.object(spool_module, "try_write", refused):
        yield


@contextmanager
def unusable(audit: AuditPipeline, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    away = audit.spool.path.parent.with_name("away")
    audit.spool.path.parent.rename(away)
    yield
    away.rename(audit.spool.path.parent)


@contextmanager
def damaged(audit: AuditPipeline, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    audit.spool.file.ask(lambda db: db.execute("PRAGMA wal_checkpoint(TRUNCATE)"))
    audit.spool.file.reopen()
    content = audit.spool.path.read_bytes()
    audit.spool.path.write_bytes(bytes(4096) + content[4096:])
    audit.spool.file.reopen()
    audit.status()
    yield
    for file in audit.status().damaged:
        file.rename(file.with_name("moved away"))
    audit.spool.mark_shipped(audit.status().accepted)


@contextmanager
def gap(audit: AuditPipeline, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    audit.gaps.count([audit.prepare(catalogue["domain.created"], {})], "disk")
    yield
    audit._tell_gaps()
    audit.spool.mark_shipped(audit.status().accepted)


@contextmanager
def quarantined(audit: AuditPipeline, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (event,) = audit.spool.kept(0)
    audit.spool.mark_shipped(1, [Quarantined(event, "because")])
    yield
    audit.spool.settle([1], {})


@contextmanager
def quarantine_full(audit: AuditPipeline, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with suppress(SpoolFull):
        while True:
            audit.accept([audit.prepare(catalogue["domain.created"], {"detail": "d" * 60_000})])
            (event,) = audit.spool.pending()
            audit.spool.mark_shipped(event.sequence, [Quarantined(event, "because")])
    yield
    audit.spool.settle([row.sequence for row in audit.spool.quarantine()], {})


@contextmanager
def stopped(audit: AuditPipeline, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    def down(self: SQLiteStore, events: Sequence[AuditEvent]) -> None:
        raise StoreUnavailable("it is down, for the test")

    with mock.patch.object(SQLiteStore, "append", down):
        audit.record("domain.created")
        with closing(AuditPipeline(audit.store, audit.spool.path)) as shipping:
            assert shipping.shipper is not None
            _eventually(lambda: shipping.shipper is not None and shipping.shipper.stopped is not None)
            shipping.shipper.stop()
        yield
    with closing(AuditPipeline(audit.store, audit.spool.path)):
        _eventually(lambda: audit.status().pending == 0)


@contextmanager
def waiting(audit: AuditPipeline, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with _waited(audit, 120_000):
        yield


@contextmanager
def _waited(audit: AuditPipeline, milliseconds: int) -> Iterator[None]:
    audit.record("domain.created")
    audit.spool.file.ask(lambda db: db.execute("UPDATE entries SET received = received - ?", (milliseconds,)))
    yield
    audit.spool.mark_shipped(2)


def _eventually(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 15
    while not condition():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.01)


HARMS = {
    "spool-limit": (limit, "AUDIT_SPOOL_LIMIT is 1,048,576", "AUDIT_SPOOL_LIMIT"),
    "spool-age": (age, "AUDIT_SPOOL_AGE is 3,600", "AUDIT_SPOOL_AGE"),
    "disk-full": (full_disk, "the disk is full: 0 bytes are free", "Free some room"),
    "disk-low": (low_disk, "33.6 MB are free", "Free some room"),
    "spool-read-only": (read_only, "cannot be written", "Mount its disk for writing"),
    "spool-unusable": (unusable, "cannot be created", "Put that right"),
    "spool-damaged": (damaged, ".damaged-20", "move them elsewhere"),
    "gap-open": (gap, "1 entry was not recorded", "audit.gap"),
    "quarantine": (quarantined, "1 entry", "quarantine list"),
    "quarantine-full": (quarantine_full, "no entry is recorded: ", "quarantine retry"),
    "shipping-stopped": (stopped, "it is down, for the test", "Entries stay in the spool"),
    "waiting": (waiting, "no process ships them", "audit-pipeline ship"),
}
REFUSING = {"spool-limit", "spool-age", "disk-full", "spool-read-only", "spool-unusable", "quarantine-full"}
BESIDE = {"spool-age": {"waiting"}, "disk-low": set(), "quarantine-full": {"quarantine"}}
"""What a harm brings along."""


def found(audit: AuditPipeline) -> dict[str, tuple[str, str]]:
    return {trouble.kind: (trouble.text, trouble.advice) for trouble in troubles(audit.spool, audit.gaps)}


def test_every_kind_is_tried() -> None:
    """Each trouble that there can be has a harm here."""
    assert set(HARMS) == set(KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_a_trouble_lasts_as_long_as_its_cause(audit: AuditPipeline, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is found while it lasts, alone, in one line with what to do, and is gone afterwards."""
    harm, said, advice = HARMS[kind]
    assert found(audit) == {}
    with harm(audit, monkeypatch):
        wrong = found(audit)
        assert set(wrong) == {kind} | BESIDE.get(kind, set())
        assert said in wrong[kind][0]
        assert advice in wrong[kind][1]
        assert "\n" not in "".join(wrong[kind])
    assert found(audit) == {}


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("spool-unusable",)])
def test_doctor_says_what_to_do(
    audit: AuditPipeline, kind: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command says the same, and fails while something is wrong."""
    harm, said, advice = HARMS[kind]
    with harm(audit, monkeypatch):
        status, wrong = doctor(monkeypatch, capsys)
        assert status == 1
        assert [one for one in wrong if said in one["detail"] and advice in one["do"]], wrong
    after = 0
    while events := audit.spool.kept(after):  # as the mark says that they were
        audit.store.append(events)
        after = events[-1].sequence
    assert doctor(monkeypatch, capsys) == (0, [])


def doctor(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> tuple[int, list[dict[str, str]]]:
    """The exit status, and what is wrong."""
    capsys.readouterr()
    monkeypatch.setattr(sys, "argv", ["audit-pipeline", "doctor", "--json"])
    with pytest.raises(SystemExit) as ended:
        main()
    findings = [orjson.loads(line) for line in capsys.readouterr().out.splitlines()]
    return int(ended.value.code or 0), [finding for finding in findings if not finding["ok"]]


@pytest.mark.parametrize("kind", KINDS)
def test_metrics_and_readiness_tell_it(
    audit: AuditPipeline, settings: Settings, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Metrics are answered in each of these states, and have one gauge at 1; ready is who can record and answer."""
    client = API(settings, audit)
    harm, _, _ = HARMS[kind]
    assert told(client) == (set(), 200)
    with harm(audit, monkeypatch):
        wrong, ready = told(client)
        assert wrong == {kind} | BESIDE.get(kind, set())
        assert ready == (503 if kind in REFUSING else 200)
    assert told(client) == (set(), 200)


def told(client: API) -> tuple[set[str], int]:
    """The troubles that metrics tell, and the status of readiness."""
    answer = client.get("/metrics", token=None)
    assert answer.status_code == 200
    ready = client.get("/readyz", token=None)
    assert ready.json() == {"status": "ready" if ready.status_code == 200 else "unavailable"}
    return set(re.findall(r'^audit_trouble\{kind="([a-z-]+)"\} 1$', answer.text, re.MULTILINE)), ready.status_code


def test_figures_of_the_spool(audit: AuditPipeline, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Limits, what is used and free, what was refused and why, gaps, damaged files, and who ships, as figures."""
    client = API(settings, audit)

    def figures() -> dict[str, float]:
        lines = client.get("/metrics", token=None).text.splitlines()
        pairs = (line.rpartition(" ") for line in lines if not line.startswith("#"))
        return {name.removeprefix("audit_"): float(value) for name, _, value in pairs}

    with limit(audit, monkeypatch):
        audit.record("domain.created")
        now = figures()
        assert now["spool_limit_bytes"] == MIB
        assert MIB <= now["spool_used_bytes"] <= now["spool_bytes"]
        assert now["spool_free_bytes"] > 0
        assert now["spool_gap"] == 1
        assert now['spool_refused_total{reason="limit"}'] == 2
        assert now['spool_refused_total{reason="disk"}'] == 0
        assert now["shipper_running"] == 0
    audit._tell_gaps()
    with damaged(audit, monkeypatch):
        assert figures()["spool_damaged"] == 1
    with stopped(audit, monkeypatch):
        now = figures()
        assert now['shipper_stopped{kind="store-unavailable"}'] == 1
        assert now['shipper_stopped{kind="fault"}'] == 0
        assert now["shipper_stopped_seconds"] > 0
    assert figures()["shipper_stopped_seconds"] == 0
