"""The plan of a cell: all that is settled before a trial is run, worked out once.

Layers, heads and windows on the model, the arms and their controls, what can be read of them, the
error rate, the looks, the word that is expected. Running, tabling, judging and recording take the
plan, and resolve nothing again. Makes no plan's trials, and reads none.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from kv_claims.claims.claim import Claim, Part
from kv_claims.claims.layers import some_model_has
from kv_claims.claims.outcome import LATE, Outcome
from kv_claims.claims.patch import Patch, canonical, check_apart
from kv_claims.claims.positions import Prompted, n_tokens
from kv_claims.claims.reach import Reach, classify
from kv_claims.claims.sites import HeadCounts
from kv_claims.errors import NoSuchCellError, UsageError
from kv_claims.judging.checks import CONTROLS, NO_SUCH_CELL, Check
from kv_claims.judging.estimand import NEEDED, Direction, direction_of, stands_in_table
from kv_claims.judging.frame import ARMS
from kv_claims.judging.multiplicity import Share
from kv_claims.measure.behavior import scorer_of
from kv_claims.run.arms import UNPATCHED, Arm, canonical_arm, controls, patched, self_patch
from kv_claims.study.cell import Cell
from kv_claims.study.expectation import Expectation
from kv_claims.study.stated import Subject, described, stated
from kv_claims.study.testable import Lengths, idle, runs_donor, unreached
from kv_claims.tasks.scorers import Scorer
from kv_claims.tasks.task import Task

SHOWN_GEOMETRY = (Outcome.parse(f"pr@{LATE}"), Outcome.parse("rv"))
"""Geometry that is reported beside every verdict, as in the seed's table."""


class PlannedPart(NamedTuple):
    """One part of a claim. of: how many parts err together with it, this one included.

    direction: where the source may lie. is_given: whether it is a premise.
    """

    part: Part
    outcome: Outcome
    is_given: bool
    of: int
    direction: Direction

    def stands(self, role: str) -> bool:
        """Whether the arm of a role is in the table that the part is judged on."""
        return stands_in_table(role, self.part.estimand)


def parts_of(asked: Cell, *, falls: bool = False) -> tuple[PlannedPart, ...]:
    """What is judged of a cell, part by part; no model is needed to know it. falls: of the task."""
    n_claimed = len(asked.claim.parts)
    return tuple(
        PlannedPart(
            part,
            Outcome.parse(part.outcome),
            number >= n_claimed,
            # What is given is never refuted, and errs alone.
            1 if number >= n_claimed else n_claimed,
            direction_of(part, falls=falls),
        )
        for number, part in enumerate(asked.parts)
    )


def roles_in_tables(parts: Sequence[PlannedPart]) -> list[str]:
    """The roles whose arms some part is judged on, in the order of a table."""
    return [role for role in (*ARMS, *CONTROLS) if any(part.stands(role) for part in parts)]


class Reading(NamedTuple):
    """Geometry that is shown beside the verdict, and what it can say on the patch.

    reach: None where nothing is patched, or a window does not fit. why: of the reach, or why the
    geometry is not read at all.
    """

    outcome: Outcome
    reach: Reach | None = None
    why: str | None = None

    @property
    def is_read(self) -> bool:
        return self.reach is not None or self.why is None


@dataclass(frozen=True)
class Plan:
    """A cell on a model.

    asked, cell: as it was asked, and with its patches in one spelling on this model (as asked where
    the model has no such cell, or its size is not known).
    model: its name and size. pairs: those that there are. looks: numbers of pairs it is judged at.
    share: of 0.05. stated, patch, versus: what the evidence says of the claim and its patches.
    arms: by role, in one spelling; none where nothing is to be run.
    untestable: failed checks of why nothing could be learnt from a run.
    notes: checks of the claim and its trials that a reader is to see with every verdict.
    readings: geometry that is shown. expected: the word that follows from a planted model's truth.
    pairs_not_run: those of the last look that an earlier run left out.
    """

    asked: Cell
    cell: Cell
    model: Subject
    pairs: int
    looks: tuple[int, ...]
    parts: tuple[PlannedPart, ...]
    share: Share
    stated: Mapping[str, Any]
    patch: dict[str, Any] | None
    versus: dict[str, Any] | None
    arms: Mapping[str, Arm]
    untestable: tuple[Check, ...] = ()
    notes: tuple[Check, ...] = ()
    readings: tuple[Reading, ...] = ()
    expected: Expectation | None = None
    pairs_not_run: int = 0

    @property
    def claim(self) -> Claim:
        return self.asked.claim

    @property
    def outcomes(self) -> tuple[Outcome, ...]:
        """What is measured, each once."""
        return tuple(dict.fromkeys(part.outcome for part in self.parts))

    @property
    def sides(self) -> tuple[tuple[Patch, ...], ...]:
        """The patches of each arm that is judged."""
        return tuple(filter(None, (self.cell.patches, self.cell.versus)))

    @property
    def ids(self) -> dict[str, str]:
        """The id of each role's arm."""
        return {role: arm.id for role, arm in self.arms.items()}

    @property
    def own_arms(self) -> dict[str, Arm]:
        """The arms that are not shared by all cells."""
        return {role: arm for role, arm in self.arms.items() if role not in UNPATCHED}

    @property
    def judged_arms(self) -> dict[str, Arm]:
        """The arms that are neither control nor check."""
        roles = ("base", "source", "patched", "versus")
        return {role: arm for role, arm in self.arms.items() if role in roles}

    @property
    def controls(self) -> dict[str, Arm]:
        return {role: arm for role, arm in self.arms.items() if role in CONTROLS}

    @property
    def fed_arms(self) -> list[Arm]:
        """The arms that tokens are fed to; none where no outcome is read along any."""
        if not any(outcome.is_fed for outcome in self.outcomes):
            return []
        checks = ("self-patch", "full-swap")
        return [arm for role, arm in self.arms.items() if role not in checks]

    @property
    def generates(self) -> bool:
        """Whether anything is read of what the arms generate."""
        return any(outcome.behind is None for outcome in self.outcomes)

    def scorers(self, task: Task) -> list[Scorer]:
        """The scorers of texts that the claim rests on."""
        found = (scorer_of(outcome.name, task) for outcome in self.outcomes)
        return [scorer for scorer in found if scorer is not None]

    def check_windows(self, lengths: Lengths, max_new_tokens: int) -> None:
        """Raise UsageError where an outcome's window does not fit (*short-window*)."""
        for outcome in self.outcomes:
            if outcome.is_geometry:
                for tokens in dict.fromkeys(n_tokens(one) for pair in lengths for one in pair):
                    outcome.rows(tokens, max_new_tokens)

    def reaching(self, lengths: Lengths, fed: Mapping[str, int] | None = None) -> Plan:
        """With what can be read of its arms: no arm is left where nothing could be learnt.

        lengths: the prompts (source, base) of every pair; empty where they are not known: then what
        the patches name must do. fed: of outcomes by name, the fewest tokens that are fed behind a
        prompt to read them, where that is known.
        """
        size = self.model.n_layers
        donor = runs_donor(self.sides, size, lengths)
        failed = [donor] if donor else [*idle(self.sides, size), *self._unread(lengths, fed or {})]
        readings = () if failed or not lengths else tuple(self._readings(*lengths[0]))
        return replace(
            self,
            untestable=tuple(failed),
            arms={} if failed else self.arms,
            readings=readings,
        )

    def _unread(self, lengths: Lengths, fed: Mapping[str, int]) -> list[Check]:
        sides = {"patched": self.cell.patches, "versus": self.cell.versus}
        asked = [
            (patches, part.outcome)
            for part in self.parts
            for role, patches in sides.items()
            if role in NEEDED[part.part.estimand]
        ]
        return unreached(asked, self.model.n_layers, lengths, fed)

    def _readings(self, source: Prompted, base: Prompted) -> Iterator[Reading]:
        """What the shown geometry can say of a pair of prompts."""
        n_layers, patches = self.model.n_layers, self.asked.patches
        for outcome in SHOWN_GEOMETRY:
            if n_layers < 2 and outcome.name == "rv":
                yield Reading(outcome, why="one layer only")
            elif patches and min(n_tokens(source), n_tokens(base)) >= 16:
                reach = classify(
                    patches,
                    outcome,
                    n_layers=n_layers,
                    source=source,
                    base=base,
                )
                yield Reading(outcome, reach, reach.why)
            else:
                yield Reading(outcome)


def plan_of(asked: Cell, model: Subject, pairs: int, *, falls: bool = False) -> Plan:
    """The plan of a cell on a model, before it is known what can be read of its arms.

    pairs: how many there are. falls: of the task (`Task.falls`). It is untestable, by
    *no-such-cell*, where this model does not have it and another has: a layer or head beyond the
    end, layers that meet, arms that are one, a wrong layer that is a patched one. Raises
    UsageError where no model has it.
    """
    plan = plan_as_asked(asked, model, pairs, falls=falls)
    try:
        cell = _on_model(plan, model.n_layers, model.heads)
    except UsageError as error:
        elsewhere = isinstance(error, NoSuchCellError)
        if elsewhere or some_model_has(lambda size: _on_model(plan, size, HeadCounts(size, size))):
            return replace(plan, untestable=(Check(NO_SUCH_CELL, False, str(error)),))
        raise
    return replace(plan, cell=cell, arms=arms_of(cell, model))


def plan_as_asked(asked: Cell, model: Subject, pairs: int, *, falls: bool = False) -> Plan:
    """The same without arms of ours, its patches spelled as they were asked."""
    looks = asked.claim.looks
    return Plan(
        asked=asked,
        cell=asked,
        model=model,
        pairs=pairs,
        # No other number is looked at: each look that was not declared is a chance more to err.
        looks=tuple(n for n in looks if n <= pairs) if looks else (pairs,),
        parts=parts_of(asked, falls=falls),
        share=asked.share,
        stated=stated(asked),
        patch=described(asked.patches, model),
        versus=described(asked.versus, model),
        arms={},
    )


def arms_of(cell: Cell, model: Subject) -> dict[str, Arm]:
    """The arms of a cell by role, each in one spelling on the model."""
    arms = dict(UNPATCHED)
    if cell.patches:
        arms["patched"] = patched(cell.patches)
    if cell.versus:
        arms["versus"] = patched(cell.versus)
    if cell.patches:
        about_layer = cell.claim.about == "layer"
        arms |= controls(cell.patches, model.n_layers, about_layer=about_layer, heads=model.heads)
        arms["self-patch"] = self_patch(cell.patches)
    return {r: canonical_arm(arm, model.n_layers, model.heads) for r, arm in arms.items()}


def _on_model(plan: Plan, n_layers: int, heads: HeadCounts) -> Cell:
    """The cell with its patches in one spelling on a model.

    Raises UsageError for what does not go together there.
    """
    cell = plan.asked
    for outcome in plan.outcomes:
        outcome.layers(n_layers)
    for patches in (cell.patches, cell.versus):
        check_apart(patches, n_layers)
    here, other = (
        tuple(canonical(patch, n_layers, heads) for patch in patches)
        for patches in (cell.patches, cell.versus)
    )
    if other and here == other:
        raise UsageError(f"{cell}: both arms are {patched(here).id}")
    if cell.claim.about == "layer" and not _has_wrong_layer(here, n_layers):
        raise UsageError(
            f"{cell}: it is about layers, and those half the depth away, which are its "
            f"control, meet the patched ones ({' & '.join(patch.layers for patch in here)} of "
            f"{n_layers})"
        )
    return replace(cell, patches=here, versus=other)


def _has_wrong_layer(patches: Sequence[Patch], n_layers: int) -> bool:
    """Whether there are layers to hold against the patched ones; of `all` none are wanted."""
    every = all(patch.layers == "all" for patch in patches)
    return every or "wrong-layer" in controls(patches, n_layers, about_layer=True)
