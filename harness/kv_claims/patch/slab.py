"""The caches of a batch: copied out of the store into memory of their own, with headroom to grow.

Three forms. *Plain*: every row has its prompt and its headroom in one piece, as any attention
expects. *Shared*: rows that read the same numbers in a layer share one copy of the prompt there
(`kv_claims.patch.sharing`), and the headroom stands apart; memory for prompts then does not grow
with the arms. *Static*: as plain, in memory that all batches use in turn
(`kv_claims.patch.memory`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from kv_claims.patch.memory import ROWS, Frame, Memory
from kv_claims.patch.plan import RowPlan
from kv_claims.patch.sharing import Layout, layouts_of, narrowed, round_up
from kv_claims.patch.store import PromptStore


@dataclass(frozen=True)
class Shared:
    """What a shared slab has besides.

    layouts: by layer. prompts: the store's prompt of each row, `[row]`. own_from: the lowest layer
    whose generated keys or values are not the unpatched row's, `[row]`; see `RowPlan.own_from`.
    new_keys, new_values: the headroom, by layer, `batch head step d_head`; steps are
    rounded up.
    """

    layouts: list[Layout]
    prompts: torch.Tensor
    own_from: torch.Tensor
    new_keys: list[torch.Tensor]
    new_values: list[torch.Tensor]


@dataclass
class Slab:
    """The caches of a batch, aligned at the right end of `slots`, with headroom behind.

    keys, values: a list by layer of `batch head pos d_head`, pos = slots + headroom; in a shared
    slab
        `variant head pos d_head`, pos = slots.
    lengths: prompt length T of each row; its cache fills the T-1 positions before `slots`.
    shared: None but in a shared slab. frame: None but in a static one, whose keys and values are
        the first rows of it.
    """

    keys: list[torch.Tensor]
    values: list[torch.Tensor]
    slots: int
    lengths: torch.Tensor
    shared: Shared | None = None
    frame: Frame | None = None

    def place(self, layer: int, rows: torch.Tensor) -> torch.Tensor:
        """Where rows of the batch stand in `keys[layer]` and `values[layer]`."""
        return rows if self.shared is None else self.shared.layouts[layer].place[rows]

    def place_to_write(self, layer: int, rows: torch.Tensor) -> torch.Tensor:
        """The same, of rows that are written to.

        Raises RuntimeError where another row reads the same numbers: it would be changed as well.
        """
        place = self.place(layer, rows)
        if self.shared is not None:
            readers = torch.bincount(self.shared.layouts[layer].place)
            if bool((readers[place] > 1).any()):
                raise RuntimeError(f"layer {layer}: a prompt that several rows read is written to")
        return place

    def values_at(self, layer: int, rows: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
        """Values of rows at columns (from `slots` on: the headroom), `... head d_head`."""
        if self.shared is None:
            return self.values[layer][rows, :, columns]
        headroom = self.shared.new_values[layer]
        cached = self.values[layer][self.place(layer, rows), :, columns.clamp(max=self.slots - 1)]
        new = headroom[rows, :, (columns - self.slots).clamp(0, headroom.shape[2] - 1)]
        return torch.where((columns < self.slots)[..., None, None], cached, new)

    def narrowed(self, rows: Sequence[int]) -> Slab:
        """Some of the rows, with what they hold, in memory of their own."""
        kept = torch.tensor(rows, dtype=torch.long, device=self.lengths.device)
        if self.shared is None:
            keys, values = ([t[kept] for t in some] for some in (self.keys, self.values))
            return Slab(keys, values, self.slots, self.lengths[kept])
        made = {
            id(layout): narrowed(layout, rows, self.slots, self.keys[0].dtype)
            for layout in self.shared.layouts
        }
        layouts = [made[id(layout)] for layout in self.shared.layouts]
        keys, values = (
            [t[layout.prompts] for t, layout in zip(some, layouts, strict=True)]
            for some in (self.keys, self.values)
        )
        headrooms = self.shared.new_keys, self.shared.new_values
        shared = Shared(
            layouts,
            self.shared.prompts[kept],
            self.shared.own_from[kept],
            *([headroom[kept] for headroom in some] for some in headrooms),
        )
        return Slab(keys, values, self.slots, self.lengths[kept], shared)

    def take_back(self, narrow: Slab, rows: Sequence[int]) -> None:
        """Put into the headroom what rows generated after they were narrowed to: values alone."""
        kept = torch.tensor(rows, dtype=torch.long, device=self.lengths.device)
        for layer in range(len(self.values)):
            if self.shared is not None and narrow.shared is not None:
                self.shared.new_values[layer][kept] = narrow.shared.new_values[layer]
            else:
                self.values[layer][kept] = narrow.values[layer]


def copy_prompts(
    store: PromptStore,
    plans: Sequence[RowPlan],
    *,
    headroom: int,
    shared: bool = False,
    memory: Memory | None = None,
) -> Slab:
    """Every row's prompt cache as the store has it; behind it, space for what is appended.

    headroom: positions kept free for decoding. shared: whether rows share prompts.
    memory: where a static slab is to lie; None for the other forms.
    """
    slots = max(max(plan.tokens, store.lengths[plan.prompt]) for plan in plans) - 1
    device = store.keys[0].device
    lengths = torch.tensor([plan.tokens for plan in plans], device=device)
    if shared:
        slab = _shared(store, plans, slots, lengths, headroom)
    elif memory is not None:
        slab = _static(store, plans, slots, lengths, headroom, memory)
    else:
        prompts = torch.tensor([plan.prompt for plan in plans], device=device)
        keys, values = (
            [_copy(layer, prompts, slots, headroom) for layer in layers]
            for layers in (store.keys, store.values)
        )
        slab = Slab(keys, values, slots, lengths)
    for row, plan in enumerate(plans):
        _make_room_behind(slab, row, plan)
    return slab


def _shared(
    store: PromptStore, plans: Sequence[RowPlan], slots: int, lengths: torch.Tensor, headroom: int
) -> Slab:
    first, slots = store.keys[0], round_up(slots)
    layouts = layouts_of(
        plans, store.lengths, len(store.keys), slots, dtype=first.dtype, device=first.device
    )
    keys, values = (
        [_copy(layer, layout.prompts, slots, 0) for layer, layout in zip(of, layouts, strict=True)]
        for of in (store.keys, store.values)
    )
    # Zeros: what is not generated yet is read and weighs nothing, which a NaN would not.
    width = round_up(headroom)
    new_keys, new_values = (
        [layer.new_zeros(len(plans), layer.shape[1], width, layer.shape[3]) for layer in of]
        for of in (store.keys, store.values)
    )
    prompts, own_from = (
        torch.tensor(of, dtype=torch.long, device=lengths.device)
        for of in (
            [plan.prompt for plan in plans],
            [plan.own_from(len(store.keys), store.lengths[plan.prompt]) for plan in plans],
        )
    )
    shared = Shared(layouts, prompts, own_from, new_keys, new_values)
    return Slab(keys, values, slots, lengths, shared)


def _static(
    store: PromptStore,
    plans: Sequence[RowPlan],
    slots: int,
    lengths: torch.Tensor,
    headroom: int,
    memory: Memory,
) -> Slab:
    """A plain slab in memory used before; rows and positions are rounded up, to few shapes."""
    n_layers, n_rows, slots = len(store.keys), len(plans), round_up(slots)
    rows = round_up(n_rows, ROWS)
    # Batches come in the order of their prompts' lengths.
    most = round_up(round_up(store.slots) + headroom)
    width = round_up(slots + headroom)
    taken = memory.take([*store.keys, *store.values], rows, width, most=most)
    frame = Frame(memory, taken[:n_layers], taken[n_layers:])
    prompts = torch.tensor([plan.prompt for plan in plans], device=lengths.device)
    for out, layer in zip(taken, [*store.keys, *store.values], strict=True):
        _fill(out[:n_rows], layer, prompts, slots)
    keys, values = ([whole[:n_rows] for whole in of] for of in (frame.keys, frame.values))
    return Slab(keys, values, slots, lengths, frame=frame)


def _copy(layer: torch.Tensor, prompts: torch.Tensor, slots: int, headroom: int) -> torch.Tensor:
    """Rows of one layer, `batch head pos d_head`, in fresh memory."""
    if headroom == 0 and slots <= layer.shape[2]:
        return layer[prompts, :, layer.shape[2] - slots :]
    out = layer.new_zeros(len(prompts), layer.shape[1], slots + headroom, layer.shape[3])
    _fill(out, layer, prompts, slots)
    return out


def _fill(out: torch.Tensor, layer: torch.Tensor, prompts: torch.Tensor, slots: int) -> None:
    """Put the store's prompts into zeros, so that they end at `slots`."""
    kept = min(slots, layer.shape[2])
    out[:, :, slots - kept : slots] = layer[prompts, :, layer.shape[2] - kept :]


def _make_room_behind(slab: Slab, row: int, plan: RowPlan) -> None:
    """Move a row's own cache to the left by as much as will be appended to it."""
    moved = sum(len(write.window.base_slots) for write in plan.writes if write.appended)
    if moved:
        for tensors in (slab.keys, slab.values):
            for layer, tensor in enumerate(tensors):
                own = slab.place_to_write(layer, torch.tensor(row, device=tensor.device))
                filled = tensor[own, :, : slab.slots]
                tensor[own, :, : slab.slots] = torch.roll(filled, -moved, dims=1)
