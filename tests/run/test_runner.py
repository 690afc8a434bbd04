"""Arms to trials: sameness, sharing, resuming, refusing."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from kv_claims.claims.patch import Patch
from kv_claims.errors import UsageError
from kv_claims.models.load import LoadedModel
from kv_claims.patch.slab import Slab
from kv_claims.run import runner as runner_module
from kv_claims.run.arms import BASE, FULL_SWAP, SOURCE, Arm, controls, patched, self_patch
from kv_claims.run.decode import decode
from kv_claims.run.ledger import Ledger
from kv_claims.run.runner import Runner
from kv_claims.run.sampling_settings import Sampling
from kv_claims.run.trial import Trial
from kv_claims.tasks.scorers import Lexicon
from kv_claims.tasks.task import Prompt, Task
from tests.models.architectures import prompt, tiny

PATCH = Patch("kv", layers="1+2", positions="last(6)")
NEGATIVE = controls(PATCH, 4, about_layer=False)
ARMS: list[Arm] = [BASE, SOURCE, FULL_SWAP, patched(PATCH), self_patch(PATCH), *NEGATIVE.values()]
LIVE = (
    Patch("residual", "1", "last(4)", active="every_step"),
    Patch("kv_proj", "2", "first(3)", active="every_step(held)"),
)
RECOMPUTED: list[Arm] = [
    patched(Patch("residual", "1", "last(4)")),
    patched(Patch("v_proj", "all", "all", heads="1")),
    patched((Patch("kv", "3", "last(5)"), Patch("k_proj", "1", "last(5)"))),
    patched(Patch("kv", "all", "last(4)", mode="append")),
    patched(Patch("v", "1+2", "last(4)", mode="mix(0.5)")),
    patched(Patch("kv", "1+2", "last(4)", active="every_step")),
    patched(LIVE),
    self_patch(LIVE),
    *controls(LIVE, 4, about_layer=True).values(),
]
"""Arms whose prompts are computed anew, or that read other rows while they generate."""


def number_task(lengths: Sequence[tuple[int, int]] = ((9, 14), (20, 8), (11, 11), (7, 25))) -> Task:
    """Pairs of random token numbers with the given source and base lengths, three times over.

    Their span `part` is three tokens, in a source from the third on, in a base before its last two.
    """

    def made(side: str, i: int, n: int) -> Prompt:
        words = [str(one) for one in prompt(n, seed=2 * i + (side == "s"))]
        part = words[2:5] if side == "s" else words[-5:-2]
        spans = (("part", " ".join(part)),)
        return Prompt(f"{side}{i}", f"{side}{i}", " ".join(words), spans=spans)

    sizes = [*lengths] * 3
    return Task(
        name="numbers",
        about="random tokens",
        sources=tuple(made("s", i, n) for i, (n, _) in enumerate(sizes)),
        bases=tuple(made("b", i, n) for i, (_, n) in enumerate(sizes)),
        pairing="one-to-one",
        scorer=Lexicon(frozenset({"x"})),
        lexicon=frozenset({"x"}),
    )


def run(
    model: LoadedModel,
    *,
    batch_size: int | None = None,
    ledger: Ledger | None = None,
    arms: Sequence[Arm] = ARMS,
    tokens: int = 8,
    seeds: int = 2,
    pairs: int = 12,
) -> dict[tuple[str, str, int], Trial]:
    task = number_task()
    runner = Runner(
        model, task, Sampling(tokens), Ledger() if ledger is None else ledger, batch_size
    )
    trials = runner.run(arms, task.first_pairs(pairs), range(seeds))
    return {(t.pair, t.arm, t.seed): t for t in trials}


@pytest.mark.parametrize(
    "name",
    [
        "llama",
        pytest.param("mistral-window", marks=pytest.mark.slow),
        pytest.param("gemma2", marks=pytest.mark.slow),
        "gpt_neox",
    ],
)
def test_tokens_do_not_depend_on_the_batch_in_float64(name: str) -> None:
    model = tiny(name)
    alone, seven, many = (run(model, batch_size=size) for size in (1, 7, 64))
    assert len(alone) == len(ARMS) * 12 * 2
    for key, trial in alone.items():
        assert trial.tokens == seven[key].tokens == many[key].tokens
        assert trial.changed == seven[key].changed == many[key].changed


def assert_same_geometry(one: Trial, other: Trial) -> None:
    """None in the same places, and the same numbers in all others."""
    assert one.geometry.keys() == other.geometry.keys()
    for name, ratios in one.geometry.items():
        beside = other.geometry[name]
        assert (ratios is None) is (beside is None)
        if ratios is not None:
            # None of one layer, as of held values that are all alike, becomes nan.
            found, wanted = (np.array(some, dtype=float) for some in (ratios, beside))
            np.testing.assert_allclose(found, wanted, rtol=1e-5)


@pytest.mark.parametrize("name", ["llama", "gemma3"])
def test_nor_do_those_of_arms_that_are_computed_anew(name: str) -> None:
    """In-prefill and every-step arms: donors share a forward pass with the rows that read them."""
    model = tiny(name)
    alone, seven, many = (
        run(model, batch_size=size, arms=RECOMPUTED, tokens=18, seeds=1, pairs=5)
        for size in (1, 7, 64)
    )
    assert len(alone) == len(RECOMPUTED) * 5
    for key, trial in alone.items():
        for other in (seven[key], many[key]):
            assert trial.tokens == other.tokens
            assert (trial.elements, trial.known_equal) == (other.elements, other.known_equal)
            assert trial.beyond_rounding == other.beyond_rounding
            assert (trial.least_changed is None) is (other.least_changed is None)
            assert trial.fired_steps == other.fired_steps
            assert bool(trial.differs) == bool(other.differs)
            assert_same_geometry(trial, other)
    assert any(ratios is None for t in alone.values() for ratios in t.geometry.values())
    assert all(trial.geometry["uncentred/generated"] for trial in alone.values())


@pytest.mark.slow
def test_in_float32_tokens_part_at_near_ties_only() -> None:
    model = tiny("llama", dtype=torch.float32)
    alone, many = run(model, batch_size=1, tokens=20), run(model, batch_size=64, tokens=20)
    parted = [key for key, trial in alone.items() if trial.tokens != many[key].tokens]
    assert all(min(alone[key].margin, many[key].margin) < 1e-4 for key in parted)
    assert len(parted) <= len(alone) / 20


@pytest.mark.parametrize("arms", [ARMS, RECOMPUTED], ids=["spliced", "computed-anew"])
def test_order_and_company_of_arms_do_not_matter(arms: list[Arm]) -> None:
    model = tiny("llama")
    together, reverse = run(model, arms=arms), run(model, arms=arms[::-1])
    one = run(model, arms=[arms[3]])
    assert {key: t.tokens for key, t in together.items()} == {
        key: t.tokens for key, t in reverse.items()
    }
    assert all(together[key].tokens == trial.tokens for key, trial in one.items())


def test_arms_of_a_pair_share_their_luck() -> None:
    """With common random numbers an arm that is the base draws the base's tokens."""
    found = run(tiny("llama"))
    for (pair, arm, seed), trial in found.items():
        if arm.startswith("base>"):
            assert trial.tokens == found[pair, "base", seed].tokens
            assert trial.changed == 0
        if arm == FULL_SWAP.id:
            assert trial.tokens == found[pair, "source", seed].tokens


def test_every_patched_arm_changes_what_it_writes() -> None:
    for (_, arm, _), trial in run(tiny("llama")).items():
        if trial.planned and not arm.startswith("base>"):
            assert trial.fired == trial.planned
            assert trial.least_changed > 0
        if arm.startswith(("noise", "unrelated")):
            assert trial.differs


def test_the_cache_is_one_shorter_than_the_prompt() -> None:
    assert all(t.cached_slots == t.prompt_tokens - 1 for t in run(tiny("llama")).values())


def test_the_oracle_recomputes_rows_of_every_arm_but_noise() -> None:
    found = run(tiny("llama"))
    for arm in {arm for _, arm, _ in found}:
        errors = [t.oracle_error for (_, a, _), t in found.items() if a == arm]
        checked = [error for error in errors if error is not None]
        assert len(checked) == (0 if arm.startswith("noise") else 2)
        assert all(error < 2e-5 for error in checked)


def test_a_finished_trial_is_not_run_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny("llama")
    first = run(model, ledger=Ledger(tmp_path))

    def no_more(*_: object, **__: object) -> None:
        raise AssertionError("ran again")

    monkeypatch.setattr(runner_module, "decode", no_more)
    assert run(model, ledger=Ledger(tmp_path)) == first


@pytest.mark.parametrize("arms", [ARMS, RECOMPUTED], ids=["spliced", "computed-anew"])
def test_a_run_that_breaks_off_goes_on_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arms: list[Arm]
) -> None:
    model = tiny("llama")
    whole = run(model, batch_size=16, arms=arms)
    real, calls = runner_module.decode, []

    def breaks(*args: object, **options: object) -> object:
        calls.append(1)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return real(*args, **options)

    monkeypatch.setattr(runner_module, "decode", breaks)
    with pytest.raises(KeyboardInterrupt):
        run(model, batch_size=16, ledger=Ledger(tmp_path), arms=arms)
    monkeypatch.setattr(runner_module, "decode", real)
    kept = Ledger(tmp_path)
    assert 0 < len(kept) < len(whole)
    resumed = run(model, batch_size=16, ledger=kept, arms=arms)
    assert {k: t.tokens for k, t in resumed.items()} == {k: t.tokens for k, t in whole.items()}
    # What only a half was left of is counted as in one piece.
    for key, trial in resumed.items():
        assert trial.fired_steps == whole[key].fired_steps
        assert trial.beyond_rounding == whole[key].beyond_rounding


@pytest.mark.parametrize(
    "other",
    [
        {"sampling": Sampling(9)},
        {"sampling": Sampling(8, 0.9)},
        {"model": tiny("llama", dtype=torch.float32)},
        {"task": number_task(((9, 14), (20, 9)))},
    ],
    ids=["more-tokens", "temperature", "dtype", "prompts"],
)
def test_a_trial_of_other_settings_is_another_trial(other: dict[str, object]) -> None:
    plain = Runner(tiny("llama"), number_task(), Sampling(8), Ledger())
    changed = replace(plain, **other)
    assert changed.study != plain.study


def test_other_stop_tokens_make_another_trial() -> None:
    plain, stopping = tiny("llama"), tiny("llama")
    stopping.__dict__["stop_ids"] = frozenset({5})
    studies = [Runner(m, number_task(), Sampling(8), Ledger()).study for m in (plain, stopping)]
    assert studies[0] != studies[1]


def test_logits_that_are_not_numbers_are_an_error_and_no_score() -> None:
    model = tiny("llama")
    with torch.no_grad():
        # Behind the last keys and values, so that no cache shows it.
        model.network.model.layers[-1].mlp.up_proj.weight[0, 0] = float("nan")
    with pytest.raises(UsageError, match="its logits are not finite numbers"):
        run(model)


def test_a_pair_in_which_keys_move_is_among_those_recomputed() -> None:
    task = number_task(((9, 9), (11, 11), (12, 12), (20, 8)))
    runner = Runner(tiny("llama"), task, Sampling(4), Ledger())
    trials = runner.run([patched(PATCH)], task.pairs, [0])
    shifts = [t.oracle_shift for t in trials if t.oracle_error is not None]
    assert shifts == [0, 0, -12]


def while_recording() -> RuntimeError:
    """What is seen of it where ending the recording fails in its turn."""
    try:
        try:
            raise torch.OutOfMemoryError("out of memory")
        finally:
            raise RuntimeError("operation failed due to a previous error during capture")
    except RuntimeError as error:
        return error


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("out of memory"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("CUDA error: out of memory"),
        while_recording(),
    ],
    ids=["gpu", "cpu", "cublas", "driver", "while-recording"],
)
def test_out_of_memory_halves_the_batch_and_loses_nothing(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    real, sizes = runner_module.decode, []

    def small_memory(model: object, slab: object, first: list[int], *args: object, **kw: object):
        sizes.append(len(first))
        if len(first) > 10:
            raise error
        return real(model, slab, first, *args, **kw)

    model = tiny("llama")
    whole = run(model)
    monkeypatch.setattr(runner_module, "decode", small_memory)
    found = run(model, batch_size=64)
    assert max(sizes) > 10
    assert {k: t.tokens for k, t in found.items()} == {k: t.tokens for k, t in whole.items()}


def test_where_memory_ran_out_the_batch_is_let_go_before_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A trace holds the frames it went through, and they the caches: half a batch may not fit."""
    held: list[weakref.ref[torch.Tensor]] = []
    alive: list[bool] = []

    def small_memory(model: object, slab: Slab, first: list[int], *args: object, **kw: object):
        if len(first) > 10:
            held.append(weakref.ref(slab.keys[0]))
            raise torch.OutOfMemoryError("out of memory")
        return decode(model, slab, first, *args, **kw)

    monkeypatch.setattr(runner_module, "decode", small_memory)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: alive.append(held[-1]() is not None))
    run(tiny("llama"), batch_size=64)
    assert alive
    assert not any(alive)


@pytest.mark.parametrize(
    ("patch", "message"),
    [
        (Patch("kv", "7", "last(2)"), "out of range, expected layers 0 to 3"),
        (Patch("kv", "1", "last(8)"), r"need 8 cached positions, but in pair 1 .*'s1'.*'b1'"),
        (Patch("kv", "8/32+9/32", "last(2)"), "meet in layer 1"),
        (
            # All 8 tokens of the shorter prompt may be patched, and 9 may not.
            [Patch("v_proj", "0", "last(8)"), Patch("v_proj", "1", "last(9)")],
            r"need 9 positions, but in pair 1 .* has 20 \(of 20 tokens\) and the base 8 \(of 8\)",
        ),
        (Patch("k_proj", "1", "last(2)", heads="2"), "expected KV heads 0 to 1"),
        (
            [Patch("kv", "0:2", "last(2)"), Patch("v_proj", "1", "last(2)")],
            "both write 'v' of layer 1",
        ),
        (
            [Patch("residual", "1", "last(2)"), Patch("residual", "1+2", "last(1)")],
            "both write 'residual' of layer 1",
        ),
        (
            [Patch("kv", "all", "last(2)", mode="append"), Patch("residual", "1", "last(2)")],
            "expected it alone in its arm",
        ),
        (Patch("kv", "all", "last(14)", mode="append"), "need 14 cached positions, but in pair 0"),
    ],
    ids=[
        *("layer", "window", "meet", "window-of-a-prompt", "head", "one-tensor-twice"),
        *("one-residual-twice", "append-and-more", "append-more-than-there-is"),
    ],
)
def test_a_patch_that_does_not_fit_is_refused_before_the_model_runs(
    patch: Patch | list[Patch], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    task, model = number_task(((9, 14), (20, 8))), tiny("llama")
    runner = Runner(model, task, Sampling(4), Ledger())
    monkeypatch.setattr(type(model.network), "forward", None)
    with pytest.raises(UsageError, match=message):
        runner.run([BASE, patched(patch)], task.pairs, [0])


def test_a_patch_outside_a_sliding_window_is_refused() -> None:
    task = number_task()
    runner = Runner(tiny("mistral-window"), task, Sampling(4), Ledger())
    first = patched(Patch("kv", "1", "first(2)"))
    with pytest.raises(UsageError, match="nothing can read what is patched"):
        runner.check([first], task.pairs)
    # Gemma 2 has a layer in two that looks back all the way.
    Runner(tiny("gemma2"), task, Sampling(4), Ledger()).check([first], task.pairs)


MOVING = {
    "spliced": Patch("kv", "1", "last(2)"),
    "in-prefill": Patch("kv_proj", "1", "last(2)"),
    "every-step": Patch("k", "1", "first(2)", active="every_step"),
    "every-step-in-prefill": Patch("k_proj", "1", "first(2)", active="every_step"),
    "held": Patch("k_proj", "1", "first(2)", active="every_step(held)"),
    "appended": Patch("kv", "all", "last(2)", mode="append"),
}
"""Patches that move keys of pairs of unequal lengths."""


@pytest.mark.parametrize("kind", MOVING)
def test_moving_keys_that_learned_their_positions_is_refused(kind: str) -> None:
    task = number_task(((9, 14), (20, 8)))
    runner = Runner(tiny("gpt2"), task, Sampling(4), Ledger())
    with pytest.raises(UsageError, match="architecture 'gpt2': it learns absolute positions"):
        runner.run([patched(MOVING[kind])], task.pairs, [0])
    assert not len(runner.ledger)


@pytest.mark.parametrize(
    "patch",
    [
        Patch("v", "1", "last(2)"),
        Patch("kv", "1", "first(2)"),
        Patch("k_proj", "1", "first(2)"),
        Patch("v_proj", "1", "last(2)", active="every_step"),
        Patch("residual", "1", "last(2)", active="every_step(held)"),
    ],
    ids=str,
)
def test_what_moves_no_key_is_fine_where_keys_cannot_move(patch: Patch) -> None:
    """Values carry no rotation, and windows at the start stay where they are."""
    task = number_task(((9, 14), (20, 8)))
    trials = Runner(tiny("gpt2"), task, Sampling(4), Ledger()).run(
        [patched(patch)], task.pairs[:2], [0]
    )
    assert all(trial.oracle_error < 2e-5 for trial in trials)


def test_held_and_appended_keys_move_even_between_equal_lengths() -> None:
    task = number_task(((9, 9),))
    runner = Runner(tiny("gpt2"), task, Sampling(4), Ledger())
    for kind, why in (
        ("held", r"^pair 0 .*: active 'every_step\(held\)' puts the key of one position at all"),
        ("appended", "^pair 0 .*: mode 'append' puts the source's keys behind the base's, but"),
    ):
        with pytest.raises(UsageError, match=why) as raised:
            runner.check([patched(MOVING[kind])], task.pairs)
        said = str(raised.value)
        # The mode moves the keys: no word of lengths, which are equal.
        assert "architecture 'gpt2': it learns absolute positions" in said
        assert "length" not in said
    for kind in ("spliced", "in-prefill", "every-step", "every-step-in-prefill"):
        runner.check([patched(MOVING[kind])], task.pairs)


def unknown(name: str = "llama") -> LoadedModel:
    model = tiny(name)
    model.network.config.model_type = "novel"
    return model


@pytest.mark.parametrize(
    ("patch", "needs"),
    [
        (Patch("v", "1", "last(2)"), False),
        (Patch("kv", "1", "first(2)"), False),
        (Patch("v", "1", "last(2)", mode="mix(0.5)", heads="1"), False),
        (Patch("kv", "1", "last(2)"), True),
        (Patch("v", "1", "last(2)", active="every_step"), True),
        (Patch("v_proj", "1", "last(2)"), True),
        (Patch("residual", "1", "last(2)"), True),
        (Patch("kv_proj", "1", "first(2)", active="every_step(held)"), True),
    ],
    ids=str,
)
def test_an_unknown_architecture_has_patches_of_its_cache_that_move_no_key(
    patch: Patch, needs: bool
) -> None:
    task = number_task(((9, 14), (20, 8)))
    runner = Runner(unknown(), task, Sampling(4), Ledger())
    if needs:
        with pytest.raises(UsageError, match="architecture 'novel': it is not known where"):
            runner.check([patched(patch)], task.pairs)
    else:
        trials = runner.run([BASE, patched(patch)], task.pairs[:2], [0])
        assert all(trial.oracle_error < 2e-5 for trial in trials)


@pytest.mark.parametrize(
    ("name", "limit"), [("llama-dynamic", 128), ("phi3-longrope", 96)], ids=["dynamic", "longrope"]
)
def test_prompts_beyond_fixed_frequencies_are_refused(name: str, limit: int) -> None:
    """Cached keys would keep the frequencies of shorter texts, in every arm, patched or not."""
    fits, over = (number_task(((9, n), (n, 8))) for n in (limit - 8, limit - 7))
    model = tiny(name)
    for arm in (BASE, patched(Patch("v_proj", "1", "last(2)")), patched(MOVING["spliced"])):
        Runner(model, fits, Sampling(8), Ledger()).check([arm], fits.pairs)
        with pytest.raises(UsageError, match=f"beyond {limit} positions|has {limit} positions"):
            Runner(model, over, Sampling(8), Ledger()).check([arm], over.pairs)
    # What is appended counts.
    longer = patched(Patch("kv", "all", "last(2)", mode="append"))
    with pytest.raises(UsageError, match=rf"after 2 are appended|beyond {limit} positions"):
        Runner(model, fits, Sampling(8), Ledger()).check([longer], fits.pairs)


def test_a_trial_at_the_last_fixed_position_equals_the_oracle() -> None:
    task = number_task(((9, 88), (88, 8)))
    model = tiny("phi3-longrope")
    trials = Runner(model, task, Sampling(8), Ledger()).run(
        [patched(Patch("kv_proj", "1", "last(4)", active="every_step"))], task.pairs[:2], [0]
    )
    assert all(trial.oracle_error < 2e-5 for trial in trials)


def test_what_is_appended_counts_towards_the_models_positions() -> None:
    appended = patched(Patch("kv", "all", "last(8)", mode="append"))
    for base, fits in ((240, True), (241, False)):
        task = number_task(((20, base),))
        runner = Runner(tiny("llama"), task, Sampling(8), Ledger())
        runner.check([BASE], task.pairs)
        if fits:
            runner.check([appended], task.pairs)
        else:
            with pytest.raises(UsageError, match=r"249 positions after 8 .* has 256"):
                runner.check([appended], task.pairs)


def test_a_prompt_longer_than_the_model_is_refused() -> None:
    task = number_task(((250, 14), (20, 8)))
    runner = Runner(tiny("llama"), task, Sampling(8), Ledger())
    with pytest.raises(UsageError, match=r"'s0': 250 tokens and 8 new ones.*256 positions"):
        runner.check([BASE], task.pairs)


def test_stop_tokens_end_a_trial() -> None:
    model = tiny("llama")
    stopping = replace(model)
    stopping.__dict__["stop_ids"] = frozenset(range(0, 97, 3))
    found = run(stopping, tokens=12)
    ended = [t for t in found.values() if t.stopped == "stop-token"]
    assert ended
    for trial in found.values():
        stops = [i for i, token in enumerate(trial.tokens) if token % 3 == 0]
        assert stops == ([len(trial.tokens) - 1] if trial.stopped == "stop-token" else [])
    plain = run(model, tokens=12)
    for key, trial in found.items():
        assert plain[key].tokens[: len(trial.tokens)] == trial.tokens
