"""The index template: installed where it is missing, upgraded where it is older, left alone where it was changed."""

from __future__ import annotations

from collections.abc import Iterable
from time import monotonic
from typing import Any, NamedTuple

from ...errors import StoreError, StoreMismatch, StoreMissing, StoreUnavailable
from ...index_templates import GRANULARITIES, VERSION, changed_by_hand, index_template
from .engine import NO_ENGINE, Engine

__all__ = ["IndexTemplate", "Installed"]

RECHECK_S = 60.0
"""How often a writer looks whether the template is still there, in seconds."""


class Installed(NamedTuple):
    """What a store has to know of its template."""

    granularity: str
    new: int
    """How many shard copies are a majority in an index that is still to be made."""
    copies: dict[str, int]
    """The same for each index there is."""
    at: float


class IndexTemplate:
    """The template of one index name, made with the options that a store URL gave."""

    def __init__(self, engine: Engine, index: str, options: dict[str, str]) -> None:
        self._engine = engine
        self._index = index
        self._path = f"/_index_template/{index}"
        self._where = f"{engine.name}/{index}"
        self._options = options
        self._installed: Installed | None = None

    def install(self) -> list[str]:
        """See Store.setup. Also brings a template up to date whose options differ from those given."""
        return self._installed_now() or self._with_options()

    def _installed_now(self) -> list[str]:
        """Install what is missing, upgrade what is older. Raises StoreMismatch for what is not ours."""
        names = self._indices()
        found = self._found()
        if found is None:
            granularity = _granularity_of(names) or self._options.get("granularity", "month")
            self._same_granularity(granularity)
            body = index_template(self._index, **{**self._options, "granularity": granularity})
            try:
                self._engine.ask("PUT", self._path, body, {"create": "true"})
            except StoreUnavailable:
                raise
            except StoreError:
                # Another writer was faster, with options of its own; or a template with such names is in the way.
                if self._found() is None:
                    raise StoreMismatch(
                        f"{self._where}: an index template for such names is there that is not audit-pipeline's; "
                        "choose another index in AUDIT_STORE_URL"
                    ) from None
                return self._installed_now()
            return [f"{self._where}: index template installed"]
        self._must_be_ours(found)
        if changed_by_hand(found):
            return [f"{self._where}: the index template was changed by hand; left alone"]
        return self._replace(found, {}) if found.get("version", 0) < VERSION else []

    def _with_options(self) -> list[str]:
        found = self._found()
        return [] if found is None else self._replace(found, self._options)

    def _replace(self, found: dict[str, Any], options: dict[str, str]) -> list[str]:
        wanted = index_template(self._index, **{**_options_of(found), **options})
        if wanted["_meta"]["digest"] == found["_meta"]["digest"]:
            return []
        self._engine.ask("PUT", self._path, wanted)
        # Indices that exist keep their settings, and learn the fields that were added.
        self._engine.ask("PUT", f"/{self._index}/_mapping", wanted["template"]["mappings"])
        return [f"{self._where}: index template brought up to date; it holds for indices made from now on"]

    def _must_be_ours(self, found: dict[str, Any]) -> None:
        """Raises StoreMismatch for a template that this program cannot write under."""
        if found.get("_meta", {}).get("managed_by") != "audit-pipeline":
            raise StoreMismatch(
                f"{self._where}: an index template of this name is there that is not audit-pipeline's; choose another "
                "index in AUDIT_STORE_URL"
            )
        self._same_granularity(_granularity(found))
        if found.get("version", 0) > VERSION and not changed_by_hand(found):
            raise StoreMismatch(
                f"{self._where}: the index template has version {found['version']}, this program knows version "
                f"{VERSION}; upgrade audit-pipeline"
            )

    def _same_granularity(self, granularity: str) -> None:
        if self._options.get("granularity", granularity) != granularity:
            raise StoreMismatch(
                f"{self._where}: was set up with granularity={granularity}, which cannot be changed; write that in "
                "AUDIT_STORE_URL, or choose another index"
            )

    def for_writing(self, within: float = RECHECK_S) -> Installed:
        """What is installed, after seeing to it that something is; looked at within so many seconds."""
        installed = self._installed
        if installed is None or monotonic() - installed.at > within:
            self._installed_now()
            self._installed = installed = self._look()
        return installed

    def for_reading(self) -> Installed:
        """What is installed. Raises StoreMissing."""
        if self._installed is None or monotonic() - self._installed.at > RECHECK_S:
            self._installed = self._look()
        return self._installed

    def check_indices(self) -> None:
        """Raises StoreMismatch for an index that searches would leave out, or that is not ours but looked into."""
        self._indices()

    def forget(self) -> None:
        """Look again before the next write."""
        self._installed = None

    def state(self) -> str:
        """In a few words. Raises StoreMissing, and StoreMismatch for what is not as it should be."""
        indices = self._indices()
        found = self._found()
        if found is None and indices:
            raise StoreMismatch(
                f"{self._where}: the index template is gone, though there are indices; put it back with "
                "`audit-pipeline setup`"
            )
        if found is None:
            raise self._missing()
        self._must_be_ours(found)
        if changed_by_hand(found):
            return "index template changed by hand, left alone"
        return f"index template of version {found.get('version')}"

    def _found(self) -> Any:
        answer = self._engine.ask("GET", self._path, needs=["index_templates"])
        return answer["index_templates"][0]["index_template"] if answer and answer["index_templates"] else None

    def _look(self) -> Installed:
        replicas = self._indices()
        found = self._found()
        if found is None:
            raise self._missing()
        granularity = _granularity(found)
        if granularity not in GRANULARITIES:
            raise StoreMismatch(
                f"{self._where}: the index template's _meta.granularity is not known; allowed are "
                f"{', '.join(GRANULARITIES)}"
            )
        health = self._engine.ask("GET", "/_cluster/health", needs=["number_of_data_nodes"])
        new = _majority(_replicas(found, health["number_of_data_nodes"]))
        return Installed(granularity, new, {name: _majority(number) for name, number in replicas.items()}, monotonic())

    def _indices(self) -> dict[str, int]:
        """The indices there are, with their replicas. Raises StoreMismatch for one that is not as it should be."""
        params = {
            "ignore_unavailable": "true",
            "filter_path": "*.aliases,*.mappings.dynamic,*.settings.index.number_of_replicas",
        }
        found = self._engine.ask("GET", f"/{self._index},{self._index}-2*", params=params) or {}
        if not all(isinstance(about, dict) for about in found.values()):
            raise StoreUnavailable(f"{self._where}: {NO_ENGINE}")
        for name, about in found.items():
            if name == self._index:
                raise StoreMismatch(
                    f"{self._where}: an index has the name that the alias should have; delete it, or choose another "
                    "index in AUDIT_STORE_URL"
                )
            if not name.startswith(f"{self._index}-2"):
                raise StoreMismatch(f"{self._where}: the alias is also on {name}, which is not ours; take it off there")
            ours = self._index in about.get("aliases", {}) and about.get("mappings", {}).get("dynamic") == "false"
            if not ours:
                raise StoreMismatch(
                    f"{self._where}: {name} was made without the index template, or its alias was taken off: what is "
                    "in it is not found; put the alias back, or reindex it under the template and delete it"
                )
        return {name: int(about["settings"]["index"]["number_of_replicas"]) for name, about in found.items()}

    def _missing(self) -> StoreMissing:
        return StoreMissing(
            f"{self._where}: there is no index template, and so no audit store, yet; check the URL, or create one with "
            "`audit-pipeline setup`"
        )


def _granularity(template: dict[str, Any]) -> str:
    return str(template.get("_meta", {}).get("granularity", "month"))


def _options_of(template: dict[str, Any]) -> dict[str, Any]:
    """The options with which a template was made."""
    settings = template["template"]["settings"]["index"]
    return {
        "granularity": _granularity(template),
        "shards": settings["number_of_shards"],
        "replicas": settings.get("auto_expand_replicas") or settings["number_of_replicas"],
    }


def _granularity_of(names: Iterable[str]) -> str | None:
    """That of indices which are there without a template: it was deleted, or they were restored without it."""
    dots = {name.count(".") for name in names}
    return {0: "year", 1: "month", 2: "day"}.get(dots.pop()) if len(dots) == 1 else None


def _replicas(template: dict[str, Any], nodes: int) -> int:
    """How many replicas the template gives to a new index, with so many data nodes."""
    settings = template.get("template", {}).get("settings", {}).get("index", {})
    expands = str(settings.get("auto_expand_replicas", "false"))
    if "-" not in expands:
        return int(settings.get("number_of_replicas", 1))
    most = expands.partition("-")[2]
    others = max(0, nodes - 1)
    return others if most == "all" else min(int(most), others)


def _majority(replicas: int) -> int:
    return (replicas + 1) // 2 + 1
