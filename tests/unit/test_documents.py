"""README and CONTRIBUTING say what is there: their code runs, their tables are true."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest
from audit_pipeline.api.auth import TokenVerifier

from audit_pipeline.cli import group
from audit_pipeline.settings import LOOPBACK_HOSTS, VARIABLES, Settings

ROOT = Path(__file__).parent.parent.parent
README = (ROOT / "README.md").read_text()
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text()
SECRET = "a secret of the tests, which is long enough for HS256"


def blocks(text: str, kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def run(*command: str, cwd: Path, paths: list[Path] | None = None) -> str:
    environment = dict(os.environ)
    if paths:
        environment["PYTHONPATH"] = os.pathsep.join(map(str, paths))
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_readmes_python_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each Python block of the README runs as it stands; the first one leaves the entry it shows."""
    monkeypatch.setenv("AUDIT_JWT_SECRET", SECRET)
    first, *others = blocks(README, "python")
    assert len(first.strip().splitlines()) <= 15
    for block in (first, *others):
        (tmp_path / "block.py").write_text(block)
        run(sys.executable, "-W", "error", "block.py", cwd=tmp_path)
    found = run(sys.executable, "-m", "audit_pipeline", "search", "--json", cwd=tmp_path)
    assert '"target":"example.com"' in found
    assert '"ip":"203.0.113.xxx"' in found


def test_the_token_that_the_readme_makes_is_good(monkeypatch: pytest.MonkeyPatch) -> None:
    """The API believes it, and lets its user read and export."""
    monkeypatch.setenv("AUDIT_JWT_SECRET", SECRET)
    (block,) = (one for one in blocks(README, "python") if "jwt.encode" in one)
    made: dict[str, str] = {}
    exec(block, made)
    settings = Settings.from_environment()
    caller = TokenVerifier(settings).verify(made["token"])
    for scope in ("audit:read", "audit:export"):
        caller.require(scope, settings.entitled_plans)


def test_the_readmes_commands_exist() -> None:
    """Each command and option that the README shows is one, and each command is shown."""
    shown = set()
    for line in "".join(blocks(README, "sh")).splitlines():
        if match := re.match(r"audit-pipeline (\S+)(.*)", line):
            command = group.commands[match[1]]
            shown.add(match[1])
            known = {option for parameter in command.params for option in parameter.opts}
            assert set(re.findall(r"(?<!\S)--?[a-z-]+", match[2].split("#")[0].split("'")[0])) <= known, line
    assert set(group.commands) - shown <= {"demo", "setup", "actions", "token"}
    for name in set(group.commands) - shown:
        assert name in README


def test_the_line_that_is_shown_for_an_import_is_one(tmp_path: Path) -> None:
    """The README's sample line, and that of `import --help`, are imported without a problem."""
    (line,) = blocks(README, "json")
    shown = run(sys.executable, "-m", "audit_pipeline", "import", "--help", cwd=tmp_path)
    assert f"\n  {line}" in shown
    assert "`action` and `timestamp` are needed" in shown
    (tmp_path / "old.ndjson").write_text(line)
    assert run(sys.executable, "-m", "audit_pipeline", "import", "old.ndjson", cwd=tmp_path) == "1 entry stored\n"


def test_the_readmes_settings_are_those_that_are_read() -> None:
    """The table names each variable that is read, and no other, with its default."""
    table = dict(re.findall(r"^\| `(AUDIT_\w+)` \|.*\| (.*) \|$", README, re.MULTILINE))
    assert tuple(table) == VARIABLES
    defaults = Settings()
    assert table["AUDIT_STORE_URL"] == f"`{defaults.store_url}`"
    assert table["AUDIT_ENTITLED_PLANS"] == f"`{','.join(defaults.entitled_plans)}`"
    assert table["AUDIT_ALLOWED_HOSTS"] == f"`{','.join(LOOPBACK_HOSTS)}`"
    assert table["AUDIT_EXPORT_LIMIT"] == f"`{defaults.export_limit}`"
    assert table["AUDIT_SPOOL_LIMIT"] == f"`{defaults.spool_limit}` (1 GiB)"
    assert table["AUDIT_ON_FULL"] == f"`{defaults.on_full}`"
    assert table["AUDIT_IP_STORAGE"] == f"`{defaults.ip_storage}`"
    assert len(fields(Settings)) == len(VARIABLES)


def test_links_lead_somewhere() -> None:
    """Each link to a file of this project leads to one."""
    for document in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")):
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", document.read_text()):
            assert (document.parent / target).exists(), (document.name, target)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the package and its tests, to be changed, that is imported in place of the original."""
    for name in ("audit_pipeline", "tests"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__", "node_modules"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def test_an_action_is_added_in_one_file(copy: Path) -> None:
    """With the one line that CONTRIBUTING shows, a new action is logged, listed, filtered, searched and shown."""
    (line,) = blocks(CONTRIBUTING, "python action")
    actions = copy / "audit_pipeline" / "actions.py"
    actions.write_text(actions.read_text().replace("_BUILT_IN = (\n", f"_BUILT_IN = (\n{line}"))
    audit = (sys.executable, "-m", "audit_pipeline")
    assert "mailbox.archived" in run(*audit, "actions", cwd=copy, paths=[copy])
    run(*audit, "emit", "mailbox.archived", "--target", "carol", cwd=copy, paths=[copy])
    found = run(*audit, "search", "--json", "--action", "mailbox.archived", "--q", "archived", cwd=copy, paths=[copy])
    assert '"label":"Mailbox archived","category":"users","tone":"yellow","target":"carol"' in found


def test_a_store_is_added_in_one_file(copy: Path) -> None:
    """The store that CONTRIBUTING shows works by its URL, and the contract suite holds it to the contract by itself."""
    (module,) = blocks(CONTRIBUTING, "python store")
    (copy / "audit_pipeline" / "stores" / "lines.py").write_text(module)
    audit = (sys.executable, "-m", "audit_pipeline")
    place = ("--store", "lines:///entries.jsonl")
    run(*audit, "emit", "domain.created", "--target", "here", *place, cwd=copy, paths=[copy])
    assert "here" in run(*audit, "search", *place, cwd=copy, paths=[copy])
    printed = run(
        *(
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-k",
            "lines and not large and not hundred and not opensearch",
            "tests/contract",
            "-p",
            "no:cacheprovider",
        ),
        cwd=copy,
        paths=[copy],
    )
    assert int(re.search(r"(\d+) passed", printed)[1]) > 50  # type: ignore[index]
