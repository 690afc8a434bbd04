"""Planning: the power it states, against the noncentral t, and against fresh studies."""

from __future__ import annotations

from functools import cache
from math import sqrt

import numpy as np
import pytest
from scipy import stats

from kv_claims.calibration.judged import Size, means
from kv_claims.calibration.planted import PlantedStudies, roles
from kv_claims.claims.claim import Estimand, Region
from kv_claims.claims.patch import Patch
from kv_claims.errors import UsageError
from kv_claims.judging import planning
from kv_claims.judging.decide import decide
from kv_claims.judging.frame import Grouping, Spread, spread_of
from kv_claims.judging.planning import (
    STUDIES,
    WORDS,
    at_value,
    estimate_of,
    expected_word,
    outlook,
    pairs_for,
    stated,
)
from kv_claims.judging.result import Word
from kv_claims.judging.rule import Rule
from kv_claims.judging.verdict import judge
from kv_claims.planted.catalog import CATALOG
from tests.judging.frames import Study

pytestmark = pytest.mark.filterwarnings("error")

EIGHTY, AT_LEAST = Region(0.7, 0.9), Region(low=0.7)


def deviations(found: float, wanted: float, studies: float = STUDIES) -> float:
    """How many standard errors of a rate two rates lie apart."""
    spread = max(wanted * (1 - wanted), 1 / studies) / studies
    return abs(found - wanted) / sqrt(spread)


# --- power, by the noncentral t ------------------------------------------------------------


def by_noncentral_t(distance: float, spread: float, n: int, alpha: float) -> float:
    """Power of a one-sided t test of a normal contrast, of n pairs."""
    limit = stats.t.ppf(1 - alpha, n - 1)
    return float(stats.nct.sf(limit, n - 1, sqrt(n) * distance / spread))


@pytest.mark.parametrize("alpha", [0.05, 0.00625])
@pytest.mark.parametrize("n", [12, 20, 40, 80, 160])
@pytest.mark.parametrize("value", [0.75, 0.8, 0.9])
def test_the_power_to_support_is_that_of_the_noncentral_t(
    value: float, n: int, alpha: float
) -> None:
    """One edge, no controls, a gap that is sure: the rule is one t test of A - 0.7 D."""
    noise, gap_spread = 0.4, 0.1
    found = outlook([stated(value, noise, gap_spread)], Rule(AT_LEAST, alpha=alpha), n)
    spread = np.hypot(noise, (value - 0.7) * gap_spread)
    wanted = by_noncentral_t(value - 0.7, spread, n, alpha)
    assert deviations(found.rates["supported"], wanted) < 4
    assert sum(found.rates.values()) == pytest.approx(1)
    assert set(found.rates) == set(WORDS)


@pytest.mark.parametrize("n", [20, 60])
def test_the_power_to_refute_is_that_of_the_noncentral_t(n: int) -> None:
    found = outlook([stated(0.5, 0.4, 0.1)], Rule(AT_LEAST, alpha_refuted=0.02), n)
    wanted = by_noncentral_t(0.2, float(np.hypot(0.4, 0.02)), n, 0.01)
    assert 0.1 < wanted < 0.95, "a rate that tells nothing"
    assert deviations(found.rates["refuted"], wanted) < 4


def test_without_a_gap_most_studies_are_invalid() -> None:
    """The gap's own t test, at one-sided 0.005, is part of the outlook."""
    found = outlook([stated(0.8, 0.4, 2.0)], Rule(AT_LEAST), 20)
    passed = by_noncentral_t(1.0, 2.0, 20, 0.005)
    assert deviations(found.rates["invalid"], 1 - passed) < 4


def test_the_width_is_that_of_students_interval() -> None:
    """Of a gap that is 1 in every pair Fieller's interval is Student's."""
    n = 400
    found = outlook([stated(0.8, 0.4, 0.0)], Rule(EIGHTY), n)
    assert found.width == pytest.approx(2 * stats.t.ppf(0.975, n - 1) * 0.4 / sqrt(n), rel=0.01)
    assert found.pairs == n


def test_a_width_without_bounds_is_infinite() -> None:
    assert outlook([stated(0.8, 0.4, 20.0)], Rule(EIGHTY), 10).width == np.inf


# --- how many pairs ------------------------------------------------------------------------


def by_two_noncentral_t(distance: float, spread: float, power: float, alpha: float) -> int:
    """Pairs for a truth in the middle: each edge is missed half as often as the claim may be."""
    n = 10
    while 1 - 2 * (1 - by_noncentral_t(distance, spread, n, alpha)) < power:
        n += 1
    return n


@pytest.mark.parametrize(("distance", "by_formula"), [(0.10, 181), (0.15, 81), (0.20, 45)])
def test_the_pairs_of_the_planning_formula(distance: float, by_formula: int) -> None:
    """(z(.95) + z(.90))**2 (sd / distance)**2 for a truth in the middle, at 80% power.

    The formula takes the spread for known; by Student's t it is one or two pairs more.
    """
    z = stats.norm.ppf(0.95) + stats.norm.ppf(0.90)
    assert round(z**2 * (0.46 / distance) ** 2) == by_formula
    wanted = by_two_noncentral_t(distance, 0.46, 0.8, 0.05)
    assert by_formula < wanted <= by_formula + 2
    region = Region(0.8 - distance, 0.8 + distance)
    found = pairs_for([stated(0.8, 0.46, 0.0)], Rule(region), "supported")
    assert found is not None
    assert found.pairs == pytest.approx(wanted, rel=0.10)
    assert found.rates["supported"] >= 0.8


@pytest.mark.parametrize("power", [0.5, 0.8, 0.95])
def test_the_pairs_are_the_fewest_up_to_a_step_of_two_hundredths(power: float) -> None:
    spread, rule = [stated(0.8, 0.4, 0.3)], Rule(EIGHTY)
    found = pairs_for(spread, rule, "supported", power)
    assert found is not None
    assert found == outlook(spread, rule, found.pairs)
    assert found.rates["supported"] >= power
    step = max(1, found.pairs // 50)
    below = [outlook(spread, rule, n) for n in range(found.pairs - step, found.pairs)]
    assert min(one.rates["supported"] for one in below) < power
    fewer = [outlook(spread, rule, n) for n in range(10, int(0.95 * found.pairs), 12)]
    assert max(one.rates["supported"] for one in fewer) < power


def test_ten_pairs_are_the_fewest_that_are_planned() -> None:
    found = pairs_for([stated(0.8, 0.01, 0.0)], Rule(EIGHTY), "supported")
    assert found is not None
    assert found.pairs == 10
    # One in twenty samples of ten normal numbers looks too skewed to be tested.
    drawn = np.random.default_rng(0).normal(size=(20_000, 10))
    skewed = np.mean(np.abs(stats.skew(drawn, axis=-1)) / 10**0.5 > 0.4)
    assert deviations(found.rates["supported"], 1 - skewed) < 4


def test_sizes_share_their_luck() -> None:
    """A larger study begins with the smaller one: rates hardly ever fall as pairs are added."""
    spread, rule = [stated(0.8, 0.4, 0.3)], Rule(AT_LEAST)
    rates = [outlook(spread, rule, n).rates["supported"] for n in range(60, 100)]
    steps = np.diff(rates)
    # Of independent luck a step would have a standard deviation of 0.03.
    assert steps.std() < 0.015
    assert steps.min() > -0.03
    assert outlook(spread, rule, 77) == outlook(spread, rule, 77)


@pytest.mark.parametrize(
    ("value", "word"),
    [
        pytest.param(0.7, "supported", id="on-the-edge"),
        pytest.param(0.5, "supported", id="outside"),
        pytest.param(0.8, "refuted", id="inside"),
    ],
)
def test_what_no_number_of_pairs_gives_is_none(value: float, word: Word) -> None:
    assert pairs_for([stated(value, 0.4, 0.1)], Rule(EIGHTY), word) is None


def test_a_small_alpha_takes_more_pairs() -> None:
    spread = [stated(0.8, 0.4, 0.1)]
    whole, eighth = (
        pairs_for(spread, Rule(EIGHTY, alpha=alpha, alpha_refuted=alpha), "supported")
        for alpha in (0.05, 0.05 / 8)
    )
    assert whole is not None
    assert eighth is not None
    z = [stats.norm.ppf(1 - alpha) + stats.norm.ppf(0.9) for alpha in (0.05, 0.05 / 8)]
    assert eighth.pairs / whole.pairs == pytest.approx((z[1] / z[0]) ** 2, rel=0.1)


# --- spreads -------------------------------------------------------------------------------


def spread_from(study: Study, *, by: str = "pair", pairs: int | None = None) -> Spread:
    scores = {arm: np.asarray(values) for arm, values in study.arms.items()}
    found = spread_of(Grouping(by, study.n, scores), pairs or study.n)
    assert found is not None
    return found


def test_stated_numbers_are_those_of_the_studies_drawn() -> None:
    spread = stated(0.8, 0.3, 0.5)
    arms = dict(zip(spread.arms, spread.means, strict=True))
    assert arms == {"base": 0.0, "source": 1.0, "patched": 0.8}
    weights = np.array([-1.0, 1.0, 0.0]), np.array([-1.0 + 0.8, -0.8, 1.0])
    gap, noise = (float(w @ np.array(spread.covariance) @ w) ** 0.5 for w in weights)
    assert gap == pytest.approx(0.5)
    assert noise == pytest.approx(0.3)
    assert estimate_of(spread, Rule(EIGHTY)) == pytest.approx(0.8)


@pytest.mark.parametrize(
    ("estimand", "study", "now"),
    [
        ("transfer", Study(0.4, controls={"noise": 0.02}), 0.4),
        ("difference", Study(0.6, versus=0.2), 0.4),
        ("gap", Study(0.4), 6.0),
    ],
)
@pytest.mark.parametrize("value", [-0.2, 0.0, 0.85])
def test_another_value_may_be_assumed(
    estimand: Estimand, study: Study, now: float, value: float
) -> None:
    """The estimand has it, and spreads, base, controls and the second arm stay what they were."""
    rule, spread = Rule(EIGHTY, estimand), spread_from(study)
    assert estimate_of(spread, rule) == pytest.approx(now)
    found = at_value(spread, rule, value)
    assert estimate_of(found, rule) == pytest.approx(value)
    moved = "source" if estimand == "gap" else "patched"
    for arm, before, after in zip(spread.arms, spread.means, found.means, strict=True):
        assert (after == pytest.approx(before)) is (arm != moved)
    assert found._replace(means=spread.means) == spread


def test_a_value_where_the_source_lies_below() -> None:
    """Read downwards, a transfer is the same ratio."""
    spread = spread_from(Study(0.4))
    turned = spread._replace(means=[-mean for mean in spread.means])
    rule = Rule(EIGHTY, direction="either")
    assert estimate_of(turned, rule) == pytest.approx(0.4)
    assert estimate_of(at_value(turned, rule, 0.8), rule) == pytest.approx(0.8)
    up, either = (outlook([at_value(turned, one, 0.8)], one, 40) for one in (Rule(EIGHTY), rule))
    assert up.rates["invalid"] == 1.0
    assert either.rates["supported"] > 0.99


@pytest.mark.parametrize(
    ("value", "region", "word"),
    [
        (0.8, EIGHTY, "supported"),
        (0.7, EIGHTY, "supported"),
        (0.69, EIGHTY, "refuted"),
        (1.2, EIGHTY, "refuted"),
        (-0.5, Region(high=0.12), "supported"),
    ],
)
def test_the_word_that_is_expected(value: float, region: Region, word: Word) -> None:
    assert expected_word([stated(value, 0.4, 0.1)], Rule(region)) == word


def test_a_pilots_spreads_are_those_of_its_verdict() -> None:
    """Means and covariance of arms over pairs, as numpy has them."""
    study = Study(0.8, noise=0.7, controls={"noise": 0.0})
    (found,) = judge(study.frame(seeds=(0, 1), jitter=0.4), EIGHTY).spreads
    assert (found.by, found.clusters, found.pairs) == ("pair", 40, 40)
    assert set(found.arms) == set(study.arms)
    scores = np.array([study.arms[arm] for arm in found.arms])
    np.testing.assert_allclose(found.means, scores.mean(1), rtol=1e-12)
    np.testing.assert_allclose(found.covariance, np.cov(scores), rtol=1e-9, atol=1e-12)


# --- crossed pairs -------------------------------------------------------------------------


def crossed_spreads() -> tuple[Spread, Spread]:
    """120 pairs of 30 sources and 20 bases; over bases transfers vary more."""
    by_source = spread_from(Study(0.8, noise=1.0, n=30), by="source", pairs=120)
    by_base = spread_from(Study(0.8, noise=2.0, n=20), by="base", pairs=120)
    return by_source, by_base


@pytest.mark.parametrize("pairs", [120, 400])
def test_of_crossed_pairs_the_less_hopeful_counts(pairs: int) -> None:
    rule = Rule(EIGHTY)
    each = [outlook([spread], rule, pairs) for spread in crossed_spreads()]
    for order in (crossed_spreads(), crossed_spreads()[::-1]):
        assert outlook(order, rule, pairs) == each[1]
    assert each[1].rates["supported"] < each[0].rates["supported"]


def test_crossed_pairs_are_counted_in_pairs_and_judged_in_clusters() -> None:
    """120 pairs make 20 bases: 240 make 40, judged as a study of 40."""
    _, by_base = crossed_spreads()
    alone = by_base._replace(pairs=20)
    found, wanted = (
        outlook([by_base], Rule(EIGHTY), 240),
        outlook([alone], Rule(EIGHTY), 40),
    )
    assert found == wanted._replace(pairs=240)
    both = pairs_for(crossed_spreads(), Rule(EIGHTY), "supported")
    single = pairs_for([alone], Rule(EIGHTY), "supported")
    assert both is not None
    assert single is not None
    assert both.pairs == 6 * single.pairs


# --- errors --------------------------------------------------------------------------------


def test_pairs_that_make_too_few_clusters_are_an_error() -> None:
    with pytest.raises(UsageError, match="9 pairs make 9 clusters by pair, expected at least 10"):
        outlook([stated(0.8, 0.4, 0.1)], Rule(EIGHTY), 9)
    with pytest.raises(UsageError, match="59 pairs make 9 clusters by base"):
        outlook(crossed_spreads(), Rule(EIGHTY), 59)
    assert outlook(crossed_spreads(), Rule(EIGHTY), 60).pairs == 60


@pytest.mark.parametrize(
    ("value", "noise", "gap_spread"),
    [
        (0.8, 0.0, 0.1),
        (0.8, -1.0, 0.1),
        (0.8, 0.4, -0.1),
        (0.8, float("nan"), 0.1),
        (0.8, float("inf"), 0.1),
        (0.8, 0.4, float("nan")),
        (0.8, 0.4, float("inf")),
        (float("nan"), 0.4, 0.1),
        (float("-inf"), 0.4, 0.1),
    ],
)
def test_spreads_that_are_none_are_refused(value: float, noise: float, gap_spread: float) -> None:
    with pytest.raises(UsageError, match="expected finite numbers, the spread above 0"):
        stated(value, noise, gap_spread)


# --- a plan is kept ------------------------------------------------------------------------


PLANTED = CATALOG["stored-at-layer"]
PATCH = Patch("kv", "25/32", "last(16)")
FRESH = 1500


@cache
def law() -> PlantedStudies:
    return PlantedStudies(PLANTED, roles(PATCH))


def pilot(pairs: int, luck: int) -> Spread:
    """The spreads of a pilot of the planted model, controls and all."""
    scores = means(law(), np.random.default_rng(luck), Size(1, pairs))
    found = spread_of(Grouping("pair", pairs, {arm: one[0] for arm, one in scores.items()}), pairs)
    assert found is not None
    return found


@cache
def truth() -> float:
    arms = law().truth
    return (arms["patched"] - arms["base"]) / (arms["source"] - arms["base"])


def rate_of(word: Word, rule: Rule, pairs: int) -> float:
    """Of fresh studies of the same model."""
    scores = means(law(), np.random.default_rng([7, pairs]), Size(FRESH, pairs))
    return float(decide(scores, rule).has_word(word).mean())


@pytest.mark.parametrize(
    ("region", "word"),
    [
        pytest.param(Region(-0.03, 0.03), "supported", id="in-the-middle"),
        pytest.param(Region(low=-0.02), "supported", id="one-edge"),
        pytest.param(Region(0.02, 0.25), "refuted", id="outside"),
    ],
)
def test_fresh_studies_of_the_planned_pairs_have_the_power(region: Region, word: Word) -> None:
    """From the spreads of a large pilot, so that luck of the planning and of the check is all.

    region: around the truth.
    """
    around = Region(truth() + region.low, truth() + region.high)
    rule = Rule(around)
    spread = at_value(pilot(4000, 1), rule, truth())
    plan = pairs_for([spread], rule, word, 0.8)
    assert plan is not None
    assert 20 <= plan.pairs <= 400
    found = rate_of(word, rule, plan.pairs)
    error = sqrt(0.8 * 0.2 * (1 / STUDIES + 1 / FRESH))
    assert abs(found - plan.rates[word]) < 3 * error, (found, plan)


def test_a_small_pilot_plans_about_the_right_number() -> None:
    """Its spread is known to one part in sqrt(2 n), the pairs to twice that."""
    n = 60
    rule = Rule(Region(truth() - 0.03, truth() + 0.03))
    wanted = pairs_for([at_value(pilot(4000, 1), rule, truth())], rule, "supported")
    assert wanted is not None
    for luck in (2, 3):
        found = pairs_for([at_value(pilot(n, luck), rule, truth())], rule, "supported")
        assert found is not None
        assert found.pairs / wanted.pairs == pytest.approx(1, abs=3 * 2 / sqrt(2 * n))


def test_as_many_clusters_are_looked_for_as_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """The doubling search ends at the most, not at the last power of two below it."""
    monkeypatch.setattr(planning, "MOST_CLUSTERS", 300)
    spread, rule = [stated(0.8, 0.46, 0.5)], Rule(Region(0.7, 0.9))
    found = pairs_for(spread, rule, "supported", 0.8)
    assert found is not None
    assert 160 < found.pairs <= 300
    # 160 is the last number that doubling from 10 reaches below 220.
    monkeypatch.setattr(planning, "MOST_CLUSTERS", 220)
    assert pairs_for(spread, rule, "supported", 0.8) is not None
    monkeypatch.setattr(planning, "MOST_CLUSTERS", 150)
    assert pairs_for(spread, rule, "supported", 0.8) is None
