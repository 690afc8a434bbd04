"""One forward pass over continuations, each fed behind a patched cache.

All that is fed behind one cache reads one copy of it. Below the lowest layer that its patch
changes, a row computes what the unpatched prompt does with the same tokens: there one row is run
for all that are fed the same, as while decoding (`kv_claims.run.shared_layers`). What is written
while tokens are fed is written into rows by number: where something is, each row has a cache of its
own and is run in every layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import NamedTuple

import torch
from transformers import DynamicCache

from kv_claims.claims.sites import Tensor
from kv_claims.models.forward import with_cache
from kv_claims.models.load import LoadedModel
from kv_claims.patch.build import Built
from kv_claims.patch.interception import Edit, InterceptedLayer, KeysValues, edited
from kv_claims.patch.slab import Slab
from kv_claims.run.shared_layers import (
    EVERY_ROW,
    Picks,
    has_known_layers,
    leaders_of,
    picking,
    picks_of,
)
from kv_claims.run.slab_cache import padding_mask


class Row(NamedTuple):
    """What is fed behind which cache. at: the row of the slab. fed: tokens, the last prompt token
    first."""

    at: int
    fed: tuple[int, ...]


@torch.no_grad()
def forced_logits(model: LoadedModel, built: Built, rows: Sequence[Row]) -> torch.Tensor:
    """Logits `row step vocab` of everything that is fed; behind a row's end they mean nothing.

    built: with a shared slab; where something is live, a row of it for each row, in their order.
    Rows are padded at their right end, where causal attention keeps the padding out of sight.
    """
    slab, live = built.slab, built.live or None
    device, steps = model.device, max(len(row.fed) for row in rows)
    at = torch.tensor([row.at for row in rows], device=device)
    if live is not None and at.tolist() != list(range(len(slab.lengths))):
        raise ValueError("rows that are written to while they are fed: expected a cache for each")
    ids = torch.zeros(len(rows), steps, dtype=torch.long)
    for place, row in enumerate(rows):
        ids[place, : len(row.fed)] = torch.tensor(row.fed)
    picks = Picks() if live is not None or not has_known_layers(model) else _picks(slab, at, rows)
    spots, edit = ([], None) if live is None else (live.spots, live.edit)
    if live is not None:
        live.begin(range(steps))
    picked = picking(model, lambda: picks) if picks else nullcontext()
    with edited(model, spots, edit), picked:
        logits: torch.Tensor = model.network(
            input_ids=ids.to(device),
            attention_mask=padding_mask(slab, steps)[at],
            position_ids=(slab.lengths[at] - 1)[:, None] + torch.arange(steps, device=device),
            **with_cache(model.network, cache_behind(slab, at, picks, edit)),
            use_cache=True,
        ).logits
    return logits


def cache_behind(slab: Slab, at: torch.Tensor, picks: Picks, edit: Edit | None) -> DynamicCache:
    """A cache that hands every row that is run the prompt it continues, and keeps nothing new.

    at: the row of the slab of each row, `[row]`. edit: sees keys and values before they are read.
    """

    def before(layer: int) -> KeysValues:
        rows = (picks.picked[layer] if picks else EVERY_ROW).rows
        place = slab.place(layer, at if rows is None else at[rows])
        return slab.keys[layer][place], slab.values[layer][place]

    cache = DynamicCache()
    cache.layers = [
        InterceptedLayer(
            layer, edit or _no_edit, cached=slab.slots, before=before, keep=_keep_nothing
        )
        for layer in range(len(slab.keys))
    ]
    cache.layer_class_to_replicate = None
    return cache


def _picks(slab: Slab, at: torch.Tensor, rows: Sequence[Row]) -> Picks:
    """Which rows are run in which layer: below its patch, of those that are fed the same one."""
    assert slab.shared is not None
    prompts = slab.shared.prompts[at].tolist()
    said = [(prompt, row.fed) for prompt, row in zip(prompts, rows, strict=True)]
    number = {one: i for i, one in enumerate(dict.fromkeys(said))}
    groups = torch.tensor([number[one] for one in said], device=at.device)
    own_from = slab.shared.own_from[at]
    return picks_of(own_from, leaders_of(own_from, groups), len(slab.keys))


def _no_edit(_layer: int, _tensor: Tensor, _states: torch.Tensor) -> None:
    """Nothing is written."""


def _keep_nothing(_layer: int, _keys: torch.Tensor, _values: torch.Tensor) -> None:
    """No token is fed after these."""
