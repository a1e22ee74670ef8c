"""A shipper in a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import apsw
import pytest

from audit_pipeline import AuditPipeline
from audit_pipeline.errors import StoreError, StoreMismatch
from audit_pipeline.settings import Settings
from audit_pipeline.shipper_process import ShipperProcess
from audit_pipeline.shipping import shipping_of


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(store_url=f"sqlite:///{tmp_path}/audit.db")


def until(what: Callable[[], object], said: str) -> None:
    end = time.monotonic() + 20
    while not what():
        assert time.monotonic() < end, said
        time.sleep(0.01)


def test_it_ships_until_it_is_stopped(settings: Settings, tmp_path: Path) -> None:
    """What comes is stored by another process, also what comes later; stopped, it frees the right to ship."""
    with AuditPipeline.open(settings=settings, ship=False) as pipeline:
        pipeline.record("domain.created", user="a", ip="")
        pipeline.shipper = ShipperProcess(settings)
        assert pipeline.flush(20)
        assert shipping_of(pipeline.spool.path).process not in (None, os.getpid())
        pipeline.record("domain.created", user="a", ip="")
        assert pipeline.flush(20)
        pipeline.shipper.stop()
        assert shipping_of(pipeline.spool.path).process is None


def test_one_that_is_killed_is_told(settings: Settings) -> None:
    """Whoever waits for it is told that it is gone, instead of waiting for ever."""
    with AuditPipeline.open(settings=settings, ship=False) as pipeline:
        pipeline.record("domain.created", user="a", ip="")
        pipeline.shipper = ShipperProcess(settings)
        assert pipeline.flush(20)
        shipping = shipping_of(pipeline.spool.path).process
        assert shipping is not None
        os.kill(shipping, signal.SIGKILL)
        pipeline.record("domain.created", user="a", ip="")
        with pytest.raises(StoreError, match=r"ended by itself \(-9\)"):
            pipeline.flush(20)
        pipeline.shipper.stop()


def test_a_store_that_it_cannot_use_is_told(settings: Settings, tmp_path: Path) -> None:
    """The reason for which waiting would not help comes over from the other process."""
    with closing(apsw.Connection(str(tmp_path / "audit.db"))) as other:
        other.execute("CREATE TABLE other (a)")
    with AuditPipeline.open(settings=settings, ship=False) as pipeline:
        pipeline.shipper = ShipperProcess(settings)
        pipeline.record("domain.created", user="a", ip="")
        until(lambda: pipeline.unshipped() and pipeline.shipper and pipeline.shipper.trouble, "no trouble was told")
        assert isinstance(pipeline.shipper.trouble, StoreMismatch)
        pipeline.shipper.stop()


OWNER = """
import os, sys
from audit_pipeline.settings import Settings
from audit_pipeline.shipper_process import ShipperProcess
if __name__ == "__main__":
    process = ShipperProcess(Settings(store_url=sys.argv[1]))
    process.hurry()
    print(process._process.pid, flush=True)
    os.kill(os.getpid(), 9)
"""


def test_it_ends_with_its_owner(settings: Settings, tmp_path: Path) -> None:
    """However the process ends that started it, nothing is left behind."""
    with AuditPipeline.open(settings=settings, ship=False):
        pass
    script = tmp_path / "owner.py"
    script.write_text(OWNER)
    done = subprocess.run([sys.executable, script, settings.store_url], stdout=subprocess.PIPE, text=True)
    other = int(done.stdout)

    def is_gone() -> bool:
        try:
            return Path(f"/proc/{other}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
        except FileNotFoundError:
            return True

    until(is_gone, "it still runs")
