"""The tests' own OpenSearch: it answers, and what a test made there goes away."""

from __future__ import annotations

from pathlib import Path

import pytest

from ..engine import Cluster, EngineError
from ..places import new_store_url, remove_stores


def test_the_shared_engine_answers(opensearch: Cluster) -> None:
    """It is an OpenSearch of the version that is supported; a refusal is an error with its status."""
    assert opensearch.call("GET", "/")["version"]["number"].startswith("3.")
    with pytest.raises(EngineError) as caught:
        opensearch.call("GET", "/t-no-such-index")
    assert caught.value.status == 404


def test_what_a_test_made_is_removed(opensearch: Cluster, tmp_path: Path) -> None:
    """The index and the template of a store are deleted, those of others are not."""
    other = "t-other"
    prefix = new_store_url("opensearch", tmp_path).partition("index=")[2].partition("&")[0]
    for name in (prefix, other):
        opensearch.call("PUT", f"/_index_template/{name}", {"index_patterns": [f"{name}-2*"]})
        opensearch.call("POST", f"/{name}-2026/_bulk?refresh=true", '{"create":{"_id":"1"}}\n{"a":1}\n')

    def left() -> set[str]:
        templates = opensearch.call("GET", "/_index_template?filter_path=index_templates.name")
        indices = opensearch.call("GET", "/_cat/indices?format=json")
        return {found["name"] for found in templates.get("index_templates", ())} | {found["index"] for found in indices}

    assert {prefix, f"{prefix}-2026", other, f"{other}-2026"} <= left()
    remove_stores()
    assert not any(name.startswith(prefix) for name in left())
    assert {other, f"{other}-2026"} <= left()
    opensearch.clear(other)
    assert not any(name.startswith(other) for name in left())
