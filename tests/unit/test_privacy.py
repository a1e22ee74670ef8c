"""Masking, networks, secrets, repetitions, and the projection to the outside."""

from __future__ import annotations

import re
import time
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from itertools import product
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from audit_pipeline import privacy
from audit_pipeline.event import REPLACED_TIMESTAMP, AuditEvent, uuid7
from audit_pipeline.privacy import (
    LONGEST,
    is_secret_key,
    mask_ip,
    mask_own_address,
    network_key,
    network_range,
    normalize_ip,
    parse_network,
    public_details,
    public_item,
    same_content,
)

v4 = st.integers(0, 2**32 - 1).map(IPv4Address)
# Zeros and small groups are what spellings differ in.
groups = st.sampled_from([0, 0, 0, 1, 2, 0x10, 0xDB8, 0xFFFF]) | st.integers(0, 0xFFFF)
v6 = st.lists(groups, min_size=8, max_size=8).map(
    lambda parts: IPv6Address(int.from_bytes(b"".join(part.to_bytes(2, "big") for part in parts), "big"))
)
real_v6 = v6.filter(lambda address: address.ipv4_mapped is None)
addresses = v4 | real_v6

NO_ADDRESSES = [
    "",
    " ",
    "1.2.3",
    "1.2.3.04",
    "1.2.3.256",
    "1.2.3.4.5",
    "1.2.3.4/24",
    "1.2.3.4:80",
    " 1.2.3.4",
    "1.2.3.4\n",
    "١.2.3.4",
    "[::1]",
    "[::1]:80",
    ":::",
    "1::2::3",
    "12345::",
    "::1/128",
    "2001:db8::g",
    "%eth0",
    "localhost",
    "0x7f000001",
    "2130706433",
    "xxx",
    "1.2.3.xxxx",
    "1.2.xxx.4",
    "01.2.3.xxx",
    "2001:0db8::xxxx",
    "2001:DB8::xxxx",
    "::ffff:102:xxxx",
    "1:2:3:4:5:6::xxxx",
    "a" * 10_240,
    "::" * 5_000,
    "fe80::1%" + "a" * 10_240,
    "\ud800",
]


# Masks


@pytest.mark.parametrize(
    ("ip", "masked"),
    [
        ("192.168.1.77", "192.168.1.xxx"),
        ("0.0.0.0", "0.0.0.xxx"),
        ("2001:db8::1", "2001:db8::xxxx"),
        ("2001:db8::", "2001:db8::xxxx"),
        ("1:2:3:4:5:6::", "1:2:3:4:5:6:0:xxxx"),
        ("1:2:3:4:5:6:7:8", "1:2:3:4:5:6:7:xxxx"),
        ("::1", "::xxxx"),
        ("::", "::xxxx"),
        ("::2:1", "::2:xxxx"),
        ("2001:0DB8:0:0::ABCD", "2001:db8::xxxx"),
        ("::ffff:192.168.1.77", "192.168.1.xxx"),
        ("::FFFF:c0a8:14d", "192.168.1.xxx"),
        ("fe80::1%eth0", "fe80::xxxx"),
        ("fe80::1%<script>", "fe80::xxxx"),
        ("fe80::1%", "fe80::xxxx"),
        (None, ""),
    ],
)
def test_masks(ip: str | None, masked: str) -> None:
    """The examples of INTERFACE, section 5, and their neighbours."""
    assert mask_ip(ip) == masked


@pytest.mark.parametrize("text", NO_ADDRESSES, ids=lambda text: repr(text)[:24])
def test_what_is_no_address_is_empty(text: str) -> None:
    """Nothing of a malformed address is kept or shown."""
    assert mask_ip(text) == ""
    assert normalize_ip(text) is None


@settings(max_examples=200)
@given(addresses, st.integers(0, 0xFFFF))
def test_addresses_that_differ_in_the_hidden_part_look_the_same(address: IPv4Address | IPv6Address, low: int) -> None:
    """The last octet, or group, changes neither the mask nor the network key."""
    hidden = 0xFF if address.version == 4 else 0xFFFF
    other = type(address)(int(address) & ~hidden | low & hidden)
    assume(getattr(other, "ipv4_mapped", None) is None)
    assert mask_ip(str(other)) == mask_ip(str(address)) == mask_ip(address.exploded)
    assert network_key(str(other)) == network_key(str(address)) == network_key(mask_ip(str(address)))


@settings(max_examples=200)
@given(v6 | v4)
def test_masking_twice_changes_nothing(address: IPv4Address | IPv6Address) -> None:
    """A masked address is shown as it is, and read back as the network that it stands for."""
    masked = mask_ip(str(address))
    assert masked.endswith("xxx")
    assert mask_ip(masked) == masked
    network = parse_network(masked)
    assert mask_ip(str(network[0])) == mask_ip(str(network[-1])) == masked


@settings(max_examples=200)
@given(addresses, addresses)
def test_network_keys_are_equal_exactly_where_masks_are(first: object, second: object) -> None:
    """A store knows of an address what its mask shows, no more and no less; in keys of fixed width."""
    keys = network_key(str(first)), network_key(str(second))
    assert (keys[0] == keys[1]) == (mask_ip(str(first)) == mask_ip(str(second)))
    assert all(len(key) == (9 if key[0] == "4" else 33) for key in keys)


def test_no_address_has_no_network_key() -> None:
    """An entry without an address is in no network."""
    assert network_key(None) == network_key("") == ""


# Networks


@pytest.mark.parametrize(
    ("text", "network"),
    [
        ("10.0.0.0/8", "10.0.0.0/8"),
        ("10.1.2.3/8", "10.0.0.0/8"),
        ("10.1.2.3/24", "10.1.2.0/24"),
        ("10.1.2.3/255.255.0.0", "10.1.0.0/16"),
        ("0.0.0.0/0", "0.0.0.0/0"),
        ("192.168.1.xxx", "192.168.1.0/24"),
        ("2001:db8::/32", "2001:db8::/32"),
        ("2001:db8::5:7/112", "2001:db8::5:0/112"),
        ("::/0", "::/0"),
        ("2001:db8::xxxx", "2001:db8::/112"),
        ("1:2:3:4:5:6:0:xxxx", "1:2:3:4:5:6::/112"),
        ("::xxxx", "::/112"),
        ("::ffff:10.1.2.3/120", "10.1.2.0/24"),
        ("::ffff:10.1.2.3/104", "10.0.0.0/8"),
        ("::ffff:0:0/96", "0.0.0.0/0"),
    ],
)
def test_networks_that_a_filter_may_name(text: str, network: str) -> None:
    """Wide networks and masked addresses are read; host bits are ignored, and IPv4-mapped networks are IPv4."""
    assert parse_network(text) == ip_network(network)


@pytest.mark.parametrize(
    "text",
    [
        "10.1.2.3",
        "10.1.2.3/32",
        "10.1.2.0/25",
        "10.1.2.0/255.255.255.128",
        "2001:db8::1",
        "2001:db8::/113",
        "2001:db8::/128",
        "::ffff:10.1.2.3",
        "::ffff:10.1.2.0/121",
        "::ffff:10.1.2.3/128",
    ],
)
def test_networks_finer_than_the_mask_are_refused(text: str) -> None:
    """A filter that would tell what the mask hides raises ValueError, and says what is allowed."""
    with pytest.raises(ValueError, match=r"finer than the masked part.*/24 or wider.*/112 or wider"):
        parse_network(text)


@pytest.mark.parametrize(
    "text",
    [
        *[
            "",
            "x",
            "10.0.0.0/",
            "10.0.0.0/33",
            "10.0.0.0/-1",
            "10.0.0.0/٢٤",
            "10.0.0/8",
            "fe80::%eth0/64",
            "fe80::1%a/112",
        ],
        *["1.2.3.xxx/24", "1.2.3.xxx.xxx", "1.2.xxx", "::ffff:102:xxxx", "10.0.0.0/8 ", "256.1.1.xxx"],
        *["0" * 10_000, "\ud800"],
    ],
    ids=lambda text: repr(text)[:24],
)
def test_what_is_no_network_is_refused(text: str) -> None:
    """Anything else raises ValueError, and says what is allowed."""
    with pytest.raises(ValueError, match="not a network; allowed are"):
        parse_network(text)


@settings(max_examples=300)
@given(addresses, st.integers(0, 128))
def test_a_filter_narrows_no_masked_part(address: IPv4Address | IPv6Address, prefix: int) -> None:
    """A network is refused exactly where it is finer than the mask; else it takes in all that look the same."""
    prefix = min(prefix, address.max_prefixlen)
    text = f"{address}/{prefix}"
    if prefix > (24 if address.version == 4 else 112):
        with pytest.raises(ValueError, match="finer"):
            parse_network(text)
        return
    network = parse_network(text)
    first, last = network_range(network)
    assert first <= network_key(str(address)) <= last
    for outside in (int(network[0]) - 1, int(network[-1]) + 1):
        if 0 <= outside < 2**address.max_prefixlen:
            key = network_key(str(type(address)(outside)))
            assert not first <= key <= last or key[0] != first[0]


def test_a_network_that_ends_in_mapped_addresses_is_ipv6() -> None:
    """`::/80` reaches to ::ffff:ffff:ffff, and still finds the IPv6 addresses in it and no IPv4 ones."""
    first, last = network_range(parse_network("::/80"))
    assert first <= network_key("::1") <= last
    assert not first <= network_key("10.0.0.1") <= last


# The entry's own address


def v6_spellings(address: IPv6Address) -> list[str]:
    """Every place of `::`, with a tail in groups or dotted; each short, in full, upper case and percent-encoded."""
    value = [int(address) >> 112 - 16 * place & 0xFFFF for place in range(8)]
    dotted = str(IPv4Address(int(address) & 0xFFFF_FFFF))
    made = []
    for form in ("{:x}", "{:04x}", "{:03X}"):
        texts = [form.format(group) for group in value]
        for parts in (texts, [*texts[:6], dotted]):
            zeros = value[: 8 if len(parts) == 8 else 6]
            runs = [
                (start, end) for end in range(1, len(zeros) + 1) for start in range(end) if not any(zeros[start:end])
            ]
            made.append(":".join(parts))
            made += [f"{':'.join(parts[:start])}::{':'.join(parts[end:])}" for start, end in runs]
    assert all(ip_address(spelling) == address for spelling in made)
    return made + [spelling.replace(":", colon) for spelling in made for colon in ("%3A", "%3a")]


def wide(text: str) -> str:
    """The text in full-width characters."""
    return "".join(chr(ord(character) + 0xFEE0) if "!" <= character <= "~" else character for character in text)


WRAPPINGS = [
    "{}",
    "from {}.",
    "({})",
    '"{}",',
    "[{}]:8080",
    "%5B{}%5D%3A8080",
    "ip%3D{}%26x",
    "at%20{}%20",
    "host={};",
    "x{}z",
    "é{}ß",
    "{}/128",
    "{}%eth0",
    "{}\n",
    "http://[{}]/",
]


@settings(max_examples=60, deadline=None)
@given(real_v6, st.sampled_from(WRAPPINGS))
def test_every_spelling_of_the_own_ipv6_address_is_masked(address: IPv6Address, wrapping: str) -> None:
    """However the address is written, and whatever stands beside it, the masked form takes its place."""
    masked = wrapping.format(mask_ip(str(address)))
    for spelling in v6_spellings(address):
        twice = spelling.replace("%3A", ":").replace(":", "%253A").replace(".", "%252E")
        for written in (spelling, spelling.replace(".", "%2E"), twice, wide(spelling)):
            assert mask_own_address(wrapping.format(written), str(address)) == masked, written


@settings(deadline=None)
@given(addresses)
def test_no_spelling_is_much_longer_than_its_mask(address: IPv4Address | IPv6Address) -> None:
    """LONGEST times the mask, each with a character that divides it from the next: more than any spelling has."""
    whole = address if isinstance(address, IPv6Address) else IPv6Address(f"::ffff:{address}")
    plain = (spelling.replace("%3A", ":") for spelling in v6_spellings(whole))
    longest = max(len(spelling.replace(":", "%253A").replace(".", "%252E")) for spelling in plain)
    assert longest + 1 < LONGEST * (len(mask_ip(str(address))) + 1)


@settings(max_examples=60, deadline=None)
@given(v4, st.sampled_from(WRAPPINGS))
def test_every_spelling_of_the_own_ipv4_address_is_masked(address: IPv4Address, wrapping: str) -> None:
    """With leading zeros, and as an IPv4-mapped one, dotted or in hexadecimal, too."""
    masked = mask_ip(str(address))
    octets = [int(octet) for octet in str(address).split(".")]
    for form, dot in product(("{}", "{:02}", "{:03}"), (".", "-", "%2E", "%2e", "%252E", "\uff0e", "\u3002", "\u2024")):
        dotted = dot.join(form.format(octet) for octet in octets)
        for written in (dotted, wide(dotted)):
            assert mask_own_address(wrapping.format(written), str(address)) == wrapping.format(masked)
    for spelling in v6_spellings(IPv6Address(f"::ffff:{address}")):
        before = spelling.upper().rpartition("FFFF")[0] + "FFFF"
        shown = mask_own_address(wrapping.format(spelling), str(address)).upper()
        # Of a dotted one, what stands before the IPv4 part may stay.
        colons = [f"{before}{colon}{masked}" for colon in (":", "%3A")]
        assert shown in [wrapping.format(form).upper() for form in (masked, *colons)], spelling


@settings(max_examples=150, deadline=None)
@given(addresses, st.data())
def test_another_address_in_the_same_text_stays(address: IPv4Address | IPv6Address, data: st.DataObject) -> None:
    """One that differs, by its first or its last bits, is the application's content."""
    own = str(address)
    assume(own[:2] not in ("0.", "::", "0:"))
    size = address.max_prefixlen
    bit = data.draw(st.integers(0, 15) | st.integers(size - 8, size - 1))
    other = type(address)(int(address) ^ 1 << bit)
    text = f"moved from {own} to {other}, [{other}] and {other}/64"
    assume(mask_ip(own) not in text)
    assert mask_own_address(text, own) == text.replace(f"from {own} to", f"from {mask_ip(own)} to")


@pytest.mark.parametrize(
    ("ip", "text", "shown"),
    [
        ("10.0.0.5", "10.0.0.5 110.0.0.5 10.0.0.55 10.0.0.50", "10.0.0.xxx 110.0.0.5 10.0.0.55 10.0.0.50"),
        ("10.0.0.5", "version 10.0.0.5.1", "version 10.0.0.xxx.1"),
        ("10.0.0.5", "10.0.0.05 and 010.000.000.005", "10.0.0.xxx and 10.0.0.xxx"),
        ("10.0.0.5", "[::ffff:a00:5]:443", "[10.0.0.xxx]:443"),
        ("10.0.0.5", "::a00:5 a00:5", "10.0.0.xxx a00:5"),
        ("2001:db8::1", "2001:db8::1:80", "2001:db8::xxxx:80"),
        ("2001:db8::1", "2001:db8::10 2001:db8::1f a2001:db8::1", "2001:db8::10 2001:db8::1f a2001:db8::1"),
        ("2001:db8::1", "2001:DB8:0:0:0:0:0.0.0.1", "2001:db8::xxxx"),
        ("2001:db8::", "2001:db8::0.0.0.0 2001:db8::/32", "2001:db8::xxxx 2001:db8::xxxx/32"),
        ("::1", "::1 fe80::1 1::1 [::1]:80", "::xxxx fe80::1 1::1 [::xxxx]:80"),
        ("2001:db8::a:1", "12:30:45 a:1 00:0a:00:01", "12:30:45 a:1 00:0a:00:01"),
        ("10.0.0.xxx", "10.0.0.xxx 10.0.0.5", "10.0.0.xxx 10.0.0.5"),
        ("10.0.0.5", "１０.0.0.5 é１０．０．０．５ １０．０．０．５０", "10.0.0.xxx é10.0.0.xxx １０．０．０．５０"),
        ("10.0.0.5", "ip%3D10%2E0%2E0%2E5%2E%2E10%2e0%2e0%2e50", "ip%3D10.0.0.xxx%2E%2E10%2e0%2e0%2e50"),
        ("10.0.0.5", "a．b．c．d。e 1%2E2%2E3", "a．b．c．d。e 1%2E2%2E3"),
        # names of hosts, and what was encoded twice
        ("10.0.0.5", "ip-10-0-0-5.ec2.internal 10_0_0_5", "ip-10.0.0.xxx.ec2.internal 10.0.0.xxx"),
        ("10.0.0.5", "10-0-0-50 1-10-0-0 8-10-0-0", "10-0-0-50 1-10-0-0 8-10-0-0"),
        ("10.0.0.5", "5.0.0.10.in-addr.arpa 5.0.0.10.example", "10.0.0.xxx.in-addr.arpa 10.0.0.xxx.example"),
        ("10.0.0.5", "15.0.0.10.in-addr.arpa 10[.]0[.]0[.]5", "15.0.0.10.in-addr.arpa 10.0.0.xxx"),
        ("10.0.1.5", "took 10.261 s, version 10.0.5, 10.0.261", "took 10.261 s, version 10.0.5, 10.0.1.xxx"),
        ("203.0.113.9", "9203.0.113.9 ip=20203.0.113.9 a1203.0.113.9", "9203.0.113.9 ip=20203.0.113.xxx a1203.0.113.9"),
        ("10.0.0.5", "next%3D%252010%252E0%252e0%252E5%2526", "next%3D%252010.0.0.xxx%2526"),
        ("2001:db8::1", "2001%253Adb8%253A%253A1", "2001:db8::xxxx"),
        (
            "2001:db8::1",
            f"1.{'0.' * 23}8.b.d.0.1.0.0.2.ip6.arpa 2.{'0.' * 23}8.b.d.0.1.0.0.2.ip6.arpa",
            f"2001:db8::xxxx.ip6.arpa 2.{'0.' * 23}8.b.d.0.1.0.0.2.ip6.arpa",
        ),
        (None, "10.0.0.5", "10.0.0.5"),
        ("10.0.0.5", "", ""),
    ],
)
def test_own_addresses_in_texts(ip: str | None, text: str, shown: str) -> None:
    """What is masked and what stays, also where it is unclear."""
    assert mask_own_address(text, ip) == shown


PLAIN_BESIDE = [
    *["", " ", "\n", ",", ".", ", ", ". ", ":", "/", "=", "@", "(", ")", "[", "]", "{", "}", "<", ">", '"', "-", "%20"],
    *["0", "5", "1 ", " 0", "a", "x", "0x", "::", ":5", " dot ", "dot", "[.]", "(.", "xxx", ".xxx", "::ffff:"],
    "port 5112",
]


@pytest.mark.parametrize("ip", ["0.0.0.0", "0.0.0.5", "203.4.0.0", "10.1.0.0", "::", "64:ff9b::a01:0"])
@pytest.mark.parametrize("unit", [":", "0:", "::0", "0", "0.", "a1-", "0, "])
def test_no_text_takes_long(ip: str, unit: str) -> None:
    """As long for a character of a long text as of a short one, also where an address is little more than zeros."""
    spent = []
    for size in (4_000, 64_000):
        text = f"{unit * (size // len(unit))} {ip} 0a01:0 cb04:0"
        begin = time.process_time()
        mask_own_address(text, ip)
        spent.append((time.process_time() - begin) / size)
    assert spent[1] < 4 * spent[0] + 2e-6


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(["10.0.0.5", "1.1.1.1", "12.1.12.1", "0.0.0.0", "2001:db8::5", "::1", "1:0:0:2:0:0:0:3", "abcd::"]),
    st.lists(st.sampled_from(PLAIN_BESIDE) | st.none(), max_size=9),
)
def test_the_plain_form_is_masked_as_all_others_are(ip: str, parts: list[str | None]) -> None:
    """The usual form, alone in a text, is masked without a pattern: with one, the same comes out."""
    text = "".join(ip if part is None else part for part in parts)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(privacy, "_masked_plain", lambda *_: None)
        masked = mask_own_address(text, ip)
    assert mask_own_address(text, ip) == masked


@pytest.mark.parametrize("text", ["login failed from {}", "{}: refused", "ssh root@{}, port 51122", "a={} b=({})."])
def test_a_new_address_makes_no_pattern(text: str) -> None:
    """Who tries to log in from a thousand addresses must not slow the log: a pattern takes milliseconds to make."""
    made = privacy._pattern.cache_info().misses
    for number in range(300):
        for ip in (f"10.1.{number // 256}.{number % 256}", f"2001:db8::{number:x}"):
            assert mask_own_address(text.format(ip, ip), ip) == text.format(mask_ip(ip), mask_ip(ip))
    assert privacy._pattern.cache_info().misses - made < 60


MATHEMATICAL = str.maketrans({str(digit): chr(0x1D7CE + digit) for digit in range(10)})
NOTATIONS = {
    "192.168.1.77": [
        *["77.1.168.192", "77.1.168.192.zen.spamhaus.org", "77-1-168-192.dynamic.isp.net", "192-168-1-77"],
        *["ip_192_168_1_77", "64:ff9b::c0a8:14d", "2002:c0a8:14d::1", "::c0a8:14d", "::192.168.1.77", "3232235853"],
        *["-1062731443", "1291954368", "0xC0A8014D", "c0a8014d", "4D01A8C0:0050", "0300.0250.0001.0115"],
        *["192.0xa8.01.0x4d", "0300.168.1.0115", "0xC0.0xA8.0x1.0x4D"],
        *["192[dot]168[dot]1[dot]77", "192[.]168[.]1[.]77", "192 (dot) 168 (dot) 1 (dot) 77"],
        *["192&#46;168&#x2e;1&period;77", "192=2E168=2E1=2E77", r"192\.168\.1\.77", r"192\u002e168\x2e1\\.77"],
        *["19\u00ad2.168\u200b.1.77", "192.168.1.77".translate(MATHEMATICAL), "%31%39%32.168%2E1%252E%2537%37"],
        *["&#49;92.168.1.77", "PASV (192,168,1,77,19,137)", "[192,168,1,77]", "\u0661\u0669\u0662.168.1.77"],
        # an encoded character right before it, and a line that goes on
        *["=20192.168.1.77", "%C3%A9192.168.1.77", "%25E8%25AF%25A2192.168.1.77", "=C3=A9192.168.1.77"],
        *[r"\303\251192.168.1.77", "192.168.1.7=\r\n7", "192%u002e168%u002e1.77", "3232235853.0", "192, 168, 1, 77"],
        # as providers name hosts
        *["pC0A8014D.dip0.isp.example", "ipc0a8014d.dynamic.isp.example", "KD192168001077.ppp.isp.example"],
        *["77.red-192-168-1.dynamicip.isp.example", "host77-1-dynamic.168-192-r.isp.example"],
        *["lfbn-1-77.w192-168.abo.isp.example", "77.64/26.1.168.192.in-addr.arpa", "77.64-127.1.168.192.in-addr.arpa"],
        *["http://192.168.333/", "http://192.11010381/", "030052000515"],
    ],
    "64:ff9b::c0a8:14d": ["192.168.1.77", "::ffff:192.168.1.77", "c0a8014d", "64:ff9b::192.168.1.77"],
    "2001:db8::1": [
        *["%C2%A02001:db8::1", "=0A2001:db8::1", "%E2%80%9C2001:db8::1", r"\302\2402001:db8::1", "\n2001:db8::1"],
        *["2001-db8--1.ipv6-literal.net", "2001-db8-0-0-0-0-0-1.isp.net", "2001=3Adb8=3A=3A1", "2001&#58;db8&#58;:1"],
        *[f"1.{'0.' * 23}8.b.d.0.1.0.0.2.dnsbl.example", f"20010db8{'0' * 23}1", str(int(IPv6Address("2001:db8::1")))],
    ],
}


@pytest.mark.parametrize(("ip", "text"), [(ip, text) for ip, texts in NOTATIONS.items() for text in texts])
@pytest.mark.parametrize("wrapping", ["{}", "ip={}", "from {}, twice", "é {}\n"])
def test_notations_of_mail_and_web_systems_are_masked(ip: str, text: str, wrapping: str) -> None:
    """Nothing is left of the last part, in whatever notation; masked once more, the text is the same."""
    masked = mask_own_address(wrapping.format(text), ip)
    assert mask_ip(ip) in masked
    assert not re.search(r"77|14d|115|db8.*1", masked.replace(mask_ip(ip), ""), re.IGNORECASE)
    assert mask_own_address(masked, ip) == masked


@pytest.mark.parametrize(
    "text",
    [
        *[
            "192.168.1.78",
            "77.1.168.193",
            "192-168-1-770",
            "13232235853",
            "32322358530",
            "3232235853.5",
            "1.3232235853",
        ],
        *["0xC0A8014D0", "0xC0A8014E", "10c0a8014d", "c0a8:14d", "64:ff9b::c0a8:14e", "2002:c0a8:14de::1"],
        *["0300.0250.0001.0116", "192.168.177", "168.1.77", "version 1.92.168.1.7", "192=2E168=2E1=2E78"],
    ],
)
def test_other_numbers_stay(text: str) -> None:
    """Other addresses, versions, and longer numbers that have the same digits in them are the application's content."""
    assert mask_own_address(f"a {text} b", "192.168.1.77") == f"a {text} b"


PIECES = (
    ":",
    "::",
    ".",
    "-",
    "%2E",
    "=2E",
    "&#46;",
    "\\",
    "\u200b",
    "[.]",
    " ",
    ",",
    "0",
    "1",
    "f",
    "x",
    "xxxx",
    "\uff11",
)


@settings(max_examples=300, deadline=None)
@given(addresses, st.data())
def test_a_masked_text_stays_as_it_is(address: IPv4Address | IPv6Address, data: st.DataObject) -> None:
    """Ids and comparisons are made of masked content."""
    own = str(address)
    pieces = st.sampled_from([*PIECES, own, mask_ip(own), *re.split("[.:]", own)])
    masked = mask_own_address("".join(data.draw(st.lists(pieces, max_size=14))), own)
    assert mask_own_address(masked, own) == masked


# Secrets

SECRET = """
    password Password PASSWORD db_password passwordHash new-password passwd userPasswd passphrase pwd MYSQL_PWD
    pass db_pass smtpPass dbpass PGPASS pass1 X-API-Key apiKey API_KEY api.key accessToken access_token id-token
    csrftoken TOKEN X-Auth-Token Authorization Proxy-Authorization Cookie Set-Cookie clientSecret client_secret
    SECRET_KEY secrets private_key privateKey PRIVATEKEY ssh-private-key aws_access_key_id signingKey encryption_key
    credentials awsCredential jwt JWT bearer session_id sessionId PHPSESSID JSESSIONID pin PIN userPIN pin_code otp
    otpCode totp psk wifi_psk pw cvv card.cvc ｐａｓｓｗｏｒｄ pass\u00adword privkey ssh_key master_key csrf X-XSRF
    auth_header mfa_code recovery_codes backupCode access_code code_verifier smtp_creds SENTRY_DSN sid
"""


@pytest.mark.parametrize("key", SECRET.split())
def test_secret_keys(key: str) -> None:
    """Keys that look as if their value were a secret, in every usual way of writing."""
    assert is_secret_key(key)


OTHER = """
    passenger passed bypass compass author authority auth_method target selector domain user username key keys
    key_id public_key keyboard monkey spin spinner pinned shipping opinion option optional footprint desktop hotpot
    session sessions request_id ip address path port state status description passive passport
    detail context 42 ключ
"""


@pytest.mark.parametrize("key", [*OTHER.split(), "", " ", "_"])
def test_other_keys(key: str) -> None:
    """Keys that only have some of the same letters are no secrets."""
    assert not is_secret_key(key)


# The projection


EVENT = AuditEvent(
    id=uuid7(1_795_405_260_123, 7),
    timestamp=1_795_405_260_123,
    action="domain.created",
    category="domains",
    label="Domain created",
    tone="green",
    outcome="success",
    org="acme",
    target="example.com",
    detail="DKIM enabled",
    user="alice@example.com",
    ip="203.0.113.77",
    context={"request_id": "r1"},
    problems=("outcome: wrong",),
    received=1_795_405_260_200,
    origin="spool-1",
    sequence=7,
)
ITEM = {
    "id": EVENT.id,
    "timestamp": "2026-11-23T03:41:00.123Z",
    "action": "domain.created",
    "label": "Domain created",
    "category": "domains",
    "tone": "green",
    "target": "example.com",
    "detail": "DKIM enabled",
    "user": "alice@example.com",
    "ip": "203.0.113.xxx",
    "outcome": "success",
}


def test_an_item_has_the_fields_of_the_interface() -> None:
    """A list shows these fields, in this order, with the address masked, and nothing else."""
    assert list(public_item(EVENT).items()) == list(ITEM.items())


def test_details_add_context_and_problems() -> None:
    """One entry alone is shown with its context, its problems and when it was received too."""
    more = {"context": {"request_id": "r1"}, "problems": ["outcome: wrong"], "received": "2026-11-23T03:41:00.200Z"}
    assert public_details(EVENT) == ITEM | more


@given(addresses | st.none())
def test_the_projection_never_has_a_full_address(address: object) -> None:
    """Whatever the address is, only its mask goes out."""
    ip = None if address is None else str(address)
    for shown in (public_item(replace(EVENT, ip=ip)), public_details(replace(EVENT, ip=ip))):
        assert shown["ip"] == mask_ip(ip)
        assert ip is None or ip not in map(str, shown.values())


# Repetitions


@pytest.mark.parametrize(
    "change",
    [
        {"received": 1},
        {"origin": "b"},
        {"sequence": 9},
        {"label": "x"},
        {"category": "x"},
        {"tone": "red"},
        {"context": {}},
        {"context": {"request_id": "r2", "user_agent": "curl"}},
    ],
    ids=str,
)
def test_how_an_entry_came_here_does_not_count(change: dict[str, Any]) -> None:
    """An entry that differs only in that is a repetition."""
    assert same_content(EVENT, replace(EVENT, **change))


@pytest.mark.parametrize(
    "change",
    [
        {"id": uuid7(5, 5)},
        {"timestamp": 1},
        {"action": "x.y"},
        {"outcome": "failure"},
        {"org": "b"},
        {"target": "b"},
        {"detail": "b"},
        {"user": "b"},
        {"ip": None},
        {"ip": "203.0.114.77"},
        {"context": {"request_id": "r1", "reason": "asked"}},
        {"context": {"request_id": "r1", "about": {"request_id": "r1"}}},
        {"problems": ()},
    ],
    ids=str,
)
def test_what_an_entry_says_counts(change: dict[str, Any]) -> None:
    """An entry that says anything else is no repetition."""
    assert not same_content(EVENT, replace(EVENT, **change))


def test_one_and_true_are_not_the_same() -> None:
    """What JSON writes otherwise is other content, though to Python it is equal."""
    assert not same_content(replace(EVENT, context={"a": [1]}), replace(EVENT, context={"a": [True]}))


@settings(deadline=None)
@given(addresses, st.integers(0, 255))
def test_the_hidden_part_of_an_address_does_not_count(address: IPv4Address | IPv6Address, guess: int) -> None:
    """Whichever hidden part an id is sent again with, it is a repetition: no guess is told from another."""
    event = replace(EVENT, ip=str(address))
    other = str(type(address)(int(address) & ~0xFF | guess))
    for ip in (other, mask_ip(other)):
        assert same_content(replace(event, ip=ip), event)
        assert same_content(event, replace(event, ip=ip))


def test_a_replaced_timestamp_does_not_count() -> None:
    """An entry whose own time was unusable gets a new one at each repetition, and is still the same."""
    flawed = replace(EVENT, problems=(f"{REPLACED_TIMESTAMP}, since it was no time",))
    assert same_content(flawed, replace(flawed, timestamp=flawed.timestamp + 5000))
    assert not same_content(flawed, replace(flawed, timestamp=5, target="b"))
