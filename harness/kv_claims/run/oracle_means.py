"""Means as the oracle has them: one prompt at a time, without a cache, and keys never rotated.

Where `kv_claims.run.means` takes keys from a cache and turns them back, here they are taken before
the model turns them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from kv_claims.claims.sites import Spot, Tensor
from kv_claims.models.load import LoadedModel
from kv_claims.run.plain_hooks import capture
from kv_claims.tasks.directions import At


class PlainMeans:
    """Means of a model's tensors over some prompts, made when asked for.

    prompts: gives their tokens. at: their positions, 'all' or the 'last'.
    """

    def __init__(
        self,
        model: LoadedModel,
        prompts: Callable[[], Sequence[Sequence[int]]],
        at: At = "all",
    ) -> None:
        self._model, self._prompts, self._at = model, prompts, at
        self._found: dict[Spot, torch.Tensor] = {}

    @torch.no_grad()
    def of(self, layer: int, tensor: Tensor) -> torch.Tensor:
        """The mean of a layer's tensor, `head d_head`, in float64."""
        if (layer, tensor) not in self._found:
            layers = [0] if tensor == "embed" else range(self._model.n_layers)
            spots = [(each, tensor) for each in layers]
            prompts = self._prompts()
            for prompt in prompts:
                for spot, states in capture(self._model, prompt, spots, normed=True).items():
                    taken = states if self._at == "all" else states[-1:]
                    n = sum(map(len, prompts)) if self._at == "all" else len(prompts)
                    share = taken.double().sum(0) / n
                    self._found[spot] = self._found.get(spot, 0.0) + share
        return self._found[layer, tensor]
