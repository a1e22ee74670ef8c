"""Bad input: whatever an application says becomes an entry, within the limits, that names what was wrong."""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections import OrderedDict, UserDict, deque, namedtuple
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta, timezone, tzinfo
from decimal import Decimal
from enum import Enum, IntEnum
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from itertools import count
from pathlib import Path
from types import FunctionType, MappingProxyType
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from audit_pipeline.actions import catalogue
from audit_pipeline.event import AuditEvent, IdFactory, canonical_json, in_window, is_id, now_ms, uuid7
from audit_pipeline.normalize import MISSING, build_event, parse_timestamp, refusable
from audit_pipeline.privacy import REDACTED, mask_beginning, mask_own_address, same_content

ACTION = catalogue["domain.created"]
IP, MASKED = "203.0.113.97", "203.0.113.xxx"
IP6, MASKED6 = "2001:db8::1:97", "2001:db8::1:xxxx"
NOW = now_ms()
IDS = IdFactory()


def made(*problems: str, **values: Any) -> AuditEvent:
    """The entry of these values, which keeps all limits and has exactly these problems (their beginnings)."""
    event = build_event(ACTION, {"user": "alice", "ip": IP, **values}, IDS)
    kept_limits(event)
    assert len(event.problems) == len(problems), event.problems
    for problem, beginning in zip(event.problems, problems, strict=True):
        assert problem.startswith(beginning), event.problems
    return event


def kept_limits(event: AuditEvent) -> None:
    body = event.to_bytes()
    json.loads(body.decode("utf-8"))
    assert AuditEvent.from_bytes(body).to_bytes() == body
    assert same_content(AuditEvent.from_bytes(body), event)
    assert is_id(event.id)
    assert len(event.target) <= 1024
    assert len(event.user) <= 1024
    assert 1 <= len(event.org) <= 256
    assert len(event.detail.encode()) <= 65_536
    assert len(canonical_json(event.context)) <= 65_536
    assert levels(event.context) <= 8
    assert in_window(event.timestamp, now_ms())
    assert event.outcome in ("success", "failure")
    assert len(event.problems) <= 21
    assert all(0 < len(problem) <= 500 for problem in event.problems)
    assert not any(ip in problem for ip in (IP, IP6) if ip == event.ip for problem in event.problems)
    assert not any("hunter2" in problem for problem in event.problems)


def levels(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + max(map(levels, value.values()), default=0)
    return 1 + max(map(levels, value), default=0) if isinstance(value, list) else 0


class Trap:
    """Raises whatever is asked of it, its class included, as a lazy object does whose making fails."""

    def _raise(self, *_: object) -> Any:
        raise LookupError("hunter2")

    __class__ = property(_raise)  # type: ignore[assignment]
    __str__ = __repr__ = __len__ = __iter__ = __eq__ = __bool__ = __getitem__ = _raise
    __hash__ = object.__hash__


class Wordless:
    def __str__(self) -> str:
        raise RuntimeError("hunter2")

    __repr__ = __str__


class OddText(str):
    """Text that says something else of itself each time."""

    __slots__ = ()

    def _raise(self, *_: object) -> Any:
        raise RuntimeError("hunter2")

    __str__ = __repr__ = __len__ = __eq__ = __hash__ = __getitem__ = __contains__ = encode = lower = _raise  # type: ignore[assignment]
    strip = upper = isascii = __iter__ = _raise  # type: ignore[assignment]


class OddMapping(UserDict[Any, Any]):
    def items(self) -> Any:
        yield "first", 1
        raise RuntimeError("hunter2")


class Endless(UserDict[Any, Any]):
    def items(self) -> Any:
        number = 0
        while True:
            number += 1
            yield number, number


class OddList(list[Any]):
    def __iter__(self) -> Iterator[Any]:
        yield 1
        raise RuntimeError("hunter2")


class OddMoment(datetime):
    def isoformat(self, *_: Any) -> Any:
        return object()


class OddZone(tzinfo):
    def utcoffset(self, _: datetime | None) -> timedelta:
        raise RuntimeError("hunter2")


def odd(make: Callable[[], Any]) -> Callable[[], Any]:
    """A misbehaving value as a parameter, made in the test: pytest, too, would trip over it."""
    return lambda: make()  # noqa: PLW0108 - a class is a value of its own


def real(value: Any) -> Any:
    return value() if isinstance(value, FunctionType) else value


class Colour(Enum):
    RED = "red"
    DEEP = (1, [2])


class Level(IntEnum):
    HIGH = 3


# Users and addresses


def test_a_good_entry_has_no_problems() -> None:
    """What is valid is kept as given."""
    event = made(
        target="example.com", detail="two\nlines\tand a tab", outcome="failure", org="acme", context={"a": [1.5]}
    )
    assert (event.target, event.detail, event.user, event.ip) == ("example.com", "two\nlines\tand a tab", "alice", IP)
    assert (event.outcome, event.org, event.context) == ("failure", "acme", {"a": [1.5]})
    assert (event.action, event.category, event.label, event.tone) == ACTION_PARTS
    assert abs(event.received - now_ms()) < 10_000


ACTION_PARTS = ("domain.created", "domains", "Domain created", "green")


def test_no_user_and_no_address_are_said_and_never_refused() -> None:
    """Some entries have neither: that is a problem to show, but none to raise."""
    event = made(*MISSING[1:], MISSING[0], user=None, ip=None)
    assert (event.user, event.ip) == ("", None)
    assert refusable(event.problems) == []


@pytest.mark.parametrize(
    "ip", ["1.2.3.04", "[::1]:80", "1.2.3.4:80", "nowhere", "1" * 10_240, "\ud800", b"1.2.3.4", 7, [IP]]
)
def test_a_malformed_address_is_stored_as_none(ip: Any) -> None:
    """What is no address is kept nowhere, and the problem does not repeat it."""
    event = made("ip: not an IP address", ip=ip)
    assert event.ip is None
    assert "1.2.3" not in event.problems[0]


@pytest.mark.parametrize("zone", ["%<script>", "%", "%a b", "%" + "x" * 65, "%eth0\n"])
def test_a_malformed_zone_is_dropped(zone: str) -> None:
    """The address before it is valid, and kept; no character of the zone is."""
    event = made("ip: with a malformed zone, which was dropped", ip=f"fe80::1{zone}")
    assert event.ip == "fe80::1"


@pytest.mark.parametrize(
    ("ip", "stored"),
    [
        ("", None),
        ("fe80::1%eth0", "fe80::1"),
        ("2001:DB8:0:0::1", "2001:db8::1"),
        ("::ffff:1.2.3.4", "1.2.3.4"),
        (IPv4Address("1.2.3.4"), "1.2.3.4"),
        (IPv6Address("::ffff:1.2.3.4"), "1.2.3.4"),
        ("1.2.3.xxx", "1.2.3.xxx"),
        ("::xxxx", "::xxxx"),
        (lambda: OddText("1.2.3.4"), "1.2.3.4"),
    ],
)
def test_addresses_are_stored_in_one_form(ip: Any, stored: str | None) -> None:
    """Any spelling, a masked one and an empty one are no problems."""
    assert made(ip=real(ip)).ip == stored


def test_masked_storage_keeps_no_full_address() -> None:
    """With `mask_storage`, the address is masked wherever it stands, before anything is written."""
    given = {"user": IP, "ip": IP, "detail": f"from {IP}", "context": {"peer": IPv4Address(IP)}}
    event = build_event(ACTION, given, IDS, mask_storage=True)
    assert event.ip == MASKED
    assert IP.encode() not in event.to_bytes()


# Texts


@pytest.mark.parametrize(
    ("character", "size"), [("a", 1), ("é", 2), ("€", 3), ("👍", 4)], ids=["ascii", "2 bytes", "3 bytes", "4 bytes"]
)
def test_a_large_detail_is_cut_at_a_character(character: str, size: int) -> None:
    """Of 1 MiB, the first 65,536 bytes are kept, whole characters only, and the problem says from what size."""
    event = made(f"detail: cut from {1 + size * 2**20:,} bytes to 65,536", detail="x" + character * 2**20)
    assert event.detail == "x" + character * ((65_536 - 1) // size)


def test_a_detail_a_little_too_long_is_cut_too() -> None:
    """The limit is bytes: 65,536 fit, one more does not."""
    assert made(detail="é" * 32_768).detail == "é" * 32_768
    event = made("detail: cut from 65,537 bytes to 65,536", detail="x" + "é" * 32_768)
    assert event.detail == "x" + "é" * 32_767


@pytest.mark.parametrize("length", [1025, 1600, 2_000_000])
@pytest.mark.parametrize("name", ["target", "user"])
def test_target_and_user_are_cut(name: str, length: int) -> None:
    """1,024 characters fit; what is longer is cut, and the problem says from what size."""
    assert getattr(made(**{name: "€" * 1024}), name) == "€" * 1024
    event = made(f"{name}: cut from {length:,} characters to 1,024", **{name: "€" * length})
    assert getattr(event, name) == "€" * 1024


def test_an_organisation_is_cut_and_has_a_default() -> None:
    """An empty organisation is the default one; a long name is cut."""
    assert made(org="").org == made().org == "default"
    assert len(made("org: cut from 300 characters to 256", org="o" * 300).org) == 256


@pytest.mark.parametrize("character", ["\0", "\x1b", "\x7f", "\x9f", "\x08"])
@pytest.mark.parametrize("name", ["target", "user", "detail", "org"])
def test_control_characters_are_named(name: str, character: str) -> None:
    """They are kept, since they are what was said, and named as a problem."""
    event = made(f"{name}: has control characters", **{name: f"a{character}b"})
    assert getattr(event, name) == f"a{character}b"


@pytest.mark.parametrize("name", ["target", "user", "detail", "org"])
def test_lone_surrogates_are_replaced(name: str) -> None:
    """Text that has no UTF-8 form gets one; a pair of surrogates is the character that it means."""
    event = made(f"{name}: had lone surrogates", **{name: "a\ud800b\ud83d\udc4d\udc4d"})
    assert getattr(event, name) == "a\ufffdb👍\ufffd"


@pytest.mark.parametrize("name", ["target", "user", "detail", "org"])
@pytest.mark.parametrize(
    ("value", "text"),
    [
        (5, "5"),
        (True, "true"),
        (1.5, "1.5"),
        ({"b": 1, "a": [None]}, '{"a":[null],"b":1}'),
        ({"password": "hunter2"}, '{"password":"[redacted]"}'),
        (b"bytes", "bytes"),
        (Colour.RED, "red"),
        (lambda: OddText("odd"), "odd"),
        (Path("/etc/x"), "/etc/x"),
        (IPv4Address(IP), MASKED),
        ([IP], f'["{MASKED}"]'),
    ],
)
def test_other_values_become_text(name: str, value: Any, text: str) -> None:
    """A text field takes anything that has a JSON form, with secrets redacted and the own address masked."""
    expected = text.replace(MASKED, IP) if name == "org" else text  # an organisation's name is not masked
    assert getattr(made(**{name: real(value)}), name) == expected


@pytest.mark.parametrize(
    "value", [Trap, Wordless, OddMapping, lambda: OddList([1])], ids=["Trap", "Wordless", "OddMapping", "OddList"]
)
@pytest.mark.parametrize("name", ["target", "user", "detail", "org", "context", "outcome", "id", "timestamp", "ip"])
def test_values_that_raise_are_named(name: str, value: Callable[[], Any]) -> None:
    """An object that raises when it is looked at costs its own value, and nothing else."""
    event = build_event(ACTION, {"user": "alice", "ip": IP, "target": "example.com", name: value()}, IDS)
    kept_limits(event)
    assert any(problem.startswith(name) for problem in event.problems)
    assert "hunter2" not in event.to_bytes().decode()
    assert name == "target" or event.target == "example.com"


# Contexts


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        (b"ab\xff", "ab\\xff"),
        (bytearray(b"x"), "x"),
        ({3, 1, 2}, [1, 2, 3]),
        (frozenset("ab"), ["a", "b"]),
        ({"k": 1}.keys(), ["k"]),
        ((1, (2,)), [1, [2]]),
        (Colour.RED, "red"),
        (Colour.DEEP, [1, [2]]),
        (Level.HIGH, 3),
        (Decimal("1.10"), "1.10"),
        (date(2026, 11, 23), "2026-11-23"),
        (datetime(2026, 11, 23, 3, 41, tzinfo=UTC), "2026-11-23T03:41:00+00:00"),
        (uuid.UUID(int=1), str(uuid.UUID(int=1))),
        (Path("/a/b"), "/a/b"),
        (ip_network("10.0.0.0/8"), "10.0.0.0/8"),
        (ValueError("wrong"), "ValueError: wrong"),
        (OrderedDict(a=1), {"a": 1}),
        (MappingProxyType({"a": 1}), {"a": 1}),
        (lambda: OddText("odd"), "odd"),
        (2**53 - 1, 2**53 - 1),
        (-0.5, -0.5),
        (1e17, 1e17),
        (1e300, 1e300),
        (int, "int"),
        ("\0\x1b", "\0\x1b"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_values_with_a_json_form_are_kept(value: Any, kept: Any) -> None:
    """Python's own types have an obvious form, and are no problem."""
    assert made(context={"key": real(value)}).context == {"key": kept}


@pytest.mark.parametrize(
    ("value", "kept", "problem"),
    [
        (float("nan"), "nan", "key: nan is no JSON number"),
        (float("-inf"), "-inf", "key: -inf is no JSON number"),
        (2**53, "9007199254740992", "key: an integer beyond 2^53"),
        (-(2**70), str(-(2**70)), "key: an integer beyond 2^53"),
        (10**5000, hex(10**5000), "key: an integer beyond 2^53"),
        (deque([1]), "deque([1])", "key: of type deque, kept as text"),
        (threading.Lock, None, "key: of type builtin_function_or_method, kept as text"),
        ("a\udfffb", "a\ufffdb", "key: had lone surrogates"),
        (odd(Wordless), "[unreadable: Wordless]", "key: could not be read (RuntimeError)"),
        (odd(Trap), "[unreadable: Trap]", "key: could not be read (LookupError)"),
        (odd(OddMapping), "[unreadable: OddMapping]", "key: could not be read (RuntimeError)"),
        (lambda: OddList([1]), "[unreadable: OddList]", "key: could not be read (RuntimeError)"),
        (lambda: OddMoment(2026, 1, 1), None, "key: of type object, kept as text"),
        (
            lambda: datetime(2026, 1, 1, tzinfo=OddZone()),
            "[unreadable: datetime]",
            "key: could not be read (RuntimeError)",
        ),
    ],
    ids=lambda value: type(value).__name__,
)
def test_other_values_become_text_and_are_named(value: Any, kept: Any, problem: str) -> None:
    """What JSON cannot say is kept as text, or marked as unreadable; its neighbours stay."""
    event = build_event(ACTION, {"user": "alice", "ip": IP, "context": {"key": real(value), "near": 1}}, IDS)
    kept_limits(event)
    assert event.context["near"] == 1
    assert kept is None or event.context["key"] == kept
    assert kept is None or event.problems[0].startswith(problem)


@pytest.mark.parametrize(
    ("context", "kept"),
    [
        ({5: 1, None: 2, True: 3, 1.5: 4}, {"5": 1, "null": 2, "true": 3, "1.5": 4}),
        ({b"a": 1, Colour.RED: 2}, {"a": 1, "red": 2}),
        ({("a", 1): 1}, {'["a",1]': 1}),
        ({"": 1, " ": 2}, {"": 1, " ": 2}),
    ],
)
def test_keys_become_text(context: dict[Any, Any], kept: dict[str, Any]) -> None:
    """A key of any type has a text form."""
    assert made(context=context).context == kept


def test_keys_that_become_equal_are_numbered() -> None:
    """No value is lost where two keys have one text form."""
    event = made("context.5: the same key twice", context={5: "a", "5": "b"})
    assert sorted(event.context.values()) == ["a", "b"]
    assert sorted(event.context) == ["5", "5~2"]


@pytest.mark.parametrize(("context", "kept"), [("text", "text"), (5, 5), ([1], [1]), (b"x", "x"), (("a",), ["a"])])
def test_a_context_that_is_no_mapping_is_kept(context: Any, kept: Any) -> None:
    """It stands under the key `context`."""
    assert made("context: not a mapping", context=context).context == {"context": kept}


def nested(depth: int, kind: type) -> Any:
    value: Any = "deep"
    for _ in range(depth):
        value = [value] if kind is list else {"k": value}
    return value


@pytest.mark.parametrize("kind", [list, dict])
@pytest.mark.parametrize("depth", [8, 9, 1000, 50_000])
def test_deep_nesting_is_cut(depth: int, kind: type) -> None:
    """Eight levels are kept, the context included; what is deeper is cut and named."""
    assert levels(made(context={"k": nested(7, kind)}).context) == 8
    event = made("k", context={"k": nested(depth, kind)})
    assert "cut, nested deeper than 8 levels" in event.problems[0]
    assert levels(event.context) == 8


def test_cycles_end() -> None:
    """A container that holds itself, even many times, is cut at the limits in bounded time."""
    ring: list[Any] = [1]
    ring.append(ring)
    mapping: dict[str, Any] = {"a": 1}
    mapping["self"] = mapping
    wide: list[Any] = []
    wide.extend([wide] * 50)
    start = time.monotonic()
    event = build_event(
        ACTION, {"context": {"ring": ring, "mapping": mapping, "wide": wide, "small": 1}, "detail": ring}, IDS
    )
    kept_limits(event)
    assert time.monotonic() - start < 5
    assert event.context["small"] == 1
    assert any("nested deeper" in problem for problem in event.problems)


HUGE: dict[str, Any] = {
    "list": list(range(1_000_000)),
    "mapping": {str(number): number for number in range(1_000_000)},
    "long keys": {f"{number}" * 500: 1 for number in range(5_000)},
    "set": set(range(1_000_000)),
    "floats": [0.1] * 1_000_000,
    "objects": [object()] * 1_000_000,
    "long texts": ["x" * 1_000_000] * 1_000_000,
    "wide texts": ["€" * 70_000] * 100,
    "text": "x" * 5_000_000,
    "bytes": b"\xff" * 1_000_000,
    "endless": Endless(),
}


@pytest.mark.parametrize("name", HUGE)
@pytest.mark.parametrize("first", [False, True], ids=["after", "before"])
def test_a_huge_value_leaves_the_small_ones_whole(name: str, first: bool) -> None:
    """It is cut, in bounded time, and the small values beside it, before or after, stay as they are."""
    small = {"request_id": "r1", "numbers": [1, 2, 3], "flag": True}
    start = time.monotonic()
    context = {"huge": HUGE[name], **small} if first else {**small, "huge": HUGE[name]}
    event = build_event(ACTION, {"user": "alice", "ip": IP, "context": context}, IDS)
    assert time.monotonic() - start < 5
    kept_limits(event)
    assert event.context["request_id"] == "r1"
    assert event.context["flag"] is True
    assert any(problem.startswith("context: cut from") for problem in event.problems)
    assert any("huge" in problem for problem in event.problems)


def test_a_huge_context_is_cut_whole_entries_first() -> None:
    """Of many middling values, those that fit are whole; at most one is cut, the others are left out and counted."""
    context = {f"key {number:04}": "x" * 1000 for number in range(200)}
    event = made("context: cut from 202,801 bytes to 65,", context=context)
    whole = [key for key, value in event.context.items() if value == context[key]]
    assert len(whole) >= 60
    assert len(event.context) - len(whole) <= 1
    assert len(canonical_json(event.context)) > 64_000
    assert "and 1" in event.problems[0]


def test_a_long_key_is_cut() -> None:
    """512 characters of a key are kept; two that become equal are numbered."""
    event = made(
        "a key of context: cut from 600",
        "a key of context: cut from 601",
        "context.k",
        context={"k" * 600: 1, "k" * 601: 2},
    )
    assert sorted(event.context.values()) == [1, 2]
    assert all(len(key) <= 514 for key in event.context)


def test_a_secret_is_redacted_wherever_it_stands() -> None:
    """Keys that look secret lose their values, however deep, and unread; flags and missing values stay."""
    context = {
        "password": "hunter2",
        "users": [{"name": "bob", "auth": {"apiKey": "hunter2", "X-Auth-Token": ["hunter2"]}}],
        "Set-Cookie": Trap(),
        "pin": 1234,
        "has_token": True,
        "old_password": None,
        "passenger": "eve",
    }
    event = made(context=context, detail={"db_pass": "hunter2"})
    assert event.context == {
        "password": REDACTED,
        "users": [{"name": "bob", "auth": {"apiKey": REDACTED, "X-Auth-Token": REDACTED}}],
        "Set-Cookie": REDACTED,
        "pin": REDACTED,
        "has_token": True,
        "old_password": None,
        "passenger": "eve",
    }
    assert "hunter2" not in event.to_bytes().decode()


# The own address


@pytest.mark.parametrize(("ip", "masked"), [(IP, MASKED), (IP6, MASKED6)])
def test_the_own_address_is_masked_everywhere(ip: str, masked: str) -> None:
    """In texts, context values, context keys and problems, the entry's own address is masked; others are content."""
    event = build_event(
        ACTION,
        {
            "user": f"bob@{ip}",
            "ip": ip,
            "target": f"host {ip}",
            "detail": f"[{ip}]:80 and 198.51.100.7",
            "context": {
                f"peer {ip}": {"via": [f"{ip}, 198.51.100.7", ip_network(f"{ip}/32", strict=False), ip.encode()]},
                f"odd {ip}": float("nan"),
            },
            "outcome": f"lost {ip}",
            "id": f"id-{ip}",
            "timestamp": f"yesterday, {ip}",
        },
        IDS,
    )
    kept_limits(event)
    assert (event.user, event.target) == (f"bob@{masked}", f"host {masked}")
    assert event.detail == f"[{masked}]:80 and 198.51.100.7"
    assert event.context[f"peer {masked}"]["via"][0] == f"{masked}, 198.51.100.7"
    assert event.context["given_outcome"] == f"lost {masked}"
    assert event.context["given_timestamp"] == f"yesterday, {masked}"
    assert f"odd {masked}: nan is no JSON number, kept as text" in event.problems
    assert event.to_bytes().count(ip.encode()) == 1, "in its own field only"


def test_keys_that_make_up_the_own_address_in_a_problem_are_masked() -> None:
    """A problem names a place by its keys in a row, and these could be read as the address."""
    event = made(f"{MASKED}: nan", context={"203": {"0": {"113": {"97": float("nan")}}}})
    assert event.context == {"203": {"0": {"113": {"97": "nan"}}}}


@pytest.mark.parametrize("name", ["target", "user", "detail"])
@pytest.mark.parametrize(
    "spelling", [IP, "203.000.113.097", IP6, IP6.upper(), "2001:0db8:0000:0000:0000:0000:0001:0097"]
)
def test_a_cut_leaves_no_part_of_the_own_address(name: str, spelling: str) -> None:
    """Wherever a text is cut, no address in it is torn so that its hidden part stays, nor where masks are shorter."""
    ip, masked = (IP, MASKED) if "." in spelling else (IP6, MASKED6)
    for shift in range(len(spelling) + 1):
        text = "x" * shift + f"{spelling} " * (70_000 // (len(spelling) + 1))
        event = build_event(ACTION, {"ip": ip, name: text}, IDS)
        shown = getattr(event, name).lstrip("x")
        assert shown.replace(f"{masked} ", "") in f"{masked} "


# Ids, times and outcomes


@pytest.mark.parametrize(
    "given_id",
    [
        *["", "x", 7, b"x", ["x"], lambda: OddText("x"), odd(Trap), str(uuid.UUID(int=0)), uuid7(NOW, 5).upper()],
        *[uuid7(5, 5), uuid7(NOW + 2 * 86_400_000, 5)],
    ],
    ids=count(),
)
def test_a_wrong_id_is_replaced(given_id: Any) -> None:
    """What is no UUIDv7 of an acceptable time gives way to a new id, and stands in the context."""
    event = build_event(ACTION, {"ip": IP, "id": real(given_id)}, IDS)
    kept_limits(event)
    assert any(problem.startswith("id: not a UUIDv7") for problem in event.problems)
    assert event.id != given_id
    assert "given_id" in event.context


def test_a_given_id_is_kept() -> None:
    """An id may be given, with its time as that of the entry, or with another one."""
    given_id = uuid7(NOW - 5000, 5)
    assert (made(id=given_id).id, made(id=given_id).timestamp) == (given_id, NOW - 5000)
    assert made(id=given_id, timestamp=datetime.fromtimestamp(NOW // 1000, UTC)).timestamp == NOW // 1000 * 1000
    assert type(made(id=OddText(given_id)).id) is str
    assert made(id=uuid.UUID(given_id)).id == given_id


@pytest.mark.parametrize(
    "timestamp",
    [
        "23/Nov/2026:03:41:00",
        "03:41",
        "",
        "soon",
        "x" * 100_000,
        "\ud800",
        True,
        False,
        0,
        -1,
        1e300,
        float("nan"),
        float("inf"),
        10**5000,
        "1900-01-01T00:00:00Z",
        "9999-12-31T23:59:59Z",
        "0001-01-01T00:00:00+14:00",
        datetime(1900, 1, 1),
        datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=timezone(timedelta(hours=-14))),
        datetime.min.replace(tzinfo=timezone(timedelta(hours=14))),
        [2026],
        {},
        lambda: datetime(2026, 11, 23, tzinfo=OddZone()),
        lambda: OddText("2026"),
        odd(Trap),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_unusable_timestamp_is_replaced(timestamp: Any) -> None:
    """The time of receipt stands for it; the given value is in the context."""
    event = build_event(ACTION, {"user": "alice", "ip": IP, "timestamp": real(timestamp)}, IDS)
    kept_limits(event)
    assert any(problem.startswith("timestamp: replaced by the time of receipt") for problem in event.problems)
    assert abs(event.timestamp - now_ms()) < 10_000
    assert "given_timestamp" in event.context


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("2026-11-23T03:41:00.123Z", 1_795_405_260_123),
        ("2026-11-23t03:41:00.1239z", 1_795_405_260_123),
        ("2026-11-23T04:41:00.123456789+01:00", 1_795_405_260_123),
        ("2026-11-23 03:41:00.123+00:00", 1_795_405_260_123),
        ("20261123T034100.123Z", 1_795_405_260_123),
        ("2026-11-22T23:59:60Z", 1_795_391_999_999),
        (1_795_405_260.123, 1_795_405_260_123),
        (1_795_405_260, 1_795_405_260_000),
        (-1.5, -1500),
        (datetime(2026, 11, 23, 4, 41, 0, 123_999, tzinfo=ZoneInfo("Europe/Berlin")), 1_795_405_260_123),
    ],
)
def test_timestamps_in_their_forms(value: Any, expected: int) -> None:
    """RFC 3339 and ISO 8601 text, datetimes, and seconds since the epoch are milliseconds, rounded down."""
    assert parse_timestamp(value) == (expected, True)


@pytest.mark.parametrize("value", ["2026-11-23T03:41:00", datetime(2026, 11, 23, 3, 41)])
def test_a_naive_timestamp_is_taken_as_utc(value: Any) -> None:
    """A time without a zone is used, with a problem that says how."""
    assert parse_timestamp(value) == (1_795_405_260_000, False)
    moment = datetime.fromtimestamp(NOW // 1000, UTC).replace(tzinfo=None)
    event = made("timestamp: without a time zone; taken as UTC", timestamp=moment)
    assert event.timestamp == NOW // 1000 * 1000


@pytest.mark.parametrize("outcome", ["maybe", "SUCCESS", 7, ["success"], lambda: OddText("odd"), b"success"])
def test_a_wrong_outcome_is_replaced(outcome: Any) -> None:
    """The action's usual outcome stands for it; the given value is in the context."""
    event = made("outcome: allowed are success and failure; taken as success", outcome=real(outcome))
    assert event.outcome == "success"
    assert "given_outcome" in event.context


@pytest.mark.parametrize(
    ("outcome", "kept"), [(None, "success"), ("", "success"), (lambda: OddText("failure"), "failure")]
)
def test_an_outcome_may_be_left_out(outcome: Any, kept: str) -> None:
    """Without one, an entry has the action's usual outcome."""
    assert made(outcome=real(outcome)).outcome == kept


def test_what_was_given_takes_no_key_of_the_context() -> None:
    """A caller's own `given_id` stays beside that of a wrong id."""
    event = made("id: not a UUIDv7", id="x", context={"given_id": "mine"})
    assert event.context == {"given_id": "mine", "given_id~2": "x"}


def test_many_problems_are_counted() -> None:
    """Twenty are told, the others counted."""
    event = build_event(ACTION, {"user": "a", "ip": IP, "context": {str(n): object() for n in range(100)}}, IDS)
    kept_limits(event)
    assert event.problems[-1] == "and 80 more problems"


# Anything

Pair = namedtuple("Pair", "a b")
ODD: list[Callable[[], Any]] = [
    *[Wordless, OddMapping, object, lambda: OddText("k"), lambda: OddList([1]), lambda: OddMoment(2026, 1, 1)],
    *[
        lambda: 10**5000,
        lambda: Pair(1, 2),
        lambda: print,
        lambda: datetime(2026, 1, 1, tzinfo=OddZone()),
        lambda: Colour.DEEP,
    ],
]

leaves = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([-(2**64), 2**53, float("nan"), float("inf"), 1e17, -0.0])
    | st.floats()
    | st.text(st.characters(exclude_categories=()), max_size=30)
    | st.binary(max_size=20)
    | st.decimals()
    | st.datetimes()
    | st.datetimes(timezones=st.timezones())
    | st.dates()
    | st.uuids()
    | st.ip_addresses()
    | st.complex_numbers()
    | st.sampled_from([IP, f"x {IP} y", IP6, "password", "token"])
    | st.sampled_from(ODD).map(lambda make: make())
)
hashable = (
    st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.binary(max_size=5) | st.tuples(st.integers())
)
values = st.recursive(
    leaves,
    lambda items: (
        st.lists(items, max_size=6)
        | st.tuples(items, items)
        | st.sets(hashable, max_size=4)
        | st.dictionaries(hashable | st.sampled_from(["password", IP, f"k {IP}", "x" * 600]), items, max_size=6)
    ),
    max_leaves=25,
)
names = st.sampled_from(["target", "detail", "user", "ip", "outcome", "org", "timestamp", "id", "context", "other"])


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(names, values, max_size=10), st.sampled_from([None, IP, IP6]), st.booleans())
def test_anything_becomes_an_entry(given_values: dict[str, Any], ip: str | None, masks: bool) -> None:
    """For arbitrary values nothing is raised, every limit holds, and the own address stands in its own field only."""
    values = {"ip": ip, **given_values} if ip is None else {**given_values, "ip": ip}
    event = build_event(ACTION, values, IDS, mask_storage=masks)
    kept_limits(event)
    if ip is not None:
        assert event.ip == (MASKED if masks and ip == IP else MASKED6 if masks else ip)
        # An organisation is who it is: its name is not masked.
        assert replace(event, org="").to_bytes().count(ip.encode()) == (not masks)


@pytest.mark.parametrize("times", [9000, 90_000])
@pytest.mark.parametrize("field", ["detail", "target", "context"])
def test_the_size_that_a_problem_says_does_not_tell_the_masked_part(field: str, times: int) -> None:
    """However often the own address stands in a text that is cut, its problem reads the same for all 256 addresses."""
    said = set()
    for octet in (1, 12, 123, 255):
        ip = f"203.0.113.{octet}"
        text = f"{ip} " * times
        values: dict[str, Any] = {"context": {"a": text}} if field == "context" else {field: text}
        event = build_event(ACTION, {"user": "alice", "ip": ip, **values}, IDS)
        assert event.problems
        said.add((event.problems, event.target, event.detail, str(event.context)))
    assert len(said) == 1


def long_values(field: str, text: str) -> dict[str, Any]:
    """A field, or a value or a key of the context, that is this text."""
    return {"value": {"context": {"a": text}}, "key": {"context": {text: 1}}}.get(field, {field: text})


@pytest.mark.parametrize(
    ("field", "most", "kept"),
    [("target", 12_288, 1024), ("user", 12_288, 1024), ("key", 6144, 512), ("detail", 786_432, 65_536),
     ("value", 786_432, 65_000)],
)  # fmt: skip
def test_no_more_of_a_text_is_searched_for_an_address_than_can_be_kept(
    monkeypatch: pytest.MonkeyPatch, field: str, most: int, kept: int
) -> None:
    """Megabytes of almost addresses hold nobody up; what is kept is full, and the problem says from over what size."""
    searched: list[int] = []

    def searching(text: str, ip: str | None) -> str:
        searched.append(len(text))
        return mask_own_address(text, ip)

    def searching_beginning(text: str, ip: str) -> str:
        searched.append(len(text))
        return mask_beginning(text, ip)

    monkeypatch.setattr("audit_pipeline.normalize.mask_own_address", searching)
    monkeypatch.setattr("audit_pipeline.normalize.mask_beginning", searching_beginning)
    event = build_event(ACTION, {"user": "a", "ip": "0.0.0.0", **long_values(field, "::ffff:0:1 " * 300_000)}, IDS)
    assert max(searched) == most
    (problem,) = event.problems
    assert f"cut from over {most:,} " in problem
    whole = {"key": "".join(event.context), "value": event.context.get("a", "")}
    assert len(whole.get(field, getattr(event, field, ""))) >= kept


def test_the_address_in_which_a_text_is_left_is_not_kept_in_an_odd_spelling() -> None:
    """However little a text leaves once it is masked; what may be missing is a problem."""
    odd = f"203{chr(0x200B) * 500}.0.113.97 "
    for shift in range(0, 600, 7):
        event = build_event(ACTION, {"user": "a", "ip": IP, "target": "x" * shift + odd * 100}, IDS)
        *masks, last = event.target.lstrip("x").split(" ")
        assert set(masks) <= {MASKED}
        assert MASKED.startswith(last)
        assert any(problem.startswith("target: cut, since only its first 12,288") for problem in event.problems)


@pytest.mark.parametrize(
    "value",
    [b"\xff" * 20_000_000, bytearray(b"\xff" * 20_000_000), "\ud800" * 20_000_000, [b"\xff" * 1000] * 60_000,
     1 << 3_400_000, "1.1.1.1 " * 2_500_000],
    ids=count(),
)  # fmt: skip
def test_no_value_is_turned_into_text_beyond_what_can_be_kept(value: Any) -> None:
    """Megabytes of bytes that are no UTF-8, of lone surrogates or of digits hold nobody up."""
    started = time.process_time()
    event = build_event(ACTION, {"user": "alice", "ip": IP, "context": {"b": value}}, IDS)
    assert time.process_time() - started < 4
    assert any(problem.startswith("context: cut") for problem in event.problems)


@settings(max_examples=100)
@given(st.binary(max_size=60))
def test_bytes_that_are_no_text_are_kept_as_escapes(value: bytes) -> None:
    """Each one that is no UTF-8 as `\\xff`."""
    assert build_event(ACTION, {"context": {"b": value}}, IDS).context["b"] == value.decode(errors="backslashreplace")


@pytest.mark.parametrize("name", ["target", "user", "detail", "n"])
@pytest.mark.parametrize("times", [80, 300, 1000, 1100, 5_000, 61_000, 80_000])
def test_no_size_tells_the_masked_part(name: str, times: int) -> None:
    """Whether its last part has one digit or three: what is kept of a long text, and all that is said, is the same."""
    said = set()
    for last in (5, 77, 169):
        ip = f"203.0.113.{last}"
        given = {"user": "alice"} | ({name: f"{ip} " * times} if name != "n" else {"context": {"n": f"{ip} " * times}})
        event = build_event(ACTION, {**given, "ip": ip}, IDS)
        said.add((event.problems, event.target, event.user, event.detail, str(event.context)))
    assert len(said) == 1


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        ([203, 0, 113, 9], "203.0.113.xxx"),
        ((9, 113, 0, 203), "203.0.113.xxx"),
        (3405803785, "203.0.113.xxx"),
        (3405803785.0, "203.0.113.xxx"),
        (3405803786, 3405803786),
        ([203, 0, 113, 10], [203, 0, 113, 10]),
        ([203, 0, 113, 9, 22], ["203.0.113.xxx", 22]),
        ([1, 9, 113, 0, 203], [1, "203.0.113.xxx"]),
        ([203, 0, 113, 90], [203, 0, 113, 90]),
        (["203", "0", "113", "9"], "203.0.113.xxx"),
        (b"\xcb\x00q\x09", "203.0.113.xxx"),
        (b"\xcb\x00q\x0a", "\\xcb\x00q\n"),
        (b"\x00" * 10 + b"\xff\xff\xcb\x00q\x09", "203.0.113.xxx"),
        ({"a": [3405803785]}, {"a": ["203.0.113.xxx"]}),
    ],
)
def test_numbers_that_are_the_own_address_are_masked(value: Any, kept: Any) -> None:
    """As one number, as bytes, or as four numbers in a row; others stay what they are."""
    given_values = {"user": "alice", "ip": "203.0.113.9", "context": {"n": value}}
    assert build_event(ACTION, given_values, IDS).context == {"n": kept}


V6 = ip_address("2001:db8:1:2:3:4:5:6789")


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        (list(V6.packed), "2001:db8:1:2:3:4:5:xxxx"),
        (V6.exploded.split(":"), "2001:db8:1:2:3:4:5:xxxx"),
        (V6.exploded.upper().split(":"), "2001:db8:1:2:3:4:5:xxxx"),
        (str(V6).split(":"), "2001:db8:1:2:3:4:5:xxxx"),
        (tuple(int(group, 16) for group in str(V6).split(":")), "2001:db8:1:2:3:4:5:xxxx"),
        ([1, *V6.packed, 443], [1, "2001:db8:1:2:3:4:5:xxxx", 443]),
        (str(list(V6.packed)), "[2001:db8:1:2:3:4:5:xxxx]"),
        (f"from {V6.packed[0]},{','.join(map(str, V6.packed[1:]))}.", "from 2001:db8:1:2:3:4:5:xxxx."),
        ([*V6.packed[:15], V6.packed[15] - 1], [*V6.packed[:15], V6.packed[15] - 1]),
        (f"{V6.packed[0]}, 1", "32, 1"),
    ],
    ids=repr,
)
def test_numbers_that_are_the_own_address_in_ipv6_are_masked(value: Any, kept: Any) -> None:
    """As sixteen octets or eight groups in a row, in a list or in its text; others stay what they are."""
    given_values = {"user": "alice", "ip": str(V6), "context": {"n": value}}
    assert build_event(ACTION, given_values, IDS).context == {"n": kept}


@pytest.mark.parametrize("character", ["x", "é", '"', "👍"])
def test_what_a_long_value_was_cut_from_is_told_in_bytes(character: str) -> None:
    """The size is that of the canonical form, as the limit is."""
    context = {"body": character * 100_000}
    made(f"context: cut from {len(canonical_json(context)):,} bytes to 65,", context=context)


@pytest.mark.parametrize("field", ["target", "user", "key", "detail", "value"])
def test_the_address_in_which_a_long_text_is_left_is_not_kept(field: str) -> None:
    """However the address is spelled and wherever the search ends, all that is kept is masked, and is all that fits."""
    spelling = "0000%3A0000%3A0000%3A0000%3A0000%3A0000%3A000%2E000%2E000%2E119"
    for shift in range(64):
        text = "x" * shift + f"{spelling} " * 20_000
        event = build_event(ACTION, {"user": "a", "ip": "::77", **long_values(field, text)}, IDS)
        whole = {"key": "".join(event.context), "value": event.context.get("a", "")}
        shown = whole.get(field) or getattr(event, field)
        assert set(shown.lstrip("x")) <= set(":x ")
        assert len(shown) >= {"key": 512, "detail": 65_536, "value": 65_000}.get(field, 1024)


def test_the_size_of_a_text_that_can_hold_no_address_is_said_exactly() -> None:
    """What needs no search is measured whole, whatever its length."""
    made("detail: cut from 3,000,000 bytes to 65,536", detail="x" * 3_000_000)
    made("target: cut from 3,000,000 characters to 1,024", target="€" * 3_000_000)
    made("context: cut from 3,000,008 bytes", context={"a": "x" * 3_000_000})


def test_long_names_of_organisations_stay_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """All of a name counts, megabytes of it, also where it looks like addresses."""
    names = [f"{'10.0.0.5 ' * 300_000}{end}" for end in "ab"]
    assert len({build_event(ACTION, {"org": name, "ip": "10.0.0.5"}, IDS).org for name in names}) == 2


def test_records_are_mappings_so_that_their_secrets_are_redacted() -> None:
    """A dataclass, a named tuple or a model is kept field by field, not as a text with everything in it."""

    @dataclass
    class Account:
        name: str
        password: str

    Login = namedtuple("Login", "user token")
    event = made(context={"account": Account("alice", "hunter2"), "login": Login("bob", "abc")})
    assert event.context == {
        "account": {"name": "alice", "password": "[redacted]"},
        "login": {"user": "bob", "token": "[redacted]"},
    }


@pytest.mark.parametrize(
    ("given", "taken"), [("failed", "failure"), (False, "failure"), ("Failure", "failure"), ("maybe", "success")]
)
def test_what_did_not_succeed_does_not_read_as_done(given: Any, taken: str) -> None:
    """An outcome that is not allowed, but says failure, is taken as one; each is a problem."""
    assert made(f"outcome: allowed are success and failure; taken as {taken}", outcome=given).outcome == taken


def test_an_organisation_never_becomes_another() -> None:
    """Neither masking nor cutting makes one organisation's name another's, however long or odd it is."""
    assert made(org=IP).org == IP
    long = [build_event(ACTION, {"org": "A" * 256 + end}, IDS).org for end in ("", "x", "y")]
    assert len({*long, "A" * 256}) == 3
    assert {len(name) for name in long} == {256}


def test_many_keys_that_become_alike_cost_little() -> None:
    """Thousands of keys that are the same once cleaned are numbered in time that grows with their number only."""
    started = time.process_time()
    context = {chr(0xD800 + number % 1024) * (1 + number // 1024): 1 for number in range(8000)}
    event = build_event(ACTION, {"context": {"\ud800" * 600 + str(number): 1 for number in range(8000)} | context}, IDS)
    assert event.problems
    assert time.process_time() - started < 5


class Undecided:
    def __bool__(self) -> bool:
        raise ValueError


def test_a_value_that_is_neither_true_nor_false_is_a_problem() -> None:
    """An outcome such as an array, which refuses to be a truth value, is one more wrong outcome."""
    event = build_event(ACTION, {"outcome": Undecided()}, IDS)
    assert event.outcome == "success"
    assert any(problem.startswith("outcome") for problem in event.problems)


def test_the_order_of_a_set_tells_nothing_of_a_masked_address() -> None:
    """It is that of what is kept: the place of the own address among its neighbours would bracket it."""
    others = {"10.0.0.1", "10.0.0.50", "10.0.0.250"}
    kept = {
        str(build_event(ACTION, {"ip": own, "context": {"known": {own, *others}}}, IDS).context)
        for own in ("10.0.0.2", "10.0.0.49", "10.0.0.51", "10.0.0.9")
    }
    assert len(kept) == 1
