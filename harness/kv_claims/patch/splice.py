"""The splice: named slots of cached prompts overwritten by those of others.

One path for every arm: gather the donor's slots, rotate keys by the distance they move, write.
A self-patch runs it with a shift of 0; the full swap runs it over every slot. Nothing inside the
prompt is computed again.
"""

from __future__ import annotations

from collections.abc import Sequence

from kv_claims.claims.positions import Window
from kv_claims.models.rotary import Rotation
from kv_claims.patch.overwrite import ROUNDING, Group, group_writes
from kv_claims.patch.plan import RowPlan
from kv_claims.patch.slab import Slab
from kv_claims.patch.store import PromptStore


def splice(
    slab: Slab, store: PromptStore, plans: Sequence[RowPlan], rotation: Rotation | None
) -> list[Group]:
    """Carry out every splice of a batch; the groups know what it changed.

    rotation: turns moved keys; None for a model that has none, where no key may move.
    """
    width = store.keys[0].shape[2]

    def donor_place(prompt: int, _window: Window) -> tuple[int, int]:
        return prompt, width - (store.lengths[prompt] - 1)

    groups = group_writes(
        plans,
        lambda write: write.is_splice,
        target_column=lambda row, _write: slab.slots - (plans[row].tokens - 1),
        donor_place=donor_place,
        device=store.keys[0].device,
    )
    for group in groups:
        # Of one group all are. A cache is copied over itself to the bit; another prompt's, or that
        # of a row whose prompt was computed anew, is another computation.
        plan = plans[group.rows[0]]
        first = group.writes[0]
        is_copy = first.donor == plan.prompt and not plan.computed and first.constant is None
        rounding = 0.0 if is_copy else ROUNDING[store.model.dtype]
        _write(slab, store, group, rotation, rounding)
    return groups


def _write(
    slab: Slab, store: PromptStore, group: Group, rotation: Rotation | None, rounding: float
) -> None:
    """Carry out the writes of one group, a gather and a scatter a tensor."""
    for layer in group.writes[0].layers:
        for tensor in group.writes[0].tensors:
            target = (slab.keys if tensor == "k" else slab.values)[layer]
            donors = (store.keys if tensor == "k" else store.values)[layer]
            place = group.target._replace(row=slab.place_to_write(layer, group.target.row))
            group.apply(target, donors, layer, tensor, rotation, place=place, rounding=rounding)
