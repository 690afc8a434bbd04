"""Fieller's interval for a ratio of means, from paired data, with its skewness taken out.

Source of the formula: E. C. Fieller, Some problems in interval estimation, JRSS B 16 (1954) 175.
With t(e) the mean of effect - e * unit over its standard error, Fieller's interval is every e with
|t(e)| at most Student's quantile. Here the statistic is Hall's T of t(e) (`judging.hall`), and as T
grows with t each end is where t(e) is a number of its own, c:

    ((T - e) u)^2 = c^2 (v_oo + 2 (T - e) v_ou + (T - e)^2 v_uu)

in the terms of `kv_claims.judging.moments`. So its ends are exactly the e at which the test of the
contrast has p = 1 - level, and without skewness they are Fieller's own. Where the unit is 1 in
every cluster and nothing is skewed it is Student's interval of the mean of the effect.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import stats

from kv_claims.judging.arrays import Bools, Floats
from kv_claims.judging.hall import untransformed
from kv_claims.judging.moments import Moments

__all__ = ["Bools", "Floats", "Interval", "ends", "weakness"]


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


def weakness(found: Moments, level: float) -> Floats:
    """Fieller's g = (t * standard error / mean)^2 of the unit; infinite where the mean is 0.

    At 1 and above a ratio has no bounded interval (but for skewness).
    """
    t2 = stats.t.ppf((1 + level) / 2, found.freedom) ** 2
    is_zero = found.unit == 0
    mean = np.where(is_zero, np.nan, found.unit)
    g: Floats = np.nan_to_num(t2 * found.v_uu / mean**2, nan=np.inf)
    return g


def ends(found: Moments, level: float) -> tuple[Floats, Floats]:
    """Low and high end of the interval, `[...]` each; NaN where the data do not identify it."""
    t = stats.t.ppf((1 + level) / 2, found.freedom)
    low, high = (_where(found, untransformed(sign * t, found.skewness)) for sign in (1.0, -1.0))
    known = np.isfinite(low) & np.isfinite(high)
    return np.where(known, low, np.nan)[()], np.where(known, high, np.nan)[()]


def _where(found: Moments, c: Floats) -> Floats:
    """The e at which t(e) is c: below the estimate where c is positive."""
    square = found.unit**2 - c**2 * found.v_uu
    half = c**2 * found.v_ou
    # (T - e)^2 square - 2 (T - e) half - c^2 v_oo = 0; square is positive where there is an end.
    root = np.sqrt(np.maximum(half**2 + square * c**2 * found.v_oo, 0.0))
    end: Floats = found.estimate - (half + np.sign(c) * root) / np.where(square > 0, square, np.nan)
    return end
