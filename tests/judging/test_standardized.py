"""Paired d: its tests are those of the noncentral t, and an interval ends where a test does."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from kv_claims.claims.claim import Region
from kv_claims.judging.contrast import pairs_to_decide
from kv_claims.judging.decide import decide
from kv_claims.judging.estimand import Contrast
from kv_claims.judging.rule import Rule
from kv_claims.judging.standardized import (
    correction,
    ends,
    estimate,
    one_sided,
    t_of,
)

DIFFERENCES = st.lists(st.integers(-50, 50), min_size=10, max_size=40).filter(
    lambda some: len(set(some)) > 1
)


@given(differences=DIFFERENCES)
def test_at_zero_it_is_the_usual_t_test(differences: list[int]) -> None:
    found = np.array(differences, dtype=float)
    for side in ("greater", "less"):
        wanted = stats.ttest_1samp(found, 0.0, alternative=side).pvalue
        assert one_sided(found, 0.0, side) == pytest.approx(wanted, abs=1e-9)


@given(differences=DIFFERENCES, level=st.sampled_from([0.9, 0.95, 0.99]))
def test_an_end_is_where_the_test_has_its_error(differences: list[int], level: float) -> None:
    found = np.array(differences, dtype=float)
    low, high = ends(found, level)
    assert low < estimate(found) / correction(len(found)) < high
    for end, side in ((low, "greater"), (high, "less")):
        assert one_sided(found, float(end), side) == pytest.approx((1 - level) / 2, abs=1e-6)


@given(differences=DIFFERENCES, scale=st.floats(0.01, 100))
def test_the_unit_of_the_scores_does_not_matter(differences: list[int], scale: float) -> None:
    found = np.array(differences, dtype=float)
    assert estimate(found * scale) == pytest.approx(estimate(found))


def test_the_correction_takes_the_bias_out_and_intervals_cover() -> None:
    draws = np.random.default_rng(0).normal(0.8, 1.0, (4000, 20))
    assert np.mean(estimate(draws)) == pytest.approx(0.8, abs=0.02)
    assert correction(20) == pytest.approx(1 - 3 / (4 * 19 - 1), abs=1e-3)
    low, high = ends(draws, 0.95)
    assert np.mean((low < 0.8) & (high > 0.8)) == pytest.approx(0.95, abs=0.012)


def test_what_does_not_vary_has_no_d() -> None:
    same = np.full(12, 3.0)
    assert np.isnan(ends(same, 0.95)[0])
    assert np.isnan(one_sided(same, 0.0, "greater"))


def test_so_many_clusters_of_one_d_decide() -> None:
    """At that number the test passes, with one fewer it does not."""
    effect = np.random.default_rng(3).normal(0.6, 1.0, 15)
    d = t_of(effect) / np.sqrt(15)
    found = Contrast(effect, np.ones(15), np.abs(effect), of="standardized")
    for region in (Region(low=0.1), Region(low=-2.0, high=0.9), Region(low=1.1)):
        needed = pairs_to_decide(found, region, 0.05)
        assert needed is not None
        shown = []
        for n in (needed - 1, needed):
            alike = stats.norm.ppf((np.arange(n) + 0.5) / n)
            alike = alike / alike.std(ddof=1) + d
            inside = max(one_sided(alike, edge, side) for edge, side in region.edges)
            out = {"greater": "less", "less": "greater"}
            outside = min(one_sided(alike, edge, out[side]) for edge, side in region.edges)
            shown.append(bool(inside <= 0.05 if d in region else outside <= 0.025))
        assert shown == [False, True]


def test_the_rule_errs_at_its_rate_where_the_truth_is_on_the_edge() -> None:
    luck = np.random.default_rng(4)
    base = luck.normal(0, 1, (3000, 24))
    scores = {"base": base, "patched": base + luck.normal(0.8, 1.0, base.shape)}
    for region, side in ((Region(low=0.8), "supported"), (Region(high=0.8), "supported")):
        found = decide(scores, Rule(region, "effect_size", margin=0.5))
        assert found.has_word(side).mean() == pytest.approx(0.05, abs=0.012)
        assert found.has_word("refuted").mean() == pytest.approx(0.025, abs=0.009)
