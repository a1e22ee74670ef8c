"""The stores there are. A store is one module or package of this folder, with a subclass of `Store` called STORE.

Nothing else names one: a module is found by the scheme of a store URL, up to a `+`, and loaded when it is asked for.
"""

from __future__ import annotations

import importlib
import pkgutil
import re

from ..errors import SettingsError
from .base import Arrival, Arrivals, Page, Refusal, Snapshot, Store, StoreURL

__all__ = [
    "Arrival", "Arrivals", "Page", "Refusal", "Snapshot", "Store", "StoreURL", "open_store", "store_names",
]  # fmt: skip

_SETTING = "AUDIT_STORE_URL"
"""What errors call a store's URL."""


def store_names() -> list[str]:
    """The names of all stores, in alphabetical order."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if module.name != "base")


def _schemes() -> list[str]:
    """What the URLs of all stores begin with; of a store whose library is missing, its name."""
    found: list[str] = []
    for name in store_names():
        try:
            found += importlib.import_module(f".{name}", __name__).STORE.schemes
        except ImportError:
            found.append(name)
    return found


def open_store(url: str, called: str = _SETTING) -> Store:
    """The store that a URL names. Contacts nothing. Raises SettingsError, which calls the URL as `called` says."""
    try:
        return _named_by(url)
    except SettingsError as error:
        raise SettingsError(str(error).replace(_SETTING, called, 1)) from error.__cause__


def _named_by(url: str) -> Store:
    parts = StoreURL(url)
    name = parts.scheme.partition("+")[0]
    if name not in store_names():
        shown = f"no store is called {parts.scheme[:40]!r}" if parts.scheme else "has no scheme"
        # A path alone is likely a file; of anything else, a part may be a password.
        meant = f"did you mean sqlite:///{url}? " if re.fullmatch(r"[\w./-]{1,80}", url) else ""
        raise SettingsError(
            f"AUDIT_STORE_URL: {shown}; {meant}allowed are URLs that begin with "
            + ", ".join(f"{scheme}://" for scheme in _schemes())
        )
    try:
        module = importlib.import_module(f".{name}", __name__)
    except ImportError as error:
        raise SettingsError(
            f"AUDIT_STORE_URL: {name} needs {error.name}; install it with: pip install 'audit-pipeline[{name}]'"
        ) from error
    kind: type[Store] = module.STORE
    if parts.scheme not in kind.schemes:
        raise SettingsError(f"AUDIT_STORE_URL: no scheme {parts.scheme[:40]!r}; allowed are {', '.join(kind.schemes)}")
    return kind.from_url(parts)
