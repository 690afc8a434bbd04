"""AUROC by placements: it is the count over all pairs, and its spread that of DeLong's."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from kv_claims.claims.claim import Region
from kv_claims.judging.decide import decide
from kv_claims.judging.ranks import placements
from kv_claims.judging.rule import Rule

SCORES = st.integers(10, 30).flatmap(
    lambda n: st.tuples(*2 * [st.lists(st.integers(-4, 4), min_size=n, max_size=n)])
)


@given(scores=SCORES)
def test_the_mean_is_the_share_of_pairs_in_which_the_first_lies_above(
    scores: tuple[list[int], list[int]],
) -> None:
    first, second = (np.array(some, dtype=float) for some in scores)
    above = np.mean(
        (first[:, None] > second) + 0.5 * (first[:, None] == second),
    )
    assert np.mean(placements(first, second)) == pytest.approx(above)
    assert np.mean(placements(second, first)) == pytest.approx(1 - above)


def test_its_standard_error_is_right_for_paired_scores() -> None:
    luck = np.random.default_rng(1)
    shared = luck.normal(0, 1, (3000, 40))
    first, second = (shared + luck.normal(move, 1, shared.shape) for move in (0.7, 0.0))
    found = placements(first, second)
    area = found.mean(-1)
    told = np.std(found, -1, ddof=1) / np.sqrt(40)
    assert np.mean(told) == pytest.approx(np.std(area), rel=0.04)


def test_the_rule_errs_at_its_rate_where_the_truth_is_on_the_edge() -> None:
    luck = np.random.default_rng(5)
    shared = luck.normal(0, 1, (3000, 40))
    first, second = (shared + luck.normal(move, 1, shared.shape) for move in (0.5, 0.0))
    truth = stats.norm.cdf(0.5 / 2)  # of two scores of unlike pairs, each of variance 2
    scores = {"source": first, "base": second}
    for region in (Region(low=truth), Region(high=truth)):
        found = decide(scores, Rule(region, "auroc"))
        assert found.has_word("supported").mean() < 0.065
        assert found.has_word("refuted").mean() < 0.035
