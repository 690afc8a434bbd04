"""How a scorer is measured: against a count by hand, and on texts that are made by hand."""

from __future__ import annotations

import numpy as np
import pytest

from kv_claims.errors import UsageError
from kv_claims.measure.separation import (
    LEVEL,
    Scored,
    Separation,
    auc,
    repetition_share,
    separation,
)
from kv_claims.tasks.scorers import Lexicon, Published


def arm(*scores: float, first: int = 0) -> list[Scored]:
    """One text a pair."""
    return [Scored(f"pair-{k}", 0, float(x)) for k, x in enumerate(scores, start=first)]


def by_pair(some: list[Scored]) -> dict[str, dict[str, str]]:
    return {"pair": {one.pair: one.pair for one in some}}


def drawn(n: int, shift: float, seed: int = 0) -> tuple[list[Scored], list[Scored]]:
    """Normal scores of so many pairs, sources higher by `shift` standard deviations."""
    luck = np.random.default_rng(seed)
    return arm(*luck.normal(shift, 1, n)), arm(*luck.normal(0, 1, n))


# --- AUC -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "base", "wanted"),
    [
        ([3, 2], [1, 0], 1.0),
        ([1, 0], [3, 2], 0.0),
        ([1, 1], [1, 1], 0.5),
        ([2, 0], [1, 1], 0.5),
        ([2, 1], [1, 0], 7 / 8),
        ([5], [1, 5, 9, 9], 3 / 8),
    ],
)
def test_auc_is_how_often_a_source_text_scores_higher_and_half_of_the_ties(
    source: list[float], base: list[float], wanted: float
) -> None:
    assert auc(source, base) == pytest.approx(wanted)


def test_separation_has_the_auc_of_all_texts_and_counts_them() -> None:
    source, base = arm(3, 2, 0, 5), arm(0, 2, 1, 0)
    found = separation(source, base, by_pair(base))
    assert found.auc == auc([3, 2, 0, 5], [0, 2, 1, 0])
    assert (found.source_texts, found.base_texts, found.clusters, found.by) == (4, 4, 4, "pair")
    assert (found.false_positives, found.rate) == (2, 0.5)


# --- its interval --------------------------------------------------------------------------


def resampled(source: list[Scored], base: list[Scored], cluster: dict[str, str]) -> np.ndarray:
    """AUCs of 2000 resamples of clusters, drawn and counted one by one."""
    luck, found = np.random.default_rng(12), []
    names = sorted(set(cluster.values()))
    for _ in range(2000):
        chosen = luck.choice(names, len(names))
        scores = [
            [one.score for name in chosen for one in some if cluster[one.pair] == name]
            for some in (source, base)
        ]
        found.append(auc(*scores))
    return np.array(found)


@pytest.mark.parametrize("clusters", [24, 8], ids=["pairs", "three-pairs-a-cluster"])
def test_the_interval_is_that_of_resampling_clusters_one_by_one(clusters: int) -> None:
    source, base = drawn(24, 0.8)
    cluster = {one.pair: f"c{k % clusters}" for k, one in enumerate(base)}
    found = separation(source, base, {"source": cluster})
    assert found.interval is not None
    wanted = np.quantile(resampled(source, base, cluster), [0.025, 0.975])
    assert found.interval == pytest.approx(tuple(wanted), abs=0.02)
    assert found.clusters == clusters


def test_of_two_ways_of_clustering_the_wider_interval_is_shown() -> None:
    luck = np.random.default_rng(3)
    # Twelve sources, each with a level of its own, and base texts without one.
    level = np.repeat(luck.normal(1, 1, 12), 5)
    source, base = arm(*(level + luck.normal(0, 0.1, 60))), arm(*luck.normal(0, 1, 60))
    ways = {
        "base": {f"pair-{k}": f"b{k % 20}" for k in range(60)},
        "source": {f"pair-{k}": f"s{k // 5}" for k in range(60)},
    }
    both = separation(source, base, ways)
    alone = {by: separation(source, base, {by: ways[by]}).interval for by in ways}
    assert (both.by, both.clusters, both.interval) == ("source", 12, alone["source"])
    low, high = alone["base"]
    assert both.interval[1] - both.interval[0] > high - low


def test_a_pair_that_only_one_arm_has_is_compared_where_it_can_be() -> None:
    """Trials may be missing, which another check says; the measurement ends all the same."""
    found = separation(arm(1, 3), arm(2, first=1), {"pair": {"pair-0": "a", "pair-1": "b"}})
    assert found.auc == 0.5
    assert found.interval == (0.5, 1.0)


def test_seeds_of_a_pair_are_drawn_together() -> None:
    """A text said twice is no more evidence than once."""
    source, base = drawn(30, 0.8)
    twice = [[*some, *(one._replace(seed=1) for one in some)] for some in (source, base)]
    once = separation(source, base, by_pair(base)).interval
    assert separation(*twice, by_pair(base)).interval == pytest.approx(once, abs=0.015)


def test_the_interval_covers_the_true_auc_about_as_often_as_it_says() -> None:
    """Scores of normal distributions one apart: AUC is Phi(1 / sqrt 2)."""
    hits = 0
    for seed in range(100):
        source, base = drawn(40, 1.0, seed)
        low, high = separation(source, base, by_pair(base)).interval
        hits += low <= 0.7602 <= high
    # 95 are to be expected, with a standard deviation of 2.2.
    assert 88 <= hits < 100


def test_the_same_scores_give_the_same_interval_in_any_order_and_other_scores_another() -> None:
    source, base = drawn(20, 0.5)
    state = np.random.get_state()[1].copy()
    one = separation(source, base, by_pair(base))
    assert separation(source[::-1], base[3:] + base[:3], by_pair(base)) == one
    assert (np.random.get_state()[1] == state).all()
    other = separation([t._replace(score=t.score * 2) for t in source], base, by_pair(base))
    assert other.interval != one.interval


@pytest.mark.parametrize(
    ("source", "base", "area", "why"),
    [
        ([0, 0, 0], [0, 0, 0], 0.5, "all scores are equal"),
        ([2, 3, 4], [0, 1, 0], 1.0, "do not overlap"),
        ([0, 0, 0], [1, 2, 1], 0.0, "do not overlap"),
        ([2], [1], 1.0, "one cluster"),
    ],
    ids=["equal", "above", "below", "one-pair"],
)
def test_where_resampling_tells_nothing_there_is_no_interval_and_it_is_said(
    source: list[float], base: list[float], area: float, why: str
) -> None:
    found = separation(arm(*source), arm(*base), by_pair(arm(*base)))
    assert (found.auc, found.interval) == (area, None)
    assert why in found.why
    assert found.to_dict()["interval"] is None


# --- false positives -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("positive", "n", "low", "high"),
    # Wilson (1927): (p + z^2/2n -+ z sqrt(p(1-p)/n + z^2/4n^2)) / (1 + z^2/n), worked out by hand.
    [(0, 10, 0.0, 0.2775), (1, 10, 0.0179, 0.4042), (5, 10, 0.2366, 0.7634), (10, 10, 0.7225, 1.0)],
)
def test_false_positives_are_base_texts_above_0(
    positive: int, n: int, low: float, high: float
) -> None:
    base = arm(*([0.5] * positive + [0.0] * (n - positive)))
    found = separation(arm(1, 2), base, by_pair(base))
    assert (found.false_positives, found.rate) == (positive, positive / n)
    assert found.rate_interval == pytest.approx((low, high), abs=1e-4)


# --- repetition ----------------------------------------------------------------------------

LEXICON = Lexicon(frozenset({"mirror", "self"}))
ONCE = "a mirror of one self"


@pytest.mark.parametrize(
    ("text", "share"),
    [
        pytest.param(ONCE, 0.0, id="once"),
        # Every 4-gram of the second half stood before but for those that meet the border.
        pytest.param(f"{ONCE} {ONCE}", 2 / 4, id="twice"),
        pytest.param(f"{ONCE} {ONCE} {ONCE}", 4 / 6, id="three-times"),
        pytest.param("self a b self c d", 0.0, id="a-word-again-is-no-4-gram"),
        # The 4-gram `a b c self` again; the last `mirror` stands outside.
        pytest.param("a b c self d A, b: C self! mirror", 1 / 3, id="one-inside-one-outside"),
        pytest.param("mirror " * 6, 4 / 6 + 1 / 6, id="overlapping"),
    ],
)
def test_the_share_from_repetition_is_of_the_hits_inside_repeated_4grams(
    text: str, share: float
) -> None:
    assert repetition_share([text], LEXICON) == pytest.approx(share)


def test_a_share_is_of_the_points_of_all_texts() -> None:
    """Twice `ONCE`: 40 points, half of them repeated; a text of one hit in five words: 20."""
    found = repetition_share([f"{ONCE} {ONCE}", "one self and no more", "nothing"], LEXICON)
    assert found == pytest.approx(20 / 60)


def test_the_published_bonus_is_repetition() -> None:
    assert repetition_share(["and so on " * 5], Published()) == 1.0
    # A marker that stands first where nothing is repeated yet, and 5 points.
    assert repetition_share(["loop and so on " * 4], Published()) == pytest.approx(5 / 6)
    assert repetition_share(["a complex process"], Published()) == 0.0
    assert repetition_share(["and so on " * 5], LEXICON) is None


@pytest.mark.parametrize("texts", [[], [""], ["no word of it", ""]], ids=["none", "empty", "zero"])
def test_a_score_of_0_has_no_share(texts: list[str]) -> None:
    assert repetition_share(texts, LEXICON) is None


# --- errors --------------------------------------------------------------------------------


def test_an_arm_without_texts_and_a_pair_without_a_cluster_are_errors() -> None:
    some = arm(1, 2)
    for source, base in (([], some), (some, [])):
        with pytest.raises(UsageError, match="an arm without a text"):
            separation(source, base, by_pair(some))
    with pytest.raises(UsageError, match="2 pairs without a cluster"):
        separation(some, arm(1, 2, first=7), by_pair(some))


def test_as_evidence_it_is_plain_and_whole() -> None:
    source, base = drawn(20, 1.0)
    found: Separation = separation(source, base, by_pair(base))
    assert found.to_dict() == {
        "auc": found.auc,
        "interval": list(found.interval),
        "level": LEVEL,
        "why": None,
        "by": "pair",
        "clusters": 20,
        "texts": {"source": 20, "base": 20},
        "false_positives": found.false_positives,
        "false_positive_rate": found.false_positives / 20,
        "false_positive_interval": list(found.rate_interval),
    }
    assert all(type(x) is float for x in (found.auc, *found.interval, *found.rate_interval))
