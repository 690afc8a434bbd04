"""A planted model as linear maps over the few dimensions that matter, for the truth.

Promises: follows from the description in `catalog` alone, never from weights or the network code.
Does not: run anything (`simulate`).
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from harness.models.planted.catalog import CONTENT, D_HEAD, DIMS, N_LAYERS, Dim, Planted

Floats = npt.NDArray[np.float64]
CONTENT_SQUARE = CONTENT**2 / 3
"""Mean square of one component of content, which is uniform on +-CONTENT."""


class Layer(NamedTuple):
    """One layer's values and what its attention does with them.

    of, scale: component c of V is scale[c] * dimension of[c].
    writes: (component, dimension, weight) for each component that is read.
    match: attention goes by exp(match * trigger); 0 is uniform.
    unseen: components of V that are content and not simulated.
    """

    of: tuple[int, ...]
    scale: tuple[float, ...]
    writes: tuple[tuple[int, int, float], ...]
    match: float
    unseen: int


class Circuit(NamedTuple):
    """The dimensions that are followed, and the layers.

    dims: planted dimensions by name; then, for geometry, 'content.C' for component C of V.
    feedback: the trigger value of generated marker words.
    """

    dims: tuple[str, ...]
    layers: tuple[Layer, ...]
    feedback: float

    def at(self, dim: Dim) -> int:
        """Which row of a block of features or states is this dimension."""
        return self.dims.index(dim)

    def is_idle(self, layer: int) -> bool:
        """Whether nothing reads the layer's keys and values, nor are they to be measured."""
        return not self.layers[layer].writes and self.layers[layer].unseen > 0


@lru_cache(maxsize=32)
def circuit_of(planted: Planted, *, with_content: bool = False) -> Circuit:
    """The circuit of a planted model.

    with_content: whether every component of V is followed, for its geometry; else only what is
        planted.
    """
    channels = [planted.reading(layer).channels for layer in range(N_LAYERS)]
    used = {"trigger", "signal"} | {
        dim for layer in channels for channel in layer for dim in (channel.of, channel.to) if dim
    }
    dims = tuple(dim for dim in DIMS if dim in used)
    content = tuple(f"content.{component}" for component in range(1, D_HEAD))
    all_dims: tuple[str, ...] = (*dims, *content) if with_content else dims
    return Circuit(
        all_dims,
        tuple(_layer(planted, layer, all_dims, with_content) for layer in range(N_LAYERS)),
        planted.marker_trigger,
    )


def _layer(planted: Planted, layer: int, dims: tuple[str, ...], with_content: bool) -> Layer:
    reading = planted.reading(layer)
    channels = reading.channels
    of = [dims.index(channel.of) for channel in channels]
    scale = [channel.scale for channel in channels]
    if with_content:
        rest = range(len(channels), D_HEAD)
        of += [dims.index(f"content.{component}") for component in rest]
        scale += [1.0] * len(rest)
    return Layer(
        of=tuple(of),
        scale=tuple(scale),
        writes=tuple(
            (component, dims.index(channel.to), channel.weight)
            for component, channel in enumerate(channels)
            if channel.to is not None and channel.weight
        ),
        match=reading.match,
        unseen=D_HEAD - len(of),
    )
