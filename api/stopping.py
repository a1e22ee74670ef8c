"""Whether the server is about to end: it waits for its connections, so that streams have to end by themselves."""

from __future__ import annotations

import signal

__all__ = ["server_stops"]


def server_stops() -> bool:
    """Whether a server that runs in this process was told to stop.

    ASGI says so only when the last connection has ended. uvicorn's handler of SIGTERM is a method of its server.
    """
    return bool(getattr(getattr(signal.getsignal(signal.SIGTERM), "__self__", None), "should_exit", False))
