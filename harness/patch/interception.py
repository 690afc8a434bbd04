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

from harness.models.architectures import decoder_layers, output_of, with_output
from harness.models.load import LoadedModel
from harness.spec import Tensor

Edit = Callable[[int, Tensor, torch.Tensor], None]
"""Called with layer, tensor name and the activations `batch head pos d_head`, written in place.

A layer's output has one head, as wide as the model."""


class InterceptedLayer(DynamicLayer):
    """A cache layer that lets an edit see keys and values before they are kept and read."""

    def __init__(self, layer: int, edit: Edit) -> None:
        super().__init__()
        self._layer, self._edit = layer, edit

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        key_states, value_states = key_states.clone(), value_states.clone()
        self._edit(self._layer, "k", key_states)
        self._edit(self._layer, "v", value_states)
        kept: tuple[torch.Tensor, torch.Tensor] = super().update(
            key_states, value_states, *args, **kwargs
        )
        return kept


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
