"""For the tests of an application that keeps an audit log.

```python
def test_deleting_a_domain_is_audited(client):
    with audit_log(audit) as log:  # the pipeline that the application opened
        client.delete("/domains/example.com")
    log.assert_recorded("domain.deleted", target="example.com", user="alice@example.com")
```
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from typing import Any

from .actions import catalogue
from .context import unaudited
from .event import AuditEvent
from .processor import AuditPipeline
from .settings import Settings

__all__ = ["AuditLog", "audit_log", "no_unaudited_requests"]


class AuditLog:
    """The entries that an application made in a test."""

    def __init__(self, pipeline: AuditPipeline) -> None:
        self.pipeline = pipeline
        """Hand this to the application in place of its own."""
        self._final: list[AuditEvent] | None = None

    @property
    def entries(self) -> list[AuditEvent]:
        """The entries so far, in the order in which they were made."""
        return self._read() if self._final is None else self._final

    def close(self) -> None:
        """Close the pipeline; the entries stay readable."""
        self._final = self._read()
        self.pipeline.close(0)

    def _read(self) -> list[AuditEvent]:
        return self.pipeline.spool.pending(limit=100_000, size=2**30)

    def assert_recorded(self, action: str, **expected: Any) -> AuditEvent:
        """The newest entry of this action whose fields and context keys equal the expected ones.

        Raises AssertionError, with the entries that there are, where none does.
        """
        for event in reversed(self.entries):
            if event.action == action and all(_value(event, name) == value for name, value in expected.items()):
                return event
        if action not in catalogue:
            raise AssertionError(catalogue.unknown(action))
        others = [name for name in expected if name not in _FIELDS and not any(name in e.context for e in self.entries)]
        hint = f"; no entry has {', '.join(others)}" if others else ""
        raise AssertionError(f"no entry {action} with {expected!r}{hint}; there are: {self._listed()}")

    def assert_nothing_recorded(self) -> None:
        """Raises AssertionError where there is any entry."""
        if self.entries:
            raise AssertionError(f"entries were made: {self._listed()}")

    def _listed(self) -> str:
        lines = [
            f"{event.action} target={event.target!r} user={event.user!r} ip={event.ip!r} detail={event.detail!r}"
            for event in self.entries
        ]
        return "\n  ".join(["", *lines]) if lines else "none"


_FIELDS = frozenset(field.name for field in fields(AuditEvent))


def _value(event: AuditEvent, name: str) -> Any:
    return getattr(event, name) if name in _FIELDS else event.context.get(name)


@contextmanager
def audit_log(pipeline: AuditPipeline | None = None, *, on_invalid: str = "raise") -> Iterator[AuditLog]:
    """The entries of a test, with nothing else among them; ends with `no_unaudited_requests`.

    With the application's `pipeline`, what it takes meanwhile, through structlog or `record`, comes here and not into
    its own spool. Without one, hand `log.pipeline` to the application. Invalid entries raise InvalidEvent, so that a
    test sees them.
    """
    # Settings of its own: a test must not write into the spool that the environment names.
    settings = Settings(store_url="memory://")
    log = AuditLog(AuditPipeline.open(settings=settings, on_invalid=on_invalid, ship=False))
    redirected = {"prepare": log.pipeline.prepare, "accept": log.pipeline.accept}
    before: dict[str, Any] = {}
    if pipeline is not None:
        before = {name: vars(pipeline)[name] for name in redirected if name in vars(pipeline)}
        vars(pipeline).update(redirected)
    try:
        with no_unaudited_requests():
            yield log
    finally:
        if pipeline is not None:
            for name in redirected:
                del vars(pipeline)[name]
            vars(pipeline).update(before)  # those of an `audit_log` around this one
        log.close()


@contextmanager
def no_unaudited_requests() -> Iterator[None]:
    """Raises AssertionError at its end where AuditMiddleware saw a change that left no entry, and names the routes."""
    before = unaudited.copy()
    yield
    if new := unaudited - before:
        routes = ", ".join(f"{place} ({times}×)" for place, times in sorted(new.items()))
        raise AssertionError(f"requests succeeded without an audit entry: {routes}")
