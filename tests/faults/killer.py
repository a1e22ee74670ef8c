"""Kills emitters, shippers and API servers of one spool, again and again, each in the middle of its work.

A program of its own: `python -m tests.faults.killer --store URL --folder FOLDER --border TIME --emitters 10 …`. It has
imported everything, and forks, so that a cycle takes no time for starting Python; some it starts in full all the same.
What it did is one line of JSON at the end. Everything it started ends with it.
"""

from __future__ import annotations

import argparse
import ctypes
import http.client
import itertools
import json
import os
import random
import signal
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import NoReturn

from audit_pipeline.api.auth import make_token

from audit_pipeline import cli
from audit_pipeline.event import uuid7
from audit_pipeline.spool import Spool

from . import emitter

IMPORTED = ("uvicorn", "audit_pipeline.api.app", "audit_pipeline.stores.opensearch", "audit_pipeline.stores.sqlite")
"""What children would import otherwise."""
SLOTS = {"emitter": 3, "shipper": 2, "api": 1}
"""How many of each are there at a time."""
LIVES_S = {"emitter": 1.0, "shipper": 0.5, "api": 0.3}
"""How long each is let work at the most, in seconds."""
STARTED_IN_FULL = 8
"""One in so many is started as a program."""
START_S = 60.0
"""In how many seconds each has to be at work."""


@dataclass
class Victim:
    """A process that is to be killed."""

    kind: str
    pid: int
    said: Path
    size: int
    """Of what it, or who asks it, had said before it began."""
    born: float
    due: float = 0.0
    """When it is to be killed; 0 until it is at work."""


class Killer:
    """Keeps so many of each kind at work, and kills them."""

    def __init__(self, chosen: argparse.Namespace) -> None:
        self._chosen = chosen
        self._random = random.Random(chosen.seed)
        self._folder: Path = chosen.folder
        self._spool = Path(os.environ["AUDIT_SPOOL"])
        self._posted = self._folder / "said-post"
        self._numbers = itertools.count()
        self._victims: list[Victim] = []
        self.done: Counter[str] = Counter()

    def run(self) -> None:
        """Until each kind was killed as often as asked; after that none, until so many entries were accepted."""
        wanted = {"emitter": self._chosen.emitters, "shipper": self._chosen.shippers, "api": self._chosen.apis}
        poster = _fork(lambda: post(self._chosen.port, self._posted, self._chosen.border))
        while (left := any(self.done[kind] < number for kind, number in wanted.items())) or not self._enough():
            for kind, slots in SLOTS.items():
                for _ in range(slots - sum(victim.kind == kind for victim in self._victims)):
                    self._victims.append(self._begin(kind))
            assert os.waitpid(poster, os.WNOHANG) == (0, 0), "who posts has ended"
            for victim in list(self._victims) if left else ():
                self._see_to(victim)
            time.sleep(0.002 if left else 0.2)
        for pid in [poster, *(victim.pid for victim in self._victims)]:
            _kill(pid)

    def _enough(self) -> bool:
        files = self._folder.glob("said-*")
        return sum(file.stat().st_size for file in files) > self._chosen.entries * 90

    def _begin(self, kind: str) -> Victim:
        number = next(self._numbers)
        said = self._posted if kind == "api" else self._folder / f"said-{kind}-{number}"
        size = said.stat().st_size if said.exists() else 0
        in_full = number % STARTED_IN_FULL == 0
        self.done["in full"] += in_full
        run = self._program if in_full else self._part
        return Victim(kind, _fork(lambda: run(kind, number, said)), said, size, time.monotonic())

    def _arguments(self, kind: str, number: int, said: Path) -> list[str]:
        if kind == "shipper":
            return ["ship"]
        if kind == "api":
            return ["serve", "--port", str(self._chosen.port)]
        chosen = [self._chosen.store, "--said", str(said), "--border", str(self._chosen.border), "--name", str(number)]
        return [*chosen, "--pause", str(self._chosen.pause), *(["--ship"] if number % 3 == 0 else [])]

    def _program(self, kind: str, number: int, said: Path) -> None:
        module = "tests.faults.emitter" if kind == "emitter" else "audit_pipeline"
        os.execv(sys.executable, [sys.executable, "-m", module, *self._arguments(kind, number, said)])

    def _part(self, kind: str, number: int, said: Path) -> None:
        sys.argv[1:] = self._arguments(kind, number, said)
        if kind == "emitter":
            emitter.main()
        else:
            cli.main()

    def _see_to(self, victim: Victim) -> None:
        now = time.monotonic()
        assert os.waitpid(victim.pid, os.WNOHANG) == (0, 0), f"{victim} has ended by itself"
        if not victim.due:
            assert now < victim.born + START_S, f"{victim} does nothing"
            if self._works(victim):
                victim.due = now + self._random.uniform(0, LIVES_S[victim.kind])
        elif now >= victim.due:
            _kill(victim.pid)
            self._victims.remove(victim)
            self._count(victim)

    def _works(self, victim: Victim) -> bool:
        """Whether it has begun: an entry of it was accepted; or it holds the lock, and so has a first batch."""
        if victim.kind != "shipper":
            return victim.said.exists() and b"\n=" in _tail(victim.said, victim.size)
        try:
            told = json.loads(self._spool.with_name(self._spool.name + ".lock").read_bytes())
        except (OSError, ValueError):
            return False
        return bool(told["process"] == victim.pid)

    def _count(self, victim: Victim) -> None:
        self.done[victim.kind] += 1
        if victim.kind == "shipper":
            spool = Spool(self._spool, None)
            self.done["shipper with entries to ship"] += spool.status().pending > 0
            spool.close()
        else:
            lines = victim.said.read_bytes().splitlines()
            self.done[f"{victim.kind} in a call"] += lines[-1].startswith(b"?")


def post(port: int, said: Path, border: float) -> None:
    """Post entries with ids of their own, each until it was accepted, and note that."""
    secret = os.environ["AUDIT_JWT_SECRET"]
    token = make_token(secret, sub="poster", scope="audit:write", plan=None, org="default", ttl=86_400)
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    file = os.open(said, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    for event in _events(border):
        os.write(file, f"?{event['target']}\n".encode())
        while True:
            try:
                connection.request("POST", "/v1/events", json.dumps(event), headers)
                answer = connection.getresponse()
                text = answer.read()
            except (OSError, http.client.HTTPException):
                connection.close()
                time.sleep(0.01)
                continue
            if answer.status == 202:
                break
            assert answer.status == 503, f"{answer.status} {text!r}"
        os.write(file, f"={event['id']} {event['target']}\n".encode())


def _events(border: float) -> Iterator[dict[str, str]]:
    for place in itertools.count():
        moment = round((border + emitter.beside(place)) * 1000)
        event_id = uuid7(moment, int.from_bytes(os.urandom(9), "big"))
        written = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(moment // 1000))
        given = {"id": event_id, "timestamp": f"{written}.{moment % 1000:03}Z"}
        yield {"action": "domain.created", "target": f"post-{place}.example.com", "user": "bob", **given}


def _fork(run: Callable[[], object]) -> int:
    assert threading.active_count() == 1
    parent = os.getpid()
    pid = os.fork()
    if not pid:
        _be_child(run, parent)
    return pid


def _be_child(run: Callable[[], object], parent: int) -> NoReturn:
    try:
        os.dup2(2, 1)
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)
        if os.getppid() == parent:
            run()
    except BaseException:  # noqa: BLE001 - whatever it was, it is no way out of here
        traceback.print_exc()
    finally:
        os._exit(1)


def _kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def _tail(file: Path, after: int) -> bytes:
    with file.open("rb") as opened:
        opened.seek(after)
        return b"\n" + opened.read(4096)


def main() -> int:
    """Kill as asked, and print what was done."""
    known = argparse.ArgumentParser()
    known.add_argument("--store", required=True)
    known.add_argument("--folder", type=Path, required=True)
    known.add_argument("--border", type=float, required=True)
    known.add_argument("--port", type=int, required=True)
    known.add_argument("--pause", type=float, default=0.0)
    known.add_argument("--seed", type=int, default=7)
    for name in ("--emitters", "--shippers", "--apis", "--entries"):
        known.add_argument(name, type=int, required=True)
    for name in IMPORTED:
        import_module(name)
    killer = Killer(known.parse_args())
    killer.run()
    print(json.dumps(killer.done))
    return 0


if __name__ == "__main__":
    sys.exit(main())
