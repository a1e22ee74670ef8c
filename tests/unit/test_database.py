"""What spool and store share of SQLite: waiting for each other, and transactions that are whole or nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path

import apsw
import pytest

from audit_pipeline import database
from audit_pipeline.database import cut_log, transaction, use_wal

Connect = Callable[[], apsw.Connection]


@pytest.fixture
def connect(tmp_path: Path) -> Iterator[Connect]:
    opened: list[apsw.Connection] = []

    def connect() -> apsw.Connection:
        opened.append(apsw.Connection(str(tmp_path / "file.db")))
        return opened[-1]

    with closing(connect()) as db:
        db.execute("CREATE TABLE numbers (number INTEGER)")
    yield connect
    for db in opened:
        db.close()


def test_the_change_to_a_journal_waits_for_others(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    """While another connection is in the way it is tried again, for as long as it may take; then SQLite's error."""
    ours, theirs = connect(), connect()
    theirs.execute("BEGIN EXCLUSIVE")
    with pytest.raises(apsw.BusyError):
        use_wal(ours, 0)
    monkeypatch.setattr(database.time, "sleep", lambda _: theirs.execute("COMMIT"))
    use_wal(ours, 10_000)
    assert ours.execute("PRAGMA journal_mode").get == "wal"


@pytest.mark.parametrize("kind", ["DEFERRED", "IMMEDIATE"])
@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_transaction_is_whole_or_nothing(connect: Connect, kind: str, error: type[BaseException]) -> None:
    """What ends well is kept, what raises is undone, and the connection goes on after either."""
    db = connect()
    with transaction(db, kind):
        db.execute("INSERT INTO numbers VALUES (1)")
    with suppress(error), transaction(db, kind):
        db.execute("INSERT INTO numbers VALUES (2)")
        raise error
    with transaction(db, kind):
        db.execute("INSERT INTO numbers VALUES (3)")
    assert [number for (number,) in connect().execute("SELECT number FROM numbers")] == [1, 3]


def test_the_end_of_the_log_is_cut(connect: Connect, tmp_path: Path) -> None:
    """What stands in the log behind the last transaction goes; every transaction stays, whoever made it."""
    ours, theirs = connect(), connect()
    use_wal(ours, 0)
    log = tmp_path / "file.db-wal"
    for number in range(3):
        (ours, theirs)[number % 2].execute("INSERT INTO numbers VALUES (?)", (number,))
        kept = log.read_bytes()
        log.write_bytes(kept + kept[32:])
        cut_log(ours, tmp_path / "file.db")
        assert log.read_bytes() == kept
    assert theirs.execute("SELECT number FROM numbers").fetchall() == [(0,), (1,), (2,)]
    theirs.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    cut_log(ours, tmp_path / "file.db")
    assert not log.read_bytes()
    ours.execute("INSERT INTO numbers VALUES (3)")
    assert theirs.execute("SELECT count(*) FROM numbers").get == 4
