"""The verdict on one estimand of one outcome: supported, refuted, inconclusive or invalid.

The order is fixed: instrument checks, then the assay (enough pairs; a gap between source and
base, where the estimand is a share of it), then the contrasts, then the negative controls.
*Invalid* says that nothing was measured; it is never a kind of *refuted*. Claims of several parts
are `kv_claims.judging.parts`' work.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import ceil
from typing import NamedTuple

import numpy as np
import pandas as pd

from kv_claims.claims.claim import MARGIN, OF_SPREADS, Estimand, Region
from kv_claims.errors import UsageError
from kv_claims.judging.checks import CONTROLS, Check, with_all_named
from kv_claims.judging.contrast import EdgeTests, few_of, interval, pairs_to_decide
from kv_claims.judging.controls import (
    Standing,
    clusters_to_decide,
    control_checks,
    described,
    gate,
    objection,
)
from kv_claims.judging.decide import (
    CEILING_ALPHA,
    FEWEST_CLUSTERS,
    WEAK_RATIO,
    Ceiling,
    Decision,
    Why,
    decide,
)
from kv_claims.judging.estimand import (
    NEEDED,
    NEGATIVE,
    Contrast,
    Direction,
    difference_text,
    formula,
    orientation,
    unit_text,
)
from kv_claims.judging.fieller import Floats, Interval
from kv_claims.judging.frame import (
    ARMS,
    Grouping,
    check_frame,
    check_sizes,
    clustering,
    holes,
    refusals,
    spread_of,
)
from kv_claims.judging.hall import MOST_SKEWED
from kv_claims.judging.proportions import are_binary
from kv_claims.judging.result import Verdict, Word
from kv_claims.judging.rule import ALPHA, Rule
from kv_claims.judging.weighing import objection as objection_of
from kv_claims.judging.weighing import weighings

__all__ = ["ALPHA", "CEILING_ALPHA", "FEWEST_CLUSTERS", "WEAK_RATIO", "Verdict", "Word", "judge"]


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
        wrong-layer, other-heads, random-direction). Pairs that share a source or a base: columns
        `source`, `base`, or one column `cluster`. An arm that `refused` tells of (a column of
        `run_study`) is *invalid* by it.
    region: a share of source - base; for a gap, in the unit of the score.
    margin: how far from 0 a control's transfer may lie; not read for a gap.
    checks: instrument checks already made; those that are not among them are listed as not run.
    direction: 'up' where the source must score above the base, 'down' where below it, 'either'
        where it must score clearly on one side of it. None turns a gap, whose sign is its own.
    alpha, alpha_refuted: error rates of supporting (one-sided at each edge) and of refuting
        (two-sided; left out: alpha).
    Raises UsageError for a table that cannot be read as trials, or a setting out of its range.
    """
    check_frame(frame)
    check_sizes(frame)
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
    if refused := refusals(frame, {"patched", "versus"} & set(NEEDED[estimand])):
        return _invalid(rule, pairs, [*made, *refused], {})
    if (missing := _missing(frame, rule)) is not None:
        return _invalid(rule, pairs, [*made, missing], {})
    grouping = clustering(frame)
    spread = spread_of(grouping, pairs)
    verdict = _judge_clusters(_Case(rule, grouping, pairs), made)
    return replace(verdict, spreads=() if spread is None else (spread,))


def enough(by: str, clusters: int) -> Check:
    """Whether there are clusters enough to be judged. by: what one is ('pair', 'source' ...)."""
    what = "pairs" if by == "pair" else f"clusters of pairs by {by}"
    passed = clusters >= FEWEST_CLUSTERS
    return Check("enough-pairs", passed, f"{clusters} {what}, at least {FEWEST_CLUSTERS} wanted")


def unmeasured(rule: Rule, check: Check, pairs: int, clusters: int) -> Verdict:
    """The verdict where a check has failed that needs no trials."""
    return _invalid(rule, pairs, [check], {}, clusters)


class _Case(NamedTuple):
    """Pairs in their clusters, to be judged by a rule."""

    rule: Rule
    grouping: Grouping
    pairs: int

    def pairs_of(self, clusters: int | None) -> int | None:
        """As many pairs as so many clusters have here."""
        return None if clusters is None else ceil(clusters * self.pairs / self.grouping.clusters)


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
    rule, grouping = case.rule, case.grouping
    scores, n = grouping.scores, grouping.clusters
    means = {arm: float(np.mean(values)) for arm, values in scores.items()}
    checks = [*made, enough(grouping.fewest, n)]
    if n < FEWEST_CLUSTERS:
        return _invalid(rule, case.pairs, checks, means, n)
    if (odd := _of_no_use(rule, grouping)) is not None:
        return _invalid(rule, case.pairs, [*checks, odd], means, n)
    decision = decide(scores, rule, sharing=grouping.sharing)
    found, why = decision.found, Why(int(decision.why))
    if decision.ceilings:
        checks.append(_ceiling(decision.ceilings, rule))
    if any(check.passed is False for check in checks):
        return _invalid(rule, case.pairs, checks, means, n, found)
    if why == Why.DEGENERATE:
        checks.append(_degenerate(rule, decision.tests))
        return _invalid(rule, case.pairs, checks, means, n, found)
    if rule.is_ratio:
        checks.append(_weak_ratio(decision.weakness))
    checks.extend(control_checks(decision.controls, rule))
    reason, clusters = _reason(why, decision, case)
    shown, other = rule.refuted_level, rule.supported_level
    if why.word == "supported":
        shown, other = other, shown
    verdict = Verdict(
        word=why.word,
        reason=reason,
        verified=all(check.passed is not None for check in checks),
        estimate=float(found.estimate),
        interval=interval(found, shown),
        level=shown,
        interval_other=interval(found, other),
        means=means,
        pairs=case.pairs,
        clusters=n,
        checks=tuple(checks),
        p_supported=float(decision.tests.p_supported),
        p_refuted=float(decision.tests.p_refuted),
        pairs_needed=case.pairs_of(clusters) if why.word == "inconclusive" else None,
        controls=described(decision.controls, scores),
        weighings=weighings(grouping, rule, orientation(scores, rule.direction)),
        region=rule.region,
        estimand=rule.estimand,
    )
    return _if_all_agree(_if_it_shows(verdict, rule.region), rule)


def _of_no_use(rule: Rule, grouping: Grouping) -> Check | None:
    """The failed check of scores that an estimand cannot be taken of; None where it can."""
    if rule.estimand == "rate":
        return _not_binary(grouping)
    if rule.estimand in OF_SPREADS and grouping.sharing is not None:
        return Check(
            "crossed-pairs",
            False,
            f"{rule.estimand} of pairs that share sources and bases both: its spread is not known; "
            "expected pairs one to one, or a shift",
        )
    return None


def _not_binary(grouping: Grouping) -> Check | None:
    """The failed check of scores that are no rate: not 0 or 1 in each pair; None where they are.

    A rate knows no clusters, so that crossed pairs have none.
    """
    by, scores = grouping.by, grouping.scores
    read = (*NEEDED["rate"], *NEGATIVE["rate"])
    crossed = grouping.sharing is not None
    odd = [arm for arm in read if arm in scores and (crossed or not are_binary(scores[arm]))]
    if not odd:
        return None
    each = "pair, averaged over its seeds" if by == "pair" else f"cluster of pairs by {by}"
    return Check(
        "not-a-rate",
        False,
        f"{', '.join(odd)}: scores that are not 0 or 1 in each {each}; expected a shift",
    )


def _ceiling(found: Sequence[Ceiling], rule: Rule) -> Check:
    detail = "; ".join(_of_ceiling(one, rule) for one in found)
    return Check("no-ceiling", all(bool(one.passed) for one in found), detail)


def _of_ceiling(found: Ceiling, rule: Rule) -> str:
    apart = difference_text(found.arms)
    if np.isnan(found.p):
        return f"{apart} is {found.mean:.4g} in every cluster"
    sides = 2 if rule.direction == "either" else 1
    read = ", which is to fall" if rule.direction == "down" else ""
    return (
        f"{apart} {found.mean:.4g}{read}, {'one' if sides == 1 else 'two'}-sided p "
        f"{sides * found.p:.2g}, below {sides * CEILING_ALPHA} wanted"
    )


def _weak_ratio(weakness: Floats) -> Check:
    detail = f"Fieller's g {weakness:.3g}, below {WEAK_RATIO} wanted"
    return Check("weak-ratio", bool(weakness < WEAK_RATIO), detail)


def _degenerate(rule: Rule, tests: EdgeTests) -> Check:
    edge = rule.region.edges[int(np.argmax(tests.flat))][0]
    by = f" - edge * ({unit_text(rule.estimand)})" if rule.is_ratio else ""
    return Check(
        "degenerate", False, f"{formula(rule.estimand)}{by} does not vary at edge {edge:g}"
    )


def _reason(why: Why, decision: Decision, case: _Case) -> tuple[str, int | None]:
    """Why the word is what it is; with inconclusive, the clusters at which it would be decided."""
    rule, found = case.rule, decision.found
    unseen = _unseen(case, found, rule.supported_level if why == Why.INSIDE else rule.refuted_level)
    if why == Why.FEW_CARRY:
        return _too_few(case, found)
    if why == Why.INSIDE:
        return f"{rule.estimand} lies inside {rule.region}{unseen}", None
    if why == Why.OUTSIDE:
        return f"{rule.estimand} lies outside {rule.region}{unseen}", None
    if why == Why.BETWEEN:
        clusters = pairs_to_decide(found, rule.region, rule.alpha, rule.alpha_refuted)
        clusters = _with_controls(clusters, decision, rule)
        told = f"the interval meets an edge of {rule.region}"
        return f"{told}; {_would_decide(case.pairs_of(clusters))}{unseen}", clusters
    if why == Why.WEAK_RATIO:
        weak = float(decision.weakness)
        clusters = ceil(case.grouping.clusters * weak / WEAK_RATIO)
        return (
            f"weak ratio: g = {weak:.3g}; a fresh study of about {case.pairs_of(clusters)} pairs "
            f"would have it below {WEAK_RATIO}"
        ), clusters
    standing = Standing(int(gate(decision.controls, rule)))
    told = objection(decision.controls, standing, rule.margin)
    if why.word == "invalid":
        return told, None
    clusters = clusters_to_decide(decision.controls, standing, rule)
    return f"{told}; {_would_decide(case.pairs_of(clusters))}", clusters


def _with_controls(clusters: int | None, decision: Decision, rule: Rule) -> int | None:
    """Clusters that would support a claim and decide its controls, too; see `pairs_to_decide`."""
    standing = Standing(int(gate(decision.controls, rule)))
    waits = standing in (Standing.UNDECIDED, Standing.MAYBE_AS_FAR)
    if clusters is None or not waits or float(decision.found.estimate) not in rule.region:
        return clusters
    others = clusters_to_decide(decision.controls, standing, rule)
    return None if others is None else max(clusters, others)


def _too_few(case: _Case, found: Contrast) -> tuple[str, int]:
    """Why a mean that is too skewed is not tested, and the clusters at which it would be."""
    skewness = abs(float(found.moments.skewness))
    clusters = ceil(case.grouping.clusters * (skewness / MOST_SKEWED) ** 2)
    what = "pairs" if case.grouping.by == "pair" else "clusters"
    return (
        f"too few {what} carry the effect: skewness of the mean {skewness:.2g}, at most "
        f"{MOST_SKEWED} wanted; a fresh study of about {case.pairs_of(clusters)} pairs that are as "
        "skewed would be tested"
    ), clusters


def _unseen(case: _Case, found: Contrast, level: float) -> str:
    """What is known where all clusters, or all but a few, are alike: not that every other one is.

    '' elsewhere. level: of the interval, which rests on the share that is named.
    """
    if (few := few_of(found)) is None:
        return ""
    by, estimand = case.grouping.fewest, case.rule.estimand
    at = list(case.grouping.counts).index(by)
    unlike, n = int(few.counts[at][0]), case.grouping.clusters
    one, many = ("pair", "pairs") if by == "pair" else (f"cluster by {by}", "clusters")
    changed = "changed" if estimand == "transfer" else "differs"
    seen, others = f"every {one} has {estimand} {few.usual:.3g}", "do not"
    if unlike:
        seen = f"{n - unlike} of {n} {many} have {estimand} {few.usual:.3g}"
    elif not found.effect.any():
        seen, others = f"no {one} {changed}", "do"
    unseen = few.share((1 - level) / 2)
    return (
        f" ({seen}; at level {level:.4g} at most {unseen:.1%} of {many} {others}, each by at most "
        f"{unit_text(estimand)}: assumed)"
    )


def _would_decide(pairs: int | None) -> str:
    if pairs is None:
        return "no number of pairs would decide"
    return f"a fresh study of about {pairs} pairs would decide"


def _if_it_shows(verdict: Verdict, region: Region) -> Verdict:
    """The verdict, if its interval shows the same; else *invalid: same-is-not-p>0.05*.

    The word comes from tests at the region's edges, the interval from Fieller's formula (and both
    from a count, where clusters are alike): two routes to one answer. A *supported* that rests
    on "no difference was found" has an interval that reaches out of the region.
    """
    if verdict.word not in ("supported", "refuted"):
        return verdict
    interval, inside = verdict.interval, verdict.word == "supported"
    shows = interval is not None and (
        interval.within(region.low, region.high)
        if inside
        else interval.disjoint(region.low, region.high)
    )
    seen = "unbounded" if interval is None else f"[{interval.low:.4g}, {interval.high:.4g}]"
    wanted = "inside" if inside else "off"
    detail = f"{verdict.word}: interval {seen} at {verdict.level:.4g}, wanted {wanted} {region}"
    checks = (*verdict.checks, Check("same-is-not-p>0.05", shows, detail))
    if shows:
        return replace(verdict, checks=checks)
    reason = f"same-is-not-p>0.05: {detail}"
    return replace(verdict, word="invalid", reason=reason, checks=checks)


def _if_all_agree(verdict: Verdict, rule: Rule) -> Verdict:
    """The verdict, if every weighing has its answer; else *inconclusive*, at the wider level."""
    at_refuted = verdict.level == rule.refuted_level
    wide, narrow = verdict.interval, verdict.interval_other
    if not at_refuted:
        wide, narrow = narrow, wide
    reason = objection_of(verdict.weighings, verdict.word, wide, rule.region)
    if not reason:
        return verdict
    return replace(
        verdict,
        word="inconclusive",
        reason=reason,
        level=rule.refuted_level,
        interval=wide,
        interval_other=narrow,
    )


def _invalid(
    rule: Rule,
    pairs: int,
    checks: list[Check],
    means: dict[str, float],
    clusters: int = 0,
    found: Contrast | None = None,
) -> Verdict:
    """An invalid verdict; it names every failed check.

    It shows no ratio without a gap, and none without a spread: the interval of what does not vary
    would have no width, as if it were known beyond doubt.
    """
    failed = [check for check in checks if check.passed is False]
    if any(check.name in ("no-ceiling", "degenerate") for check in failed):
        found = None

    def shown(level: float) -> Interval | None:
        return interval(found, level) if found else None

    return Verdict(
        word="invalid",
        reason="; ".join(f"{check.name}: {check.detail}" for check in failed),
        verified=all(check.passed is not None for check in checks),
        estimate=float(found.estimate) if found else None,
        interval=shown(rule.refuted_level),
        level=rule.refuted_level,
        interval_other=shown(rule.supported_level),
        means=means,
        pairs=pairs,
        clusters=clusters,
        checks=tuple(checks),
        region=rule.region,
        estimand=rule.estimand,
    )
