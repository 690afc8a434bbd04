"""Every prompt's cache, computed once and never written to again.

A prompt of T tokens is prefilled on its first T-1 tokens; the last token is fed later, by every
arm alike (feeding it twice is the failure *duplicate-last-token*). Arms copy out of the store;
`unchanged` shows that none wrote into it (*cache-aliasing*). The store is bounded: what does not
fit beside the prompts that are asked for is forgotten, and computed anew when it is asked for.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import pairwise
from typing import Any

import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from kv_claims.claims.sites import IN_CACHE, PARTS, Tensor
from kv_claims.errors import UsageError
from kv_claims.models.cached import check_layers
from kv_claims.models.finite import are_finite, not_finite
from kv_claims.models.forward import with_cache
from kv_claims.models.load import LoadedModel
from kv_claims.patch.bits import other_bits
from kv_claims.patch.interception import AllKeptError
from kv_claims.patch.plan import Write

PREFILL_TOKENS = 4_096
"""Tokens of one pass, padding counted: with more, activations leave the caches of a CPU."""
_CPU_BYTES = 1 << 30
"""Prompts of a hundred pairs on a model of 30 layers and 3 KV heads. Where those of a cell do not
fit, they are prefilled for its trials, its likelihoods and its self-patches anew."""
_GPU_SHARE = 0.15
"""Of the card's whole memory, not of what is free: groups of pairs must not depend on the hour."""


class PromptStore:
    """Caches of many prompts of one model, aligned at the right end.

    model: whose caches they are. most_bytes: what they may take together; None: 1 GiB on a CPU,
        15% of a card's memory. A single `add` may ask for more (`groups` cuts work so that none
        does).
    keys, values: a list by layer of `prompt head pos d_head`; a prompt of T tokens fills the last
        T-1 positions and zeros stand before them.
    lengths: T of each prompt, `[prompt]`.
    Raises UsageError for a model whose layers keep anything else than keys and values.
    """

    def __init__(self, model: LoadedModel, most_bytes: int | None = None) -> None:
        _ = model.kept  # refused here, where it keeps anything else
        self.model = model
        self._most_bytes = _default_bytes(model) if most_bytes is None else most_bytes
        self._index: dict[tuple[int, ...], int] = {}
        self._versions: list[int] = []
        self._intact = True
        self.tokens: list[list[int]] = []
        self.lengths: list[int] = []
        self.keys: list[torch.Tensor] = []
        self.values: list[torch.Tensor] = []

    @property
    def slots(self) -> int:
        """Positions of the longest prompt's cache."""
        return max(self.lengths) - 1

    def index(self, tokens: Sequence[int]) -> int:
        """The row of a prompt that is here. It holds until the next `add`."""
        return self._index[tuple(tokens)]

    def add(self, prompts: Sequence[Sequence[int]]) -> None:
        """Prefill the prompts that are not here yet; forget others, if all do not fit.

        Raises UsageError for a prompt of fewer than 2 tokens, a model whose layers keep anything
        else than keys and values of every position, or numbers that are not finite.
        """
        wanted = {tuple(prompt) for prompt in prompts}
        new = sorted(wanted - set(self._index), key=lambda p: (len(p), p))
        for prompt in new:
            if len(prompt) < 2:
                raise UsageError(
                    f"a prompt of {len(prompt)} tokens: expected at least 2, one to cache and one "
                    f"to feed ({self.model.decode(prompt)!r})"
                )
        if not new:
            return
        self._intact = self.unchanged()
        try:
            held = wanted | set(self._index)
            if not self._fit(len(held), max(map(len, held))):
                self._forget_all_but(wanted)
            self._take(new)
        except BaseException:
            # Half of it would be layers of unlike prompts.
            self._forget_all_but(())
            raise
        finally:
            self._versions = self._current_versions()

    def numbers_of(self, write: Write) -> int:
        """How many numbers a write is to write: its positions, heads and components, all layers."""
        of_a_position = 0
        for layer in write.layers:
            for tensor in write.tensors:
                heads = 1
                if (kind := PARTS[tensor].heads) is not None:
                    kept = self.model.kept[layer]
                    every = kept.heads if kind == "KV heads" else self.model.heads.query
                    heads = every if write.heads is None else len(write.heads)
                of_a_position += heads * width_of(self.model, layer, tensor)
        return of_a_position * len(write.window.base_slots)

    def differ(self, donor: int, row: int, write: Write) -> bool:
        """Whether two prompts hold other bits where a write takes from the one for the other.

        donor, row: prompts of the store. Of cached keys and values that do not move; a look at what
        is here, by none of the ways in which it is pasted.
        """
        window = write.window
        for tensor in write.tensors:
            if tensor not in IN_CACHE or (tensor == "k" and window.shift):
                continue
            for layer in write.layers:
                held = (self.keys if tensor == "k" else self.values)[layer]
                one, other = (
                    held[prompt, :, held.shape[2] - (self.lengths[prompt] - 1) :]
                    for prompt in (donor, row)
                )
                one = one[:, window.source_slots.start : window.source_slots.stop]
                other = other[:, window.base_slots.start : window.base_slots.stop]
                # The last prompt token, which an in-prefill write may cover, is in no cache.
                kept = min(one.shape[1], other.shape[1])
                heads = slice(None) if write.heads is None else list(write.heads)
                if bool(other_bits(one[heads, :kept], other[heads, :kept]).any()):
                    return True
        return False

    def groups(self, prompts: Sequence[Iterable[Sequence[int]]]) -> Iterator[range]:
        """Cut a sequence of things so that the prompts of each run of them fit, at least one a run.

        prompts: those of each thing.
        """
        start, longest, held = 0, 0, set[tuple[int, ...]]()
        for end, some in enumerate(prompts):
            own = {tuple(prompt) for prompt in some}
            longest = max([longest, *map(len, own)])
            if end > start and not self._fit(len(held) + len(own - held), longest):
                yield range(start, end)
                start, longest, held = end, max(map(len, own), default=0), set()
            held |= own
        if start < len(prompts):
            yield range(start, len(prompts))

    def unchanged(self) -> bool:
        """Whether no tensor of the store was ever written to in place, forgotten ones included."""
        return self._intact and self._versions == self._current_versions()

    def _fit(self, prompts: int, longest: int) -> bool:
        """Whether so many prompts fit, each as wide as the longest, of so many tokens."""
        return prompts * (longest - 1) * bytes_a_position(self.model) <= self._most_bytes

    def _forget_all_but(self, wanted: Collection[tuple[int, ...]]) -> None:
        kept = [row for row, tokens in enumerate(self.tokens) if tuple(tokens) in wanted]
        self.tokens = [self.tokens[row] for row in kept]
        self.lengths = [self.lengths[row] for row in kept]
        self._index = {tuple(tokens): row for row, tokens in enumerate(self.tokens)}
        for layers in (self.keys, self.values):
            if kept:
                width = self.slots
                for i, layer in enumerate(layers):
                    layers[i] = layer[kept, :, layer.shape[2] - width :]
            else:
                layers.clear()

    def _take(self, new: Sequence[tuple[int, ...]]) -> None:
        """Prefill prompts (ascending length) and put them behind those that are here."""
        caches = [self._prefill(batch) for batch in _batches(new)]
        width = max([len(prompt) - 1 for prompt in new] + [t.shape[2] for t in self.keys[:1]])
        for name, layers in (("keys", self.keys), ("values", self.values)):
            is_first = not layers
            for i in range(self.model.n_layers):
                # A layer at a time, and what it is made of is let go: never all of it twice.
                parts = [_widen(cache[name].pop(0), width) for cache in caches]
                if is_first:
                    layers.append(torch.cat(parts))
                else:
                    layers[i] = torch.cat([_widen(layers[i], width), *parts])
        for prompt in new:
            self._index[prompt] = len(self.tokens)
            self.tokens.append(list(prompt))
            self.lengths.append(len(prompt))

    def _current_versions(self) -> list[int]:
        # torch counts in-place writes of a tensor, through views too.
        return [tensor._version for tensor in [*self.keys, *self.values]]

    @torch.no_grad()
    def _prefill(self, prompts: Sequence[tuple[int, ...]]) -> dict[str, list[torch.Tensor]]:
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
        check_layers(cache, width, model.config)
        sound = [are_finite(layer.keys) & are_finite(layer.values) for layer in cache.layers]
        if not (layers := torch.stack(sound)).all():
            first = int(layers.logical_not().nonzero()[0])
            raise not_finite(model, f"a prompt's keys and values in layer {first}")
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


def width_of(model: LoadedModel, layer: int, tensor: Tensor) -> int:
    """Numbers of a vector of a layer's tensor: of one head, where it has heads."""
    if PARTS[tensor].heads is None:
        return int(model.config.hidden_size)
    kept = model.kept[layer]
    return {"q": kept.key, "k": kept.key, "v": kept.value, "z": kept.value}[tensor]


def bytes_a_position(model: LoadedModel) -> int:
    """Bytes of a position's keys and values, all layers together."""
    return sum(kept.numbers for kept in model.kept) * model.dtype.itemsize


def _default_bytes(model: LoadedModel) -> int:
    if model.device.type != "cuda":
        return _CPU_BYTES
    _, whole = torch.cuda.mem_get_info(model.device)
    return int(whole * _GPU_SHARE)


def _batches(prompts: Sequence[tuple[int, ...]]) -> list[Sequence[tuple[int, ...]]]:
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
