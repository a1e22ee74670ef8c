"""`audit-pipeline tail`: the last entries, and then each as it comes."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest

from audit_pipeline import AuditPipeline, StoreUnavailable
from audit_pipeline.actions import catalogue
from audit_pipeline.cli import main, tailing
from audit_pipeline.query import Query, Window
from audit_pipeline.stores import Arrivals, Page, store_names
from audit_pipeline.stores.memory import MemoryStore

from .conftest import API

COMMAND = (sys.executable, "-m", "audit_pipeline")


@contextmanager
def tail(*arguments: str, cwd: Path) -> Iterator[subprocess.Popen[str]]:
    """The command as a process, which ends with the test."""
    pipe = subprocess.PIPE
    with subprocess.Popen([*COMMAND, "tail", *arguments], cwd=cwd, stdout=pipe, stderr=pipe, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def line(process: subprocess.Popen[str]) -> str:
    """The next line that it prints."""
    assert process.stdout is not None
    return process.stdout.readline()


@pytest.mark.parametrize("store_url", [name for name in store_names() if name != "memory"], indirect=True)
def test_the_last_entries_come_first_and_then_each_as_it_comes(api: API, tmp_path: Path) -> None:
    """Filtered, masked, of one organisation, as `search` prints them; late ones when they come; Ctrl-C ends it."""
    for number in range(4):
        api.record("domain.created", target=f"{number}", user="alice", ip="203.0.113.9")
    api.stored()
    where = ("--store", api.settings.store_url, "--user", "alice")
    with tail(*where, "--lines", "2", cwd=tmp_path) as process, tail(*where, "--json", cwd=tmp_path) as other:
        found = subprocess.run([*COMMAND, "search", *where], cwd=tmp_path, capture_output=True, text=True, check=True)
        assert [line(process), line(process)] == found.stdout.splitlines(keepends=True)[1::-1]
        assert [orjson.loads(line(other))["target"] for _ in range(4)] == list("0123")
        api.record("domain.created", target="bob's", user="bob")
        api.record("domain.created", target="theirs", user="alice", org="other")
        api.record("domain.created", target="late", user="alice", ip="2001:db8::1", timestamp=time.time() - 86_400)
        printed = line(process)
        assert "late" in printed
        assert "2001:db8::xxxx" in printed
        item = orjson.loads(line(other))
        assert (item["target"], item["ip"]) == ("late", "2001:db8::xxxx")
        for each in (process, other):
            each.send_signal(signal.SIGINT)
            assert each.wait(10) == 0
            assert each.stderr is not None
            assert each.stderr.read() == ""


def test_it_ends_when_nobody_reads_it(tmp_path: Path) -> None:
    """A reader who leaves, as `head` does, ends it at once, though nothing comes that could be printed."""
    with AuditPipeline.open(f"sqlite:///{tmp_path / 'audit.db'}") as pipeline:
        pipeline.record("domain.created", target="x")
        assert pipeline.flush(10)
    with tail(cwd=tmp_path) as process:
        assert "x" in line(process)
        assert process.stdout is not None
        process.stdout.close()
        assert process.wait(5) == 0
        assert process.stderr is not None
        assert process.stderr.read() == ""


class Scripted(MemoryStore):
    """A store in which things happen at certain requests for arrivals."""

    def __init__(self, *script: Callable[[], None]) -> None:
        super().__init__()
        self._script = list(script)
        self.while_searched: Callable[[], None] = lambda: None

    def arrivals(self, position: str | None, limit: int = 1000) -> Arrivals:
        if not self._script:
            raise KeyboardInterrupt
        self._script.pop(0)()
        return super().arrivals(position, limit)

    def search(self, query: Query, window: Window) -> Page:
        self.while_searched()
        return super().search(query, window)


def down() -> None:
    raise StoreUnavailable("it is down")


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[list[str], str]]:
    """Run the command over such a store, without pauses; gives the targets it printed, and what it said."""

    def run(store: Scripted, *arguments: str) -> tuple[list[str], str]:
        monkeypatch.setattr(tailing, "lasting_store", lambda url: store)
        monkeypatch.setattr(tailing, "_waiting", lambda: lambda seconds: None)
        monkeypatch.setattr(sys, "argv", ["audit-pipeline", "tail", "--json", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code == 0
        printed, said = capsys.readouterr()
        return [orjson.loads(one)["target"] for one in printed.splitlines()], said

    return run


@pytest.fixture
def adding(memory_api: API) -> Callable[..., Callable[[], None]]:
    """Makes a step of the script that adds an entry."""

    def adding(store: Callable[[], MemoryStore], target: str, **given: Any) -> Callable[[], None]:
        event = memory_api.pipeline.prepare(catalogue["domain.created"], {"target": target, **given})
        return lambda: store().append([event]) and None

    return adding


Adding = Callable[..., Callable[[], None]]
Run = Callable[..., tuple[list[str], str]]


def nothing() -> None:
    pass


def test_a_store_that_is_down_is_said_once_and_waited_for(run: Run, adding: Adding) -> None:
    """At the start and later: one line each time, and nothing that came meanwhile is lost."""
    store: Scripted
    store = Scripted(
        down, down, nothing, nothing, down, adding(lambda: store, "x"), down, adding(lambda: store, "y"), nothing
    )
    adding(lambda: store, "before")()
    targets, said = run(store)
    assert targets == ["before", "x", "y"]
    once = ["audit-pipeline: it is down; waiting for it", "audit-pipeline: the store answers again"]
    assert said.splitlines() == once * 3


def test_what_comes_while_it_starts_is_printed_once(run: Run, adding: Adding) -> None:
    """An entry that comes between the position and the first lines is among these, and not printed again."""
    store: Scripted
    store = Scripted(nothing, nothing, adding(lambda: store, "after"))
    adding(lambda: store, "before")()
    store.while_searched = adding(lambda: store, "meanwhile")
    assert run(store) == (["before", "meanwhile", "after"], "")


def test_no_lines_first(run: Run, adding: Adding) -> None:
    """`--lines 0` prints only what comes from now on; `--sort` changes nothing."""
    store: Scripted
    store = Scripted(nothing, adding(lambda: store, "b"), adding(lambda: store, "a"))
    adding(lambda: store, "before")()
    assert run(store, "--lines", "0", "--sort", "action") == (["b", "a"], "")


@pytest.mark.parametrize(
    ("status", "arguments"),
    [
        (2, ["--lines", "-1"]),
        (2, ["--lines", "1001"]),
        (2, ["--store", "memory://"]),
        (2, ["--action", "no.such"]),
        (2, ["--page", "1"]),
        (1, ["--store", "sqlite:///none.db"]),
    ],
)
def test_what_cannot_be_followed_is_said(tmp_path: Path, status: int, arguments: list[str]) -> None:
    """Wrong use, and a store that is not there, end it with their status."""
    ended = subprocess.run([*COMMAND, "tail", *arguments], cwd=tmp_path, capture_output=True, text=True, timeout=30)
    assert (ended.returncode, ended.stdout) == (status, "")
    assert ended.stderr
    assert "Traceback" not in ended.stderr
