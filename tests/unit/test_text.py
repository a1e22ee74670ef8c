"""Folding, tokens and the words of `q`."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audit_pipeline.query import Word, fold, parse_words, tokens

SPELLED = {"æ": "ae", "œ": "oe", "ø": "o", "đ": "d", "ð": "d", "ł": "l", "þ": "th"}


def plain_fold(text: str) -> str:
    """INTERFACE, section 6, character by character."""
    folded = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", text).casefold())
    made = ""
    for character in folded:
        if unicodedata.combining(character) == 0:
            made += SPELLED.get(character, character)
    return made


def plain_tokens(text: str) -> list[str]:
    """The longest runs of letters, numbers and marks, cut at 255 characters."""
    made, run = [], ""
    for character in plain_fold(text):
        if unicodedata.category(character)[0] in ("L", "N", "M"):
            run += character
        elif run:
            made.append(run[:255])
            run = ""
    return [*made, run[:255]] if run else made


any_text = st.text(st.characters(exclude_categories=()), max_size=40) | st.text(
    st.sampled_from("aZ9_-.@ ßẞÆœØĐðŁþİıſé\u0301ñΣςάЖйשָׁاَ०कि가각中ｆ１²½ﬁ™ﷺ👍🏽\u200d\u00ad\u00a0\u3000\ufeff"),
    max_size=40,
)


@settings(max_examples=300, deadline=None)
@given(any_text)
def test_folding_and_tokens_follow_their_definition(text: str) -> None:
    """Text of any alphabet folds and splits as the plain implementation of the definition has it."""
    assert fold(text) == plain_fold(text)
    assert tokens(text) == plain_tokens(text)


def test_every_character_of_the_basic_plane_follows_the_definition() -> None:
    """Each code point up to U+FFFF, between two letters, is kept, folded or a separator as defined."""
    for first in range(0, 0x10000, 64):
        texts = [f"x{chr(code)}Y" for code in range(first, first + 64)]
        assert [(fold(text), tokens(text)) for text in texts] == [
            (plain_fold(text), plain_tokens(text)) for text in texts
        ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ("Alice@Example.COM", ["alice", "example", "com"]),
        ("Straße STRASSE", ["strasse", "strasse"]),
        ("Æsir Œuvre Ørsted Đặng Łódź Þór", ["aesir", "oeuvre", "orsted", "dang", "lodz", "thor"]),
        ("İstanbul ıstanbul", ["istanbul", "ıstanbul"]),
        ("x² ½ ﬁle", ["x2", "1", "2", "file"]),
        ("snake_case-name", ["snake", "case", "name"]),
        ("a\u0301b á", ["ab", "a"]),
        ("हिन्दी", ["हिनदी"]),
        ("한국어", [unicodedata.normalize("NFKD", "한국어")]),
        ("日本語。中文", ["日本語", "中文"]),
        ("👍 ok\u00a0go\u200bon", ["ok", "go", "on"]),
        ("\ud800a\udfff", ["a"]),
    ],
)
def test_tokens_of_known_texts(text: str, expected: list[str]) -> None:
    """Cases that other people's analysers split or fold otherwise."""
    assert tokens(text) == expected


@pytest.mark.parametrize("length", [254, 255, 256, 10_000])
def test_of_a_long_token_255_characters_count(length: int) -> None:
    """A longer token is cut, and what follows it is a token of its own."""
    assert tokens(f"{'a' * length}.b") == ["a" * min(length, 255), "b"]


@pytest.mark.parametrize("once", ["ß" * 200, "ﷺ" * 30])
def test_characters_are_counted_after_folding(once: str) -> None:
    """A token that folding makes longer is cut at 255 folded characters."""
    assert all(len(token) <= 255 for token in tokens(once))
    assert tokens(once)[0] == plain_tokens(once)[0]


# Words


def word(*parts: str) -> Word:
    return Word(parts)


def phrase(*parts: str) -> Word:
    return Word(parts, phrase=True)


def without(one: Word) -> Word:
    return Word(one.tokens, one.phrase, excluded=True)


@pytest.mark.parametrize(
    ("q", "expected"),
    [
        ("", ()),
        ("   \t\n", ()),
        ("Mail", (word("mail"),)),
        ("mail  example", (word("mail"), word("example"))),
        ("mail.example.co", (word("mail", "example", "co"),)),
        ("alice@exa", (word("alice", "exa"),)),
        ("-mail", (without(word("mail")),)),
        ("--x", (without(word("x")),)),
        ("a-b", (word("a", "b"),)),
        ("-", ()),
        ("- x", (word("x"),)),
        ("... -!!", ()),
        ('"a b"', (phrase("a", "b"),)),
        ('-"a b"', (without(phrase("a", "b")),)),
        ('--"a b"', (without(word("a")), word("b"))),
        ('"a"b', (phrase("a"), word("b"))),
        ('"a""b"', (phrase("a"), phrase("b"))),
        ('"a"-b', (phrase("a"), without(word("b")))),
        ('""', ()),
        ('-""', ()),
        ('"" x', (word("x"),)),
        ('"', ()),
        ('-"', ()),
        ('"a b', (word("a"), word("b"))),
        ('a"b c"d', (word("a", "b"), word("c", "d"))),
        ('"  Example . COM "', (phrase("example", "com"),)),
        ("a\u00a0b\u3000c\u2028d\x1fe", tuple(map(word, "abcde"))),
        ("a\u200bb", (word("a", "b"),)),
        ("¶", ()),
        ("Übung -GRÜN", (word("ubung"), without(word("grun")))),
        ("* OR NOT(x) col:y NEAR", (word("or"), word("not", "x"), word("col", "y"), word("near"))),
    ],
)
def test_words(q: str, expected: tuple[Word, ...]) -> None:
    """What a search text asks for."""
    assert parse_words(q) == expected


def test_sixteen_words_are_allowed() -> None:
    """A seventeenth word is refused; words without a token count too, since they are words."""
    assert len(parse_words(" ".join("abcdefghijklmnop"))) == 16
    assert parse_words("- " * 16) == ()
    assert parse_words("a " * 16) == (word("a"),)  # each is asked for once
    for q in ("a " * 17, "- " * 17, '"a"' * 17):
        with pytest.raises(ValueError, match="has 17 words; allowed are 16"):
            parse_words(q)


def test_256_characters_are_allowed() -> None:
    """A character more is refused, white space included."""
    assert parse_words("a" * 256) == (word("a" * 255),)
    for q in ("a" * 257, " " * 257):
        with pytest.raises(ValueError, match="has 257 characters; allowed are 256"):
            parse_words(q)


@settings(max_examples=300, deadline=None)
@given(st.text(st.sampled_from('aB1 "-\t.é\u00a0'), max_size=60) | any_text)
def test_no_text_is_a_syntax_error(q: str) -> None:
    """Any text is read, or refused for its number of words; no word is empty, and all text is in the words."""
    try:
        words = parse_words(q)
    except ValueError as error:
        assert "; allowed are 1" in str(error)  # noqa: PT017 - most texts are read
        return
    assert all(found.tokens for found in words)
    assert {token for found in words for token in found.tokens} == {
        token for part in q.split() for token in tokens(part)
    }
    assert len(set(words)) == len(words)


def test_characters_that_fold_to_several_tokens_are_bounded() -> None:
    """Of what makes more tokens than any other text of its length, so much is taken as an engine can be asked for."""
    assert parse_words("½" * 256) == (word("1", "21", "2"),)  # each is asked for once, outside a phrase
    assert len(parse_words(f'"{"½" * 100}"')[0].tokens) == 101
    with pytest.raises(ValueError, match="has 255 words and parts of words; allowed are 128"):
        parse_words(f'"{"½" * 254}"')
