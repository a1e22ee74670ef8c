"""The contract of a store. Its docstrings are what `tests/contract` holds every store to.

A store keeps entries and answers Queries. It parses nothing that a person typed, masks nothing, and knows no HTTP.
The errors of the library it uses never leave it: it raises StoreError and its kinds only.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, NamedTuple
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

from ..errors import SettingsError
from ..event import AuditEvent
from ..privacy import mask_entry
from ..query import Query, Window

__all__ = ["QUERY_S", "Arrival", "Arrivals", "Page", "Refusal", "Snapshot", "Store", "StoreURL", "numbered"]


QUERY_S = 20.0
"""After how many seconds an engine gives a query up, rather than work for somebody who has left: StoreUnavailable."""


@dataclass(frozen=True, slots=True)
class Page:
    """A window of an ordered result."""

    items: tuple[AuditEvent, ...]
    total: int
    """How many entries the query has: exact, and never older than `items`."""
    has_previous: bool
    """Whether entries come before the first item. False where there are no items."""
    has_next: bool
    """Whether entries come after the last item."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """An entry that a store can never take, and why, in one sentence without values."""

    event: AuditEvent
    reason: str


class Arrival(NamedTuple):
    """An entry that came, and the position just after it."""

    event: AuditEvent
    position: str


class Arrivals(NamedTuple):
    """What came after a position, in the order in which it came."""

    entries: Sequence[Arrival]
    position: str
    """The position after all of them."""
    more: bool = False
    """Whether there may be more already."""


class Snapshot(ABC):
    """A result as it was at one moment, whatever is written afterwards. Close it, whether read to its end or not."""

    total: int
    """How many entries the query has; `batches` may give fewer, up to the limit."""

    @abstractmethod
    def batches(self, size: int = 1000) -> Iterator[Sequence[AuditEvent]]:
        """The entries in the query's order, `size` at a time. Raises StoreError midway rather than give a part."""

    @abstractmethod
    def close(self) -> None:
        """Free what the snapshot holds. May be called twice, and from another thread."""


class StoreURL:
    """A store URL in its parts. Its text form has no password in it."""

    def __init__(self, url: str) -> None:
        try:
            parts: SplitResult = urlsplit(url)
            options = parse_qs(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
            if parts.scheme and not url[len(parts.scheme) :].startswith("://"):
                raise ValueError("one slash too few")
        except ValueError:
            raise SettingsError(
                "AUDIT_STORE_URL: not a URL; allowed are sqlite:///relative.db, sqlite:////absolute.db, memory://, "
                "opensearch://host:9200 and opensearch+https://host:9200"
            ) from None
        credentials, _, self.hosts = parts.netloc.rpartition("@")
        several = re.search("@.*,", credentials)  # an account for each host
        if "#" in url or "@" in parts.query or (parts.netloc and "@" in parts.path) or several:
            # Otherwise a part of a password, or of a file's name, would be taken for something else.
            raise SettingsError(
                f"AUDIT_STORE_URL: {parts.scheme or 'the URL'} has a # or @ at a place where none is allowed; write "
                "special characters of a password or a file name as %23 (#), %2F (/), %3F (?), %40 (@)"
            )
        self.scheme = parts.scheme
        user, _, password = credentials.partition(":")
        self.user, self.password = unquote(user), unquote(password)
        self.path = unquote(parts.path)
        self.options = {name: values[-1] for name, values in options.items()}

    def __str__(self) -> str:
        account = f"{self.user}:***@" if self.user else ""
        return f"{self.scheme}://{account}{self.hosts}{self.path}"

    __repr__ = __str__

    def only_options(self, *allowed: str) -> None:
        """Raises SettingsError where the URL has other options than these."""
        for name in self.options:
            if name not in allowed:
                listed = ", ".join(allowed) or "none"
                raise SettingsError(
                    f"AUDIT_STORE_URL: {self.scheme} has no option {name[:40]!r}; allowed are: {listed}"
                )


def numbered(position: str) -> int:
    """A position among arrivals that is a number. Raises ValueError for anything else."""
    if not (position.isascii() and position.isdigit() and len(position) <= 18):
        raise ValueError("this is no position of this store")
    return int(position)


class Store(ABC):
    """Where entries are kept for good. One object serves all threads of a process, and survives fork."""

    schemes: ClassVar[tuple[str, ...]]
    """The URL schemes that name this store."""

    lasting: ClassVar[bool] = True
    """Whether entries outlive the process. Where not, its spool does not either."""

    spool_path: Path | None
    """Where a spool for this store is kept unless a setting says otherwise; None: in the user's state folder."""

    keeps_masked: bool = False
    """Whether addresses are masked before they are appended (AUDIT_IP_STORAGE): set by whoever opens it to write."""

    def to_keep(self, events: Sequence[AuditEvent]) -> Sequence[AuditEvent]:
        """Entries that may come from elsewhere, a spool or another store, as they are to be appended here."""
        return [mask_entry(event) for event in events] if self.keeps_masked else events

    @classmethod
    @abstractmethod
    def from_url(cls, url: StoreURL) -> Store:
        """The store that a URL names. Contacts nothing. Raises SettingsError for a URL that can name none."""

    @abstractmethod
    def identity(self, spool: Path) -> str:
        """Names this place for ever, as seen from a spool, without a secret in it. The spool remembers it."""

    @abstractmethod
    def setup(self) -> list[str]:
        """Install what is missing; what is there stays. Safe to repeat, and by several processes at once.

        Returns one sentence for each thing done, or left alone although it differs. Raises StoreMismatch where
        something else, or a newer version, is at that place.
        """

    @abstractmethod
    def append(self, events: Sequence[AuditEvent]) -> list[Refusal]:
        """Keep these entries, all or none of them; when it returns they can be found, and survive a crash.

        The key of an entry is (org, id). An entry whose key is taken by one of the same content is not written
        again: appending is idempotent. Of other content, the newcomer is refused, and the stored one unchanged.
        Entries may come in any order of time. Installs what is missing. Raises StoreUnavailable where trying again
        is right: then some of the entries may have been kept.
        """

    @abstractmethod
    def get(self, org: str, event_id: str) -> AuditEvent | None:
        """The entry of that organisation with that id, or None; the same None where another organisation has it."""

    @abstractmethod
    def search(self, query: Query, window: Window) -> Page:
        """A window of a query's entries in its order, and how many there are.

        The orders are full, and the same on every store: `-timestamp` (timestamp ↓, id ↓), `timestamp` (timestamp ↑,
        id ↑), `action` and `-action` (action id ↑ or ↓, timestamp ↓, id ↓). Times are compared as milliseconds,
        action ids and ids by code point. Raises StoreMissing where nothing has been set up.
        """

    @abstractmethod
    def snapshot(self, query: Query, limit: int, *, in_full: bool = True) -> Snapshot:
        """The first `limit` entries of a query, all as of now. Raises StoreMissing where nothing has been set up.

        Where they need not be `in_full`, contexts and problems may be missing: lists do not show them.
        """

    @abstractmethod
    def arrivals(self, position: str | None, limit: int = 1000) -> Arrivals:
        """About `limit` entries of all organisations in the order in which they came, each with the position after it.

        Without a position: none, and the position now. Going from position to position, also in another process,
        meets each entry that is kept from then on exactly once, however old its own time is; some of them a minute
        after they can be found. A call gives what any call that ended before it gave, but for what its position is
        after; asked twice from one position, others may have come between. Positions are text to keep, not to read.
        Raises StoreMissing where nothing has been set up, and ValueError for what is no position of this store.
        """

    @abstractmethod
    def histogram(self, query: Query, edges: Sequence[int]) -> list[dict[str, int]]:
        """How many of a query's entries lie in each span between two edges (ms, rising), by their tone.

        A span takes in its first edge, and not its last. Tones without entries are left out. Raises StoreMissing
        where nothing has been set up.
        """

    @abstractmethod
    def organisations(self) -> list[str]:
        """The names of all organisations that have entries, in order of code points.

        Raises StoreMissing where nothing has been set up.
        """

    @abstractmethod
    def check(self) -> str:
        """Contact the store, change nothing, and say in one line what is there. Raises StoreError."""

    @abstractmethod
    def close(self) -> None:
        """Free what this process holds. May be called twice."""
