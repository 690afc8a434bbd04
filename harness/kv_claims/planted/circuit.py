"""A planted model as linear maps over the few dimensions that matter, for the truth.

Promises: follows from the description in `catalog` alone, never from weights or the network code.
Does not: run anything (`simulate`).
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from kv_claims.claims.layers import resolve_layers
from kv_claims.planted.catalog import CONTENT, D_HEAD, DIMS, N_LAYERS, Dim, Planted

Floats = npt.NDArray[np.float64]
CONTENT_SQUARE = CONTENT**2 / 3
"""Mean square of one component of content, which is uniform on +-CONTENT."""


class Layer(NamedTuple):
    """One layer's values and what its attention does with them.

    of, scale: component c of V is scale[c] * dimension of[c].
    writes: (component, dimension, weight) for each component that is read.
    match: attention goes by exp(match * trigger); 0 is uniform.
    unseen: components of V that are content and not simulated.
    turns: what its MLP adds: (dimension, dimension, weight).
    """

    of: tuple[int, ...]
    scale: tuple[float, ...]
    writes: tuple[tuple[int, int, float], ...]
    match: float
    unseen: int
    turns: tuple[tuple[int, int, float], ...] = ()


class Circuit(NamedTuple):
    """The dimensions that are followed, and the layers.

    A state's dimensions are the planted ones, by name, and then, for geometry, the content of
    components of V, by number. feedback: the trigger value of generated marker words. standing:
    the note of all words.
    """

    planted_dims: tuple[Dim, ...]
    content_dims: tuple[int, ...]
    layers: tuple[Layer, ...]
    feedback: float
    standing: float = 0.0

    def at(self, dim: Dim) -> int:
        """Which row of a block of features or states is this dimension."""
        return self.planted_dims.index(dim)

    @property
    def n_dims(self) -> int:
        """How many dimensions a state has."""
        return len(self.planted_dims) + len(self.content_dims)

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
    used |= {dim for turn in planted.turns for dim in (turn.of, turn.to)}
    dims = tuple(dim for dim in DIMS if dim in used)
    content = tuple(range(1, D_HEAD)) if with_content else ()
    return Circuit(
        dims,
        content,
        tuple(_layer(planted, layer, dims, content) for layer in range(N_LAYERS)),
        planted.marker_trigger,
        planted.standing,
    )


def _layer(planted: Planted, layer: int, dims: tuple[Dim, ...], content: tuple[int, ...]) -> Layer:
    reading = planted.reading(layer)
    channels = reading.channels
    rest = [len(dims) + i for i, component in enumerate(content) if component >= len(channels)]
    return Layer(
        of=(*(dims.index(channel.of) for channel in channels), *rest),
        scale=(*(channel.scale for channel in channels), *[1.0] * len(rest)),
        writes=tuple(
            (component, dims.index(channel.to), channel.weight)
            for component, channel in enumerate(channels)
            if channel.to is not None and channel.weight
        ),
        match=reading.match,
        unseen=D_HEAD - len(channels) - len(rest),
        turns=tuple(
            (dims.index(turn.of), dims.index(turn.to), turn.weight)
            for turn in planted.turns
            if layer in resolve_layers(turn.layers, N_LAYERS)
        ),
    )
