"""The paired difference of an estimand between two runs: oracles, coverage, and each word."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from kv_claims.calibration.scores import BASE, PATCHED, SOURCE, ScoreStudies, at_transfer
from kv_claims.judging.estimand import Contrast
from kv_claims.judging.fieller import Floats, Interval, ends, weakness
from kv_claims.judging.paired import (
    SHOWN_LEVEL,
    Found,
    difference,
    difference_ends,
)
from tests.judging.frames import wave

pytestmark = pytest.mark.filterwarnings("error")
STUDIES = 500


def contrast(effect: Floats, unit: Floats) -> Contrast:
    return Contrast(effect, unit, np.abs(effect) + np.abs(unit))


def two_runs(n: int, seed: int = 3) -> tuple[Contrast, Contrast]:
    """Skewed effects that share their pairs' luck, and two gaps."""
    drawn = np.random.default_rng([seed, n])
    common = drawn.lognormal(0, 0.5, n)
    first, second = (5 * common + drawn.normal(0, 1, n) for _ in range(2))
    return (
        contrast(0.3 * first + drawn.normal(0, 1, n), first),
        contrast(0.5 * second + drawn.normal(0, 1, n), second),
    )


def studies(patched: float, other: float, n: int) -> tuple[Contrast, Contrast]:
    """Studies of skewed counts, two runs of the same pairs with luck of their own."""
    laws = {"base": BASE, "source": SOURCE, "patched": at_transfer(patched)}
    again = {"base-b": BASE, "source-b": SOURCE, "patched-b": at_transfer(other)}
    drawn = ScoreStudies({**laws, **again}).draw(np.random.default_rng([2026, n]), STUDIES, n, 1)
    base, source, there, base_b, source_b, there_b = (
        drawn[role][..., 0].astype(float) for role in (*laws, *again)
    )
    return contrast(there - base, source - base), contrast(there_b - base_b, source_b - base_b)


def at_most(rate: float) -> float:
    """Four binomial standard deviations above a rate, in studies."""
    return STUDIES * rate + 4 * (STUDIES * rate * (1 - rate)) ** 0.5


# --- the interval against oracles -----------------------------------------------------------


def test_its_error_is_that_of_a_cluster_bootstrap() -> None:
    first, second = two_runs(200)
    low, high = difference_ends(first, second, SHOWN_LEVEL)

    def shift(ea: Floats, ua: Floats, eb: Floats, ub: Floats, axis: int) -> Floats:
        return eb.mean(axis) / ub.mean(axis) - ea.mean(axis) / ua.mean(axis)

    drawn = stats.bootstrap(
        (first.effect, first.unit, second.effect, second.unit),
        shift,
        paired=True,
        vectorized=True,
        n_resamples=9999,
        method="percentile",
        random_state=np.random.default_rng(5),
    )
    error = (high - low) / 2 / stats.t.ppf(0.975, 199)
    assert error == pytest.approx(drawn.standard_error, rel=0.03)
    assert (low, high) == pytest.approx(tuple(drawn.confidence_interval), abs=0.1 * (high - low))


def test_pairing_counts() -> None:
    first, second = two_runs(60)
    low, high = difference_ends(first, second, SHOWN_LEVEL)
    torn = contrast(second.effect[::-1], second.unit[::-1])
    assert np.subtract(*difference_ends(first, torn, SHOWN_LEVEL)) != pytest.approx(low - high)


def test_its_error_is_that_of_the_jackknife_to_first_order() -> None:
    first, second = two_runs(400)
    n = 400
    without = np.array(
        [
            np.delete(second.effect, i).mean() / np.delete(second.unit, i).mean()
            - np.delete(first.effect, i).mean() / np.delete(first.unit, i).mean()
            for i in range(n)
        ]
    )
    jackknife = ((n - 1) / n * np.sum((without - without.mean()) ** 2)) ** 0.5
    low, high = difference_ends(first, second, SHOWN_LEVEL)
    assert (high - low) / 2 / stats.t.ppf(0.975, n - 1) == pytest.approx(jackknife, rel=0.01)


def test_a_gap_has_students_paired_interval() -> None:
    drawn = [np.random.default_rng(seed).normal(0, 1, 25) for seed in (1, 2)]
    gaps = [4 + np.append(one, -one) for one in drawn]  # of no skewness
    first, second = (contrast(gap, np.ones(50)) for gap in gaps)
    wanted = stats.ttest_rel(gaps[1], gaps[0]).confidence_interval(0.95)
    assert difference_ends(first, second, 0.95) == pytest.approx((wanted.low, wanted.high))


def test_with_one_gap_in_both_runs_it_is_fiellers_interval_where_that_is_narrow() -> None:
    first, second = two_runs(4000)
    second = contrast(second.effect, first.unit)
    wanted = ends(contrast(second.effect - first.effect, first.unit).moments, 0.95)
    assert difference_ends(first, second, 0.95) == pytest.approx(wanted, rel=0.01)


# --- how often it errs ----------------------------------------------------------------------


@pytest.mark.parametrize("n", [12, 40])
def test_it_covers_the_truth_as_often_as_it_says(n: int) -> None:
    low, high = difference_ends(*studies(0.35, 0.80, n), SHOWN_LEVEL)
    truth = 0.80 - 0.35
    covered = int(np.sum((low <= truth) & (truth <= high)))
    assert abs(covered - 0.95 * STUDIES) <= at_most(0.05) - 0.05 * STUDIES


@pytest.mark.parametrize(
    ("truth", "wrong", "rate"),
    [(0.25, "same", 0.05), (0.25, "moved", 0.025), (0.0, "moved", 0.025)],
)
def test_a_word_is_wrong_as_often_as_it_says(truth: float, wrong: Found, rate: float) -> None:
    """At the margin itself both words are wrong, each at its own rate; within it, only *moved*."""
    first, second = studies(0.35, 0.35 + truth, 60)
    found = [
        difference(one, other, is_ratio=True, margin=0.25).found
        for one, other in zip(each(first), each(second), strict=True)
    ]
    assert found.count(wrong) <= at_most(rate)


def each(many: Contrast) -> list[Contrast]:
    return [Contrast(*one) for one in zip(many.effect, many.unit, many.size, strict=True)]


def test_a_law_of_the_simulation_has_its_transfer() -> None:
    law = PATCHED[0.35]
    assert (law.mean - BASE.mean) / (SOURCE.mean - BASE.mean) == pytest.approx(0.35, abs=0.005)


# --- the words ------------------------------------------------------------------------------


def run(transfer: float, noise: float = 0.1, n: int = 40, k: int = 2, gap: float = 6.0) -> Contrast:
    unit = gap + wave(1, n)
    return contrast(transfer * unit + noise * wave(k, n), unit)


@pytest.mark.parametrize(
    ("second", "noise", "word"),
    [
        (0.52, 0.1, "same"),
        (0.48, 0.1, "same"),
        (0.70, 0.1, "moved"),
        (0.30, 0.1, "moved"),
        (0.60, 0.8, "undecided"),
        (0.50, 3.0, "undecided"),
    ],
)
def test_the_word_follows_from_interval_and_margin(second: float, noise: float, word: str) -> None:
    found = difference(run(0.5, noise), run(second, noise, k=3), is_ratio=True, margin=0.05)
    assert found.found == word
    assert found.first == pytest.approx(0.5)
    assert found.value == pytest.approx(second - 0.5)
    assert found.interval is not None
    assert found.interval.low <= found.value <= found.interval.high
    if word == "moved":
        assert found.interval.disjoint(-0.05, 0.05)
    assert (found.clusters, found.margin, found.by) == (40, 0.05, "pair")


def test_undecided_says_so_where_0_is_excluded() -> None:
    found = difference(run(0.5, 0.3), run(0.56, 0.3, k=3), is_ratio=True, margin=0.05)
    assert found.found == "undecided"
    assert found.interval is not None
    assert found.interval.low > 0
    assert found.reason.endswith("though not 0")


def test_equal_runs_are_the_same_without_a_gap_too() -> None:
    flat = contrast(np.zeros(12), np.zeros(12))
    found = difference(flat, flat, is_ratio=True, margin=0.05)
    assert (found.found, found.equal, found.value) == ("same", True, None)


def test_other_numbers_without_a_gap_are_undecided() -> None:
    flat = contrast(wave(1, 12), np.zeros(12))
    found = difference(flat, run(0.5, n=12), is_ratio=True, margin=0.05)
    assert (found.found, found.value, found.interval) == ("undecided", None, None)
    assert "weak ratio in A" in found.reason


def test_a_weak_ratio_in_either_run_decides_nothing() -> None:
    weak = run(0.9, gap=0.5)
    assert weakness(weak.moments, SHOWN_LEVEL) > 0.1
    found = difference(run(0.1), weak, is_ratio=True, margin=0.05)
    assert found.found == "undecided"
    assert "weak ratio in B" in found.reason


def test_a_patch_that_does_nothing_in_either_run_is_the_same() -> None:
    idle = [contrast(np.zeros(20), gap + wave(1, 20)) for gap in (5.0, 6.0)]
    found = difference(*idle, is_ratio=True, margin=0.05)
    assert (found.found, found.equal, found.interval) == ("same", False, Interval(0.0, 0.0))


def test_a_difference_without_spread_has_no_test() -> None:
    unit = 6 + wave(1, 20)
    found = difference(
        contrast(0.5 * unit, unit), contrast(0.51 * unit, unit), is_ratio=True, margin=0.05
    )
    assert found.found == "undecided"
    assert "no spread" in found.reason


@pytest.mark.parametrize("n", [0, 1, 9])
def test_fewer_than_ten_clusters_are_not_tested(n: int) -> None:
    runs = [contrast(np.arange(n) + 1.0, np.full(n, 5.0)) for _ in range(2)]
    found = difference(*runs, is_ratio=True, margin=0.05)
    assert found.found == "undecided"
    assert found.interval is None
    assert found.reason.startswith("no test: ")


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize(("by", "word"), [(1.01, "same"), (1.2, "moved"), (0.8, "moved")])
def test_a_gap_is_measured_in_shares_of_the_first(sign: int, by: float, word: str) -> None:
    gap = sign * (80 + wave(1, 30))
    other = by * gap + 0.5 * wave(2, 30)
    ones = np.ones(30)
    found = difference(contrast(gap, ones), contrast(other, ones), is_ratio=False, margin=0.05)
    assert found.found == word
    assert found.value == pytest.approx(sign * 80 * (by - 1))
    assert found.margin == pytest.approx(4.0)
