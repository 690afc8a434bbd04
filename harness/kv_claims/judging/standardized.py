"""A difference of two arms in its own spread: paired Cohen's d, with Hedges' correction.

Over n clusters with differences of mean m and standard deviation s, t = sqrt(n) m / s follows the
noncentral t law with n - 1 degrees of freedom and noncentrality sqrt(n) d, d the truth, where
differences are normal. Tests and interval are of that law, so that they agree; the estimate is
J m / s with J = exp(lgamma(f/2) - lgamma((f-1)/2)) / sqrt(f/2), f = n - 1 (L. V. Hedges,
Distribution theory for Glass's estimator of effect size, Journal of Educational Statistics 6
(1981) 107). What is divided by is the spread of the *differences* (d_z); a d that divides by the
arms' own spread is another number.

Does not: hold where differences are far from normal; `kv_claims.judging.contrast` has them withheld
where they are too skewed.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from scipy import special, stats

from kv_claims.judging.arrays import Floats
from kv_claims.judging.search import fewest

Side = Literal["greater", "less"]
MOST_CLUSTERS = 1_000_000
"""More than these are not looked for."""
_STEPS = 60
"""Halvings of where an end may lie."""


def t_of(effect: Floats) -> Floats:
    """t = sqrt(n) m / s of differences, `[..., cluster]` to `[...]`; infinite where none vary."""
    spread = np.std(effect, -1, ddof=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        found: Floats = np.sqrt(effect.shape[-1]) * np.mean(effect, -1) / spread
    return found


def uncorrected(effect: Floats) -> Floats:
    """m / s of paired differences, `[...]`."""
    found: Floats = t_of(effect) / np.sqrt(effect.shape[-1])
    return found


def estimate(effect: Floats) -> Floats:
    """Hedges' g of paired differences, `[...]`."""
    found: Floats = correction(effect.shape[-1]) * uncorrected(effect)
    return found


def correction(n: int) -> float:
    """J: what takes the bias out of m / s."""
    half = (n - 1) / 2
    return float(np.exp(special.gammaln(half) - special.gammaln(half - 0.5)) / np.sqrt(half))


def one_sided(effect: Floats, edge: float, side: Side) -> Floats:
    """p that the truth d lies on a side of an edge, `[...]`."""
    return _tail(t_of(effect), effect.shape[-1], np.asarray(edge), side)


def ends(effect: Floats, level: float) -> tuple[Floats, Floats]:
    """Low and high end of the interval of d, `[...]` each; NaN where nothing varies."""
    t, n, alpha = t_of(effect), effect.shape[-1], (1 - level) / 2
    return _where(t, n, alpha, "greater"), _where(t, n, alpha, "less")


def clusters_to_show(d: float, edge: float, side: Side, level: float) -> int | None:
    """The fewest at which a d is shown on a side of an edge; None if not in MOST_CLUSTERS."""

    def shows(n: int) -> bool:
        return bool(_tail(np.asarray(d * np.sqrt(n)), n, np.asarray(edge), side) <= level)

    return fewest(shows, 2, MOST_CLUSTERS)


def _where(t: Floats, n: int, alpha: float, side: Side) -> Floats:
    """The d at which the test on a side has p = alpha."""
    # The noncentral t is about normal around its noncentrality, and no narrower than 1 / sqrt(n).
    reach = (10 + np.abs(t)) / np.sqrt(n)
    centre = t / np.sqrt(n)
    with np.errstate(invalid="ignore"):
        low, high = centre - reach, centre + reach
    for _ in range(_STEPS):
        middle = (low + high) / 2
        # p that d is greater grows with the edge that it is held against; less falls.
        is_small = _tail(t, n, middle, side) < alpha
        up = is_small if side == "greater" else ~is_small
        low, high = np.where(up, middle, low), np.where(up, high, middle)
    found: Floats = np.where(np.isfinite(t), (low + high) / 2, np.nan)
    return found


def _tail(t: Floats, n: int, edge: Floats, side: Side) -> Floats:
    away = np.sqrt(n) * edge
    law = stats.nct.sf if side == "greater" else stats.nct.cdf
    found: Floats = np.where(np.isfinite(t), law(t, n - 1, away), np.nan)
    return found
