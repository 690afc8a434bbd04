"""The instrument's own checks, computed from what the run recorded.

Each says what it compared, and each can fail: `tests/judging/defects.py` has what makes it.
A failure makes the verdict *invalid*; it is never a finding about the model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from kv_claims.claims.donors import ABLATIONS
from kv_claims.claims.patch import donor_of
from kv_claims.judging.checks import CONTROLS, NO_CONTROL, Check
from kv_claims.judging.fieller import Floats
from kv_claims.judging.frame import ARMS, groupings
from kv_claims.judging.texts import degenerate_texts, parts_of_words, texts_of
from kv_claims.run.arms import BASE, SOURCE, Arm
from kv_claims.run.sampling_settings import Sampling
from kv_claims.run.scores import Fed
from kv_claims.run.self_write import SelfWrite
from kv_claims.run.tolerances import TOLERANCE
from kv_claims.run.trial import Trial
from kv_claims.tasks.scorers import Scorer
from kv_claims.tasks.task import Pair, Prompt, Task, by_text, clusters_of

if TYPE_CHECKING:
    from kv_claims.models.load import LoadedModel

_UNPATCHED = ("base", "source", "full-swap")
_JUDGED = ("patched", "versus", "self-patch")

REPEAT_TOLERANCE = {"float64": 1e-6, "float32": 1e-5, "bfloat16": 5e-2, "float16": 1e-2}
"""Largest |logit difference| / largest |logit| of two rows of one batch that should be the same.

Most are equal to the bit; where a row falls on the tail of a vector loop its last bits differ
(measured on a CPU in float32: 1 row in 100 to 500, by 9e-7). In float64 too, transformers' RMSNorm
works in float32: a last bit can be rounded to another float32 (measured: 1e-7, 1 arm in 1000)."""


@dataclass(frozen=True)
class Observed:
    """What one cell's run left behind.

    roles: trials by role (base, source, patched, versus, self-patch, full-swap, and controls by
        name). arms: the arm of each role. planned: how many trials each role should have.
    self_writes: what self-patches wrote and changed, for every pair and each judged arm.
    fed: teacher-forced measurements, where the claim rests on them.
    store_unchanged: whether the caches that were prefilled in this run are as they were.
    pairs: the pairs that were asked for. prompt_identity: the hash of a prompt's tokens.
    """

    model: LoadedModel
    task: Task
    sampling: Sampling
    pairs: Sequence[Pair]
    roles: Mapping[str, Sequence[Trial]]
    arms: Mapping[str, Arm]
    planned: Mapping[str, int]
    self_writes: Sequence[SelfWrite]
    fed: Fed
    store_unchanged: bool
    prompt_identity: Callable[[Prompt], str]


def instrument_checks(
    seen: Observed, *, scores_text: bool, scorers: Sequence[Scorer] = ()
) -> list[Check]:
    """All instrument checks of a cell's run, in the order of `checks.INSTRUMENT_CHECKS`.

    The one that is left, `clusters_ignored`, is of the table that is judged, not of the run.
    scores_text: whether the claim rests on generated text, which then must not be degenerate.
    scorers: those that the claim rests on, which then must count whole words.
    """
    patching = {r: t for r, t in seen.roles.items() if r not in _UNPATCHED}
    controls = {role: t for role, t in patching.items() if role not in _JUDGED}
    checks = [
        self_patch(seen),
        full_swap(seen),
        duplicate_last_token(seen),
        unrotated_keys(seen),
        hook_never_fired(patching),
        cache_aliasing(seen),
        vacuous_control(controls, seen.roles["patched"], seen.arms),
        silent_n(seen),
        prompt_drift(seen),
        prompt_scored(seen),
        degenerate_text(seen)
        if scores_text
        else Check("degenerate-text", True, "does not apply: no outcome is read from text"),
        substring_markers(seen, scorers),
    ]
    return [*checks, likelihood_oracle(seen)] if seen.fed.oracle_errors else checks


def full_swap_checks(seen: Observed) -> list[Check]:
    """The checks that need no patch: those of the full swap and of the unpatched arms."""
    checks = [full_swap(seen), duplicate_last_token(seen), silent_n(seen), prompt_drift(seen)]
    return [*checks, prompt_scored(seen)]


def self_patch(seen: Observed) -> Check:
    """A base patched with its own activations is the base: no number changes, and no token.

    A cache that is copied over itself keeps its bits. What a prompt pass computed anew is compared
    with another computation of it: that alone has a tolerance.
    """
    changed = sum(one.beyond_rounding for one in seen.self_writes)
    fired = all(one.fired for one in seen.self_writes)
    caches, wanted = len(seen.self_writes), len(seen.pairs) * (2 if "versus" in seen.arms else 1)
    repeats = _repeats(seen.roles["self-patch"], BASE.id, seen.model)
    return Check(
        "self-patch",
        changed == 0 and fired and caches == wanted and not repeats.wrong,
        f"{changed} numbers changed in {caches} caches; decoded beside base: {repeats}",
    )


def full_swap(seen: Observed) -> Check:
    """The whole cache and last token of the source give the source's generation."""
    repeats = _repeats(seen.roles["full-swap"], SOURCE.id, seen.model)
    fired = all(map(_wrote, seen.roles["full-swap"]))
    return Check("full-swap", not repeats.wrong and fired, f"decoded beside source: {repeats}")


def duplicate_last_token(seen: Observed) -> Check:
    """T-1 positions cached, the last token fed once: as a forward pass without a cache has it."""
    trials = [*seen.roles["base"], *seen.roles["source"]]
    doubled = sum(trial.cached_slots != trial.prompt_tokens - 1 for trial in trials)
    check = _oracle("duplicate-last-token", trials, seen.model, "unpatched")
    return Check(
        check.name,
        check.passed is True and not doubled,
        f"{check.detail}; {doubled} of {len(trials)} caches not T-1 long",
    )


def unrotated_keys(seen: Observed) -> Check:
    """Pasted keys, and logits after them, are those of a forward pass at the new positions.

    Every arm that pastes is looked at, controls and self-patches too (noise has no oracle).
    """
    pasting = [
        trial
        for role, trials in seen.roles.items()
        if role not in ("base", "source")
        for trial in trials
    ]
    check = _oracle("unrotated-keys", pasting, seen.model, "patched and control")
    limit = TOLERANCE[seen.model.precision]
    errors = [t.oracle_keys_error for t in pasting if t.oracle_keys_error is not None]
    moved = sum(bool(t.oracle_shift) for t in pasting)
    keys = all(error <= limit for error in errors)
    worst = max(errors, default=0.0)
    return Check(
        check.name,
        check.passed is True and keys,
        f"{check.detail}; largest relative error of their pasted keys {worst:.2g} (keys moved in "
        f"{moved} of them)",
    )


def hook_never_fired(patching: Mapping[str, Sequence[Trial]]) -> Check:
    """Every patched trial wrote all that it planned: tensors, numbers, and at every step.

    What is counted is what stands there after the write, by its bits. Where by the tokens some
    number of every tensor must change, none may be left as it was: one layer that was not written,
    or not changed, is enough to fail; so is one step. Where nothing changed because donor and base
    have the same tokens there, the effect is an exact zero: a fact, and said.
    """
    silent = {role: sum(map(_is_silent, trials)) for role, trials in patching.items()}
    trials = patching["patched"]
    changed, beyond = sum(t.changed for t in trials), sum(t.beyond_rounding for t in trials)
    elements, wanted = sum(t.elements for t in trials), sum(t.planned_elements for t in trials)
    steps, planned = sum(t.fired_steps for t in trials), sum(t.planned_steps for t in trials)
    while_generating = f", {steps} of {planned} writes while generating" if planned else ""
    idle = {role: n for role, n in silent.items() if n}
    return Check(
        "hook-never-fired",
        not idle and bool(trials),
        f"{elements} of {wanted} numbers written in {len(trials)} patched trials, {changed} of "
        f"them changed ({beyond} beyond rounding){while_generating}; trials with a tensor that "
        f"was not written or not changed: {idle or 'none'}{_zeros(trials)}",
    )


def _is_silent(trial: Trial) -> bool:
    """Whether a patch of a trial did not do what was planned, or not what the tokens say."""
    return not _wrote(trial) or trial.least_changed == 0


def _wrote(trial: Trial) -> bool:
    """Whether all that was planned was written, and is there."""
    return (
        trial.fired == trial.planned > 0
        and trial.elements == trial.planned_elements > 0
        and trial.fired_steps == trial.planned_steps
    )


def _zeros(trials: Sequence[Trial]) -> str:
    """What is said of patched trials in which nothing changed; empty where there are none."""
    same = [trial for trial in trials if _changes_nothing(trial)]
    if not same:
        return ""
    known, rounded = sum(t.known_equal for t in same), sum(t.changed > 0 for t in same)
    where = "every trial" if len(same) == len(trials) else f"{len(same)} of {len(trials)} trials"
    return (
        f"; in {where} what is written stood there already, an effect of exactly 0 (in {known} "
        "the tokens are the same up to the last patched position"
        + (f"; in {rounded} last bits differ, as of two computations)" if rounded else ")")
    )


def _changes_nothing(trial: Trial) -> bool:
    """Whether what a trial wrote stood there already, and was to by its tokens."""
    if trial.least_changed is not None or trial.planned_steps:
        return False
    # Of equal tokens two rows may have other last bits, where both were computed.
    return trial.changed == 0 or (trial.known_equal and trial.beyond_rounding == 0)


def cache_aliasing(seen: Observed) -> Check:
    """No prefilled cache was written to in place: now, and when each self-patch was written."""
    then = all(one.store_unchanged for one in seen.self_writes)
    intact = seen.store_unchanged and then
    return Check(
        "cache-aliasing",
        intact,
        f"in-place writes to the prefilled caches: {'none' if intact else 'some'}",
    )


def vacuous_control(
    controls: Mapping[str, Sequence[Trial]], patched: Sequence[Trial], arms: Mapping[str, Arm]
) -> Check:
    """A control pastes something else than the patched arm does, or somewhere else.

    Where the patched arm changes nothing, because it pastes what stands there already, there is
    nothing to control for: a control that does the same there is none the worse. An ablation may
    have no control at all: that is the check *no-control*.
    """
    nothing = {(trial.pair, trial.seed) for trial in patched if _changes_nothing(trial)}
    vacuous = []
    for role, trials in controls.items():
        if role in _ELSEWHERE:
            of = _ELSEWHERE[role]
            n = len(trials) if of(arms[role]) & of(arms["patched"]) else 0
        else:
            n = sum(not t.differs and (t.pair, t.seed) not in nothing for t in trials)
        if n:
            vacuous.append(f"{role}: {n} of {len(trials)} trials paste what the patched arm does")
    everywhere = bool(patched) and len(nothing) == len(patched)
    return Check(
        "vacuous-control",
        not vacuous and bool(controls or no_control(arms)),
        "; ".join(vacuous)
        or ("" if controls else "there is no control")
        or (
            "nothing to control for: the patched arm changes nothing in any pair"
            if everywhere
            else f"all differ from the patched arm: {', '.join(controls)}"
        ),
    )


def likelihood_oracle(seen: Observed) -> Check:
    """Teacher-forced logits are those of the independent recomputation."""
    measured = seen.fed.oracle_errors
    errors = [error for error in measured if error is not None]
    limit = TOLERANCE[seen.model.precision]
    return Check(
        "likelihood-oracle",
        bool(errors) and all(error <= limit for error in errors),
        f"{len(errors)} of {len(measured)} recomputed one by one: largest relative logit "
        f"error {max(errors, default=float('nan')):.2g}, at most {limit:g} wanted",
    )


def silent_n(seen: Observed) -> Check:
    """As many trials as planned in every role, none twice."""
    off = {
        role: f"{len({trial.key for trial in seen.roles[role]})} of {planned}"
        for role, planned in seen.planned.items()
        if len({trial.key for trial in seen.roles[role]}) != planned
    }
    total = sum(seen.planned.values())
    return Check(
        "silent-n", not off, f"planned {total}; " + (f"short: {off}" if off else f"run {total}")
    )


def prompt_drift(seen: Observed) -> Check:
    """Every trial carries the hashes of the task's texts, and of their tokens, under its ids."""
    of = seen.prompt_identity
    hashes = {
        pair.id: (pair.source.sha, pair.base.sha, of(pair.source), of(pair.base))
        for pair in seen.pairs
    }
    trials = [trial for some in seen.roles.values() for trial in some]
    off = sum(
        hashes.get(t.pair) != (t.source_sha, t.base_sha, t.source_tokens_sha, t.base_tokens_sha)
        for t in trials
    )
    return Check("prompt-drift", not off, f"{off} of {len(trials)} trials with other prompt hashes")


def prompt_scored(seen: Observed) -> Check:
    """The scored text is the text of the generated tokens, and of nothing else."""
    trials = [trial for some in seen.roles.values() for trial in some]
    off = sum(
        len(t.tokens) > seen.sampling.max_new_tokens or seen.model.decode(t.tokens) != t.text
        for t in trials
    )
    return Check(
        "prompt-scored", not off, f"{off} of {len(trials)} texts are more than generated tokens"
    )


def degenerate_text(seen: Observed) -> Check:
    """No arm repeats itself beyond the share that the task declares."""
    return degenerate_texts(texts_of(seen.roles), seen.task)


def substring_markers(seen: Observed, scorers: Sequence[Scorer]) -> Check:
    """What a scorer counted in the texts that are judged is words, and no part of one."""
    return parts_of_words(texts_of(seen.roles), scorers)


def clusters_ignored(
    frame: pd.DataFrame, pairs: Sequence[Pair], identity: Callable[[Prompt], str] = by_text
) -> Check:
    """The table that is judged is clustered by every prompt that its pairs share.

    frame: the trials as `judge` gets them. identity: of a prompt; on a model, the hash of its
    tokens. Which prompts are shared is counted from the pairs that were asked for, whatever the
    table says of them. Compared are what the table is grouped by, the number of clusters, and each
    judged arm's means by cluster.
    """
    wanted, found = clusters_of(pairs, identity), groupings(frame)
    sizes = {by: len(set(cluster.values())) for by, cluster in wanted.items()}
    same = {grouping.by: grouping.clusters for grouping in found} == sizes and all(
        _same_means(grouping.scores, frame, wanted[grouping.by]) for grouping in found
    )
    judged_by = _sizes({grouping.by: grouping.clusters for grouping in found})
    asked = "the pairs share no prompt" if "pair" in sizes else f"prompts shared: {_sizes(sizes)}"
    but = "" if same or judged_by != _sizes(sizes) else ", but other pairs in a cluster"
    return Check(
        "clusters-ignored",
        same,
        f"{len(pairs)} pairs judged by {judged_by}{but}; {asked}{_twins(pairs, identity)}",
    )


def _twins(pairs: Sequence[Pair], identity: Callable[[Prompt], str]) -> str:
    """How many texts have the tokens of another, where any has."""
    sides = {
        "source": {pair.source.sha: identity(pair.source) for pair in pairs},
        "base": {pair.base.sha: identity(pair.base) for pair in pairs},
    }
    told = [
        f"{len(found)} {side} texts are {tokens} sequences of tokens"
        for side, found in sides.items()
        if (tokens := len(set(found.values()))) < len(found)
    ]
    return f" ({'; '.join(told)})" if told else ""


def _same_means(
    scores: Mapping[str, Floats], frame: pd.DataFrame, cluster: Mapping[str, str]
) -> bool:
    """Whether means by cluster are those of these clusters, pair id to cluster, in any order."""
    for arm in set(ARMS) & set(scores):
        pairs = frame[frame["arm"] == arm].groupby("pair")["score"].mean()
        means = pairs.groupby(pairs.index.map(cluster)).mean().to_numpy(dtype=float)
        there = scores[arm][~np.isnan(scores[arm])]
        if len(means) != len(there) or not np.allclose(
            np.sort(means), np.sort(there), rtol=1e-9, atol=1e-12
        ):
            return False
    return True


def _sizes(clusters: Mapping[str, int]) -> str:
    return " and ".join(f"{by} ({n})" for by, n in clusters.items())


@dataclass(frozen=True)
class _Repeats:
    """How well some trials repeat another arm's, token for token and logit for logit."""

    compared: int
    other_tokens: int
    not_compared: int
    difference: float
    allowed: float

    @property
    def wrong(self) -> bool:
        off = self.other_tokens or self.not_compared or not self.compared
        return bool(off) or not self.difference <= self.allowed

    def __str__(self) -> str:
        missing = f", {self.not_compared} not compared" if self.not_compared else ""
        return (
            f"{self.compared} trials, {self.other_tokens} with other tokens (near ties apart)"
            f"{missing}, largest "
            f"logit difference {self.difference:.3g} of the largest logit (at most "
            f"{self.allowed:g} allowed)"
        )


def _repeats(trials: Sequence[Trial], reference: str, model: LoadedModel) -> _Repeats:
    beside = [t for t in trials if t.reference == reference and t.reference_scale is not None]
    apart = [(t.reference_difference or 0.0) / max(t.reference_scale or 0.0, 1e-30) for t in beside]
    return _Repeats(
        compared=len(trials),
        other_tokens=sum(t.reference_same_tokens is not True for t in beside),
        not_compared=len(trials) - len(beside),
        difference=max(apart, default=0.0),
        allowed=REPEAT_TOLERANCE[model.precision],
    )


def _oracle(name: str, trials: Sequence[Trial], model: LoadedModel, what: str) -> Check:
    errors = [t.oracle_error for t in trials if t.oracle_error is not None]
    limit = TOLERANCE[model.precision]
    worst = max(errors, default=float("nan"))
    return Check(
        name,
        bool(errors) and all(error <= limit for error in errors),
        f"{len(errors)} {what} rows recomputed one by one: largest relative logit error "
        f"{worst:.2g}, at most {limit:g} wanted",
    )


def no_control(arms: Mapping[str, Arm]) -> list[Check]:
    """That there is nothing to hold an ablation against, where it has no other heads and layers.

    What is ablated is the donor's place, not its content, so only other places can be a control.
    """
    if donor_of(arms["patched"].patches) not in ABLATIONS or set(CONTROLS) & set(arms):
        return []
    detail = "no other heads, nor layers half the depth away, could be ablated instead"
    return [Check(NO_CONTROL, None, detail)]


def _layers(arm: Arm) -> set[str]:
    """The layers that an arm in one spelling patches."""
    return {layer for patch in arm.patches for layer in patch.layers.split("+")}


def _heads(arm: Arm) -> set[str]:
    """The heads that an arm in one spelling patches, each with its site and layer."""
    return {
        f"{patch.site}@{layer} head {head}"
        for patch in arm.patches
        for layer in patch.layers.split("+")
        for head in patch.heads.split("+")
    }


_ELSEWHERE: dict[str, Callable[[Arm], set[str]]] = {"wrong-layer": _layers, "other-heads": _heads}
"""Controls that write as the patched arm does, somewhere else, and what they may not share."""


def near_ties(trials: Sequence[Trial], within: float) -> int:
    """Trials of which some uniform lies this close to an edge of the CDF."""
    return sum(trial.margin < within for trial in trials)
