"""A law of shared rows: whatever was said when, and whoever left, each row is as by itself."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from harness.models.load import LoadedModel
from harness.models.rotary import Rotation, rotation_of
from harness.patch.build import build
from harness.patch.plan import RowPlan, Write
from harness.patch.store import PromptStore
from harness.run import trunks
from harness.run.decode import Decoded, decode
from harness.run.sampling_settings import Sampling
from harness.spec import Site, Window
from tests.models.architectures import VOCAB, prompt, tiny
from tests.properties.test_splice_properties import laws

N_LAYERS, STEPS, LUCKS = 4, 8, 3
LENGTHS = (9, 9, 9, 12)
STOPS = frozenset(range(0, VOCAB, 16))


@cache
def stored() -> tuple[LoadedModel, PromptStore, Rotation]:
    model = tiny("llama")
    model.__dict__["stop_ids"] = STOPS
    store = PromptStore(model)
    store.add([prompt(length, seed) for seed, length in enumerate(LENGTHS)])
    return model, store, rotation_of(model.network)


class Row(NamedTuple):
    """One row: prompts of the store, what is pasted how far from the end, and its luck."""

    base: int
    donor: int
    site: Site
    layers: frozenset[int]
    width: int
    luck: int

    def plan(self, store: PromptStore) -> RowPlan:
        tokens, given = store.lengths[self.base], store.lengths[self.donor]
        if not self.layers:
            return RowPlan(self.base, tokens)
        left_out = 1 if self.site in ("kv", "k", "v") else 0
        source, base = (range(n - left_out - self.width, n - left_out) for n in (given, tokens))
        write = Write(self.donor, self.site, tuple(sorted(self.layers)), Window(source, base))
        return RowPlan(self.base, tokens, (write,))


def decoded(rows: list[Row], steps: int, *, shared: bool, stops: bool) -> Decoded:
    model, store, rotation = stored()
    plans = [row.plan(store) for row in rows]
    built = build(store, plans, rotation, room=steps, shared=shared)
    draws = torch.rand(LUCKS, steps, dtype=torch.float64, generator=torch.manual_seed(3))
    return decode(
        model,
        built.slab,
        [store.tokens[plan.prompt][-1] for plan in plans],
        draws[[row.luck for row in rows]],
        # Cold, so that rows of one luck often say the same though they are patched.
        Sampling(steps, 0.02),
        live=built.live or None,
        keep=range(len(rows)),
        past_stops=not stops,
    )


prompts = st.integers(0, len(LENGTHS) - 1)
rows = st.builds(
    Row,
    base=prompts,
    donor=prompts,
    site=st.sampled_from(["kv", "kv", "v", "v_proj", "residual"]),
    layers=st.frozensets(st.integers(0, N_LAYERS - 1), max_size=2),
    width=st.integers(1, 6),
    luck=st.integers(0, LUCKS - 1),
)


@given(st.lists(rows, min_size=2, max_size=24), st.integers(1, STEPS), st.booleans())
@laws
def test_a_row_is_as_by_itself(rows: list[Row], steps: int, stops: bool) -> None:
    with pytest.MonkeyPatch.context() as patch:
        # However little is shared.
        patch.setattr(trunks, "LEAST", 1e-9)
        shared = decoded(rows, steps, shared=True, stops=stops)
    plain = decoded(rows, steps, shared=False, stops=stops)
    assert shared.tokens == plain.tokens
    assert shared.stopped == plain.stopped
    for place, logits in plain.logits.items():
        torch.testing.assert_close(shared.logits[place], logits, rtol=0, atol=1e-6)
