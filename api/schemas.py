"""The shapes of the answers, for the OpenAPI description."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field

__all__ = ["Accepted", "ActionList", "EventDetails", "EventItem", "EventPage", "Histogram", "Status"]

Tone = Literal["green", "yellow", "red", "accent"]


class EventItem(BaseModel):
    """One entry, as a list shows it."""

    id: str = Field(description="UUIDv7", examples=["019ab3c0-7d1b-7c3e-9f00-3d5a0b6c1e2f"])
    timestamp: str = Field(description="RFC 3339, UTC, milliseconds", examples=["2026-11-23T03:41:00.123Z"])
    action: str = Field(examples=["domain.created"])
    label: str = Field(examples=["Domain created"])
    category: str = Field(examples=["domains"])
    tone: Tone
    target: str = Field(examples=["example.com"])
    detail: str = Field(examples=["DKIM enabled"])
    user: str = Field(examples=["alice@example.com"])
    ip: str = Field(description="masked; empty where there is none", examples=["203.0.113.xxx"])
    outcome: Literal["success", "failure"]


class EventDetails(EventItem):
    """One entry, with everything that may be seen of it."""

    context: dict[str, Any] = Field(description="whatever else the application said")
    problems: list[str] = Field(description="what was wrong with the entry as it was given")
    received: str = Field(description="when it was recorded: RFC 3339, UTC, milliseconds")


class EventPage(BaseModel):
    """A page of entries."""

    items: list[EventItem]
    total: int = Field(description="how many entries match, exactly")
    page: int
    page_size: int
    pages: int
    next: str | None = Field(description="the cursor of the next page")
    previous: str | None = Field(description="the cursor of the previous page")


class Bucket(BaseModel):
    """A span of time."""

    start: str = Field(description="RFC 3339, UTC, milliseconds", examples=["2026-11-23T03:00:00.000Z"])
    count: int
    tones: dict[Tone, int] = Field(description="the same by tone; tones without entries are left out")


class Histogram(BaseModel):
    """Spans of time that follow one another, and how many entries lie in each."""

    interval: str = Field(description="how long a span is: ISO 8601 duration", examples=["PT1H"])
    buckets: list[Bucket]


class ActionEntry(BaseModel):
    """One action of the catalogue."""

    id: str
    label: str
    tone: Tone


class CategoryEntry(BaseModel):
    """One category of the catalogue, with its actions."""

    id: str
    label: str
    actions: list[ActionEntry]


class ActionList(BaseModel):
    """The catalogue."""

    categories: list[CategoryEntry]


class Accepted(BaseModel):
    """The ids of recorded events, in the order in which they were sent."""

    ids: list[str]


class Status(BaseModel):
    """A status word."""

    status: Literal["ok", "ready", "unavailable"]
