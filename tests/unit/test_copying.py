"""A copy of one store into another: what it waits for, what it gives up, and from where it goes on."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import apsw
import pytest

from audit_pipeline import SettingsError, StoreUnavailable, offering
from audit_pipeline.actions import catalogue
from audit_pipeline.copying import Copied, Copy, same_place
from audit_pipeline.errors import StoreError, StoreMissing
from audit_pipeline.event import AuditEvent, IdFactory, now_ms, uuid7
from audit_pipeline.normalize import build_event
from audit_pipeline.offering import BATCH, in_batches
from audit_pipeline.query import Query
from audit_pipeline.stores import Refusal, Snapshot, Store, open_store
from audit_pipeline.stores.memory import MemoryStore

IDS = IdFactory()
NOW = now_ms()


def entry(place: int = 0, org: str = "default", **given: object) -> AuditEvent:
    """An entry, later by as many milliseconds as its place says."""
    given = {"timestamp": (NOW - 100_000 + place) / 1000} | given
    event = build_event(catalogue["domain.created"], given | {"org": org}, IDS)
    return replace(event, origin="origin", sequence=place + 1)


def entries(store: Store) -> list[AuditEvent]:
    assert isinstance(store, MemoryStore)
    events = [entry.event for entry in store._entries.values()]
    return sorted(events, key=lambda event: (event.org, event.timestamp, event.id))


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that marks are kept in."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    return tmp_path / "audit-pipeline"


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("audit_pipeline.offering.BATCH", 10)


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Time passes only while the copy pauses."""
    taken: list[float] = []
    monkeypatch.setattr(offering.time, "sleep", taken.append)
    monkeypatch.setattr(offering.time, "monotonic", lambda: sum(taken))
    return taken


class Moody(MemoryStore):
    """A store that does something else before some of its appends."""

    def __init__(self, before: Callable[[Sequence[AuditEvent]], None]) -> None:
        super().__init__()
        self.before = before

    def append(self, events: Sequence[AuditEvent]) -> list[Refusal]:
        self.before(events)
        return super().append(events)


def finish(copy: Copy) -> list[Refusal]:
    return [refusal for _, refusals in copy.run() for refusal in refusals]


def begun(source: Store, target: Store, batches: int) -> None:
    """Copy some batches, and no more."""
    run = Copy(source, target).run()
    for _ in range(batches):
        next(run)
    run.close()


def test_an_interrupted_copy_goes_on_at_its_mark() -> None:
    """Organisations and times that were passed are not read again, and the counts are those of all runs."""
    source, offered = MemoryStore(), []
    target = Moody(offered.extend)
    source.append([entry(place, org) for org in ("a", "b", "c") for place in range(25)])
    target.append(taken := [entry(0, "a", id=entries(source)[3].id, target="other")])
    begun(source, target, 5)
    assert len(offered) == 1 + 25 + 20
    offered.clear()
    copy = Copy(source, target)
    assert copy.resumed_at == ("b", entries(source)[44].timestamp)
    assert copy.copied == Copied(44, 1)
    assert copy.left() == 6 + 25
    assert finish(copy) == []
    assert len(offered) == 5 + 25
    assert copy.copied == Copied(74, 1)
    assert entries(target) == sorted(
        [*taken, *(event for event in entries(source) if event.id != taken[0].id)],
        key=lambda event: (event.org, event.timestamp, event.id),
    )


def test_a_mark_within_one_millisecond_parts_nothing(state: Path) -> None:
    """Of entries of one and the same time, those after the mark are copied, once."""
    source, target = MemoryStore(), MemoryStore()
    source.append([entry(0, id=uuid7(NOW, number)) for number in range(35)])
    begun(source, target, 2)
    copy = Copy(source, target)
    assert copy.resumed_at is not None
    finish(copy)
    assert copy.copied == Copied(35, 0)
    assert entries(target) == entries(source)
    assert list(state.iterdir()) == []


@pytest.mark.parametrize("replaced", ["source", "target"])
def test_a_mark_is_of_no_use_where_a_store_was_replaced(replaced: str) -> None:
    """Where one of the stores was made anew, the copy begins anew: resuming would leave out what is not there."""
    source, target = MemoryStore(), MemoryStore()
    source.append([entry(place) for place in range(25)])
    begun(source, target, 2)
    if replaced == "source":
        source = MemoryStore()
        source.append([entry(place) for place in range(25)])
    else:
        target = MemoryStore()
    copy = Copy(source, target)
    assert copy.resumed_at is None
    finish(copy)
    assert {event.id for event in entries(source)} <= {event.id for event in entries(target)}


def test_a_target_that_was_deleted_begins_anew(tmp_path: Path) -> None:
    """A file that is not there any more has nothing of what was passed."""
    source, target = MemoryStore(), open_store(f"sqlite:///{tmp_path / 'audit.db'}")
    source.append([entry(place) for place in range(25)])
    begun(source, target, 2)
    target.close()
    for file in tmp_path.glob("audit.db*"):
        file.unlink()
    with pytest.raises(StoreMissing):
        target.check()
    copy = Copy(source, target)
    assert copy.resumed_at is None
    finish(copy)
    assert all(target.get("default", event.id) == event for event in entries(source))
    target.close()


@pytest.mark.parametrize("written", [b"", b"{", b"[]", b"null", b'{"org": "a"}', b'{"copied": {}}', b"\xff"])
def test_a_mark_that_cannot_be_read_is_none(state: Path, written: bytes) -> None:
    """A damaged mark, or one of another version, costs the copy its head start only."""
    source, target = MemoryStore(), MemoryStore()
    source.append([entry(place) for place in range(25)])
    begun(source, target, 1)
    (file,) = state.iterdir()
    file.write_bytes(written)
    copy = Copy(source, target)
    assert copy.resumed_at is None
    finish(copy)
    assert entries(target) == entries(source)


def test_restart_forgets_the_mark(state: Path) -> None:
    """With `restart` everything is read again, and another run does not know the old mark either."""
    source, target = MemoryStore(), MemoryStore()
    source.append([entry(place) for place in range(25)])
    begun(source, target, 2)
    assert Copy(source, target, restart=True).resumed_at is None
    copy = Copy(source, target)
    assert copy.resumed_at is None
    finish(copy)
    assert copy.copied == Copied(25, 0)


def test_two_pairs_of_stores_have_two_marks(tmp_path: Path, state: Path) -> None:
    """A copy never goes on from where one between other stores stopped."""
    source = open_store(f"sqlite:///{tmp_path / 'source.db'}")
    source.append([entry(place) for place in range(25)])
    targets = [open_store(f"sqlite:///{tmp_path / name}.db") for name in "ab"]
    finish(Copy(source, targets[1]))  # it has all that the other one's mark speaks of, too
    begun(source, targets[0], 1)
    assert Copy(source, targets[1]).resumed_at is None
    assert Copy(source, targets[0]).resumed_at is not None
    for store in (source, *targets):
        store.close()


def test_an_organisation_without_entries_is_none(tmp_path: Path) -> None:
    """A name that a store knows from entries that are gone is not one of its organisations."""
    store = open_store(f"sqlite:///{tmp_path / 'audit.db'}")
    store.append([entry(0, "gone"), entry(1, "there")])
    with closing(apsw.Connection(str(tmp_path / "audit.db"))) as db:
        db.execute("DELETE FROM entries WHERE org = (SELECT org FROM orgs WHERE name = 'gone')")
    assert store.organisations() == ["there"]
    store.close()


def test_a_target_that_is_away_is_waited_for(pauses: list[float], caplog: pytest.LogCaptureFixture) -> None:
    """A batch is offered again, with longer and longer pauses, and what is waited for is said once."""
    down = [StoreUnavailable("restarting")] * 4

    def before(events: Sequence[AuditEvent]) -> None:
        if down:
            raise down.pop()

    source, target = MemoryStore(), Moody(before)
    source.append([entry(place) for place in range(25)])
    with caplog.at_level(logging.WARNING):
        finish(Copy(source, target))
    assert pauses == [0.1, 0.2, 0.4, 0.8]
    assert [record.getMessage() for record in caplog.records] == ["waiting for the target: restarting"]
    assert entries(target) == entries(source)


def test_a_target_that_stays_away_ends_the_copy(pauses: list[float], state: Path) -> None:
    """After about a minute it is given up, with the mark kept; another run goes on."""
    up = [True, False]

    def before(events: Sequence[AuditEvent]) -> None:
        if not up.pop(0):
            up.insert(0, False)
            raise StoreUnavailable("gone")

    source, target = MemoryStore(), Moody(before)
    source.append([entry(place) for place in range(25)])
    with pytest.raises(StoreUnavailable, match="gone"):
        finish(Copy(source, target))
    assert 50 < sum(pauses) <= 60
    assert len(entries(target)) == 10
    target.before = lambda events: None
    copy = Copy(source, target)
    assert copy.resumed_at is not None
    finish(copy)
    assert entries(target) == entries(source)


def test_an_entry_that_breaks_the_target_is_refused_alone() -> None:
    """A fault of the target over one entry leaves the others of its batch unharmed; its own errors end the copy."""

    def before(events: Sequence[AuditEvent]) -> None:
        if any(event.target == "poison" for event in events):
            raise TypeError("of all things")
        if any(event.target == "damage" for event in events):
            raise StoreError("the file is damaged")

    source, target = MemoryStore(), Moody(before)
    source.append([entry(place, target="poison" if place == 13 else "") for place in range(25)])
    copy = Copy(source, target)
    (refusal,) = finish(copy)
    assert (refusal.event.target, refusal.reason) == ("poison", "the store breaks down over it (TypeError)")
    assert copy.copied == Copied(24, 1)
    source.append([entry(target="damage")])
    with pytest.raises(StoreError, match="damaged"):
        finish(Copy(source, target))


def test_batches_have_a_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch has a thousand entries, or some megabytes, at the most: a store has a limit for one request."""
    monkeypatch.undo()
    small = [entry() for _ in range(2 * BATCH + 1)]
    assert [len(batch) for batch in in_batches(small)] == [BATCH, BATCH, 1]
    large = [entry(detail="x" * 60_000) for _ in range(150)]
    assert [len(batch) for batch in in_batches(large)] == [70, 70, 10]
    assert list(in_batches([])) == []


def test_the_same_place_is_seen_whatever_it_is_called(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Relative, absolute, or through a link: one file is one place."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to(tmp_path)
    one, *others = (open_store(f"sqlite:///{path}") for path in ("a.db", tmp_path / "a.db", "link/a.db"))
    assert all(same_place(one, other) for other in others)
    assert not same_place(one, open_store("sqlite:///b.db"))


def test_without_a_folder_for_the_mark_there_is_no_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error says which folder cannot be made, and what to set."""
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    with pytest.raises(SettingsError, match=r"file/audit-pipeline cannot be made .*; set XDG_STATE_HOME"):
        Copy(MemoryStore(), MemoryStore())


def test_what_is_looked_up_at_once_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    """A large organisation is copied part by part, whatever part of it has one and the same time."""
    monkeypatch.setattr("audit_pipeline.copying.PART", 10)
    source, target, asked = MemoryStore(), MemoryStore(), []
    source.append([entry(place, org) for org in ("a", "b") for place in range(25)])
    source.append([entry(0, "b", id=uuid7(NOW, number)) for number in range(35)])
    real = source.snapshot

    def snapshot(query: Query, limit: int, **given: bool) -> Snapshot:
        asked.append(limit)
        return real(query, limit, **given)

    monkeypatch.setattr(source, "snapshot", snapshot)
    copy = Copy(source, target)
    finish(copy)
    assert entries(target) == entries(source)
    assert (copy.copied, copy.resumed_at) == (Copied(85, 0), None)
    assert len(asked) > 6
    assert max(asked) < 85
