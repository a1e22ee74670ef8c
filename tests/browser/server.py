"""`audit-pipeline serve` as a process, and what a test does with it: record, hand out tokens, take it down."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jwt

from audit_pipeline import AuditPipeline
from audit_pipeline.actions import catalogue
from audit_pipeline.settings import Settings

__all__ = ["Live", "Server"]

SECRET = "a secret of the browser tests, long enough for HS256"
READER = "audit:read audit:export"
_ORGS = itertools.count(1)


class Server:
    """The process. It keeps its address when it is started again."""

    def __init__(self, store_url: str, folder: Path, **settings: str) -> None:
        """`settings` are further ones, by their variables: `AUDIT_CORS_ORIGINS="http://localhost:5173"`."""
        self.url = ""
        """Its address, without a slash at the end."""
        self._settings = {
            "AUDIT_STORE_URL": store_url,
            "AUDIT_SPOOL": str(folder / "spool.db"),
            "AUDIT_JWT_SECRET": SECRET,
        } | settings
        self._errors = folder / f"server-{next(_ORGS)}.log"
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Start it, and return when it answers; where it runs, do nothing."""
        if self._process is not None:
            return
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("AUDIT_")}
        port = self.url.rpartition(":")[2] or "0"
        with self._errors.open("a") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "audit_pipeline", "serve", "--port", port],
                env=inherited | self._settings, stdout=subprocess.PIPE, stderr=errors, text=True,
            )  # fmt: skip
        assert self._process.stdout is not None
        link = self._process.stdout.readline().strip()
        assert link.startswith("http://"), self.log()
        self.url = link.rstrip("/")

    def stop(self) -> None:
        """Ask it to end (SIGTERM), and wait until it has."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it at once (SIGKILL): connections break."""
        self._end(signal.SIGKILL)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """While this block runs, connections stay open and nothing answers (SIGSTOP)."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)

    def log(self) -> str:
        """What it wrote to standard error, in all its runs."""
        return self._errors.read_text()

    def _end(self, how: signal.Signals) -> None:
        if self._process is None:
            return
        with self._process as ending:  # closes its pipe
            ending.send_signal(how)
            ending.wait(30)
        self._process = None


class Live:
    """A server for one test, with an organisation of its own, which has no entries but those of the test."""

    def __init__(self, server: Server, store_url: str, folder: Path, pipeline: AuditPipeline) -> None:
        self.server = server
        self.pipeline = pipeline
        self.org = f"org-{next(_ORGS)}"
        self._store_url = store_url
        self._folder = folder

    @property
    def url(self) -> str:
        """The server's address, without a slash at the end."""
        return self.server.url

    def token(self, *, ttl: float = 3600, **claims: Any) -> str:
        """A token that may read and export, good for `ttl` seconds, but for what `claims` say (None: left out)."""
        good = {
            "sub": "alice@example.com",
            "exp": time.time() + ttl,
            "scope": READER,
            "plan": "business",
            "org": self.org,
        }
        given = {name: value for name, value in (good | claims).items() if value is not None}
        return jwt.encode(given, SECRET, algorithm="HS256")

    def link(self, path: str = "/", **claims: Any) -> str:
        """The address of the page with a token, as people get it."""
        return f"{self.url}{path}#token={self.token(**claims)}"

    def record(self, action: str, **given: Any) -> str:
        """Record an entry, as the application around the viewer does, and return its id; `stored` waits for it."""
        return self.record_all([{"action": action} | given])[0]

    def record_all(self, events: Iterable[Mapping[str, Any]]) -> list[str]:
        """Record many, each with its `action`, at once; and return their ids."""
        made = [
            self.pipeline.prepare(
                catalogue[event["action"]],
                {"org": self.org} | {name: value for name, value in event.items() if name != "action"},
            )
            for event in events
        ]
        self.pipeline.accept(made)
        return [event.id for event in made]

    def stored(self) -> None:
        """Wait until every entry can be found."""
        assert self.pipeline.flush(30)

    @contextmanager
    def with_settings(self, **settings: str) -> Iterator[Live]:
        """Another server over the same entries, with other settings: `AUDIT_EXPORT_LIMIT="7"`."""
        server = Server(self._store_url, self._folder, **settings)
        server.start()
        try:
            other = Live(server, self._store_url, self._folder, self.pipeline)
            other.org = self.org
            yield other
        finally:
            server.stop()

    @classmethod
    @contextmanager
    def pipeline_of(cls, store_url: str, folder: Path) -> Iterator[AuditPipeline]:
        """What the application around the viewer records with: on the spool that its server ships too."""
        settings = Settings(store_url=store_url, spool=folder / "spool.db", jwt_secret=SECRET)
        with AuditPipeline.open(settings=settings) as pipeline:
            yield pipeline
