"""The way to an OpenSearch: requests and answers as JSON, over whichever host lives, and errors as this package's.

Nothing that the client library or the engine says leaves this file but a status and the type of an error: their texts
may hold values of entries. Forks are survived: a child makes connections of its own.
"""

from __future__ import annotations

import base64
import re
import ssl
import time
from collections.abc import Mapping, Sequence
from typing import Any

import opensearchpy
import orjson
import urllib3
from opensearchpy.exceptions import ConnectionError as UnreachableError
from urllib3.exceptions import ConnectTimeoutError, NewConnectionError

from ...errors import SettingsError, StoreError, StoreUnavailable
from ...forking import prepare_for_forks
from ..base import StoreURL

__all__ = ["NO_ENGINE", "TIMEOUT_S", "Engine", "TooLarge"]

TIMEOUT_S = 30.0
"""How long an answer is waited for, in seconds."""
LEAST_S = 1.0
"""How long an answer is waited for at the least, in seconds."""
CONNECT_TIMEOUT_S = 3.0
"""How long a connection is waited for, in seconds."""
DEAD_S = 5.0
"""For how long a host that cannot be reached is passed over, in seconds; longer when it fails again."""
CONNECTIONS = 16
"""Connections that are kept to each host."""

_HOST = re.compile(r"(?P<name>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::(?P<port>\d{1,5}))?\Z")
_WHY = {
    401: "does not accept the user, password or API key; correct AUDIT_STORE_URL",
    403: "does not allow this; give the account the rights that docs/opensearch.md lists, and lift blocks of indices",
    408: "took too long",
    429: "is overloaded, or its disk is nearly full; trying again helps once it is not",
}


NO_ENGINE = "this is no answer of OpenSearch; check what answers at that address"
_TO_REPAIR = {
    "index_closed_exception": "an index is closed, and what is in it could not be shown; open it, or delete it",
    "too_many_scroll_contexts_exception": "too many exports are open; trying again helps when one has ended",
}
_ABSENT = "index_not_found_exception"
# For a moment, nobody can ask a shard of an index that is just being made (by another writer, in a new month), or that
# is just being moved from a node that died. One that is deleted in the middle of a search makes it fail so with 404.
_NOT_STARTED = ("search_phase_execution_exception", "no_shard_available_action_exception")
PAUSES_S = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6)


class _NotStarted(StoreUnavailable):
    """Some shard has no copy that can be asked."""


class TooLarge(StoreUnavailable):
    """A request that the engine, or a proxy before it, did not take for its size."""


class _JSON(opensearchpy.serializer.JSONSerializer):
    def loads(self, text: Any) -> Any:
        try:
            return orjson.loads(text)
        except ValueError as error:
            raise opensearchpy.SerializationError(text[:0], error) from None


class _Connection(opensearchpy.Urllib3HttpConnection):
    """Writes nothing to logs: what fails is raised, and bodies hold entries."""

    def log_request_success(self, *about: Any, **more: Any) -> None:
        pass

    def log_request_fail(self, *about: Any, **more: Any) -> None:
        pass


class Engine:
    """One cluster, by the hosts of a store URL. Serves all threads."""

    def __init__(self, url: StoreURL) -> None:
        self._hosts = [_host(host) for host in url.hosts.split(",")]
        self.name = ",".join(f"{host['host']}:{host['port']}" for host in self._hosts)
        """The hosts, as errors name them."""
        self._options: dict[str, Any] = {"use_ssl": url.scheme.endswith("+https")}
        if account := _account(url):
            self._options["headers"] = {"Authorization": account}
        if "ca_certs" in url.options:
            self._options["ca_certs"] = _certificates(url.options["ca_certs"])
        self._clients: tuple[opensearchpy.OpenSearch, opensearchpy.OpenSearch] | None = None
        prepare_for_forks(self)

    def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        params: Mapping[str, Any] | None = None,
        *,
        needs: Sequence[str] = (),
        timeout: float | None = None,
        end: float | None = None,
        once: bool = False,
    ) -> Any:
        """The answer to a request: a JSON object that has what it `needs`; None where there is no such thing (404).

        `body` is a JSON value, or bytes that are sent as they are. Of the several answers to `_msearch`, each may be
        None. It may be sent several times, to several hosts, each of which has `timeout` seconds; `once`: only until a
        host has it; `end`: all of them have until then (a time of `time.monotonic`). Raises StoreUnavailable while
        trying again is right, TooLarge, and StoreError where the engine refuses the request itself.
        """
        for pause in PAUSES_S:
            try:
                return self.send(method, path, body, params, needs=needs, timeout=timeout, end=end, once=once)
            except _NotStarted:
                time.sleep(pause)
        return self.send(method, path, body, params, needs=needs, timeout=timeout, end=end, once=once)

    def send(
        self,
        method: str,
        path: str,
        body: Any = None,
        params: Mapping[str, Any] | None = None,
        *,
        needs: Sequence[str] = (),
        timeout: float | None = None,
        end: float | None = None,
        once: bool = False,
    ) -> Any:
        """As `ask`, but without waiting for shards that are just being started."""
        timeout = timeout or TIMEOUT_S
        attempts = 1 if not once and end is None else len(self._hosts) + 1
        for attempt in range(attempts):
            if end is not None:
                timeout = max(LEAST_S, end - time.monotonic())
            try:
                return self._whole(self._request(method, path, body, params, timeout, attempts > 1), needs)
            except opensearchpy.NotFoundError as error:
                if not isinstance(error.info, dict):
                    raise StoreUnavailable(f"{self.name}: {NO_ENGINE} (404)") from error
                if path.endswith("/_search") and error.error != _ABSENT:
                    raise self._known(error) from error
                return None
            except opensearchpy.SSLError as error:
                raise StoreUnavailable(
                    f"{self.name}: no TLS connection; check that it speaks TLS, its certificate's name, and ca_certs "
                    "in AUDIT_STORE_URL"
                ) from error
            except opensearchpy.ConnectionTimeout as error:
                raise StoreUnavailable(f"{self.name}: no answer within {timeout:g} s") from error
            except UnreachableError as error:
                never_sent = isinstance(error.info, NewConnectionError | ConnectTimeoutError)
                in_time = end is not None and time.monotonic() < end
                if (never_sent or in_time) and attempt < attempts - 1:
                    continue
                raise StoreUnavailable(f"{self.name}: cannot be reached; check that OpenSearch runs there") from error
            except opensearchpy.TransportError as error:
                raise self._known(error) from error
            except opensearchpy.SerializationError as error:
                raise StoreUnavailable(f"{self.name}: the answer was cut, or is no JSON") from error
            except opensearchpy.OpenSearchException as error:
                raise StoreUnavailable(f"{self.name}: {type(error).__name__}") from error
        raise AssertionError("the last attempt returns or raises")

    def _request(
        self, method: str, path: str, body: Any, params: Mapping[str, Any] | None, timeout: float, once: bool
    ) -> Any:
        client = self._connected()[once]
        sent = body if isinstance(body, bytes) or body is None else orjson.dumps(body)
        kind = "application/x-ndjson" if isinstance(body, bytes) else "application/json"
        limits = urllib3.Timeout(connect=CONNECT_TIMEOUT_S, read=timeout)
        try:
            return client.transport.perform_request(
                method, path, params={**(params or {}), "request_timeout": limits}, body=sent,
                headers={"content-type": kind},
            )  # fmt: skip
        except opensearchpy.OpenSearchException:
            raise
        except Exception as error:
            raise StoreUnavailable(f"{self.name}: {NO_ENGINE}") from error

    def _whole(self, answer: Any, needs: Sequence[str]) -> dict[str, Any]:
        """What OpenSearch may have said; not what some gateway says in its place."""
        if not isinstance(answer, dict) or not all(name in answer for name in needs):
            raise StoreUnavailable(f"{self.name}: {NO_ENGINE}")
        if "responses" in answer:
            if not isinstance(answer["responses"], list):
                raise StoreUnavailable(f"{self.name}: {NO_ENGINE}")
            answer["responses"] = [self._part(one) for one in answer["responses"]]
        return answer

    def _part(self, answer: Any) -> dict[str, Any] | None:
        """One of several answers to searches, which has an error of its own."""
        if not isinstance(answer, dict) or "error" not in answer:
            return self._whole(answer, ["_shards"])
        status = answer.get("status")
        error = answer["error"]
        kind = error.get("type") if isinstance(error, dict) else None
        if status == 404 and kind == _ABSENT:
            return None
        raise self._known(opensearchpy.TransportError(status, kind, answer))

    def _known(self, error: opensearchpy.TransportError) -> Exception:
        """An error status as an exception. Of the engine's words only the type of the error is used."""
        status = error.status_code
        kind = str(error.error) if re.fullmatch(r"[a-z_]{1,60}", str(error.error)) else "no reason given"
        if kind in _TO_REPAIR:
            return StoreUnavailable(f"{self.name}: {_TO_REPAIR[kind]} ({status} {kind})")
        if status == 413:
            return TooLarge(f"{self.name}: the request is too large")
        if status in _WHY:
            return StoreUnavailable(f"{self.name}: {_WHY[status]} ({status} {kind})")
        if isinstance(status, int) and status < 500 and status != 404:
            return StoreError(f"{self.name}: refused the request ({status} {kind})")
        failure = _NotStarted if kind in _NOT_STARTED else StoreUnavailable
        return failure(f"{self.name}: cannot answer at the moment ({status} {kind})")

    def _connected(self) -> tuple[opensearchpy.OpenSearch, opensearchpy.OpenSearch]:
        """The client that may send a request to one host after the other, and the one that sends it once."""
        clients = self._clients
        if clients is None:
            self._clients = clients = (self._client(len(self._hosts)), self._client(0))
        return clients

    def _client(self, retries: int) -> opensearchpy.OpenSearch:
        return opensearchpy.OpenSearch(
            self._hosts,
            connection_class=_Connection,
            serializers={"application/json": _JSON()},
            pool_maxsize=CONNECTIONS,
            # Only who cannot be reached is passed over: the others say 503 about shards, not about themselves.
            max_retries=retries,
            retry_on_status=(),
            retry_on_timeout=len(self._hosts) > 1,
            dead_timeout=DEAD_S,
            **self._options,
        )

    def close(self) -> None:
        """Close all connections. May be called twice."""
        clients, self._clients = self._clients, None
        for client in clients or ():
            client.close()

    def before_fork(self) -> None:
        """Nothing has to end: a connection that is in use stays the parent's."""

    def after_fork_in_parent(self) -> None:
        """Go on."""

    def after_fork_in_child(self) -> None:
        """Leave the parent's connections to it."""
        self._clients = None


def _account(url: StoreURL) -> str:
    """The Authorization header; empty without an account."""
    key = url.options.get("api_key")
    if key is not None:
        if not re.fullmatch(r"[!-~]+", key):
            raise SettingsError("AUDIT_STORE_URL: api_key is not allowed; allowed are ASCII characters without spaces")
        return f"ApiKey {key}"
    if not url.user and not url.password:
        return ""
    if not f"{url.user}{url.password}".isprintable() or ":" in url.user:
        raise SettingsError("AUDIT_STORE_URL: user or password has characters that cannot be sent")
    # RFC 7617 leaves the encoding open; OpenSearch reads UTF-8.
    return "Basic " + base64.b64encode(f"{url.user}:{url.password}".encode()).decode()


def _host(text: str) -> dict[str, Any]:
    match = _HOST.match(text)
    if match is None or not 0 < int(match["port"] or 9200) < 65_536:
        raise SettingsError(
            "AUDIT_STORE_URL: opensearch needs hosts; allowed are such as opensearch://host:9200,host2:9200 and "
            "opensearch+https://user:password@host:9200"
        )
    return {"host": match["name"].strip("[]").lower(), "port": int(match["port"] or 9200)}


def _certificates(path: str) -> str:
    try:
        ssl.create_default_context(cafile=path)
    except OSError as error:  # what is no certificate is one of them
        raise SettingsError("AUDIT_STORE_URL: ca_certs cannot be read; name a file of certificates (PEM)") from error
    return path
