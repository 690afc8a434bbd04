"""Bootstrap and sign flips against oracles: numpy by hand, and every sign there is."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import stats

from kv_claims.claims.claim import Region
from kv_claims.judging.estimand import Contrast
from kv_claims.judging.fieller import Floats
from kv_claims.judging.resampling import (
    BOOTSTRAP_RESAMPLES,
    SIGN_FLIPS,
    Bootstrap,
    bootstrap,
    sign_flips,
)

pytestmark = pytest.mark.filterwarnings("error")


def contrast(effect: Floats, unit: Floats) -> Contrast:
    return Contrast(effect, unit, np.abs(effect) + np.abs(unit))


def rng() -> np.random.Generator:
    return np.random.default_rng(7)


def skewed(n: int) -> Contrast:
    """Effects with a long tail, and a gap that goes with them."""
    drawn = np.random.default_rng([2026, n])
    unit = 4 + drawn.normal(0, 1, n)
    return contrast(0.5 * unit + drawn.lognormal(0, 1.2, n), unit)


def ratios_by_hand(found: Contrast, resamples: int) -> Floats:
    drawn = np.random.default_rng(1)
    n = len(found.effect)
    rows = drawn.integers(0, n, (resamples, n))
    return found.effect[rows].mean(axis=1) / found.unit[rows].mean(axis=1)


def bca_by_hand(found: Contrast, ratios: Floats, level: float) -> tuple[float, float]:
    """Efron and Tibshirani, An introduction to the bootstrap (1993), equations 14.10 to 14.15."""
    n = len(found.effect)
    bias = stats.norm.ppf(np.mean(ratios < found.estimate))
    without = np.array(
        [np.delete(found.effect, i).mean() / np.delete(found.unit, i).mean() for i in range(n)]
    )
    lean = without.mean() - without
    acceleration = np.sum(lean**3) / (6 * np.sum(lean**2) ** 1.5)
    shifted = bias + stats.norm.ppf([(1 - level) / 2, (1 + level) / 2])
    at = stats.norm.cdf(bias + shifted / (1 - acceleration * shifted))
    low, high = np.quantile(ratios, at)
    return float(low), float(high)


# --- the bootstrap -------------------------------------------------------------------------


@pytest.mark.parametrize("level", [0.80, 0.95])
@pytest.mark.parametrize("n", [10, 40])
def test_the_bootstrap_agrees_with_one_by_hand(n: int, level: float) -> None:
    found = skewed(n)
    ratios = ratios_by_hand(found, 100_000)
    by_hand = bca_by_hand(found, ratios, level)
    line = bootstrap(found, level, rng())
    assert line.interval is not None
    assert (line.method, line.crossed, line.why) == ("BCa", 0, "")
    # Five Monte Carlo errors of a quantile, from the density that the oracle has there.
    for end, expected in zip(line.interval, by_hand, strict=True):
        at = np.mean(ratios <= expected)
        near = np.quantile(ratios, np.clip([at - 0.005, at + 0.005], 0, 1))
        error = np.sqrt(at * (1 - at) / BOOTSTRAP_RESAMPLES) * np.ptp(near) / 0.01
        assert end == pytest.approx(expected, abs=5 * error)
        assert 5 * error < 0.5 * np.std(ratios)


def test_it_is_not_the_percentile_interval() -> None:
    """A long tail moves both ends up."""
    found = skewed(40)
    line = bootstrap(found, 0.95, rng())
    low, high = np.quantile(ratios_by_hand(found, 100_000), [0.025, 0.975])
    assert line.interval is not None
    assert line.interval.low > low
    assert line.interval.high > high + 0.2 * (high - low) / 4


@pytest.mark.parametrize("n", [12, 60])
def test_it_is_what_scipy_makes_of_the_ratio_in_one_go(n: int) -> None:
    found = skewed(n)
    whole = stats.bootstrap(
        (found.effect, found.unit),
        lambda effect, unit, axis: effect.mean(axis=axis) / unit.mean(axis=axis),
        n_resamples=BOOTSTRAP_RESAMPLES,
        paired=True,
        vectorized=True,
        method="BCa",
        random_state=rng(),
    )
    assert bootstrap(found, 0.95, rng()).interval == whole.confidence_interval


def test_of_a_gap_it_is_that_of_the_mean() -> None:
    effect = skewed(20).effect
    whole = stats.bootstrap(
        (effect,), np.mean, n_resamples=BOOTSTRAP_RESAMPLES, vectorized=True, random_state=rng()
    )
    line = bootstrap(contrast(effect, np.ones(20)), 0.95, rng())
    assert line.interval == pytest.approx(whole.confidence_interval, rel=1e-12)


@pytest.mark.parametrize("factor", [1e-6, 0.3, 1e6])
def test_the_unit_of_the_score_cancels(factor: float) -> None:
    found = skewed(30)
    scaled = bootstrap(contrast(factor * found.effect, factor * found.unit), 0.95, rng())
    assert scaled.interval == pytest.approx(bootstrap(found, 0.95, rng()).interval, rel=1e-9)


def test_a_higher_level_has_a_wider_interval() -> None:
    at_80, at_95 = (bootstrap(skewed(20), level, rng()).interval for level in (0.80, 0.95))
    assert at_80 is not None
    assert at_95 is not None
    assert at_95.low < at_80.low < at_80.high < at_95.high


def test_many_clusters_are_drawn_in_batches_without_a_change() -> None:
    """400 clusters times 4999 resamples are more numbers than one array holds."""
    found = skewed(400)
    rows = rng().integers(0, 400, (BOOTSTRAP_RESAMPLES, 400))
    ratios = found.effect[rows].mean(axis=1) / found.unit[rows].mean(axis=1)
    line = bootstrap(found, 0.95, rng())
    assert line.interval == pytest.approx(bca_by_hand(found, ratios, 0.95), rel=1e-6)


# --- resamples whose denominator is not above 0 --------------------------------------------


def crossing_by_hand(found: Contrast) -> tuple[int, Floats]:
    n = len(found.unit)
    rows = rng().integers(0, n, (BOOTSTRAP_RESAMPLES, n))
    effects, units = found.effect[rows].mean(axis=1), found.unit[rows].mean(axis=1)
    return int(np.sum(units <= 0)), effects[units > 0] / units[units > 0]


def test_resamples_that_cross_are_counted_and_a_few_only_widen_the_interval() -> None:
    """A gap so weak that about one resample in a hundred has none."""
    unit = np.random.default_rng(3).normal(1.0, 1.3, 12)
    unit += 1.2 - unit.mean()
    found = contrast(0.5 * unit + np.random.default_rng(4).normal(0, 0.5, 12), unit)
    crossed, ratios = crossing_by_hand(found)
    line = bootstrap(found, 0.95, rng())
    assert 20 < crossed == line.crossed < 100
    assert line.method == "percentile"
    assert f"{crossed} of {BOOTSTRAP_RESAMPLES}" in line.why
    # Each stands beyond both ends, so an end is an order statistic of the others.
    ratios, below = np.sort(ratios), int(0.025 * (BOOTSTRAP_RESAMPLES - 1))
    assert line.interval == pytest.approx(
        (ratios[below - crossed], ratios[-1 - (below - crossed)]), rel=1e-12
    )
    assert line.interval[0] < ratios[below]
    assert line.interval[1] > ratios[-1 - below]


def test_many_that_cross_leave_no_interval() -> None:
    """Both clusters drawn twice the same: a quarter crosses."""
    found = contrast(np.array([1.0, 2.0]), np.array([3.0, -1.0]))
    line = bootstrap(found, 0.95, rng())
    error = 5 * np.sqrt(BOOTSTRAP_RESAMPLES * 3 / 16)
    assert line.crossed == pytest.approx(BOOTSTRAP_RESAMPLES / 4, abs=error)
    assert line.interval is None


def test_a_mean_unit_of_exactly_0_crosses() -> None:
    line = bootstrap(contrast(np.array([1.0, 2.0]), np.array([3.0, 0.0])), 0.95, rng())
    assert line.crossed > 1000
    assert line.interval is None


def test_a_mean_unit_up_to_the_floor_crosses() -> None:
    found = contrast(np.array([1.0, 2.0]), np.array([3.0, 1e-9]))
    assert bootstrap(found, 0.95, rng()).crossed == 0
    assert bootstrap(found, 0.95, rng(), floor=1e-8).crossed > 1000


# --- where BCa is not defined --------------------------------------------------------------


def test_without_spread_it_is_a_point() -> None:
    unit = np.array([3.0, 5.0, 4.0, 7.0])
    line = bootstrap(contrast(0.3 * unit, unit), 0.95, rng())
    assert line.interval == pytest.approx((0.3, 0.3), rel=1e-12)
    assert line.method == "percentile"
    assert "no spread" in line.why


def test_where_bca_is_not_defined_it_says_so_and_gives_percentiles() -> None:
    """The acceleration of numbers so small is 0 / 0."""
    effect = 1e-120 * skewed(12).effect
    line = bootstrap(Contrast(effect, np.ones(12), size=effect), 0.95, rng())
    assert (line.method, line.crossed) == ("percentile", 0)
    assert "not defined" in line.why
    assert line.interval is not None
    means = effect[rng().integers(0, 12, (BOOTSTRAP_RESAMPLES, 12))].mean(axis=1)
    assert line.interval == pytest.approx(np.quantile(means, [0.025, 0.975]), rel=0.01, abs=0)


@pytest.mark.parametrize("n", [2, 3])
def test_the_fewest_clusters_have_a_line(n: int) -> None:
    line = bootstrap(contrast(np.arange(n) + 0.5, np.ones(n)), 0.95, rng())
    assert isinstance(line, Bootstrap)
    assert line.interval is not None
    assert line.interval.low <= line.interval.high


# --- sign flips ----------------------------------------------------------------------------


def p_of_all_signs(values: Floats, side: str) -> float:
    """The share of all 2^n sums that lie as far on that side as the one observed."""
    turned = values if side == "greater" else -values
    sums = [np.dot(signs, turned) for signs in itertools.product((1, -1), repeat=len(values))]
    return float(np.mean(np.array(sums) >= turned.sum() - 1e-9))


@pytest.mark.parametrize("n", range(2, 11))
@pytest.mark.parametrize("region", [Region(0.6, 1.1), Region(low=0.4), Region(high=0.9)], ids=str)
def test_few_clusters_have_all_their_signs_flipped(n: int, region: Region) -> None:
    found = skewed(n)
    lines = sign_flips(found, region, rng())
    assert [(line.edge, line.side) for line in lines] == list(region.edges)
    for line in lines:
        assert (line.exact, line.resamples) == (True, 2**n)
        expected = p_of_all_signs(found.effect - line.edge * found.unit, line.side)
        assert line.p == pytest.approx(expected, abs=1e-12)


def test_signs_that_tie_with_the_observed_ones_count() -> None:
    """L is 1, 1, 1, 1: only the observed signs reach its sum; with a 0 in it, two do."""
    found = contrast(np.array([1.0, 1.0, 1.0, 0.0]), np.ones(4))
    (line,) = sign_flips(found, Region(low=0.0), rng())
    assert line.p == 2 / 16


@pytest.mark.parametrize("edge", [0.6, 0.85, 1.0])
def test_many_clusters_have_some_flipped(edge: float) -> None:
    found = skewed(30)
    (line,) = sign_flips(found, Region(low=edge), rng())
    assert (line.exact, line.resamples) == (False, SIGN_FLIPS)
    values = found.effect - edge * found.unit
    signs = np.random.default_rng(1).choice([1.0, -1.0], (100_000, 30))
    expected = np.mean(signs @ values >= values.sum())
    error = np.sqrt(expected * (1 - expected) / SIGN_FLIPS) + 1 / SIGN_FLIPS
    assert line.p == pytest.approx(expected, abs=5 * error)


def test_p_is_never_0() -> None:
    (line,) = sign_flips(skewed(60), Region(low=-9.0), rng())
    assert line.p == 1 / (SIGN_FLIPS + 1)


def test_the_two_sides_of_one_edge_add_up_to_1_but_for_ties() -> None:
    found = skewed(40)
    (above,) = sign_flips(found, Region(low=0.9), rng())
    (below,) = sign_flips(found, Region(high=0.9), rng())
    assert above.p is not None
    assert below.p is not None
    assert above.p + below.p == pytest.approx(1, abs=1.5 / SIGN_FLIPS)


def test_edges_are_flipped_alike_together_or_alone() -> None:
    found = skewed(40)
    both = sign_flips(found, Region(0.7, 1.0), rng())
    alone = (
        *sign_flips(found, Region(low=0.7), rng()),
        *sign_flips(found, Region(high=1.0), rng()),
    )
    assert both == alone


def test_an_edge_at_which_nothing_varies_has_no_p_and_the_other_has() -> None:
    unit = skewed(20).unit
    low, high = sign_flips(contrast(0.7 * unit, unit), Region(0.7, 0.9), rng())
    assert (low.p, low.resamples) == (None, 0)
    assert "does not vary" in low.why
    assert high.p == 1 / (SIGN_FLIPS + 1)
    assert high.why == ""
