"""A shipper in a process of its own, for who records so much that shipping in the same process would slow both down.

Python runs one thread of a process at a time. The process ends with the one that started it, however that ends.
"""

from __future__ import annotations

import logging
import multiprocessing
import signal
from multiprocessing.connection import Connection

from .errors import StoreError, StoreMismatch
from .settings import Settings, spool_path
from .shipper import Shipper
from .stores import open_store

__all__ = ["ShipperProcess"]


class ShipperProcess:
    """Ships the spool of these settings, in place of a `Shipper` of this process (which has to be stopped before)."""

    def __init__(self, settings: Settings) -> None:
        spawning = multiprocessing.get_context("spawn")
        self._asked, asked = spawning.Pipe()
        self._process = spawning.Process(target=_ship, args=(settings, asked), name="audit-shipper", daemon=True)
        self._process.start()
        asked.close()  # so that the end of the process can be seen
        self._is_asked = False
        self.trouble: StoreMismatch | None = None
        """Why waiting does not help; None otherwise: what else stops shipping, the process says for itself."""
        self.retries = 0
        """How often the store did not take a batch, which was then sent again."""

    def start(self) -> None:
        """Nothing: it was started at once."""

    def wake(self) -> None:
        """Nothing: it looks by itself."""

    def hurry(self) -> None:
        """Say that somebody waits for what is in the spool. Raises StoreError where the process is gone."""
        try:
            if self._is_asked and not self._asked.poll():
                return
            if self._is_asked:
                self.trouble, self.retries = self._asked.recv()
            self._asked.send(None)
            self._is_asked = True
        except (EOFError, OSError) as error:
            self._process.join(1)
            raise StoreError(
                f"the process that shipped ended by itself ({self._process.exitcode}); what is in the spool stays "
                "there; begin again: only what is missing will be added"
            ) from error

    def stop(self, timeout: float = 5.0) -> None:
        """End it after the batch under way; wait for that up to `timeout` seconds."""
        self._asked.close()
        self._process.join(timeout)
        if self._process.is_alive():
            self._process.terminate()
            self._process.join()


def _ship(settings: Settings, asked: Connection) -> None:
    """Ship until the other end of `asked` is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever started it gets Ctrl-C too, and ends it
    logging.basicConfig(format="audit-pipeline: %(message)s")
    store = open_store(settings.store_url)
    store.keeps_masked = settings.keeps_masked
    path = spool_path(settings, store)
    shipper = Shipper(path, store.identity(path), store)
    shipper.start()
    try:
        while True:
            asked.recv()
            shipper.hurry()
            trouble = shipper.trouble
            asked.send((trouble if isinstance(trouble, StoreMismatch) else None, shipper.retries))
    except (EOFError, OSError):
        shipper.stop()
        store.close()
