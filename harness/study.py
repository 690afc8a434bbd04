"""A study: the arms of one claim's cell, run on one model and judged.

`ModelStudy` is what the `study` fixture of `pytest claims` holds; `harness.scripting` has the same
engine for a script of one's own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pandas as pd

from harness.cell import Cell
from harness.errors import UsageError
from harness.evidence import Evidence, InstrumentEvidence
from harness.expectation import Expectation, expectation
from harness.judging.checks import INSTRUMENT_CHECKS, Check
from harness.judging.estimand import NEEDED, Direction
from harness.judging.instrument import (
    Observed,
    clusters_ignored,
    full_swap_checks,
    instrument_checks,
    substring_markers,
)
from harness.judging.parts import Combined, combine, judge_part
from harness.judging.result import Verdict
from harness.measure.behavior import scorer_of
from harness.models.load import LoadedModel
from harness.outcome import Outcome
from harness.provenance import provenance
from harness.record import Found, Setting, evidence_of, not_judged, scorer_on_ends
from harness.run.arms import BASE, FULL_SWAP, SOURCE, Arm, controls, patched, self_patch
from harness.run.forced import ForcedRuns
from harness.run.likelihood import Likelihood
from harness.run.runner import Progress, Runner
from harness.run.scores import scored
from harness.run.table import trials_frame
from harness.run.trial import Trial
from harness.tasks.task import Task

PROBE_PAIRS = 16
"""Pairs of which a self-patch is decoded as well; its write is checked for every pair."""

ShowProgress = Callable[[str, int], AbstractContextManager[Progress]]
Trials = dict[str, list[Trial]]
"""By role: base, source, patched, a control's name."""
UNPATCHED = {"base": BASE, "source": SOURCE, "full-swap": FULL_SWAP}


def no_progress(_label: str, _total: int) -> AbstractContextManager[Progress]:
    """Show nothing."""
    return nullcontext(lambda _n: None)


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
        self._frames: dict[str, pd.DataFrame] = {}

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
        """Run a cell's arms and judge its claim.

        Raises UsageError, before the model runs, for a patch that does not fit model or prompts.
        """
        cell = asked.on(self.model.n_layers, self.model.n_kv_heads)
        judged = self._judged_arms(cell)
        self.runner.check([BASE, SOURCE, *judged.values()], self.pairs)
        cell.check_windows(self._lengths, self.runner.sampling.max_new_tokens)
        negative = self._controls(cell)
        untestable = self._untestable(cell, judged)
        expected = self._expectation(cell, negative, untestable)
        if untestable:
            found = Found(asked, *not_judged(cell.parts, untestable, len(self.pairs)), expected)
            return evidence_of(self._setting, found, {}, {}, {}), expected
        arms = {**judged, **negative}
        if cell.patches:
            arms["self-patch"] = self_patch(cell.patches)
        roles = {**UNPATCHED, **arms}
        self.runner.check(roles.values(), self.pairs)
        trials = {**self._shared, **self._run(f"{cell.claim.id} {cell.id}", arms)}
        likelihoods = self._likelihoods(cell, roles)
        checks = self._instrument(cell, trials, roles, likelihoods)
        verdicts, combined = self._verdicts(cell, trials, likelihoods, checks)
        found = Found(asked, verdicts, combined, expected)
        return evidence_of(self._setting, found, trials, roles, likelihoods), expected

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
        pairs = min(PROBE_PAIRS, len(self.pairs)) if arm.donor == "base" else len(self.pairs)
        return pairs * self.n_seeds

    @cached_property
    def provenance(self) -> dict[str, Any]:
        """What it takes to run this again."""
        return provenance(self.runner)

    @cached_property
    def _setting(self) -> Setting:
        return Setting(
            self.runner,
            self.pairs,
            self.n_seeds,
            self.provenance,
            self.planned,
            lambda: self._scorer,
        )

    @cached_property
    def _scorer(self) -> dict[str, Any]:
        """The task's scorer on source and base texts, which all cells share."""
        return scorer_on_ends(self.task, self.pairs, self._shared)

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
            if arms["versus"] == arms["patched"]:
                raise UsageError(
                    f"claim {cell.claim.id!r}, cell {cell.id!r}: both arms are {arms['patched'].id}"
                )
        return arms

    def _controls(self, cell: Cell) -> dict[str, Arm]:
        if not cell.patches or self._is_whole(patched(cell.patches)):
            return {}
        about_layer = cell.claim.about == "layer"
        return controls(cell.patches, self.model.n_layers, about_layer=about_layer)

    def _is_whole(self, arm: Arm) -> bool:
        return any(self.runner.rows.is_source_run(arm, pair) for pair in self.pairs)

    def _untestable(self, cell: Cell, judged: Mapping[str, Arm]) -> list[Check]:
        """Why nothing that would be measured could say anything about the claim."""
        if any(self._is_whole(arm) for arm in judged.values()):
            return [
                Check(
                    "full-swap-is-the-donor",
                    False,
                    "replacing the whole cache at every layer runs the source prompt: an "
                    "instrument check, never a finding",
                )
            ]
        return cell.unreached(self.model.n_layers, self._lengths)

    def _run(self, label: str, arms: Mapping[str, Arm]) -> Trials:
        planned = sum(self.planned(arm) for arm in arms.values())
        if not arms:
            return {}
        with self.show_progress(f"{self.model.name} {label}", planned) as progress:
            trials = self.runner.run(
                arms.values(), self.pairs, self.seeds, probe_pairs=PROBE_PAIRS, progress=progress
            )
        grouped = by_arm(trials)
        return {role: grouped[self.runner.canonical(arm).id] for role, arm in arms.items()}

    def _likelihoods(
        self, cell: Cell, roles: Mapping[str, Arm]
    ) -> dict[tuple[str, str, int], Likelihood]:
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
        likelihoods: Mapping[Any, Likelihood],
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
        return [
            *instrument_checks(seen, scores_text=scores_text, scorers=scorers),
            *self._missing_controls(cell, roles),
        ]

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
        )

    def _missing_controls(self, cell: Cell, roles: Mapping[str, Arm]) -> list[Check]:
        """A claim about layers has no such control where wrong layers would meet the patched."""
        every = all(patch.layers == "all" for patch in cell.patches)
        if cell.claim.about != "layer" or every or "wrong-layer" in roles:
            return []
        detail = "not run: the layers half the depth away meet the patched ones"
        return [Check("control wrong-layer", None, detail)]

    def _verdicts(
        self,
        cell: Cell,
        trials: Trials,
        likelihoods: Mapping[tuple[str, str, int], Likelihood],
        checks: Sequence[Check],
    ) -> tuple[list[Verdict], Combined]:
        """A verdict for each part, and the claim's word."""
        shown = {role: some for role, some in trials.items() if role not in _INSTRUMENT_ROLES}
        verdicts = []
        for part in cell.parts:
            outcome = Outcome.parse(part.outcome)
            needed = {*NEEDED[part.estimand], *(set(shown) - _JUDGED_ROLES)}
            frame = self._frame(
                {r: t for r, t in shown.items() if r in needed}, outcome, likelihoods
            )
            direction: Direction = "either" if outcome.is_geometry else "up"
            whole, lost = _without_holes(frame, outcome)
            is_claimed = part in cell.claim.parts
            verdicts.append(
                judge_part(
                    whole,
                    part,
                    of=len(cell.claim.parts) if is_claimed else 1,
                    margin=cell.claim.margin,
                    checks=[*checks, clusters_ignored(whole, self.pairs), *lost],
                    direction=direction,
                )
            )
        n_claimed = len(cell.claim.parts)
        judged = list(zip(cell.parts, verdicts, strict=True))
        return verdicts, combine(judged[:n_claimed], judged[n_claimed:])

    def _frame(
        self,
        trials: Mapping[str, Sequence[Trial]],
        outcome: Outcome,
        likelihoods: Mapping[tuple[str, str, int], Likelihood],
    ) -> pd.DataFrame:
        """One row a trial, by role; an arm that stands in two roles has a row in each."""
        frames = []
        for role, some in trials.items():
            arm = some[0].arm
            if arm not in self._frames:
                self._frames[arm] = trials_frame(some, self.task)
            frame = scored(self._frames[arm], some, outcome, self.model.n_layers, likelihoods)
            frames.append(frame.assign(arm=role))
        return pd.concat(frames, ignore_index=True)

    def _expectation(
        self, cell: Cell, negative: Mapping[str, Arm], untestable: Sequence[Check]
    ) -> Expectation | None:
        if self.model.planted is None:
            return None
        return expectation(
            self.model.planted, cell, negative, self.task, self.runner.sampling, untestable
        )


_INSTRUMENT_ROLES = ("self-patch", "full-swap")
_JUDGED_ROLES = {"base", "source", "patched", "versus"}


def by_arm(trials: Sequence[Trial]) -> dict[str, list[Trial]]:
    """Trials by the id of their arm."""
    found: dict[str, list[Trial]] = {}
    for trial in trials:
        found.setdefault(trial.arm, []).append(trial)
    return found


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
