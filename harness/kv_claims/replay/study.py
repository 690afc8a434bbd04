"""One model's stored trials as a study: its cells judged again by the claims as they stand now.

What trials show (scores, texts, geometry, clusters) is measured and judged again; what only the run
could see of its instrument is taken over from its evidence.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, NamedTuple

from kv_claims.errors import NoSuchCellError, UsageError
from kv_claims.evidence.evidence import Evidence
from kv_claims.evidence.hashes import WHOLE, Integrity
from kv_claims.evidence.schema import EvidenceSaid
from kv_claims.evidence.stored import Key, StoredRun
from kv_claims.judging.checks import CONTROLS, DONOR, STATISTICAL_CHECKS, Check, control_check
from kv_claims.judging.result import Word
from kv_claims.judging.texts import degenerate_texts, parts_of_words, texts_of
from kv_claims.measure.behavior import scorer_of
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
from kv_claims.run.arms import (
    UNPATCHED,
    Arm,
    canonical_arm,
    controls,
    n_planned,
    patched,
    self_patch,
)
from kv_claims.run.likelihood import Likelihood
from kv_claims.run.sampling_settings import Sampling
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
    scorer_on_ends,
)
from kv_claims.study.verdicts import Judged, Tables, Trials, judge_cell, judge_too_few
from kv_claims.tasks.task import Pair, Prompt, Task, clusters_of

_MADE_AGAIN = {
    *STATISTICAL_CHECKS,
    *map(control_check, CONTROLS),
    *("same-is-not-p>0.05", "best-of-k", "clusters-ignored", "short-window"),
    *("degenerate-text", "substring-markers", CLAIM_EDITED, SCORER_CHANGED, FILES_EDITED),
}
"""Checks that a judgment makes itself, from the trials."""


class StoredModel(NamedTuple):
    """What is known of a model that is not loaded."""

    name: str
    n_layers: int
    n_kv_heads: int


class _Asked(NamedTuple):
    """A cell as it is asked now, on its model, and its stored evidence."""

    asked: Cell
    cell: Cell
    one: EvidenceSaid
    notes: list[Check]
    """Whether claim and scorer are those of the run."""


@dataclass
class StoredStudy:
    """The stored trials of a model. replayed: where they come from, for the evidence.

    integrity: whether they, and their evidence, are as the run wrote them.
    """

    run: StoredRun
    model: StoredModel
    task: Task
    trials: Sequence[Trial]
    likelihoods: Sequence[Likelihood]
    replayed: dict[str, Any]
    integrity: Integrity = WHOLE
    _tables: dict[tuple[str, int, int], Tables] = field(default_factory=dict)
    _scorers: dict[tuple[str, int, int], dict[str, Any]] = field(default_factory=dict)

    def judge(self, asked: Cell) -> tuple[Evidence, Expectation | None]:
        """Judge a cell on its stored trials, at each of its looks that they reach.

        Raises UsageError where the trials are of another patch, or there are none.
        """
        key = Key(asked.claim.id, asked.id, self.model.name)
        one = self.run.evidence[key]
        edits = edits_of(one, asked)
        notes = [
            edit_check(one, edits),
            *scorer_check(one, self.task),
            *files_check(one, self.integrity),
        ]
        try:
            cell = asked.on(self.model.n_layers, self.model.n_kv_heads)
        except NoSuchCellError as error:
            what, failed = _Asked(asked, asked, one, notes), [no_such_cell(error)]
        else:
            what = _Asked(asked, cell, one, notes)
            failed = self._untestable(what)
        roles = {} if failed else self._roles(what, key)
        expected = self._expected(what, roles, failed, is_new=change_truth(edits))
        looks = self._looks(what)
        if (unrun := self._unrun(what, failed, looks)) is not None:
            found = Found(asked, _noted(unrun, notes), dict(one.get("plan", {})))
            setting = self._setting(what, one["pairs"])
            return evidence_of(setting, found, expected, {}, {}, {}), expected
        if not one["arms"]:
            raise UsageError(
                f"{key}: no trials are stored of it ({one['verdict']}: {one['reason']}), and as it "
                "is stated now it needs some; run it"
            )
        seen: list[Look] = []
        for n in looks:
            trials = {role: self._of(what, arm, n) for role, arm in self._ids(roles).items()}
            likelihoods = self._likelihoods_of(what, roles, n)
            judged = self._judged(what, roles, trials, likelihoods, n)
            seen.append(Look.of(n, judged))
            if judged.is_final:
                break
        # Pairs that the run was spared were spared whatever is claimed now.
        spared = looks[-1] - n + one["multiplicity"]["looks"]["pairs_spared"]
        found = Found(asked, judged, dict(one.get("plan", {})), tuple(seen), spared)
        setting = self._setting(what, n)
        return evidence_of(setting, found, expected, trials, roles, likelihoods), expected

    def _unrun(self, what: _Asked, failed: Sequence[Check], looks: Sequence[int]) -> Judged | None:
        """What is known of a cell without its trials; None where they must tell."""
        one = what.one
        if failed:
            return not_judged(what.cell.parts, failed, one["pairs"])
        if not looks:
            return not_looked_at(what.cell, one["pairs"])
        found = [Check(**check) for check in one["checks"] if check["name"] == "enough-pairs"]
        if one["arms"] or not found or found[0].passed:
            return None
        # No trial was run, so none says which prompts had the same tokens: the run did.
        return judge_too_few(what.cell, found[0], one["pairs"], one["clusters"])

    def _judged(
        self,
        what: _Asked,
        roles: Mapping[str, Arm],
        trials: Trials,
        likelihoods: Likelihoods,
        n: int,
    ) -> Judged:
        at = (what.one["study"], n, what.one["seeds"])
        tables = self._tables.setdefault(at, Tables(self.task, self.model.n_layers))
        judged = {part: tables.of_part(trials, part, likelihoods) for part in what.cell.parts}
        checks = [
            *self._taken_over(what),
            *self._of_texts(what.cell, trials),
            *self._missing_controls(what.cell, roles),
            *what.notes,
        ]
        pairs = self._pairs(what, n)
        return judge_cell(what.cell, judged, checks, self.task, pairs, self._identity)

    def _taken_over(self, what: _Asked) -> list[Check]:
        """The checks of the instrument, which trials cannot show."""
        found = []
        for check in what.one["checks"]:
            prefix, _, name = check["name"].rpartition(": ")
            if prefix in ("", "part 1") and name not in _MADE_AGAIN:
                found.append(Check(name, check["passed"], check["detail"]))
        return found

    def _of_texts(self, cell: Cell, trials: Trials) -> list[Check]:
        """The checks that texts can show, made again as another scorer or outcome may be asked."""
        scorers = [
            scorer
            for outcome in cell.outcomes
            if (scorer := scorer_of(outcome.name, self.task)) is not None
        ]
        texts = texts_of(trials)
        if cell.patches and any(outcome.is_text for outcome in cell.outcomes):
            degenerate = degenerate_texts(texts, self.task)
        else:
            why = "no outcome is read from text" if cell.patches else "nothing is patched"
            degenerate = Check("degenerate-text", True, f"does not apply: {why}")
        return [degenerate, parts_of_words(texts, scorers)]

    def _missing_controls(self, cell: Cell, roles: Mapping[str, Arm]) -> list[Check]:
        """A control that the claim has and the run has not: the claim was edited since."""
        every = all(patch.layers == "all" for patch in cell.patches)
        if cell.claim.about != "layer" or every or "wrong-layer" in roles:
            return []
        detail = "not run: the stored run has no trials of it"
        return [Check("control wrong-layer", None, detail)]

    def _roles(self, what: _Asked, key: Key) -> dict[str, Arm]:
        """The arms of a cell by role, which must be those whose trials are stored."""
        cell, stored = what.cell, what.one["arms"]
        if not stored:
            return {}
        arms = dict(UNPATCHED)
        if cell.patches:
            arms["patched"] = patched(cell.patches)
            arms["self-patch"] = self_patch(cell.patches)
            about = cell.claim.about == "layer"
            negative = controls(cell.patches, self.model.n_layers, about_layer=about)
            arms |= {name: arm for name, arm in negative.items() if name in stored}
        if cell.versus:
            arms["versus"] = patched(cell.versus)
        for role, arm_id in self._ids(arms).items():
            if stored.get(role) != arm_id:
                raise UsageError(
                    f"{key}: {role} is {arm_id} as asked now, and the stored trials are of "
                    f"{stored.get(role, 'no such arm')}; run it, or ask for what was run"
                )
        # In the order of the run, which is that of its evidence.
        return {role: arms[role] for role in stored if role in arms}

    def _ids(self, roles: Mapping[str, Arm]) -> dict[str, str]:
        return {role: self._arm_id(arm) for role, arm in roles.items()}

    def _arm_id(self, arm: Arm) -> str:
        return canonical_arm(arm, self.model.n_layers, self.model.n_kv_heads).id

    def _untestable(self, what: _Asked) -> list[Check]:
        """Why nothing that could be measured says anything on the claim; see `ModelStudy`."""
        then = [
            Check(**check)
            for check in what.one["checks"]
            if check["passed"] is False and check["name"] not in STATISTICAL_CHECKS
        ]
        same = not what.one["arms"] and _is_as_planned(what)
        if same and any(check.name == DONOR for check in then):
            return then
        if not what.cell.patches:
            return []
        lengths = self._lengths(what)
        if lengths is not None:
            runs_donor = what.cell.runs_donor(self.model.n_layers, lengths)
            return [runs_donor] if runs_donor else what.cell.unreached(self.model.n_layers, lengths)
        # Nothing at all was run on this model: what was found then is all there is.
        return then if same else []

    def _lengths(self, what: _Asked) -> list[tuple[int, int]] | None:
        """Tokens of (source, base) of every pair whose prompts were run; None where none was."""
        known = self._prompt_tokens
        lengths = [
            (known[pair.source.sha], known[pair.base.sha])
            for pair in self._pairs(what, what.one["pairs"])
            if pair.source.sha in known and pair.base.sha in known
        ]
        return lengths or None

    def _tokens(self, prompt: Prompt) -> int:
        return self._prompt_tokens[prompt.sha]

    def _identity(self, prompt: Prompt) -> str:
        return self._identities[prompt.sha]

    @cached_property
    def _identities(self) -> dict[str, str]:
        """The hash of every prompt's tokens, by that of its text."""
        return {
            sha: tokens
            for trial in self.trials
            for sha, tokens in (
                (trial.source_sha, trial.source_tokens_sha),
                (trial.base_sha, trial.base_tokens_sha),
            )
        }

    @cached_property
    def _prompt_tokens(self) -> dict[str, int]:
        """Tokens of every prompt that was run, by the hash of its text."""
        found = {}
        for trial in self.trials:
            if trial.arm in ("base", "source"):
                sha = trial.base_sha if trial.arm == "base" else trial.source_sha
                found[sha] = trial.prompt_tokens
        return found

    @cached_property
    def _by_arm(self) -> dict[tuple[str, str], list[Trial]]:
        found = defaultdict(list)
        for trial in self.trials:
            found[trial.study, trial.arm].append(trial)
        return found

    def _of(self, what: _Asked, arm: str, n: int) -> list[Trial]:
        """An arm's trials on the first n pairs."""
        return [
            trial
            for trial in self._by_arm[what.one["study"], arm]
            if trial.pair_index < n and trial.seed < what.one["seeds"]
        ]

    def _pairs(self, what: _Asked, n: int) -> list[Pair]:
        """The first n pairs of the run, in its order, as the task has them."""
        known = {pair.id: pair for pair in self.task.pairs}
        at = {
            trial.pair_index: trial.pair
            for trial in self.trials
            if trial.study == what.one["study"] and trial.pair_index < n
        }
        return [known[at[index]] for index in sorted(at)]

    def _likelihoods_of(self, what: _Asked, roles: Mapping[str, Arm], n: int) -> Likelihoods:
        if not any(outcome.is_likelihood for outcome in what.cell.outcomes):
            return {}
        arms = {a for r, a in self._ids(roles).items() if r not in ("self-patch", "full-swap")}
        return {
            (one.arm, one.pair, one.seed): one
            for one in self.likelihoods
            if one.study == what.one["study"]
            and one.arm in arms
            and one.pair_index < n
            and one.seed < what.one["seeds"]
        }

    def _looks(self, what: _Asked) -> list[int]:
        """Numbers of pairs at which the claim is judged: its looks, as far as stored pairs go."""
        looks, stored = what.cell.claim.looks, what.one["pairs"]
        return [n for n in looks if n <= stored] if looks else [stored]

    def _setting(self, what: _Asked, n: int) -> Setting:
        seeds = what.one["seeds"]
        at = (what.one["study"], n, seeds)

        def scorer() -> dict[str, Any]:
            if at not in self._scorers:
                ends = {role: self._of(what, role, n) for role in ("base", "source")}
                clusters = clusters_of(self._pairs(what, n), self._identity)
                self._scorers[at] = scorer_on_ends(self.task, clusters, ends)
            return self._scorers[at]

        return Setting(
            self.model,
            self.task,
            what.one["study"],
            self._arm_id,
            self._tokens,
            self._pairs(what, n),
            seeds,
            {**what.one["provenance"], "replayed": self.replayed},
            lambda arm: n_planned(arm, n, seeds),
            scorer,
        )

    def _expected(
        self, what: _Asked, roles: Mapping[str, Arm], failed: Sequence[Check], *, is_new: bool
    ) -> Expectation | None:
        """The stored expectation, where the same is asked of the same texts; else made anew.

        The truth of geometry needs torch: none is expected of it where the claim was edited.
        """
        one, own = what.one, len(what.notes) == 1
        if own and not is_new:
            return _stored_expectation(one)
        is_planted = self.model.name.startswith(PLANTED_PREFIX)
        if not own or not is_planted or any(o.is_geometry for o in what.cell.outcomes):
            return None
        planted = CATALOG[self.model.name.removeprefix(PLANTED_PREFIX)]
        sampling = one["provenance"].get("sampling")
        if sampling is None:
            return None
        negative = {role: arm for role, arm in roles.items() if role in CONTROLS}
        budget = Sampling(sampling["max_new_tokens"], sampling["temperature"])
        return expectation(planted, what.cell, negative, self.task, budget, failed)


def _is_as_planned(what: _Asked) -> bool:
    """Whether the patches are spelled as they were when nothing was run on them."""
    plan = what.one.get("plan", {})
    sides = (("patch", what.asked.patches), ("versus", what.asked.versus))
    return all(plan.get(name) == [str(patch) for patch in asked] for name, asked in sides)


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


def _noted(judged: Judged, notes: Sequence[Check]) -> Judged:
    """A judgment on what was not run, with whether it is as stated."""
    is_known = all(check.passed is not None for check in notes)
    verdicts = [
        replace(v, checks=(*v.checks, *notes), verified=v.verified and is_known)
        for v in judged.verdicts
    ]
    return judged._replace(verdicts=verdicts)
