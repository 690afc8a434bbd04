"""Laws of the splice, for random prompts, windows, layers and sites."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from kv_claims.claims.positions import Window, resolve_window
from kv_claims.claims.sites import Site
from kv_claims.models.load import LoadedModel
from kv_claims.models.rotary import Rotation, rotation_of
from kv_claims.patch.build import build
from kv_claims.patch.plan import RowPlan, Write
from kv_claims.patch.slab import Slab
from kv_claims.patch.store import PromptStore
from kv_claims.run.decode import decode
from kv_claims.run.sampling import uniforms
from kv_claims.run.sampling_settings import Sampling
from tests.models.architectures import prompt, tiny

N_LAYERS = 4
LENGTHS = (5, 8, 13, 21)
laws = settings(deadline=None, max_examples=60, derandomize=True)


class Bench(NamedTuple):
    model: LoadedModel
    store: PromptStore
    rotation: Rotation


@cache
def bench(name: str = "llama") -> Bench:
    model = tiny(name)
    store = PromptStore(model)
    store.add([prompt(n, seed) for n in LENGTHS for seed in (0, 1)])
    return Bench(model, store, rotation_of(model.network))


class Case(NamedTuple):
    base: int
    donor: int
    site: Site
    layers: tuple[int, ...]
    positions: str
    heads: tuple[int, ...] | None = None

    @property
    def write(self) -> Write:
        lengths = bench().store.lengths
        window = resolve_window(self.positions, lengths[self.donor], lengths[self.base])
        return Write(self.donor, self.site, self.layers, window, self.heads)


@st.composite
def cases(draw: st.DrawFn) -> Case:
    lengths = bench().store.lengths
    base, donor = (draw(st.integers(0, len(lengths) - 1)) for _ in range(2))
    width = draw(st.integers(1, min(lengths[base], lengths[donor]) - 1))
    return Case(
        base,
        donor,
        draw(st.sampled_from(["kv", "k", "v"])),
        tuple(sorted(draw(st.sets(st.integers(0, N_LAYERS - 1), min_size=1)))),
        draw(st.sampled_from([f"last({width})", f"first({width})", "all"])),
        draw(st.sampled_from([None, (0,), (1,), (0, 1)])),
    )


def slab_of(case: Case, *writes: Write | None) -> Slab:
    """One row of the case's base for each write."""
    b = bench()
    tokens = b.store.lengths[case.base]
    plans = [RowPlan(case.base, tokens, (write,) if write else ()) for write in writes]
    return build(b.store, plans, b.rotation, headroom=0).slab


def rows_equal(slab: Slab, one: int, other: int) -> bool:
    return all(torch.equal(t[one], t[other]) for t in [*slab.keys, *slab.values])


alphas = st.floats(0, 1, exclude_min=True)


@laws
@given(cases(), alphas)
def test_self_patch_is_the_identity_under_any_weight(case: Case, alpha: float) -> None:
    slots = case.write.window.base_slots
    own = case.write._replace(donor=case.base, window=Window(slots, slots), alpha=alpha)
    assert rows_equal(slab_of(case, own, None), 0, 1)


@laws
@given(cases(), alphas)
def test_a_mix_lies_between_own_and_pasted_at_its_weight(case: Case, alpha: float) -> None:
    slab = slab_of(case, None, case.write, case.write._replace(alpha=alpha))
    for tensor in [*slab.keys, *slab.values]:
        own, pasted, mixed = tensor
        torch.testing.assert_close(mixed, torch.lerp(own, pasted, alpha), rtol=1e-9, atol=1e-12)


@laws
@given(cases())
def test_untouched_layers_heads_positions_and_tensors_are_equal_to_the_bit(case: Case) -> None:
    slab = slab_of(case, case.write, None)
    first = slab.slots - (bench().store.lengths[case.base] - 1)
    touched = [first + slot for slot in case.write.window.base_slots]
    others = [slot for slot in range(slab.slots) if slot not in touched]
    for name, tensors in (("k", slab.keys), ("v", slab.values)):
        for layer, tensor in enumerate(tensors):
            if layer not in case.layers or name not in case.site:
                assert torch.equal(tensor[0], tensor[1])
            else:
                assert torch.equal(tensor[0][:, others], tensor[1][:, others])
                for head in {0, 1} - {*(case.heads or (0, 1))}:
                    assert torch.equal(tensor[0][head], tensor[1][head])


@laws
@given(cases())
def test_values_arrive_as_they_are_and_keys_with_their_length(case: Case) -> None:
    """V is copied to the bit; K is rotated, which keeps the norm of each head's vector."""
    b, slab = bench(), slab_of(case, case.write)
    first = slab.slots - (b.store.lengths[case.base] - 1)
    donor_first = b.store.slots - (b.store.lengths[case.donor] - 1)
    here = [first + slot for slot in case.write.window.base_slots]
    there = [donor_first + slot for slot in case.write.window.source_slots]
    heads = list(case.heads or (0, 1))
    for layer in case.layers:
        values, keys = (
            (mine[layer][0][heads][:, here], donors[layer][case.donor][heads][:, there])
            for mine, donors in ((slab.values, b.store.values), (slab.keys, b.store.keys))
        )
        if "v" in case.site:
            assert torch.equal(*values)
        if "k" in case.site:
            torch.testing.assert_close(*(vectors.norm(dim=-1) for vectors in keys))


def patched_again(case: Case, second: Case) -> list[torch.Tensor]:
    """Patch, take the result as a new base, and patch that: K and V of the row, `[tensor]`."""
    b = bench()
    first = slab_of(case, case.write)
    store = PromptStore(b.model)
    length = b.store.lengths[case.base]
    # All prompts again: in another batch a prefill may differ in its last bits.
    store.add(b.store.tokens)
    base = store.index(b.store.tokens[case.base])
    donor = store.index(b.store.tokens[second.donor])
    if base != donor:
        for old, new in zip(
            [*store.keys, *store.values], [*first.keys, *first.values], strict=True
        ):
            old[base, :, old.shape[2] - first.slots :] = new[0]
    plan = RowPlan(base, length, (second.write._replace(donor=donor),))
    slab = build(store, [plan], b.rotation, headroom=0).slab
    return [t[0] for t in [*slab.keys, *slab.values]]


@laws
@given(cases().filter(lambda case: case.base != case.donor))
def test_patching_twice_is_patching_once(case: Case) -> None:
    once = slab_of(case, case.write)
    twice = patched_again(case, case)
    for a, b in zip([*once.keys, *once.values], twice, strict=True):
        assert torch.equal(a[0], b)


@laws
@given(cases().filter(lambda case: case.base != case.donor))
def test_patching_and_patching_back_restores_the_base(case: Case) -> None:
    b = bench()
    slots = case.write.window.base_slots
    there = slab_of(case, case.write)
    back_plan = RowPlan(
        case.base,
        b.store.lengths[case.base],
        (case.write._replace(donor=case.base, window=Window(slots, slots)),),
    )
    back = build(b.store, [back_plan], b.rotation, headroom=0).slab
    touched = [there.slots - (b.store.lengths[case.base] - 1) + slot for slot in slots]
    # Carry the restored slots into the patched row: what results must be the base itself.
    for name in ("keys", "values"):
        for layer in range(N_LAYERS):
            patched = getattr(there, name)[layer]
            patched[:, :, touched] = getattr(back, name)[layer][:, :, touched]
    base = slab_of(case, None)
    for a, c in zip([*there.keys, *there.values], [*base.keys, *base.values], strict=True):
        assert torch.equal(a, c)


@laws
@given(cases(), st.sets(st.integers(0, N_LAYERS - 1), min_size=1))
def test_disjoint_patches_commute(case: Case, more: set[int]) -> None:
    assume(case.base != case.donor and more - set(case.layers))
    other = case._replace(layers=tuple(sorted(more - set(case.layers))))
    one_way, other_way = patched_again(case, other), patched_again(other, case)
    assert all(torch.equal(a, b) for a, b in zip(one_way, other_way, strict=True))


@laws
@given(
    st.integers(-200, 200),
    st.integers(-200, 200),
    st.sampled_from(["llama", "gpt_neox", "llama-yarn"]),
)
def test_rotation_by_a_then_b_is_rotation_by_their_sum(a: int, b: int, name: str) -> None:
    rotation = bench(name).rotation
    keys = torch.randn(6, 2, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def by(shift: int, x: torch.Tensor) -> torch.Tensor:
        return rotation(0, x, torch.full((6,), shift))

    torch.testing.assert_close(by(b, by(a, keys)), by(a + b, keys), rtol=1e-9, atol=1e-9)
    assert torch.equal(by(0, keys), keys)


@laws
@given(st.integers(0, 7), st.integers(0, 7))
def test_full_swap_gives_the_logits_of_the_source(base: int, source: int) -> None:
    b = bench()
    length = b.store.lengths[source]
    everything = Window(range(length - 1), range(length - 1))
    swap = Write(source, "kv", tuple(range(N_LAYERS)), everything)
    plans = [RowPlan(base, length, (swap,)), RowPlan(source, length)]
    slab = build(b.store, plans, b.rotation, headroom=4).slab
    last = b.store.tokens[source][-1]
    decoded = decode(
        b.model,
        slab,
        [last, last],
        uniforms("a pair", 0, 4).repeat(2, 1),
        Sampling(4),
        compare=[(0, 1)],
    )
    assert decoded.tokens[0] == decoded.tokens[1]
    assert decoded.compared[0].largest <= 1e-12 * decoded.compared[0].scale
