"""Group commit: what several threads record at the same time is put on disk with one sync.

One of them leads: it writes what waits, others gather behind it meanwhile, and the first of those leads next.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

from .errors import SpoolError
from .forking import prepare_for_forks

__all__ = ["GroupCommit", "Row"]

CHECK_S = 0.5
"""How long a thread waits, in seconds, before it looks whether those it waits for are still there."""

SLOW_S, GATHER, GATHER_S = 0.001, 0.25, 0.01
"""Where a commit takes longer than this, in seconds, a leader gathers others for that part of it, but no longer than
the last: those that the last one woke are about to come again, and would wait for a whole commit."""

Row = tuple[int, bytes]
"""An entry as the spool has it: when it was received, in milliseconds, and its body."""


class _Call:
    """What one thread has to write. It waits for its turn: until it was written, or has to lead."""

    __slots__ = ("is_kept", "is_over", "leader", "rows", "sequence", "turn")

    def __init__(self, rows: Sequence[Row]) -> None:
        self.rows = rows
        self.sequence = 0
        """That of its last row, from the moment before the commit; 0 before that."""
        self.is_kept = self.is_over = False
        self.leader: _Call | None = None
        """The one that took it along, and will wake it."""
        self.turn = threading.Lock()
        self.turn.acquire()

    def wake(self) -> None:
        """Let it go on, where it still waits."""
        if self.turn.locked():
            self.turn.release()


class _Here(threading.local):
    is_inside = False


class GroupCommit:
    """The order in which threads write.

    Not for the main thread, where signal handlers record and raise, nor for who records in the middle of a call of the
    same thread: a finalizer, a logging handler. What raises exceptions in other threads (a worker's time limit) may do
    that anywhere here: the others go on.
    """

    def __init__(self) -> None:
        self._begin()
        prepare_for_forks(self)

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._waiting: list[_Call] = []
        self._leader: _Call | None = None
        self._here = _Here()
        self._took = 0.0
        """How long the last commit took that several shared, in seconds; 0 after one that nobody shared."""

    @property
    def is_inside(self) -> bool:
        """Whether this thread is in the middle of `append`."""
        return self._here.is_inside

    def append(
        self,
        rows: Sequence[Row],
        write: Callable[[Sequence[Row], Callable[[int], None]], int],
        is_kept: Callable[[int, bytes], bool],
    ) -> int:
        """Put rows on disk, and return the last one's sequence. Raises SpoolError: none of them is recorded.

        `write` writes rows, all or none; of several it tells the last one's sequence before it commits. `is_kept` says
        whether the entry of a sequence has this body.
        """
        call = _Call(rows)
        try:
            self._here.is_inside = True
            with self._lock:
                self._waiting.append(call)
                leads = self._leader is None
                if leads:
                    self._leader = call
            while not leads and not call.turn.acquire(timeout=CHECK_S):
                if self._is_left(call):
                    break
            if self._leader is call:
                self._lead(call, write)
        finally:
            # An assignment cannot be interrupted; and what is not done after it, others find out.
            call.is_over = True
            self._leave(call)
            self._here.is_inside = False
        # Otherwise the leader was broken off, perhaps after the commit; or it failed: alone this may succeed.
        if call.is_kept or (call.sequence and is_kept(call.sequence, rows[-1][1])):
            return call.sequence
        return write(rows, lambda sequence: None)

    def _lead(self, leader: _Call, write: Callable[[Sequence[Row], Callable[[int], None]], int]) -> None:
        waiting: list[_Call] = []
        calls = [leader]

        def note(sequence: int) -> None:
            for call in reversed(calls):
                call.sequence = sequence
                sequence -= len(call.rows)

        try:
            if self._took > SLOW_S:
                time.sleep(min(self._took * GATHER, GATHER_S))
            with self._lock:
                # First of all: whoever is taken along is in no list any more, and so in no other commit.
                waiting, self._waiting = self._waiting, []
                for call in waiting:
                    call.leader = leader
            calls += [call for call in waiting if call is not leader and not call.is_over]
            began = time.monotonic()
            note(write([row for call in calls for row in call.rows], note))
            self._took = time.monotonic() - began if len(calls) > 1 else 0.0
            for call in calls:
                call.is_kept = True
        except SpoolError:
            if len(calls) == 1:
                raise
        finally:
            for call in waiting:
                if call is not leader:
                    call.wake()

    def _leave(self, call: _Call) -> None:
        with self._lock:
            if self._leader is call:
                self._leader = next((other for other in self._waiting if not other.is_over), None)
                if self._leader is not None:
                    self._leader.wake()

    def _is_left(self, call: _Call) -> bool:
        """Whether nobody will wake a call any more. One that still waits leads then."""
        with self._lock:
            awaited = call.leader or self._leader
            if awaited is not None and awaited is not call and not awaited.is_over:
                return False
            if call.leader is None:
                self._leader = call
            return True

    # Forks

    def before_fork(self) -> None:
        """Nothing: the spool's file waits for what is under way."""

    def after_fork_in_parent(self) -> None:
        """Go on."""

    def after_fork_in_child(self) -> None:
        """Begin anew: the threads that wait are the parent's."""
        self._begin()
