"""The verdict that is expected on a planted model: it follows from the truth of its weights.

The truth of a cell is, part by part, what its arms do in expectation, and what its controls do.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Literal, NamedTuple

from kv_claims.claims.claim import OF_SPREADS, Part
from kv_claims.claims.outcome import RATES, Outcome
from kv_claims.claims.patch import Patch, donor_of, is_full_swap
from kv_claims.judging.checks import DONOR, NO_CONTROL, NO_SUCH_CELL
from kv_claims.judging.controls import band_of
from kv_claims.judging.estimand import NEGATIVE, Direction
from kv_claims.judging.result import Word
from kv_claims.judging.rule import Rule
from kv_claims.planted.catalog import N_LAYERS, Planted
from kv_claims.planted.degenerate import expected_degenerate_share
from kv_claims.planted.truth import Means, UnknownTruth, expected_means
from kv_claims.run.arms import Arm
from kv_claims.run.sampling_settings import Sampling
from kv_claims.study.expectation import Expectation
from kv_claims.study.plan import Plan, PlannedPart
from kv_claims.tasks.task import Task

_SURELY_DEGENERATE, _SURELY_NOT = 3.0, 0.2
"""Expected shares of degenerate texts, in multiples of the task's limit, that leave no doubt."""

_NO_GAP = 1e-9
"""Source and base are the same, pair by pair, but for rounding."""
_ANY = (Patch("v", "0", "last(1)"),)
"""Stands for a patch where only base and source are asked for."""


class _Truth(NamedTuple):
    """The truth of one part, and the word that follows."""

    word: Word
    because: str
    value: float | None
    controls: dict[str, float]
    unless: str | None = None

    def to_dict(self) -> dict[str, Any]:
        return {"value": self.value, "controls": self.controls, "word": self.word}


def expectation(planted: Planted, plan: Plan, task: Task, sampling: Sampling) -> Expectation | None:
    """The verdict that follows from the truth of a planted model.

    None where the truth is not known: another scorer than the lexicon, greedy decoding, a task
    that is not the model's own, or an outcome or patch of which the truth has no closed form.
    """
    if any(check.name == NO_SUCH_CELL for check in plan.untestable):
        return Expectation("invalid", NO_SUCH_CELL)
    own_task = task.name == f"planted:{planted.name}"
    if task.scorer.name != "lexicon" or sampling.temperature <= 0 or not own_task:
        return None
    if any(is_full_swap(patches, N_LAYERS) for patches in plan.sides):
        return Expectation("invalid", DONOR)
    if plan.untestable:
        return Expectation("invalid", plan.untestable[0].name)
    study = _Study(planted, plan, task, sampling)
    try:
        degenerate = study.is_degenerate()
        truths = [study.truth(part) for part in plan.parts]
    except UnknownTruth:
        return None
    if degenerate is None:
        return None
    word, because = _combined(plan, truths)
    if degenerate:
        word, because = "invalid", "degenerate-text"
    first = truths[0]
    return Expectation(
        word,
        because,
        first.value,
        first.controls,
        tuple(truth.to_dict() for truth in truths),
        _unless(plan, truths),
    )


@lru_cache(maxsize=1024)
def _means(
    planted: Planted,
    patches: tuple[Patch, ...],
    task: Task,
    donor: str,
    outcome: Outcome,
    sampling: Sampling,
) -> Means:
    """Expected means of base, source and patched arm; many cells share arms."""
    return expected_means(
        planted,
        patches,
        task,
        donor=donor,
        outcome=outcome,
        max_new_tokens=sampling.max_new_tokens,
        temperature=sampling.temperature,
    )


class _Study(NamedTuple):
    """A cell on a planted model, with its budget."""

    planted: Planted
    plan: Plan
    task: Task
    sampling: Sampling

    def means(self, patches: Sequence[Patch], donor: str, outcome: Outcome) -> Means:
        asked = tuple(patches) or _ANY
        return _means(self.planted, asked, self.task, donor, outcome, self.sampling)

    def is_degenerate(self) -> bool | None:
        """Whether the texts of some judged arm collapse; None where it could go either way."""
        if not any(outcome.is_text for outcome in self.plan.outcomes):
            return False
        arms: list[tuple[Literal["base", "source", "patched"], Sequence[Patch]]] = [
            ("base", ()),
            ("source", ()),
        ]
        arms += [("patched", patches) for patches in self.plan.sides]
        limit = self.task.max_degenerate_share
        found = []
        for arm, patches in arms:
            share = expected_degenerate_share(
                self.planted,
                tuple(patches) or _ANY,
                self.task,
                arm=arm,
                donor=donor_of(patches or _ANY),
                max_new_tokens=self.sampling.max_new_tokens,
                temperature=self.sampling.temperature,
            )
            sure = share >= _SURELY_DEGENERATE * limit or share <= _SURELY_NOT * limit
            found.append(share > limit if sure else None)
        return True if True in found else None if None in found else False

    def truth(self, planned: PlannedPart) -> _Truth:
        """The true value of a part and its word."""
        part, outcome, cell = planned.part, planned.outcome, self.plan.cell
        margin = self.plan.claim.margin
        donor = donor_of(cell.patches or _ANY)
        base, source, patched = self.means(cell.patches, donor, outcome)
        gap = source - base
        if part.estimand == "gap":
            if abs(gap) < _NO_GAP:
                return _Truth("invalid", "degenerate", gap, {})
            return _worded(gap, part, {}, margin)
        if part.estimand in OF_SPREADS:
            raise UnknownTruth(f"{part}: it hangs on the spread of scores, and means are known")
        if part.estimand == "rate" and outcome.name not in RATES:
            raise UnknownTruth(f"{part}: a planted model's scores of text are not 0 or 1")
        if part.estimand in ("shift", "rate"):
            gap = 1.0
        elif _is_no_ceiling(gap, planned.direction):
            return _Truth("invalid", "no-ceiling", None, {})
        zero = against = base
        if part.estimand == "difference":
            against = self.means(cell.versus, donor_of(cell.versus), outcome).patched
        if part.estimand == "carried":
            zero = against = self.means(cell.patches, "unrelated-base", outcome).patched
            gap = source - zero
            if _is_no_ceiling(gap, planned.direction):
                return _Truth("invalid", "no-ceiling", None, {})
        value = (patched - against) / gap
        if part.estimand == "shift" and abs(value) < _NO_GAP:
            # Nothing moves in any pair, and no unit has a spread.
            return _Truth("invalid", "degenerate", value, {})
        controls = {
            name: self._control(arm, outcome, zero, gap)
            for name, arm in self.plan.controls.items()
            if name in NEGATIVE[part.estimand]
        }
        found = _worded(value, part, controls, margin)
        if found.word == "supported" and part.region.claims_effect and not self.plan.controls:
            return found._replace(word="inconclusive", because=NO_CONTROL)
        return found

    def _control(self, arm: Arm, outcome: Outcome, zero: float, gap: float) -> float:
        """What a control does in truth, as a share of the gap; NaN where it is not known."""
        try:
            return (self.means(arm.patches, _donor(arm), outcome).patched - zero) / gap
        except UnknownTruth:
            return math.nan


def _is_no_ceiling(gap: float, direction: Direction) -> bool:
    """Whether there is nothing to be a share of, or it lies on the other side."""
    wrong = {"up": gap < 0, "down": gap > 0, "either": False}[direction]
    return wrong or abs(gap) < _NO_GAP


def _worded(value: float, part: Part, controls: dict[str, float], margin: float) -> _Truth:
    if math.isnan(value):
        raise UnknownTruth(f"{part}: no value")
    if value not in part.region:
        return _Truth("refuted", f"{value:.4f} is outside {part.region}", value, controls)
    # A control also must not do what the patch does, however little that is.
    band = band_of(Rule(part.region, part.estimand, margin=margin))
    known = {name: found for name, found in controls.items() if not math.isnan(found)}
    off = [name for name, found in known.items() if found not in band or found >= value > 0]
    if off and part.region.claims_effect:
        return _Truth("invalid", "not specific", value, controls)
    unknown = part.region.claims_effect and len(known) < len(controls)
    because = f"{value:.4f} is inside {part.region}"
    return _Truth("supported", because, value, controls, "not specific" if unknown else None)


def _combined(plan: Plan, truths: Sequence[_Truth]) -> tuple[Word, str]:
    """The word of all parts, in the order of `judging.parts.combine`, and how its reason starts."""
    n_claimed = len(plan.claim.parts)
    if any(truth.word != "supported" for truth in truths[n_claimed:]):
        return "invalid", "premise: "
    for word in ("refuted", "invalid", "inconclusive"):
        for number, truth in enumerate(truths[:n_claimed]):
            if truth.word == word:
                return truth.word, _prefix(plan, number) + truth.because
    return "supported", "; ".join(truth.because for truth in truths[:n_claimed])


def _unless(plan: Plan, truths: Sequence[_Truth]) -> str | None:
    """How the reason starts where a control whose truth is not known decides."""
    for number, truth in enumerate(truths):
        if truth.unless:
            return _prefix(plan, number) + truth.unless
    return None


def _prefix(plan: Plan, number: int) -> str:
    """What stands before the reason of a part in that of the claim."""
    planned = plan.parts[number]
    if planned.is_given:
        return f"premise: {planned.part}: "
    return f"{planned.part}: " if planned.of > 1 else ""


def _donor(arm: Arm) -> str:
    return "source" if arm.donor is None else arm.donor
