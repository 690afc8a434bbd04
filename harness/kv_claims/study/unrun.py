"""Verdicts on cells that no trial could decide, or none may yet: they are not run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from kv_claims.judging.checks import Check
from kv_claims.judging.parts import Combined
from kv_claims.judging.result import Verdict, Word
from kv_claims.judging.rule import Rule
from kv_claims.judging.verdict import enough, unmeasured
from kv_claims.study.plan import Plan
from kv_claims.study.verdicts import Beside, Judged, at_its_share, combined_at
from kv_claims.tasks.task import Pair, Prompt, clusters_of


def not_run(plan: Plan) -> Judged | None:
    """What is known of a plan that cannot be tested, or has no look yet; None of any other."""
    if plan.untestable:
        reason = "; ".join(f"{check.name}: {check.detail}" for check in plan.untestable)
        return _unmeasured(plan, "invalid", reason)
    if not plan.looks:
        first = plan.claim.looks[0]
        reason = (
            f"not looked at yet: its first look is after {first} pairs, {plan.pairs} were asked for"
        )
        return _unmeasured(plan, "inconclusive", reason, first)
    return None


def too_few(plan: Plan, pairs: Sequence[Pair], identity: Callable[[Prompt], str]) -> Judged | None:
    """What `judge_cell` would say of pairs that have too few clusters; None where they have enough.

    identity: of a prompt, by which it is the same as another: the hash of its tokens.
    """
    for by, cluster in clusters_of(pairs, identity).items():
        check = enough(by, n := len(set(cluster.values())))
        if not check.passed:
            return judge_too_few(plan, check, len(pairs), n)
    return None


def judge_too_few(plan: Plan, check: Check, pairs: int, clusters: int) -> Judged:
    """A plan's verdicts where a check says that its pairs have too few clusters."""
    alpha = plan.share.alpha
    verdicts = []
    for part in plan.parts:
        rule = Rule(
            part.part.region,
            estimand=part.part.estimand,
            direction=part.direction,
            margin=plan.claim.margin,
            alpha=alpha,
            alpha_refuted=alpha / part.of,
        )
        verdicts.append(unmeasured(rule, check, pairs, clusters))
    verdicts = at_its_share(plan, verdicts)
    combined = combined_at(plan, verdicts, alpha)
    return Judged(verdicts, combined, combined.word, [Beside()] * len(verdicts))


def noted(judged: Judged, notes: Sequence[Check]) -> Judged:
    """A judgment with what is to be seen beside it: not verified where a note is no pass."""
    is_known = all(check.passed is not None for check in notes)
    verdicts = [
        replace(v, checks=(*v.checks, *notes), verified=v.verified and is_known)
        for v in judged.verdicts
    ]
    return judged._replace(verdicts=verdicts)


def _unmeasured(plan: Plan, word: Word, reason: str, pairs_needed: int | None = None) -> Judged:
    verdict = Verdict(
        word=word,
        reason=reason,
        verified=True,
        estimate=None,
        interval=None,
        level=0.95,
        interval_other=None,
        means={},
        pairs=plan.pairs,
        clusters=0,
        checks=plan.untestable,
        pairs_needed=pairs_needed,
    )
    n = len(plan.parts)
    return Judged([verdict] * n, Combined(word, reason), word, [Beside()] * n)
