"""Rows read out of the pages of a SQLite file, against what SQLite itself reads."""

from __future__ import annotations

import os
import random
from collections import Counter
from contextlib import closing
from pathlib import Path

import apsw
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audit_pipeline.pages import Pages

VALUES = st.one_of(
    st.none(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False),
    st.text(max_size=50),
    st.binary(max_size=9000),
)


def rows(path: Path) -> list[tuple[object, ...]]:
    with closing(Pages(path)) as pages:
        return [(row.number, *row.values) for row in pages.rows()]


@pytest.mark.parametrize("size", [512, 4096, 65_536])
def test_every_row_is_read_as_sqlite_reads_it(tmp_path: Path, size: int) -> None:
    """Values of every kind and length, in pages of every size, from the file and from the log."""
    path = tmp_path / "some.db"
    noise = random.Random(size)
    values = [
        (noise.choice([None, 0, 1, -1, 127, 2**31, -(2**47), 2**62, 1.5, "ä" * noise.randint(0, 9), ""]),
         noise.randbytes(noise.choice([0, 10, 500, 5000, 100_000])))
        for _ in range(300)
    ]  # fmt: skip
    with closing(apsw.Connection(str(path))) as db:
        db.execute(f"PRAGMA page_size = {size}; PRAGMA journal_mode = WAL").fetchall()
        db.execute("CREATE TABLE some (a, b)")
        db.executemany("INSERT INTO some VALUES (?, ?)", values[:200])
        db.execute("PRAGMA wal_checkpoint")
        db.executemany("INSERT INTO some VALUES (?, ?)", values[200:])
        expected = [tuple(row) for row in db.execute("SELECT rowid, a, b FROM some")]
        assert sorted(row for row in rows(path) if len(row) == 3) == sorted(expected, key=lambda row: row[0])
    assert sorted(row for row in rows(path) if len(row) == 3) == expected


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(VALUES, VALUES), max_size=20))
def test_any_values(tmp_path_factory: pytest.TempPathFactory, values: list[tuple[object, object]]) -> None:
    """Whatever SQLite can keep is read as it is."""
    path = tmp_path_factory.mktemp("pages") / "some.db"
    with closing(apsw.Connection(str(path))) as db:
        db.execute("CREATE TABLE some (a, b)")
        db.executemany("INSERT INTO some VALUES (?, ?)", values)  # type: ignore[arg-type]
        expected = [tuple(row) for row in db.execute("SELECT rowid, a, b FROM some")]
    assert [row for row in rows(path) if len(row) == 3] == expected


def test_only_what_was_committed_is_read_from_the_log(tmp_path: Path) -> None:
    """A log counts up to the last commit before a frame that is not whole, whatever comes behind it."""
    path, log = tmp_path / "some.db", tmp_path / "some.db-wal"
    with closing(apsw.Connection(str(path))) as db:
        db.execute("PRAGMA journal_mode = WAL").fetchall()
        db.execute("CREATE TABLE some (a, b)")
        sizes = []
        for number in range(10):
            db.execute("INSERT INTO some VALUES (?, 'x')", (number,))
            sizes.append(log.stat().st_size)
        whole = log.read_bytes()
        frame = 24 + 4096
        for number in range(10):
            # One byte of the page, and then of the frame's own account of it.
            for place in (sizes[number] - 2000, sizes[number] - frame + 10):
                log.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
                assert [row[1] for row in rows(path) if len(row) == 3] == list(range(number))
        log.write_bytes(whole)
        assert len([row for row in rows(path) if len(row) == 3]) == 10


def test_noise_raises_nothing(tmp_path: Path) -> None:
    """Whatever bytes a file and its log have, reading them ends, and raises nothing."""
    path = tmp_path / "some.db"
    with closing(apsw.Connection(str(path))) as db:
        db.execute("PRAGMA journal_mode = WAL").fetchall()
        db.execute("CREATE TABLE some (a, b)")
        db.executemany("INSERT INTO some VALUES (?, ?)", [(number, bytes(6000)) for number in range(50)])
        content, log = path.read_bytes(), path.with_name("some.db-wal").read_bytes()
    for seed in range(150):
        noise = random.Random(seed)
        for target, whole in ((path, content), (path.with_name("some.db-wal"), log)):
            spoiled = bytearray(whole[: noise.randint(0, len(whole))] if noise.random() < 0.3 else whole)
            for _ in range(noise.randint(0, 40)):
                if spoiled:
                    place = noise.randrange(len(spoiled))
                    part = noise.randbytes(noise.choice([1, 2, 9, 500]))
                    spoiled[place : place + len(part)] = part
            target.write_bytes(spoiled)
        rows(path)


def test_a_page_that_is_not_given_back_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A page that the disk refuses is asked for again; one that it never gives is passed over, and no other."""
    path = tmp_path / "some.db"
    with closing(apsw.Connection(str(path))) as db:
        db.execute("CREATE TABLE some (a, b)")
        db.executemany("INSERT INTO some VALUES (?, ?)", [(number, bytes(3000)) for number in range(20)])
    real, asked = os.pread, Counter[int]()

    def pread(file: int, size: int, offset: int) -> bytes:
        asked[offset] += 1
        if asked[offset] < (100 if offset == 5 * 4096 else 3) and offset >= 4096:
            raise OSError(5, "Input/output error")
        return real(file, size, offset)

    monkeypatch.setattr(os, "pread", pread)
    assert len(rows(path)) == 20  # nineteen of them, and that of the schema
