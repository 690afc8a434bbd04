"""Where activations are caught on their way through a model, to be overwritten in place.

Keys and values are caught where every attention module hands them to its cache: after rotation
and before attention, in any architecture. A layer's output is caught by a hook on the decoder
layer. What is done with them is the caller's.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers.cache_utils import DynamicLayer

from kv_claims.claims.patch import Tensor
from kv_claims.models.architectures import decoder_layers, output_of, with_output
from kv_claims.models.load import LoadedModel

Edit = Callable[[int, Tensor, torch.Tensor], None]
"""Called with layer, tensor name and the activations `batch head pos d_head`, written in place.

A layer's output has one head, as wide as the model."""


KeysValues = tuple[torch.Tensor, torch.Tensor]


class AllKeptError(Exception):
    """Everything that a forward pass is run for is kept: nothing behind it is wanted."""


class InterceptedLayer(DynamicLayer):
    """A cache layer behind cached positions that lets an edit see keys and values before they
    are read. It keeps nothing itself.

    cached: positions before the first that is run, as columns. before: from a layer, their keys
    and values, `batch head pos d_head`. keep: called with layer, keys and values that were run, as
    attention reads them.
    """

    def __init__(
        self,
        layer: int,
        edit: Edit,
        *,
        cached: int,
        before: Callable[[int], KeysValues],
        keep: Callable[[int, torch.Tensor, torch.Tensor], None],
    ) -> None:
        super().__init__()
        self._layer, self._edit, self._cached = layer, edit, cached
        self._before, self._keep = before, keep

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_args: Any, **_kwargs: Any
    ) -> KeysValues:
        key_states, value_states = key_states.clone(), value_states.clone()
        self._edit(self._layer, "k", key_states)
        self._edit(self._layer, "v", value_states)
        self._keep(self._layer, key_states, value_states)
        if not self._cached:
            return key_states, value_states
        keys, values = self._before(self._layer)
        return torch.cat([keys, key_states], 2), torch.cat([values, value_states], 2)

    def get_seq_length(self) -> int:
        return self._cached


@contextmanager
def residual_edited(
    model: LoadedModel, layers: Collection[int], edit: Edit | None
) -> Iterator[None]:
    """While this is open, an edit sees the output of these decoder layers."""
    handles = []
    if edit is not None and layers:
        modules = decoder_layers(model.network)
        handles = [
            modules[layer].register_forward_hook(_hook(layer, edit))
            for layer in sorted(set(layers))
        ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _hook(layer: int, edit: Edit) -> Callable[[Any, Any, Any], Any]:
    def hook(_module: Any, _inputs: Any, output: Any) -> Any:
        hidden = output_of(output).clone()
        edit(layer, "residual", hidden[:, None])
        return with_output(output, hidden)

    return hook
