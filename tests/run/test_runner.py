"""Arms to trials: sameness, sharing, resuming, refusing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from harness.errors import UsageError
from harness.models.load import LoadedModel
from harness.run import runner as runner_module
from harness.run.arms import BASE, FULL_SWAP, SOURCE, Arm, controls, patched, self_patch
from harness.run.ledger import Ledger
from harness.run.runner import Runner
from harness.run.sampling_settings import Sampling
from harness.run.trial import Trial
from harness.spec import Patch
from harness.tasks.scorers import Lexicon
from harness.tasks.task import Prompt, Task
from tests.models.architectures import prompt, tiny

PATCH = Patch("kv", layers="1+2", positions="last(6)")
NEGATIVE = controls(PATCH, 4, about_layer=False)
ARMS: list[Arm] = [BASE, SOURCE, FULL_SWAP, patched(PATCH), self_patch(PATCH), *NEGATIVE.values()]


def number_task(lengths: Sequence[tuple[int, int]] = ((9, 14), (20, 8), (11, 11), (7, 25))) -> Task:
    """Pairs of random token numbers with the given source and base lengths, three times over."""

    def made(side: str, i: int, n: int) -> Prompt:
        words = " ".join(map(str, prompt(n, seed=2 * i + (side == "s"))))
        return Prompt(f"{side}{i}", f"{side}{i}", words)

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
) -> dict[tuple[str, str, int], Trial]:
    task = number_task()
    runner = Runner(
        model, task, Sampling(tokens), Ledger() if ledger is None else ledger, batch_size
    )
    trials = runner.run(arms, task.pairs, range(2))
    return {(t.pair, t.arm, t.seed): t for t in trials}


@pytest.mark.parametrize("name", ["llama", "mistral-window", "gemma2", "gpt_neox"])
def test_tokens_do_not_depend_on_the_batch_in_float64(name: str) -> None:
    model = tiny(name)
    alone, seven, many = (run(model, batch_size=size) for size in (1, 7, 64))
    assert len(alone) == len(ARMS) * 12 * 2
    for key, trial in alone.items():
        assert trial.tokens == seven[key].tokens == many[key].tokens
        assert trial.changed == seven[key].changed == many[key].changed


def test_in_float32_tokens_part_at_near_ties_only() -> None:
    model = tiny("llama", dtype=torch.float32)
    alone, many = run(model, batch_size=1, tokens=20), run(model, batch_size=64, tokens=20)
    parted = [key for key, trial in alone.items() if trial.tokens != many[key].tokens]
    assert all(min(alone[key].margin, many[key].margin) < 1e-4 for key in parted)
    assert len(parted) <= len(alone) / 20


def test_order_and_company_of_arms_do_not_matter() -> None:
    model = tiny("llama")
    together, reverse = run(model), run(model, arms=ARMS[::-1])
    one = run(model, arms=[patched(PATCH)])
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


def test_a_run_that_breaks_off_goes_on_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny("llama")
    whole = run(model, batch_size=16)
    real, calls = runner_module.decode, []

    def breaks(*args: object, **options: object) -> object:
        calls.append(1)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return real(*args, **options)

    monkeypatch.setattr(runner_module, "decode", breaks)
    with pytest.raises(KeyboardInterrupt):
        run(model, batch_size=16, ledger=Ledger(tmp_path))
    monkeypatch.setattr(runner_module, "decode", real)
    kept = Ledger(tmp_path)
    assert 0 < len(kept) < len(whole)
    resumed = run(model, batch_size=16, ledger=kept)
    assert {k: t.tokens for k, t in resumed.items()} == {k: t.tokens for k, t in whole.items()}


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
        model.network.model.layers[2].mlp.up_proj.weight[0, 0] = float("nan")
    with pytest.raises(UsageError, match="its logits are not finite numbers"):
        run(model)


def test_a_pair_in_which_keys_move_is_among_those_recomputed() -> None:
    task = number_task(((9, 9), (11, 11), (12, 12), (20, 8)))
    runner = Runner(tiny("llama"), task, Sampling(4), Ledger())
    trials = runner.run([patched(PATCH)], task.pairs, [0])
    shifts = [t.oracle_shift for t in trials if t.oracle_error is not None]
    assert shifts == [0, 0, -12]


def test_out_of_memory_halves_the_batch_and_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    real, sizes = runner_module.decode, []

    def small_memory(model: object, slab: object, first: list[int], *args: object, **kw: object):
        sizes.append(len(first))
        if len(first) > 10:
            raise torch.OutOfMemoryError("out of memory")
        return real(model, slab, first, *args, **kw)

    model = tiny("llama")
    whole = run(model)
    monkeypatch.setattr(runner_module, "decode", small_memory)
    found = run(model, batch_size=64)
    assert max(sizes) > 10
    assert {k: t.tokens for k, t in found.items()} == {k: t.tokens for k, t in whole.items()}


@pytest.mark.parametrize(
    ("patch", "message"),
    [
        (Patch("kv", "7", "last(2)"), "out of range, expected layers 0 to 3"),
        (Patch("kv", "1", "last(8)"), r"need 8 cached positions, but in pair 1 .*'s1'.*'b1'"),
        (Patch("kv", "8/32+9/32", "last(2)"), "meet in layer 1"),
    ],
    ids=["layer", "window", "meet"],
)
def test_a_patch_that_does_not_fit_is_refused_before_the_model_runs(
    patch: Patch, message: str, monkeypatch: pytest.MonkeyPatch
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


def test_moving_keys_of_an_unknown_architecture_is_refused() -> None:
    task = number_task(((9, 14), (20, 8)))
    runner = Runner(tiny("gpt2"), task, Sampling(4), Ledger())
    with pytest.raises(UsageError, match="architecture 'gpt2'"):
        runner.run([patched(Patch("kv", "1", "last(2)"))], task.pairs, [0])
    # Values carry no rotation, and equal lengths move nothing: both are fine.
    runner.run([patched(Patch("v", "1", "first(2)"))], task.pairs, [0])


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
