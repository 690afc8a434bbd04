"""Defects of an instrument, to be put into the real pipeline; and small studies to put them into.

`DEFECTS` names for each the check that must catch it. A defect patches the program itself (with
pytest's monkeypatch), never a check.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any, NamedTuple

import pandas as pd
import pytest
import torch

from kv_claims.claims.claim import Claim, Region
from kv_claims.claims.patch import Patch
from kv_claims.evidence.evidence import Evidence
from kv_claims.judging import frame as frame_module
from kv_claims.judging.checks import INSTRUMENT_CHECKS
from kv_claims.models.load import LoadedModel, load_model
from kv_claims.models.rotary import Rotation
from kv_claims.patch import activations, overwrite, slab, splice, store
from kv_claims.patch.bits import other_bits
from kv_claims.patch.live import Live
from kv_claims.patch.plan import RowPlan
from kv_claims.planted.catalog import CATALOG
from kv_claims.planted.prompts import planted_task
from kv_claims.run import fed, forced_pass, runner
from kv_claims.run.arms import FULL_SWAP, Arm
from kv_claims.run.ledger import Ledger
from kv_claims.run.rows import Rows
from kv_claims.run.runner import Runner
from kv_claims.run.sampling import uniforms
from kv_claims.run.sampling_settings import Sampling
from kv_claims.run.trial import Trial
from kv_claims.study import tables
from kv_claims.study.cell import Cell
from kv_claims.study.study import ModelStudy
from kv_claims.tasks.answers import Answers
from kv_claims.tasks.scorers import Hit, Lexicon
from kv_claims.tasks.task import Pair, Prompt, Task
from tests.models.architectures import VOCAB, prompt, tiny
from tests.run.test_runner import number_task

CLAIM = Claim("c", says="s", cites="c", transfer=Region(0.7, 0.9), about="layer")
LOGLIK = replace(CLAIM, outcome="loglik")
LOGIT_DIFF = replace(CLAIM, outcome="logit_diff")
CHECKS = {*INSTRUMENT_CHECKS, "likelihood-oracle"}
EVERY_STEP = Patch("v_proj", "1", "last(6)", active="every_step")
STORED = Patch("kv", "12", "last(16)")
"""On the planted model of that name: about 0.4 of the behavior."""


def crossed_task() -> Task:
    """Words, of which pairs share sources and bases both: 11 of the one and 12 of the other."""
    task = planted_task(CATALOG["stored-at-layer"], n_pairs=12)
    return replace(task, sources=task.sources[:11], pairing="crossed")


def words_task() -> Task:
    """The planted model's own task: texts of words, scored by a lexicon."""
    return planted_task(CATALOG["stored-at-layer"], n_pairs=12)


def minimal_task(place: int | None = None) -> Task:
    """Pairs of which source and base differ in one token: at that place, or each at its own."""

    def made(side: str, i: int) -> Prompt:
        tokens = prompt(14 + i % 4, seed=100 + i)
        at = 3 * i % len(tokens) if place is None else place
        if side == "s":
            tokens[at] = (tokens[at] + 1 + i) % VOCAB
        return Prompt(f"{side}{i}", f"{side}{i}", " ".join(map(str, tokens)))

    return replace(
        number_task(),
        sources=tuple(made("s", i) for i in range(12)),
        bases=tuple(made("b", i) for i in range(12)),
    )


def answered_task() -> Task:
    """Numbers, with answers of three tokens, each beside a foil that parts at its second."""

    def answered(one: Prompt, second: int) -> Prompt:
        first = int(one.id[1:]) % VOCAB
        return replace(one, answers=Answers(f" {first} {second} {(first * 7) % VOCAB}"))

    task = number_task()
    return replace(
        task,
        sources=tuple(answered(one, 11) for one in task.sources),
        bases=tuple(answered(one, 12) for one in task.bases),
    )


class Study(NamedTuple):
    """A claim on a small model. task: made anew for each run; n_pairs: its first so many."""

    claim: Claim
    patches: tuple[Patch, ...] | None
    model: str = "llama"
    task: Callable[[], Task] = number_task
    n_pairs: int = 12


PLANTED = "planted:stored-at-layer"
BEHAVIOR = replace(CLAIM, transfer=Region(-0.1, 0.9), about=None)
"""Decided by a dozen pairs: 0 is inside, so that controls, which take 29 pairs, do not gate."""
STUDIES: dict[str, Study] = {
    "splice": Study(CLAIM, (Patch("kv", "1", "last(6)"),)),
    "heads": Study(CLAIM, (Patch("kv", "1", "last(6)", heads="1"),)),
    "mix": Study(CLAIM, (Patch("kv", "1", "last(6)", mode="mix(0.4)"),)),
    "append": Study(replace(CLAIM, about=None), (Patch("kv", "all", "last(6)", mode="append"),)),
    "in-prefill": Study(CLAIM, (Patch("kv_proj", "1", "last(6)"),)),
    "residual": Study(CLAIM, (Patch("residual", "1", "last(6)"),)),
    "every-step": Study(CLAIM, (EVERY_STEP,)),
    "held": Study(CLAIM, (Patch("k_proj", "1", "last(6)", active="every_step(held)"),)),
    "several": Study(CLAIM, (EVERY_STEP, Patch("k", "0", "last(6)"))),
    "likelihood": Study(LOGLIK, (EVERY_STEP,)),
    "likelihood-of-a-splice": Study(LOGLIK, (Patch("kv", "1", "last(6)"),)),
    "likelihood-of-answers": Study(LOGIT_DIFF, (EVERY_STEP,), task=answered_task),
    "likelihood-of-answers-to-a-splice": Study(
        LOGIT_DIFF, (Patch("kv", "1", "last(6)"),), task=answered_task
    ),
    # One token differs: somewhere, behind what is patched, or before it.
    "minimal": Study(CLAIM, (Patch("kv", "1", "last(6)"),), task=minimal_task),
    "minimal-in-prefill": Study(CLAIM, (Patch("kv_proj", "1", "last(6)"),), task=minimal_task),
    "minimal-residual": Study(CLAIM, (Patch("residual", "2", "last(6)"),), task=minimal_task),
    "same-start": Study(CLAIM, (Patch("kv", "1", "first(8)"),), task=lambda: minimal_task(9)),
    "same-start-in-prefill": Study(
        CLAIM, (Patch("residual", "1", "first(8)"),), task=lambda: minimal_task(9)
    ),
    "same-start-steps": Study(
        CLAIM,
        (Patch("v_proj", "1", "first(8)", active="every_step"),),
        task=lambda: minimal_task(9),
    ),
    "same-end": Study(CLAIM, (Patch("kv", "1", "last(4)"),), task=lambda: minimal_task(3)),
    "same-end-first-layer": Study(
        CLAIM, (Patch("v", "0", "last(4)"),), task=lambda: minimal_task(3)
    ),
    "words": Study(BEHAVIOR, (STORED,), PLANTED, words_task),
    "crossed": Study(BEHAVIOR, (STORED,), PLANTED, crossed_task, n_pairs=24),
}


@cache
def model_of(name: str, dtype: torch.dtype = torch.float64) -> LoadedModel:
    """A planted model, or a tiny random one of an architecture."""
    return load_model(name, device="cpu") if name.startswith("planted:") else tiny(name, dtype)


def judged(name: str, dtype: torch.dtype = torch.float64) -> Evidence:
    """Run a study of `STUDIES` and judge it, with whatever is wrong with the program now."""
    return judged_as(STUDIES[name], dtype)


def judged_as(study: Study, dtype: torch.dtype = torch.float64) -> Evidence:
    """Run any such study, on an empty ledger, and judge it."""
    claim, patches, model, task, n_pairs = study
    runner = Runner(model_of(model, dtype), task(), Sampling(6), Ledger())
    return ModelStudy(runner, n_pairs, n_seeds=1).judge(Cell.of(claim, "cell", patches))[0]


def failed(evidence: Evidence) -> set[str]:
    """Names of the instrument checks that did not pass."""
    return {check["name"] for check in evidence.checks if check["passed"] is not True} & CHECKS


def self_patch_that_changes(patch: pytest.MonkeyPatch) -> None:
    """A rotation that is not exact at 0."""
    real = Rotation.__call__

    def inexact(
        self: Rotation, layer: int, keys: torch.Tensor, shift: torch.Tensor
    ) -> torch.Tensor:
        return real(self, layer, keys, shift + 0.01)

    patch.setattr(Rotation, "__call__", inexact)


def last_token_twice(patch: pytest.MonkeyPatch) -> None:
    """The store caches the whole prompt: the last token is then fed on top of itself."""
    real = store.PromptStore._prefill

    def whole(self: store.PromptStore, prompts: list[tuple[int, ...]]) -> Any:
        # One token more is prefilled; the oldest slot goes, so that the lengths still look right.
        found = real(self, [(*prompt, prompt[-1]) for prompt in prompts])
        return {name: [tensor[:, :, 1:] for tensor in some] for name, some in found.items()}

    patch.setattr(store.PromptStore, "_prefill", whole)


def keys_not_rotated(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Rotation, "__call__", lambda _self, _layer, keys, _shift: keys)


def hook_that_never_fires(patch: pytest.MonkeyPatch) -> None:
    """A guard that no batch passes: nothing is written."""
    for module in (splice, activations):
        patch.setattr(module, "group_writes", lambda *_, **__: [])


def write_that_misses(patch: pytest.MonkeyPatch) -> None:
    """The write goes into a copy of the cache: the counts look right, the generation is not."""
    real = splice._write

    def into_a_copy(given: slab.Slab, *args: Any) -> None:
        keys, values = ([t.clone() for t in some] for some in (given.keys, given.values))
        real(replace(given, keys=keys, values=values), *args)

    patch.setattr(splice, "_write", into_a_copy)


def prompt_pass_that_misses(patch: pytest.MonkeyPatch) -> None:
    """The same of activations: what the model goes on with is not what was written."""
    real = activations._Pass._edit

    def into_a_copy(self: Any, layer: int, tensor: Any, states: torch.Tensor) -> None:
        real(self, layer, tensor, states.clone())

    patch.setattr(activations._Pass, "_edit", into_a_copy)


def steps_that_miss(patch: pytest.MonkeyPatch) -> None:
    """The same of what is written while rows generate."""
    real = Live.edit

    def into_a_copy(self: Live, layer: int, tensor: Any, states: torch.Tensor) -> None:
        real(self, layer, tensor, states.clone())

    patch.setattr(Live, "edit", into_a_copy)


def guarded_against_single_tokens(patch: pytest.MonkeyPatch) -> None:
    """The seed's 'persistent' patch: its hook wanted 16 rows, and decoding passes one."""
    real = Live.edit

    def guarded(self: Live, layer: int, tensor: Any, states: torch.Tensor) -> None:
        if states.shape[2] >= 16:
            real(self, layer, tensor, states)

    patch.setattr(Live, "edit", guarded)


def one_step_missed(patch: pytest.MonkeyPatch) -> None:
    real = Live.edit

    def forgets(self: Live, layer: int, tensor: Any, states: torch.Tensor) -> None:
        if self._now.start != 3:
            real(self, layer, tensor, states)

    patch.setattr(Live, "edit", forgets)


def one_layer_of_the_prompt_missed(patch: pytest.MonkeyPatch) -> None:
    """V is written, K is not: half of what was planned."""
    real = activations._Pass._edit

    def forgets(self: Any, layer: int, tensor: Any, states: torch.Tensor) -> None:
        if tensor != "k":
            real(self, layer, tensor, states)

    patch.setattr(activations._Pass, "_edit", forgets)


def pasted_through_half_precision(patch: pytest.MonkeyPatch) -> None:
    """A self-patch that loses digits changes the base."""
    real = overwrite.gather

    def rounded(donors: torch.Tensor, *args: Any) -> torch.Tensor:
        return real(donors, *args).bfloat16().to(donors.dtype)

    patch.setattr(overwrite, "gather", rounded)


def luck_of_its_own(patch: pytest.MonkeyPatch) -> None:
    """Arms of a pair draw other tokens from the same logits."""
    calls: list[str] = []

    def uneven(pair: str, seed: int, n: int) -> torch.Tensor:
        calls.append(pair)
        return uniforms(f"{pair} {len(calls)}", seed, n)

    patch.setattr(runner, "uniforms", uneven)


def base_into_the_base(patch: pytest.MonkeyPatch) -> None:
    """What is pasted as the source's is the base's own: every write happens, and does nothing."""
    real = Rows._donor

    def own(self: Rows, arm: Arm, pair: Pair) -> Prompt:
        return pair.base if arm.donor == "source" else real(self, arm, pair)

    patch.setattr(Rows, "_donor", own)


def half_of_a_head(patch: pytest.MonkeyPatch) -> None:
    """A write that reaches half of the numbers it was to reach."""
    real = overwrite.overwrite

    def partly(target: torch.Tensor, place: Any, new: torch.Tensor, *args: Any, **more: Any) -> Any:
        before = target[place.row, :, place.column]
        written = real(target, place, new, *args, **more)
        target[place.row, :, place.column, 4:] = before[..., 4:]
        stands = ~other_bits(target[place.row, :, place.column], new)
        return written._replace(elements=stands.sum((1, 2)))

    patch.setattr(overwrite, "overwrite", partly)


def donor_is_another_row(patch: pytest.MonkeyPatch) -> None:
    """Every step reads the row before its donor's."""
    real = Live._add

    def shifted(self: Live, *args: Any) -> None:
        kept = self._donor_rows
        self._donor_rows = {spot: max(0, row - 1) for spot, row in kept.items()}
        real(self, *args)
        self._donor_rows = kept

    patch.setattr(Live, "_add", shifted)


def held_position_moves(patch: pytest.MonkeyPatch) -> None:
    """What is held is the donor's last position but one."""
    real = activations._Pass._wanted_again

    def earlier(self: Any, plans: Any) -> Any:
        last, held = real(self, plans)
        return last, {
            spot: [vector._replace(column=vector.column - 1) for vector in some]
            for spot, some in held.items()
        }

    patch.setattr(activations._Pass, "_wanted_again", earlier)


def every_head_written(patch: pytest.MonkeyPatch) -> None:
    """Heads are counted, and not chosen."""
    real = overwrite.overwrite

    def all_heads(
        target: torch.Tensor, place: Any, new: torch.Tensor, _heads: Any, *args: Any, **more: Any
    ) -> Any:
        return real(target, place, new, None, *args, **more)

    patch.setattr(overwrite, "overwrite", all_heads)


def mixed_the_wrong_way(patch: pytest.MonkeyPatch) -> None:
    """(1 - alpha) of the source."""
    real = overwrite.overwrite

    def other_way(
        target: torch.Tensor, place: Any, new: torch.Tensor, heads: Any, alpha: float, **more: Any
    ) -> Any:
        weight = 1 - alpha if alpha < 1 else alpha
        return real(target, place, new, heads, weight, **more)

    patch.setattr(overwrite, "overwrite", other_way)


def appended_over_the_bases_own(patch: pytest.MonkeyPatch) -> None:
    """No room is made: the base loses its last positions."""
    patch.setattr(slab, "_make_room_behind", lambda *_: None)


def likelihoods_of_the_base(patch: pytest.MonkeyPatch) -> None:
    """The patch is off while tokens are fed."""
    real = fed.build

    def unpatched(given: Any, plans: list[RowPlan], *args: Any, **more: Any) -> Any:
        return real(given, [plan._replace(writes=()) for plan in plans], *args, **more)

    patch.setattr(fed, "build", unpatched)


def likelihoods_without_the_steps(patch: pytest.MonkeyPatch) -> None:
    """The prompt is patched, and what is on at every step is not on."""
    real = forced_pass.cache_behind
    patch.setattr(forced_pass, "cache_behind", lambda *given: real(*given[:-1], None))


def likelihoods_of_shifted_tokens(patch: pytest.MonkeyPatch) -> None:
    """The last prompt token is left out: every logit is that of the token after."""
    real = fed.FedRuns._forward

    def late(self: fed.FedRuns, *args: Any) -> torch.Tensor:
        return real(self, *args).roll(-1, dims=1)

    patch.setattr(fed.FedRuns, "_forward", late)


def write_into_the_store(patch: pytest.MonkeyPatch) -> None:
    """An arm that decodes on the prefilled tensors themselves."""
    real = slab._copy

    def aliased(layer: torch.Tensor, *args: Any) -> torch.Tensor:
        layer[:, :, -1:].mul_(1.0)
        return real(layer, *args)

    patch.setattr(slab, "_copy", aliased)


def control_that_is_the_patch(patch: pytest.MonkeyPatch) -> None:
    """'Noise' that returns what it was given."""
    patch.setattr(overwrite, "noise_like", lambda vectors, _stream: vectors)


def other_token_in_the_full_swap(patch: pytest.MonkeyPatch) -> None:
    """The base's last token is fed after the source's cache."""
    real = Rows.last_token

    def base_token(self: Rows, arm: Arm, pair: Pair) -> int:
        return self.tokens(pair.base)[-1] if arm == FULL_SWAP else real(self, arm, pair)

    patch.setattr(Rows, "last_token", base_token)


def letters_inside_words(patch: pytest.MonkeyPatch) -> None:
    """The lexicon's words are looked for as letters, wherever they stand."""

    def spots(self: Lexicon, text: str) -> tuple[Hit, ...]:
        return tuple(Hit(*m.span()) for word in self.words for m in re.finditer(word, text.lower()))

    def score(self: Lexicon, text: str) -> float:
        return 100.0 * len(spots(self, text)) / max(1, len(text.split()))

    patch.setattr(Lexicon, "hits", spots)
    patch.setattr(Lexicon, "__call__", score)


def table_without_prompts(patch: pytest.MonkeyPatch) -> None:
    """The table that is judged does not say which prompts a pair has."""
    real = tables.trials_frame

    def bare(*args: Any) -> pd.DataFrame:
        return real(*args).drop(columns=["source", "base"])

    patch.setattr(tables, "trials_frame", bare)


def every_pair_for_itself(patch: pytest.MonkeyPatch) -> None:
    """Pairs count as independent, whatever they share."""
    real = frame_module._group
    patch.setattr(frame_module, "_group", lambda table, _by: real(table, "pair"))


def changed_trials(change: Callable[[Trial], Trial | None]) -> Callable[[pytest.MonkeyPatch], None]:
    """A run whose trials come back changed, or not at all."""

    def inject(patch: pytest.MonkeyPatch) -> None:
        real = runner.Runner.run

        def run(self: Runner, *args: Any, **options: Any) -> list[Trial]:
            return [new for t in real(self, *args, **options) if (new := change(t)) is not None]

        patch.setattr(runner.Runner, "run", run)

    return inject


class Defect(NamedTuple):
    """check: the one that must fail. study: the one that is run."""

    check: str
    study: str
    inject: Callable[[pytest.MonkeyPatch], None]


DEFECTS: dict[str, Defect] = {
    "self-patch": Defect("self-patch", "splice", self_patch_that_changes),
    "self-patch-in-prefill": Defect("self-patch", "in-prefill", self_patch_that_changes),
    "self-patch-rounded": Defect("self-patch", "residual", pasted_through_half_precision),
    "self-patch-of-another-row": Defect("self-patch", "every-step", donor_is_another_row),
    "luck-of-its-own": Defect("self-patch", "in-prefill", luck_of_its_own),
    "luck-of-its-own-swapped": Defect("full-swap", "splice", luck_of_its_own),
    "duplicate-last-token": Defect("duplicate-last-token", "splice", last_token_twice),
    "unrotated-keys": Defect("unrotated-keys", "splice", keys_not_rotated),
    "unrotated-keys-in-prefill": Defect("unrotated-keys", "in-prefill", keys_not_rotated),
    "unrotated-keys-held": Defect("unrotated-keys", "held", keys_not_rotated),
    "hook-never-fired": Defect("hook-never-fired", "splice", hook_that_never_fires),
    "hook-never-fired-in-prefill": Defect("hook-never-fired", "in-prefill", hook_that_never_fires),
    "base-into-the-base-of-a-minimal-pair": Defect(
        "hook-never-fired", "minimal", base_into_the_base
    ),
    "base-into-the-base-behind-the-token": Defect(
        "hook-never-fired", "same-end", base_into_the_base
    ),
    "half-of-a-head": Defect("hook-never-fired", "splice", half_of_a_head),
    "hook-that-wants-16-rows": Defect(
        "hook-never-fired", "every-step", guarded_against_single_tokens
    ),
    "hook-that-wants-16-rows-held": Defect(
        "hook-never-fired", "held", guarded_against_single_tokens
    ),
    "hook-that-misses-a-step": Defect("hook-never-fired", "every-step", one_step_missed),
    "hook-that-misses-a-tensor": Defect(
        "hook-never-fired", "in-prefill", one_layer_of_the_prompt_missed
    ),
    "write-that-misses": Defect("unrotated-keys", "splice", write_that_misses),
    "prompt-pass-that-misses": Defect("unrotated-keys", "in-prefill", prompt_pass_that_misses),
    "residual-that-misses": Defect("unrotated-keys", "residual", prompt_pass_that_misses),
    "steps-that-miss": Defect("unrotated-keys", "every-step", steps_that_miss),
    "donor-is-another-row": Defect("unrotated-keys", "every-step", donor_is_another_row),
    "held-position-moves": Defect("unrotated-keys", "held", held_position_moves),
    "every-head-written": Defect("unrotated-keys", "heads", every_head_written),
    "mixed-the-wrong-way": Defect("unrotated-keys", "mix", mixed_the_wrong_way),
    "appended-over-its-own": Defect("unrotated-keys", "append", appended_over_the_bases_own),
    "cache-aliasing": Defect("cache-aliasing", "splice", write_into_the_store),
    "vacuous-control": Defect("vacuous-control", "splice", control_that_is_the_patch),
    "vacuous-control-in-prefill": Defect("vacuous-control", "residual", control_that_is_the_patch),
    "full-swap": Defect("full-swap", "splice", other_token_in_the_full_swap),
    "likelihoods-of-the-base": Defect(
        "likelihood-oracle", "likelihood-of-a-splice", likelihoods_of_the_base
    ),
    "likelihoods-without-the-steps": Defect(
        "likelihood-oracle", "likelihood", likelihoods_without_the_steps
    ),
    "likelihoods-of-shifted-tokens": Defect(
        "likelihood-oracle", "likelihood", likelihoods_of_shifted_tokens
    ),
    "answers-of-the-base": Defect(
        "likelihood-oracle", "likelihood-of-answers-to-a-splice", likelihoods_of_the_base
    ),
    "answers-without-the-steps": Defect(
        "likelihood-oracle", "likelihood-of-answers", likelihoods_without_the_steps
    ),
    "answers-of-shifted-tokens": Defect(
        "likelihood-oracle", "likelihood-of-answers", likelihoods_of_shifted_tokens
    ),
    "silent-n": Defect(
        "silent-n",
        "splice",
        changed_trials(lambda t: None if t.pair_index == 3 and t.arm.startswith("noise") else t),
    ),
    "prompt-drift": Defect(
        "prompt-drift", "splice", changed_trials(lambda t: replace(t, base_sha="0" * 64))
    ),
    "prompt-scored": Defect(
        "prompt-scored",
        "splice",
        changed_trials(lambda t: replace(t, text="the prompt itself " + t.text)),
    ),
    "degenerate-text": Defect(
        "degenerate-text", "splice", changed_trials(lambda t: replace(t, text="and so on " * 20))
    ),
    "substring-markers": Defect("substring-markers", "words", letters_inside_words),
    "clusters-ignored": Defect("clusters-ignored", "crossed", every_pair_for_itself),
    "clusters-not-in-the-table": Defect("clusters-ignored", "crossed", table_without_prompts),
    "clusters-by-half": Defect(
        "clusters-ignored",
        "crossed",
        changed_trials(lambda t: replace(t, base=t.pair, base_tokens_sha=t.pair)),
    ),
    "clusters-of-other-pairs": Defect(
        "clusters-ignored",
        "crossed",
        changed_trials(
            lambda t: replace(t, source_tokens_sha=f"source {(t.pair_index + 3) // 2 % 11}")
        ),
    ),
}
