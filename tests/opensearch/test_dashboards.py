"""The saved objects for OpenSearch Dashboards: each query in them is asked of the engine, as Dashboards asks it."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from audit_pipeline.event import AuditEvent, format_timestamp, now_ms
from audit_pipeline.stores import Store

from ..engine import Cluster
from .conftest import entry

FILE = Path(__file__).parent.parent.parent / "index_templates" / "dashboards.ndjson"
OBJECTS = [json.loads(line) for line in FILE.read_text().splitlines()]
SOURCE = "kibanaSavedObjectMeta"
# What OpenSearch Dashboards 2 and 3 write into exports: the last change of form of each type.
FORMS = {"index-pattern": "7.6.0", "search": "7.9.3", "visualization": "7.10.0", "dashboard": "7.9.3"}
DAY = 86_400_000


def of(kind: str) -> list[dict[str, Any]]:
    return [each for each in OBJECTS if each["type"] == kind]


def decoded(each: dict[str, Any]) -> Any:
    """The attributes of an object, with the JSON texts in them read."""

    def read(name: str, value: Any) -> Any:
        if isinstance(value, dict):
            return {key: read(key, item) for key, item in value.items()}
        return json.loads(value) if name.endswith("JSON") or name in ("visState", "sourceFilters", "fields") else value

    return read("", each["attributes"])


def source(each: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = decoded(each)[SOURCE]["searchSourceJSON"]
    return found


def query(each: dict[str, Any]) -> dict[str, Any]:
    """What Dashboards makes of the query in a search source, which is in Lucene's language."""
    asked = source(each)
    assert asked["filter"] == []
    assert asked["query"]["language"] == "lucene"
    text = asked["query"]["query"]
    return {"query_string": {"query": text, "analyze_wildcard": True}} if text else {"match_all": {}}


def aggregations(each: dict[str, Any]) -> dict[str, Any]:
    """What Dashboards makes of the aggregations of a visualization: each bucket inside the one before it.

    Of `interval: auto` it makes one that suits the time chosen: here, a day.
    """
    inner: dict[str, Any] = {}
    metrics: list[str] = []
    for agg in reversed(decoded(each)["visState"]["aggs"]):
        given = agg["params"]
        if agg["schema"] == "metric":
            assert agg["type"] == "count"  # each bucket has it by itself
            metrics.append(agg["id"])
        elif agg["type"] == "date_histogram":
            assert given["interval"] == "auto"
            histogram = {"field": given["field"], "calendar_interval": "1d", "min_doc_count": given["min_doc_count"]}
            inner = {"buckets": {"date_histogram": histogram, **({"aggs": inner} if inner else {})}}
        else:
            assert agg["type"] == "terms"
            assert given["orderBy"] in {other["id"] for other in decoded(each)["visState"]["aggs"]}
            terms = {"field": given["field"], "size": given["size"], "order": {"_count": given["order"]}}
            inner = {"buckets": {"terms": terms, **({"aggs": inner} if inner else {})}}
    assert len(metrics) == 1
    return inner


def texts(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        value = [*value, *value.values()]
    if isinstance(value, list):
        for item in value:
            yield from texts(item)
    elif isinstance(value, str):
        yield value


def fields(each: dict[str, Any]) -> tuple[set[str], set[str], set[str]]:
    """The fields that an object shows, searches, and sorts or counts by."""
    shown, searched, counted = set(), set(), set()
    attributes = decoded(each)
    if each["type"] == "index-pattern":
        return set(), {attributes["timeFieldName"]}, {attributes["timeFieldName"]}
    searched |= set(re.findall(r"([\w.@]+):", source(each)["query"]["query"]))
    if each["type"] == "search":
        shown |= set(attributes["columns"])
        counted |= {name for name, _ in attributes["sort"]}
    if each["type"] == "visualization":
        counted |= {agg["params"]["field"] for agg in attributes["visState"]["aggs"] if "field" in agg["params"]}
    return shown, searched, counted


@pytest.fixture
def events(store: Store) -> list[AuditEvent]:
    """Entries of three days, appended to the store."""
    made = []
    for day in range(3):
        at = format_timestamp(now_ms() - day * DAY)
        made += [entry("domain.created", user="alice", ip="203.0.113.9", timestamp=at) for _ in range(4 + day)]
        made += [entry("auth.login_failed", user=f"guess{n}", ip="2001:db8::7", timestamp=at) for n in range(day + 2)]
        made += [entry("auth.login_succeeded", user="bob", timestamp=at)]
        made += [entry("audit.exported", user="bob", detail="3 rows", timestamp=at)]
    made.append(entry("service.restarted"))
    assert store.append(made) == []
    return made


def asked(opensearch: Cluster, index: str, name: str) -> Any:
    """The answer to what a visualization or a saved search asks."""
    (each,) = (each for each in OBJECTS if each["id"] == name)
    body = {"query": query(each), "track_total_hits": True}
    if each["type"] == "visualization":
        body |= {"size": 0, "aggs": aggregations(each)}
    else:
        (pattern,) = of("index-pattern")
        hidden = [filter_["value"] for filter_ in decoded(pattern)["sourceFilters"]]
        sort = [{field: {"order": way}} for field, way in decoded(each)["sort"]]
        body |= {"size": 500, "sort": sort, "_source": {"excludes": hidden}}
    return opensearch.call("POST", f"/{index}/_search", body)


def counts(answer: Any) -> dict[str, int]:
    return {bucket["key"]: bucket["doc_count"] for bucket in answer["aggregations"]["buckets"]["buckets"]}


def days(answer: Any) -> dict[str, int]:
    found = answer["aggregations"]["buckets"]["buckets"]
    return {bucket["key_as_string"][:10]: bucket["doc_count"] for bucket in found}


def test_the_objects_have_the_form_of_an_export() -> None:
    """Each line is a saved object of a known type and form, ids are taken once, and the JSON texts in it are JSON."""
    assert {each["type"] for each in OBJECTS} == set(FORMS)
    assert len({(each["type"], each["id"]) for each in OBJECTS}) == len(OBJECTS)
    for each in OBJECTS:
        assert set(each) == {"type", "id", "attributes", "references", "migrationVersion"}
        assert each["migrationVersion"] == {each["type"]: FORMS[each["type"]]}
        assert each["attributes"]["title"]
        decoded(each)


def test_references_lead_to_objects_of_the_file() -> None:
    """Whatever an object refers to is in the file, under the name by which its JSON texts ask for it."""
    there = {(each["type"], each["id"]) for each in OBJECTS}
    for each in OBJECTS:
        assert {(to["type"], to["id"]) for to in each["references"]} <= there
        named = {value for value in texts(decoded(each)) if value.startswith((f"{SOURCE}.", "panel_"))}
        assert named == {to["name"] for to in each["references"]}
    (dashboard,) = of("dashboard")
    assert {to["id"] for to in dashboard["references"]} == {each["id"] for each in of("visualization") + of("search")}


def test_panels_do_not_overlap() -> None:
    """The dashboard's panels lie within its 48 columns, side by side."""
    (dashboard,) = of("dashboard")
    taken: set[tuple[int, int]] = set()
    for panel in decoded(dashboard)["panelsJSON"]:
        at = panel["gridData"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert max(x for x, _ in cells) < 48
        assert not cells & taken
        taken |= cells


def test_full_addresses_occur_nowhere() -> None:
    """No object names the field with the full address, and what Discover shows of a document leaves it out."""
    assert "source.ip" not in FILE.read_text()
    (pattern,) = of("index-pattern")
    assert {"value": "source.*"} in decoded(pattern)["sourceFilters"]


def test_the_fields_are_there(opensearch: Cluster, index: str, events: list[AuditEvent]) -> None:
    """Each field that is named is one of the mapping; those that are asked for are searchable, or can be counted."""
    found = opensearch.call("GET", f"/{index}/_field_caps?fields=*")["fields"]
    for each in OBJECTS:
        shown, searched, counted = fields(each)
        assert shown | searched | counted <= set(found), each["id"]
        assert all(caps["searchable"] for name in searched for caps in found[name].values()), each["id"]
        assert all(caps["aggregatable"] for name in counted for caps in found[name].values()), each["id"]


def test_entries_are_counted_by_day_and_category(opensearch: Cluster, index: str, events: list[AuditEvent]) -> None:
    """The histogram has each entry once, on its day, in its category."""
    answer = asked(opensearch, index, "audit-by-category")
    expected = Counter((format_timestamp(event.timestamp)[:10], event.category) for event in events)
    assert expected == {
        (day["key_as_string"][:10], category["key"]): category["doc_count"]
        for day in answer["aggregations"]["buckets"]["buckets"]
        for category in day["buckets"]["buckets"]
    }


def test_failed_logins_are_counted_by_day(opensearch: Cluster, index: str, events: list[AuditEvent]) -> None:
    """The histogram of failed logins has those, and no other entries."""
    failed = [event for event in events if event.action == "auth.login_failed"]
    expected = Counter(format_timestamp(event.timestamp)[:10] for event in failed)
    assert days(asked(opensearch, index, "audit-failed-logins")) == expected


def test_users_and_actions_are_counted(opensearch: Cluster, index: str, events: list[AuditEvent]) -> None:
    """The tables have the ten that occur most, with their numbers; an entry without a user counts for none."""
    users = counts(asked(opensearch, index, "audit-top-users"))
    assert users == dict(Counter(event.user for event in events if event.user).most_common(10))
    actions = counts(asked(opensearch, index, "audit-top-actions"))
    assert actions == dict(Counter(event.label for event in events).most_common(10))


def test_exports_are_counted_and_listed(opensearch: Cluster, index: str, events: list[AuditEvent]) -> None:
    """The number and the list are of the exports alone."""
    exports = [event.id for event in events if event.action == "audit.exported"]
    assert asked(opensearch, index, "audit-export-count")["hits"]["total"]["value"] == len(exports)
    hits = asked(opensearch, index, "audit-exports")["hits"]["hits"]
    assert {hit["_source"]["event"]["id"] for hit in hits} == set(exports)


def test_the_list_shows_masked_addresses(opensearch: Cluster, index: str, events: list[AuditEvent]) -> None:
    """The list has every entry, newest first, with each of its columns, and no full address in what is fetched."""
    hits = asked(opensearch, index, "audit-entries")["hits"]["hits"]
    assert [hit["_source"]["@timestamp"] for hit in hits] == sorted(
        (format_timestamp(event.timestamp) for event in events), reverse=True
    )
    fetched = json.dumps([hit["_source"] for hit in hits])
    assert "203.0.113.xxx" in fetched
    assert "203.0.113.9" not in fetched
    assert "2001:db8::7" not in fetched
