"""The index template: installed where it is missing, upgraded where it is older, left alone where it was changed."""

from __future__ import annotations

from time import monotonic
from typing import Any, NamedTuple

from ...errors import StoreMismatch, StoreMissing
from ...index_templates import GRANULARITIES, VERSION, changed_by_hand, index_template
from .engine import Engine

__all__ = ["IndexTemplate", "Installed"]

RECHECK_S = 60.0
"""How often a writer looks whether the template is still there, in seconds."""


class Installed(NamedTuple):
    """What a store has to know of its template."""

    granularity: str
    copies: int
    """On how many shard copies a write has to be made, for a majority of them."""
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
        """See Store.setup."""
        found = self._found()
        if found is None:
            granularity = self._granularity_of_indices() or self._options.get("granularity", "month")
            self._same_granularity(granularity)
            body = index_template(self._index, **{**self._options, "granularity": granularity})
            self._engine.ask("PUT", self._path, body)
            return [f"{self._where}: index template installed"]
        meta = found.get("_meta", {})
        if meta.get("managed_by") != "audit-pipeline":
            raise StoreMismatch(
                f"{self._where}: an index template of this name is there that is not audit-pipeline's; choose another "
                "index in AUDIT_STORE_URL"
            )
        self._same_granularity(_granularity(found))
        if changed_by_hand(found):
            return [f"{self._where}: the index template was changed by hand; left alone"]
        if found.get("version", 0) > VERSION:
            raise StoreMismatch(
                f"{self._where}: the index template has version {found['version']}, this program knows version "
                f"{VERSION}; upgrade audit-pipeline"
            )
        wanted = index_template(self._index, **{**_options_of(found), **self._options})
        if wanted["_meta"]["digest"] == meta["digest"]:
            return []
        self._engine.ask("PUT", self._path, wanted)
        # Indices that exist keep their settings, and learn the fields that were added.
        self._engine.ask("PUT", f"/{self._index}/_mapping", wanted["template"]["mappings"])
        return [f"{self._where}: index template brought up to date; it holds for indices made from now on"]

    def _granularity_of_indices(self) -> str | None:
        """That of the indices which are there without a template: deleted by hand, or restored without it."""
        indices = self._engine.ask("GET", f"/{self._index}-2*", params={"filter_path": "*.aliases"})
        dots = {name.count(".") for name in indices or ()}
        return {0: "year", 1: "month", 2: "day"}.get(dots.pop()) if dots else None

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
            self.install()
            self._installed = installed = self._look()
        return installed

    def for_reading(self) -> Installed:
        """What is installed. Raises StoreMissing."""
        if self._installed is None:
            self._installed = self._look()
        return self._installed

    def forget(self) -> None:
        """Look again before the next write."""
        self._installed = None

    def state(self) -> str:
        """In a few words. Raises StoreMissing."""
        found = self._found()
        if found is None:
            raise self._missing()
        if changed_by_hand(found):
            return "index template changed by hand, left alone"
        return f"index template of version {found.get('version')}"

    def _found(self) -> Any:
        answer = self._engine.ask("GET", self._path)
        return None if answer is None else answer["index_templates"][0]["index_template"]

    def _look(self) -> Installed:
        found = self._found()
        if found is None:
            raise self._missing()
        granularity = _granularity(found)
        if granularity not in GRANULARITIES:
            raise StoreMismatch(
                f"{self._where}: the index template's _meta.granularity is not known; allowed are "
                f"{', '.join(GRANULARITIES)}"
            )
        nodes = self._engine.ask("GET", "/_cluster/health", params={"filter_path": "number_of_data_nodes"})
        return Installed(granularity, _majority(found, nodes["number_of_data_nodes"]), monotonic())

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


def _majority(template: dict[str, Any], nodes: int) -> int:
    """How many of a shard's copies are more than half of them."""
    settings = template.get("template", {}).get("settings", {}).get("index", {})
    expands = str(settings.get("auto_expand_replicas", "false"))
    if "-" in expands:
        most = expands.partition("-")[2]
        replicas = max(0, nodes - 1) if most == "all" else min(int(most), max(0, nodes - 1))
    else:
        replicas = int(settings.get("number_of_replicas", 1))
    return (replicas + 1) // 2 + 1
