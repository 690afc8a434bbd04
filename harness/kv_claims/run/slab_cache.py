"""A transformers cache on a plain slab, and the mask of its padding."""

from __future__ import annotations

from typing import Any

import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from kv_claims.patch.interception import Edit
from kv_claims.patch.live import Live
from kv_claims.patch.slab import Slab


def padding_mask(slab: Slab, steps: int) -> torch.Tensor:
    """1 where a row has a position, prompt and so many steps, `batch pos`."""
    device = slab.lengths.device
    mask = torch.ones(len(slab.lengths), slab.slots + steps, dtype=torch.long, device=device)
    positions = torch.arange(slab.slots, device=device)
    mask[:, : slab.slots] = positions >= (slab.slots - slab.lengths + 1)[:, None]
    return mask


def as_cache(slab: Slab, live: Live | None = None, start: int = 0) -> DynamicCache:
    """A transformers cache that reads and grows the slab in place.

    live: sees keys and values before they are kept and read. start: steps that are in the slab.
    """
    edit = live.edit if live else None
    cache = DynamicCache()
    cache.layers = [_SlabLayer(layer, slab, edit, start) for layer in range(len(slab.keys))]
    cache.layer_class_to_replicate = None
    return cache


class _SlabLayer(DynamicLayer):
    """A cache layer on memory taken once: growing writes a position instead of copying all."""

    def __init__(self, layer: int, slab: Slab, edit: Edit | None, start: int) -> None:
        super().__init__()
        keys, values = slab.keys[layer], slab.values[layer]
        self._layer, self._edit, self._filled = layer, edit, slab.slots + start
        self._whole_keys, self._whole_values = keys, values
        self.dtype, self.device = keys.dtype, keys.device
        self.keys, self.values = keys[:, :, : self._filled], values[:, :, : self._filled]
        self.is_initialized = True

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        start, self._filled = self._filled, self._filled + key_states.shape[-2]
        self._whole_keys[:, :, start : self._filled] = key_states
        self._whole_values[:, :, start : self._filled] = value_states
        if self._edit is not None:
            self._edit(self._layer, "k", self._whole_keys[:, :, start : self._filled])
            self._edit(self._layer, "v", self._whole_values[:, :, start : self._filled])
        self.keys = self._whole_keys[:, :, : self._filled]
        self.values = self._whole_values[:, :, : self._filled]
        return self.keys, self.values

    def get_seq_length(self) -> int:
        return self._filled
