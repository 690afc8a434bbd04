"""Error rates on differences, gaps and scores read downwards, by simulation with a seed.

The studies lie exactly at an edge, where the rates are largest. Tolerances are four binomial
standard deviations, as in `test_calibration`.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest

from kv_claims.claims.claim import Estimand, Region
from kv_claims.judging.estimand import Direction
from kv_claims.judging.verdict import Verdict, judge
from tests.judging.frames import table

pytestmark = pytest.mark.slow
STUDIES = 250
N_PAIRS = 16


class Law(NamedTuple):
    """What is true of the population, and what is claimed of it, with its edge there.

    sign: -1 where the source scores below the base. difference: patched - versus, as a share.
    """

    estimand: Estimand
    region: Region
    direction: Direction = "up"
    sign: int = 1
    difference: float = 0.0


ORDER = Law("difference", Region(low=0.1), difference=0.1)
SAME_BELOW = Law("difference", Region(-0.2, 0.2), difference=-0.2)
SAME_ABOVE = Law("difference", Region(-0.2, 0.2), difference=0.2)
LOWER = Law("gap", Region(high=-4.0), sign=-1)
HIGHER = Law("gap", Region(low=4.0))
DOWNWARDS = Law("transfer", Region(low=0.5), "either", sign=-1)
DOWNWARDS_AT_MOST = Law("transfer", Region(high=0.5), "either", sign=-1)
# A third of the way by wiping alone: of the other two thirds the patched arm has a quarter.
CARRIED = Law("carried", Region(low=0.25))
CARRIED_AT_MOST = Law("carried", Region(high=0.25))
EITHER = Law("transfer", Region(low=0.5), "either")
LAWS = {
    "order": ORDER,
    "same-below": SAME_BELOW,
    "same-above": SAME_ABOVE,
    "lower": LOWER,
    "higher": HIGHER,
    "downwards": DOWNWARDS,
    "downwards-at-most": DOWNWARDS_AT_MOST,
    "either": EITHER,
    "carried": CARRIED,
    "carried-at-most": CARRIED_AT_MOST,
}
"""The mean gap is 4, up or down, and the patched arm transfers 0.5."""


def draw(law: Law, rng: np.random.Generator) -> pd.DataFrame:
    """One study of 16 pairs: skewed levels and effects that pairs share, and luck of each arm."""
    level = rng.gamma(4.0, 0.5, N_PAIRS)
    gap = law.sign * rng.gamma(8.0, 0.5, N_PAIRS)
    shared = rng.uniform(-0.3, 0.3, N_PAIRS)
    means = {
        "base": level,
        "source": level + gap,
        "patched": level + (0.5 + shared) * gap,
        "versus": level + (0.5 - law.difference + 0.5 * shared) * gap,
    }
    if law.estimand == "carried":
        means["unrelated-base"] = level + gap / 3
    return table({arm: mean + rng.normal(0, 0.6, N_PAIRS) for arm, mean in means.items()})


@cache
def verdicts(name: str) -> list[Verdict]:
    law = LAWS[name]
    rng = np.random.default_rng([2026, list(LAWS).index(name)])
    frames = [draw(law, rng) for _ in range(STUDIES)]
    return [
        judge(frame, law.region, estimand=law.estimand, direction=law.direction) for frame in frames
    ]


def share(name: str, word: str) -> float:
    return sum(verdict.word == word for verdict in verdicts(name)) / STUDIES


def four_deviations(rate: float) -> float:
    return float(4 * np.sqrt(rate * (1 - rate) / STUDIES))


@pytest.mark.parametrize("name", LAWS)
def test_a_claim_at_its_edge_is_supported_at_most_5_times_in_100(name: str) -> None:
    found = share(name, "supported")
    assert found <= 0.05 + four_deviations(0.05)
    # Nor is the rule so strict that it could not support anything.
    assert found > 0


@pytest.mark.parametrize("name", LAWS)
def test_a_claim_at_its_edge_is_refuted_at_most_25_times_in_1000(name: str) -> None:
    assert share(name, "refuted") <= 0.025 + four_deviations(0.025)


@pytest.mark.parametrize("name", LAWS)
def test_the_95_interval_covers_the_truth_95_times_in_100(name: str) -> None:
    law = LAWS[name]
    truths = {"difference": law.difference, "transfer": 0.5, "carried": 0.25}
    truth = {"gap": law.sign * 4.0, **truths}[law.estimand]
    at_95 = [v.interval if v.level == 0.95 else v.interval_other for v in verdicts(name)]
    held = sum(i is None or i.low <= truth <= i.high for i in at_95) / STUDIES
    assert held == pytest.approx(0.95, abs=four_deviations(0.95))
