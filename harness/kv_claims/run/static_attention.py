"""Attention of one query a row over a cache of fixed width, hidden positions masked.

The model's own `sdpa` would do, but for grouped queries under a mask: transformers before 5.23
then repeats every key and value for each query of its group, which moves four times the cache of a
Mistral a step and writes it besides; and torch's `enable_gqa` has no fast kernel under a mask. Here
the queries of a group stand as so many queries of one head instead, which reads the cache once.
On a GPU torch takes its memory-efficient kernel for that: the flash kernel knows no mask.
"""

from __future__ import annotations

from typing import Any

import torch

from kv_claims.run.shared_attention import NotPlainAttentionError, beyond_products

NAME = "kv_claims_static"


def static_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    scaling: float | None = None,
    **more: Any,
) -> tuple[torch.Tensor, None]:
    """One query of each row over all positions, the mask added to the scores.

    query: `row head 1 d_head`. key, value: `row kv_head pos d_head`. attention_mask: `row 1 1 pos`.
    Returns `row 1 head d_head`.
    """
    unknown = beyond_products(more)
    if attention_mask is None or query.shape[2] != 1 or unknown or module.training:
        raise NotPlainAttentionError(
            f"{type(module).__name__}: {unknown or 'not one query a row under a mask'}"
        )
    rows, heads, _, width = query.shape
    kv_heads = key.shape[1]
    grouped = query.reshape(rows, kv_heads, heads // kv_heads, width)
    out = torch.nn.functional.scaled_dot_product_attention(
        grouped, key, value, attn_mask=attention_mask, scale=scaling
    )
    return out.reshape(rows, 1, heads, value.shape[3]), None
