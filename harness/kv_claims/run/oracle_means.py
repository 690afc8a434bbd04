"""Means as the oracle has them: one prompt at a time, without a cache, and keys never rotated.

Where `kv_claims.run.means` takes keys from a cache and turns them back, here they are taken before
the model turns them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from kv_claims.claims.sites import Spot, Tensor
from kv_claims.models.load import LoadedModel
from kv_claims.patch.constant import Constant
from kv_claims.run.plain_hooks import capture


class PlainMeans:
    """Means of a model's tensors over some prompts and all their positions, made when asked for.

    prompts: gives their tokens.
    """

    def __init__(self, model: LoadedModel, prompts: Callable[[], Sequence[Sequence[int]]]) -> None:
        self._model, self._prompts = model, prompts
        self._found: dict[Spot, torch.Tensor] = {}

    @property
    def constant(self) -> Constant:
        """Them, as what is written."""
        return Constant("mean", self.of)

    @torch.no_grad()
    def of(self, layer: int, tensor: Tensor) -> torch.Tensor:
        """The mean of a layer's tensor, `head d_head`, in float64."""
        if (layer, tensor) not in self._found:
            layers = [0] if tensor == "embed" else range(self._model.n_layers)
            spots = [(each, tensor) for each in layers]
            prompts = self._prompts()
            for prompt in prompts:
                for spot, states in capture(self._model, prompt, spots, normed=True).items():
                    share = states.double().sum(0) / sum(map(len, prompts))
                    self._found[spot] = self._found.get(spot, 0.0) + share
        return self._found[layer, tensor]
