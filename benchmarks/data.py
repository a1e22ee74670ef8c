"""Made-up entries of a mail dashboard: the same for the same size, 24 months of them, as NDJSON for `import`.

In them are a word that ten entries have, one that a tenth has, a filter that a tenth matches, prefixes, phrases, equal
milliseconds, and one entry in 200 that came up to 30 days late.
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime
from itertools import accumulate, islice
from pathlib import Path
from typing import Any

__all__ = ["MONTH", "RARE", "TENTH", "USER", "event_fields", "lines_file", "some_lines"]

_FIRST_MS = int(datetime(2024, 1, 1, tzinfo=UTC).timestamp() * 1000)
_LAST_MS = int(datetime(2026, 1, 1, tzinfo=UTC).timestamp() * 1000) - 1
# 24 whole months, so as many indices where each month has one.
MONTH = ("2025-01-01", "2025-01-31")
"""One of the months, as two dates."""
RARE = "zephyr"
"""A word in the details of ten entries."""
TENTH = "user.password_changed"
"""The action of a tenth of the entries."""
USER = "alice@example.com"
"""The user of a hundredth of the entries."""

BLOCK = 25_000
DAY_MS = 86_400_000

# Actions with how many of a thousand entries have them.
_ACTIONS = {
    "auth.login_succeeded": 330, "auth.logged_out": 150, "auth.login_failed": 80, TENTH: 100, "alias.created": 45,
    "alias.deleted": 20, "user.created": 40, "user.deleted": 12, "queue.flushed": 30, "queue.item_deleted": 30,
    "queue.cleared": 4, "account.updated": 35, "account.created": 12, "account.deleted": 3, "settings.updated": 30,
    "settings.ai_updated": 6, "service.restarted": 18, "service.started": 6, "service.stopped": 5,
    "backup.created": 20, "backup.deleted": 6, "backup.schedule_updated": 2, "domain.created": 5, "domain.deleted": 2,
    "dkim.key_generated": 4, "dkim.key_deleted": 1, "user.bulk_imported": 1, "system.update_initiated": 1,
    "system.relay_configured": 1, "system.relay_removed": 1,
}  # fmt: skip
_LAST_ACTION = "system.factory_reset"
"""One in 10,000: so all 31 of them occur."""

# Details with how many of a hundred entries have them; `%d` is a number.
_DETAILS = {
    "": 14, "nightly run of job %d finished": 6, "nightly check of mailbox %d, no findings": 4,
    "quota raised to %d MB": 7, "quota lowered to %d MB": 3,
    "premium plan: quota raised to %d MB": 2, "moved to premium plan": 3,
    "DKIM enabled, selector s%d": 4, "reset by administrator": 5, "quarterly review, ticket %d": 3,
    "quarantine released, message %d": 2, "login from a new device, session %d": 12, "session %d": 17,
    "forwarding to external address switched off": 4, "two-factor authentication switched on": 5,
    "Änderung durch den Kundendienst, Vorgang %d": 3, "依頼番号 %d": 1, "retention set to %d days": 5,
}  # fmt: skip
_TLDS = ("com", "net", "org", "de", "co.uk")
_USERS = (USER, *(f"user{number:03}@example.com" for number in range(1, 400)))


def lines_file(folder: Path, size: int) -> Path:
    """The file of so many entries; made where it is missing."""
    path = folder / f"entries-{size}.ndjson"
    if not path.exists():
        making = path.with_suffix(f".{os.getpid()}")
        blocks = [(size, first) for first in range(0, size, BLOCK)]
        with making.open("wb") as file, ProcessPoolExecutor(min(os.cpu_count() or 1, len(blocks))) as pool:
            for block in pool.map(_block, blocks):
                file.write(block)
        making.rename(path)
    return path


def some_lines(path: Path, count: int) -> Iterator[bytes]:
    """The first lines of such a file."""
    with path.open("rb") as file:
        yield from islice(file, count)


def _block(which: tuple[int, int]) -> bytes:
    size, first = which
    count = min(BLOCK, size - first)
    chance = random.Random(f"audit {size} {first}")
    actions = chance.choices([json.dumps(action) for action in _ACTIONS], [*_ACTIONS.values()], k=count)
    details = chance.choices(
        [json.dumps(detail, ensure_ascii=False)[1:-1] for detail in _DETAILS], [*_DETAILS.values()], k=count
    )
    others = [1 / (number + 5) for number in range(1, len(_USERS))]
    users = chance.choices(_USERS, cum_weights=[*accumulate([sum(others) / 99, *others])], k=count)
    numbers = chance.choices(range(100_000), k=count)
    chances = [chance.random() for _ in range(count)]
    step = (_LAST_MS - _FIRST_MS) / size
    days: dict[int, str] = {}
    lines = []
    time = int(_FIRST_MS + first * step)
    rare = max(1, size // 10)
    for place in range(count):
        number, luck = numbers[place], chances[place]
        index = first + place
        if luck > 0.05:  # the others have the millisecond of the one before
            time = int(_FIRST_MS + (index + luck) * step)
        moment = time if luck < 0.995 else max(_FIRST_MS, time - number * 25_920)  # late, by up to 30 days
        day, rest = divmod(moment, DAY_MS)
        date = days.get(day)
        if date is None:
            date = days[day] = datetime.fromtimestamp(day * 86_400, UTC).strftime("%Y-%m-%d")
        seconds, ms = divmod(rest, 1000)
        minutes, second = divmod(seconds, 60)
        detail = details[place]
        if "%" in detail:
            detail %= number
        if index % rare == rare // 2:
            detail += f" {RARE}"
        action = actions[place] if index % 10_000 != 77 else f'"{_LAST_ACTION}"'
        lines.append(
            f'{{"timestamp":"{date}T{minutes // 60:02}:{minutes % 60:02}:{second:02}.{ms:03}Z","action":{action},'
            f'"target":"{_target(number, luck)}","detail":"{detail}","user":"{users[place]}","ip":"{_ip(number, luck)}"'
            + (f',"context":{{"request_id":"{number * 7919 + index:012x}"}}}}' if luck < 0.5 else "}")
        )
    lines.append("")
    return "\n".join(lines).encode()


def _target(number: int, luck: float) -> str:
    domain = f"host-{number % 20_000}.example.{_TLDS[number % 5]}"
    return domain if luck < 0.3 else f"box{number % 977}@{domain}"


def _ip(number: int, luck: float) -> str:
    if luck < 0.8:
        return f"10.{number % 7}.{number % 251}.{number % 256}"
    return f"2001:db8:{number % 4096:x}::{number % 65_521:x}" if luck < 0.92 else ""


def event_fields(line: bytes) -> dict[str, Any]:
    """A line as what a log call is given, without its time: it happens now."""
    given: dict[str, Any] = json.loads(line)
    given.pop("timestamp")
    return given
