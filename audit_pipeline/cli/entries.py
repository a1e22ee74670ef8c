"""Commands that record, find and take out entries: emit, import, search, export, actions."""

from __future__ import annotations

import errno
import getpass
import io
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import click
import orjson

from ..actions import catalogue
from ..errors import AuditError, SettingsError, StoreMismatch, StoreMissing, StoreUnavailable
from ..event import NO_ID, AuditEvent, is_new_id
from ..export import csv_chunks, export_context, file_name
from ..files import replacing
from ..importing import NDJSONReader, Rejected
from ..keys import cursor_keys
from ..normalize import MISSING, parse_timestamp
from ..privacy import public_item
from ..processor import AuditPipeline
from ..query import CursorSigner, Query, Signature, Window, parse_page, parse_zone, sort_key
from ..settings import Settings, spool_path
from ..shipper import Shipper
from ..shipper_process import ShipperProcess
from ..stores import Page, Store
from .options import (
    DONE,
    IN_PART,
    Filtering,
    counted,
    filter_options,
    json_option,
    opened_pipeline,
    opened_store,
    place_options,
    printable,
    private_file,
    progress,
    query_of,
    say,
    settings_of,
)

__all__ = ["COMMANDS", "table"]

BATCH = 500
"""Lines that an import puts into the spool at once."""
AHEAD = 20_000
"""Entries of an import that may wait in the spool."""
EMIT_S = 2.0
"""For how long `emit` waits for the store, in seconds."""
MANY = 20_000
"""After so many entries, an import ships by a process of its own."""
MOST_SHOWN = 60
"""Characters of a cell."""


# Recording


@click.command()
@click.argument("action")
@click.option("--target", help="What was acted upon.")
@click.option("--detail", help="What else there is to say.")
@click.option("--user", help="Who acted.")
@click.option("--ip", help="From where.")
@click.option("--outcome", type=click.Choice(("success", "failure")), help="[default: the action's]")
@click.option("--timestamp", help="When, if not now: RFC 3339.")
@click.option("--id", help="A UUIDv7: the same id is the same entry, for ever.")
@click.option("--org", help="The organisation. [default: default]")
@click.option("--context", multiple=True, metavar="KEY=VALUE", help="More to keep; may be repeated.")
@json_option
@place_options
def emit(
    action: str, context: tuple[str, ...], as_json: bool, store: str | None, spool: str | None, **given: Any
) -> int:
    """Record one entry, and print its id. When this returns, the entry is on disk.

    The exit status is 3 where the store refused it: its id is taken by another one.
    """
    if given["id"] is not None and not is_new_id(given["id"]):
        # A new one in its place would be another one each time that the call is tried again.
        raise click.BadParameter(f"{given['id'][:80]!r} is {NO_ID}", param_hint="--id")
    if given["timestamp"] and parse_timestamp(given["timestamp"]) is None:
        # Who gives a time means another than now, which would be recorded in its place.
        raise click.BadParameter(
            f"{given['timestamp'][:80]!r} is no time; allowed is RFC 3339, such as 2026-11-23T03:41:00Z",
            param_hint="--timestamp",
        )
    given["context"] = dict(_pair(text) for text in context)
    settings = settings_of(store, spool)
    known = catalogue[action]
    with opened_pipeline(settings, wait=0.0) as pipeline:
        event = pipeline.prepare(known, given)
        pipeline.accept([event])
        click.echo(orjson.dumps({"id": event.id, "problems": event.problems}) if as_json else event.id)
        for problem in event.problems:
            say(problem + _advice(problem))
        refused = False
        with suppress(AuditError):  # the entry is on disk: a call that failed would be tried again, and doubled
            refused = pipeline.flush(EMIT_S) and any(one.event.id == event.id for one in pipeline.spool.quarantined())
    return IN_PART if refused else DONE


def _advice(problem: str) -> str:
    """What to do about what was left out; a problem that speaks of a value says it itself."""
    if problem not in MISSING:
        return ""
    option = f"--{problem.partition(':')[0]}"
    return f"; the entry was recorded without, and {option} '' says that there is none"


def _pair(text: str) -> tuple[str, str]:
    key, separator, value = text.partition("=")
    if not separator or not key:
        raise click.BadParameter(f"{text!r} is not allowed; allowed is KEY=VALUE", param_hint="--context")
    return key, value


@click.command("import", short_help="Record the entries of an NDJSON file.")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, allow_dash=True, path_type=Path))
@click.option("--org", help="The organisation of lines that name none. [default: default]")
@json_option
@place_options
def import_file(file: Path, org: str | None, as_json: bool, store: str | None, spool: str | None) -> int:
    """Record the entries of an NDJSON file; a second run adds nothing.

    Each line is one JSON object. `action` and `timestamp` are needed; target, detail, user, ip, id, outcome, org and
    context may be there:

    \b
    {"action": "user.deleted", "timestamp": "2026-11-23T03:41:00Z", "target": "bob", "user": "alice", "ip": "10.0.0.5"}

    Ends when the entries are stored and can be found. Lines that are no entries go to FILE.rejected.ndjson, each
    with its reason; then the exit status is 3. With - for FILE.ndjson, the lines come from standard input.
    """
    if file == Path("-"):
        file = Path("/dev/stdin")
    settings = settings_of(store, spool)
    rejections = _Rejections(_beside(file))
    entries = flawed = read = 0
    batch: list[AuditEvent] = []
    with opened_pipeline(settings) as pipeline, file.open("rb") as lines:
        with suppress(StoreMissing, StoreUnavailable):  # a store of a newer version: say so before anything is recorded
            pipeline.store.check()
        first = pipeline.status().accepted
        with rejections, progress(file.stat().st_size, "Importing") as bar:

            def each_line() -> Iterator[bytes]:
                nonlocal read
                for line in lines:  # a pipe does not tell how far it was read
                    read += len(line)
                    yield line

            def send() -> None:
                pipeline.accept(batch)
                batch.clear()
                bar.update(read - bar.pos)
                if entries >= MANY and isinstance(pipeline.shipper, Shipper):
                    pipeline.shipper.stop()
                    pipeline.shipper = ShipperProcess(settings)
                _wait_for_store(pipeline, AHEAD)

            for result in NDJSONReader(pipeline, org).read(each_line()):
                if isinstance(result, Rejected):
                    rejections.add(result)
                    continue
                entries += 1
                flawed += bool(result.problems)
                batch.append(result)
                if len(batch) == BATCH:
                    send()
            if batch:
                send()
        _wait_for_store(pipeline, 0)
        refused = [one for one in pipeline.spool.quarantined() if one.event.sequence > first]
    counts = {
        "entries": entries,
        "rejected": rejections.count,
        "quarantined": len(refused),
        "with_problems": flawed,
    }
    if as_json:
        click.echo(orjson.dumps(counts))
    else:
        click.echo(
            f"{counted(entries - len(refused))} stored"
            + (f", {flawed:,} with problems" if flawed else "")
            + (
                f"; {counted(rejections.count, 'line', 'lines')} rejected: {rejections.path}"
                if rejections.count
                else ""
            )
            + (f"; {counted(len(refused))} in quarantine: {refused[0].reason}" if refused else "")
        )
    return IN_PART if rejections.count or refused else DONE


def _beside(file: Path) -> Path:
    """Where rejected lines go; those of /dev/stdin and its like, into the current folder."""
    place = Path(file.name) if file.absolute().parts[1] in ("dev", "proc") else file
    return place.with_name(f"{file.name.removesuffix('.ndjson')}.rejected.ndjson")


class _Rejections:
    """The file of rejected lines; made when there is a first one. That of an earlier run goes where there is none."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.count = 0
        self._file: BinaryIO | None = None

    def add(self, rejected: Rejected) -> None:
        if self._file is None:
            self._file = private_file(self.path)
        self._file.write(rejected.to_json())
        self.count += 1
        if self.count <= 3:
            say(f"line {rejected.line}: {rejected.reason}")

    def __enter__(self) -> _Rejections:
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        if self._file is not None:
            self._file.close()
        elif kind is None:
            self.path.unlink(missing_ok=True)


def _wait_for_store(pipeline: AuditPipeline, ahead: int) -> None:
    """Wait until at most `ahead` entries are not stored; the shipper says why it takes long.

    Raises StoreMismatch, since waiting would not help then.
    """
    while pipeline.unshipped() > ahead:
        if pipeline.shipper is not None and isinstance(pipeline.shipper.trouble, StoreMismatch):
            raise pipeline.shipper.trouble
        time.sleep(0.01)


# Finding


@click.command(cls=Filtering, short_help="Print a page of the entries that match.")
@filter_options
@click.option("--page-size", "--page_size", "page_size", help="10, 25, 50 or 100. [default: 25]")
@click.option("--page", help="The page, from 1.")
@click.option("--cursor", help="Go on from a page: the `next` it printed.")
@json_option
@place_options
def search(
    org: str,
    page_size: str | None,
    page: str | None,
    cursor: str | None,
    as_json: bool,
    store: str | None,
    spool: str | None,
    **filters: Any,
) -> int:
    """Print a page of the entries that match all filters, and how many there are."""
    settings = settings_of(store, spool)
    query, _ = query_of(filters, org)
    places = {"page_size": page_size, "page": page, "cursor": cursor}
    request = parse_page({name: [value] for name, value in places.items() if value})
    with opened_store(settings) as opened:
        signer = _Signer(settings, opened)
        window = signer().window(query, request) if cursor else Window(request.size, (request.page - 1) * request.size)
        found = opened.search(query, window)
        following = signer.following(query, window, found)
    items = [public_item(event) for event in found.items]
    number, pages = window.number(found.total), -(-found.total // request.size)
    if as_json:
        for item in items:
            click.echo(orjson.dumps(item))
        summary = {"total": found.total, "page": number, "pages": pages, "next": following}
        click.echo(orjson.dumps(summary), err=True)
    else:
        for line in table(items):
            click.echo(line)
        click.echo(f"{counted(found.total)}; {_page_of(number, pages)}", err=True)
        if following:
            click.echo(f"next: --cursor {following}", err=True)
    return DONE


def _page_of(number: int, pages: int) -> str:
    if not pages:
        return "nothing matches"
    if number > pages:
        return f"there is no page {number:,}, the last one is {pages:,}"
    return f"page {number:,} of {pages:,}"


class _Signer:
    """Makes the cursor signer when a cursor is needed: its key may have to be written first."""

    def __init__(self, settings: Settings, store: Store) -> None:
        self._settings = settings
        self._store = store

    def __call__(self) -> CursorSigner:
        return CursorSigner(cursor_keys(self._settings, spool_path(self._settings, self._store)), Signature)

    def following(self, query: Query, window: Window, page: Page) -> str | None:
        """The cursor of the next page; None where there is none, or no key can be kept to sign it."""
        if not page.has_next:
            return None
        try:
            end = Window(0, window.offset + len(page.items), after=sort_key(page.items[-1]))
            return self().sign(query, end)
        except SettingsError as error:
            say(f"no cursor: {error}")
            return None


def table(items: Sequence[dict[str, Any]]) -> list[str]:
    """Items as lines for people, in columns as wide as these items need."""
    columns = ("timestamp", "label", "target", "detail", "user", "ip")
    # A label says what was done; where it was only tried, that has to be seen.
    tried = [item | {"label": f"{item['label']} [failed]"} if _only_tried(item) else item for item in items]
    rows = [[_shortened(printable(item[column])) for column in columns] for item in tried]
    widths = [max((len(row[place]) for row in rows), default=0) for place in range(len(columns))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _shortened(cell: str) -> str:
    return cell if len(cell) <= MOST_SHOWN else f"{cell[: MOST_SHOWN - 1]}…"


def _only_tried(item: dict[str, Any]) -> bool:
    return item["outcome"] == "failure" and "fail" not in item["label"].lower()


@click.command(cls=Filtering, short_help="Write the entries that match as CSV.")
@filter_options
@click.option("-o", "--output", metavar="FILE", help="The file; - for standard output. [default: audit-log-DATE.csv]")
@json_option
@place_options
def export(org: str, output: str | None, as_json: bool, store: str | None, spool: str | None, **filters: Any) -> int:
    """Write the entries that match all filters as CSV; the export itself is recorded.

    At most AUDIT_EXPORT_LIMIT rows (50,000): where there are more, it says so, and the exit status is 3.
    """
    settings = settings_of(store, spool)
    query, parameters = query_of(filters, org)
    name = file_name(parse_zone(filters["tz"] or "UTC"))
    with (
        opened_store(settings) as opened,
        closing(opened.snapshot(query, settings.export_limit, in_full=False)) as snapshot,
        opened_pipeline(settings, wait=2.0) as pipeline,
        _opened_output(output or name) as file,  # before it is recorded: what cannot begin is no export
    ):
        rows = min(snapshot.total, settings.export_limit)
        pipeline.record(
            "audit.exported",
            target=name if output in (None, "", "-") else Path(output).name,
            detail=f"{rows:,} of {snapshot.total:,} entries",
            user=_operator(),
            ip="",
            org=org,
            context=export_context(query, parameters, rows, snapshot.total) | {"by": "command line"},
        )
        with progress(rows if _is_file(output or name) else None, "Exporting") as bar:
            for number, chunk in enumerate(csv_chunks(snapshot)):
                file.write(chunk)
                bar.update(min(1000, rows - bar.pos) if number else 0)
    if as_json:  # beside the CSV, where that goes to standard output
        told = {"rows": rows, "total": snapshot.total, "file": output or name}
        click.echo(orjson.dumps(told), err=output == "-")
        return IN_PART if rows < snapshot.total else DONE
    if rows < snapshot.total:
        say(f"{rows:,} of {counted(snapshot.total)}: cut at AUDIT_EXPORT_LIMIT; narrow the filters, or raise the limit")
        return IN_PART
    say(counted(rows) + ("" if output == "-" else f" in {output or name}"))
    return DONE


def _operator() -> str:
    """The account that runs this; a container's may have no name."""
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):
        return f"uid {os.getuid()}"


def _is_file(output: str) -> bool:
    """Whether the CSV goes into a file, and not into a pipe or a device."""
    return output != "-" and (Path(output).is_file() or not Path(output).exists())


@contextmanager
def _opened_output(output: str) -> Iterator[BinaryIO]:
    """Where the CSV goes. A file is written aside, and in place at the end: no one takes a part for the whole.

    Raises OSError, which names the file or the folder that is wrong.
    """
    if output == "-":
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    if not _is_file(output):  # a pipe or a device is written to, never replaced
        with open(output, "wb") as file:
            yield file
        return
    path = Path(output).resolve()  # what a link points to is replaced, not the link
    with path.open("rb") if path.exists() else io.BytesIO() as there:
        if there.read(16) == b"SQLite format 3\0":
            raise click.BadParameter(f"{path} is a database; choose another file", param_hint="--output")
    if not path.parent.is_dir():
        raise OSError(errno.ENOENT, "there is no such folder; make it, or choose another file", str(path.parent))
    with ExitStack() as aside:
        try:
            part = aside.enter_context(replacing(path))
        except OSError as error:
            text = f"cannot be written ({error.strerror}); choose another file, or one in another folder"
            raise OSError(error.errno, text, str(path)) from error
        yield part


@click.command()
@json_option
@click.option("--store", hidden=True)
@click.option("--spool", hidden=True)
def actions(as_json: bool, store: str | None, spool: str | None) -> int:
    """List the actions that can be recorded."""
    settings_of(store, spool)
    for category in catalogue.categories():
        if not as_json:
            click.echo(f"{category.label} ({category.id})")
        for action in category.actions:
            if as_json:
                fields = {"id": action.id, "label": action.label, "category": category.id, "tone": action.tone}
                click.echo(orjson.dumps(fields))
            else:
                click.echo(f"  {action.id:28} {action.label:26} {action.tone}")
    return DONE


COMMANDS = (emit, import_file, search, export, actions)
