"""A pipeline as it is run: emitters, a shipper, a server, each a process of its own; and what its operator sees."""

from __future__ import annotations

import json
import os
import re
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx

from audit_pipeline import AuditPipeline
from audit_pipeline.shipping import Stopped, shipping_of

from .tally import ROOT, Row, Said, check, stored_in

__all__ = ["Running", "eventually"]


def eventually(holds: Callable[[], bool], seconds: float, what: str) -> None:
    """Wait until something holds, for so many seconds at the most; `what` says what did not come about."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, f"not within {seconds} s: {what}"
        time.sleep(0.02)


class Running:
    """One spool, below `folder`, and the processes that use it. They ship to `url`; `at` is the store itself."""

    def __init__(self, url: str, folder: Path, at: str = "") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.url = url
        self._at = at or url
        self._folder = folder
        self.spool = folder / "spool.db"
        self._environment = os.environ | {
            "AUDIT_STORE_URL": url,
            "AUDIT_SPOOL": str(self.spool),
            "AUDIT_JWT_SECRET": secrets.token_hex(32),
            "XDG_STATE_HOME": str(folder / "state"),
        }
        self._said: list[Path] = []
        self._emitters: list[subprocess.Popen[bytes]] = []
        self._api: httpx.Client | None = None
        self._undo = ExitStack()

    def __enter__(self) -> Running:
        return self

    def __exit__(self, *about: object) -> None:
        self._undo.close()

    # Processes

    def start(self, *arguments: object, **more: Any) -> subprocess.Popen[bytes]:
        """Start a program of this project. It ends with this."""
        with (self._folder / "log").open("ab") as log:
            more.setdefault("stderr", log)
            command = [sys.executable, *map(str, arguments)]
            process = subprocess.Popen(command, cwd=ROOT, env=self._environment, **more)

        def end() -> None:
            process.kill()
            process.wait()
            if process.stdout is not None:
                process.stdout.close()

        self._undo.callback(end)
        return process

    def emit(self, *options: object, pause: float = 0.002) -> subprocess.Popen[bytes]:
        """Start an emitter, which goes on until `quiet` unless it is given `--events`."""
        said = self._folder / f"said-{len(self._said)}"
        self._said.append(said)
        given = ("--said", said, "--name", f"e{len(self._said)}", "--pause", pause, *options)
        self._emitters.append(self.start("-m", "tests.faults.emitter", self.url, *given))
        return self._emitters[-1]

    def quiet(self) -> None:
        """Kill the emitters that go on for ever; those that ended by themselves must have done so well."""
        for emitter in self._emitters:
            assert emitter.poll() in (None, 0), f"an emitter failed: {self.log()}"
            emitter.kill()
            emitter.wait()
        self._emitters.clear()

    def finish(self, seconds: float = 60) -> None:
        """Wait for the emitters, which were given `--events`."""
        for emitter in self._emitters:
            assert emitter.wait(seconds) == 0, f"an emitter failed: {self.log()}"
        self._emitters.clear()

    def ship(self) -> subprocess.Popen[bytes]:
        """Start `audit-pipeline ship`."""
        return self.start("-m", "audit_pipeline", "ship")

    def serve(self) -> httpx.Client:
        """Start `audit-pipeline serve`, which ships too; a client that may do everything."""
        server = self.start("-m", "audit_pipeline", "serve", "--port", 0, stdout=subprocess.PIPE)
        assert server.stdout is not None
        link = urlsplit(server.stdout.readline().decode().strip())
        assert link.netloc, f"the server did not start: {self.log()}"
        self._api = httpx.Client(base_url=f"http://{link.netloc}", timeout=60)
        self._api.headers["authorization"] = f"Bearer {self.command('token')[1].strip()}"
        self._undo.callback(self._api.close)
        return self._api

    def command(self, *arguments: object) -> tuple[int, str]:
        """Run `audit-pipeline` to its end: its exit status, and what it printed."""
        done = subprocess.run(
            [sys.executable, "-m", "audit_pipeline", *map(str, arguments)],
            cwd=ROOT, env=self._environment, capture_output=True, text=True, timeout=300,
        )  # fmt: skip
        assert done.returncode in (0, 1, 3), done.stderr
        return done.returncode, done.stdout

    def log(self) -> str:
        """The end of what the processes said."""
        return (self._folder / "log").read_text(errors="replace")[-2000:]

    # What is seen

    @cached_property
    def here(self) -> AuditPipeline:
        """The same spool, in this process, which does not ship."""
        pipeline = AuditPipeline.open(self.url, spool=self.spool, ship=False)
        self._undo.callback(pipeline.close)
        return pipeline

    @property
    def shipped(self) -> int:
        """How many entries are stored, or in quarantine."""
        status = self.here.status()
        return status.accepted - status.pending

    @property
    def stopped(self) -> Stopped | None:
        """Why nothing is shipped at the moment."""
        return shipping_of(self.spool).stopped

    def doctor(self) -> tuple[int, dict[str, str]]:
        """Its exit status, and by what was looked at what is wrong and what to do."""
        status, said = self.command("doctor", "--json")
        findings = [json.loads(line) for line in said.splitlines()]
        return status, {one["check"]: f"{one['detail']} {one['do']}" for one in findings if not one["ok"]}

    def told(self) -> tuple[set[str], int]:
        """The troubles and kinds of stop that the metrics tell, and the status of readiness."""
        assert self._api is not None
        metrics = self._api.get("/metrics").raise_for_status().text
        wrong = re.findall(r'^audit_(?:trouble|shipper_stopped)\{kind="([a-z-]+)"\} 1$', metrics, re.MULTILINE)
        return set(wrong), self._api.get("/readyz").status_code

    def well(self) -> None:
        """Nothing is wrong: not for doctor, and where a server runs, neither for the metrics, and it is ready."""
        assert self.doctor() == (0, {})
        if self._api is not None:
            assert self.told() == (set(), 200)

    # The end

    def drain(self, seconds: float = 60) -> None:
        """Wait until all is shipped."""
        eventually(lambda: self.here.status().pending == 0, seconds, f"all is shipped; {self.stopped} {self.log()}")

    def said(self) -> Said:
        """What the emitters said."""
        return Said.by(*self._said)

    def stored(self) -> Sequence[tuple[str, str]]:
        """Id and target of what is stored."""
        return stored_in(self._at)

    def check(self, fault: str, tries: int, said: Said | None = None) -> Row:
        """Compare the two."""
        assert self.here.status().quarantined == 0
        return check(fault, tries, said or self.said(), self.stored())

    def check_last(self, fault: str) -> Row:
        """The same of the last emitter alone, where one pipeline goes through several faults."""
        assert self.here.status().quarantined == 0
        name = f"e{len(self._said)}-"
        stored = [one for one in self.stored() if one[1].startswith(name)]
        return check(fault, 1, Said.by(self._said[-1]), stored)
