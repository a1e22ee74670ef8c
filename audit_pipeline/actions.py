"""The catalogue: which actions there are, how they read and in which tone they are shown.

To add an action to the product, add one line to `_BUILT_IN` (and one to `_CATEGORIES` for a new group). An application
adds its own with `register_action`, which its own process knows, or keeps them in a file that `AUDIT_CATALOGUE` names,
so that viewer and command line know them too.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from inspect import Parameter, signature
from pathlib import Path
from typing import Any

import orjson

from .errors import DuplicateAction, SettingsError, UnknownAction

__all__ = ["TONES", "Action", "Catalogue", "Category", "catalogue", "load_catalogue_file", "register_action"]

TONES = ("green", "yellow", "red", "accent")
"""green: made. yellow: changed. red: deleted, or a failed login. accent: authentication and operations."""

MAX_ACTION_LENGTH = 64
_ID = re.compile(r"[a-z][a-z0-9_-]*(\.[a-z0-9_-]+)*\Z")


@dataclass(frozen=True, slots=True)
class Action:
    """One kind of thing that an administrator does."""

    id: str
    label: str
    category: str
    tone: str
    outcome: str = "success"
    """The outcome of an entry that names none."""


@dataclass(frozen=True, slots=True)
class Category:
    """A group of actions, in the order in which they were declared."""

    id: str
    label: str
    actions: tuple[Action, ...]


def _is_id(value: object) -> bool:
    return isinstance(value, str) and _ID.match(value) is not None


class Catalogue:
    """The actions of this process, in the order of their declaration."""

    def __init__(self) -> None:
        self._labels: dict[str, str] = {}
        self._actions: dict[str, Action] = {}

    def add(self, action: Action, category_label: str | None = None) -> Action:
        """Declare an action.

        Raises DuplicateAction where the id is taken, or the category has another label, and ValueError where a part
        has the wrong form.
        """
        if not (_is_id(action.id) and len(action.id) <= MAX_ACTION_LENGTH):
            raise ValueError(
                f"action id {action.id!r}: allowed are up to {MAX_ACTION_LENGTH} of a-z, 0-9, _ and - in parts "
                "joined by dots, such as 'mailbox.archived'"
            )
        if not (_is_id(action.category) and len(action.category) <= MAX_ACTION_LENGTH):
            raise ValueError(
                f"category {action.category!r}: allowed are up to {MAX_ACTION_LENGTH} of a-z, 0-9, _ and -, such as "
                "'mailboxes'"
            )
        if action.tone not in TONES:
            raise ValueError(f"tone {action.tone!r}: allowed are {', '.join(TONES)}")
        if action.outcome not in ("success", "failure"):
            raise ValueError(f"outcome {action.outcome!r}: allowed are success, failure")
        for label in (action.label, action.category if category_label is None else category_label):
            # Lone surrogates are no text: an entry with such a label could not be written.
            if not (isinstance(label, str) and label.strip() and label == label.encode(errors="replace").decode()):
                raise ValueError(f"label of {action.id}: a label that people can read is needed")
        if action.id in self._actions:
            label = self._actions[action.id].label
            raise DuplicateAction(
                f"action {action.id} is declared already, as {label!r}: choose another id, or declare it once"
            )
        known = self._labels.get(action.category)
        if known is not None and category_label not in (None, known):
            raise DuplicateAction(f"category {action.category} is declared already, as {known!r}: leave its label out")
        self._labels[action.category] = known or category_label or action.category.replace("_", " ").capitalize()
        self._actions[action.id] = action
        return action

    def __contains__(self, action_id: object) -> bool:
        return isinstance(action_id, str) and action_id in self._actions

    def __iter__(self) -> Iterator[Action]:
        return iter(self._actions.values())

    def __getitem__(self, action_id: str) -> Action:
        """The action of that id. Raises UnknownAction, whose text names the nearest known ones."""
        try:
            return self._actions[action_id]
        except (KeyError, TypeError):
            raise UnknownAction(self.unknown(action_id)) from None

    def unknown(self, action_id: object) -> str:
        """One sentence that says that there is no such action, and what to do."""
        if action_id is None:
            return "no action is given; `audit-pipeline actions` lists all"
        # Not the text form of any object: it may be endless, or raise.
        shown = repr(action_id)[:80] if type(action_id) in (str, int) else f"of type {type(action_id).__name__}"
        hint = f"{meant} " if (meant := self.meant(action_id)) else ""
        return (
            f"unknown action {shown}: {hint}`audit-pipeline actions` lists all; register_action() adds one to its own "
            "process, the file that AUDIT_CATALOGUE names to all"
        )

    def meant(self, action_id: object) -> str:
        """The question whether one of the nearest known ones was meant; empty where none is near."""
        # Imported here: a large module, for a rare sentence.
        from difflib import get_close_matches

        near = get_close_matches(action_id[:64], self._actions, 3) if isinstance(action_id, str) else []
        return f"did you mean {' or '.join(near)}?" if near else ""

    def refusal(self, given: Mapping[str, Any]) -> str:
        """As `unknown`, of the action of an event as it was sent."""
        if given.get("action") is None and "event" in given:
            return "no action is given: its key is `action`, not `event`; `audit-pipeline actions` lists all"
        return self.unknown(given.get("action"))

    def categories(self) -> tuple[Category, ...]:
        """All categories with their actions."""
        groups: dict[str, list[Action]] = {category: [] for category in self._labels}
        for action in self:
            groups[action.category].append(action)
        return tuple(Category(key, self._labels[key], tuple(actions)) for key, actions in groups.items())


_CATEGORIES = {
    "domains": "Domains",
    "users": "Users",
    "aliases": "Aliases",
    "dkim": "DKIM",
    "services": "Services",
    "queue": "Queue",
    "backups": "Backups",
    "accounts": "Accounts",
    "auth": "Authentication",
    "settings": "Settings",
    "system": "System",
    "audit": "Audit",
}

_BUILT_IN = (
    Action("domain.created", "Domain created", "domains", "green"),
    Action("domain.deleted", "Domain deleted", "domains", "red"),
    Action("user.created", "User created", "users", "green"),
    Action("user.password_changed", "Password changed", "users", "yellow"),
    Action("user.deleted", "User deleted", "users", "red"),
    Action("user.bulk_imported", "Bulk import", "users", "green"),
    Action("alias.created", "Alias created", "aliases", "green"),
    Action("alias.deleted", "Alias deleted", "aliases", "red"),
    Action("dkim.key_generated", "DKIM key generated", "dkim", "green"),
    Action("dkim.key_deleted", "DKIM key deleted", "dkim", "red"),
    Action("service.started", "Service started", "services", "accent"),
    Action("service.stopped", "Service stopped", "services", "accent"),
    Action("service.restarted", "Service restarted", "services", "accent"),
    Action("queue.flushed", "Queue flushed", "queue", "accent"),
    Action("queue.cleared", "Queue cleared", "queue", "red"),
    Action("queue.item_deleted", "Queue item deleted", "queue", "red"),
    Action("backup.created", "Backup created", "backups", "green"),
    Action("backup.deleted", "Backup deleted", "backups", "red"),
    Action("backup.schedule_updated", "Backup schedule updated", "backups", "yellow"),
    Action("account.created", "Account created", "accounts", "green"),
    Action("account.updated", "Account updated", "accounts", "yellow"),
    Action("account.deleted", "Account deleted", "accounts", "red"),
    Action("auth.login_succeeded", "Login success", "auth", "accent"),
    Action("auth.login_failed", "Login failed", "auth", "red", "failure"),
    Action("auth.logged_out", "Logout", "auth", "accent"),
    Action("settings.updated", "Settings updated", "settings", "yellow"),
    Action("settings.ai_updated", "AI settings updated", "settings", "yellow"),
    Action("system.factory_reset", "Factory reset", "system", "red"),
    Action("system.relay_configured", "Relay configured", "system", "yellow"),
    Action("system.relay_removed", "Relay removed", "system", "red"),
    Action("system.update_initiated", "Update initiated", "system", "yellow"),
    # What this product does itself.
    Action("audit.exported", "Audit exported", "audit", "accent"),
    Action("audit.gap", "Audit gap", "audit", "red", "failure"),
)


def _built_in() -> Catalogue:
    made = Catalogue()
    for action in _BUILT_IN:
        made.add(action, _CATEGORIES[action.category])
    return made


catalogue = _built_in()
"""The catalogue of this process."""


def register_action(
    id: str,
    label: str,
    category: str,
    tone: str,
    *,
    category_label: str | None = None,
    outcome: str = "success",
) -> Action:
    """Add an application's own action to the catalogue of this process.

    `tone` is one of TONES; `outcome` is that of entries that name none; `category_label` names a new category.
    Raises DuplicateAction where the id is taken, ValueError where a part has the wrong form.
    """
    return catalogue.add(Action(id, label, category, tone, outcome), category_label)


_loaded: set[Path] = set()


def load_catalogue_file(path: Path) -> None:
    """Register the actions of a JSON file: a list of objects with the arguments of `register_action`.

    A file that was loaded before is not read again. Raises SettingsError where it cannot be read or a declaration is
    wrong.
    """
    path = path.resolve()
    if path in _loaded:
        return
    try:
        entries = orjson.loads(path.read_bytes())
        if not isinstance(entries, list):
            raise ValueError("not a list")
        for number, entry in enumerate(entries, 1):
            _check_keys(number, entry)
            register_action(**entry)
    except DuplicateAction as error:
        raise SettingsError(f"AUDIT_CATALOGUE: {path}: {error}") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise SettingsError(
            f"AUDIT_CATALOGUE: {path} is no catalogue file ({reason}); it is a JSON list such as "
            '[{"id": "mailbox.archived", "label": "Mailbox archived", "category": "mailboxes", "tone": "yellow"}]'
        ) from error
    _loaded.add(path)


def _check_keys(number: int, entry: object) -> None:
    """Raises ValueError where a declaration of a file has not the keys of `register_action`."""
    if not isinstance(entry, dict):
        raise ValueError(f"entry {number} is no object")
    keys = signature(register_action).parameters
    for key in entry:
        if key not in keys:
            raise ValueError(f"entry {number} has a key {key[:40]!r}; allowed are {', '.join(keys)}")
    for key, parameter in keys.items():
        if parameter.default is Parameter.empty and key not in entry:
            raise ValueError(f"entry {number} has no key {key!r}")
