"""Architectures out of the table: each works as the oracle says, or is refused in one sentence."""

from __future__ import annotations

import inspect
from dataclasses import replace

import pytest
import torch
from transformers import AutoConfig

from kv_claims.claims.claim import Claim, Region
from kv_claims.claims.patch import Patch
from kv_claims.errors import UsageError
from kv_claims.models.load import LoadedModel
from kv_claims.run import fits
from kv_claims.run.arms import Arm, controls, patched, self_patch
from kv_claims.run.ledger import Ledger
from kv_claims.run.runner import Runner
from kv_claims.run.sampling_settings import Sampling
from kv_claims.study.cell import Cell
from kv_claims.study.study import ModelStudy
from tests.models.architectures import OTHERS, REFUSED, tiny
from tests.run.test_runner import number_task

TOLERANCE = 2e-5
EQUAL = ((11, 11), (18, 18), (9, 9), (14, 14))
LATENT = "deepseek_v3"
KV = Patch("kv", "1+2", "last(6)")


def runner_of(name: str, lengths: tuple[tuple[int, int], ...] = EQUAL) -> Runner:
    return Runner(tiny(name), number_task(lengths), Sampling(5), Ledger())


def keeps_latents(model: LoadedModel) -> bool:
    """Releases of transformers before 5.24 cache what DeepSeek's latents are expanded to."""
    return model.config.model_type == LATENT and model.kept[0].heads == 1


@pytest.mark.parametrize("name", OTHERS)
def test_it_is_spliced_as_the_oracle_splices_it(name: str) -> None:
    runner = runner_of(name)
    model = runner.model
    heads = "0" if model.n_kv_heads > 1 else "all"
    arms: list[Arm] = [
        patched(KV),
        patched(Patch("kv", "0", "first(5)", heads=heads)),
        patched(Patch("kv", "3", "last(4)", mode="mix(0.4)")),
        self_patch(KV),
        *controls(KV, 4, about_layer=True).values(),
    ]
    if not keeps_latents(model):
        arms += [patched(Patch("k", "1", "last(4)")), patched(Patch("v", "2", "first(4)"))]
    trials = runner.run(arms, runner.task.pairs[:4], [0])
    checked = [trial for trial in trials if trial.oracle_error is not None]
    assert len(checked) == 2 * (len(arms) - 1)  # noise has no oracle
    for trial in trials:
        assert trial.fired == trial.planned > 0
        assert trial.elements == trial.planned_elements > 0
        is_self = trial.arm.startswith("base>")
        assert (trial.changed == 0) is is_self
        assert trial.least_changed is None if is_self else trial.least_changed
    for trial in checked:
        assert trial.oracle_error < TOLERANCE, trial.arm
        assert (trial.oracle_keys_error or 0.0) < TOLERANCE, trial.arm


@pytest.mark.parametrize("name", OTHERS)
def test_a_study_of_it_passes_its_checks(name: str) -> None:
    claim = Claim("c", says="s", cites="c", transfer=Region(0.7, 0.9))
    runner = runner_of(name)
    evidence = ModelStudy(runner, 12, n_seeds=1).judge(Cell.of(claim, "cell", (KV,)))[0]
    statistical = {"no-ceiling", "degenerate"}
    wrong = {c["name"] for c in evidence.checks if c["passed"] is False} - statistical
    assert wrong == set()


def test_heads_are_those_of_the_cache() -> None:
    heads = {name: tiny(name).n_kv_heads for name in ("falcon-one-head", "falcon-new", "llama")}
    assert heads == {"falcon-one-head": 1, "falcon-new": 4, "llama": 2}
    config = AutoConfig.for_model("falcon", num_attention_heads=4)
    assert config.num_attention_heads == 4  # which is what was believed
    runner = runner_of("falcon-one-head")
    with pytest.raises(UsageError, match=r"heads '1'.*expected KV heads 0 to 0"):
        runner.check([patched(Patch("kv", "1", "last(4)", heads="1"))], runner.task.pairs)


def test_keys_and_values_may_be_of_unlike_width() -> None:
    model = tiny(LATENT)
    assert {kept.key != kept.value for kept in model.kept} == {True}


@pytest.mark.parametrize("name", OTHERS)
def test_keys_that_move_are_refused_with_what_is_not_known(name: str) -> None:
    runner = runner_of(name, ((9, 14),))
    with pytest.raises(
        UsageError, match=r"keys of a prompt of 9 tokens move.*it is not known where"
    ):
        runner.check([patched(KV)], runner.task.pairs)
    runner.check([patched(Patch("kv", "1", "first(4)"))], runner.task.pairs)


def test_a_latent_is_pasted_whole_or_not_at_all() -> None:
    runner = runner_of(LATENT)
    if not keeps_latents(runner.model):
        pytest.skip("this release of transformers caches keys and values")
    for site in ("k", "v"):
        with pytest.raises(UsageError, match="caches a latent of keys and values together"):
            runner.check([patched(Patch(site, "1", "last(4)"))], runner.task.pairs)
    claim = Claim("c", says="s", cites="c", outcome="pr@3", transfer=Region(0.7, 0.9))
    lengths = ((18, 18), (20, 20))
    study = ModelStudy(runner_of(LATENT, lengths), 6, n_seeds=1)
    with pytest.raises(UsageError, match="the geometry of values cannot be read on tiny:deepseek"):
        study.judge(Cell.of(claim, "cell", (Patch("kv", "1", "last(4)"),)))
    trials = study.runner.run([patched(KV)], study.pairs, [0])
    assert {ratios for trial in trials for ratios in trial.geometry.values()} == {None}


@pytest.mark.parametrize("name", REFUSED)
def test_it_is_refused_in_one_sentence(name: str) -> None:
    _, _, begins = REFUSED[name]
    with pytest.raises(UsageError) as raised:
        runner_of(name)
    said = str(raised.value)
    assert f"architecture {begins}" in said
    assert "\n" not in said
    assert len(said) < 400


def test_the_table_is_taken_at_its_word(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is tested on tiny models is not tried again before every run."""
    monkeypatch.setattr(fits, "_largest_error", lambda _: pytest.fail("tried out"))
    runner_of("llama")


def test_positions_that_are_not_taken_are_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """An architecture that counts positions by columns, padding included, is refused."""
    model = tiny("olmo2")
    real = type(model.network).forward

    def deaf(self: torch.nn.Module, *args: object, **given: object) -> object:
        return real(self, *args, **{**given, "position_ids": None})

    deaf.__signature__ = inspect.signature(real)  # type: ignore[attr-defined]
    monkeypatch.setattr(type(model.network), "forward", deaf)
    with pytest.raises(UsageError, match="do not have the logits of a forward pass"):
        fits.check_fits(replace(model))
