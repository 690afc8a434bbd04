"""From mean scores of arms to the two numbers a cluster that an estimand is made of.

Scores are those of one study, `[cluster]`, or of many at once, `[..., cluster]`.

Every estimand is a ratio of means, mean(effect) / mean(unit), so that one contrast
L = effect - edge * unit tests them all:

    transfer    (patched - base)   / (source - base)
    difference  (patched - versus) / (source - base)
    gap         (source - base)    / 1

It knows which arms an estimand needs; it tests nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal, NamedTuple

import numpy as np

from kv_claims.claims.claim import Estimand, Part
from kv_claims.claims.outcome import Outcome
from kv_claims.judging.checks import CONTROLS
from kv_claims.judging.fieller import Floats

Direction = Literal["up", "either"]
"""Where the source must lie: above the base, or clearly on one side of it, whichever."""

NEEDED: dict[Estimand, tuple[str, ...]] = {
    "transfer": ("base", "source", "patched"),
    "difference": ("base", "source", "patched", "versus"),
    "gap": ("base", "source"),
}
"""The arms that an estimand is made of."""

_EFFECT: dict[Estimand, tuple[str, str]] = {
    "transfer": ("patched", "base"),
    "difference": ("patched", "versus"),
    "gap": ("source", "base"),
}


def stands_in_table(role: str, estimand: Estimand) -> bool:
    """Whether an arm is judged with an estimand: one that it is made of, or a negative control."""
    return role in NEEDED[estimand] or role in CONTROLS


def direction_of(part: Part) -> Direction:
    """Geometry may contract or expand from base to source; a score must rise."""
    return "either" if Outcome.parse(part.outcome).is_geometry else "up"


class Contrast(NamedTuple):
    """Numerator and denominator of an estimand, `[..., cluster]` each.

    unit: source - base, or 1 where the estimand is in the outcome's own unit.
    size: magnitude of the scores that effect is the difference of, which bounds its rounding.
    most: how many units clusters of a kind that was not seen are taken to lie off, on average
        (`kv_claims.judging.unseen`); infinite where a unit of 1 bounds nothing.
    """

    effect: Floats
    unit: Floats
    size: Floats
    most: float = 1.0

    @property
    def estimate(self) -> Floats:
        """The ratio of means, `[...]`; NaN where there is no unit to count in."""
        unit = np.mean(self.unit, -1)
        found: Floats = np.mean(self.effect, -1) / np.where(unit == 0, np.nan, unit)
        return found


def orientation(scores: Mapping[str, Floats], direction: Direction) -> Floats:
    """-1 where the source lies below the base and may: scores are then read downwards; `[...]`.

    A ratio is the same read either way; its contrasts are not, as they assume a positive unit.
    """
    below = np.mean(scores["source"] - scores["base"], -1) < 0
    found: Floats = np.where(below & (direction == "either"), -1.0, 1.0)
    return found


def contrast(scores: Mapping[str, Floats], estimand: Estimand, sign: Floats) -> Contrast:
    """The contrast of an estimand. sign: as `orientation`; a gap is what it is in either."""
    of, against = _EFFECT[estimand]
    if estimand == "gap":
        found = between(scores, of, against, np.ones_like(sign))
        return found._replace(unit=np.ones_like(found.effect), most=math.inf)
    return between(scores, of, against, sign)


def between(scores: Mapping[str, Floats], of: str, against: str, sign: Floats) -> Contrast:
    """How far one arm lies from another, in units of source - base."""
    return Contrast(
        effect=_oriented(scores[of] - scores[against], sign),
        unit=_oriented(scores["source"] - scores["base"], sign),
        size=np.abs(scores[of]) + np.abs(scores[against]),
    )


def formula(estimand: Estimand) -> str:
    """The numerator in words."""
    return " - ".join(_EFFECT[estimand])


def _oriented(values: Floats, sign: Floats) -> Floats:
    turned: Floats = sign[..., None] * values + 0.0  # + 0.0: no negative zeros in evidence
    return turned
