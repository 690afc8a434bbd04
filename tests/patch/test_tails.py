"""Prompts are computed from the first position that is overwritten, and nothing shows it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch

from kv_claims.claims.positions import Window, resolve_window
from kv_claims.claims.sites import CACHE_SITES, SITES, Site
from kv_claims.models.load import LoadedModel
from kv_claims.models.rotary import Rotation, rotation_of
from kv_claims.patch import tails
from kv_claims.patch.activations import Catch, PromptPass, compute_prompts
from kv_claims.patch.build import build
from kv_claims.patch.plan import Footprint, RowPlan, Write
from kv_claims.patch.slab import Slab, copy_prompts
from kv_claims.patch.store import PromptStore
from kv_claims.patch.tails import CACHED, chunks
from tests.models.architectures import CONFIGS, ROTARY, prompt, sites_of, tiny
from tests.patch.whole_prompt import by_oracle, cache_of, whole_prompts

LENGTHS = (24, 17, 24, 11, 24)
IN_PREFILL = tuple(site for site in SITES if site not in CACHE_SITES and site != "embed")
N_LAYERS = 4
CLOSE = {"rtol": 2e-6, "atol": 2e-6}
"""RMSNorm rounds to float32 in transformers, whatever the dtype."""


def stored(model: LoadedModel) -> PromptStore:
    store = PromptStore(model)
    store.add([prompt(length, seed) for seed, length in enumerate(LENGTHS)])
    return store


def turned(model: LoadedModel) -> Rotation | None:
    return rotation_of(model.network) if model.network.config.model_type != "gpt2" else None


def plans_of(store: PromptStore, *, moved: bool = True) -> list[RowPlan]:
    """Rows with every kind of write; moved: windows at the ends of prompts of unequal lengths."""
    at = [store.index(prompt(length, seed)) for seed, length in enumerate(LENGTHS)]
    base, short = at[0], at[3]
    donor, other = (at[1], at[3]) if moved else (at[2], at[4])

    def write(
        site: Site, positions: str, *layers: int, row: int = base, of: int = donor, **more: Any
    ) -> Write:
        given = store.lengths[of], store.lengths[row]
        span = "cache" if site in ("kv", "k", "v") else "prompt"
        return Write(of, site, layers, resolve_window(positions, *given, span=span), **more)

    last = write("v_proj", "last(5)", 1)
    first = write("kv_proj", "first(3)", 0, 2)
    instead = (donor, last.window)
    unequal = short if moved else base
    rows: list[tuple[int, Sequence[Write]]] = [
        *((base, [write(site, "last(5)", 1)]) for site in IN_PREFILL),
        *((base, [write(site, "last(1)", 2)]) for site in IN_PREFILL),
        *((base, [write(site, "first(3)", 0, 2)]) for site in IN_PREFILL),
        *((base, [write(site, "all", *range(N_LAYERS))]) for site in IN_PREFILL),
        # In the middle, where keys move; of a single head; of a row shorter than its donor.
        (base, [last._replace(window=Window(range(4, 6), range(9, 11) if moved else range(4, 6)))]),
        (base, [write("kv_proj", "last(4)", 1, heads=(1,))]),
        (unequal, [write("kv_proj", "last(4)", 1, row=unequal)]),
        (unequal, [write("residual", "last(2)", N_LAYERS - 1, row=unequal)]),
        # Two patches of one arm; one of them of the cache.
        (base, [write("residual", "last(2)", 2), write("k_proj", "first(4)", 1)]),
        (base, [write("kv", "last(5)", 3), write("v_proj", "last(3)", 1)]),
        # Its own activations, noise, and another donor than the patched arm's.
        (base, [write("kv_proj", "last(5)", 1, of=base)]),
        (base, [write("residual", "first(4)", 1, of=base)]),
        (base, [last._replace(noise="a pair:0", instead_of=instead)]),
        (base, [write("v_proj", "last(5)", 1, of=other, instead_of=instead)]),
        # Held, with a window in the prompt pass or with a splice alone; read at every step.
        (base, [first._replace(active="every_step(held)")]),
        (base, [write("kv", "last(3)", 1, active="every_step(held)")]),
        (base, [last._replace(active="every_step")]),
        (base, []),
        (donor, []),
    ]
    return [RowPlan(row, store.lengths[row], tuple(writes)) for row, writes in rows]


def passed(
    store: PromptStore, plans: Sequence[RowPlan], *, shared: bool = False
) -> tuple[Slab, PromptPass]:
    slab = copy_prompts(store, plans, headroom=0, shared=shared)
    return slab, compute_prompts(slab, store, plans, turned(store.model))


def by_row(catch: Catch) -> dict[tuple[object, ...], torch.Tensor]:
    """What was caught, by layer, tensor, row and write, whatever pass it was in."""
    return {
        (*spot, row, write): vector
        for spot, found in catch.items()
        for caught in found
        for row, write, vector in zip(caught.rows, caught.writes, caught.vectors, strict=True)
    }


def footprints(done: PromptPass) -> dict[tuple[int, Write], Footprint]:
    return {
        (row, write): footprint
        for group in done.groups
        for row, write, footprint in zip(group.rows, group.writes, group.footprints(), strict=True)
    }


@pytest.mark.parametrize("name", CONFIGS)
def test_tails_give_what_whole_prompts_give(name: str) -> None:
    """Caches, what is caught for the steps, and what is counted: of every kind of write at once."""
    store = stored(tiny(name))
    plans = plans_of(store, moved=name in ROTARY)
    slab, done = passed(store, plans)
    with whole_prompts():
        whole, wanted = passed(store, plans)
    for row, plan in enumerate(plans):
        for one, other in zip(cache_of(slab, row), cache_of(whole, row), strict=True):
            torch.testing.assert_close(one, other, **CLOSE, msg=lambda m, p=plan: f"{p}: {m}")
    for one, other in ((done.last, wanted.last), (done.held, wanted.held)):
        found, expected = by_row(one), by_row(other)
        assert found.keys() == expected.keys()
        for key in found:
            torch.testing.assert_close(found[key], expected[key], **CLOSE)
    assert by_row(done.last)
    assert by_row(done.held)
    found, expected = footprints(done), footprints(wanted)
    assert found.keys() == expected.keys()
    for key in found:
        # Bits may differ in what both compute.
        one, other = (of[key]._replace(changed=0, least_changed=0) for of in (found, expected))
        assert one == other, key
    own = [prints for (_, write), prints in found.items() if write.donor == plans[0].prompt]
    assert [prints.beyond_rounding for prints in own] == [0, 0]


@pytest.mark.parametrize("name", CONFIGS)
def test_tails_give_what_the_oracle_gives(name: str) -> None:
    """A forward pass over the whole prompt, a row at a time, hooked elsewhere, without a cache."""
    model = tiny(name)
    store = stored(model)
    plans = [
        plan
        for plan in plans_of(store, moved=name in ROTARY)
        if all(w.noise is None and w.site in sites_of(name) for w in plan.writes)
    ]
    slab = build(
        store, [p._replace(writes=_in_the_prompt(p)) for p in plans], turned(model), headroom=0
    )
    for row, plan in enumerate(plans):
        wanted = by_oracle(model, store, plan)
        for one, other in zip(cache_of(slab.slab, row), wanted, strict=True):
            torch.testing.assert_close(one, other, **CLOSE, msg=lambda m, p=plan: f"{p}: {m}")
    # Not that of the unpatched prompt: a pass that writes nothing would differ.
    plain = by_oracle(model, store, RowPlan(plans[0].prompt, plans[0].tokens))
    assert any(
        float((a - b).abs().max()) > 1e-3
        for a, b in zip(cache_of(slab.slab, 0), plain, strict=True)
    )


def _in_the_prompt(plan: RowPlan) -> tuple[Write, ...]:
    return tuple(write._replace(active="prompt") for write in plan.writes)


@pytest.fixture(scope="module")
def model() -> LoadedModel:
    return tiny("llama")


@pytest.fixture
def store(model: LoadedModel) -> PromptStore:
    return stored(model)


def write_of(store: PromptStore, site: Site, *layers: int, window: Window, donor: int = 1) -> Write:
    return Write(store.index(prompt(LENGTHS[donor], donor)), site, layers, window)


def row_of(store: PromptStore, *writes: Write, prompt_number: int = 0) -> RowPlan:
    length = LENGTHS[prompt_number]
    return RowPlan(store.index(prompt(length, prompt_number)), length, writes)


LAST_5 = Window(range(12, 17), range(19, 24))


def run_in(model: LoadedModel, store: PromptStore, plans: Sequence[RowPlan]) -> list[torch.Tensor]:
    """Token ids of every forward pass that building some rows makes."""
    seen: list[torch.Tensor] = []
    handle = model.network.register_forward_pre_hook(
        lambda _m, _a, given: seen.append(given["input_ids"]), with_kwargs=True
    )
    try:
        build(store, plans, rotation_of(model.network), headroom=0)
    finally:
        handle.remove()
    return seen


@pytest.mark.parametrize(
    ("window", "rows", "donors"),
    [
        # The last prompt token is run where it is overwritten, else not.
        (LAST_5, [19, 20, 21, 22, 23], [12, 13, 14, 15, 16]),
        (Window(range(16, 17), range(23, 24)), [23], [16]),
        (Window(range(3, 5), range(20, 22)), [20, 21, 22], [3, 4]),
        (Window(range(2), range(2)), list(range(23)), [0, 1]),
    ],
    ids=["last", "last-token", "middle", "first"],
)
def test_only_tails_are_run(
    model: LoadedModel, store: PromptStore, window: Window, rows: list[int], donors: list[int]
) -> None:
    """Three rows and one donor, read by all: once each, from the first position on that matters."""
    plans = [row_of(store, write_of(store, "v_proj", layer, window=window)) for layer in range(3)]
    (ids,) = run_in(model, store, plans)
    base, donor = prompt(24, 0), prompt(17, 1)
    wanted = [[base[at] for at in rows]] * 3 + [[donor[at] for at in donors]]
    assert ids.shape == (4, max(len(rows), len(donors)))
    assert [line[: len(own)] for line, own in zip(ids.tolist(), wanted, strict=True)] == wanted


def test_a_held_splice_runs_one_token_of_its_donor(model: LoadedModel, store: PromptStore) -> None:
    splice = write_of(store, "kv", 1, window=Window(range(4, 8), range(4, 8)))
    held = splice._replace(active="every_step(held)")
    ids = run_in(model, store, [row_of(store, held), row_of(store, held), row_of(store)])
    assert [one.tolist() for one in ids] == [[prompt(17, 1)[-1:]]]
    assert run_in(model, store, [row_of(store, splice)]) == []


@pytest.mark.parametrize(
    ("site", "layer", "window", "layers_run"),
    [
        # The last layer's keys are the last thing wanted, unless its output is written.
        ("v_proj", 1, LAST_5, 3),
        ("residual", 2, LAST_5, 3),
        ("residual", 3, LAST_5, 4),
        # No cached position is behind the last token: nothing above the patch is wanted.
        ("v_proj", 1, Window(range(16, 17), range(23, 24)), 1),
        ("residual", 1, Window(range(16, 17), range(23, 24)), 2),
    ],
)
def test_the_pass_ends_with_the_last_thing_wanted(
    model: LoadedModel, store: PromptStore, site: Site, layer: int, window: Window, layers_run: int
) -> None:
    ran: list[int] = []
    layers = model.network.model.layers
    # A layer's MLP comes behind its keys and values.
    handles = [
        module.mlp.register_forward_hook(lambda *_, number=number: ran.append(number))
        for number, module in enumerate(layers)
    ]
    handles.append(model.network.lm_head.register_forward_hook(lambda *_: ran.append(99)))
    try:
        built = build(
            store,
            [row_of(store, write_of(store, site, layer, window=window))],
            rotation_of(model.network),
            headroom=0,
        )
    finally:
        for handle in handles:
            handle.remove()
    assert ran == list(range(layers_run))
    (footprint,) = built.footprints
    assert footprint.fired == 1
    assert footprint.least_changed > 0


def test_rows_share_their_prompt_below_the_patch(store: PromptStore) -> None:
    """Memory for a base's prompt grows with its arms from the patched layer up only."""
    sites: list[tuple[Site, int]] = [("v_proj", 2), ("k_proj", 2), ("residual", 1), ("kv_proj", 3)]
    plans = [
        row_of(store),
        *(row_of(store, write_of(store, site, layer, window=LAST_5)) for site, layer in sites),
        # Nothing cached follows the last token, nor the output of the last layer.
        row_of(store, write_of(store, "kv_proj", 0, window=Window(range(16, 17), range(23, 24)))),
        row_of(store, write_of(store, "residual", 3, window=LAST_5)),
    ]
    slab, _ = passed(store, plans, shared=True)
    assert [len(keys) for keys in slab.keys] == [1, 1, 4, 5]
    # And every row reads what it would have had to itself.
    alone, _ = passed(store, plans)
    for row in range(len(plans)):
        for one, other in zip(cache_of(slab, row), cache_of(alone, row), strict=True):
            assert torch.equal(one, other)
    for layer, (keys, values) in enumerate(zip(slab.keys, slab.values, strict=True)):
        plain = slab.place(layer, torch.tensor(0))
        of_store = store.index(prompt(24, 0))
        for found, wanted in ((keys, store.keys), (values, store.values)):
            assert torch.equal(found[plain, :, -23:], wanted[layer][of_store, :, -23:])


def test_a_write_into_a_prompt_that_several_rows_read_is_refused(store: PromptStore) -> None:
    plans = [row_of(store), row_of(store, write_of(store, "v_proj", 2, window=LAST_5))]
    slab = copy_prompts(store, plans, headroom=0, shared=True)
    before = [tensor.clone() for tensor in [*slab.keys, *slab.values]]
    # The row is written to from layer 1 on, where it reads the same prompt as the other.
    lower = [plans[0], row_of(store, write_of(store, "v_proj", 1, window=LAST_5))]
    with pytest.raises(RuntimeError, match="layer 1: a prompt that several rows read"):
        compute_prompts(slab, store, lower, rotation_of(store.model.network))
    for tensor, old in zip([*slab.keys, *slab.values], before, strict=True):
        assert torch.equal(tensor, old)


def test_rows_with_tails_alike_go_together(store: PromptStore) -> None:
    widths = [3, 16, 4, 24, 6, 1]
    plans = [
        row_of(store, write_of(store, "v_proj", 1, window=Window(range(1), range(24 - w, 25 - w))))
        for w in widths
    ]
    # Widths 1, 3, 4, 6, 16, 24; the last prompt token is run by none but the first of them.
    found = list(chunks(plans, store.lengths, 10_000))
    assert [chunk.computed for chunk in found] == [[5, 0], [2, 4], [1, 3]]
    assert all(list(chunk.donors.values()) == [range(1)] for chunk in found)
    assert [c.computed for c in chunks(plans, store.lengths, 1)] == [[5], [0], [2], [4], [1], [3]]


def test_a_pass_holds_no_more_than_it_may(store: PromptStore) -> None:
    fours, threes = [4, 4, 2], [3, 3, 3, 1]
    # Rows of 24 tokens and a donor; what is run counts, and what is cached where it is much.
    for n_run, most, sizes in (
        (5, 5 * 5, fours),
        (5, 5 * 5 - 1, threes),
        (5, 11 * 5, [10]),
        (2, 5 * 21 // CACHED + 1, fours),
        (2, 5 * 21 // CACHED, threes),
    ):
        window = Window(*2 * [range(23 - n_run, 23)])
        plans = [row_of(store, write_of(store, "v_proj", 1, window=window)) for _ in range(10)]
        assert {len(plan.computed) for plan in plans} == {n_run}
        assert [len(c.computed) for c in chunks(plans, store.lengths, most)] == sizes


def test_positions_behind_a_tail_are_none_that_a_model_may_not_have() -> None:
    """GPT-2 learns a vector for each of its positions: beyond them there is nothing to look up."""
    model = tiny("gpt2")
    store = PromptStore(model)
    long, short = prompt(256, 1), prompt(256, 2)
    store.add([long, short])
    wide, narrow = Window(range(200, 210), range(200, 210)), Window(*[range(250, 253)] * 2)
    at, donor = store.index(long), store.index(short)
    plans = [RowPlan(at, 256, (Write(donor, "v_proj", (1,), window),)) for window in (wide, narrow)]
    own = tails.Tails(store, [at, at], [plans[0].computed, plans[1].computed])
    assert int(own.positions.max()) == 254
    slab = build(store, plans, None, headroom=0).slab
    for row, plan in enumerate(plans):
        for one, other in zip(cache_of(slab, row), by_oracle(model, store, plan), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)
