"""The catalogue of actions."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from audit_pipeline import actions
from audit_pipeline.actions import TONES, Action, Catalogue, catalogue, load_catalogue_file, register_action
from audit_pipeline.errors import DuplicateAction, InvalidQuery, SettingsError, UnknownAction
from audit_pipeline.query import parse_query

TABLE = """
domains | Domains | domain.created: Domain created · domain.deleted: Domain deleted | green · red
users | Users | user.created: User created · user.password_changed: Password changed · user.deleted: User deleted · \
user.bulk_imported: Bulk import | green · yellow · red · green
aliases | Aliases | alias.created: Alias created · alias.deleted: Alias deleted | green · red
dkim | DKIM | dkim.key_generated: DKIM key generated · dkim.key_deleted: DKIM key deleted | green · red
services | Services | service.started: Service started · service.stopped: Service stopped · \
service.restarted: Service restarted | accent · accent · accent
queue | Queue | queue.flushed: Queue flushed · queue.cleared: Queue cleared · \
queue.item_deleted: Queue item deleted | accent · red · red
backups | Backups | backup.created: Backup created · backup.deleted: Backup deleted · \
backup.schedule_updated: Backup schedule updated | green · red · yellow
accounts | Accounts | account.created: Account created · account.updated: Account updated · \
account.deleted: Account deleted | green · yellow · red
auth | Authentication | auth.login_succeeded: Login success · auth.login_failed: Login failed · \
auth.logged_out: Logout | accent · red · accent
settings | Settings | settings.updated: Settings updated · settings.ai_updated: AI settings updated | yellow · yellow
system | System | system.factory_reset: Factory reset · system.relay_configured: Relay configured · \
system.relay_removed: Relay removed · system.update_initiated: Update initiated | red · yellow · red · yellow
audit | Audit | audit.exported: Audit exported · audit.gap: Audit gap | accent · red
"""
"""INTERFACE, section 4, and what the product adds of its own."""


@pytest.fixture
def own_catalogue() -> Iterator[Catalogue]:
    """The catalogue of this process, put back as it was at the end."""
    before = dict(catalogue._labels), dict(catalogue._actions), set(actions._loaded)
    yield catalogue
    for kept, was in zip((catalogue._labels, catalogue._actions), before[:2], strict=True):
        kept.clear()
        kept.update(was)
    actions._loaded.clear()
    actions._loaded.update(before[2])


def test_the_catalogue_is_the_table_of_the_interface() -> None:
    """Ids, labels, categories, their order and the tones are those that other programs rely on."""
    expected = []
    for line in TABLE.strip().splitlines():
        category, label, listed, tones = (part.strip() for part in line.split("|"))
        pairs = [tuple(entry.strip().split(": ")) for entry in listed.split("·")]
        shades = [tone.strip() for tone in tones.split("·")]
        expected.append((category, label, [(*pair, tone) for pair, tone in zip(pairs, shades, strict=True)]))
    assert [
        (category.id, category.label, [(action.id, action.label, action.tone) for action in category.actions])
        for category in catalogue.categories()
    ] == expected


def test_only_a_failed_login_is_a_failure() -> None:
    """An entry that names no outcome is a success, but for a failed login."""
    assert [action.id for action in catalogue if action.outcome != "success"] == ["auth.login_failed", "audit.gap"]


@pytest.mark.parametrize("tone", TONES)
def test_an_application_adds_its_own_action(own_catalogue: Catalogue, tone: str) -> None:
    """A registered action is known at once, under a category that reads well without a label."""
    added = register_action("mailbox.archived", "Mailbox archived", "mail_boxes", tone)
    assert added in list(own_catalogue)
    assert own_catalogue["mailbox.archived"] is added
    assert own_catalogue.categories()[-1].label == "Mail boxes"


def test_duplicates_are_refused(own_catalogue: Catalogue) -> None:
    """Neither an id nor a category's label can be declared anew, and the first declaration stays."""
    with pytest.raises(DuplicateAction, match=r"domain\.created is declared already, as 'Domain created'"):
        register_action("domain.created", "Domain made", "domains", "red")
    with pytest.raises(DuplicateAction, match="category domains is declared already, as 'Domains'"):
        register_action("domain.moved", "Domain moved", "domains", "red", category_label="Zones")
    assert own_catalogue["domain.created"].tone == "green"
    assert "domain.moved" not in own_catalogue


@pytest.mark.parametrize(
    "wrong",
    [
        *[{"id": name} for name in ("", "A.b", "a b", "a..b", ".a", "a.", "1a", "a.b\n", "ä.b", "a" * 65, None, 5)],
        *[{"category": name} for name in ("", "Mail", "mail boxes", None)],
        *[{"label": label} for label in ("", " ", None)],
        *[{"tone": tone} for tone in ("blue", "", None)],
        {"outcome": "maybe"},
    ],
    ids=str,
)
def test_malformed_declarations_are_refused(wrong: dict[str, Any]) -> None:
    """A declaration with a wrong part raises a ValueError that says which, and what is allowed."""
    parts = {"id": "mailbox.archived", "label": "Mailbox archived", "category": "mailboxes", "tone": "yellow"} | wrong
    empty = Catalogue()
    with pytest.raises(ValueError, match=f"{next(iter(wrong))}.*(allowed|needed)"):
        empty.add(Action(**parts))
    assert empty.categories() == ()


def test_the_longest_id_is_taken() -> None:
    """An action id may have 64 characters."""
    assert Catalogue().add(Action("a" * 64, "Long", "a", "red")).id == "a" * 64


def test_an_unknown_action_is_named_with_near_ones() -> None:
    """UnknownAction shows what was asked for, the nearest ids, and where all are listed."""
    with pytest.raises(UnknownAction, match=r"'domain\.create': did you mean domain\.created.*audit-pipeline actions"):
        catalogue["domain.create"]


def test_an_action_of_another_process_is_looked_for_in_the_file() -> None:
    """What one process registered no other knows: the answer names the file that all may have."""
    with pytest.raises(UnknownAction, match="AUDIT_CATALOGUE"):
        catalogue["mailbox.archived"]
    with pytest.raises(InvalidQuery, match=r"no such action.*AUDIT_CATALOGUE"):
        parse_query({"action": ["mailbox.archived"]}, "default")


@pytest.mark.parametrize("odd", [None, 7, [], {}, "x" * 100_000, "\ud800", "a\nb"], ids=lambda odd: repr(odd)[:20])
def test_what_is_no_action_is_unknown(odd: Any) -> None:
    """Whatever is asked for, the answer is a short sentence of one line."""
    assert odd not in catalogue
    with pytest.raises(UnknownAction) as raised:
        catalogue[odd]
    assert len(str(raised.value)) < 300
    assert "\n" not in str(raised.value)


def test_a_catalogue_file_is_read_once(own_catalogue: Catalogue, tmp_path: Path) -> None:
    """The actions of a file are registered; the same file again changes nothing."""
    path = tmp_path / "actions.json"
    entry = {"id": "mailbox.archived", "label": "Mailbox archived", "category": "mailboxes", "tone": "yellow"}
    path.write_bytes(orjson.dumps([entry, entry | {"id": "mailbox.left", "outcome": "failure"}]))
    load_catalogue_file(path)
    load_catalogue_file(tmp_path / "." / "actions.json")
    assert own_catalogue["mailbox.left"].outcome == "failure"
    assert own_catalogue.categories()[-1].id == "mailboxes"


@pytest.mark.usefixtures("own_catalogue")
@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"{}",
        b'""',
        b"null",
        b"[1]",
        b"\xff",
        b'[{"id": "x.y"}]',
        b'[{"id": "x.y", "label": "X", "category": "x", "tone": "red", "colour": "red"}]',
        b'[{"id": "x.y", "label": "X", "category": "x", "tone": "blue"}]',
        b'[{"id": 5, "label": "X", "category": "x", "tone": "red"}]',
    ],
)
def test_a_wrong_catalogue_file_stops_the_program(tmp_path: Path, content: bytes) -> None:
    """Anything else than a list of declarations is a SettingsError of one line, with the path and an example."""
    path = tmp_path / "actions.json"
    path.write_bytes(content)
    with pytest.raises(
        SettingsError, match=r"AUDIT_CATALOGUE: .*actions\.json is no catalogue file.*such as"
    ) as raised:
        load_catalogue_file(path)
    assert "\n" not in str(raised.value)


@pytest.mark.usefixtures("own_catalogue")
def test_an_action_that_a_catalogue_file_declares_again_is_named(tmp_path: Path) -> None:
    """A file that is well formed is not told to be none: the action is named, and what to do."""
    path = tmp_path / "actions.json"
    path.write_bytes(b'[{"id": "domain.created", "label": "X", "category": "x", "tone": "red"}]')
    with pytest.raises(SettingsError) as raised:
        load_catalogue_file(path)
    assert str(raised.value) == (
        f"AUDIT_CATALOGUE: {path}: action domain.created is declared already, as 'Domain created': choose another id, "
        "or declare it once"
    )


@pytest.mark.usefixtures("own_catalogue")
def test_a_wrong_key_of_a_catalogue_file_is_named(tmp_path: Path) -> None:
    """A key that is misspelt, or missing, is told with the place of its entry and the keys that are allowed."""
    path = tmp_path / "actions.json"
    entry = {"id": "mailbox.archived", "label": "Mailbox archived", "category": "mailboxes", "tone": "yellow"}
    path.write_bytes(orjson.dumps([entry, entry | {"id": "mailbox.left", "lable": "Mailbox left"}]))
    allowed = "allowed are id, label, category, tone, category_label, outcome"
    with pytest.raises(SettingsError, match=rf"\(entry 2 has a key 'lable'; {allowed}\)"):
        load_catalogue_file(path)
    del entry["label"]
    path.write_bytes(orjson.dumps([entry]))
    with pytest.raises(SettingsError, match=r"\(entry 1 has no key 'label'\)"):
        load_catalogue_file(path)


def test_a_missing_catalogue_file_is_named(tmp_path: Path) -> None:
    """A file that is not there is a SettingsError too."""
    with pytest.raises(SettingsError, match="No such file"):
        load_catalogue_file(tmp_path / "none.json")
