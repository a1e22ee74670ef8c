"""What a run measures: a store, the engine beneath it asked directly, and a server of it."""

from __future__ import annotations

import http.client
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import jwt

from audit_pipeline.query import Query, Window
from audit_pipeline.stores import Page, Store, open_store
from audit_pipeline.stores.opensearch import OpenSearchStore
from audit_pipeline.stores.sqlite import SQLiteStore
from audit_pipeline.stores.sqlite.remembered import Memory
from tests.engine import Cluster

from .direct import Direct, DirectOpenSearch, DirectSQLite

__all__ = ["ROOT", "Client", "Options", "Server", "Setting", "run_module", "serving"]

ROOT = Path(__file__).parent.parent
SECRET = "a secret of the benchmarks, which is long enough for HS256"


@dataclass(frozen=True)
class Options:
    """What a run was asked for."""

    size: int
    store: str
    folder: Path
    brief: bool = False
    """So few rounds that it only shows that nothing is broken."""
    installs: bool = True
    """Whether contenders may be installed."""
    topology: int = 1_000_000
    heap: str = "2g"

    @property
    def rounds(self) -> int:
        """How often each contender is asked, at the most."""
        return 3 if self.brief else 40

    @property
    def budget_s(self) -> float:
        """For how long the contenders of one case are asked, in seconds."""
        return 0.2 if self.brief else 6.0 if self.size >= 1_000_000 else 1.0


@dataclass
class Setting:
    """One store, and what is beneath it."""

    options: Options
    cluster: Cluster | None
    url: str = field(init=False)
    store: Store = field(init=False)
    direct: Direct = field(init=False)

    def __post_init__(self) -> None:
        if self.cluster is not None:
            # By default, each month has an index; that takes long to make for a brief run.
            self.url = self.cluster.url(self.index, **({"granularity": "year"} if self.options.brief else {}))
        else:
            self.url = f"sqlite:///{self.path}"
        self.store = open_store(self.url)

    @property
    def index(self) -> str:
        """The name of the indices."""
        return f"bench-n{self.options.size}"

    @property
    def path(self) -> Path:
        """The SQLite file."""
        return self.options.folder / f"bench-{self.options.size}.db"

    @property
    def host(self) -> str:
        """The engine's address."""
        assert self.cluster is not None
        return self.cluster.hosts[0]

    @property
    def embedded(self) -> bool:
        """Whether there is no engine, but a file."""
        return self.cluster is None

    def connect(self) -> Direct:
        """The way to ask the engine directly; the store must be there."""
        return DirectSQLite(self.path) if self.embedded else DirectOpenSearch(self.host, self.index)

    def first_asked(self, query: Query, window: Window) -> Page:
        """A page as a store gives it that remembers nothing of what was asked before."""
        if isinstance(self.store, SQLiteStore):
            self.store._memory = Memory()
        elif isinstance(self.store, OpenSearchStore):
            self.store._reader._ends.clear()
        return self.store.search(query, window)

    def scratch(self, name: str) -> Path:
        """A path for what a stage makes and removes: nothing is there."""
        path = self.options.folder / f"scratch-{self.options.store}-{name}"
        for suffix in ("", "-wal", "-shm", ".lock", ".card"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)
        return path

    def close(self) -> None:
        """Close what is open."""
        self.store.close()


class Client:
    """One connection that stays open, with a token."""

    def __init__(self, port: int, token: str) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        self._headers = {"Authorization": f"Bearer {token}"}

    def get(self, path: str, parameters: dict[str, Any] | None = None) -> bytes:
        """The body of an answer. Raises RuntimeError where it is not 200."""
        with self.answer(path, parameters) as answer:
            body: bytes = answer.read()
        return body

    @contextmanager
    def answer(self, path: str, parameters: dict[str, Any] | None = None) -> Iterator[http.client.HTTPResponse]:
        """An answer whose body is still to be read."""
        query = "?" + urlencode(parameters, doseq=True) if parameters else ""
        try:
            self._connection.request("GET", path + query, headers=self._headers)
            answer = self._connection.getresponse()
        except (http.client.RemoteDisconnected, BrokenPipeError):  # nothing was asked for a while
            self._connection.close()
            self._connection.request("GET", path + query, headers=self._headers)
            answer = self._connection.getresponse()
        if answer.status != 200:
            raise RuntimeError(f"GET {path}{query}: {answer.status} {answer.read()[:300]!r}")
        yield answer

    def page(self, parameters: dict[str, Any]) -> dict[str, Any]:
        """A page, as JSON says it."""
        found: dict[str, Any] = json.loads(self.get("/v1/events", parameters))
        return found


class Server:
    """A server of a store, in a process of its own."""

    def __init__(self, port: int, token: str, pid: int) -> None:
        self.port = port
        self.token = token
        self.pid = pid

    def client(self) -> Client:
        """A connection of its own."""
        return Client(self.port, self.token)

    def anonymous_memory(self) -> int:
        """Bytes of memory that belong to no file."""
        with open(f"/proc/{self.pid}/smaps_rollup", encoding="utf-8") as lines:
            return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Anonymous:"))


@contextmanager
def serving(setting: Setting, url: str = "", **environment: str) -> Iterator[Server]:
    """`audit-pipeline serve` of a store; of that of the setting where none is given."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    spool = setting.scratch("serve.spool.db")
    claims = {"sub": "bench", "scope": "audit:read audit:export", "plan": "business", "exp": time.time() + 86_400}
    token = jwt.encode(claims, SECRET, algorithm="HS256")
    arguments = ["serve", "--port", str(port), "--store", url or setting.url, "--spool", str(spool)]
    process = subprocess.Popen(
        [sys.executable, "-m", "audit_pipeline", *arguments],
        cwd=ROOT, env=os.environ | {"AUDIT_JWT_SECRET": SECRET} | environment,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        _wait_for(port, process)
        yield Server(port, token, process.pid)
    finally:
        process.terminate()
        process.wait(30)


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + 60
    while time.monotonic() < end and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise RuntimeError("the server did not start")


def run_module(module: str, *arguments: str, python: str = sys.executable, **environment: str) -> dict[str, Any]:
    """What a module of this folder prints as JSON in its last line."""
    done = subprocess.run(
        [python, "-m", f"benchmarks.{module}", *arguments],
        cwd=ROOT, env=os.environ | environment, stdout=subprocess.PIPE, text=True, check=True,
    )  # fmt: skip
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found
