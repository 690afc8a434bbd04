"""The caches of a batch: copied out of the store into memory of their own, with room to grow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from harness.patch.plan import RowPlan
from harness.patch.store import PromptStore


@dataclass
class Slab:
    """The caches of a batch, aligned at the right end of `slots`, with room behind.

    keys, values: a list by layer of `batch head pos d_head`, pos = slots + room.
    lengths: prompt length T of each row; its cache fills the T-1 positions before `slots`.
    """

    keys: list[torch.Tensor]
    values: list[torch.Tensor]
    slots: int
    lengths: torch.Tensor


def copy_prompts(store: PromptStore, plans: Sequence[RowPlan], *, room: int) -> Slab:
    """Every row's prompt cache as the store has it; behind it, space for what is appended.

    room: positions kept free for decoding.
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
    for row, plan in enumerate(plans):
        _make_room_behind(slab, row, plan)
    return slab


def _copy(layer: torch.Tensor, prompts: torch.Tensor, slots: int, room: int) -> torch.Tensor:
    """Rows of one layer, `batch head pos d_head`, in fresh memory."""
    out = layer.new_zeros(len(prompts), layer.shape[1], slots + room, layer.shape[3])
    kept = min(slots, layer.shape[2])
    out[:, :, slots - kept : slots] = layer[prompts, :, layer.shape[2] - kept :]
    return out


def _make_room_behind(slab: Slab, row: int, plan: RowPlan) -> None:
    """Move a row's own cache to the left by as much as will be appended to it."""
    moved = sum(len(write.window.base_slots) for write in plan.writes if write.appended)
    if moved:
        for tensor in (*slab.keys, *slab.values):
            filled = tensor[row, :, : slab.slots]
            tensor[row, :, : slab.slots] = torch.roll(filled, -moved, dims=1)
