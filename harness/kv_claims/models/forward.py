"""Calling a model with a cache, whatever the version of transformers calls it."""

from __future__ import annotations

import inspect
from typing import Any


def with_cache(network: Any, cache: Any) -> dict[str, Any]:
    """The keyword argument that hands a cache to a network's forward pass.

    transformers renamed `past_key_values` to `cache` in 5.24, and warns of the old name.
    """
    renamed = "cache" in inspect.signature(network.forward).parameters
    return {"cache" if renamed else "past_key_values": cache}
