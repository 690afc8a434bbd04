"""Two-way variances: against pandas and definitions, and words of crossed pairs that rest on them.

How often intervals hold the truth is `tests/calibration`'s.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from kv_claims.claims.claim import Region
from kv_claims.judging.contrast import edge_tests, interval
from kv_claims.judging.crossed import Sharing, covariance_of_means
from kv_claims.judging.estimand import Contrast
from kv_claims.judging.fieller import Floats
from kv_claims.judging.frame import clustering
from kv_claims.judging.verdict import judge
from tests.judging.frames import table

pytestmark = pytest.mark.filterwarnings("error")
PAIRS = 90


def drawn(seed: int) -> tuple[Floats, Floats, Sharing]:
    """Effects and units of pairs of 12 sources and 15 bases, uneven, of which both bring much."""
    rng = np.random.default_rng(seed)
    source = np.append(np.arange(12), rng.integers(0, 12, PAIRS - 12))
    base = np.append(np.arange(15), rng.integers(0, 15, PAIRS - 15))
    by_source, by_base = rng.gamma(1, 1, (2, 12)), rng.gamma(1, 1, (2, 15))
    unit, noise = (
        by_source[k][source] + by_base[k][base] + rng.normal(0, 0.3, PAIRS) for k in (0, 1)
    )
    return 0.5 * (4 + unit) + 0.5 * noise, 4 + unit, Sharing(source, base)


def contrast(effect: Floats, unit: Floats, sharing: Sharing | None) -> Contrast:
    return Contrast(effect, unit, np.abs(effect) + np.abs(unit), sharing=sharing)


def variance(values: Floats, sharing: Sharing) -> float:
    """Of a mean over pairs, by pandas: sums by source, by base, less those of pairs."""
    frame = pd.DataFrame({"off": values - values.mean(), **sharing._asdict()})
    frame["pair"] = frame.index
    terms = {"source": 1, "base": 1, "pair": -1}
    found = 0.0
    for by, sign in terms.items():
        sums = frame.groupby(by)["off"].sum()
        found += sign * len(sums) / (len(sums) - 1) * float((sums**2).sum())
    return found / len(values) ** 2


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("edge", [-0.5, 0.5, 2.0])
def test_the_t_of_a_contrast_has_the_variance_of_its_own_numbers(seed: int, edge: float) -> None:
    effect, unit, sharing = drawn(seed)
    values = effect - edge * unit
    found = contrast(effect, unit, sharing).moments
    assert not found.turned
    assert found.t(edge) == pytest.approx(values.mean() / variance(values, sharing) ** 0.5)
    assert found.clusters == 12


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("level", [0.9, 0.95])
def test_the_ends_are_where_the_test_has_p_equal_to_alpha(seed: int, level: float) -> None:
    effect, unit, sharing = drawn(seed)
    found = contrast(effect, unit, sharing)
    shown = interval(found, level)
    assert shown is not None
    skewness = float(found.moments.skewness)
    for end, sign in zip(shown, (1, -1), strict=True):
        values = effect - end * unit
        t = values.mean() / variance(values, sharing) ** 0.5
        hall = t + skewness * t**2 / 3 + skewness**2 * t**3 / 27 + skewness / 6
        assert stats.t.sf(sign * hall, 11) == pytest.approx((1 - level) / 2)


def test_pairs_of_their_own_prompts_are_judged_as_clusters_are() -> None:
    """Where nothing is shared, all three sums are those of pairs: nothing is new."""
    rng = np.random.default_rng(4)
    effect, unit = rng.gamma(2, 1, 30), rng.gamma(9, 1, 30)
    alone, crossed = (
        contrast(effect, unit, sharing)
        for sharing in (None, Sharing(np.arange(30), np.arange(30)[::-1]))
    )
    assert interval(crossed, 0.95) == pytest.approx(interval(alone, 0.95))
    region = Region(0.1, 0.4)
    for one, other in zip(edge_tests(crossed, region), edge_tests(alone, region), strict=True):
        assert one == pytest.approx(other)
    assert crossed.moments.skewness == pytest.approx(alone.moments.skewness)


def test_pairs_that_share_on_one_side_alone_have_its_variance_and_skewness() -> None:
    """Bases of their own: V_base is V_pair, so that V_source is left."""
    rng = np.random.default_rng(5)
    source = np.repeat(np.arange(12), 4)
    effect = rng.gamma(1, 1, 12)[source] + rng.normal(0, 0.2, 48)
    crossed = contrast(effect, np.ones(48), Sharing(source, np.arange(48)))
    by_source = effect.reshape(12, 4).mean(1)
    alone = contrast(by_source, np.ones(12), None)
    assert crossed.moments.v_oo == pytest.approx(alone.moments.v_oo)
    assert crossed.moments.skewness == pytest.approx(alone.moments.skewness)
    assert interval(crossed, 0.95) == pytest.approx(interval(alone, 0.95))


def test_where_it_is_no_variance_the_larger_one_way_stands() -> None:
    """A checkerboard: sums by source and by base cancel, so that the difference is below 0."""
    source, base = (index.ravel() for index in np.mgrid[:10, :12])
    sign = np.where((source + base) % 2 == 0, 1.0, -1.0)
    effect = 3 + sign + 0.01 * source
    found = contrast(effect, np.ones(120), Sharing(source, base))
    assert variance(effect, Sharing(source, base)) < 0
    assert found.moments.turned
    # Sums by source are next to nothing, by base nothing: what is left is that of pairs.
    assert found.moments.v_oo == pytest.approx(effect.var(ddof=1) / 120)


def test_the_covariance_of_arms_is_that_of_their_contrasts() -> None:
    effect, unit, sharing = drawn(2)
    found = covariance_of_means(np.array([effect, unit]), sharing)
    weights = np.array([1.0, -0.5])
    wanted = variance(effect - 0.5 * unit, sharing)
    assert weights @ found @ weights == pytest.approx(wanted)
    assert np.linalg.eigvalsh(found).min() >= -1e-12


def frame_of(effect: Floats, unit: Floats, sharing: Sharing) -> pd.DataFrame:
    base = np.full(len(effect), 10.0)
    return table(
        {"base": base, "source": base + unit, "patched": base + effect},
        source=[f"s{k}" for k in sharing.source],
        base=[f"b{k}" for k in sharing.base],
    )


def test_a_table_is_read_as_its_pairs_share_prompts() -> None:
    effect, unit, sharing = drawn(1)
    frame = frame_of(effect, unit, sharing)
    found = clustering(frame.sample(frac=1.0, random_state=3))
    assert (found.by, found.clusters, found.fewest) == ("source and base", 12, "source")
    assert found.sharing is not None
    # Numbers are given in the order of names; which has which is all that counts.
    assert found.sharing.clusters == sharing.clusters
    wanted = interval(contrast(effect, unit, sharing), 0.95)
    verdict = judge(frame, Region(0.4, 0.7))
    shown = verdict.interval if verdict.level == 0.95 else verdict.interval_other
    assert shown == pytest.approx(wanted)
    assert (verdict.pairs, verdict.clusters) == (PAIRS, 12)
    # Which of two is called source is nothing that a word hangs on.
    turned = frame.rename(columns={"source": "base", "base": "source"})
    assert judge(turned, Region(0.4, 0.7)).interval == pytest.approx(verdict.interval)


def test_a_rate_of_crossed_pairs_is_refused() -> None:
    """Its test takes items to be independent."""
    _, _, sharing = drawn(1)
    ones = (np.arange(PAIRS) % 3 == 0).astype(float)
    arms = {"base": 1 - ones, "patched": ones}
    frame = table(arms, source=list(sharing.source), base=list(sharing.base))
    verdict = judge(frame, Region(low=0.0), estimand="rate")
    assert (verdict.word, verdict.reason.split(":")[0]) == ("invalid", "not-a-rate")
