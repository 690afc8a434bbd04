"""Error rates of the whole rule, by simulation: judge() on tables, with a seed.

Tolerances are four binomial standard deviations, so that a right rule fails once in 10,000
changes of the seed; the last test shows that they are tight enough to catch a wrong one.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest

from kv_claims.claims.claim import Region
from kv_claims.judging.verdict import Verdict, judge

pytestmark = pytest.mark.slow
STUDIES = 300
N_PAIRS = 20
N_SEEDS = 2
EDGE = 0.6
ARMS = ("base", "source", "patched")


class Law(NamedTuple):
    """How scores come about: counts with the pair's own level, its own arm effects, and luck.

    cluster_size: pairs that share their source's effect on transfer.
    """

    transfer: float
    cluster_size: int = 1


def draw(law: Law, rng: np.random.Generator) -> pd.DataFrame:
    """One study of 20 clusters. The mean score is 1 for base and 6 for source."""
    n = N_PAIRS * law.cluster_size
    cluster = np.arange(n) // law.cluster_size
    level = rng.gamma(8.0, 1 / 8, N_PAIRS)[cluster]
    shared = rng.uniform(-1, 1, N_PAIRS)[cluster]
    means = {
        "base": level,
        "source": level * 6,
        "patched": level * (1 + 5 * law.transfer) * (1 + 0.6 * shared),
    }
    own = {arm: 1 + 0.3 * rng.uniform(-1, 1, n) for arm in ARMS}
    shape = (len(ARMS), n, N_SEEDS)
    scores = np.stack(
        [rng.poisson((means[arm] * own[arm])[:, None], (n, N_SEEDS)) for arm in ARMS]
    ).astype(float)
    arm, pair, seed = (index.ravel() for index in np.indices(shape))
    return pd.DataFrame(
        {
            "pair": pair,
            "arm": np.array(ARMS)[arm],
            "seed": seed,
            "score": scores.ravel(),
            "cluster": cluster[pair],
        }
    )


@cache
def verdicts(law: Law, region: Region, *, use_clusters: bool = True) -> list[Verdict]:
    rng = np.random.default_rng([2026, round(100 * law.transfer), law.cluster_size])
    frames = (draw(law, rng) for _ in range(STUDIES))
    return [judge(f if use_clusters else f.drop(columns="cluster"), region) for f in frames]


def share(verdicts: list[Verdict], word: str) -> float:
    return sum(verdict.word == word for verdict in verdicts) / len(verdicts)


def coverage(verdicts: list[Verdict], truth: float) -> float:
    """Share of 95% intervals that hold the truth; an unbounded one holds it."""
    at_95 = [v.interval if v.level == 0.95 else v.interval_other for v in verdicts]
    return sum(i is None or i.low <= truth <= i.high for i in at_95) / len(verdicts)


def four_deviations(rate: float) -> float:
    return float(4 * np.sqrt(rate * (1 - rate) / STUDIES))


LAWS = [
    pytest.param(Law(EDGE), id="pairs-alone"),
    pytest.param(Law(EDGE, cluster_size=3), id="three-pairs-a-source"),
]


@pytest.mark.parametrize("law", LAWS)
def test_the_95_interval_covers_the_truth_95_times_in_100(law: Law) -> None:
    found = coverage(verdicts(law, Region(low=EDGE)), law.transfer)
    assert found == pytest.approx(0.95, abs=four_deviations(0.95))


@pytest.mark.parametrize("law", LAWS)
def test_a_claim_at_the_edge_is_supported_at_most_5_times_in_100(law: Law) -> None:
    found = share(verdicts(law, Region(low=EDGE)), "supported")
    assert found <= 0.05 + four_deviations(0.05)
    # Nor is the rule so strict that it could not support anything.
    assert found > 0


@pytest.mark.parametrize("law", LAWS)
def test_a_claim_at_the_edge_is_refuted_at_most_25_times_in_1000(law: Law) -> None:
    found = share(verdicts(law, Region(low=EDGE)), "refuted")
    assert found <= 0.025 + four_deviations(0.025)


def test_a_claim_that_is_true_is_supported_and_never_refuted() -> None:
    found = verdicts(Law(EDGE), Region(0.2, 1.0))
    assert share(found, "supported") > 0.6
    assert share(found, "refuted") <= 0.01


def test_a_claim_that_is_false_is_refuted_and_never_supported() -> None:
    found = verdicts(Law(EDGE), Region(0.0, 0.2))
    assert share(found, "refuted") > 0.8
    assert share(found, "supported") == 0


def test_pairs_that_share_a_source_taken_as_independent_cover_too_seldom() -> None:
    """The same tables without their clusters: the error that clusters are there to prevent."""
    law = Law(EDGE, cluster_size=3)
    found = verdicts(law, Region(low=EDGE), use_clusters=False)
    assert coverage(found, law.transfer) < 0.95 - four_deviations(0.95)
