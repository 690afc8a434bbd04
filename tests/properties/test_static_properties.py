"""A law of the static route: whatever batches stood in a memory before, the next one is plain."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kv_claims.claims.positions import Window
from kv_claims.models.load import LoadedModel
from kv_claims.patch.build import build
from kv_claims.patch.memory import Memory
from kv_claims.patch.plan import RowPlan, Write
from kv_claims.patch.store import PromptStore
from kv_claims.run.decode import Decoded, decode
from kv_claims.run.sampling import uniforms
from kv_claims.run.sampling_settings import Sampling
from tests.models.architectures import prompt, tiny
from tests.properties.test_splice_properties import laws

LENGTHS = (3, 9, 16, 17, 18, 33, 40)


@cache
def stored() -> tuple[LoadedModel, PromptStore]:
    model = tiny("llama")
    store = PromptStore(model)
    store.add([prompt(length, length) for length in LENGTHS])
    return model, store


def decoded(rows: list[tuple[int, bool]], steps: int, memory: Memory | None) -> Decoded:
    """Rows of (prompt, patched): a patched one has its first two slots from the longest prompt."""
    model, store = stored()
    write = Write(len(LENGTHS) - 1, "kv", (1,), Window(range(2), range(2)))
    plans = [RowPlan(p, LENGTHS[p], (write,) if patched else ()) for p, patched in rows]
    slab = build(store, plans, None, headroom=steps, memory=memory).slab
    first = [store.tokens[plan.prompt][-1] for plan in plans]
    luck = torch.stack([uniforms(f"row {row}", 0, steps) for row in range(len(plans))])
    kept = range(len(plans))
    return decode(model, slab, first, luck, Sampling(steps), keep=kept)


rows = st.lists(st.tuples(st.integers(0, len(LENGTHS) - 1), st.booleans()), min_size=1, max_size=40)
batches = st.lists(st.tuples(rows, st.integers(1, 20)), min_size=2, max_size=4)


@pytest.mark.slow
@given(batches)
@laws
def test_nothing_of_a_batch_reaches_the_next(
    batches: list[tuple[list[tuple[int, bool]], int]],
) -> None:
    """Between batches memory is spoilt: what is read before it is written would show."""
    memory = Memory()
    for some, steps in batches:
        static, plain = decoded(some, steps, memory), decoded(some, steps, None)
        assert static.tokens == plain.tokens
        for row, logits in plain.logits.items():
            torch.testing.assert_close(static.logits[row], logits, rtol=0, atol=1e-6)
        for piece in memory._pieces:
            piece.fill_(torch.nan)
