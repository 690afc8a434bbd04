"""What a map says of each cell: an estimate, its interval, a p, and q by Benjamini and Hochberg.

Promises: the same contrasts, clusters and intervals as a verdict has (`kv_claims.judging`), of all
cells in one table. p is two-sided, of the cell moving the outcome at all (its effect is 0); q is
over all cells that were measured. A cell that has no test, as nothing varies in it or too few
clusters carry it, has p 1, and what has no interval has none.
Does not: hold cells against controls, or say that one is true: who looks at many finds something.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from scipy.stats import false_discovery_control

from kv_claims.claims.claim import FEWEST_PAIRS, Region
from kv_claims.errors import UsageError
from kv_claims.judging.arrays import Floats
from kv_claims.judging.contrast import edge_tests, interval_ends, one_sided
from kv_claims.judging.decide import CEILING_ALPHA
from kv_claims.judging.estimand import Contrast, between, contrast, orientation
from kv_claims.judging.frame import check_frame, clustering
from kv_claims.maps.asked import Asked, Cell
from kv_claims.maps.measure import Measured

LEVEL = 0.95
Q = 0.05
"""Below which a cell is marked: of those marked, at most so many are expected to be nothing."""


class Estimate(NamedTuple):
    """A cell's numbers, in the unit of the estimand; low and high NaN where there is no interval.

    pairs, clusters: what they rest on.
    """

    cell: Cell
    arm: str
    estimate: float
    low: float
    high: float
    p: float
    q: float
    pairs: int
    clusters: int

    @property
    def is_marked(self) -> bool:
        return self.q < Q


class Gap(NamedTuple):
    """How far source lies from base, in the outcome's unit. p: one-sided; NaN without spread."""

    mean: float
    p: float

    @property
    def is_clear(self) -> bool:
        """Whether shares of it may be read, as for a verdict."""
        return self.mean != 0 if math.isnan(self.p) else self.p < CEILING_ALPHA


def estimates(found: Measured, asked: Asked) -> tuple[list[Estimate], Gap]:
    """Estimates of all measured cells, in their order, and the gap.

    Raises UsageError for scores that are not numbers, and for too few clusters.
    """
    check_frame(found.table)
    grouping = clustering(found.table)
    if grouping.clusters < FEWEST_PAIRS:
        raise UsageError(
            f"map: {grouping.clusters} clusters by {grouping.by} in the discovery part, expected "
            f"at least {FEWEST_PAIRS}"
        )
    patched = np.stack([grouping.scores[arm] for _, arm in found.cells])
    scores: dict[str, Floats] = {
        "patched": patched,
        **{
            side: np.broadcast_to(grouping.scores[side], patched.shape)
            for side in ("base", "source")
        },
    }
    sign = orientation(scores, "either" if asked.measured.may_fall else "up")
    of = contrast(scores, asked.estimand, sign, grouping.sharing)
    low, high = interval_ends(of, LEVEL)
    p = _two_sided(of)
    q = false_discovery_control(p)
    pairs = found.table["pair"].nunique()
    rows = [
        Estimate(
            cell,
            arm,
            float(of.estimate[k]),
            float(low[k]),
            float(high[k]),
            float(p[k]),
            float(q[k]),
            pairs,
            grouping.clusters,
        )
        for k, (cell, arm) in enumerate(found.cells)
    ]
    apart = between(scores, "source", "base", sign, sharing=grouping.sharing)
    return rows, Gap(float(sign[0] * apart.effect[0].mean()), float(one_sided(apart, "greater")[0]))


def _two_sided(of: Contrast) -> Floats:
    tails = [edge_tests(of, region).p_supported for region in (Region(low=0), Region(high=0))]
    p: Floats = np.minimum(1.0, 2 * np.minimum(*tails))
    return np.where(np.isnan(p), 1.0, p)
