"""What is written where no prompt is the donor: one vector a layer, tensor and head.

Keys are held as they are before rotation, behind their norm, and turned to each position that they
are written at: so a mean over positions is one of keys, and no average of angles.
Does not: know where the vectors come from; `kv_claims.run.constants` does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import torch

from kv_claims.claims.sites import Spot, Tensor

Vectors = Callable[[int, Tensor], torch.Tensor]
"""The vectors of a layer's tensor, `head d_head`, or `1 d_head` for all heads alike; what has no
heads has one, as wide as the model."""


@dataclass(frozen=True)
class Constant:
    """Vectors by layer and tensor; equal where they have one name.

    name: tells it apart from every other of a run. vectors: None: zeros of whatever shape.
    prepare: called with all spots before a model runs patched, where vectors must be computed.
    """

    name: str
    vectors: Vectors | None = field(default=None, compare=False)
    prepare: Callable[[Iterable[Spot]], None] | None = field(default=None, compare=False)

    def of(self, layer: int, tensor: Tensor, like: torch.Tensor) -> torch.Tensor:
        """Its vectors for a tensor `batch head pos d_head`, `head d_head`, in that one's type."""
        if self.vectors is None:
            return like.new_zeros(like.shape[1], like.shape[3])
        # One for all heads, or one for each.
        return self.vectors(layer, tensor).to(like.device, like.dtype).expand(like.shape[1], -1)


ZERO = Constant("zero")
