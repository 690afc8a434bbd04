"""A study: the arms of one claim's cell, run on one model and judged.

`ModelStudy` is what the `study` fixture of `pytest claims` holds; `run_study` is the same engine
for a script of one's own.
"""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from harness.claim import Claim
from harness.errors import UsageError
from harness.evidence import Evidence, InstrumentEvidence
from harness.expectation import Expectation, expectation
from harness.judging.checks import Check
from harness.judging.instrument import Observed, full_swap_checks, instrument_checks, near_ties
from harness.judging.verdict import Verdict, judge
from harness.models.load import LoadedModel
from harness.run.arms import (
    BASE,
    FULL_SWAP,
    SOURCE,
    Arm,
    canonical,
    canonical_arm,
    controls,
    patched,
    self_patch,
)
from harness.run.ledger import Ledger
from harness.run.runner import Progress, Runner
from harness.run.sampling import NEAR_TIE
from harness.run.sampling_settings import Sampling
from harness.run.table import trials_frame
from harness.run.trial import Trial
from harness.spec import Patch, resolve_layers
from harness.tasks.task import Task

IGNORED = (
    *("do_sample", "temperature", "top_k", "top_p", "min_p", "top_h", "typical_p"),
    *("epsilon_cutoff", "eta_cutoff", "repetition_penalty", "no_repeat_ngram_size"),
    *("num_beams", "min_length", "min_new_tokens", "max_length", "max_new_tokens", "bad_words_ids"),
    *("suppress_tokens", "begin_suppress_tokens", "forced_bos_token_id", "forced_eos_token_id"),
)
"""Settings of a model's own generation config that are not followed, and recorded as such."""
PROBE_PAIRS = 16
"""Pairs of which a self-patch is decoded as well; its write is checked for every pair."""

ShowProgress = Callable[[str, int], AbstractContextManager[Progress]]


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

    def judge(self, claim: Claim, cell: str, patch: Patch) -> tuple[Evidence, Expectation | None]:
        """Run a cell's arms and judge the claim.

        Raises UsageError, before the model runs, for a patch that does not fit model or prompts.
        """
        claimed, patch = patch, canonical(patch, self.model.n_layers)
        whole = patch.is_full_swap(self.model.n_layers)
        negative = (
            {}
            if whole
            else controls(patch, self.model.n_layers, about_layer=claim.about == "layer")
        )
        arms = {"patched": patched(patch), "self-patch": self_patch(patch), **negative}
        roles = {"base": BASE, "source": SOURCE, "full-swap": FULL_SWAP, **arms}
        self.runner.check([BASE, SOURCE, arms["patched"]], self.pairs)
        expected = self._expectation(claim, patch, negative)
        if any(self.runner.rows.is_source_run(arms["patched"], pair) for pair in self.pairs):
            verdict = _full_swap_verdict(len(self.pairs))
            return self._evidence(claim, cell, claimed, verdict, expected, {}, {}), expected
        self.runner.check(roles.values(), self.pairs)
        trials = {**self._shared, **self._run(f"{claim.id} {cell}", arms)}
        seen = self._observed(
            trials, roles, self.runner.splice_only(arms["self-patch"], self.pairs)
        )
        frame = self._frame(trials)
        verdict = judge(
            frame[frame["arm"].isin(["base", "source", "patched", *negative])],
            claim.transfer,
            margin=claim.margin,
            checks=[*instrument_checks(seen), *_missing_controls(claim, patch, negative)],
        )
        return self._evidence(claim, cell, claimed, verdict, expected, trials, roles), expected

    def check_full_swap(self) -> InstrumentEvidence:
        """Run base, source and the full swap on every pair: the oracle check of the instrument."""
        roles = {"base": BASE, "source": SOURCE, "full-swap": FULL_SWAP}
        seen = self._observed(self._shared, roles, [])
        checks = full_swap_checks(seen)
        return InstrumentEvidence(
            name="full-swap",
            model=self.model.name,
            task=self.task.name,
            passed=all(check.passed for check in checks),
            checks=[check._asdict() for check in checks],
            pairs=len(self.pairs),
            seeds=self.n_seeds,
            trials=_counts(seen),
            arms={role: arm.id for role, arm in roles.items()},
            study=self.runner.study,
            provenance=self.provenance,
        )

    @cached_property
    def provenance(self) -> dict[str, Any]:
        """What it takes to run this again."""
        return provenance(self.runner)

    @cached_property
    def _shared(self) -> dict[str, list[Trial]]:
        """Base, source and full swap of every pair: run once a model."""
        return self._run("shared arms", {"base": BASE, "source": SOURCE, "full-swap": FULL_SWAP})

    def _run(self, label: str, arms: Mapping[str, Arm]) -> dict[str, list[Trial]]:
        planned = {role: self._planned(arm) for role, arm in arms.items()}
        with self.show_progress(f"{self.model.name} {label}", sum(planned.values())) as progress:
            trials = self.runner.run(
                arms.values(), self.pairs, self.seeds, probe_pairs=PROBE_PAIRS, progress=progress
            )
        by_arm = _by_arm(trials)
        return {role: by_arm[arm.id] for role, arm in arms.items()}

    def _planned(self, arm: Arm) -> int:
        pairs = min(PROBE_PAIRS, len(self.pairs)) if arm.donor == "base" else len(self.pairs)
        return pairs * self.n_seeds

    def _observed(
        self, trials: Mapping[str, Sequence[Trial]], roles: Mapping[str, Arm], identity: Any
    ) -> Observed:
        return Observed(
            model=self.model,
            task=self.task,
            sampling=self.runner.sampling,
            pairs=self.pairs,
            roles=trials,
            planned={role: self._planned(arm) for role, arm in roles.items()},
            identity=identity,
            store_unchanged=self.runner.store.unchanged(),
        )

    def _frame(self, trials: Mapping[str, Sequence[Trial]]) -> pd.DataFrame:
        """One row a trial, by role; an arm that stands in two roles has a row in each."""
        for some in trials.values():
            if some and some[0].arm not in self._frames:
                self._frames[some[0].arm] = trials_frame(some, self.task)
        return pd.concat(
            [self._frames[some[0].arm].assign(arm=role) for role, some in trials.items() if some],
            ignore_index=True,
        )

    def _expectation(
        self, claim: Claim, patch: Patch, negative: Mapping[str, Arm]
    ) -> Expectation | None:
        if self.model.planted is None:
            return None
        return expectation(
            self.model.planted, claim, patch, negative, self.task, self.runner.sampling
        )

    def _evidence(
        self,
        claim: Claim,
        cell: str,
        patch: Patch,
        verdict: Verdict,
        expected: Expectation | None,
        trials: Mapping[str, Sequence[Trial]],
        roles: Mapping[str, Arm],
    ) -> Evidence:
        every = [trial for some in trials.values() for trial in some]
        planned = sum(self._planned(arm) for arm in roles.values())
        return Evidence(
            claim=claim.id,
            cell=cell,
            says=claim.says,
            cites=claim.cites,
            model=self.model.name,
            task=self.task.name,
            patch={
                **asdict(patch),
                "resolved_layers": list(resolve_layers(patch.layers, self.model.n_layers)),
                "n_layers": self.model.n_layers,
                "semantics": "splice",
            },
            outcome={
                "name": "behavior",
                "scorer": self.task.scorer.name,
                "unit": self.task.scorer.unit,
            },
            region={
                "low": claim.transfer.low,
                "high": claim.transfer.high,
                "margin": claim.margin,
                "about": claim.about,
            },
            verdict=verdict.word,
            reason=verdict.reason,
            verified=verdict.verified,
            expected=expected.word if expected else None,
            truth=expected.to_dict() if expected else None,
            pinned=None,
            estimate=verdict.estimate,
            interval=list(verdict.interval) if verdict.interval else None,
            level=verdict.level,
            interval_other=list(verdict.interval_other) if verdict.interval_other else None,
            p_supported=verdict.p_supported,
            p_refuted=verdict.p_refuted,
            pairs_needed=verdict.pairs_needed,
            means=verdict.means,
            controls=verdict.controls,
            pairs=verdict.pairs,
            clusters=verdict.clusters,
            seeds=self.n_seeds,
            trials={"planned": planned, "run": len(every), "failed": planned - len(every)},
            checks=[check._asdict() for check in verdict.checks],
            texts=self._texts(trials),
            arms={role: arm.id for role, arm in roles.items()},
            near_ties=near_ties(every, NEAR_TIE),
            study=self.runner.study,
            provenance=self.provenance,
        )

    def _texts(self, trials: Mapping[str, Sequence[Trial]]) -> dict[str, Any]:
        """Base, source and patched text of the pair whose patched score is the median."""
        if not trials.get("patched"):
            return {}
        scored = sorted((self.task.scorer(t.text), t.pair) for t in trials["patched"] if not t.seed)
        middle = statistics.median_low(scored)[1]
        texts = {
            role: next(t.text for t in trials[role] if t.pair == middle and not t.seed)
            for role in ("base", "source", "patched")
        }
        scores = {role: self.task.scorer(text) for role, text in texts.items()}
        return {
            "rule": "the pair of median patched score",
            "pair": middle,
            **texts,
            "scores": scores,
        }


def run_study(
    model: LoadedModel,
    task: Task,
    arms: Mapping[str, Patch | Arm],
    *,
    pairs: int | None = None,
    seeds: int = 1,
    max_new_tokens: int = 50,
    temperature: float = 0.7,
    batch_size: int | None = None,
    ledger: Path | None = None,
) -> pd.DataFrame:
    """Run arms by name, with base and source beside them: one row a trial.

    arms: a name (such as 'patched') to a Patch of the source, or to an Arm.
    pairs: how many, from the first; None for all of the task. ledger: a folder that keeps the
    trials and lets a killed study go on; None keeps nothing.
    Columns: `pair, arm, seed, score`, the trial's record and its other outcomes.
    Raises UsageError for whatever does not fit, before the model runs.
    """
    if seeds < 1:
        raise UsageError(f"seeds {seeds}: expected at least 1")
    chosen = task.first_pairs(len(task.pairs) if pairs is None else pairs)
    named = {
        "base": BASE,
        "source": SOURCE,
        **{n: patched(arm) if isinstance(arm, Patch) else arm for n, arm in arms.items()},
    }
    runner = Runner(model, task, Sampling(max_new_tokens, temperature), Ledger(ledger), batch_size)
    trials = runner.run(named.values(), chosen, range(seeds))
    by_arm = _by_arm(trials)
    return pd.concat(
        [
            trials_frame(by_arm[canonical_arm(arm, model.n_layers).id], task).assign(arm=name)
            for name, arm in named.items()
        ],
        ignore_index=True,
    )


def provenance(runner: Runner) -> dict[str, Any]:
    """Versions, hardware, hashes and settings of a run."""
    model = runner.model
    generation = model.network.generation_config.to_diff_dict()
    device = (
        torch.cuda.get_device_name(model.device)
        if model.device.type == "cuda"
        else f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}"
    )
    return {
        "python": platform.python_version(),
        "versions": {
            name: metadata.version(name)
            for name in ("torch", "transformers", "numpy", "scipy", "pandas", "pytest")
        },
        "device": str(model.device),
        "hardware": device,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "dtype": model.dtype_name,
        "revision": model.revision,
        "weights_sha": model.weights_sha,
        "task_sha": runner.task.sha,
        "sampling": {
            **asdict(runner.sampling),
            "rule": "inverse CDF over the full vocabulary, common random numbers",
            "ignored": {k: str(v) for k, v in generation.items() if k in IGNORED},
        },
        "batch_size": runner.batch_size or "auto",
    }


def _by_arm(trials: Sequence[Trial]) -> dict[str, list[Trial]]:
    """Trials by the id of their arm."""
    found: dict[str, list[Trial]] = {}
    for trial in trials:
        found.setdefault(trial.arm, []).append(trial)
    return found


def _missing_controls(claim: Claim, patch: Patch, negative: Mapping[str, Arm]) -> list[Check]:
    """A claim about layers whose wrong layers would meet the patched ones has no such control."""
    if claim.about != "layer" or patch.layers == "all" or "wrong-layer" in negative:
        return []
    detail = "not run: the layers half the depth away meet the patched ones"
    return [Check("control wrong-layer", None, detail)]


def _full_swap_verdict(pairs: int) -> Verdict:
    detail = (
        "replacing the whole cache at every layer runs the source prompt: an instrument check, "
        "never a finding"
    )
    return Verdict(
        word="invalid",
        reason=f"full-swap-is-the-donor: {detail}",
        verified=True,
        estimate=None,
        interval=None,
        level=0.95,
        interval_other=None,
        means={},
        pairs=pairs,
        clusters=0,
        checks=(Check("full-swap-is-the-donor", False, detail),),
    )


def _counts(seen: Observed) -> dict[str, int]:
    planned = sum(seen.planned.values())
    run = sum(len(trials) for trials in seen.roles.values())
    return {"planned": planned, "run": run, "failed": planned - run}
