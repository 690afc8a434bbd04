"""Whether ways of one meaning generate the same tokens, and what explains rows where they do not.

Greedy decoding in float32 may part where two tokens are almost equally likely, as sums are rounded
in another order. A row that parts is *explained* when, by the plain model at the first step where
it parts, both tokens' logits lie within `NEAR` of the largest. Any other is a disagreement.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from transformers import DynamicCache

from kv_claims.benching.reference import Reference
from kv_claims.models.forward import with_cache
from tests.benchmarks.peers.ways import Found, Meaning, Rows, rows_of

NEAR = 1e-4
"""Logits of the reference model are at most 1.3 or so, its rounding some 1e-6, and the lead of its
best token 0.03 and more as a rule."""
Logits = Callable[[int, Sequence[int]], torch.Tensor]
"""Of a trial, after so many of its tokens: `[vocab]`."""


class Parted(NamedTuple):
    """A row whose tokens are another's up to a step. gap: how far the less likely of the two
    tokens is behind the best one there, by the plain model; infinite where one row is shorter."""

    trial: int
    step: int
    gap: float

    @property
    def is_explained(self) -> bool:
        return self.gap <= NEAR


def compare(found: Found, wanted: Found, logits: Logits) -> list[Parted]:
    """The trials found whose tokens are not those wanted. Raises KeyError for one not wanted."""
    return [
        _part(trial, tokens, wanted[trial], logits)
        for trial, tokens in found.items()
        if list(tokens) != list(wanted[trial])
    ]


def _part(trial: int, one: Sequence[int], other: Sequence[int], logits: Logits) -> Parted:
    differing = (i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b)
    step = next(differing, None)
    if step is None:
        return Parted(trial, min(len(one), len(other)), math.inf)
    scores = logits(trial, one[:step])
    return Parted(trial, step, float(scores.max() - scores[[one[step], other[step]]].min()))


class Plain:
    """Logits by transformers alone, one row at a time: neither the engine nor a neighbour."""

    def __init__(self, work: Reference) -> None:
        self._work, self._network = work, work.model.network

    @torch.no_grad()
    def logits(self, meaning: Meaning) -> Logits:
        """What the logits of trials are where the patch means this."""
        of_meaning = {
            "unpatched": self._unpatched,
            "splice": self._spliced,
            "in-prefill": self._in_prefill,
        }[meaning]

        @torch.no_grad()
        def logits(trial: int, tokens: Sequence[int]) -> torch.Tensor:
            rows = rows_of(self._work, [trial])
            ids = torch.cat([rows.bases, self._work.ids([list(tokens)])], 1)
            return of_meaning(rows, ids)[0, -1].cpu()

        return logits

    def _unpatched(self, _rows: Rows, ids: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self._network(input_ids=ids, use_cache=False).logits
        return logits

    def _spliced(self, rows: Rows, ids: torch.Tensor) -> torch.Tensor:
        prompt = rows.bases.shape[1]
        cache, donor = self._cache(ids[:, : prompt - 1]), self._cache(rows.sources)
        layer = int(rows.layer)
        for name in ("keys", "values"):
            here, there = getattr(cache.layers[layer], name), getattr(donor.layers[layer], name)
            here[:, :, rows.slots] = there[:, :, rows.slots]
        return self._on(cache, ids[:, prompt - 1 :])

    def _in_prefill(self, rows: Rows, ids: torch.Tensor) -> torch.Tensor:
        attention = self._network.model.layers[int(rows.layer)].self_attn
        caught: dict[str, torch.Tensor] = {}

        def catch(name: str) -> Callable[..., None]:
            return lambda _module, _inputs, output: caught.update({name: output[:, rows.slots]})

        def paste(name: str) -> Callable[..., torch.Tensor]:
            def hook(_module: Any, _inputs: Any, output: torch.Tensor) -> torch.Tensor:
                output = output.clone()
                output[:, rows.slots] = caught[name]
                return output

            return hook

        with _hooked(attention, catch):
            self._unpatched(rows, rows.sources)
        with _hooked(attention, paste):
            return self._unpatched(rows, ids)

    def _cache(self, ids: torch.Tensor) -> DynamicCache:
        cache = DynamicCache()
        self._on(cache, ids)
        return cache

    def _on(self, cache: DynamicCache, ids: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self._network(
            input_ids=ids, **with_cache(self._network, cache), use_cache=True
        ).logits
        return logits


@contextmanager
def _hooked(attention: Any, hook: Callable[[str], Callable[..., Any]]) -> Iterator[None]:
    handles = [
        getattr(attention, name).register_forward_hook(hook(name)) for name in ("k_proj", "v_proj")
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
