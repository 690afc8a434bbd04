"""Fieller's interval against cases whose answer is known without it; nothing here is skewed.

Waves of odd numbers are as large above their mean as below it, whatever they are added to. What
skewness does is in `tests/properties/test_fieller_properties.py`.
"""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from kv_claims.judging import fieller as module
from kv_claims.judging.fieller import Floats, Interval
from tests.judging.frames import Study, contrast_of, fieller, t_quantile, wave

LEVELS = (0.90, 0.95)


def weakness(gap: Floats, level: float) -> float:
    return float(module.weakness(contrast_of(gap, gap).moments, level))


def gap_with(t: float, n: int = 20) -> Floats:
    """A gap of mean 1 whose own t statistic is `t`."""
    return 1 + wave(1, n) * n**0.5 / t


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("n", [3, 10, 40])
def test_a_gap_that_does_not_vary_gives_students_interval_of_the_mean(n: int, level: float) -> None:
    effect = 2 + 0.7 * wave(1, n)
    found = fieller(effect, np.full(n, 4.0), level)
    wanted = stats.ttest_1samp(effect / 4.0, 0.0).confidence_interval(level)
    assert found == pytest.approx((wanted.low, wanted.high), rel=1e-12)


@pytest.mark.parametrize("level", LEVELS)
def test_the_ends_are_where_a_t_test_has_p_equal_to_one_minus_level(level: float) -> None:
    study = Study(transfer=0.8, noise=2.0, n=12)
    interval = fieller(study.effects, study.differences, level)
    assert interval is not None
    for end in interval:
        p = stats.ttest_1samp(study.effects - end * study.differences, 0.0).pvalue
        assert p == pytest.approx(1 - level, rel=1e-9)


def test_the_ends_follow_the_closed_form_for_a_gap_and_a_noise_that_are_orthogonal() -> None:
    """With v_AD = T v_DD the quadratic is solved by hand: T +- t se / D sqrt((1 - g)...)."""
    study = Study(transfer=0.5, noise=1.2, n=25)
    t = t_quantile(0.975, 25)
    v_dd, v_ww = study.gap_spread**2 / 25, study.noise**2 / 25
    interval = fieller(study.effects, study.differences, 0.95)
    # (T - T0)^2 (D^2 - t^2 v_DD) <= t^2 v_ww, T0 the estimate: the noise alone widens it.
    half = t * (v_ww / (study.gap**2 - t**2 * v_dd)) ** 0.5
    assert interval == pytest.approx((0.5 - half, 0.5 + half), rel=1e-9)


def test_an_effect_that_is_a_multiple_of_the_gap_leaves_one_point() -> None:
    gap = Study(transfer=0).differences
    interval = fieller(0.35 * gap, gap, 0.95)
    assert interval == pytest.approx((0.35, 0.35), abs=1e-6)


def test_pairing_counts_an_effect_that_moves_with_the_gap_gives_a_narrower_interval() -> None:
    gap = 6 + 1.5 * wave(1, 20)
    with_it = fieller(3 + 0.75 * wave(1, 20) + 0.1 * wave(3, 20), gap, 0.95)
    against = fieller(3 - 0.75 * wave(1, 20) + 0.1 * wave(3, 20), gap, 0.95)
    assert with_it is not None
    assert against is not None
    assert with_it.high - with_it.low < 0.2 * (against.high - against.low)


def test_the_interval_at_90_lies_inside_the_one_at_95() -> None:
    study = Study(transfer=0.8, noise=2.0, n=12)
    inner = fieller(study.effects, study.differences, 0.90)
    outer = fieller(study.effects, study.differences, 0.95)
    assert inner is not None
    assert outer is not None
    assert outer.low < inner.low < inner.high < outer.high


@pytest.mark.parametrize("sign", [1, -1], ids=["source-above", "source-below"])
@pytest.mark.parametrize("level", LEVELS)
def test_it_is_unbounded_exactly_where_the_gap_itself_is_not_significant(
    level: float, sign: int
) -> None:
    limit = t_quantile((1 + level) / 2, 20)
    effect = 0.5 + wave(3, 20)
    for t, bounded in ((limit * 1.001, True), (limit * 0.999, False)):
        gap = sign * gap_with(t)
        interval = fieller(effect, gap, level)
        assert (interval is not None) is bounded
        assert bool(weakness(gap, level) < 1) is bounded
        assert interval is None or interval.low < sign * 0.5 < interval.high


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("t", [0.5, 3.0, 30.0])
def test_weakness_is_the_square_of_the_quantile_over_the_gaps_t(t: float, level: float) -> None:
    wanted = (t_quantile((1 + level) / 2, 20) / t) ** 2
    assert weakness(gap_with(t), level) == pytest.approx(wanted, rel=1e-9)


def test_weakness_without_a_gap_is_infinite_and_without_spread_zero() -> None:
    assert weakness(np.array([-1.0, 1.0] * 6), 0.95) == float("inf")
    assert weakness(np.full(12, 3.0), 0.95) == 0.0


@pytest.mark.parametrize(
    ("low", "high", "disjoint"),
    [
        pytest.param(0.5, 0.6, True, id="above"),
        pytest.param(-1.0, 0.1, True, id="below"),
        pytest.param(0.4, 0.6, False, id="touches-the-upper-end"),
        pytest.param(0.0, 0.2, False, id="touches-the-lower-end"),
        pytest.param(0.25, 0.3, False, id="within"),
        pytest.param(0.0, 1.0, False, id="around"),
        pytest.param(-float("inf"), 0.12, True, id="open-below"),
        pytest.param(0.3, float("inf"), False, id="open-above"),
    ],
)
def test_disjoint(low: float, high: float, disjoint: bool) -> None:
    assert Interval(0.2, 0.4).disjoint(low, high) is disjoint
