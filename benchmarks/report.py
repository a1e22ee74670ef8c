"""Writes docs/performance.md and its plots from the file of results. What stands between its two marks stays."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from . import plots
from .results import read
from .rows import ROWS, Row

__all__ = ["write"]

TITLES = {"opensearch": "OpenSearch", "sqlite": "SQLite"}
BEGIN, END = "<!-- by hand: begin -->", "<!-- by hand: end -->"
BY_HAND = "What was tried, what moved which row, and where the design would break first: to be written."
INTRO = """# Performance

What `make bench` measured; [benchmarks/](../benchmarks) has all of it. Every contender ran in the same run,
alternating. Figures are medians; they hold for this machine, and the ratios for others too. "Direct" is the best query
that is known for a question, put to the engine over the same client without this project's code. The entries are made
up: 31 actions, 24 months, so 24 monthly indices.
"""
GB = 2**30


def write(results: Path, target: Path) -> None:
    """Write the page."""
    found = read(results)
    folder = target.with_suffix("")
    folder.mkdir(parents=True, exist_ok=True)
    parts = [INTRO]
    for store, rows in found.items():
        parts.append(_store(store, rows, folder))
    parts.append(_growth(found))
    parts.append(f"## Explained\n\n{BEGIN}\n{_by_hand(target)}\n{END}\n")
    target.write_text("\n".join(parts), encoding="utf-8")


def _by_hand(target: Path) -> str:
    old = target.read_text(encoding="utf-8") if target.exists() else ""
    if BEGIN not in old or END not in old:
        return BY_HAND
    return old.partition(BEGIN)[2].partition(END)[0].strip("\n")


def _store(store: str, rows: dict[str, Any], folder: Path) -> str:
    latest = max(rows.values(), key=lambda row: row["at"])
    sizes = sorted({row["size"] for row in rows.values()})
    lines = [
        f"## {TITLES[store]}",
        "",
        f"{' and '.join(f'{size:,}' for size in sizes)} entries; {latest['at']} UTC; {latest['machine']}.  ",
        f"{latest['versions']}.",
        "",
        "| what | beside | worst case | goal | met |",
        "|---|---|---|---|---|",
    ]
    wanted = [row for row in ROWS if store in row.stores]
    for row in wanted:
        lines += _summary(row, rows.get(row.key))
    lines += ["", *_plots(store, rows, folder)]
    for row in wanted:
        if row.key in rows:
            lines += _details(row, rows[row.key])
    return "\n".join(lines)


def _summary(row: Row, found: Any) -> list[str]:
    """A line for each goal of a row: its worst case."""
    if found is None:
        return [f"| {row.what} | {row.beside} | not measured | | |"]
    goals: dict[tuple[str, str], list[tuple[float, bool, str]]] = {}
    for name, case in found["cases"].items():
        for check in case["checks"]:
            what = check["what"] if not check["what"].startswith("from: ") else "from / jump"
            goals.setdefault((what, check["goal"]), []).append((check["value"], check["met"], name))
    if not goals:
        shown = "; ".join(f"{name}: {_figures(case)}" for name, case in list(found["cases"].items())[:2])
        return [f"| {row.what} | {row.beside} | {shown} | reported | |"]
    lines = []
    for (what, goal), values in goals.items():
        worst = (min if goal.startswith("≥") else max)(values)
        met = sum(each[1] for each in values)
        said = "yes" if met == len(values) else "**no**" if len(values) == 1 else f"**{met} of {len(values)}**"
        case = f" ({worst[2]})" if len(values) > 1 else ""
        lines.append(f"| {row.what}: {what} | {row.beside} | {worst[0]:,.3g}{case} | {goal} | {said} |")
    return lines


def _figures(case: Any) -> str:
    return ", ".join(f"{name} {value['median']:,.3g}" for name, value in case["figures"].items()) + f" {case['unit']}"


def _details(row: Row, found: Any) -> list[str]:
    names = list(dict.fromkeys(name for case in found["cases"].values() for name in case["figures"]))
    unit = next(iter(found["cases"].values()))["unit"]
    lines = [
        f"<details><summary>{row.what}: all figures ({found['at']} UTC)</summary>", "",
        f"| {unit}, median (p99) | {' | '.join(names)} | ratios | |", "|---|" + "---:|" * len(names) + "---|---|",
    ]  # fmt: skip
    for name, case in found["cases"].items():
        cells = [_cell(case["figures"].get(each)) for each in names]
        ratios = "; ".join(
            f"{check['what']} {check['value']:,.3g}{'' if check['met'] else ' ✗'}" for check in case["checks"]
        )
        own = "" if case["unit"] == unit else f" ({case['unit']})"
        lines.append(f"| {name}{own} | {' | '.join(cells)} | {ratios} | {case.get('note', '')} |")
    return [*lines, "", "</details>", ""]


def _cell(value: Any) -> str:
    if value is None:
        return ""
    p99 = f" ({value['p99']:,.3g})" if value["n"] >= 20 else ""
    return f"{value['median']:,.3g}{p99}"


# Plots


def _plots(store: str, rows: dict[str, Any], folder: Path) -> list[str]:
    made = {}
    sort = "all, -timestamp"
    deep = rows.get("deep", {}).get("cases", {}).get(sort)
    jumps = [case for name, case in rows.get("jump", {}).get("cases", {}).items() if name.startswith(sort)]
    if deep and jumps:
        figures = {**deep["figures"], **jumps[0]["figures"]}
        made["depth"] = plots.bars(
            "A page, newest first, unfiltered",
            "ms",
            [(name, [("", value["median"])]) for name, value in figures.items()],
        )
    for key, title in (("search", "The newest 25 of a search"), ("first", "Page 1")):
        if key in rows:
            made[key] = plots.bars(title, "ms", _groups(rows[key]))
    if "import" in rows and "rate" in rows["import"]["cases"]:
        made["import"] = plots.lines(
            "Import",
            "thousand entries a second",
            "million entries",
            [("", _rates(rows["import"]["cases"]["rate"]["series"]))],
        )
    for key, title in (
        ("ship", "From the spool into the store"),
        ("export", "Export of 50,000 rows"),
        ("emit", "A log call"),
    ):
        for case in list(rows.get(key, {}).get("cases", {}).values())[:1]:
            made[key] = plots.bars(
                title, case["unit"], [(name, [("", v["median"])]) for name, v in case["figures"].items()]
            )
    lines = []
    for name, text in made.items():
        (folder / f"{store}-{name}.svg").write_text(text, encoding="utf-8")
        title = text.partition('aria-label="')[2].partition('"')[0]
        lines += [f"![{title}]({folder.name}/{store}-{name}.svg)", ""]
    return lines


def _groups(row: Any) -> list[plots.Group]:
    return [
        (name, [(each, value["median"]) for each, value in case["figures"].items()])
        for name, case in row["cases"].items()
    ]


def _rates(series: list[list[float]]) -> list[tuple[float, float]]:
    """Thousands a second over millions stored, each over a twentieth of the whole at least."""
    points = []
    last = series[0]
    for seconds, count in series[1:]:
        if seconds > last[0] and count - last[1] >= series[-1][1] / 20:
            points.append((count / 1e6, (count - last[1]) / (seconds - last[0]) / 1e3))
            last = [seconds, count]
    return points


# Growth


def _growth(found: dict[str, Any]) -> str:
    lines = [
        "## Growth",
        "",
        "Computed from the figures above, by multiplication; [what follows from them](growth.md).",
        "",
    ]
    lines += ["| | 10 million | 100 million | 10 billion |", "|---|---:|---:|---:|"]
    counts = (10**7, 10**8, 10**10)
    for store, rows in found.items():
        cases = rows.get("import", {}).get("cases", {})
        if "bytes an entry" not in cases:
            continue
        size = cases["bytes an entry"]["figures"]["store"]["median"]
        rate = cases["rate"]["figures"]["whole"]["median"]
        name = TITLES[store]
        lines.append(f"| {name}, {size:,.0f} bytes an entry: GB | {_each(count * size / GB for count in counts)} |")
        lines.append(
            f"| {name}, hours to import at {rate:,.0f} a second | {_each(count / rate / 3600 for count in counts)} |"
        )
        if store == "opensearch":
            lines.append(f"| with one replica, GB | {_each(2 * count * size / GB for count in counts)} |")
            lines.append(
                f"| primary shards of 30 GB | {_each(max(1, round(count * size / GB / 30)) for count in counts)} |"
            )
            nodes = (max(3, -(-2 * count * size // 1.5e12)) for count in counts)
            lines.append(f"| nodes of 2 TB, three quarters full, one replica | {_each(nodes)} |")
    return "\n".join([*lines, ""])


def _each(values: Any) -> str:
    return " | ".join(f"{value:,.0f}" if value >= 10 else f"{value:,.1f}" for value in values)
