"""From the tables of a plan to its word: a verdict a part, at the cell's share of 0.05.

What was checked of the instrument comes in as checks. Runs nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import pandas as pd

from kv_claims.claims.outcome import Outcome
from kv_claims.judging.checks import NO_CONTROL, Check, instrument_failures
from kv_claims.judging.multiplicity import best_of_k
from kv_claims.judging.parts import Combined, combine, judge_part
from kv_claims.judging.result import Verdict, Word
from kv_claims.judging.rule import ALPHA
from kv_claims.judging.sensitivity import Families, Sensitivity, sensitivity
from kv_claims.study.plan import Plan, PlannedPart
from kv_claims.study.tables import Table
from kv_claims.tasks.task import Task


class OtherScorer(NamedTuple):
    """The verdict on the same texts by a scorer that is not the task's own."""

    scorer: str
    verdict: Word
    estimate: float | None


class Beside(NamedTuple):
    """What a verdict hangs on: numbers that a reader may want, and that decide nothing.

    other_scorer: None where the outcome is not the task's score.
    """

    sensitivity: Sensitivity | None = None
    other_scorer: OtherScorer | None = None


class Judged(NamedTuple):
    """What came of a cell. verdicts: one a part, those given last.

    raw: the word at 0.05, had this been the only test and the only look.
    beside: for each part, what stands beside its verdict and does not decide it.
    """

    verdicts: list[Verdict]
    combined: Combined
    raw: Word
    beside: list[Beside]

    @property
    def is_final(self) -> bool:
        """Whether more pairs are not wanted: it is decided, or the instrument failed."""
        if self.combined.word in ("supported", "refuted"):
            return True
        return any(instrument_failures(verdict.checks) for verdict in self.verdicts)


def judge_cell(plan: Plan, tables: Sequence[Table], task: Task | None) -> Judged:
    """A verdict for each part of a plan, and the claim's word.

    tables: of each part. task: None where only the tables are known.
    """
    parts = list(zip(plan.parts, tables, strict=True))

    def at(alpha: float) -> list[Verdict]:
        return [_judge_one(plan, part, table, alpha) for part, table in parts]

    verdicts = withheld(plan, at_its_share(plan, at(plan.share.alpha)))
    combined = combined_at(plan, verdicts, plan.share.alpha)
    raw = combined
    if plan.share.alpha != ALPHA:
        raw = combined_at(plan, withheld(plan, at(ALPHA)), ALPHA)
    beside = [_beside(plan, part, table, task) for part, table in parts]
    return Judged(verdicts, combined, raw.word, beside)


def combined_at(plan: Plan, verdicts: Sequence[Verdict], alpha: float) -> Combined:
    """The word of all parts together."""
    judged = [(part.part, one) for part, one in zip(plan.parts, verdicts, strict=True)]
    n_claimed = len(plan.claim.parts)
    return combine(judged[:n_claimed], judged[n_claimed:], alpha=alpha)


def at_its_share(plan: Plan, verdicts: Sequence[Verdict]) -> list[Verdict]:
    """Verdicts with the check that each was reached at its share; *invalid: best-of-k* if not."""
    found = []
    for part, verdict in zip(plan.parts, verdicts, strict=True):
        check = best_of_k(verdict, plan.share, part.of)
        made = replace(verdict, checks=(*verdict.checks, check))
        if not check.passed:
            made = replace(made, word="invalid", reason=f"{check.name}: {check.detail}")
        found.append(made)
    return found


def withheld(plan: Plan, verdicts: Sequence[Verdict]) -> list[Verdict]:
    """Verdicts, but that no effect is *supported* where there was no control to hold it against.

    So that leaving a control out is never better than to show it. What is shown of the estimate
    stays.
    """
    found = []
    for part, verdict in zip(plan.parts, verdicts, strict=True):
        waits = verdict.word == "supported" and part.part.region.claims_effect
        lacks = [check for check in verdict.checks if check.name == NO_CONTROL]
        if waits and lacks:
            reason = f"{NO_CONTROL}: {lacks[0].detail}"
            verdict = replace(verdict, word="inconclusive", reason=reason)
        found.append(verdict)
    return found


def _beside(plan: Plan, part: PlannedPart, table: Table, task: Task | None) -> Beside:
    frame = table.rows
    if frame["score"].isna().any():
        return Beside()
    families = _families(task) if task else None
    lines = sensitivity(frame, part.part, direction=part.direction, families=families)
    if task is None or part.outcome.name != "behavior":
        return Beside(lines)
    if not task.lexicon:
        return Beside(lines)  # the published score alone says nothing on a scorer of one's own
    other = "published" if task.scorer.name == "lexicon" else "lexicon"
    rescored = frame.assign(score=frame[f"score_{other}"].astype(float))
    verdict = _judge_one(plan, part, table._replace(rows=rescored), plan.share.alpha)
    return Beside(lines, OtherScorer(other, verdict.word, verdict.estimate))


def _judge_one(plan: Plan, part: PlannedPart, table: Table, alpha: float) -> Verdict:
    whole, lost = _without_holes(table.rows, part.outcome)
    verdict = judge_part(
        whole,
        part.part,
        of=part.of,
        margin=plan.claim.margin,
        checks=[*table.checks, *lost],
        direction=part.direction,
        alpha=alpha,
    )
    if not lost:
        return verdict
    # What stood in for the missing scores is no number to show, nor to plan from.
    return replace(
        verdict,
        estimate=None,
        interval=None,
        interval_other=None,
        means={},
        controls={},
        spreads=(),
    )


def _families(task: Task) -> Families | None:
    """Families of each pair's prompts; None where every prompt is a family of its own."""
    prompts = (*task.sources, *task.bases)
    if len({prompt.family for prompt in prompts}) == len(prompts):
        return None
    return {pair.id: (pair.source.family, pair.base.family) for pair in task.pairs}


def _without_holes(frame: pd.DataFrame, outcome: Outcome) -> tuple[pd.DataFrame, list[Check]]:
    """A table whose scores are numbers; where some are not, a failed check says so.

    A geometry whose window does not fit a generation has no number: the claim then cannot be
    judged, whatever the other pairs say.
    """
    missing = frame["score"].isna()
    if not missing.any():
        return frame, []
    detail = (
        f"{int(missing.sum())} of {len(frame)} trials have no {outcome}: their window does not "
        "fit, or its values are all zero"
    )
    return frame.fillna({"score": 0.0}), [Check("short-window", False, detail)]
