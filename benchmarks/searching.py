"""Stage `search`: the newest 25 of each kind of search text; and, on SQLite, django-auditlog's admin beside it."""

from __future__ import annotations

import shutil
from contextlib import closing
from dataclasses import replace

from audit_pipeline.query import Window

from . import importing
from .asked import SEARCHES
from .contenders import Contender, contender_python
from .data import lines_file
from .places import Setting, serving
from .results import Results, at_least, at_most
from .timing import alternating, best_of, figure, timed

__all__ = ["measure", "measure_django"]

DJANGO = 1_000_000
"""Entries at which django-auditlog is measured, at the most."""


def measure(setting: Setting, results: Results) -> None:
    """The store beside the engine asked directly."""
    results.forget("search")
    options = setting.options
    with closing(setting.connect()) as direct, serving(setting) as server:
        client = server.client()
        for case in SEARCHES:
            query = case.query()
            way, ask = best_of(direct.pages(case, "-timestamp"))
            found = alternating(
                {
                    "store": lambda query=query: setting.store.search(query, Window(25)),  # type: ignore[misc]
                    "store, first asked": lambda query=query: setting.first_asked(query, Window(25)),  # type: ignore[misc]
                    "direct": ask,
                    "HTTP": lambda case=case: client.get("/v1/events", case.parameters),  # type: ignore[misc]
                },
                options.rounds, options.budget_s,
            )  # fmt: skip
            total = setting.store.search(query, Window(1)).total
            results.put(
                "search", case.name, found,
                [
                    at_most(f"{name} / direct", found[column]["median"] / found["direct"]["median"], 1.5)
                    for name, column in (("store", "store"), ("first asked", "store, first asked"))
                ],
                note=f"{total:,} matches; direct: {way}",
            )  # fmt: skip


def measure_django(setting: Setting, results: Results) -> None:
    """django-auditlog's admin search and this project's whole HTTP answer, both over SQLite, at 1M at the most."""
    results.forget("django")
    options = setting.options
    if not options.installs or not setting.embedded:
        return
    size = min(options.size, DJANGO)
    other = setting
    if size != options.size:
        other = Setting(replace(options, size=size), None)
        if not other.path.exists():
            scrap = Results(options.folder / "scratch.json", setting.options.store, size)
            importing.measure(other, scrap)
    lines = lines_file(options.folder, size)
    folder = options.folder / f"django-{size}"
    with (
        Contender(contender_python(options.folder), "django_admin", str(folder), str(lines)) as django,
        serving(other, other.url) as server,
    ):
        client = server.client()
        client.get("/v1/events")  # the first request of a server opens what all need
        for case in SEARCHES:
            if case.exclude or case.name == "a phrase":  # its admin knows neither
                continue
            asked = {
                "HTTP": lambda case=case: client.get("/v1/events", case.parameters),  # type: ignore[misc]
                "django-auditlog": lambda case=case: django.ask(q=case.parameters["q"][0]),  # type: ignore[misc]
            }
            first = figure([timed(asked["HTTP"])])
            found = alternating(asked, 5 if options.brief else 10, 20.0, 1) | {"HTTP, first asked": first}
            checks = [
                at_least(f"django-auditlog / {name}", found["django-auditlog"]["median"] / found[name]["median"], 50)
                for name in ("HTTP", "HTTP, first asked")
            ]
            results.put("django", f"{case.name}, {size:,} entries", found, checks)
    if other is not setting:
        other.close()
    if options.brief:
        shutil.rmtree(folder)
