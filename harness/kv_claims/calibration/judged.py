"""Many studies of a known truth, judged by the rule itself: how often is it wrong?

The rule is `kv_claims.judging.decide`, the very code that `kv_claims.judge` runs on one study. The
regions that are judged are laid around the truth: with it on either edge, outside by a third of
the region's width, and inside by as much.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, Protocol

import numpy as np
from scipy import stats

from kv_claims.calibration.rows import Row, Wanted
from kv_claims.claims.claim import MARGIN, Estimand, Region
from kv_claims.judging.contrast import interval_ends
from kv_claims.judging.crossed import Sharing
from kv_claims.judging.decide import Decision, decide
from kv_claims.judging.estimand import contrast, orientation
from kv_claims.judging.fieller import Bools, Floats
from kv_claims.judging.hall import MOST_SKEWED
from kv_claims.judging.result import WORDS
from kv_claims.judging.rule import ALPHA, Rule

WIDTH = 0.2
"""Of the regions, as a share of source - base: that of the seed's 80% +- 10."""
EDGES = ("at low edge", "at high edge")
FEW_ERRORS = (
    *(Wanted(f"supported {place}", "at most", 0.05) for place in EDGES),
    *(Wanted(f"refuted {place}", "at most", 0.025) for place in EDGES),
    Wanted("supported outside", "at most", 0.01),
    Wanted("refuted inside", "at most", 0.01),
)
"""What is wanted of the regions of `placed`."""
_SELDOM = 0.01
Scores = Mapping[str, Floats]
"""Mean score by arm, `[study, cluster]`."""


class Studies(Protocol):
    """What studies are drawn from. truth: the expected score of each arm."""

    @property
    def truth(self) -> dict[str, float]: ...
    def draw(
        self, rng: np.random.Generator, studies: int, pairs: int, seeds: int
    ) -> dict[str, Floats]: ...


class Size(NamedTuple):
    """How many studies, of how many pairs and seeds each."""

    studies: int
    pairs: int = 20
    seeds: int = 1


def true_value(truth: Mapping[str, float], estimand: Estimand) -> float:
    """The estimand of the population."""
    arms = {arm: np.array([mean]) for arm, mean in truth.items()}
    return float(contrast(arms, estimand, np.array(1.0)).estimate)


def means(law: Studies, rng: np.random.Generator, size: Size) -> dict[str, Floats]:
    """Mean score of each pair and arm, `[study, pair]`, of fresh studies."""
    return {arm: scores.mean(-1) for arm, scores in law.draw(rng, *size).items()}


def placed(truth: float, width: float) -> dict[str, Region]:
    """Regions of a width by where they leave the truth."""
    third = width / 3
    return {
        "at low edge": Region(truth, truth + width),
        "at high edge": Region(truth - width, truth),
        "outside": Region(truth + third, truth + third + width),
        "inside": Region(truth - third, truth - third + width),
    }


def rule_for(region: Region, estimand: Estimand = "transfer", alpha: float = ALPHA) -> Rule:
    """The rule for a region, with a margin that goes with it."""
    nearest = max(region.low, -region.high)
    margin = min(MARGIN, nearest) if nearest > 0 else MARGIN
    return Rule(region, estimand, margin=margin, alpha=alpha, alpha_refuted=alpha)


def errors_row(
    group: str,
    cell: str,
    law: Studies,
    rng: np.random.Generator,
    size: Size,
    *,
    estimand: Estimand = "transfer",
    conservative: bool = False,
) -> Row:
    """Coverage, width and error rates of one cell, with all that is wanted of them.

    conservative: that intervals may cover too often, as where pairs are given and luck alone is
        fresh. They may as well where the sample is too skewed for a test in over 1% of studies.
    """
    scores, truth = means(law, rng, size), true_value(law.truth, estimand)
    in_own_unit = estimand in ("shift", "gap")
    gap = law.truth["source"] - law.truth["base"] if in_own_unit else 1.0
    found = contrast(scores, estimand, orientation(scores, "up"))
    low, high = interval_ends(found, 0.95)
    facts: dict[str, str | int | float] = {
        "pairs": size.pairs,
        "seeds": size.seeds,
        "truth": truth,
        "median width": float(np.nanmedian(high - low)),
    }
    if not found.effect.any():
        counts = {"covered": int(covers(low, high, truth).sum())}
        always = (Wanted("covered", "at least", 1.0),)
        return Row(group, cell, size.studies, facts, counts, always, "no pair changes, ever")
    facts["skewness"] = float(stats.skew((found.effect - truth * found.unit).ravel()))
    judged = {
        place: decide(scores, rule_for(region, estimand))
        for place, region in placed(truth, WIDTH * gap).items()
    }
    counts = {
        "covered": int(covers(low, high, truth).sum()),
        **{
            f"{word} {place}": int(judged[place].has_word(word).sum())
            for place in judged
            for word in ("supported", "refuted")
        },
        "invalid": int(judged["inside"].has_word("invalid").sum()),
    }
    # No interval, or one by a count of few, holds the truth more often than it says.
    withheld = np.abs(found.moments.skewness) > MOST_SKEWED
    if found.of == "means":
        counts["too skewed for a test"] = int(withheld.sum())
        conservative |= bool(withheld.mean() > _SELDOM)
    wanted = (
        Wanted("covered", "at least", 0.94) if conservative else Wanted("covered", "within"),
        *FEW_ERRORS,
    )
    return Row(group, cell, size.studies, facts, counts, wanted)


def words_row(
    group: str,
    cell: str,
    law: Studies,
    rng: np.random.Generator,
    size: Size,
    region: Region,
    *,
    wanted: tuple[Wanted, ...] = (),
    note: str = "",
) -> Row:
    """How often each word is reached on one region, controls and all."""
    scores = means(law, rng, size)
    judged = decide(scores, rule_for(region))
    truth = law.truth
    has_gap = truth["source"] != truth["base"]
    facts: dict[str, str | int | float] = {
        "pairs": size.pairs,
        "truth": true_value(truth, "transfer") if has_gap else "no gap",
        "region": str(region),
    }
    return Row(group, cell, size.studies, facts, word_counts(judged), wanted, note)


def word_counts(judged: Decision) -> dict[str, int]:
    """Studies by word."""
    return {word: int(judged.has_word(word).sum()) for word in WORDS}


def covers(low: Floats, high: Floats, truth: float) -> Bools:
    """Whether intervals hold the truth; one that is unbounded holds it."""
    missed: Bools = (low > truth) | (high < truth)
    return ~missed


def by_cluster(scores: Scores, cluster: np.ndarray) -> dict[str, Floats]:
    """Unweighted means of the pairs of each cluster, `[study, cluster]`. cluster: `[pair]`."""
    n = int(cluster.max()) + 1
    share = np.zeros((len(cluster), n))
    share[np.arange(len(cluster)), cluster] = 1.0
    share /= share.sum(0)
    return {arm: values @ share for arm, values in scores.items()}


def judge_crossed(scores: Scores, sharing: Sharing, rule: Rule) -> tuple[Decision, Floats, Floats]:
    """What the rule finds of crossed pairs, and the ends of the interval at its level; `[study]`.

    scores: by pair, `[study, pair]`.
    """
    judged = decide(scores, rule, sharing=sharing)
    return judged, *interval_ends(judged.found, rule.refuted_level)
