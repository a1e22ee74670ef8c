"""`python -m benchmarks --size 10000000 --store opensearch,sqlite --stages import,pages --data FOLDER`.

Stages can be run one by one; what they find is kept in FOLDER/results-SIZE.json, and docs/performance.md is written
from that. The file of entries, the stores and the engine's data stay in FOLDER for the next run.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from audit_pipeline.errors import AuditError
from audit_pipeline.query import Window
from tests.engine import Cluster

from . import emitting, exporting, importing, paging, reading, report, searching, shipping, topology
from .asked import Case
from .data import lines_file
from .engines import engine_name, kept_node
from .places import ROOT, Options, Setting
from .results import Results
from .rows import STAGES

__all__ = ["main", "run"]

MEASURES: dict[str, Callable[[Setting, Results], None]] = {
    "import": importing.measure,
    "pages": paging.measure,
    "search": searching.measure,
    "django": searching.measure_django,
    "export": exporting.measure,
    "ship": shipping.measure,
    "emit": emitting.measure,
    "readers": reading.measure,
    "topology": topology.measure,
}
STORES = ("opensearch", "sqlite")


def run(options: Options, stages: Sequence[str], cluster: Cluster | None = None) -> Path:
    """Run these stages over one store, and return the file of results. `cluster`: an engine that is there already."""
    options.folder.mkdir(parents=True, exist_ok=True)
    results = Results(options.folder / f"results-{options.size}.json", options.store, options.size)
    with ExitStack() as stack:
        if options.store == "opensearch":
            cluster = cluster or stack.enter_context(kept_node(options.folder / "engine", options.heap))
            results.engine = engine_name(cluster)
        lines_file(options.folder, options.size)
        setting = Setting(options, cluster if options.store == "opensearch" else None)
        stack.callback(setting.close)
        for stage in stages:
            print(f"\n{options.store}, {options.size:,} entries: {stage}", flush=True)
            if stage not in ("import", "ship", "emit"):
                _filled(setting)
            MEASURES[stage](setting, results)
    return results.path


def _filled(setting: Setting) -> None:
    """Raises SystemExit where the store lacks entries."""
    try:
        total = setting.store.search(Case("all").query(), Window(1)).total
    except AuditError as error:
        sys.exit(f"run the stage `import` first: {error}")
    if total < setting.options.size:
        sys.exit(f"{total:,} of {setting.options.size:,} entries are in the store: run the stage `import` first")


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--size", type=int, default=10_000_000, help="entries (default: 10,000,000)")
    parser.add_argument("--store", default=",".join(STORES), help="opensearch, sqlite, or both")
    parser.add_argument("--stages", default=",".join(STAGES), help=f"some of {','.join(STAGES)}")
    parser.add_argument(
        "--data", type=Path, default=Path(f"/var/tmp/audit-bench-{os.geteuid()}"), help="where data stay"
    )
    parser.add_argument("--brief", action="store_true", help="few rounds: only shows that nothing is broken")
    parser.add_argument("--no-installs", action="store_true", help="without contenders that have to be installed")
    parser.add_argument("--heap", default="2g", help="the engine's memory (default: 2g)")
    parser.add_argument("--topology", type=int, default=1_000_000, help="entries for the cluster of three nodes")
    parser.add_argument("--report", type=Path, default=ROOT / "docs/performance.md", help="what is written")
    given = parser.parse_args()
    stages, stores = given.stages.split(","), given.store.split(",")
    for name, allowed in [*((stage, STAGES) for stage in stages if stage), *((store, STORES) for store in stores)]:
        if name not in allowed:
            parser.error(f"{name}: allowed are {', '.join(allowed)}")
    path = given.data.absolute() / f"results-{given.size}.json"
    for store in stores:
        options = Options(
            given.size, store, given.data.absolute(), given.brief, not given.no_installs, given.topology, given.heap
        )
        path = run(options, [stage for stage in STAGES if stage in stages])
    if path.exists():
        report.write(path, given.report)
        print(f"\n{given.report}")


if __name__ == "__main__":
    main()
