"""The engine that is measured: that of OPENSEARCH_URL, else a node whose data stay from one run to the next."""

from __future__ import annotations

import json
import os
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests import engine

__all__ = ["engine_name", "kept_node"]


@contextmanager
def kept_node(folder: Path, heap: str) -> Iterator[engine.Cluster]:
    """A node whose data are in this folder, which every user must be able to enter: as root it runs as nobody."""
    if os.environ.get("OPENSEARCH_URL"):
        cluster = engine.running_engine()
        try:
            yield cluster
        finally:
            cluster.close()
        return
    home, java = engine._distribution(), engine._java()
    port, transport = engine._free_ports(2)
    settings = (
        f"cluster.name: audit-bench\nnode.name: node-0\nnetwork.host: 127.0.0.1\nhttp.port: {port}\n"
        f"transport.port: {transport}\ndiscovery.type: single-node\npath.data: {folder / 'data'}\n"
        f"path.logs: {folder / 'logs'}\ncluster.routing.allocation.disk.threshold_enabled: false\n"
    )
    if folder.exists():
        (folder / "conf/opensearch.yml").write_text(settings)
    else:
        engine._node_folder(folder, settings)
    command = engine._command(home, java, (f"-Xms{heap}", f"-Xmx{heap}"), folder)
    node = engine.Node("node-0", folder, command, port)
    cluster = engine.Cluster([node.host], [node])
    try:
        node.start()
        cluster.wait(1, status="yellow", timeout=300)
        yield cluster
    finally:
        node.stop()
        cluster.close()


def engine_name(cluster: engine.Cluster) -> str:
    """Its name and version."""
    with urllib.request.urlopen(f"http://{cluster.hosts[0]}/") as answer:
        return f"OpenSearch {json.load(answer)['version']['number']}"
