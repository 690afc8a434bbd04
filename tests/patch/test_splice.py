"""The splice against an oracle that shares none of its code, on every architecture in the table."""

from __future__ import annotations

import pytest
import torch

from harness.errors import UsageError
from harness.models.load import LoadedModel
from harness.models.rotary import rotation_of
from harness.patch.splice import RowPlan, Slab, Write, build_slab
from harness.patch.store import PromptStore
from harness.run.decode import decode
from harness.run.oracle import Paste, oracle_logits, relative_error
from harness.run.sampling import uniforms
from harness.run.sampling_settings import Sampling
from harness.spec import Site, Window, resolve_window
from tests.models.architectures import CONFIGS, prompt, tiny

SAMPLING = Sampling(max_new_tokens=6)
# transformers computes RoPE angles and RMSNorm in float32, whatever the dtype.
TOLERANCE = 2e-5


def filled(model: LoadedModel, *prompts: list[int]) -> PromptStore:
    store = PromptStore(model)
    store.add(prompts)
    return store


def logits_of(
    model: LoadedModel, store: PromptStore, plans: list[RowPlan], first: list[int]
) -> tuple[list[list[int]], dict[int, torch.Tensor], Slab]:
    """Decode rows; tokens, logits of every row, and the slab."""
    slab, _ = build_slab(store, plans, rotation_of(model.network), room=6)
    uniform = torch.stack([uniforms(f"row {i}", 0, 6) for i in range(len(plans))])
    decoded = decode(model, slab, first, uniform, SAMPLING, keep=range(len(plans)))
    return decoded.tokens, decoded.logits, slab


@pytest.mark.parametrize("name", CONFIGS)
def test_unpatched_rows_of_unequal_length_equal_a_forward_pass_without_cache(name: str) -> None:
    model = tiny(name)
    prompts = [prompt(n, seed=n) for n in (5, 12, 23, 40)]
    store = filled(model, *prompts)
    plans = [RowPlan(store.index(p), len(p), None) for p in prompts]
    tokens, logits, _ = logits_of(model, store, plans, [p[-1] for p in prompts])
    for row, own in enumerate(prompts):
        wanted = oracle_logits(model, own, tokens[row])
        assert relative_error(logits[row], wanted) < TOLERANCE


@pytest.mark.parametrize("positions", ["last(4)", "first(4)", "first(25%)", "all"])
@pytest.mark.parametrize("site", ["kv", "k", "v"])
@pytest.mark.parametrize("name", CONFIGS)
def test_patched_rows_equal_a_donor_computed_at_the_new_positions(
    name: str, site: Site, positions: str
) -> None:
    """Sources longer and shorter than the base; the oracle never rotates a key."""
    model = tiny(name)
    base, longer, shorter = prompt(17, 1), prompt(29, 2), prompt(9, 3)
    store = filled(model, base, longer, shorter)
    plans, pastes = [], []
    for donor in (longer, shorter):
        window = resolve_window(positions, len(donor), len(base))
        write = Write(store.index(donor), site, (1, 3), window)
        plans.append(RowPlan(store.index(base), len(base), write))
        pastes.append(Paste(donor, site, (1, 3), window))
    tokens, logits, _ = logits_of(model, store, plans, [base[-1]] * 2)
    for row, paste in enumerate(pastes):
        wanted = oracle_logits(model, base, tokens[row], paste)
        assert relative_error(logits[row], wanted) < TOLERANCE
        # The patch matters, so the comparison can fail; but for a window of 8 that slid past it.
        without = oracle_logits(model, base, tokens[row])
        out_of_sight = name == "mistral-window" and positions.startswith("first")
        assert (relative_error(logits[row], without) > 10 * TOLERANCE) != out_of_sight


@pytest.mark.parametrize("name", CONFIGS)
def test_keys_that_are_not_rotated_do_not_pass_the_oracle(name: str) -> None:
    model = tiny(name)
    base, donor = prompt(17, 1), prompt(29, 2)
    store = filled(model, base, donor)
    window = resolve_window("last(8)", len(donor), len(base))
    plan = RowPlan(store.index(base), len(base), Write(store.index(donor), "k", (1,), window))
    slab, _ = build_slab(store, [plan], None, room=6)
    decoded = decode(model, slab, [base[-1]], uniforms("x", 0, 6)[None], SAMPLING, keep=[0])
    wanted = oracle_logits(model, base, decoded.tokens[0], Paste(donor, "k", (1,), window))
    assert relative_error(decoded.logits[0], wanted) > 10 * TOLERANCE


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("other", [9, 33], ids=["shorter", "longer"])
def test_the_whole_cache_of_the_source_is_the_source_to_the_bit(name: str, other: int) -> None:
    model = tiny(name)
    base, source = prompt(20, 1), prompt(other, 2)
    store = filled(model, base, source)
    everything = Window(range(len(source) - 1), range(len(source) - 1))
    write = Write(store.index(source), "kv", (0, 1, 2, 3), everything)
    plans = [
        RowPlan(store.index(base), len(source), write),
        RowPlan(store.index(source), len(source), None),
    ]
    slab, _ = build_slab(store, plans, rotation_of(model.network), room=0)
    end = slab.slots
    start = end - (len(source) - 1)
    for tensor in [*slab.keys, *slab.values]:
        assert torch.equal(tensor[0, :, start:end], tensor[1, :, start:end])


def test_footprint_counts_what_was_written_and_what_changed() -> None:
    model = tiny("llama")
    base, donor = prompt(12, 1), prompt(12, 2)
    store = filled(model, base, donor)
    window = resolve_window("last(3)", 12, 12)
    write = Write(store.index(donor), "kv", (0, 2), window)
    plans = [
        RowPlan(store.index(base), 12, write),
        RowPlan(store.index(base), 12, write._replace(donor=store.index(base))),
        RowPlan(store.index(base), 12, None),
    ]
    _, (patched, own, none) = build_slab(store, plans, rotation_of(model.network), room=0)
    # 2 layers x (K, V); 2 heads x 3 positions x 8 components in each tensor.
    assert (patched.fired, patched.elements) == (4, 4 * 2 * 3 * 8)
    assert patched.changed == patched.elements
    assert patched.least_changed == 48
    assert (own.fired, own.elements, own.changed, own.least_changed) == (4, 192, 0, 0)
    assert none.fired == none.elements == none.changed == 0


def test_noise_keeps_norms_and_differs_from_the_source() -> None:
    model = tiny("llama")
    base, donor = prompt(12, 1), prompt(15, 2)
    store = filled(model, base, donor)
    window = resolve_window("last(6)", 15, 12)
    source = Write(store.index(donor), "kv", (1,), window)
    noise = source._replace(noise="draw", instead_of=(store.index(donor), window))
    plans = [RowPlan(store.index(base), 12, write) for write in (source, noise)]
    slab, footprints = build_slab(store, plans, rotation_of(model.network), room=0)
    for tensor in (slab.keys[1], slab.values[1]):
        norms = tensor[:, :, slab.slots - 6 :].norm(dim=-1)
        torch.testing.assert_close(norms[0], norms[1])
    assert footprints[1].differs == footprints[1].elements
    again, _ = build_slab(store, plans, rotation_of(model.network), room=0)
    assert torch.equal(again.keys[1], slab.keys[1])


def test_the_store_is_never_written_to() -> None:
    model = tiny("llama")
    base, donor = prompt(12, 1), prompt(15, 2)
    store = filled(model, base, donor)
    before = [tensor.clone() for tensor in [*store.keys, *store.values]]
    window = resolve_window("last(6)", 15, 12)
    plan = RowPlan(store.index(base), 12, Write(store.index(donor), "kv", (1,), window))
    logits_of(model, store, [plan], [base[-1]])
    assert store.unchanged()
    assert all(
        torch.equal(old, new) for old, new in zip(before, [*store.keys, *store.values], strict=True)
    )


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
    with pytest.raises((UsageError, TypeError, AttributeError)):
        filled(model, prompt(9, 1))
