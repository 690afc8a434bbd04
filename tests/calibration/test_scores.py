"""Skewed counts: marginals met exactly, tied together as they say, and a truth that they have."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from scipy import stats

from kv_claims.calibration.scores import (
    BASE,
    PATCHED,
    SOURCE,
    WEAK_SOURCE,
    Counts,
    Crossing,
    ScoreStudies,
    arms,
    at_transfer,
)
from kv_claims.errors import UsageError
from kv_claims.tasks.scorers import Lexicon
from kv_claims.tasks.task import Prompt, Task

LAWS = [BASE, SOURCE, *PATCHED.values(), WEAK_SOURCE, at_transfer(0.1), at_transfer(-0.1)]


@pytest.mark.parametrize("law", LAWS, ids=str)
@pytest.mark.parametrize("zero_part", [0.0, 0.5, 1.0])
def test_a_law_has_its_mean_and_sd(law: Counts, zero_part: float) -> None:
    law = Counts(law.mean, law.sd, zero_part)
    chances = law.chances()
    count = np.arange(len(chances))
    assert chances.min() >= 0
    assert chances.sum() == pytest.approx(1, abs=1e-12)
    assert chances @ count == pytest.approx(law.mean, abs=1e-9)
    assert chances @ (count - law.mean) ** 2 == pytest.approx(law.sd**2, abs=1e-8)


def test_more_inflation_makes_more_zeros_up_to_its_bound() -> None:
    zeros = [Counts(2.6, 2.7, part).chances()[0] for part in (0.0, 0.3, 0.6, 1.0)]
    assert all(few < many for few, many in pairwise(zeros))
    assert Counts(2.6, 2.7, 0.0).inflation == 0
    bound = Counts(2.6, 2.7, 1.0)
    assert bound.inverse_size == pytest.approx(0, abs=1e-12)
    excess = (2.7**2 - 2.6) / 2.6**2
    assert bound.inflation == pytest.approx(excess / (1 + excess))


def test_without_excess_a_law_is_poisson() -> None:
    law = Counts(3.0, 3.0**0.5, 0.7)
    assert law.inflation == pytest.approx(0, abs=1e-12)
    chances = law.chances()
    np.testing.assert_allclose(chances, stats.poisson(3).pmf(np.arange(len(chances))), atol=1e-12)


def test_laws_that_do_not_exist_are_refused() -> None:
    with pytest.raises(UsageError, match="mean above 0"):
        Counts(0.0, 1.0)
    with pytest.raises(UsageError, match="sd of at least 2"):
        Counts(4.0, 1.9)
    with pytest.raises(UsageError, match="zero_part"):
        Counts(4.0, 3.0, 1.5)
    with pytest.raises(UsageError, match="mean above 0"):
        at_transfer(-0.2)
    with pytest.raises(UsageError, match="variance"):
        at_transfer(-0.4)


def test_arms_of_a_transfer_have_that_transfer() -> None:
    found = arms(0.7, unrelated_base=0.0, noise=0.05, wrong_layer=1.0, versus=PATCHED[0.35])
    assert list(found) == [
        "base",
        "source",
        "patched",
        "unrelated-base",
        "noise",
        "wrong-layer",
        "versus",
    ]
    truth = ScoreStudies(found).truth
    unit = truth["source"] - truth["base"]
    for role, transfer in (("patched", 0.7), ("unrelated-base", 0.0), ("noise", 0.05)):
        assert (truth[role] - truth["base"]) / unit == pytest.approx(transfer)
    assert (found["wrong-layer"], found["versus"]) == (SOURCE, Counts(2.6, 2.7))
    assert (2.6 - 0.8) / unit == pytest.approx(0.346, abs=5e-4)
    weak = ScoreStudies(arms(0.6, source=WEAK_SOURCE)).truth
    assert weak["source"] - weak["base"] == pytest.approx(1.4)


def by_quadrature(first: Counts, second: Counts, latent: float) -> float:
    """Correlation of two counts, from their latent correlation, with nothing drawn."""

    def mean_given(law: Counts, at: np.ndarray) -> np.ndarray:
        # E(count | shared part) = sum over k of P(latent > edge k | shared part).
        edges = stats.norm.isf(1 - np.cumsum(law.chances())[:-1])
        edges = edges[np.isfinite(edges)]
        spread = (1 - latent) ** 0.5
        return stats.norm.sf((edges[:, None] - latent**0.5 * at) / spread).sum(0)

    nodes, weights = np.polynomial.hermite_e.hermegauss(200)
    weights = weights / weights.sum()
    product = weights @ (mean_given(first, nodes) * mean_given(second, nodes))
    return float((product - first.mean * second.mean) / (first.sd * second.sd))


@pytest.mark.parametrize("icc", [0.2, 0.5])
def test_scores_are_tied_together_as_said(icc: float) -> None:
    """Marginals, seeds of a pair, arms of a pair, and pairs, which share nothing."""
    studies = ScoreStudies(arms(PATCHED[0.8]), icc)
    drawn = studies.draw(np.random.default_rng(1), 4000, 10, 2)
    n = 40_000
    for role, law in studies.arms.items():
        scores = drawn[role]
        assert scores.shape == (4000, 10, 2)
        assert abs(scores.mean() - law.mean) < 4 * law.sd / n**0.5
        assert scores.std() == pytest.approx(law.sd, rel=0.03)
        seeds = correlation(scores[..., 0], scores[..., 1])
        assert abs(seeds - by_quadrature(law, law, icc)) < 0.03
        assert abs(correlation(scores[:, 0], scores[:, 1])) < 0.03
    for first, second in (("base", "source"), ("source", "patched")):
        between = correlation(drawn[first][..., 0], drawn[second][..., 0])
        wanted = by_quadrature(studies.arms[first], studies.arms[second], icc / 2)
        assert abs(between - wanted) < 0.03
        other = correlation(drawn[first][..., 0], drawn[second][..., 1])
        assert abs(other - wanted) < 0.03


def correlation(first: np.ndarray, second: np.ndarray) -> float:
    return float(np.corrcoef(first.ravel(), second.ravel())[0, 1])


def test_the_observed_icc_is_that_of_the_earlier_simulation() -> None:
    found = [by_quadrature(law, law, icc) for icc in (0.2, 0.5) for law in LAWS[:4]]
    low, high = found[:4], found[4:]
    assert min(low) == pytest.approx(0.13, abs=0.01)
    assert max(low) == pytest.approx(0.20, abs=0.01)
    assert min(high) == pytest.approx(0.39, abs=0.01)
    assert max(high) == pytest.approx(0.49, abs=0.01)


CROSSED = ScoreStudies(arms(PATCHED[0.8]), 0.1, crossing=Crossing(13, 20, 0.3, 0.2))


def test_crossed_pairs_share_what_their_prompts_bring() -> None:
    drawn = CROSSED.draw(np.random.default_rng(2), 2000, 60, 1)
    source, base = CROSSED.prompts(60)
    scores = drawn["source"][..., 0]
    # Pairs 0 and 13 share a source, 0 and 20 a base, 0 and 1 nothing.
    assert source[13] == source[0] != source[20]
    assert base[20] == base[0] != base[13]
    for other, share in ((13, 0.3), (20, 0.2), (1, 0.0)):
        found = np.mean([correlation(scores[:, i], scores[:, i + other]) for i in range(13)])
        assert abs(found - by_quadrature(SOURCE, SOURCE, share)) < 0.04, other


@pytest.mark.parametrize("crossing", [Crossing(), Crossing(13, 20)])
def test_crossed_scores_have_their_truth_and_more_spread_than_pairs_tell(
    crossing: Crossing,
) -> None:
    """Means of all roles are the truth; the spread of a contrast is not that of its pairs."""
    studies = ScoreStudies(arms(PATCHED[0.8]), 0.1, crossing=crossing)
    pairs = 300 if crossing == Crossing() else 60
    drawn = studies.draw(np.random.default_rng(3), 1500, pairs, 1)
    for role, scores in drawn.items():
        of_study = scores.mean((1, 2))
        error = of_study.std(ddof=1) / len(of_study) ** 0.5
        assert abs(of_study.mean() - studies.truth[role]) < 4 * error
    unit = drawn["source"] - drawn["base"]
    truth = studies.truth
    transfer = (truth["patched"] - truth["base"]) / (truth["source"] - truth["base"])
    contrast = (drawn["patched"] - drawn["base"] - transfer * unit)[..., 0]
    assert abs(contrast.mean()) < 4 * contrast.mean(1).std() / len(contrast) ** 0.5
    told = (contrast.var(1, ddof=1) / pairs).mean()
    assert contrast.mean(1).var() > 1.5 * told


def test_pairs_are_crossed_as_those_of_a_task() -> None:
    def prompts(side: str, n: int) -> tuple[Prompt, ...]:
        return tuple(Prompt(f"{side}{i}", f"{side}{i}", f"{side} {i}") for i in range(n))

    task = Task(
        "crossed",
        "",
        prompts("source", 6),
        prompts("base", 4),
        "crossed",
        Lexicon(frozenset({"echo"})),
        frozenset({"echo"}),
    )
    studies = ScoreStudies(arms(0.5), 0.1, crossing=Crossing(6, 4, 0.1, 0.1))
    found = studies.prompts(24)
    assert [task.sources.index(pair.source) for pair in task.pairs] == found.source.tolist()
    assert [task.bases.index(pair.base) for pair in task.pairs] == found.base.tolist()
    with pytest.raises(UsageError, match="25 pairs"):
        studies.prompts(25)
    of_its_own = ScoreStudies(arms(0.5)).prompts(3)
    assert of_its_own.source.tolist() == of_its_own.base.tolist() == [0, 1, 2]


def test_equal_generators_give_equal_scores() -> None:
    first, second, other = (
        CROSSED.draw(np.random.default_rng(seed), 5, 60, 2) for seed in (1, 1, 2)
    )
    for role, scores in first.items():
        np.testing.assert_array_equal(scores, second[role])
        assert not np.array_equal(scores, other[role])


def test_studies_that_do_not_exist_are_refused() -> None:
    with pytest.raises(UsageError, match="no base"):
        ScoreStudies({"source": SOURCE})
    with pytest.raises(UsageError, match="a sum of 1"):
        ScoreStudies(arms(0.5), 0.7, crossing=Crossing())
    with pytest.raises(UsageError, match="none below 0"):
        ScoreStudies(arms(0.5), -0.1)
    with pytest.raises(UsageError, match="arm_correlation"):
        ScoreStudies(arms(0.5), arm_correlation=1.2)
    with pytest.raises(UsageError, match="at least one source"):
        ScoreStudies(arms(0.5), 0.1, crossing=Crossing(0, 4))
    with pytest.raises(UsageError, match="0 studies"):
        ScoreStudies(arms(0.5)).draw(np.random.default_rng(0), 0, 3, 1)
