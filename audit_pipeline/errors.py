"""Every error this package raises. Imports nothing, and is imported by all.

AuditError
├── SettingsError          a setting is wrong; the program should not start
├── UnknownAction          the action is not in the catalogue
├── DuplicateAction        the catalogue has that action already
├── InvalidEvent           an event has problems, and the caller asked to hear of them
├── InvalidQuery           a filter, sort or page is wrong; `errors` names each parameter
├── InvalidCursor          a cursor is damaged, forged, or belongs to another query
├── SpoolError             the spool cannot take or give entries
│   ├── SpoolFull          there is no room for the entry
│   └── SpoolMismatch      the spool serves another store, or is of a newer version
└── StoreError             the store cannot answer
    ├── StoreUnavailable   it may answer later: down, busy, unreachable
    ├── StoreMissing       nothing has been set up at that place yet
    └── StoreMismatch      what is there is not ours, or of a newer version
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = [
    "AuditError",
    "DuplicateAction",
    "InvalidCursor",
    "InvalidEvent",
    "InvalidQuery",
    "SettingsError",
    "SpoolError",
    "SpoolFull",
    "SpoolMismatch",
    "StoreError",
    "StoreMismatch",
    "StoreMissing",
    "StoreUnavailable",
    "UnknownAction",
]


class AuditError(Exception):
    """Base of every error of this package. Its text is one line, and safe to show to an operator."""


class SettingsError(AuditError):
    """A setting is wrong. The text names it, and what is allowed."""


class UnknownAction(AuditError):
    """An action that the catalogue does not have."""


class DuplicateAction(AuditError):
    """An action, or a category, was declared twice with different meanings."""


class InvalidEvent(AuditError):
    """An event with problems, where the caller chose `on_invalid="raise"`.

    `problems` has one sentence each, as an entry would have them. Nothing was recorded, and the text says so.
    """

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        # Without what would have been stored instead.
        wrong = [problem.partition("; ")[0].removesuffix(", kept as text") for problem in problems]
        super().__init__(f"{'; '.join(wrong)}: nothing was recorded")


class InvalidQuery(AuditError):
    """One or more wrong parameters; `errors` has a (parameter, what is wrong and what is allowed) pair for each."""

    def __init__(self, errors: Sequence[tuple[str, str]]) -> None:
        self.errors = tuple(errors)
        super().__init__("; ".join(f"{parameter}: {detail}" for parameter, detail in self.errors))


class InvalidCursor(AuditError):
    """A cursor that was damaged or forged, or that was made for another query."""


class SpoolError(AuditError):
    """The spool cannot take or give entries. An entry that raised this was not recorded.

    `reason` is a word for it, as gaps and metrics tell it: `limit`, `age`, `disk`, `read-only` or `unusable`.
    """

    def __init__(self, text: str, reason: str = "unusable") -> None:
        self.reason = reason
        super().__init__(text)


class SpoolFull(SpoolError):
    """There is no room for the entry: a limit is reached (`limit`, `age`), or the disk is full (`disk`)."""

    def __init__(self, text: str, reason: str = "disk") -> None:
        super().__init__(text, reason)


class SpoolMismatch(SpoolError):
    """The spool serves another store, or was written by a newer version."""


class StoreError(AuditError):
    """The store cannot answer."""


class StoreUnavailable(StoreError):
    """The store cannot answer now, and may later: trying again is right."""


class StoreMissing(StoreError):
    """Nothing has been set up at that place yet."""


class StoreMismatch(StoreError):
    """What is at that place is not an audit store, or was written by a newer version."""
