"""Commands that answer HTTP: serve, demo."""

from __future__ import annotations

import logging
import signal
import socket
import sys
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import click

from ..errors import SettingsError
from ..privacy import normalize_ip
from ..settings import LOOPBACK_HOSTS, Settings
from ..stores import StoreURL, open_store
from .options import (
    DONE,
    LONGER_SECRET,
    SHORT_SECRET,
    has_short_secret,
    place_options,
    printable,
    settings_of,
)

__all__ = ["COMMANDS"]

RUN_TTL = 7 * 86_400
"""For how long the token of a run's link is good, in seconds."""
GRACE_S = 5
"""For how long answers under way may take when the server is stopped, in seconds."""


def _host_options(command: Any) -> Any:
    command = click.option("--port", default=8000, show_default=True, type=click.IntRange(0, 65_535))(command)
    return click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")(command)


@click.command()
@_host_options
@place_options
def serve(host: str, port: int, store: str | None, spool: str | None) -> int:
    """Serve the API and the viewer, and ship the spool."""
    settings = settings_of(store, spool)
    with _listen(host, port) as listening:
        _serve(settings, host, listening)
    return DONE


@click.command(short_help="Fill a store with made-up entries, and serve it.")
@_host_options
@click.option("--events", default=600, show_default=True, type=click.IntRange(100, 20_000), help="About how many.")
@click.option("--store", metavar="URL", help="Keep the demo's entries there. [default: a new temporary file]")
@click.option("--spool", metavar="PATH", help="The local spool.")
@click.pass_context
def demo(context: click.Context, host: str, port: int, events: int, store: str | None, spool: str | None) -> int:
    """Fill a store with realistic entries, by the way that real ones take, and serve it. Prints the link to open."""
    _needs_api()
    from ..demo import fill

    chosen = context.get_parameter_source("port") is not click.core.ParameterSource.DEFAULT
    with (
        _listen(host, port, otherwise_any=not chosen) as listening,
        tempfile.TemporaryDirectory(prefix="audit-pipeline-demo-") as folder,
    ):
        # Not the store of the environment: made-up entries have no place among real ones.
        settings = Settings.from_environment({}, store=store or f"sqlite:///{Path(folder) / 'demo.db'}", spool=spool)
        if not open_store(settings.store_url, "--store").lasting:
            raise SettingsError(f"--store {store}: the demo needs a store that lasts, such as sqlite:///demo.db")
        click.echo("A small mail dashboard is being used for 90 days: this takes half a minute or more …", err=True)
        made = fill(settings, events)
        ending = "ends the demo" if store else "ends the demo, and deletes its entries"
        click.echo(f"{made:,} entries were recorded by it over HTTP. Ctrl-C {ending}.", err=True)
        _serve(settings, host, listening)
    return DONE


def _needs_api() -> None:
    for name in ("fastapi", "httpx", "jwt", "uvicorn"):
        if find_spec(name) is None:
            raise SettingsError(f"this command needs {name}; install it with: pip install 'audit-pipeline[api]'")


def _listen(host: str, port: int, otherwise_any: bool = False) -> socket.socket:
    """A socket that listens; with `otherwise_any` on another port where this one is taken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # With the protocol named, asyncio turns Nagle's algorithm off: without that, each answer waits some 40 ms.
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        # At once: until it listens, another process may bind the same port too.
        listening.bind((host, port))
        listening.listen(128)
    except OSError as error:
        if not otherwise_any:
            listening.close()
            raise SettingsError(
                f"--host {host} --port {port}: cannot listen there ({error.strerror}); choose others, --port 0 takes "
                "a free one"
            ) from error
        listening.close()
        return _listen(host, 0)
    listening.set_inheritable(True)
    return listening


def _serve(settings: Settings, host: str, listening: socket.socket) -> None:
    _needs_api()
    import uvicorn

    from audit_pipeline.api.app import create_app
    from audit_pipeline.api.auth import make_token

    if not (settings.jwt_secret or settings.jwks_url or settings.jwks_file or _is_loopback(host)):
        raise SettingsError(
            f"--host {host}: without keys only loopback may be served; set AUDIT_JWT_SECRET, AUDIT_JWKS_URL or "
            "AUDIT_JWKS_FILE, or use --host 127.0.0.1"
        )
    # Ends the `with` blocks that this runs in; uvicorn's own handler, which stops it first, raises the signal again.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: sys.exit(DONE))
    # That a key was made for this run needs no warning here: the link with its token is printed.
    logging.getLogger("audit_pipeline.keys").setLevel(logging.ERROR)
    place = _place(settings)  # before the store is made
    app = create_app(settings)
    key = app.state.audit.tokens.run_key
    link = f"http://{_shown(host)}:{listening.getsockname()[1]}/"
    if key is not None:
        link += "#token=" + make_token(
            key,
            sub="local",
            scope="audit:read audit:export audit:write audit:metrics",
            plan=settings.entitled_plans[0] if settings.entitled_plans else None,
            org="default",
            ttl=RUN_TTL,
            issuer=settings.jwt_issuer,
            audience=settings.jwt_audience,
        )
    # Forwarding headers are read by our own rule; query strings, which hold search texts, are kept out of logs.
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=GRACE_S,
    )
    for notice in (place, *_notices(settings, host)):
        click.echo(f"audit-pipeline: {notice}", err=True)
    click.echo(link)
    uvicorn.Server(config).run(sockets=[listening])


def _place(settings: Settings) -> str:
    """One sentence that names the store: whoever started in another folder than usual sees why nothing is in it."""
    store = open_store(settings.store_url)
    path = getattr(store, "path", None)
    if not isinstance(path, Path):
        name, more = str(StoreURL(settings.store_url)), "" if store.lasting else ", which ends with this server"
    else:
        name, more = str(path), "" if path.exists() else ", which is new and empty"
    return f"the store is {printable(name)}{more}"


def _notices(settings: Settings, host: str) -> Iterator[str]:
    """What whoever starts the server should know."""
    if has_short_secret(settings):
        yield f"{SHORT_SECRET}; {LONGER_SECRET}"
    if settings.jwt_secret or settings.jwks_url or settings.jwks_file:
        yield "the page asks for a bearer token; `audit-pipeline token` prints one, with AUDIT_JWT_SECRET"
    if not _is_loopback(host) and settings.allowed_hosts == LOOPBACK_HOSTS:
        yield f"only the host names {', '.join(LOOPBACK_HOSTS)} are answered: AUDIT_ALLOWED_HOSTS takes others"


def _shown(host: str) -> str:
    """A host as a URL has it; for every address, this machine's own."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(host, host)
    return f"[{host}]" if ":" in host else host


def _is_loopback(host: str) -> bool:
    address = normalize_ip(host)
    return host == "localhost" or (address is not None and ip_address(address).is_loopback)


COMMANDS = (serve, demo)
