"""The verdict on one estimand of one outcome: supported, refuted, inconclusive or invalid.

The order is fixed: instrument checks, then the assay (enough pairs; a gap between source and
base, where the estimand is a share of it), then the contrasts, then the negative controls.
*Invalid* says that nothing was measured; it is never a kind of *refuted*. Claims of several parts
are `harness.judging.parts`' work.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from harness.claim import MARGIN, Estimand, Region
from harness.errors import UsageError
from harness.judging.checks import CONTROLS, Check, with_all_named
from harness.judging.contrast import EdgeTests, edge_tests, pairs_to_decide, varies
from harness.judging.controls import control_checks, control_states, gate
from harness.judging.crossed import less_decisive
from harness.judging.estimand import (
    NEEDED,
    Contrast,
    Direction,
    between,
    contrast,
    formula,
    orientation,
)
from harness.judging.fieller import Floats, Interval, fieller, weakness
from harness.judging.frame import ARMS, Grouping, check_frame, groupings, holes
from harness.judging.result import Verdict, Word
from harness.judging.rule import ALPHA, Rule

__all__ = ["ALPHA", "CEILING_ALPHA", "FEWEST_CLUSTERS", "WEAK_RATIO", "Verdict", "Word", "judge"]

CEILING_ALPHA = 0.005
WEAK_RATIO = 0.1
FEWEST_CLUSTERS = 10


def judge(
    frame: pd.DataFrame,
    region: Region,
    *,
    margin: float = MARGIN,
    checks: Sequence[Check] = (),
    alpha: float = ALPHA,
    estimand: Estimand = "transfer",
    direction: Direction = "up",
    alpha_refuted: float | None = None,
) -> Verdict:
    """Judge a table of trials against a claimed region.

    frame: one row a trial, columns `pair, arm, seed, score`; arm is base, source, patched, versus
        (the second patch of a difference), or a control of the patched arm (unrelated-base, noise,
        wrong-layer). Pairs that share a source or a base: columns `source`, `base`, or one column
        `cluster`.
    region: a share of source - base; for a gap, in the unit of the score.
    margin: how far from 0 a control's transfer may lie; not read for a gap.
    checks: instrument checks already made; those that are not among them are listed as not run.
    direction: 'up' where the source must score above the base, 'either' where it must score
        clearly on one side of it. Neither turns a gap, which has a sign of its own.
    alpha, alpha_refuted: error rates of supporting (one-sided at each edge) and of refuting
        (two-sided; left out: alpha).
    Raises UsageError for a table that cannot be read as trials, or a setting out of its range.
    """
    check_frame(frame)
    rule = Rule(
        region,
        estimand=estimand,
        direction=direction,
        margin=margin,
        alpha=alpha,
        alpha_refuted=alpha if alpha_refuted is None else alpha_refuted,
    )
    if unknown := sorted(set(frame["arm"].astype(str)) - {*ARMS, *CONTROLS}):
        raise UsageError(f"trials: arms {unknown}, expected {[*ARMS, *CONTROLS]} only")
    made, pairs = with_all_named(checks), frame["pair"].nunique()
    if (missing := _missing(frame, rule)) is not None:
        return _invalid(rule, pairs, [*made, missing], {})
    found = groupings(frame)
    sign = orientation(found[0].scores, direction)
    verdicts = [_judge_clusters(_Case(rule, grouping, sign, pairs), made) for grouping in found]
    return less_decisive(verdicts, region)


class _Case(NamedTuple):
    """One grouping of the pairs, to be judged by a rule. sign: as `orientation`."""

    rule: Rule
    grouping: Grouping
    sign: Literal[1, -1]
    pairs: int

    @property
    def pairs_a_cluster(self) -> float:
        return self.pairs / self.grouping.clusters


def _missing(frame: pd.DataFrame, rule: Rule) -> Check | None:
    """The failed check of a table in which arms or trials are missing."""
    arms = [arm for arm in (*ARMS, *CONTROLS) if arm in set(frame["arm"])]
    absent = [arm for arm in NEEDED[rule.estimand] if arm not in arms]
    if absent:
        ends = {"source", "base"} & set(absent)
        name = "no-ceiling" if ends and rule.is_ratio else "silent-n"
        return Check(name, False, f"no {' and no '.join(absent)} arm was run")
    if lacking := holes(frame, arms):
        return Check("silent-n", False, f"trials are missing: {lacking}")
    return None


def _judge_clusters(case: _Case, made: list[Check]) -> Verdict:
    rule, (_, n, scores) = case.rule, case.grouping
    means = {arm: float(np.mean(values)) for arm, values in scores.items()}
    checks = [*made, _enough(case.grouping)]
    if n < FEWEST_CLUSTERS:
        return _invalid(rule, case.pairs, checks, means, n)
    found = contrast(scores, rule.estimand, case.sign)
    if rule.is_ratio:
        checks.append(_ceiling(scores, case))
    if any(check.passed is False for check in checks):
        return _invalid(rule, case.pairs, checks, means, n, found)
    tests = edge_tests(found.effect, found.unit, rule.region, found.size)
    if tests.degenerate:
        checks.append(_degenerate(rule, tests))
        return _invalid(rule, case.pairs, checks, means, n, found)
    word, reason, needed = _by_contrasts(tests, found, case)
    if rule.is_ratio:
        weak = weakness(found.unit, 1 - rule.alpha)
        detail = f"Fieller's g {weak:.3g}, below {WEAK_RATIO} wanted"
        checks.append(Check("weak-ratio", weak < WEAK_RATIO, detail))
        if word == "supported" and weak >= WEAK_RATIO:
            word, needed = "inconclusive", ceil(n * weak / WEAK_RATIO * case.pairs_a_cluster)
            reason = (
                f"weak ratio: g = {weak:.3g}; a fresh study of about {needed} pairs would have it "
                f"below {WEAK_RATIO}"
            )
    controls = control_states(scores, case.sign, rule) if rule.has_controls else {}
    checks.extend(control_checks(controls, rule))
    if word == "supported" and (gated := gate(controls, scores, case.sign, rule)):
        word, reason = gated
    shown, other = rule.refuted_level, rule.supported_level
    if word == "supported":
        shown, other = other, shown
    return Verdict(
        word=word,
        reason=reason,
        verified=all(check.passed is not None for check in checks),
        estimate=found.estimate,
        interval=fieller(found.effect, found.unit, shown),
        level=shown,
        interval_other=fieller(found.effect, found.unit, other),
        means=means,
        pairs=case.pairs,
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


def _ceiling(scores: dict[str, Floats], case: _Case) -> Check:
    """Whether source lies off base, at 0.005 a side; without spread, by sign alone.

    Above it where the direction is 'up'. Read the way the scores lie where it is 'either', which
    is a two-sided test at twice that.
    """
    gap = between(scores, "source", "base", case.sign)
    mean = case.sign * float(np.mean(gap.effect))
    if not varies(gap.effect, gap.size):
        passed = case.sign * mean > 0
        return Check("no-ceiling", passed, f"source - base is {mean:.4g} in every cluster")
    p = float(stats.ttest_1samp(gap.effect, 0.0, alternative="greater").pvalue)
    sides = 1 if case.rule.direction == "up" else 2
    return Check(
        "no-ceiling",
        p < CEILING_ALPHA,
        f"source - base {mean:.4g}, {'one' if sides == 1 else 'two'}-sided p {sides * p:.2g}, "
        f"below {sides * CEILING_ALPHA} wanted",
    )


def _degenerate(rule: Rule, tests: EdgeTests) -> Check:
    edge = tests.degenerate[0]
    by = " - edge * (source - base)" if rule.is_ratio else ""
    return Check(
        "degenerate", False, f"{formula(rule.estimand)}{by} does not vary at edge {edge:g}"
    )


def _by_contrasts(tests: EdgeTests, found: Contrast, case: _Case) -> tuple[Word, str, int | None]:
    """The word that the contrasts give, why, and with inconclusive how many pairs would decide."""
    rule = case.rule
    unchanged = ""
    if not found.effect.any():
        unchanged = f" (no pair {'changed' if rule.estimand == 'transfer' else 'differs'})"
    if tests.p_supported <= rule.alpha:
        return "supported", f"{rule.estimand} lies inside {rule.region}{unchanged}", None
    if tests.p_refuted <= rule.alpha_refuted and weakness(found.unit, rule.refuted_level) < 1:
        return "refuted", f"{rule.estimand} lies outside {rule.region}{unchanged}", None
    clusters = pairs_to_decide(
        found.effect, found.unit, rule.region, rule.alpha, rule.alpha_refuted
    )
    needed = ceil(clusters * case.pairs_a_cluster) if clusters else None
    tail = (
        f"a fresh study of about {needed} pairs would decide"
        if needed
        else "no number of pairs would decide"
    )
    reason = f"the interval meets an edge of {rule.region}; {tail}{unchanged}"
    return "inconclusive", reason, needed


def _invalid(
    rule: Rule,
    pairs: int,
    checks: list[Check],
    means: dict[str, float],
    clusters: int = 0,
    found: Contrast | None = None,
) -> Verdict:
    """An invalid verdict; it names every failed check, and shows no ratio without a gap."""
    failed = [check for check in checks if check.passed is False]
    if any(check.name == "no-ceiling" for check in failed):
        found = None

    def interval(level: float) -> Interval | None:
        return fieller(found.effect, found.unit, level) if found else None

    return Verdict(
        word="invalid",
        reason="; ".join(f"{check.name}: {check.detail}" for check in failed),
        verified=all(check.passed is not None for check in checks),
        estimate=found.estimate if found else None,
        interval=interval(rule.refuted_level),
        level=rule.refuted_level,
        interval_other=interval(rule.supported_level),
        means=means,
        pairs=pairs,
        clusters=clusters,
        checks=tuple(checks),
    )
