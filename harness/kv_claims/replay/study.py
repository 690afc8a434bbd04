"""A run's stored trials as a source: cells judged again by the claims as they stand now.

What trials show (scores, texts, geometry, clusters) is measured and judged again; what only the run
could see of its instrument is taken over from its evidence.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from kv_claims.claims.patch import names_span
from kv_claims.errors import UsageError
from kv_claims.evidence.hashes import WHOLE, Integrity
from kv_claims.evidence.schema import EvidenceSaid
from kv_claims.evidence.stored import Key, StoredRun
from kv_claims.judging.checks import CONTROLS, DONOR, STATISTICAL_CHECKS, Check, control_check
from kv_claims.judging.result import Word
from kv_claims.judging.texts import degenerate_texts, parts_of_words, texts_of
from kv_claims.planted.catalog import CATALOG, PLANTED_PREFIX
from kv_claims.replay.edits import (
    CLAIM_EDITED,
    FILES_EDITED,
    SCORER_CHANGED,
    change_truth,
    edit_check,
    edits_of,
    files_check,
    scorer_check,
)
from kv_claims.replay.trials import At, StoredTrials
from kv_claims.run.arms import Arm
from kv_claims.run.sampling_settings import Sampling
from kv_claims.study.cell import Cell
from kv_claims.study.expectation import Expectation
from kv_claims.study.plan import Plan, plan_of
from kv_claims.study.planted_truth import expectation
from kv_claims.study.record import Seen, Setting, seen_of
from kv_claims.study.shown import scorer_on_ends
from kv_claims.study.stated import KnownModel
from kv_claims.study.tables import Tables, Trials
from kv_claims.study.unrun import judge_too_few
from kv_claims.study.verdicts import Judged
from kv_claims.study.walk import Study
from kv_claims.tasks.task import Task, clusters_of

_MADE_AGAIN = {
    *STATISTICAL_CHECKS,
    *map(control_check, CONTROLS),
    *("same-is-not-p>0.05", "best-of-k", "clusters-ignored", "short-window"),
    *("degenerate-text", "substring-markers", CLAIM_EDITED, SCORER_CHANGED, FILES_EDITED),
}
"""Checks that a judgment makes itself, from the trials."""


@dataclass
class StoredStudy(Study):
    """The stored trials of a model. replayed: where they come from, for the evidence.

    integrity: whether they, and their evidence, are as the run wrote them.
    """

    run: StoredRun
    model: KnownModel
    task: Task
    trials: StoredTrials
    replayed: dict[str, Any]
    integrity: Integrity = WHOLE
    _tables: dict[At, Tables] = field(default_factory=dict)
    _scorers: dict[At, dict[str, Any]] = field(default_factory=dict)

    def plan(self, asked: Cell) -> Plan:
        """What is asked now, with what was edited since the run, on the arms that are stored.

        Raises UsageError where the trials are of another patch.
        """
        asked.check_task(self.task.sha, self.task.where)
        one = self._one(asked)
        plan = plan_of(asked, self.model, one["pairs"], falls=self.task.falls)
        edits = edits_of(one, plan)
        notes = [
            edit_check(one, edits),
            *scorer_check(one, self.task),
            *files_check(one, self.integrity),
        ]
        if not plan.untestable:
            plan = self._reaching(plan, one)
        plan = replace(
            plan,
            arms=self._stored_arms(plan, one),
            notes=tuple(notes),
            stated=one.get("plan", {}),
            # Pairs that the run did not need were left out whatever is claimed now.
            pairs_not_run=one["multiplicity"]["looks"]["pairs_spared"],
        )
        return replace(plan, expected=self._expected(plan, one, is_new=change_truth(edits)))

    def too_few(self, plan: Plan) -> Judged | None:
        """As the run found: where no trial was run, none says which prompts had the same tokens."""
        one = self._one(plan.asked)
        found = [Check(**check) for check in one["checks"] if check["name"] == "enough-pairs"]
        if one["arms"] or not found or found[0].passed:
            return None
        return judge_too_few(plan, found[0], one["pairs"], one["clusters"])

    def seen(self, plan: Plan, pairs: int) -> Seen:
        """The stored trials of a plan. Raises UsageError where there are none."""
        one = self._one(plan.asked)
        if not one["arms"]:
            raise UsageError(
                f"{self._key(plan.asked)}: no trials are stored of it ({one['verdict']}: "
                f"{one['reason']}), and as it is stated now it needs some; run it"
            )
        at = At(one["study"], pairs, one["seeds"])
        trials = {role: self.trials.of(arm.id, at) for role, arm in plan.arms.items()}
        fed = self.trials.fed_to([arm.id for arm in plan.fed_arms], plan.outcomes, at)
        checks = [
            *_taken_over(one),
            *self._of_texts(plan, trials),
            *_missing_controls(plan),
            *plan.notes,
        ]
        tables = self._tables.setdefault(at, Tables(self.task, self.model.n_layers)).of(
            plan,
            trials,
            fed,
            checks,
            self.trials.pairs(self.task, at),
            self.trials.identity,
        )
        return seen_of(plan, self.task, tables, trials, fed, pairs=pairs, seeds=one["seeds"])

    def setting(self, plan: Plan, pairs: int) -> Setting:
        one = self._one(plan.asked)
        at = At(one["study"], pairs, one["seeds"])
        provenance = {**one["provenance"], "replayed": self.replayed}
        return Setting(self.task, one["study"], one["seeds"], provenance, lambda: self._scorer(at))

    def _key(self, asked: Cell) -> Key:
        return Key(asked.claim.id, asked.id, self.model.name)

    def _one(self, asked: Cell) -> EvidenceSaid:
        """The stored evidence of a cell."""
        return self.run.evidence[self._key(asked)]

    def _scorer(self, at: At) -> dict[str, Any]:
        if at not in self._scorers:
            ends = {role: self.trials.of(role, at) for role in ("base", "source")}
            clusters = clusters_of(self.trials.pairs(self.task, at), self.trials.identity)
            self._scorers[at] = scorer_on_ends(self.task, clusters, ends)
        return self._scorers[at]

    def _reaching(self, plan: Plan, one: EvidenceSaid) -> Plan:
        """With why nothing that could be measured says anything on the claim, as far as is known.

        Of a model on which nothing at all was run, what was found then is all there is.
        """
        then = [
            Check(**check)
            for check in one["checks"]
            if check["passed"] is False and check["name"] not in STATISTICAL_CHECKS
        ]
        same = not one["arms"] and _is_as_planned(plan, one)
        if same and any(check.name == DONOR for check in then):
            return replace(plan, untestable=tuple(then))
        at = At(one["study"], one["pairs"], one["seeds"])
        lengths = self.trials.lengths(self.task, at)
        # Where spans lie is known to a tokenizer, and not to trials.
        if lengths and not names_span(plan.sides):
            return plan.reaching(lengths, self.trials.fed_behind(at))
        return replace(plan, untestable=tuple(then) if same and plan.sides else ())

    def _stored_arms(self, plan: Plan, one: EvidenceSaid) -> dict[str, Arm]:
        """The arms of a plan, which must be those whose trials are stored, in the run's order."""
        stored = one["arms"]
        if not stored or plan.untestable:
            return {}
        arms = {role: arm for role, arm in plan.arms.items() if role not in _left_out(stored)}
        for role, arm in arms.items():
            if stored.get(role) != arm.id:
                raise UsageError(
                    f"{self._key(plan.asked)}: {role} is {arm.id} as asked now, and the stored "
                    f"trials are of {stored.get(role, 'no such arm')}; run it, or ask for what was "
                    "run"
                )
        return {role: arms[role] for role in stored if role in arms}

    def _of_texts(self, plan: Plan, trials: Trials) -> list[Check]:
        """The checks that texts can show, made again as another scorer or outcome may be asked."""
        texts = texts_of(trials)
        if plan.sides and any(outcome.is_text for outcome in plan.outcomes):
            degenerate = degenerate_texts(texts, self.task)
        else:
            why = "no outcome is read from text" if plan.sides else "nothing is patched"
            degenerate = Check("degenerate-text", True, f"does not apply: {why}")
        return [degenerate, parts_of_words(texts, plan.scorers(self.task))]

    def _expected(self, plan: Plan, one: EvidenceSaid, *, is_new: bool) -> Expectation | None:
        """The stored expectation, where the same is asked of the same texts; else made anew.

        The truth of geometry needs torch: none is expected of it where the claim was edited.
        """
        own = len(plan.notes) == 1
        if own and not is_new:
            return _stored_expectation(one)
        is_planted = self.model.name.startswith(PLANTED_PREFIX)
        if not own or not is_planted or any(outcome.is_geometry for outcome in plan.outcomes):
            return None
        planted = CATALOG[self.model.name.removeprefix(PLANTED_PREFIX)]
        sampling = one["provenance"].get("sampling")
        if sampling is None:
            return None
        budget = Sampling(sampling["max_new_tokens"], sampling["temperature"])
        return expectation(planted, plan, self.task, budget)


def _taken_over(one: EvidenceSaid) -> list[Check]:
    """The checks of the instrument, which trials cannot show."""
    found = []
    for check in one["checks"]:
        prefix, _, name = check["name"].rpartition(": ")
        if prefix in ("", "part 1") and name not in _MADE_AGAIN:
            found.append(Check(name, check["passed"], check["detail"]))
    return found


def _left_out(stored: Mapping[str, str]) -> set[str]:
    """Controls that a run has no trials of."""
    return set(CONTROLS) - set(stored)


def _missing_controls(plan: Plan) -> list[Check]:
    """A control that the claim has and the run has not: the claim was edited since."""
    every = all(patch.layers == "all" for patch in plan.cell.patches)
    if plan.claim.about != "layer" or every or "wrong-layer" in plan.arms:
        return []
    detail = "not run: the stored run has no trials of it"
    return [Check("control wrong-layer", None, detail)]


def _is_as_planned(plan: Plan, one: EvidenceSaid) -> bool:
    """Whether the patches are spelled as they were when nothing was run on them."""
    then = one.get("plan", {})
    return all(then.get(name) == plan.stated[name] for name in ("patch", "versus"))


def _stored_expectation(one: Mapping[str, Any]) -> Expectation | None:
    truth = one.get("truth")
    if truth is None or one.get("expected") is None:
        return None
    word: Word = one["expected"]
    parts = [part.get("truth") for part in one["parts"]]
    return Expectation(
        word,
        truth["because"],
        truth["transfer"],
        truth["controls"],
        tuple(parts) if all(parts) else (),
        truth["unless"],
    )
