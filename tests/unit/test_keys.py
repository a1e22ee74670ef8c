"""The keys of cursors and resume tokens."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from audit_pipeline.errors import SettingsError
from audit_pipeline.keys import cursor_keys
from audit_pipeline.settings import Settings


def test_keys_that_are_set_come_first(tmp_path: Path) -> None:
    """They are used in their order, newest first, and nothing is kept."""
    settings = Settings(cursor_keys=("new", "öld"), jwt_secret="s")
    assert cursor_keys(settings, tmp_path / "spool.db") == [b"new", "öld".encode()]
    assert list(tmp_path.iterdir()) == []


def test_a_key_is_derived_from_the_jwt_secret(tmp_path: Path) -> None:
    """The same secret makes the same key on every machine; the key is not the secret, and nothing is kept."""
    first = cursor_keys(Settings(jwt_secret="secret"), tmp_path / "a.db")
    assert first == cursor_keys(Settings(jwt_secret="secret"), tmp_path / "b.db")
    assert first != cursor_keys(Settings(jwt_secret="other"), tmp_path / "a.db")
    assert len(first) == 1
    assert len(first[0]) == 32
    assert b"secret" not in first[0]
    assert list(tmp_path.iterdir()) == []


def test_else_a_key_is_made_once(tmp_path: Path) -> None:
    """It is kept beside the spool for its owner only, and found again; each spool has its own."""
    (key,) = cursor_keys(Settings(), tmp_path / "spool.db")
    assert len(key) >= 32
    assert cursor_keys(Settings(), tmp_path / "spool.db") == [key]
    assert cursor_keys(Settings(), tmp_path / "other.db") != [key]
    kept = tmp_path / "spool.db.cursor-key"
    assert kept.read_bytes() == key
    assert kept.stat().st_mode & 0o777 == 0o600
    assert len(list(tmp_path.iterdir())) == 2


def test_threads_that_race_get_one_key(tmp_path: Path) -> None:
    """Of many that make the key at once, all read the one that was first, and nothing is left over."""
    found: list[bytes] = []
    for turn in range(10):
        start = threading.Barrier(8)
        found.clear()

        def make(spool: Path = tmp_path / f"{turn}.db", start: threading.Barrier = start) -> None:
            start.wait()
            found.extend(cursor_keys(Settings(), spool))

        threads = [threading.Thread(target=make) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(found) == 8
        assert len(set(found)) == 1
    assert len(list(tmp_path.iterdir())) == 10


def test_processes_that_race_get_one_key(tmp_path: Path) -> None:
    """All workers of a machine sign with one key."""
    code = """
import sys
from pathlib import Path
from audit_pipeline.keys import cursor_keys
from audit_pipeline.settings import Settings
print("ready", flush=True)
sys.stdin.readline()
print(cursor_keys(Settings(), Path(sys.argv[1]))[0].decode())
"""
    command = [sys.executable, "-c", code, str(tmp_path / "spool.db")]
    workers = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    for worker in workers:
        assert worker.stdout is not None
        assert worker.stdout.readline() == "ready\n"
    for worker in workers:
        assert worker.stdin is not None
        worker.stdin.write("\n")
        worker.stdin.flush()
    keys = [worker.communicate(timeout=30)[0].strip() for worker in workers]
    assert len(set(keys)) == 1
    assert keys[0].encode() == cursor_keys(Settings(), tmp_path / "spool.db")[0]


def test_a_key_that_cannot_be_kept_is_a_settings_error(tmp_path: Path) -> None:
    """The error names the setting, the file and what to do."""
    (tmp_path / "file").touch()
    with pytest.raises(
        SettingsError, match=r"AUDIT_CURSOR_KEYS: are not set, and .*cursor-key cannot be used .*writable"
    ):
        cursor_keys(Settings(), tmp_path / "file" / "spool.db")
    with pytest.raises(SettingsError, match="No such file"):
        cursor_keys(Settings(), tmp_path / "none" / "spool.db")
    (tmp_path / "b.db.cursor-key").touch()  # as a power loss may leave it
    with pytest.raises(SettingsError, match=r"b\.db\.cursor-key is empty; delete it, and another one is made"):
        cursor_keys(Settings(), tmp_path / "b.db")
    (tmp_path / "a.db.cursor-key").mkdir()
    with pytest.raises(SettingsError, match="Is a directory"):
        cursor_keys(Settings(), tmp_path / "a.db")
