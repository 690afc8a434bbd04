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


class Interval(NamedTuple):
    """Both ends, in the unit of the estimand."""

    low: float
    high: float

    def disjoint(self, low: float, high: float) -> bool:
        """Whether no point of [low, high] lies in it."""
        return self.high < low or self.low > high


def weakness(gap: Floats, level: float) -> float:
    """Fieller's g = (t * se(D) / mean(D))^2; at 1 and above the ratio has no bounded interval.

    gap: D, shape `[cluster]`.
    """
    n = len(gap)
    t = stats.t.ppf((1 + level) / 2, n - 1)
    mean = float(np.mean(gap))
    return float((t * stats.sem(gap) / mean) ** 2) if mean else float("inf")


def fieller(effect: Floats, gap: Floats, level: float) -> Interval | None:
    """The interval for mean(effect) / mean(gap) at a confidence level.

    effect, gap: A and D of the same clusters, shape `[cluster]`.
    None where it is unbounded (g >= 1): the data do not identify the ratio.
    """
    n = len(gap)
    t2 = stats.t.ppf((1 + level) / 2, n - 1) ** 2
    (v_aa, v_ad), (_, v_dd) = np.cov(effect, gap) / n
    a, d = np.mean(effect), np.mean(gap)
    square, cross, rest = d * d - t2 * v_dd, a * d - t2 * v_ad, a * a - t2 * v_aa
    if square <= 0:
        return None
    root = np.sqrt(max(cross * cross - square * rest, 0.0))
    return Interval(float((cross - root) / square), float((cross + root) / square))
