"""Testing a ratio against its claimed region, by contrasts L = A - e D at each edge e.

A and D are the numerator and denominator of an estimand (`kv_claims.judging.estimand`), a number a
cluster, such as A = patched - base and D = source - base. A contrast needs no ratio of noisy
numbers: where D is positive on average, A/D is above e exactly when A - e D is positive.

Three rules, each of which gives test and interval at once, so that they cannot disagree:
- Hall's T of the t statistic in Student's law (`judging.hall`, `judging.fieller`).
- Where all clusters but a few have one ratio, what was not seen is bounded by its count
  (`judging.unseen`): all of it where none is unlike, and on the side of the longer tail where the
  mean is too skewed for T.
- Where it is too skewed and nothing can be counted, too few clusters carry the effect: there is
  neither a test nor an interval.
Proportions, and effects over their own spread, are tested by laws of their own
(`judging.proportions`, `judging.standardized`).
"""

from __future__ import annotations

from typing import Literal, NamedTuple, Protocol

import numpy as np
from scipy import stats

from kv_claims.claims.claim import Region
from kv_claims.judging import proportions, standardized
from kv_claims.judging.arrays import Bools, Floats
from kv_claims.judging.estimand import Contrast
from kv_claims.judging.fieller import Interval, ends
from kv_claims.judging.hall import (
    MOST_SKEWED,
    transformed,
    unsafe_above,
    unsafe_below,
    untransformed,
)
from kv_claims.judging.moments import varies
from kv_claims.judging.search import fewest
from kv_claims.judging.unseen import Few, clusters_for, few_unlike

_MOST_PAIRS = 10_000_000


Side = Literal["greater", "less"]
"""Of 0, on which the mean of a contrast is shown to lie."""


class EdgeTests(NamedTuple):
    """The tests at a region's edges, of one study (0-d) or of many, `[...]`.

    p_supported: the larger of the one-sided p that the truth is inside each edge.
    p_refuted: twice the smaller of the reverse ones. Both NaN where an edge is flat, and 1 where
        too few clusters carry the effect.
    flat: at which edges L does not vary, so that no test exists, `[edge, ...]`.
    """

    p_supported: Floats
    p_refuted: Floats
    flat: Bools


def edge_tests(found: Contrast, region: Region) -> EdgeTests:
    """Test every finite edge of a region."""
    if (law := _law_of(found)) is not None:
        return _by_law(law, found, region)
    edges = np.array([edge for edge, _ in region.edges])
    edge = edges.reshape(-1, *[1] * found.effect.ndim)
    flat = ~varies(found.effect - edge * found.unit, found.size + np.abs(edge * found.unit))
    edge = edge[..., 0]
    t = transformed(found.moments.t(edge), found.moments.skewness)
    above, below = (np.array(tail(t, found.moments.freedom)) for tail in (stats.t.sf, stats.t.cdf))
    count = _count(found)
    for number, at in enumerate(edge.ravel()):
        count.bound(above[number, ...], below[number, ...], float(at))
    inner = np.array([side == "greater" for _, side in region.edges])
    inner = inner.reshape(edge.shape)
    inside, outside = (
        np.where(flat.any(0), np.nan, some)
        for some in (np.where(inner, above, below), np.where(inner, below, above))
    )
    return EdgeTests(np.max(inside, 0), np.minimum(1.0, 2 * np.min(outside, 0)), flat)


class _Law(Protocol):
    """Tests and intervals of effects, `[..., cluster]`, that are not those of a mean."""

    def one_sided(self, effect: Floats, edge: float, side: Side) -> Floats: ...
    def ends(self, effect: Floats, level: float) -> tuple[Floats, Floats]: ...


def _law_of(found: Contrast) -> _Law | None:
    laws: dict[str, _Law] = {"proportions": proportions, "standardized": standardized}
    return laws.get(found.of)


def _by_law(law: _Law, found: Contrast, region: Region) -> EdgeTests:
    """The same by a law, which has no test where its p is NaN."""
    away: dict[Side, Side] = {"greater": "less", "less": "greater"}
    inside = [law.one_sided(found.effect, edge, side) for edge, side in region.edges]
    out = [law.one_sided(found.effect, edge, away[side]) for edge, side in region.edges]
    flat: Bools = np.isnan(inside)
    return EdgeTests(np.max(inside, 0), np.minimum(1.0, 2 * np.min(out, 0)), flat)


def interval_ends(found: Contrast, level: float) -> tuple[Floats, Floats]:
    """Low and high end of the interval at a level, `[...]` each; NaN where there is none."""
    if (law := _law_of(found)) is not None:
        return law.ends(found.effect, level)
    low, high = (np.array(end) for end in ends(found.moments, level))
    _count(found).widen(low, high, (1 - level) / 2)
    return low[()], high[()]


def interval(found: Contrast, level: float) -> Interval | None:
    """The interval of one study, as `interval_ends`; None where there is none."""
    low, high = interval_ends(found, level)
    return None if np.isnan(low) else Interval(float(low), float(high))


def alike(found: Contrast) -> Bools:
    """Whether every cluster has the same ratio, but for rounding; `[...]`."""
    return found.moments.alike


def too_few_carry(found: Contrast) -> Bools:
    """Whether the mean is too skewed to be tested, and no count can stand in for that; `[...]`."""
    if found.of == "proportions":
        return np.zeros(found.effect.shape[:-1], np.bool_)
    skewed: Bools = np.array(np.abs(found.moments.skewness) > MOST_SKEWED)
    if found.of == "standardized":
        return skewed
    count = _count(found)
    skewed[count.where] &= ~count.few.known
    return skewed


def few_of(found: Contrast) -> Few | None:
    """What is counted of one study whose word rests on a count; None where it does not."""
    count = None if _law_of(found) is not None else _count(found)
    if count is None or not count.where or not (count.alike[0] or count.few.known[0]):
        return None
    (usual,) = count.usual
    return Few(count.few.known[0], usual, tuple((k[0], n) for k, n in count.few.counts))


class _Count(NamedTuple):
    """The studies in which a count has a say, `[...]`; of them, `[study]`, all that follows.

    few: what is counted. usual: the ratio of the others. most, is_gate: as of the contrast. alike:
    all have one ratio. above, below: whether the mean is too skewed to be shown above, or below.
    """

    where: Bools
    few: Few
    usual: Floats
    most: Floats
    alike: Bools
    above: Bools
    below: Bools
    is_gate: bool

    def bound(self, above: Floats, below: Floats, edge: float) -> None:
        """Put what the count allows into p-values that the mean is above, and below, an edge."""
        for p, inward, unsafe in (
            (above, self.usual - edge, self.above),
            (below, edge - self.usual, self.below),
        ):
            by_count = self.few.chance(inward / self.most)
            bounded = np.where(unsafe, by_count, p[self.where])
            bounded = np.where(self.alike, np.maximum(p[self.where], by_count), bounded)
            bounded = np.where(self.alike | self.few.known, bounded, 1.0)
            if self.is_gate:
                none = self.few.none.chance(inward / self.most)
                floored = np.maximum(p[self.where], none)
                bounded = np.where(unsafe | self.alike, floored, p[self.where])
            p[self.where] = bounded

    def widen(self, low: Floats, high: Floats, alpha: float) -> None:
        """The same of both ends of an interval, of which each is at one-sided alpha."""
        reach = self.most * self.few.share(alpha)
        for end, sign, unsafe in ((low, -1, self.above), (high, 1, self.below)):
            bounded = np.where(unsafe, self.usual + sign * reach, end[self.where])
            bounded = np.where(self.alike, end[self.where] + sign * reach, bounded)
            bounded = np.where(self.alike | self.few.known, bounded, np.nan)
            if self.is_gate:
                none = self.usual + sign * self.most * self.few.none.share(alpha)
                further = sign * np.maximum(sign * end[self.where], sign * none)
                further = np.where(unsafe, further, end[self.where])
                bounded = np.where(self.alike, bounded, further)
            end[self.where] = np.where(np.isfinite(bounded), bounded, np.nan)
        known = np.isfinite(low) & np.isfinite(high)
        low[~known], high[~known] = np.nan, np.nan


def _count(found: Contrast) -> _Count:
    of = found.moments
    above, below = unsafe_above(of.skewness), unsafe_below(of.skewness)
    where: Bools = np.asarray(of.alike | above | below)
    effect, unit, size = np.broadcast_arrays(found.effect, found.unit, found.size)
    most = np.broadcast_to(found.most, where.shape)[where]
    few = few_unlike(effect[where], unit[where], size[where], most, found.sharing)
    same = np.asarray(of.alike)[where]
    usual = np.where(same, np.asarray(of.estimate)[where], few.usual)
    not_above, not_below = (np.asarray(some)[where] for some in (above, below))
    return _Count(where, few, usual, most, same, not_above, not_below, found.is_gate)


def one_sided(found: Contrast, side: Side) -> Floats:
    """p that the mean of the effect lies on a side of 0, `[...]`; NaN where it does not vary."""
    alone = Contrast(found.effect, np.ones(found.effect.shape), found.size, sharing=found.sharing)
    t = transformed(alone.moments.t(0.0), alone.moments.skewness)
    tail = stats.t.sf if side == "greater" else stats.t.cdf
    return np.where(alone.moments.alike, np.nan, tail(t, alone.moments.freedom))[()]


def pairs_to_decide(
    found: Contrast, region: Region, alpha: float, alpha_refuted: float | None = None
) -> int | None:
    """Clusters at which the same means, spreads and skewness would give a verdict; None if never.

    Inside the region every edge must pass its one-sided test at alpha; outside, one edge must
    pass the reverse test at alpha_refuted / 2 (left out: alpha / 2). It is the number for the
    observed means, no power is added. Where clusters are all alike, so many must be.
    """
    reverse = (alpha if alpha_refuted is None else alpha_refuted) / 2
    is_d = found.of == "standardized"
    estimate = float(standardized.uncorrected(found.effect) if is_d else found.estimate)
    inside = estimate in region
    level = alpha if inside else reverse
    needs = []
    for edge, side in region.edges:
        sign = 1 if side == "greater" else -1
        if not (inside or sign * (estimate - edge) < 0):
            continue
        shown: Side = "greater" if (sign if inside else -sign) > 0 else "less"
        if is_d:
            needs.append(standardized.clusters_to_show(estimate, edge, shown, level))
        else:
            needs.append(_clusters_to_show(found, edge, shown, level))
    if not needs or None in needs:
        return None
    known = [n for n in needs if n is not None]
    return max(known) if inside else min(known)


def _clusters_to_show(found: Contrast, edge: float, side: Side, level: float) -> int | None:
    """The fewest clusters at which the mean of a contrast is shown on a side of an edge."""
    of, sign = found.moments, 1.0 if side == "greater" else -1.0
    need = _smallest_n(
        float(sign * of.t(edge)),
        float(sign * of.skewness),
        of.clusters,
        1 - level,
        1.0 if found.is_gate else MOST_SKEWED,
    )
    if need is None or not alike(found):
        return need
    unseen = clusters_for(abs(float(found.estimate) - edge) / float(found.most), level)
    return None if unseen is None else max(need, unseen)


def _smallest_n(
    t: float, skewness: float, clusters: int, level: float, most_skewed: float
) -> int | None:
    """The smallest n at which a mean with this t and skewness in so many clusters is above 0."""

    def passes(n: int) -> bool:
        more = (n / clusters) ** 0.5
        if abs(skewness) / more > most_skewed:
            return False
        least = untransformed(stats.t.ppf(level, n - 1), np.array(skewness / more))
        return bool(t * more > least)

    return fewest(passes, 1, _MOST_PAIRS) if t > 0 else None
