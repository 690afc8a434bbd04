"""One pass over continuations: the oracle's logits, in few rows, on every architecture."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch

from kv_claims.claims.positions import Window
from kv_claims.models.architectures import TABLE
from kv_claims.models.load import LoadedModel
from kv_claims.patch.build import Built, build
from kv_claims.patch.plan import RowPlan, Write
from kv_claims.patch.store import PromptStore
from kv_claims.run import forced_pass
from kv_claims.run.forced_pass import Row, forced_logits
from kv_claims.run.oracle import Paste, oracle_logits, relative_error
from tests.models.architectures import CONFIGS, OTHERS, prompt, tiny
from tests.run.test_shared_layers import counting

TOKENS, STEPS = 12, 5
WINDOW = Window(*2 * [range(5, 11)])
SAID = [tuple(prompt(STEPS, seed)) for seed in (11, 12)]


def row(layer: int | None = None, tokens: int = TOKENS) -> RowPlan:
    """The first prompt, with the second's cache spliced into a layer."""
    writes = () if layer is None else (Write(1, "kv", (layer,), WINDOW),)
    return RowPlan(0, tokens, writes)


PLANS = [row(), row(1), row(3), RowPlan(2, TOKENS - 3)]
PLACED = [(cache, said) for cache in range(4) for said in (0, 1)]


def stocked(model: LoadedModel) -> PromptStore:
    store = PromptStore(model)
    store.add([prompt(TOKENS - 3, 2), prompt(TOKENS, 0), prompt(TOKENS, 1)])
    order = [store.index(one) for one in (prompt(TOKENS, 0), prompt(TOKENS, 1))]
    assert sorted([*order, store.index(prompt(TOKENS - 3, 2))]) == [0, 1, 2]
    return store


def fed(store: PromptStore) -> tuple[list[RowPlan], list[Row]]:
    """Plans and rows, by the store's own numbers; the last row says one token less."""
    number = [
        store.index(one) for one in (prompt(TOKENS, 0), prompt(TOKENS, 1), prompt(TOKENS - 3, 2))
    ]
    plans = [
        plan._replace(
            prompt=number[plan.prompt],
            writes=tuple(write._replace(donor=number[write.donor]) for write in plan.writes),
        )
        for plan in PLANS
    ]
    rows = [
        Row(cache, (store.tokens[plans[cache].prompt][-1], *SAID[said][:-1]))
        for cache, said in PLACED
    ]
    rows[-1] = rows[-1]._replace(fed=rows[-1].fed[:-1])
    return plans, rows


def built_of(store: PromptStore, plans: list[RowPlan]) -> Built:
    return build(store, plans, None, headroom=STEPS, shared=True)


@pytest.mark.parametrize("name", [*CONFIGS, *OTHERS])
def test_they_are_the_oracles_on_every_architecture(name: str) -> None:
    model = tiny(name)
    store = stocked(model)
    plans, rows = fed(store)
    counts: list[list[int]] = []
    known = model.config.model_type in TABLE
    with counting(model, counts) if known else nullcontext():
        logits = forced_logits(model, built_of(store, plans), rows)
    # Below layer 1, and 3, the patched rows are the unpatched one, for either continuation.
    assert counts == ([[4, 6, 6, 8]] if known else [])
    for found, (cache, said), given in zip(logits, PLACED, rows, strict=True):
        plan, n = plans[cache], len(given.fed)
        pastes = [
            Paste(store.tokens[w.donor], "kv", w.layers, tuple(range(model.n_kv_heads)), WINDOW)
            for w in plan.writes
        ]
        wanted = oracle_logits(model, store.tokens[plan.prompt], SAID[said][:n], pastes)
        assert relative_error(found[:n].cpu(), wanted) < 1e-5


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_in_other_types_they_are_those_of_rows_run_by_themselves(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny("llama", dtype)
    store = stocked(model)
    plans, rows = fed(store)
    together = forced_logits(model, built_of(store, plans), rows)
    monkeypatch.setattr(forced_pass, "has_known_layers", lambda _: False)
    apart = forced_logits(model, built_of(store, plans), rows)
    assert relative_error(together[:-1], apart[:-1]) < {torch.float32: 1e-5}.get(dtype, 5e-2)


def test_where_nothing_is_shared_every_row_is_run() -> None:
    model = tiny("llama")
    store = stocked(model)
    plans, rows = fed(store)
    counts: list[list[int]] = []
    with counting(model, counts):
        forced_logits(model, built_of(store, plans), [rows[0], rows[1], rows[6]])
    assert counts == [[3, 3, 3, 3]]


def test_no_hook_is_left_though_the_model_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    model = replace(tiny("llama"))
    store = stocked(model)
    plans, rows = fed(store)
    built = built_of(store, plans)

    def fails(*_: object, **__: object) -> None:
        raise RuntimeError("it failed")

    with monkeypatch.context() as broken:
        broken.setattr(type(model.network.model.layers[2].mlp), "forward", fails)
        with pytest.raises(RuntimeError, match="it failed"):
            forced_logits(model, built, rows)
    for module in model.network.modules():
        assert not module._forward_hooks
        assert not module._forward_pre_hooks


def test_what_is_written_while_tokens_are_fed_takes_a_cache_for_each_row() -> None:
    model = tiny("llama")
    store = stocked(model)
    plans, rows = fed(store)
    live = plans[1]._replace(
        writes=(Write(plans[1].writes[0].donor, "kv", (1,), WINDOW, active="every_step(held)"),)
    )
    with pytest.raises(ValueError, match="expected a cache for each"):
        forced_logits(model, built_of(store, [live]), [Row(0, rows[0].fed), Row(0, rows[1].fed)])
