"""What weighs the same, pairs or clusters: both estimates, and no word that hangs on which."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from kv_claims.claims.claim import Region
from kv_claims.judging.result import Word
from kv_claims.judging.verdict import judge
from tests.judging.frames import Study, table, wave

pytestmark = pytest.mark.filterwarnings("error")
EIGHTY = Region(0.7, 0.9)


def uneven(shares: list[float], sizes: list[int], noise: float = 0.0) -> pd.DataFrame:
    """Clusters of a transfer and a number of pairs each."""
    cluster = np.repeat(np.arange(len(sizes)), sizes)
    n = len(cluster)
    gap = 6 + 0.5 * wave(1, n)
    base = 10 + wave(3, n)
    effect = np.array(shares)[cluster] * gap + noise * wave(2, n)
    return table(
        {"base": base, "source": base + gap, "patched": base + effect},
        cluster=[f"c{k:02}" for k in cluster],
    )


def by_pair(frame: pd.DataFrame) -> float:
    means = frame.groupby("arm")["score"].mean()
    return float((means["patched"] - means["base"]) / (means["source"] - means["base"]))


def test_one_cluster_of_most_pairs_decides_nothing() -> None:
    """Eleven prompts of one pair at 0, one of 200 at 0.8: which is meant, prompts or pairs?"""
    frame = uneven([0.0] * 11 + [0.8], [1] * 11 + [200])
    verdict = judge(frame, EIGHTY)
    assert verdict.word == "inconclusive"
    assert verdict.reason.startswith("the answer hangs on what weighs the same: ")
    assert list(verdict.weighings) == ["clusters", "pairs"]
    assert verdict.weighings["clusters"] == pytest.approx(0.8 / 12, rel=0.2)
    assert verdict.weighings["pairs"] == pytest.approx(by_pair(frame))
    assert verdict.weighings["pairs"] > 0.7
    assert "weighing   clusters 0.0" in str(verdict)
    # Of a region that neither lies in, on one side, it does not hang on it.
    assert judge(frame, Region(0.9, 1.2)).word == "refuted"


@pytest.mark.parametrize("word", ["supported", "refuted"])
def test_where_size_tells_nothing_both_stand_and_the_word_is_that_of_clusters(word: Word) -> None:
    sizes = [1 + k % 4 for k in range(40)]
    shares = list((0.8 if word == "supported" else 0.4) + 0.05 * wave(7, 40))
    frame = uneven(shares, sizes, 0.1)
    verdict = judge(frame, EIGHTY)
    assert verdict.word == word
    assert verdict.weighings["pairs"] == pytest.approx(by_pair(frame))
    assert verdict.weighings["clusters"] == verdict.estimate
    assert verdict.weighings["pairs"] != pytest.approx(verdict.estimate, abs=1e-4)


def test_clusters_of_one_size_have_one_weighing() -> None:
    found = judge(uneven(list(0.8 + 0.05 * wave(1, 20)), [3] * 20), EIGHTY)
    assert list(found.weighings) == ["clusters"]
    assert list(judge(Study(0.8).frame(), EIGHTY).weighings) == ["pairs"]


@pytest.mark.parametrize("estimand", ["transfer", "shift"])
def test_crossed_pairs_are_weighed_and_their_prompts_beside(estimand: str) -> None:
    """By hand: means over the pairs of each prompt, then over prompts."""
    rng = np.random.default_rng(3)
    source = np.append(np.arange(12), rng.integers(0, 4, 60))
    base = np.append(np.arange(12), rng.integers(0, 12, 60))
    gap = 6 + rng.normal(0, 0.3, 72)
    effect = gap * (0.8 + 0.1 * (source < 4)) + rng.normal(0, 0.3, 72)
    arms = {"base": 0 * gap, "source": gap, "patched": effect}
    frame = table(arms, source=list(source), base=list(base))
    found = judge(frame, Region(0.1, 9.0), estimand=estimand, margin=0.05)  # type: ignore[arg-type]
    assert list(found.weighings) == ["pairs", "clusters by source", "clusters by base"]
    numbers = pd.DataFrame({"effect": effect, "gap": gap, "source": source, "base": base})
    for by in ("source", "base"):
        means = numbers.groupby(by)[["effect", "gap"]].mean().mean()
        wanted = means["effect"] / (means["gap"] if estimand == "transfer" else 1.0)
        assert found.weighings[f"clusters by {by}"] == pytest.approx(wanted)
    assert found.weighings["pairs"] == found.estimate
