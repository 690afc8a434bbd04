"""A run of ours as a source: its trials, checked against its evidence, its task and each other."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from kv_claims.claims.claim import Claim
from kv_claims.claims.outcome import Behind, Outcome
from kv_claims.errors import UsageError
from kv_claims.evidence.folder import EVIDENCE_FILE, TRIALS_FILE, locate
from kv_claims.evidence.hashes import ANSWERS as IN_ANSWERS
from kv_claims.evidence.hashes import LIKELIHOODS as IN_LIKELIHOODS
from kv_claims.evidence.hashes import Integrity, fed_sha
from kv_claims.evidence.schema import EvidenceSaid, is_own_table
from kv_claims.evidence.stored import Key, StoredRun, load_run, trials_of
from kv_claims.files.reading import check_file, shown
from kv_claims.planted.catalog import CATALOG, N_HEADS, N_KV_HEADS, PLANTED_PREFIX
from kv_claims.replay.own_claims import OwnClaim
from kv_claims.replay.source import chosen, sha_of
from kv_claims.replay.study import StoredStudy
from kv_claims.replay.trials import StoredTrials
from kv_claims.run.answered import Answered
from kv_claims.run.ledger import ANSWERS, LIKELIHOODS, Records
from kv_claims.run.likelihood import Likelihood
from kv_claims.run.table import generation_of, trials_frame
from kv_claims.run.trial import Trial
from kv_claims.study.stated import KnownModel
from kv_claims.tasks.behind import options_behind, texts_sha
from kv_claims.tasks.chat import as_chat
from kv_claims.tasks.load import CodeRefusedError
from kv_claims.tasks.python_scorer import score_of
from kv_claims.tasks.scorers import counted_by
from kv_claims.tasks.task import Pair, Task

LEDGER = "ledger"
Place = tuple[str, str, str, int]
"""Study, arm, pair and seed of a trial."""


@dataclass
class ReplayedRun:
    """A stored run with the task that its texts are scored by, model by model."""

    stored: StoredRun
    models: tuple[str, ...]
    tasks: Mapping[str, Task]
    _studies: dict[str, StoredStudy] = field(default_factory=dict)

    @classmethod
    def open(
        cls,
        folder: Path,
        models: Sequence[str],
        task_of: Callable[[str, Path | None], Task],
        task: Task | None,
    ) -> ReplayedRun:
        """Read a folder and check all that can be checked before a claim is known.

        models: those asked for; none for all. task_of: the task that a run gave a model, from its
        name and task file. task: another one to score by.
        Raises UsageError, naming the file, for a folder that is not whole, trials that are not
        those of the evidence, or prompts that are not those of the task.
        """
        stored = load_run(folder)
        if (earlier := stored.run.get("replay", {})).get("kind") == "foreign":
            raise UsageError(
                f"{folder}: a replay of a published table, whose trials are in "
                f"{earlier.get('folder')}; expected that folder"
            )
        # A table that a test made is made again by its test: no run can vouch for it.
        own = {k: one for k, one in stored.evidence.items() if not is_own_table(one["provenance"])}
        stored = replace(stored, evidence=own)
        if not stored.evidence:
            raise UsageError(
                f"{folder / EVIDENCE_FILE}: no verdict on trials of ours in it, nothing to judge "
                "again"
            )
        names = chosen(models, list(dict.fromkeys(key.model for key in stored.evidence)), folder)
        tasks = {name: task or _own_task(stored, name, task_of) for name in names}
        if stored.run.get("chat"):
            tasks = {name: as_chat(one) for name, one in tasks.items()}
        found = cls(stored, names, tasks)
        for name in names:
            found._check(name, is_own=task is None)
        return found

    @property
    def inputs(self) -> tuple[Path, ...]:
        return (self.stored.folder / EVIDENCE_FILE, self.stored.folder / TRIALS_FILE)

    def own_tests(self) -> Mapping[str, tuple[OwnClaim, Sequence[str]]]:
        """None: a run's claims are those of its tests."""
        return {}

    def check_tests(self, cells: Mapping[str, tuple[Claim, set[str]]]) -> None:
        """Nothing: a stored cell whose test is gone is no error."""

    def lacks(self, claim: Claim, cell: str, model: str) -> str:
        key = Key(claim.id, cell, model)
        if key not in self.stored.evidence:
            return "not in the stored run"
        outcomes = [Outcome.parse(part.outcome) for part in (*claim.parts, *claim.given)]
        asked = any(outcome.is_likelihood for outcome in outcomes)
        if asked and not self._has(key, self._measured):
            return f"likelihoods not in {LEDGER}/{LIKELIHOODS} of the stored run"
        return self._lacks_answers(key, outcomes)

    def _lacks_answers(self, key: Key, outcomes: Sequence[Outcome]) -> str:
        """Why what is asked of answers, or beside them, is not stored; '' where it is."""
        then = [part["outcome"]["name"] for part in self.stored.evidence[key]["parts"]]
        was_brief = all(Outcome.parse(name).behind for name in then)
        for outcome in outcomes:
            if outcome.behind is None:
                if was_brief:
                    return (
                        f"trials of it are not long enough for {outcome}: nothing was read of them"
                    )
            elif not self._has(key, self._answered.get(outcome.behind, set())):
                return f"answers of these texts not in {LEDGER}/{ANSWERS} of the stored run"
        return ""

    def study(self, model: str) -> StoredStudy:
        if model not in self._studies:
            self._studies[model] = StoredStudy(
                run=self.stored,
                model=KnownModel(model, *self._size(model)),
                task=self.tasks[model],
                trials=StoredTrials(self._trials[model], self._likelihoods, self._answers),
                replayed=self.facts()["replay"],
                integrity=self.integrity,
            )
        return self._studies[model]

    def trials(self, evidence: Sequence[dict[str, Any]]) -> pd.DataFrame:
        frames = []
        for model in self.models:
            most: dict[tuple[str, str], tuple[int, int]] = {}
            for one in (one for one in evidence if one["model"] == model):
                for arm in one["arms"].values():
                    pairs, _ = most.get((one["study"], arm), (0, 0))
                    most[one["study"], arm] = (max(pairs, one["pairs"]), one["seeds"])
            used = []
            for trial in self._trials[model]:
                pairs, seeds = most.get((trial.study, trial.arm), (0, 0))
                if trial.pair_index < pairs and trial.seed < seeds:
                    used.append(trial)
            if used:
                frames.append(trials_frame(used, self.tasks[model]).assign(model=model))
        return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()

    def dry_run(self) -> list[str]:
        """The stored cells of each model, and what was found of them then."""
        return [
            f"  {key.model} {key.claim} {key.cell}: {one['pairs']} pairs, {one['verdict']} then"
            for key, one in self.stored.evidence.items()
            if key.model in self.models
        ]

    def facts(self) -> dict[str, Any]:
        run, task = self.stored.run, next(iter(self.tasks.values()))
        own = ("profile", "pairs_asked", "seeds", "max_new_tokens", "temperature", "task_file")
        is_own = all(self._own_sha(name) == self.tasks[name].sha for name in self.models)
        replay = {
            "folder": str(self.stored.folder),
            "kind": "run",
            "evidence_sha": sha_of(locate(self.stored.folder, EVIDENCE_FILE)),
            "trials_sha": sha_of(locate(self.stored.folder, TRIALS_FILE)),
            "edited": str(self.integrity),
            "command": run.get("command"),
            "scored_by": None if is_own else {"task": task.where, "sha": task.sha},
        }
        scorers = {name: counted_by(self.tasks[name].scorer) for name in self.models}
        told = {name: run.get(name) for name in own}
        return {**told, **self._chat(), "replay": replay, "scorers": scorers}

    def _chat(self) -> dict[str, Any]:
        """What the run says of messages, where it was given any."""
        run = self.stored.run
        chat = {"chat": True} if run.get("chat") else {}
        read = {name: one for name, one in run.get("prompts", {}).items() if name in self.models}
        return {**chat, **({"prompts": read} if read else {})}

    @cached_property
    def _trials(self) -> dict[str, list[Trial]]:
        rows = self.stored.trials
        if not len(rows):
            return {name: [] for name in self.models}
        return {name: trials_of(rows[rows["model"] == name]) for name in self.models}

    @cached_property
    def integrity(self) -> Integrity:
        """Whether all that is judged again is as the run wrote it."""
        return integrity_of(self.stored, self._likelihoods, self._answers)

    @cached_property
    def _likelihoods(self) -> list[Likelihood]:
        return read_likelihoods(self.stored.folder)

    @cached_property
    def _answers(self) -> list[Answered]:
        return read_answers(self.stored.folder)

    @cached_property
    def _answered(self) -> dict[Behind, set[Place]]:
        """Where there are answers to the very texts that the task has now."""
        pairs = {pair.id: pair for task in self.tasks.values() for pair in task.pairs}
        shas: dict[tuple[Behind, str], str | None] = {}
        found: dict[Behind, set[Place]] = {}
        for one in self._answers:
            where = one.behind, one.pair
            if where not in shas:
                shas[where] = _texts_now(pairs.get(one.pair), one.behind)
            if shas[where] == one.texts_sha:
                found.setdefault(one.behind, set()).add((one.study, one.arm, one.pair, one.seed))
        return found

    @cached_property
    def _measured(self) -> set[Place]:
        return {(one.study, one.arm, one.pair, one.seed) for one in self._likelihoods}

    def _has(self, key: Key, places: set[Place]) -> bool:
        """Whether every trial of a cell that is judged is there; so it is where nothing was run."""
        one = self.stored.evidence[key]
        arms = {arm for role, arm in one["arms"].items() if role not in ("self-patch", "full-swap")}
        return all(
            (trial.study, trial.arm, trial.pair, trial.seed) in places
            for trial in self._trials[key.model]
            if trial.study == one["study"]
            and trial.arm in arms
            and trial.pair_index < one["pairs"]
            and trial.seed < one["seeds"]
        )

    def _of_model(self, model: str) -> list[EvidenceSaid]:
        return [one for key, one in self.stored.evidence.items() if key.model == model]

    def _own_sha(self, model: str) -> str:
        return self._of_model(model)[0]["provenance"]["task_sha"]

    def _size(self, model: str) -> tuple[int, int, int]:
        """Layers, KV heads and query heads of a model (0 where no patch was of these)."""
        cells = self._of_model(model)
        known = cells[0]["provenance"]
        if model.startswith(PLANTED_PREFIX):
            return known["n_layers"], N_KV_HEADS, N_HEADS
        if "n_kv_heads" in known:
            return known["n_layers"], known["n_kv_heads"], known.get("n_query_heads", 0)
        # Runs before heads were recorded: a patch of all heads names them.
        heads = [
            len(patch["resolved_heads"])
            for one in cells
            for side in (one["patch"], one["versus"])
            for patch in (side["all"] if side else [])
            if patch["heads"] == "all" and patch["resolved_heads"]
        ]
        return known["n_layers"], max(heads, default=1), 0

    def _check(self, model: str, *, is_own: bool) -> None:
        path, task = self.stored.folder / TRIALS_FILE, self.tasks[model]
        own = self._own_sha(model)
        lacking = _other_prompts(self._trials[model], task)
        if lacking or (is_own and task.sha != own):
            what = "prompts" if lacking else "task"
            differs = lacking or (
                f"SHA-256 {task.sha[:16]}, the run's is {own[:16]} (edited, or another version)"
            )
            raise UsageError(
                f"{task.where}: not the {what} of {self.stored.folder} on {model}: {differs}; give "
                "--claims-task FILE with the run's own task, or with its prompts and another scorer"
            )
        for key in self.stored.evidence:
            if key.model == model:
                self.stored.roles(key)
        rows = self.stored.trials
        if len(rows):
            rows = rows[rows["model"] == model]
            _check_rows(rows, path)
            if task.sha == own:
                _check_scores(rows, self._trials[model], task, path)


def _own_task(stored: StoredRun, model: str, task_of: Callable[[str, Path | None], Task]) -> Task:
    """The task that a run gave a model. Its name is the run's word, so what it holds, should it be
    no task, is not told."""
    file = stored.run["task_file"]
    try:
        if model.startswith(PLANTED_PREFIX) and model.removeprefix(PLANTED_PREFIX) not in CATALOG:
            raise UsageError("no such planted model")
        if file:
            check_file(Path(file), "a task")
        return task_of(model, Path(file) if file else None)
    except CodeRefusedError as error:
        raise CodeRefusedError(
            f"{stored.folder / EVIDENCE_FILE}: the task of {shown(model)} states a scorer in "
            "Python, and code that a stored run names is not imported; expected --claims-task FILE "
            "with the run's task, or --claims-allow-code"
        ) from error
    except UsageError as error:
        raise UsageError(
            f"{stored.folder / EVIDENCE_FILE}: no task of {shown(model)} is found where the run "
            f"had it ({shown(file) if file else 'its own'}); give --claims-task FILE with the "
            f"task of {stored.folder}"
        ) from error


def read_likelihoods(run: Path) -> list[Likelihood]:
    """The likelihoods in the ledger of a run's folder; none where it has no ledger."""
    folder = run / LEDGER / LIKELIHOODS
    return list(Records(Likelihood, folder, read_only=True).all()) if folder.is_dir() else []


def read_answers(run: Path) -> list[Answered]:
    """The answers in the ledger of a run's folder; none where it has no ledger."""
    folder = run / LEDGER / ANSWERS
    return list(Records(Answered, folder, read_only=True).all()) if folder.is_dir() else []


def integrity_of(
    stored: StoredRun, likelihoods: Sequence[Likelihood], answers: Sequence[Answered]
) -> Integrity:
    """How a run's files stand to its hashes, what was fed included where it has any left."""
    known, evidence = stored.integrity, stored.evidence.values()
    if not known.hashed:
        return known
    edited = list(known.edited)
    if likelihoods and fed_sha(evidence, "likelihoods", likelihoods) != known.likelihoods:
        edited.append(IN_LIKELIHOODS)
    if answers and fed_sha(evidence, "answers", answers) != known.answers:
        edited.append(IN_ANSWERS)
    return known._replace(edited=tuple(edited))


def _texts_now(pair: Pair | None, behind: Behind) -> str | None:
    """What identifies the texts behind a pair's prompts in its task; None where it has none."""
    try:
        return None if pair is None else texts_sha(options_behind(pair, behind))
    except UsageError:
        return None


def _other_prompts(trials: Sequence[Trial], task: Task) -> str:
    """Which prompts of the trials a task does not pair; '' where it has all of them."""
    known = {(pair.id, pair.source.sha, pair.base.sha) for pair in task.pairs}
    missing = {
        trial.pair: trial
        for trial in trials
        if (trial.pair, trial.source_sha, trial.base_sha) not in known
    }
    if not missing:
        return ""
    trial = next(iter(missing.values()))
    for side, name, sha, prompts in (
        ("source", trial.source, trial.source_sha, task.sources),
        ("base", trial.base, trial.base_sha, task.bases),
    ):
        if sha not in {prompt.sha for prompt in prompts}:
            differs = f"no {side} has the text of its {shown(name)} ({shown(sha, 16)})"
            break
    else:
        differs = f"{shown(trial.source)} and {shown(trial.base)} are not paired"
    n = len({trial.pair for trial in trials})
    return f"{len(missing)} of {n} pairs are not among its pairs; {differs}"


def _check_rows(rows: pd.DataFrame, path: Path) -> None:
    """Raise UsageError for a trial without a score."""
    if (bad := rows["score"].isna().to_numpy()).any():
        row = rows[bad].iloc[0]
        raise UsageError(
            f"{path}: {int(bad.sum())} trials have no score, such as that of arm "
            f"{shown(row['arm'])}, pair {shown(row['pair'], 12)}, seed {row['seed']}"
        )


def _check_scores(rows: pd.DataFrame, trials: Sequence[Trial], task: Task, path: Path) -> None:
    """Raise UsageError where a stored score is not what the run's own scorer makes of the text."""
    stored = rows["score"].to_numpy(dtype=float)
    own = np.array([score_of(generation_of(trial, task), task.scorer) for trial in trials])
    if (off := ~np.isclose(stored, own, rtol=1e-9, atol=1e-12)).any():
        at = int(np.argmax(off))
        raise UsageError(
            f"{path}: {int(off.sum())} scores are not those of their texts, such as {stored[at]:g} "
            f"of arm {trials[at].arm!r}, pair {trials[at].pair[:12]}, seed {trials[at].seed}; "
            f"{task.scorer.name} gives {own[at]:g}"
        )
