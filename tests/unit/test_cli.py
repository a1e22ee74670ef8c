"""The command line: in this process where it can be, as a real process where signals, pipes or ports matter."""

from __future__ import annotations

import os
import select
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import apsw
import httpx
import jwt
import orjson
import pytest

from audit_pipeline import AuditPipeline, SettingsError
from audit_pipeline.cli import entries, main
from audit_pipeline.cli.serving import _listen, _place
from audit_pipeline.copying import Copy
from audit_pipeline.event import now_ms, uuid7
from audit_pipeline.settings import Settings
from audit_pipeline.shipper_process import ShipperProcess
from audit_pipeline.spool import Quarantined

UUID = r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"


@dataclass
class Ended:
    """How a command ended."""

    status: int
    out: str
    err: str

    def refused(self, status: int) -> str:
        """The one line that says why it ended with this status."""
        assert (self.status, self.out) == (status, ""), self
        assert self.err.count("\n") == 1, self.err
        assert self.err.startswith("audit-pipeline: ")
        assert "Traceback" not in self.err
        return self.err


Run = Callable[..., Ended]


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of its own to work in, with the default store in it."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command in this process."""

    def run(*arguments: str) -> Ended:
        monkeypatch.setattr(sys, "argv", ["audit-pipeline", *arguments])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        return Ended(int(ended.value.code or 0), out, err)

    return run


COMMAND = (sys.executable, "-m", "audit_pipeline")


def process(*arguments: str, **more: Any) -> Ended:
    """Run a command as a process."""
    ended = subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, timeout=30, **more)
    return Ended(ended.returncode, ended.stdout, ended.stderr)


@pytest.fixture
def start() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start a command that stays."""
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: str) -> subprocess.Popen[str]:
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        started.append(subprocess.Popen([*COMMAND, *arguments], text=True, **pipes))  # type: ignore[call-overload]
        return started[-1]

    yield start
    for one in started:
        one.kill()
        one.communicate()


def lines(text: str) -> list[Any]:
    """JSON lines."""
    return [orjson.loads(line) for line in text.splitlines()]


def fill(run: Run, number: int) -> None:
    """Import this many entries, one a second."""
    Path("entries.ndjson").write_bytes(
        b"".join(
            orjson.dumps({"action": "domain.created", "timestamp": f"2026-01-01T00:{at // 60:02}:{at % 60:02}Z",
                          "target": str(at), "user": "alice", "ip": "10.0.0.5"}) + b"\n"
            for at in range(number)
        )
    )  # fmt: skip
    assert run("import", "entries.ndjson").status == 0


# The main flows, as processes


def test_from_emit_to_export() -> None:
    """What one process records another one finds and takes out."""
    emitted = process("emit", "domain.created", "--target", "a", "--user", "alice", "--ip", "10.0.0.5")
    assert (emitted.status, emitted.err) == (0, "")
    (found,) = lines(process("search", "--json").out)
    assert found["id"] == emitted.out.strip()
    assert found["ip"] == "10.0.0.xxx"
    exported = process("export", "-o", "-", "--action", "domain.created")
    assert exported.out.splitlines()[1:] == [f"{found['timestamp']},Domain created,a,,alice,10.0.0.xxx"]
    assert (exported.status, exported.err) == (0, "audit-pipeline: 1 entry\n")


def test_serve_prints_a_link_that_works(start: Any, place: Path) -> None:
    """`serve` prints a link; its token opens the API, and entries posted to it are found; SIGTERM or Ctrl-C ends it: 0.

    On stderr it names the store, and says where that is new: a server in the wrong folder shows an empty log.
    """
    server = start("serve", "--port", "0")
    address, token = server.stdout.readline().strip().split("/#token=")
    with httpx.Client(base_url=address, headers={"authorization": f"Bearer {token}"}, timeout=10) as client:
        assert client.get("/v1/events").json()["total"] == 0
        assert client.post("/v1/events", json={"action": "domain.created"}).status_code == 202
        assert client.get("/v1/events/export.csv").status_code == 200
        assert client.get("/healthz", headers={"host": "evil.example"}).status_code == 421
    server.send_signal(signal.SIGTERM)
    out, err = server.communicate(timeout=20)
    store = f"audit-pipeline: the store is {place / 'audit.db'}"
    assert (server.returncode, out, err) == (0, "", f"{store}, which is new and empty\n")
    again = start("serve", "--port", "0")
    assert httpx.get(again.stdout.readline().partition("/#")[0] + "/healthz", timeout=10).status_code == 200
    again.send_signal(signal.SIGINT)
    assert again.communicate(timeout=20) == ("", f"{store}\n")
    assert again.returncode == 0


def test_serve_names_a_store_without_its_password() -> None:
    """What a store is called on the terminal has no password in it."""
    settings = Settings(store_url="opensearch+https://admin:hunter2@search:9200")
    assert _place(settings) == "the store is opensearch+https://admin:***@search:9200"
    assert _place(Settings(store_url="memory://")) == "the store is memory://, which ends with this server"


def test_serve_with_a_secret(start: Any, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a secret there is no token in the link; `token` makes one. A short secret is told of in one line, and how
    to make a longer one; it is used all the same."""
    monkeypatch.setenv("AUDIT_JWT_SECRET", "hunter2")
    token = run("token", "--scope", "audit:read", "--org", "acme", "--sub", "bob", "--ttl", "60")
    short = (
        "AUDIT_JWT_SECRET has fewer than 32 bytes: tokens could be forged by trying; make one with: "
        "openssl rand -base64 48"
    )
    assert (token.status, token.err) == (0, f"audit-pipeline: {short}\n")
    server = start("serve", "--port", "0", "--host", "::1" if socket.has_dualstack_ipv6() else "127.0.0.1")
    address = server.stdout.readline().strip()
    assert "token" not in address
    headers = {"authorization": f"Bearer {token.out.strip()}"}
    assert httpx.get(f"{address}v1/events", headers=headers, timeout=10).status_code == 200
    assert httpx.get(f"{address}v1/events", timeout=10).status_code == 401
    server.send_signal(signal.SIGTERM)
    _, err = server.communicate(timeout=20)
    assert server.returncode == 0
    told = [line.removeprefix("audit-pipeline: ") for line in err.splitlines()]
    assert told[0].startswith("the store is ")
    assert told[1] == short
    assert told[2].startswith("the page asks for a bearer token; `audit-pipeline token` prints one")
    assert len(told) == 3


def test_serve_refuses_the_world_without_keys(place: Path) -> None:
    """Without keys only loopback is served; what is refused leaves nothing behind."""
    for host in ("0.0.0.0", ""):
        assert "AUDIT_JWT_SECRET" in process("serve", "--host", host, "--port", "0").refused(2)
    assert list(place.iterdir()) == []


def test_serve_on_a_taken_port(run: Run) -> None:
    """A port that is taken is told with what to do."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert f"--port {port}: cannot listen there" in run("serve", "--port", port).refused(2)


def test_ship_drains_a_spool(start: Any) -> None:
    """`ship` stores what another process only recorded, and SIGTERM ends it with 0."""
    with AuditPipeline.open(ship=False) as pipeline:
        for number in range(3):
            pipeline.record("domain.created", target=str(number))
        shipping = start("ship")
        assert "shipping" in shipping.stderr.readline()
        assert pipeline.flush(20)
    shipping.send_signal(signal.SIGTERM)
    shipping.communicate(timeout=20)
    assert shipping.returncode == 0
    assert [item["target"] for item in lines(process("search", "--json").out)] == ["2", "1", "0"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ship_ends_whenever_it_is_told(start: Any, number: int) -> None:
    """A signal that comes at once after the start ends it as well."""
    shipping = start("ship")
    shipping.stderr.readline()
    shipping.send_signal(number)
    shipping.communicate(timeout=20)
    assert shipping.returncode == 0


def test_a_reader_that_leaves_is_no_error(run: Run) -> None:
    """`search | head` ends quietly, whether much or little is left to print."""
    fill(run, 100)
    for size in ("10", "100"):
        reader, writer = os.pipe()
        os.close(reader)
        arguments = [*COMMAND, "search", "--json", "--page-size", size]
        ended = subprocess.run(arguments, stdout=writer, stderr=subprocess.PIPE, text=True, timeout=60)
        os.close(writer)
        assert "Traceback" not in ended.stderr
        assert "BrokenPipe" not in ended.stderr


# Wrong settings and places


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("AUDIT_STORE_URL", "postgres://bob:hunter2@db/audit"),
        ("AUDIT_STORE_URL", "sqlite://bob:hunter2@host/audit.db"),
        ("AUDIT_STORE_URL", "sqlite:///audit.db?password=hunter2"),
        ("AUDIT_STORE_URL", "//[hunter2"),
        ("AUDIT_EXPORT_LIMIT", "many"),
        ("AUDIT_IP_STORAGE", "none"),
        ("AUDIT_TRUSTED_PROXIES", "10.0.0.0/33"),
        ("AUDIT_ALLOWED_HOSTS", "https://a.example"),
        ("AUDIT_CORS_ORIGINS", "a.example"),
        ("AUDIT_JWKS_URL", "file:///etc/passwd"),
        ("AUDIT_CATALOGUE", "missing.json"),
    ],
)
def test_a_wrong_setting_is_one_line(run: Run, monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    """A wrong setting ends each command with one line that names it, shows no password, and says what is allowed."""
    monkeypatch.setenv(name, value)
    for command in (["search"], ["emit", "domain.created"], ["export"], ["setup"], ["ship"], ["serve", "--port", "0"]):
        line = run(*command).refused(2)
        assert name in line
        assert "hunter2" not in line
    told = run("doctor")
    assert told.status == 1
    assert name in told.out
    assert "hunter2" not in told.out


def test_a_wrong_setting_ends_a_process_the_same_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same as a real process."""
    monkeypatch.setenv("AUDIT_IP_STORAGE", "none")
    assert "AUDIT_IP_STORAGE: 'none' is not allowed; allowed are full, masked" in process("search").refused(2)


@pytest.mark.parametrize(
    "command",
    [["search"], ["tail"], ["emit", "domain.created"], ["export"], ["setup"], ["ship"], ["quarantine", "list"]],
)
def test_a_wrong_store_is_called_by_its_option(run: Run, command: list[str]) -> None:
    """Where the option was given, it is not the variable that is wrong; a path alone is told as the URL of its file."""
    line = run(*command, "--store", "audit.db").refused(2)
    assert line.startswith("audit-pipeline: --store: has no scheme; did you mean sqlite:///audit.db? allowed are")
    assert "opensearch+https://" in line
    assert "AUDIT_STORE_URL" not in line


def test_a_store_that_is_not_there(run: Run, place: Path) -> None:
    """Looking where nothing is says so in one line, and makes nothing there."""
    for command in (["search"], ["export"], ["export", "-o", "-"]):
        assert "there is no audit store yet" in run(*command, "--store", "sqlite:///other.db").refused(1)
    assert list(place.iterdir()) == []


def test_a_folder_that_is_none(run: Run, place: Path) -> None:
    """Where no file can be made, every command says so in one line."""
    (place / "file").write_text("")
    url = f"sqlite:///{place}/file/audit.db"
    (place / "one.ndjson").write_text('{"action": "domain.created", "timestamp": "2026-01-01T00:00:00Z"}\n')
    for command in (["emit", "domain.created"], ["import", "one.ndjson"], ["search"], ["export"], ["setup"], ["ship"]):
        assert "file/audit" in run(*command, "--store", url).refused(1)
    # `ship` blocks signals while it waits for them; processes started later must not inherit that.
    assert signal.SIGTERM not in signal.pthread_sigmask(signal.SIG_BLOCK, ())


def test_a_folder_that_does_not_exist(run: Run, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store in a folder that is not there is told by that folder, which nobody makes for it."""
    (place / "one.ndjson").write_text('{"action": "domain.created", "timestamp": "2026-01-01T00:00:00Z"}\n')
    url = f"sqlite:///{place}/missing/audit.db"
    said = f"the folder {place}/missing does not exist"
    for command in (["emit", "domain.created"], ["import", "one.ndjson"], ["ship"], ["setup"]):
        assert f"{said}; make it, or choose another path" in run(*command, "--store", url).refused(1)
    for command in (["search"], ["export"]):
        assert said in run(*command, "--store", url).refused(1)
    monkeypatch.setenv("AUDIT_SPOOL", "missing/audit.spool.db")
    assert f"{said}; make it, or choose another path" in run("emit", "domain.created").refused(1)
    assert [path.name for path in place.iterdir()] == ["one.ndjson"]


AS_NOBODY = """
import os, sys
import audit_pipeline.cli, audit_pipeline.stores.sqlite
names = audit_pipeline.stores.store_names()
audit_pipeline.stores.store_names = lambda: names
os.setuid(65534)  # after all that is read: interpreter and checkout may lie where only root may
audit_pipeline.cli.main()
"""


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become someone who may not write")
def test_a_folder_that_cannot_be_written() -> None:
    """Someone who may not write in a folder hears that in one line from each command that would."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        for command in (["emit", "domain.created"], ["setup"], ["ship"]):
            arguments = [sys.executable, "-c", AS_NOBODY, *command]
            ended = subprocess.run(arguments, cwd=folder, capture_output=True, text=True, timeout=60)
            assert "Permission denied" in Ended(ended.returncode, ended.stdout, ended.stderr).refused(1)
        assert list(Path(folder).iterdir()) == []


def newer(path: Path) -> None:
    """Make a store of a version that is not known yet."""
    db = apsw.Connection(str(path))
    db.execute("PRAGMA application_id = 0x41554454; PRAGMA user_version = 99")
    db.close()


def test_a_store_of_a_newer_version(run: Run, place: Path) -> None:
    """A store of a newer version ends each command that needs it with one line; what is emitted waits in the spool."""
    newer(place / "audit.db")
    (place / "one.ndjson").write_text('{"action": "domain.created", "timestamp": "2026-01-01T00:00:00Z"}\n')
    for command in (["search"], ["export"], ["setup"], ["import", "one.ndjson"]):
        assert "version 99" in run(*command).refused(1)
    emitted = process("emit", "domain.created", "--user", "alice", "--ip", "")
    assert emitted.status == 0
    assert "version 99" in emitted.err
    assert "left in the spool" in emitted.err
    assert "Traceback" not in emitted.err
    told = run("doctor")
    assert told.status == 1
    assert "WRONG store" in told.out
    assert "1 waiting" in told.out


def test_a_file_that_is_no_store(run: Run, place: Path) -> None:
    """Another program's file is left alone."""
    (place / "audit.db").write_bytes(b"not a database, and longer than its header would be" * 20)
    before = (place / "audit.db").read_bytes()
    assert "no SQLite database" in run("search").refused(1)
    assert "no SQLite database" in run("setup").refused(1)
    assert (place / "audit.db").read_bytes() == before


@pytest.mark.parametrize(
    "command", [["emit", "domain.created"], ["search"], ["export", "-o", "-"], ["setup"], ["actions"]]
)
def test_a_misspelt_setting_is_told_of(run: Run, monkeypatch: pytest.MonkeyPatch, command: list[str]) -> None:
    """What looks like a setting and is none is one line on stderr, with what was meant, and no error."""
    run("setup")
    monkeypatch.setenv("AUDIT_IP_STORGE", "masked")
    told = run(*command)
    assert told.status == 0
    assert told.err.splitlines()[0] == "audit-pipeline: AUDIT_IP_STORGE is no setting. Did you mean AUDIT_IP_STORAGE?"
    assert (told.out + told.err).count("STORGE") == 1
    # Whatever it is called, the terminal obeys nothing of it.
    monkeypatch.setenv("AUDIT_\x1b[31m", "")
    line = run(*command).err.splitlines()[0]
    assert r"AUDIT_\x1b[31m is no setting. " in line
    assert line.isprintable()


# emit


def test_emit_prints_the_id_and_the_problems(run: Run) -> None:
    """The id is all of the output; problems are on stderr, one a line; with --json both are in one object."""
    arguments = ("emit", "domain.created", "--ip", "nonsense", "--context", "port=25", "--context", "note=a=b")
    made = run(*arguments)
    assert made.status == 0
    assert made.out.count("\n") == 1
    assert [line.split(": ")[1] for line in made.err.splitlines()] == ["ip", "user"]
    (entry,) = lines(run(*arguments, "--json").out)
    assert [problem.partition(":")[0] for problem in entry["problems"]] == ["ip", "user"]
    with AuditPipeline.open() as pipeline:
        kept = pipeline.store.get("default", entry["id"])
    assert kept is not None
    assert kept.context == {"port": "25", "note": "a=b"}


def test_emit_takes_all_that_an_entry_has(run: Run) -> None:
    """Each option becomes its field; the same id is the same entry."""
    event_id = "019ab3c0-7d1b-7c3e-9f00-3d5a0b6c1e2f"
    for _ in "ab":
        made = run("emit", "auth.login_failed", "--target", "t", "--detail", "d", "--user", "u", "--ip", "10.0.0.5",
                   "--outcome", "success", "--timestamp", "2026-01-01T00:00:00Z", "--id", event_id,
                   "--org", "acme")  # fmt: skip
        assert made == Ended(0, event_id + "\n", "")
    (item,) = lines(run("search", "--org", "acme", "--json").out)
    assert item == {
        "id": event_id, "timestamp": "2026-01-01T00:00:00.000Z", "action": "auth.login_failed", "label": "Login failed",
        "category": "auth", "tone": "red", "target": "t", "detail": "d", "user": "u", "ip": "10.0.0.xxx",
        "outcome": "success",
    }  # fmt: skip
    assert run("search").err.startswith("0 entries;")


@pytest.mark.parametrize(
    "event_id",
    [
        "order-17",
        "",
        "019AB3C0-7D1B-7C3E-9F00-3D5A0B6C1E2F",
        "\udcff",
        uuid7(5, 5),
        uuid7(now_ms() + 2 * 86_400_000, 5),
    ],
    ids=count(),
)
def test_emit_refuses_what_is_no_id(run: Run, place: Path, event_id: str) -> None:
    """An id that is none is wrong use, told as the API tells it: under another id, a second try would be a double."""
    wrong = run("emit", "domain.created", "--id", event_id)
    assert (wrong.status, wrong.out) == (2, "")
    message = " ".join(wrong.err.split())
    assert f"--id: {event_id!r} is not a UUIDv7 in lower case with hyphens, of the last ten years; leave it" in message
    assert list(place.iterdir()) == []


def test_emit_of_an_id_that_is_taken(run: Run) -> None:
    """The same entry again is no error; another one under its id is told, and by the exit status too."""
    event_id = uuid7(now_ms(), 5)
    first = ("emit", "domain.created", "--user", "u", "--ip", "", "--id", event_id)
    assert [run(*first, "--target", "a").status for _ in "ab"] == [0, 0]
    other = process(*first, "--target", "b")
    assert (other.status, other.out) == (3, event_id + "\n")
    assert f"entry {event_id} is in quarantine: its id is taken" in other.err


def test_emit_refuses_what_is_no_time(run: Run, place: Path) -> None:
    """A time that is none is wrong use: now, in its place, would be another one."""
    wrong = run("emit", "domain.created", "--timestamp", "yesterday")
    assert (wrong.status, wrong.out) == (2, "")
    message = " ".join(wrong.err.split())
    assert "--timestamp: 'yesterday' is no time; allowed is RFC 3339, such as 2026-11-23T03:41:00Z" in message
    assert list(place.iterdir()) == []


def test_emit_refuses_what_is_no_action(run: Run, place: Path) -> None:
    """An unknown action is wrong use, told with the nearest known one; a malformed option too."""
    assert "did you mean domain.created" in run("emit", "domain.craeted").refused(2)
    assert list(place.iterdir()) == []
    wrong = run("emit", "domain.created", "--context", "port")
    assert wrong.status == 2
    assert "KEY=VALUE" in wrong.err
    assert run("emit").status == 2


# import


def test_import_says_what_it_did(run: Run) -> None:
    """Entries are stored, lines that are none go to a file with their reasons, and a second run adds nothing."""
    good = b'{"action": "domain.created", "timestamp": "2026-01-01T00:00:00Z", "user": "a", "ip": "10.0.0.5"}'
    file = Path("old.ndjson")
    rejected = [
        b'{"action": "nope", "timestamp": "2026-01-01T00:00:00Z"}',
        b"[1]",
        b"{",
        b'{"action": "domain.created"}',
    ]
    flawed = b'{"action": "domain.created", "timestamp": "2026-01-01T00:00:00Z", "ip": "x"}'
    file.write_bytes(b"\n".join([good, good, b"", *rejected, flawed]) + b"\n")
    for _ in "ab":
        done = run("import", str(file))
        assert (done.status, done.out) == (
            3, "3 entries stored, 1 with problems; 4 lines rejected: old.rejected.ndjson\n",
        )  # fmt: skip
        assert len(done.err.splitlines()) == 3
        assert run("search").err.startswith("3 entries;")
    kept = Path("old.rejected.ndjson")
    assert [(line["line"], line["input"].encode()) for line in lines(kept.read_text())] == list(
        zip(range(4, 8), rejected, strict=True)
    )
    assert all(line["reason"] for line in lines(kept.read_text()))
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    counts = {"entries": 3, "rejected": 4, "quarantined": 0, "with_problems": 1}
    assert lines(run("import", str(file), "--json").out) == [counts]


def test_a_file_that_was_put_right_leaves_no_rejected_lines(run: Run) -> None:
    """What an earlier run rejected is not told any more; a file of another ending keeps it in its name."""
    file, kept = Path("old.json"), Path("old.json.rejected.ndjson")
    file.write_text("{")
    assert run("import", str(file)).status == 3
    assert kept.exists()
    file.write_text('{"action": "domain.created", "timestamp": "2026-01-01T00:00:00Z", "user": "a", "ip": ""}')
    assert run("import", str(file)).status == 0
    assert not kept.exists()


def test_import_of_one_entry_and_of_none(run: Run) -> None:
    """Numbers read well, and a file without flaws leaves no other file."""
    Path("one.ndjson").write_text(
        '{"action": "domain.created", "timestamp": "2026-01-01T00:00:00Z", "user": "a", "ip": ""}'
    )
    Path("none.ndjson").write_text("\n")
    assert run("import", "one.ndjson", "--org", "acme") == Ended(0, "1 entry stored\n", "")
    assert run("import", "none.ndjson") == Ended(0, "0 entries stored\n", "")
    assert run("search", "--org", "acme").err == "1 entry; page 1 of 1\n"
    assert not list(Path().glob("*.rejected.ndjson"))


def test_import_of_another_entry_under_a_known_id(run: Run) -> None:
    """A line whose id is taken by other content is put aside, and the import is one in part."""
    line = {"action": "domain.created", "timestamp": "2026-01-01T00:00:00Z", "user": "a", "ip": "",
            "id": "019ab3c0-7d1b-7c3e-9f00-3d5a0b6c1e2f"}  # fmt: skip
    Path("two.ndjson").write_bytes(orjson.dumps(line) + b"\n" + orjson.dumps(line | {"user": "b"}))
    done = process("import", "two.ndjson")
    assert (done.status, done.out) == (
        3, "1 entry stored; 1 entry in quarantine: its id is taken by an entry of other content\n",
    )  # fmt: skip
    told = run("doctor")
    assert told.status == 1
    assert "WRONG quarantine: 1 entry: its id is taken" in told.out


def test_a_large_import_ships_by_another_process(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """From a number of entries on, reading and shipping are two processes; what is stored and told is the same."""
    started: list[ShipperProcess] = []

    class Watched(ShipperProcess):
        def __init__(self, settings: Settings) -> None:
            super().__init__(settings)
            started.append(self)

    monkeypatch.setattr(entries, "ShipperProcess", Watched)
    monkeypatch.setattr(entries, "MANY", 1000)
    line = '{"action": "domain.created", "timestamp": "2026-01-01T00:00:00Z", "user": "a", "ip": "", "target": "%d"}\n'
    Path("many.ndjson").write_text("".join(line % number for number in range(3000)))
    for times in (1, 2):
        assert run("import", "many.ndjson") == Ended(0, "3,000 entries stored\n", "")
        assert run("search").err.startswith("3,000 entries;")
        assert len(started) == times
    monkeypatch.setattr(entries, "MANY", 10_000)
    assert run("import", "many.ndjson").status == 0
    assert len(started) == 2


@pytest.mark.parametrize("file", ["missing.ndjson", "."])
def test_import_of_a_missing_file(run: Run, file: str) -> None:
    """A file that is not there is wrong use."""
    done = run("import", file)
    assert (done.status, done.out) == (2, "")
    assert file in done.err


def test_import_of_a_pipe(place: Path) -> None:
    """What comes in by /dev/stdin is imported like a file; lines that are none go to a file of the current folder."""
    given = '{"action": "domain.created", "timestamp": "2026-01-01T00:00:00Z", "user": "a", "ip": ""}\n{\n'
    done = process("import", "/dev/stdin", input=given)
    assert (done.status, done.out) == (3, "1 entry stored; 1 line rejected: stdin.rejected.ndjson\n")
    assert [line["line"] for line in lines((place / "stdin.rejected.ndjson").read_text())] == [2]
    assert process("import", "-", input=given * 1000).status == 3
    assert lines(process("search", "--json").err)[0]["total"] == 1000


# search


def test_search_walks_by_cursor(run: Run) -> None:
    """`next` leads through all pages, with and without --json; a page can be named too."""
    fill(run, 60)
    seen: list[str] = []
    more: list[str] = []
    while True:
        page = run("search", "--json", "--sort", "timestamp", *more)
        seen += [item["target"] for item in lines(page.out)]
        (summary,) = lines(page.err)
        assert (summary["total"], summary["pages"]) == (60, 3)
        if summary["next"] is None:
            break
        more = ["--cursor", summary["next"]]
    assert seen == [str(number) for number in range(60)]
    assert summary["page"] == 3
    table = run("search", "--page", "2", "--page-size", "10")
    assert len(table.out.splitlines()) == 10
    assert table.err.splitlines()[0] == "60 entries; page 2 of 6"
    cursor = table.err.splitlines()[1].removeprefix("next: --cursor ")
    assert run("search", "--cursor", cursor, "--page-size", "10").err.startswith("60 entries; page 3 of 6")
    assert "cursor" in run("search", "--cursor", cursor + "x").refused(2)
    assert "page: " in run("search", "--cursor", cursor, "--page", "1").refused(2)


def test_the_base_install_walks_by_cursor(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the API encrypts cursors with is not needed to search by them."""
    for name in ("cryptography", "cryptography.fernet"):
        monkeypatch.setitem(sys.modules, name, None)
    fill(run, 30)
    cursor = run("search").err.splitlines()[1].removeprefix("next: --cursor ")
    assert run("search", "--cursor", cursor).err.startswith("30 entries; page 2 of 2")


def test_search_takes_every_filter(run: Run) -> None:
    """The options are the names of the interface; each wrong one is named in one line."""
    fill(run, 3)
    found = run("search", "--json", "--q", "created", "--action", "domain.created", "--action", "domain.deleted",
                "--category", "domains", "--from", "2026-01-01", "--to", "2026-01-01", "--tz", "UTC", "--user", "alice",
                "--outcome", "success", "--ip", "10.0.0.xxx", "--sort", "timestamp")  # fmt: skip
    assert [item["target"] for item in lines(found.out)] == ["0", "1", "2"]
    wrong = run("search", "--action", "nope", "--ip", "10.0.0.5", "--sort", "size", "--user", "\udcff").refused(2)
    assert "user: is not UTF-8" in wrong
    wrong = run("search", "--action", "nope", "--ip", "10.0.0.5", "--sort", "size").refused(2)
    assert all(f"{name}: " in wrong for name in ("action", "ip", "sort"))
    assert "page_size: " in run("search", "--page-size", "7").refused(2)


@pytest.mark.parametrize("command", ["search", "export", "tail"])
def test_search_text_is_an_option(run: Run, place: Path, command: str) -> None:
    """A word that stands alone is wrong use, told with the option that takes it; other wrong options are as ever."""
    wrong = run(command, "example.com", "dkim", "--user", "alice")
    assert (wrong.status, wrong.out) == (2, "")
    assert "is it search text? That is given as --q 'example.com dkim'" in " ".join(wrong.err.split())
    assert "No such option" in run(command, "example.com", "--nonsense").err
    assert list(place.iterdir()) == []


def test_search_says_where_there_is_no_page(run: Run) -> None:
    """Past the last page, and where nothing matches, it says so; for programs the figures are as ever."""
    fill(run, 30)
    assert run("search", "--page", "99") == Ended(0, "", "30 entries; there is no page 99, the last one is 2\n")
    assert run("search", "--q", "nowhere") == Ended(0, "", "0 entries; nothing matches\n")
    assert lines(run("search", "--page", "99", "--json").err) == [{"total": 30, "page": 99, "pages": 2, "next": None}]


def test_a_table_obeys_nothing(run: Run) -> None:
    """What a terminal would obey, or turn round, is shown as an escape."""
    text = "a\x1b[31mb\x9b1m\u202ec\r\nd\x07\ud800"
    run("emit", "domain.created", "--target", text, "--user", "é ü 漢", "--ip", "")
    (row,) = run("search").out.splitlines()
    assert r"a\x1b[31mb\x9b1m\u202ec\r\nd\x07" in row
    assert "é ü 漢" in row
    assert row.isprintable()


def test_store_and_spool_stand_for_the_settings(run: Run, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """--store and --spool win over the environment."""
    monkeypatch.setenv("AUDIT_STORE_URL", "sqlite:///env.db")
    options = ("--store", "sqlite:///option.db", "--spool", "elsewhere.db")
    assert run("emit", "domain.created", *options).status == 0
    assert run("search", "--store", "sqlite:///option.db").err.startswith("1 entry;")
    beside = {"elsewhere.db", "elsewhere.db.card", "elsewhere.db.lock"}
    assert {path.name for path in place.iterdir()} == {"option.db", *beside}


@pytest.mark.parametrize("spool", ["a.db", "./a.db", "folder/../a.db", "link.db", "second.db", "a.db-wal", "a.db-shm"])
def test_the_spool_is_not_the_store(run: Run, place: Path, monkeypatch: pytest.MonkeyPatch, spool: str) -> None:
    """A spool at the place of its store, however that is called, is refused before a file is touched."""
    monkeypatch.setenv("AUDIT_STORE_URL", "sqlite:///a.db")
    assert run("setup").status == 0
    (place / "folder").mkdir()
    (place / "link.db").symlink_to("a.db")
    (place / "second.db").hardlink_to("a.db")
    before = {path.name: path.stat().st_mtime_ns for path in place.iterdir()}
    monkeypatch.setenv("AUDIT_SPOOL", spool)
    said = run("emit", "domain.created", "--target", "x").refused(2)
    assert said.startswith(f"audit-pipeline: AUDIT_SPOOL: '{Path(spool)}' is the file of the store")
    assert "allowed is a file that nothing else uses: name another one" in said
    assert {path.name: path.stat().st_mtime_ns for path in place.iterdir()} == before


def test_a_spool_at_the_place_of_a_store_to_be_is_refused(run: Run, place: Path) -> None:
    """No file needs to be there yet; and the store may not be where the spool keeps a file of its own."""
    for store, spool in (("a.db", "a.db"), ("a.db-wal", "a.db"), ("a.db.lock", "a.db")):
        assert "AUDIT_SPOOL" in run(
            "emit", "domain.created", "--store", f"sqlite:///{store}", "--spool", spool
        ).refused(2)
    assert list(place.iterdir()) == []


def test_emit_says_how_to_say_that_there_is_none(run: Run) -> None:
    """What was not given is no failure: the note says that the entry was recorded, and how to do without the note."""
    noted = run("emit", "domain.created", "--user", "cron")
    assert (noted.status, noted.out.count("\n")) == (0, 1)
    said = "ip: none given; the entry was recorded without, and --ip '' says that there is none"
    assert noted.err == f"audit-pipeline: {said}\n"
    assert "--user '' says" in run("emit", "domain.created", "--ip", "").err
    assert run("emit", "domain.created", "--user", "", "--ip", "").err == ""
    (given,) = lines(run("emit", "domain.created", "--user", "cron", "--json").out)
    assert given["problems"] == ["ip: none given"]
    assert "says" not in run("emit", "domain.created", "--user", "cron", "--ip", "nowhere").err


# export


def test_export_writes_a_private_file(run: Run, place: Path) -> None:
    """The file is whole, its owner's only, and the export is an entry with what was asked for."""
    fill(run, 3)
    Path("out.csv").write_text("older")
    done = run("export", "-o", "out.csv", "--user", "alice", "--sort", "timestamp")
    assert (done.status, done.out, done.err) == (0, "", "audit-pipeline: 3 entries in out.csv\n")
    data = Path("out.csv").read_bytes()
    assert data.startswith(b"\xef\xbb\xbfTimestamp,Action,Target,Detail,User,IP Address\r\n")
    assert data.count(b"\r\n") == 4
    assert stat.S_IMODE(Path("out.csv").stat().st_mode) == 0o600
    (entry,) = lines(run("search", "--action", "audit.exported", "--json").out)
    assert (entry["target"], entry["detail"]) == ("out.csv", "3 of 3 entries")
    assert (entry["detail"], entry["user"]) == ("3 of 3 entries", os.environ.get("LOGNAME") or entry["user"])
    with AuditPipeline.open() as pipeline:
        kept = pipeline.store.get("default", entry["id"])
    assert kept is not None
    assert kept.context["filters"] == {"user": ["alice"], "sort": "timestamp"} or kept.context["filters"]["user"]
    assert run("export").status == 0
    (named,) = place.glob("audit-log-*.csv")
    (place / "folder").mkdir()
    for output in (str(place / "folder" / "other.csv"), "-"):
        assert run("export", "-o", output).status == 0
    exported = lines(run("search", "--action", "audit.exported", "--json").out)
    assert [entry["target"] for entry in exported] == [named.name, "other.csv", named.name, "out.csv"]


def test_export_says_what_it_cut(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """An export that is cut at the limit is one in part, and says so; so does its entry."""
    fill(run, 3)
    monkeypatch.setenv("AUDIT_EXPORT_LIMIT", "2")
    for output in ("out.csv", "-"):
        done = run("export", "-o", output)
        assert done.status == 3
        assert "2 of " in done.err
        assert "AUDIT_EXPORT_LIMIT" in done.err


def test_export_leaves_no_part_behind(run: Run, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An export that fails in the middle leaves what was there, and no part of a file."""
    fill(run, 3)
    Path("out.csv").write_text("older")
    db = apsw.Connection("audit.db")
    db.execute("DELETE FROM contents WHERE number = 2")
    db.close()
    assert "lost its content" in run("export", "-o", "out.csv").refused(1)
    assert Path("out.csv").read_text() == "older"
    assert not list(place.glob("*.part"))


def test_an_export_that_cannot_begin_is_none(run: Run, place: Path) -> None:
    """Where the file cannot be opened no export is recorded, nothing is left, and the error names what is wrong."""
    fill(run, 3)
    before = sorted(place.iterdir())
    (place / "folder").mkdir()
    wrong = {
        "no/such/folder.csv": f"{place}/no/such: there is no such folder; make it, or choose another file",
        "entries.ndjson/out.csv": f"{place}/entries.ndjson: there is no such folder",
        f"{'x' * 250}.csv": "x.csv: cannot be written (File name too long); choose another file",
        "folder": "folder: Is a directory",
    }
    for output, said in wrong.items():
        line = run("export", "-o", output, "--q", "nothing").refused(1)
        assert said in line
        assert ".part" not in line
    assert run("export", "-o", "audit.db").status == 2
    assert run("search", "--action", "audit.exported").err.startswith("0 entries;")
    (place / "folder").rmdir()
    assert sorted(place.iterdir()) == before


def test_an_export_that_cannot_be_recorded_leaves_no_file(run: Run, place: Path) -> None:
    """Without its entry there is no export: neither the file nor a part of it, and what was there stays."""
    fill(run, 3)
    Path("out.csv").write_text("older")
    db = apsw.Connection("audit.spool.db")
    db.execute("CREATE TRIGGER refuse BEFORE INSERT ON entries BEGIN SELECT RAISE(ABORT, 'no'); END")
    db.close()
    assert "the spool cannot be used" in run("export", "-o", "out.csv").refused(1)
    assert run("export", "-o", "new.csv").refused(1)
    assert Path("out.csv").read_text() == "older"
    assert not [*place.glob("*.part"), *place.glob("new.csv")]


def test_export_never_replaces_a_pipe_or_a_device(run: Run, place: Path) -> None:
    """A pipe is written to; a link stays, and what it points to is replaced."""
    fill(run, 1)
    os.mkfifo("pipe")
    with subprocess.Popen(["cat", "pipe"], stdout=subprocess.PIPE) as reader:
        try:
            assert run("export", "-o", "pipe").status == 0
            assert reader.communicate(timeout=10)[0].count(b"\r\n") == 2
        finally:
            reader.kill()
    assert stat.S_ISFIFO(os.stat("pipe").st_mode)
    Path("link.csv").symlink_to("real.csv")
    assert run("export", "-o", "link.csv").status == 0
    assert Path("link.csv").is_symlink()
    assert Path("real.csv").read_bytes().count(b"\r\n") == 3


# copy


@pytest.fixture
def state(place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's state folder."""
    monkeypatch.setenv("XDG_STATE_HOME", str(place / "state"))
    return place / "state" / "audit-pipeline"


@pytest.mark.usefixtures("state")
def test_copy_says_what_it_did(run: Run) -> None:
    """All organisations are copied; a second run has the same to say, and with --json it is one line."""
    fill(run, 3)
    run("emit", "domain.created", "--org", "acme", "--target", "theirs")
    places = ("copy", "sqlite:///audit.db", "sqlite:///other.db")
    for _ in "ab":
        assert process(*places) == Ended(0, "4 entries are in sqlite:///other.db now\n", "")
    assert lines(run(*places, "--json").out) == [{"entries": 4, "refused": 0, "resumed": False}]
    for org in ("default", "acme"):
        found = [
            run("search", "--json", "--org", org, "--store", f"sqlite:///{name}.db") for name in ("audit", "other")
        ]
        assert found[0].out == found[1].out != ""
    assert stat.S_IMODE(Path("other.db").stat().st_mode) == 0o600


@pytest.mark.parametrize("settled", ["copy", "ship", "ship --replay", "quarantine"])
def test_masked_storage_masks_what_was_recorded_in_full(
    run: Run, start: Any, place: Path, monkeypatch: pytest.MonkeyPatch, settled: str
) -> None:
    """Whichever command brings entries of an earlier setting into a store, it writes no address in full."""
    full = b"203.0.113.199"
    place.joinpath("source").mkdir()
    source = f"sqlite:///{place / 'source' / 'audit.db'}"
    with AuditPipeline.open(source, ship=settled == "copy") as audit:
        audit.record("domain.created", ip=full.decode())
        if settled == "copy":
            assert audit.flush(10)
        elif settled == "quarantine":
            (event,) = audit.spool.pending()
            audit.spool.mark_shipped(event.sequence, [Quarantined(event, "tried")])
    monkeypatch.setenv("AUDIT_IP_STORAGE", "masked")
    target = place / "source" / "audit.db"
    if settled == "copy":
        assert run("copy", source, "sqlite:///other.db").status == 0
        target = place / "other.db"
    elif settled == "quarantine":
        assert run("quarantine", "retry", "--store", source).status == 0
    elif settled == "ship":
        shipping = start("ship", "--store", source)
        await_(lambda: target.exists() and b"203.0.113.xxx" in written(target))
        shipping.terminate()
        shipping.wait(10)
    else:
        assert run("ship", "--replay", "--store", source).status == 0
    assert b"203.0.113.xxx" in written(target)
    assert full not in written(target)


def written(path: Path) -> bytes:
    """All bytes of a store's files."""
    return b"".join(file.read_bytes() for file in path.parent.glob(f"{path.name}*"))


def await_(reached: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not reached():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_masked_storage_keeps_no_rejected_line(run: Run, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A line may hold an address anywhere, in place of an action too: its number and the reason are kept."""
    monkeypatch.setenv("AUDIT_IP_STORAGE", "masked")
    place.joinpath("lines.ndjson").write_text('{"action": "203.0.113.199"}\nfrom 203.0.113.199\n')
    ended = run("import", "lines.ndjson")
    assert ended.status == 3
    assert "113.199" not in ended.out + ended.err
    kept = place.joinpath("lines.rejected.ndjson").read_text()
    assert "113.199" not in kept
    assert [(line["line"], line["input"]) for line in lines(kept)] == [(1, None), (2, None)]
    assert all("left out: AUDIT_IP_STORAGE is masked" in line["reason"] for line in lines(kept))


@pytest.mark.parametrize(
    ("places", "status", "said"),
    [
        (("sqlite:///audit.db", "sqlite:///./audit.db"), 2, "TO_URL: is the same place as FROM_URL"),
        (("sqlite:///audit.db", "sqlite:///link.db"), 2, "TO_URL: is the same place as FROM_URL"),
        (("memory://", "sqlite:///other.db"), 2, "FROM_URL: this store ends with the command"),
        (("sqlite:///audit.db", "memory://"), 2, "TO_URL: this store ends with the command"),
        (("sqlite:///audit.db", "postgres://bob:hunter2@db/audit"), 2, "TO_URL: no store is called 'postgres'"),
        (("sqlite://", "sqlite:///other.db"), 2, "FROM_URL: sqlite needs a file"),
        (("sqlite:///none.db", "sqlite:///other.db"), 1, "there is no audit store yet"),
        (("sqlite:///audit.db", "sqlite:///newer.db"), 1, "version 99"),
        (("sqlite:///newer.db", "sqlite:///other.db"), 1, "version 99"),
        (("sqlite:///audit.db", "sqlite:///no/folder.db"), 1, "no/folder.db: cannot be used"),
    ],
)
@pytest.mark.usefixtures("state")
def test_copy_refuses_what_it_cannot_do(
    run: Run, monkeypatch: pytest.MonkeyPatch, places: tuple[str, str], status: int, said: str
) -> None:
    """One line says at once which place is wrong, and why; nothing is made anywhere, no password is shown."""
    monkeypatch.setattr(Copy, "run", lambda _: pytest.fail("nothing is to be tried"))
    run("emit", "domain.created")
    newer(Path("newer.db"))
    Path("link.db").symlink_to("audit.db")
    line = run("copy", *places).refused(status)
    assert said in line
    assert "hunter2" not in line
    assert not Path("other.db").exists()


def test_copy_that_is_interrupted_is_resumed(run: Run, state: Path) -> None:
    """Ctrl-C ends it with what to do; the next run says where it goes on, `--restart` begins anew."""
    fill(run, 1500)
    script = (
        "import os, signal, sys; from audit_pipeline import cli, copying; write = copying.Copy._note;"
        "copying.Copy._note = lambda *given: (write(*given), os.kill(os.getpid(), signal.SIGINT));"
        "sys.argv[1:] = ['copy', 'sqlite:///audit.db', 'sqlite:///other.db']; cli.main()"
    )
    for option in ("--json", "--restart"):
        ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
        assert (ended.returncode, ended.stdout) == (130, "")
        assert "interrupted; run it again, and it goes on where it was" in ended.stderr
        assert "Traceback" not in ended.stderr
        (file,) = state.iterdir()
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        done = run("copy", "sqlite:///audit.db", "sqlite:///other.db", option)
        assert done.status == 0
        if option == "--json":
            assert done.err.startswith("audit-pipeline: resumed at 2026-01-01T00:16:39.000Z of organisation default;")
            assert lines(done.out) == [{"entries": 1500, "refused": 0, "resumed": True}]
        else:
            assert done == Ended(0, "1,500 entries are in sqlite:///other.db now\n", "")
        assert list(state.iterdir()) == []
        Path("other.db").unlink()


@pytest.mark.usefixtures("state")
def test_copy_into_a_store_that_goes_away(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A target that stays unavailable ends the copy with one line that says how to go on."""
    fill(run, 3)
    monkeypatch.setattr("audit_pipeline.offering.PATIENCE_S", 0)
    run("setup", "--store", "sqlite:///other.db")
    monkeypatch.setattr("audit_pipeline.stores.sqlite.BUSY_MS", 10)
    db = apsw.Connection("other.db")
    make = Copy.__init__

    def make_and_lock(*given: Any, **more: Any) -> None:
        make(*given, **more)
        db.execute("BEGIN IMMEDIATE")

    monkeypatch.setattr(Copy, "__init__", make_and_lock)
    line = run("copy", "sqlite:///audit.db", "sqlite:///other.db").refused(1)
    assert "another process holds its lock" in line
    assert "run it again, and it goes on where it was" in line
    monkeypatch.setattr(Copy, "__init__", make)
    db.execute("ROLLBACK")
    db.close()
    assert run("copy", "sqlite:///audit.db", "sqlite:///other.db").status == 0


@pytest.mark.usefixtures("state")
def test_progress_is_for_terminals(run: Run) -> None:
    """On a terminal `import` and `copy` show how far they are; a pipe has no length, and is read all the same."""
    fill(run, 3)

    def on_a_terminal(*arguments: str, **more: Any) -> str:
        ours, theirs = os.openpty()
        try:
            ended = subprocess.run([*COMMAND, *arguments], stderr=theirs, stdout=subprocess.PIPE, timeout=30, **more)
            assert ended.returncode == 0
            os.set_blocking(ours, False)
            return os.read(ours, 100_000).decode() if select.select([ours], [], [], 0)[0] else ""
        finally:
            os.close(ours)
            os.close(theirs)

    assert "3/3" in on_a_terminal("copy", "sqlite:///audit.db", "sqlite:///other.db")
    size = Path("entries.ndjson").stat().st_size
    assert f"{size}/{size}" in on_a_terminal("import", "entries.ndjson")
    assert on_a_terminal("import", "/dev/stdin", input=Path("entries.ndjson").read_bytes()) == ""


# quarantine


TAKEN_ID = "019ab3c0-7d1b-7c3e-9f00-3d5a0b6c1e2f"
TAKEN = "its id is taken by an entry of other content"


def take(run: Run, *targets: str) -> None:
    """Record entries under one id: the first one is stored, the others are refused."""
    Path("taken.ndjson").write_bytes(b"".join(
        orjson.dumps({"action": "domain.created", "timestamp": "2026-01-01T00:00:00Z", "id": TAKEN_ID, "user": "a",
                      "ip": "10.0.0.5", "target": target, "org": "acme"}) + b"\n"
        for target in targets
    ))  # fmt: skip
    assert run("import", "taken.ndjson").status == 3


def test_from_quarantine_into_the_store(run: Run) -> None:
    """What the store refused is listed, shown with its address masked, and stored under a new id when that is asked."""
    take(run, "first", "from 10.0.0.5\x1b[31m")
    listed = process("quarantine", "list")
    assert listed == Ended(0, f"2  2026-01-01T00:00:00.000Z  acme  domain.created  {TAKEN_ID}  {TAKEN}\n", "")
    shown = process("quarantine", "show", "2")
    assert (shown.status, shown.err) == (0, "")
    fields = dict(line.split(":", 1) for line in shown.out.splitlines())
    fields = {name: value.strip() for name, value in fields.items()}
    assert (fields["ip"], fields["target"]) == ("10.0.0.xxx", r"from 10.0.0.xxx\x1b[31m")
    assert (fields["reason"], fields["org"], fields["sequence"]) == (TAKEN, "acme", "2")
    assert fields["quarantined"].startswith("20")
    assert "10.0.0.5" not in shown.out
    again = process("quarantine", "retry")
    assert (again.status, again.out) == (3, "0 entries stored; 1 entry still in quarantine\n")
    assert again.err.splitlines()[0] == f"audit-pipeline: 2: {TAKEN}"
    assert "--new-id" in again.err
    stored = process("quarantine", "retry", "--new-id")
    assert (stored.status, stored.err) == (0, "")
    new = lines(process("search", "--org", "acme", "--q", "from", "--json").out)[0]["id"]
    assert stored.out == f"2: stored as {new}\n1 entry stored\n"
    assert process("quarantine", "list") == Ended(0, "nothing is in quarantine\n", "")
    assert process("quarantine", "retry") == Ended(0, "0 entries stored\n", "")


def test_quarantine_prints_machine_readable_lines(run: Run) -> None:
    """With --json each row is a line, also one that is damaged; the address is masked in each."""
    take(run, "first", "second", "third", "fourth")
    db = apsw.Connection("audit.spool.db")
    db.execute("UPDATE quarantine SET body = x'7b' WHERE sequence = 3")
    db.close()
    listed = run("quarantine", "list", "--json")
    assert (listed.status, listed.err) == (0, "")
    second, third, fourth = lines(listed.out)
    assert second == {
        "sequence": 2, "timestamp": "2026-01-01T00:00:00.000Z", "org": "acme", "action": "domain.created",
        "id": TAKEN_ID, "reason": TAKEN, "quarantined": second["quarantined"], "damaged": False,
    }  # fmt: skip
    assert third == {
        "sequence": 3, "timestamp": None, "org": "", "action": None, "id": None, "reason": TAKEN,
        "quarantined": third["quarantined"], "damaged": True,
    }  # fmt: skip
    assert "3  [damaged]  " in run("quarantine", "list").out
    (shown,) = lines(run("quarantine", "show", "4", "--json").out)
    assert shown | fourth == shown
    assert (shown["entry"]["target"], shown["entry"]["ip"]) == ("fourth", "10.0.0.xxx")
    assert lines(run("quarantine", "show", "3", "--json").out)[0]["entry"] is None
    assert "damaged:     true" in run("quarantine", "show", "3").out
    (chosen,) = lines(run("quarantine", "retry", "2", "2", "--new-id", "--json").out)
    assert (chosen["stored"], chosen["quarantined"], list(chosen["renamed"])) == (1, 0, ["2"])
    rest = run("quarantine", "retry", "--new-id", "--json")
    assert rest.status == 3
    (counts,) = lines(rest.out)
    assert (counts["stored"], counts["quarantined"], list(counts["renamed"])) == (1, 1, ["4"])
    assert "10.0.0.5" not in listed.out + orjson.dumps(shown).decode()


def test_quarantine_names_what_there_is(run: Run, place: Path) -> None:
    """A sequence that is not in quarantine is wrong use, told with those that are; without a spool there is nothing."""
    for command in (["list"], ["show", "1"], ["retry"]):
        assert "audit.spool.db: there is no spool yet" in run("quarantine", *command).refused(1)
        assert "ends with the command" in run("quarantine", *command, "--store", "memory://").refused(2)
    assert list(place.iterdir()) == []
    take(run, "first", *map(str, range(12)))
    for command in ("show", "retry"):
        wrong = run("quarantine", command, "1")
        assert (wrong.status, wrong.out) == (2, "")
        assert "1 is not in quarantine; allowed are 2, 3, 4, 5, 6, 7, 8, 9, 10, 11 …" in wrong.err
        assert "audit-pipeline quarantine list" in wrong.err
    assert run("quarantine", "show", "0").status == 2
    assert run("quarantine").status == 2


def test_quarantine_takes_the_ids_that_it_lists(run: Run) -> None:
    """An id stands for the entries that came with it, each of them once; what is neither is told what is allowed."""
    take(run, "first", "second", "third")
    by_id = run("quarantine", "show", TAKEN_ID)
    assert (by_id.status, by_id.err) == (0, "")
    assert by_id.out == run("quarantine", "show", "2").out + "\n" + run("quarantine", "show", "3").out
    assert [line["sequence"] for line in lines(run("quarantine", "show", TAKEN_ID, "--json").out)] == [2, 3]
    for command in ("show", "retry"):
        wrong = run("quarantine", command, "domain.created\x1b[31m")
        assert (wrong.status, wrong.out) == (2, "")
        assert r"domain.created\x1b[31m is not in quarantine; allowed are 2, 3, or an entry's id: see" in wrong.err
    (retried,) = lines(run("quarantine", "retry", "3", TAKEN_ID, "--new-id", "--json").out)
    assert (retried["stored"], list(retried["renamed"])) == (2, ["2", "3"])


def test_retry_while_the_store_is_down(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without its store nothing leaves the quarantine, and one line says why."""
    take(run, "first", "second")
    before = run("quarantine", "list")
    monkeypatch.setattr("audit_pipeline.stores.sqlite.BUSY_MS", 10)
    db = apsw.Connection("audit.db")
    db.execute("BEGIN IMMEDIATE")
    assert "another process holds its lock" in run("quarantine", "retry", "--new-id").refused(1)
    db.execute("ROLLBACK")
    db.close()
    assert run("quarantine", "list") == before


def test_doctor_names_what_is_in_quarantine(run: Run) -> None:
    """The first of them by sequence and id, how many more there are, and the commands that deal with them."""
    take(run, "first", *map(str, range(5)))
    (wrong,) = (finding for finding in lines(run("doctor", "--json").out) if not finding["ok"])
    assert wrong["check"] == "quarantine"
    assert wrong["detail"] == f"5 entries: {TAKEN}"
    assert f"2 ({TAKEN_ID}), 3 ({TAKEN_ID}), 4 ({TAKEN_ID}) and 2 more" in wrong["do"]
    assert "`audit-pipeline quarantine list`" in wrong["do"]
    assert "`audit-pipeline quarantine retry`" in wrong["do"]


# actions, token, setup


def test_actions_lists_the_catalogue(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """All actions by category, an application's own among them."""
    own = {"id": "cli.tested", "label": "Tested", "category": "cli", "tone": "yellow", "category_label": "Command line"}
    Path("own.json").write_bytes(orjson.dumps([own]))
    monkeypatch.setenv("AUDIT_CATALOGUE", "own.json")
    listed = process("actions")
    assert (listed.status, listed.err) == (0, "")
    assert listed.out.startswith("Domains (domains)\n  domain.created ")
    assert "Command line (cli)\n  cli.tested " in listed.out
    (first, *_, last) = lines(process("actions", "--json").out)
    assert first == {"id": "domain.created", "label": "Domain created", "category": "domains", "tone": "green"}
    assert last == {"id": "cli.tested", "label": "Tested", "category": "cli", "tone": "yellow"}


def test_token_needs_the_secret(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the secret no token can be signed; a wrong lifetime is wrong use."""
    assert "AUDIT_JWT_SECRET" in run("token").refused(2)
    monkeypatch.setenv("AUDIT_JWT_SECRET", "x" * 32)
    assert run("token", "--ttl", "0").status == 2
    assert run("token").err == ""


def test_setup_twice(run: Run, place: Path) -> None:
    """The first time it says what it made, the second time that there is nothing to do."""
    first = run("setup")
    assert (first.status, first.err) == (0, "")
    assert "audit.db: created" in first.out
    second = run("setup")
    assert (second.status, second.err) == (0, "")
    assert second.out.startswith("nothing to do; sqlite ")
    assert stat.S_IMODE((place / "audit.db").stat().st_mode) == 0o600


# doctor


def test_doctor_finds_nothing_wrong(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the first entry and after it, all is well, and no secret is shown."""
    monkeypatch.setenv("AUDIT_JWT_SECRET", "hunter2" * 10)
    for _ in "ab":
        told = run("doctor")
        assert (told.status, told.err) == (0, "")
        assert {line.split()[0] for line in told.out.splitlines()} == {"ok"}
        assert "hunter2" not in told.out
        assert (
            f"AUDIT_STORE_URL is not set, so the store is sqlite:///audit.db of this folder, {Path.cwd()}" in told.out
        )
        run("emit", "domain.created")
    assert "AUDIT_STORE_URL" not in run("doctor", "--store", "sqlite:///audit.db").out
    checks = lines(run("doctor", "--json").out)
    assert [check["check"] for check in checks] == ["settings", "access", "spool", "store"]
    assert all(check["ok"] for check in checks)


def typo(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUDIT_STORE_ULR", "sqlite:///hunter2.db")


def short_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUDIT_JWT_SECRET", "hunter2")


def no_key_set(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("keys.json").write_text("{}")
    monkeypatch.setenv("AUDIT_JWKS_FILE", "keys.json")


def readable_store(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("audit.db").chmod(0o644)


def readable_spool(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("audit.spool.db").chmod(0o640)


def stuck_spool(monkeypatch: pytest.MonkeyPatch) -> None:
    with AuditPipeline.open(ship=False) as pipeline:
        pipeline.record("domain.created")
    db = apsw.Connection("audit.spool.db")
    db.execute("UPDATE entries SET received = received - 3600000")
    db.close()


def spool_of_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUDIT_STORE_URL", "sqlite:///other.db")
    monkeypatch.setenv("AUDIT_SPOOL", "audit.spool.db")


def no_spool(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("audit.db").rename("other.db")
    with AuditPipeline.open() as pipeline:
        pipeline.record("domain.created", target="a.example", user="alice", ip="203.0.113.9")
    monkeypatch.setenv("AUDIT_SPOOL", "other.db")


def spool_in_the_store(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUDIT_SPOOL", "audit.db")


def newer_store(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("audit.db").unlink()
    newer(Path("audit.db"))
    Path("audit.db").chmod(0o600)


def store_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    with AuditPipeline.open() as pipeline:
        assert pipeline.flush()
    for file in Path().glob("audit.db*"):
        file.unlink()


def store_made_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    store_gone(monkeypatch)
    with AuditPipeline.open() as pipeline:
        pipeline.record("domain.deleted", target="a.example", user="alice", ip="203.0.113.9")
        assert pipeline.flush()


def older_store(monkeypatch: pytest.MonkeyPatch) -> None:
    with AuditPipeline.open() as pipeline:
        assert pipeline.flush()
    kept = Path("audit.db").read_bytes()
    with AuditPipeline.open() as pipeline:
        pipeline.record("domain.deleted", target="a.example", user="alice", ip="203.0.113.9")
        assert pipeline.flush()
    for file in Path().glob("audit.db*"):
        file.unlink()
    Path("audit.db").touch(0o600)
    Path("audit.db").write_bytes(kept)


def store_gone_beside_its_log(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("audit.db").rename("audit.db-wal")


def no_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUDIT_SPOOL", "missing/audit.spool.db")


def no_store_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUDIT_STORE_URL", "sqlite:///missing/audit.db")
    monkeypatch.setenv("AUDIT_SPOOL", "other.spool.db")


def no_state_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUDIT_STORE_URL", "memory://")
    Path("state").write_text("")
    monkeypatch.setenv("XDG_STATE_HOME", "state")


@pytest.mark.parametrize(
    ("harm", "check", "said"),
    [
        (typo, "settings", "AUDIT_STORE_URL"),
        (short_secret, "access", "32 bytes"),
        (no_key_set, "access", "AUDIT_JWKS_FILE"),
        (readable_store, "store", "chmod 600"),
        (readable_spool, "spool", "chmod 600"),
        (stuck_spool, "spool", "audit-pipeline ship"),
        (spool_of_another, "spool", "serves the store"),
        (no_spool, "spool", "is no spool"),
        (spool_in_the_store, "spool", "is the file of the store"),
        (newer_store, "store", "version 99"),
        (store_gone, "store", "ship --replay"),
        (store_made_anew, "store", "lacks entries that it was given, such as "),
        (older_store, "store", "lacks entries that it was given, such as "),
        (store_gone_beside_its_log, "store", "move audit.db-wal away"),
        (no_folder, "spool", "missing"),
        (no_store_folder, "store", "missing"),
        (no_state_folder, "spool", "AUDIT_SPOOL"),
    ],
)
def test_doctor_finds_what_is_wrong(
    run: Run, monkeypatch: pytest.MonkeyPatch, harm: Callable[[pytest.MonkeyPatch], None], check: str, said: str
) -> None:
    """Each thing that is wrong is found, alone, with what to do about it; and no value of a secret is shown."""
    assert run("emit", "domain.created").status == 0
    harm(monkeypatch)
    told = run("doctor", "--json")
    assert (told.status, told.err) == (1, "")
    (wrong,) = (finding for finding in lines(told.out) if not finding["ok"])
    assert wrong["check"] == check
    assert wrong["do"]
    assert said in f"{wrong['detail']} {wrong['do']}"
    assert "hunter2" not in told.out
    text = run("doctor")
    assert text.status == 1
    assert f"WRONG {check}: {wrong['detail']}\n        {wrong['do']}\n" in text.out


# The command itself


def test_help_and_version(run: Run) -> None:
    """Help lists every command; without one, or with a wrong one, it is wrong use."""
    shown = run("--help")
    assert shown.status == 0
    commands = "demo serve setup ship emit import copy search export quarantine actions token doctor"
    assert all(f"  {name} " in shown.out for name in commands.split())
    assert run("--version").out.startswith("audit-pipeline, version ")
    for wrong in ([], ["nonsense"], ["search", "--nonsense"]):
        assert run(*wrong).status == 2


def test_no_summary_is_cut_short(run: Run) -> None:
    """On a terminal of 80 columns the list of commands has a whole sentence for each."""
    for command in ([], ["quarantine"]):
        shown = run(*command, "--help").out
        summaries = shown.partition("Commands:\n")[2].splitlines()
        assert all(line.endswith(".") and not line.endswith("...") for line in summaries), shown
        assert max(map(len, summaries)) <= 80


def test_small_answers_are_not_held_back() -> None:
    """The socket names its protocol, without which asyncio leaves Nagle's algorithm on: 40 ms for each answer."""
    with _listen("127.0.0.1", 0) as listening:
        assert listening.proto == socket.IPPROTO_TCP


def test_two_servers_cannot_take_one_port() -> None:
    """The port is taken from the moment it is chosen: the demo takes another one, a server says so."""
    with _listen("127.0.0.1", 0) as first:
        port = first.getsockname()[1]
        with pytest.raises(SettingsError, match="cannot listen there"):
            _listen("127.0.0.1", port)
        with _listen("127.0.0.1", port, otherwise_any=True) as second:
            assert second.getsockname()[1] != port


def test_a_store_that_ends_with_the_command_is_refused(run: Run) -> None:
    """`emit` into memory would lose the entry while it says that it is kept."""
    done = run("emit", "domain.created", "--store", "memory://")
    assert (done.status, done.out) == (2, "")
    assert "ends with the command" in done.err


def test_search_marks_what_was_only_tried(run: Run) -> None:
    """A label says what was done; an entry that failed must not read so."""
    run("emit", "domain.deleted", "--outcome", "failure", "--target", "kept.example")
    assert "Domain deleted [failed]" in run("search").out


def test_a_token_takes_known_scopes_only(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A misspelt scope is refused, and the plan is by default one that is entitled."""
    monkeypatch.setenv("AUDIT_JWT_SECRET", "x" * 32)
    done = run("token", "--scope", "audit:raed")
    assert done.status == 2
    assert "audit:read" in done.err


def test_a_token_says_what_it_was_asked_to(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Scopes may be given one by one, and no plan at all; as JSON, the token stands in an object."""
    secret = "x" * 32
    monkeypatch.setenv("AUDIT_JWT_SECRET", secret)

    def claims(*options: str) -> dict[str, Any]:
        (made,) = lines(run("token", "--json", *options).out)
        known: dict[str, Any] = jwt.decode(made["token"], secret, algorithms=["HS256"])
        return known

    assert claims()["scope"] == "audit:read audit:export"
    assert claims("--scope", "audit:read", "--scope", "audit:write")["scope"] == "audit:read audit:write"
    assert claims()["plan"] == "business"
    assert claims("--plan", "").get("plan") is None


def test_an_export_is_told_in_json(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """How many rows are in which file; beside the CSV on standard output, it goes to the other one."""
    fill(run, 3)
    assert lines(run("export", "-o", "all.csv", "--json").out) == [{"rows": 3, "total": 3, "file": "all.csv"}]
    monkeypatch.setenv("AUDIT_EXPORT_LIMIT", "2")
    done = run("export", "-o", "-", "--json")
    assert (done.status, lines(done.err)) == (3, [{"rows": 2, "total": 4, "file": "-"}])


def test_what_a_list_cuts_is_marked(run: Run) -> None:
    """Two long targets are not shown as one; names of section 6 are taken as they are written there, too."""
    run("emit", "domain.created", "--target", "x" * 61, "--user", "a", "--ip", "")
    run("emit", "domain.created", "--target", "x" * 60, "--user", "a", "--ip", "")
    shown = run("search", "--page_size", "10").out.splitlines()
    assert [line.split()[3] for line in shown] == ["x" * 60, "x" * 59 + "…"]


def test_an_export_never_replaces_a_database(run: Run, tmp_path: Path) -> None:
    """`export -o audit.db`, a slip of the finger, is refused: the log itself would be gone."""
    run("emit", "domain.created")
    stores = [file for file in tmp_path.rglob("*.db") if file.read_bytes()[:6] == b"SQLite"]
    assert stores
    for file in stores:
        before = file.stat().st_ino
        done = run("export", "-o", str(file))
        assert done.status == 2
        assert "is a database" in done.err
        assert file.stat().st_ino == before


def test_setup_says_what_it_did(run: Run, place: Path) -> None:
    """In lines, or as JSON; the second time there is nothing to do."""
    first, again = run("setup", "--json"), run("setup", "--json")
    assert orjson.loads(first.out)["done"] == [f"{place / 'audit.db'}: created"]
    assert orjson.loads(again.out)["done"] == []
    assert orjson.loads(again.out)["store"].startswith(f"sqlite {place / 'audit.db'}: version ")
    assert run("setup").out.startswith("nothing to do; sqlite ")


@pytest.mark.parametrize("option", ["--org", "--sub"])
def test_a_token_that_would_be_refused_is_not_made(run: Run, monkeypatch: pytest.MonkeyPatch, option: str) -> None:
    """An empty organisation or name is refused where the token is made, not where it is used."""
    monkeypatch.setenv("AUDIT_JWT_SECRET", "x" * 40)
    ended = run("token", option, "")
    assert (ended.status, ended.out) == (2, "")
    assert option in ended.err
