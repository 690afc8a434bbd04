"""Paired proportions: against a likelihood maximised by search, and by what must hold of any."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import optimize, stats

from kv_claims.claims.claim import Region
from kv_claims.judging.proportions import ends, one_sided
from kv_claims.judging.verdict import judge
from tests.judging.frames import table

CACHE_STEERING = Path(__file__).parents[3] / "shared/cases/cache-steering"

counts = st.tuples(*[st.integers(0, 25)] * 3).filter(lambda bcs: sum(bcs) >= 10)


def effects(b: int, c: int, same: int) -> np.ndarray:
    return np.repeat([1.0, -1.0, 0.0], [b, c, same])


def by_search(b: int, c: int, same: int, d: float) -> tuple[float, float]:
    """How far b - c lies off n d, and its spread; the nuisance rate is found by search."""
    n = b + c + same

    def minus_log(q: float) -> float:
        rates = np.array([q + d, q, 1 - 2 * q - d])
        kept = np.array([b, c, same]) > 0
        if (rates[kept] <= 0).any():
            return float("inf")
        return -float(np.sum(np.array([b, c, same])[kept] * np.log(rates[kept])))

    low, high = max(0.0, -d), (1 - d) / 2
    grid = np.linspace(low, high, 2001)
    best = grid[int(np.argmin([minus_log(q) for q in grid]))]
    step = (high - low) / 2000
    found = optimize.minimize_scalar(
        minus_log,
        bounds=(max(low, best - step), min(high, best + step)),
        method="bounded",
        options={"xatol": 1e-12},
    )
    q = found.x if found.fun < minus_log(best) else best
    return (b - c - n * d, np.sqrt(n * (2 * q + d * (1 - d))))


@pytest.mark.parametrize("d", [-0.6, -0.13, 0.05, 0.4])
@pytest.mark.parametrize("bcs", [(9, 2, 30), (0, 0, 20), (0, 7, 13), (15, 0, 0), (4, 4, 12)])
def test_the_statistic_is_that_of_the_likeliest_rates(bcs: tuple[int, int, int], d: float) -> None:
    # Where d is below 0 the variance 2 q + d (1 - d) is that of the arms exchanged.
    b, c, same = bcs
    off, spread = by_search(b, c, same, d) if d > 0 else by_search(c, b, same, -d)
    off *= 1 if d > 0 else -1
    for side, z in (("greater", (off - 0.5) / spread), ("less", -(off + 0.5) / spread)):
        found = one_sided(effects(*bcs), d, side)  # type: ignore[arg-type]
        assert found == pytest.approx(stats.norm.sf(z), rel=1e-3, abs=1e-12)


@given(counts, st.sampled_from([0.9, 0.95, 0.99375]))
def test_word_and_interval_are_one_statistic(bcs: tuple[int, int, int], level: float) -> None:
    found = effects(*bcs)
    low, high = (float(end) for end in ends(found, level))
    assert -1 <= low <= found.mean() <= high <= 1
    for edge, side in ((low, "greater"), (high, "less")):
        if abs(edge) < 1 - 1e-6:
            assert one_sided(found, edge, side) == pytest.approx((1 - level) / 2, abs=1e-6)


@given(counts)
def test_arms_that_change_places_turn_the_sign(bcs: tuple[int, int, int]) -> None:
    b, c, same = bcs
    low, high = ends(effects(b, c, same), 0.95)
    turned = ends(effects(c, b, same), 0.95)
    assert (-high, -low) == pytest.approx(turned, abs=1e-9)


@given(counts)
def test_at_no_difference_it_is_mcnemars_test(bcs: tuple[int, int, int]) -> None:
    """With half an item of correction; near to the exact one, which counts heads."""
    b, c, _ = bcs
    if b + c == 0:
        return
    found = one_sided(effects(*bcs), 0.0, "greater")
    assert found == pytest.approx(stats.norm.sf((b - c - 0.5) / np.sqrt(b + c)))
    if b + c >= 20:
        exact = stats.binomtest(b, b + c, alternative="greater").pvalue
        assert found == pytest.approx(exact, abs=0.06)


def test_nothing_that_changed_bounds_a_difference_without_any_spread() -> None:
    arms = {"base": np.tile([0.0, 1.0], 20), "patched": np.tile([0.0, 1.0], 20)}
    verdict = judge(table(arms), Region(-0.15, 0.15), estimand="rate")
    assert (verdict.word, verdict.estimate) == ("supported", 0.0)
    assert verdict.interval is not None
    assert 0.03 < verdict.interval.high < 0.15


@pytest.mark.parametrize("edge", [0.0, 0.1])
def test_a_rate_at_its_edge_is_supported_at_most_5_times_in_100(edge: float) -> None:
    """At rates near 1, 20 items: where Student's t errs in 13 to 15% of studies."""
    luck = np.random.default_rng(7)
    both, first, second = 0.85 - edge / 2, edge + 0.05, 0.05
    kinds = luck.choice(4, (4000, 20), p=[both, first, second, 1 - both - first - second])
    found = np.select([kinds == 1, kinds == 2], [1.0, -1.0], 0.0)
    wrong = np.mean(one_sided(found, edge, "greater") <= 0.05)
    assert 0.0 < wrong <= 0.05


def test_what_is_no_rate_is_invalid_and_says_so() -> None:
    arms = {"base": np.linspace(0, 1, 20), "patched": np.tile([0.0, 1.0], 10)}
    verdict = judge(table(arms), Region(low=0.0), estimand="rate")
    assert verdict.word == "invalid"
    assert verdict.reason.startswith("not-a-rate: base: scores that are not 0 or 1 in each pair")


@pytest.mark.skipif(not CACHE_STEERING.is_dir(), reason="the published results are not here")
@pytest.mark.parametrize(
    ("name", "n", "base", "patched", "p"),
    [("arc", 1172, 0.2432, 0.2713, 0.11), ("piqa", 1838, 0.5038, 0.5131, 0.62)],
)
def test_the_published_results_of_cache_steering(
    name: str, n: int, base: float, patched: float, p: float
) -> None:
    """Belitsky et al., arXiv 2507.08799: right and wrong by item, SmolLM2-360M-Instruct."""
    (path,) = CACHE_STEERING.glob(f"*_{name}-oai.csv")
    rows = pd.read_csv(path)
    arm = rows["condition"].map({"greedy": "base", "greedy + cache steering": "patched"})
    frame = pd.DataFrame({"pair": rows["item"], "arm": arm, "seed": 0, "score": rows["correct"]})
    verdict = judge(frame, Region(low=0.0), estimand="rate")
    assert verdict.pairs == n
    assert verdict.means["base"] == pytest.approx(base, abs=5e-5)
    assert verdict.means["patched"] == pytest.approx(patched, abs=5e-5)
    assert verdict.word == "inconclusive"
    assert verdict.p_supported == pytest.approx(p / 2, abs=0.01)
