"""A large file through the command line: imported, searched, exported, and compared with what a plain script makes."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from audit_pipeline.stores import open_store, store_names

from ..places import new_store_url
from .plain_csv import LABELS
from .plain_csv import main as plain_csv

DETAILS = (
    "DKIM enabled", 'quoted "twice"', "a,b,c", "two\r\nlines", "=1+1", "+49 30", "-2", "@SUM(A1)", "\tindented", "＝１",
    "",
    "Ünïcödé", "株式会社", "שלום", "👍 fine", " =not first", "login from {ip}", "'quoted",
)  # fmt: skip


def write_lines(path: Path, lines: int) -> None:
    """Entries of two years with distinct times, in no order."""
    chosen = random.Random(11)
    now = datetime.now(UTC).replace(microsecond=0)
    offsets = chosen.sample(range(2 * 365 * 86_400 * 10), lines)
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


def said_by(store: str, folder: Path, lines: int) -> list[bytes]:
    """What the commands print about an imported file: pages of search, and the CSV of all of it."""
    done = audit_pipeline("import", "in.ndjson", "--store", store, "--json", folder=folder)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"entries": lines, "rejected": 0, "quarantined": 0, "with_problems": 0}

    said: list[bytes] = []
    for query, number in (("host-33333", 1), ("example -alice", None), ("", lines)):
        for page, sort in (("1", "-timestamp"), ("700", "timestamp"), ("1500", "action")):
            done = audit_pipeline(
                "search", "--q", query, "--json", "--store", store, "--page", page, "--sort", sort, folder=folder
            )
            total = json.loads(done.stderr)["total"]
            assert total == number if number is not None else 0 < total < lines
            said.append(f"{total} {done.stdout}".encode())

    again = audit_pipeline("import", "in.ndjson", "--store", store, folder=folder)
    assert again.returncode == 0, again.stderr
    done = audit_pipeline("export", "-o", "out.csv", "--store", store, folder=folder, AUDIT_EXPORT_LIMIT="200001")
    assert done.returncode == 0, done.stderr
    said.append((folder / "out.csv").read_bytes())

    cut = audit_pipeline("export", "-o", "cut.csv", "--store", store, "--action", "domain.created", "--action",
        "auth.login_failed", folder=folder, **({} if lines > 100_000 else {"AUDIT_EXPORT_LIMIT": "1000"}))  # fmt: skip
    assert cut.returncode == 3
    assert f"{50_000 if lines > 100_000 else 1000:,} of" in cut.stderr
    assert (folder / "cut.csv").read_bytes().count(b"Z,Domain created,") > (20_000 if lines > 100_000 else 400)
    return said


@pytest.mark.parametrize("lines", [40_000, pytest.param(200_000, marks=pytest.mark.long)])
def test_many_lines(tmp_path: Path, lines: int) -> None:
    """Lines imported, searched and exported: every store prints the same bytes, and those of a plain script."""
    write_lines(tmp_path / "in.ndjson", lines)
    plain_csv(str(tmp_path / "in.ndjson"), str(tmp_path / "plain.csv"))
    lasting = [name for name in store_names() if open_store(new_store_url(name, tmp_path)).lasting]
    said = {name: said_by(new_store_url(name, tmp_path), tmp_path, lines) for name in lasting}
    assert len(said) >= 2
    for name, results in said.items():
        assert results[-1] == (tmp_path / "plain.csv").read_bytes(), name
        assert results == said[lasting[0]], name
