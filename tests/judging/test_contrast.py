"""The tests at the edges of a region, and the number of pairs that would decide."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from kv_claims.claims.claim import Region
from kv_claims.judging.contrast import edge_tests, pairs_to_decide, varies
from kv_claims.judging.estimand import Contrast
from kv_claims.judging.fieller import Floats
from tests.judging.frames import Study, noise_for, t_quantile, wave

# scipy warns of precision loss where values do not vary: such values must not reach it.
pytestmark = pytest.mark.filterwarnings("error")


def of(effect: Floats, unit: Floats) -> Contrast:
    """A contrast of scores that are as large as their differences."""
    return Contrast(effect, unit, np.abs(effect))


def t_of(study: Study, edge: float) -> float:
    """The t statistic of A - edge * D, from the study's moments and not from its rows."""
    distance = study.transfer - edge
    spread = math.hypot(distance * study.gap_spread, study.noise)
    return distance * study.gap * math.sqrt(study.n) / spread


@pytest.mark.parametrize(
    "transfer", [-0.3, 0.55, 0.62, 0.7, 0.85, 0.9, 1.4], ids=lambda t: f"T={t}"
)
def test_p_values_of_a_region_with_two_edges(transfer: float) -> None:
    study = Study(transfer, noise=2.5, n=14)
    low, high = t_of(study, 0.6), t_of(study, 0.9)
    found = edge_tests(of(study.effects, study.differences), Region(0.6, 0.9))
    above, below = stats.t.sf(low, 13), stats.t.cdf(high, 13)
    assert found.p_supported == pytest.approx(max(above, below), rel=1e-9)
    assert found.p_refuted == pytest.approx(min(1, 2 * min(1 - above, 1 - below)), rel=1e-9)
    assert not found.flat.any()


@pytest.mark.parametrize(
    ("region", "sign"),
    [
        pytest.param(Region(low=0.6), 1, id="at-least"),
        pytest.param(Region(high=0.6), -1, id="at-most"),
    ],
)
@pytest.mark.parametrize("transfer", [0.5, 0.6, 0.8], ids=["below", "edge", "above"])
def test_p_values_of_a_region_with_one_edge(transfer: float, region: Region, sign: int) -> None:
    study = Study(transfer, noise=2.5, n=14)
    p = stats.t.sf(sign * t_of(study, 0.6), 13)
    found = edge_tests(of(study.effects, study.differences), region)
    assert found.p_supported == pytest.approx(p, rel=1e-9)
    assert found.p_refuted == pytest.approx(min(1.0, 2 * (1 - p)), rel=1e-9)


@pytest.mark.parametrize("edge", [0.7, 0.9], ids=["low", "high"])
def test_an_edge_without_spread_is_named_and_not_tested(edge: float) -> None:
    gap = Study(transfer=0).differences
    found = edge_tests(of(edge * gap, gap), Region(0.7, 0.9))
    assert found.flat.tolist() == [edge == 0.7, edge == 0.9]
    assert math.isnan(found.p_supported)
    assert math.isnan(found.p_refuted)


def test_both_edges_without_spread_are_named() -> None:
    gap = np.full(12, 5.0)
    found = edge_tests(of(np.full(12, 4.0), gap), Region(0.7, 0.9))
    assert found.flat.all()


def test_no_effect_at_all_is_tested_at_edges_other_than_zero() -> None:
    """With common random numbers a patch that does nothing leaves A at exactly 0."""
    gap, none = Study(transfer=0).differences, np.zeros(40)
    at_most, at_least = (edge_tests(of(none, gap), r) for r in (Region(high=0.12), Region(low=0.7)))
    assert at_most.p_supported == pytest.approx(0.88**40)
    assert at_most.p_refuted == 1.0
    assert at_least.p_refuted == pytest.approx(2 * 0.3**40, abs=1e-9)
    assert at_least.p_supported == 1.0
    assert edge_tests(of(none, gap), Region(low=0.0)).flat.tolist() == [True]


@pytest.mark.parametrize(
    ("values", "parts", "wanted"),
    [
        pytest.param(np.full(5, 0.1), 0.1, False, id="constant"),
        pytest.param(np.zeros(5), 0.0, False, id="zeros"),
        pytest.param(np.array([0.3, 0.1 + 0.2, 0.3]), 0.3, False, id="rounding"),
        pytest.param(1e6 + np.array([0.0, 1e-9]), 1e6, False, id="rounding-of-large-numbers"),
        pytest.param(np.array([0.0, 1e-9]), 1e6, False, id="difference-of-large-numbers"),
        pytest.param(np.array([0.0, 1e-9]), 1e-6, True, id="difference-of-small-numbers"),
        pytest.param(np.array([1.0, 1.0, 1.001]), 1.0, True, id="one-differs"),
        pytest.param(np.array([-1.0, 1.0]), 1.0, True, id="mean-zero"),
    ],
)
def test_varies_means_by_more_than_rounding(values: Floats, parts: float, wanted: bool) -> None:
    """parts: the size of the numbers of which the values are differences."""
    assert bool(varies(values, np.full(len(values), parts))) is wanted


REGIONS = [
    pytest.param(0.75, Region(0.7, 0.9), id="inside-near-low"),
    pytest.param(0.88, Region(0.7, 0.9), id="inside-near-high"),
    pytest.param(0.6, Region(0.7, 0.9), id="below"),
    pytest.param(0.97, Region(0.7, 0.9), id="above"),
    pytest.param(0.08, Region(high=0.12), id="at-most"),
    pytest.param(0.17, Region(high=0.12), id="above-at-most"),
    pytest.param(0.55, Region(low=0.5), id="at-least"),
]


@pytest.mark.parametrize(("transfer", "region"), REGIONS)
@pytest.mark.parametrize("alpha", [0.05, 0.01])
def test_at_the_pairs_needed_and_not_before_the_same_moments_decide(
    transfer: float, region: Region, alpha: float
) -> None:
    def decided(n: int) -> bool:
        study = Study(transfer, noise=2.5, n=n)
        tests = edge_tests(of(study.effects, study.differences), region)
        return min(tests.p_supported, tests.p_refuted) <= alpha

    now = Study(transfer, noise=2.5, n=12)
    needed = pairs_to_decide(of(now.effects, now.differences), region, alpha)
    assert needed is not None
    assert needed > 12
    assert decided(needed)
    assert not decided(needed - 1)


@pytest.mark.parametrize("edge", [0.5, 0.75], ids=["low", "high"])
def test_at_an_edge_no_number_of_pairs_decides(edge: float) -> None:
    # Powers of two and whole numbers: the estimate is the edge to the last bit.
    gap = np.array([4.0, 8.0] * 10)
    effect = edge * gap + np.array([1.0, 1.0, -1.0, -1.0] * 5)
    assert pairs_to_decide(of(effect, gap), Region(0.5, 0.75), 0.05) is None


def test_more_than_ten_million_pairs_is_none() -> None:
    gap = 6 + wave(1, 12)
    near = of(0.7000001 * gap + wave(2, 12), gap)
    assert pairs_to_decide(near, Region(0.7, 0.9), 0.05) is None


def test_the_smallest_n_uses_students_quantile_of_that_n() -> None:
    """At so large a distance the normal quantile would ask for fewer than t does."""
    study = Study(0.6, noise=noise_for(t_quantile(0.975, 12) * 0.99, 0.1, 12), n=12)
    assert pairs_to_decide(of(study.effects, study.differences), Region(low=0.7), 0.05) == 13
