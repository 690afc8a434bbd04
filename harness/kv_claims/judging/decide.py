"""The rule itself: from scores to a word, for one study or for thousands at once.

The one place where a verdict is decided. `kv_claims.judging.verdict` calls it for a study and puts
what it found into sentences; `kv_claims.calibration` calls it for many studies of a known truth and
counts how often it errs. Scores are `[..., cluster]`; everything found is `[...]`.

The order is fixed: a gap between source and base (where the estimand is a share of it), contrasts
that vary, clusters enough that carry them, the tests at the region's edges, a ratio that is
identified, and the negative controls.
Checks of the instrument, and whether there are clusters enough, come before.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from kv_claims.claims.claim import FEWEST_PAIRS
from kv_claims.judging.contrast import (
    EdgeTests,
    edge_tests,
    interval_ends,
    one_sided,
    too_few_carry,
)
from kv_claims.judging.controls import Controls, Standing, compare, gate
from kv_claims.judging.crossed import Sharing
from kv_claims.judging.estimand import (
    NEGATIVE,
    Arms,
    Contrast,
    between,
    contrast,
    orientation,
    spans,
)
from kv_claims.judging.fieller import Bools, Floats, weakness
from kv_claims.judging.result import Word
from kv_claims.judging.rule import ALPHA, Rule

CEILING_ALPHA = 0.005
WEAK_RATIO = 0.1
FEWEST_CLUSTERS = FEWEST_PAIRS

Codes = npt.NDArray[np.int64]


class Why(IntEnum):
    """What decided, in the order of the questions; each has its word."""

    NO_CEILING = 0
    DEGENERATE = 1
    FEW_CARRY = 2
    OUTSIDE = 3
    BETWEEN = 4
    WEAK_RATIO = 5
    CONTROL_MOVES = 6
    CONTROL_UNDECIDED = 7
    CONTROL_AS_FAR = 8
    CONTROL_MAYBE_AS_FAR = 9
    INSIDE = 10

    @property
    def word(self) -> Word:
        return _WORDS[self]


_WORDS: dict[Why, Word] = {
    Why.NO_CEILING: "invalid",
    Why.DEGENERATE: "invalid",
    Why.FEW_CARRY: "inconclusive",
    Why.OUTSIDE: "refuted",
    Why.BETWEEN: "inconclusive",
    Why.WEAK_RATIO: "inconclusive",
    Why.CONTROL_MOVES: "invalid",
    Why.CONTROL_UNDECIDED: "inconclusive",
    Why.CONTROL_AS_FAR: "invalid",
    Why.CONTROL_MAYBE_AS_FAR: "inconclusive",
    Why.INSIDE: "supported",
}
_OF_STANDING = {
    Standing.MOVES: Why.CONTROL_MOVES,
    Standing.UNDECIDED: Why.CONTROL_UNDECIDED,
    Standing.AS_FAR: Why.CONTROL_AS_FAR,
    Standing.MAYBE_AS_FAR: Why.CONTROL_MAYBE_AS_FAR,
    Standing.CLEAR: Why.INSIDE,
}


class Ceiling(NamedTuple):
    """Whether one arm lies off another. p: one-sided; NaN where their difference does not vary."""

    arms: Arms
    mean: Floats
    p: Floats
    passed: Bools


class Decision(NamedTuple):
    """What the rule found, `[...]` each; `why` holds `Why` codes.

    found: the contrast of the estimand. ceilings: of the gap, and
    of what else the estimand is a share of; none where it is a share of nothing.
    weakness: Fieller's g at 95%. controls: by name, those that were run.
    """

    why: Codes
    found: Contrast
    ceilings: tuple[Ceiling, ...]
    tests: EdgeTests
    weakness: Floats
    controls: dict[str, Controls]

    def has_word(self, word: Word) -> Bools:
        """Where the word is this one."""
        return np.isin(self.why, [why for why in Why if why.word == word])


def decide(
    scores: Mapping[str, Floats],
    rule: Rule,
    sign: Floats | None = None,
    sharing: Sharing | None = None,
) -> Decision:
    """Judge mean scores by cluster of each arm, `[..., cluster]`, by a rule.

    scores: the arms of the estimand, and any negative controls beside them.
    sign: which way they are read, as `orientation`; None: as these lie.
    sharing: of pairs that share sources and bases both, whose scores stand for the clusters'.
    Raises ValueError for fewer clusters than can be judged.
    """
    sign = orientation(scores, rule.direction) if sign is None else sign
    found = contrast(scores, rule.estimand, sign, sharing)
    if (n := found.moments.clusters) < FEWEST_CLUSTERS:
        raise ValueError(f"{n} clusters, expected at least {FEWEST_CLUSTERS}")
    ceilings = tuple(_ceiling(scores, sign, arms, sharing) for arms in spans(rule.estimand))
    tests = edge_tests(found, rule.region)
    few = too_few_carry(found)
    weak = weakness(found.moments, 1 - ALPHA)
    negative = [arm for arm in NEGATIVE[rule.estimand] if arm in scores]
    controls = compare(scores, negative, sign, rule, sharing)
    inside = tests.p_supported <= rule.alpha
    outside = (tests.p_refuted <= rule.alpha_refuted) & _bounded(found, rule.refuted_level)
    too_weak = (weak >= WEAK_RATIO) | ~_bounded(found, rule.supported_level)
    shape = found.effect.shape[:-1]
    never: Bools = np.zeros(shape, np.bool_)
    standing = gate(controls, rule, shape)
    conditions: list[tuple[Why, Bools | np.bool_]] = [
        (Why.NO_CEILING, ~np.all([one.passed for one in ceilings], 0) if ceilings else never),
        (Why.DEGENERATE, tests.flat.any(0)),
        (Why.FEW_CARRY, few),
        (Why.OUTSIDE, outside & ~inside),
        (Why.BETWEEN, ~inside),
        (Why.WEAK_RATIO, too_weak if rule.is_ratio else never),
        *((why, standing == state) for state, why in _OF_STANDING.items() if why != Why.INSIDE),
    ]
    why = np.select(
        [where for _, where in conditions],
        [np.int64(code) for code, _ in conditions],
        np.int64(Why.INSIDE),
    )
    return Decision(why, found, ceilings, tests, weak, controls)


def _bounded(found: Contrast, level: float) -> Bools:
    """Where there is an interval."""
    bounded: Bools = np.isfinite(interval_ends(found, level)[0])
    return bounded


def _ceiling(
    scores: Mapping[str, Floats], sign: Floats, arms: Arms, sharing: Sharing | None
) -> Ceiling:
    """Whether one arm lies off another, at 0.005 a side; without spread, by sign alone.

    Above it where the direction is 'up', below it where it is 'down'. Read the way the scores lie
    where it is 'either', which is a two-sided test at twice that.
    """
    gap = between(scores, *arms, sign, sharing=sharing)
    p = one_sided(gap, "greater")
    mean = np.mean(gap.effect, -1)
    with np.errstate(invalid="ignore"):
        passed = np.where(np.isnan(p), mean > 0, p < CEILING_ALPHA)
    return Ceiling(arms, sign * mean, p, passed)
