"""Reads entries from NDJSON: one JSON object a line, the same file twice without doubles.

A line without an `id` gets one that depends on what it says, so that a second run makes the same ids and adds
nothing. The id has the entry's time and a digest of the *masked* content: it tells nothing about the hidden part.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any

import orjson

from .actions import catalogue
from .event import AuditEvent, canonical_json, in_window, is_id, now_ms, uuid7
from .normalize import parse_timestamp
from .privacy import mask_ip
from .processor import AuditPipeline

__all__ = ["NDJSONReader", "Rejected", "json_value"]


@dataclass(frozen=True, slots=True)
class Rejected:
    """A line that is no entry, and why."""

    line: int
    """Counted from 1."""
    reason: str
    text: str | None
    """The line as it stood in the file; None where no address may be written in full, since it may hold one."""

    def to_json(self) -> bytes:
        """One line for the file of rejected lines."""
        return orjson.dumps({"line": self.line, "reason": self.reason, "input": self.text}) + b"\n"


def json_value(text: bytes) -> Any:
    """The value of a JSON text. Raises ValueError, whose text says what was wrong."""
    try:
        # Of Python's two parsers this one keeps integers of any size; the other one reads deeper nesting.
        return _decoder.decode(text.decode(json.detect_encoding(text), "surrogatepass"))
    except RecursionError:
        try:
            return orjson.loads(text)
        except orjson.JSONDecodeError:
            raise ValueError("nested deeper than 1,024 levels") from None
    except UnicodeDecodeError:
        raise ValueError("is not UTF-8") from None
    except ValueError as error:
        raise ValueError(f"is not JSON ({str(error)[:80]})") from None


def _integer(digits: str) -> int | str:
    # Python refuses to read more digits than this (CVE-2020-10735): then they stay text.
    return int(digits) if len(digits) <= 4300 else digits


_decoder = json.JSONDecoder(parse_int=_integer)


class NDJSONReader:
    """Turns the lines of one file into entries. `org` owns the lines that name no organisation."""

    def __init__(self, pipeline: AuditPipeline, org: str | None = None) -> None:
        self._pipeline = pipeline
        self._org = org
        self._seen: Counter[bytes] = Counter()

    def read(self, lines: Iterable[bytes]) -> Iterator[AuditEvent | Rejected]:
        """An entry or a rejection for each line that is not blank."""
        for number, line in enumerate(lines, 1):
            text = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
            if not text.strip():
                continue
            try:
                yield self._entry(text)
            except ValueError as error:
                yield self._rejected(number, str(error), text)

    def _rejected(self, number: int, reason: str, line: bytes) -> Rejected:
        if not self._pipeline.masks:
            return Rejected(number, reason, line.rstrip(b"\r\n").decode(errors="backslashreplace"))
        # A reason may quote what stands in the place of an action.
        kind = reason if "action" not in reason else "action: is none of the catalogue, or missing"
        return Rejected(number, f"{kind} (the line is left out: AUDIT_IP_STORAGE is masked)", None)

    def _entry(self, line: bytes) -> AuditEvent:
        given = json_value(line)
        if not isinstance(given, dict):
            raise ValueError("is no JSON object")
        if given.get("action") not in catalogue:
            raise ValueError(catalogue.refusal(given))
        action = given.pop("action")
        self._check_time(given.get("timestamp"))
        if given.get("org") in (None, ""):
            given["org"] = self._org
        event = self._pipeline.prepare(catalogue[action], given)
        own_id = given.get("id")
        if is_id(own_id) and own_id == event.id:
            return event
        # Whatever was wrong with a given id, the entry gets one that a second run makes again.
        return replace(event, id=self._digest_id(event))

    def _check_time(self, timestamp: Any) -> None:
        """Raises ValueError for a time that cannot be used: the time of this import would be a false record."""
        parsed = parse_timestamp(timestamp)
        if parsed is None:
            raise ValueError("timestamp: is missing or no time; allowed is such as 2026-11-23T03:41:00.123Z")
        if not in_window(parsed[0], now_ms()):
            raise ValueError("timestamp: lies outside the last ten years and the next day")

    def _digest_id(self, event: AuditEvent) -> str:
        content = canonical_json(
            [
                event.timestamp,
                event.action,
                event.outcome,
                event.org,
                event.target,
                event.detail,
                event.user,
                mask_ip(event.ip),
                event.context,
            ]
        )
        digest = sha256(content).digest()[:16]
        self._seen[digest] += 1
        tail = sha256(digest + self._seen[digest].to_bytes(8, "big")).digest()
        return uuid7(event.timestamp, int.from_bytes(tail[:10], "big") & (1 << 74) - 1)
