"""References for the patched prompt pass, which run prompts from their first token on.

One is the pass itself, told to take nothing from the store. The other shares no code with it: the
oracle's hooks on projections and layers, one row at a time, without any cached prefix.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch

from kv_claims.models.load import LoadedModel
from kv_claims.patch import tails
from kv_claims.patch.plan import RowPlan
from kv_claims.patch.slab import Slab
from kv_claims.patch.store import PromptStore
from kv_claims.run import oracle, plain_hooks


@contextmanager
def whole_prompts() -> Iterator[None]:
    """While this is open, rows and donors that are computed are computed from position 0 on."""

    def computed(plan: RowPlan) -> range:
        recomputed = any(not write.is_splice for write in plan.writes)
        return range(plan.tokens if recomputed else 0)

    def from_the_start(one: range | None, other: range) -> range:
        return range(max(other.stop, one.stop if one else 0))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RowPlan, "computed", property(computed))
        patch.setattr(
            RowPlan, "computed_from_layer", property(lambda plan: 0 if plan.computed else None)
        )
        patch.setattr(tails, "_hull", from_the_start)
        yield


def cache_of(slab: Slab, row: int) -> list[torch.Tensor]:
    """Keys, then values, of a row's cached positions, `head pos d_head` by layer."""
    place = torch.tensor(row)
    first = slab.slots - (int(slab.lengths[row]) - 1)
    return [
        tensor[slab.place(layer, place), :, first : slab.slots]
        for tensors in (slab.keys, slab.values)
        for layer, tensor in enumerate(tensors)
    ]


@torch.no_grad()
def by_oracle(model: LoadedModel, store: PromptStore, plan: RowPlan) -> list[torch.Tensor]:
    """The same, from one forward pass over the whole prompt with the oracle's hooks."""
    tokens = store.tokens[plan.prompt]
    pastes = [
        oracle.Paste(
            donor=store.tokens[write.donor],
            site=write.site,
            layers=write.layers,
            heads=write.heads or tuple(range(model.heads.of(write.site) or 1)),
            window=write.window,
        )
        for write in plan.writes
    ]
    overwrites = [
        one for paste in pastes for one in oracle._overwrites(model, paste, len(tokens), tokens)
    ]
    with plain_hooks.overwriting(model, overwrites, first_position=0):
        cache = oracle._prefill(model, tokens[:-1], first_position=0)
    for paste in pastes:
        if paste.site in oracle.CACHE_SITES:
            oracle._splice(model, cache, paste, tokens[:-1])
    keys, values = ([getattr(x, name)[0] for x in cache.layers] for name in ("keys", "values"))
    return [*keys, *values]
