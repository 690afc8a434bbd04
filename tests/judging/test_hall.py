"""Hall's transformation of t: monotone, its inverse, and t itself where nothing is skewed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from kv_claims.judging.hall import (
    MOST_SKEWED,
    transformed,
    unsafe_above,
    unsafe_below,
    untransformed,
)

SKEWNESS = st.floats(-1, 1)
T = st.floats(-200, 200)


@given(value=T, skewness=SKEWNESS)
def test_each_is_the_inverse_of_the_other(value: float, skewness: float) -> None:
    there = untransformed(np.array(value), np.array(skewness))
    assert transformed(there, np.array(skewness)) == pytest.approx(value, rel=1e-6, abs=1e-6)


@given(one=T, other=T, skewness=SKEWNESS)
def test_it_grows_with_t(one: float, other: float, skewness: float) -> None:
    low, high = sorted((one, other))
    found = transformed(np.array([low, high]), np.array(skewness))
    assert found[0] <= found[1] + 1e-9 * np.abs(found).max()


@given(t=T, skewness=SKEWNESS)
def test_turned_about_0_both_turn(t: float, skewness: float) -> None:
    turned = transformed(np.array(-t), np.array(-skewness))
    assert turned == pytest.approx(-transformed(np.array(t), np.array(skewness)), rel=1e-9)


@given(t=T)
def test_without_skewness_it_is_t(t: float) -> None:
    assert transformed(np.array(t), np.array(0.0)) == t
    assert untransformed(t, np.array(0.0)) == pytest.approx(t)


def test_where_nothing_varies_it_is_as_clear_as_t() -> None:
    found = transformed(np.array([np.inf, -np.inf]), np.array(0.3))
    assert stats.t.sf(found, 9).tolist() == pytest.approx([0.0, 1.0])


@pytest.mark.parametrize("sign", [1, -1])
def test_of_skewed_numbers_its_law_is_nearer_to_students(sign: int) -> None:
    """Means of 30 exponential numbers, by 20,000 draws: both tails at 5%."""
    drawn = sign * (np.random.default_rng(8).exponential(1, (20_000, 30)) - 1)
    t = stats.ttest_1samp(drawn, 0.0, axis=-1).statistic
    hall = transformed(t, stats.skew(drawn, axis=-1) / 30**0.5)
    edge = stats.t.ppf(0.95, 29)
    by_t, by_hall = (np.array([np.mean(v > edge), np.mean(v < -edge)]) for v in (t, hall))
    assert (np.abs(by_hall - 0.05) < 0.5 * np.abs(by_t - 0.05)).all()


def test_beyond_the_limit_the_side_away_from_the_tail_is_unsafe() -> None:
    skewness = np.array([-0.41, -MOST_SKEWED, 0.0, MOST_SKEWED, 0.41])
    assert unsafe_above(skewness).tolist() == [True, False, False, False, False]
    assert unsafe_below(skewness).tolist() == [False, False, False, False, True]
