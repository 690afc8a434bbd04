"""Every kind of patch, on every architecture, against an oracle that shares none of its code.

Many arms run together, as they do in a study; a failure names the arms that are off.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

from kv_claims.claims.donors import ABLATIONS, is_constant
from kv_claims.claims.layers import resolve_layers
from kv_claims.claims.patch import Patch
from kv_claims.claims.reach import is_donor
from kv_claims.claims.sites import CACHE_SITES, SITES, TENSORS, HeadCounts, Site, heads_of
from kv_claims.errors import UsageError
from kv_claims.judging.instrument import REPEAT_TOLERANCE
from kv_claims.models.load import LoadedModel
from kv_claims.patch.build import build
from kv_claims.run.arms import (
    BASE,
    FULL_SWAP,
    SOURCE,
    Arm,
    canonical_arm,
    controls,
    patched,
    self_patch,
)
from kv_claims.run.ledger import Ledger
from kv_claims.run.runner import Runner
from kv_claims.run.sampling_settings import Sampling
from kv_claims.run.trial import Trial
from kv_claims.tasks.directions import Direction
from tests.models.architectures import CONFIGS, sites_of, tiny
from tests.run.test_runner import number_task

STEPS = 6
N_LAYERS = 4
TOLERANCE = 2e-5
"""transformers computes RoPE angles and RMSNorm in float32, whatever the dtype."""
REPEAT = REPEAT_TOLERANCE["float64"]
LENGTHS = ((9, 14), (20, 8), (11, 11))
"""Tokens of source and base: shorter, longer, equal."""
DRAW = np.random.default_rng(0)
DIRECTIONS = (
    Direction("wide", {"": DRAW.normal(size=(N_LAYERS, 32))}),
    Direction("head", {"": DRAW.normal(size=8)}),
    Direction("cache", {name: DRAW.normal(size=(N_LAYERS, 1, 8)) for name in "kv"}),
)
"""As wide as the stream, as a head, and for keys and values apart."""
IN_PREFILL = tuple(site for site in SITES if site not in CACHE_SITES)


def alone(*patches: Patch) -> list[tuple[Patch, ...]]:
    return [(patch,) for patch in patches]


def mixes(site: Site) -> bool:
    """Projected keys cannot be mixed: some models norm them afterwards."""
    return site in CACHE_SITES or "k" not in TENSORS[site]


def at(site: Site, layers: str, positions: str, **more: Any) -> Patch:
    """A patch in these layers; of the embedding, which stands before them."""
    return Patch(site, "0" if site == "embed" else layers, positions, **more)


def vector(site: Site) -> str:
    """The donor that is as wide as the site."""
    if site in ("kv", "kv_proj"):
        return "vector(cache)"
    return "vector(head)" if heads_of(site) else "vector(wide)"


STEERING = ("replace", "add(1.5)", "project_out")


def in_turn(some: Sequence[str]) -> list[tuple[Site, str]]:
    """Every site with one of some, in turn, so that sites alike have different ones."""
    return [(site, some[number % len(some)]) for number, site in enumerate(SITES)]


ARMS: dict[str, list[tuple[Patch, ...]]] = {
    "spliced": alone(
        *(Patch(site, "1+3", "last(5)") for site in CACHE_SITES),
        *(Patch(site, "2", "first(7)") for site in CACHE_SITES),
        *(Patch(site, "1+2", "last(5)", mode="mix(0.3)") for site in CACHE_SITES),
        *(Patch(site, "1+3", "last(5)", heads="1") for site in CACHE_SITES),
        *(Patch("kv", "1+3", where) for where in ("at(-5:-2)", "at(6)", "all(part)")),
        Patch("v", "2", "last(part)"),
        Patch("kv", "2", "all", heads="0", mode="mix(0.7)"),
        Patch("kv", "all", "last(4)", mode="append"),
    ),
    "in-prefill": alone(
        *(at(site, "1+3", "last(5)") for site in IN_PREFILL),
        *(at(site, "2", "first(7)") for site in ("kv_proj", "z", "resid_mid", "residual")),
        *(Patch("residual", "1", where) for where in ("at(-1)", "at(2:4)", "last(2, part)")),
        Patch("z", "2", "all(part)", heads="1"),
        *(at(site, "0+1", "all", heads="1") for site in IN_PREFILL if heads_of(site)),
        *(at(site, "1", "last(6)", mode="mix(0.3)") for site in IN_PREFILL if mixes(site)),
    ),
    "every-step": alone(
        Patch("kv_proj", "all", "all", active="every_step"),
        Patch("residual", "all", "all", active="every_step"),
        *(at(site, "1", "last(3)", active="every_step") for site in SITES),
        Patch("kv", "0", "first(25%)", active="every_step"),
        Patch("residual", "0", "first(25%)", active="every_step"),
        Patch("k", "2", "last(3)", heads="1", active="every_step"),
        Patch("kv_proj", "2", "last(3)", heads="1", active="every_step"),
        Patch("z", "2", "last(3)", heads="1+2", active="every_step"),
    ),
    "held": alone(
        *(at(site, "1:3", "last(3)", active="every_step(held)") for site in SITES),
        Patch("kv_proj", "2", "last(3)", heads="0", active="every_step(held)"),
        Patch("kv", "1", "first(3)", heads="1", active="every_step(held)"),
    ),
    "several": [
        (Patch("residual", "1", "last(4)"), Patch("v_proj", "2", "last(6)")),
        (Patch("residual", "2", "last(4)"), Patch("kv_proj", "0", "first(3)")),
        (Patch("v_proj", "1", "last(5)"), Patch("kv", "3", "last(5)")),
        (Patch("attn_out", "1", "last(5)"), Patch("mlp_out", "1", "last(2)")),
        (
            Patch("embed", "0", "first(4)"),
            Patch("z", "1", "last(3)", heads="2", active="every_step"),
            Patch("q_proj", "1", "last(5)"),
            Patch("resid_mid", "3", "last(4)", mode="mix(0.4)"),
        ),
        (Patch("kv", "1", "last(5)"), Patch("residual", "1", "last(3)")),
        (
            Patch("k", "1", "last(6)"),
            Patch("v", "1", "last(3)", mode="mix(0.4)"),
            Patch("v_proj", "0", "all"),
        ),
        (
            Patch("residual", "0", "last(2)", active="every_step"),
            Patch("k_proj", "2", "last(3)", active="every_step(held)"),
            Patch("v", "3", "last(4)", heads="0"),
        ),
        (
            Patch("v", "1", "last(4)", active="every_step"),
            Patch("k_proj", "2", "all", active="every_step"),
        ),
    ],
    "ablated": [
        *alone(
            *(at(site, "1+3", "last(5)", donor=donor) for site, donor in in_turn(ABLATIONS)),
            *(
                at(site, "2", "all", donor=donor, active="every_step")
                for site, donor in in_turn(("mean", "zero"))
            ),
            Patch("residual", "1", "last(3)", donor="resample", active="every_step"),
            Patch("kv", "2", "first(4)", donor="resample", active="every_step(held)"),
            *(
                Patch(site, "0+1", "first(7)", heads="1", donor=donor)
                for site in ("kv", "k_proj", "z")
                for donor in ABLATIONS
            ),
            Patch("kv", "1", "last(6)", mode="mix(0.3)", donor="mean"),
            Patch("mlp_out", "1", "last(6)", mode="mix(0.3)", donor="zero"),
        ),
        (Patch("attn_out", "all", "all", donor="mean"), Patch("v", "2", "last(2)", donor="mean")),
        (Patch("z", "0", "all", heads="2", donor="zero"), Patch("k", "3", "all", donor="zero")),
    ],
    "steered": [
        *alone(
            *(
                at(site, "1+3", "last(5)", mode=mode, donor=vector(site))
                for site, mode in in_turn(STEERING)
            ),
            *(
                at(site, "1:3", "last(3)", mode=mode, active="every_step", donor=vector(site))
                for site, mode in in_turn(STEERING[1:])
            ),
            Patch("kv", "2", "last(4)", "1", "add(-2.5)", donor="vector(cache)"),
            Patch("z", "1", "all", "0+3", "project_out", "every_step", "vector(head)"),
        ),
        (
            Patch("residual", "all", "all", mode="project_out", donor="vector(wide)"),
            Patch("embed", "0", "all", mode="project_out", donor="vector(wide)"),
        ),
    ],
}
VARIANTS_OF_ROPE = (
    *("llama-llama3-rope", "llama-yarn", "llama-linear", "llama-dynamic", "phi3-longrope"),
    "mistral",
)
"""They differ from others where keys move, and only there: one group of each kind of write."""
WITH_CONTROLS = ("llama", "gemma3")
"""Controls run the same code on other donors: two architectures are enough for them."""
OF_CONSTANTS = ("ablated", "steered")
UNLIKE = ("llama", "phi3-longrope", "gemma3", "gpt_neox", "gpt2")
"""What is written where no prompt is the donor runs the same code everywhere: on those that differ
in norms, rotation, scaling and heads always, on the others in the slow tests."""
CASES = [
    pytest.param(
        *(name, group),
        marks=[pytest.mark.slow] if group in OF_CONSTANTS and name not in UNLIKE else [],
    )
    for name in CONFIGS
    for group in ARMS
    if name not in VARIANTS_OF_ROPE or group in ("spliced", "held", "steered")
]


class Ran(NamedTuple):
    """Trials of every arm, by arm id; names: from the role of an arm to its id."""

    trials: dict[str, list[Trial]]
    model: LoadedModel

    def of(self, arm: Arm) -> list[Trial]:
        return self.trials[canonical_arm(arm, N_LAYERS, self.model.heads).id]


def run(
    model: LoadedModel,
    arms: Iterable[Arm],
    lengths: Sequence[tuple[int, int]] = LENGTHS,
    *,
    pairs: int = 3,
    seeds: int = 1,
) -> Ran:
    task = replace(number_task(lengths), directions=DIRECTIONS)
    runner = Runner(model, task, Sampling(STEPS), Ledger())
    found: dict[str, list[Trial]] = {}
    for trial in runner.run([BASE, SOURCE, *arms], task.first_pairs(pairs), range(seeds)):
        found.setdefault(trial.arm, []).append(trial)
    return Ran(found, model)


def can_stand(patch: Patch, name: str) -> bool:
    """Whether a model has the site. GPT-2's keys cannot be moved, as held and appended ones are."""
    if patch.site not in sites_of(name):
        return False
    stays = patch.active != "every_step(held)" and patch.mode != "append"
    stays = stays and "part" not in patch.positions
    stays = stays and (patch.donor == "zero" or not is_constant(patch.donor))
    return stays or name != "gpt2" or "k" not in patch.tensors


def may_stay(patches: Sequence[Patch]) -> bool:
    """Whether what is written may stand there already, or change nothing that does."""
    return patches[0].donor in ("zero", "mean") or patches[0].mode == "project_out"


def writes_while_generating(patch: Patch) -> int:
    """Tensors written in all steps of a trial that does not stop itself."""
    tensors = len(resolve_layers(patch.layers, N_LAYERS)) * len(patch.tensors)
    to_the_end = re.fullmatch(r"all|last\(\d+\)|at\(-1\)", patch.positions) is not None
    last_token = not patch.is_splice and to_the_end
    return tensors * (last_token + (patch.active != "prompt") * (STEPS - 1))


@pytest.mark.parametrize(("name", "group"), CASES)
def test_arms_equal_the_oracle(name: str, group: str) -> None:
    model = tiny(name)
    wanted = [some for some in ARMS[group] if all(can_stand(patch, name) for patch in some)]
    if name in VARIANTS_OF_ROPE:
        wanted = [some for some in wanted if any("k" in patch.tensors for patch in some)]
    assert len(wanted) >= 3
    pasting = {
        role: (arm, patches)
        for patches in wanted
        for role, arm in {
            f"patched {patches}": patched(patches),
            f"self {patches}": self_patch(patches),
            **{
                f"{control} {patches}": arm
                for control, arm in controls(
                    patches, N_LAYERS, about_layer=True, heads=model.heads
                ).items()
                if name in WITH_CONTROLS
            },
        }.items()
    }
    # Without rotation prompts of one length keep every key where it is, unrelated ones too.
    lengths = ((11, 11),) if name == "gpt2" else LENGTHS
    found = run(model, [arm for arm, _ in pasting.values()], lengths)
    for role, (arm, patches) in pasting.items():
        trials = found.of(arm)
        errors = [trial.oracle_error for trial in trials if trial.oracle_error is not None]
        assert len(errors) == (0 if role.startswith("noise") else 2), role
        assert all(error < TOLERANCE for error in errors), role
        steps = sum(map(writes_while_generating, patches))
        for trial in trials:
            assert trial.fired == trial.planned > 0, role
            assert trial.elements == trial.planned_elements > 0, role
            assert trial.fired_steps == trial.planned_steps == steps, role
        is_self = role.startswith("self")
        assert all((trial.beyond_rounding == 0) == is_self for trial in trials), role
        if is_self:
            for trial in trials:
                assert trial.reference_same_tokens, role
                assert trial.reference_difference <= REPEAT * trial.reference_scale, role
        else:
            assert all(trial.least_changed != 0 for trial in trials), role
            assert all(trial.least_changed or may_stay(patches) for trial in trials), role
            live = any(patch.active != "prompt" for patch in patches)
            assert all(trial.beyond_rounding_steps > 0 for trial in trials) or not live, role
        if role.startswith(("noise", "unrelated", "random")):
            assert all(trial.differs for trial in trials), role


def tokens_of(found: Ran, arm: Arm) -> list[tuple[int, ...]]:
    return [trial.tokens for trial in found.of(arm)]


SAME = {
    "k-and-v-are-kv": (
        (Patch("k", "1", "last(4)"), Patch("v", "1", "last(4)")),
        (Patch("kv", "1", "last(4)"),),
    ),
    "k_proj-and-v_proj-are-kv_proj": (
        (Patch("k_proj", "1", "last(4)"), Patch("v_proj", "1", "last(4)")),
        (Patch("kv_proj", "1", "last(4)"),),
    ),
    "two-layers": (
        (Patch("v_proj", "1", "last(4)"), Patch("v_proj", "2", "last(4)")),
        (Patch("v_proj", "1+2", "last(4)"),),
    ),
    "mix-1-is-replace": (
        (Patch("kv", "1", "last(4)", mode="mix(1)"),),
        (Patch("kv", "1", "last(4)"),),
    ),
    "residual-of-all-is-that-of-the-last": (
        (Patch("residual", "all", "all", active="every_step"),),
        (Patch("residual", "3", "all", active="every_step"),),
    ),
}


@pytest.mark.parametrize("case", SAME)
def test_two_ways_to_say_the_same(case: str) -> None:
    model = tiny("qwen3")
    one, other = (patched(patches) for patches in SAME[case])
    found = run(model, [one, other], pairs=9)
    assert tokens_of(found, one) == tokens_of(found, other)
    assert tokens_of(found, one) != tokens_of(found, BASE)


DIFFERENT = {
    "heads": (Patch("kv", "1+2", "last(4)"), Patch("kv", "1+2", "last(4)", heads="0")),
    "head": (Patch("v_proj", "1", "all", heads="1"), Patch("v_proj", "1", "all", heads="0")),
    "mix": (Patch("kv", "1+2", "last(4)"), Patch("kv", "1+2", "last(4)", mode="mix(0.2)")),
    "append": (Patch("kv", "all", "last(4)"), Patch("kv", "all", "last(4)", mode="append")),
    "every-step": (
        Patch("residual", "2", "last(4)"),
        Patch("residual", "2", "last(4)", active="every_step"),
    ),
    "held": (
        Patch("residual", "2", "last(4)", active="every_step"),
        Patch("residual", "2", "last(4)", active="every_step(held)"),
    ),
    "prompt-pass": (Patch("kv", "1", "last(4)"), Patch("kv_proj", "1", "last(4)")),
}


@pytest.mark.parametrize("case", DIFFERENT)
def test_patches_that_differ_generate_other_text(case: str) -> None:
    """Each would equal the other if its own word were not read."""
    one, other = (patched(patch) for patch in DIFFERENT[case])
    found = run(tiny("llama"), [one, other], pairs=9)
    assert tokens_of(found, one) != tokens_of(found, other)


def test_the_last_residual_at_every_step_is_the_sources_own_generation() -> None:
    """Logits follow from the last layer's output alone: the same tokens on the same luck."""
    arm = patched(Patch("residual", "3", "last(1)", active="every_step"))
    found = run(tiny("llama"), [arm], pairs=9, seeds=2)
    assert tokens_of(found, arm) == tokens_of(found, SOURCE)


def test_an_appended_self_patch_replaces_the_same_slots() -> None:
    """The same gather, rotation and write; appending its own tail would change the base."""
    arm = self_patch(Patch("kv", "all", "last(4)", mode="append"))
    assert [patch.mode for patch in arm.patches] == ["replace"]
    found = run(tiny("llama"), [arm], pairs=9)
    assert tokens_of(found, arm) == tokens_of(found, BASE)


def test_control_arms_paste_something_else_in_every_in_prefill_site() -> None:
    """And what they paste reaches the generation."""
    model = tiny("llama")
    for site in IN_PREFILL:
        patch = at(site, "1", "last(5)")
        arms = {"patched": patched(patch), **controls(patch, N_LAYERS, about_layer=True)}
        found = run(model, arms.values(), pairs=9)
        said = {role: tokens_of(found, arm) for role, arm in arms.items()}
        for one in said:
            assert all(said[one] != said[other] for other in said if other != one), (site, one)


def grouped(model: LoadedModel) -> tuple[int, int]:
    return model.n_kv_heads, int(model.config.num_attention_heads)


@pytest.mark.parametrize("site", ["q_proj", "z"])
def test_heads_of_queries_are_query_heads(site: Site) -> None:
    """Four of them: the last is the oracle's, and there is none behind it."""
    model = tiny("llama")
    arms = [patched(Patch(site, "1", "last(4)", heads=str(head))) for head in range(4)]
    found = run(model, arms)
    said = [tokens_of(found, arm) for arm in arms]
    assert all(one != other for i, one in enumerate(said) for other in said[:i])
    for arm in arms:
        for trial in found.of(arm)[:2]:
            assert trial.elements == 4 * 8
            assert trial.oracle_error is not None
            assert trial.oracle_error < TOLERANCE
    with pytest.raises(UsageError, match="'4' is out of range, expected query heads 0 to 3"):
        run(model, [patched(Patch(site, "1", "last(4)", heads="4"))])


@pytest.mark.parametrize("name", ["gpt_neox", "gpt_neox-serial"])
def test_the_stream_within_a_block_is_only_where_a_block_has_one(name: str) -> None:
    arm = patched(Patch("resid_mid", "1", "last(4)"))
    if name == "gpt_neox":
        with pytest.raises(UsageError, match="'gpt_neox' here has parallel blocks"):
            run(tiny(name), [arm])
    else:
        assert run(tiny(name), [arm]).of(arm)


@pytest.mark.parametrize(("site", "message"), [("kv", "'2'"), ("v_proj", "'2'")])
def test_heads_are_kv_heads_and_none_is_past_the_last(site: str, message: str) -> None:
    """Four query heads share two KV heads: head 2 would be an empty slice."""
    model = tiny("llama")
    assert grouped(model) == (2, 4)
    with pytest.raises(UsageError, match=rf"{message} is out of range, expected KV heads 0 to 1"):
        run(model, [patched(Patch(site, "1", "last(4)", heads="2"))])
    ungrouped = tiny("gpt_neox")
    assert grouped(ungrouped) == (4, 4)
    found = run(ungrouped, [arm := patched(Patch(site, "1", "last(4)", heads="2"))])
    # One head of 8 components, 4 positions.
    assert {trial.elements for trial in found.of(arm)} == {4 * 8 * (2 if site == "kv" else 1)}


def test_a_trial_of_half_precision_equals_its_oracle_within_its_rounding() -> None:
    model = tiny("llama", dtype=torch.bfloat16)
    arms = [
        patched(Patch("kv_proj", "1", "last(4)", active="every_step")),
        patched(Patch("kv", "1", "last(4)", mode="mix(0.5)")),
    ]
    found = run(model, [*arms, self_patch(arms[0].patches)])
    errors = [t.oracle_error for some in found.trials.values() for t in some if t.oracle_error]
    assert errors
    assert max(errors) < 5e-2


SWAPPED = {
    "all": (Patch("kv", "all", "all"),),
    "a-range": (Patch("kv", "0:4", "all", heads="0:2"),),
    "k-and-v": (Patch("k", "all", "all"), Patch("v", "0:2+2:4", "all")),
    "by-layers": (Patch("kv", "0+2", "all"), Patch("k", "1+3", "all"), Patch("v", "1+3", "all")),
    "every-step": (Patch("kv", "all", "all", active="every_step"),),
    "and-a-residual": (Patch("kv", "all", "all"), Patch("residual", "1", "last(2)")),
}


@pytest.mark.parametrize("spelling", SWAPPED)
def test_whatever_names_the_whole_cache_is_one_arm(spelling: str) -> None:
    """The source's cache, of its length, and its last token: one rule for every spelling."""
    model = tiny("llama")
    found = run(model, [patched(SWAPPED[spelling]), SOURCE])
    assert canonical_arm(patched(SWAPPED[spelling]), N_LAYERS, HeadCounts(2, 4)) == FULL_SWAP
    trials = found.of(patched(SWAPPED[spelling]))
    for trial, source in zip(trials, found.of(SOURCE), strict=True):
        assert trial.arm == FULL_SWAP.id
        assert trial.tokens == source.tokens
        assert trial.prompt_tokens == source.prompt_tokens


def test_a_full_swap_that_is_held_goes_on_from_the_source() -> None:
    """Held keys and values are written besides: the source's run, patched, as the oracle has it."""
    model = tiny("llama")
    held = patched(Patch("kv", "all", "all", active="every_step(held)"))
    found = run(model, [held, SOURCE])
    arm = canonical_arm(held, N_LAYERS, HeadCounts(2, 4))
    assert (arm.prompt, arm.id) == ("source", "source<source>kv@all/all/every_step(held)")
    trials = found.of(held)
    for trial, source in zip(trials, found.of(SOURCE), strict=True):
        assert trial.prompt_tokens == source.prompt_tokens
        assert trial.tokens[0] == source.tokens[0]  # the first is drawn before any is held
        assert (trial.fired, trial.changed) == (trial.planned, 0)
        assert trial.beyond_rounding_steps > 0
    errors = [t.oracle_error for t in trials if t.oracle_error is not None]
    assert errors
    assert max(errors) < TOLERANCE


LEFT: dict[str, tuple[tuple[Patch, ...], bool]] = {
    "all": ((Patch("kv", "all", "last(10)"),), True),
    "k-and-v": ((Patch("k", "all", "all"), Patch("v", "all", "first(100%)")), True),
    "held": ((Patch("kv", "all", "first(10)", active="every_step(held)"),), True),
    "in-prefill": ((Patch("kv_proj", "all", "all"),), True),
    "k-spliced-v-not": ((Patch("k", "all", "all"), Patch("v_proj", "all", "all")), True),
    "what-follows": ((Patch("kv", "0", "all"), Patch("residual", "0", "all")), True),
    "what-follows-in-two": (
        (Patch("kv_proj", "0:2", "all"), Patch("residual", "1", "all")),
        True,
    ),
    "the-first-layer-left": ((Patch("residual", "0", "all"),), False),
    "a-position-left": ((Patch("kv", "all", "last(9)"),), False),
    "a-head-left": ((Patch("kv", "all", "all", heads="1"),), False),
    "keys-left": ((Patch("v", "all", "all"), Patch("k", "0:3", "all")), False),
    "what-follows-but-one": ((Patch("kv", "0", "last(9)"), Patch("residual", "0", "all")), False),
    "only-values": ((Patch("v_proj", "all", "all"),), False),
}
"""Arms of a base of 11 tokens, and whether nothing of it is left in the cache."""


@pytest.mark.parametrize("arm", LEFT)
def test_an_arm_is_its_donor_where_two_bases_leave_the_same_cache(arm: str) -> None:
    """What is worked out from cells is what is there: two bases, one source, one cache."""
    patches, whole = LEFT[arm]
    task = number_task(((11, 11), (11, 11)))
    alike = replace(task, sources=task.sources[:1], bases=task.bases[:2], pairing="crossed")
    runner = Runner(tiny("llama"), alike, Sampling(2), Ledger())
    pairs = alike.pairs[:2]
    one = runner.canonical(Arm("base", "source", patches))
    runner.check([one], pairs)
    runner.prefill([(pair, one) for pair in pairs])
    plans = [runner.rows.plan(one, pair, 0, runner.store) for pair in pairs]
    slab = build(runner.store, plans, runner.rows.rotation, headroom=0).slab
    same = [
        bool((tensor[0, :, -10:] - tensor[1, :, -10:]).abs().max() < 1e-6)
        for tensor in [*slab.keys, *slab.values]
    ]
    assert all(same) is whole
    assert is_donor(one.patches, n_layers=4, source=11, base=11) is whole
