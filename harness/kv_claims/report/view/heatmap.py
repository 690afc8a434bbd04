"""Which splices of keys and values stand where in the map of layers and positions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from kv_claims.report.view.arms import ArmView


class Grid(NamedTuple):
    """Rows are sets of layers (one layer first, deeper ones below), columns are positions.

    shares: of the base's positions, by column. fields: arms by row and column.
    """

    rows: list[tuple[int, ...]]
    columns: list[str]
    shares: list[float]
    fields: dict[tuple[int, int], ArmView]


def grid_of(arms: Sequence[ArmView]) -> Grid | None:
    """The map of a model's arms; None of fewer than two."""
    shown = [
        arm
        for arm in arms
        if arm.is_splice_of_kv and arm.patch.active == "prompt" and math.isfinite(arm.share)
    ]
    if len(shown) < 2:
        return None
    share = {arm.patch.positions: arm.share for arm in shown}
    columns = sorted(share, key=lambda text: (_kind(text), share[text], text))
    rows = sorted({arm.layers for arm in shown}, key=lambda layers: (len(layers), layers))
    fields = {(rows.index(arm.layers), columns.index(arm.patch.positions)): arm for arm in shown}
    return Grid(rows, columns, [share[text] for text in columns], fields)


def layers_text(layers: Sequence[int]) -> str:
    """`9`, `12, 13`, `8 to 15`."""
    if len(layers) > 2 and layers[-1] - layers[0] == len(layers) - 1:
        return f"{layers[0]} to {layers[-1]}"
    return ", ".join(map(str, layers))


def _kind(positions: str) -> int:
    """Windows at the end first, as most claims are about them, then all, at the start, others."""
    return ("last", "all", "first", "at").index(positions.partition("(")[0])
