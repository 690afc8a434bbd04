"""Layer x window: the transfer of every splice of keys and values that a run has."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, to_hex
from matplotlib.patches import Rectangle

from kv_claims.report.figures.style import FAINT, INK, PAPER, RULE, Drawn, sheet, styled
from kv_claims.report.view.arms import ArmView
from kv_claims.report.view.heatmap import grid_of, layers_text

_RAMP = LinearSegmentedColormap.from_list("transfer", ["#f3f1ea", "#8fbcd9", "#0a4f83"])
_BELOW = LinearSegmentedColormap.from_list("below", ["#f3f1ea", "#e0a37c", "#8e3505"])
_DARK_TEXT, _LIGHT_TEXT = "#14161a", "#fdfdfb"


def heatmap(name: str, title: str, arms: Sequence[ArmView]) -> Drawn | None:
    """The map, or None where fewer than two splices were run; empty fields were not."""
    grid = grid_of(arms)
    if grid is None:
        return None
    rows, columns = len(grid.rows), len(grid.columns)
    with styled():
        figure = sheet(1.75 + 0.82 * columns, 0.95 + 0.36 * rows)
        axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
        axes.set_xlim(-1.95, columns + 0.1)
        axes.set_ylim(rows + 0.25, -1.9)
        axes.axis("off")
        axes.text(-1.9, -1.55, title, fontsize=9.5, fontweight="bold", va="center")
        axes.text(-0.1, -0.95, "layers", fontsize=8, color=FAINT, va="center", ha="right")
        for x, label in enumerate(grid.columns):
            axes.text(x + 0.5, -0.95, label, fontsize=8.5, ha="center", va="center")
            axes.text(
                x + 0.5,
                -0.4,
                f"{100 * grid.shares[x]:.0f}% of positions"
                if x == 0
                else f"{100 * grid.shares[x]:.0f}%",
                fontsize=7,
                color=FAINT,
                ha="center",
                va="center",
            )
        for y, layers in enumerate(grid.rows):
            axes.text(-0.1, y + 0.5, layers_text(layers), fontsize=8.5, ha="right", va="center")
            for x in range(columns):
                _field(axes, x, y, grid.fields.get((y, x)))
    says = f"{title}: {len(grid.fields)} splices of keys and values, by layers and positions"
    return Drawn(name, figure, says)


def _field(axes: Axes, x: int, y: int, arm: ArmView | None) -> None:
    """One field: color and number are the transfer, a dot a discovery."""
    add = axes.add_patch
    write = axes.text
    if arm is None:
        add(Rectangle((x, y), 1, 1, fill=False, edgecolor=RULE, linewidth=0.5))
        return
    if arm.transfer is None:
        add(Rectangle((x, y), 1, 1, fill=False, edgecolor=RULE, linewidth=0.5))
        write(x + 0.5, y + 0.5, "-", fontsize=8.5, ha="center", va="center", color=INK)
        return
    value = arm.transfer
    ramp = _RAMP(min(value, 1.0)) if value >= 0 else _BELOW(min(-value, 1.0))
    add(Rectangle((x, y), 1, 1, facecolor=to_hex(ramp), edgecolor=PAPER, linewidth=1.2))
    red, green, blue = ramp[:3]
    is_dark = 0.3 * red + 0.59 * green + 0.11 * blue < 0.5
    ink = _LIGHT_TEXT if is_dark else _DARK_TEXT
    shown = f"{value:.2f}" + (" \u2022" if arm.is_marked else "")
    low = arm.truth is not None
    write(
        x + 0.5,
        y + (0.36 if low else 0.5),
        shown,
        fontsize=8.5,
        ha="center",
        va="center",
        color=ink,
    )
    if arm.truth is not None:
        write(
            x + 0.5,
            y + 0.74,
            f"truth {arm.truth:.2f}",
            fontsize=6,
            ha="center",
            va="center",
            color=ink,
        )
