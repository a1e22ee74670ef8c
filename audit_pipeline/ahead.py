"""Something that is under way in a thread while its caller does something else."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

__all__ = ["Ahead"]

T = TypeVar("T")


class Ahead(threading.Thread, Generic[T]):
    """One call, begun at once."""

    def __init__(self, call: Callable[[], T]) -> None:
        super().__init__(name="audit-ahead", daemon=True)
        self._call = call
        self._answer: list[T] = []
        self._error: BaseException | None = None
        self.start()

    def run(self) -> None:
        """Make the call."""
        try:
            self._answer.append(self._call())
        except BaseException as error:  # noqa: BLE001 - the caller raises it
            self._error = error

    def answer(self) -> T:
        """Wait for its end: what it returned, or raises what it raised."""
        self.join()
        if self._error is not None:
            raise self._error
        return self._answer[0]
