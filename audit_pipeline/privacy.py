"""What must not be seen: IP addresses in full, and secrets. Also the one projection of an entry to the outside.

Everything that leaves this package for a person goes through `public_item` or `public_details`. They name what may
go out; whatever they do not name stays inside.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import fields
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from itertools import groupby
from typing import Any

from .event import REPLACED_TIMESTAMP, AuditEvent, canonical_json, format_timestamp

__all__ = [
    "REDACTED",
    "is_secret_key",
    "mask_ip",
    "mask_own_address",
    "may_hold_address",
    "network_key",
    "network_range",
    "normalize_ip",
    "parse_network",
    "public_details",
    "public_item",
    "same_content",
]

REDACTED = "[redacted]"
"""What stands in place of a secret."""

_MASKED_V4 = re.compile(r"((?:\d{1,3}\.){3})xxx\Z", re.ASCII)
_MASKED_V6 = re.compile(r"([0-9a-f:]{1,34}:)xxxx\Z", re.ASCII | re.IGNORECASE)


# Addresses

_OCTET = r"(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
_USUAL_V4 = re.compile(rf"(?:{_OCTET}\.){{3}}{_OCTET}\Z")
MAX_ADDRESS = 256
"""Characters in an address and its zone."""


@lru_cache(maxsize=2**14)
def _parse(text: str) -> IPv4Address | IPv6Address:
    # A zone id may hold anything, and 3.11 accepts it: it goes before parsing. The longest address has 45 characters.
    if len(text) > MAX_ADDRESS or "/" in text:
        raise ValueError("not an IP address")
    address = ip_address(text.partition("%")[0])
    if isinstance(address, IPv6Address):
        return address.ipv4_mapped or address
    return address


def normalize_ip(text: str) -> str | None:
    """An address in its one usual form (RFC 5952 for IPv6, IPv4-mapped as IPv4, no zone), or None where it is none."""
    # Longer ones are kept out of the cache, and so out of memory.
    return _normalized(text) if len(text) <= MAX_ADDRESS else None


@lru_cache(maxsize=4096)
def _normalized(text: str) -> str | None:
    if _USUAL_V4.match(text):  # most are
        return text
    try:
        return str(_parse(text))
    except ValueError:
        return None


def mask_ip(text: str | None) -> str:
    """An address as people may see it: `192.168.1.xxx`, `2001:db8::xxxx`; empty for what is no address.

    The last octet, or the last 16-bit group, is hidden so that two addresses that differ only there look the same.
    A masked address comes back as it is.
    """
    return _masked(text) if text and len(text) <= MAX_ADDRESS else ""


@lru_cache(maxsize=4096)
def _masked(text: str) -> str:
    if _USUAL_V4.match(text):
        return text.rpartition(".")[0] + ".xxx"
    try:
        address = _parse(text)
    except ValueError:
        return text if _is_masked(text) else ""
    if isinstance(address, IPv4Address):
        return str(address).rpartition(".")[0] + ".xxx"
    return str(IPv6Address(int(address) | 0xFFFF)).rpartition(":")[0] + ":xxxx"


def _is_masked(text: str) -> bool:
    filled = _fill(text)
    return filled is not None and _masked(filled) == text


def _fill(masked: str) -> str | None:
    """One address behind a masked one; None where it is not masked."""
    if match := _MASKED_V4.match(masked):
        return normalize_ip(match[1] + "255")
    if match := _MASKED_V6.match(masked):
        filled = normalize_ip(match[1] + "ffff")
        return filled if filled and ":" in filled else None  # an IPv4-mapped one is not masked in this form
    return None


def parse_network(text: str) -> IPv4Network | IPv6Network:
    """The network that an `ip` filter names: `10.0.0.0/8`, `2001:db8::/32`, `192.168.1.xxx`, `2001:db8::xxxx`.

    Host bits are ignored. Raises ValueError for anything finer than IPv4 /24 or IPv6 /112, since that would tell
    what the mask hides, and for what is no network.
    """
    allowed = (
        "allowed are IPv4 networks of /24 or wider, IPv6 networks of /112 or wider, "
        "or a masked address as shown, such as 192.168.1.xxx or 2001:db8::xxxx"
    )
    filled = _fill(text)
    if filled is not None:
        text = f"{filled}/{24 if '.' in filled else 112}"
    try:
        if len(text) > 64 or "%" in text:
            raise ValueError("too long for a network, or with a zone")
        network = ip_network(text, strict=False)
    except ValueError:
        raise ValueError(f"not a network; {allowed}") from None
    if isinstance(network, IPv6Network) and network.network_address.ipv4_mapped and network.prefixlen >= 96:
        network = IPv4Network((network.network_address.ipv4_mapped, network.prefixlen - 96))
    if network.prefixlen > (24 if network.version == 4 else 112):
        raise ValueError(f"finer than the masked part of an address; {allowed}")
    return network


@lru_cache(maxsize=4096)
def network_key(ip: str | None) -> str:
    """What a store may index of an address: its masked network as fixed-width text; empty for no address.

    The hidden part is zero in it, so that no query of a store can tell what the mask hides.
    """
    if not ip:
        return ""
    return _key(_parse(_fill(ip) or ip))


def _key(address: IPv4Address | IPv6Address) -> str:
    if isinstance(address, IPv4Address):
        return f"4{int(address) & ~0xFF:08x}"
    return f"6{int(address) & ~0xFFFF:032x}"


@lru_cache(maxsize=1024)
def network_range(network: IPv4Network | IPv6Network) -> tuple[str, str]:
    """The first and the last `network_key` inside a network."""
    # Not by their text: `::/80` is IPv6, and ends where the IPv4-mapped addresses do.
    return _key(network[0]), _key(network[-1])


# The entry's own address inside its texts

LONGEST = 12
"""The shortest mask, `::xxxx`, stands for `0000%253A0000%253A…%253A000%252E000%252E000%252E000`: 82 characters for 7,
with the one that stands between two of them."""

# In `%5B2001%3Adb8…` and `%2010.0.0.5`, the digits of the escape are none of the address; nor in one encoded twice.
_AFTER_ESCAPE = "(?:(?<=%[0-9A-F][0-9A-F])|(?<=%25[0-9A-F][0-9A-F]))"
# Full-width forms, and what else is read as a dot, in names of hosts too (UTS 46).
_WIDE = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)} | dict.fromkeys(
    map(ord, "\u2024\u3002\ufe52\uff61"), "."
)
_HAS_WIDE = re.compile("[\uff01-\uff5e\u2024\u3002\ufe52\uff61]")


def may_hold_address(text: str) -> bool:
    """Whether any address could stand in a text: what has neither three dots nor two colons holds none.

    In names of hosts (`ip-10-0-0-5`), other characters stand for dots.
    """
    return (
        text.count(".") > 2
        or text.count(":") > 1
        or text.count("-") > 2
        or text.count("_") > 2
        or "%2" in text
        or "%3" in text
        or (not text.isascii() and _HAS_WIDE.search(text) is not None)
    )


def mask_own_address(text: str, ip: str | None) -> str:
    """The text with every occurrence of this address masked, in whichever spelling.

    Where it is unclear whether an address ends there (`10.0.0.5.1`, `2001:db8::1:80`) it is masked. No spelling is
    LONGEST times as long as its mask, with the character that divides it from the next one.
    """
    if not ip or not may_hold_address(text):
        return text
    if normalize_ip(ip) is None:  # masked already: the full one is not known here
        return text
    address = _parse(ip)
    if isinstance(address, IPv6Address):
        return _mask_v6(text, address, mask_ip(ip))
    plain = _plain(text)
    # A pattern takes a while to make: first see whether each part of the address is there at all.
    if all(part in plain for part in str(address).split(".")):
        text = _replaced(_v4_pattern(str(address)), text, plain, mask_ip(ip))
    return _mask_v6(text, IPv6Address(f"::ffff:{address}"), mask_ip(ip))


def _plain(text: str) -> str:
    """The text with the usual character for each wide one, at the same places."""
    return text if text.isascii() or not _HAS_WIDE.search(text) else text.translate(_WIDE)


def _replaced(pattern: re.Pattern[str], text: str, plain: str, masked: str) -> str:
    """The text without what a pattern finds in its plain form."""
    if plain is text:
        return pattern.sub(masked, text)
    pieces, end = [], 0
    for found in pattern.finditer(plain):
        pieces += [text[end : found.start()], masked]
        end = found.end()
    return "".join([*pieces, text[end:]])


@lru_cache(maxsize=4096)
def _v4_pattern(ip: str) -> re.Pattern[str]:
    address = IPv4Address(ip)
    forms = rf"{_dotted(int(address), _IN_NAMES)}(?!\d)|{_reversed(address)}"
    return re.compile(rf"(?:(?<!\d)|{_AFTER_ESCAPE})(?:{forms})", re.ASCII | re.IGNORECASE)


def _reversed(address: IPv4Address | IPv6Address) -> str:
    """The pattern of an address as the name service asks for it, without its domain."""
    number, domain = re.split(r"\.(?=in-addr|ip6)", address.reverse_pointer)
    return rf"{re.escape(number)}(?=\.{re.escape(domain)})"


def _mask_v6(text: str, address: IPv6Address, masked: str) -> str:
    plain = _plain(text)
    lowered = plain.lower()
    if "ip6.arpa" in lowered:
        text = _replaced(re.compile(rf"(?<![0-9a-f]){_reversed(address)}", re.IGNORECASE), text, plain, masked)
        plain = _plain(text)
        lowered = plain.lower()
    if plain.count(":") < 2 and "%3" not in plain and "%253" not in plain:
        return text
    # The pattern takes milliseconds to make: first see whether each group of the address is there at all.
    value = int(address)
    groups = [f"{value >> shift & 0xFFFF:x}" for shift in range(112, -1, -16)]
    if not all(group in lowered for group in groups[:6] if group != "0"):
        return text
    if str(value & 0xFF) not in lowered and not all(group in lowered for group in groups[6:] if group != "0"):
        return text
    return _replaced(_v6_pattern(address), text, plain, masked)


@lru_cache(maxsize=1024)
def _v6_pattern(address: IPv6Address) -> re.Pattern[str]:
    # What must not stand before and after is said once, not for each form: at most places of a text it fails.
    forms = "|".join(_v6_forms(address))
    return re.compile(rf"(?:(?<![0-9A-F])|{_AFTER_ESCAPE})(?:{forms})(?![0-9A-F])", re.IGNORECASE | re.ASCII)


_COLON = "(?::|%(?:25)?3A)"
_DOT = r"\.|%(?:25)?2E"
_IN_NAMES = rf"{_DOT}|[-_]|\[\.\]"
"""What stands for a dot in names of hosts (`ip-10-0-0-5`), and where nothing may become a link."""
_ZERO = "0{1,4}"


def _v6_forms(address: IPv6Address) -> list[str]:
    """Patterns of every way to write an IPv6 address: `::` at each run of zeros, leading zeros, dotted tail.

    There are scores of ways to set the `::`, but few forms: how many zeros stand before and after it is counted, not
    spelled out, since each form is tried at each place of a text. Those with a dotted tail come first: without it,
    their beginning is an address too.
    """
    value = int(address)
    groups = [value >> 16 * (7 - place) & 0xFFFF for place in range(8)]
    forms = []
    for zeros, tail in ((groups[:6], [_dotted(value & 0xFFFF_FFFF)]), (groups, [])):
        parts = [_group(group) for group in zeros]
        forms.append(_COLON.join(parts + tail))
        end = 0
        for zero, run in groupby(zeros, lambda group: group == 0):
            start, end = end, end + len(list(run))
            if zero:
                forms.append(_shortened(parts[:start], end - start, parts[end:] + tail))
    return forms


def _shortened(before: list[str], zeros: int, after: list[str]) -> str:
    """The pattern of an address with `::` for some or all of a run of zeros."""
    some = f"(?:{_ZERO}{_COLON})"
    if before:
        opening = f"{_COLON.join(before)}{_COLON}{some}{{0,{zeros - 1}}}{_COLON}"
    else:
        opening = f"(?:{_COLON}|{some}{{1,{zeros}}}){_COLON}"
    if after:
        return f"{opening}{some}{{0,{zeros - 1}}}{_COLON.join(after)}"
    return f"{opening}(?:{some}{{0,{zeros - 1}}}{_ZERO})?"


def _dotted(value: int, divider: str = _DOT) -> str:
    return f"(?:{divider})".join(f"0{{0,2}}{value >> shift & 0xFF}" for shift in (24, 16, 8, 0))


def _group(group: int) -> str:
    return f"{group:x}" if group > 0xFFF else f"0{{0,{4 - len(f'{group:x}')}}}{group:x}"


# Secrets

_SECRET_PARTS = (
    "password", "passwd", "passphrase", "passcode", "pwd", "secret", "token", "apikey", "authorization", "cookie",
    "credential", "privatekey", "accesskey", "signingkey", "encryptionkey", "sessionid", "sessid", "jwt", "bearer",
)  # fmt: skip
_SECRET_WORDS = frozenset(("pass", "pw", "psk", "pin", "otp", "totp", "cvv", "cvc"))
# As in `dbpass`, but not these.
_OTHER_PASS = frozenset(("bypass", "compass", "encompass", "overpass", "surpass", "trespass", "underpass"))
_WORDS = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|\d+")
_NO_LETTERS = re.compile(r"[\W_]+")


@lru_cache(maxsize=4096)
def is_secret_key(key: str) -> bool:
    """Whether a key looks as if its value were a secret: `password`, `smtp_pass`, `X-API-Key`, `accessToken` …"""
    key = unicodedata.normalize("NFKC", key)
    letters = _NO_LETTERS.sub("", key.lower())
    if any(part in letters for part in _SECRET_PARTS):
        return True
    words = [word.lower() for word in _WORDS.findall(key)]
    return any(word in _SECRET_WORDS or (word.endswith("pass") and word not in _OTHER_PASS) for word in words)


# Repetitions

_COMES = frozenset(("received", "origin", "sequence", "label", "category", "tone"))
"""How and when an entry came here, and what its action is called."""
_SAYS = tuple(field.name for field in fields(AuditEvent) if field.name not in _COMES)


def same_content(event: AuditEvent, stored: AuditEvent) -> bool:
    """Whether an entry says the same as the stored one with its id, so that it is a repetition.

    Addresses count as they are shown: else whoever sends an id again, with one address after the other, could see by
    what is refused which one is stored. A timestamp that stands for an unusable one does not count.
    """
    replaced = any(problem.startswith(REPLACED_TIMESTAMP) for problem in event.problems)
    names = [name for name in _SAYS if not (replaced and name == "timestamp")]
    # The bytes are compared: to Python, 1 and True are equal.
    said, known = (
        canonical_json({name: getattr(one, name) for name in names} | {"ip": mask_ip(one.ip)})
        for one in (event, stored)
    )
    return said == known


# The projection to the outside


def public_item(event: AuditEvent) -> dict[str, Any]:
    """An entry as a list shows it, with its address masked."""
    return {
        "id": event.id,
        "timestamp": format_timestamp(event.timestamp),
        "action": event.action,
        "label": event.label,
        "category": event.category,
        "tone": event.tone,
        "target": event.target,
        "detail": event.detail,
        "user": event.user,
        "ip": mask_ip(event.ip),
        "outcome": event.outcome,
    }


def public_details(event: AuditEvent) -> dict[str, Any]:
    """An entry as it is shown alone: also with its context, its problems, and when it was received."""
    return public_item(event) | {
        "context": dict(event.context),
        "problems": list(event.problems),
        "received": format_timestamp(event.received),
    }
