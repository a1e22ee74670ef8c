"""The files for containers, as far as they can be checked without Docker."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from audit_pipeline.cli import group
from audit_pipeline.settings import VARIABLES
from audit_pipeline.stores import open_store

ROOT = Path(__file__).parent.parent.parent
COMPOSE = (ROOT / "docker-compose.yml").read_text()
DOCKERFILE = (ROOT / "Dockerfile").read_text()
PASSWORDS = ("OPENSEARCH_INITIAL_ADMIN_PASSWORD", "OPENSEARCH_AUDIT_PASSWORD", "OPENSEARCH_DASHBOARDS_PASSWORD")


def values(name: str) -> list[str]:
    """The values of all keys of that name in the Compose file."""
    return re.findall(rf"^ +{name}: (\S.*)$", COMPOSE, re.MULTILINE)


def services() -> dict[str, str]:
    """The text of each service."""
    text = COMPOSE.partition("\nservices:\n")[2].partition("\nvolumes:\n")[0]
    parts = re.split(r"^  (\w+):\n", text, flags=re.MULTILINE)[1:]
    return dict(zip(parts[::2], parts[1::2], strict=True))


def lists(name: str) -> list[str]:
    """The items of all lists of that name in the Compose file."""
    blocks = re.findall(rf"^    {name}:\n((?:      .*\n)+)", COMPOSE, re.MULTILINE)
    return [item.strip('"') for block in blocks for item in re.findall(r"^      - (\S.*)$", block, re.MULTILINE)]


def test_every_image_has_a_full_version() -> None:
    """Each image is of one release: no `latest`, and no tag that moves from release to release."""
    images = values("image") + re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE)
    assert len(images) == 6
    assert [image for image in images if not re.fullmatch(r"[a-z/-]+:\d+\.\d+\.\d+(-slim-[a-z]+)?", image)] == []
    assert len({image.split(":")[1] for image in images if image.startswith("opensearchproject/")}) == 1


def test_ports_are_those_of_this_machine_alone() -> None:
    """Each port is published on loopback, and no service shares the machine's own network."""
    ports = lists("ports")
    assert len(ports) == len(re.findall("^    ports:", COMPOSE, re.MULTILINE)) == 3
    assert [port for port in ports if not re.fullmatch(r"127\.0\.0\.1:\d+:\d+", port)] == []
    assert set(values("network_mode")) == {"none"}


def test_no_secret_has_a_default() -> None:
    """Each password, and the key of the tokens, has to be set, and where it is not, what to do is said."""
    used = re.findall(r"\$\{(\w*(?:PASSWORD|SECRET))([^}]*)\}", COMPOSE)
    assert {name for name, _ in used} == {*PASSWORDS, "AUDIT_JWT_SECRET"}
    assert [name for name, rest in used if not re.match(r":\?\w", rest)] == []
    for line in COMPOSE.splitlines():
        if re.search(r"(password|secret)\w*[:=]", line, re.IGNORECASE):
            assert "${" in line, line
    for name in (*PASSWORDS, "AUDIT_JWT_SECRET"):
        assert re.search(rf"\$\{{{name}:\?set it to .*openssl rand -hex 24", COMPOSE), name


def test_no_demo_configuration() -> None:
    """OpenSearch starts with the security plugin, TLS, and none of the accounts and keys that everybody knows."""
    engine = services()["opensearch"]
    assert 'DISABLE_INSTALL_DEMO_CONFIG: "true"' in engine
    assert 'plugins.security.ssl.http.enabled: "true"' in engine
    assert "DISABLE_SECURITY_PLUGIN" not in COMPOSE
    assert "OPENSEARCH_SSL_VERIFICATIONMODE: full" in services()["dashboards"]


def test_services_wait_for_one_another() -> None:
    """Each service waits for what it needs, each that runs on has a health check, and all volumes are declared."""
    found = services()
    assert set(found) == {"prepare", "opensearch", "dashboards", "api"}
    assert "prepare: {condition: service_completed_successfully}" in found["opensearch"]
    for name in ("dashboards", "api"):
        assert "opensearch: {condition: service_healthy}" in found[name]
    assert all("healthcheck:" in found[name] for name in ("opensearch", "dashboards"))
    assert "HEALTHCHECK" in DOCKERFILE
    declared = set(re.findall(r"^  (\w+):$", COMPOSE.partition("\nvolumes:\n")[2], re.MULTILINE))
    mounted = {volume.split(":")[0] for volume in lists("volumes")}
    assert {name for name in mounted if not name.startswith("./")} == declared
    assert all((ROOT / name).exists() for name in mounted if name.startswith("./"))


def test_the_settings_of_the_api_are_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Each AUDIT_ variable that the API gets is one, and its store URL names a store at the certificate's name."""
    given = dict(re.findall(r"^      (AUDIT_\w+): (.*)$", services()["api"], re.MULTILINE))
    given |= dict(re.findall(r"(AUDIT_\w+)=(\S+)", DOCKERFILE))
    assert set(given) <= set(VARIABLES)
    url = re.sub(r"\$\{\w+:\?[^}]*\}", "x" * 32, given["AUDIT_STORE_URL"]).partition("?ca_certs=")[0]
    store = open_store(url)
    assert store.identity(tmp_path) == "opensearch:opensearch:9200/audit-events"
    store.close()
    assert "dns:opensearch," in (ROOT / "docker" / "prepare.sh").read_text()


def test_the_command_exists() -> None:
    """What the image runs is a command of ours, with options that it has, on the port that is published."""
    (command,) = re.findall(r"^CMD (\[.*\])$", DOCKERFILE, re.MULTILINE)
    (entry,) = re.findall(r"^ENTRYPOINT (\[.*\])$", DOCKERFILE, re.MULTILINE)
    assert json.loads(entry) == ["audit-pipeline"]
    name, *options = json.loads(command)
    known = {option for parameter in group.commands[name].params for option in parameter.opts}
    assert set(options[::2]) <= known
    assert dict(zip(options[::2], options[1::2], strict=True)) == {"--host": "0.0.0.0", "--port": "8000"}
    assert "127.0.0.1:8000:8000" in lists("ports")


def test_the_image_is_small_and_not_roots() -> None:
    """The last stage has the environment alone, and its user, who can write the spool's volume, is not root."""
    stage = DOCKERFILE[DOCKERFILE.rindex("\nFROM ") :]
    assert re.search(r"^USER 1000:1000$", stage, re.MULTILINE)
    assert stage.count("COPY") == 1
    (folder,) = re.findall(r"^VOLUME (\S+)$", stage, re.MULTILINE)
    assert re.search(rf"install -d -o audit -g audit -m 0700 {folder}\b", stage)
    assert f"AUDIT_SPOOL={folder}/" in stage
    assert f"spool:{folder}" in lists("volumes")
    installs = re.findall(r"pip (?:--python \S+ )?install((?:[^&]|\\\n)*)", DOCKERFILE)
    assert len(installs) == 3
    assert all("--require-hashes" in one or "--no-deps" in one for one in installs)


def test_the_build_gets_what_it_needs_and_no_more() -> None:
    """Of the checkout, only what the wheel is made of goes to the build: no `.git`, no `.env`, no database."""
    first, *kept = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line[:1] not in ("#", "")]
    assert first == "*"
    names = {line[1:] for line in kept if line.startswith("!")}
    assert names == {"api", "audit_pipeline", "index_templates", "LICENSE", "README.md", "pyproject.toml"} | {
        "requirements.txt",
        "requirements-dev.txt",
    }
    assert ".env" in (ROOT / ".gitignore").read_text().splitlines()


def test_the_health_check_tells_life_from_death() -> None:
    """The image's health check fails where nobody answers."""
    (command,) = re.findall(r"^    CMD (\[.*\])$", DOCKERFILE, re.MULTILINE)
    _, option, script = json.loads(command)
    dead = subprocess.run(
        [sys.executable, option, script.replace("8000", "1")], capture_output=True, check=False, timeout=60
    )
    assert dead.returncode == 1
    assert b"ConnectionRefusedError" in dead.stderr
    assert "/healthz" in script


HASH = 'echo "a warning"; echo "\\$2y\\$12\\$of-$2"'
KEYTOOL = """
for argument; do
    case $before in -keystore|-destkeystore|-file) touch "$argument";; esac
    before=$argument
done
"""


def prepare(folder: Path, tools: dict[str, str] | None = None, **passwords: str) -> subprocess.CompletedProcess[str]:
    """Run the script that prepares OpenSearch, in a folder that stands for the image, with stand-ins for its tools."""
    home = folder / "home"
    (home / "config" / "opensearch-security").mkdir(parents=True, exist_ok=True)
    (folder / "authority").mkdir(exist_ok=True)
    for name, script in ({"hash.sh": HASH, "keytool": KEYTOOL} | (tools or {})).items():
        place = home / ("jdk/bin" if name == "keytool" else "plugins/opensearch-security/tools") / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(f"#!/bin/sh\n{script}\n")
        place.chmod(0o755)
    environment = {"PATH": os.environ["PATH"], "OPENSEARCH_HOME": str(home), "AUTHORITY": str(folder / "authority")}
    environment |= {"ROLES": str(ROOT / "index_templates" / "roles.json"), "OWNER": f"{os.getuid()}:{os.getgid()}"}
    return subprocess.run(
        ["bash", ROOT / "docker" / "prepare.sh"],
        env=environment | dict.fromkeys(PASSWORDS, "a" * 32) | passwords,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_prepare_makes_accounts_certificates_and_roles(tmp_path: Path) -> None:
    """Before its first start, OpenSearch gets accounts with hashed passwords, our roles, and two stores of keys."""
    done = prepare(tmp_path)
    assert done.returncode == 0, done.stderr
    config = tmp_path / "home" / "config" / "opensearch-security"
    assert {path.name: oct(path.stat().st_mode & 0o777) for path in config.iterdir()} == dict.fromkeys(
        ("internal_users.yml", "node.p12", "roles.yml", "roles_mapping.yml", "trust.p12"), "0o600"
    )
    users = (config / "internal_users.yml").read_text()
    assert re.findall(r'^(\w+): \{hash: "([^"]+)"', users, re.MULTILINE) == [
        ("admin", "$2y$12$of-OPENSEARCH_INITIAL_ADMIN_PASSWORD"),
        ("audit", "$2y$12$of-OPENSEARCH_AUDIT_PASSWORD"),
        ("kibanaserver", "$2y$12$of-OPENSEARCH_DASHBOARDS_PASSWORD"),
    ]
    roles = json.loads((config / "roles.yml").read_text())
    mapped = re.findall(r"^(\w+): ", (config / "roles_mapping.yml").read_text(), re.MULTILINE)
    assert set(mapped) - {"_meta", "all_access", "kibana_server", "kibana_user"} == set(roles) - {"_meta"}
    assert [path.name for path in (tmp_path / "authority").iterdir()] == ["ca.pem"]
    assert "a" * 32 not in done.stdout + done.stderr


def test_prepare_does_its_work_once(tmp_path: Path) -> None:
    """A second start of the services keeps certificates and accounts as they are."""
    prepare(tmp_path)
    users = tmp_path / "home" / "config" / "opensearch-security" / "internal_users.yml"
    users.write_text("changed")
    done = prepare(tmp_path)
    assert (done.returncode, users.read_text()) == (0, "changed")
    assert "prepared already" in done.stdout


@pytest.mark.parametrize("name", PASSWORDS)
@pytest.mark.parametrize("password", ["", "short", "a" * 31, "a" * 31 + "/", "a" * 31 + "\n" + "a"])
def test_prepare_refuses_weak_passwords(tmp_path: Path, name: str, password: str) -> None:
    """A password that is short, or that a URL cannot have as it is, stops the start, is named, and is not shown."""
    done = prepare(tmp_path, **{name: password})
    assert done.returncode == 1
    assert done.stderr.startswith(f"{name}: at least 32")
    assert not password or password not in done.stderr
    assert list((tmp_path / "authority").iterdir()) == []


def test_prepare_stops_where_a_tool_fails(tmp_path: Path) -> None:
    """Where the tool that hashes passwords fails, nothing says that all is done, and the next start does it."""
    assert prepare(tmp_path, tools={"hash.sh": "exit 1"}).returncode == 1
    assert list((tmp_path / "authority").iterdir()) == []
    assert prepare(tmp_path).returncode == 0
