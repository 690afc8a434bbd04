"""The patched prompt pass: prompts computed anew with activations overwritten on the way.

Patched rows and their donors, unpatched, go through one forward pass; at a patched layer the
donor's activations are copied from row to row, so everything downstream is computed from them.
All T tokens of a prompt take part. The cache keeps the first T-1, as everywhere; what the last
token got is kept apart and put there again when it is fed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from transformers import DynamicCache

from harness.models.forward import with_cache
from harness.models.rotary import Rotation
from harness.patch.interception import InterceptedLayer, residual_edited
from harness.patch.overwrite import ROUNDING, Group, group_writes
from harness.patch.plan import RowPlan, Write
from harness.patch.slab import Slab
from harness.patch.store import PREFILL_TOKENS, PromptStore
from harness.spec import Tensor, Window


class Caught(NamedTuple):
    """Activations of some rows of a batch, to be put there again while the rows generate.

    rows: rows of the batch, `[n]`. write: the write they belong to, one a row.
    vectors: `n head d_head`.
    """

    rows: list[int]
    writes: list[Write]
    vectors: torch.Tensor


Catch = dict[tuple[int, Tensor], list[Caught]]
"""What was caught, by layer and tensor."""


@dataclass
class PromptPass:
    """What the patched prompt pass left behind, besides the caches that it put into the slab.

    groups: the writes, with what they changed; their rows are rows of the batch.
    last: what the last prompt token got, by layer and tensor. held: the donor's own activation at
    its last prompt position, where a write holds it constant.
    """

    groups: list[Group] = field(default_factory=list)
    last: Catch = field(default_factory=dict)
    held: Catch = field(default_factory=dict)


def compute_prompts(
    slab: Slab, store: PromptStore, plans: Sequence[RowPlan], rotation: Rotation | None
) -> PromptPass:
    """Compute the prompts of the rows that need it, patched, into the slab."""
    result = PromptPass()
    rows = [row for row, plan in enumerate(plans) if plan.needs_prompt_pass]
    for chunk in _chunks(rows, plans, store):
        _Pass(slab, store, plans, rotation, chunk, result).run()
    return result


def _chunks(
    rows: Sequence[int], plans: Sequence[RowPlan], store: PromptStore
) -> Iterator[list[int]]:
    """Rows cut so that a pass holds few tokens, donors and padding counted."""
    chunk: list[int] = []
    prompts: set[int] = set()
    for row in rows:
        more = prompts | _donors(plans[row])
        longest = max(store.lengths[p] for p in {*more, *(plans[r].prompt for r in [*chunk, row])})
        if chunk and (len(chunk) + 1 + len(more)) * longest > PREFILL_TOKENS:
            yield chunk
            chunk, more = [], _donors(plans[row])
        chunk, prompts = [*chunk, row], more
    if chunk:
        yield chunk


def _donors(plan: RowPlan) -> set[int]:
    found = {write.donor for write in plan.writes}
    return found | {write.instead_of[0] for write in plan.writes if write.instead_of is not None}


class _Pass:
    """One forward pass: the chunk's rows first, then every donor once."""

    def __init__(
        self,
        slab: Slab,
        store: PromptStore,
        plans: Sequence[RowPlan],
        rotation: Rotation | None,
        chunk: Sequence[int],
        result: PromptPass,
    ) -> None:
        self._slab, self._store, self._result = slab, store, result
        self._rotation, self._chunk = rotation, list(chunk)
        self._plans = [plans[row] for row in chunk]
        donors = sorted(set().union(*(_donors(plan) for plan in self._plans)))
        self._donor_row = {prompt: len(chunk) + i for i, prompt in enumerate(donors)}
        self._prompts = [*(plan.prompt for plan in self._plans), *donors]
        self._device = store.keys[0].device
        self._groups = group_writes(
            self._plans,
            lambda write: not write.is_splice,
            target_column=lambda _row, _write: 0,
            donor_place=self._donor_place,
            device=self._device,
        )
        self._by_tensor: dict[tuple[int, Tensor], list[Group]] = {}
        for group in self._groups:
            for layer in group.writes[0].layers:
                for tensor in group.writes[0].tensors:
                    self._by_tensor.setdefault((layer, tensor), []).append(group)

    @torch.no_grad()
    def run(self) -> None:
        model = self._store.model
        longest = max(self._store.lengths[prompt] for prompt in self._prompts)
        ids = torch.zeros(len(self._prompts), longest, dtype=torch.long)
        for row, prompt in enumerate(self._prompts):
            tokens = self._store.tokens[prompt]
            ids[row, : len(tokens)] = torch.tensor(tokens)
        cache = DynamicCache()
        cache.layers = [InterceptedLayer(layer, self._edit) for layer in range(model.n_layers)]
        cache.layer_class_to_replicate = None
        residual = [
            layer
            for plan in self._plans
            for write in plan.writes
            if "residual" in write.tensors
            for layer in write.layers
        ]
        with residual_edited(model, residual, self._edit):
            model.network(
                input_ids=ids.to(self._device),
                **with_cache(model.network, cache),
                use_cache=True,
                logits_to_keep=1,
            )
        self._keep(cache)
        for group in self._groups:
            group.rows = [self._chunk[row] for row in group.rows]
        self._result.groups += self._groups

    def _edit(self, layer: int, tensor: Tensor, states: torch.Tensor) -> None:
        rounding = ROUNDING[self._store.model.dtype_name]
        for group in self._by_tensor.get((layer, tensor), ()):
            group.apply(states, states, layer, tensor, self._rotation, rounding=rounding)
        self._catch(layer, tensor, states)

    def _catch(self, layer: int, tensor: Tensor, states: torch.Tensor) -> None:
        """Keep what is needed again while the rows generate."""
        last: list[tuple[int, Write, int, int]] = []
        held: list[tuple[int, Write, int, int]] = []
        for place, plan in enumerate(self._plans):
            for write in plan.writes:
                if layer not in write.layers or tensor not in write.tensors:
                    continue
                row = self._chunk[place]
                if plan.writes_last_token(write):
                    last.append((row, write, place, plan.tokens - 1))
                if write.active == "every_step(held)":
                    end = self._store.lengths[write.donor] - 1
                    held.append((row, write, self._donor_row[write.donor], end))
        for found, into in ((last, self._result.last), (held, self._result.held)):
            if found:
                rows, writes, places, columns = (
                    list(column) for column in zip(*found, strict=True)
                )
                vectors = states[places, :, columns]
                into.setdefault((layer, tensor), []).append(Caught(rows, writes, vectors))

    def _keep(self, cache: DynamicCache) -> None:
        """Put the caches of the chunk's rows into the slab, at its right end."""
        for place, row in enumerate(self._chunk):
            cached = self._store.lengths[self._plans[place].prompt] - 1
            end, at = self._slab.slots, torch.tensor(row, device=self._device)
            for layer, kept in enumerate(cache.layers):
                own = self._slab.place(layer, at)
                self._slab.keys[layer][own, :, end - cached : end] = kept.keys[place, :, :cached]
                self._slab.values[layer][own, :, end - cached : end] = kept.values[
                    place, :, :cached
                ]

    def _donor_place(self, prompt: int, _window: Window) -> tuple[int, int]:
        return self._donor_row[prompt], 0
