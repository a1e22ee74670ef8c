"""Who is asking: bearer tokens (JWT, RFC 7519), verified with one secret or with a set of public keys."""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jwt

from audit_pipeline.errors import SettingsError
from audit_pipeline.normalize import MAX_ORG
from audit_pipeline.settings import Settings

from .jwks import KeysUnavailable, RemoteKeys, VerifyingKey, verifying_keys
from .problems import Problem

__all__ = ["Caller", "TokenVerifier", "make_token"]

# One kind of key, one kind of algorithm: a public key must never be taken for a shared secret.
_SHARED = ("HS256", "HS384", "HS512")
_LAST = 2**53
"""No time lies beyond; and beyond it numbers are not exact, and may not even fit into what they are reckoned with."""
AGAIN_S = 60.0
"""For how long a reason that was logged is not logged again, in seconds: anybody may send bad tokens."""

_log = logging.getLogger("audit_pipeline.api")


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks, for which organisation, and what they may do."""

    sub: str
    org: str
    scopes: frozenset[str]
    plan: str | None
    expires: int
    """Seconds since the epoch."""

    def __post_init__(self) -> None:
        """Raises TypeError for one text in place of a set of scopes: it would have all that are a part of it.

        Raises ValueError for the name of an organisation that would be cut, or changed, on its way into an entry: it
        could be taken for another organisation's.
        """
        if isinstance(self.scopes, str):
            raise TypeError(f"Caller: scopes is a text; allowed is a set of texts, such as {{{self.scopes[:40]!r}}}")
        if not _is_name(self.org):
            raise ValueError(f"Caller: org is no text of 1 to {MAX_ORG} characters; allowed is one, such as default")

    def require(self, scope: str, plans: Sequence[str]) -> None:
        """Raises Problem where the scope is missing, or, for reading and exporting, the plan."""
        if scope not in self.scopes:
            raise Problem(403, "forbidden", f"The caller lacks the scope {scope}.", scope=scope)
        if scope in ("audit:read", "audit:export") and plans and self.plan not in plans:
            start = "The" if self.plan is not None else "The caller has no `plan`; the"
            detail = f"{start} audit log is part of the plans {', '.join(plans)}."
            raise Problem(403, "plan-required", detail, plans=list(plans))


class TokenVerifier:
    """Verifies bearer tokens. Without keys in the settings it makes one for this run; `run_key` is that key."""

    def __init__(self, settings: Settings) -> None:
        self.run_key: str | None = None
        self._options: dict[str, Any] = {
            "issuer": settings.jwt_issuer,
            "audience": settings.jwt_audience,
            "options": {
                "require": ["exp", "sub"],
                "verify_iat": False,  # says when it was made, by a clock that may be a second ahead of this one
                "verify_aud": settings.jwt_audience is not None,
                "verify_iss": settings.jwt_issuer is not None,
            },
        }
        self._remote: RemoteKeys | None = None
        self._local: dict[str, VerifyingKey] = {}
        self._secret: bytes | None = None
        self._refusals = _Refusals()
        if settings.jwks_url:
            self._remote = RemoteKeys(settings.jwks_url)
        elif settings.jwks_file:
            try:
                self._local = verifying_keys(settings.jwks_file.read_text())
            except (OSError, ValueError, AttributeError, jwt.PyJWTError) as error:
                raise SettingsError(
                    f"AUDIT_JWKS_FILE: {settings.jwks_file} is no key set ({type(error).__name__}); allowed is a JSON "
                    "Web Key Set (RFC 7517)"
                ) from None
            if not self._local:
                raise SettingsError(
                    f"AUDIT_JWKS_FILE: {settings.jwks_file} has no key that verifies tokens; allowed are keys with a "
                    "`kid`, and without a `use` other than sig"
                )
        elif settings.jwt_secret:
            self._secret = _hmac_key(settings.jwt_secret)
        else:
            self.run_key = secrets.token_urlsafe(48)
            self._secret = _hmac_key(self.run_key)

    @property
    def fetches_keys(self) -> bool:
        """Whether `verify` may wait for a key set: in an event loop, call it in a thread."""
        return self._remote is not None

    def verify(self, token: str) -> Caller:
        """Who the token speaks for. Raises Problem `unauthorized` without saying why: that would help a forger.

        The log says it, to the operator.
        """
        try:
            return _caller(self._claims(token))
        except KeysUnavailable:
            detail = "The keys that verify tokens cannot be fetched at the moment. Ask again in a few seconds."
            raise Problem(503, "keys-unavailable", detail, headers={"Retry-After": "5"}) from None
        except (jwt.PyJWTError, KeyError, ValueError, TypeError, OverflowError) as error:
            self._refusals.note(error)
            raise unauthorized("The bearer token is not valid, or no longer. Sign in again.") from None

    def _claims(self, token: str) -> dict[str, Any]:
        if self._secret is not None:
            return jwt.decode(token, self._secret, algorithms=_SHARED, **self._options)
        kid = jwt.get_unverified_header(token).get("kid")
        if kid is None:
            raise jwt.InvalidTokenError("its header has no `kid`, which names the key that verifies it")
        try:
            key = self._local[kid] if self._remote is None else self._remote.key(kid)
        except KeyError:
            raise jwt.InvalidTokenError("the key set has no key with the `kid` of its header") from None
        return jwt.decode(token, key.key, algorithms=key.algorithms, **self._options)


def _caller(claims: dict[str, Any]) -> Caller:
    """Who the claims of a good token speak of. Raises PyJWTError where one is of the wrong kind."""
    sub, scopes = claims["sub"], claims.get("scope", "")
    plan, org = claims.get("plan"), claims.get("org", "default")
    expires = int(claims["exp"])
    for is_right, otherwise in (
        (isinstance(sub, str) and sub, "`sub` is no text, or an empty one"),
        (isinstance(scopes, str), "`scope` is no text; it is one, with spaces between the scopes"),
        (isinstance(plan, str | None), "`plan` is no text"),
        (_is_name(org), f"`org` is no text of 1 to {MAX_ORG} characters"),
        (expires <= _LAST, "`exp` is no time"),
    ):
        if not is_right:
            raise jwt.InvalidTokenError(otherwise)
    return Caller(sub, org, frozenset(scopes.split()), plan, expires)


def _is_name(org: object) -> bool:
    return isinstance(org, str) and 0 < len(org) <= MAX_ORG and org == org.encode(errors="replace").decode()


class _Refusals:
    """Logs why tokens are refused, the same reason now and then; never what is in them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._said: dict[str, float] = {}

    def note(self, error: Exception) -> None:
        # Behind a colon PyJWT quotes the token; without that there are no more reasons than it has messages.
        reason = str(error).partition(":")[0] if isinstance(error, jwt.PyJWTError) else type(error).__name__
        now = time.monotonic()
        with self._lock:
            if now - self._said.get(reason, -AGAIN_S) < AGAIN_S:
                return
            self._said[reason] = now
        _log.warning("a bearer token was refused: %s (each reason is logged once a minute at the most)", reason)


def unauthorized(detail: str) -> Problem:
    """The answer to a request without a good token."""
    return Problem(401, "unauthorized", detail, headers={"WWW-Authenticate": "Bearer"})


def make_token(
    secret: str,
    *,
    sub: str,
    scope: str,
    plan: str | None,
    org: str,
    ttl: int,
    issuer: str | None = None,
    audience: str | None = None,
) -> str:
    """A token signed with a shared secret, valid for `ttl` seconds."""
    claims: dict[str, Any] = {"sub": sub, "scope": scope, "org": org, "exp": int(time.time()) + ttl}
    optional = {"plan": plan, "iss": issuer, "aud": audience}
    claims |= {name: value for name, value in optional.items() if value is not None}
    return jwt.encode(claims, _hmac_key(secret), algorithm="HS256")


def _hmac_key(secret: str) -> bytes:
    """The bytes of a secret, with zeros up to 64: to HMAC it is the same key (RFC 2104, section 2).

    PyJWT warns of short keys at each token; `doctor` and `serve` say it once, to whoever can change it.
    """
    return secret.encode().ljust(64, b"\0")
