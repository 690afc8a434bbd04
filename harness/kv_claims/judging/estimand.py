"""From mean scores of arms to the two numbers a cluster that an estimand is made of.

Scores are those of one study, `[cluster]`, or of many at once, `[..., cluster]`.

Every estimand is a ratio of means, mean(effect) / mean(unit), so that one contrast
L = effect - edge * unit tests them all:

    transfer    (patched - base)   / (source - base)
    difference  (patched - versus) / (source - base)
    carried     (patched - unrelated-base) / (source - unrelated-base)
    shift, rate (patched - base)   / 1
    gap         (source - base)    / 1
    auroc       the placements of source and base (`kv_claims.judging.ranks`) / 1

An effect size is (patched - base) over the spread of that: no ratio of means, and tested by a law
of its own (`kv_claims.judging.standardized`), as a rate is (`kv_claims.judging.proportions`).

Where an outcome sets the source against the base (a difference of log-probabilities), an arm whose
trace of the base is merely wiped lies half-way, whatever was pasted over it. What is carried counts
from such an arm, that in which the same patch came from another base: resample ablation is its
zero (Chan et al., Causal scrubbing, 2022; for what a baseline does to patching: Zhang and Nanda,
arXiv 2309.16042; Heimersheim and Nanda, arXiv 2404.15255).

It knows which arms an estimand needs, and which controls it has; it tests nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np

from kv_claims.claims.claim import Estimand, Part
from kv_claims.claims.outcome import Outcome
from kv_claims.judging import standardized
from kv_claims.judging.arrays import Floats
from kv_claims.judging.checks import CONTROLS
from kv_claims.judging.crossed import Sharing
from kv_claims.judging.moments import Moments, moments
from kv_claims.judging.ranks import placements

Direction = Literal["up", "down", "either"]
"""Where the source must lie: above the base, below it, or clearly on one side of it, whichever."""

NEEDED: dict[Estimand, tuple[str, ...]] = {
    "transfer": ("base", "source", "patched"),
    "difference": ("base", "source", "patched", "versus"),
    "carried": ("base", "source", "patched", "unrelated-base"),
    "shift": ("base", "patched"),
    "rate": ("base", "patched"),
    "effect_size": ("base", "patched"),
    "gap": ("base", "source"),
    "auroc": ("base", "source"),
}
"""The arms that an estimand is made of."""

Arms = tuple[str, str]
"""Two arms of which the second is taken from the first."""
_GAP: Arms = ("source", "base")

_EFFECT: dict[Estimand, Arms] = {
    "transfer": ("patched", "base"),
    "difference": ("patched", "versus"),
    "carried": ("patched", "unrelated-base"),
    "shift": ("patched", "base"),
    "rate": ("patched", "base"),
    "effect_size": ("patched", "base"),
    "gap": ("source", "base"),
    "auroc": ("source", "base"),
}
_WHOLE: dict[Estimand, Arms] = {
    "transfer": _GAP,
    "difference": _GAP,
    "carried": ("source", "unrelated-base"),
}
"""What an estimand is a share of; those in the outcome's own unit are none of anything."""

NEGATIVE: dict[Estimand, tuple[str, ...]] = {
    "transfer": CONTROLS,
    "difference": CONTROLS,
    # An unrelated base is its zero; what the wrong layers do by being wiped was not measured.
    "carried": ("noise",),
    "shift": CONTROLS,
    "rate": CONTROLS,
    "effect_size": CONTROLS,
    "gap": (),
    "auroc": (),
}
"""The negative controls that it is held against, where they were run."""


def stands_in_table(role: str, estimand: Estimand) -> bool:
    """Whether an arm is judged with an estimand: one that it is made of, or a negative control."""
    return role in NEEDED[estimand] or role in CONTROLS


def direction_of(part: Part, *, falls: bool = False) -> Direction:
    """Some outcomes may rise or fall from base to source (geometry, a loss); a score must rise.

    falls: whether the task says that its own score must fall (`Task.falls`).
    """
    outcome = Outcome.parse(part.outcome)
    if falls and outcome.name == "behavior":
        return "down"
    return "either" if outcome.may_fall else "up"


@dataclass(frozen=True, eq=False)
class Contrast:
    """Numerator and denominator of an estimand, `[..., cluster]` each.

    unit: source - base, or what else the estimand is a share of; 1 where it is in the outcome's own
        unit.
    size: magnitude of the scores that effect is the difference of, which bounds its rounding.
    most: how many units clusters of a kind that was not seen are taken to lie off, on average
        (`kv_claims.judging.unseen`); infinite where a unit of 1 bounds nothing.
    of: whether effects are means like any other, items that are right in one arm alone, or taken
        over their own spread.
    sharing: of pairs that are crossed, whose numbers then are those of pairs: which source and
        base each has.
    is_gate: whether it is a control's, which qualifies a word and is none: where it is too skewed
        it is tested all the same, and no more clearly than if no cluster had been unlike.
    """

    effect: Floats
    unit: Floats
    size: Floats
    most: float | Floats = 1.0
    of: Literal["means", "proportions", "standardized"] = "means"
    sharing: Sharing | None = None
    is_gate: bool = False

    @cached_property
    def moments(self) -> Moments:
        """What tests and intervals are made of."""
        return moments(self.effect, self.unit, self.size, self.sharing)

    @property
    def estimate(self) -> Floats:
        """The ratio of means, `[...]`; NaN where there is no unit to count in."""
        if self.of == "standardized":
            return standardized.estimate(self.effect)
        unit = np.mean(self.unit, -1)
        found: Floats = np.mean(self.effect, -1) / np.where(unit == 0, np.nan, unit)
        return found


def orientation(scores: Mapping[str, Floats], direction: Direction) -> Floats:
    """-1 where the source lies below the base and may, and where it must: scores are then read
    downwards; `[...]`.

    A ratio is the same read either way; its contrasts are not, as they assume a positive unit.
    Without a source nothing is a share, and all is read as it lies.
    """
    if "source" not in scores:
        return np.ones(scores["base"].shape[:-1])
    below = np.mean(scores["source"] - scores["base"], -1) < 0
    is_down = (below & (direction == "either")) | (direction == "down")
    found: Floats = np.where(is_down, -1.0, 1.0)
    return found


def contrast(
    scores: Mapping[str, Floats],
    estimand: Estimand,
    sign: Floats,
    sharing: Sharing | None = None,
) -> Contrast:
    """The contrast of an estimand. sign: as `orientation`; what is no share is so in either."""
    return between(scores, *_EFFECT[estimand], sign, estimand, sharing)


def between(
    scores: Mapping[str, Floats],
    of: str,
    against: str,
    sign: Floats,
    estimand: Estimand = "transfer",
    sharing: Sharing | None = None,
) -> Contrast:
    """How far one arm lies from another, in the unit of an estimand."""
    apart = scores[of] - scores[against]
    size = np.abs(scores[of]) + np.abs(scores[against])
    if (of_what := whole(estimand)) is None:
        effect, unit = apart + 0.0, np.ones(scores["base"].shape)
        if estimand == "rate":
            return Contrast(effect, unit, size, of="proportions")
        if estimand == "effect_size":
            return Contrast(effect, unit, size, of="standardized")
        if estimand == "auroc":
            return Contrast(placements(scores[of], scores[against]), unit, unit)
        return Contrast(effect, unit, size, most=math.inf, sharing=sharing)
    top, bottom = of_what
    of_what_apart = _oriented(scores[top] - scores[bottom], sign)
    return Contrast(_oriented(apart, sign), of_what_apart, size, sharing=sharing)


def whole(estimand: Estimand) -> Arms | None:
    """What an estimand is a share of, at the second arm 0, at the first 1; None of no share."""
    return _WHOLE.get(estimand)


def zero(estimand: Estimand) -> str:
    """The arm at which an estimand of a patch is 0."""
    return _WHOLE.get(estimand, _GAP)[1]


def spans(estimand: Estimand) -> tuple[Arms, ...]:
    """Which arms must lie apart for a share to exist: source and base, and what it is of."""
    of_what = whole(estimand)
    return () if of_what is None else tuple(dict.fromkeys((_GAP, of_what)))


def unit_text(estimand: Estimand) -> str:
    """What an estimand is counted in, in words."""
    of_what = whole(estimand)
    return "one unit" if of_what is None else difference_text(of_what)


def formula(estimand: Estimand) -> str:
    """The numerator in words."""
    return difference_text(_EFFECT[estimand])


def difference_text(arms: Arms) -> str:
    """`source - base`."""
    return " - ".join(arms)


def _oriented(values: Floats, sign: Floats) -> Floats:
    turned: Floats = sign[..., None] * values + 0.0  # + 0.0: no negative zeros in evidence
    return turned
