"""By how much an estimand differs between two runs of the same pairs, and whether that matters.

Every estimand is a ratio of means over clusters, T = mean(E) / mean(U) (`judging.estimand`). Two
runs of the same clusters are paired, so the difference T_B - T_A is tested on one number a cluster,
its first-order influence:

    phi_i = (E_Bi - T_B U_Bi) / mean(U_B) - (E_Ai - T_A U_Ai) / mean(U_A)
    T_B - T_A  +-  t(n-1) * sd(phi) / sqrt(n)

with the skewness of phi taken out (`judging.hall`). This is the delta method (linearization) of a
ratio of means: W. G. Cochran, Sampling techniques, 3rd ed. (1977), section 6.3, and for functions
of several means A. C. Davison and D. V. Hinkley, Bootstrap methods and their application (1997),
section 2.7.2; t for z as few clusters need it.
No quadratic such as Fieller's has it as its solution, as two denominators are estimated; so it is
read only where each run's own ratio is identified (Fieller's g below 0.1). Where U is 1 in every
cluster it is Student's paired interval.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np

from kv_claims.claims.claim import Region
from kv_claims.judging.contrast import edge_tests, interval_ends
from kv_claims.judging.decide import FEWEST_CLUSTERS, WEAK_RATIO
from kv_claims.judging.estimand import Contrast
from kv_claims.judging.fieller import Bools, Floats, Interval, weakness
from kv_claims.judging.moments import varies
from kv_claims.judging.rule import ALPHA

Found = Literal["same", "moved", "undecided"]
SHOWN_LEVEL, INNER_LEVEL = 1 - ALPHA, 1 - 2 * ALPHA
_ROUNDING = 1e-12


class Difference(NamedTuple):
    """What two runs of the same pairs say of a part.

    found: 'same' where the difference is shown within the margin (one-sided tests at both of its
        ends at 0.05), 'moved' where it is shown beyond (95% interval), else 'undecided'.
    first, second: the estimate in each run on what both have. value, interval: second - first,
        at 95%, in the unit of the estimand; None where nothing could be computed.
    margin: in that unit. by: what a cluster is, clusters: how many. equal: whether both runs have
        the same numbers in every cluster.
    """

    found: Found
    reason: str
    first: float | None = None
    second: float | None = None
    value: float | None = None
    interval: Interval | None = None
    margin: float | None = None
    by: str = ""
    clusters: int = 0
    equal: bool = False


def difference_ends(first: Contrast, second: Contrast, level: float) -> tuple[Floats, Floats]:
    """Low and high end of the interval for T_second - T_first, `[...]` each.

    first, second: of the same clusters in the same order, `[..., cluster]`. NaN where a run has
    no unit to count in, or too few clusters carry the difference. Where influences vary by rounding
    only, both ends are the difference.
    """
    value = second.estimate - first.estimate
    phi = _influence(second) - _influence(first) + value[..., None]
    whole = Contrast(phi, np.ones(phi.shape), _parts(first, second), np.inf, sharing=first.sharing)
    low, high = (
        np.where(whole.moments.alike, value, end)[()] for end in interval_ends(whole, level)
    )
    return low, high


def difference(
    first: Contrast, second: Contrast, *, is_ratio: bool, margin: float, by: str = "pair"
) -> Difference:
    """Compare one grouping of the pairs, `[cluster]`, in two runs.

    is_ratio: whether the estimand is a share of source - base. Else it is source - base itself,
        and the margin a share of the first run's, whose error the tests allow for.
    by: what a cluster is.
    """
    if first.effect.shape[-1] == 0:
        return Difference("undecided", "no test: no pair in both")
    n = first.moments.clusters
    a, b = float(first.estimate), float(second.estimate)
    scaled = margin if is_ratio else margin * abs(a)
    found = Difference("undecided", "", _number(a), _number(b), _number(b - a), None, scaled, by, n)
    if n < FEWEST_CLUSTERS:
        reason = f"no test: {n} clusters by {by} in both, at least {FEWEST_CLUSTERS} wanted"
        return found._replace(reason=reason)
    low, high = difference_ends(first, second, SHOWN_LEVEL)
    if np.isfinite([low, high]).all():
        found = found._replace(interval=Interval(float(low), float(high)))
    if _equal(first, second):
        return found._replace(found="same", reason=f"equal in every {by}", equal=True)
    word, reason = (_of_ratios if is_ratio else _of_gaps)(first, second, margin)
    if word == "undecided" and not reason:
        reason = f"neither shown within {scaled:.3g} nor beyond"
        if found.interval is not None and found.interval.disjoint(0.0, 0.0):
            reason += ", though not 0"
    return found._replace(found=word, reason=reason)


def _of_ratios(first: Contrast, second: Contrast, margin: float) -> tuple[Found, str]:
    for run, one in (("A", first), ("B", second)):
        if (weak := float(weakness(one.moments, SHOWN_LEVEL))) >= WEAK_RATIO:
            return "undecided", f"weak ratio in {run}: Fieller's g {weak:.3g}, below 0.1 wanted"
    inner, outer = (
        Interval(*map(float, difference_ends(first, second, level)))
        for level in (INNER_LEVEL, SHOWN_LEVEL)
    )
    if not _spread(first, second) and abs(inner.low) > _ROUNDING:
        return "undecided", "no spread: every cluster differs by the same, so there is no test"
    if inner.within(-margin, margin):
        return "same", f"within {margin:g} of source - base"
    if outer.disjoint(-margin, margin):
        return "moved", f"beyond {margin:g} of source - base"
    return "undecided", ""


def _of_gaps(first: Contrast, second: Contrast, margin: float) -> tuple[Found, str]:
    """Tests of (gap_B - gap_A) -+ margin * gap_A, a contrast like any other.

    They are read the way the first run's gap lies, as geometry may contract.
    """
    sign = -1.0 if first.estimate < 0 else 1.0
    effect, unit = sign * (second.effect - first.effect), sign * first.effect
    moved = Contrast(effect, unit, first.size + second.size, sharing=first.sharing)
    tests = edge_tests(moved, Region(-margin, margin))
    if tests.flat.any():
        return "undecided", "no spread: every cluster differs by the same, so there is no test"
    if tests.p_supported <= ALPHA:
        return "same", f"within {margin:g} of A's source - base"
    if tests.p_refuted <= ALPHA:
        return "moved", f"beyond {margin:g} of A's source - base"
    return "undecided", ""


def _influence(found: Contrast) -> Floats:
    """What each cluster adds to the ratio of means, to first order, times n; its mean is 0."""
    off: Floats = (found.effect - found.estimate[..., None] * found.unit) / _unit(found)
    return off


def _spread(first: Contrast, second: Contrast) -> Bools:
    """Whether influences differ by more than the rounding of what they were made of."""
    return varies(_influence(second) - _influence(first), _parts(first, second))


def _parts(first: Contrast, second: Contrast) -> Floats:
    """Magnitude of the numbers that influences are the difference of."""
    size: Floats = np.sum(
        [
            (one.size + np.abs(one.estimate[..., None] * one.unit)) / np.abs(_unit(one))
            for one in (first, second)
        ],
        0,
    )
    return size


def _unit(found: Contrast) -> Floats:
    """The mean unit, `[..., 1]`; NaN where it is 0."""
    unit = np.mean(found.unit, -1, keepdims=True)
    known: Floats = np.where(unit == 0, np.nan, unit)
    return known


def _equal(first: Contrast, second: Contrast) -> bool:
    each = ("effect", "unit", "size")
    return all(bool(np.array_equal(getattr(first, e), getattr(second, e))) for e in each)


def _number(value: float) -> float | None:
    return value if np.isfinite(value) else None
