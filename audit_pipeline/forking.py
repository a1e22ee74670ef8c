"""Forking a process that has pipelines open (gunicorn's `preload_app`, multiprocessing).

A SQLite connection must not be carried through a fork, and neither must the library's own notes about which locks
this process holds: a child that opens the same file would believe them (https://sqlite.org/howtocorrupt.html, 2.6).
So before a fork every connection here is closed, between two transactions, and each side opens its own afterwards.
"""

from __future__ import annotations

import ctypes
import os
import threading
from typing import Protocol
from weakref import WeakSet

__all__ = ["WAIT_S", "Forkable", "abandon", "prepare_for_forks"]

WAIT_S = 10.0
"""How long a fork waits for what is under way, in seconds."""


class Forkable(Protocol):
    """Something that has to know of forks. The first two methods are called by the thread that forks."""

    def before_fork(self) -> None:
        """Finish what is under way, close connections, and let nothing new begin."""

    def after_fork_in_parent(self) -> None:
        """Go on."""

    def after_fork_in_child(self) -> None:
        """Go on, with new locks: threads that held one are not in the child."""


_living: WeakSet[Forkable] = WeakSet()
_stopped: list[Forkable] = []
# Held throughout a fork: nothing can be added, and so no connection be opened, while it goes on.
_registry = threading.Lock()
_hooked = False


def prepare_for_forks(thing: Forkable) -> None:
    """Call the methods of `thing` around each fork, for as long as it lives. Call this before it opens anything."""
    global _hooked  # noqa: PLW0603 - the hooks can be installed once only, and nothing should happen at import
    with _registry:
        if not _hooked:
            os.register_at_fork(before=_before, after_in_parent=_after_in_parent, after_in_child=_after_in_child)
            _hooked = True
        _living.add(thing)


def _before() -> None:
    _registry.acquire()
    _stopped[:] = list(_living)
    for thing in _stopped:
        thing.before_fork()


def _after_in_parent() -> None:
    for thing in _stopped:
        thing.after_fork_in_parent()
    _stopped.clear()
    _registry.release()


def _after_in_child() -> None:
    global _registry  # noqa: PLW0603 - the thread that held the old one may not be in the child
    _registry = threading.Lock()
    # Where C code forked, the first hook was not called.
    for thing in _stopped or list(_living):
        thing.after_fork_in_child()
    _stopped.clear()


def abandon(connection: object) -> None:
    """Keep a connection that came through a fork for ever: the child must neither use nor close it."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(connection))
