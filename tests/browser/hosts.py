"""Dashboards of other people, which embed the viewer: small pages of another origin, with a strict CSP of their own."""

from __future__ import annotations

import html
import json
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

__all__ = ["NAMES", "Hosts", "built_pages"]

FOLDER = Path(__file__).parent / "host_pages"
NAMES = ("plain", "react18", "react19", "vue3")
"""The pages: a file of this name in `host_pages` each."""

PAGE = """<!doctype html>
<html lang="en">
  <meta charset="utf-8">
  <meta name="viewport" content="width=device-width, initial-scale=1">
  <title>Dashboard</title>
  <link rel="stylesheet" href="/host.css">
  <h1>Dashboard</h1>
  <main id="app"></main>
  <script type="application/json" id="options">{options}</script>
  <script type="module" src="{api}/viewer/audit-log.js"></script>
  <script type="module" src="/{name}.js"></script>
</html>
"""
# No framework's own policy but Vue's is needed; whatever else the viewer did would be refused, and heard.
POLICY = (
    "default-src 'none'; script-src 'self' {api}; style-src 'self'; connect-src {api}; img-src 'self'; "
    "base-uri 'none'; form-action 'none'; trusted-types lit-html vue; require-trusted-types-for 'script'"
)
FLAGS = {
    "process.env.NODE_ENV": '"production"',
    "__VUE_OPTIONS_API__": "false",
    "__VUE_PROD_DEVTOOLS__": "false",
    "__VUE_PROD_HYDRATION_MISMATCH_DETAILS__": "false",
}


class Hosts:
    """The pages, and the origin that serves them."""

    def __init__(self, built: Path) -> None:
        """`built` is what `built_pages` made."""
        self._built = built
        self._asked: list[tuple[str, dict[str, str]]] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.origin = f"http://localhost:{self._server.server_port}"
        """Another site than a server at 127.0.0.1."""
        self.unlisted_origin = f"http://127.0.0.1:{self._server.server_port}"
        """The same pages at an origin that no server lists."""

    def page(self, name: str, api: str, **attributes: str) -> str:
        """The address of a page that embeds the viewer of the server at `api`, with these attributes (`_` for `-`)."""
        options = {"api-base": api} | {key.replace("_", "-"): value for key, value in attributes.items()}
        self._asked.append((name, options))
        return f"{self.origin}/{len(self._asked) - 1}/"

    @contextmanager
    def serving(self) -> Iterator[Hosts]:
        """Serve while this block runs."""
        thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            thread.join()
            self._server.server_close()

    def _answer(self, path: str) -> tuple[int, str, bytes, str]:
        """Status, type, body and API of what lies at a path."""
        number = path.strip("/")
        if number.isdigit() and int(number) < len(self._asked):
            name, options = self._asked[int(number)]
            api = options["api-base"]
            data = json.dumps(options).replace("<", "\\u003c")
            return 200, "text/html", PAGE.format(options=data, api=html.escape(api), name=name).encode(), api
        if path == "/host.css":
            return 200, "text/css", (FOLDER / "host.css").read_bytes(), ""
        if path.removeprefix("/").removesuffix(".js") in NAMES:
            return 200, "text/javascript", (self._built / path.removeprefix("/")).read_bytes(), ""
        return (204 if path == "/favicon.ico" else 404), "text/plain", b"", ""

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        hosts = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                status, kind, body, api = hosts._answer(self.path.partition("?")[0])
                self.send_response(status)
                self.send_header("Content-Type", f"{kind}; charset=utf-8")
                self.send_header("Content-Length", str(len(body)))
                self.send_header("Cache-Control", "no-store")
                self.send_header("Content-Security-Policy", POLICY.format(api=api))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        return Handler


def built_pages(packages: Path, target: Path) -> Path:
    """Bundle the pages' scripts with their frameworks into a folder, and return it. Raises CalledProcessError."""
    for name in NAMES:
        version = name.removeprefix("react")
        aliases = [f"--alias:{one}={one}{version}" for one in ("react", "react-dom")] if version != name else []
        subprocess.run(
            [
                packages / ".bin" / "esbuild", FOLDER / f"{name}.js", f"--outfile={target / name}.js", "--bundle",
                "--format=esm", "--target=es2022", "--log-level=warning",
                *(f"--define:{flag}={value}" for flag, value in FLAGS.items()), *aliases,
            ],
            cwd=packages.parent,
            check=True,
        )  # fmt: skip
    return target
