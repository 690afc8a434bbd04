"""One verdict from two groupings of crossed pairs, by source and by base.

The less decisive word stands, with an interval that holds both, so that neither way of sharing
is ignored.
"""

from __future__ import annotations

from dataclasses import replace

from harness.claim import Region
from harness.judging.fieller import Interval
from harness.judging.result import Verdict, Word

_DECISIVENESS: tuple[Word, ...] = ("invalid", "inconclusive", "refuted", "supported")


def less_decisive(verdicts: list[Verdict], region: Region) -> Verdict:
    """Of the verdicts by each grouping: the less decisive word, and an interval that holds all.

    Groupings that decide oppositely, or refute on opposite sides of the region, decide nothing.
    """
    first = min(verdicts, key=lambda verdict: _DECISIVENESS.index(verdict.word))
    if len(verdicts) == 1 or first.word == "invalid":
        return first
    level = max(one.level for one in verdicts)
    interval = _hull([_at(one, level) for one in verdicts])
    torn = {one.word for one in verdicts} == {"supported", "refuted"}
    around = interval is None or not interval.disjoint(region.low, region.high)
    if torn or (first.word == "refuted" and around):
        reason = "clusters by source and by base disagree"
        first = replace(first, word="inconclusive", reason=reason)
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
