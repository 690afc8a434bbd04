"""Testing a ratio against its claimed region, by contrasts L = A - e D at each edge e.

A and D are the numerator and denominator of an estimand (`kv_claims.judging.estimand`), a number a
cluster, such as A = patched - base and D = source - base. A contrast needs no ratio of noisy
numbers: where D is positive on average, A/D is above e exactly when A - e D is positive. scipy
does the tests.

Where A is the same multiple of D in every cluster, what was not seen is bounded by its count as
well (`kv_claims.judging.unseen`): a test's p is then no smaller, and an interval no narrower, than
the count allows. Tests and intervals use the one bound, so that they cannot disagree.
"""

from __future__ import annotations

from typing import Literal, NamedTuple, get_args

import numpy as np
from scipy import stats

from kv_claims.claims.claim import Region
from kv_claims.judging import proportions
from kv_claims.judging.estimand import Contrast
from kv_claims.judging.fieller import Bools, Floats, Interval, ends
from kv_claims.judging.unseen import chance_of_none, clusters_for, largest_share

_NO_SPREAD = 1e-12
_MOST_PAIRS = 10_000_000


Side = Literal["greater", "less"]
"""Of 0, on which the mean of a contrast is shown to lie."""


class EdgeTests(NamedTuple):
    """The tests at a region's edges, of one study (0-d) or of many, `[...]`.

    p_supported: the larger of the one-sided p that the truth is inside each edge.
    p_refuted: twice the smaller of the reverse ones. Both NaN where an edge is flat.
    flat: at which edges L does not vary, so that no test exists, `[edge, ...]`.
    """

    p_supported: Floats
    p_refuted: Floats
    flat: Bools


def edge_tests(found: Contrast, region: Region) -> EdgeTests:
    """Test every finite edge of a region."""
    if found.of == "proportions":
        return _of_proportions(found, region)
    effect, gap, size, most = found.effect, found.unit, found.size, found.most
    edges = np.array([edge for edge, _ in region.edges])
    edge = edges.reshape(-1, *[1] * effect.ndim)
    contrasts = effect - edge * gap
    flat = ~varies(contrasts, size + np.abs(edge * gap))
    tested = np.broadcast_to(~flat.any(0), flat.shape)
    inward = (found.estimate - edge[..., 0]) / most
    unseen = (
        np.where(alike(found), chance_of_none(off, effect.shape[-1]), 0.0)
        for off in (inward, -inward)
    )
    above, below = (
        np.maximum(one_sided(contrasts, side, tested), least)
        for side, least in zip(get_args(Side), unseen, strict=True)
    )
    inner = np.array([side == "greater" for _, side in region.edges])
    inner = inner.reshape(-1, *[1] * (effect.ndim - 1))
    inside, outside = np.where(inner, above, below), np.where(inner, below, above)
    return EdgeTests(np.max(inside, 0), np.minimum(1.0, 2 * np.min(outside, 0)), flat)


def _of_proportions(found: Contrast, region: Region) -> EdgeTests:
    """The same by score tests, which need no spread."""
    away: dict[Side, Side] = {"greater": "less", "less": "greater"}
    inside = [proportions.one_sided(found.effect, edge, side) for edge, side in region.edges]
    out = [proportions.one_sided(found.effect, edge, away[side]) for edge, side in region.edges]
    flat: Bools = np.zeros(np.shape(inside), np.bool_)
    return EdgeTests(np.max(inside, 0), np.minimum(1.0, 2 * np.min(out, 0)), flat)


def interval_ends(found: Contrast, level: float) -> tuple[Floats, Floats]:
    """Low and high end of the interval at a level, `[...]` each; NaN where it is unbounded.

    Of proportions Tango's. Of means Fieller's, and where clusters are all alike no narrower than
    what was not seen allows.
    """
    if found.of == "proportions":
        return proportions.ends(found.effect, level)
    low, high = ends(found.effect, found.unit, level)
    unseen = largest_share(found.effect.shape[-1], (1 - level) / 2)
    reach = np.where(alike(found), found.most * unseen, 0.0)
    reach = np.where(np.isfinite(reach), reach, np.nan)
    return low - reach, high + reach


def interval(found: Contrast, level: float) -> Interval | None:
    """The interval of one study, as `interval_ends`; None where it is unbounded."""
    low, high = interval_ends(found, level)
    return None if np.isnan(low) else Interval(float(low), float(high))


def alike(found: Contrast) -> Bools:
    """Whether every cluster has the same ratio, but for rounding; `[...]`."""
    estimate = np.asarray(found.estimate)[..., None]
    off = found.effect - estimate * found.unit
    same: Bools = ~varies(off, found.size + np.abs(estimate * found.unit))
    return same & np.isfinite(found.estimate)


def one_sided(values: Floats, side: Side, where: Bools | np.bool_ = np.True_) -> Floats:
    """Student's p that the mean of `values`, `[..., cluster]`, lies on a side of 0; `[...]`.

    where: what may be tested, `[...]`; NaN elsewhere, as scipy must not see what does not vary.
    """
    found = np.full(values.shape[:-1], np.nan)
    if np.any(where):
        found[where] = stats.ttest_1samp(values[where], 0.0, axis=-1, alternative=side).pvalue
    return found[()]


def varies(values: Floats, parts: Floats) -> Bools:
    """Whether values differ by more than the rounding of the numbers they were made of; `[...]`."""
    found: Bools = np.ptp(values, axis=-1) > _NO_SPREAD * np.max(parts, axis=-1)
    return found


def pairs_to_decide(
    found: Contrast, region: Region, alpha: float, alpha_refuted: float | None = None
) -> int | None:
    """Clusters at which the same means and spreads would give a verdict; None if never.

    Inside the region every edge must pass its one-sided test at alpha; outside, one edge must
    pass the reverse test at alpha_refuted / 2 (left out: alpha / 2). It is the number for the
    observed means, no power is added. Where clusters are all alike, so many must be.
    """
    reverse = (alpha if alpha_refuted is None else alpha_refuted) / 2
    estimate = float(found.estimate)
    inside, same = estimate in region, bool(alike(found))
    level = alpha if inside else reverse
    needs = []
    for edge, side in region.edges:
        contrast = found.effect - edge * found.unit
        mean = float(np.mean(contrast)) * (1 if side == "greater" else -1)
        if inside or mean < 0:
            need = _smallest_n(abs(mean), float(np.std(contrast, ddof=1)), 1 - level)
            if same and need is not None:
                unseen = clusters_for(abs(estimate - edge) / float(found.most), level)
                need = None if unseen is None else max(need, unseen)
            needs.append(need)
    if not needs or None in needs:
        return None
    known = [n for n in needs if n is not None]
    return max(known) if inside else min(known)


def _smallest_n(distance: float, spread: float, level: float) -> int | None:
    """The smallest n with distance * sqrt(n) / spread > t(level, n - 1)."""
    if distance <= 0:
        return None
    low, high = 1, 2
    while not _passes(high, distance, spread, level):
        low, high = high, 2 * high
        if high > _MOST_PAIRS:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if _passes(middle, distance, spread, level) else (middle, high)
    return high


def _passes(n: int, distance: float, spread: float, level: float) -> bool:
    return bool(distance * n**0.5 > stats.t.ppf(level, n - 1) * spread)
