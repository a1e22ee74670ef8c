"""docs/opensearch.md says what is there: its commands run, and the sentences in it are the store's."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

from audit_pipeline.index_templates import index_template

from audit_pipeline.cli import group
from audit_pipeline.query import Query, Window
from audit_pipeline.stores import Store
from audit_pipeline.stores.opensearch import _OPTIONS

from ..engine import Cluster
from .conftest import entry

ROOT = Path(__file__).parent.parent.parent
GUIDE = (ROOT / "docs" / "opensearch.md").read_text()
BLOCKS = re.findall(r"^```sh\n(.*?)^```", GUIDE, re.MULTILINE | re.DOTALL)


def test_each_curl_command_works(
    store: Store, opened: Callable[..., Store], opensearch: Cluster, index: str, tmp_path: Path
) -> None:
    """Each request of the guide to a cluster without plugins is one that OpenSearch takes, and does what it says."""
    opensearch.call("DELETE", f"/_index_template/{index}")
    (tmp_path / "index_templates").mkdir()
    (tmp_path / "index_templates" / "audit-events.json").write_text(json.dumps(index_template(index)))
    blocks = [block for block in BLOCKS if "http://localhost:9200" in block]
    assert len(blocks) == 5
    for number, block in enumerate(blocks):
        script = block.replace("http://localhost:9200", f"http://{opensearch.hosts[0]}")
        script = re.sub(r"(?<!index_templates/)audit-events", index, script)
        done = subprocess.run(["sh", "-ec", script], cwd=tmp_path, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, (block, done.stdout, done.stderr)
        if number == 0:
            assert opened().setup() == []
            assert store.append([entry(timestamp="2024-01-15T12:00:00Z"), entry()]) == []
        if number == 1:
            assert f"{index}-2024.01" in done.stdout
        if "_settings" in block:
            made = opensearch.call("GET", f"/{index}/_settings?flat_settings=true")
            assert {one["settings"]["index.auto_expand_replicas"] for one in made.values()} == {"0-1"}
    assert store.search(Query("default"), Window(10)).total == 1
    assert store.append([entry(timestamp="2024-01-15T12:00:00Z")]) == []
    assert store.search(Query("default"), Window(10)).total == 2


def test_json_that_is_not_run_is_json() -> None:
    """The bodies of requests that need a plugin, or a place for backups, are JSON; jq makes one from the roles."""
    bodies = [body for block in BLOCKS for body in re.findall(r"-d '([^']*)'", block)]
    assert len(bodies) == 5
    for body in bodies:
        json.loads(body)
    (filter_,) = re.findall(r"jq -c '([^']*)'", GUIDE)
    assert filter_ == 'del(._meta) | to_entries | map({op: "add", path: ("/" + .key), value: .value})'


def test_each_command_and_option_exists() -> None:
    """Each command of ours in the guide is one, with options that it has; the table has all options of the URL."""
    lines = [line.partition("#")[0] for block in BLOCKS for line in block.splitlines()]
    shown = [line[line.index("audit-pipeline ") :].split()[1:] for line in lines if "audit-pipeline " in line]
    shown += [words.split() for words in re.findall(r"`audit-pipeline ([^`]+)`", GUIDE)]
    assert len(shown) > 10
    for name, *rest in shown:
        known = {option for parameter in group.commands[name].params for option in parameter.opts}
        if name != "quarantine":
            assert {word for word in rest if word.startswith("--")} <= known, (name, rest)
    table = re.findall(r"^\| `(\w+)` \|", GUIDE.partition("## What is installed")[0], re.MULTILINE)
    assert table == [*_OPTIONS, "ca_certs", "api_key"]


def test_the_sentences_are_those_of_the_store() -> None:
    """Each sentence in the table of troubles is one that the store's source has."""
    sentences = re.findall(r"^\| `([^`]+)` \|", GUIDE.partition("## When something is wrong")[2], re.MULTILINE)
    assert len(sentences) > 15
    sources = "".join(path.read_text() for path in (ROOT / "audit_pipeline" / "stores" / "opensearch").glob("*.py"))
    # Texts that stand side by side are one text.
    joined = re.sub(r'"\s*\n\s*f?"', "", sources)
    assert [sentence for sentence in sentences if sentence not in joined] == []


def test_the_roles_are_listed() -> None:
    """The guide's table has each role of the file, and no other."""
    roles = json.loads((ROOT / "index_templates" / "roles.json").read_text())
    assert set(re.findall(r"^\| `(audit_\w+)` \|", GUIDE, re.MULTILINE)) == set(roles) - {"_meta"}
