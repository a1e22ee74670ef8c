"""Exports over HTTP that nobody reads to their end, and what the engine still holds for them."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import jwt
import pytest

from audit_pipeline.stores import Store

from ..engine import Cluster
from .conftest import entry

SECRET = "a secret of the tests, which is long enough for HS256"
EXPORTS = 100


def open_scrolls(opensearch: Cluster) -> int:
    stats = opensearch.call("GET", "/_nodes/stats/indices/search")
    return sum(node["indices"]["search"]["scroll_current"] for node in stats["nodes"].values())


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@pytest.mark.long
@pytest.mark.parametrize("workers", [1, 4])
def test_exports_that_are_dropped_leave_no_scroll(
    store: Store, opensearch: Cluster, url: str, tmp_path: Path, workers: int, until: Callable[..., None]
) -> None:
    """A hundred exports, begun and dropped by their clients: the engine's own statistics say that none is held."""
    for _ in range(8):
        store.append([entry(detail="x" * 1000) for _ in range(1000)])
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", "--factory", "audit_pipeline.api.app:create_app", "--port", str(port)]
    more = {"AUDIT_STORE_URL": url, "AUDIT_JWT_SECRET": SECRET, "AUDIT_SPOOL": str(tmp_path / "spool.db")}
    claims = {"sub": "alice", "exp": time.time() + 600, "scope": "audit:read audit:export", "plan": "business"}
    headers = {"authorization": f"Bearer {jwt.encode(claims, SECRET, algorithm='HS256')}"}
    begun = 0
    with subprocess.Popen([*command, "--workers", str(workers), "--no-access-log"], env=os.environ | more) as server:
        try:
            until(lambda: _ready(port), 60)
            while begun < EXPORTS:
                address = f"http://127.0.0.1:{port}/v1/events/export.csv"
                with httpx.stream("GET", address, headers=headers) as answer:
                    if answer.status_code == 429:  # the last ones are just being cleared up
                        continue
                    assert answer.status_code == 200
                    next(answer.iter_raw())
                    begun += 1
            until(lambda: open_scrolls(opensearch) == 0, 5)
        finally:
            server.terminate()
            server.wait(30)


def _ready(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/readyz").status_code == 200
    except httpx.TransportError:
        return False
