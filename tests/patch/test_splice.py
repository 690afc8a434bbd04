"""The splice against an oracle that shares none of its code, on every architecture in the table."""

from __future__ import annotations

from typing import NamedTuple

import pytest
import torch

from kv_claims.claims.positions import Window, resolve_window
from kv_claims.claims.sites import Site
from kv_claims.models.load import LoadedModel
from kv_claims.models.rotary import Rotation, rotation_of
from kv_claims.patch.build import Built, build
from kv_claims.patch.plan import RowPlan, Write
from kv_claims.patch.slab import Slab
from kv_claims.patch.store import PromptStore
from kv_claims.run.decode import decode
from kv_claims.run.oracle import Paste, oracle_logits, relative_error
from kv_claims.run.sampling import uniforms
from kv_claims.run.sampling_settings import Sampling
from tests.device import placed
from tests.models.architectures import CONFIGS, ROTARY, prompt, tiny

SAMPLING = Sampling(max_new_tokens=6)
# transformers computes RoPE angles and RMSNorm in float32, whatever the dtype.
TOLERANCE = 2e-5


def kv_heads(model: LoadedModel) -> tuple[int, ...]:
    return tuple(range(model.n_kv_heads))


def filled(model: LoadedModel, *prompts: list[int]) -> PromptStore:
    store = PromptStore(model)
    store.add(prompts)
    return store


def rotation_or_none(model: LoadedModel) -> Rotation | None:
    return None if model.name == "tiny:gpt2" else rotation_of(model.network)


def logits_of(
    model: LoadedModel, store: PromptStore, plans: list[RowPlan], first: list[int]
) -> tuple[list[list[int]], dict[int, torch.Tensor], Slab]:
    """Decode rows; tokens, logits of every row, and the slab."""
    slab = build(store, plans, rotation_or_none(model), headroom=6).slab
    uniform = torch.stack([uniforms(f"row {i}", 0, 6) for i in range(len(plans))])
    decoded = decode(model, slab, first, uniform, SAMPLING, keep=range(len(plans)))
    return decoded.tokens, decoded.logits, slab


@pytest.mark.parametrize("name", CONFIGS)
def test_unpatched_rows_of_unequal_length_equal_a_forward_pass_without_cache(name: str) -> None:
    model = tiny(name)
    prompts = [prompt(n, seed=n) for n in (5, 12, 23, 40)]
    store = filled(model, *prompts)
    plans = [RowPlan(store.index(p), len(p)) for p in prompts]
    tokens, logits, _ = logits_of(model, store, plans, [p[-1] for p in prompts])
    for row, own in enumerate(prompts):
        wanted = oracle_logits(model, own, tokens[row])
        assert relative_error(logits[row], wanted) < TOLERANCE


@pytest.mark.parametrize("positions", ["last(4)", "first(4)", "first(25%)", "all"])
@pytest.mark.parametrize("site", ["kv", "k", "v"])
@pytest.mark.parametrize("name", ROTARY)
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
        plans.append(RowPlan(store.index(base), len(base), (write,)))
        pastes.append(Paste(donor, site, (1, 3), kv_heads(model), window))
    tokens, logits, _ = logits_of(model, store, plans, [base[-1]] * 2)
    for row, paste in enumerate(pastes):
        wanted = oracle_logits(model, base, tokens[row], [paste])
        assert relative_error(logits[row], wanted) < TOLERANCE
        # The patch matters, so the comparison can fail; but for a window of 8 that slid past it.
        without = oracle_logits(model, base, tokens[row])
        out_of_sight = name == "mistral-window" and positions.startswith("first")
        assert (relative_error(logits[row], without) > 10 * TOLERANCE) != out_of_sight


@pytest.mark.parametrize("name", ROTARY)
def test_keys_that_are_not_rotated_do_not_pass_the_oracle(name: str) -> None:
    model = tiny(name)
    base, donor = prompt(17, 1), prompt(29, 2)
    store = filled(model, base, donor)
    window = resolve_window("last(8)", len(donor), len(base))
    plan = RowPlan(store.index(base), len(base), (Write(store.index(donor), "k", (1,), window),))
    slab = build(store, [plan], None, headroom=6).slab
    decoded = decode(model, slab, [base[-1]], uniforms("x", 0, 6)[None], SAMPLING, keep=[0])
    paste = Paste(donor, "k", (1,), kv_heads(model), window)
    wanted = oracle_logits(model, base, decoded.tokens[0], [paste])
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
        RowPlan(store.index(base), len(source), (write,)),
        RowPlan(store.index(source), len(source)),
    ]
    slab = build(store, plans, rotation_or_none(model), headroom=0).slab
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
        RowPlan(store.index(base), 12, (write,)),
        RowPlan(store.index(base), 12, (write._replace(donor=store.index(base)),)),
        RowPlan(store.index(base), 12),
    ]
    built = build(store, plans, rotation_of(model.network), headroom=0)
    patched, own, none = built.footprints
    # 2 layers x (K, V); 2 heads x 3 positions x 8 components in each tensor.
    assert (patched.fired, patched.elements) == (4, 4 * 2 * 3 * 8)
    assert patched.changed == patched.elements
    assert patched.least_changed == 48
    assert (own.fired, own.elements, own.changed, own.least_changed) == (4, 192, 0, 0)
    assert none.fired == none.elements == none.changed == 0


class Bench(NamedTuple):
    """A base of 12 tokens, a donor of 15, and rows of the base with something written over them."""

    model: LoadedModel
    store: PromptStore
    write: Write

    def build(self, *writes: Write | None) -> Built:
        base = self.store.index(BASE)
        grown = [len(w.window.base_slots) if w and w.appended else 0 for w in writes]
        plans = [
            RowPlan(base, len(BASE) + more, (write,) if write else ())
            for write, more in zip(writes, grown, strict=True)
        ]
        return build(self.store, plans, rotation_of(self.model.network), headroom=0)


BASE, DONOR = prompt(12, 1), prompt(15, 2)


@pytest.fixture
def bench() -> Bench:
    model = tiny("llama")
    store = filled(model, BASE, DONOR)
    window = resolve_window("last(3)", len(DONOR), len(BASE))
    return Bench(model, store, Write(store.index(DONOR), "kv", (0, 2), window))


@pytest.mark.parametrize("alpha", [0.3, 0.5, 0.999])
def test_a_mix_is_the_weighted_mean_of_own_and_pasted(bench: Bench, alpha: float) -> None:
    slab, footprints, _ = bench.build(None, bench.write, bench.write._replace(alpha=alpha))
    for tensors in (slab.keys, slab.values):
        for layer in bench.write.layers:
            own, pasted, mixed = tensors[layer]
            wanted = (1 - alpha) * own + alpha * pasted
            torch.testing.assert_close(mixed, wanted, rtol=1e-12, atol=1e-12)
            assert not torch.equal(mixed, pasted)
    # All numbers change, as in the plain write: the mean of two different numbers is neither.
    assert footprints[2] == footprints[1]
    assert footprints[2].changed == footprints[2].elements


@pytest.mark.parametrize("head", [0, 1])
def test_of_some_heads_no_other_head_changes(bench: Bench, head: int) -> None:
    slab, footprints, _ = bench.build(None, bench.write, bench.write._replace(heads=(head,)))
    for tensors in (slab.keys, slab.values):
        for layer in bench.write.layers:
            own, pasted, some = tensors[layer]
            assert torch.equal(some[head], pasted[head])
            assert torch.equal(some[1 - head], own[1 - head])
            assert not torch.equal(own[head], pasted[head])
    # 2 layers x (K, V) x 1 head x 3 positions x 8 components.
    assert footprints[2].elements == footprints[2].changed == 4 * 3 * 8
    assert footprints[2].least_changed == 3 * 8


def test_both_heads_named_are_all_heads(bench: Bench) -> None:
    slab, (every, named), _ = bench.build(bench.write, bench.write._replace(heads=(0, 1)))
    assert all(torch.equal(one, other) for one, other in [*slab.keys, *slab.values])
    assert every == named


def test_what_is_appended_stands_behind_the_bases_own_cache(bench: Bench) -> None:
    """Own cache, then the tail of the donor: values as they are, keys at their new positions."""
    tail = range(len(DONOR) - 1 - 4, len(DONOR) - 1)
    behind = range(len(BASE) - 1, len(BASE) - 1 + 4)
    write = Write(bench.store.index(DONOR), "kv", (0, 1, 2, 3), Window(tail, behind), mode="append")
    slab, (footprint, _), _ = bench.build(write, None)
    own, appended = slice(-15, -4), slice(-4, None)
    assert slab.lengths.tolist() == [16, 12]
    rotation = rotation_of(bench.model.network)
    moved = placed([behind.start - tail.start] * 4)
    for layer in range(4):
        for tensors in (slab.keys, slab.values):
            # The other row is the base alone, at the right end.
            assert torch.equal(tensors[layer][0, :, own], tensors[layer][1, :, -11:])
        donor = bench.store.values[layer][bench.store.index(DONOR)][:, -4:]
        assert torch.equal(slab.values[layer][0, :, appended], donor)
        keys = bench.store.keys[layer][bench.store.index(DONOR)][:, -4:].transpose(0, 1)
        wanted = rotation(layer, keys, moved).transpose(0, 1)
        assert torch.equal(slab.keys[layer][0, :, appended], wanted)
    # 4 layers x (K, V); 2 heads x 4 positions x 8 components, none of which was there before.
    assert (footprint.fired, footprint.elements) == (8, 8 * 2 * 4 * 8)
    assert footprint.changed == footprint.elements


def test_two_writes_of_a_row_are_counted_together(bench: Bench) -> None:
    keys, values = (bench.write._replace(site=site) for site in ("k", "v"))
    base = bench.store.index(BASE)
    plans = [RowPlan(base, 12, writes) for writes in ((bench.write,), (keys, values), (keys,))]
    slab, (both, parts, one), _ = build(
        bench.store, plans, rotation_of(bench.model.network), headroom=0
    )
    assert both == parts
    assert one.fired * 2 == both.fired
    for tensors in (slab.keys, slab.values):
        assert torch.equal(tensors[2][0], tensors[2][1])


def test_noise_keeps_norms_and_differs_from_the_source() -> None:
    model = tiny("llama")
    base, donor = prompt(12, 1), prompt(15, 2)
    store = filled(model, base, donor)
    window = resolve_window("last(6)", 15, 12)
    source = Write(store.index(donor), "kv", (1,), window)
    noise = source._replace(noise="draw", instead_of=(store.index(donor), window))
    plans = [RowPlan(store.index(base), 12, (write,)) for write in (source, noise)]
    slab, footprints, _ = build(store, plans, rotation_of(model.network), headroom=0)
    for tensor in (slab.keys[1], slab.values[1]):
        norms = tensor[:, :, slab.slots - 6 :].norm(dim=-1)
        torch.testing.assert_close(norms[0], norms[1])
    assert footprints[1].differs == footprints[1].elements
    again = build(store, plans, rotation_of(model.network), headroom=0).slab
    assert torch.equal(again.keys[1], slab.keys[1])


def test_the_store_is_never_written_to() -> None:
    model = tiny("llama")
    base, donor = prompt(12, 1), prompt(15, 2)
    store = filled(model, base, donor)
    before = [tensor.clone() for tensor in [*store.keys, *store.values]]
    window = resolve_window("last(6)", 15, 12)
    plan = RowPlan(store.index(base), 12, (Write(store.index(donor), "kv", (1,), window),))
    logits_of(model, store, [plan], [base[-1]])
    assert store.unchanged()
    assert all(
        torch.equal(old, new) for old, new in zip(before, [*store.keys, *store.values], strict=True)
    )
