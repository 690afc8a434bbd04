"""Laws of Fieller's interval, for random paired data."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats

from kv_claims.claims.claim import Region
from kv_claims.judging.contrast import edge_tests
from kv_claims.judging.estimand import Contrast
from kv_claims.judging.fieller import Floats, Interval, fieller, weakness

laws = settings(deadline=None, max_examples=100, derandomize=True)
levels = st.sampled_from([0.80, 0.90, 0.95, 0.99])
factors = st.floats(1e-3, 1e3)


class Data(NamedTuple):
    effect: Floats
    gap: Floats


@st.composite
def paired(draw: st.DrawFn) -> Data:
    """Effect and gap of 3 to 60 clusters, with any correlation between the two."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n = draw(st.integers(3, 60))
    own, shared, transfer = (draw(st.floats(-2, 2)) for _ in range(3))
    gap = draw(st.floats(-5, 5)) + rng.normal(0, 1, n)
    effect = transfer * gap + own + shared * (gap - gap.mean()) + rng.normal(0, 0.5, n)
    return Data(effect, gap)


def interval_of(data: Data, level: float) -> Interval:
    """The interval, where the gap is large enough for one; near g = 1 its ends go to infinity."""
    assume(weakness(data.gap, level) < 0.999)
    interval = fieller(*data, level)
    assert interval is not None
    return interval


@laws
@given(paired(), levels)
def test_at_both_ends_a_two_sided_t_test_has_p_equal_to_alpha(data: Data, level: float) -> None:
    for end in interval_of(data, level):
        p = stats.ttest_1samp(data.effect - end * data.gap, 0.0).pvalue
        assert p == pytest.approx(1 - level, rel=1e-6)


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
        p = stats.ttest_1samp(data.effect - transfer * data.gap, 0.0).pvalue
        assert bool(p > 1 - level) is inside


@laws
@given(paired(), levels)
def test_the_interval_holds_the_ratio_of_means(data: Data, level: float) -> None:
    low, high = interval_of(data, level)
    assert low <= np.mean(data.effect) / np.mean(data.gap) <= high


@laws
@given(paired(), levels)
def test_it_is_bounded_exactly_where_g_is_below_1(data: Data, level: float) -> None:
    g = weakness(data.gap, level)
    assume(abs(g - 1) > 1e-9)
    assert (fieller(*data, level) is not None) is bool(g < 1)
    # ... which is where the gap itself differs from 0 at that level.
    assert bool(stats.ttest_1samp(data.gap, 0.0).pvalue < 1 - level) is bool(g < 1)


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
    """Supported iff the 90% interval is inside the region; refuted iff the 95% is outside."""
    assume(data.gap.mean() > 0)
    at_90, at_95 = interval_of(data, 0.90), interval_of(data, 0.95)
    region = Region(low, low + width)
    # An end that all but lies on an edge may fall on either side by rounding.
    assume(min(abs(e - end) for e, _ in region.edges for end in (*at_90, *at_95)) > 1e-9)
    size = abs(data.effect) + abs(data.gap)
    tests = edge_tests(Contrast(*data, size), region)
    assert bool(tests.p_supported <= 0.05) is (region.low < at_90.low and at_90.high < region.high)
    assert bool(tests.p_refuted <= 0.05) is at_95.disjoint(region.low, region.high)
