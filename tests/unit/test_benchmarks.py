"""The benchmarks run to their end on both stores, and every row of the table comes out. No timing fails a test."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import pytest

from ..places import shared_engine

# `pytest`, unlike `python -m pytest`, does not look there.
sys.path.append(str(Path(__file__).parent.parent.parent))

from benchmarks import report
from benchmarks.data import RARE, TENTH, lines_file
from benchmarks.results import Results, at_least, at_most
from benchmarks.rows import ROWS, STAGES

ROOT = Path(__file__).parent.parent.parent
SIZE = 2_000


@pytest.mark.parametrize("store", ["opensearch", "sqlite"])
def test_every_row_comes_out(store: str, tmp_path: Path) -> None:
    """A small run measures each row, writes a page that names them all, and plots that are well-formed."""
    environment = dict(os.environ)
    if store == "opensearch":
        environment["OPENSEARCH_URL"] = f"http://{shared_engine().hosts[0]}"
    arguments = ["--size", str(SIZE), "--store", store, "--data", str(tmp_path), "--brief", "--no-installs"]
    try:
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks", *arguments, "--report", str(tmp_path / "performance.md")],
            cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300,
        )  # fmt: skip
    finally:
        if store == "opensearch":
            shared_engine().clear("bench-")
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / f"results-{SIZE}.json").read_text())[store]
    wanted = {row.key for row in ROWS if store in row.stores and not row.installs and not row.long}
    assert found.keys() == wanted
    for row in found.values():
        assert row["cases"]
        assert all(value["median"] >= 0 for case in row["cases"].values() for value in case["figures"].values())
    page = (tmp_path / "performance.md").read_text()
    assert all(f"| {row.what}" in page for row in ROWS if store in row.stores)
    plots = list((tmp_path / "performance").glob("*.svg"))
    assert len(plots) >= 5
    for plot in plots:
        ElementTree.fromstring(plot.read_text())
        assert f"performance/{plot.name}" in page


def test_made_up_entries_are_the_same_each_time(tmp_path: Path) -> None:
    """The file of a size has that many lines, is the same when it is made again, and has what is searched for."""
    size = 30_000
    path = lines_file(tmp_path, size)
    first = path.read_bytes()
    path.unlink()
    assert lines_file(tmp_path, size).read_bytes() == first
    entries = [json.loads(line) for line in first.splitlines()]
    assert len(entries) == size
    assert sum(RARE in entry["detail"] for entry in entries) == 10
    actions = Counter(entry["action"] for entry in entries)
    assert len(actions) == 31
    assert 0.09 < actions[TENTH] / size < 0.11
    assert 0.08 < sum("nightly" in entry["detail"] for entry in entries) / size < 0.12
    times = [entry["timestamp"] for entry in entries]
    assert len({time[:7] for time in times}) == 24
    assert any(earlier == later for earlier, later in pairwise(times))
    assert 0 < sum(later < earlier for earlier, later in pairwise(times)) / size < 0.02


def test_results_are_merged_and_what_is_written_by_hand_stays(tmp_path: Path) -> None:
    """A later run adds its rows to those of an earlier one; the page keeps the text between its marks."""
    path, page = tmp_path / "results.json", tmp_path / "performance.md"
    figures = {"store": {"median": 2.0, "p99": 3.0, "n": 9}}
    Results(path, "sqlite", 10).put("first", "all", figures, [at_most("store / direct", 2.0, 1.3)])
    report.write(path, page)
    assert "**no**" in page.read_text()
    page.write_text(page.read_text().replace(report.BY_HAND, "Because of the disk."))
    Results(path, "sqlite", 10).put("search", "a rare word", figures, [at_least("other / store", 2.0, 1.5)])
    report.write(path, page)
    text = page.read_text()
    assert "**no**" in text
    assert "| yes |" in text
    assert "Because of the disk." in text


def test_every_stage_is_known() -> None:
    """Each row belongs to a stage that can be asked for."""
    assert {row.stage for row in ROWS} == set(STAGES)
