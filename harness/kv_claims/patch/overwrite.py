"""The one place that overwrites numbers: rows and positions of a tensor, from rows of a donor.

Used alike for cached slots (`splice`) and for activations on their way through the model
(`activations`): gather the donor's vectors, rotate keys by the distance they move, put them
together with what stands there, write, read back, count. A self-patch runs all of it with a
distance of 0. A constant's keys move from position 0.

Three facts are kept apart. *Written*: what was to be written stands there, by its bits. *Changed*:
its bits are others than what stood there before. *Beyond rounding*: it differs by more than two
computations of one number do. Only the last has a tolerance, and no number that is written is
hidden by it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch

from kv_claims.claims.modes import Kind
from kv_claims.claims.positions import Window
from kv_claims.claims.sites import Tensor
from kv_claims.models.rotary import Rotation
from kv_claims.patch.bits import other_bits
from kv_claims.patch.constant import Constant
from kv_claims.patch.noise import noise_like
from kv_claims.patch.plan import Footprint, RowPlan, Write

ROUNDING = {torch.float64: 1e-6, torch.float32: 1e-5, torch.bfloat16: 5e-2, torch.float16: 1e-2}
"""Differences up to this share of the largest number may be rounding: rows of one forward pass
that should be equal differ in their last bits where one falls on the tail of a vector loop, and in
float64 RMSNorm still rounds to float32."""


class Place(NamedTuple):
    """Where vectors stand in a tensor `batch head pos d_head`: one entry each, `[n]`."""

    row: torch.Tensor
    column: torch.Tensor


class Written(NamedTuple):
    """Counts of numbers, one entry a vector or a write; see `plan.Footprint`."""

    elements: torch.Tensor
    changed: torch.Tensor
    beyond_rounding: torch.Tensor


@dataclass
class Group:
    """Writes of one kind (site, layers, heads, mode) over several rows, carried out at once.

    owner: which of the group's writes each vector belongs to, `[n]`. shift: how far it moves.
    donor: where the vectors stand; empty of constants. instead: where those that the patched arm
    would paste stand, with their own shifts; None where this is no control, or of constants.
    """

    rows: list[int]
    writes: list[Write]
    owner: torch.Tensor
    target: Place
    donor: Place
    shift: torch.Tensor
    instead: Place | None
    instead_shift: torch.Tensor
    _written: list[Written] = field(default_factory=list)
    _differs: list[torch.Tensor] = field(default_factory=list)

    @property
    def widths(self) -> list[int]:
        """Positions that each write covers."""
        return [len(write.window.base_slots) for write in self.writes]

    def apply(
        self,
        target: torch.Tensor,
        donors: torch.Tensor,
        layer: int,
        tensor: Tensor,
        rotation: Rotation | None,
        *,
        place: Place | None = None,
        rounding: float = 0.0,
    ) -> None:
        """Write one tensor of one layer in place, and count.

        target, donors: `batch head pos d_head`; they may be the same tensor.
        place: where the group's targets stand in this tensor, if elsewhere than in the batch.
        rounding: differences up to this share of the largest number there may be rounding (see
            `ROUNDING`); 0 where a number is copied over itself.
        """
        write, other = self.writes[0], None
        if write.constant is not None:
            new = self._constant([w.constant for w in self.writes], target, layer, tensor, rotation)
            if isinstance(write.instead_of, Constant):
                instead = [w.instead_of for w in self.writes]
                other = self._constant(instead, target, layer, tensor, rotation)
        else:
            new = gather(donors, self.donor, self.shift, layer, tensor, rotation)
        if write.noise is not None:
            new = self._noise(new, layer, tensor)
        if self.instead is not None:
            other = gather(donors, self.instead, self.instead_shift, layer, tensor, rotation)
        if other is not None:
            heads = slice(None) if write.heads is None else list(write.heads)
            self._differs.append(self._per_write(other_bits(new, other)[:, heads].sum((1, 2))))
        written = overwrite(
            target,
            place or self.target,
            new,
            write.heads,
            write.alpha,
            mode=write.mode,
            rounding=rounding,
        )
        self._written.append(Written(*map(self._per_write, written)))

    def footprints(self) -> list[Footprint]:
        """What each of the group's writes did so far."""
        if not self._written:
            return [Footprint() for _ in self.rows]
        counts = Written(*(torch.stack(of).cpu() for of in zip(*self._written, strict=True)))
        # A stream may follow entirely from one that was pasted below: the lowest counts.
        own = counts.changed[:1] if self.writes[0].is_stream else counts.changed
        elements, changed, beyond = (of.sum(0).tolist() for of in counts)
        least = own.amin(0).tolist()
        apart = torch.stack(self._differs).sum(0).tolist() if self._differs else None
        return [
            Footprint(
                fired=len(self._written),
                elements=elements[i],
                changed=changed[i],
                beyond_rounding=beyond[i],
                least_changed=least[i] if write.must_change else None,
                differs=None if apart is None else 0 if write.vacuous else apart[i],
            )
            for i, write in enumerate(self.writes)
        ]

    def _per_write(self, counts: torch.Tensor) -> torch.Tensor:
        zeros = torch.zeros(len(self.rows), dtype=torch.long, device=counts.device)
        return zeros.index_add_(0, self.owner, counts)

    def _constant(
        self,
        constants: Sequence[object],
        target: torch.Tensor,
        layer: int,
        tensor: Tensor,
        rotation: Rotation | None,
    ) -> torch.Tensor:
        """The vectors of each write's constant where they are written, `n head d_head`."""
        known = [one for one in constants if isinstance(one, Constant)]
        vectors = of_constants(known, layer, tensor, target, rotation)[self.owner]
        return turned(vectors, self.shift, layer, tensor, rotation)

    def _noise(self, vectors: torch.Tensor, layer: int, tensor: Tensor) -> torch.Tensor:
        parts = torch.split(vectors, self.widths)
        return torch.cat(
            [
                noise_like(part, f"{write.noise}:{layer}:{tensor}")
                for part, write in zip(parts, self.writes, strict=True)
            ]
        )


def group_writes(
    plans: Sequence[RowPlan],
    wanted: Callable[[Write], bool],
    *,
    target_column: Callable[[int, Write], int],
    donor_place: Callable[[int, Window], tuple[int, int]],
    device: torch.device,
) -> list[Group]:
    """The wanted writes of some rows, grouped so that one group is one gather and one scatter.

    target_column: from a row and its write, the column of the window's position 0 in the target.
    donor_place: from a prompt and a window, the row and the column of its position 0 among donors.
    """
    kinds: dict[tuple[object, ...], list[tuple[int, Write]]] = {}
    for row, plan in enumerate(plans):
        for write in filter(wanted, plan.writes):
            how = (write.mode, write.alpha, write.constant is None)
            kind = (write.site, write.layers, write.heads, *how, bool(plan.computed))
            extra = (write.noise is None, write.instead_of is None, write.donor == plan.prompt)
            kinds.setdefault((*kind, *extra), []).append((row, write))

    def donors(pasted: Sequence[tuple[int, Window]]) -> tuple[Place, torch.Tensor]:
        row, column, shift = [], [], []
        for prompt, window in pasted:
            place, first = donor_place(prompt, window)
            row += [place] * len(window.source_slots)
            column += [first + position for position in window.source_slots]
            shift += [window.shift] * len(window.source_slots)
        return Place(_long(row, device), _long(column, device)), _long(shift, device)

    groups = []
    for members in kinds.values():
        rows, writes = [row for row, _ in members], [write for _, write in members]
        widths = torch.tensor([len(write.window.base_slots) for write in writes])
        owner = torch.repeat_interleave(torch.arange(len(rows)), widths)
        columns = [
            target_column(row, write) + position
            for row, write in members
            for position in write.window.base_slots
        ]
        if writes[0].constant is None:
            place, shift = donors([(write.donor, write.window) for write in writes])
        else:
            # Its keys come from position 0.
            place, _ = donors([])
            shift = _long([at for write in writes for at in write.window.base_slots], device)
        would_be = [one for write in writes if isinstance(one := write.instead_of, tuple)]
        instead, instead_shift = donors(would_be)
        groups.append(
            Group(
                rows=rows,
                writes=writes,
                owner=owner.to(device),
                target=Place(_long(rows, device)[owner.to(device)], _long(columns, device)),
                donor=place,
                shift=shift,
                instead=instead if would_be else None,
                instead_shift=instead_shift,
            )
        )
    return groups


def gather(
    donors: torch.Tensor,
    place: Place,
    shift: torch.Tensor,
    layer: int,
    tensor: Tensor,
    rotation: Rotation | None,
) -> torch.Tensor:
    """The donors' vectors as they must stand at the new positions, `n head d_head`."""
    return turned(donors[place.row, :, place.column], shift, layer, tensor, rotation)


def of_constants(
    constants: Sequence[Constant],
    layer: int,
    tensor: Tensor,
    like: torch.Tensor,
    rotation: Rotation | None,
) -> torch.Tensor:
    """Vectors of constants as they stand at position 0, `n head d_head`; see `Constant.of`."""
    vectors = torch.stack([one.of(layer, tensor, like) for one in constants])
    if tensor == "k" and rotation is not None:
        return rotation.scaled(layer, vectors)
    return vectors


def turned(
    vectors: torch.Tensor,
    shift: torch.Tensor,
    layer: int,
    tensor: Tensor,
    rotation: Rotation | None,
) -> torch.Tensor:
    """Vectors moved by so many positions, `n head d_head`: keys turn, all else stays as it is."""
    if tensor == "k" and rotation is not None:
        return rotation(layer, vectors, shift)
    return vectors


def overwrite(
    target: torch.Tensor,
    place: Place,
    new: torch.Tensor,
    heads: tuple[int, ...] | None,
    alpha: float,
    *,
    mode: Kind = "replace",
    rounding: float = 0.0,
) -> Written:
    """Put vectors at places of a tensor, and count the numbers of each.

    new: `n head d_head`; only `heads` of it are written (None: all), by `mode` with weight `alpha`
    over what stands there. Equal numbers stay equal, to the bit, under any weight.
    """
    before = target[place.row, :, place.column]
    new = _together(before, new, mode, alpha)
    if heads is not None:
        chosen = torch.zeros(target.shape[1], 1, dtype=torch.bool, device=target.device)
        chosen[list(heads)] = True
        new = torch.where(chosen, new, before)
    target[place.row, :, place.column] = new
    # Read back what stands there now: a write that missed its place must not count.
    after = target[place.row, :, place.column]
    stands = ~other_bits(after, new)[:, slice(None) if heads is None else list(heads)]
    changed = beyond = other_bits(after, before)
    if rounding and before.numel():
        # What is no number is beyond any rounding.
        beyond = changed & ~((after - before).abs() <= rounding * before.abs().amax())
    return Written(*(which.sum((1, 2)) for which in (stands, changed, beyond)))


def _together(before: torch.Tensor, new: torch.Tensor, mode: Kind, alpha: float) -> torch.Tensor:
    """What is to stand where something stands; see `claims.modes`. Vectors are the last axis."""
    if mode == "add":
        return before + alpha * new
    if mode == "project_out":
        work = torch.promote_types(before.dtype, torch.float32)
        unit = new.to(work) / new.to(work).norm(dim=-1, keepdim=True)
        along = (before.to(work) * unit).sum(-1, keepdim=True)
        rest: torch.Tensor = (before.to(work) - along * unit).to(before.dtype)
        return rest
    if alpha == 1.0:
        return new
    return torch.where(other_bits(new, before), before + alpha * (new - before), before)


def _long(values: Sequence[int], device: torch.device) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.long, device=device)
