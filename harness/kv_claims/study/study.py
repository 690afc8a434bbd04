"""A study: the arms of one claim's cell, run on one model and judged.

`ModelStudy` is what the `study` fixture of `pytest claims` holds; `kv_claims.study.scripting` has
the same engine for a script of one's own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import pandas as pd

from kv_claims.claims.claim import Claim, Part
from kv_claims.errors import NoSuchCellError, UsageError
from kv_claims.evidence.evidence import Evidence, InstrumentEvidence
from kv_claims.evidence.provenance import provenance
from kv_claims.judging.checks import INSTRUMENT_CHECKS, Check
from kv_claims.judging.instrument import (
    Observed,
    full_swap_checks,
    instrument_checks,
    substring_markers,
)
from kv_claims.measure.behavior import scorer_of
from kv_claims.models.load import LoadedModel
from kv_claims.run.arms import (
    PROBE_PAIRS,
    UNPATCHED,
    Arm,
    controls,
    n_planned,
    patched,
    self_patch,
)
from kv_claims.run.forced import ForcedRuns
from kv_claims.run.likelihood import Likelihood
from kv_claims.run.runner import Progress, Runner
from kv_claims.run.scores import Likelihoods
from kv_claims.run.trial import Trial
from kv_claims.study.cell import Cell, no_such_cell
from kv_claims.study.expectation import Expectation, expectation
from kv_claims.study.record import (
    Found,
    Look,
    Setting,
    evidence_of,
    not_judged,
    not_looked_at,
    plan_of,
    scorer_on_ends,
)
from kv_claims.study.verdicts import Judged, Tables, Trials, judge_cell, too_few
from kv_claims.tasks.task import Task, clusters_of

ShowProgress = Callable[[str, int], AbstractContextManager[Progress]]


def no_progress(_label: str, _total: int) -> AbstractContextManager[Progress]:
    """Show nothing."""
    return nullcontext(lambda _n: None)


class CellRun(NamedTuple):
    """A cell that was run and judged.

    tables: for each part, the rows that it was judged on, one a trial; None where nothing was run.
    """

    evidence: Evidence
    expected: Expectation | None
    tables: list[pd.DataFrame | None]


@dataclass
class ModelStudy:
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

    def judge(self, asked: Cell) -> tuple[Evidence, Expectation | None]:
        """Run a cell's arms and judge its claim; errors as in `run_cell`."""
        done = self.run_cell(asked)
        return done.evidence, done.expected

    def run_cell(self, asked: Cell) -> CellRun:
        """Run a cell's arms and judge its claim, at each of its looks until it is decided.

        A cell that the model does not have is *invalid: no-such-cell*. Raises UsageError, before
        the model runs, for a patch that does not fit the prompts or that no model could have.
        """
        plan = self._plan(asked)
        looks: list[Look] = []
        planned = self._looks(plan.cell.claim)
        if (unrun := self._unrun(plan, planned)) is not None:
            found = Found(asked, unrun, plan.stated)
            evidence = evidence_of(self._setting, found, plan.expected, {}, {}, {})
            return CellRun(evidence, plan.expected, [None] * len(plan.cell.parts))
        for n in planned:
            study = self._first(n)
            trials, likelihoods, tables, judged = study._carry_out(plan)
            looks.append(Look.of(n, judged))
            if judged.is_final:
                break
        found = Found(asked, judged, plan.stated, tuple(looks), spared=planned[-1] - n)
        evidence = evidence_of(
            study._setting, found, plan.expected, trials, plan.roles, likelihoods
        )
        return CellRun(evidence, plan.expected, [tables[part] for part in plan.cell.parts])

    def check_full_swap(self) -> InstrumentEvidence:
        """Run base, source and the full swap on every pair: the oracle check of the instrument."""
        seen = self._observed(self._shared, UNPATCHED, [], [])
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

    def _plan(self, asked: Cell) -> _Plan:
        """What is to be run for a cell, checked on all pairs; nothing is run."""
        try:
            cell = asked.on(self.model.n_layers, self.model.n_kv_heads)
        except NoSuchCellError as error:
            failed = [no_such_cell(error)]
            expected = self._expectation(asked, {}, failed)
            return _Plan(asked, {}, failed, expected, plan_of(asked))
        judged = self._judged_arms(cell)
        self.runner.check([UNPATCHED["base"], UNPATCHED["source"], *judged.values()], self.pairs)
        cell.check_windows(self._lengths, self.runner.sampling.max_new_tokens)
        if self.model.keeps_latents and any(outcome.is_geometry for outcome in cell.outcomes):
            raise UsageError(
                f"claim {cell.claim.id!r}: the geometry of values cannot be read on "
                f"{self.model.name}, whose cache keeps a latent in their place"
            )
        untestable = self._untestable(cell)
        negative = {} if untestable else self._controls(cell)
        expected = self._expectation(cell, negative, untestable)
        arms = {**judged, **negative}
        if cell.patches:
            arms["self-patch"] = self_patch(cell.patches)
        if not untestable:
            self.runner.check(arms.values(), self.pairs)
        return _Plan(cell, arms, untestable, expected, plan_of(asked))

    def _unrun(self, plan: _Plan, looks: Sequence[int]) -> Judged | None:
        """What is known of a cell before anything is run; None where trials must tell."""
        if plan.untestable:
            return not_judged(plan.cell.parts, plan.untestable, len(self.pairs))
        if not looks:
            return not_looked_at(plan.cell, len(self.pairs))
        return too_few(plan.cell, self.pairs[: looks[-1]], self.runner.rows.identity)

    def _carry_out(
        self, plan: _Plan
    ) -> tuple[Trials, Likelihoods, dict[Part, pd.DataFrame], Judged]:
        """Run a plan on this study's pairs, and judge it."""
        cell, roles = plan.cell, plan.roles
        trials = {**self._shared, **self._run(f"{cell.claim.id} {cell.id}", plan.arms)}
        likelihoods = self._likelihoods(cell, roles)
        checks = self._instrument(cell, trials, roles, likelihoods)
        tables = {part: self._tables.of_part(trials, part, likelihoods) for part in cell.parts}
        identity = self.runner.rows.identity
        judged = judge_cell(cell, tables, checks, self.task, self.pairs, identity)
        return trials, likelihoods, tables, judged

    def _looks(self, claim: Claim) -> list[int]:
        """Numbers of pairs at which a claim is judged here: its looks, as far as pairs go.

        No other number is looked at: each look that was not declared is a chance more to err.
        """
        if not claim.looks:
            return [len(self.pairs)]
        return [n for n in claim.looks if n <= len(self.pairs)]

    def _first(self, n: int) -> ModelStudy:
        """The same study on its first n pairs; trials are shared."""
        if n == len(self.pairs):
            return self
        if n not in self._smaller:
            self._smaller[n] = replace(self, n_pairs=n)
        return self._smaller[n]

    @cached_property
    def _setting(self) -> Setting:
        runner = self.runner
        return Setting(
            self.model,
            self.task,
            runner.study,
            lambda arm: runner.canonical(arm).id,
            lambda prompt: len(runner.rows.tokens(prompt)),
            self.pairs,
            self.n_seeds,
            self.provenance,
            self.planned,
            lambda: self._scorer,
        )

    @cached_property
    def _scorer(self) -> dict[str, Any]:
        """The task's scorer on source and base texts, which all cells share."""
        clusters = clusters_of(self.pairs, self.runner.rows.identity)
        return scorer_on_ends(self.task, clusters, self._shared)

    @cached_property
    def _lengths(self) -> list[tuple[int, int]]:
        """Tokens of (source, base) of every pair."""
        tokens = self.runner.rows.tokens
        return [(len(tokens(pair.source)), len(tokens(pair.base))) for pair in self.pairs]

    @cached_property
    def _shared(self) -> Trials:
        """Base, source and full swap of every pair: run once a model."""
        return self._run("shared arms", UNPATCHED)

    def _judged_arms(self, cell: Cell) -> dict[str, Arm]:
        arms = {"patched": patched(cell.patches)} if cell.patches else {}
        if cell.versus:
            arms["versus"] = patched(cell.versus)
        return arms

    def _controls(self, cell: Cell) -> dict[str, Arm]:
        if not cell.patches:
            return {}
        about_layer = cell.claim.about == "layer"
        return controls(cell.patches, self.model.n_layers, about_layer=about_layer)

    def _untestable(self, cell: Cell) -> list[Check]:
        """Why nothing that would be measured could say anything about the claim."""
        if runs_donor := cell.runs_donor(self.model.n_layers, self._lengths):
            return [runs_donor]
        return cell.unreached(self.model.n_layers, self._lengths)

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
        return {role: grouped[self.runner.canonical(arm).id] for role, arm in arms.items()}

    def _likelihoods(self, cell: Cell, roles: Mapping[str, Arm]) -> Likelihoods:
        if not any(outcome.is_likelihood for outcome in cell.outcomes):
            return {}
        arms = [arm for role, arm in roles.items() if role not in ("self-patch", "full-swap")]
        found = ForcedRuns(self.runner).measure(arms, self.pairs, self.seeds)
        return {(one.arm, one.pair, one.seed): one for one in found}

    def _instrument(
        self,
        cell: Cell,
        trials: Trials,
        roles: Mapping[str, Arm],
        likelihoods: Likelihoods,
    ) -> list[Check]:
        scorers = [
            scorer
            for outcome in cell.outcomes
            if (scorer := scorer_of(outcome.name, self.task)) is not None
        ]
        if not cell.patches:
            seen = self._observed(trials, roles, [], [])
            made = [*full_swap_checks(seen), substring_markers(seen, scorers)]
            # What is judged is clustered without a patch, too: that check is made with the table.
            names = {*(check.name for check in made), "clusters-ignored"}
            nothing = "does not apply: nothing is patched"
            return [
                *made,
                *(Check(name, True, nothing) for name in INSTRUMENT_CHECKS if name not in names),
            ]
        identity = [
            footprint
            for patches in filter(None, (cell.patches, cell.versus))
            for footprint in self.runner.build_only(self_patch(patches), self.pairs)
        ]
        seen = self._observed(trials, roles, identity, list(likelihoods.values()))
        scores_text = any(outcome.is_text for outcome in cell.outcomes)
        return instrument_checks(seen, scores_text=scores_text, scorers=scorers)

    def _observed(
        self,
        trials: Mapping[str, Sequence[Trial]],
        roles: Mapping[str, Arm],
        identity: Any,
        likelihoods: Sequence[Likelihood],
    ) -> Observed:
        return Observed(
            model=self.model,
            task=self.task,
            sampling=self.runner.sampling,
            pairs=self.pairs,
            roles=trials,
            arms=dict(roles),
            planned={role: self.planned(arm) for role, arm in roles.items()},
            identity=identity,
            likelihoods=likelihoods,
            store_unchanged=self.runner.store.unchanged(),
            prompt_identity=self.runner.rows.identity,
        )

    def _expectation(
        self, cell: Cell, negative: Mapping[str, Arm], untestable: Sequence[Check]
    ) -> Expectation | None:
        if self.model.planted is None:
            return None
        return expectation(
            self.model.planted, cell, negative, self.task, self.runner.sampling, untestable
        )


class _Plan(NamedTuple):
    """What a cell needs run. arms: by role, those of the cell's own. untestable: why nothing is.

    stated: the claim and patches as asked, hashed, for the evidence.
    """

    cell: Cell
    arms: dict[str, Arm]
    untestable: list[Check]
    expected: Expectation | None
    stated: dict[str, Any]

    @property
    def roles(self) -> dict[str, Arm]:
        """All arms, the shared ones too."""
        return {**UNPATCHED, **self.arms}


def by_arm(trials: Sequence[Trial]) -> dict[str, list[Trial]]:
    """Trials by the id of their arm."""
    found: dict[str, list[Trial]] = {}
    for trial in trials:
        found.setdefault(trial.arm, []).append(trial)
    return found
