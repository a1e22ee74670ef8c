"""The roles for OpenSearch's security plugin cover each request that the store makes.

The plugin itself is not part of the engine that the tests run: this holds the roles to the store, not to the plugin.
"""

from __future__ import annotations

import json
import re
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest
from audit_pipeline.index_templates import VERSION, digest, index_template

from audit_pipeline.query import Query, Window
from audit_pipeline.stores import Store
from audit_pipeline.stores.opensearch.engine import Engine

from ..engine import Cluster
from .conftest import entry

FILE = Path(__file__).parent.parent.parent / "index_templates" / "roles.json"
ROLES = {name: role for name, role in json.loads(FILE.read_text()).items() if name != "_meta"}

# What the plugin checks for a request. INDEX stands for the alias, INDEX-2 for an index.
CLUSTER, INDICES = "cluster", "indices"
ACTIONS: dict[str, set[tuple[str, str]]] = {
    "GET /": {(CLUSTER, "cluster:monitor/main")},
    "GET /_cluster/health": {(CLUSTER, "cluster:monitor/health")},
    "GET /_index_template/INDEX": {(CLUSTER, "indices:admin/index_template/get")},
    "PUT /_index_template/INDEX": {(CLUSTER, "indices:admin/index_template/put")},
    "PUT /INDEX/_mapping": {(INDICES, "indices:admin/mapping/put")},
    "POST /_bulk": {
        (CLUSTER, "indices:data/write/bulk"),
        (INDICES, "indices:data/write/bulk[s]"),
        (INDICES, "indices:data/write/index"),
        (INDICES, "indices:admin/create"),
    },
    "POST /_mget": {(CLUSTER, "indices:data/read/mget"), (INDICES, "indices:data/read/mget[shard]")},
    "GET /INDEX-2": {(INDICES, "indices:admin/get")},
    "GET /INDEX,INDEX-2*": {(INDICES, "indices:admin/get")},
    "POST /INDEX-2/_refresh": {(INDICES, "indices:admin/refresh")},
    "GET /INDEX-2/_doc/ID": {(INDICES, "indices:data/read/get")},
    "POST /INDEX/_search": {(INDICES, "indices:data/read/search")},
    "POST /_msearch": {(CLUSTER, "indices:data/read/msearch"), (INDICES, "indices:data/read/search")},
    "GET /INDEX/_count": {(INDICES, "indices:data/read/search")},
    "POST /_search/scroll": {(CLUSTER, "indices:data/read/scroll")},
    "DELETE /_search/scroll": {(CLUSTER, "indices:data/read/scroll/clear")},
}


@pytest.fixture
def requests(monkeypatch: pytest.MonkeyPatch, index: str) -> set[str]:
    """Gathers the requests that the store makes, in the form that ACTIONS has."""
    made: set[str] = set()
    send = Engine.send

    def gather(engine: Engine, method: str, path: str, *more: Any, **options: Any) -> Any:
        short = re.sub(rf"{index}-2[\d.]+", "INDEX-2", path).replace(index, "INDEX")
        made.add(f"{method} {re.sub('(?<=/_doc/).+', 'ID', short)}")
        return send(engine, method, path, *more, **options)

    monkeypatch.setattr(Engine, "send", gather)
    return made


def allows(role: str, kind: str, action: str, index: str) -> bool:
    """Whether a role has an action, on an index."""
    if kind == CLUSTER:
        allowed = ROLES[role]["cluster_permissions"]
    else:
        allowed = [
            pattern
            for grant in ROLES[role]["index_permissions"]
            if any(fnmatchcase(index, covered) for covered in grant["index_patterns"])
            for pattern in grant["allowed_actions"]
        ]
    return any(covers(pattern, action) for pattern in allowed)


def covers(pattern: str, action: str) -> bool:
    """Whether a pattern of a role, in which a star is any text, is for an action."""
    return re.fullmatch(re.escape(pattern).replace(r"\*", ".*"), action) is not None


def missing(requests: set[str], *roles: str) -> set[tuple[str, str]]:
    """The requests that these roles, together, do not allow, each with the action that is not."""
    lacks = set()
    for request in requests:
        index = "audit-events" if "INDEX" in request and "INDEX-2" not in request else "audit-events-2026.11"
        for kind, action in ACTIONS[request]:
            if not any(allows(role, kind, action, index) for role in roles):
                lacks.add((request, action))
    return lacks


def test_installing_and_upgrading_is_allowed(store: Store, opensearch: Cluster, index: str, requests: set[str]) -> None:
    """The role for setting up allows to install the template, and to put a newer one in the place of an older."""
    opensearch.call("DELETE", f"/_index_template/{index}")
    store.setup()
    older = index_template(index)
    older["version"] = VERSION - 1
    older["_meta"]["digest"] = digest(older)
    opensearch.call("PUT", f"/_index_template/{index}", older)
    assert "brought up to date" in store.setup()[0]
    assert {"PUT /_index_template/INDEX", "PUT /INDEX/_mapping"} <= requests
    assert missing(requests, "audit_setup") == set()


def test_writing_is_allowed(store: Store, opensearch: Cluster, index: str, requests: set[str]) -> None:
    """The role for writers allows new entries, repeated ones and refused ones, where the template is there."""
    event = entry()
    for _ in range(2):
        assert store.append([event]) == []
    assert len(store.append([replace(entry(), action="x" * 40_000)])) == 1
    assert {"POST /_bulk", "POST /_mget", "GET /INDEX-2"} <= requests
    assert missing(requests, "audit_writer") == set()


def test_reading_is_allowed(store: Store, index: str, requests: set[str]) -> None:
    """The role for readers allows pages, single entries, exports to their end, organisations and checks."""
    written = [entry() for _ in range(1_001)]
    store.append(written)
    requests.clear()
    assert store.get("default", written[0].id) == written[0]
    store.search(Query("default"), Window(10))
    assert store.organisations() == ["default"]
    export = store.snapshot(Query("default"), 2_000)
    assert sum(map(len, export.batches())) == 1_001
    export.close()
    store.check()
    assert {"POST /_search/scroll", "DELETE /_search/scroll", "GET /"} <= requests
    assert missing(requests, "audit_reader") == set()


def test_each_permission_is_needed() -> None:
    """No role allows what no request asks for, so no pattern reaches further than the store does."""
    asked = {action for actions in ACTIONS.values() for _, action in actions}
    for name in ("audit_setup", "audit_writer", "audit_reader"):
        role = ROLES[name]
        patterns = {*role["cluster_permissions"]}
        patterns |= {each for grant in role["index_permissions"] for each in grant["allowed_actions"]}
        for pattern in patterns:
            assert any(covers(pattern, action) for action in asked), (name, pattern)


@pytest.mark.parametrize("name", sorted(ROLES))
@pytest.mark.parametrize(
    "action",
    ["indices:data/write/delete", "indices:data/write/update", "indices:admin/delete", "indices:data/write/reindex"],
)
def test_no_role_changes_or_deletes(name: str, action: str) -> None:
    """No role may delete or update an entry, or delete an index."""
    assert not any(allows(name, kind, action, "audit-events-2026.11") for kind in (CLUSTER, INDICES))


def test_people_in_dashboards_see_no_full_address() -> None:
    """The role for Dashboards hides the field, and no other role is for people; every grant is for our indices."""
    (grant,) = ROLES["audit_dashboards"]["index_permissions"]
    assert grant["fls"] == ["~source.ip"]
    assert "indices:data/write" not in json.dumps(ROLES["audit_dashboards"])
    (pattern,) = index_template()["index_patterns"]
    for role in ROLES.values():
        for each in role["index_permissions"]:
            assert set(each["index_patterns"]) <= {"audit-events", pattern}
