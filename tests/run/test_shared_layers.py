"""Rows that share what lies below their patch: which rows are run where, and that none can tell."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import pytest
import torch
import transformers

from kv_claims.claims.positions import Window
from kv_claims.claims.sites import Site
from kv_claims.models.architectures import TABLE, decoder_layers, output_of
from kv_claims.models.load import LoadedModel
from kv_claims.patch.build import Built, build
from kv_claims.patch.plan import RowPlan, Write
from kv_claims.patch.store import PromptStore
from kv_claims.run import shared_layers
from kv_claims.run.decode import Decoded, decode
from kv_claims.run.sampling_settings import Sampling
from tests.device import PLACE
from tests.models.architectures import VOCAB, prompt, tiny
from tests.run.test_routes import OLDER

N_LAYERS, TOKENS, STEPS = 4, 12, 6
PATCHED = Window(*2 * [range(5, 11)])
LAST = Window(*2 * [range(10, 12)])
DRAWS = torch.rand(3, STEPS, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
"""Uniforms of each step, a row a luck."""
CLOSE = {"rtol": 1e-6, "atol": 1e-6}


@pytest.fixture
def model() -> LoadedModel:
    return tiny("llama")


@pytest.fixture
def store(model: LoadedModel) -> PromptStore:
    store = PromptStore(model)
    store.add([prompt(TOKENS, seed) for seed in range(3)])
    return store


def row(prompt: int, layer: int | None = None, donor: int = 2, site: Site = "kv") -> RowPlan:
    window = PATCHED if site == "kv" else LAST
    writes = () if layer is None else (Write(donor, site, (layer,), window),)
    return RowPlan(prompt, TOKENS, writes)


class Run(NamedTuple):
    """counts: rows that each layer was run on, a list a step."""

    decoded: Decoded
    built: Built
    counts: list[list[int]]


def run(
    model: LoadedModel,
    store: PromptStore,
    plans: Sequence[RowPlan],
    *,
    shared: bool = True,
    luck: Sequence[int] = (),
    draws: torch.Tensor = DRAWS,
    first: Sequence[int] = (),
) -> Run:
    """Rows decoded; those of one luck (all, if none is given) draw the same uniforms."""
    built = build(store, plans, None, headroom=STEPS, shared=shared)
    uniform = draws[list(luck) or [0] * len(plans)]
    first = first or [store.tokens[plan.prompt][-1] for plan in plans]
    counts: list[list[int]] = []
    kept = range(len(plans))
    with counting(model, counts):
        decoded = decode(
            model, built.slab, first, uniform, Sampling(STEPS), live=built.live or None, keep=kept
        )
    return Run(decoded, built, counts)


@contextmanager
def counting(model: LoadedModel, counts: list[list[int]]) -> Iterator[None]:
    def count(layer: int, rows: int) -> None:
        if layer == 0:
            counts.append([])
        counts[-1].append(rows)

    def counter(layer: int) -> Callable[..., None]:
        # A hook that is there before those under test sees what the layer itself returned.
        return lambda _module, _args, output: count(layer, len(output_of(output)))

    decoder = model.network.get_decoder()
    layers = decoder.h if hasattr(decoder, "h") else decoder.layers
    handles = [module.register_forward_hook(counter(i)) for i, module in enumerate(layers)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def assert_same(plans: Sequence[RowPlan], one: Run, other: Run) -> None:
    """Tokens, logits, and the values of what was prompted and generated in every layer."""
    assert one.decoded.tokens == other.decoded.tokens
    for place, plan in enumerate(plans):
        logits = (found.decoded.logits[place] for found in (one, other))
        torch.testing.assert_close(*logits, **CLOSE)
        for layer in range(N_LAYERS):
            values = []
            for slab in (one.built.slab, other.built.slab):
                fed = slab.slots + len(one.decoded.tokens[place])
                columns = torch.arange(slab.slots - (plan.tokens - 1), fed, device=PLACE)
                values.append(slab.values_at(layer, torch.full_like(columns, place), columns))
            torch.testing.assert_close(*values, **CLOSE)


def test_rows_are_run_from_the_layer_of_their_patch_on(
    model: LoadedModel, store: PromptStore
) -> None:
    """Patched with its own cache a row says what the unpatched one says, to the end."""
    plans = [row(0), row(0, 1, donor=0), row(0, 3, donor=0), row(0, 3, donor=0), row(1)]
    shared = run(model, store, plans)
    assert shared.counts == [[2, 3, 3, 5]] * STEPS
    assert_same(plans, shared, run(model, store, plans, shared=False))


def test_without_an_unpatched_row_the_one_patched_highest_leads(
    model: LoadedModel, store: PromptStore
) -> None:
    plans = [row(0, 0, donor=0), row(0, 1, donor=0), row(0, 3, donor=0), row(0, 3, donor=0)]
    shared = run(model, store, plans)
    assert shared.counts == [[2, 3, 3, 4]] * STEPS
    assert_same(plans, shared, run(model, store, plans, shared=False))


def test_equal_rows_are_one_row_to_the_end(model: LoadedModel, store: PromptStore) -> None:
    """The same prompt, unpatched, on the same luck: behind the last layer each has its logits."""
    plans = [row(0)] * 5
    shared = run(model, store, plans)
    assert shared.counts == [[1] * N_LAYERS] * STEPS
    assert_same(plans, shared, run(model, store, plans, shared=False))


def test_a_row_that_is_fed_another_token_parts(model: LoadedModel, store: PromptStore) -> None:
    """Four rows of one prompt, two with a luck of their own; what they said first is kept."""
    plans, luck = [*[row(0)] * 4, row(0, 2, donor=0), row(0, 2, donor=0)], [0, 0, 1, 2, 0, 1]
    shared = run(model, store, plans, luck=luck)
    plain = run(model, store, plans, shared=False, luck=luck)
    assert_same(plans, shared, plain)
    # Rows are told apart once the tokens that they were fed differ.
    for step, rows in enumerate(shared.counts):
        said = [tuple(tokens[:step]) for tokens in plain.decoded.tokens]
        groups = len(set(said))
        own = sum(1 for one in (4, 5) if said[one] in said[:4]) + groups
        assert rows == [groups, groups, own, own]
    assert shared.counts[0] == [1, 1, 3, 3]
    assert shared.counts[-1] == [3, 3, 5, 5]


def test_rows_that_leave_take_nothing_along(model: LoadedModel, store: PromptStore) -> None:
    """A leader ends with the very token by which another row parts from it; half the batch goes.

    Those that stay have said one of two things, and say the same from there on.
    """
    first, last = 1e-9, 1 - 1e-9
    draws = DRAWS.clone()
    draws[1, :2] = draws[0, :2]
    draws[0, 2], draws[1:, 2:4] = last, first
    model.__dict__["stop_ids"] = frozenset({VOCAB - 1})
    plans, luck = [row(0)] * 6 + [row(0, 3, donor=0)] * 2, [0, 0, 0, 0, 1, 2, 1, 2]
    shared = run(model, store, plans, luck=luck, draws=draws)
    plain = run(model, store, plans, luck=luck, draws=draws, shared=False)
    assert plain.decoded.stopped == [True] * 4 + [False] * 4
    assert [tokens[2:4] for tokens in plain.decoded.tokens[4:]] == [[0, 0]] * 4
    assert [counts[0] for counts in shared.counts] == [1, 2, 2, 2, 2, 2]
    assert_same(plans, shared, plain)


@pytest.mark.parametrize("site", ["kv", "v_proj"])
def test_rows_that_were_fed_another_last_token_are_apart(
    model: LoadedModel, store: PromptStore, site: Site
) -> None:
    """From there on all say the same."""
    draws = torch.full_like(DRAWS, 1e-9)
    plans, first = [row(0)] * 4 + [row(0, 3, site=site)], [5, 5, 6, 6, 6]
    shared = run(model, store, plans, draws=draws, first=first)
    assert len({tuple(tokens) for tokens in shared.decoded.tokens}) == 1
    assert [counts[0] for counts in shared.counts[1:]] == [2] * (STEPS - 1)
    assert_same(plans, shared, run(model, store, plans, draws=draws, first=first, shared=False))


@pytest.mark.parametrize("name", ["llama", "mixtral", "qwen3", "phi3", "gpt_neox", "gpt2"])
@pytest.mark.parametrize("site", ["kv", "v_proj", "residual"])
def test_with_patches_that_change_what_is_said(name: str, site: Site) -> None:
    if name == "gpt2" and OLDER:
        pytest.skip(f"transformers {transformers.__version__} decodes GPT-2 plainly")
    model = tiny(name)
    store = PromptStore(model)
    store.add([prompt(TOKENS, seed) for seed in range(3)])
    plans = [
        row(base, layer, donor, site)
        for base in (0, 1)
        for donor in (base, 2)
        for layer in (None, *range(N_LAYERS))
    ]
    luck = [i % 2 for i in range(len(plans))]
    shared = run(model, store, plans, luck=luck)
    assert shared.counts[-1][0] < len(plans)
    # What a patch writes with the last prompt token is written into every row by itself.
    assert shared.counts[0][0] == (6 if site == "kv" else len(plans))
    assert_same(plans, shared, run(model, store, plans, shared=False, luck=luck))


def test_where_little_is_shared_every_row_is_run(model: LoadedModel, store: PromptStore) -> None:
    """One of sixteen rows and layers would be saved."""
    plans = [row(0), row(0, 0), row(0, 0), row(0, 1)]
    shared = run(model, store, plans)
    assert shared.counts == [[4] * N_LAYERS] * STEPS
    assert_same(plans, shared, run(model, store, plans, shared=False))


def test_once_little_is_shared_each_row_has_what_it_said(
    model: LoadedModel, store: PromptStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of eight equal rows all but one part, some at each step; that one stands by itself then."""
    monkeypatch.setattr(shared_layers, "LEAST", 0.3)
    draws = torch.full((8, STEPS), 1e-9, dtype=torch.float64)
    for one in range(2, 8):
        draws[one, one // 2 - 1] = one / 9
    plans, luck = [row(0)] * 8, list(range(8))
    shared = run(model, store, plans, luck=luck, draws=draws)
    plain = run(model, store, plans, luck=luck, draws=draws, shared=False)
    assert [counts[0] for counts in shared.counts] == [1, 3, 5, 8, 8, 8]
    assert plain.decoded.tokens[0] == plain.decoded.tokens[1]
    assert_same(plans, shared, plain)


def test_no_row_is_shared_that_is_written_to_while_it_generates(
    model: LoadedModel, store: PromptStore
) -> None:
    goes_on = Write(2, "v_proj", (3,), LAST, active="every_step(held)")
    plans = [row(0), row(0), RowPlan(0, TOKENS, (goes_on,))]
    shared = run(model, store, plans)
    assert shared.counts == [[3] * N_LAYERS] * STEPS
    assert_same(plans, shared, run(model, store, plans, shared=False))


def test_a_model_whose_layers_are_not_known_runs_every_row(
    model: LoadedModel, store: PromptStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    plans = [row(0)] * 3
    monkeypatch.delitem(TABLE, "llama")
    shared = run(model, store, plans)
    assert shared.counts == [[3] * N_LAYERS] * STEPS
    assert shared.decoded.tokens[0] == shared.decoded.tokens[2]


@pytest.mark.parametrize(
    ("plan", "layer"),
    [
        (row(0), N_LAYERS),
        (row(0, 2), 2),
        (row(0, 2, site="v_proj"), 2),
        # A layer's output is read above it.
        (row(0, 2, site="residual"), 3),
        (row(0, 3, site="residual"), N_LAYERS),
        (RowPlan(0, TOKENS, (row(0, 3).writes[0], row(0, 1).writes[0])), 1),
        # Its own cache stands elsewhere, or it has another length.
        (RowPlan(0, TOKENS + 6, (row(0, 3).writes[0]._replace(mode="append"),)), 0),
    ],
)
def test_the_layer_from_which_a_row_is_its_own(plan: RowPlan, layer: int) -> None:
    assert plan.own_from(N_LAYERS, TOKENS) == layer


def test_hooks_are_gone_afterwards(model: LoadedModel, store: PromptStore) -> None:
    run(model, store, [row(0)] * 3)
    for module in decoder_layers(model.network):
        assert not module._forward_pre_hooks
        assert not module._forward_hooks
