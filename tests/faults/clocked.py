"""The emitter, for a process whose clock libfaketime turns: `python -m tests.faults.clocked …`.

libfaketime 0.9.10 takes the absolute monotonic time that Python 3.11's `time.sleep` gives to `clock_nanosleep` for one
of the clock it turns, and so refuses it. Waiting for a lock sleeps as well, by a call that it leaves alone.
"""

from __future__ import annotations

import sys
import threading
import time

from . import emitter

if __name__ == "__main__":
    time.sleep = lambda seconds: threading.Event().wait(seconds) and None  # type: ignore[assignment]
    sys.exit(emitter.main())
