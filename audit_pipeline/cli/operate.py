"""Commands for whoever runs it: setup, ship, doctor, token."""

from __future__ import annotations

import os
import signal
import stat
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TypeVar

import click
import orjson

from ..errors import AuditError, SettingsError, SpoolError, StoreMissing
from ..event import AuditEvent, format_timestamp
from ..gaps import Gaps
from ..replay import replay as replaying
from ..settings import Settings, spool_path, unknown_variables
from ..shipping import shipping_of
from ..spool import Limits, Spool
from ..stores import Store, open_store
from ..troubles import troubles
from .options import (
    DONE,
    FAILED,
    IN_PART,
    LONGER_SECRET,
    SHORT_SECRET,
    counted,
    has_short_secret,
    json_option,
    lasting_store,
    opened_pipeline,
    opened_store,
    place_options,
    progress,
    read_settings,
    say,
    settings_of,
)

__all__ = ["COMMANDS"]

R = TypeVar("R")

ENDING = frozenset((signal.SIGINT, signal.SIGTERM))
"""The signals that end `ship`."""
SCOPES = ("audit:read", "audit:export", "audit:write", "audit:metrics")
"""What a token can allow."""
NAMED = 3
"""Of many entries that are in quarantine or were refused, so many are named."""


@click.command()
@json_option
@place_options
def setup(as_json: bool, store: str | None, spool: str | None) -> int:
    """Install or update what the store needs. Safe to repeat; the first entry does it too."""
    with opened_store(settings_of(store, spool)) as opened:
        done = opened.setup()
        if as_json:
            click.echo(orjson.dumps({"done": done, "store": opened.check()}))
            return DONE
        for sentence in done:
            click.echo(sentence)
        click.echo(("" if done else "nothing to do; ") + opened.check())
    return DONE


@click.command(short_help="Drain a spool into its store, until it is stopped.")
@click.option("--replay", is_flag=True, help="Send again what the spool still has, and end.")
@json_option
@place_options
def ship(replay: bool, as_json: bool, store: str | None, spool: str | None) -> int:
    """Drain a spool into its store, until it is stopped: a service of its own.

    Several may run for one spool: one of them ships, and another takes over when it ends.

    A spool keeps for a day what it shipped. Where the store has lost some of that (a node came back with an old disk,
    a backup was restored), --replay sends all of it again, in order, and the store keeps what it does not have. It
    may be run at any time, also while others record and ship.
    """
    settings = settings_of(store, spool)
    if replay:
        return _replay(settings, as_json)
    # Blocked before there is a second thread, and waited for: no handler that runs at an unlucky moment.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
    try:
        with opened_pipeline(settings) as pipeline:
            click.echo(f"shipping {pipeline.spool.path} into {pipeline.spool.serves()}", err=True)
            signal.sigwait(ENDING)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return DONE


def _replay(settings: Settings, as_json: bool) -> int:
    with closing(lasting_store(settings.store_url)) as opened:
        opened.keeps_masked = settings.keeps_masked
        path = spool_path(settings, opened)
        if not path.exists():
            raise SpoolError(f"{path}: there is no spool yet; check AUDIT_STORE_URL and AUDIT_SPOOL")
        sent = refused = skipped = 0
        since = None
        with closing(Spool(path, opened.identity(path))) as held, progress(held.status().accepted, "Sending") as bar:
            for batch in replaying(held, opened):
                skipped += batch.skipped
                if not batch.events:
                    break
                since = since or format_timestamp(batch.events[0].received)
                sent += len(batch.events)
                for refusal in batch.refused[: max(0, NAMED - refused)]:
                    say(f"refused: {refusal.event.sequence}: {refusal.reason}")
                refused += len(batch.refused)
                bar.update(batch.events[-1].sequence - bar.pos)
    if as_json:
        click.echo(orjson.dumps({"sent": sent, "refused": refused, "skipped": skipped, "since": since}))
    else:
        stay = f"; {counted(refused)} refused, as before" if refused else ""
        first = f" The first was recorded {since}; what came before, this spool has no more." if since else ""
        click.echo(f"{counted(sent)} sent again; the store has each of them once{stay}.{first}")
        if skipped:
            say(f"skipped: {counted(skipped)}, deleted from the spool meanwhile (it keeps a day, 256 MiB at the most)")
    return IN_PART if refused or skipped else DONE


@click.command()
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    default=("audit:read audit:export",),
    show_default=True,
    help="What it allows, with spaces; may be repeated.",
)
@click.option("--plan", help="The plan it says; '' for none. [default: the first of AUDIT_ENTITLED_PLANS]")
@click.option("--org", default="default", show_default=True, help="The organisation.")
@click.option("--sub", default="operator", show_default=True, help="Whom it speaks for.")
@click.option("--ttl", default=3600, show_default=True, type=click.IntRange(1, 366 * 86_400), help="Seconds.")
@json_option
@click.option("--store", hidden=True)
@click.option("--spool", hidden=True)
def token(
    scopes: tuple[str, ...], plan: str | None, org: str, sub: str, ttl: int, as_json: bool,
    store: str | None, spool: str | None,
) -> int:  # fmt: skip
    """Print a bearer token, signed with AUDIT_JWT_SECRET."""
    for name, value in (("--org", org), ("--sub", sub)):
        if not value:
            raise click.BadParameter("is empty, and such a token is refused; leave it out", param_hint=name)
    scope = " ".join(scopes)
    for name in scope.split():
        if name not in SCOPES:
            raise click.BadParameter(f"{name!r} is no scope; allowed are {', '.join(SCOPES)}", param_hint="--scope")
    settings = settings_of(store, spool)
    if not settings.jwt_secret:
        raise SettingsError(
            "AUDIT_JWT_SECRET: is not set, so no token can be signed; set the secret that the API verifies with; "
            "without keys, open the link that `audit-pipeline serve` (or `demo`) printed; or "
            "ask whoever holds the keys of AUDIT_JWKS_URL"
        )
    if has_short_secret(settings):
        say(f"{SHORT_SECRET}; {LONGER_SECRET}")
    try:
        from audit_pipeline.api.auth import make_token
    except ImportError as error:
        raise SettingsError(f"tokens need {error.name}; install it with: pip install 'audit-pipeline[api]'") from error
    made = make_token(
        settings.jwt_secret,
        sub=sub,
        scope=scope,
        plan=next(iter(settings.entitled_plans), None) if plan is None else plan or None,
        org=org,
        ttl=ttl,
        issuer=settings.jwt_issuer,
        audience=settings.jwt_audience,
    )
    click.echo(orjson.dumps({"token": made}) if as_json else made)
    return DONE


# Doctor


@dataclass(frozen=True, slots=True)
class _Finding:
    check: str
    ok: bool
    detail: str
    advice: str = ""


@click.command(short_help="Say what is wrong, and what to do.")
@json_option
@place_options
def doctor(as_json: bool, store: str | None, spool: str | None) -> int:
    """Say what is wrong with settings, spool and store, and what to do."""
    well = True
    for finding in _findings(store, spool):
        well = well and finding.ok
        if as_json:
            fields = {"check": finding.check, "ok": finding.ok, "detail": finding.detail, "do": finding.advice}
            click.echo(orjson.dumps(fields))
        else:
            advice = f"\n        {finding.advice}" if finding.advice else ""
            click.echo(f"{'ok   ' if finding.ok else 'WRONG'} {finding.check}: {finding.detail}{advice}")
    return DONE if well else FAILED


def _findings(store_url: str | None, spool: str | None) -> Iterator[_Finding]:
    for name, advice in unknown_variables():
        yield _Finding("settings", False, f"{name} is no setting", advice)
    try:
        settings = read_settings(store_url, spool)
        store = open_store(settings.store_url)
    except AuditError as error:
        yield _Finding("settings", False, str(error), "Put it right; nothing starts before.")
        return
    yield _Finding("settings", True, "read" if store_url or os.environ.get("AUDIT_STORE_URL", "").strip() else (
        f"read; AUDIT_STORE_URL is not set, so the store is {settings.store_url} of this folder, {Path.cwd()}"
    ))  # fmt: skip
    yield from _guarded("access", lambda: _access(settings), "The API does not start before.")
    yield from _guarded("spool", lambda: _spool(settings, store), "Nothing is recorded before.")
    stays = "Entries stay in the spool meanwhile, and are shipped afterwards."
    yield from _guarded("store", lambda: _store(settings, store), stays)
    store.close()


def _guarded(check: str, findings: Callable[[], Iterator[_Finding]], advice: str) -> Iterator[_Finding]:
    try:
        yield from findings()
    except AuditError as error:
        yield _Finding(check, False, str(error), advice)


def _access(settings: Settings) -> Iterator[_Finding]:
    if settings.jwks_file is not None and find_spec("jwt") is not None:
        from audit_pipeline.api.auth import TokenVerifier

        TokenVerifier(settings)
    if has_short_secret(settings):
        yield _Finding("access", False, SHORT_SECRET, LONGER_SECRET[0].upper() + LONGER_SECRET[1:])
    elif settings.jwt_secret or settings.jwks_url or settings.jwks_file:
        yield _Finding("access", True, "tokens are verified with the keys that are set")
    else:
        yield _Finding("access", True, "no keys are set: `serve` makes one for each run, and answers loopback only")


def _spool(settings: Settings, store: Store) -> Iterator[_Finding]:
    path = spool_path(settings, store)
    if not path.exists():
        yield _absent("spool", path)
        return
    yield from _mode("spool", path)
    limits = Limits(settings.spool_limit, settings.spool_age)
    with closing(Spool(path, store.identity(path), limits=limits)) as spool:
        status = spool.status()
        found = list(troubles(spool, Gaps(path)))
        reasons = spool.quarantine_reasons()
        first = spool.quarantine(NAMED)
    if "waiting" not in (trouble.kind for trouble in found):
        shipper = shipping_of(path).process
        detail = (
            f"{path}: {counted(status.accepted)} accepted, {status.pending:,} waiting, {status.bytes / 1e6:,.1f} MB"
            f"{f', shipped by process {shipper}' if shipper else ''}"
        )
        yield _Finding("spool", True, detail)
    for trouble in found:
        if trouble.kind != "quarantine":
            check = "shipping" if trouble.kind == "shipping-stopped" else "spool"
            yield _Finding(
                check, False, f"{path}: {trouble.text}" if check == "spool" else trouble.text, trouble.advice
            )
    if status.quarantined:
        named = ", ".join(f"{row.sequence} ({row.event.id if row.event else 'damaged'})" for row in first)
        if status.quarantined > len(first):
            named += f" and {status.quarantined - len(first):,} more"
        advice = (
            f"They are kept in the spool: {named}; see `audit-pipeline quarantine list`. Correct "
            "what sends them; `audit-pipeline quarantine retry` offers them to the store again, with --new-id "
            "those whose id is taken under a new one."
        )
        yield _Finding("quarantine", False, f"{counted(status.quarantined)}: {'; '.join(reasons[:3])}", advice)


def _store(settings: Settings, store: Store) -> Iterator[_Finding]:
    path = getattr(store, "path", None)
    try:
        detail = store.check()
    except StoreMissing as error:
        if not isinstance(path, Path):
            yield _Finding("store", True, str(error))
        elif shipped := _shipped(settings, store):
            advice = (
                "Move its -wal and -shm away, if they are there, and put it back from a backup; `audit-pipeline ship "
                "--replay` sends again what the spool still has."
            )
            yield _Finding("store", False, f"{path}: is gone, and had {counted(shipped)} of this spool", advice)
        else:
            yield _absent("store", path)
        return
    if isinstance(path, Path):
        yield from _mode("store", path)
    if lost := _lost(settings, store):
        advice = (
            "It was made anew, an older copy was put in its place, or entries were deleted there. `audit-pipeline ship "
            "--replay` sends again what the spool still has; what is older only a backup has."
        )
        named = f"{path or 'the store'}: lacks entries that it was given, such as {lost.id}"
        yield _Finding("store", False, f"{named} of {format_timestamp(lost.timestamp)}", advice)
        return
    yield _Finding("store", True, detail)


def _shipped(settings: Settings, store: Store) -> int:
    """How many entries a store was given."""
    return _asked(settings, store, Spool.shipped, 0)


def _lost(settings: Settings, store: Store) -> AuditEvent | None:
    """The oldest entry that the spool still has and the store was given, or the newest; where the store lacks it."""

    def missing(spool: Spool) -> AuditEvent | None:
        upto = spool.shipped()
        for event in (*spool.kept(0, limit=1), *spool.kept(max(upto - 1, 0), limit=1)):
            is_there = event.sequence > upto or store.get(event.org, event.id) is not None
            if not is_there and event.sequence not in {row.sequence for row in spool.quarantine()}:
                return event
        return None

    return _asked(settings, store, missing, None) if store.lasting else None


def _asked(settings: Settings, store: Store, ask: Callable[[Spool], R], otherwise: R) -> R:
    """What the spool answers, where there is one that does."""
    try:
        path = spool_path(settings, store)
        if not path.exists():
            return otherwise
        with closing(Spool(path, store.identity(path))) as spool:
            return ask(spool)
    except (SettingsError, SpoolError):  # as the check of the spool has said
        return otherwise


def _absent(check: str, path: Path) -> _Finding:
    """A file that is not there: the first entry makes it, where it can."""
    if not os.access(path.parent, os.W_OK | os.X_OK):
        advice = f"Make the folder {path.parent}, with the right to write in it, or name another one."
        return _Finding(check, False, f"{path}: is not there, and cannot be made", advice)
    return _Finding(check, True, f"{path}: not there yet; the first entry makes it")


def _mode(check: str, path: Path) -> Iterator[_Finding]:
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o077:
        yield _Finding(check, False, f"{path} can be read by others (mode {mode:o})", f"Run: chmod 600 {path}")


COMMANDS = (setup, ship, token, doctor)
