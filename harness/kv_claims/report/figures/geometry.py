"""Geometry against behavior, a panel a patch; where geometry can say nothing, it is hatched."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.transforms import Affine2D, Transform

from kv_claims.report.figures.style import (
    BASE,
    FAINT,
    INK,
    PATCHED,
    RULE,
    SOURCE,
    Drawn,
    scatter,
    sheet,
    styled,
)
from kv_claims.report.view.geometry import GeometryView, Panel

ACROSS = 4
_WIDE, _HIGH, _GAP, _TOP = 1.7, 1.25, 0.22, 0.72
_PAD = 0.06 / 1.12
"""Of a panel, on each side: the labels stand at the smallest and the largest value."""
_COLORS = {"base": BASE, "source": SOURCE, "patched": PATCHED}


def geometry_figure(name: str, title: str, view: GeometryView) -> Drawn:
    """Small panels of one scale; no axes of their own, which would cost seconds a page."""
    panels = view.panels
    rows = -(-len(panels) // ACROSS)
    across = min(ACROSS, len(panels))
    width = 0.5 + across * (_WIDE + _GAP)
    height = _TOP + rows * (_HIGH + _GAP + 0.34) + 0.32
    width = max(width, 4.3)
    with styled():
        figure = sheet(width, height)
        inches = Affine2D().scale(1 / width, 1 / height)
        figure.text(0.1 / width, 1 - 0.1 / height, title, fontsize=9.5, fontweight="bold", va="top")
        _legend(figure, width, height)
        spans = _spans(panels)
        for number, panel in enumerate(panels):
            column, row = number % ACROSS, number // ACROSS
            left = 0.42 + column * (_WIDE + _GAP)
            bottom = height - _TOP - (row + 1) * (_HIGH + _GAP + 0.34) + _GAP + 0.12
            _draw(figure, panel, (left, bottom), spans, inches, (width, height))
            if column == 0:
                _numbers(figure, (left, bottom), spans[1], (width, height))
            if number + across >= len(panels):
                _below(figure, (left, bottom), spans[0], (width, height))
        figure.text(0.5, 0.06 / height, f"{view.outcome} ({view.unit})", fontsize=8.5, ha="center")
        figure.text(0.08 / width, 0.5, "behavior", fontsize=8.5, rotation=90, va="center")
    says = f"{title}: {len(panels)} patches, each with base, source and patched trials"
    return Drawn(name, figure, says)


Span = tuple[float, float]


def _spans(panels: Sequence[Panel]) -> tuple[Span, Span]:
    every = [point for panel in panels for some in panel.points.values() for point in some]
    found = []
    for axis in (0, 1):
        values = [point[axis] for point in every]
        low, high = min(values), max(values)
        pad = 0.06 * (high - low) or max(0.05 * abs(high), 0.5)
        found.append((low - pad, high + pad))
    return found[0], found[1]


def _draw(
    figure: Figure,
    panel: Panel,
    corner: Span,
    spans: tuple[Span, Span],
    inches: Transform,
    size: Span,
) -> None:
    """One panel, its corner and the figure's size in inches."""
    (x0, x1), (y0, y1) = spans
    place = (
        (
            Affine2D()
            .translate(-x0, -y0)
            .scale(_WIDE / (x1 - x0), _HIGH / (y1 - y0))
            .translate(*corner)
        )
        + inches
        + figure.transFigure
    )
    frame: dict[str, Any] = {"transform": inches + figure.transFigure, "linewidth": 0.7}
    silent = panel.reach in ("tautological", "null")
    if silent:
        figure.add_artist(
            Rectangle(corner, _WIDE, _HIGH, fill=False, hatch="////", edgecolor=RULE, **frame)
        )
    figure.add_artist(Rectangle(corner, _WIDE, _HIGH, fill=False, edgecolor=FAINT, **frame))
    for role, points in panel.points.items():
        scatter(figure, points, place, _COLORS[role], 3.6 if role == "patched" else 2.8)
    at = corner[0] / size[0], (corner[1] + _HIGH) / size[1]
    lines = _folded(panel.title)
    figure.text(at[0], at[1] + 0.05 / size[1], lines, fontsize=7.5, va="bottom", linespacing=1.05)
    if silent or panel.reach is None:
        figure.text(
            at[0] + (_WIDE - 0.06) / size[0],
            at[1] - 0.06 / size[1],
            panel.reach or "not asked",
            fontsize=7.5,
            style="italic",
            color=INK,
            ha="right",
            va="top",
        )


def _folded(title: str, width: int = 30) -> str:
    """A long name on two lines, cut there."""
    if len(title) <= width:
        return title
    first, rest = title[:width], title[width:]
    return f"{first}\n{rest if len(rest) <= width else rest[: width - 3] + '...'}"


def _numbers(figure: Figure, corner: Span, span: Span, size: Span) -> None:
    for share in (_PAD, 1 - _PAD):
        value = span[0] + share * (span[1] - span[0])
        figure.text(
            (corner[0] - 0.05) / size[0],
            (corner[1] + share * _HIGH) / size[1],
            _text(value, span),
            fontsize=7,
            color=FAINT,
            ha="right",
            va="center",
        )


def _text(value: float, span: Span) -> str:
    """A number at the edge of a span; what is nothing beside the span is 0."""
    return f"{0.0 if abs(value) < 1e-9 * (span[1] - span[0]) else value:.3g}"


def _below(figure: Figure, corner: Span, span: Span, size: Span) -> None:
    for share in (_PAD, 1 - _PAD):
        value = span[0] + share * (span[1] - span[0])
        figure.text(
            (corner[0] + share * _WIDE) / size[0],
            (corner[1] - 0.06) / size[1],
            _text(value, span),
            fontsize=7,
            color=FAINT,
            ha="center",
            va="top",
        )


def _legend(figure: Figure, width: float, height: float) -> None:
    x = 0.42
    for role, color in _COLORS.items():
        spot = Affine2D().scale(1 / width, 1 / height) + figure.transFigure
        scatter(figure, [(x, height - 0.43)], spot, color, 5, alpha=0.9)
        figure.text((x + 0.09) / width, 1 - 0.43 / height, role, fontsize=8, va="center")
        x += 0.75
