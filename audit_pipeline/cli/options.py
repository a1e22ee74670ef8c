"""What several commands share: options, exit status, and how they open what they need."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import click

from ..actions import load_catalogue_file
from ..processor import AuditPipeline
from ..query import FILTERS, Query, parse_query
from ..settings import Settings
from ..stores import Store, open_store

__all__ = [
    "DONE",
    "FAILED",
    "IN_PART",
    "WRONG_USE",
    "filter_options",
    "json_option",
    "opened_pipeline",
    "opened_store",
    "place_options",
    "private_file",
    "progress",
    "query_of",
    "settings_of",
]

DONE, FAILED, WRONG_USE, IN_PART = 0, 1, 2, 3

F = TypeVar("F", bound=Callable[..., Any])

json_option = click.option("--json", "as_json", is_flag=True, help="Print machine-readable lines.")


def place_options(command: F) -> F:
    """`--store` and `--spool`."""
    command = click.option("--spool", metavar="PATH", help="The local spool (AUDIT_SPOOL).")(command)
    return click.option("--store", metavar="URL", help="The store (AUDIT_STORE_URL).")(command)


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
    """The settings, with the options of a command put over them."""
    settings = Settings.from_environment(store=store, spool=spool)
    if settings.catalogue is not None:
        load_catalogue_file(settings.catalogue)
    return settings


@contextmanager
def opened_store(settings: Settings) -> Iterator[Store]:
    """The store, for reading."""
    store = open_store(settings.store_url)
    try:
        yield store
    finally:
        store.close()


@contextmanager
def opened_pipeline(settings: Settings, *, wait: float = 5.0, ship: bool = True) -> Iterator[AuditPipeline]:
    """A pipeline, closed at the end; `wait` bounds how long that ships what is left, in seconds."""
    pipeline = AuditPipeline.open(settings=settings, ship=ship)
    try:
        yield pipeline
    finally:
        pipeline.close(wait)


def query_of(given: dict[str, Any], org: str) -> tuple[Query, dict[str, list[str]]]:
    """The Query of the filter options, and the parameters they stand for. Raises InvalidQuery."""
    parameters: dict[str, list[str]] = {}
    for name in FILTERS:
        value = given.get(name)
        if value:
            parameters[name] = [value] if isinstance(value, str) else list(value)
    return parse_query(parameters, org), parameters


def progress(length: int | None, label: str) -> Any:
    """A progress bar on a terminal; nothing in a pipe."""
    return click.progressbar(length=length, label=label, file=sys.stderr, hidden=not sys.stderr.isatty(), show_pos=True)


def private_file(path: Path) -> Any:
    """A new file for bytes that only its owner can read: it is to hold entries."""
    descriptor = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600)
    os.fchmod(descriptor, 0o600)
    return os.fdopen(descriptor, "wb")
