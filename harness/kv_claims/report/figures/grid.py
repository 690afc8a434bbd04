"""A map: rows of layers, columns of positions, a number in each field, colored by its size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, to_hex
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from kv_claims.plain import number
from kv_claims.report.figures.style import FAINT, INK, PAPER, RULE, sheet, styled

_RAMP = LinearSegmentedColormap.from_list("transfer", ["#f3f1ea", "#8fbcd9", "#0a4f83"])
_BELOW = LinearSegmentedColormap.from_list("below", ["#f3f1ea", "#e0a37c", "#8e3505"])
_DARK_TEXT, _LIGHT_TEXT = "#14161a", "#fdfdfb"


class Field(NamedTuple):
    """One field. value: a share of source - base; None where it could not be measured.

    is_marked: whether a dot stands beside the number. below: a word or two under it.
    """

    value: float | None
    is_marked: bool = False
    below: str = ""


def draw_grid(
    title: str,
    rows: Sequence[str],
    columns: Sequence[str],
    fields: Mapping[tuple[int, int], Field],
    *,
    notes: Sequence[str] = (),
    foot: str = "",
) -> Figure:
    """The map. fields: by row and column; what is not there is left empty.

    notes: below the name of each column. foot: below the map.
    """
    n_rows, n_columns = len(rows), len(columns)
    bottom, top = 0.55 if foot else 0.25, 0.95 if notes else 0.4
    with styled():
        figure = sheet(1.75 + 0.82 * n_columns, 0.95 + 0.36 * (n_rows + bottom + top - 0.95))
        axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
        axes.set_xlim(-1.95, n_columns + 0.1)
        axes.set_ylim(n_rows + bottom, -0.95 - top)
        axes.axis("off")
        axes.text(-1.9, -0.6 - top, title, fontsize=9.5, fontweight="bold", va="center")
        axes.text(-0.1, -top, "layers", fontsize=8, color=FAINT, va="center", ha="right")
        for x, label in enumerate(columns):
            axes.text(x + 0.5, -top, label, fontsize=8.5, ha="center", va="center")
        for x, note in enumerate(notes):
            axes.text(x + 0.5, -0.4, note, fontsize=7, color=FAINT, ha="center", va="center")
        for y, label in enumerate(rows):
            axes.text(-0.1, y + 0.5, label, fontsize=8.5, ha="right", va="center")
            for x in range(n_columns):
                _draw(axes, x, y, fields.get((y, x)))
        if foot:
            axes.text(-1.9, n_rows + 0.3, foot, fontsize=7, color=FAINT, va="center")
    return figure


def _draw(axes: Axes, x: int, y: int, field: Field | None) -> None:
    """One field: color and number are its value."""
    if field is None or field.value is None:
        axes.add_patch(Rectangle((x, y), 1, 1, fill=False, edgecolor=RULE, linewidth=0.5))
        ink = INK
    else:
        value = field.value
        ramp = _RAMP(min(value, 1.0)) if value >= 0 else _BELOW(min(-value, 1.0))
        color = to_hex(ramp)
        axes.add_patch(Rectangle((x, y), 1, 1, facecolor=color, edgecolor=PAPER, linewidth=1.2))
        red, green, blue = ramp[:3]
        ink = _LIGHT_TEXT if 0.3 * red + 0.59 * green + 0.11 * blue < 0.5 else _DARK_TEXT
    if field is None:
        return
    shown = number(field.value) + (" \u2022" if field.is_marked else "")
    high = y + (0.36 if field.below else 0.5)
    axes.text(x + 0.5, high, shown, fontsize=8.5, ha="center", va="center", color=ink)
    axes.text(x + 0.5, y + 0.74, field.below, fontsize=6, ha="center", va="center", color=ink)
