"""Bulk requests: what becomes of each entry, whatever the engine or the network answers."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from audit_pipeline.ecs import document_of
from audit_pipeline.errors import StoreUnavailable
from audit_pipeline.event import AuditEvent, format_timestamp, now_ms, uuid7
from audit_pipeline.query import Query, Window
from audit_pipeline.stores import Store
from audit_pipeline.stores.opensearch import writing

from ..engine import Cluster
from .conftest import entry
from .proxy import CUT, RESET, Exchange, Proxy

ALL = Query("default")


def ids(store: Store) -> set[str]:
    return {event.id for event in store.search(ALL, Window(1000)).items}


def one_item(status: int, kind: str) -> Callable[[Exchange], tuple[int, bytes]]:
    """The second entry's result is this one, whatever it was."""

    def fault(exchange: Exchange) -> tuple[int, bytes]:
        answer = json.loads(exchange.answer)
        answer["items"][1]["create"] = {"status": status, "error": {"type": kind, "reason": "203.0.113.9"}}
        return 200, json.dumps(answer).encode()

    return fault


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (one_item(429, "opensearch_rejected_execution_exception"), "trying again is right"),
        (one_item(503, "unavailable_shards_exception"), "too few copies"),
        (one_item(500, "exception"), "trying again is right"),
        (one_item(403, "cluster_block_exception"), "writing is blocked"),
        (one_item(404, "index_not_found_exception"), "trying again is right"),
        (lambda exchange: CUT, "cut|cannot be reached"),
        (lambda exchange: RESET, "cannot be reached"),
        (lambda exchange: (200, exchange.answer[:-20]), "cut, or is no JSON"),
        (lambda exchange: (200, b'{"items":[]}'), "answered for 0 of 3 entries"),
        (lambda exchange: (429, b'{"error":{"type":"circuit_breaking_exception"}}'), "overloaded"),
        (lambda exchange: (500, b"<html>203.0.113.9"), "cannot answer at the moment .500 no reason given"),
        (lambda exchange: (401, b'{"error":{"type":"security_exception"}}'), "user, password or API key"),
        (lambda exchange: (403, b'{"error":{"type":"security_exception"}}'), "does not allow this"),
    ],
)
def test_a_spoiled_answer_neither_loses_nor_doubles(
    far: Store, store: Store, proxy: Proxy, fault: Callable[[Exchange], Any], said: str
) -> None:
    """The engine has the entries, and the answer says otherwise: the batch is tried again, and each is there once."""
    batch = [entry(target=str(number)) for number in range(3)]
    # Each time: the client asks again by itself where a connection breaks.
    proxy.after_answer = lambda exchange: fault(exchange) if exchange.path.startswith("/_bulk") else None
    with pytest.raises(StoreUnavailable, match=said) as error:
        far.append(batch)
    assert "203.0.113.9" not in str(error.value)
    proxy.after_answer = lambda exchange: None
    assert far.append(batch) == []
    assert ids(store) == {event.id for event in batch}
    assert store.search(ALL, Window(1)).total == 3


def test_a_large_batch_is_several_requests_at_a_time(
    far: Store, store: Store, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What each of them is answered counts: refusals are told, whatever fails is tried again; found when it returns."""
    monkeypatch.setattr(writing, "REQUEST", 10)
    batch = [entry(target=str(number)) for number in range(95)]
    store.append([replace(batch[7], target="another"), batch[33]])
    other = [replace(batch[50], target="another")]
    refusals = far.append(batch + other)
    assert sorted(refusal.event.id for refusal in refusals) == sorted([batch[7].id, batch[50].id])
    assert store.search(ALL, Window(1)).total == 95
    # And one for the entry whose id another one of the batch has: it is to meet that one.
    assert len([one for one in proxy.seen if one.path.startswith("/_bulk")]) == 10 + 1
    for number, status in ((1, 503), (10, 429)):
        more = [entry(target=str(number)) for number in range(95)]
        bulks = 0

        def fail(exchange: Exchange, number: int = number, status: int = status) -> tuple[int, bytes] | None:
            nonlocal bulks
            bulks += exchange.path.startswith("/_bulk")
            return (status, b"{}") if bulks == number and exchange.path.startswith("/_bulk") else None

        proxy.before_sending = fail
        with pytest.raises(StoreUnavailable):
            far.append(more)
        assert far.append(more) == []
    assert store.search(ALL, Window(1)).total == 95 * 3


def test_what_cannot_be_found_is_tried_again(
    far: Store, store: Store, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A large batch is found when it is said to be stored: where a shard is not refreshed, it is offered again.

    The names of many indices go in several requests: the first line of one has 4,096 bytes at the most.
    """
    monkeypatch.setattr(writing, "REQUEST", 5)
    monkeypatch.setattr(writing, "NAMES_BYTES", 50)
    now = now_ms()
    batch = [entry(timestamp=format_timestamp(now - month * 31 * 86_400_000)) for month in range(12)]
    failing = [True]

    def fail(exchange: Exchange) -> tuple[int, bytes] | None:
        if exchange.path.endswith("ignore_unavailable=true") and failing and failing.pop():
            return 200, b'{"_shards": {"total": 2, "successful": 1, "failed": 1}}'
        return None

    proxy.after_answer = fail
    with pytest.raises(StoreUnavailable, match="cannot be found yet"):
        far.append(batch)
    assert far.append(batch) == []
    assert store.search(ALL, Window(25)).total == 12
    names = [one.path.partition("/_refresh")[0] for one in proxy.seen if "/_refresh" in one.path]
    assert len(names) > 6
    assert max(map(len, names)) <= 51


def test_a_proxys_limit_on_size_is_met_by_smaller_requests(far: Store, store: Store, proxy: Proxy) -> None:
    """Where a request is too large (413), halves of it are sent; an entry that is too large alone is refused."""
    proxy.before_sending = lambda exchange: (413, b"<html>") if len(exchange.body) > 20_000 else None
    batch = [entry(detail="x" * 2000) for _ in range(20)] + [entry(detail="y" * 30_000)]
    refusals = far.append(batch)
    assert [refusal.event for refusal in refusals] == batch[-1:]
    assert "larger than the store" in refusals[0].reason
    assert ids(store) == {event.id for event in batch[:-1]}


def test_large_batches_are_several_requests(far: Store, proxy: Proxy, store: Store) -> None:
    """A thousand of the largest entries there can be go in requests of about 8 MB."""
    batch = [entry(detail=f"{number} " + "ü " * 21_000, context={"text": "z" * 60_000}) for number in range(100)]
    assert far.append(batch) == []
    sizes = [len(exchange.body) for exchange in proxy.asked("/_bulk")]
    assert len(sizes) > 1
    assert max(sizes) < 9 * 2**20
    assert ids(store) == {event.id for event in batch}
    assert store.get("default", batch[7].id) == batch[7]


def test_an_entry_that_the_index_cannot_take_is_refused_alone(store: Store) -> None:
    """One entry against the mapping does not hold up the others, and its reason has no value in it."""
    fine = [entry(target="fine"), entry(target="fine too", user="")]
    poison = replace(entry(), action="\x00" + "x" * 40_000)
    refusals = store.append([fine[0], poison, fine[1]])
    assert [refusal.event for refusal in refusals] == [poison]
    assert "illegal_argument_exception" in refusals[0].reason
    assert "xxx" not in refusals[0].reason
    assert {event.id for event in fine} <= ids(store)


def test_a_pipeline_that_is_gone_is_no_fault_of_the_entries(store: Store, opensearch: Cluster, index: str) -> None:
    """Where the index takes no entry for its settings, one or many are kept and tried again: none is refused."""
    first, some = entry(), [entry(target=str(number)) for number in range(3)]
    store.append([first])
    pipeline = f"/_ingest/pipeline/{index}"
    opensearch.call("PUT", pipeline, {"processors": [{"set": {"field": "labels.seen", "value": "yes"}}]})
    opensearch.call("PUT", f"/{index}/_settings", {"index.default_pipeline": index})
    opensearch.call("DELETE", pipeline)
    for batch in (some, some[:1], [first, some[0]]):
        with pytest.raises(StoreUnavailable, match="takes no entry at all; was its ingest pipeline deleted"):
            store.append(batch)
    opensearch.call("PUT", f"/{index}/_settings", {"index.default_pipeline": None})
    assert store.append([first, *some]) == []
    assert ids(store) == {event.id for event in (first, *some)}


def test_where_every_entry_is_refused_the_index_is_doubted(store: Store) -> None:
    """Values that an index cannot take, in each entry of a batch, are a trouble, until one of them is taken."""
    poison = [replace(entry(), action="\x00" + "x" * 40_000) for _ in range(2)]
    store.append([entry()])
    with pytest.raises(StoreUnavailable, match="takes no entry at all") as error:
        store.append(poison)
    assert "xxx" not in str(error.value)
    assert [refusal.event for refusal in store.append([*poison, entry()])] == poison
    assert [refusal.event for refusal in store.append(poison[:1])] == poison[:1]


def test_what_the_index_was_closed_to_is_tried_again(store: Store, opensearch: Cluster, index: str) -> None:
    """A read-only index, as a nearly full disk makes it, refuses nothing for good."""
    first, second = entry(), entry()
    store.append([first])
    opensearch.call("PUT", f"/{index}/_settings", {"index.blocks.read_only_allow_delete": True})
    with pytest.raises(StoreUnavailable, match=r"writing is blocked|overloaded"):
        store.append([second])
    opensearch.call("PUT", f"/{index}/_settings", {"index.blocks.read_only_allow_delete": None})
    assert store.append([second]) == []
    assert ids(store) == {first.id, second.id}


def test_the_limit_on_shards_is_no_fault_of_the_entry(far: Store, proxy: Proxy, store: Store) -> None:
    """Where no further index can be made, the entry is kept and tried again: it is never put in quarantine."""
    late = entry(timestamp=now_ms() / 1000 - 90 * 86_400)
    fault = one_item(400, "validation_exception")
    proxy.before_sending = lambda exchange: (
        (200, fault(Exchange("", "", b"", {}, 200, b'{"items":[{"create":{"status":201}},{"create":{}}]}'))[1])
        if exchange.path.startswith("/_bulk")
        else None
    )
    with pytest.raises(StoreUnavailable, match="limit on shards"):
        far.append([entry(), late])
    proxy.before_sending = lambda exchange: None
    assert far.append([late]) == []
    assert store.get("default", late.id) == late


def test_the_real_limit_on_shards(opened: Callable[..., Store], opensearch: Cluster) -> None:
    """As above, with the engine's own refusal."""
    setting = "cluster.max_shards_per_node"
    store = opened()
    store.setup()
    opensearch.call("PUT", "/_cluster/settings", {"persistent": {setting: 1}})
    try:
        months = [entry(timestamp=now_ms() / 1000 - month * 40 * 86_400) for month in range(3)]
        with pytest.raises(StoreUnavailable, match="limit on shards"):
            store.append(months)
    finally:
        opensearch.call("PUT", "/_cluster/settings", {"persistent": {setting: None}})
    assert store.append(months) == []


def test_an_entry_goes_by_the_time_in_its_id(store: Store, opensearch: Cluster, index: str) -> None:
    """The index is that of the id's month, whatever the entry's own time is: a repetition meets its first copy."""
    moment = 1_790_000_000_000  # September 2026
    event = replace(entry(), id=uuid7(moment, 5))
    assert store.append([event, event]) == []
    assert [one["name"] for one in opensearch.call("GET", f"/_resolve/index/{index}-*")["indices"]] == [
        f"{index}-2026.09"
    ]


def test_a_document_of_somebody_else_is_not_taken_for_ours(store: Store, opensearch: Cluster, index: str) -> None:
    """Where another program's document has the entry's place, the entry is refused, and the document stays."""
    event = entry()
    store.append([event])
    found = opensearch.call("GET", f"/{index}/_search")["hits"]["hits"][0]
    path = f"/{found['_index']}/_doc/{found['_id']}?refresh=true"
    opensearch.call("PUT", path, {"something": "else"})
    assert [refusal.event for refusal in store.append([event])] == [event]
    assert opensearch.call("GET", path)["_source"] == {"something": "else"}


def test_what_is_no_answer_of_opensearch_is_no_fault_of_entries(far: Store, store: Store, proxy: Proxy) -> None:
    """Where a gateway says something else, or nothing, every call is to be tried again, and no entry is refused."""
    answers = [b"{}", b"[]", b'["maintenance"]', b'"ok"', b"", b"<html>", b'{"index_templates":[]}', b"null", b"7"]
    for status in (200, 404, 401):
        for answer in answers:
            proxy.before_sending = lambda exchange, status=status, answer=answer: (status, answer)  # type: ignore[misc]
            asks = [lambda: far.append([entry()]), lambda: far.search(ALL, Window(1)), lambda: far.snapshot(ALL, 1)]
            for ask in [*asks, far.check, far.organisations]:
                if (status, answer[:1]) == (404, b"{"):
                    continue  # as the engine says it of what is not there
                with pytest.raises(StoreUnavailable):
                    ask()
    proxy.before_sending = lambda exchange: None
    assert far.append([entry()]) == []


@pytest.mark.parametrize(
    ("moment", "month"),
    [(0, "2000.01"), (946_684_799_999, "2000.01"), (32_503_680_000_000, "2999.12"), (2**48 - 1, "2999.12")],
)
def test_a_time_that_names_no_index_has_the_first_or_the_last(
    store: Store, opensearch: Cluster, index: str, moment: int, month: str
) -> None:
    """A clock that had not been set yet loses no entry; sent again, it meets its first copy."""
    event = replace(entry(), id=uuid7(moment, 5), timestamp=min(moment, 253_402_300_799_999))
    assert store.get("default", event.id) is None
    assert store.append([event]) == store.append([event]) == []
    assert store.get("default", event.id) == event
    assert ids(store) == {event.id}
    assert [one["name"] for one in opensearch.call("GET", f"/_resolve/index/{index}-*")["indices"]] == [
        f"{index}-{month}"
    ]


def test_a_closed_index_is_no_fault_of_the_entry(store: Store, opensearch: Cluster, index: str) -> None:
    """An entry for a closed index is kept and tried again."""
    first, second = entry(), entry()
    store.append([first])
    (name,) = (one["name"] for one in opensearch.call("GET", f"/_resolve/index/{index}-*")["indices"])
    opensearch.call("POST", f"/{name}/_close")
    with pytest.raises(StoreUnavailable, match="index is closed"):
        store.append([second])
    opensearch.call("POST", f"/{name}/_open?wait_for_active_shards=1")
    assert store.append([second]) == []
    assert ids(store) == {first.id, second.id}


def test_a_repetition_can_be_found_too(store: Store, opensearch: Cluster, index: str) -> None:
    """Where an entry was there already and nobody had made it findable, it is when append returns."""
    event = entry()
    store.append([entry()])
    opensearch.call("PUT", f"/{index}/_settings", {"index.refresh_interval": "-1"})
    (document,) = opensearch.call("GET", f"/{index}/_search")["hits"]["hits"]
    path = f"/{document['_index']}/_doc/{event.id}.{document['_id'].partition('.')[2]}"
    opensearch.call("PUT", path, document_of(event))
    assert event.id not in ids(store)
    assert store.append([event]) == []
    assert event.id in ids(store)


def test_a_majority_of_copies_is_waited_for(opened: Callable[..., Store], proxy: Proxy, url: str) -> None:
    """A write asks for more than half of a shard's copies; where they are not there, it is tried again."""
    for replicas, majority in (("0", "1"), ("2", "2"), ("0-2", "1"), ("0-all", "1")):
        store = opened(f"replicas={replicas}", at=proxy.before(url))
        store.setup()
        proxy.seen.clear()
        proxy.before_sending = lambda exchange: (429, b"{}") if exchange.path.startswith("/_bulk") else None
        with pytest.raises(StoreUnavailable):
            store.append([entry()])
        proxy.before_sending = lambda exchange: None
        assert f"wait_for_active_shards={majority}&" in proxy.asked("/_bulk")[0].path + "&"


def test_each_result_of_a_mixed_answer_is_handled_alone(store: Store) -> None:
    """New, repeated and taken entries, and one of an odd time, in one batch: each gets what it deserves."""
    new, repeated, taken, last = (entry(target=str(number)) for number in range(4))
    store.append([repeated, taken])
    other = replace(taken, target="other")
    far_off = replace(entry(), id=uuid7(32_503_680_000_000, 6))
    refusals = store.append([new, repeated, other, far_off, last])
    assert {refusal.event.id for refusal in refusals} == {other.id}
    assert ids(store) == {new.id, repeated.id, taken.id, far_off.id, last.id}
    assert store.get("default", taken.id) == taken


def test_documents_are_made_as_entries_are_given(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever gives them pauses between two for log calls: all made in one go would hold these up for 5 ms and more."""
    at: list[str] = []

    class Given(list[AuditEvent]):
        def __iter__(self) -> Iterator[AuditEvent]:
            for event in super().__iter__():
                at.append("given")
                yield event

    real = writing.document_of
    monkeypatch.setattr(writing, "document_of", lambda event: at.append("made") or real(event))
    assert store.append(Given(entry() for _ in range(20))) == []
    assert at[at.index("made") - 1 :] == ["given", "made"] * 20


def test_an_entry_given_several_times_at_once_is_stored_once(store: Store) -> None:
    """Also where it is the same object."""
    one = entry()
    other = entry(id=one.id, detail="other")
    assert [refusal.event for refusal in store.append([one, one, replace(one), other])] == [other]
    assert store.search(ALL, Window(1)).total == 1
