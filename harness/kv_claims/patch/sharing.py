"""Which rows of a batch read the same cached prompt in a layer.

Arms of a base differ from it in the layers that they splice, or, patched in the prompt pass, from
the lowest patched layer up, and in no other: there all of them read one copy of the prompt's keys
and values. A copy is a *variant*; a row that is written to in a layer has one of its own there.
Variants stand in the order of how many rows read them, so that those that are read by equally many
rows form a block, which attention handles at once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import torch

from kv_claims.patch.plan import RowPlan

WIDTH = 16
"""Shared caches and headrooms are as wide as a multiple of this: vector loops have no tail then,
which on a CPU takes up to ten times as long as the rest."""


def round_up(number: int, to: int = WIDTH) -> int:
    """The next multiple of `to` that is no less."""
    return -(-number // to) * to


class Block(NamedTuple):
    """Neighbouring variants that are read by equally many rows.

    variants: the first of them and the one behind the last. rows: the same among the rows in the
    order of `Layout.order`. readers: rows of each variant. first: the first slot that any of them
    fills. hidden: 0 where a variant fills a slot from `first` on, -inf before; None where all do.
    """

    variants: slice
    rows: slice
    readers: int
    first: int
    hidden: torch.Tensor | None


class Layout(NamedTuple):
    """The variants of one layer.

    prompts: the store's prompt of each, `[variant]`. place: the variant that a row reads, `[row]`.
    order: rows in the order of their variants. back: where each row stands in that order.
    filled: slots that each variant fills.
    """

    prompts: torch.Tensor
    place: torch.Tensor
    order: torch.Tensor
    back: torch.Tensor
    filled: tuple[int, ...]
    blocks: tuple[Block, ...]


def layouts_of(
    plans: Sequence[RowPlan],
    lengths: Sequence[int],
    n_layers: int,
    slots: int,
    *,
    dtype: torch.dtype,
    device: torch.device,
) -> list[Layout]:
    """A layout for each layer; layers that are alike share one. lengths: T of each prompt."""
    made: dict[frozenset[int], Layout] = {}
    layouts = []
    for layer in range(n_layers):
        own = frozenset(row for row, plan in enumerate(plans) if _is_own(plan, layer, lengths))
        if own not in made:
            made[own] = _layout(plans, own, slots, dtype, device)
        layouts.append(made[own])
    return layouts


def _is_own(plan: RowPlan, layer: int, lengths: Sequence[int]) -> bool:
    """Whether a row's cached prompt is another than the store's in this layer."""
    first = plan.computed_from_layer
    return (
        (first is not None and layer >= first)
        or plan.tokens != lengths[plan.prompt]
        or any(w.appended or layer in w.layers for w in plan.writes if w.is_splice)
    )


def _layout(
    plans: Sequence[RowPlan],
    own: frozenset[int],
    slots: int,
    dtype: torch.dtype,
    device: torch.device,
) -> Layout:
    # A variant is named by its prompt, or by the row that has it for itself.
    names = [(1, row) if row in own else (0, plan.prompt) for row, plan in enumerate(plans)]
    filled = {name: plan.tokens - 1 for name, plan in zip(names, plans, strict=True)}
    prompt = {name: plan.prompt for name, plan in zip(names, plans, strict=True)}
    return _laid_out(names, filled, prompt, slots, dtype, device)


def among(layout: Layout, rows: torch.Tensor) -> Layout:
    """The layout of those rows of a batch that are run, over the same variants; rows `[n]`.

    Each variant of a block gets as many seats as the most that is read has readers; in an empty
    seat sits some row, whose answer nobody takes.
    """
    place = layout.place[rows]
    readers = place.bincount(minlength=len(layout.prompts))
    # Of its variant's readers, in the order of rows, which one a row is.
    by_variant = place.argsort(stable=True)
    first = readers.cumsum(0) - readers
    turn = torch.empty_like(place)
    turn[by_variant] = torch.arange(len(rows), device=rows.device) - first[place[by_variant]]
    seat_of, blocks, seats = torch.empty_like(readers), [], 0
    for block in layout.blocks:
        most = int(readers[block.variants].max())
        of = seat_of[block.variants]
        of.copy_(seats + most * torch.arange(len(of), device=rows.device))
        stop = seats + most * len(of)
        blocks.append(block._replace(rows=slice(seats, stop), readers=most))
        seats = stop
    back = seat_of[place] + turn
    order = back.new_zeros(seats).index_copy_(0, back, torch.arange(len(rows), device=rows.device))
    return layout._replace(place=place, order=order, back=back, blocks=tuple(blocks))


def narrowed(layout: Layout, rows: Sequence[int], slots: int, dtype: torch.dtype) -> Layout:
    """The layout of some of the rows; its `prompts` are variants of the one before."""
    place = layout.place.tolist()
    names = [(0, place[row]) for row in rows]
    filled = {name: layout.filled[name[1]] for name in names}
    return _laid_out(
        names, filled, {name: name[1] for name in names}, slots, dtype, layout.place.device
    )


def _laid_out(
    names: Sequence[tuple[int, int]],
    filled: dict[tuple[int, int], int],
    prompt: dict[tuple[int, int], int],
    slots: int,
    dtype: torch.dtype,
    device: torch.device,
) -> Layout:
    """Variants in order. names: of the variant of each row. filled: slots that a variant fills."""
    readers = Counter(names)
    variants = sorted(readers, key=lambda name: (readers[name], filled[name], name))
    number = {name: i for i, name in enumerate(variants)}
    place = [number[name] for name in names]
    order = sorted(range(len(names)), key=lambda row: (place[row], row))
    back = sorted(range(len(names)), key=lambda at: order[at])

    blocks, start, row = [], 0, 0
    for n, count in sorted(Counter(readers.values()).items()):
        lengths = [filled[name] for name in variants[start : start + count]]
        first = slots - round_up(max(lengths))
        hidden = None
        if min(lengths) < slots - first:
            slot = torch.arange(first, slots)
            empty = slot < (slots - torch.tensor(lengths))[:, None]
            hidden = torch.zeros(empty.shape, dtype=dtype).masked_fill(empty, -torch.inf)
            hidden = hidden.to(device)
        blocks.append(
            Block(slice(start, start + count), slice(row, row + n * count), n, first, hidden)
        )
        start, row = start + count, row + n * count

    def long(values: Sequence[int]) -> torch.Tensor:
        return torch.tensor(values, dtype=torch.long, device=device)

    return Layout(
        long([prompt[name] for name in variants]),
        long(place),
        long(order),
        long(back),
        tuple(filled[name] for name in variants),
        tuple(blocks),
    )
