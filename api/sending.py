"""Answers that last: what is held for a client who takes nothing any more is given back."""

from __future__ import annotations

from collections.abc import Callable

from anyio import fail_after
from starlette.types import Message, Send

__all__ = ["PIECE", "SEND_S", "ClientStalled", "while_taken"]

SEND_S = 60.0
"""How long a client may take nothing, in seconds. Proxies have no longer patience."""
PIECE = 64 * 2**10
"""Bytes that are sent at once: however large a part of an answer is, a client who reads slowly is seen to read."""


class ClientStalled(Exception):
    """A client took nothing for so long that its answer was given up."""


def while_taken(send: Send, left: Callable[[], float] = lambda: SEND_S) -> Send:
    """A `send` that waits no longer than SEND_S, or than is `left` (seconds), for each piece to be taken.

    Raises ClientStalled.
    """

    async def sending(message: Message) -> None:
        try:
            for piece in _pieces(message):
                with fail_after(max(0.0, min(SEND_S, left()))):
                    await send(piece)
        except TimeoutError:
            raise ClientStalled("the client took nothing for too long; its answer was broken off") from None

    return sending


def _pieces(message: Message) -> list[Message]:
    body = message.get("body", b"")
    if len(body) <= PIECE:
        return [message]
    parts = [body[first : first + PIECE] for first in range(0, len(body), PIECE)]
    return [*({**message, "body": part, "more_body": True} for part in parts[:-1]), {**message, "body": parts[-1]}]
