"""What a count of few leaves open: the exact bound, its inverse, and verdicts that rest on it."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from kv_claims.claims.claim import Region
from kv_claims.judging.contrast import (
    alike,
    edge_tests,
    interval,
    pairs_to_decide,
    too_few_carry,
)
from kv_claims.judging.decide import decide
from kv_claims.judging.estimand import Contrast
from kv_claims.judging.fieller import Floats, ends
from kv_claims.judging.result import Word
from kv_claims.judging.rule import Rule
from kv_claims.judging.unseen import chance_of_few, clusters_for, largest_share
from kv_claims.judging.verdict import judge
from tests.judging.frames import contrast_of, table, wave

# scipy warns of precision loss where values do not vary: such values must not reach it.
pytestmark = pytest.mark.filterwarnings("error")


def unit_of(n: int) -> Floats:
    return 6.0 + wave(1, n)


@pytest.mark.parametrize("n", [10, 12, 60, 200])
@pytest.mark.parametrize("alpha", [0.05, 0.025, 0.05 / 16])
@pytest.mark.parametrize("seen", [0, 1, 4])
def test_the_bound_is_that_of_an_exact_binomial_interval(n: int, alpha: float, seen: int) -> None:
    exact = stats.binomtest(seen, n).proportion_ci(1 - 2 * alpha, "exact").high
    assert largest_share(n, alpha, seen) == pytest.approx(exact, rel=1e-9)
    assert chance_of_few(np.array(exact), n, seen) == pytest.approx(alpha)


@pytest.mark.parametrize("share", [0.02, 0.12, 0.7])
def test_the_fewest_clusters_that_exclude_a_share(share: float) -> None:
    n = clusters_for(share, 0.025)
    assert n is not None
    assert largest_share(n, 0.025) <= share
    assert n == 1 or largest_share(n - 1, 0.025) > share


def test_no_number_excludes_a_share_of_none_and_any_a_share_of_all() -> None:
    assert clusters_for(0.0, 0.05) is None
    assert clusters_for(1.0, 0.05) == clusters_for(1.7, 0.05) == 1
    assert chance_of_few(np.array([0.0, 1.0, 1.7, np.inf]), 12).tolist() == [1.0, 0.0, 0.0, 0.0]


@pytest.mark.parametrize(("ratio", "n"), [(0.0, 12), (1.0, 40), (0.3, 12)])
def test_a_ratio_that_all_have_stands_for_it_and_what_was_not_seen(ratio: float, n: int) -> None:
    found = contrast_of(ratio * unit_of(n), unit_of(n))
    for level in (0.95, 0.90, 0.99):
        shown, unseen = interval(found, level), largest_share(n, (1 - level) / 2)
        assert shown == pytest.approx((ratio - unseen, ratio + unseen))


@pytest.mark.parametrize("n", [12, 60])
@pytest.mark.parametrize("seen", [1, 2])
@pytest.mark.parametrize("turned", [False, True])
def test_few_that_differ_are_counted_on_their_own_side(n: int, seen: int, turned: bool) -> None:
    """They lie above 0, or below 1: there the tail is long, and as many are counted."""
    effect = np.zeros(n)
    effect[:seen] = 6.0
    usual, side = (1.0, -1) if turned else (0.0, 1)
    found = contrast_of(6.0 - effect if turned else effect, np.full(n, 6.0))
    for level in (0.95, 0.90):
        alpha = (1 - level) / 2
        exact = stats.binomtest(seen, n).proportion_ci(1 - 2 * alpha, "exact").high
        shown = interval(found, level)
        assert shown is not None
        assert shown[1 - turned] == pytest.approx(usual + side * exact, rel=1e-9)
        # On the other side Hall's T has the end.
        assert shown[turned] == pytest.approx(ends(found.moments, level)[int(turned)])
    edge = usual + side * 0.3
    tests = edge_tests(found, Region(low=edge) if turned else Region(high=edge))
    assert tests.p_supported == pytest.approx(stats.binom.cdf(seen, n, 0.3))


@pytest.mark.parametrize("size", [1.0, 1.01])
def test_what_was_seen_to_lie_off_by_more_than_a_unit_bounds_nothing(size: float) -> None:
    effect = np.zeros(20)
    effect[:2] = size * 6.0
    found = contrast_of(effect, np.full(20, 6.0))
    assert (interval(found, 0.95) is None) is (size > 1)
    assert bool(too_few_carry(found)) is (size > 1)


def test_where_nothing_is_counted_too_few_carry_the_effect() -> None:
    """All pairs differ, and one by far more than the others: no test, and the pairs it takes."""
    unit = np.full(20, 6.0)
    effect = 0.1 * wave(1, 20)
    effect[3] = 5.0
    found = contrast_of(effect, unit)
    skewness = abs(stats.skew(effect)) / 20**0.5
    assert skewness > 0.4
    base = np.full(20, 2.0) + wave(5, 20)
    arms = {"base": base, "source": base + unit, "patched": base + effect}
    for region in (Region(-0.5, 0.5), Region(0.7, 0.9), Region(high=0.5)):
        tests = edge_tests(found, region)
        assert (tests.p_supported, tests.p_refuted) == (1.0, 1.0)
        verdict = judge(table(arms), region)
        assert verdict.word == "inconclusive"
        assert verdict.reason.startswith("too few pairs carry the effect: skewness of the mean")
        assert verdict.interval is verdict.interval_other is None
        assert verdict.pairs_needed == math.ceil(20 * (skewness / 0.4) ** 2)


def test_rounding_does_not_make_clusters_differ() -> None:
    base = 0.1 + 0.2 * np.arange(12)
    effect = (base + 0.3) - base - 0.3
    assert effect.any()
    assert alike(Contrast(effect, unit_of(12), np.abs(base) + 0.3))


def test_twelve_pairs_of_which_none_changes_do_not_refute_what_they_cannot_exclude() -> None:
    """A claim of 20% is not refuted by 12 such pairs; of 13 and more, one of 27% is."""
    unit = unit_of(12)
    arms = {"base": wave(2, 12), "source": wave(2, 12) + unit, "patched": wave(2, 12)}
    unseen = largest_share(12, 0.025)
    assert unseen == pytest.approx(0.265, abs=5e-4)
    near, far = (judge(table(arms), Region(low, 0.9)) for low in (0.2, 0.27))
    assert (near.word, far.word) == ("inconclusive", "refuted")
    for verdict in (near, far):
        assert verdict.interval == pytest.approx((-unseen, unseen))
        assert "no pair changed; at level 0.95 at most 26.5% of pairs do" in verdict.reason
    assert near.pairs_needed == clusters_for(0.2, 0.025) == 17


@pytest.mark.parametrize(
    ("region", "word"),
    [
        (Region(high=0.12), "supported"),
        (Region(-0.1, 0.1), "supported"),
        (Region(0.2, 0.9), "refuted"),
    ],
    ids=["at-most", "equivalence", "outside"],
)
def test_the_pairs_needed_are_those_at_which_as_many_alike_decide(
    region: Region, word: Word
) -> None:
    def found(n: int) -> Contrast:
        return contrast_of(np.zeros(n), unit_of(n))

    needed = pairs_to_decide(found(12), region, 0.05)
    assert needed is not None
    for n in (needed - 1, needed):
        tests = edge_tests(found(n), region)
        decided = tests.p_supported if word == "supported" else tests.p_refuted
        assert bool(decided <= 0.05) is (n == needed)


@pytest.mark.parametrize("n", [10, 25, 60])
def test_all_pairs_turned_into_their_source_leave_as_much_open(n: int) -> None:
    unit = unit_of(n)
    arms = {"base": wave(2, n), "source": wave(2, n) + unit, "patched": wave(2, n) + unit}
    unseen = largest_share(n, 0.05)
    inside, outside = (
        judge(table(arms), Region(low, 1.4)) for low in (1 - unseen - 0.01, 1 - unseen + 0.01)
    )
    assert inside.word == "supported"
    assert outside.word == "inconclusive"
    assert "every pair has transfer 1; at level 0.9 at most" in inside.reason


def test_crossed_pairs_count_the_fewer_clusters() -> None:
    """12 sources and 20 bases: not the 60 pairs, nor the bases, as a source may be what decides."""
    source, base = np.arange(60) % 12, np.arange(60) % 20
    level = 5.0 * source + base
    arms = {"base": level, "source": level + 6 + 0.1 * source + 0.1 * base, "patched": level}
    verdict = judge(table(arms, source=source, base=base), Region(high=0.12))
    unseen = largest_share(12, 0.025)
    assert verdict.interval == pytest.approx((-unseen, unseen))
    assert verdict.word == "inconclusive"
    assert verdict.clusters == 12
    assert verdict.p_supported == pytest.approx(0.88**12)
    assert "no cluster by source changed" in verdict.reason


def test_a_gap_of_no_unit_is_bounded_by_nothing() -> None:
    """In its own unit nothing says how far a cluster may lie: there is no interval and no p."""
    found = Contrast(np.full(12, 3.0), np.ones(12), np.full(12, 3.0), most=np.inf)
    assert interval(found, 0.95) is None
    scores = {"base": np.zeros(12), "source": np.full(12, 3.0)}
    decision = decide(scores, Rule(Region(low=1.0), "gap"))
    assert decision.has_word("invalid")
    assert decision.found.most == np.inf


def test_a_control_that_changes_nothing_waits_for_as_many_pairs_as_its_margin_takes() -> None:
    unit, base = unit_of(20), wave(2, 20)
    patched = base + 0.8 * unit + 0.3 * wave(3, 20)
    arms = {"base": base, "source": base + unit, "patched": patched, "noise": base}
    verdict = judge(table(arms), Region(0.7, 0.9))
    assert verdict.word == "inconclusive"
    assert verdict.reason.startswith("controls undecided: noise")
    assert verdict.pairs_needed == clusters_for(0.1, 0.05) == 29
    assert verdict.controls["noise"]["interval"] == pytest.approx(
        (-largest_share(20, 0.025), largest_share(20, 0.025))
    )
