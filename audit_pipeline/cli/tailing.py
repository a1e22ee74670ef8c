"""The command that follows the log: tail."""

from __future__ import annotations

import os
import select
import stat
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import replace
from typing import Any

import click
import orjson

from ..errors import StoreUnavailable
from ..event import AuditEvent
from ..privacy import public_item
from ..query import SORTS, Query, Searchable, Window
from ..stores import Store
from .entries import table
from .options import (
    DONE,
    Filtering,
    filter_options,
    json_option,
    lasting_store,
    place_options,
    query_of,
    say,
    settings_of,
)

__all__ = ["COMMANDS"]

POLL_S = 0.25
"""How often the store is asked, in seconds."""
RETRY_S = 1.0
"""How long to wait for a store that does not answer, in seconds."""
MOST_LINES = 1000
"""Entries that may be printed first."""


@click.command(cls=Filtering, short_help="Print the last entries that match, and then each as it comes.")
@filter_options
@click.option(
    "--lines",
    default=10,
    show_default=True,
    type=click.IntRange(0, MOST_LINES),
    help="How many of the last entries come first.",
)
@json_option
@place_options
def tail(org: str, lines: int, as_json: bool, store: str | None, spool: str | None, **filters: Any) -> int:
    """Print entries that match all filters as they come, until Ctrl-C; the last ones first.

    They come in order of arrival: late ones are printed when they come. --sort changes nothing.
    """
    settings = settings_of(store, spool)
    query = replace(query_of(filters, org)[0], sort=SORTS[0])
    with closing(lasting_store(settings.store_url)) as opened:
        try:
            _follow(opened, query, lines, as_json)
        except KeyboardInterrupt:
            return DONE
        except BrokenPipeError:
            # Nobody reads any more. What is left in the buffer must not be written at the end.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return DONE


def _follow(store: Store, query: Query, lines: int, as_json: bool) -> None:
    wait = _waiting()
    position: str | None = None
    printed: set[str] = set()
    trouble = ""
    while True:
        try:
            if position is None:
                # The position first: what comes meanwhile comes twice, and is printed once.
                start = store.arrivals(None).position
                last = store.search(query, Window(lines)).items[::-1] if lines else ()
                printed = {event.id for event in last}
                position = start
                _print(last, as_json)
            came = store.arrivals(position)
        except StoreUnavailable as error:
            if not trouble:
                say(f"{error}; waiting for it")
            trouble = str(error)
            wait(RETRY_S)
            continue
        if trouble:
            say("the store answers again")
            trouble = ""
        position = came.position
        _print(
            [event for event, _ in came.entries if event.id not in printed and Searchable(event).matches(query)],
            as_json,
        )
        if not came.more:
            wait(POLL_S)


def _print(events: Iterable[AuditEvent], as_json: bool) -> None:
    items = [public_item(event) for event in events]
    for line in map(orjson.dumps, items) if as_json else table(items):
        click.echo(line)


def _waiting() -> Callable[[float], None]:
    """How to wait for some seconds. Where the output is a pipe whose reader left, it raises BrokenPipeError at once."""
    try:
        output = sys.stdout.fileno()
        piped = stat.S_ISFIFO(os.fstat(output).st_mode)
    except (OSError, ValueError):  # no file at all
        piped = False
    if not piped:
        return time.sleep
    poller = select.poll()
    poller.register(output, 0)  # a reader who left is told without being asked for

    def wait(seconds: float) -> None:
        if poller.poll(seconds * 1000):
            raise BrokenPipeError

    return wait


COMMANDS = (tail,)
