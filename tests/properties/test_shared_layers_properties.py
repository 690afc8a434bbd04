"""A law of shared rows: whatever was said when, and whoever left, each row is as by itself."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kv_claims.claims.positions import Window
from kv_claims.claims.sites import SITES, Site, heads_of
from kv_claims.models.load import LoadedModel
from kv_claims.models.rotary import Rotation, rotation_of
from kv_claims.patch.build import build
from kv_claims.patch.plan import RowPlan, Write
from kv_claims.patch.slab import Slab
from kv_claims.patch.store import PromptStore
from kv_claims.run import shared_layers
from kv_claims.run.decode import Decoded, decode
from kv_claims.run.sampling_settings import Sampling
from tests.models.architectures import VOCAB, prompt, tiny
from tests.properties.test_splice_properties import laws

N_LAYERS, STEPS, LUCKS = 4, 8, 3
LENGTHS = (9, 9, 9, 12)
STOPS = frozenset(range(0, VOCAB, 16))


MODELS = ("llama", "mistral", "gpt_neox")


@cache
def stored(name: str) -> tuple[LoadedModel, PromptStore, Rotation]:
    model = tiny(name)
    model.__dict__["stop_ids"] = STOPS
    store = PromptStore(model)
    store.add([prompt(length, seed) for seed, length in enumerate(LENGTHS)])
    rotation = rotation_of(model.network)
    return model, store, rotation


class Row(NamedTuple):
    """One row: prompts of the store, what is pasted over its last positions, and its luck."""

    base: int
    donor: int
    site: Site
    layers: frozenset[int]
    width: int
    alpha: float
    heads: tuple[int, ...] | None
    luck: int

    def plan(self, store: PromptStore) -> RowPlan:
        tokens, given = store.lengths[self.base], store.lengths[self.donor]
        if not self.layers:
            return RowPlan(self.base, tokens)
        left_out = 1 if self.site in ("kv", "k", "v") else 0
        source, base = (range(n - left_out - self.width, n - left_out) for n in (given, tokens))
        heads = self.heads if heads_of(self.site) else None
        layers = (0,) if self.site == "embed" else tuple(sorted(self.layers))
        write = Write(self.donor, self.site, layers, Window(source, base), heads, self.alpha)
        return RowPlan(self.base, tokens, (write,))


def decoded(
    name: str, rows: list[Row], steps: int, *, shared: bool, stops: bool
) -> tuple[Decoded, Slab]:
    model, store, rotation = stored(name)
    plans = [row.plan(store) for row in rows]
    built = build(store, plans, rotation, headroom=steps, shared=shared)
    draws = torch.rand(
        LUCKS, steps, dtype=torch.float64, generator=torch.Generator().manual_seed(3)
    )
    found = decode(
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
    return found, built.slab


prompts = st.integers(0, len(LENGTHS) - 1)
rows = st.builds(
    Row,
    base=prompts,
    donor=prompts,
    site=st.sampled_from(SITES),
    layers=st.frozensets(st.integers(0, N_LAYERS - 1), max_size=2),
    width=st.integers(1, 6),
    alpha=st.sampled_from([1.0, 1.0, 0.5]),
    heads=st.sampled_from([None, None, (1,)]),
    luck=st.integers(0, LUCKS - 1),
)


@given(
    name=st.sampled_from(MODELS),
    rows=st.lists(rows, min_size=2, max_size=24),
    steps=st.integers(1, STEPS),
    stops=st.booleans(),
    # However little is shared, or until less than a part is.
    least=st.sampled_from([1e-9, 0.1, 0.3]),
)
@laws
def test_a_row_is_as_by_itself(
    name: str, rows: list[Row], steps: int, stops: bool, least: float
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shared_layers, "LEAST", least)
        shared, of_shared = decoded(name, rows, steps, shared=True, stops=stops)
    plain, of_plain = decoded(name, rows, steps, shared=False, stops=stops)
    assert shared.tokens == plain.tokens
    assert shared.stopped == plain.stopped
    for place, logits in plain.logits.items():
        torch.testing.assert_close(shared.logits[place], logits, rtol=0, atol=1e-6)
        generated = torch.arange(len(plain.tokens[place]))
        for layer in range(N_LAYERS):
            values = [
                slab.values_at(layer, torch.full_like(generated, place), slab.slots + generated)
                for slab in (of_shared, of_plain)
            ]
            torch.testing.assert_close(*values, rtol=0, atol=1e-6)
