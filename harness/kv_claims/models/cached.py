"""What a model keeps of each position, read from its cache: the configuration may say otherwise.

Falcon's and DeepSeek's caches have other heads than their configurations name, DeepSeek's values
are narrower than its keys, and Gemma 4 has layers of two widths.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from kv_claims.errors import UsageError
from kv_claims.models.forward import with_cache


class Kept(NamedTuple):
    """What one layer keeps of a position: numbers of each head's key and value."""

    heads: int
    key: int
    value: int

    @property
    def numbers(self) -> int:
        return self.heads * (self.key + self.value)


@torch.no_grad()
def kept_by(network: Any, device: torch.device) -> tuple[Kept, ...]:
    """What each layer of a network keeps of a position: two tokens are run to see it.

    Raises UsageError for a network that cannot be run with a plain cache, or that keeps anything
    else than keys and values of every position.
    """
    config = network.config.get_text_config()
    _check_kinds(config)
    cache = DynamicCache()
    try:
        network(
            input_ids=torch.tensor([[0, 1]], device=device),
            **with_cache(network, cache),
            use_cache=True,
        )
    except Exception as error:  # whatever an unknown architecture raises: it is refused by name
        raise UsageError(
            f"architecture {config.model_type!r}: it does not run with a plain cache of keys and "
            f"values, which is what is patched ({first_line(error)})"
        ) from error
    check_layers(cache, 2, config)
    return tuple(
        Kept(layer.keys.shape[1], layer.keys.shape[3], layer.values.shape[3])
        for layer in cache.layers
    )


def first_line(error: Exception) -> str:
    """An exception in one short line."""
    said = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {said[0]}"[:200]


def check_layers(cache: DynamicCache, width: int, config: Any) -> None:
    """Raise UsageError unless each of a model's layers keeps keys and values of every position.

    width: how many positions there are. config: the text model's configuration.
    """
    n_layers = int(config.num_hidden_layers)
    if len(cache.layers) != n_layers:
        raise UsageError(
            f"architecture {config.model_type!r}: {len(cache.layers)} layers keep keys and values, "
            f"of {n_layers}; expected every layer to keep its own"
        )
    for number, layer in enumerate(cache.layers):
        keys, values = (getattr(layer, name, None) for name in ("keys", "values"))
        if (
            not isinstance(layer, DynamicLayer)
            or keys is None
            or values is None
            or (keys.dim(), keys.shape[2], values.shape[:3]) != (4, width, keys.shape[:3])
        ):
            raise _other_layer(config, number, layer)


def _check_kinds(config: Any) -> None:
    """Raise UsageError where a model's own kind of cache has layers without keys and values.

    Windows of attention are no harm: a plain cache keeps what they hide, and masks hide it again.
    """
    try:
        layers = DynamicCache(config=config).layers
    except Exception as error:
        raise UsageError(
            f"architecture {config.model_type!r}: what its cache keeps cannot be told from its "
            f"configuration ({first_line(error)})"
        ) from error
    for number, layer in enumerate(layers):
        if type(layer) not in (DynamicLayer, DynamicSlidingWindowLayer):
            raise _other_layer(config, number, layer)


def _other_layer(config: Any, number: int, layer: object) -> UsageError:
    if getattr(layer, "keys", layer) is None:
        return UsageError(
            f"architecture {config.model_type!r}: layer {number} hands no keys and values to its "
            "cache, so there is nothing to patch"
        )
    return UsageError(
        f"architecture {config.model_type!r}: layer {number} keeps {type(layer).__name__}, "
        "expected plain keys and values of every position; such a cache cannot be patched"
    )
