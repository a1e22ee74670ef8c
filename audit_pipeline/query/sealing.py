"""Texts that hold bytes from one request to the next: encrypted, or only signed. Both are refused when altered.

The API encrypts: what its texts hold is not for whoever carries them. The command line signs: whoever has its keys has
the store too, and the base install has no cipher. Knows no query: texts belong to an owner, who is 16 bytes.
"""

from __future__ import annotations

import hmac
from abc import ABC, abstractmethod
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence

__all__ = ["OWNER", "Encryption", "Seal", "Signature"]

OWNER = 16
"""Bytes in what says to whom a text belongs."""

_FOR_ENCRYPTION = b"audit-pipeline encryption of cursors"


class Seal(ABC):
    """Makes texts with the first key, and reads those of all keys, so that keys can be changed."""

    @abstractmethod
    def __init__(self, keys: Sequence[bytes]) -> None:
        """Keys of any length, newest first."""

    @abstractmethod
    def text(self, owner: bytes, content: bytes) -> str:
        """A text of letters, digits and `-_.` that holds the content for its owner."""

    @abstractmethod
    def content(self, owner: bytes, text: str) -> bytes | None:
        """What a text holds for this owner; None where it is nothing that was made for them."""


class Encryption(Seal):
    """Fernet (AES-128-CBC, then HMAC-SHA256). A text's length tells its content's, in steps of 16 bytes."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        # Of the API's dependencies.
        from cryptography.fernet import Fernet, InvalidToken, MultiFernet

        derived = (hmac.digest(key, _FOR_ENCRYPTION, "sha256") for key in keys)
        self._cipher = MultiFernet([Fernet(urlsafe_b64encode(key)) for key in derived])
        self._invalid = InvalidToken

    def text(self, owner: bytes, content: bytes) -> str:
        """See Seal.text."""
        return self._cipher.encrypt(owner + content).decode().rstrip("=")

    def content(self, owner: bytes, text: str) -> bytes | None:
        """See Seal.content."""
        token = _decoded(text)
        if token is None:
            return None
        try:
            opened = self._cipher.decrypt(urlsafe_b64encode(token))
        except self._invalid:
            return None
        return opened[OWNER:] if opened[:OWNER] == owner else None


class Signature(Seal):
    """The content for everyone to read, and its HMAC-SHA256."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        self._keys = tuple(keys)

    def text(self, owner: bytes, content: bytes) -> str:
        """See Seal.text."""
        body = urlsafe_b64encode(content).decode().rstrip("=")
        return f"{body}.{_signature(self._keys[0], owner, body)}"

    def content(self, owner: bytes, text: str) -> bytes | None:
        """See Seal.content."""
        body, _, signature = text.partition(".")
        given = signature.encode(errors="replace")
        # The texts are compared, not what they decode to: of a base64 text, some bits do not count.
        if not any(hmac.compare_digest(_signature(key, owner, body).encode(), given) for key in self._keys):
            return None
        return _decoded(body)


def _decoded(text: str) -> bytes | None:
    """The bytes of a base64 text without `=`; None where it is not exactly as it would have been written."""
    try:
        decoded = urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except ValueError:
        return None
    return decoded if urlsafe_b64encode(decoded).decode().rstrip("=") == text else None


def _signature(key: bytes, owner: bytes, body: str) -> str:
    digest = hmac.digest(key, owner + body.encode(errors="replace"), "sha256")
    return urlsafe_b64encode(digest).decode().rstrip("=")
