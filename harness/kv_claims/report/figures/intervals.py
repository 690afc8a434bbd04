"""Estimates with their intervals, a line each, over the regions that were claimed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from kv_claims.claims.claim import Region
from kv_claims.judging.fieller import Interval
from kv_claims.judging.result import Word
from kv_claims.plain import number
from kv_claims.report.figures.style import INK, PATCHED, RULE, sheet, styled
from kv_claims.report.view.scale import Scale

COLORS: dict[Word, str] = {
    "supported": "#0a5c92",
    "refuted": "#a03c06",
    "inconclusive": "#615a10",
    "invalid": "#73358c",
}
_LONGEST = 44
"""Characters of a name that are shown."""


class Line(NamedTuple):
    """One estimate. word: of its verdict, None where there is none; note: what stands behind it."""

    name: str
    estimate: float | None
    interval: Interval | None
    region: Region | None = None
    word: Word | None = None
    note: str = ""


def draw_intervals(title: str, unit: str, lines: Sequence[Line], *, is_share: bool) -> Figure:
    """The chart. unit: of the numbers. is_share: whether they are shares of source - base.

    An interval that goes on beyond the picture ends in an arrow.
    """
    ends = [end for one in lines for end in _ends(one)]
    scale = Scale.of(ends, share=is_share)
    names = [one.name if len(one.name) <= _LONGEST else f"{one.name[:41]}..." for one in lines]
    left = 0.25 + 0.065 * max(map(len, names))
    width, height = left + 4.2 + 1.75, 0.95 + 0.3 * len(lines)
    with styled():
        figure = sheet(width, height)
        figure.text(0.12 / width, 1 - 0.22 / height, title, fontsize=9.5, fontweight="bold")
        axes = figure.add_axes(
            (left / width, 0.45 / height, 4.2 / width, 0.3 * len(lines) / height)
        )
        axes.set_xlim(scale.low, scale.high)
        axes.set_ylim(len(lines) - 0.5, -0.5)
        axes.set_yticks(range(len(lines)), names)
        axes.tick_params(axis="y", length=0)
        axes.set_xlabel(unit)
        for tick in (0.0, 1.0) if is_share else (0.0,):
            axes.axvline(tick, color=RULE, linewidth=0.8, zorder=0)
        for y, one in enumerate(lines):
            _draw(axes, y, one, scale)
    return figure


def _ends(line: Line) -> list[float]:
    """The numbers that a line wants to be seen; open ends are none."""
    region = [edge for edge, _ in line.region.edges] if line.region else []
    estimate = [] if line.estimate is None else [line.estimate]
    return [*estimate, *(line.interval or ()), *region]


def _draw(axes: Axes, y: int, line: Line, scale: Scale) -> None:
    color = COLORS[line.word] if line.word else PATCHED
    if line.region is not None:
        low, high = max(line.region.low, scale.low), min(line.region.high, scale.high)
        axes.barh(y, high - low, left=low, height=0.8, color=PATCHED, alpha=0.12, linewidth=0)
    if line.interval is not None:
        seen = [min(max(end, scale.low), scale.high) for end in line.interval]
        axes.plot(seen, [y, y], color=color, linewidth=1.6, solid_capstyle="butt")
        for end, at in zip(line.interval, seen, strict=True):
            marker = "<" if end < scale.low else ">" if end > scale.high else "|"
            axes.plot([at], [y], marker=marker, markersize=6, color=color, clip_on=False)
    if line.estimate is not None and scale.low <= line.estimate <= scale.high:
        axes.plot([line.estimate], [y], marker="o", markersize=6, color=color)
    behind: dict[str, Any] = {
        "transform": axes.get_yaxis_transform(),
        "va": "center",
        "clip_on": False,
    }
    axes.text(1.02, y, number(line.estimate, 3), fontsize=8.5, color=INK, **behind)
    axes.text(1.19, y, f"{line.word or ''}{line.note}", fontsize=8.5, color=color, **behind)
