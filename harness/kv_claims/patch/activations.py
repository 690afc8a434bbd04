"""The patched prompt pass: prompts computed anew with activations overwritten on the way.

Patched rows and their donors, unpatched, go through one forward pass; at a patched layer the
donor's activations are copied from row to row, so everything downstream is computed from them. Only
their tails are run (`kv_claims.patch.tails`): what stands before the first position that a row's
writes touch, or that is read of a donor, comes from the store. The cache keeps T-1 positions, as
everywhere; what the last token got is kept apart and put there again when it is fed. The pass ends
as soon as nothing behind is wanted.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from transformers import DynamicCache

from kv_claims.claims.positions import Window
from kv_claims.claims.sites import IN_CACHE, Spot, Tensor, in_order
from kv_claims.models.forward import with_cache
from kv_claims.models.rotary import Rotation
from kv_claims.patch.interception import AllKeptError, InterceptedLayer, edited
from kv_claims.patch.overwrite import ROUNDING, Group, group_writes
from kv_claims.patch.plan import RowPlan, Write
from kv_claims.patch.slab import Slab
from kv_claims.patch.store import PREFILL_TOKENS, PromptStore
from kv_claims.patch.tails import Chunk, Tails, chunks


class Caught(NamedTuple):
    """Activations of some rows of a batch, to be put there again while the rows generate.

    rows: rows of the batch, `[n]`. write: the write they belong to, one a row.
    vectors: `n head d_head`.
    """

    rows: list[int]
    writes: list[Write]
    vectors: torch.Tensor


Catch = dict[Spot, list[Caught]]
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
    for chunk in chunks(plans, store.lengths, PREFILL_TOKENS):
        _Pass(slab, store, plans, rotation, chunk, result).run()
    return result


class _Vector(NamedTuple):
    """A vector to catch: for which row of the batch and write, and where it stands in the pass."""

    row: int
    write: Write
    member: int
    column: int


class _Cached(NamedTuple):
    """Positions that are run and belong to a row's cache, an entry each, `[n]`.

    member, column: where they stand in the pass. row, slot: where in the slab. since: the lowest
    layer in which they are not the store's.
    """

    member: torch.Tensor
    column: torch.Tensor
    row: torch.Tensor
    slot: torch.Tensor
    since: torch.Tensor


class _Pass:
    """One forward pass over a chunk: its computed rows first, then every donor once."""

    def __init__(
        self,
        slab: Slab,
        store: PromptStore,
        plans: Sequence[RowPlan],
        rotation: Rotation | None,
        chunk: Chunk,
        result: PromptPass,
    ) -> None:
        self._slab, self._store, self._result = slab, store, result
        self._rotation, self._chunk = rotation, chunk
        self._plans = [plans[row] for row in chunk.computed]
        self._donor_row = {prompt: len(self._plans) + i for i, prompt in enumerate(chunk.donors)}
        self._runs = [*(plan.computed for plan in self._plans), *chunk.donors.values()]
        prompts = [*(plan.prompt for plan in self._plans), *chunk.donors]
        self._tails = Tails(store, prompts, self._runs)
        self._groups = group_writes(
            self._plans,
            lambda write: not write.is_splice,
            target_column=lambda row, _write: -self._runs[row].start,
            donor_place=self._donor_place,
            device=store.keys[0].device,
        )
        self._by_spot: dict[Spot, list[Group]] = {}
        for group in self._groups:
            for spot in group.writes[0].spots:
                self._by_spot.setdefault(spot, []).append(group)
        self._last, self._held = self._wanted_again(plans)
        self._cached = self._cached_places()
        self._end = self._last_wanted()

    @torch.no_grad()
    def run(self) -> None:
        model = self._store.model
        cache = DynamicCache()
        cache.layers = [
            InterceptedLayer(
                layer,
                self._edit,
                cached=self._tails.cached,
                before=self._tails.before,
                keep=self._keep,
            )
            for layer in range(model.n_layers)
        ]
        cache.layer_class_to_replicate = None
        spots = {*self._by_spot, *self._last, *self._held}
        with suppress(AllKeptError), edited(model, spots, self._edit):
            model.network(
                **self._tails.arguments(), **with_cache(model.network, cache), use_cache=True
            )
        for group in self._groups:
            group.rows = [self._chunk.computed[row] for row in group.rows]
        self._result.groups += self._groups

    def _edit(self, layer: int, tensor: Tensor, states: torch.Tensor) -> None:
        rounding = ROUNDING[states.dtype]
        for group in self._by_spot.get((layer, tensor), ()):
            group.apply(states, states, layer, tensor, self._rotation, rounding=rounding)
        for wanted, into in ((self._last, self._result.last), (self._held, self._result.held)):
            if found := wanted.get((layer, tensor)):
                rows, writes, members, columns = map(list, zip(*found, strict=True))
                caught = Caught(rows, writes, states[members, :, columns])
                into.setdefault((layer, tensor), []).append(caught)
        if self._end == (layer, tensor) and tensor not in IN_CACHE:
            raise AllKeptError

    def _keep(self, layer: int, keys: torch.Tensor, values: torch.Tensor) -> None:
        """Put the caches of the chunk's rows into the slab, where they are not the store's."""
        own = self._cached.since <= layer
        member, column, row, slot, _ = (entries[own] for entries in self._cached)
        place = self._slab.place_to_write(layer, row)
        self._slab.keys[layer][place, :, slot] = keys[member, :, column]
        self._slab.values[layer][place, :, slot] = values[member, :, column]
        if self._end[0] == layer and self._end[1] in IN_CACHE:
            raise AllKeptError

    def _wanted_again(
        self, plans: Sequence[RowPlan]
    ) -> tuple[dict[Spot, list[_Vector]], dict[Spot, list[_Vector]]]:
        """What is needed while the rows generate: at the last prompt token, and held vectors."""
        last: dict[Spot, list[_Vector]] = {}
        held: dict[Spot, list[_Vector]] = {}
        for member, row in enumerate([*self._chunk.computed, *self._chunk.held]):
            for write in plans[row].writes:
                for spot in write.spots:
                    if plans[row].writes_last_token(write):
                        column = plans[row].tokens - 1 - self._runs[member].start
                        last.setdefault(spot, []).append(_Vector(row, write, member, column))
                    if write.active == "every_step(held)":
                        donor, first = self._donor_place(write.donor)
                        column = first + self._store.lengths[write.donor] - 1
                        held.setdefault(spot, []).append(_Vector(row, write, donor, column))
        return last, held

    def _cached_places(self) -> _Cached:
        device, n_layers = self._store.keys[0].device, self._store.model.n_layers
        since = [plan.computed_from_layer for plan in self._plans]
        of_member = torch.tensor(
            [
                (row, plan.tokens - 1, n_layers if layer is None else layer)
                for row, plan, layer in zip(self._chunk.computed, self._plans, since, strict=True)
            ],
            dtype=torch.long,
            device=device,
        ).reshape(-1, 3)
        rows, ends, layers = of_member.unbind(1)
        columns = torch.arange(self._tails.width, device=device)
        positions = self._tails.starts[: len(self._plans), None] + columns
        member, column = (positions < ends[:, None]).nonzero(as_tuple=True)
        slot = self._slab.slots - ends[member] + positions[member, column]
        return _Cached(member, column, rows[member], slot, layers[member])

    def _last_wanted(self) -> Spot:
        """Where the pass may end: behind it nothing is written, caught or kept."""
        spots = {*self._by_spot, *self._last, *self._held}
        n_layers = self._store.model.n_layers
        if bool((self._cached.since < n_layers).any()):
            spots.add((n_layers - 1, "v"))
        return max(spots, key=in_order)

    def _donor_place(self, prompt: int, _window: Window | None = None) -> tuple[int, int]:
        row = self._donor_row[prompt]
        return row, -self._runs[row].start
