"""A network that fails on purpose: it passes requests on to a real engine, and may spoil them or their answers."""

from __future__ import annotations

import http.client
import socket
import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

__all__ = ["CUT", "RESET", "Exchange", "Proxy"]

CUT = object()
"""Send half of the answer, and close."""
RESET = object()
"""Close without an answer."""


@dataclass
class Exchange:
    """One request, and what the engine said to it."""

    method: str
    path: str
    body: bytes
    headers: dict[str, str]
    status: int = 0
    answer: bytes = b""
    kept_back: dict[int, Any] = field(default_factory=dict)
    """For a test that lets a part of a bulk pass: what it says to the others, by their places."""


@dataclass
class Proxy:
    """Listens on a port of its own, with TLS where a context is given."""

    upstream: str
    context: ssl.SSLContext | None = None
    seen: list[Exchange] = field(default_factory=list)
    before_sending: Callable[[Exchange], tuple[int, bytes] | None] = lambda exchange: None
    """May answer in the engine's place, which then never hears of the request: (status, body)."""
    after_answer: Callable[[Exchange], Any] = lambda exchange: None
    """May spoil an answer: CUT, RESET, or another (status, body)."""

    def __enter__(self) -> Proxy:
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *about: object) -> None:
                pass

            def handle_any(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length") or 0))
                exchange = Exchange(self.command, self.path, body, {k.lower(): v for k, v in self.headers.items()})
                proxy.seen.append(exchange)
                changed = proxy.before_sending(exchange)
                if changed is None:
                    exchange.status, exchange.answer = proxy.passed_on(exchange)
                    changed = proxy.after_answer(exchange)
                if changed is RESET:
                    self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                    self.close_connection = True
                    return
                status, answer = (exchange.status, exchange.answer) if changed in (None, CUT) else changed
                self.send_response(status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer[: len(answer) // 2] if changed is CUT else answer)
                self.close_connection = self.close_connection or changed is CUT

            do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = handle_any

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        if self.context is not None:
            self._server.socket = self.context.wrap_socket(self._server.socket, server_side=True)
        self._server.daemon_threads = True
        self._server.handle_error = lambda *about: None  # type: ignore[method-assign]  # a client that goes is no news
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def host(self) -> str:
        """Where it listens."""
        return f"127.0.0.1:{self._server.server_address[1]}"

    def before(self, url: str, account: str = "") -> str:
        """A store URL with this in front of the engine."""
        parts = urlsplit(url)
        scheme = "opensearch+https" if self.context else "opensearch"
        return f"{scheme}://{account}{self.host}?{parts.query}"

    def passed_on(self, exchange: Exchange) -> tuple[int, bytes]:
        """What the engine says to a request."""
        connection = http.client.HTTPConnection(self.upstream, timeout=60)
        try:
            headers = {"content-type": exchange.headers.get("content-type", "application/json")}
            connection.request(exchange.method, exchange.path, exchange.body or None, headers)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def asked(self, path: str) -> list[Exchange]:
        """The requests to a path that were seen."""
        return [exchange for exchange in self.seen if urlsplit(exchange.path).path == path]
