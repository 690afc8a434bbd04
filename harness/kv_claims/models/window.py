"""How far back each layer looks: sliding windows, read from the model's configuration."""

from __future__ import annotations

from typing import Any


def attention_window(config: Any, layer: int) -> int | None:
    """Positions that a token of this layer attends to, its own included; None for all.

    config: the text model's configuration.
    """
    width = getattr(config, "sliding_window", None)
    if width is None or getattr(config, "use_sliding_window", True) is False:
        return None
    kinds = getattr(config, "layer_types", None)
    if kinds is not None and kinds[layer] != "sliding_attention":
        return None
    return int(width)
