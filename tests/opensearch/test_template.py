"""The index template: what is installed, and what happens to one that somebody changed."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields, replace
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest
from audit_pipeline.index_templates import VERSION, changed_by_hand, digest, index_template
from hypothesis import given, settings
from hypothesis import strategies as st

from audit_pipeline.ecs import document_of, event_of
from audit_pipeline.errors import SettingsError, StoreMismatch, StoreMissing
from audit_pipeline.event import AuditEvent, now_ms
from audit_pipeline.query import Query, Window, parse_words
from audit_pipeline.stores import Store, open_store
from audit_pipeline.stores.opensearch import template

from ..contract.generate import entries
from ..engine import Cluster
from .conftest import entry

FILE = Path(__file__).parent.parent.parent / "index_templates" / "audit-events.json"
HUGE = "x" * 40_000
FLOATS = st.floats(allow_nan=False, allow_infinity=False)


def full_entries() -> list[AuditEvent]:
    """Entries that have, together, everything that an entry can have."""
    rich = entry(
        "auth.login_failed",
        target="example.com",
        detail="why",
        user="alice",
        ip="203.0.113.9",
        context={"a": {"b": [1, "two", None]}},
        outcome="no outcome",
    )
    return [rich, entry(context={"large": HUGE}, ip="2001:db8::7"), replace(rich, ip="203.0.113.xxx")]


def leaves(value: Any, path: str = "") -> Iterator[str]:
    """The paths of a document's fields; what is below the contexts is the application's."""
    if isinstance(value, dict) and value and path not in ("audit.context", "audit.large_context"):
        for name, item in value.items():
            yield from leaves(item, f"{path}.{name}".strip("."))
    else:
        yield path


def mapped(properties: dict[str, Any], path: str = "") -> Iterator[str]:
    """The paths of a mapping's fields."""
    for name, field in properties.items():
        here = f"{path}.{name}".strip(".")
        if "properties" in field:
            yield from mapped(field["properties"], here)
        else:
            yield here


def installed(opensearch: Cluster, index: str) -> dict[str, Any]:
    found: dict[str, Any] = opensearch.call("GET", f"/_index_template/{index}")["index_templates"][0]["index_template"]
    return found


def test_the_mapping_has_the_fields_of_documents_and_no_others() -> None:
    """Whatever an entry has is a field of the mapping, and whatever is mapped is something that an entry has."""
    mapping = index_template()["template"]["mappings"]
    assert mapping["dynamic"] is False
    written = {path for event in full_entries() for path in leaves(document_of(event))}
    stamped = {f"arrival.{name}" for name in ("at", "writer", "batch", "size")}  # by the writer, see arrivals
    assert written | stamped == set(mapped(mapping["properties"]))


def test_every_field_of_an_entry_is_in_its_document() -> None:
    """No part of an entry can be changed without its document changing."""
    event = replace(full_entries()[0], origin="origin", sequence=3)
    others: dict[str, Any] = {
        "id": entry().id, "timestamp": 1, "action": "x", "category": "x", "label": "x", "tone": "x", "outcome": "x",
        "org": "x", "target": "x", "detail": "x", "user": "x", "ip": "10.9.9.9", "context": {"x": 1},
        "problems": ("x",), "received": 1, "origin": "x", "sequence": 9,
    }  # fmt: skip
    assert set(others) == {field.name for field in fields(AuditEvent)}
    for name, other in others.items():
        assert document_of(replace(event, **{name: other})) != document_of(event), name


@given(entries)
@settings(max_examples=300, deadline=None)
def test_documents_give_their_entries_back(event: AuditEvent) -> None:
    """From its document, as JSON, an entry comes back as it was."""
    assert event_of(json.loads(json.dumps(document_of(event)))) == event


@settings(max_examples=300, deadline=None)
@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers(-(2**53) + 1, 2**53 - 1)
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.text(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
        max_leaves=8,
    )
)
def test_contexts_come_back_exactly(value: Any) -> None:
    """Any context comes back from its document with the same canonical bytes: 1 stays 1, and 1.0 is 1."""
    event = replace(entry(), context={"value": value})
    assert event_of(json.loads(json.dumps(document_of(event)))).to_bytes() == event.to_bytes()


def test_the_file_says_what_is_installed(opensearch: Cluster, store: Store, index: str) -> None:
    """The committed JSON is what the program installs, and what the engine then has, under any index name."""
    assert json.loads(FILE.read_text()) == index_template()
    found = installed(opensearch, index)
    assert not changed_by_hand(found)
    assert digest(found) == index_template(index)["_meta"]["digest"]
    assert found["index_patterns"] == [f"{index}-2*"]
    assert list(found["template"]["aliases"]) == [index]
    assert found["version"] == VERSION


def test_the_file_can_be_put_by_hand(opensearch: Cluster, opened: Callable[..., Store], index: str) -> None:
    """An operator who installs the file, under another name of the index, has what the program installs."""
    text = FILE.read_text().replace("audit-events", index)
    opensearch.call("PUT", f"/_index_template/{index}", json.loads(text))
    assert "changed by hand" in opened().setup()[0]
    body = json.loads(text)
    body["_meta"]["digest"] = digest(body)
    opensearch.call("PUT", f"/_index_template/{index}", body)
    assert opened().setup() == []


def test_a_missing_template_is_installed_by_the_first_writer(opened: Callable[..., Store], opensearch: Cluster) -> None:
    """Nothing has to be set up: reading says that nothing is there, and writing installs it."""
    store = opened()
    for ask in (
        lambda: store.search(Query("default"), Window(1)),
        lambda: store.snapshot(Query("default"), 1),
        lambda: store.get("default", entry().id),
        store.organisations,
        store.check,
    ):
        with pytest.raises(StoreMissing, match="audit-pipeline setup"):
            ask()
    assert store.append([entry()]) == []
    assert store.search(Query("default"), Window(1)).total == 1
    assert "1 entries" in store.check()


def test_a_template_that_goes_away_is_installed_again(
    store: Store, opensearch: Cluster, index: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the first entry of another month is written, a deleted template is put back."""
    store.append([entry()])
    opensearch.call("DELETE", f"/_index_template/{index}")
    later = time.monotonic() + 2
    monkeypatch.setattr(template, "monotonic", lambda: later)
    late = entry(timestamp=now_ms() / 1000 - 70 * 86_400)
    assert store.append([late]) == []
    found = store.search(Query("default", words=parse_words("domain.created")), Window(9))
    assert [event.id for event in found.items[1:]] == [late.id]


def test_a_template_changed_by_hand_is_left_alone(
    opened: Callable[..., Store], store: Store, opensearch: Cluster, index: str
) -> None:
    """What an operator changed stays, is said by setup and check, and is used."""
    body = installed(opensearch, index)
    body["template"]["settings"]["index"]["refresh_interval"] = "7s"
    opensearch.call("PUT", f"/_index_template/{index}", body)
    again = opened("replicas=0")
    assert again.setup() == [f"{opensearch.hosts[0]}/{index}: the index template was changed by hand; left alone"]
    assert "changed by hand" in again.check()
    assert installed(opensearch, index) == body
    again.append([entry()])
    made = opensearch.call("GET", f"/{index}/_settings?flat_settings=true")
    assert [one["settings"]["index.refresh_interval"] for one in made.values()] == ["7s"]


def test_an_older_template_is_upgraded(
    opened: Callable[..., Store], store: Store, opensearch: Cluster, index: str
) -> None:
    """A template of an older version is replaced, and the indices there are learn the new fields."""
    body = installed(opensearch, index)
    body["version"] = VERSION - 1
    del body["template"]["mappings"]["properties"]["audit"]["properties"]["tone"]
    body["_meta"]["digest"] = digest(body)
    opensearch.call("PUT", f"/_index_template/{index}", body)
    opensearch.call("PUT", f"/{index}-2026.11")
    assert "tone" not in json.dumps(opensearch.call("GET", f"/{index}/_mapping"))
    assert "brought up to date" in opened().setup()[0]
    assert installed(opensearch, index)["version"] == VERSION
    assert "tone" in json.dumps(opensearch.call("GET", f"/{index}/_mapping"))
    assert opened().setup() == []


def test_a_newer_template_is_refused(
    opened: Callable[..., Store], store: Store, opensearch: Cluster, index: str
) -> None:
    """A template of a newer version is not touched: the program says to upgrade."""
    body = installed(opensearch, index)
    body["version"] = VERSION + 1
    body["_meta"]["digest"] = digest(body)
    opensearch.call("PUT", f"/_index_template/{index}", body)
    for act in (opened().setup, lambda: opened().append([entry()])):
        with pytest.raises(StoreMismatch, match=f"has version {VERSION + 1}.*upgrade audit-pipeline"):
            act()
    assert installed(opensearch, index)["version"] == VERSION + 1


def test_another_programs_template_is_refused(opened: Callable[..., Store], opensearch: Cluster, index: str) -> None:
    """A template of that name which is not ours is never overwritten, and nothing is written below it."""
    opensearch.call("PUT", f"/_index_template/{index}", {"index_patterns": [f"{index}-*"], "template": {}})
    for act in (lambda: opened().append([entry()]), opened().check):
        with pytest.raises(StoreMismatch, match="not audit-pipeline's; choose another index"):
            act()
    assert opensearch.call("GET", f"/_resolve/index/{index}-*")["indices"] == []


def test_granularity_is_fixed_at_the_first_setup(opened: Callable[..., Store], opensearch: Cluster, index: str) -> None:
    """Who names no granularity takes the one that is there; who names another is refused."""
    moment = entry(timestamp="2026-03-05T12:00:00Z")
    for granularity, name in (("day", "2026.03.05"), ("month", "2026.03"), ("year", "2026")):
        opensearch.clear(index)
        assert "installed" in opened(f"granularity={granularity}").setup()[0]
        other = "year" if granularity != "year" else "day"
        for act in (opened(f"granularity={other}").setup, opened(f"granularity={other}").check):
            with pytest.raises(StoreMismatch, match=f"granularity={granularity}, which cannot be changed"):
                act()
        assert opened().append([moment]) == []
        assert opened().append([moment]) == []
        assert opened().get("default", moment.id) == moment
        assert [one["name"] for one in opensearch.call("GET", f"/_resolve/index/{index}-*")["indices"]] == [
            f"{index}-{name}"
        ]


def test_granularity_outlives_the_template(opened: Callable[..., Store], opensearch: Cluster, index: str) -> None:
    """Where the template was deleted, or the indices restored without it, the names of the indices say what it was."""
    event = entry(timestamp="2026-03-05T12:00:00Z")
    for granularity, other in (("day", "month"), ("month", "year"), ("year", "day")):
        opensearch.clear(index)
        opened(f"granularity={granularity}").append([event])
        opensearch.call("DELETE", f"/_index_template/{index}")
        with pytest.raises(StoreMismatch, match="the index template is gone"):
            opened().check()
        with pytest.raises(StoreMismatch, match=f"granularity={granularity}, which cannot be changed"):
            opened(f"granularity={other}").append([event])
        again = opened()
        assert again.append([event]) == []
        assert again.search(Query("default"), Window(9)).items == (event,)


def test_two_writers_that_set_up_at_once_agree(opened: Callable[..., Store], opensearch: Cluster, index: str) -> None:
    """With different granularities, one of them is refused; no entry gets two places."""
    event = entry()
    for _ in range(5):
        opensearch.clear(index)
        together = Barrier(2)

        def write(options: str, together: Barrier = together) -> str:
            store = opened(options)
            together.wait()
            try:
                return str(store.append([event]))
            except StoreMismatch as error:
                return str(error)

        with ThreadPoolExecutor(2) as threads:
            said = list(threads.map(write, ("", "granularity=day")))
        assert "[]" in said
        assert opened().append([event]) == []
        assert opened().search(Query("default"), Window(9)).total == 1


def test_an_index_without_the_alias_is_said(opened: Callable[..., Store], opensearch: Cluster, index: str) -> None:
    """What would be written and not found is an error for the writer, setup and check; so are foreign indices."""
    writer = opened()
    writer.append([entry()])
    opensearch.clear(index)  # the index and its template, while the writer thinks that they are there
    with pytest.raises(StoreMismatch, match="made without the index template"):
        writer.append([entry()])
    for act in (opened().setup, opened().check, lambda: opened().append([entry()])):
        with pytest.raises(StoreMismatch, match="made without the index template"):
            act()
    opensearch.clear(index)
    opened().append([entry()])
    opensearch.call("PUT", f"/other-{index}", {"aliases": {index: {}}})
    try:
        for act in (opened().setup, opened().check):
            with pytest.raises(StoreMismatch, match=f"other-{index}, which is not ours"):
                act()
    finally:
        opensearch.call("DELETE", f"/other-{index}")
    opensearch.clear(index)
    opensearch.call("PUT", f"/{index}")
    for act in (opened().setup, lambda: opened().append([entry()])):
        with pytest.raises(StoreMismatch, match="has the name that the alias should have"):
            act()


def test_more_replicas_are_for_new_indices(opened: Callable[..., Store], opensearch: Cluster, index: str) -> None:
    """Writing to an index waits for a majority of its own copies, not of those that new ones would have."""
    opened("replicas=0").append([entry()])
    more = opened("replicas=2")
    assert "brought up to date" in more.setup()[0]
    assert more.append([entry()]) == []
    assert opened().search(Query("default"), Window(1)).total == 2


def test_writers_leave_each_others_options_alone(opened: Callable[..., Store], opensearch: Cluster, index: str) -> None:
    """Only setup changes the options of a template that is there: two writers with different ones do not take turns."""
    opened("replicas=0").append([entry()])
    before = installed(opensearch, index)
    opened("replicas=1").append([entry()])
    assert installed(opensearch, index) == before


def test_shards_and_replicas_are_options(opened: Callable[..., Store], opensearch: Cluster, index: str) -> None:
    """Shards and replicas come from the URL; who names none leaves what is there."""
    assert "installed" in opened("shards=3&replicas=0").setup()[0]
    assert opened().setup() == []
    opened().append([entry()])
    made = opensearch.call("GET", f"/{index}/_settings?flat_settings=true")
    assert [one["settings"]["index.number_of_shards"] for one in made.values()] == ["3"]
    assert "brought up to date" in opened("replicas=0-1").setup()[0]
    settings = installed(opensearch, index)["template"]["settings"]["index"]
    assert (settings["number_of_shards"], settings["auto_expand_replicas"]) == ("3", "0-1")
    assert "number_of_replicas" not in settings
    assert opened("replicas=0-1").setup() == []


def test_two_index_names_do_not_meet(opened: Callable[..., Store], url: str) -> None:
    """An index name that begins another one is a store of its own."""
    short, long = opened(), opened(at=url + "-events")
    for store in (short, long):
        assert store.setup() != []
        store.append([entry()])
    assert short.search(Query("default"), Window(9)).total == 1
    assert long.search(Query("default"), Window(9)).total == 1


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("opensearch://", "needs hosts"),
        ("opensearch://host:99999", "needs hosts"),
        ("opensearch://ho st", "needs hosts"),
        ("opensearch://a:9200,,b", "needs hosts"),
        ("opensearch://host/path", "takes no path"),
        ("opensearch://host?index=Big", "index 'Big' is not allowed; allowed are up to 100"),
        ("opensearch://host?index=a*", "index 'a.*' is not allowed"),
        ("opensearch://host?index=audit-2", "index 'audit-2' is not allowed.*without -2"),
        ("opensearch://host?api_key=hunter2%0A", "api_key is not allowed"),
        ("opensearch://a%0Ab:hunter2@host", "characters that cannot be sent"),
        ("opensearch://host?granularity=week", "granularity 'week' is not allowed; allowed are day, month, year"),
        ("opensearch://host?shards=0", "shards '0' is not allowed"),
        ("opensearch://host?replicas=-1", "replicas '-1' is not allowed"),
        ("opensearch://host?replica=1", "no option 'replica'; allowed are: index, granularity, shards, replicas"),
        ("opensearch+https://host?ca_certs=/no/such.pem", "ca_certs cannot be read"),
        ("opensearch+ftp://host", "no scheme"),
        ("opensearch+https://bob:hunter2@host?api_key=hunter2", "allowed is one of them"),
    ],
)
def test_wrong_urls_are_refused(url: str, said: str) -> None:
    """A URL that can name no store is refused before anything starts, without a secret in the sentence."""
    with pytest.raises(SettingsError, match=said) as error:
        open_store(url)
    assert str(error.value).startswith("AUDIT_STORE_URL")
    assert "hunter2" not in str(error.value)
