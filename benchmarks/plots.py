"""Plots as SVG, in tones that can be read on white and on black alike, whatever the page behind them is."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

__all__ = ["bars", "lines"]

TEXT = "#7b8490"
LINE = "#9aa3ad"
COLOURS = ("#3f88c5", "#c4753b", "#56a063", "#9b72c9", "#b8596b", "#6f8f99")
WIDTH, LEFT, RIGHT, BAR = 760, 300, 90, 15

Group = tuple[str, Sequence[tuple[str, float]]]


def bars(title: str, unit: str, groups: Sequence[Group]) -> str:
    """Horizontal bars in groups; each bar has its name, in one colour throughout."""
    names = list(dict.fromkeys(name for _, values in groups for name, _ in values))
    most = max((value for _, values in groups for _, value in values), default=1) or 1
    parts: list[str] = []
    y = 62
    for label, values in groups:
        middle = y + len(values) * BAR / 2 + 4
        parts.append(f'<text x="{LEFT - 10}" y="{middle:.0f}" text-anchor="end">{escape(label)}</text>')
        for name, value in values:
            width = max(1.0, value / most * (WIDTH - LEFT - RIGHT))
            colour = COLOURS[names.index(name) % len(COLOURS)]
            parts.append(f'<rect x="{LEFT}" y="{y}" width="{width:.1f}" height="{BAR - 3}" rx="2" fill="{colour}"/>')
            parts.append(f'<text x="{LEFT + width + 6:.1f}" y="{y + 10}" font-size="11">{_short(value)}</text>')
            y += BAR
        y += 9
    return _svg(title, unit, names if len(names) > 1 else [], parts, y + 4)


def lines(title: str, unit: str, across: str, series: Sequence[tuple[str, Sequence[tuple[float, float]]]]) -> str:
    """Lines over an axis that begins at 0."""
    left, top, bottom, right = 80, 62, 290, WIDTH - 30
    most_x = max((x for _, points in series for x, _ in points), default=1) or 1
    most_y = max((y for _, points in series for _, y in points), default=1) or 1
    parts = []
    for step in range(5):
        y = bottom - (bottom - top) * step / 4
        parts.append(
            f'<line x1="{left}" y1="{y:.0f}" x2="{right}" y2="{y:.0f}" stroke="{LINE}" stroke-opacity="0.35"/>'
        )
        parts.append(f'<text x="{left - 8}" y="{y + 4:.0f}" text-anchor="end">{_short(most_y * step / 4)}</text>')
        x = left + (right - left) * step / 4
        parts.append(f'<text x="{x:.0f}" y="{bottom + 18}" text-anchor="middle">{_short(most_x * step / 4)}</text>')
    parts.append(f'<text x="{right}" y="{bottom + 36}" text-anchor="end">{escape(across)}</text>')
    for number, (_, points) in enumerate(series):
        path = " ".join(
            f"{left + x / most_x * (right - left):.1f},{bottom - y / most_y * (bottom - top):.1f}" for x, y in points
        )
        parts.append(f'<polyline points="{path}" fill="none" stroke="{COLOURS[number]}" stroke-width="2"/>')
    return _svg(title, unit, [name for name, _ in series] if len(series) > 1 else [], parts, bottom + 46)


def _svg(title: str, unit: str, names: Sequence[str], parts: Sequence[str], height: int) -> str:
    legend, x = [], 20
    for number, name in enumerate(names):
        legend.append(f'<rect x="{x}" y="36" width="11" height="11" rx="2" fill="{COLOURS[number % len(COLOURS)]}"/>')
        legend.append(f'<text x="{x + 16}" y="46">{escape(name)}</text>')
        x += 34 + int(6.6 * len(name))
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" '
            f'height="{height}" role="img" aria-label="{escape(title, quote=True)}" '
            f'font-family="system-ui, sans-serif" font-size="12" fill="{TEXT}">',
            f'<text x="20" y="22" font-size="15" font-weight="600">{escape(title)} '
            f'<tspan font-weight="400">({escape(unit)})</tspan></text>',
            *legend,
            *parts,
            "</svg>",
            "",
        ]
    )


def _short(value: float) -> str:
    if value >= 1e6:
        return f"{value / 1e6:.3g}M"
    if value >= 1e4:
        return f"{value / 1e3:.3g}k"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
