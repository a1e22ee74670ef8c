"""Emitters, shippers and API servers are killed with -9, again and again, each in the middle of its work."""

from __future__ import annotations

import json
import secrets
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from datetime import UTC, datetime
from pathlib import Path

import pytest

from audit_pipeline.shipping import shipping_of
from audit_pipeline.spool import Spool

from ..engine import Cluster, start_cluster
from .conftest import Start
from .tally import LONG, Said, check, of, stored_in

KINDS = ("emitter", "shipper", "api")
TRIES = {"emitter": of(320, 8), "shipper": of(140, 5), "api": of(40, 3)}
"""How often each is killed at least, for each store."""
ENTRIES = of(50_000, 0)
"""How many entries are accepted at least, for each store."""

Until = Callable[[Callable[[], bool], float], None]


@pytest.fixture
def engine(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """In the long round one of its own, to be killed too."""
    if not LONG:
        shared: Cluster = request.getfixturevalue("opensearch")
        yield shared
        return
    with closing(start_cluster(1, "1g")) as own:
        yield own


def test_killed_with_the_embedded_store(tmp_path: Path, start: Start, until: Until) -> None:
    """No kill of whoever records, ships or serves loses or doubles an entry in the SQLite store.

    Seen to double 310 of 903 with the key of organisation and id no longer unique; to lose 238 of 1,828 with the mark
    moved before the store has a batch; to lose 56 of 1,529 with entries gathered by fives before they are written.
    """
    kill_and_check("SQLite", f"sqlite:///{tmp_path / 'audit.db'}", tmp_path, start, until, lambda: None)


def test_killed_with_opensearch(tmp_path: Path, start: Start, until: Until, engine: Cluster) -> None:
    """No kill of whoever records, ships or serves loses or doubles an entry in OpenSearch, across a month's border.

    In the long round the engine is killed and started again in the middle.

    Seen to lose 977 of 2,381 with the mark moved before the store has a batch.
    """

    def restart() -> None:
        if LONG:
            engine.nodes[0].kill()
            engine.nodes[0].start()
            engine.wait(timeout=300)

    prefix = f"t-killed-x{secrets.token_hex(4)}"
    try:
        kill_and_check("OpenSearch", engine.url(prefix), tmp_path, start, until, restart)
        names = {index["name"] for index in engine.call("GET", f"/_resolve/index/{prefix}-*")["indices"]}
        assert len(names) == 2
    finally:
        engine.clear(prefix)


def kill_and_check(name: str, url: str, folder: Path, start: Start, until: Until, halfway: Callable[[], None]) -> None:
    """Kill as often as there are tries, ship what is left, and compare."""
    spool_path = folder / "spool.db"
    environment = {"AUDIT_STORE_URL": url, "AUDIT_SPOOL": str(spool_path), "AUDIT_JWT_SECRET": secrets.token_hex(32)}
    border = datetime.now(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0).timestamp()
    chosen = {
        **{"--store": url, "--folder": folder, "--border": border, "--port": free_port(), "--entries": ENTRIES},
        **{f"--{kind}s": number for kind, number in TRIES.items()},
        "--pause": of(5, 0) / 10_000,
    }
    log = folder / "killer.log"
    with log.open("wb") as errors:
        arguments = [each for pair in chosen.items() for each in pair]
        killer = start(
            "-m", "tests.faults.killer", *arguments, env=environment, stdout=subprocess.PIPE, stderr=errors
        )  # fmt: skip
    until(lambda: killer.poll() is not None or began(folder) > TRIES["emitter"] // 2, 600)
    halfway()
    until(lambda: killer.poll() is not None, 900)
    said_at_end, _ = killer.communicate()
    assert killer.returncode == 0, log.read_text()[-4000:]
    done = json.loads(said_at_end)

    # None was idle when it was killed.
    assert all(done[kind] >= number for kind, number in TRIES.items()), done
    assert done["in full"] > sum(TRIES.values()) // 20, done
    assert done["emitter in a call"] > TRIES["emitter"] // 10, done
    assert done["api in a call"] > TRIES["api"] // 10, done
    assert done["shipper with entries to ship"] > TRIES["shipper"] // 2, done

    shipper = start("-m", "audit_pipeline", "ship", env=environment)
    with closing(Spool(spool_path, None)) as spool:
        until(lambda: not spool.status().pending, 300)
        assert not spool.quarantine()
    until(lambda: shipping_of(spool_path).process == shipper.pid, 60)
    shipper.send_signal(signal.SIGTERM)
    assert shipper.wait(60) == 0
    said = Said.by(*folder.glob("said-*"))
    assert len(said.accepted) >= ENTRIES
    tries = sum(done[kind] for kind in KINDS)
    check(f"kill -9 of emitters, shippers and API servers, {name}", tries, said, stored_in(url))


def began(folder: Path) -> int:
    """How many emitters were there by now."""
    return len(list(folder.glob("said-emitter-*")))


def free_port() -> int:
    """A port from below those which the system gives away, so that a server can come back to its own."""
    while True:
        port = 20_000 + secrets.randbelow(12_000)
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
