"""Commands that answer HTTP: serve, demo."""

from __future__ import annotations

import socket
import tempfile
from importlib.util import find_spec
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import click

from ..errors import SettingsError
from ..privacy import normalize_ip
from ..settings import Settings
from .options import DONE, place_options, settings_of

__all__ = ["COMMANDS"]

RUN_TTL = 7 * 86_400
"""For how long the token of a run's link is good, in seconds."""


def _host_options(command: Any) -> Any:
    command = click.option("--port", default=8000, show_default=True, type=click.IntRange(0, 65_535))(command)
    return click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")(command)


@click.command()
@_host_options
@place_options
def serve(host: str, port: int, store: str | None, spool: str | None) -> int:
    """Serve the API and the viewer, and ship the spool."""
    _serve(settings_of(store, spool), host, _listen(host, port))
    return DONE


@click.command()
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
    listening = _listen(host, port, otherwise_any=not chosen)
    with tempfile.TemporaryDirectory(prefix="audit-pipeline-demo-") as folder:
        # Not the store of the environment: made-up entries have no place among real ones.
        settings = Settings.from_environment({}, store=store or f"sqlite:///{Path(folder) / 'demo.db'}", spool=spool)
        click.echo("A small mail dashboard is being used for 90 days …", err=True)
        made = fill(settings, events)
        click.echo(f"{made:,} entries were recorded by it over HTTP.", err=True)
        _serve(settings, host, listening)
    return DONE


def _needs_api() -> None:
    for name in ("fastapi", "httpx", "jwt", "uvicorn"):
        if find_spec(name) is None:
            raise SettingsError(f"this command needs {name}; install it with: pip install 'audit-pipeline[api]'")


def _listen(host: str, port: int, otherwise_any: bool = False) -> socket.socket:
    """A socket that listens; with `otherwise_any` on another port where this one is taken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
    except OSError as error:
        if not otherwise_any:
            listening.close()
            raise SettingsError(
                f"--host {host} --port {port}: cannot listen there ({error.strerror}); choose others, --port 0 takes "
                "a free one"
            ) from error
        listening.bind((host, 0))
    listening.set_inheritable(True)
    return listening


def _serve(settings: Settings, host: str, listening: socket.socket) -> None:
    _needs_api()
    import uvicorn

    from audit_pipeline.api.app import create_app
    from audit_pipeline.api.auth import make_token

    app = create_app(settings)
    key = app.state.audit.tokens.run_key
    if key is not None and not _is_loopback(host):
        raise SettingsError(
            f"--host {host}: without keys only loopback may be served; set AUDIT_JWT_SECRET, AUDIT_JWKS_URL or "
            "AUDIT_JWKS_FILE, or use --host 127.0.0.1"
        )
    shown = f"[{host}]" if ":" in host else host
    link = f"http://{shown}:{listening.getsockname()[1]}/"
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
    config = uvicorn.Config(app, log_level="warning", access_log=False, proxy_headers=False, server_header=False)
    listening.listen(128)
    click.echo(link)
    uvicorn.Server(config).run(sockets=[listening])


def _is_loopback(host: str) -> bool:
    address = normalize_ip(host)
    return host == "localhost" or (address is not None and ip_address(address).is_loopback)


COMMANDS = (serve, demo)
