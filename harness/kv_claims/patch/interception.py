"""Where activations are caught on their way through a model, to be overwritten in place.

Keys and values are caught where every attention module hands them to its cache: after rotation
and before attention, in any architecture. Everything else is caught by a hook on the module that
gives it or is given it (`models.architectures`). What is done with them is the caller's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers.cache_utils import DynamicLayer

from kv_claims.claims.sites import IN_CACHE, Spot, Tensor, in_order
from kv_claims.models.architectures import Anatomy, anatomy_of, output_of, with_output
from kv_claims.models.load import LoadedModel

Edit = Callable[[int, Tensor, torch.Tensor], None]
"""Called with layer, tensor name and the activations `batch head pos d_head`, written in place.

What has no heads has one, as wide as the model."""


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
def edited(model: LoadedModel, spots: Iterable[Spot], edit: Edit | None) -> Iterator[None]:
    """While this is open, an edit sees these tensors, but for those that the cache catches."""
    hooked = sorted({spot for spot in spots if spot[1] not in IN_CACHE}, key=in_order)
    handles = []
    if edit is not None and hooked:
        anatomy = anatomy_of(model.network)
        handles = [_hook(anatomy, spot, edit) for spot in hooked]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _hook(anatomy: Anatomy, spot: Spot, edit: Edit) -> Any:
    """Hang an edit on the module of a spot; gives the handle."""
    layer, tensor = spot

    def see(states: torch.Tensor) -> None:
        edit(layer, tensor, anatomy.part(states, tensor).transpose(1, 2))

    def behind(_module: Any, _args: Any, result: Any) -> Any:
        states = output_of(result).clone()
        see(states)
        return with_output(result, states)

    def before(_module: Any, args: Any, kwargs: Any) -> None:
        # In place: a block adds to the stream the very tensor that it gives its norms.
        see(args[0] if args else kwargs["hidden_states"])

    module = anatomy.module(layer, tensor)
    if anatomy.at(tensor) == "input":
        return module.register_forward_pre_hook(before, with_kwargs=True)
    return module.register_forward_hook(behind)
