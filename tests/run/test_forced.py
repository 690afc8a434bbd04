"""Likelihoods: every number again from the oracle's logits, ragged continuations and all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

from kv_claims.claims.patch import Patch
from kv_claims.errors import UsageError
from kv_claims.models.load import LoadedModel
from kv_claims.patch.build import Built
from kv_claims.run import fed
from kv_claims.run.arms import BASE, FULL_SWAP, SOURCE, Arm, controls, patched, self_patch
from kv_claims.run.forced import ForcedRuns
from kv_claims.run.forced_pass import Row
from kv_claims.run.ledger import Ledger
from kv_claims.run.likelihood import Likelihood
from kv_claims.run.oracle import oracle_logits
from kv_claims.run.runner import Runner
from kv_claims.run.sampling_settings import Sampling
from tests.models.architectures import tiny
from tests.run.test_runner import number_task

TOKENS, PAIRS, SEEDS = 9, 4, 2
PATCHES = {
    "splice": Patch("kv", "1+2", "last(4)"),
    "heads": Patch("v", "1+2", "last(4)", heads="1"),
    "mix": Patch("kv", "1+2", "last(4)", mode="mix(0.4)"),
    "append": Patch("kv", "all", "last(4)", mode="append"),
    "in-prefill": Patch("kv_proj", "1", "last(4)"),
    "residual": Patch("residual", "2", "last(2)"),
    "every-step": Patch("residual", "1", "last(4)", active="every_step"),
    "every-step-keys": Patch("k", "1+2", "first(3)", active="every_step"),
    "held": Patch("kv_proj", "1", "last(2)", active="every_step(held)"),
}
ARMS: dict[str, Arm] = {
    "base": BASE,
    "source": SOURCE,
    "full-swap": FULL_SWAP,
    **{name: patched(patch) for name, patch in PATCHES.items()},
    "several": patched((Patch("kv", "3", "last(4)"), PATCHES["every-step"])),
    "self": self_patch(PATCHES["in-prefill"]),
    "self-at-every-step": self_patch(PATCHES["every-step"]),
    "unrelated": controls(PATCHES["every-step"], 4, about_layer=False)["unrelated-base"],
}
STOPS = frozenset(range(0, 97, 6))


class Measured(NamedTuple):
    """What a runner measured, and what is needed to compute it again."""

    runner: Runner
    found: dict[tuple[str, str, int], Likelihood]

    def of(self, name: str) -> list[Likelihood]:
        arm = self.runner.canonical(ARMS[name]).id
        return [one for (found, _, _), one in self.found.items() if found == arm]


def measure(model: LoadedModel, ledger: Ledger | None = None, size: int | None = None) -> Measured:
    task = number_task()
    runner = Runner(model, task, Sampling(TOKENS), Ledger() if ledger is None else ledger, size)
    some = ForcedRuns(runner).measure(ARMS.values(), task.first_pairs(PAIRS), range(SEEDS))
    return Measured(runner, {(one.arm, one.pair, one.seed): one for one in some})


@pytest.fixture(scope="module")
def stopping() -> LoadedModel:
    """A model that ends a text at one token in six, so that continuations are ragged."""
    model = replace(tiny("llama"))
    model.__dict__["stop_ids"] = STOPS
    return model


@pytest.fixture(scope="module")
def measured(stopping: LoadedModel) -> Measured:
    return measure(stopping)


@pytest.fixture(scope="module")
def free() -> dict[tuple[str, tuple[int, ...], int], tuple[int, ...]]:
    """What every prompt generates by itself where nothing stops it, by pair, prompt and seed."""
    task = number_task()
    runner = Runner(tiny("llama"), task, Sampling(TOKENS), Ledger())
    found = {}
    pairs = task.first_pairs(PAIRS)
    for arm in (SOURCE, BASE):
        for trial in runner.run([arm], pairs, range(SEEDS)):
            prompt = runner.rows.start(arm, pairs[trial.pair_index])
            found[trial.pair, prompt, trial.seed] = trial.tokens
    return found


def recomputed(
    measured: Measured,
    arm: Arm,
    pair: int,
    said: tuple[int, ...],
    generated: dict[tuple[int, ...], tuple[int, ...]],
) -> torch.Tensor:
    """Logits of a continuation by the oracle, log-softmax, `step vocab`."""
    runner, at = measured.runner, number_task().pairs[pair]
    start = runner.rows.start(SOURCE if arm == FULL_SWAP else arm, at)
    pastes = runner.rows.pastes(runner.canonical(arm), at, generated)
    return torch.log_softmax(oracle_logits(runner.model, start, said, pastes), -1)


@pytest.mark.parametrize("name", [name for name in ARMS if name != "unrelated"])
def test_every_number_is_that_of_the_oracles_logits(
    name: str,
    measured: Measured,
    free: dict[tuple[str, tuple[int, ...], int], tuple[int, ...]],
) -> None:
    """Mean log-probability of both continuations, and the divergence from the source."""
    some = measured.of(name)
    assert len(some) == PAIRS * SEEDS
    runner = measured.runner
    pairs = number_task().first_pairs(PAIRS)
    trials = {
        (t.arm, t.pair, t.seed): t.tokens for t in runner.run([SOURCE, BASE], pairs, range(SEEDS))
    }
    for one in some:
        said = {arm: trials[arm, one.pair, one.seed] for arm in ("source", "base")}
        generated = {
            prompt: tokens
            for (pair, prompt, seed), tokens in free.items()
            if (pair, seed) == (one.pair, one.seed)
        }
        for arm, value in (("source", one.of_source), ("base", one.of_base)):
            logp = recomputed(measured, ARMS[name], one.pair_index, said[arm], generated)
            wanted = logp.gather(-1, torch.tensor(said[arm])[:, None]).mean()
            assert value == pytest.approx(float(wanted), rel=1e-5, abs=1e-5)
        logp = recomputed(measured, ARMS[name], one.pair_index, said["source"], generated)
        source = recomputed(measured, SOURCE, one.pair_index, said["source"], {})
        kl = (source.exp() * (source - logp)).sum(-1).mean()
        assert one.kl == pytest.approx(float(kl), rel=1e-4, abs=1e-6)
        assert (one.source_tokens, one.base_tokens) == (len(said["source"]), len(said["base"]))
        assert one.loglik == one.of_source - one.of_base


def test_continuations_are_ragged_here(measured: Measured) -> None:
    """Else the test above would not see a row's padding."""
    lengths = {(one.source_tokens, one.base_tokens) for one in measured.of("base")}
    assert len({n for pair in lengths for n in pair}) > 3
    assert any(a < b for a, b in lengths)
    assert any(a > b for a, b in lengths)


def test_the_source_diverges_from_itself_by_nothing(measured: Measured) -> None:
    assert all(one.kl == 0.0 for one in measured.of("source"))
    assert all(one.kl < 1e-9 for one in measured.of("full-swap"))
    for own, swapped in zip(measured.of("source"), measured.of("full-swap"), strict=True):
        assert swapped.loglik == pytest.approx(own.loglik, abs=1e-6)
    assert all(one.kl > 1e-3 for one in measured.of("base"))


def test_a_self_patch_has_the_likelihoods_of_the_base(measured: Measured) -> None:
    for own, base in zip(measured.of("self"), measured.of("base"), strict=True):
        assert own.of_source == pytest.approx(base.of_source, abs=1e-6)
        assert own.kl == pytest.approx(base.kl, abs=1e-6)


@pytest.mark.parametrize("name", [*PATCHES, "several", "unrelated"])
def test_every_patch_moves_them(name: str, measured: Measured) -> None:
    """A patch that is off while tokens are fed would give the base's."""
    apart = [
        abs(one.of_source - base.of_source)
        for one, base in zip(measured.of(name), measured.of("base"), strict=True)
    ]
    assert min(apart) > 1e-4


def test_what_is_on_at_every_step_moves_more_than_the_prompt(measured: Measured) -> None:
    """The same patch in the prompt only; a live patch that misses its steps would equal it."""
    runner = measured.runner
    once = patched(replace(PATCHES["every-step"], active="prompt"))
    pairs = number_task().first_pairs(PAIRS)
    plain = ForcedRuns(runner).measure([once], pairs, range(SEEDS))
    live = {(one.pair, one.seed): one for one in measured.of("every-step")}
    long = [one for one in plain if one.source_tokens > 2]
    assert long
    assert all(abs(one.of_source - live[one.pair, one.seed].of_source) > 1e-5 for one in long)


def test_the_oracle_recomputes_the_first_pairs_of_every_arm_but_noise() -> None:
    task = number_task()
    noise = controls(PATCHES["in-prefill"], 4, about_layer=False)["noise"]
    runner = Runner(tiny("gpt_neox"), task, Sampling(4), Ledger())
    found = ForcedRuns(runner).measure([*ARMS.values(), noise], task.first_pairs(3), range(2))
    for one in found:
        checked = one.pair_index < 2 and one.seed == 0 and not one.arm.startswith("noise")
        assert (one.oracle_error is not None) is checked
        assert one.oracle_error is None or one.oracle_error < 2e-5


@pytest.mark.parametrize("size", [1, 7])
def test_they_do_not_depend_on_the_batch(
    size: int, measured: Measured, stopping: LoadedModel
) -> None:
    alone = measure(stopping, size=size)
    assert alone.found.keys() == measured.found.keys()
    for key, one in alone.found.items():
        other = measured.found[key]
        for name in ("of_source", "of_base", "kl"):
            assert getattr(one, name) == pytest.approx(getattr(other, name), abs=1e-6), key


def test_what_was_measured_is_kept_and_not_measured_again(
    tmp_path: Path,
    measured: Measured,
    stopping: LoadedModel,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first = measure(stopping, Ledger(tmp_path))
    assert first.found == measured.found

    def no_more(*_: object, **__: object) -> None:
        raise AssertionError("measured again")

    monkeypatch.setattr(type(stopping.network), "forward", no_more)
    assert measure(stopping, Ledger(tmp_path)).found == measured.found


def test_what_broke_off_goes_on_where_it_was(
    tmp_path: Path,
    measured: Measured,
    stopping: LoadedModel,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real, calls = ForcedRuns._forward, []

    def breaks(self: ForcedRuns, *args: object) -> torch.Tensor:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(self, *args)

    monkeypatch.setattr(ForcedRuns, "_forward", breaks)
    with pytest.raises(KeyboardInterrupt):
        measure(stopping, Ledger(tmp_path), size=100)
    monkeypatch.setattr(ForcedRuns, "_forward", real)
    kept = Ledger(tmp_path)
    before = len(kept.likelihoods)
    assert 0 < before < len(measured.found)
    resumed = measure(stopping, kept, size=100)
    assert len(kept.likelihoods) == len(measured.found)
    for key, one in resumed.found.items():
        assert one.of_source == pytest.approx(measured.found[key].of_source, abs=1e-6)


@pytest.mark.parametrize("rows", [1, 20])
def test_little_memory_cuts_the_batches(
    rows: int, measured: Measured, stopping: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What memory allows is kept to; a likelihood's own rows, at most four, stand together."""
    seen = counted_rows(monkeypatch)
    monkeypatch.setattr(fed, "forced_batch_size", lambda *_: rows)
    found = measure(stopping).found
    assert max(seen) <= max(rows, 4)
    assert len(seen) > 10
    for key, one in found.items():
        assert one.of_source == pytest.approx(measured.found[key].of_source, abs=1e-6)


def test_out_of_memory_halves_the_batch(
    measured: Measured, stopping: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = counted_rows(monkeypatch, most=11)
    found = measure(stopping).found
    assert max(seen) > 11 > min(seen)
    for key, one in found.items():
        assert one.of_source == pytest.approx(measured.found[key].of_source, abs=1e-6)


def test_memory_that_one_row_does_not_find_is_an_error(
    stopping: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted_rows(monkeypatch, most=0)
    with pytest.raises(torch.OutOfMemoryError):
        measure(stopping)


def counted_rows(monkeypatch: pytest.MonkeyPatch, most: int | None = None) -> list[int]:
    """Rows of every forward pass from now on; with more than `most` memory runs out."""
    real, rows = fed.forced_logits, []

    def counted(model: LoadedModel, built: Built, some: Sequence[Row]) -> torch.Tensor:
        rows.append(len(some))
        if most is not None and len(some) > most:
            raise torch.OutOfMemoryError("out of memory")
        return real(model, built, some)

    monkeypatch.setattr(fed, "forced_logits", counted)
    return rows


def test_no_likelihood_is_made_of_logits_that_are_not_finite(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = fed.forced_logits

    def overflowing(model: LoadedModel, built: Built, rows: Sequence[Row]) -> torch.Tensor:
        built.slab.values[-1].fill_(float("inf"))
        return real(model, built, rows)

    monkeypatch.setattr(fed, "forced_logits", overflowing)
    task = number_task()
    runner = Runner(tiny("llama"), task, Sampling(4), Ledger())
    with pytest.raises(UsageError, match="its logits are not finite numbers"):
        ForcedRuns(runner).measure([patched(PATCHES["splice"])], task.pairs, [0])
