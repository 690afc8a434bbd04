"""A model that is run as the source of trials: the arms of one claim's cell, run on it and judged.

`ModelStudy` is what the `study` fixture of `pytest claims` holds; `kv_claims.study.scripting` has
the same engine for a script of one's own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from kv_claims.errors import UsageError
from kv_claims.evidence.evidence import InstrumentEvidence
from kv_claims.evidence.provenance import provenance
from kv_claims.judging.checks import INSTRUMENT_CHECKS, Check
from kv_claims.judging.instrument import (
    Observed,
    full_swap_checks,
    instrument_checks,
    likelihood_oracle,
    no_control,
    substring_markers,
)
from kv_claims.models.load import LoadedModel
from kv_claims.run.arms import PROBE_PAIRS, UNPATCHED, Arm, n_planned
from kv_claims.run.feed import fed_to
from kv_claims.run.runner import Progress, Runner
from kv_claims.run.scores import Fed
from kv_claims.run.self_patches import SelfPatches
from kv_claims.run.self_write import SelfWrite
from kv_claims.run.trial import Trial
from kv_claims.study.cell import Cell
from kv_claims.study.plan import Plan, plan_of
from kv_claims.study.planted_truth import expectation
from kv_claims.study.record import Seen, Setting, seen_of
from kv_claims.study.scored import check_scored
from kv_claims.study.shown import scorer_on_ends
from kv_claims.study.tables import Tables, Trials
from kv_claims.study.testable import Lengths
from kv_claims.study.unrun import too_few
from kv_claims.study.verdicts import Judged
from kv_claims.study.walk import Study
from kv_claims.tasks.task import Task, clusters_of

ShowProgress = Callable[[str, int], AbstractContextManager[Progress]]


def no_progress(_label: str, _total: int) -> AbstractContextManager[Progress]:
    """Show nothing."""
    return nullcontext(lambda _n: None)


@dataclass
class ModelStudy(Study):
    """One model, one task and one budget; judges cell after cell and shares what they share.

    show_progress: makes a progress display from a label and a number of trials.
    """

    runner: Runner
    n_pairs: int
    n_seeds: int
    show_progress: ShowProgress = no_progress

    def __post_init__(self) -> None:
        if self.n_seeds < 1:
            raise UsageError(f"seeds {self.n_seeds}: expected at least 1")
        self.pairs = self.task.first_pairs(self.n_pairs)
        self.runner.rows.check_differ(self.pairs)
        self._tables = Tables(self.task, self.model.n_layers)
        self._smaller: dict[int, ModelStudy] = {}

    @property
    def model(self) -> LoadedModel:
        return self.runner.model

    @property
    def task(self) -> Task:
        return self.runner.task

    @property
    def seeds(self) -> range:
        return range(self.n_seeds)

    def plan(self, asked: Cell) -> Plan:
        """What is to be run for a cell, checked on all pairs; nothing is run."""
        asked.check_task(self.task.sha, self.task.where)
        plan = plan_of(asked, self.model, len(self.pairs), falls=self.task.falls)
        check_scored(plan.outcomes, self.task)
        told = self.runner.rows.constants.told
        plan = replace(plan, patch=_told(plan.patch, told), versus=_told(plan.versus, told))
        if not plan.generates:
            return self._brief._checked(plan)
        return self._checked(plan)

    def _checked(self, plan: Plan) -> Plan:
        """The same with what can be read of its arms, and its expectation."""
        if not plan.untestable:
            behind = self.runner.rows.behind
            behind.check(plan.outcomes, self.pairs)
            self.runner.rows.make_room(behind.longest(plan.outcomes, self.pairs))
            self.runner.check(plan.judged_arms.values(), self.pairs)
            prompts = self._extents(plan)
            plan.check_windows(prompts, self.runner.sampling.max_new_tokens)
            if self.model.keeps_latents and any(outcome.is_geometry for outcome in plan.outcomes):
                raise UsageError(
                    f"claim {plan.claim.id!r}: the geometry of values cannot be read on "
                    f"{self.model.name}, whose cache keeps a latent in their place"
                )
            fed = {one.name: behind.fewest_read(one, self.pairs) for one in plan.outcomes}
            read: dict[str, int] = {name: n for name, n in fed.items() if n is not None}
            plan = plan.reaching(prompts, read)
            self.runner.check(plan.own_arms.values(), self.pairs)
        if self.model.planted is None:
            return plan
        found = expectation(self.model.planted, plan, self.task, self.runner.sampling)
        return replace(plan, expected=found)

    def too_few(self, plan: Plan) -> Judged | None:
        return too_few(plan, self.pairs[: plan.looks[-1]], self.runner.rows.identity)

    def seen(self, plan: Plan, pairs: int) -> Seen:
        """Run a plan's arms on the first so many pairs, and check the instrument on them."""
        return self._of(plan)._first(pairs)._run_plan(plan)

    def setting(self, plan: Plan, pairs: int) -> Setting:
        return self._of(plan)._first(pairs)._setting

    def check_full_swap(self) -> InstrumentEvidence:
        """Run base, source and the full swap on every pair: the oracle check of the instrument."""
        seen = self._observed(self._shared, UNPATCHED, [], Fed())
        checks = full_swap_checks(seen)
        planned = sum(seen.planned.values())
        run = sum(len(trials) for trials in seen.roles.values())
        return InstrumentEvidence(
            name="full-swap",
            model=self.model.name,
            task=self.task.name,
            passed=all(check.passed for check in checks),
            checks=[check._asdict() for check in checks],
            pairs=len(self.pairs),
            seeds=self.n_seeds,
            trials={"planned": planned, "run": run, "failed": planned - run},
            arms={role: arm.id for role, arm in UNPATCHED.items()},
            study=self.runner.study,
            provenance=self.provenance,
        )

    def planned(self, arm: Arm) -> int:
        """How many trials of an arm a cell has."""
        return n_planned(arm, len(self.pairs), self.n_seeds)

    @cached_property
    def provenance(self) -> dict[str, Any]:
        """What it takes to run this again."""
        return provenance(self.runner, self.pairs)

    def _of(self, plan: Plan) -> ModelStudy:
        """The study whose trials a plan rests on."""
        return self if plan.generates else self._brief

    @cached_property
    def _brief(self) -> ModelStudy:
        """The same study of trials that are as brief as they may be, for what is fed alone."""
        return replace(self, runner=self.runner.brief())

    def _first(self, n: int) -> ModelStudy:
        """The same study on its first n pairs; trials are shared."""
        if n == len(self.pairs):
            return self
        if n not in self._smaller:
            self._smaller[n] = replace(self, n_pairs=n)
        return self._smaller[n]

    def _run_plan(self, plan: Plan) -> Seen:
        label = f"{plan.claim.id} {plan.asked.id}"
        trials = {**self._shared, **self._run(label, plan.own_arms)}
        fed = fed_to(self.runner, plan.outcomes, plan.fed_arms, self.pairs, self.seeds)
        checks = self._instrument(plan, trials, fed)
        identity = self.runner.rows.identity
        tables = self._tables.of(plan, trials, fed, checks, self.pairs, identity)
        n = len(self.pairs)
        return seen_of(plan, self.task, tables, trials, fed, pairs=n, seeds=self.n_seeds)

    @cached_property
    def _setting(self) -> Setting:
        return Setting(
            self.task, self.runner.study, self.n_seeds, self.provenance, lambda: self._scorer
        )

    @cached_property
    def _scorer(self) -> dict[str, Any]:
        """The task's scorer on source and base texts, which all cells share."""
        clusters = clusters_of(self.pairs, self.runner.rows.identity)
        return scorer_on_ends(self.task, clusters, self._shared)

    def _extents(self, plan: Plan) -> Lengths:
        """The prompts of every pair as the positions of a plan's patches see them."""
        extent, patches = self.runner.rows.extent, [patch for side in plan.sides for patch in side]
        return [(extent(pair.source, patches), extent(pair.base, patches)) for pair in self.pairs]

    @cached_property
    def _shared(self) -> Trials:
        """Base, source and full swap of every pair: run once a model."""
        return self._run("shared arms", UNPATCHED)

    def _run(self, label: str, arms: Mapping[str, Arm]) -> Trials:
        planned = sum(self.planned(arm) for arm in arms.values())
        if not arms:
            return {}
        with self.show_progress(f"{self.model.name} {label}", planned) as progress:
            trials = self.runner.run(
                arms.values(),
                self.pairs,
                self.seeds,
                probe_pairs=PROBE_PAIRS,
                progress=progress,
                found=getattr(progress, "found", None),
            )
        grouped = by_arm(trials)
        return {role: grouped[arm.id] for role, arm in arms.items()}

    def _instrument(self, plan: Plan, trials: Trials, fed: Fed) -> list[Check]:
        scorers = plan.scorers(self.task)
        if not plan.sides:
            seen = self._observed(trials, plan.arms, [], fed)
            made = [*full_swap_checks(seen), substring_markers(seen, scorers)]
            made += [likelihood_oracle(seen)] if fed.oracle_errors else []
            # What is judged is clustered without a patch, too: that check is made with the table.
            names = {*(check.name for check in made), "clusters-ignored"}
            nothing = "does not apply: nothing is patched"
            return [
                *made,
                *(Check(name, True, nothing) for name in INSTRUMENT_CHECKS if name not in names),
            ]
        judged = [plan.arms[role] for role in ("patched", "versus") if role in plan.arms]
        self_writes = SelfPatches(self.runner).of(judged, self.pairs)
        seen = self._observed(trials, plan.arms, self_writes, fed)
        scores_text = any(outcome.is_text for outcome in plan.outcomes)
        made = instrument_checks(seen, scores_text=scores_text, scorers=scorers)
        return [*made, *no_control(plan.arms)]

    def _observed(
        self,
        trials: Trials,
        arms: Mapping[str, Arm],
        self_writes: Sequence[SelfWrite],
        fed: Fed,
    ) -> Observed:
        return Observed(
            model=self.model,
            task=self.task,
            sampling=self.runner.sampling,
            pairs=self.pairs,
            roles=trials,
            arms=arms,
            planned={role: self.planned(arm) for role, arm in arms.items()},
            self_writes=self_writes,
            fed=fed,
            store_unchanged=self.runner.store.unchanged(),
            prompt_identity=self.runner.rows.identity,
        )


def _told(patch: dict[str, Any] | None, told: Callable[[str], str | None]) -> dict[str, Any] | None:
    """What the evidence says of patches, with what their donor is, where that is no prompt."""
    if patch is None or (found := told(patch["donor"])) is None:
        return patch
    every = [{**one, "donor_told": found} for one in patch["all"]]
    return {**patch, "donor_told": found, "all": every}


def by_arm(trials: Sequence[Trial]) -> dict[str, list[Trial]]:
    """Trials by the id of their arm."""
    found: dict[str, list[Trial]] = {}
    for trial in trials:
        found.setdefault(trial.arm, []).append(trial)
    return found
