"""Makes an AuditEvent of whatever an application says. Never raises for bad input: it keeps what is valid, and says
what was wrong.

Everything a caller gives goes through here, whichever way it came: log call, `record`, HTTP, import. So limits,
redaction and the masking of the entry's own address hold everywhere, and before anything is written.
"""

from __future__ import annotations

import math
import re
import uuid
from collections.abc import Callable, Container, Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import fields, is_dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from hashlib import sha256
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from itertools import count, islice
from pathlib import PurePath
from typing import Any

from .actions import Action
from .event import (
    REPLACED_TIMESTAMP,
    AuditEvent,
    IdFactory,
    canonical_json,
    id_time,
    in_window,
    is_new_id,
    now_ms,
)
from .privacy import (
    LONGEST,
    REDACTED,
    is_secret_key,
    mask_beginning,
    mask_ip,
    mask_own_address,
    mask_own_numbers,
    may_hold_address,
    normalize_ip,
)

__all__ = ["FIELDS", "MISSING", "build_event", "numbered_key", "parse_timestamp", "refusable"]

FIELDS = frozenset(("target", "detail", "user", "ip", "outcome", "org", "timestamp", "id", "context"))
"""The keys an entry takes. Every other key is part of its context."""

MAX_SHORT = 1024
"""Characters in target and user."""
MAX_ORG = 256
"""Characters in the name of an organisation."""
MAX_DETAIL = 65_536
"""Bytes of UTF-8 in detail."""
MAX_CONTEXT = 65_536
"""Bytes of a context's canonical JSON."""
MAX_LEVELS = 8
"""Levels of nesting in a context, itself included."""
MAX_KEY = 512
"""Characters in a key of a context."""
LOOKED_AT = LONGEST
"""How many times as many characters of a text are looked at as can be kept, where it may hold the entry's own address.

Masked, each of these characters that belong to an address leaves a tenth at least, in any usual spelling: what comes
later is never kept. Neither the cut nor the size that is said tells the masked part.
"""
MAX_VALUES = 50_000
"""Values in a context that are looked at (a long text counts as several): a log call ends in bounded time."""
LONG_TEXT = 100
"""Characters of text that count as one more value."""
MAX_TIME = 256
"""Characters in a timestamp."""
MAX_PROBLEMS = 20
MAX_PROBLEM = 500
"""Characters in a problem."""

MISSING = ("user: none given", "ip: none given")
"""Problems that are said, but that no caller is refused for: some entries have no user or address."""

_FIELDS = tuple(sorted(FIELDS))
_FAILED = ("failed", "failure", "fail", "error", "false", "denied")
_ZONE = re.compile(r"%[A-Za-z0-9._~-]{1,64}\Z")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_CONTROL_IN_LINES = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
# Codecs call their error handler for each one, which takes 200 ns a character.
_LONE_SURROGATE = re.compile("[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]")
# What `surrogateescape` makes of bytes that are no UTF-8.
_ESCAPED = {0xDC00 + byte: f"\\x{byte:02x}" for byte in range(0x80, 0x100)}
_EXACT_INTEGER = 2**53 - 1
_SMALL = 2**24
"""From here on, an integer may be an IPv4 address."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_TOO_DEEP = f"[cut: deeper than {MAX_LEVELS} levels]"


def refusable(problems: tuple[str, ...]) -> list[str]:
    """The problems for which `on_invalid="raise"` refuses an entry."""
    return [problem for problem in problems if problem not in MISSING]


def numbered_key(key: object, taken: Container[Any], above: int = 1) -> tuple[str, int]:
    """The first of key~2, key~3 … that is free, and its number; looked for above the number given."""
    number = next(number for number in count(above + 1) if f"{key}~{number}" not in taken)
    return f"{key}~{number}", number


def build_event(
    action: Action,
    given: Mapping[str, Any],
    ids: IdFactory,
    *,
    mask_storage: bool = False,
) -> AuditEvent:
    """The entry of an action and the values given for it (the keys of FIELDS; others are ignored).

    `mask_storage` keeps even the stored address masked. What is wrong is put right where it can be, and named in
    `problems`, one sentence each; the sentences hold no values, since an address or a secret could be among them.
    """
    problems: list[str] = []
    given = {name: _settled(name, given.get(name), problems) for name in _FIELDS}
    address = _address(given["ip"], problems)
    cleaner = _Cleaner(problems, address)
    kept: dict[str, Any] = {}

    given_id = given["id"]
    if given_id is not None and not is_new_id(given_id):
        problems.append("id: not a UUIDv7 in lower case with a time of the last ten years; a new one was made")
        kept["given_id"] = given_id
        given_id = None

    timestamp = _timestamp(given["timestamp"], problems, kept)
    if given_id is None:
        moment, event_id = ids.next(timestamp)
    else:
        event_id = given_id
        moment = id_time(given_id) if timestamp is None and "given_timestamp" not in kept else timestamp or now_ms()

    outcome, stated = action.outcome, given["outcome"]
    if isinstance(stated, str) and stated in ("success", "failure"):
        outcome = stated
    elif stated is not None and not (isinstance(stated, str) and not stated):
        if stated is False or (isinstance(stated, str) and stated.casefold() in _FAILED):
            outcome = "failure"  # what did not succeed must not read as done
        problems.append(f"outcome: allowed are success and failure; taken as {outcome}")
        kept["given_outcome"] = stated

    if given["user"] is None:
        problems.append(MISSING[0])
    target = cleaner.short("target", given["target"], MAX_SHORT)
    detail = cleaner.detail(given["detail"])
    user = cleaner.short("user", given["user"], MAX_SHORT)
    org = cleaner.org(given["org"])
    context = cleaner.context(given["context"], kept)
    return AuditEvent(
        id=event_id,
        timestamp=moment,
        action=action.id,
        category=action.category,
        label=action.label,
        tone=action.tone,
        outcome=outcome,
        org=org,
        target=target,
        detail=detail,
        user=user,
        ip=mask_ip(address) if mask_storage and address else address,
        context=context,
        problems=_bounded(problems, address),
        received=now_ms(),
    )


def _bounded(problems: list[str], address: str | None) -> tuple[str, ...]:
    if not problems:
        return ()
    shown = [mask_own_address(problem, address) for problem in problems[:MAX_PROBLEMS]]
    half = MAX_PROBLEM // 2 - 1
    shown = [text if len(text) <= MAX_PROBLEM else f"{text[:half]}…{text[-half:]}" for text in shown]
    if len(problems) > MAX_PROBLEMS:
        shown.append(f"and {len(problems) - MAX_PROBLEMS} more problems")
    return tuple(shown)


def _settled(name: str, value: Any, problems: list[str]) -> Any:
    """A text, or an address, as exactly a `str`; other values as they are, where they can be looked at."""
    if value is None or type(value) is str:  # most are
        return value
    try:
        is_text = isinstance(value, (str, IPv4Address, IPv6Address)) or (name == "id" and isinstance(value, uuid.UUID))
        return _characters(value) if is_text else value
    except Exception as error:  # noqa: BLE001 - a lazy object may raise anything, even when asked for its class
        problems.append(f"{name}: could not be read ({type(error).__name__})")
        return f"[unreadable: {type(value).__name__}]"


def _characters(value: Any) -> str:
    # A subclass of str may behave in any way; and what claims to be a str may be a proxy of one.
    return str.__str__(value if issubclass(type(value), str) else str(value))


def _address(value: Any, problems: list[str]) -> str | None:
    if value is None:
        problems.append(MISSING[1])
        return None
    if isinstance(value, str):
        if not value:
            return None
        address = normalize_ip(value) or (value if mask_ip(value) == value else None)
        if address is not None:
            if "%" in value and not _ZONE.search(value):
                problems.append("ip: with a malformed zone, which was dropped")
            return address
        problems.append(f"ip: not an IP address ({len(value)} characters); stored as none")
    else:
        problems.append(f"ip: not an IP address but of type {type(value).__name__}; stored as none")
    return None


# Timestamps


def parse_timestamp(value: Any) -> tuple[int, bool] | None:
    """A time as (milliseconds since the epoch, whether it said its zone); None where it is no time.

    Takes RFC 3339 or ISO 8601 text, datetimes, and numbers: seconds since the epoch.
    """
    try:
        if isinstance(value, str):
            if len(value) > MAX_TIME:
                return None
            text = value.strip().upper()
            # RFC 3339 allows a leap second, datetime does not: it counts as the last millisecond before it.
            leap = ":60" in text and re.fullmatch(r"(.*T\d\d:\d\d):60(?:\.\d+)?(\D.*)?", text)
            moment = datetime.fromisoformat(f"{leap[1]}:59.999{leap[2] or ''}" if leap else text)
        elif isinstance(value, datetime):
            moment = value
        elif isinstance(value, date):
            moment = datetime.combine(value, time())
        elif isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
            return round(value * 1_000_000) // 1000, True
        else:
            return None
        zoned = moment.tzinfo is not None and moment.utcoffset() is not None
        if not zoned:
            moment = moment.replace(tzinfo=UTC)
        return (moment - _EPOCH) // timedelta(milliseconds=1), zoned
    except Exception:  # noqa: BLE001 - a tzinfo is the application's code, and may raise anything
        return None


def _timestamp(value: Any, problems: list[str], kept: dict[str, Any]) -> int | None:
    if value is None:
        return None
    parsed = parse_timestamp(value)
    if parsed is None or not in_window(parsed[0], now_ms()):
        why = "it was no time" if parsed is None else "it lay outside the last ten years and the next day"
        problems.append(f"{REPLACED_TIMESTAMP}, since {why}; the given value is in the context")
        kept["given_timestamp"] = value
        return None
    if not parsed[1]:
        problems.append("timestamp: without a time zone; taken as UTC")
    return parsed[0]


# Texts and contexts


class _Cleaner:
    """Turns values into JSON values within the limits, and gathers problems. One for each entry."""

    def __init__(self, problems: list[str], address: str | None) -> None:
        self._problems = problems
        self._address = address
        self._values = 0
        self._removed = self._over = 0
        self._numbers: dict[str, int] = {}

    # Texts

    def short(self, name: str, value: Any, limit: int) -> str:
        """A text of at most `limit` characters."""
        text = self._field(name, value, limit)
        if not text.isprintable() and _CONTROL.search(text, 0, LOOKED_AT * limit):
            self._problems.append(f"{name}: has control characters")
        if len(text) <= limit:
            return text
        self._problems.append(f"{name}: cut from {self._size(len(text))} characters to {limit:,}")
        return text[:limit]

    def org(self, value: Any) -> str:
        """The name of an organisation: never masked, and cut so that two names stay two, or it would be another's."""
        address, self._address = self._address, None
        text = self._field("org", value, MAX_ORG)
        self._address = address
        if not text.isprintable() and _CONTROL.search(text):
            self._problems.append("org: has control characters")
        if len(text) > MAX_ORG:
            self._problems.append(f"org: cut from {self._size(len(text))} characters to {MAX_ORG}")
            text = f"{text[: MAX_ORG - 33]}~{sha256(text.encode()).hexdigest()[:32]}"
        return text or "default"

    def detail(self, value: Any) -> str:
        """A text of at most MAX_DETAIL bytes of UTF-8."""
        text = self._field("detail", value, MAX_DETAIL)
        if not text.isprintable() and _CONTROL_IN_LINES.search(text, 0, LOOKED_AT * MAX_DETAIL):
            self._problems.append("detail: has control characters")
        if len(text) <= MAX_DETAIL // 4:  # a character has four bytes at the most
            return text
        whole = text.encode()
        if len(whole) <= MAX_DETAIL:
            return text
        self._problems.append(f"detail: cut from {self._size(len(whole))} bytes to {MAX_DETAIL:,}")
        return whole[:MAX_DETAIL].decode(errors="ignore")

    def _size(self, number: int) -> str:
        """A size as it is said; where a text was not looked at to its end, as much of it as was."""
        return f"over {self._over:,}" if self._over else f"{number:,}"

    def _field(self, name: str, value: Any, kept: int) -> str:
        self._values = self._over = 0
        if value is None:
            return ""
        if not isinstance(value, str):
            value = self._value(name, value, 1)
            value = value if isinstance(value, str) else canonical_json(value).decode()
        return self._text(name, value, kept)

    def _text(self, name: str, text: str, kept: int) -> str:
        """Exact, valid Unicode text, with the entry's own address masked: all, or more than `kept` characters of it."""
        if type(text) is str and len(text) <= kept and text.isascii():  # most are
            self._values += len(text) // LONG_TEXT
            return self._masked(text, kept)
        text = _characters(text)
        most = LOOKED_AT * kept
        self._values += min(len(text), most) // LONG_TEXT
        if len(text) > most:  # what comes later is never kept
            beginning = text[:most]
            holds = self._address is not None and may_hold_address(beginning)
            return self._beginning(name, beginning, kept) if holds or not _is_valid(text) else text
        return self._masked(self._valid(name, text), kept)

    def _masked(self, text: str, kept: int) -> str:
        """A text with the own address masked. Of one that had it, no size is told: the masked part may be in that."""
        masked = mask_own_address(text, self._address)
        if masked != text:
            self._over = kept
        return masked

    def _beginning(self, name: str, text: str, kept: int) -> str:
        """As `_text`, for the beginning of a longer one that was looked at."""
        most = LOOKED_AT * kept
        text = self._valid(name, text)
        masked = text if self._address is None else mask_beginning(text, self._address)
        # As in `_masked`; else as much as was looked at.
        self._over = max(self._over, most) if text.startswith(masked) else kept
        if len(masked) <= kept:  # spelled so oddly that more of it could have been kept
            self._problems.append(f"{name}: cut, since only its first {most:,} characters were looked at")
        return masked

    def _valid(self, name: str, text: str) -> str:
        if _is_valid(text):
            return text
        self._problems.append(f"{name}: had lone surrogates, shown as \ufffd")
        return _LONE_SURROGATE.sub("\ufffd", text).encode("utf-16", "surrogatepass").decode("utf-16")

    # Contexts

    def context(self, value: Any, kept: Mapping[str, Any]) -> dict[str, Any]:
        """A context of JSON values, at most MAX_CONTEXT bytes, with secrets redacted; `kept` is added to it."""
        self._removed = self._values = self._over = 0
        first = len(self._problems)
        given = value if isinstance(value, Mapping) else {} if value is None else {"context": value}
        if value is not None and not isinstance(value, Mapping):
            self._problems.append("context: not a mapping; kept under the key 'context'")
        cleaned = self._value("context", given, 1)
        if not isinstance(cleaned, dict):
            cleaned = {"context": cleaned}
        for name, item in kept.items():
            cleaned[self._free(name, cleaned)] = self._value(name, item, 2)
        if not cleaned:
            return cleaned
        # These two come before the problems of single values, of which there may be very many.
        fitting = self._fit(cleaned, first)
        if self._values > MAX_VALUES:
            too_much = f"context: cut, since it has over {MAX_VALUES:,} values, or too much text in them"
            self._problems.insert(first, too_much)
        return fitting

    def _value(self, path: str, value: Any, level: int) -> Any:
        self._values += 1
        if value is None or value is True or value is False:
            return value
        try:
            return self._convert(path, value, level)
        except Exception as error:  # noqa: BLE001 - the application's objects may raise anything when looked at
            self._problems.append(f"{path}: could not be read ({type(error).__name__})")
            return f"[unreadable: {type(value).__name__}]"

    def _convert(self, path: str, value: Any, level: int) -> Any:
        # Compared, not looked up: a class may have no hash.
        for kind, convert in _EXACT:
            if type(value) is kind:
                return convert(self, path, value, level)
        for kinds, convert in _CONVERSIONS:
            if isinstance(value, kinds):
                return convert(self, path, value, level)
        text = str(value)
        self._problems.append(f"{path}: of type {type(value).__name__}, kept as text")
        return self._leaf(path, text)

    def _leaf(self, path: str, text: str) -> str:
        return self._shortened(self._text(path, text, MAX_CONTEXT))

    def _bytes(self, path: str, value: bytes | bytearray) -> str:
        """Bytes as text; those that are no UTF-8 as escapes, as `backslashreplace` does at 450 ns each."""
        if len(value) in (4, 16) and (text := ip_address(bytes(value)).compressed) != self._masked(text, MAX_CONTEXT):
            return mask_ip(self._address)
        most = LOOKED_AT * MAX_CONTEXT
        text = value[:most].decode(errors="surrogateescape").translate(_ESCAPED)
        if len(value) <= most:
            return self._leaf(path, text)
        self._values += most // LONG_TEXT
        return self._shortened(self._beginning(path, text[:most], MAX_CONTEXT))

    def _shortened(self, whole: str) -> str:
        if len(whole) > MAX_CONTEXT:
            self._removed += len(canonical_json(whole[MAX_CONTEXT:])) - len('""')
        return whole[:MAX_CONTEXT]

    def _integer(self, path: str, value: int) -> int | str:
        value = int(value)
        if -_EXACT_INTEGER <= value <= _EXACT_INTEGER:
            return value if -_SMALL < value < _SMALL else self._number(value)
        self._problems.append(f"{path}: an integer beyond 2^53, kept as text")
        # Python writes no more than 4,300 digits; hexadecimal has no such limit.
        return self._leaf(path, str(value) if value.bit_length() < 14_000 else hex(value))

    def _float(self, path: str, value: float) -> float | str:
        value = float(value)
        if math.isfinite(value):
            return self._number(value) if value.is_integer() and _SMALL <= abs(value) <= _EXACT_INTEGER else value
        self._problems.append(f"{path}: {value} is no JSON number, kept as text")
        return str(value)

    def _number(self, value: float) -> Any:
        """A number, or the masked address where it is the own one."""
        text = str(int(value))
        masked = mask_own_address(text, self._address)
        return value if masked == text else masked

    def _mapping(self, path: str, value: Mapping[Any, Any], level: int) -> dict[str, Any] | str:
        if level > MAX_LEVELS:
            return self._too_deep(path)
        cleaned: dict[str, Any] = {}
        items: Iterable[tuple[Any, Any]] = islice(value.items(), MAX_VALUES)
        if level == 1:  # the small ones first: whatever the large ones use up, those are kept
            items = sorted(items, key=_is_large)
        for given_key, item in items:
            if self._values > MAX_VALUES:
                break
            key = self._key(path, given_key)
            if key in cleaned:
                self._problems.append(f"{path}.{key}: the same key twice; the later one is numbered")
            key = self._free(key, cleaned)
            if is_secret_key(key) and item is not None and item is not True and item is not False:
                cleaned[key] = REDACTED
            else:
                cleaned[key] = self._value(key if level == 1 else f"{path}.{key}", item, level + 1)
        return cleaned

    def _free(self, key: str, taken: Mapping[str, Any]) -> str:
        """The key, numbered where it is taken; each key's numbers go on rising, so that many alike cost little."""
        if key not in taken:
            return key
        free, self._numbers[key] = numbered_key(key, taken, self._numbers.get(key, 1))
        return free

    def _key(self, path: str, key: Any) -> str:
        key = _characters(key) if isinstance(key, str) else self._value(f"a key of {path}", key, MAX_LEVELS)
        if not isinstance(key, str):
            key = canonical_json(key).decode()
        over, self._over = self._over, 0
        text = self._text(f"a key of {path}", key, MAX_KEY)
        if len(text) > MAX_KEY:
            self._problems.append(f"a key of {path}: cut from {self._size(len(text))} characters to {MAX_KEY}")
        self._over = over
        return text[:MAX_KEY]

    def _list(self, path: str, value: Iterable[Any], level: int, *, numbered: bool = True) -> list[Any] | str:
        if level > MAX_LEVELS:
            return self._too_deep(path)
        cleaned = []
        for place, item in enumerate(value):
            if self._values > MAX_VALUES:
                break
            cleaned.append(self._value(f"{path}[{place if numbered else ''}]", item, level + 1))
        return cleaned if self._address is None else mask_own_numbers(cleaned, self._address)

    def _set(self, path: str, value: AbstractSet[Any], level: int) -> list[Any] | str:
        """Sets have no order of their own: sorted, equal sets have equal bytes.

        By what is kept of them: the order of what was given would tell between which others a masked address lies.
        """
        cleaned = self._list(path, sorted(islice(value, MAX_VALUES), key=repr), level, numbered=False)
        return sorted(cleaned, key=canonical_json) if isinstance(cleaned, list) else cleaned

    def _too_deep(self, path: str) -> str:
        self._problems.append(f"{path}: cut, nested deeper than {MAX_LEVELS} levels")
        return _TOO_DEEP

    def _fit(self, context: dict[str, Any], place: int) -> dict[str, Any]:
        """The context within MAX_CONTEXT bytes: the small values stay whole, the large ones become cut text."""
        size = len(canonical_json(context)) + self._removed
        if size <= MAX_CONTEXT:
            return context
        sizes = {key: len(canonical_json({key: item})) for key, item in context.items()}
        room = MAX_CONTEXT - 2
        fitting: dict[str, Any] = {}
        lost: list[str] = []
        for key in sorted(sizes, key=lambda key: (sizes[key], key)):
            if sizes[key] > room:
                item = context[key]
                text = item if isinstance(item, str) else canonical_json(item).decode()
                text = _cut_json_text(text, room - len(canonical_json({key: ""})))
                lost.append(key[:64])
                if not text:
                    continue
                fitting[key] = text
            else:
                fitting[key] = context[key]
            room -= len(canonical_json({key: fitting[key]}))
        shown = ", ".join(lost[:5]) + (f" and {len(lost) - 5} more" if len(lost) > 5 else "")
        self._problems.insert(
            place,
            f"context: cut from {self._size(size)} bytes to {len(canonical_json(fitting)):,}"
            + (f"; cut or left out: {shown}" if lost else ""),
        )
        return fitting


def _is_valid(text: str) -> bool:
    """Whether a text can be encoded: it has no lone surrogates."""
    try:
        text.isascii() or text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_large(item: tuple[Any, Any]) -> bool:
    kind = type(item[1])
    return len(item[1]) > LONG_TEXT if kind is str else kind not in (int, float, bool, type(None))


def _cut_json_text(text: str, room: int) -> str:
    """The longest beginning of a text (about) whose JSON form has at most `room` bytes beyond the two quotes."""
    while text and (size := len(canonical_json(text)) - 2) > room:
        text = text[: max(0, min(len(text) - 1, len(text) * max(room, 0) // size))]
    return text


class _RecordType(type):
    def __instancecheck__(cls, value: Any) -> bool:
        kind = type(value)
        return (
            is_dataclass(kind) or (issubclass(kind, tuple) and hasattr(kind, "_fields")) or hasattr(kind, "model_dump")
        )


class _Record(metaclass=_RecordType):
    """Instances of dataclasses, named tuples and Pydantic models: as text, they would show their secrets."""


def _fields_of(record: Any) -> dict[str, Any]:
    names = getattr(type(record), "model_fields", None) or getattr(type(record), "_fields", None)
    return {name: getattr(record, name) for name in names or (field.name for field in fields(record))}


_Conversion = Callable[[_Cleaner, str, Any, int], Any]

# In this order: a bool is an int, an Enum may be a str, a datetime is a date.
_CONVERSIONS: tuple[tuple[Any, _Conversion], ...] = (
    (Enum, lambda cleaner, path, value, level: cleaner._value(path, value.value, level)),
    (str, lambda cleaner, path, value, level: cleaner._leaf(path, value)),
    (int, lambda cleaner, path, value, level: cleaner._integer(path, value)),
    (float, lambda cleaner, path, value, level: cleaner._float(path, value)),
    (Mapping, lambda cleaner, path, value, level: cleaner._mapping(path, value, level)),
    (_Record, lambda cleaner, path, value, level: cleaner._mapping(path, _fields_of(value), level)),
    ((list, tuple), lambda cleaner, path, value, level: cleaner._list(path, value, level)),
    (AbstractSet, lambda cleaner, path, value, level: cleaner._set(path, value, level)),
    ((bytes, bytearray), lambda cleaner, path, value, level: cleaner._bytes(path, value)),
    ((datetime, date, time), lambda cleaner, path, value, level: cleaner._leaf(path, value.isoformat())),
    (
        (uuid.UUID, Decimal, PurePath, IPv4Address, IPv6Address, IPv4Network, IPv6Network),
        lambda cleaner, path, value, level: cleaner._leaf(path, str(value)),
    ),
    (
        BaseException,
        lambda cleaner, path, value, level: cleaner._leaf(path, f"{type(value).__name__}: {value}"),
    ),
    (type, lambda cleaner, path, value, level: cleaner._leaf(path, value.__qualname__)),
)

# What most values are, found without asking one kind after the other.
_EXACT: tuple[tuple[type, _Conversion], ...] = (
    *((kinds, convert) for kinds, convert in _CONVERSIONS if kinds in (str, int, float)),
    (dict, _Cleaner._mapping),
    (list, _Cleaner._list),
)
