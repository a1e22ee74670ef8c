"""Writes entries by bulk requests, and looks at the result of each of them.

An entry's index and document id follow from its organisation and id alone. So a repetition always meets its first
copy, however late, and is answered with 409.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from functools import lru_cache, partial
from hashlib import sha256
from itertools import islice
from typing import NamedTuple

import orjson

from ...ahead import Ahead
from ...ecs import document_of, event_of
from ...errors import StoreUnavailable
from ...event import AuditEvent, id_time, now_ms
from ...forking import prepare_for_forks
from ...privacy import same_content
from ..base import Refusal
from .engine import Engine, TooLarge
from .template import IndexTemplate, Installed

__all__ = ["Place", "Writer", "place"]

BATCH = 8000
"""Entries that arrive as one batch, at the most."""
REQUEST, REQUEST_BYTES = 2000, 8 * 2**20
"""Entries in a bulk request, and about its bytes, at the most."""
AT_ONCE = 2
"""Bulk requests of a large batch that are under way at the same time."""
BATCH_TIMEOUT_S = 60.0
"""How long a batch may take, in seconds."""
NAMES_BYTES = 3000
"""Bytes of index names in a request: its first line has 4,096 at the most."""
WAIT_FOR_COPIES = "10s"
"""How long a write waits for a majority of its shard's copies before it is tried again later."""

TAKEN = "its id is taken by an entry of other content"

DAY_MS = 86_400_000
_NAMES = {"day": "%Y.%m.%d", "month": "%Y.%m", "year": "%Y"}
_FIRST, _LAST = 946_684_800_000, 32_503_679_999_999  # the years 2000 to 2999: what the pattern of the template matches
_ILLEGAL = "illegal_argument_exception"
_NO_PIPELINE = "pipeline with id ["
"""How the reason begins where the ingest pipeline of an index is gone."""
_REFUSED = {
    "mapper_parsing_exception": "the index cannot take one of its fields",
    "strict_dynamic_mapping_exception": "the index has been set not to take one of its fields",
    _ILLEGAL: "the index cannot take one of its values",
}
_TROUBLE = {
    "unavailable_shards_exception": "too few copies of a shard are there; wait for nodes, or lower replicas",
    "cluster_block_exception": "writing is blocked; is the disk nearly full, or an index read-only?",
    "validation_exception": "an index cannot be made; is the limit on shards (cluster.max_shards_per_node) reached?",
    "index_closed_exception": "an index is closed; open it, or delete it",
    _ILLEGAL: "an index takes no entry at all; was its ingest pipeline deleted, or one of its settings changed?",
    "invalid_alias_name_exception": "an index has the alias's name; choose another index in AUDIT_STORE_URL",
}


class Place(NamedTuple):
    """Where a document lies."""

    index_name: str
    document_id: str


def place(index: str, granularity: str, org: str, event_id: str) -> Place:
    """Where the entry of an organisation and an id lies: for ever the same.

    What a clock made that had not been set yet (1970) lies in the first index that there can be.
    """
    moment = min(max(id_time(event_id), _FIRST), _LAST)
    return Place(f"{index}-{_period(moment // DAY_MS, granularity)}", f"{event_id}.{_digest(org)}")


@lru_cache(maxsize=4096)
def _period(day: int, granularity: str) -> str:
    return f"{datetime.fromtimestamp(day * DAY_MS // 1000, UTC):{_NAMES[granularity]}}"


@lru_cache(maxsize=1024)
def _digest(org: str) -> str:
    # An organisation's name may be longer than the engine lets a document's id be.
    return sha256(org.encode()).hexdigest()[:32]


class _Write(NamedTuple):
    """An entry as lines of a bulk request."""

    event: AuditEvent
    place: Place
    lines: bytes


class Writer:
    """Writes into the indices of one name."""

    def __init__(self, engine: Engine, index: str, template: IndexTemplate) -> None:
        self._engine = engine
        self._index = index
        self._template = template
        self._where = f"{engine.name}/{index}"
        self._known: set[str] = set()
        self._lock = threading.Lock()
        self._name = ""
        self._batch = self._at = 0
        prepare_for_forks(self)

    def write(self, events: Sequence[AuditEvent]) -> list[Refusal]:
        """Keep these entries. Raises StoreUnavailable where some may be missing."""
        installed = self._template.for_writing()
        refusals: list[Refusal] = []
        found: dict[Place, AuditEvent] = {}
        others: list[tuple[Place, AuditEvent]] = []
        places = [place(self._index, installed.granularity, event.org, event.id) for event in events]
        for where, event in zip(places, events, strict=True):
            if where not in found:
                found[where] = event
            elif not same_content(event, found[where]):
                others.append((where, event))
        names = {where.index_name for where in found}
        if not names <= self._known:
            # Made without the template, an index would be one that cannot be searched.
            installed = self._template.for_writing(within=1.0)
        with self._lock:
            try:
                # One by one, while requests are made of them: whoever gives them may pause between two.
                rest = (
                    (where, event)
                    for where, event in zip(places, events, strict=True)
                    if found.pop(where, None) is not None
                )
                # Of several with one id, the first is written first: the others meet it, or what was there before.
                for part, number in ((rest, len(found)), (iter(others), len(others))):
                    for left in range(number, 0, -BATCH):
                        size = min(left, BATCH)
                        refusals += self._write_batch(islice(part, size), size, installed)
            except BaseException:
                # Requests may be under way still; the next batch must not say that this one is over.
                self._name = ""
                raise
        self._known |= names
        return refusals

    def _write_batch(self, batch: Iterator[tuple[Place, AuditEvent]], size: int, installed: Installed) -> list[Refusal]:
        """Write what arrives as one batch; a large one by several requests, of which the next is made meanwhile."""
        requests = self._requests(batch, installed, self._next_batch(size))
        end = time.monotonic() + BATCH_TIMEOUT_S
        refusals: list[Refusal] = []
        if size <= REQUEST:
            for writes, copies in requests:
                refusals += self._create(writes, copies, end)
            return refusals
        under_way: deque[Ahead[list[Refusal]]] = deque()
        names: set[str] = set()
        try:
            for writes, copies in requests:
                names.update(write.place.index_name for write in writes)
                if len(under_way) == AT_ONCE:
                    refusals += under_way[0].answer()
                    under_way.popleft()
                under_way.append(Ahead(partial(self._create, writes, copies, end, "false")))
            for request in under_way:
                refusals += request.answer()
        finally:
            for request in under_way:
                request.join()
        self._refresh(names, end)
        return refusals

    def _create(self, writes: Sequence[_Write], copies: int, end: float, refresh: str = "true") -> list[Refusal]:
        params = {
            "refresh": refresh,
            "wait_for_active_shards": copies,
            "timeout": WAIT_FOR_COPIES,
            "filter_path": "items.create.status,items.create.error.type,items.create.error.reason,items.create._seq_no",
        }
        body = b"".join(write.lines for write in writes)
        try:
            answer = self._engine.ask("POST", "/_bulk", body, params, needs=["items"], end=end)
        except TooLarge:
            if len(writes) == 1:
                return [Refusal(writes[0].event, "it is larger than the store, or a proxy before it, takes")]
            half = len(writes) // 2
            return self._create(writes[:half], copies, end, refresh) + self._create(writes[half:], copies, end, refresh)
        items = answer["items"] if answer else []
        if len(items) != len(writes):
            raise StoreUnavailable(f"{self._where}: answered for {len(items)} of {len(writes)} entries")
        repeated: list[_Write] = []
        refused: list[tuple[_Write, str]] = []
        made = False
        for write, item in zip(writes, items, strict=True):
            error = item["create"].get("error", {})
            status, kind = item["create"]["status"], error.get("type", "")
            if status == 409:
                repeated.append(write)
            elif status == 400 and not str(error.get("reason")).startswith(_NO_PIPELINE):
                refused.append((write, kind))
            elif status >= 300:
                raise self._trouble(status, kind)
            made = made or item["create"].get("_seq_no") == 0
        if len(writes) > 1 and [kind for _, kind in refused] == [_ILLEGAL] * len(writes):
            # Not each of them is to blame: a setting of the index is.
            raise self._trouble(400, _ILLEGAL)
        if made:
            # The first document of an index that the engine has just made, it is to be hoped with the template.
            self._template.check_indices()
        return self._compared(repeated) + [self._refusal(write, kind) for write, kind in refused]

    def _requests(
        self, batch: Iterable[tuple[Place, AuditEvent]], installed: Installed, arrival: bytes
    ) -> Iterator[tuple[list[_Write], int]]:
        """The writes of each bulk request, and how many copies they have to wait for."""
        open_ones: dict[int, tuple[list[_Write], int]] = {}
        for where, event in batch:
            # Neither of the two has a character that JSON would escape.
            action = b'{"create":{"_index":"%s","_id":"%s"}}' % (where.index_name.encode(), where.document_id.encode())
            lines = b"%s\n%s%s\n" % (action, orjson.dumps(document_of(event))[:-1], arrival)
            copies = installed.copies.get(where.index_name, installed.new)
            writes, size = open_ones.get(copies, ([], 0))
            if writes and (size + len(lines) > REQUEST_BYTES or len(writes) == REQUEST):
                yield writes, copies
                writes, size = [], 0
            writes.append(_Write(event, where, lines))
            open_ones[copies] = writes, size + len(lines)
        for copies, (writes, _) in open_ones.items():
            yield writes, copies

    def _next_batch(self, size: int) -> bytes:
        """What says of documents in which batch they came (see arrivals), and closes them."""
        if not self._name:
            self._name, self._batch = secrets.token_hex(8), 0
        self._batch += 1
        self._at = max(self._at, now_ms())
        came = {"at": self._at, "writer": self._name, "batch": self._batch, "size": size}
        return b',"arrival":%s}' % orjson.dumps(came)

    def _refresh(self, names: Iterable[str], end: float) -> None:
        """Let what was written be found. Raises StoreUnavailable where that may not be so."""
        left = sorted(set(names))
        while left:
            some = left[: max(1, NAMES_BYTES // (len(left[-1]) + 1))]
            left = left[len(some) :]
            answer = self._engine.ask(
                "POST", f"/{','.join(some)}/_refresh", params={"ignore_unavailable": "true"}, needs=["_shards"], end=end
            )
            if answer is None or answer["_shards"].get("failed"):
                raise StoreUnavailable(f"{self._where}: what was written cannot be found yet; trying again is right")

    def before_fork(self) -> None:
        """Nothing has to end: a batch that is under way stays the parent's."""

    def after_fork_in_parent(self) -> None:
        """Go on."""

    def after_fork_in_child(self) -> None:
        """Be another writer."""
        self._lock = threading.Lock()
        self._name = ""

    def _compared(self, writes: Sequence[_Write]) -> list[Refusal]:
        """Those of the entries whose place is taken by an entry of other content."""
        if not writes:
            return []
        # They may have been written a moment ago, by a request that was not answered.
        self._refresh((write.place.index_name for write in writes), time.monotonic() + BATCH_TIMEOUT_S)
        documents = [{"_index": write.place.index_name, "_id": write.place.document_id} for write in writes]
        answer = self._engine.ask("POST", "/_mget", {"docs": documents}, {"_source_excludes": "search"}, needs=["docs"])
        refusals = []
        for write, stored in zip(writes, answer["docs"], strict=True):
            if not stored.get("found"):
                raise StoreUnavailable(f"{self._where}: an entry went away while it was compared; trying again helps")
            try:
                same = same_content(write.event, event_of(stored["_source"]))
            except (KeyError, TypeError, ValueError):  # a document of somebody else's
                same = False
            if not same:
                refusals.append(Refusal(write.event, TAKEN))
        return refusals

    def _refusal(self, write: _Write, kind: str) -> Refusal:
        """An entry that its index does not take. Raises StoreUnavailable where it is not the entry's fault."""
        if (
            kind not in _REFUSED
            or self._engine.ask("GET", f"/{write.place.index_name}", params={"filter_path": "*.aliases"}) is None
        ):
            # The index could not be made, for the limit on shards, or is closed.
            raise self._trouble(400, kind)
        return Refusal(write.event, f"{_REFUSED[kind]} ({kind})")

    def _trouble(self, status: int, kind: str) -> StoreUnavailable:
        why = _TROUBLE.get(kind, "a write failed; trying again is right")
        return StoreUnavailable(f"{self._where}: {why} ({status} {kind or 'no reason given'})")
