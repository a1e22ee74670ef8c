"""What several commands share: options, exit status, and how they open what they need."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import click

from ..actions import load_catalogue_file
from ..errors import InvalidQuery, SettingsError
from ..processor import AuditPipeline
from ..query import FILTERS, Query, parse_query
from ..settings import Settings, unknown_line
from ..stores import Store, open_store

__all__ = [
    "DONE",
    "FAILED",
    "IN_PART",
    "LONGER_SECRET",
    "SHORT_SECRET",
    "WRONG_USE",
    "Filtering",
    "counted",
    "filter_options",
    "has_short_secret",
    "json_option",
    "lasting_store",
    "opened_pipeline",
    "opened_store",
    "place_options",
    "printable",
    "private_file",
    "progress",
    "query_of",
    "read_settings",
    "say",
    "settings_of",
]

DONE, FAILED, WRONG_USE, IN_PART = 0, 1, 2, 3

SHORTEST_SECRET = 32
"""Bytes that a secret for HS256 should have at the least (RFC 7518, section 3.2)."""
SHORT_SECRET = f"AUDIT_JWT_SECRET has fewer than {SHORTEST_SECRET} bytes: tokens could be forged by trying"
LONGER_SECRET = "make one with: openssl rand -base64 48"

F = TypeVar("F", bound=Callable[..., Any])

json_option = click.option("--json", "as_json", is_flag=True, help="Print machine-readable lines.")


def place_options(command: F) -> F:
    """`--store` and `--spool`."""
    command = click.option("--spool", metavar="PATH", help="The local spool (AUDIT_SPOOL).")(command)
    return click.option("--store", metavar="URL", help="The store (AUDIT_STORE_URL).")(command)


class Filtering(click.Command):
    """A command with the filters. A word that stands alone is likely meant as search text, which is an option."""

    allow_extra_args = True

    def invoke(self, ctx: click.Context) -> Any:
        """See click.Command."""
        if ctx.args:
            words = printable(" ".join(ctx.args)[:80])
            ctx.fail(f"unexpected argument; is it search text? That is given as --q {shlex.quote(words)}")
        return super().invoke(ctx)


def filter_options(command: F) -> F:
    """The filters and the order of a query, under the names the HTTP API has for them, and `--org`."""
    options = (
        click.option("--q", help='Search text: words, prefixes, "phrases", -excluded.'),
        click.option("--action", multiple=True, help="An action's id; may be repeated."),
        click.option("--category", multiple=True, help="A category's id; may be repeated."),
        click.option("--from", help="Inclusive: an RFC 3339 instant, or a date."),
        click.option("--to", help="An instant (exclusive), or a date (that whole day)."),
        click.option("--tz", help="The time zone of dates, such as Europe/Berlin. [default: UTC]"),
        click.option("--user", help="The user, exactly."),
        click.option("--outcome", help="success or failure."),
        click.option("--ip", help="A network, /24 or wider (IPv6: /112), or an address as shown."),
        click.option("--sort", help="-timestamp, timestamp, action or -action. [default: -timestamp]"),
        click.option("--org", default="default", show_default=True, help="The organisation."),
    )
    for option in reversed(options):
        command = option(command)
    return command


def settings_of(store: str | None, spool: str | None) -> Settings:
    """As `read_settings`; what looks like a setting and is none is told of first."""
    if line := unknown_line():
        say(printable(line))
    return read_settings(store, spool)


def read_settings(store: str | None, spool: str | None) -> Settings:
    """The settings, with the options of a command put over them."""
    if store:
        open_store(store, "--store").close()
    settings = Settings.from_environment(store=store, spool=spool)
    if settings.catalogue is not None:
        load_catalogue_file(settings.catalogue)
    return settings


def has_short_secret(settings: Settings) -> bool:
    """Whether tokens are signed with a secret that is shorter than it should be; it is used all the same."""
    return settings.jwt_secret is not None and len(settings.jwt_secret.encode()) < SHORTEST_SECRET


@contextmanager
def opened_store(settings: Settings) -> Iterator[Store]:
    """The store, for reading."""
    store = open_store(settings.store_url)
    try:
        yield store
    finally:
        store.close()


def lasting_store(url: str, name: str = "AUDIT_STORE_URL") -> Store:
    """The store of a URL, which the caller closes. Raises SettingsError, which calls the URL by this name.

    A store that would end with the command is refused.
    """
    store = open_store(url, name)
    if not store.lasting:
        raise SettingsError(
            f"{name}: this store ends with the command, and its entries with it; name one that lasts, such as "
            "sqlite:////var/lib/audit/audit.db"
        )
    return store


@contextmanager
def opened_pipeline(settings: Settings, *, wait: float = 5.0, ship: bool = True) -> Iterator[AuditPipeline]:
    """A pipeline, closed at the end; `wait` bounds how long that ships what is left, in seconds.

    Raises SettingsError for a store that would end with this command.
    """
    lasting_store(settings.store_url).close()
    pipeline = AuditPipeline.open(settings=settings, ship=ship)
    try:
        yield pipeline
    finally:
        pipeline.close(wait)


def query_of(given: dict[str, Any], org: str) -> tuple[Query, dict[str, list[str]]]:
    """The Query of the filter options, and the parameters they stand for. Raises InvalidQuery."""
    # Bytes on the command line that are no UTF-8 arrive as lone surrogates, which no store can be asked for.
    broken = [name for name, value in (given | {"org": org}).items() if not _is_text(value)]
    if broken:
        raise InvalidQuery([(name, "is not UTF-8") for name in broken])
    parameters: dict[str, list[str]] = {}
    for name in FILTERS:
        value = given.get(name)
        if value:
            parameters[name] = [value] if isinstance(value, str) else list(value)
    return parse_query(parameters, org), parameters


def _is_text(value: str | tuple[str, ...] | None) -> bool:
    try:
        "".join(value or ()).encode()
    except UnicodeEncodeError:
        return False
    return True


def counted(number: int, one: str = "entry", more: str = "entries") -> str:
    """A number and what it counts: `1 entry`, `2,000 entries`."""
    return f"{number:,} {one if number == 1 else more}"


def progress(length: int | None, label: str) -> Any:
    """A progress bar on a terminal; nothing in a pipe, or where the length is not known."""
    hidden = not length or not sys.stderr.isatty()
    return click.progressbar(length=length or 0, label=label, file=sys.stderr, hidden=hidden, show_pos=True)


def printable(text: str) -> str:
    """The text with what a terminal would obey, or turn round, written as escapes."""
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode() for character in text
    )


def say(text: str) -> None:
    """A line for whoever runs the command, beside its output."""
    click.echo(f"audit-pipeline: {text}", err=True)


def private_file(path: Path) -> Any:
    """A new file for bytes that only its owner can read: it is to hold entries."""
    descriptor = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600)
    os.fchmod(descriptor, 0o600)
    return os.fdopen(descriptor, "wb")
