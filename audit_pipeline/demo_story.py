"""What happens in the demo: 90 days in the life of a small mail host, as requests to its dashboard.

Made up, and the same each time but for the moment at which it ends. Knows no HTTP library and no pipeline.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import quote

__all__ = ["LOGIN", "LOGIN_FAILED", "LOGOUT", "OPERATIONS", "Operation", "Step", "tell"]

DAYS = 90
SEED = 20_261_123

_HOURS = (2, 1, 1, 1, 2, 5, 15, 40, 80, 100, 100, 95, 60, 75, 95, 100, 90, 60, 30, 18, 14, 10, 6, 4)
"""How busy an hour (UTC) of a working day is, in percent; weekends have a seventh of it."""

_ADMINISTRATORS = {
    "alice@mx.example": 6,
    "bob.fischer@mx.example": 4,
    "jürgen.müller@mx.example": 3,
    "ελένη@mx.example": 3,
    "tanaka@mx.example": 2,
    "support@mx.example": 5,
}
_GUESSED = ("admin", "root", "postmaster@mx.example", "info@mx.example", "test")
_AGENTS = (
    "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
    "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 Version/18.5 Safari/605.1.15",
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 Chrome/138.0.0.0 Safari/537.36",
)
_PEOPLE = (
    "Jonas Müller",
    "Ελένη Παπαδοπούλου",
    "Aiko Tanaka",
    "Zoë Lindqvist",
    "Paweł Łuczak",
    "Mary O'Neill",
    "Ana Sá",
)
_COMPANIES = ("株式会社さくら", "Müller & Söhne GmbH", "Blue Harbor Ltd", "Ελένη Travel", "Nordwind AG", "Café Ría")
_WORDS = (
    "amber",
    "birch",
    "cedar",
    "delta",
    "ember",
    "fjord",
    "grove",
    "harbor",
    "iris",
    "juniper",
    "kestrel",
    "lumen",
)
_LOCAL_PARTS = ("anna", "billing", "carlos", "daria", "emil", "hello", "j.smith", "lena", "office", "sales", "tomasz")
_PLANS = ("Starter", "Business", "Enterprise")
_SERVICES = ("postfix", "dovecot", "rspamd", "clamav-daemon", "nginx", "redis")
_CHANGES = {
    "mail": ("Message size limit 25 → 50 MB", "Greylisting on", "Retry time 5 → 3 days"),
    "security": ("Two-factor sign-in required", "Session length 8 → 4 hours", "Minimum TLS version 1.2"),
    "branding": ("Logo replaced", "Support address changed"),
}
_FAULTS = {
    "backup.created": "No space left on /var/backups",
    "service.started": "Did not start: port 993 is in use",
    "service.restarted": "Timed out after 90 s; the old process still runs",
    "dkim.key_generated": "The name server refused the record",
    "queue.flushed": "No relay could be reached",
    "user.bulk_imported": "Line 17: the mailbox exists already",
    "system.update_initiated": "The signature of the package list is not valid",
}


class _World:
    """What exists on the imaginary servers, so that only what is there gets changed or deleted."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.now = ""
        self.failing = False
        self.count = 100
        # In turn, so that every script occurs.
        self.people, self.companies = itertools.cycle(_PEOPLE), itertools.cycle(_COMPANIES)
        self.domains = ["nordwind.example", "blue-harbor.example", "bücher.example", "sakura.example", "ria.example"]
        self._pools: dict[str, list[Any]] = {
            "trial": ["spring-sale.example", "beta.example"],
            "mailbox": [f"{local}@{domain}" for domain in self.domains[:3] for local in _LOCAL_PARTS[:3]],
            "alias": ["abuse@nordwind.example", "kontakt@bücher.example"],
            "key": [("nordwind.example", "s2024"), ("ria.example", "mail")],
            "backup": ["full-first", "full-second"],
            "account": list(_COMPANIES[:4]),
            "stopped": ["redis"],
            "relay": ["smtp.relay.example"],
        }

    def pick(self, *values: Any) -> Any:
        return self.chance.choice(values)

    def number(self) -> int:
        self.count += self.chance.randint(1, 9)
        return self.count

    def add(self, pool: str, value: Any) -> Any:
        if not self.failing:
            self._pools[pool].append(value)
        return value

    def any(self, pool: str) -> Any:
        return self.chance.choice(self._pools[pool])

    def take(self, pool: str) -> Any:
        """One of them, which is gone from then on; the last one stays."""
        values = self._pools[pool]
        return values[0] if len(values) == 1 else values.pop(self.chance.randrange(len(values)))

    # The parameters of single operations, where they take more than a line

    def key(self) -> dict[str, Any]:
        domain, selector = self.add("key", (self.pick(*self.domains), f"s{self.number()}"))
        return {"domain": domain, "selector": selector, "bits": self.pick(2048, 2048, 4096)}

    def deleted_key(self) -> dict[str, Any]:
        domain, selector = self.take("key")
        return {"domain": domain, "selector": selector}

    def mailbox(self) -> dict[str, Any]:
        address = f"{self.pick(*_LOCAL_PARTS)}{self.number()}@{self.pick(*self.domains)}"
        return {"address": self.add("mailbox", address), "name": next(self.people), "quota_gb": self.pick(5, 10, 50)}

    def account(self) -> dict[str, Any]:
        company = self.add("account", f"{next(self.companies)} {self.number()}")
        return {"account": company, "plan": self.pick(*_PLANS), "contact": next(self.people)}

    def change(self) -> dict[str, Any]:
        section = self.pick(*_CHANGES)
        return {"section": section, "change": self.pick(*_CHANGES[section])}


@dataclass(frozen=True, slots=True)
class Operation:
    """Something the dashboard does: its route, and what the entry says, as templates over the route's parameters."""

    action: str
    method: str
    path: str
    target: str
    detail: str
    weight: int = 0
    """How often it happens, beyond the once that each happens anyway."""
    parameters: Callable[[_World], dict[str, Any]] = lambda world: {}


LOGIN = Operation("auth.login_succeeded", "POST", "/sessions", "dashboard", "{method}")
LOGIN_FAILED = Operation("auth.login_failed", "POST", "/sessions", "dashboard", "{method}")
LOGOUT = Operation("auth.logged_out", "DELETE", "/sessions/current", "dashboard", "")

# One line each, as wide as it takes.
# fmt: off
OPERATIONS = (
    Operation("domain.created", "POST", "/domains", "{domain}", "Plan {plan}", 5,
              lambda w: {"domain": w.add("trial", f"{w.pick(*_WORDS)}-{w.number()}.example"), "plan": w.pick(*_PLANS)}),
    Operation("domain.deleted", "DELETE", "/domains/{domain}", "{domain}", "With its mailboxes and aliases", 2,
              lambda w: {"domain": w.take("trial")}),
    Operation("user.created", "POST", "/users", "{address}", "Mailbox for {name}, {quota_gb} GB", 14, _World.mailbox),
    Operation("user.password_changed", "PUT", "/users/{address}/password", "{address}", "Set by an administrator", 9,
              lambda w: {"address": w.any("mailbox"), "new_password": f"Spring-{w.number()}", "sign_out": True}),
    Operation("user.deleted", "DELETE", "/users/{address}", "{address}", "Mailbox kept for 30 days", 5,
              lambda w: {"address": w.take("mailbox")}),
    Operation("user.bulk_imported", "POST", "/domains/{domain}/import", "{domain}", "{rows} users from {file}", 1,
              lambda w: {"domain": w.pick(*w.domains), "rows": w.pick(12, 48, 230), "file": f"users-{w.number()}.csv"}),
    Operation("alias.created", "POST", "/aliases", "{alias}", "Forwards to {goal}", 8,
              lambda w: {"alias": w.add("alias", f"team{w.number()}@{w.pick(*w.domains)}"), "goal": w.any("mailbox")}),
    Operation("alias.deleted", "DELETE", "/aliases/{alias}", "{alias}", "", 3, lambda w: {"alias": w.take("alias")}),
    Operation("dkim.key_generated", "POST", "/domains/{domain}/dkim", "{domain}", "Selector {selector}, {bits} bits", 3,
              _World.key),
    Operation("dkim.key_deleted", "DELETE", "/domains/{domain}/dkim/{selector}", "{domain}", "Selector {selector}", 1,
              _World.deleted_key),
    Operation("service.started", "POST", "/services/{service}/start", "{service}", "{reason}", 2,
              lambda w: {"service": w.take("stopped"), "reason": "Maintenance is over"}),
    Operation("service.stopped", "POST", "/services/{service}/stop", "{service}", "{reason}", 2,
              lambda w: {"service": w.add("stopped", w.pick(*_SERVICES)), "reason": "For maintenance"}),
    Operation("service.restarted", "POST", "/services/{service}/restart", "{service}", "{reason}", 6,
              lambda w: {"service": w.pick(*_SERVICES), "reason": w.pick("New certificate", "Configuration changed")}),
    Operation("queue.flushed", "POST", "/queue/flush", "mail queue", "{messages} messages tried again", 6,
              lambda w: {"messages": w.chance.randint(2, 400)}),
    Operation("queue.cleared", "DELETE", "/queue/messages", "mail queue", "All waiting messages removed", 1),
    Operation("queue.item_deleted", "DELETE", "/queue/messages/{message}", "{message}", "Undeliverable", 6,
              lambda w: {"message": f"4c{w.chance.randrange(16**8):08X}z"}),
    Operation("backup.created", "POST", "/backups", "{backup}", "Full backup, {size_gb} GB", 5,
              lambda w: {"backup": w.add("backup", f"full-{w.now}"), "size_gb": w.chance.randint(38, 61)}),
    Operation("backup.deleted", "DELETE", "/backups/{backup}", "{backup}", "Made room", 2,
              lambda w: {"backup": w.take("backup")}),
    Operation("backup.schedule_updated", "PUT", "/backups/schedule", "nightly", "At {at} UTC, kept {days} days", 1,
              lambda w: {"at": w.pick("01:30", "02:00", "03:15"), "days": w.pick(14, 30, 90)}),
    Operation("account.created", "POST", "/accounts", "{account}", "Plan {plan}, contact {contact}", 3, _World.account),
    Operation("account.updated", "PATCH", "/accounts/{account}", "{account}", "Plan changed to {plan}", 4,
              lambda w: {"account": w.any("account"), "plan": w.pick(*_PLANS)}),
    Operation("account.deleted", "DELETE", "/accounts/{account}", "{account}", "Contract ended", 1,
              lambda w: {"account": w.take("account")}),
    Operation("settings.updated", "PUT", "/settings/{section}", "{section}", "{change}", 5, _World.change),
    Operation("settings.ai_updated", "PUT", "/ai/settings", "spam assistant", "Model {model}, threshold {threshold}", 2,
              lambda w: {"model": w.pick("small", "large"), "threshold": w.pick(70, 80, 90), "api_key": "sk-4711"}),
    Operation("system.factory_reset", "POST", "/system/reset", "mail-staging", "{reason}", 0,
              lambda w: {"reason": "Staging server handed back"}),
    Operation("system.relay_configured", "PUT", "/system/relay", "{host}", "Port {port}, TLS required", 1,
              lambda w: {"host": w.add("relay", f"smtp{w.number()}.relay.example"), "port": w.pick(465, 587),
                         "smtp_user": "hoster", "smtp_password": "tr0ub4dor"}),
    Operation("system.relay_removed", "DELETE", "/system/relay/{host}", "{host}", "Delivered directly again", 0,
              lambda w: {"host": w.take("relay")}),
    Operation("system.update_initiated", "POST", "/system/update", "mail01", "To version {version}", 1,
              lambda w: {"version": f"4.{w.number() // 50}.{w.pick(0, 1, 2)}"}),
)
# fmt: on


@dataclass(frozen=True, slots=True)
class Step:
    """One request to the dashboard, and the moment at which it is made."""

    moment: datetime
    visit: int
    """Requests of one visit share a session."""
    operation: Operation
    path: str
    body: dict[str, Any]
    ip: str
    agent: str
    fault: str | None
    """How the operation is to fail; None: it succeeds."""


@dataclass(slots=True)
class _Visit:
    """An administrator at the dashboard, or somebody who tries to be one."""

    start: datetime
    user: str
    ip: str
    agent: str
    pace: tuple[float, float] = (8, 150)
    """Between which numbers of seconds one thing follows another."""
    first: list[tuple[Operation, str | None]] = field(default_factory=list)
    deeds: list[tuple[Operation, str | None]] = field(default_factory=list)
    last: list[tuple[Operation, str | None]] = field(default_factory=list)


def tell(events: int, now: datetime) -> Iterator[Step]:
    """About `events` requests in the order of their moments, over the 90 days up to `now`, with every operation."""
    chance = random.Random(SEED)
    world = _World(chance)
    scheduled: list[tuple[datetime, int, _Visit, Operation, str | None]] = []
    visits = _visits(chance, events, now)
    for number, visit in enumerate(visits):
        moment, moments = visit.start, []
        deeds = visit.first + visit.deeds + visit.last
        for _ in deeds:
            moments.append(moment)
            moment += timedelta(seconds=chance.uniform(*visit.pace))
        # The last visit ends now.
        shift = now - timedelta(seconds=20) - moments[-1] if visit is visits[-1] else timedelta()
        scheduled += [(at + shift, number, visit, *deed) for at, deed in zip(moments, deeds, strict=True)]
    for moment, number, visit, operation, fault in sorted(scheduled, key=lambda entry: entry[:2]):
        world.now, world.failing = f"{moment:%Y-%m-%d-%H%M}", fault is not None
        if operation in (LOGIN, LOGIN_FAILED):
            given = {"user": visit.user, "method": "Passkey" if len(visit.user) % 2 else "Password and one-time code"}
        else:
            given = operation.parameters(world)
        path = operation.path.format_map({name: quote(str(value), safe="") for name, value in given.items()})
        body = {name: value for name, value in given.items() if f"{{{name}}}" not in operation.path}
        yield Step(moment, number, operation, path, body, visit.ip, visit.agent, fault)


def _visits(chance: random.Random, events: int, now: datetime) -> list[_Visit]:
    """Visits with about `events` deeds in all; the first is 90 days back, and the last is for now."""
    clock = random.Random(SEED)  # one of its own: what is drawn from it depends on `now`
    begin, end = now - timedelta(DAYS), now - timedelta(hours=2)
    starts = [begin, *(_busy_moment(clock, begin, end) for _ in range(events // 9)), now]
    visits = [_administrator(chance, start) for start in starts]
    intruders = [_intruder(chance, _busy_moment(clock, begin, end)) for _ in range(1 + events // 150)]
    deeds: list[tuple[Operation, str | None]] = [(operation, None) for operation in OPERATIONS]
    deeds += [(operation, _FAULTS[operation.action]) for operation in OPERATIONS if operation.action in _FAULTS]
    room = events - len(deeds) - sum(len(visit.first + visit.last) for visit in visits + intruders)
    for operation in chance.choices(OPERATIONS, [operation.weight for operation in OPERATIONS], k=max(0, room)):
        deeds.append((operation, _FAULTS.get(operation.action) if chance.random() < 0.07 else None))
    chance.shuffle(deeds)
    for deed in deeds:
        chance.choice(visits).deeds.append(deed)
    return intruders + visits


def _busy_moment(clock: random.Random, begin: datetime, end: datetime) -> datetime:
    while True:
        moment = begin + (end - begin) * clock.random()
        if clock.random() * 100 < _HOURS[moment.hour] / (7 if moment.weekday() >= 5 else 1):
            return moment


def _administrator(chance: random.Random, start: datetime) -> _Visit:
    user = chance.choices(list(_ADMINISTRATORS), list(_ADMINISTRATORS.values()))[0]
    visit = _Visit(start, user, _address(chance), chance.choice(_AGENTS))
    if chance.random() < 0.15:
        visit.first.append((LOGIN_FAILED, "Wrong one-time code"))
    visit.first.append((LOGIN, None))
    if chance.random() < 0.7:
        visit.last.append((LOGOUT, None))
    return visit


def _intruder(chance: random.Random, start: datetime) -> _Visit:
    attempts = [(LOGIN_FAILED, "No such user, or wrong password")] * chance.randint(3, 5)
    return _Visit(start, chance.choice(_GUESSED), _address(chance), "python-requests/2.32", (1.5, 6), list(attempts))


def _address(chance: random.Random) -> str:
    """An address of the networks kept for documentation (RFC 5737, RFC 3849)."""
    host = chance.randint(1, 254)
    network = chance.choice(("192.0.2.", "198.51.100.", "203.0.113.", "", ""))
    if network:
        return f"{network}{host}"
    if host < 200:
        return f"2001:db8:{chance.randint(1, 9)}::{host:x}"
    return f"2001:db8:0:{host:x}:" + ":".join(f"{chance.randrange(1, 2**16):x}" for _ in range(4))
