"""Commands that move entries as they are: copy, quarantine."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import click
import orjson

from ..copying import Copy, same_place
from ..errors import SettingsError, SpoolError, StoreUnavailable
from ..event import format_timestamp
from ..privacy import public_details
from ..quarantine import retry as retry_rows
from ..settings import spool_path
from ..spool import QuarantineRow, Spool
from ..stores import Refusal, Store, StoreURL
from .options import (
    DONE,
    IN_PART,
    counted,
    json_option,
    lasting_store,
    place_options,
    printable,
    progress,
    say,
    settings_of,
)

__all__ = ["COMMANDS"]

NAMED = 3
"""Of many entries that were refused, so many are named."""


# From store to store


@click.command()
@click.argument("from_url")
@click.argument("to_url")
@click.option("--restart", is_flag=True, help="Do not resume an interrupted copy: begin anew.")
@json_option
def copy(from_url: str, to_url: str, restart: bool, as_json: bool) -> int:
    """Copy every entry of one store into another, as it is. A second run adds what came since.

    With AUDIT_IP_STORAGE=masked, addresses are masked on the way.

    When it ends, the entries can be found in TO_URL. Entries that TO_URL refuses stay in FROM_URL and are named; then
    the exit status is 3. What still waits in the spool of FROM_URL is not in it yet: `audit-pipeline ship` sees to
    that.

    A copy that was interrupted goes on where it was when it is run again. It then misses what came to FROM_URL
    meanwhile with a time that was passed already: once it is done, run it once more. A run that does not resume looks
    at everything.
    """
    settings = settings_of(None, None)
    with (
        closing(lasting_store(from_url, "FROM_URL")) as source,
        closing(lasting_store(to_url, "TO_URL")) as target,
    ):
        if same_place(source, target):
            raise SettingsError("TO_URL: is the same place as FROM_URL; name another one")
        source.organisations()  # raises StoreMissing before the target is made
        target.keeps_masked = settings.keeps_masked
        target.setup()  # one that cannot be used says so now, and not after a minute of trying
        run = Copy(source, target, restart=restart)
        if run.resumed_at is not None:
            org, timestamp = run.resumed_at
            say(
                f"resumed at {format_timestamp(timestamp)} of organisation {printable(org)}; when it is done, run it "
                "once more, for what came late (--restart begins anew)"
            )
        with _resumable():
            _run(run)
    done = run.copied
    if as_json:
        counts = {"entries": done.entries, "refused": done.refused, "resumed": run.resumed_at is not None}
        click.echo(orjson.dumps(counts))
    else:
        refused = f"; {counted(done.refused)} refused" if done.refused else ""
        click.echo(f"{counted(done.entries)} {'is' if done.entries == 1 else 'are'} in {StoreURL(to_url)} now{refused}")
    return IN_PART if done.refused else DONE


def _run(run: Copy) -> None:
    named = 0
    # Counting takes a while, and is for the eye alone.
    with progress(run.left() if sys.stderr.isatty() else None, "Copying") as bar:
        for number, refusals in run.run():
            bar.update(number)
            for refusal in refusals[: NAMED - named]:
                say(_refused(refusal))
            named = min(NAMED, named + len(refusals))


def _refused(refusal: Refusal) -> str:
    return f"refused: {refusal.event.id} of organisation {printable(refusal.event.org)}: {refusal.reason}"


@contextmanager
def _resumable() -> Iterator[None]:
    """Says how to go on, whatever ends a copy early."""
    again = "run it again, and it goes on where it was"
    try:
        yield
    except StoreUnavailable as error:
        raise StoreUnavailable(f"{error}; {again}") from error
    except KeyboardInterrupt:
        say(f"interrupted; {again}")
        raise


# Quarantine


@click.group(short_help="Deal with entries that the store refused.")
def quarantine() -> None:
    """Entries that the store refused: they wait in the spool, each with the reason."""


@quarantine.command("list", short_help="Print a line for each entry.")
@json_option
@place_options
def list_rows(as_json: bool, store: str | None, spool: str | None) -> int:
    """Print a line for each entry: sequence, time, organisation, action, id, and why it is there."""
    with _opened(store, spool) as (_, held):
        rows = held.quarantine()
    for row in rows:
        click.echo(orjson.dumps(_line(row)) if as_json else _shown(row))
    if not rows and not as_json:
        click.echo("nothing is in quarantine")
    return DONE


@quarantine.command(short_help="Print one entry, and why it is there.")
@click.argument("sequence")
@json_option
@place_options
def show(sequence: str, as_json: bool, store: str | None, spool: str | None) -> int:
    """Print one entry as people may see it, and why and since when it is there.

    SEQUENCE is the number that `quarantine list` prints first; or an id, for all entries that came with it.
    """
    with _opened(store, spool) as (_, held):
        rows = _chosen(held.quarantine(), (sequence,))
    for place, row in enumerate(rows):
        details = public_details(row.event) if row.event else None
        if as_json:
            click.echo(orjson.dumps(_line(row) | {"entry": details}))
            continue
        if place:
            click.echo()
        for name, value in ({"sequence": row.sequence, **_circumstances(row)} | (details or {})).items():
            text = value if isinstance(value, str) else orjson.dumps(value).decode()
            click.echo(f"{name + ':':13}{printable(text)}".rstrip())
    return DONE


@quarantine.command(short_help="Offer entries to the store again.")
@click.argument("sequences", metavar="[SEQUENCE]...", nargs=-1)
@click.option("--new-id", is_flag=True, help="Store an entry whose id is taken under a new id.")
@json_option
@place_options
def retry(sequences: tuple[str, ...], new_id: bool, as_json: bool, store: str | None, spool: str | None) -> int:
    """Offer entries to the store again: those of these numbers or ids; without SEQUENCE, all of them.

    Those that it takes leave the quarantine. The others stay, with the new reason; then the exit status is 3.
    """
    with _opened(store, spool) as (opened, held):
        rows = held.quarantine()
        if sequences:
            rows = _chosen(rows, sequences)
        done = retry_rows(held, opened, rows, new_ids=new_id)
    if as_json:
        click.echo(orjson.dumps({"stored": len(done.stored), "quarantined": len(done.kept), "renamed": {
            str(sequence): event_id for sequence, event_id in done.renamed.items()
        }}))  # fmt: skip
    else:
        for sequence, event_id in done.renamed.items():
            click.echo(f"{sequence}: stored as {event_id}")
        stay = f"; {counted(len(done.kept))} still in quarantine" if done.kept else ""
        click.echo(f"{counted(len(done.stored))} stored{stay}")
    for sequence, reason in list(done.kept.items())[:NAMED]:
        say(f"{sequence}: {reason}")
    if done.kept and not new_id:
        say("with --new-id, an entry whose id is taken is stored under a new one")
    return IN_PART if done.kept else DONE


@contextmanager
def _opened(store: str | None, spool: str | None) -> Iterator[tuple[Store, Spool]]:
    """The store and its spool, where there is one. Raises SpoolError where there is none."""
    settings = settings_of(store, spool)
    with closing(lasting_store(settings.store_url)) as opened:
        opened.keeps_masked = settings.keeps_masked
        path = spool_path(settings, opened)
        if not path.exists():
            raise SpoolError(f"{path}: there is no spool yet; check AUDIT_STORE_URL and AUDIT_SPOOL")
        with closing(Spool(path, opened.identity(path))) as held:
            yield opened, held


def _chosen(rows: list[QuarantineRow], names: tuple[str, ...]) -> list[QuarantineRow]:
    """The rows of these sequences, and all with these ids, in order."""
    there: dict[str, list[QuarantineRow]] = {str(row.sequence): [row] for row in rows}
    for row in rows:
        if row.event:
            there.setdefault(row.event.id, []).append(row)
    for name in names:
        if name not in there:
            first = ", ".join(str(row.sequence) for row in rows[:10])
            allowed = f"allowed are {first}{' …' if len(rows) > 10 else ''}, or an entry's id" if rows else "nothing is"
            raise click.BadParameter(
                f"{printable(name[:80])} is not in quarantine; {allowed}: see `audit-pipeline quarantine list`",
                param_hint="SEQUENCE",
            )
    chosen = {row.sequence: row for name in names for row in there[name]}
    return [chosen[sequence] for sequence in sorted(chosen)]


def _circumstances(row: QuarantineRow) -> dict[str, Any]:
    """What is known of a row beside its entry."""
    return {
        "reason": row.reason,
        "quarantined": format_timestamp(row.at),
        "damaged": row.event is None,
        "org": row.event.org if row.event else "",
    }


def _line(row: QuarantineRow) -> dict[str, Any]:
    event = row.event
    return {
        "sequence": row.sequence,
        "timestamp": format_timestamp(event.timestamp) if event else None,
        "action": event.action if event else None,
        "id": event.id if event else None,
        **_circumstances(row),
    }


def _shown(row: QuarantineRow) -> str:
    event = row.event
    if event is None:
        return f"{row.sequence}  [damaged]  {row.reason}"
    cells = (str(row.sequence), format_timestamp(event.timestamp), event.org, event.action, event.id, row.reason)
    return "  ".join(map(printable, cells))


COMMANDS = (copy, quarantine)
