"""A map as a picture: layers from the first at the top, positions or heads, one color scale.

White is 0, blue is towards the source (or more of the outcome), brown away from it; a dot is a cell
with q below the level, a cross one that was not measured; of a row without any there is none.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.colors import LinearSegmentedColormap, Normalize

from kv_claims.maps.asked import Asked
from kv_claims.maps.estimate import Estimate, Q
from kv_claims.report.figures.style import FAINT, INK, Drawn, sheet, styled

_RAMP = LinearSegmentedColormap.from_list(
    "map", ["#8e3505", "#e0a37c", "#f7f6f2", "#8fbcd9", "#0a4f83"]
)
_MOST_LABELS = 24


def drawn(title: str, rows: Sequence[Estimate], asked: Asked) -> Drawn:
    """The picture of a map."""
    layers = list(dict.fromkeys(one.cell.row for one in rows))
    columns = list(dict.fromkeys(one.cell.column for one in rows))
    values = np.full((len(layers), len(columns)), np.nan)
    spots = [(layers.index(one.cell.row), columns.index(one.cell.column)) for one in rows]
    for spot, one in zip(spots, rows, strict=True):
        values[spot] = one.estimate
    # A transfer of 1 is the source; what is smaller everywhere is not blown up to look like it.
    most = float(np.nanmax(np.abs(values), initial=0.0)) or 1.0
    most = max(1.0, most) if asked.estimand == "transfer" else most
    with styled():
        width, height = max(4.5, 2.6 + 0.22 * len(columns)), 1.5 + 0.2 * len(layers)
        figure = sheet(width, height)
        axes = figure.add_axes((0.7 / width, 0.75 / height, 1 - 1.6 / width, 1 - 1.15 / height))
        mesh = axes.pcolormesh(values, cmap=_RAMP, norm=Normalize(-most, most), linewidth=0)
        marked = [spot for spot, one in zip(spots, rows, strict=True) if one.is_marked]
        for places, marker, color in (
            (marked, "o", INK),
            (list(zip(*np.nonzero(np.isnan(values)), strict=True)), "x", FAINT),
        ):
            axes.plot(
                [column + 0.5 for _, column in places],
                [row + 0.5 for row, _ in places],
                linestyle="none",
                marker=marker,
                markersize=2.2,
                color=color,
            )
        axes.set_ylim(len(layers), 0)
        for axis, names in ((axes.xaxis, columns), (axes.yaxis, layers)):
            shown = range(0, len(names), -(-len(names) // _MOST_LABELS))
            axis.set_ticks([k + 0.5 for k in shown], [names[k] for k in shown])
        axes.tick_params(axis="x", labelrotation=90 if asked.axis == "position" else 0)
        axes.set(xlabel=asked.axis, ylabel="layer", title=title)
        figure.colorbar(
            mesh, ax=axes, label=asked.estimand, fraction=0.35 / width, pad=0.25 / width
        )
        foot = f"exploratory, no verdict; a dot: q < {Q:g}; a cross: not measured"
        figure.text(0.01, 0.01, foot, fontsize=7, color=FAINT)
    says = f"{title}: {len(rows)} cells, {len(marked)} with q < {Q:g}; exploratory, no verdict"
    return Drawn("map", figure, says)
