"""The verdict on one claim: supported, refuted, inconclusive or invalid.

The order is fixed: instrument checks, then the assay (enough pairs, a gap between source and
base), then the contrasts, then the negative controls. *Invalid* says that nothing was measured;
it is never a kind of *refuted*.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from math import ceil
from typing import Literal

import numpy as np
import pandas as pd
from scipy import stats

from harness.claim import Region, check_margin
from harness.errors import UsageError
from harness.judging.checks import CONTROLS, Check, with_all_named
from harness.judging.contrast import edge_tests, pairs_to_decide, varies
from harness.judging.fieller import Floats, Interval, fieller, weakness
from harness.judging.frame import ARMS, Grouping, check_frame, groupings, holes

Word = Literal["supported", "refuted", "inconclusive", "invalid"]

ALPHA = 0.05
CEILING_ALPHA = 0.005
WEAK_RATIO = 0.1
FEWEST_CLUSTERS = 10
_DECISIVENESS: tuple[Word, ...] = ("invalid", "inconclusive", "refuted", "supported")


@dataclass(frozen=True)
class Verdict:
    """What was found.

    verified: every check was run (passed or not); False for a bare table of scores.
    estimate, interval: transfer (1 is the source), the interval at `level`; None where the data
        do not identify it.
    interval_other: the interval at the other of the two levels (0.90, 0.95).
    means: mean score of each arm over clusters, in the task's unit.
    pairs_needed: with inconclusive, the pairs that would decide at the observed means and
        spreads; None if none would.
    """

    word: Word
    reason: str
    verified: bool
    estimate: float | None
    interval: Interval | None
    level: float
    interval_other: Interval | None
    means: dict[str, float]
    pairs: int
    clusters: int
    checks: tuple[Check, ...]
    p_supported: float | None = None
    p_refuted: float | None = None
    pairs_needed: int | None = None
    controls: dict[str, dict[str, object]] = field(default_factory=dict)


def judge(
    frame: pd.DataFrame,
    region: Region,
    *,
    margin: float = 0.10,
    checks: Sequence[Check] = (),
    alpha: float = ALPHA,
) -> Verdict:
    """Judge a table of trials against a claimed region.

    frame: one row a trial, columns `pair, arm, seed, score`; arm is base, source, patched, or a
        control (unrelated-base, noise, wrong-layer). Pairs that share a source or a base:
        columns `source`, `base`, or one column `cluster`.
    margin: how far from 0 a control's transfer may lie.
    checks: instrument checks already made; those that are not among them are listed as not run.
    Raises UsageError for a table that cannot be read as trials.
    """
    check_frame(frame)
    check_margin(margin, region)
    if unknown := sorted(set(frame["arm"].astype(str)) - {*ARMS, *CONTROLS}):
        raise UsageError(f"trials: arms {unknown}, expected {[*ARMS, *CONTROLS]} only")
    made = with_all_named(checks)
    arms = [arm for arm in (*ARMS, *CONTROLS) if arm in set(frame["arm"])]
    absent = [arm for arm in ARMS if arm not in arms]
    if "source" in absent or "base" in absent:
        made.append(Check("no-ceiling", False, f"no {' and no '.join(absent)} arm was run"))
        return _invalid(frame, made, {})
    if absent:
        made.append(Check("silent-n", False, "no patched arm was run"))
        return _invalid(frame, made, {})
    if lacking := holes(frame, arms):
        made.append(Check("silent-n", False, f"trials are missing: {lacking}"))
        return _invalid(frame, made, {})
    verdicts = [
        _judge_clusters(frame, grouping, region, margin, made, alpha)
        for grouping in groupings(frame)
    ]
    return _less_decisive(verdicts, region)


def _judge_clusters(
    frame: pd.DataFrame,
    grouping: Grouping,
    region: Region,
    margin: float,
    made: list[Check],
    alpha: float,
) -> Verdict:
    scores, n = grouping.scores, grouping.clusters
    means = {arm: float(np.mean(values)) for arm, values in scores.items()}
    checks = [*made, _enough(grouping)]
    if n < FEWEST_CLUSTERS:
        return _invalid(frame, checks, means, n)
    gap, effect = scores["source"] - scores["base"], scores["patched"] - scores["base"]
    checks.append(_ceiling(gap))
    failed = any(check.passed is False for check in checks)
    if failed:
        return _invalid(frame, checks, means, n, (effect, gap))
    tests = edge_tests(effect, gap, region)
    if tests.degenerate:
        detail = f"patched - edge * (source - base) does not vary at edge {tests.degenerate[0]:g}"
        return _invalid(
            frame, [*checks, Check("degenerate", False, detail)], means, n, (effect, gap)
        )
    weak = weakness(gap, 1 - alpha)
    word: Word = (
        "supported"
        if tests.p_supported <= alpha
        else "refuted"
        if tests.p_refuted <= alpha and weak < 1
        else "inconclusive"
    )
    a_cluster = frame["pair"].nunique() / n
    reason, needed = _contrast_reason(word, effect, gap, region, alpha, a_cluster)
    checks.append(
        Check("weak-ratio", weak < WEAK_RATIO, f"Fieller's g {weak:.3g}, below {WEAK_RATIO} wanted")
    )
    if word == "supported" and weak >= WEAK_RATIO:
        word, needed = "inconclusive", ceil(n * weak / WEAK_RATIO * a_cluster)
        reason = (
            f"weak ratio: g = {weak:.3g}; a fresh study of about {needed} pairs would have it "
            f"below {WEAK_RATIO}"
        )
    controls = _controls(scores, gap, margin, alpha)
    gates = 0.0 not in region
    checks.extend(_control_checks(controls, margin, gates))
    if word == "supported" and gates:
        word, reason = _gate(controls, word, reason, margin)
    level = 1 - 2 * alpha if word == "supported" else 1 - alpha
    other = 1 - alpha if word == "supported" else 1 - 2 * alpha
    return Verdict(
        word=word,
        reason=reason,
        verified=all(check.passed is not None for check in checks),
        estimate=_ratio(effect, gap),
        interval=fieller(effect, gap, level),
        level=level,
        interval_other=fieller(effect, gap, other),
        means=means,
        pairs=frame["pair"].nunique(),
        clusters=n,
        checks=tuple(checks),
        p_supported=tests.p_supported,
        p_refuted=tests.p_refuted,
        pairs_needed=needed if word == "inconclusive" else None,
        controls=controls,
    )


def _enough(grouping: Grouping) -> Check:
    what = "pairs" if grouping.by == "pair" else f"clusters of pairs by {grouping.by}"
    passed = grouping.clusters >= FEWEST_CLUSTERS
    return Check(
        "enough-pairs", passed, f"{grouping.clusters} {what}, at least {FEWEST_CLUSTERS} wanted"
    )


def _ceiling(gap: Floats) -> Check:
    """Whether source scores above base, at one-sided 0.005; without spread, by sign alone."""
    mean = float(np.mean(gap))
    if not varies(gap, np.abs(gap)):
        return Check("no-ceiling", mean > 0, f"source - base is {mean:.4g} in every cluster")
    p = float(stats.ttest_1samp(gap, 0.0, alternative="greater").pvalue)
    return Check(
        "no-ceiling",
        p < CEILING_ALPHA,
        f"source - base {mean:.4g}, one-sided p {p:.2g}, below {CEILING_ALPHA} wanted",
    )


def _contrast_reason(
    word: Word, effect: Floats, gap: Floats, region: Region, alpha: float, a_cluster: float
) -> tuple[str, int | None]:
    """Why a word, and with inconclusive how many pairs. a_cluster: pairs in a cluster."""
    unchanged = " (no pair changed)" if not effect.any() else ""
    if word != "inconclusive":
        where = "inside" if word == "supported" else "outside"
        return f"transfer lies {where} {region}{unchanged}", None
    clusters = pairs_to_decide(effect, gap, region, alpha)
    needed = ceil(clusters * a_cluster) if clusters else None
    tail = (
        f"a fresh study of about {needed} pairs would decide"
        if needed
        else "no number of pairs would decide"
    )
    return f"the interval meets an edge of {region}; {tail}{unchanged}", needed


def _controls(
    scores: dict[str, Floats], gap: Floats, margin: float, alpha: float
) -> dict[str, dict[str, object]]:
    """Transfer of each control and whether it is inside, outside or undecided of the margin."""
    found: dict[str, dict[str, object]] = {}
    band = Region(-margin, margin)
    for arm in CONTROLS:
        if arm not in scores:
            continue
        effect = scores[arm] - scores["base"]
        interval = fieller(effect, gap, 1 - alpha)
        tests = edge_tests(effect, gap, band)
        if tests.degenerate:
            # Without spread there is nothing to test: the control's transfer is what it is.
            inside = abs(_ratio(effect, gap)) < margin
            outside = not inside
        else:
            inside = tests.p_supported <= alpha
            outside = interval is not None and interval.disjoint(-margin, margin)
        found[arm] = {
            "mean": float(np.mean(scores[arm])),
            "transfer": _ratio(effect, gap),
            "interval": interval,
            "state": "inside" if inside else "outside" if outside else "undecided",
        }
    return found


def _control_checks(
    controls: dict[str, dict[str, object]], margin: float, gates: bool
) -> list[Check]:
    """One check a control; the detail says where it cannot change the verdict."""
    checks = []
    for arm, found in controls.items():
        detail = f"transfer {found['transfer']:.3g}, {found['state']} +-{margin:g}"
        if not gates:
            detail += "; does not gate, as the region contains 0"
        checks.append(Check(f"control {arm}", found["state"] == "inside", detail))
    return checks


def _gate(
    controls: dict[str, dict[str, object]], word: Word, reason: str, margin: float
) -> tuple[Word, str]:
    """What the negative controls leave of a supported claim."""

    def named(state: str) -> str:
        return ", ".join(arm for arm, found in controls.items() if found["state"] == state)

    if outside := named("outside"):
        return "invalid", f"not specific: {outside} moves the behavior by over {margin:g}"
    if undecided := named("undecided"):
        return "inconclusive", f"controls undecided: {undecided}"
    return word, reason


def _invalid(
    frame: pd.DataFrame,
    checks: list[Check],
    means: dict[str, float],
    clusters: int = 0,
    contrast: tuple[Floats, Floats] | None = None,
) -> Verdict:
    """An invalid verdict; it names every failed check, and shows no ratio without a gap."""
    failed = [check for check in checks if check.passed is False]
    if any(check.name == "no-ceiling" for check in failed):
        contrast = None
    return Verdict(
        word="invalid",
        reason="; ".join(f"{check.name}: {check.detail}" for check in failed),
        verified=all(check.passed is not None for check in checks),
        estimate=_ratio(*contrast) if contrast else None,
        interval=fieller(*contrast, 1 - ALPHA) if contrast else None,
        level=1 - ALPHA,
        interval_other=fieller(*contrast, 1 - 2 * ALPHA) if contrast else None,
        means=means,
        pairs=frame["pair"].nunique(),
        clusters=clusters,
        checks=tuple(checks),
    )


def _less_decisive(verdicts: list[Verdict], region: Region) -> Verdict:
    """Of two groupings of crossed pairs: the less decisive word, and an interval that holds both.

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
    )


def _at(verdict: Verdict, level: float, *, other: bool = False) -> Interval | None:
    """A verdict's interval at a level, or the one at the other level."""
    return verdict.interval if (verdict.level == level) != other else verdict.interval_other


def _hull(intervals: list[Interval | None]) -> Interval | None:
    """The smallest interval that holds all; None where one of them is unbounded."""
    found = [one for one in intervals if one is not None]
    if len(found) < len(intervals):
        return None
    return Interval(min(one.low for one in found), max(one.high for one in found))


def _ratio(effect: Floats, gap: Floats) -> float:
    return float(np.mean(effect) / np.mean(gap))
