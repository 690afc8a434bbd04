"""The same logits by another road: one row at a time, none of the engine's code.

An unpatched row is one forward pass over prompt and generated tokens, without any cache: a last
token fed twice cannot hide (*duplicate-last-token*). A patched row takes the donor's keys from a
forward pass at the positions where they are pasted, so no key is rotated by us (*unrotated-keys*).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from transformers import DynamicCache

from harness.models.load import LoadedModel
from harness.spec import Site, Window

TOLERANCE = {"float64": 1e-5, "float32": 1e-4, "bfloat16": 5e-2, "float16": 1e-2}
"""Largest |difference| / largest |logit|. float64 is bounded by transformers' own RoPE, whose
angles are float32, and by its float32 RMSNorm."""


class Paste(NamedTuple):
    """A donor's prompt and where its cache goes."""

    donor: Sequence[int]
    site: Site
    layers: Sequence[int]
    window: Window


@torch.no_grad()
def oracle_logits(
    model: LoadedModel,
    prompt: Sequence[int],
    generated: Sequence[int],
    paste: Paste | None = None,
) -> torch.Tensor:
    """Logits from which each generated token was drawn, `step vocab`, on the CPU."""
    fed = [*prompt, *generated[:-1]]
    if paste is None:
        whole: torch.Tensor = model.network(input_ids=_row(model, fed), use_cache=False).logits[0]
        return whole[len(prompt) - 1 :].to("cpu")
    cache = _prefill(model, prompt[:-1], first_position=0)
    donor = _prefill(model, paste.donor[:-1], first_position=paste.window.shift)
    here, there = _cut(paste.window.base_slots), _cut(paste.window.source_slots)
    for layer in paste.layers:
        if "k" in paste.site:
            cache.layers[layer].keys[:, :, here] = donor.layers[layer].keys[:, :, there]
        if "v" in paste.site:
            cache.layers[layer].values[:, :, here] = donor.layers[layer].values[:, :, there]
    rest = fed[len(prompt) - 1 :]
    found: torch.Tensor = model.network(
        input_ids=_row(model, rest), past_key_values=cache, use_cache=True
    ).logits[0]
    return found.to("cpu")


@torch.no_grad()
def oracle_keys(model: LoadedModel, paste: Paste) -> torch.Tensor:
    """The donor's keys as a forward pass at the new positions has them, `layer head pos d_head`.

    Empty where the paste writes no keys.
    """
    if "k" not in paste.site:
        return torch.empty(0)
    donor = _prefill(model, paste.donor[:-1], first_position=paste.window.shift)
    slots = _cut(paste.window.source_slots)
    keys = [donor.layers[layer].keys[0, :, slots] for layer in paste.layers]
    return torch.stack(keys).to("cpu")


def relative_error(found: torch.Tensor, wanted: torch.Tensor) -> float:
    """Largest absolute difference of two sets of logits over the largest absolute logit."""
    found, wanted = found.to(torch.float64), wanted.to(torch.float64)
    return float((found - wanted).abs().max() / wanted.abs().max().clamp(min=1e-30))


def _prefill(model: LoadedModel, tokens: Sequence[int], first_position: int) -> DynamicCache:
    cache = DynamicCache()
    # Positions are passed only where they are not the usual ones: a model without RoPE, whose
    # keys never move, then sees nothing unusual.
    where = (
        {"position_ids": torch.arange(len(tokens), device=model.device)[None] + first_position}
        if first_position
        else {}
    )
    model.network(input_ids=_row(model, tokens), past_key_values=cache, use_cache=True, **where)
    return cache


def _row(model: LoadedModel, tokens: Sequence[int]) -> torch.Tensor:
    return torch.tensor([list(tokens)], device=model.device)


def _cut(slots: range) -> slice:
    return slice(slots.start, slots.stop)
