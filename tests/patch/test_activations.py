"""The patched prompt pass by itself: what it leaves in the caches, and what it counts."""

from __future__ import annotations

import pytest
import torch

from kv_claims.claims.positions import Window, resolve_window
from kv_claims.claims.sites import CACHE_SITES, SITES, Site
from kv_claims.models.load import LoadedModel
from kv_claims.models.rotary import rotation_of
from kv_claims.patch import activations, overwrite, tails
from kv_claims.patch.activations import PromptPass, compute_prompts
from kv_claims.patch.build import Built, build
from kv_claims.patch.plan import RowPlan, Write
from kv_claims.patch.slab import Slab, copy_prompts
from kv_claims.patch.store import PromptStore
from tests.device import placed
from tests.models.architectures import prompt, tiny

BASE, DONOR, OTHER = prompt(12, 1), prompt(17, 2), prompt(9, 3)
IN_PREFILL = tuple(site for site in SITES if site not in CACHE_SITES and site != "embed")
"""But for the embedding, which is in no layer."""


@pytest.fixture(scope="module")
def model() -> LoadedModel:
    return tiny("llama")


@pytest.fixture
def store(model: LoadedModel) -> PromptStore:
    made = PromptStore(model)
    made.add([BASE, DONOR, OTHER])
    return made


def write_of(store: PromptStore, site: Site, positions: str = "last(5)", layer: int = 1) -> Write:
    window = resolve_window(positions, len(DONOR), len(BASE), span="prompt")
    return Write(store.index(DONOR), site, (layer,), window)


def row(store: PromptStore, *writes: Write) -> RowPlan:
    return RowPlan(store.index(BASE), len(BASE), writes)


def built(store: PromptStore, *plans: RowPlan) -> Built:
    return build(store, plans, rotation_of(store.model.network), headroom=0)


def cut(slab: Slab, place: int, positions: range) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Keys and values of a row of 12 tokens at some positions, a list by layer."""
    first = slab.slots - (len(BASE) - 1)
    columns = [first + position for position in positions]
    return [t[place][:, columns] for t in slab.keys], [t[place][:, columns] for t in slab.values]


def equal(one: list[torch.Tensor], other: list[torch.Tensor]) -> list[bool]:
    return [torch.equal(a, b) for a, b in zip(one, other, strict=True)]


def test_what_lies_before_the_window_or_below_the_layer_stays_and_what_lies_behind_follows(
    store: PromptStore,
) -> None:
    """Layer 1, positions 3 and 4 of 12: later layers at later positions are computed from them."""
    window = Window(range(6, 8), range(3, 5))
    plain = row(store)
    for site in IN_PREFILL:
        write = write_of(store, site)._replace(window=window)
        # A row that is computed anew but for a write of its own, so that both are of one batch.
        own = write._replace(donor=store.index(BASE), window=Window(range(3, 5), range(3, 5)))
        slab = built(store, row(store, write), row(store, own), plain).slab
        for place in (0, 1):
            keys, values = cut(slab, place, range(3))
            for mine, wanted in zip((keys, values), cut(slab, 2, range(3)), strict=True):
                # The store's own, to the bit.
                assert all(equal(mine, wanted))
        there = [cut(slab, place, range(3, 11)) for place in (0, 1)]
        written = {"v_proj": (1,), "k_proj": (0,), "kv_proj": (0, 1), "resid_pre": (0, 1)}
        for which in (0, 1):
            same = equal(there[0][which], there[1][which])
            assert same[0], site
            assert same[1] is (which not in written.get(site, ())), site
            assert same[2:] == [False, False], site


def test_written_values_are_the_donors_and_written_keys_are_turned(store: PromptStore) -> None:
    slab = built(store, row(store, write_of(store, "kv_proj", "last(5)"))).slab
    # The last of the 5 positions is the last prompt token's, which is in no cache.
    keys, values = (tensors[1] for tensors in cut(slab, 0, range(7, 11)))
    donor_keys = store.keys[1][store.index(DONOR)][:, -4:]
    donor_values = store.values[1][store.index(DONOR)][:, -4:]
    torch.testing.assert_close(values, donor_values, rtol=1e-6, atol=1e-6)
    rotation = rotation_of(store.model.network)
    shift = placed([len(BASE) - len(DONOR)] * 4)
    wanted = rotation(1, donor_keys.transpose(0, 1), shift).transpose(0, 1)
    torch.testing.assert_close(keys, wanted, rtol=1e-6, atol=1e-6)
    assert float((keys - donor_keys).abs().max()) > 0.1


@pytest.mark.parametrize("site", IN_PREFILL)
def test_footprints_count_every_position_of_the_prompt(store: PromptStore, site: Site) -> None:
    """T of them, not T-1: the last prompt token is written as well."""
    plans = [
        row(store, write_of(store, site, "last(5)")),
        row(store, write_of(store, site, "all")),
        row(store, write_of(store, site, "last(5)")._replace(layers=(1, 2))),
        row(
            store,
            write_of(store, site)._replace(
                donor=store.index(BASE), window=Window(range(7, 12), range(7, 12))
            ),
        ),
    ]
    five, every, two, own = built(store, *plans).footprints
    width, tensors = 16 if "v" in site or "k" in site else 32, 2 if site == "kv_proj" else 1
    assert (five.fired, five.elements) == (tensors, tensors * 5 * width)
    assert (every.fired, every.elements) == (tensors, tensors * 12 * width)
    assert (two.fired, two.elements) == (2 * tensors, 2 * five.elements)
    assert five.changed > 0.9 * five.elements
    assert five.least_changed > 0.9 * 5 * width
    assert (own.fired, own.elements, own.beyond_rounding) == (tensors, five.elements, 0)


@pytest.mark.parametrize("site", IN_PREFILL)
def test_noise_has_the_norms_of_what_the_source_would_have(store: PromptStore, site: Site) -> None:
    """Read at the last prompt position, which every tensor has, and where cached from the cache."""
    plain = write_of(store, site, "last(5)")
    pasted = (store.index(DONOR), plain.window)
    noise = plain._replace(noise="a pair:0", instead_of=pasted)
    other = plain._replace(noise="a pair:1", instead_of=pasted)
    plans = [row(store, write) for write in (plain, noise, other)]
    slab = copy_prompts(store, plans, headroom=0)
    done = compute_prompts(slab, store, plans, rotation_of(store.model.network))
    assert set(done.last) == {(1, tensor) for tensor in plain.tensors}
    for (caught,) in done.last.values():
        assert caught.rows == [0, 1, 2]
        norms = caught.vectors.norm(dim=-1)
        torch.testing.assert_close(norms[1], norms[0])
        torch.testing.assert_close(norms[2], norms[0])
        for one, another in ((0, 1), (1, 2)):
            assert float((caught.vectors[one] - caught.vectors[another]).norm()) > 0.1
    for tensors, name in ((slab.keys, "k"), (slab.values, "v")):
        if name in plain.tensors:
            written = tensors[1][:, :, -4:].norm(dim=-1)
            torch.testing.assert_close(written[1], written[0])
            assert not torch.equal(tensors[1][0], tensors[1][1])
    differs = [footprint.differs for group in done.groups for footprint in group.footprints()]
    assert differs.count(None) == 1
    assert all(count is None or count > 0 for count in differs)


@pytest.mark.parametrize(("apart", "counts"), [(1e-9, False), (1e-3, True)])
def test_what_rounding_explains_is_changed_in_bits_and_not_beyond_rounding(
    store: PromptStore, monkeypatch: pytest.MonkeyPatch, apart: float, counts: bool
) -> None:
    """Rows of one forward pass that should be equal may differ in their last bits."""
    real = overwrite.gather
    monkeypatch.setattr(overwrite, "gather", lambda *given: real(*given) * (1 + apart))
    own = Write(store.index(BASE), "v_proj", (1,), Window(range(7, 12), range(7, 12)))
    (footprint,) = built(store, row(store, own)).footprints
    assert (footprint.beyond_rounding > 0) is counts
    # That it was written and that its bits are others are facts of their own.
    assert footprint.elements == footprint.changed == 5 * 16


def test_a_control_that_pastes_what_the_patch_does_is_counted_as_no_difference(
    store: PromptStore,
) -> None:
    plain = write_of(store, "v_proj")
    same = plain._replace(instead_of=(plain.donor, plain.window))
    unrelated = same._replace(
        donor=store.index(OTHER), window=Window(range(4, 9), plain.window.base_slots)
    )
    none, zero, some = built(store, *(row(store, w) for w in (plain, same, unrelated))).footprints
    assert (none.differs, zero.differs) == (None, 0)
    assert some.differs == some.elements


def pass_of(store: PromptStore, plans: list[RowPlan]) -> tuple[Slab, PromptPass]:
    slab = copy_prompts(store, plans, headroom=0)
    return slab, compute_prompts(slab, store, plans, rotation_of(store.model.network))


@pytest.mark.parametrize(
    ("positions", "unequal", "passes"), [(1, 2, 3), (1000, 2, 2), (1000, 9, 1)]
)
def test_how_many_rows_share_a_pass_does_not_matter(
    store: PromptStore,
    positions: int,
    unequal: int,
    passes: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    held = write_of(store, "kv_proj")._replace(active="every_step(held)")
    other = Write(store.index(OTHER), "residual", (2,), Window(range(3, 9), range(6, 12)))
    plans = [
        row(store, held),
        RowPlan(store.index(DONOR), len(DONOR)),
        row(store, write_of(store, "v_proj", "all"), other),
        row(store, other),
    ]
    whole, whole_pass = pass_of(store, plans)
    monkeypatch.setattr(activations, "PREFILL_TOKENS", positions)
    monkeypatch.setattr(tails, "UNEQUAL", unequal)
    real, ran = activations._Pass.run, []

    def counted(self: activations._Pass) -> None:
        ran.append(len(self._plans))
        real(self)

    monkeypatch.setattr(activations._Pass, "run", counted)
    slab, done = pass_of(store, plans)
    assert len(ran) == passes
    for one, two in zip([*slab.keys, *slab.values], [*whole.keys, *whole.values], strict=True):
        torch.testing.assert_close(one, two, rtol=1e-6, atol=1e-6)
    # In smaller passes, the same vectors are caught for the same rows.
    for one, two in ((done.last, whole_pass.last), (done.held, whole_pass.held)):
        assert one.keys() == two.keys()
        for key in one:
            rows = [place for caught in one[key] for place in caught.rows]
            assert rows == [place for caught in two[key] for place in caught.rows]
            torch.testing.assert_close(
                torch.cat([caught.vectors for caught in one[key]]),
                torch.cat([caught.vectors for caught in two[key]]),
                rtol=1e-6,
                atol=1e-6,
            )
    counted = [group.rows for group in done.groups]
    assert sorted(place for rows in counted for place in rows) == [0, 2, 2, 3]


def test_rows_that_need_no_pass_are_left_as_they_were(store: PromptStore) -> None:
    splice = Write(store.index(DONOR), "kv", (1,), resolve_window("last(5)", 17, 12))
    plans = [row(store, write_of(store, "v_proj")), row(store, splice), row(store)]
    assert [plan.needs_prompt_pass for plan in plans] == [True, False, False]
    slab = copy_prompts(store, plans, headroom=0)
    before = [tensor.clone() for tensor in [*slab.keys, *slab.values]]
    compute_prompts(slab, store, plans, rotation_of(store.model.network))
    for tensor, old in zip([*slab.keys, *slab.values], before, strict=True):
        assert torch.equal(tensor[1:], old[1:])


def test_no_hook_stays_on_the_model_even_after_an_error(
    store: PromptStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    layers = store.model.network.model.layers
    built(store, row(store, write_of(store, "residual")))
    assert not any(layer._forward_hooks for layer in layers)

    def breaks(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(activations.Group, "apply", breaks, raising=False)
    with pytest.raises(KeyboardInterrupt):
        built(store, row(store, write_of(store, "residual")))
    assert not any(layer._forward_hooks for layer in layers)


def test_the_store_is_never_written_to(store: PromptStore) -> None:
    before = [tensor.clone() for tensor in [*store.keys, *store.values]]
    built(store, *(row(store, write_of(store, site)) for site in IN_PREFILL))
    assert store.unchanged()
    assert all(equal([*store.keys, *store.values], before))
