"""How many pairs a verdict takes, by running the rule on studies that are like a pilot.

Studies are drawn from a normal law with the means and the covariance that a pilot's arms had over
clusters (or that are stated), and judged by `kv_claims.judging.decide`, controls and all: so power
is that of the very rule, for the estimand, the level and the region at hand.

What it cannot know: whether the pilot's means are the truth (another transfer can be assumed), and
how skewed scores are (docs/calibration.md says what that does).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from kv_claims.claims.claim import OF_SPREADS
from kv_claims.errors import UsageError
from kv_claims.judging.contrast import interval_ends
from kv_claims.judging.decide import FEWEST_CLUSTERS, Decision, decide
from kv_claims.judging.estimand import contrast, orientation, whole
from kv_claims.judging.fieller import Floats
from kv_claims.judging.frame import Spread
from kv_claims.judging.result import WORDS, Word
from kv_claims.judging.rule import Rule

STUDIES = 400
"""Simulated for each number of pairs; a rate's standard error is at most 0.025."""
MOST_CLUSTERS = 4000
"""More than this is not looked for."""
_CHUNK = 4_000_000
"""Scores drawn at once."""


class Outlook(NamedTuple):
    """What so many pairs would give. rates: of each word. width: median, of the 95% interval."""

    pairs: int
    rates: dict[Word, float]
    width: float


def outlook(spreads: Sequence[Spread], rule: Rule, pairs: int) -> Outlook:
    """What a fresh study of so many pairs would give.

    spreads: one for each way in which pairs are grouped; of crossed pairs the less hopeful counts.
    Raises UsageError for fewer pairs than make the fewest clusters that are judged.
    """
    each = [_outlook(spread, rule, pairs) for spread in spreads]
    return min(each, key=lambda one: one.rates["supported"] + one.rates["refuted"])


def pairs_for(
    spreads: Sequence[Spread], rule: Rule, word: Word, power: float = 0.8
) -> Outlook | None:
    """The fewest pairs at which a word is reached with so much power; None if none is found.

    The search assumes that power grows with pairs; luck is the same at every number.
    """
    a_cluster = max(spread.pairs / spread.clusters for spread in spreads)
    low, high = 0, FEWEST_CLUSTERS
    while (found := outlook(spreads, rule, _pairs(high, a_cluster))).rates[word] < power:
        if high == MOST_CLUSTERS:
            return None
        low, high = high, min(2 * high, MOST_CLUSTERS)
    while high - low > max(1, high // 50) and low >= FEWEST_CLUSTERS:
        middle = (low + high) // 2
        now = outlook(spreads, rule, _pairs(middle, a_cluster))
        if now.rates[word] < power:
            low = middle
        else:
            high, found = middle, now
    return found


def expected_word(spreads: Sequence[Spread], rule: Rule) -> Word:
    """The word that enough pairs would give if the means were the truth (controls aside)."""
    estimate = estimate_of(spreads[0], rule)
    return "supported" if estimate in rule.region else "refuted"


def estimate_of(spread: Spread, rule: Rule) -> float:
    """The estimand of the means."""
    means = {arm: np.array([mean]) for arm, mean in zip(spread.arms, spread.means, strict=True)}
    return float(contrast(means, rule.estimand, orientation(means, rule.direction)).estimate)


def at_value(spread: Spread, rule: Rule, value: float) -> Spread:
    """The same spreads, with the first arm's mean where the estimand would have another value."""
    means = dict(zip(spread.arms, spread.means, strict=True))
    now = estimate_of(spread, rule)
    if rule.estimand in OF_SPREADS:
        raise UsageError(
            f"{rule.estimand}: no other value can be assumed, as it hangs on spreads as much as on "
            "means; expected the pilot's own"
        )
    if (arms := whole(rule.estimand)) is not None:
        means["patched"] += (value - now) * (means[arms[0]] - means[arms[1]])
    else:
        means["source" if rule.estimand == "gap" else "patched"] += value - now
    return spread._replace(means=[means[arm] for arm in spread.arms])


def stated(value: float, noise: float, gap_spread: float) -> Spread:
    """A spread from two numbers, both as shares of source - base: of transfers, without controls.

    value: the transfer. noise: standard deviation over pairs of (patched - base) - value * gap.
    gap_spread: that of the gap itself. Raises UsageError for a spread that is not above 0, and
    numbers that are not finite.
    """
    if not np.isfinite([value, noise, gap_spread]).all() or noise <= 0 or gap_spread < 0:
        raise UsageError(
            f"transfer {value}, spread {noise}, gap spread {gap_spread}: expected finite numbers, "
            "the spread above 0, the gap spread at least 0"
        )
    gap = gap_spread**2
    covariance = [
        [0.0, 0.0, 0.0],
        [0.0, gap, value * gap],
        [0.0, value * gap, value**2 * gap + noise**2],
    ]
    return Spread("pair", 1, 1, ("base", "source", "patched"), [0.0, 1.0, value], covariance)


def _pairs(clusters: int, a_cluster: float) -> int:
    return int(np.ceil(clusters * a_cluster))


def _outlook(spread: Spread, rule: Rule, pairs: int) -> Outlook:
    clusters = int(pairs * spread.clusters / spread.pairs)
    if clusters < FEWEST_CLUSTERS:
        raise UsageError(
            f"{pairs} pairs make {clusters} clusters by {spread.by}, expected at least "
            f"{FEWEST_CLUSTERS}"
        )
    counts, widths = dict.fromkeys(WORDS, 0), []
    at_once = max(1, _CHUNK // (clusters * len(spread.arms)))
    for first in range(0, STUDIES, at_once):
        # Not seeded by the size: where all studies are drawn at once, sizes share their luck.
        rng = np.random.default_rng(first)
        judged = decide(_draw(spread, rng, min(at_once, STUDIES - first), clusters), rule)
        for word in WORDS:
            counts[word] += int(judged.has_word(word).sum())
        widths.append(_widths(judged))
    rates: dict[Word, float] = {word: count / STUDIES for word, count in counts.items()}
    every = np.concatenate(widths)
    return Outlook(pairs, rates, float(np.median(np.where(np.isnan(every), np.inf, every))))


def _draw(
    spread: Spread, rng: np.random.Generator, studies: int, clusters: int
) -> dict[str, Floats]:
    """Mean scores of each arm, `[study, cluster]`; of more clusters, the first are the same."""
    shape = (clusters, studies)
    drawn = rng.multivariate_normal(spread.means, spread.covariance, shape, method="svd")
    return {arm: np.ascontiguousarray(drawn[..., n].T) for n, arm in enumerate(spread.arms)}


def _widths(judged: Decision) -> Floats:
    low, high = interval_ends(judged.found, 0.95)
    return high - low
