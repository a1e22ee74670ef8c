"""Builds the wheel, and uses it in a fresh environment, far from the checkout: emit, import, search, export, serve.

    python tests/wheel_check.py

Not a pytest file: it needs a minute, and an environment of its own. Prints what it did; ends with a status other than
0 where something does not hold.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import urllib.request
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
NEEDED = (
    "audit_pipeline/__init__.py",
    "audit_pipeline/py.typed",
    "audit_pipeline/api/app.py",
    "audit_pipeline/api/viewer/index.html",
    "audit_pipeline/api/viewer/vendor/lit.js",
    "audit_pipeline/api/viewer/vendor/lit.LICENSE",
    "audit_pipeline/index_templates/__init__.py",
    "audit_pipeline/index_templates/audit-events.json",
    "audit_pipeline/index_templates/dashboards.ndjson",
    "audit_pipeline/index_templates/roles.json",
)
LINE = {"timestamp": "2026-01-02T03:04:05.678Z", "action": "domain.deleted", "target": "old.example.com",
        "user": "bob@example.com", "ip": "2001:db8::7"}  # fmt: skip


def run(*command: str | Path, cwd: Path) -> str:
    """What a command prints; raises where it fails."""
    print("$", " ".join(str(part) for part in command), flush=True)
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("AUDIT_", "PYTHON"))}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False, timeout=600)
    if done.returncode:
        raise SystemExit(f"exit status {done.returncode}\n{done.stdout}\n{done.stderr}")
    return done.stdout


def check(holds: bool, what: str) -> None:
    """Say that something holds, or end."""
    if not holds:
        raise SystemExit(f"does not hold: {what}")
    print("  ok:", what, flush=True)


def serve(command: Path, folder: Path) -> None:
    """Start the server, ask it over HTTP, and end it."""
    server = subprocess.Popen([command, "serve", "--port", "0"], cwd=folder, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        link = server.stdout.readline().strip()
        base, _, token = link.partition("#token=")
        check(bool(token), "serve prints a link with a token")
        request = urllib.request.Request(f"{base}v1/events?q=example", headers={"Authorization": f"Bearer {token}"})
        with urllib.request.urlopen(request, timeout=30) as answer:
            page = json.load(answer)
        check(page["total"] == 2, "serve finds both entries")
        check({item["ip"] for item in page["items"]} == {"203.0.113.xxx", "2001:db8::xxxx"}, "serve masks addresses")
        with urllib.request.urlopen(base, timeout=30) as answer:
            page = answer.read().decode()
        check("<html" in page, "serve shows the viewer's page")
        with urllib.request.urlopen(f"{base}viewer/vendor/lit.js", timeout=30) as answer:
            check("immutable" in answer.headers["Cache-Control"], "serve leads to the viewer's versioned files")
    finally:
        server.terminate()
        check(server.wait(30) == 0, "serve ends when it is told to")


def main() -> None:
    """Build, install, use."""
    with tempfile.TemporaryDirectory(prefix="wheel-check-") as name:
        folder = Path(name)
        run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, ROOT, cwd=folder)
        (wheel,) = folder.glob("*.whl")
        names = set(zipfile.ZipFile(wheel).namelist())
        check(set(NEEDED) <= names, "the wheel has the package, the API, the viewer and the templates")
        sources = {path.relative_to(ROOT).as_posix() for path in (ROOT / "audit_pipeline").rglob("*.py")}
        sources |= {
            f"audit_pipeline/{path.relative_to(ROOT).as_posix()}"
            for folder_name in ("api", "index_templates")
            for path in (ROOT / folder_name).rglob("*.py")
        }
        check(sources <= names, f"the wheel has every module; not {sorted(sources - names)}")
        seen = {
            f"audit_pipeline/{path.relative_to(ROOT).as_posix()}"
            for path in (ROOT / "api/viewer").rglob("*.*")
            if path.suffix != ".pyc"
        }
        check(seen <= names, f"the wheel has every file of the viewer; not {sorted(seen - names)}")
        top = {entry.split("/")[0] for entry in names}
        check(len(top) == 2, "the wheel puts nothing at the top but audit_pipeline and its metadata")

        venv.create(folder / "venv", with_pip=True)
        python, command = folder / "venv/bin/python", folder / "venv/bin/audit-pipeline"
        pip = (python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
        needed = ("--require-hashes", "-r", ROOT / "requirements.txt")
        # As in the Makefile: uv takes a tenth of pip's time, and only pip knows of a mirror that pip.conf names.
        uv = (Path(sys.executable).with_name("uv"), "pip", "install", "--quiet", "--python", python)
        if subprocess.run([*uv, *needed], cwd=folder, check=False).returncode:
            run(*pip, *needed, cwd=folder)
        run(*pip, "--no-deps", wheel, cwd=folder)
        where = run(python, "-c", "import audit_pipeline.api.app as app; print(app.__file__)", cwd=folder)
        check(where.startswith(str(folder)), "the environment has the wheel, not the checkout")

        opened = run(python, "-c", "from audit_pipeline.stores import open_store as o; o('opensearch://h')", cwd=folder)
        check(opened == "", "the OpenSearch store can be opened")
        run(command, "emit", "domain.created", "--target", "example.com", "--user", "alice", "--ip", "203.0.113.9",
            cwd=folder)  # fmt: skip
        (folder / "in.ndjson").write_text(json.dumps(LINE) + "\n")
        run(command, "import", "in.ndjson", cwd=folder)
        found = [json.loads(line) for line in run(command, "search", "--json", cwd=folder).splitlines()]
        check([item["target"] for item in found] == ["example.com", "old.example.com"], "search finds both, in order")
        run(command, "export", "-o", "out.csv", cwd=folder)
        check((folder / "out.csv").read_bytes().count(b"\r\n") == 3, "export writes both")
        run(command, "doctor", cwd=folder)
        # The export above is an entry too; the query of `serve` leaves it out.
        serve(command, folder)


if __name__ == "__main__":
    main()
