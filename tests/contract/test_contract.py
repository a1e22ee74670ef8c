"""What `stores.base.Store` promises, asked of every store."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from typing import Any

import pytest

from audit_pipeline.actions import catalogue
from audit_pipeline.event import AuditEvent, IdFactory, now_ms, uuid7
from audit_pipeline.normalize import build_event
from audit_pipeline.query import SORTS, Query, Window, Word, parse_words, sort_key, tokens
from audit_pipeline.stores import Store

IDS = IdFactory()
ALL = Query("default")


def entry(action: str = "domain.created", **given: Any) -> AuditEvent:
    return build_event(catalogue[action], given, IDS)


def found(store: Store, query: Query = ALL, size: int = 1000) -> list[str]:
    return [event.id for event in store.search(query, Window(size)).items]


def walk(store: Store, query: Query, size: int) -> list[str]:
    """All ids, page by page."""
    ids: list[str] = []
    window = Window(size)
    while True:
        page = store.search(query, window)
        ids += [event.id for event in page.items]
        if not page.has_next:
            return ids
        window = Window(size, after=sort_key(page.items[-1]))


def test_what_was_appended_comes_back_whole(store: Store) -> None:
    """An entry is given back as it was given, field by field."""
    given = entry(
        target="example.com",
        detail="line\nline\0",
        user="Ελένη",
        ip="2001:db8::7",
        context={"a": [1, None, 2.5, {"b": "ü"}]},
        outcome="failure",
    )
    event = replace(given, origin="origin", sequence=7)
    assert store.append([event]) == []
    assert store.get("default", event.id) == event
    assert store.search(ALL, Window(10)).items == (event,)


def test_appending_again_changes_nothing(store: Store) -> None:
    """The same entry, in the same batch or later, is one entry, and no refusal."""
    event = entry(target="x")
    again = replace(event, received=event.received + 5, origin="other", sequence=9)
    assert store.append([event, event, again]) == []
    assert store.append([again]) == []
    assert store.search(ALL, Window(10)).total == 1
    assert store.get("default", event.id) == event


def test_other_content_under_a_taken_id_is_refused(store: Store) -> None:
    """A newcomer with a taken id and other content is refused alone; the stored entry and the batch are unharmed."""
    first, last = entry(target="first"), entry(target="last")
    store.append([first])
    other = replace(first, target="other")
    refusals = store.append([entry(target="before"), other, last])
    assert [refusal.event for refusal in refusals] == [other]
    assert "content" in refusals[0].reason
    assert store.get("default", first.id) == first
    assert store.search(ALL, Window(10)).total == 3
    assert store.search(Query("default", words=parse_words("other")), Window(10)).total == 0


def test_an_id_sent_again_does_not_tell_the_hidden_octet(store: Store) -> None:
    """With each of 256 octets an entry sent again is the stored one, which stays as it is; of another network, none."""
    event = entry(target="x", ip="203.0.113.77")
    store.append([event])
    guesses = [replace(event, ip=f"203.0.113.{octet}") for octet in range(256)]
    assert store.append(guesses) == []
    assert store.append(guesses[:1]) == []
    assert store.get("default", event.id) == event
    assert len(store.append([replace(event, ip="203.0.114.77")])) == 1
    assert found(store, ALL) == [event.id]


def test_the_same_id_in_two_organisations_is_two_entries(store: Store) -> None:
    """An id belongs to its organisation: another one's entry is neither seen nor touched."""
    ours = entry(target="ours", org="ours")
    theirs = replace(ours, org="theirs", target="theirs")
    assert store.append([ours, theirs]) == []
    assert store.get("ours", ours.id) == ours
    assert store.get("theirs", ours.id) == theirs
    assert store.get("nobody", ours.id) is None
    assert found(store, Query("ours")) == [ours.id]
    assert store.search(Query("nobody"), Window(10)).total == 0


@pytest.mark.parametrize("sort", SORTS)
def test_order_is_full(store: Store, sort: str) -> None:
    """Each sort orders by its field, and then as INTERFACE.md says, whatever the order of arrival."""
    now = now_ms()
    events = [
        replace(entry(action), id=uuid7(now, number * 7919 % 97), timestamp=now - number % 3)
        for number, action in enumerate(["user.created", "domain.created", "user.created", "domain.deleted"] * 5)
    ]
    store.append(events[10:])
    store.append(events[:10])
    newest = sorted(events, key=lambda event: (event.timestamp, event.id), reverse=True)
    expected = {
        "-timestamp": newest,
        "timestamp": newest[::-1],
        "action": sorted(newest, key=lambda event: event.action),
        "-action": sorted(newest, key=lambda event: event.action, reverse=True),
    }[sort]
    query = Query("default", sort=sort)
    assert found(store, query) == [event.id for event in expected]
    assert walk(store, query, 3) == [event.id for event in expected]


@pytest.mark.parametrize("sort", SORTS)
def test_pages_by_number_and_by_key_agree(store: Store, sort: str) -> None:
    """A page asked for by number, after a key and before a key is the same page, and knows its neighbours."""
    events = [entry("user.created" if number % 3 else "domain.created", target=str(number)) for number in range(25)]
    store.append(events)
    query = Query("default", sort=sort)
    whole = store.search(query, Window(100)).items
    for first in range(0, 25, 10):
        by_number = store.search(query, Window(10, first))
        assert by_number.items == whole[first : first + 10]
        assert (by_number.total, by_number.has_previous, by_number.has_next) == (25, first > 0, first < 20)
        if first:
            assert store.search(query, Window(10, after=sort_key(whole[first - 1]))) == by_number
            before = store.search(query, Window(10, before=sort_key(by_number.items[0])))
            assert before == store.search(query, Window(10, first - 10))
    assert store.search(query, Window(10, before=sort_key(whole[3]))).items == whole[:3]
    past = store.search(query, Window(10, 30))
    assert (past.items, past.total, past.has_previous, past.has_next) == ((), 25, False, False)
    assert store.search(query, Window(10, 10**18)).total == 25


def test_a_walk_meets_each_entry_once_while_others_arrive(store: Store) -> None:
    """Following pages meets every entry that existed at the start exactly once, whatever is written meanwhile."""
    now = now_ms()
    existing = [entry(timestamp=(now - number * 10) / 1000) for number in range(40)]
    store.append(existing)
    met: list[str] = []
    window = Window(7)
    for number in range(100):
        page = store.search(ALL, window)
        met += [event.id for event in page.items]
        assert page.total == 40 + 3 * number
        if not page.has_next:
            break
        window = Window(7, after=sort_key(page.items[-1]))
        late = [entry(timestamp=(now - late * 10 - 5) / 1000) for late in (1, 20, 39)]
        store.append(late)
    assert len(met) == len(set(met))
    assert {event.id for event in existing} <= set(met)


def test_a_snapshot_is_of_one_moment(store: Store) -> None:
    """A snapshot has what was there when it was taken, in order, within its limit, and knows the whole number."""
    events = [entry(target=str(number)) for number in range(30)]
    store.append(events)
    expected = found(store)
    with closing(store.snapshot(ALL, 20)) as snapshot:
        store.append([entry(target="later")])
        batches = list(snapshot.batches(8))
        assert [len(batch) for batch in batches] == [8, 8, 4]
        assert [event.id for batch in batches for event in batch] == expected[:20]
        assert snapshot.total == 30
        snapshot.close()
    assert store.search(ALL, Window(1)).total == 31


def test_a_snapshots_total_is_that_of_its_rows(store: Store) -> None:
    """While others write, each snapshot has as many rows as it says."""
    with ThreadPoolExecutor(1) as threads:
        writing = threads.submit(lambda: [store.append([entry()]) for _ in range(150)])
        while not writing.done():
            with closing(store.snapshot(ALL, 10_000)) as snapshot:
                assert sum(len(batch) for batch in snapshot.batches(50)) == snapshot.total
        writing.result()


def test_many_threads_append_and_search_at_once(store: Store) -> None:
    """A store serves all threads: nothing is lost, and no total is older than the entries beside it."""

    def append() -> None:
        for _ in range(10):
            assert store.append([entry(target="thread") for _ in range(5)]) == []

    def look() -> None:
        for _ in range(30):
            page = store.search(ALL, Window(1000))
            assert page.total == len(page.items)

    with ThreadPoolExecutor(5) as threads:
        for done in [threads.submit(work) for work in (append, look, append, look, append)]:
            done.result()
    assert store.search(ALL, Window(1)).total == 150


def test_setup_can_be_repeated(store: Store) -> None:
    """Installing again does nothing, and takes nothing away."""
    store.append([entry()])
    assert store.setup() == []
    assert store.search(ALL, Window(1)).total == 1
    assert store.check()


@pytest.mark.parametrize("user", ["a'b", "a\0b", 'x"y', "%", "_", "\\", "a\nb", "𐐷", "' OR 1=1 --", "a" * 200])
def test_hostile_values_are_literal(store: Store, user: str) -> None:
    """Quotes, NUL, wildcards and injections in values match themselves, and nothing else."""
    event = entry(user=user, target=user, org=user)
    store.append([event, entry(user=user + "x", org=user), entry(user="other", org=user)])
    assert found(store, Query(user, user=user)) == [event.id]
    assert store.search(Query(user[:-1] or "-", user=user), Window(1)).total == 0


@pytest.mark.parametrize(
    "q",
    ['"', '"a', "*", "a*", "^a", "a:b", "target:x", "{a}", "(a", "a) OR (b", "NEAR(a b)", "a AND", "NOT a", "a + b",
     "-", "--", "-a", '""', '"" a', "_exists_:user", "/a.*/", "[a TO b]", "a~2", "\\", "a\\", "\0", "¶",
     '"created domain"',
     " ".join("abcdefghijklmnop"), ".".join("a" * 128), "." * 256, '"' + "a " * 120 + '"'],
)  # fmt: skip
def test_search_syntax_is_literal_text(store: Store, q: str) -> None:
    """No text is an error: what a search engine would take for syntax separates words, as any punctuation does."""
    texts = ["a b", "ab", "a*", "NEAR(a b)", "target:x", "", "OR and not", "created domain"]
    store.append([entry("user.created", target=text) for text in texts])
    assert store.search(Query("default", words=parse_words(q)), Window(100)).total <= len(texts)


def test_words_and_phrases(store: Store) -> None:
    """Words are prefixes in any field, joined words lie in one field, phrases are whole and in a row, `-` excludes."""
    made = {
        "one": entry("domain.created", target="mail.example.com", detail="DKIM enabled", user="alice@example.com"),
        "two": entry("domain.deleted", target="example.org", detail="by mail", user="bob@example.com"),
        "three": entry("user.bulk_imported", target="mailbox", detail="the domain was created", user="carol"),
    }
    store.append(list(made.values()))
    names = {event.id: name for name, event in made.items()}
    cases = {
        "mail": {"one", "two", "three"},
        "mail.example": {"one"},
        "example.mail": {"one"},
        "alice@exa": {"one"},
        "alice dkim": {"one"},
        '"domain created"': {"one"},
        '"domain was created"': {"three"},
        '"created domain"': set(),
        '"mail"': {"one", "two"},
        "-alice": {"two", "three"},
        '-"example com"': {"three"},
        "mail -mailbox": {"one", "two"},
        "domain -created": {"two"},
        "-mail -example": set(),
        "import": {"three"},
        "bulk.import": {"three"},
        "user.bulk": {"three"},
        "imported.import": {"three"},
        '"bulk import"': {"three"},
        '"imported bulk"': set(),
        "MAIL.EXAMPLE.C": {"one"},
        "": {"one", "two", "three"},
        "!!!": {"one", "two", "three"},
        "-!!!": {"one", "two", "three"},
        "ail": set(),
    }
    for q, expected in cases.items():
        page = store.search(Query("default", words=parse_words(q)), Window(10))
        assert ({names[event.id] for event in page.items}, page.total) == (expected, len(expected)), q


def test_every_code_point_folds_as_one_function_says(store: Store) -> None:
    """Each character of the Basic Multilingual Plane between two letters is found by the tokens that folding makes."""
    events = []
    for first in range(0, 0x10000, 64):
        codes = [code for code in range(first, first + 64) if not 0xD800 <= code < 0xE000]
        if codes:
            events.append(entry(target=" ".join(f"q{first:x}{chr(code)}z" for code in codes)))
    store.append(events)
    for event in events:
        row = Word(tuple(tokens(event.target)), phrase=True)
        assert found(store, Query("default", words=(row,))) == [event.id], event.target


def test_entries_that_arrive_a_year_late_stand_where_they_belong(store: Store) -> None:
    """The order is that of the entries' times, not of their arrival."""
    now = now_ms()
    recent = entry(timestamp=now / 1000)
    old = entry(timestamp=now / 1000 - 365 * 86_400)
    older = entry(timestamp=now / 1000 - 9 * 365 * 86_400)
    store.append([recent])
    store.append([older])
    store.append([old])
    assert found(store) == [recent.id, old.id, older.id]
    assert found(store, Query("default", end=now - 300 * 86_400_000)) == [old.id, older.id]


def test_one_millisecond_holds_many(store: Store) -> None:
    """Thousands of entries of one millisecond are walked without a gap or a repetition."""
    now = now_ms()
    events = [entry(timestamp=now / 1000, target=str(number)) for number in range(3000)]
    store.append(events)
    for sort in SORTS:
        assert sorted(walk(store, Query("default", sort=sort), 499)) == sorted(event.id for event in events)


def test_of_several_with_one_id_those_that_are_there_are_repetitions(store: Store) -> None:
    """Whatever stands before it in a batch, what the store has is not refused; and of the others, the first is kept."""
    event = entry(target="here")
    store.append([event])
    another, new = replace(event, target="another"), entry(target="new")
    other = replace(new, target="other")
    refused = store.append([another, event, new, other, event, new, other])
    assert {refusal.event.target for refusal in refused} == {"another", "other"}
    assert store.get("default", event.id) == event
    assert store.get("default", new.id) == new


def test_two_hundred_thousand_of_one_millisecond(store: Store) -> None:
    """However many entries share a millisecond, any page of them is reached, on its own and from the one beside it."""
    now = now_ms()
    made = entry(timestamp=now / 1000)
    events = [replace(made, id=uuid7(now, number * 7919 % 200_003)) for number in range(200_000)]
    with ThreadPoolExecutor(2) as both:
        refused = both.map(store.append, (events[first : first + 5000] for first in range(0, len(events), 5000)))
        assert not any(refused)
    newest = sorted((event.id for event in events), reverse=True)
    for sort, ids, offsets in (("timestamp", newest[::-1], (0, 199_990)), ("action", newest, (111_115,))):
        query = Query("default", sort=sort)
        for offset in offsets:
            page = store.search(query, Window(10, offset))
            assert [event.id for event in page.items] == ids[offset : offset + 10]
            assert (page.total, page.has_previous, page.has_next) == (200_000, offset > 0, offset < 199_990)
    beside = store.search(ALL, Window(10, after=sort_key(replace(made, id=newest[111_114]))))
    assert [event.id for event in beside.items] == newest[111_115:111_125]
    before = store.search(ALL, Window(10, before=sort_key(replace(made, id=newest[111_115]))))
    assert [event.id for event in before.items] == newest[111_105:111_115]
    with closing(store.snapshot(ALL, 200_000)) as snapshot:
        assert [event.id for batch in snapshot.batches() for event in batch] == newest


def test_pages_go_over_the_turn_of_the_year(store: Store) -> None:
    """Entries before and after a midnight that ends a day, a month and a year are one list."""
    midnight = 1_767_225_600_000  # 2026-01-01T00:00:00Z
    events = [entry(timestamp=(midnight + milliseconds) / 1000) for milliseconds in range(-25, 25)]
    store.append(events[::2])
    store.append(events[1::2])
    for sort, expected in (("timestamp", events), ("-timestamp", events[::-1]), ("action", events[::-1])):
        query = Query("default", sort=sort)
        for size in (1, 7, 50):
            assert walk(store, query, size) == [event.id for event in expected]
        assert [event.id for event in store.search(query, Window(10, 20)).items] == [
            event.id for event in expected[20:30]
        ]
    around = Query("default", start=midnight - 1, end=midnight + 1)
    assert found(store, around) == [events[25].id, events[24].id]


def in_order(events: list[AuditEvent], sort: str) -> list[AuditEvent]:
    """Entries as a list shows them."""
    ordered = sorted(events, key=lambda event: (event.timestamp, event.id), reverse=sort != "timestamp")
    if sort.endswith("action"):
        ordered.sort(key=lambda event: event.action, reverse=sort[0] == "-")
    return ordered


def shaped(shape: str) -> list[AuditEvent]:
    """3,000 entries that could make a short way wrong."""
    made = []
    for number in range(3000):
        ago = number * 977_001  # ms; a month in all
        action = ("user.created", "domain.deleted", "auth.login_failed")[number % 3]
        if shape == "all of one action":
            action = "user.created"
        elif shape == "months without entries":
            ago += (number // 1000) * 400 * 86_400_000
        elif shape == "equal milliseconds":
            ago = number // 1500 * 86_400_000
        elif shape == "one action at the end":
            action = "user.created" if number < 2999 else "backup.deleted"
        made.append((ago, action))
    now = now_ms()
    return [entry(action, timestamp=(now - ago) / 1000) for ago, action in made]


@pytest.mark.parametrize(
    "shape",
    ["all of one action", "months without entries", "equal milliseconds", "one action at the end"],
)
def test_pages_of_odd_shapes(store: Store, shape: str) -> None:
    """Whatever entries are like, any page is that of the whole list; and who pages meets late arrivals at most once."""
    events = shaped(shape)
    early, late = events[::2], events[1::2]
    assert store.append(early) == []
    for sort in ("-timestamp", "action"):
        query = Query("default", sort=sort)
        first = store.search(query, Window(300))
        store.append(late[: len(late) // 2] if sort == "-timestamp" else late)
        met = [event.id for event in first.items]
        while first.has_next:
            first = store.search(query, Window(300, after=sort_key(first.items[-1])))
            met += [event.id for event in first.items]
        assert len(set(met)) == len(met)
        assert {event.id for event in early} <= set(met)
    for sort in SORTS:
        query, expected = Query("default", sort=sort), in_order(events, sort)
        for offset in (0, 1, 999, 1001, 1500, 2975, 2990, 3000):
            page = store.search(query, Window(25, offset))
            assert page.items == tuple(expected[offset : offset + 25]), offset
            assert (page.total, page.has_next) == (3000, offset < 2975)
        before = store.search(query, Window(25, before=sort_key(expected[1500])))
        assert before.items == tuple(expected[1475:1500])
    for action in ("user.created", "backup.deleted", "backup.created"):
        some = [event for event in in_order(events, "action") if event.action == action]
        query = Query("default", sort="action", actions=frozenset((action,)))
        for offset in {0, len(some) // 2, max(0, len(some) - 1)}:
            page = store.search(query, Window(10, offset))
            assert page.items == tuple(some[offset : offset + 10])
            assert page.total == len(some)
    oldest, newest = events[-1].timestamp, events[0].timestamp
    middle = (oldest + newest) // 2
    for start, end in ((oldest, middle), (middle, newest), (newest - 86_400_000 * 200, newest - 86_400_000 * 100)):
        query = Query("default", start=start, end=end)
        assert store.search(query, Window(1)).total == sum(start <= event.timestamp < end for event in events)


# For each alphabet: a text, what finds it, and what does not.
ALPHABETS = {
    "ASCII": ("Mail.Example", ('"mail example"', "EXAM", "example mail"), ("ail", '"example mail"')),
    "Latin with accents": ("Łódź Ærøskøbing Straße", ("lodz", "aeroskob", "STRASSE", "łÓ"), ("odz", "strase")),
    "Greek": ("Σίσυφος", ("σισυφοσ", "ΣΊΣΥ", "σίσυφος"), ("ισυφος", "sisyfos")),
    "Cyrillic": ("Жанна Ёлкина", ("жанна", "ЕЛКИНА", "ёлк"), ("анна",)),
    "Hebrew": ("שָׁלוֹם עולם", ("שלום", "שָׁל", '"שלום עולם"'), ("לום",)),
    "Arabic": ("مَرحبًا بالعالم", ("مرحبا", "مَر", "بالعالم"), ("رحبا",)),
    "Hindi": ("नमस्ते दुनिया", ("नमस्ते", "नम", "दुनिया"), ("मस्ते",)),
    "CJK": ("株式会社さくら", ("株式", "株式会社さくら"), ("会社", "さくら")),
    "half-width kana": ("ｱｲｳ", ("アイウ", "ｱ"), ("イウ",)),
    "Hangul": ("가나다 한글", ("가나", "한", '"가나다 한글"'), ("나다",)),
    "emoji": ("deploy👍🏽done 👩‍👧", ("deploy", "done", '"deploy done"', "done👍"), ("ploy",)),
    "signs": ("a!b\"c#d$e%f&g'h(i)j*k+l,m-n.o/p", ('"a b c d e f g h i j k l m n o p"', "p.a", "a:b"), ('"a c"',)),
    "full width": ("ＦＵＬＬ　ｗｉｄｔｈ①", ("full", '"full width1"', "ｗｉＤ"), ("idth",)),
    "beyond the first plane": ("𐐷𐐨 𝔘nicode 𠮷野", ("𐐏", "unicode", "𠮷"), ("野", "𐐨")),
}


@pytest.mark.parametrize("alphabet", ALPHABETS)
def test_alphabets(store: Store, alphabet: str) -> None:
    """In every alphabet, words are found by their beginnings, without regard to case and marks, and as phrases."""
    text, finding, missing = ALPHABETS[alphabet]
    event = entry("user.created", detail=text)
    store.append([event, entry("user.created", detail="other")])
    for q in finding:
        assert found(store, Query("default", words=parse_words(q))) == [event.id], q
    for q in missing:
        assert found(store, Query("default", words=parse_words(q))) == [], q


@pytest.mark.parametrize("letter", ["x", "é", "ж", "株", "𐐨", "𝔘"])
def test_of_a_long_word_255_characters_count(store: Store, letter: str) -> None:
    """A word of 300 characters is found by its first 255, whatever plane they are of; what follows does not count."""
    event = entry("user.created", target=letter * 300, detail=letter * 254 + "q")
    store.append([event, entry("user.created", target=letter * 253, user=letter * 40 + "z" * 400)])
    whole = tokens(letter * 300)[0]
    assert len(whole) == 255
    for part, phrase, expected in (
        ((whole,), False, 1), ((whole,), True, 1), ((whole[:253],), False, 2), ((whole[:253],), True, 1),
        ((tokens(letter * 254 + "q")[0],), True, 1), ((whole, whole), True, 0),
    ):  # fmt: skip
        query = Query("default", words=(Word(part, phrase),))
        assert store.search(query, Window(1)).total == expected, (part, phrase)


def test_arrivals_are_met_once_each_in_the_order_in_which_they_came(store: Store) -> None:
    """From position to position, every entry that came since is met once, whatever its own time, and no other."""
    now = now_ms()
    store.append([entry(target="before")])
    nothing, position, _ = store.arrivals(None)
    assert not nothing
    assert store.arrivals(position)[:2] == ([], position)
    batches = [
        [entry(timestamp=(now - late) / 1000, org=org) for late in (0, 120_000, 40 * 86_400_000)] for org in "abcde"
    ]
    met: list[AuditEvent] = []
    for batch in batches:
        store.append([*batch, batch[0]])
        came, position, more = store.arrivals(position)
        met += [event for event, _ in came]
        assert not more
    store.append(batches[0])  # a repetition is no arrival
    came, position, _ = store.arrivals(position)
    met += [event for event, _ in came]
    assert sorted(event.id for event in met) == sorted(event.id for batch in batches for event in batch)
    assert [event.org for event in met] == [org for org in "abcde" for _ in range(3)]


def test_arrivals_go_on_from_an_old_position_while_others_write(store: Store) -> None:
    """While several write, who follows in small steps, and who begins again from an earlier position, miss nothing."""
    store.append([entry(target="before")])
    start = position = store.arrivals(None)[1]
    with ThreadPoolExecutor(3) as threads:
        writing = [
            threads.submit(lambda: [store.append([entry() for _ in range(7)]) for _ in range(20)]) for _ in range(3)
        ]
        met: list[str] = []
        while len(met) < 420:
            came, position, _ = store.arrivals(position, 10)
            met += [event.id for event, _ in came]
        for done in writing:
            done.result()
    assert len(set(met)) == len(met) == 420
    assert store.arrivals(position)[0] == []
    again: list[str] = []
    while len(again) < 420:
        came, start, more = store.arrivals(start, 50)
        again += [event.id for event, _ in came]
        assert more or len(again) == 420
    assert sorted(again) == sorted(met)
    with pytest.raises(ValueError, match="no position"):
        store.arrivals("nonsense")


def test_from_the_position_after_any_entry_the_others_follow(store: Store) -> None:
    """Within a batch too, and asked in small steps, while others write; twice from one position gives the same."""
    store.append([entry(target="before")])
    start = store.arrivals(None).position
    store.append([replace(entry(target=str(number)), origin="spool", sequence=7 + number // 2) for number in range(6)])
    batch = store.arrivals(start).entries
    assert sorted(event.target for event, _ in batch) == list("012345")
    for written in ("nothing", "late"):
        if written == "late":
            store.append([entry(target=written, timestamp=now_ms() / 1000 - 86_400) for _ in range(3)])
        for place, (_, position) in enumerate(batch):
            for limit in (1, 4, 1000):
                met: list[AuditEvent] = []
                here, more = position, True
                while more:
                    came, here, more = store.arrivals(here, limit)
                    met += [event for event, _ in came]
                    assert not came or store.arrivals(came[-1].position).entries[:1] == store.arrivals(here).entries[:1]
                expected = [event.target for event, _ in batch[place + 1 :]] + ["late"] * 3 * (written == "late")
                assert [event.target for event in met] == expected


def test_a_histogram_counts_by_span_and_tone(store: Store) -> None:
    """Each entry that a query finds is counted in the one span that it lies in, under its tone."""
    now = now_ms()
    made = {"domain.created": "green", "domain.deleted": "red", "user.password_changed": "yellow"}
    store.append(
        [
            entry(action, timestamp=(now + milliseconds) / 1000)
            for action in made
            for milliseconds in (-1, 0, 0, 9, 10, 29, 30)
        ]
    )
    each = dict.fromkeys(made.values(), 1)
    three = dict.fromkeys(made.values(), 3)
    edges = [now, now + 10, now + 20, now + 30]
    assert store.histogram(ALL, edges) == [three, {"green": 1, "red": 1, "yellow": 1}, each]
    assert store.histogram(Query("default", actions=frozenset(["domain.deleted"])), edges[:2]) == [{"red": 3}]
    assert store.histogram(Query("nobody"), edges) == [{}, {}, {}]
    assert store.histogram(ALL, edges[:1]) == store.histogram(ALL, []) == []
    many = [now - 400_000 + step * 1000 for step in range(402)]
    counted = store.histogram(ALL, many)
    assert len(counted) == 401
    assert sum(sum(tones.values()) for tones in counted) == 21


def test_entries_without_a_user_are_asked_for(store: Store) -> None:
    """The empty user is that of entries without one; and a snapshot of no rows knows how many there are."""
    nobody = entry(user="")
    store.append([nobody, entry(user="alice")])
    assert found(store, Query("default", user="")) == [nobody.id]
    with closing(store.snapshot(ALL, 0)) as snapshot:
        assert snapshot.total == 2
        assert list(snapshot.batches()) == []


def test_organisations_are_those_with_entries(store: Store) -> None:
    """Each organisation that has an entry is named once, whole, in order of code points; no other is."""
    assert store.organisations() == []
    names = ["b", "Z", "a\0c", "a", "é", "\uffee", "𐐷", "' OR 1=1 --", "a" * 200]
    store.append([entry(org=name) for name in names for _ in range(3)])
    store.append([entry(org="b")])
    assert store.organisations() == sorted(names)
