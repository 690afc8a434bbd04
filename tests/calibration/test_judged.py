"""Many studies judged: clusters by pandas, crossed words by `judge`, regions about the truth."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from kv_claims.calibration.judged import (
    WORDS,
    Size,
    by_cluster,
    covers,
    errors_row,
    judge_crossed,
    means,
    placed,
    rule_for,
    true_value,
    word_counts,
    words_row,
)
from kv_claims.calibration.scores import Crossing, ScoreStudies, arms
from kv_claims.claims.claim import Estimand, Region
from kv_claims.judging.crossed import Sharing
from kv_claims.judging.decide import decide
from kv_claims.judging.verdict import judge
from tests.judging.frames import wave

pytestmark = pytest.mark.filterwarnings("error")


def test_clusters_are_unweighted_means_of_their_pairs() -> None:
    rng = np.random.default_rng(0)
    cluster = np.array([0, 0, 0, 1, 2, 2, 1, 0])
    scores = {arm: rng.normal(size=(5, 8)) for arm in ("base", "patched")}
    found = by_cluster(scores, cluster)
    for arm, values in scores.items():
        wanted = pd.DataFrame(values.T).groupby(cluster).mean().to_numpy().T
        np.testing.assert_allclose(found[arm], wanted, rtol=1e-12)


# --- crossed pairs -------------------------------------------------------------------------

PAIRS = 60
CROSSED = ScoreStudies(
    arms(0.8),
    pair_share=0.3,
    crossing=Crossing(12, 15),
)
REGIONS = {
    "inside": Region(0.3, 1.3),
    "at-least": Region(low=0.75),
    "below": Region(0.2, 0.62),
    "above": Region(low=0.95),
}


def frame_of(scores: dict[str, np.ndarray], number: int) -> pd.DataFrame:
    """The table of one crossed study, with its sources and bases."""
    of = CROSSED.prompts(PAIRS)
    return pd.concat(
        [
            pd.DataFrame(
                {
                    "pair": np.arange(PAIRS),
                    "arm": arm,
                    "seed": 0,
                    "score": values[number],
                    "source": of.source,
                    "base": of.base,
                }
            )
            for arm, values in scores.items()
        ],
        ignore_index=True,
    )


@pytest.mark.parametrize("name", REGIONS)
def test_crossed_studies_get_the_words_and_intervals_of_judge(name: str) -> None:
    """60 studies a region, 240 in all, by the frame's own columns `source` and `base`."""
    region = REGIONS[name]
    scores = means(CROSSED, np.random.default_rng([3, len(name)]), Size(60, PAIRS))
    of = CROSSED.prompts(PAIRS)
    judged, low, high = judge_crossed(scores, Sharing(*of), rule_for(region))
    for number in range(60):
        verdict = judge(frame_of(scores, number), region)
        assert judged.has_word(verdict.word)[number]
        if verdict.word == "invalid":
            continue
        at_95 = verdict.interval if verdict.level == 0.95 else verdict.interval_other
        if at_95 is None:
            assert np.isnan(low[number]) or np.isnan(high[number])
        else:
            assert at_95 == pytest.approx((low[number], high[number]), rel=1e-9)


def test_the_crossed_regions_reach_every_word() -> None:
    """Else the comparison above would compare little."""
    of, seen = CROSSED.prompts(PAIRS), set()
    for name, region in REGIONS.items():
        scores = means(CROSSED, np.random.default_rng([3, len(name)]), Size(60, PAIRS))
        judged, _, _ = judge_crossed(scores, Sharing(*of), rule_for(region))
        seen |= {word for word in WORDS if judged.has_word(word).any()}
    assert {"supported", "refuted", "inconclusive"} <= seen


@pytest.mark.parametrize(
    "region",
    [
        pytest.param(Region(0.6, 1.0), id="supported-and-refuted"),
        pytest.param(Region(0.8, 1.0), id="inconclusive-and-refuted"),
        pytest.param(Region(0.4, 0.5), id="refuted-on-either-side"),
    ],
)
def test_prompts_that_contradict_each_other_decide_nothing(region: Region) -> None:
    """One source with 20 bases transfers little; one base with 20 sources transfers much."""
    n = 40
    few, others = np.arange(n) < 20, np.arange(20) + 1
    sides = Sharing(
        np.concatenate([np.zeros(20, int), others]),
        np.concatenate([others, np.zeros(20, int)]),
    )
    gap = 6 + 0.05 * wave(1, n)
    patched = (np.where(few, 0.1, 0.8) + np.where(few, 0.1, 0.01) * wave(3, n)) * gap
    scores = {"base": np.zeros((1, n)), "source": gap[None], "patched": patched[None]}
    judged, low, high = judge_crossed(scores, sides, rule_for(region))
    assert judged.has_word("inconclusive").tolist() == [True]
    assert low[0] < 0.2
    assert high[0] > 0.7
    # By source alone most of the sources transfer much, by base alone most of the bases little.
    alone = [float(by_cluster(scores, side)["patched"].mean() / gap.mean()) for side in sides]
    assert alone[0] > 0.7
    assert alone[1] < 0.2


# --- regions and coverage ------------------------------------------------------------------


@pytest.mark.parametrize("truth", [-0.3, 0.0, 0.8, 5.2])
def test_regions_are_laid_around_the_truth(truth: float) -> None:
    found = placed(truth, 0.3)
    assert list(found) == ["at low edge", "at high edge", "outside", "inside"]
    assert found["at low edge"].low == truth
    assert found["at high edge"].high == truth
    assert found["outside"].low == pytest.approx(truth + 0.1)
    assert found["inside"].low == pytest.approx(truth - 0.1)
    assert all(region.high - region.low == pytest.approx(0.3) for region in found.values())
    assert truth in found["inside"]
    assert truth not in found["outside"]


def test_an_interval_without_bounds_holds_the_truth() -> None:
    low = np.array([0.0, 0.6, 0.0, np.nan, 0.5, 0.0])
    high = np.array([1.0, 1.0, 0.4, np.nan, 0.9, 0.5])
    assert covers(low, high, 0.5).tolist() == [True, False, False, True, True, True]


@pytest.mark.parametrize(
    ("region", "margin"),
    [
        (Region(0.7, 0.9), 0.1),
        (Region(0.04, 0.3), 0.04),
        (Region(-0.3, -0.02), 0.02),
        (Region(-0.1, 0.1), 0.1),
        (Region(low=0.0), 0.1),
    ],
)
def test_the_margin_goes_with_the_region(region: Region, margin: float) -> None:
    """A control may not lie where the claim does; such a margin is refused elsewhere."""
    found = rule_for(region, alpha=0.01)
    assert found.margin == pytest.approx(margin)
    assert (found.alpha, found.alpha_refuted) == (0.01, 0.01)


@pytest.mark.parametrize(
    ("estimand", "wanted"), [("transfer", 0.6), ("difference", 0.4), ("shift", 3.0), ("gap", 5.0)]
)
def test_the_true_value(estimand: Estimand, wanted: float) -> None:
    truth = {"base": 1.0, "source": 6.0, "patched": 4.0, "versus": 2.0}
    assert true_value(truth, estimand) == pytest.approx(wanted)


# --- rows ----------------------------------------------------------------------------------


LAW = ScoreStudies(arms(0.8), pair_share=0.5)


def test_scores_are_means_over_seeds() -> None:
    drawn = LAW.draw(np.random.default_rng(1), 7, 12, 3)
    found = means(LAW, np.random.default_rng(1), Size(7, 12, 3))
    for arm, values in drawn.items():
        np.testing.assert_array_equal(found[arm], values.mean(-1))


def test_a_row_counts_what_each_study_gets_alone() -> None:
    """Coverage and words of 60 studies, counted by `judge` on their tables."""
    size, truth = Size(60, 20), 0.8
    row = errors_row("g", "c", LAW, np.random.default_rng(5), size)
    scores = means(LAW, np.random.default_rng(5), size)
    counted = dict.fromkeys(row.counts, 0)
    for number in range(size.studies):
        frame = pd.concat(
            [
                pd.DataFrame({"pair": np.arange(20), "arm": arm, "seed": 0, "score": one[number]})
                for arm, one in scores.items()
            ],
            ignore_index=True,
        )
        for place, region in placed(truth, 0.2).items():
            verdict = judge(frame, region)
            if f"{verdict.word} {place}" in counted:
                counted[f"{verdict.word} {place}"] += 1
        at_95 = verdict.interval if verdict.level == 0.95 else verdict.interval_other
        counted["covered"] += at_95 is None or at_95.low <= truth <= at_95.high
        counted["invalid"] += verdict.word == "invalid"
    assert row.counts == counted
    assert row.facts["truth"] == pytest.approx(truth)


def test_what_changes_no_pair_covers_always() -> None:
    """A patch that does nothing: every interval is 0 to 0, and the truth is 0."""
    law = ScoreStudies(arms(0.8), pair_share=0.5)

    class Inert:
        truth = law.truth | {"patched": law.truth["base"]}

        def draw(
            self, rng: np.random.Generator, studies: int, pairs: int, seeds: int
        ) -> dict[str, np.ndarray]:
            drawn = law.draw(rng, studies, pairs, seeds)
            return drawn | {"patched": drawn["base"]}

    row = errors_row("g", "c", Inert(), np.random.default_rng(0), Size(20))
    assert row.counts == {"covered": 20}
    assert row.note == "no pair changes, ever"
    assert row.shortfalls == []


def test_words_of_all_studies_are_counted() -> None:
    region = Region(0.6, 1.0)
    row = words_row("g", "c", LAW, np.random.default_rng(2), Size(300, 40), region)
    decision = decide(means(LAW, np.random.default_rng(2), Size(300, 40)), rule_for(region))
    assert row.counts == word_counts(decision)
    assert list(row.counts) == list(WORDS)
    assert sum(row.counts.values()) == 300
    assert row.facts["truth"] == pytest.approx(0.8)
    no_gap = ScoreStudies(arms(0.8) | {"source": arms(0.8)["base"]}, pair_share=0.5)
    row = words_row("g", "c", no_gap, np.random.default_rng(2), Size(20, 40), region)
    assert row.facts["truth"] == "no gap"
