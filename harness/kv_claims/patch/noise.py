"""Norm-matched noise: what a patch would write, with its direction replaced by chance.

Each written vector (one layer, head and position) keeps the length of the source's vector that
would have stood there; its direction is uniform on the sphere. The draw depends on pair, seed,
layer, tensor and step alone, never on the batch.
"""

from __future__ import annotations

import hashlib

import numpy as np
import torch


def noise_like(vectors: torch.Tensor, stream: str) -> torch.Tensor:
    """Vectors of the same norms in random directions.

    vectors: `pos head d_head`. stream: names the draw; equal names give equal directions.
    """
    return with_norms(directions(tuple(vectors.shape), stream), vectors)


def directions(shape: tuple[int, ...], stream: str) -> torch.Tensor:
    """Unit vectors along the last axis, float64, on the CPU."""
    direction = torch.from_numpy(drawing(stream).standard_normal(shape))
    unit: torch.Tensor = direction / direction.norm(dim=-1, keepdim=True)
    return unit


def drawing(stream: str) -> np.random.Generator:
    """The luck of a name: equal names have the same."""
    digest = hashlib.sha256(stream.encode()).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest[:16], "little")))


def with_norms(unit: torch.Tensor, vectors: torch.Tensor) -> torch.Tensor:
    """Unit vectors stretched to the norms of others of the same shape, in their dtype."""
    work = torch.promote_types(vectors.dtype, torch.float32)
    norms = vectors.to(work).norm(dim=-1, keepdim=True)
    noise: torch.Tensor = (unit.to(vectors.device, work) * norms).to(vectors.dtype)
    return noise
