"""From a cell's trials to its word: a table for each part, judged at the cell's share of 0.05.

Trials come in by role (base, source, patched, a control's name); what was checked of the instrument
comes in as checks. Runs nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import pandas as pd

from kv_claims.claims.claim import Part
from kv_claims.claims.outcome import Outcome
from kv_claims.judging.checks import Check, instrument_failures
from kv_claims.judging.estimand import direction_of, stands_in_table
from kv_claims.judging.instrument import clusters_ignored
from kv_claims.judging.multiplicity import Share, best_of_k
from kv_claims.judging.parts import Combined, combine, judge_part
from kv_claims.judging.result import Verdict, Word
from kv_claims.judging.rule import ALPHA, Rule
from kv_claims.judging.sensitivity import Families, Sensitivity, sensitivity
from kv_claims.judging.verdict import enough, unmeasured
from kv_claims.run.scores import Likelihoods, scored
from kv_claims.run.table import trials_frame
from kv_claims.run.trial import Trial
from kv_claims.study.cell import Cell
from kv_claims.tasks.task import Pair, Prompt, Task, by_text, clusters_of

Trials = dict[str, list[Trial]]
"""By role: base, source, patched, a control's name."""


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


@dataclass
class Tables:
    """Tables of trials as they are judged, each arm's text measured once.

    n_layers: of the model.
    """

    task: Task
    n_layers: int
    _measured: dict[str, pd.DataFrame] = field(default_factory=dict)

    def of(
        self, trials: Mapping[str, Sequence[Trial]], outcome: Outcome, likelihoods: Likelihoods
    ) -> pd.DataFrame:
        """One row a trial, by role; an arm that stands in two roles has a row in each."""
        frames = []
        for role, some in trials.items():
            arm = some[0].arm
            if arm not in self._measured:
                self._measured[arm] = trials_frame(some, self.task)
            frame = scored(self._measured[arm], some, outcome, self.n_layers, likelihoods)
            frames.append(frame.assign(arm=role))
        return pd.concat(frames, ignore_index=True)

    def of_part(self, trials: Trials, part: Part, likelihoods: Likelihoods) -> pd.DataFrame:
        """The table that a part is judged on: its arms, and the controls."""
        needed = {
            role: some for role, some in trials.items() if stands_in_table(role, part.estimand)
        }
        return self.of(needed, Outcome.parse(part.outcome), likelihoods)


def judge_cell(
    cell: Cell,
    tables: Mapping[Part, pd.DataFrame],
    checks: Sequence[Check],
    task: Task | None,
    pairs: Sequence[Pair] | None,
    identity: Callable[[Prompt], str] = by_text,
) -> Judged:
    """A verdict for each part of a cell, and the claim's word.

    pairs: those that were asked for, by whose prompts the tables are to be clustered; None, as is
    the task, where only the tables are known. identity: of a prompt, by which it is the same as
    another; on a model, the hash of its tokens.
    """

    def of_table(part: Part) -> list[Check]:
        return [] if pairs is None else [clusters_ignored(tables[part], pairs, identity)]

    checked = {part: [*checks, *of_table(part)] for part in cell.parts}

    share = cell.share

    def at(alpha: float) -> list[Verdict]:
        return [_judge_one(cell, part, tables[part], checked[part], alpha) for part in cell.parts]

    verdicts = [
        _at_its_share(verdict, share, _of(cell, part))
        for part, verdict in zip(cell.parts, at(share.alpha), strict=True)
    ]
    combined = _combined(cell, verdicts, share.alpha)
    raw = combined if share.alpha == ALPHA else _combined(cell, at(ALPHA), ALPHA)
    beside = [_beside(cell, part, tables[part], checked[part], task) for part in cell.parts]
    return Judged(verdicts, combined, raw.word, beside)


def too_few(
    cell: Cell, pairs: Sequence[Pair], identity: Callable[[Prompt], str] = by_text
) -> Judged | None:
    """What `judge_cell` would say of pairs that have too few clusters, which needs no trial; else
    None.

    identity: as there; where no tokens are known, texts alone may show it already.
    """
    for by, cluster in clusters_of(pairs, identity).items():
        check = enough(by, n := len(set(cluster.values())))
        if not check.passed:
            return judge_too_few(cell, check, len(pairs), n)
    return None


def judge_too_few(cell: Cell, check: Check, pairs: int, clusters: int) -> Judged:
    """A cell's verdicts where a check says that its pairs have too few clusters."""
    share = cell.share
    verdicts = []
    for part in cell.parts:
        rule = Rule(
            part.region,
            estimand=part.estimand,
            direction=direction_of(part),
            margin=cell.claim.margin,
            alpha=share.alpha,
            alpha_refuted=share.alpha / _of(cell, part),
        )
        verdict = unmeasured(rule, check, pairs, clusters)
        verdicts.append(_at_its_share(verdict, share, _of(cell, part)))
    combined = _combined(cell, verdicts, share.alpha)
    return Judged(verdicts, combined, combined.word, [Beside()] * len(verdicts))


def _beside(
    cell: Cell, part: Part, frame: pd.DataFrame, checks: Sequence[Check], task: Task | None
) -> Beside:
    outcome = Outcome.parse(part.outcome)
    if frame["score"].isna().any():
        return Beside()
    families = _families(task) if task else None
    lines = sensitivity(frame, part, direction=direction_of(part), families=families)
    if task is None or outcome.name != "behavior":
        return Beside(lines)
    other = "published" if task.scorer.name == "lexicon" else "lexicon"
    rescored = frame.assign(score=frame[f"score_{other}"].astype(float))
    verdict = _judge_one(cell, part, rescored, checks, cell.share.alpha)
    return Beside(lines, OtherScorer(other, verdict.word, verdict.estimate))


def _judge_one(
    cell: Cell, part: Part, frame: pd.DataFrame, checks: Sequence[Check], alpha: float
) -> Verdict:
    outcome = Outcome.parse(part.outcome)
    whole, lost = _without_holes(frame, outcome)
    verdict = judge_part(
        whole,
        part,
        of=_of(cell, part),
        margin=cell.claim.margin,
        checks=[*checks, *lost],
        direction=direction_of(part),
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


def _combined(cell: Cell, verdicts: Sequence[Verdict], alpha: float) -> Combined:
    n_claimed = len(cell.claim.parts)
    judged = list(zip(cell.parts, verdicts, strict=True))
    return combine(judged[:n_claimed], judged[n_claimed:], alpha=alpha)


def _of(cell: Cell, part: Part) -> int:
    """Of how many parts it is one: those claimed err together, what is given only supports."""
    return len(cell.claim.parts) if part in cell.claim.parts else 1


def _at_its_share(verdict: Verdict, share: Share, parts: int) -> Verdict:
    """The verdict with the check that it was reached at its share; *invalid: best-of-k* if not."""
    check = best_of_k(verdict, share, parts)
    checks = (*verdict.checks, check)
    if check.passed:
        return replace(verdict, checks=checks)
    return replace(verdict, word="invalid", reason=f"{check.name}: {check.detail}", checks=checks)


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
