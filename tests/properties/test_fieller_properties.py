"""Laws of Fieller's interval, for random paired data, skewed or not.

Its test is Hall's: scipy's t statistic of effect - e * gap, with the skewness of the mean at the
estimate taken out by his formula, in Student's law.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats

from kv_claims.claims.claim import Region
from kv_claims.judging import fieller as module
from kv_claims.judging.contrast import edge_tests, interval, too_few_carry
from kv_claims.judging.estimand import Contrast
from kv_claims.judging.fieller import Floats, Interval, ends

laws = settings(deadline=None, max_examples=100, derandomize=True)
levels = st.sampled_from([0.80, 0.90, 0.95, 0.99])
factors = st.floats(1e-3, 1e3)


class Data(NamedTuple):
    effect: Floats
    gap: Floats

    @property
    def found(self) -> Contrast:
        return Contrast(*self, abs(self.effect) + abs(self.gap))

    @property
    def skewness(self) -> float:
        """Of the mean of effect - estimate * gap, by scipy; gaps are read upwards."""
        off = self.effect - self.effect.mean() / self.gap.mean() * self.gap
        sign = np.sign(self.gap.mean())
        return float(sign * stats.skew(off) / len(off) ** 0.5)

    def p(self, edge: float) -> float:
        """Two-sided p that the ratio is not `edge`."""
        sign = np.sign(self.gap.mean())
        t = stats.ttest_1samp(sign * (self.effect - edge * self.gap), 0.0).statistic
        c = self.skewness
        hall = t + c * t**2 / 3 + c**2 * t**3 / 27 + c / 6
        return float(2 * stats.t.sf(abs(hall), len(self.gap) - 1))


def fieller(effect: Floats, gap: Floats, level: float) -> Interval | None:
    low, high = ends(Data(effect, gap).found.moments, level)
    return None if np.isnan(low) else Interval(float(low), float(high))


def weakness(gap: Floats, level: float) -> float:
    return float(module.weakness(Data(gap, gap).found.moments, level))


@st.composite
def paired(draw: st.DrawFn) -> Data:
    """Effect and gap of 3 to 60 clusters, with any correlation between the two, some skewed."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n = draw(st.integers(3, 60))
    own, shared, transfer = (draw(st.floats(-2, 2)) for _ in range(3))
    gap = draw(st.floats(-5, 5)) + rng.normal(0, 1, n)
    noise = rng.normal(0, 0.5, n) + draw(st.sampled_from([-0.7, 0, 0, 0.7])) * rng.exponential(1, n)
    effect = transfer * gap + own + shared * (gap - gap.mean()) + noise
    return Data(effect, gap)


def interval_of(data: Data, level: float) -> Interval:
    """The interval, where the gap is large enough for one; near g = 1 its ends go to infinity."""
    assume(abs(data.gap.mean()) > 0.01)
    interval = fieller(*data, level)
    assume(interval is not None)
    assert interval is not None
    # Where the clearest test of all all but reaches the level, ends lie where digits are lost.
    assume(max(abs(interval.low), abs(interval.high)) < 1e3)
    return interval


@laws
@given(paired(), levels)
def test_at_both_ends_a_two_sided_test_has_p_equal_to_alpha(data: Data, level: float) -> None:
    for end in interval_of(data, level):
        assert data.p(end) == pytest.approx(1 - level, rel=1e-6)


@laws
@given(paired(), levels, st.floats(0.01, 0.99))
def test_p_is_above_alpha_inside_and_below_it_outside(
    data: Data, level: float, share: float
) -> None:
    low, high = interval_of(data, level)
    width = high - low
    for transfer, inside in (
        (low + share * width, True),
        (low - share * width, False),
        (high + share * width, False),
    ):
        assert bool(data.p(transfer) > 1 - level) is inside


@laws
@given(paired(), levels)
def test_the_interval_holds_the_ratio_of_means(data: Data, level: float) -> None:
    low, high = interval_of(data, level)
    assert low <= np.mean(data.effect) / np.mean(data.gap) <= high


@laws
@given(paired(), levels)
def test_without_skewness_it_is_bounded_exactly_where_g_is_below_1(
    data: Data, level: float
) -> None:
    g = weakness(data.gap, level)
    assume(abs(g - 1) > 1e-9)
    # Every cluster once as it is, once turned about the ratio of means: of no skewness.
    turned = 2 * data.effect.mean() / data.gap.mean() * data.gap - data.effect
    twice = Data(np.append(data.effect, turned), np.append(data.gap, data.gap))
    g = weakness(twice.gap, level)
    assume(abs(g - 1) > 1e-9)
    assert (fieller(*twice, level) is not None) is bool(g < 1)
    # ... which is where the gap itself differs from 0 at that level.
    assert bool(stats.ttest_1samp(twice.gap, 0.0).pvalue < 1 - level) is bool(g < 1)


@laws
@given(paired(), levels, factors)
def test_the_unit_of_the_score_cancels(data: Data, level: float, factor: float) -> None:
    interval = interval_of(data, level)
    scaled = fieller(factor * data.effect, factor * data.gap, level)
    assert scaled == pytest.approx(interval, rel=1e-7, abs=1e-9)
    assert weakness(factor * data.gap, level) == pytest.approx(weakness(data.gap, level))


@laws
@given(paired(), levels, factors)
def test_an_effect_so_many_times_as_large_has_an_interval_so_many_times_as_large(
    data: Data, level: float, factor: float
) -> None:
    low, high = interval_of(data, level)
    scaled = fieller(factor * data.effect, data.gap, level)
    assert scaled == pytest.approx((factor * low, factor * high), rel=1e-7, abs=1e-9 * factor)


@laws
@given(paired(), levels, st.floats(-3, 3))
def test_gaps_added_to_the_effect_move_the_interval(data: Data, level: float, shift: float) -> None:
    low, high = interval_of(data, level)
    moved = fieller(data.effect + shift * data.gap, data.gap, level)
    size = 1 + abs(low) + abs(high)
    assert moved == pytest.approx((low + shift, high + shift), abs=1e-7 * size)


@laws
@given(paired(), levels)
def test_a_change_of_sign_turns_the_interval_and_of_both_leaves_it(
    data: Data, level: float
) -> None:
    low, high = interval_of(data, level)
    turned = pytest.approx((-high, -low), rel=1e-9)
    assert fieller(-data.effect, data.gap, level) == turned
    assert fieller(data.effect, -data.gap, level) == turned
    assert fieller(-data.effect, -data.gap, level) == pytest.approx((low, high), rel=1e-9)


@laws
@given(paired(), levels, st.randoms(use_true_random=False))
def test_the_order_of_clusters_does_not_matter(data: Data, level: float, random: object) -> None:
    interval = interval_of(data, level)
    order = list(range(len(data.gap)))
    random.shuffle(order)  # type: ignore[attr-defined]
    shuffled = fieller(data.effect[order], data.gap[order], level)
    assert shuffled == pytest.approx(interval, rel=1e-6, abs=1e-9)


@laws
@given(paired(), st.floats(-3, 3), st.floats(0.01, 3))
def test_tests_at_the_edges_agree_with_the_intervals(data: Data, low: float, width: float) -> None:
    """Supported iff the 90% interval is inside the region; refuted iff the 95% is outside.

    Where too few clusters carry the effect there is no interval, and no p below 1.
    """
    assume(data.gap.mean() > 0.01)
    region = Region(low, low + width)
    tests = edge_tests(data.found, region)
    few = bool(too_few_carry(data.found))
    assert few is (abs(data.skewness) > 0.4)
    if few:
        assert interval(data.found, 0.9) is interval(data.found, 0.95) is None
        assert (tests.p_supported, tests.p_refuted) == (1.0, 1.0)
        return
    at_90, at_95 = interval_of(data, 0.90), interval_of(data, 0.95)
    assert (at_90, at_95) == (interval(data.found, 0.90), interval(data.found, 0.95))
    # An end that all but lies on an edge may fall on either side by rounding.
    assume(min(abs(e - end) for e, _ in region.edges for end in (*at_90, *at_95)) > 1e-9)
    assert bool(tests.p_supported <= 0.05) is (region.low < at_90.low and at_90.high < region.high)
    assert bool(tests.p_refuted <= 0.05) is at_95.disjoint(region.low, region.high)


def test_without_skewness_it_is_fiellers_own() -> None:
    """Of the quadratic as he wrote it, by numpy's roots."""
    rng = np.random.default_rng(3)
    gap, noise = rng.normal(5, 1, 20), rng.normal(0, 1, 20)
    effect = np.append(0.4 * gap + noise, 0.4 * gap - noise)
    gap = np.append(gap, gap)
    v = np.cov(effect, gap) / 40
    t2 = stats.t.ppf(0.975, 39) ** 2
    a, d = effect.mean(), gap.mean()
    roots = np.roots([d * d - t2 * v[1, 1], -2 * (a * d - t2 * v[0, 1]), a * a - t2 * v[0, 0]])
    assert fieller(effect, gap, 0.95) == pytest.approx(sorted(roots), rel=1e-9)
