"""A host that forks while its pipeline is open, and whose signal handlers raise or fork at any moment of it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

BEGIN = """
import json, os, random, signal, sys, time
from audit_pipeline import AuditPipeline
from audit_pipeline.query import Query

def forked(child=lambda: None):
    if not (process := os.fork()):
        child()
        os._exit(0)
    return process

class TimeLimit(Exception):
    def __init__(self, what, seconds):
        super().__init__(what, seconds)

def limit(number, frame):
    raise TimeLimit("late", 3)

pipeline = AuditPipeline.open(f"sqlite:///{sys.argv[1]}/audit.db", on_full=sys.argv[2])
record = lambda: pipeline.record("domain.created", target="a.example", user="alice", ip="203.0.113.9")
record()
"""
END = """
signal.setitimer(signal.ITIMER_REAL, 0)
signal.signal(signal.SIGCHLD, signal.SIG_DFL)
returned.append(record())
os.waitpid(forked(), 0)
flushed = pipeline.flush(30)
snapshot = pipeline.store.snapshot(Query("default"), 10**6)
stored = [(event.action, event.id) for batch in snapshot.batches() for event in batch]
print(json.dumps({
    "forks": forks, "raised": raised, "returned": returned, "flushed": flushed, "stored": stored,
    "held": sorted(signal.pthread_sigmask(signal.SIG_BLOCK, ())),
    "quarantined": pipeline.status().quarantined,
}))
"""


def said_by(script: str, folder: Path, on_full: str = "fail_closed", first: str = "") -> Any:
    # Python warns, since 3.12, of a fork in a process that has threads.
    python = [sys.executable, "-W", "ignore::DeprecationWarning"]
    done = subprocess.run(
        [*python, "-c", dedent(first) + BEGIN + dedent(script) + END, str(folder), on_full],
        cwd=folder, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    said = json.loads(done.stdout)
    assert said["flushed"]
    assert said["held"] == []
    assert said["quarantined"] == 0
    return said


def test_handlers_that_raise_while_the_host_forks(tmp_path: Path) -> None:
    """A time limit that comes at any moment of a fork reaches the host, and harms neither its log calls nor its forks.

    Seen to be dropped by Python, to refuse all log calls from then on, and to let the next fork hang for ever.
    """
    script = """
        signal.signal(signal.SIGALRM, limit)
        returned, forks, raised = [], 150, 0
        random.seed(7)
        for number in range(forks):
            returned.append(record())
            try:
                signal.setitimer(signal.ITIMER_REAL, random.uniform(0.0002, 0.005))
                os.waitpid(forked(), 0)
                time.sleep(1)
            except TimeLimit:
                raised += 1
    """
    said = said_by(script, tmp_path)
    assert said["raised"] == said["forks"]
    assert {one for _, one in said["stored"]} >= set(said["returned"])


@pytest.mark.parametrize("moment", ["before", "after_in_parent"])
def test_a_signal_that_comes_just_before_a_hook(tmp_path: Path, moment: str) -> None:
    """Python looks for signals as a function begins: what a handler raises there reaches the host too.

    Seen to be dropped by Python: the child carried the parent's connection, or the next fork hung for ever. And to come
    without what it has to say.
    """
    first = """
        import ctypes, logging, os, signal, threading, time  # logging has hooks of its own, which come first here
        from functools import partial
        libc = ctypes.PyDLL(None)
        libc.pthread_kill.argtypes = [ctypes.c_ulong, ctypes.c_int]
        other = threading.Thread(target=time.sleep, args=(60,), daemon=True)
        other.start()
        number, another = ctypes.c_int(0), ctypes.c_int(0)
        # C alone: Python sees the signals when one of its functions runs next.
        for one in (number, another):
            os.register_at_fork(after_in_parent=partial(libc.pthread_kill, other.ident, one))
        os.register_at_fork(after_in_parent=partial(ctypes.CDLL(None).usleep, 20_000))
    """
    script = f"""
        signal.signal(signal.SIGALRM, limit)
        signal.signal(signal.SIGUSR1, limit)
        returned, forks, raised = [], 5, 0
        if "{moment}" == "before":
            number, another = ctypes.c_int(0), ctypes.c_int(0)  # those that are armed stay 0
            os.register_at_fork(before=partial(ctypes.CDLL(None).usleep, 20_000))
            for one in (number, another):
                os.register_at_fork(before=partial(libc.pthread_kill, other.ident, one))
        for _ in range(forks):
            returned.append(record())
            number.value, another.value = signal.SIGALRM, signal.SIGUSR1
            try:
                forked()
            except TimeLimit as error:
                raised += error.args == ("late", 3)
            number.value = another.value = 0
            try:
                os.wait()
            except TimeLimit:  # of the other signal; Python 3.13
                pass
    """
    said = said_by(script, tmp_path, first=first)
    assert said["raised"] == said["forks"]
    assert {one for _, one in said["stored"]} >= set(said["returned"])


def test_a_handler_that_raises_while_a_fork_waits_for_a_log_call(tmp_path: Path) -> None:
    """Another thread takes the signal: the handler runs when the wait for the spool ends. Nobody waits for ever.

    Seen to leave the spool locked: all other threads' log calls hung.
    """
    script = """
        import threading
        signal.signal(signal.SIGALRM, limit)
        returned, forks, raised = [], 1, 0
        other = threading.Thread(target=time.sleep, args=(60,), daemon=True)
        other.start()
        busy = threading.Thread(target=lambda: pipeline.spool.file.ask(lambda db: time.sleep(0.6)))
        busy.start()
        time.sleep(0.1)
        threading.Timer(0.2, lambda: signal.pthread_kill(other.ident, signal.SIGALRM)).start()
        try:
            forked()
        except TimeLimit:
            raised += 1
        os.wait()
        thread = threading.Thread(target=lambda: returned.append(record()), daemon=True)
        thread.start()
        thread.join(20)
        assert not thread.is_alive()
    """
    said = said_by(script, tmp_path)
    assert said["raised"] == said["forks"]
    assert {one for _, one in said["stored"]} >= set(said["returned"])


def test_a_handler_that_forks_while_the_spool_is_opened(tmp_path: Path) -> None:
    """The connection that was being made is closed before, and the child that returns has one of its own.

    Seen to go on with the parent's.
    """
    script = """
        from audit_pipeline.spool_file import SpoolFile
        real, children, met = SpoolFile._is_spool, [], []
        def forking(self, db):
            if self is pipeline.spool.file and not children:
                met.append(db)
                children.append(os.fork())
            return real(self, db)
        SpoolFile._is_spool = forking
        returned, forks, raised = [], 0, 0
        pipeline.spool.file.reopen()
        returned.append(record())
        if children == [0]:
            os._exit(7 if pipeline.spool.file._db is not met[0] else 8)
        assert os.waitstatus_to_exitcode(os.waitpid(children[0], 0)[1]) == 7
    """
    said = said_by(script, tmp_path)
    assert {one for _, one in said["stored"]} >= set(said["returned"])


def test_handlers_that_fork_while_the_host_forks(tmp_path: Path) -> None:
    """A server whose handler of SIGCHLD starts another child forks in the middle of its own forks.

    Seen to hang for ever.
    """
    script = """
        returned, forks, raised = [], 0, 0
        def child():
            global forks
            if forks < 60:
                forks += 1
                forked(lambda: time.sleep(0.01))
        def ended(number, frame):
            try:
                while os.waitpid(-1, os.WNOHANG)[0]:
                    child()
            except ChildProcessError:
                pass
        signal.signal(signal.SIGCHLD, ended)
        for number in range(20):
            child()
        while forks < 60:
            time.sleep(0.01)
    """
    assert said_by(script, tmp_path)["forks"] == 60


@pytest.mark.parametrize("on_full", ["fail_closed", "fail_open"])
def test_handlers_that_fork_in_the_middle_of_a_log_call(tmp_path: Path, on_full: str) -> None:
    """The call returns, and its entry is stored once.

    Seen to raise for 37 of 748 calls whose entries were stored, and, with fail_open, to tell of gaps that there were
    not.
    """
    script = """
        returned, forks, raised, processes = [], 0, 0, []
        def fork(number, frame):
            global forks
            forks += 1
            processes.append(forked())
        signal.signal(signal.SIGALRM, fork)
        while forks < 60:
            signal.setitimer(signal.ITIMER_REAL, random.uniform(0.0002, 0.003))
            for _ in range(10):
                returned.append(record())
            while processes:
                assert os.waitpid(processes.pop(), 0)[1] == 0
    """
    said = said_by(script, tmp_path, on_full)
    stored = [one for action, one in said["stored"] if action == "domain.created"]
    assert len(said["stored"]) == len(stored) == len(set(stored))
    assert set(stored) >= set(said["returned"])


def test_a_child_that_was_waiting_for_another_thread(tmp_path: Path) -> None:
    """A handler forks while its thread waits for the spool, which another one has: the child's call returns too.

    Seen to wait for ever for a thread that is not there.
    """
    script = """
        import threading
        returned, forks, raised = [], 0, 0
        child = None
        def fork(number, frame):
            global child
            child = os.fork()
        signal.signal(signal.SIGALRM, fork)
        busy = threading.Thread(target=lambda: pipeline.spool.file.ask(lambda db: time.sleep(0.6)))
        busy.start()
        time.sleep(0.1)
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        returned.append(record())
        if child == 0:
            os._exit(7)
        busy.join()
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(30)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        signal.alarm(0)
    """
    said = said_by(script, tmp_path)
    assert {one for _, one in said["stored"]} >= set(said["returned"])


def test_no_connection_is_carried_where_the_spools_card_is_locked(tmp_path: Path) -> None:
    """A process that opens the spool, and waits for a lock, holds the card: a fork closes its connection all the same.

    Seen to leave it open: the child recorded without a lock, and what it recorded was lost once another process, which
    took itself for the last one, had deleted the log.
    """
    script = """
        from audit_pipeline import forking, spool_file
        from audit_pipeline.files import locked
        returned, forks, raised = [], 0, 0
        forking.WAIT_S, spool_file.PART_WAIT_S = 0.5, 0.05
        begin, ready, done = os.pipe(), os.pipe(), os.pipe()
        if not os.fork():
            os.read(begin[0], 1)
            with locked(pipeline.spool.file.card.path, 5):
                os.write(ready[1], b"x")
                os.read(done[0], 1)
            os._exit(0)
        returned.append(record())
        os.write(begin[1], b"x")
        os.read(ready[0], 1)
        def links():
            for one in os.listdir("/proc/self/fd"):
                try:
                    yield os.readlink(f"/proc/self/fd/{one}")
                except FileNotFoundError:
                    pass
        def child():
            os._exit(sum(link.endswith(("spool.db", "spool.db-wal")) for link in links()))
        carried = os.waitstatus_to_exitcode(os.waitpid(forked(child), 0)[1])
        os.write(done[1], b"x")
        os.wait()
        assert carried == 0, carried
    """
    assert said_by(script, tmp_path)["returned"]
