"""The store is bounded: what it forgets, what it keeps, and that nothing else changes by it."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import OpenAIGPTConfig, OpenAIGPTLMHeadModel

from kv_claims.claims.patch import Patch
from kv_claims.errors import UsageError
from kv_claims.models.load import LoadedModel
from kv_claims.patch.store import PromptStore, bytes_a_position
from kv_claims.run.arms import BASE, FULL_SWAP, SOURCE, Arm, controls, patched, self_patch
from kv_claims.run.forced import ForcedRuns
from kv_claims.run.ledger import Ledger
from kv_claims.run.runner import Runner
from kv_claims.run.sampling_settings import Sampling
from kv_claims.run.self_patches import SelfPatches
from tests.models.architectures import prompt, tiny
from tests.patch.test_splice import filled
from tests.run.test_runner import number_task

PROMPTS = [tuple(range(n, n + tokens)) for n, tokens in enumerate((9, 12, 7, 12, 10))]


def room_for(model: LoadedModel, prompts: int, tokens: int = 12) -> int:
    return prompts * (tokens - 1) * bytes_a_position(model)


@pytest.mark.parametrize("name", ["llama", "gpt2", "gemma2", "gpt_neox"])
def test_bytes_of_a_position_are_those_of_the_cache(name: str) -> None:
    model = tiny(name)
    store = PromptStore(model)
    store.add([PROMPTS[1]])
    held = sum(tensor.nbytes for tensor in [*store.keys, *store.values])
    assert held == 11 * bytes_a_position(model)


def test_a_stream_that_leaves_its_dtype_is_refused_by_layer_before_a_word_is_decoded() -> None:
    """As Gemma's does in float16: bfloat16, whose numbers go on, is as sound as ever."""
    for dtype in (torch.float16, torch.bfloat16):
        model = tiny("llama", dtype=dtype)
        with torch.no_grad():
            model.network.model.layers[1].mlp.down_proj.weight.fill_(3e4)
        store = PromptStore(model)
        if dtype == torch.bfloat16:
            store.add(PROMPTS)
            continue
        with pytest.raises(UsageError) as told:
            store.add(PROMPTS)
        assert "in float16: a prompt's keys and values in layer 2 are not finite" in str(told.value)
        assert "float16 ends at 6.55e+04" in str(told.value)
        assert not store.tokens


def test_what_does_not_fit_beside_the_wanted_is_forgotten() -> None:
    model = tiny("llama")
    store = PromptStore(model, room_for(model, 3))
    store.add(PROMPTS[:3])
    assert store.tokens == [list(PROMPTS[i]) for i in (2, 0, 1)]
    store.add([PROMPTS[0], PROMPTS[4]])
    assert store.tokens == [list(PROMPTS[i]) for i in (0, 4)]
    with pytest.raises(KeyError):
        store.index(PROMPTS[1])
    assert store.keys[0].shape[2] == store.slots == 9
    fresh = PromptStore(model)
    fresh.add([PROMPTS[0], PROMPTS[4]])
    for one, other in zip([*store.keys, *store.values], [*fresh.keys, *fresh.values], strict=True):
        torch.testing.assert_close(one, other)


def test_what_fits_stays() -> None:
    model = tiny("llama")
    store = PromptStore(model, room_for(model, 5))
    for one in PROMPTS:
        store.add([one])
    assert len(store.tokens) == 5


def test_a_single_request_may_ask_for_more_than_fits() -> None:
    model = tiny("llama")
    store = PromptStore(model, 1)
    store.add(PROMPTS)
    assert len(store.tokens) == 5


def test_a_write_is_remembered_when_what_was_written_to_is_gone() -> None:
    model = tiny("llama")
    for most, more in ((None, PROMPTS[3]), (1, PROMPTS[3])):
        store = PromptStore(model, most)
        store.add(PROMPTS[:2])
        store.keys[1][0, :, -1:] += 1
        store.add([more])
        assert not store.unchanged()


def test_after_a_failure_it_is_empty_and_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny("llama")
    store = PromptStore(model)
    store.add(PROMPTS[:2])
    cat, calls = torch.cat, 0

    def fails_at_the_third(*args: object) -> torch.Tensor:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise RuntimeError("can't allocate memory")
        return cat(*args)

    caches = store._prefill([PROMPTS[2]])
    with monkeypatch.context() as patch:
        patch.setattr(store, "_prefill", lambda _: caches)
        patch.setattr("kv_claims.patch.store.torch.cat", fails_at_the_third)
        with pytest.raises(RuntimeError, match="allocate"):
            store.add([PROMPTS[2]])
    assert (store.tokens, store.keys, store.values) == ([], [], [])
    assert store.unchanged()
    store.add(PROMPTS)
    assert len(store.tokens) == 5


def test_a_write_into_the_store_is_seen() -> None:
    model = tiny("llama")
    store = filled(model, prompt(12, 1))
    store.values[2][0, :, -1:] += 1
    assert not store.unchanged()


def test_prompts_added_later_leave_the_earlier_ones_as_they_were() -> None:
    model = tiny("llama")
    early = prompt(9, 1)
    store = filled(model, early)
    before = store.keys[3][store.index(early), :, -8:].clone()
    store.add([prompt(30, 2), early])
    assert store.slots == 29
    torch.testing.assert_close(store.keys[3][store.index(early), :, -8:], before)
    assert not store.keys[3][store.index(early), :, :-8].any()


def test_a_prompt_of_one_token_is_refused() -> None:
    with pytest.raises(UsageError, match="1 tokens: expected at least 2"):
        filled(tiny("llama"), [5])


def test_a_model_without_keys_and_values_is_refused() -> None:
    model = tiny("mamba")
    with pytest.raises(UsageError, match=r"layer 0 keeps .*, expected plain keys and values"):
        filled(model, prompt(9, 1))


@given(
    lengths=st.lists(st.lists(st.integers(2, 20), min_size=1, max_size=3), max_size=12),
    most=st.integers(1, 60),
)
def test_groups_hold_everything_in_order_and_fit(lengths: list[list[int]], most: int) -> None:
    model = tiny("llama")
    store = PromptStore(model, most * bytes_a_position(model))
    things = [[tuple(range(n))[-n:] for n in some] for some in lengths]
    groups = list(store.groups(things))
    assert [i for group in groups for i in group] == list(range(len(things)))
    for group in groups:
        held = {prompt for i in group for prompt in things[i]}
        slots = max(map(len, held)) - 1
        assert len(group) == 1 or len(held) * slots <= most
    for one, next_one in pairwise(groups):
        both = {prompt for i in [*one, next_one.start] for prompt in things[i]}
        assert len(both) * (max(map(len, both)) - 1) > most


PATCHES = [
    Patch("kv", "1+2", "last(4)"),
    Patch("v_proj", "1", "last(4)"),
    Patch("residual", "1", "last(4)", active="every_step"),
]
ARMS: list[Arm] = [
    BASE,
    SOURCE,
    FULL_SWAP,
    *map(patched, PATCHES),
    self_patch(PATCHES[0]),
    controls(PATCHES[0], 4, about_layer=False)["unrelated-base"],
]


def test_a_study_on_a_small_store_is_the_same_study() -> None:
    task = number_task(((9, 14), (20, 8), (11, 11), (7, 25), (9, 8)))
    whole, small = (Runner(tiny("llama"), task, Sampling(6), Ledger()) for _ in range(2))
    added = []
    small.store = PromptStore(small.model, room_for(small.model, 5, tokens=26))
    take = small.store._take
    small.store._take = lambda new: (added.append(len(new)), take(new))[1]  # type: ignore[method-assign]
    one, other = (runner.run(ARMS, task.pairs, range(2)) for runner in (whole, small))
    assert len(added) > 2
    assert len(small.store.tokens) <= 5 < len(whole.store.tokens)
    assert [(t.pair, t.arm, t.seed, t.tokens, t.differs) for t in one] == [
        (t.pair, t.arm, t.seed, t.tokens, t.differs) for t in other
    ]
    writes = [SelfPatches(runner).of(ARMS[3:5], task.pairs) for runner in (whole, small)]
    assert writes[0] == writes[1]
    some = [ARMS[1], ARMS[3]]
    told = [ForcedRuns(runner).measure(some, task.pairs, range(2)) for runner in (whole, small)]
    for mine, theirs in zip(*told, strict=True):
        assert (mine.pair, mine.arm, mine.seed) == (theirs.pair, theirs.arm, theirs.seed)
        assert mine.of_source == pytest.approx(theirs.of_source, abs=1e-6)
    assert small.store.unchanged()


def test_an_architecture_without_a_cache_is_said_to_have_none() -> None:
    """It was told that a plain layer was found where a plain layer was expected."""
    config = OpenAIGPTConfig(vocab_size=40, n_positions=64, n_embd=16, n_layer=2, n_head=2)
    model = replace(tiny("llama"), network=OpenAIGPTLMHeadModel(config).eval())
    with pytest.raises(UsageError, match="0 layers keep keys and values, of 2"):
        PromptStore(model).add([[1, 2, 3, 4]])
