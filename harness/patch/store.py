"""Every prompt's cache, computed once a run and never written to again.

A prompt of T tokens is prefilled on its first T-1 tokens; the last token is fed later, by every
arm alike (feeding it twice is the failure *duplicate-last-token*). Arms copy out of the store;
`unchanged` shows that none wrote into it (*cache-aliasing*).
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from itertools import pairwise
from typing import Any

import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from harness.errors import UsageError
from harness.models.forward import with_cache
from harness.models.load import LoadedModel
from harness.patch.interception import AllKeptError

PREFILL_TOKENS = 16_384


class PromptStore:
    """Caches of many prompts of one model, aligned at the right end.

    model: whose caches they are.
    keys, values: a list by layer of `prompt head pos d_head`; a prompt of T tokens fills the last
        T-1 positions and zeros stand before them.
    lengths: T of each prompt, `[prompt]`.
    Raises UsageError for a model whose layers keep anything else than keys and values.
    """

    def __init__(self, model: LoadedModel) -> None:
        check_kinds(model)
        self.model = model
        self._index: dict[tuple[int, ...], int] = {}
        self._versions: list[int] = []
        self.tokens: list[list[int]] = []
        self.lengths: list[int] = []
        self.keys: list[torch.Tensor] = []
        self.values: list[torch.Tensor] = []

    @property
    def slots(self) -> int:
        """Positions of the longest prompt's cache."""
        return max(self.lengths) - 1

    def index(self, tokens: Sequence[int]) -> int:
        """The row of a prompt that was added."""
        return self._index[tuple(tokens)]

    def add(self, prompts: Sequence[Sequence[int]]) -> None:
        """Prefill the prompts that are not here yet.

        Raises UsageError for a prompt of fewer than 2 tokens, or a model whose layers keep
        anything else than keys and values of every position.
        """
        new = sorted({tuple(p) for p in prompts} - set(self._index), key=lambda p: (len(p), p))
        for prompt in new:
            if len(prompt) < 2:
                raise UsageError(
                    f"a prompt of {len(prompt)} tokens: expected at least 2, one to cache and one "
                    f"to feed ({self.model.decode(prompt)!r})"
                )
        if not new:
            return
        caches = [self._prefill(batch) for batch in _batches(new)]
        width = max([len(prompt) - 1 for prompt in new] + [t.shape[2] for t in self.keys[:1]])
        for name in ("keys", "values"):
            old = [[layer] for layer in getattr(self, name)] or [[] for _ in caches[0][name]]
            merged = [
                torch.cat([_widen(part, width) for part in [*parts, *(c[name][i] for c in caches)]])
                for i, parts in enumerate(old)
            ]
            setattr(self, name, merged)
        for prompt in new:
            self._index[prompt] = len(self.tokens)
            self.tokens.append(list(prompt))
            self.lengths.append(len(prompt))
        self._versions = self._current_versions()

    def unchanged(self) -> bool:
        """Whether no tensor of the store was written to in place since it was filled."""
        return self._versions == self._current_versions()

    def _current_versions(self) -> list[int]:
        # torch counts in-place writes of a tensor, through views too.
        return [tensor._version for tensor in [*self.keys, *self.values]]

    @torch.no_grad()
    def _prefill(self, prompts: list[tuple[int, ...]]) -> dict[str, list[torch.Tensor]]:
        """Caches of some prompts, padded at the right while they run.

        With causal attention no token sees the padding behind it, so no mask is needed and a
        prompt's numbers do not depend on the prompts beside it.
        """
        model = self.model
        width = len(prompts[-1]) - 1
        ids = torch.zeros(len(prompts), width, dtype=torch.long)
        for row, prompt in enumerate(prompts):
            ids[row, : len(prompt) - 1] = torch.tensor(prompt[:-1])
        cache = _cache_that_ends_a_pass(model.n_layers)
        with suppress(AllKeptError):
            model.network(
                input_ids=ids.to(model.device),
                **with_cache(model.network, cache),
                use_cache=True,
                logits_to_keep=1,
            )
        check_layers(cache, width, model)
        found: dict[str, list[torch.Tensor]] = {"keys": [], "values": []}
        # Row r moves right by its padding; what would come round from the end is cut to zero.
        position = torch.arange(width)
        padding = torch.tensor([width - (len(prompt) - 1) for prompt in prompts])[:, None]
        taken = (position - padding).clamp(min=0).to(model.device)
        real = (position >= padding).to(model.device)
        for layer in cache.layers:
            for name in found:
                tensor = getattr(layer, name)
                index = taken[:, None, :, None].expand(*tensor.shape)
                moved = tensor.gather(2, index)
                found[name].append(moved.masked_fill(~real[:, None, :, None], 0.0))
        return found


class _LastLayer(DynamicLayer):
    """A cache layer that ends the forward pass: its attention and what follows leave no cache."""

    def update(self, *args: Any, **kwargs: Any) -> tuple[torch.Tensor, torch.Tensor]:
        super().update(*args, **kwargs)
        raise AllKeptError


def _cache_that_ends_a_pass(n_layers: int) -> DynamicCache:
    cache = DynamicCache()
    cache.layers = [*(DynamicLayer() for _ in range(n_layers - 1)), _LastLayer()]
    cache.layer_class_to_replicate = None
    return cache


def check_kinds(model: LoadedModel) -> None:
    """Raise UsageError where a model's own kind of cache has layers without keys and values.

    Windows of attention are no harm: a plain cache keeps what they hide, and masks hide it again.
    """
    for number, layer in enumerate(DynamicCache(config=model.config).layers):
        if type(layer) not in (DynamicLayer, DynamicSlidingWindowLayer):
            raise _other_layer(model, number, layer)


def _other_layer(model: LoadedModel, number: int, layer: object) -> UsageError:
    return UsageError(
        f"model {model.name!r}: layer {number} keeps {type(layer).__name__}, expected plain keys "
        "and values of every position; such a cache cannot be patched"
    )


def check_layers(cache: DynamicCache, width: int, model: LoadedModel) -> None:
    """Raise UsageError unless every layer keeps plain keys and values of every position."""
    if len(cache.layers) != model.n_layers:
        raise UsageError(
            f"model {model.name!r}: {len(cache.layers)} cache layers for {model.n_layers} layers"
        )
    for number, layer in enumerate(cache.layers):
        keys = getattr(layer, "keys", None)
        if type(layer) not in (DynamicLayer, _LastLayer) or keys is None or keys.shape[2] != width:
            raise _other_layer(model, number, layer)


def _batches(prompts: list[tuple[int, ...]]) -> list[list[tuple[int, ...]]]:
    """Cut prompts (ascending length) so that a batch holds few tokens, padding counted."""
    cuts, start = [0], 0
    for end, prompt in enumerate(prompts):
        if end > start and (end - start + 1) * len(prompt) > PREFILL_TOKENS:
            cuts.append(end)
            start = end
    return [prompts[a:b] for a, b in pairwise([*cuts, len(prompts)])]


def _widen(tensor: torch.Tensor, width: int) -> torch.Tensor:
    """Zeros before the first position until there are `width` of them."""
    return torch.nn.functional.pad(tensor, (0, 0, width - tensor.shape[2], 0))
