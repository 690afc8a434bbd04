"""The geometry of a batch's values, read from its slab once it has generated.

The values in the cache are the outputs of `v_proj`, position by position, so nothing is run again.
Recorded for every trial, every layer, both spans and all variants of the participation ratio:
whatever a claim asks of them, the trials need not run anew.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from kv_claims.claims.outcome import VARIANTS, WINDOW
from kv_claims.measure.geometry import participation_ratios
from kv_claims.patch.slab import Slab

Geometry = dict[str, list[float | None] | None]


def geometry_of(slab: Slab, generated: Sequence[int]) -> list[Geometry]:
    """Participation ratios of each row, by 'variant/span', a number a layer.

    generated: tokens that each of the first rows generated; the last one was never read by the
        model. Spans: 'prompt', the last 16 of the T prompt tokens; 'generated', the last 16 tokens
        that were generated and read. None where there are fewer (*short-window*), and in place of
        a number where values are all zero, or all alike, and the ratio is undefined.
    """
    n_rows = len(generated)
    prompt_end = torch.full((n_rows,), slab.slots + 1)
    ends = {
        "prompt": (prompt_end, slab.lengths[:n_rows].cpu()),
        "generated": (prompt_end + torch.tensor(generated) - 1, torch.tensor(generated) - 1),
    }
    found: list[Geometry] = [{} for _ in range(n_rows)]
    for span, (end, there) in ends.items():
        fits = (there >= WINDOW).tolist()
        rows = [row for row in range(n_rows) if fits[row]]
        by_variant = _ratios(slab, rows, end[rows]) if rows else {}
        for variant in VARIANTS:
            places = iter(by_variant[variant]) if rows else iter(())
            for row in range(n_rows):
                found[row][f"{variant}/{span}"] = _plain(next(places)) if fits[row] else None
    return found


def _ratios(
    slab: Slab, rows: Sequence[int], end: torch.Tensor
) -> dict[str, npt.NDArray[np.float64]]:
    """Participation ratios of the windows that end before `end`, `row layer`, by variant."""
    device = slab.values[0].device
    place = torch.tensor(rows, device=device)[:, None]
    columns = (end[:, None] - WINDOW + torch.arange(WINDOW)).to(device)
    by_layer = []
    for layer in range(len(slab.values)):
        window = slab.values_at(layer, place, columns).flatten(2)
        by_layer.append(window.double().cpu().numpy())
    stacked = np.stack(by_layer, axis=1)
    return {
        variant: participation_ratios(stacked, variant, undefined=float("nan"))
        for variant in VARIANTS
    }


def _plain(ratios: npt.NDArray[np.float64]) -> list[float | None]:
    """Numbers for JSON, to nine digits: more would be the rounding of the model itself."""
    return [None if np.isnan(ratio) else float(f"{ratio:.9g}") for ratio in ratios]
