"""What must not be seen: IP addresses in full, and secrets. Also the one projection of an entry to the outside.

Everything that leaves this package for a person goes through `public_item` or `public_details`. They name what may
go out; whatever they do not name stays inside.
"""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields, replace
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from itertools import groupby, pairwise
from typing import Any

from .event import REPLACED_TIMESTAMP, AuditEvent, canonical_json, format_timestamp

__all__ = [
    "REDACTED",
    "content",
    "is_secret_key",
    "mask_beginning",
    "mask_entry",
    "mask_ip",
    "mask_own_address",
    "mask_own_numbers",
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
with the one that stands between two of them. Odder spellings may be longer (see `mask_beginning`)."""
LONGEST_PLAIN = 100
"""Characters of any spelling once it is decoded, with an escape that is cut off."""
PASSES = 3
"""How often a text is gone through: what is masked may have been the end of something that hid another one."""

_MAY_HOLD = re.compile("[0-9:]")
_MAY_HIDE = re.compile("[%&=\\\\\x80-\U0010ffff]")
_UNUSUAL = re.compile("[^\x00-\x7f]")
# Next to an address, these are no part of it in any spelling, unless a dot is spelled out or stands in brackets.
_OPENS = frozenset(" \t\r\n\"'([{<=/@;|")
_CLOSED = re.compile(r"""[.,:]?(?:[\s"')\]}>/;|]|\Z)""", re.ASCII)
_SPOKEN_DOT = re.compile(r"dot|[\[({<]\.", re.IGNORECASE)
# Encoded in URLs (also twice and more often), quoted-printable, HTML, JSON, Python and regular expressions. Of
# quoted-printable the dividers only: in `ip=20.1.2.3` nothing is encoded.
_ESCAPE = re.compile(
    r"%(?:25){0,3}([2-7][0-9A-F])|=(2E|3A|2D|5F)|&\#x0{0,4}([0-9A-F]{2,5});|\\x([0-9A-F]{2})|[\\%]u([0-9A-F]{4})"
    r"|&\#0{0,4}([0-9]{2,6});|&(period|colon|hyphen|lowbar|comma|shy);|\\{1,4}(?=[.:\[\]_-])|=\r?\n",
    re.ASCII | re.IGNORECASE,
)
_NAMED = {"period": ".", "colon": ":", "hyphen": "-", "lowbar": "_", "comma": ",", "shy": ""}
# What else is read as a dot, in names of hosts too (UTS 46).
_DOTS = "\u2024\u3002\ufe52\uff61"


class _Plain(dict[int, str]):
    """The usual form of each character: of wide, mathematical and other digits, of dashes; of invisible ones, none."""

    def __missing__(self, code: int) -> str:
        character = chr(code)
        kind = unicodedata.category(character)
        digit = unicodedata.decimal(character, None)
        if digit is not None:
            shown = str(digit)
        elif kind in ("Cf", "Mn", "Me"):
            shown = ""
        elif kind == "Pd":
            shown = "-"
        else:
            shown = "." if character in _DOTS else unicodedata.normalize("NFKC", character)
        if not shown.isascii():  # of no use in an address: one for one, so that nothing has to be moved for it
            shown = character
        self[code] = shown
        return shown


_PLAIN = _Plain()


def may_hold_address(text: str) -> bool:
    """Whether any address could stand in a text: what has neither a digit nor a colon, in any script, holds none."""
    return _MAY_HOLD.search(text) is not None or (not text.isascii() and _is_unusual(text))


def _is_unusual(text: str) -> bool:
    """Whether a text has characters that stand for others, or for none."""
    return any(_PLAIN[ord(character)] != character for character in set(text))


def mask_own_address(text: str, ip: str | None) -> str:
    """The text with every occurrence of this address masked, in whichever spelling.

    It is looked for in what the text is once decoded, and then in the text as it stands. Where it is unclear whether an
    address ends there (`10.0.0.5.1`, `2001:db8::1:80`) it is masked. Masked once more, the text is the same.
    """
    if not ip or not may_hold_address(text):
        return text
    signs = _signs(ip)
    if signs is None:  # masked already: the full one is not known here
        return text
    for _ in range(PASSES):
        if _MAY_HIDE.search(text):
            text = _masked_behind(text, ip, signs)
        if not _has_signs(text, signs):
            break
        masked = _masked_plain(text, ip, signs)
        if masked is not None:
            return masked
        before, text = text, _pattern(ip).sub(mask_ip(ip), text)
        if text == before:
            break
    return text


def mask_own_numbers(values: list[Any], ip: str) -> list[Any] | str:
    """A list with this address masked, where its numbers (or their texts) in a row are that address.

    A list that is the address and nothing else becomes its mask.
    """
    mask = mask_ip(ip)
    if len(values) < 4 or mask == ip:
        return values
    shown = [str(value) if type(value) is int else value.lower() if type(value) is str else value for value in values]
    for own in _rows(ip):
        place, size = 0, len(own)
        while place <= len(shown) - size:
            if shown[place : place + size] == own:
                if len(shown) == size:
                    return mask
                values = [*values[:place], mask, *values[place + size :]]
                shown = [*shown[:place], mask, *shown[place + size :]]
            place += 1
    return values


@lru_cache(maxsize=1024)
def _rows(ip: str) -> tuple[list[str], ...]:
    """The rows of numbers that are an address: four octets in both orders, sixteen, or eight groups."""
    address = _parse(ip)
    octets = [str(octet) for octet in address.packed]
    if address.version == 4:
        return octets, octets[::-1]
    if not int(address) >> 64:  # zeros and a number may be anything
        return ()
    groups = [int(address) >> shift & 0xFFFF for shift in range(112, -1, -16)]
    return octets, [f"{group:04x}" for group in groups], [f"{group:x}" for group in groups], list(map(str, groups))


def _masked_plain(text: str, ip: str, signs: Signs) -> str | None:
    """The text with the address masked where it stands alone in its usual form; None where it may stand otherwise too.

    Most texts are so, and a pattern takes milliseconds to make: who tries thousands of addresses must not slow the log.
    """
    pieces = text.split(str(_parse(ip)))
    if _SPOKEN_DOT.search(text) or any(_has_signs(piece, signs) for piece in pieces):
        return None
    for number, (before, after) in enumerate(pairwise(pieces)):
        opened = before[-1] in _OPENS and before[-2:] != ", " if before else number == 0
        if not opened or not _CLOSED.match(after):
            return None
    return mask_ip(ip).join(pieces)


def _masked_behind(text: str, ip: str, signs: Signs) -> str:
    """The text with the address masked where it stands in what the text is once decoded."""
    views = _views(text)
    if views[-1] == text or not _has_signs(views[-1], signs):
        return text
    pieces, end = [], 0
    for start, following in _behind([found.span() for found in _pattern(ip).finditer(views[-1])], views):
        pieces += [text[end:start], mask_ip(ip)]
        end = following
    return "".join([*pieces, text[end:]])


def mask_beginning(text: str, ip: str) -> str:
    """As `mask_own_address`, for the beginning of a longer text: without its end, where an address may be cut off."""
    masked = mask_own_address(text, ip)
    size = LONGEST_PLAIN
    while size < len(masked) and len(_views(masked[-size:])[-1]) < 2 * LONGEST_PLAIN:
        size *= 2
    tail = masked[-size:]
    views = _views(tail)
    length = len(views[-1])
    if length <= LONGEST_PLAIN:
        return ""
    ((start, _),) = _behind([(length - LONGEST_PLAIN, length)], views)
    return masked[: len(masked) - len(tail) + start]


def _views(text: str) -> list[str]:
    """The text, the same with the usual character for each unusual one, and that with its escapes decoded."""
    plain = text.translate(_PLAIN) if not text.isascii() and _is_unusual(text) else text
    return [text, plain, _ESCAPE.sub(_decoded, plain)]


def _unescaped(number: int) -> str:
    return _PLAIN[number] if number < 0x11_0000 else ""


def _decoded(found: re.Match[str]) -> str:
    """What an escape stands for; a backslash alone, and the end of a line that goes on, for nothing."""
    kind = found.lastindex
    if kind is None:
        return ""
    if kind == 7:
        return _NAMED[found[7].lower()]
    return _unescaped(int(found[kind], 10 if kind == 6 else 16))


def _behind(spans: Sequence[tuple[int, int]], views: Sequence[str]) -> list[tuple[int, int]]:
    """Where in the text the spans of its last view stand."""
    text, plain, _ = views
    found = _before(spans, plain, _ESCAPE, _decoded)
    return found if plain is text else _before(found, text, _UNUSUAL, lambda one: _PLAIN[ord(one[0])])


def _before(
    spans: Sequence[tuple[int, int]], text: str, pattern: re.Pattern[str], shown: Callable[[re.Match[str]], str]
) -> list[tuple[int, int]]:
    """Where spans stood before what a pattern finds in a text was replaced."""
    if not spans:
        return []
    # What was found: where what is shown of it begins, and how long that is; and from where to where it stands.
    shown_at, sizes, starts, ends = [0], [0], [0], [0]
    at = 0
    for found in pattern.finditer(text):
        start, end = found.span()
        at += start - ends[-1]
        size = len(shown(found))
        shown_at.append(at)
        sizes.append(size)
        starts.append(start)
        ends.append(end)
        at += size

    def stood(place: int) -> tuple[int, int]:
        last = bisect_right(shown_at, place) - 1
        beyond = place - shown_at[last] - sizes[last]
        return (starts[last], ends[last]) if beyond < 0 else (ends[last] + beyond, ends[last] + beyond + 1)

    return [(stood(start)[0], stood(end - 1)[1]) for start, end in spans]


def _has_signs(text: str, signs: Signs) -> bool:
    """Whether a text has all the numbers of one notation of an address."""
    lowered = text.lower()
    for numbers in signs:
        for spellings in numbers:
            for spelling in spellings:
                if spelling in lowered:
                    break
            else:
                break
        else:
            return True
    return False


Signs = tuple[tuple[tuple[str, ...], ...], ...]
"""Notations, the numbers in each, and how each of them may be spelled."""


@lru_cache(maxsize=4096)
def _signs(ip: str) -> Signs | None:
    """For each notation of an address, the numbers that are in it, the rarest first; None for what is no address."""
    if normalize_ip(ip) is None:
        return None
    address = _parse(ip)
    value = int(address)
    octets = [value >> shift & 0xFF for shift in (24, 16, 8, 0)]
    groups = [f"{value >> shift & 0xFFFF:x}" for shift in range(address.max_prefixlen - 16, -1, -16)]
    # Without any number, `::ffff:0:0` or `::`.
    signs = [
        _rarest((group,) for group in groups if group != "0") or ((("ffff",) if address.version == 4 else (":",)),)
    ]
    if isinstance(address, IPv4Address):
        signs.append(_rarest(_OCTETS[octet] for octet in octets))
        signs.append((tuple(_integers(address)),))
        signs += [_rarest((f"{number}",) for number in numbers) for numbers in _short(address)]
    else:
        signs.append(_rarest((number,) for number in [*(g for g in groups[:6] if g != "0"), *map(str, octets)]))
        nibbles = f"{value:032x}"
        rows = [divider.join(part) for part in (nibbles[-9::-1], nibbles[:24]) for divider in (".", "-")]
        if value >> 64:
            rows.append(str(value))
            signs.append(_rarest((f"{octet}",) for octet in address.packed))
        signs.append((tuple(rows),))
        if (inner := _carried(address)) is not None:
            signs += _signs(str(inner)) or ()
    return tuple(signs)


_OCTETS = [(f"{octet}", f"0{octet:o}", f"x{octet:x}", f"x0{octet:x}") for octet in range(256)]
"""How each of the four numbers may be spelled: decimal, octal or hexadecimal."""


def _rarest(numbers: Iterable[tuple[str, ...]]) -> tuple[tuple[str, ...], ...]:
    return tuple(sorted(set(numbers), key=_length, reverse=True))


def _length(spellings: tuple[str, ...]) -> int:
    return len(spellings[0])


@lru_cache(maxsize=1024)
def _pattern(ip: str) -> re.Pattern[str]:
    """The pattern of an address, in every notation. What is masked already is not found again."""
    address = _parse(ip)
    return re.compile(_v4(address) if isinstance(address, IPv4Address) else _v6(address), re.ASCII | re.IGNORECASE)


def _v4(address: IPv4Address) -> str:
    # What a form can begin with is said once, too.
    return rf"(?=[0-9A-F:-])(?:(?<!\d){_ENCODED})(?:{'|'.join(_v4_forms(address))})"


def _v6(address: IPv6Address) -> str:
    # What must not stand before and after is said once, not for each form: at most places of a text it fails.
    octets = ", ?".join(map(str, address.packed))
    whole = [octets, _whole(int(address))] if int(address) >> 64 else []  # `1` is not `::1`
    forms = "|".join([*_v6_forms(address), *_nibbles(address), *whole])
    # Several in a row are one: else the mask of the first would make the second one stand alone, for the next time.
    pattern = rf"(?:(?<![0-9A-F]){_ENCODED})(?:(?:{forms})(?![0-9A-F]|:?xxxx))++"
    inner = _carried(address)
    return pattern if inner is None else f"{pattern}|{_v4(inner)}"


def _carried(address: IPv6Address) -> IPv4Address | None:
    """The IPv4 address whose last part is hidden with that of an IPv6 one: NAT64 (RFC 6052), and IPv4-compatible."""
    prefix, value = divmod(int(address), 2**32)
    return IPv4Address(value) if prefix == 0x64FF9B << 64 or (prefix == 0 and value >> 24) else None


# The last byte of an encoded character stands before the address: `=20`, `%C2%A0`, `%25A2`, `\302\240`.
_ENCODED = r"|(?<=[=%][0-9A-F]{2})|(?<=%25[0-9A-F]{2})|(?<=\\[0-3][0-7]{2})"
_ZERO = "0{1,4}"
_DIVIDER = r"(?:[._-]|, ?| ?(?:[\[({<]\.[\])}>]|[\[({<]?dot[\])}>]?) ?)"
"""What stands between the numbers of an IPv4 address: a dot; in names of hosts (`ip-10-0-0-5`) and in FTP something
else; and what is written where nothing may become a link."""


def _v4_forms(address: IPv4Address) -> list[str]:
    """Patterns of every way to write an IPv4 address: four numbers in both orders (as the name service and block lists
    ask for it), one number, and the last or any two groups of an IPv6 address."""
    value = int(address)
    numbers = [
        f"(?:0{{0,2}}{octet}(?![0-9])|0x0?{octet:x}(?![0-9A-F])|0{{1,3}}{octet:o}(?![0-9]))"
        for octet in address.packed
    ]  # fmt: skip
    forms = [*_provider_forms(address), _DIVIDER.join(numbers), _DIVIDER.join(reversed(numbers))]
    forms += [rf"{'[.]'.join(map(str, numbers))}(?![0-9.])" for numbers in _short(address)]
    high, low = value >> 16, value & 0xFFFF
    if high <= 0xFF or not low:  # the least certain, and where `::` can stand for a part: as IPv4-mapped only
        # With dots it is the form above, as for others: the masked text must not tell which one it is.
        mapped = "|".join(_v6_forms(IPv6Address(f"::ffff:{address}")))
        forms.append(f"(?<![0-9A-F])(?![0:]{{0,30}}FFFF:[0-9]+[.])(?:{mapped})(?![0-9A-F]|:?xxxx)")
    if high > 0xFF:  # others are as short as the number of anything
        beginning = "(?:(?<![0-9A-F:])(?:0{0,4}:){2,6}(?:FFFF:)?|(?<=:))"
        forms.append(f"{beginning}{_group(high)}:{_group(low)}(?![0-9A-F])")
        forms += map(_whole, _orders(address))
        forms += [
            rf"(?:(?<![A-Z])0x0?{number:x}|0{number:o}|{_bare(number)})(?![0-9A-Z])" for number in _orders(address)
        ]
        signed = [2**32 - number for number in _orders(address) if number >> 31]
        forms += [rf"(?<!x)-{number}(?![0-9])(?!\.\d)" for number in signed if number >> 24]
    return forms


def _orders(address: IPv4Address) -> list[int]:
    """An address as one number, and as C prints one that it took as it came over the network."""
    numbers = [int.from_bytes(address.packed, "big"), int.from_bytes(address.packed, "little")]
    return [number for number in numbers if number >> 24]


def _integers(address: IPv4Address) -> list[str]:
    """How an address is written as one number."""
    return [
        form for number in _orders(address) for form in (str(number), f"{number:x}", f"{number:o}", str(2**32 - number))
    ]


def _short(address: IPv4Address) -> list[tuple[int, ...]]:
    """An address of two or three numbers, as C's inet_aton takes it; not where it looks like a version or a number."""
    first, second, third, fourth = address.packed
    last = third << 8 | fourth
    return [(first, second, last)] * bool(third) + [(first, second << 16 | last)] * bool(second)


def _provider_forms(address: IPv4Address) -> list[str]:
    """Patterns of how providers name hosts after their addresses, beside the notations of one kind."""
    a, b, c, d = address.packed
    return [
        f"{a:03}{b:03}{c:03}{d:03}(?![0-9])",
        rf"{d}\.[A-Z]{{1,20}}-{a}-{b}-{c}(?![0-9])",
        rf"{d}-{c}-[A-Z]{{1,20}}\.{b}-{a}(?![0-9])",
        rf"{c}-{d}\.[A-Z]{{1,20}}{a}-{b}(?![0-9])",
        rf"{d}\.[0-9]{{1,3}}[/-][0-9]{{1,3}}\.{c}\.{b}\.{a}(?![0-9])",  # RFC 2317
    ]


def _whole(number: int) -> str:
    """The pattern of a number that is no part of a longer one, nor a fraction."""
    return rf"(?<![\dx]\.)0{{0,4}}{number}(?![0-9])(?!\.0*[1-9])"


def _bare(number: int) -> str:
    """The pattern of a number in hexadecimal without prefix, where it cannot be a decimal one."""
    text = f"{number:08x}"
    return f"(?<![0-9A-F])(?!0x){text}" if not text.isdigit() else f"(?:(?<![0-9A-Z])0x|(?<=[G-Z])){text}"


def _nibbles(address: IPv6Address) -> list[str]:
    """The patterns of an IPv6 address by its nibbles: as the name service asks for it, and in a row."""
    nibbles = f"{int(address):032x}"
    return [f"(?:0x)?{'[.-]?'.join(nibbles)}", "[.-]?".join(reversed(nibbles))]


def _v6_forms(address: IPv6Address) -> list[str]:
    """Patterns of every way to write an IPv6 address: `::` at each run of zeros, leading zeros, dotted tail.

    There are scores of ways to set the `::`, but few forms: how many zeros stand before and after it is counted, not
    spelled out, since each form is tried at each place of a text. Those with a dotted tail come first: without it,
    their beginning is an address too.
    """
    value = int(address)
    groups = [value >> 16 * (7 - place) & 0xFFFF for place in range(8)]
    # In names of hosts hyphens stand for colons; `--1` may be anything.
    colon = "[:_-]" if groups[0] > 0xFF else ":"
    dotted = r"\.".join(f"0{{0,2}}{octet}" for octet in address.packed[12:])
    forms = []
    for zeros, tail in ((groups[:6], [dotted]), (groups, [])):
        parts = [_group(group) for group in zeros]
        forms.append(colon.join(parts + tail))
        end = 0
        for zero, run in groupby(zeros, lambda group: group == 0):
            start, end = end, end + len(list(run))
            if zero:
                forms.append(_shortened(parts[:start], end - start, parts[end:] + tail, colon))
    return forms


def _shortened(before: list[str], zeros: int, after: list[str], colon: str) -> str:
    """The pattern of an address with `::` for some or all of a run of zeros."""
    some = f"(?:{_ZERO}{colon})"
    if before:
        opening = f"{colon.join(before)}{colon}{some}{{0,{zeros - 1}}}{colon}"
    else:
        opening = f"(?:{colon}|{some}{{1,{zeros}}}){colon}"
    if after:
        return f"{opening}{some}{{0,{zeros - 1}}}{colon.join(after)}"
    return f"{opening}(?:{some}{{0,{zeros - 1}}}{_ZERO})?"


def _group(group: int) -> str:
    return f"{group:x}" if group > 0xFFF else f"0{{0,{4 - len(f'{group:x}')}}}{group:x}"


# Secrets

_SECRET_PARTS = (
    "password", "passwd", "passphrase", "passcode", "pwd", "secret", "token", "apikey", "authorization", "cookie",
    "credential", "privatekey", "accesskey", "signingkey", "encryptionkey", "sessionid", "sessid", "jwt", "bearer",
    "privkey", "sshkey", "masterkey", "sharedkey", "hmackey", "sessionkey", "csrf", "xsrf", "authheader", "mfacode",
    "recoverycode", "backupcode", "accesscode", "codeverifier",
)  # fmt: skip
_SECRET_WORDS = frozenset(("pass", "pw", "psk", "pin", "otp", "totp", "cvv", "cvc", "creds", "dsn", "sid"))
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
_REQUEST = frozenset(("request_id", "user_agent"))
"""What the middleware adds of the request an entry came with: a client that asks again asks with another one."""


def same_content(event: AuditEvent, stored: AuditEvent) -> bool:
    """Whether an entry says the same as the stored one with its id, so that it is a repetition.

    Addresses count as they are shown: else whoever sends an id again, with one address after the other, could see by
    what is refused which one is stored. A timestamp that stands for an unusable one does not count.
    """
    replaced = any(problem.startswith(REPLACED_TIMESTAMP) for problem in event.problems)
    # The bytes are compared: to Python, 1 and True are equal.
    return content(event, timed=not replaced) == content(stored, timed=not replaced)


def content(event: AuditEvent, *, timed: bool = True) -> bytes:
    """What an entry says, as canonical bytes, with its address masked: what repetitions of it have alike."""
    said = {name: getattr(event, name) for name in _SAYS if timed or name != "timestamp"}
    about = {key: item for key, item in event.context.items() if key not in _REQUEST}
    return canonical_json(said | {"ip": mask_ip(event.ip), "context": about})


# What is kept masked


def mask_entry(event: AuditEvent) -> AuditEvent:
    """An entry with its address masked; the rest is as it was recorded, so that it stays the same entry."""
    masked = mask_ip(event.ip) or None
    return event if masked == event.ip else replace(event, ip=masked)


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
