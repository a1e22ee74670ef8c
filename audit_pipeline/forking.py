"""Forking a process that has pipelines open (gunicorn's `preload_app`, multiprocessing).

A SQLite connection must not be carried through a fork, and neither must the library's own notes about which locks
this process holds: a child that opens the same file would believe them (https://sqlite.org/howtocorrupt.html, 2.6).
So before a fork every connection here is closed, between two transactions, and each side opens its own afterwards.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Protocol, cast
from weakref import WeakSet

__all__ = ["ForkLock", "Forkable", "abandon", "is_carried", "prepare_for_forks", "take_no_signals"]

WAIT_S = 10.0
"""How long a fork waits for what is under way, in seconds."""


class Forkable(Protocol):
    """Something that has to know of forks. The first two methods are called by the thread that forks.

    Each may be called again where a signal handler raised in the middle of it, and has to bear that.
    """

    def before_fork(self) -> None:
        """Finish what is under way, close connections, and let nothing new begin."""

    def after_fork_in_parent(self) -> None:
        """Go on."""

    def after_fork_in_child(self) -> None:
        """Go on, with new locks: threads that held one are not in the child."""


_living: WeakSet[Forkable] = WeakSet()
_hooked = False
_forks = 0
TRIES = 5
"""How often something is done that signal handlers break off."""
NESTED = 16
"""How many attempts are prepared: for forks in signal handlers in the middle of a fork, too."""

# Python calls what is registered here, and drops the exceptions that come out of it: those of signal handlers, too,
# which a host application waits for. So no signal is taken by this thread meanwhile; and what a handler raises all the
# same is raised again. The last to be called are no functions of Python's: handlers run, and exceptions come, after
# them, where the application forked.
_libc = ctypes.PyDLL(None)
_Signals = ctypes.c_char * 128
_asynchronous, _given_back = _Signals(), _Signals()
_libc.sigfillset(_asynchronous)
# One that nobody waits for stays as it is: whoever blocks all signals blocks it too, and so is told from us.
_LEFT = (signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGSEGV, signal.SIGURG)
for _number in _LEFT:
    _libc.sigdelset(_asynchronous, _number)
_HELD = sum(1 << number - 1 for number in range(1, 32) if number not in (*_LEFT, signal.SIGKILL, signal.SIGSTOP))
_raised_in, _raised = ctypes.c_ulong(0), ctypes.c_void_p()
"""The thread in which an exception is raised again, 0 for none, and the class of that."""


class ForkLock:
    """A lock that the thread that forks holds meanwhile, so that nothing that it guards is half done in the child.

    Whose it is calls the three methods of the same names from its own.
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()
        """To be entered itself: a signal handler that raises may come before the end of a method of Python's."""
        self._held: list[bool] = []

    @property
    def is_owned(self) -> bool:
        """Whether this thread holds it."""
        # As threading.Condition asks it.
        owned: bool = self.lock._is_owned()  # type: ignore[attr-defined]
        return owned

    def before_fork(self, wait_s: float | None = None) -> bool:
        """Take it. False where another thread does not give it up in time: `WAIT_S`, or so many seconds, -1 for ever.

        A call that is broken off in `Condition.wait` may have given it up: then it is taken once more.
        """
        if not (any(self._held) and self.is_owned):
            # C alone: no signal handler can raise between the two, and leave it taken without a word.
            self._held[:] = map(self.lock.acquire, (True,), (WAIT_S if wait_s is None else wait_s,))
        return any(self._held)

    def after_fork_in_parent(self) -> None:
        """Give it back."""
        if any(self._held):
            del self._held[:]
            self.lock.release()

    def after_fork_in_child(self) -> None:
        """Give it back, or have a new one where the thread that holds it is not in the child."""
        if any(self._held):  # by this thread, which may have been waiting for it when a signal handler forked
            self.after_fork_in_parent()
        elif not self.is_owned:
            self.lock = threading.RLock()


# Held throughout a fork: nothing can be added, and so no connection be opened, while it goes on.
_registry = ForkLock()


class _Here(threading.local):
    mask: bytes | None = None
    """Which signals this thread took before it began to fork."""
    raised: BaseException | None = None
    """What came out of a signal handler meanwhile."""
    again: type[BaseException] | None = None
    """The class by which that is raised again."""
    tries = 0
    """How often what is under way was broken off."""


_here = _Here()


def prepare_for_forks(thing: Forkable) -> None:
    """Call the methods of `thing` around each fork, for as long as it lives. Call this before it opens anything."""
    global _hooked  # noqa: PLW0603 - the hooks can be installed once only, and nothing should happen at import
    with _registry.lock:
        if not _hooked:
            # What a signal handler raised before is the parent's.
            os.register_at_fork(after_in_child=partial(setattr, _here, "raised", None))
            os.register_at_fork(
                before=_hook(_before), after_in_parent=_hook(_after_in_parent), after_in_child=_hook(_after_in_child)
            )
            give_back = partial(_libc.pthread_sigmask, signal.SIG_SETMASK, _given_back, None)
            os.register_at_fork(after_in_parent=give_back, after_in_child=give_back)
            again = partial(ctypes.pythonapi.PyThreadState_SetAsyncExc, _raised_in, _raised)
            os.register_at_fork(after_in_parent=again, after_in_child=again)
            _hooked = True
        _living.add(thing)


def take_no_signals() -> None:
    """Leave the signals to the other threads of this process."""
    _libc.pthread_sigmask(signal.SIG_BLOCK, _asynchronous, None)


def _mask() -> bytes:
    now = _Signals()
    _libc.pthread_sigmask(signal.SIG_BLOCK, None, now)
    return now.raw


def _is_ours(mask: bytes) -> bool:
    held = int.from_bytes(mask[:8], sys.byteorder)
    return held & _HELD == _HELD and not held >> signal.SIGURG - 1 & 1


def _before() -> None:
    now = _mask()
    if not _is_ours(now):  # else a signal handler forks in the middle of a fork
        _here.mask = now
    forks = -1
    while forks != _forks:  # a signal handler forked meanwhile
        forks = _forks
        take_no_signals()
        _registry.before_fork(-1)
        for thing in list(_living):
            thing.before_fork()


def _after_in_parent() -> None:
    global _forks  # noqa: PLW0603
    try:
        _forks += 1
        for thing in list(_living):
            thing.after_fork_in_parent()
        _registry.after_fork_in_parent()
    finally:
        _give_back()


def _after_in_child() -> None:
    global _forks  # noqa: PLW0603
    try:
        _forks += 1
        _registry.after_fork_in_child()
        # Where C code forked, the first hook was not called.
        for thing in list(_living):
            thing.after_fork_in_child()
    finally:
        _give_back()


def _give_back() -> None:
    """Prepare what is called after this."""
    now = _mask()
    mask = _here.mask if _is_ours(now) and _here.mask else now
    _here.again = _class_of(_here.raised)
    thread = threading.get_ident() if _here.again else 0
    again = id(_here.again)
    # From here on nothing is called: other threads fork too.
    _given_back.raw, _raised_in.value, _raised.value, _here.raised = mask, thread, again, None


def _class_of(error: BaseException | None) -> type[BaseException] | None:
    """A class whose instance is this very error: Python raises classes alone in a thread."""
    if error is None:
        return None
    try:
        again: Any = type(type(error).__name__, (type(error),), {})
        again.__new__ = staticmethod({again: error}.get)
        return cast("type[BaseException]", again)
    except Exception:  # noqa: BLE001 - a class that none may be derived from: raised without what it has to say
        return type(error)


def _hook(work: Callable[[], None]) -> Callable[[], object]:
    """A callable of C's that does `work` to its end, whatever signal handlers raise before it, and in the middle of it.

    What comes each time is no signal: it is raised, and Python tells of it, and goes on.
    """
    ready: deque[Iterator[bool]] = deque()

    # As a function begins, and as a loop goes on, Python looks for signals, outside of all that the function could
    # catch with. A generator goes on where it was: inside a `try`. Each makes one attempt, and C asks for the next.
    def once() -> Iterator[bool]:
        try:
            yield False
            prepare()
            work()
        except GeneratorExit:
            raise
        except BaseException as error:
            _here.tries += 1
            if _here.tries == TRIES:
                _here.tries, _here.raised = 0, None
                raise
            _here.raised = _here.raised or error
            yield False
        else:
            _here.tries = 0
            yield True

    def prepare() -> None:
        while len(ready) < NESTED:
            one = once()
            next(one)
            ready.append(one)

    prepare()
    return partial(next, filter(None, map(next, iter(ready.popleft, None))))


_carried: set[object] = set()


def abandon(connections: object, file: object) -> None:
    """Keep connections to a file that came through a fork for ever: the child must neither use nor close them.

    Nor may it open that file again, whichever object does: the library takes the parent's locks for this process's.
    """
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(connections))
    _carried.add(file)


def is_carried(file: object) -> bool:
    """Whether a connection to this file came through a fork to this process."""
    return file is not None and file in _carried
