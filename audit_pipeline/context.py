"""Who acts, and from where: bound once for a request or a job, and added to each entry made inside it.

It is a variable of its own, apart from structlog's: what `merge_contextvars` binds appears in every log line, and
addresses must not.
"""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

__all__ = [
    "Actor",
    "RequestTrace",
    "bind_actor",
    "count_entries",
    "current_actor",
    "note_unknown",
    "trace_request",
    "unaudited",
]

UserSource = str | Callable[[], str | None] | None


@dataclass(frozen=True, slots=True)
class Actor:
    """Who acts, and from where. A callable `user` is asked when an entry is made: a web request learns it late."""

    user: UserSource = None
    ip: str | None = None
    org: str | None = None
    context: Mapping[str, Any] = field(default_factory=dict)

    def resolved_user(self) -> str | None:
        """The user, asked for where it is a callable. Raises TypeError where that has to be awaited."""
        if not callable(self.user):
            return self.user
        user = self.user()
        if inspect.isawaitable(user):
            if inspect.iscoroutine(user):
                user.close()
            raise TypeError("an async function cannot be asked in the middle of a log call; allowed is a plain one")
        return user


_NOBODY = Actor()
_actor: ContextVar[Actor] = ContextVar("audit_pipeline_actor", default=_NOBODY)


def current_actor() -> Actor:
    """Who is bound here; an Actor without anything where nobody is."""
    return _actor.get()


@contextmanager
def bind_actor(
    user: UserSource = None, ip: str | None = None, org: str | None = None, **context: Any
) -> Iterator[None]:
    """Bind who and where for the entries made inside the `with` block, in this thread or task.

    What is left out stays as an outer `bind_actor` set it; other keywords are added to each entry's context.
    """
    outer = _actor.get()
    token = _actor.set(
        Actor(
            user=outer.user if user is None else user,
            ip=outer.ip if ip is None else ip,
            org=outer.org if org is None else org,
            context={**outer.context, **context},
        )
    )
    try:
        yield
    finally:
        _actor.reset(token)


@dataclass(slots=True)
class RequestTrace:
    """How many entries one web request has left so far. Shared by the threads that work on it."""

    entries: int = 0
    unknown: str = ""
    """An event with the fields of an entry, whose name is no action: a misspelt one."""


unaudited: Counter[str] = Counter()
"""How many requests changed something and left no entry, by method and route (`POST /domains`), in this process: the
first thousand of these, and the rest as `others`."""

_trace: ContextVar[RequestTrace | None] = ContextVar("audit_pipeline_trace", default=None)


@contextmanager
def trace_request() -> Iterator[RequestTrace]:
    """Count the entries made inside the `with` block."""
    trace = RequestTrace()
    token = _trace.set(trace)
    try:
        yield trace
    finally:
        _trace.reset(token)


def note_unknown(name: str) -> None:
    """Tell the request that is traced here, if any, of an event that may have been meant to be an entry."""
    trace = _trace.get()
    if trace is not None:
        trace.unknown = name


def count_entries(number: int) -> None:
    """Tell the request that is traced here, if any, that it left this many entries."""
    trace = _trace.get()
    if trace is not None:
        trace.entries += number
