"""Fieller's interval for a ratio of means, from paired data.

Source of the formula: E. C. Fieller, Some problems in interval estimation, JRSS B 16 (1954) 175.
With n clusters, mean A and D, variances of the means v, and t = the two-sided Student quantile
with n-1 degrees of freedom, the interval is every T with (A - T D)^2 <= t^2 var(A - T D):

    (D^2 - t^2 v_DD) T^2 - 2 (A D - t^2 v_AD) T + (A^2 - t^2 v_AA) <= 0

so its ends are exactly the T where a t test of A - T D has p = 1 - level. Where D is 1 in every
cluster it is Student's interval of the mean of A.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import stats

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


class Interval(NamedTuple):
    """Both ends, in the unit of the estimand."""

    low: float
    high: float

    def disjoint(self, low: float, high: float) -> bool:
        """Whether no point of [low, high] lies in it."""
        return self.high < low or self.low > high

    def within(self, low: float, high: float) -> bool:
        """Whether all of it lies in [low, high]."""
        return low <= self.low and self.high <= high


def weakness(gap: Floats, level: float) -> Floats:
    """Fieller's g = (t * se(D) / mean(D))^2; at 1 and above the ratio has no bounded interval.

    gap: D, shape `[..., cluster]`; g is `[...]`, infinite where the mean is 0.
    """
    n = gap.shape[-1]
    t = stats.t.ppf((1 + level) / 2, n - 1)
    mean, error = np.mean(gap, -1), np.std(gap, -1, ddof=1) / np.sqrt(n)
    is_zero = mean == 0
    found = np.where(is_zero, np.inf, (t * error / np.where(is_zero, 1.0, mean)) ** 2)
    return found[()]


def ends(effect: Floats, gap: Floats, level: float) -> tuple[Floats, Floats]:
    """Low and high end of the interval for mean(effect) / mean(gap), `[...]` each.

    effect, gap: A and D of the same clusters, shape `[..., cluster]`.
    NaN where it is unbounded (g >= 1): the data do not identify the ratio.
    """
    n = gap.shape[-1]
    t2 = stats.t.ppf((1 + level) / 2, n - 1) ** 2
    a, d = np.mean(effect, -1), np.mean(gap, -1)
    off_a, off_d = effect - a[..., None], gap - d[..., None]
    freedom = n * (n - 1)
    v_aa, v_ad, v_dd = (
        np.sum(one * other, -1) / freedom
        for one, other in ((off_a, off_a), (off_a, off_d), (off_d, off_d))
    )
    square, cross, rest = d * d - t2 * v_dd, a * d - t2 * v_ad, a * a - t2 * v_aa
    root = np.sqrt(np.maximum(cross * cross - square * rest, 0.0))
    square = np.where(square > 0, square, np.nan)
    return (cross - root) / square, (cross + root) / square


def fieller(effect: Floats, gap: Floats, level: float) -> Interval | None:
    """The interval of one study, `[cluster]`, as `ends`; None where it is unbounded."""
    low, high = ends(effect, gap, level)
    return None if np.isnan(low) else Interval(float(low), float(high))
