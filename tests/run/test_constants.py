"""What stands in the place of a donor's prompt: means, directions, and those by chance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kv_claims.claims.patch import Patch
from kv_claims.claims.sites import PARTS, Tensor
from kv_claims.errors import UsageError
from kv_claims.models.load import LoadedModel
from kv_claims.run import means
from kv_claims.run.arms import BASE, Arm, controls, patched, self_patch
from kv_claims.run.constants import turned_by_chance
from kv_claims.run.ledger import Ledger
from kv_claims.run.means import Means
from kv_claims.run.oracle_means import PlainMeans
from kv_claims.run.runner import Runner
from kv_claims.run.sampling_settings import Sampling
from kv_claims.tasks.directions import Direction, MeanDifference
from kv_claims.tasks.task import Prompt, Task
from tests.models.architectures import ROTARY, prompt, tiny
from tests.run.test_runner import number_task

PROMPTS = [prompt(n, seed) for n, seed in ((9, 1), (14, 2), (5, 3), (9, 4))]
WIDE = np.random.default_rng(0).normal(size=(4, 32))
STEER = Patch("residual", "1", "all", mode="add(2)", donor="vector(d)")


@pytest.mark.parametrize("name", [*ROTARY, "gpt2"])
def test_means_are_those_of_prompts_one_by_one(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In batches, from a cache whose keys are turned back; and from keys that never were turned."""
    model = tiny(name)
    monkeypatch.setattr(means, "PREFILL_TOKENS", 20)
    found, plain = Means(model, lambda: PROMPTS), PlainMeans(model, lambda: PROMPTS)
    tensors: list[Tensor] = [t for t in PARTS if (name, t) != ("gpt2", "k")]
    if model.network.config.model_type == "gpt_neox":
        tensors.remove("resid_mid")
    for tensor in tensors:
        layers = [0] if tensor == "embed" else range(4)
        found.prepare([(layer, tensor) for layer in layers])
        for layer in layers:
            one, other = found.of(layer, tensor), plain.of(layer, tensor)
            torch.testing.assert_close(one, other, rtol=2e-5, atol=2e-6)
            assert float(one.abs().max()) > 1e-4


def task_with(array: np.ndarray = WIDE, bases: int = 12) -> Task:
    task = number_task()
    return replace(
        task,
        sources=task.sources[:bases],
        bases=task.bases[:bases],
        directions=(Direction("d", {"": array}),),
    )


def runner(task: Task, model: LoadedModel | None = None) -> Runner:
    return Runner(model or tiny("llama"), task, Sampling(4), Ledger())


def key(arm: Arm, task: Task) -> str:
    return runner(task).key(task.pairs[0], arm, 0)


def test_a_trials_key_hangs_on_what_it_rests_on_and_on_nothing_else() -> None:
    """On the numbers of its direction, or on the prompts that are averaged."""
    own, doubled = task_with(), task_with(2 * WIDE)
    mean, source = Patch("z", "1", "all", donor="mean"), Patch("z", "1", "all")
    chance = controls(STEER, 4, about_layer=False)["random-direction"]
    for arm in (patched(STEER), chance):
        assert key(arm, own) != key(arm, doubled)
    for arm in (BASE, patched(source), patched(mean), self_patch(STEER)):
        assert key(arm, own) == key(arm, doubled) == key(arm, replace(own, directions=()))
    assert key(patched(mean), own) != key(patched(mean), task_with(bases=11))
    said = [replace(mean, donor=donor) for donor in ("source", "zero", "mean", "resample")]
    assert len({key(patched(patch), own) for patch in said}) == 4
    assert self_patch(mean) == self_patch(source)


def test_ids_of_arms_from_the_source_are_as_they_were() -> None:
    """Ledgers and pins have them."""
    patch = Patch("kv", "1+2", "last(6)", mode="mix(0.5)")
    arms = controls(patch, 4, about_layer=False)
    assert patched(patch).id == "source>kv@1+2/last(6)/mix(0.5)"
    assert arms["noise"].id == "noise>kv@1+2/last(6)/mix(0.5)"
    assert list(arms) == ["unrelated-base", "noise"]


def test_an_arm_takes_no_other_donor_than_its_patches_name() -> None:
    for donor, patch in (
        ("source", Patch("z", "1", "all", donor="mean")),
        ("noise", Patch("z", "1", "all", donor="zero")),
        ("random(e)", STEER),
        ("mean", Patch("z", "1", "all")),
    ):
        with pytest.raises(UsageError, match="its patches are of donor"):
            Arm("base", donor, (patch,))


@pytest.mark.parametrize(
    ("array", "patch", "message"),
    [
        (WIDE[:, :31], STEER, r"needs \[32\], \[4, 32\]"),
        (WIDE[:3], STEER, r"shape \[3, 1, 32\] \(layer, head, d\)"),
        (WIDE, replace(STEER, site="z"), r"'z' on .* needs \[8\], \[4, 8\] or \[4, 4, 8\]"),
        (WIDE[:, None, :8].repeat(3, 1), replace(STEER, site="v"), r"\[4, 8\] or \[4, 2, 8\]"),
        (WIDE * [[1], [0], [1], [1]], STEER, "is 0 in layer 1; expected a direction there"),
        (WIDE[0, :8], replace(STEER, site="kv"), "expected a safetensors file with arrays named"),
        (WIDE, replace(STEER, donor="vector(e)"), "names no such direction; it names d"),
    ],
)
def test_a_direction_that_does_not_fit_is_refused_before_a_model_runs(
    array: np.ndarray, patch: Patch, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    of = runner(task_with(array))
    monkeypatch.setattr(of.model.network, "forward", None)
    arms: Sequence[Arm] = [patched(patch), *controls(patch, 4, about_layer=False).values()]
    for arm in arms:
        with pytest.raises(UsageError, match=message):
            of.check([arm], of.task.pairs)


def test_keys_that_cannot_be_turned_take_no_mean() -> None:
    of = runner(task_with(), tiny("gpt2"))
    for donor in ("zero", "resample"):
        of.check([patched(Patch("k", "1", "first(3)", donor=donor))], of.task.pairs)
    with pytest.raises(UsageError, match="here site 'v', or donor 'zero' or 'resample' would do"):
        of.check([patched(Patch("k", "1", "first(3)", donor="mean"))], of.task.pairs)


def text(n: int, seed: int) -> str:
    return " ".join(map(str, prompt(n, seed)))


TOWARD, AWAY = (text(7, 901), text(12, 902)), (text(5, 903), text(9, 904), text(7, 905))


@pytest.mark.parametrize("at", ["last", "all"])
@pytest.mark.parametrize("name", ["llama-yarn", "gemma3"])
def test_a_difference_of_means_is_the_oracles(name: str, at: Any) -> None:
    task = replace(number_task(), directions=(MeanDifference("m", TOWARD, AWAY, at),))
    on: dict[str, Any] = {"donor": "vector(m)", "active": "every_step"}
    patches = [
        Patch("kv", "1+3", "last(5)", mode="add(1.5)", **on),
        Patch("residual", "2", "all", mode="project_out", **on),
        Patch("z", "0", "all", heads="2", **on),
        Patch("embed", "0", "last(2)", mode="add(-1)", **on),
    ]
    arms = [patched(patch) for patch in patches]
    arms += [controls(patch, 4, about_layer=False)["random-direction"] for patch in patches]
    trials = runner(task, tiny(name)).run(arms, task.first_pairs(2), [0])
    assert len(trials) == 16
    for trial in trials:
        assert trial.oracle_error is not None
        assert trial.oracle_error < 2e-5, trial.arm
        assert trial.elements == trial.planned_elements > 0
        assert (trial.differs is None) is trial.arm.startswith("vector")
        assert trial.differs != 0


def test_a_direction_is_found_on_texts_that_are_not_judged() -> None:
    """By the text, by what is seen of it, and by the tokens that a model reads."""
    task = number_task()
    for one in (task.bases[1].text, f" {task.sources[2].text}\u200b "):
        with pytest.raises(UsageError, match=r"is found on the text of prompt '(b1|s2)'"):
            replace(task, directions=(MeanDifference("m", (one,), AWAY),))
    # To the model's tokenizer leading zeros are nothing.
    other = " ".join(f"0{word}" for word in task.bases[1].text.split())
    found = replace(task, directions=(MeanDifference("m", (other,), AWAY),))
    of = runner(found)
    arm = patched(replace(STEER, donor="vector(m)"))
    if of.rows.tokens(Prompt("x", "x", other)) == of.rows.tokens(task.bases[1]):
        with pytest.raises(UsageError, match="a text of it is the same tokens as prompt 'b1'"):
            of.check([arm], task.pairs)
    else:
        pytest.fail("this tokenizer tells them apart: expected another pair of texts")


def test_two_sides_with_one_mean_are_no_direction() -> None:
    task = replace(number_task(), directions=(MeanDifference("m", ("1 2 3",), ("4 5 3",)),))
    of = runner(task)
    arm = patched(replace(STEER, site="embed", layers="0", donor="vector(m)"))
    with pytest.raises(UsageError, match="both sides have the same mean of 'embed' in layer 0"):
        of.run([arm], task.first_pairs(1), [0])


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 6), st.integers(1, 3), st.integers(2, 9), st.integers(0, 99))
def test_what_is_turned_by_chance_keeps_lengths_and_angles(
    layers: int, heads: int, width: int, seed: int
) -> None:
    vectors = np.random.default_rng(seed).normal(size=(layers, heads, width))
    vectors[0, 0] *= 1e3
    turned = turned_by_chance(vectors, f"stream {seed}")
    for head in range(heads):
        one, other = vectors[:, head], turned[:, head]
        np.testing.assert_allclose(other @ other.T, one @ one.T, rtol=1e-8, atol=1e-8)
    assert not np.allclose(turned, vectors)
    np.testing.assert_array_equal(turned, turned_by_chance(vectors, f"stream {seed}"))
    assert not np.allclose(turned, turned_by_chance(vectors, "another stream"))


def test_the_turn_is_uniform() -> None:
    """No component is favored, nor its sign: to five standard errors of 4000 draws."""
    vectors = np.array([[[3.0, 0.0, 0.0, 4.0]]])
    found = np.array([turned_by_chance(vectors, str(i))[0, 0] for i in range(4000)])
    assert np.abs(found.mean(0)).max() < 5 * 2.5 / 4000**0.5
    np.testing.assert_allclose(np.square(found).mean(0), 25 / 4, rtol=0.1)
