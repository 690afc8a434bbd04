"""Layer x window: the transfer of every splice of keys and values that a run has."""

from __future__ import annotations

from collections.abc import Sequence

from kv_claims.report.figures.grid import Field, draw_grid
from kv_claims.report.figures.style import Drawn
from kv_claims.report.view.arms import ArmView
from kv_claims.report.view.heatmap import grid_of, layers_text


def heatmap(name: str, title: str, arms: Sequence[ArmView]) -> Drawn | None:
    """The map, or None where fewer than two splices were run; empty fields were not.

    A dot is a discovery; the truth stands below the number where a planted model has it.
    """
    grid = grid_of(arms)
    if grid is None:
        return None
    percent = [f"{100 * share:.0f}%" for share in grid.shares]
    figure = draw_grid(
        title,
        [layers_text(layers) for layers in grid.rows],
        grid.columns,
        {place: _field(arm) for place, arm in grid.fields.items()},
        notes=[f"{percent[0]} of positions", *percent[1:]],
    )
    says = f"{title}: {len(grid.fields)} splices of keys and values, by layers and positions"
    return Drawn(name, figure, says)


def _field(arm: ArmView) -> Field:
    below = "" if arm.truth is None or arm.transfer is None else f"truth {arm.truth:.2f}"
    return Field(arm.transfer, arm.transfer is not None and arm.is_marked, below)
