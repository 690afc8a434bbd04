"""The splice: rows of caches copied out of the store, with the named slots overwritten.

One path for every arm: gather the donor's slots, rotate keys by the distance they move, write.
A self-patch runs it with a shift of 0; the full swap runs it over every slot. What was written and
what it changed is counted for every row, so that a patch that does nothing is seen
(*hook-never-fired*).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch

from harness.models.rotary import Rotation
from harness.patch.noise import noise_like
from harness.patch.store import PromptStore
from harness.spec import Site, Window

TENSORS: dict[Site, tuple[Literal["k", "v"], ...]] = {"kv": ("k", "v"), "k": ("k",), "v": ("v",)}


class Write(NamedTuple):
    """What one row's cache gets from where.

    donor: the store's row that is pasted. layers: ascending. window: slots of donor and row.
    noise: None, or the name of the draw that replaces the donor's directions.
    instead_of: the store's row that the patched arm would paste, where this is a control for it.
    """

    donor: int
    site: Site
    layers: tuple[int, ...]
    window: Window
    noise: str | None = None
    instead_of: tuple[int, Window] | None = None


class RowPlan(NamedTuple):
    """One row of a batch: the prompt whose cache it starts from, and what is written over it.

    tokens: prompt length T after the write (the source's, in a full swap).
    """

    prompt: int
    tokens: int
    write: Write | None


class Footprint(NamedTuple):
    """What a write did to one row.

    fired: tensors written (layers x K, V). elements: numbers written. changed: how many of them
    differ from what stood there. least_changed: the fewest changed in one tensor.
    differs: how many differ from what the patched arm would write (controls only).
    """

    fired: int = 0
    elements: int = 0
    changed: int = 0
    least_changed: int = 0
    differs: int | None = None


@dataclass
class Slab:
    """The caches of a batch with room to grow, aligned at the right end of `slots`.

    keys, values: a list by layer of `batch head pos d_head`, pos = slots + room.
    lengths: prompt length T of each row; its cache fills the T-1 positions before `slots`.
    """

    keys: list[torch.Tensor]
    values: list[torch.Tensor]
    slots: int
    lengths: torch.Tensor


def build_slab(
    store: PromptStore, plans: Sequence[RowPlan], rotation: Rotation | None, *, room: int
) -> tuple[Slab, list[Footprint]]:
    """Copy every row's prompt cache and carry out its write.

    rotation: turns moved keys; None for a model that has none, where no key may move.
    room: positions kept free behind the prompt, for decoding.
    """
    slots = max(max(plan.tokens, store.lengths[plan.prompt]) for plan in plans) - 1
    device = store.keys[0].device
    prompts = torch.tensor([plan.prompt for plan in plans], device=device)
    slab = Slab(
        keys=[_copy(layer, prompts, slots, room) for layer in store.keys],
        values=[_copy(layer, prompts, slots, room) for layer in store.values],
        slots=slots,
        lengths=torch.tensor([plan.tokens for plan in plans], device=device),
    )
    footprints = [Footprint() for _ in plans]
    for rows in _alike(plans):
        writes = [plan.write for plan in (plans[row] for row in rows) if plan.write is not None]
        lengths = [plans[row].tokens for row in rows]
        found = _write(slab, store, rows, lengths, writes, rotation)
        for row, footprint in zip(rows, found, strict=True):
            footprints[row] = footprint
    return slab, footprints


def _copy(layer: torch.Tensor, prompts: torch.Tensor, slots: int, room: int) -> torch.Tensor:
    """Rows of one layer, `batch head pos d_head`, in fresh memory."""
    out = layer.new_zeros(len(prompts), layer.shape[1], slots + room, layer.shape[3])
    kept = min(slots, layer.shape[2])
    out[:, :, slots - kept : slots] = layer[prompts, :, layer.shape[2] - kept :]
    return out


def _alike(plans: Sequence[RowPlan]) -> list[list[int]]:
    """Rows with a write, grouped so that one group has one site, one set of layers, one kind."""
    groups: dict[tuple[object, ...], list[int]] = {}
    for row, plan in enumerate(plans):
        if (write := plan.write) is not None:
            kind = (write.site, write.layers, write.noise is None, write.instead_of is None)
            groups.setdefault(kind, []).append(row)
    return list(groups.values())


class _Index(NamedTuple):
    """One entry a written slot, over all rows of a group, `[n]`."""

    donor: torch.Tensor
    donor_slot: torch.Tensor
    shift: torch.Tensor


def _write(
    slab: Slab,
    store: PromptStore,
    rows: list[int],
    lengths: list[int],
    writes: list[Write],
    rotation: Rotation | None,
) -> list[Footprint]:
    """Carry out the writes of one group, a gather and a scatter a tensor; count per row."""
    device = store.keys[0].device
    widths = [len(write.window.base_slots) for write in writes]
    owner = torch.repeat_interleave(torch.arange(len(rows)), torch.tensor(widths)).to(device)
    row = torch.tensor(rows, device=device)[owner]
    slot = torch.tensor(
        [
            slab.slots - (tokens - 1) + position
            for tokens, write in zip(lengths, writes, strict=True)
            for position in write.window.base_slots
        ],
        device=device,
    )
    donors = _index(store, [(write.donor, write.window) for write in writes])
    would_be = [write.instead_of for write in writes if write.instead_of is not None]
    instead = _index(store, would_be) if would_be else None
    tensors = TENSORS[writes[0].site]
    per_tensor: list[torch.Tensor] = []
    differs = torch.zeros(len(rows), dtype=torch.long, device=device)
    elements = 0
    for layer in writes[0].layers:
        for name in tensors:
            target = (slab.keys if name == "k" else slab.values)[layer]
            new = _gather(store, donors, layer, name, rotation)
            if writes[0].noise is not None:
                new = _noise(new, widths, writes, layer, name)
            if instead is not None:
                other = _gather(store, instead, layer, name, rotation)
                differs.index_add_(0, owner, (new != other).sum((1, 2)))
            before = target[row, :, slot]
            target[row, :, slot] = new
            # Read back what stands there now: a write that missed its place must not count.
            changed = (target[row, :, slot] != before).sum((1, 2))
            per_tensor.append(
                torch.zeros(len(rows), dtype=torch.long, device=device).index_add_(
                    0, owner, changed
                )
            )
            elements += new.shape[1] * new.shape[2]
    counts = torch.stack(per_tensor).cpu()
    total, least = counts.sum(0).tolist(), counts.amin(0).tolist()
    apart = differs.tolist()
    return [
        Footprint(
            fired=len(per_tensor),
            elements=elements * widths[i],
            changed=total[i],
            least_changed=least[i],
            differs=apart[i] if instead is not None else None,
        )
        for i in range(len(rows))
    ]


def _index(store: PromptStore, pasted: Sequence[tuple[int, Window]]) -> _Index:
    device = store.keys[0].device
    width = store.keys[0].shape[2]
    donor, slot, shift = [], [], []
    for prompt, window in pasted:
        first = width - (store.lengths[prompt] - 1)
        donor += [prompt] * len(window.source_slots)
        slot += [first + position for position in window.source_slots]
        shift += [window.shift] * len(window.source_slots)
    return _Index(*(torch.tensor(column, device=device) for column in (donor, slot, shift)))


def _gather(
    store: PromptStore,
    index: _Index,
    layer: int,
    name: Literal["k", "v"],
    rotation: Rotation | None,
) -> torch.Tensor:
    """The donors' vectors as they must stand at the new positions, `n head d_head`."""
    kept = (store.keys if name == "k" else store.values)[layer]
    vectors = kept[index.donor, :, index.donor_slot]
    if name == "k" and rotation is not None:
        return rotation(vectors, index.shift)
    return vectors


def _noise(
    vectors: torch.Tensor, widths: list[int], writes: list[Write], layer: int, name: str
) -> torch.Tensor:
    parts = torch.split(vectors, widths)
    return torch.cat(
        [
            noise_like(part, f"{write.noise}:{layer}:{name}")
            for part, write in zip(parts, writes, strict=True)
        ]
    )
