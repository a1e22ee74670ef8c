"""Live listeners: the store is asked once for all of them, and each hears what its query selects, exactly once.

The hub asks what came, four times a second while somebody listens, and hands each entry to those whose query selects
it. A listener that begins at an older position, or was too slow, catches up by requests of its own, and then follows.

Its own way there and the hub's are positions that cannot be compared: a store may put the same entries into another
order, when asked from elsewhere. So a listener joins by what is known of time. Poll `n` of the hub has ended, and gave
all there was; then the listener asks, and is given all there is. Whatever poll `n` passed, the listener was given by
now, so it may go on where `n` ended. What it was given since `n` began may come from there once more: the ids of that
are kept, and those entries passed over. They are part of each resume point until they came. And `n` began after the
listener came: what it was given before, perhaps elsewhere, is passed then.

Runs in one event loop, and asks the store in threads. Knows no HTTP.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import NamedTuple

from .errors import StoreError
from .event import AuditEvent
from .query import Query, ResumePoint, Searchable
from .stores import Store

__all__ = ["Entry", "Heard", "Hub", "Listener"]

POLL_S = 0.25
"""How often the store is asked, in seconds."""
RETRY_S = 5.0
"""The longest pause before a store that does not answer is asked again, in seconds."""
BATCH = 1000
"""About how many entries are asked for at once."""
WAITING = 2000
"""Entries that may wait for a listener; one that is slower catches up by itself."""
AT_ONCE = 100
"""Entries that a listener is given at once, at the most."""
CATCHING_UP = 3
"""Listeners whose own requests are under way at the same time."""
TWICE = 64
"""Ids that a resume point may hold, beside those it was made with."""
START_S = 1.0
"""How long the first answer to a listener that resumes is waited for, in seconds."""

_log = logging.getLogger("audit_pipeline.listening")


class Entry:
    """An entry that came, and the position just after it. Listeners share it, and what they made of it."""

    def __init__(self, event: AuditEvent, position: str) -> None:
        self.event = event
        self.position = position
        self.data = b""
        """What is sent of it to all listeners."""
        self.places: dict[Query, bytes] = {}
        """What is sent of its position to listeners who follow the hub, by query."""


class Heard(NamedTuple):
    """An entry for a listener, and where to go on after it."""

    entry: Entry
    point: ResumePoint


class _Answer(NamedTuple):
    """What came, by query, and the position after all of it."""

    entries: Sequence[Entry]
    selected: dict[Query, list[Entry]]
    position: str
    more: bool


class _Call(NamedTuple):
    """What a listener's own request gave it, and the last poll that had begun when it ended."""

    begun: int
    ids: frozenset[str]


class Hub:
    """Asks the store for as long as somebody listens. `stopping` says whether the server is about to end."""

    def __init__(self, store: Callable[[], Store], stopping: Callable[[], bool] = lambda: False) -> None:
        self._store = store
        self._stopping = stopping
        self._tasks: list[asyncio.Task[None]] = []
        self._listeners: set[Listener] = set()
        self._following: dict[Query, set[Listener]] = {}
        self.position: str | None = None
        """After everything that was handed on."""
        self.begun = self.finished = 0
        """The numbers of the last polls that began, and that gave an answer."""
        self.complete = False
        """Whether the last answer gave all there was."""
        self.trouble: Exception | None = None
        """Why the store is not asked successfully at the moment."""

    @property
    def listeners(self) -> int:
        """How many listen."""
        return len(self._listeners)

    @asynccontextmanager
    async def listen(self, query: Query, point: ResumePoint | None = None) -> AsyncIterator[Listener]:
        """A listener for what a query selects of what comes from now on, or after a point.

        Raises StoreError where the store cannot say which position is now, and ValueError for a point that is not of
        this store; where it is down, the latter may come only later.
        """
        listener = Listener(self, query)
        self._listeners.add(listener)
        if not self._tasks:
            self._start()
        try:
            await (listener.begin() if point is None else listener.resume(point))
            yield listener
        finally:
            listener.leave()
            self._listeners.discard(listener)
            if not self._listeners:
                self._stop()

    def end(self) -> None:
        """End all listeners."""
        for listener in self._listeners:
            listener.end()

    def _start(self) -> None:
        self.slots = asyncio.Semaphore(CATCHING_UP)
        self.trouble, self.complete = None, False
        self._tasks = [asyncio.create_task(self._poll()), asyncio.create_task(self._watch())]

    def _stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        self._tasks = []
        self.position = None

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(POLL_S)
            if self._stopping():
                self.end()

    async def _poll(self) -> None:
        pause = POLL_S
        while True:
            self.begun += 1
            try:
                answer = await self.ask(self.position, self._following)
                late = tuple(query for query in self._following if query not in answer.selected)
                if late and answer.entries:
                    answer.selected.update(await asyncio.to_thread(_selected, answer.entries, late))
            except Exception as error:  # noqa: BLE001 - whatever it was, listeners wait for what comes next
                if isinstance(error, ValueError):
                    self.position = None  # a backup took the store's place: what comes from now on
                self._report(error)
                pause = min(pause * 2, RETRY_S)
            else:
                self._hand_on(answer)
                pause = 0 if answer.more else POLL_S
            for listener in self._listeners - set().union(*self._following.values()):
                listener.wake()
            await asyncio.sleep(pause)
            pause = max(pause, POLL_S)

    def _hand_on(self, answer: _Answer) -> None:
        self.position, self.complete, self.finished = answer.position, not answer.more, self.begun
        if self.trouble is not None:
            _log.warning("live entries go on after: %s", self.trouble)
            self.trouble = None
        for query, listeners in list(self._following.items()):
            selected = answer.selected.get(query, ())
            missed = query not in answer.selected and answer.entries  # it came after all that was done in threads
            for listener in list(listeners):
                if missed:
                    listener.fall_back()
                    listener.wake()
                else:
                    listener.hear(selected)

    def _report(self, error: Exception) -> None:
        if repr(error) != repr(self.trouble):
            known = isinstance(error, StoreError)
            _log.warning("no live entries at the moment: %s", error, exc_info=None if known else error)
        self.trouble = error

    async def ask(self, position: str | None, queries: Iterable[Query]) -> _Answer:
        """What came after a position, and what of it queries select; in a thread, that sees those queries only."""
        return await asyncio.to_thread(_asked, self._store, position, tuple(queries))

    def follow(self, listener: Listener) -> None:
        """Hand on to a listener what comes after `position`."""
        self._following.setdefault(listener.query, set()).add(listener)

    def unfollow(self, listener: Listener) -> None:
        """Hand nothing on to a listener any more."""
        listeners = self._following.get(listener.query, set())
        listeners.discard(listener)
        if not listeners:
            self._following.pop(listener.query, None)


def _asked(store: Callable[[], Store], position: str | None, queries: Sequence[Query]) -> _Answer:
    came = store().arrivals(position, BATCH)
    entries = [Entry(event, after) for event, after in came.entries]
    return _Answer(entries, _selected(entries, queries), came.position, came.more)


def _selected(entries: Sequence[Entry], queries: Iterable[Query]) -> dict[Query, list[Entry]]:
    """What queries select. An organisation's entries cost nothing where only others listen.

    What is made of an entry's texts is many times as large as they are: it is kept for one entry at a time.
    """
    selected: dict[Query, list[Entry]] = {query: [] for query in queries}
    asked: dict[str, list[Query]] = {}
    for query in selected:
        asked.setdefault(query.org, []).append(query)
    for entry in entries:
        if entry.event.org not in asked:
            continue
        searchable = Searchable(entry.event)
        for query in asked[entry.event.org]:
            if searchable.matches(query):
                selected[query].append(entry)
    return selected


class Listener:
    """Hears what a query selects, in order of arrival. Made by Hub.listen, and used by one task at a time."""

    def __init__(self, hub: Hub, query: Query) -> None:
        self.query = query
        self.point = ResumePoint("")
        """Where to go on after everything that `next` gave."""
        self.ended = False
        """Whether nothing comes any more."""
        self._hub = hub
        self._woken = asyncio.Event()
        self._waiting: deque[Entry] = deque()
        self._follows = False
        self._settled = 0
        # Only while it catches up:
        self._asking: asyncio.Task[_Answer] | None = None
        self._joins_at: tuple[int, str] | None = None
        self._calls: list[_Call] = []
        self._came = 0
        self._rests_since: int | None = None

    async def next(self, timeout: float) -> list[Heard]:
        """What was selected next, as soon as there is something; nothing after `timeout` seconds, or at the end.

        Raises ValueError where the point it began with is not of this store.
        """
        loop = asyncio.get_running_loop()
        end = loop.time() + timeout
        while not self.ended:
            self._woken.clear()
            heard = self._take() if self._follows else self._catch_up()
            left = end - loop.time()
            if heard or left <= 0:
                return heard
            if not self._woken.is_set():
                # Not wait_for: up to Python 3.11 it may swallow a cancellation.
                with suppress(TimeoutError):
                    async with asyncio.timeout(left):
                        await self._woken.wait()
        return []

    def end(self) -> None:
        """Let `next` give nothing any more."""
        self.ended = True
        self.wake()

    def wake(self) -> None:
        """Let `next` look again."""
        self._woken.set()

    # Called by the hub

    async def begin(self) -> None:
        """Follow from the hub's position."""
        while (position := self._hub.position) is None and not self.ended:
            if self._hub.trouble is not None:
                raise self._hub.trouble
            self._woken.clear()
            await self._woken.wait()
        self.point = ResumePoint(position or "")
        self._follows = True
        self._hub.follow(self)

    async def resume(self, point: ResumePoint) -> None:
        """Catch up from a point."""
        self.point = point
        self._came = self._hub.begun  # what an earlier listener was given is not known here, but was there by now
        asking = self._ask()
        await asyncio.wait({asking}, timeout=START_S)
        if asking.done() and isinstance(error := asking.exception(), ValueError):
            raise error

    def hear(self, entries: Sequence[Entry]) -> None:
        """Take what the hub hands on; where too much waits, leave it, and catch up from the last resume point."""
        if len(self._waiting) + len(entries) > WAITING:
            self.fall_back()
        else:
            self._waiting += entries
        if entries:
            self.wake()

    def leave(self) -> None:
        """Let go of everything."""
        self.fall_back()
        if self._asking is not None and not self._asking.cancel():
            self._asking.exception()  # looked at, so that asyncio does not report it

    def fall_back(self) -> None:
        """Leave what the hub hands on, and catch up from the last resume point."""
        self._hub.unfollow(self)
        self._waiting.clear()
        self._follows = False
        self._joins_at = None

    # Following

    def _take(self) -> list[Heard]:
        heard: list[Heard] = []
        given = self.point.given
        while self._waiting and len(heard) < AT_ONCE:
            entry = self._waiting.popleft()
            self.point = ResumePoint(entry.position, given)
            if entry.event.id not in given:
                heard.append(Heard(entry, self.point))
        if not heard and self._hub.position is not None:
            # What the hub handed on since was not selected. After the first whole answer since this listener joined,
            # nothing can come twice.
            settled = self._hub.complete and self._hub.finished > self._settled
            self.point = ResumePoint(self._hub.position, frozenset() if settled else given)
        return heard

    # Catching up

    def _ask(self) -> asyncio.Task[_Answer]:
        self._asking = asyncio.create_task(self._request())
        self._asking.add_done_callback(lambda _: self.wake())
        return self._asking

    async def _request(self) -> _Answer:
        async with self._hub.slots:
            if self._hub.complete and self._hub.position is not None and self._hub.finished > self._came:
                # What the hub hands on from here is kept: this may be the request after which it is followed.
                self._joins_at = self._hub.finished, self._hub.position
                self._hub.follow(self)
            return await self._hub.ask(self.point.position, (self.query,))

    def _catch_up(self) -> list[Heard]:
        if self._asking is None:
            # Where all was given, not before the hub was answered again: then this may join it.
            if self._hub.trouble is None and self._hub.finished != self._rests_since:
                self._ask()
            return []
        if not self._asking.done():
            return []
        asking, self._asking = self._asking, None
        try:
            answer = asking.result()
        except ValueError:
            raise
        except Exception as error:  # noqa: BLE001 - it is asked again when the hub was answered
            self.fall_back()
            self._rests_since = self._hub.finished
            if not isinstance(error, StoreError):
                _log.warning("a listener is kept waiting", exc_info=error)
            return []
        heard = self._passed(answer)
        self._rests_since = None if answer.more else self._hub.finished
        if answer.more or not self._join():
            self.fall_back()
        if not heard:
            self.wake()
        return heard

    def _passed(self, answer: _Answer) -> list[Heard]:
        heard = []
        given = self.point.given
        selected = answer.selected[self.query]
        for entry in selected:
            if entry.event.id in given:
                given -= {entry.event.id}
            else:
                heard.append(Heard(entry, ResumePoint(entry.position, given)))
        self.point = ResumePoint(answer.position, given)
        since = self._joins_at[0] if self._joins_at else self._hub.finished
        self._calls = [call for call in self._calls if call.begun >= since]
        self._calls.append(_Call(self._hub.begun, frozenset(entry.event.id for entry in selected)))
        return heard

    def _join(self) -> bool:
        """Follow the hub from where it was when the last request began, where that gives nothing twice."""
        if self._joins_at is None:
            return False
        twice = frozenset[str]().union(*(call.ids for call in self._calls))
        if len(twice) > TWICE:
            return False
        self.point = ResumePoint(self._joins_at[1], self.point.given | twice)
        self._settled = self._hub.begun
        self._calls = []
        self._follows = True
        return True
