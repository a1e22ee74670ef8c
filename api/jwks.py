"""Public keys (JSON Web Key Set, RFC 7517). Those from an address are kept for minutes, and asked for at most so often.

PyJWT has a client for it, which asks at each request while the address does not answer, and holds up all requests
meanwhile, also those whose key it has.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from typing import Any, NamedTuple

import jwt

from audit_pipeline.errors import AuditError

__all__ = ["KeysUnavailable", "RemoteKeys", "VerifyingKey", "verifying_keys"]

KEPT_S = 300.0
"""For how long a key set is believed, in seconds: a key that was taken out of it is good for so long."""
PAUSE_S = 10.0
"""The shortest time between two requests for the key set, in seconds, whoever sends unknown keys meanwhile."""
TIMEOUT_S = 5.0

_log = logging.getLogger("audit_pipeline.api")


class KeysUnavailable(AuditError):
    """The key set cannot be had, or is none, so that nothing can be said about a token."""


_PUBLIC = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
_RSA = _PUBLIC[:6]


class VerifyingKey(NamedTuple):
    """A public key, and the algorithms that a token may be signed with by it."""

    key: Any
    algorithms: tuple[str, ...]


def verifying_keys(text: str) -> dict[str, VerifyingKey]:
    """The keys of a set that may verify a token, by their ids; none that is for encryption, or that has no id.

    Raises PyJWTError, ValueError or AttributeError for what is no key set.
    """
    said = json.loads(text)
    given = jwt.PyJWKSet.from_dict(said).keys
    named = {one.get("kid") for one in said["keys"] if one.get("alg")}
    return {
        key.key_id: VerifyingKey(key, _PUBLIC)
        # RFC 7517: `alg` may be left out. All others of our kinds of keys have one algorithm; PyJWK takes RS256 here.
        if key.key_type != "RSA" or key.key_id in named
        else VerifyingKey(key.key, _RSA)
        for key in given
        if key.key_id and key.public_key_use in ("sig", None)
    }


class RemoteKeys:
    """The keys of one address, by their ids. Serves all threads."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._lock = threading.Lock()
        self._keys: dict[str, VerifyingKey] = {}
        self._fetched = self._asked = -KEPT_S - PAUSE_S
        self._failed = False

    def key(self, kid: str) -> VerifyingKey:
        """The key of this id. Raises KeyError where there is none, and KeysUnavailable where that is not known."""
        found = self._known(kid)
        if found is not None:
            return found
        with self._lock:
            found = self._known(kid)
            if found is not None:
                return found
            if time.monotonic() - self._asked >= PAUSE_S:
                self._fetch()
            if self._failed:
                raise KeysUnavailable("the keys that verify tokens cannot be fetched")
            return self._keys[kid]

    def _known(self, kid: str) -> VerifyingKey | None:
        fresh = time.monotonic() - self._fetched < KEPT_S
        return self._keys.get(kid) if fresh else None

    def _fetch(self) -> None:
        import httpx  # here: it takes a fifth of the start of an API, and most have no such address

        self._asked = time.monotonic()
        failed, self._failed = self._failed, True
        try:
            answer = httpx.get(self._url, timeout=TIMEOUT_S)
            answer.raise_for_status()
            keys = verifying_keys(answer.text)
        except Exception as error:  # noqa: BLE001 - whatever it is that the address sends, or does not
            if not failed:
                # By its kind: its text has the address, which may have a secret in it.
                kind = f"HTTP {error.response.status_code}" if isinstance(error, httpx.HTTPStatusError) else ""
                _log.warning("no keys could be had from AUDIT_JWKS_URL: %s", kind or type(error).__name__)
            return
        self._keys, self._fetched, self._failed = keys, time.monotonic(), False
