"""Search text: folding, tokens, and the words of `q`. The one definition, for every store.

Both engines index the tokens made here, joined by spaces, and are asked with the tokens made here: an engine's own
analysis would fold and split otherwise (docs/search.md).
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from functools import lru_cache

from ..event import AuditEvent

__all__ = ["FIELD_BREAK", "SEARCH_FIELDS", "Word", "fold", "parse_words", "search_texts", "tokens"]

SEARCH_FIELDS = ("action", "target", "detail", "user")
"""The fields that `q` looks at."""

FIELD_BREAK = "\u00b6"
"""Stands between an action's id and its label, so that no phrase reaches from one into the other. No token has it."""

MAX_TOKEN = 255
MAX_Q = 256
MAX_WORDS = 16
MAX_TOKENS = 128
"""Of all words together. As many as 256 characters make, but for the few characters that fold to several tokens."""

_LETTERS = str.maketrans({"æ": "ae", "œ": "oe", "ø": "o", "đ": "d", "ð": "d", "ł": "l", "þ": "th"})


def fold(text: str) -> str:
    """`NFKD(casefold(NFKD(text)))` without combining marks, and some letters spelled out (INTERFACE, section 6)."""
    if text.isascii():
        return text.lower()
    folded = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", text).casefold())
    return "".join(character for character in folded if not unicodedata.combining(character)).translate(_LETTERS)


_ASCII_TOKEN = re.compile("[0-9a-z]+")


MAX_SEPARATORS = 10_000


class _Separators(dict[int, str]):
    """For `str.translate`: keeps letters, numbers and marks, and makes a space of everything else. Fills itself."""

    def __missing__(self, code: int) -> str:
        character = chr(code)
        kept = character if unicodedata.category(character)[0] in "LNM" else " "
        if len(self) < MAX_SEPARATORS:  # of a million that somebody could send
            self[code] = kept
        return kept


_separators = _Separators()


def tokens(text: str) -> list[str]:
    """The tokens of a text: the longest runs of letters, numbers and marks of its folded form, 255 characters each."""
    if text.isascii() and len(text) <= MAX_TOKEN:  # most are; the same, at a third of the time
        return _ASCII_TOKEN.findall(text.lower())
    return [token[:MAX_TOKEN] for token in fold(text).translate(_separators).split(" ") if token]


@lru_cache(maxsize=1024)
def _joined(text: str) -> str:
    return " ".join(tokens(text))


def search_texts(event: AuditEvent) -> tuple[str, str, str, str]:
    """What a store indexes for each of SEARCH_FIELDS: tokens joined by spaces."""
    return (
        f"{_joined(event.action)} {FIELD_BREAK} {_joined(event.label)}",
        " ".join(tokens(event.target)),
        " ".join(tokens(event.detail)),
        _joined(event.user),
    )


@dataclass(frozen=True, slots=True)
class Word:
    """One restriction of `q`: all tokens in one field, the last as a prefix; or, as a phrase, whole and in a row."""

    tokens: tuple[str, ...]
    phrase: bool = False
    excluded: bool = False

    @classmethod
    def of(cls, text: str, *, excluded: bool) -> Word:
        """The word of a text between spaces. It asks for each of its tokens once."""
        *whole, beginning = tokens(text) or [""]
        return cls((*dict.fromkeys(whole), beginning) if beginning else (), False, excluded)


def parse_words(q: str) -> tuple[Word, ...]:
    """The words of `q`, ANDed, each once. No input is a syntax error; words without a token restrict nothing.

    Raises ValueError where `q` has more than 256 characters, 16 words or 128 tokens.
    """
    if len(q) > MAX_Q:
        raise ValueError(f"has {len(q):,} characters; allowed are {MAX_Q}")
    words = []
    number = place = 0
    while place < len(q):
        if q[place].isspace():
            place += 1
            continue
        number += 1
        excluded = q[place] == "-"
        place += excluded
        closing = q.find('"', place + 1) if q[place : place + 1] == '"' else -1
        if closing >= 0:
            word = Word(tuple(tokens(q[place + 1 : closing])), True, excluded)
            place = closing + 1
        else:
            end = next((at for at in range(place, len(q)) if q[at].isspace()), len(q))
            word = Word.of(q[place:end], excluded=excluded)
            place = end
        if word.tokens:
            words.append(word)
    if number > MAX_WORDS:
        raise ValueError(f"has {number} words; allowed are {MAX_WORDS}")
    parts = sum(len(word.tokens) for word in words)
    if parts > MAX_TOKENS:
        raise ValueError(f"has {parts} words and parts of words; allowed are {MAX_TOKENS}")
    return tuple(dict.fromkeys(words))
