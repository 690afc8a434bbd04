"""Patches that are on while rows generate: what is written at which step.

Step 0 feeds the last prompt token: rows whose window holds it get there what the patched prompt
pass gave it. From step 1 on, rows with `every_step` get their donor's own activation at the same
step of the donor's own generation, from the donor's row of the same batch, or their constant, put
together with what stands there; rows with `every_step(held)` get the donor's activation at its last
prompt position, again and again.
Counts are kept for every row and step (*hook-never-fired*: a patch guarded against single tokens
once never ran).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from kv_claims.claims.modes import Kind
from kv_claims.claims.sites import Spot, Tensor
from kv_claims.models.rotary import Rotation
from kv_claims.patch.activations import Catch, PromptPass
from kv_claims.patch.constant import Constant
from kv_claims.patch.noise import directions, with_norms
from kv_claims.patch.overwrite import ROUNDING, Place, of_constants, overwrite, turned
from kv_claims.patch.plan import RowPlan, Steps, Write

When = Literal["first", "held", "live", "constant"]
_FROM_ONE_PLACE = ("held", "constant")
"""Keys of these are written ever further from where they were: by a position a step."""


@dataclass
class _Item:
    """Writes alike in heads and mode, for one layer and tensor: where vectors come from, when.

    mode, alpha: how they are put together with what stands there.
    vectors: `n head d_head`, or None where they are read from the donors' rows at each step; of
    constants from the first step on. shift: how far keys move; where they are held, or a
    constant's, before the first step.
    noise: names of the draws whose directions the vectors get, or None.
    """

    when: When
    rows: torch.Tensor
    heads: tuple[int, ...] | None
    mode: Kind
    alpha: float
    shift: torch.Tensor
    vectors: torch.Tensor | None
    donor_rows: torch.Tensor | None
    constants: list[Constant]
    noise: list[str] | None
    _unit: torch.Tensor | None = None

    def directions(self, step: int, n_steps: int, like: torch.Tensor) -> torch.Tensor:
        """Directions of the noise at a step, `n head d_head`: drawn once; one draw where held."""
        assert self.noise is not None
        if self._unit is None:
            shape = (1 if self.when == "held" else n_steps, *like.shape[1:])
            self._unit = torch.stack([directions(shape, stream) for stream in self.noise])
        return self._unit[:, 0 if self.when == "held" else step].to(like.device)


class Live:
    """The writes of a batch while it generates.

    donor_rows: from a row and a prompt, the row of the batch in which that prompt generates by
        itself, with the same uniforms.
    steps: how many tokens are fed at most.
    """

    def __init__(
        self,
        plans: Sequence[RowPlan],
        computed: PromptPass,
        donor_rows: Mapping[tuple[int, int], int],
        rotation: Rotation | None,
        *,
        lengths: Sequence[int],
        steps: int,
        device: torch.device,
    ) -> None:
        self._plans, self._rotation, self._device = plans, rotation, device
        self._donor_rows, self._lengths, self._steps = donor_rows, lengths, steps
        self._items: dict[Spot, list[_Item]] = {}
        self._fired = torch.zeros(len(plans), dtype=torch.long, device=device)
        self._changed, self._beyond = self._fired.clone(), self._fired.clone()
        self._now, self._going = range(0), torch.ones(len(plans), dtype=torch.bool, device=device)
        stages: tuple[tuple[When, Catch], ...]
        stages = (("first", computed.last), ("held", computed.held))
        for when, caught in stages:
            for key, found in caught.items():
                for one in found:
                    self._add(key, when, one.rows, one.writes, one.vectors)
        for (on, key), members in _every_step(plans).items():
            rows, writes = [row for row, _ in members], [write for _, write in members]
            self._add(key, on, rows, writes, None)

    def __bool__(self) -> bool:
        return bool(self._items)

    @property
    def ends_with_first_step(self) -> bool:
        """Whether nothing is written after the last prompt token was fed."""
        return all(item.when == "first" for items in self._items.values() for item in items)

    @property
    def spots(self) -> list[Spot]:
        """Layers and tensors that are written."""
        return list(self._items)

    def begin(self, steps: range, going: torch.Tensor | None = None) -> None:
        """Say which steps the next forward pass feeds; going: rows that still count, `[batch]`."""
        self._now = steps
        if going is not None:
            self._going = going

    def edit(self, layer: int, tensor: Tensor, states: torch.Tensor) -> None:
        """Overwrite the activations of the steps that are being fed, `batch head pos d_head`."""
        for item in self._items.get((layer, tensor), ()):
            columns = [
                c for c, step in enumerate(self._now) if (step == 0) == (item.when == "first")
            ]
            if columns:
                self._write(item, layer, tensor, states, columns)

    def seen(self) -> list[Steps]:
        """What the writes did to each row so far."""
        counts = (of.tolist() for of in (self._fired, self._changed, self._beyond))
        return [Steps(*of) for of in zip(*counts, strict=True)]

    def _write(
        self, item: _Item, layer: int, tensor: Tensor, states: torch.Tensor, columns: list[int]
    ) -> None:
        for column in columns:
            step = self._now[column]
            place = Place(item.rows, torch.full_like(item.rows, column))
            if item.vectors is None and item.constants:
                known = item.constants
                item.vectors = of_constants(known, layer, tensor, states, self._rotation)
            if item.vectors is not None:
                new = item.vectors
            else:
                assert item.donor_rows is not None
                new = states[item.donor_rows, :, column]
            if item.noise is not None:
                new = with_norms(item.directions(step, self._steps, new), new)
            elif item.when != "first":
                further = step if item.when in _FROM_ONE_PLACE else 0
                new = turned(new, item.shift + further, layer, tensor, self._rotation)
            written, changed, beyond = overwrite(
                states,
                place,
                new.to(states.dtype),
                item.heads,
                item.alpha,
                mode=item.mode,
                rounding=ROUNDING[states.dtype],
            )
            n_heads = states.shape[1] if item.heads is None else len(item.heads)
            counted = self._going[item.rows]
            # All of it must stand there.
            fired = counted & (written == n_heads * states.shape[3])
            self._fired.index_add_(0, item.rows, fired.long())
            self._changed.index_add_(0, item.rows, changed * counted)
            self._beyond.index_add_(0, item.rows, beyond * counted)

    def _add(
        self,
        key: Spot,
        when: When,
        rows: Sequence[int],
        writes: Sequence[Write],
        vectors: torch.Tensor | None,
    ) -> None:
        """Items of some rows' writes, one for each kind of write among them."""
        kinds: dict[tuple[tuple[int, ...] | None, bool, Kind, float], list[int]] = {}
        for i, write in enumerate(writes):
            # What the first step gets was put together in the prompt pass.
            mode: Kind = "replace" if when == "first" else write.mode
            alpha = 1.0 if when == "first" else write.alpha
            kinds.setdefault((write.heads, write.noise is not None, mode, alpha), []).append(i)
        for (heads, is_noise, mode, alpha), picked in kinds.items():
            members = [(rows[i], writes[i]) for i in picked]
            moved = [
                self._plans[row].tokens - (self._lengths[w.donor] if w.constant is None else 1)
                for row, w in members
            ]
            live = when == "live"
            donors = [self._donor_rows[row, w.donor] for row, w in members] if live else []
            streams = [f"{w.noise}:{key[0]}:{key[1]}:{when}" for _, w in members]
            self._items.setdefault(key, []).append(
                _Item(
                    when=when,
                    rows=self._long([row for row, _ in members]),
                    heads=heads,
                    mode=mode,
                    alpha=alpha,
                    shift=self._long(moved),
                    vectors=None if vectors is None else vectors[picked],
                    donor_rows=self._long(donors) if live else None,
                    constants=[w.constant for _, w in members if w.constant is not None],
                    # What the first step gets is noise already: it was in the prompt pass.
                    noise=streams if is_noise and when != "first" else None,
                )
            )

    def _long(self, values: Sequence[int]) -> torch.Tensor:
        return torch.tensor(values, dtype=torch.long, device=self._device)


def _every_step(plans: Sequence[RowPlan]) -> dict[tuple[When, Spot], list[tuple[int, Write]]]:
    """Rows and writes that are on at every step, by layer and tensor: those that read their donor
    there, and those of constants."""
    found: dict[tuple[When, Spot], list[tuple[int, Write]]] = {}
    for row, plan in enumerate(plans):
        for write in plan.writes:
            if write.active == "every_step":
                when: When = "live" if write.reads_steps else "constant"
                for spot in write.spots:
                    found.setdefault((when, spot), []).append((row, write))
    return found
