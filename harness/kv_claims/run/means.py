"""Means of activations over prompts and positions, which a patch writes, or whose difference.

Every prompt counts with all its T positions, its start of text included, so that a long prompt
weighs more; or with its last one. Keys are turned back to position 0 before they are averaged
(`patch.constant`). A prompt is run unpatched; of a tensor, all layers are taken at once.

Promises: sums are of float64, and prompts are taken in one order, so that a mean is the same in
every run on a machine. Does not: know which prompts; `kv_claims.run.constants` does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from kv_claims.claims.sites import IN_CACHE, Spot, Tensor
from kv_claims.models.forward import with_cache
from kv_claims.models.load import LoadedModel
from kv_claims.models.rotary import rotation_of
from kv_claims.patch.interception import edited
from kv_claims.patch.store import PREFILL_TOKENS
from kv_claims.tasks.directions import At

Prompts = Callable[[], Sequence[Sequence[int]]]


class Means:
    """Means of a model's tensors over some prompts, computed when first prepared.

    prompts: gives their tokens. at: their positions, 'all' or the 'last'.
    """

    def __init__(self, model: LoadedModel, prompts: Prompts, at: At = "all") -> None:
        self._model, self._prompts, self._at = model, prompts, at
        self._found: dict[Spot, torch.Tensor] = {}

    def prepare(self, spots: Iterable[Spot]) -> None:
        """Compute what is not there yet. Runs the model, so no patch may be on."""
        wanted = sorted({spot[1] for spot in spots if spot not in self._found})
        if wanted:
            self._found |= _means(self._model, self._prompts(), wanted, self._at)

    def of(self, layer: int, tensor: Tensor) -> torch.Tensor:
        """The mean of a layer's tensor, `head d_head`, in float64. It must be prepared."""
        return self._found[layer, tensor]


@torch.no_grad()
def _means(
    model: LoadedModel, prompts: Sequence[Sequence[int]], tensors: Sequence[Tensor], at: At
) -> dict[Spot, torch.Tensor]:
    sums: dict[Spot, torch.Tensor] = {}
    layers = range(model.n_layers)
    spots = [
        (layer, tensor)
        for tensor in tensors
        for layer in layers[: 1 if tensor == "embed" else None]
    ]
    rotation = rotation_of(model.network) if "k" in tensors else None
    for batch in _batches(prompts):
        width = len(batch[-1])
        # With causal attention no token sees the padding behind it.
        ids = torch.tensor([[*prompt, *[0] * (width - len(prompt))] for prompt in batch])
        first = [0 if at == "all" else len(prompt) - 1 for prompt in batch]
        there = torch.tensor(
            [
                [start <= position < len(prompt) for position in range(width)]
                for start, prompt in zip(first, batch, strict=True)
            ]
        )
        real = there.to(model.device)[:, None, :, None]

        def add(
            layer: int, tensor: Tensor, states: torch.Tensor, real: torch.Tensor = real
        ) -> None:
            total = torch.where(real, states.double(), 0.0).sum((0, 2))
            sums[layer, tensor] = sums.get((layer, tensor), 0.0) + total

        cache = DynamicCache()
        cache.layers = [DynamicLayer() for _ in layers]
        cache.layer_class_to_replicate = None
        with edited(model, spots, add):
            model.network(
                input_ids=ids.to(model.device),
                **with_cache(model.network, cache),
                use_cache=True,
                logits_to_keep=1,
            )
        for layer, tensor in spots:
            if tensor not in IN_CACHE:
                continue
            kept = cache.layers[layer]
            if tensor == "v":
                add(layer, tensor, kept.values)
            elif rotation is not None:
                back = -torch.arange(width, device=model.device).repeat(len(batch))
                placed = kept.keys.transpose(1, 2)
                keys = rotation(layer, placed.flatten(0, 1), back)
                keys = rotation.scaled(layer, keys, back=True)
                add(layer, tensor, keys.view(placed.shape).transpose(1, 2))
    n_positions = sum(map(len, prompts)) if at == "all" else len(prompts)
    return {spot: total / n_positions for spot, total in sums.items()}


def _batches(prompts: Sequence[Sequence[int]]) -> Iterable[list[Sequence[int]]]:
    """Prompts by ascending length, so many at once that a pass holds few tokens."""
    batch: list[Sequence[int]] = []
    for prompt in sorted(prompts, key=lambda one: (len(one), tuple(one))):
        if batch and (len(batch) + 1) * len(prompt) > PREFILL_TOKENS:
            yield batch
            batch = []
        batch.append(prompt)
    if batch:
        yield batch
