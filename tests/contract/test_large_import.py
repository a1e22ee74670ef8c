"""A large file through the command line: imported, searched, exported, and compared with what a plain script makes."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

from ..places import new_store_url
from .plain_csv import LABELS
from .plain_csv import main as plain_csv

LINES = 200_000
DETAILS = (
    "DKIM enabled", 'quoted "twice"', "a,b,c", "two\r\nlines", "=1+1", "+49 30", "-2", "@SUM(A1)", "\tindented", "＝１",
    "",
    "Ünïcödé", "株式会社", "שלום", "👍 fine", " =not first", "login from {ip}", "'quoted",
)  # fmt: skip


def write_lines(path: Path) -> None:
    """Entries of two years with distinct times, in no order."""
    chosen = random.Random(11)
    now = datetime.now(UTC).replace(microsecond=0)
    offsets = chosen.sample(range(2 * 365 * 86_400 * 10), LINES)
    with path.open("w", encoding="utf-8") as file:
        for number, offset in enumerate(offsets):
            moment = now - timedelta(milliseconds=100 * offset + offset % 97)
            ip = chosen.choice(("", f"203.0.113.{number % 256}", f"2001:db8::{number % 65_536:x}", "1:2:3:4:5:6:7:8"))
            entry = {
                "timestamp": moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03d}Z",
                "action": chosen.choice(list(LABELS)),
                "target": f"host-{number}.example.com",
                "detail": chosen.choice(DETAILS).format(ip=ip),
                "user": chosen.choice(("alice@example.com", "bob@example.com", "Ελένη", "-")),
                "ip": ip,
            }
            file.write(json.dumps(entry, ensure_ascii=number % 2 == 0) + "\n")


def audit_pipeline(*arguments: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "audit_pipeline", *arguments],
        cwd=folder, env=os.environ | environment, capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip


def test_two_hundred_thousand_lines(engine: str, tmp_path: Path) -> None:
    """200,000 lines imported, then searched, then exported: the CSV equals that of a plain script, byte for byte."""
    write_lines(tmp_path / "in.ndjson")
    plain_csv(str(tmp_path / "in.ndjson"), str(tmp_path / "plain.csv"))
    store = new_store_url(engine, tmp_path)
    done = audit_pipeline("import", "in.ndjson", "--store", store, "--json", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"entries": LINES, "rejected": 0, "quarantined": 0, "with_problems": 0}

    for query, number in (("host-77777", 1), ("example -alice", None), ("", LINES)):
        done = audit_pipeline("search", "--q", query, "--json", "--store", store, folder=tmp_path)
        total = json.loads(done.stderr)["total"]
        assert total == number if number is not None else 0 < total < LINES

    again = audit_pipeline("import", "in.ndjson", "--store", store, folder=tmp_path)
    assert again.returncode == 0, again.stderr
    done = audit_pipeline("export", "-o", "out.csv", "--store", store, folder=tmp_path, AUDIT_EXPORT_LIMIT="200001")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out.csv").read_bytes() == (tmp_path / "plain.csv").read_bytes()

    cut = audit_pipeline("export", "-o", "cut.csv", "--store", store, "--action", "domain.created", "--action",
        "auth.login_failed", folder=tmp_path)  # fmt: skip
    assert cut.returncode == 3
    assert "50,000 of" in cut.stderr
    assert (tmp_path / "cut.csv").read_bytes().count(b"Z,Domain created,") > 20_000
