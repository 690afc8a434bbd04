"""What Student's t does not know of a mean: its skewness, taken out by Hall's transformation.

Source: P. Hall, On the removal of skewness by transformation, JRSS B 54 (1992) 221. With t the mean
over its standard error and c the skewness of the mean (that of n independent numbers is their own
over the root of n),

    T = t + c t^2 / 3 + c^2 t^3 / 27 + c / 6

is nearer to Student's law than t is. T grows with t, whatever c, so that a test becomes an interval
in closed form: the end at which T is a quantile q is where t is `untransformed(q, c)`. Without
skewness T is t.

Beyond a skewness of the mean of MOST_SKEWED the sample no longer tells how skewed it is. Then the
mean may not be shown to lie off a value on the side away from the longer tail: too few numbers
carry it. On the tail's own side it may: there t errs too seldom, and T not too often (decision 14
has the rates of both).
"""

from __future__ import annotations

import numpy as np

from kv_claims.judging.arrays import Bools, Floats

MOST_SKEWED = 0.4
"""A skewness of the mean: that of about six numbers in many which differ from all others."""
_LARGEST = 1e50


def transformed(t: Floats, skewness: Floats) -> Floats:
    """T of a t statistic, to be read in Student's law."""
    t = np.clip(t, -_LARGEST, _LARGEST)  # infinite where nothing varies
    found: Floats = t + skewness * t**2 / 3 + skewness**2 * t**3 / 27 + skewness / 6
    return found


def untransformed(value: Floats | float, skewness: Floats) -> Floats:
    """The t of which T is this value; the inverse of `transformed`."""
    # T - c/6 = ((1 + c t / 3)^3 - 1) / c, solved for t without dividing by c.
    rest = value - skewness / 6
    root = np.cbrt(1 + skewness * rest)
    found: Floats = 3 * rest / (root * root + root + 1)
    return found


def unsafe_above(skewness: Floats) -> Bools:
    """Where a mean may not be shown to lie above a value: its tail below is too long."""
    found: Bools = skewness < -MOST_SKEWED
    return found


def unsafe_below(skewness: Floats) -> Bools:
    """Where a mean may not be shown to lie below a value: its tail above is too long."""
    found: Bools = skewness > MOST_SKEWED
    return found
