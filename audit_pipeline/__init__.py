"""An audit log for Python dashboards: who did what, when and from where.

`AuditPipeline.open(...)` gives the structlog processor; `bind_actor` says who acts.
"""

from .actions import Action, register_action
from .context import bind_actor
from .errors import (
    AuditError,
    DuplicateAction,
    InvalidCursor,
    InvalidEvent,
    InvalidQuery,
    SettingsError,
    SpoolError,
    SpoolFull,
    StoreError,
    StoreUnavailable,
    UnknownAction,
)
from .event import AuditEvent
from .integrations.asgi import AuditMiddleware
from .processor import AuditPipeline

__all__ = [
    "Action",
    "AuditError",
    "AuditEvent",
    "AuditMiddleware",
    "AuditPipeline",
    "DuplicateAction",
    "InvalidCursor",
    "InvalidEvent",
    "InvalidQuery",
    "SettingsError",
    "SpoolError",
    "SpoolFull",
    "StoreError",
    "StoreUnavailable",
    "UnknownAction",
    "bind_actor",
    "register_action",
]
