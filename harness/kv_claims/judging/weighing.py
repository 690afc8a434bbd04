"""Whether every pair weighs the same, or every cluster: two estimands where clusters are unequal.

A mean over pairs is that of a pair drawn at random, a mean over clusters that of a prompt. Pairs
that share prompts on one side are judged by clusters (what they share is then drawn once), crossed
pairs by pairs. Where the effect goes with the size of clusters the two are not the same number, and
no test tells which was meant. So every weighing's estimate is said, and where one lies outside the
interval of that which is judged, and would be answered otherwise, nothing is decided.
"""

from __future__ import annotations

from kv_claims.claims.claim import Region
from kv_claims.judging.arrays import Floats
from kv_claims.judging.estimand import contrast
from kv_claims.judging.fieller import Interval
from kv_claims.judging.frame import Grouping
from kv_claims.judging.rule import Rule


def weighings(grouping: Grouping, rule: Rule, sign: Floats) -> dict[str, float]:
    """The estimate by what weighs the same: that which is judged first, then any that differs.

    One alone where all clusters are of one size. sign: as `orientation`.
    """
    return {
        what: float(contrast(scores, rule.estimand, sign).estimate)
        for what, scores in grouping.weighed.items()
    }


def objection(found: dict[str, float], word: str, interval: Interval | None, region: Region) -> str:
    """Why a word does not stand for every weighing; '' where it does, or decides nothing."""
    (judged, estimate), *others = found.items()
    if word not in ("supported", "refuted") or interval is None:
        return ""
    odd = [
        f"{other:.3g} where {what} weigh the same"
        for what, other in others
        if not interval.low <= other <= interval.high
        and _side(other, region) != (0 if word == "supported" else _side(estimate, region))
    ]
    if not odd:
        return ""
    return (
        f"the answer hangs on what weighs the same: {estimate:.3g} where {judged} do ({word}), "
        f"{' and '.join(odd)}"
    )


def _side(value: float, region: Region) -> int:
    """Below, in, or above a region."""
    return int(value > region.high) - int(value < region.low)
