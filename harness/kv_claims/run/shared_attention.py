"""Attention of rows that share prompts: each prompt is read once, by all of its rows together.

A row attends to its prompt's variant (`kv_claims.patch.sharing`) and to what it generated. Both
parts are a softmax of their own and are merged by their weights, which is the softmax over all:
softmax([a, b]) = w softmax(a) + (1 - w) softmax(b), w = sigmoid(logsumexp(a) - logsumexp(b)).

It stands in for a model's own attention through transformers' `AttentionInterface`, one query a
row, so any model that asks that interface can use it. It knows scaled dot products and nothing
else (no soft caps, no sinks, no windows); `kv_claims.run.routes` says when it is taken.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from transformers import AttentionInterface, DynamicCache
from transformers.cache_utils import DynamicLayer

from kv_claims.models.load import LoadedModel
from kv_claims.patch.interception import Edit
from kv_claims.patch.live import Live
from kv_claims.patch.sharing import round_up
from kv_claims.patch.slab import Slab
from kv_claims.run.shared_layers import Picked

NAME = "kv_claims_shared"
_SLAB, _UNFILLED, _PICKED = "kv_claims_slab", "kv_claims_unfilled", "kv_claims_picked"
PickedIn = Callable[[int], Picked]
"""Says of a layer which rows are run in it."""
_ELSE = ("softcap", "s_aux", "position_bias", "sinks")


class NotPlainAttentionError(RuntimeError):
    """A model's attention is more than scaled dot products, or hands over more than a query."""


class _Part(NamedTuple):
    """Attention over some of the keys. out: `... d_head`. weight: log of the sum, `... 1`."""

    out: torch.Tensor
    weight: torch.Tensor


def beyond_products(more: Mapping[str, Any]) -> list[str]:
    """What a model asks of its attention besides scaled dot products."""
    return [name for name in _ELSE if more.get(name) is not None]


def shared_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    scaling: float | None = None,
    **more: Any,
) -> tuple[torch.Tensor, None]:
    """One query of each row that is run over its prompt's variant and over what it generated.

    query: `row head 1 d_head`. key, value: every row's headroom, `row kv_head step d_head`.
    Returns `row 1 head d_head`.
    """
    slab: Slab | None = more.get(_SLAB)
    unknown = beyond_products(more)
    if slab is None or slab.shared is None or query.shape[2] != 1 or unknown or module.training:
        raise NotPlainAttentionError(
            f"{type(module).__name__}: {unknown or 'not one query a row of a shared slab'}"
        )
    if attention_mask is not None:
        raise NotPlainAttentionError(f"{type(module).__name__}: it brings a mask")
    layer = int(module.layer_idx)  # type: ignore[arg-type]
    rows, heads, _, width = query.shape
    kv_heads = key.shape[1]
    scaled = query * (width**-0.5 if scaling is None else scaling)
    grouped = scaled.reshape(rows, kv_heads, heads // kv_heads, width)
    own = _over_rooms(grouped, key, value, more[_UNFILLED], more[_PICKED](layer))
    prompt = _over_prompts(grouped, slab, layer)
    out = torch.lerp(own.out, prompt.out, torch.sigmoid(prompt.weight - own.weight))
    return out.view(rows, 1, heads, width), None


def _over_rooms(
    query: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    unfilled: torch.Tensor,
    picked: Picked,
) -> _Part:
    """Attention of rows that are run over what they generated; as `_over_prompts`.

    Rooms are read where they stand: to copy some of them takes longer than to ask all of them,
    those of other rows for what their leader asks.
    """
    asked = query if picked.rows is None else query[picked.stand_in]
    part = _attend(asked.flatten(0, 1), keys.flatten(0, 1), values.flatten(0, 1), unfilled)
    if picked.rows is None:
        return part
    by_row = (of.view(*keys.shape[:2], *of.shape[1:]) for of in part)
    return _Part(*(of[picked.rows].flatten(0, 1) for of in by_row))


def _over_prompts(query: torch.Tensor, slab: Slab, layer: int) -> _Part:
    """Attention of every row that is run over its variant; query `row kv_head group d_head`.

    Returns `row*kv_head group d_head`, and weights.
    """
    assert slab.shared is not None
    layout = slab.shared.layouts[layer]
    kv_heads, group, width = query.shape[1:]
    alone = len(layout.blocks) == 1 and layout.blocks[0].readers == 1
    sorted_query = query if alone and len(query) == 1 else query[layout.order]
    outs: list[torch.Tensor] = []
    weights: list[torch.Tensor] = []
    for block in layout.blocks:
        n, readers = block.variants.stop - block.variants.start, block.readers
        # Rows of a variant next to each other, behind its heads: one matrix product for all.
        together = sorted_query[block.rows].view(n, readers, kv_heads, group, width)
        together = together.transpose(1, 2).reshape(n * kv_heads, readers * group, width)
        keys, values = (
            tensor[layer][block.variants, :, block.first :].flatten(0, 1)
            for tensor in (slab.keys, slab.values)
        )
        hidden = block.hidden
        if hidden is not None:
            hidden = hidden.repeat_interleave(kv_heads, 0)[:, None]
        part = _attend(together, keys, values, hidden)
        for found, of in ((outs, part.out), (weights, part.weight)):
            back = of.view(n, kv_heads, readers, group, -1).transpose(1, 2)
            found.append(back.reshape(n * readers, kv_heads, group, -1))
    out, weight = (torch.cat(found)[layout.back].flatten(0, 1) for found in (outs, weights))
    return _Part(out, weight)


def _attend(
    query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, hidden: torch.Tensor | None
) -> _Part:
    """Scaled queries `batch query d_head` over `batch pos d_head`; hidden is added to scores."""
    scores = torch.bmm(query, keys.transpose(1, 2))
    if hidden is not None:
        scores += hidden
    shares = scores.softmax(-1)
    # The largest share is 1 / sum(exp(score - largest score)).
    weight = scores.amax(-1, keepdim=True) - shares.amax(-1, keepdim=True).log()
    return _Part(torch.bmm(shares, values), weight)


class _RoomLayer(DynamicLayer):
    """A cache layer that keeps what is generated, and leaves the prompt where it stands."""

    def __init__(
        self, layer: int, slab: Slab, edit: Edit | None, start: int, picked: PickedIn
    ) -> None:
        super().__init__()
        assert slab.shared is not None
        self._layer, self._edit, self._slots, self._filled = layer, edit, slab.slots, start
        self._picked = picked
        self._new_keys = slab.shared.new_keys[layer]
        self._new_values = slab.shared.new_values[layer]
        self.dtype, self.device = self._new_keys.dtype, self._new_keys.device
        self.keys, self.values = self._new_keys[:, :, :0], self._new_values[:, :, :0]
        self.is_initialized = True

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        start, self._filled = self._filled, self._filled + key_states.shape[-2]
        picked = self._picked(self._layer).rows
        rows = slice(None) if picked is None else picked
        self._new_keys[rows, :, start : self._filled] = key_states
        self._new_values[rows, :, start : self._filled] = value_states
        if self._edit is not None:
            self._edit(self._layer, "k", self._new_keys[:, :, start : self._filled])
            self._edit(self._layer, "v", self._new_values[:, :, start : self._filled])
        read = round_up(self._filled)
        self.keys, self.values = self._new_keys[:, :, :read], self._new_values[:, :, :read]
        return self.keys, self.values

    def get_seq_length(self) -> int:
        return self._slots + self._filled


def as_room(slab: Slab, live: Live | None, start: int, picked: PickedIn) -> DynamicCache:
    """A transformers cache that fills a shared slab's headroom.

    live: sees keys and values before they are kept and read. start: steps that are in the headroom.
    picked: says which rows are run in a layer; nothing is live where these are not all.
    """
    edit = live.edit if live else None
    cache = DynamicCache()
    cache.layers = [_RoomLayer(layer, slab, edit, start, picked) for layer in range(len(slab.keys))]
    cache.layer_class_to_replicate = None
    return cache


@contextmanager
def attending(
    model: LoadedModel, name: str = NAME, attention: Callable[..., Any] = shared_attention
) -> Iterator[None]:
    """While this is open, the model attends by another function, which is known by a name."""
    config = model.network.config
    before = config._attn_implementation
    # No mask is registered by this name, so transformers builds none; one of four axes that it is
    # given goes through as it is.
    AttentionInterface.register(name, attention)
    config._attn_implementation = name
    try:
        yield
    finally:
        config._attn_implementation = before


def arguments(slab: Slab, step: int, picked: PickedIn) -> dict[str, Any]:
    """What a model's call must be given while it attends so; step: tokens in the headroom."""
    assert slab.shared is not None
    filled, like = step + 1, slab.keys[0]
    unfilled = like.new_zeros(round_up(filled))
    unfilled[filled:] = -torch.inf
    return {_SLAB: slab, _UNFILLED: unfilled, _PICKED: picked}
