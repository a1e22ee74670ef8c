"""What all tests share."""

from __future__ import annotations

import os

import pytest


@pytest.fixture(autouse=True)
def no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test sees the settings that it makes, not those of whoever runs it."""
    for name in os.environ:
        if name.startswith("AUDIT_"):
            monkeypatch.delenv(name)
