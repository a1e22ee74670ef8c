"""What must be made anew in a forked child: locks that a thread of the parent held, and SQLite connections."""

from __future__ import annotations

import ctypes
import os
from typing import Protocol
from weakref import WeakSet

__all__ = ["Forkable", "abandon", "reset_after_fork"]


class Forkable(Protocol):
    """Something that cannot be used in a forked child as it is."""

    def after_fork(self) -> None:
        """Called once in the child, before any other code of it, while it has a single thread."""


_living: WeakSet[Forkable] = WeakSet()
_hooked = False


def reset_after_fork(thing: Forkable) -> None:
    """Call `thing.after_fork()` in each forked child, for as long as the thing lives."""
    global _hooked  # noqa: PLW0603 - the hook can be installed once only, and nothing should happen at import
    if not _hooked:
        os.register_at_fork(after_in_child=_reset)
        _hooked = True
    _living.add(thing)


def _reset() -> None:
    for thing in list(_living):
        thing.after_fork()


def abandon(connection: object) -> None:
    """Keep an inherited SQLite connection for ever: in a forked child it must be neither used nor closed.

    https://sqlite.org/howtocorrupt.html, section 2.6.
    """
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(connection))
