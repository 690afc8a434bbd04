"""One verdict from two groupings of crossed pairs, by source and by base.

The less decisive word stands, with an interval that holds both, so that neither way of sharing
is ignored.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from kv_claims.claims.claim import Region
from kv_claims.judging.fieller import Interval
from kv_claims.judging.result import Verdict, Word

_DECISIVENESS: tuple[Word, ...] = ("invalid", "inconclusive", "refuted", "supported")
_DISAGREE = (
    "clusters by source and by base disagree; no number of pairs is known at which they would not"
)


def word_of_both(words: Sequence[npt.ArrayLike], around: npt.ArrayLike) -> npt.NDArray[np.str_]:
    """The word of crossed pairs from those of each grouping, `[...]` of one study or of many.

    around: whether the interval that holds those of both groupings meets the region.
    Groupings that decide oppositely, or refute on opposite sides of the region, decide nothing.
    """
    each = np.array([np.asarray(word) for word in words])
    least = np.select([(each == word).any(0) for word in _DECISIVENESS], _DECISIVENESS, "")
    supported, refuted = (each == "supported").any(0), (each == "refuted").any(0)
    torn = supported & refuted & (least != "invalid")
    return np.where(torn | ((least == "refuted") & around), "inconclusive", least)


def less_decisive(verdicts: list[Verdict], region: Region) -> Verdict:
    """Of the verdicts by each grouping: the less decisive word, and an interval that holds all."""
    first = min(verdicts, key=lambda verdict: _DECISIVENESS.index(verdict.word))
    if len(verdicts) == 1 or first.word == "invalid":
        return first
    level = max(one.level for one in verdicts)
    interval = _hull([_at(one, level) for one in verdicts])
    around = interval is None or not interval.disjoint(region.low, region.high)
    if word_of_both([one.word for one in verdicts], around) != first.word:
        first = replace(first, word="inconclusive", reason=_DISAGREE)
    return replace(
        first,
        level=level,
        interval=interval,
        interval_other=_hull([_at(one, level, other=True) for one in verdicts]),
        p_supported=_largest([one.p_supported for one in verdicts]),
        p_refuted=_largest([one.p_refuted for one in verdicts]),
    )


def _at(verdict: Verdict, level: float, *, other: bool = False) -> Interval | None:
    """A verdict's interval at a level, or the one at the other level."""
    return verdict.interval if (verdict.level == level) != other else verdict.interval_other


def _largest(values: list[float | None]) -> float | None:
    """The p-value of what every grouping must show; None where one of them tested nothing."""
    found = [value for value in values if value is not None]
    return max(found) if len(found) == len(values) else None


def _hull(intervals: list[Interval | None]) -> Interval | None:
    """The smallest interval that holds all; None where one of them is unbounded."""
    found = [one for one in intervals if one is not None]
    if len(found) < len(intervals):
        return None
    return Interval(min(one.low for one in found), max(one.high for one in found))
