"""What an operator sees: `audit-pipeline doctor`, `/readyz` and `/metrics`, each as it is asked in production."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from audit_pipeline import AuditPipeline
from audit_pipeline.settings import Settings

from ..api.conftest import API

__all__ = ["Operator", "operator"]

ROOT = Path(__file__).parent.parent.parent
REFUSING = {"spool-limit", "spool-age", "disk-full", "spool-read-only", "spool-unusable"}
"""Troubles in which nothing is recorded: then the service is not ready."""
PATIENCE_S = 40.0


class Operator:
    """Looks at one pipeline, from a process that serves its API, and by the command."""

    def __init__(self, environment: dict[str, str], audit: AuditPipeline, settings: Settings) -> None:
        self._environment = environment
        self._audit = audit
        self._client = API(settings, audit)

    def troubles(self) -> set[str]:
        """The kinds that the metrics tell; readiness agrees with them."""
        metrics = self._client.get("/metrics", token=None)
        assert metrics.status_code == 200
        return set(re.findall(r'^audit_trouble\{kind="([a-z-]+)"\} 1$', metrics.text, re.MULTILINE))

    def missing(self) -> int:
        """How many entries are counted, and not told yet."""
        return self._audit.gaps.missing()

    def ready(self) -> int:
        """The status of `/readyz`."""
        status: int = self._client.get("/readyz", token=None).status_code
        return status

    def await_troubles(self, *kinds: str, gone: bool = False) -> None:
        """Wait until the metrics tell of these, or of none of them any more."""
        end = time.monotonic() + PATIENCE_S
        while (seen := self.troubles()) & {*kinds} != (set() if gone else {*kinds}):
            assert time.monotonic() < end, f"{kinds} gone={gone}: there are {seen}"
            time.sleep(0.05)

    def doctor(self) -> tuple[int, str]:
        """Exit status and text of the command: what is wrong, and what to do."""
        command = [sys.executable, "-m", "audit_pipeline", "doctor", "--json"]
        told = subprocess.run(command, cwd=ROOT, env=os.environ | self._environment, capture_output=True, text=True)
        findings = [json.loads(line) for line in told.stdout.splitlines()]
        wrong = [f"{finding['detail']} DO {finding['do']}" for finding in findings if not finding["ok"]]
        return told.returncode, "\n".join(wrong)

    def sees(self, kind: str, text: str, advice: str, *others: str) -> None:
        """Wait for a trouble: metrics tell it, readiness follows, and doctor says what is wrong and what to do."""
        self.await_troubles(kind, *others)
        if kind in REFUSING:
            assert self.ready() == 503
        status, wrong = self.doctor()
        assert status == 1
        assert [line for line in wrong.splitlines() if text in line and advice in line.partition(" DO ")[2]], wrong

    def sees_nothing(self) -> None:
        """Wait until all is well, everywhere."""
        end = time.monotonic() + PATIENCE_S
        while seen := self.troubles():
            assert time.monotonic() < end, f"there are still {seen}"
            time.sleep(0.05)
        assert self.ready() == 200
        assert self.doctor() == (0, "")


@contextmanager
def operator(environment: dict[str, str], on_full: str = "fail_closed") -> Iterator[Operator]:
    """A process that serves the API of this pipeline, and ships nothing."""
    settings = Settings.from_environment(environment)
    with AuditPipeline.open(settings=replace(settings, on_full=on_full), ship=False) as audit:
        yield Operator(environment, audit, settings)
