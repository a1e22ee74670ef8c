"""A real cluster of three processes, and what goes on while one of them is killed."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from ..engine import Cluster, start_cluster

ROOT = Path(__file__).parent.parent.parent
SUITE = ("tests/contract/test_contract.py", "tests/contract/test_same_answers.py")


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """Three nodes, each of which may become the cluster's manager."""
    with closing(start_cluster(3, "512m")) as three:
        yield three


@pytest.mark.long
def test_the_contract_suite_while_a_node_is_killed(cluster: Cluster) -> None:
    """Every test of the contract passes on the cluster, though one of its nodes is killed half-way and stays away."""
    command = [sys.executable, "-m", "pytest", "-k", "opensearch", *SUITE]
    listed = subprocess.run([*command, "--collect-only", "-q"], cwd=ROOT, capture_output=True, text=True, check=True)
    collected = listed.stdout.count("::test_")
    assert collected > 80
    environment = os.environ | {"OPENSEARCH_URL": f"http://{','.join(cluster.hosts)}"}
    said: list[str] = []
    passed = 0
    with subprocess.Popen([*command, "-v"], cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) as suite:
        assert suite.stdout is not None
        try:
            for line in suite.stdout:
                said.append(line)
                passed += " PASSED" in line
                if passed == collected // 2 and cluster.nodes[0].running:
                    cluster.nodes[0].kill()
            assert suite.wait(60) == 0, "".join(said[-200:])
        finally:
            suite.kill()
    assert not cluster.nodes[0].running
    assert passed == collected
