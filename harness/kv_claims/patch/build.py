"""A batch, ready to generate: prompts copied or computed anew, spliced, and what stays on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from kv_claims.models.rotary import Rotation
from kv_claims.patch.activations import compute_prompts
from kv_claims.patch.live import Live
from kv_claims.patch.memory import Memory
from kv_claims.patch.plan import Footprint, RowPlan
from kv_claims.patch.slab import Slab, copy_prompts
from kv_claims.patch.splice import splice
from kv_claims.patch.store import PromptStore


class Built(NamedTuple):
    """The caches of a batch, what writing them changed, and what is written while it generates."""

    slab: Slab
    footprints: list[Footprint]
    live: Live


def build(
    store: PromptStore,
    plans: Sequence[RowPlan],
    rotation: Rotation | None,
    *,
    headroom: int,
    donor_rows: Mapping[tuple[int, int], int] | None = None,
    shared: bool = False,
    memory: Memory | None = None,
) -> Built:
    """Carry out everything that the rows' plans say before they generate.

    rotation: turns moved keys; None for a model that has none, where no key may move.
    headroom: positions kept free behind the prompt, for decoding.
    donor_rows: see `live.Live`; needed where a plan reads its donor at every step.
    shared, memory: the form of the slab, see `slab.copy_prompts`.
    """
    slab = copy_prompts(store, plans, headroom=headroom, shared=shared, memory=memory)
    computed = compute_prompts(slab, store, plans, rotation)
    groups = [*computed.groups, *splice(slab, store, plans, rotation)]
    footprints = [Footprint() for _ in plans]
    for group in groups:
        for row, footprint in zip(group.rows, group.footprints(), strict=True):
            footprints[row] = footprints[row].and_also(footprint)
    live = Live(
        plans,
        computed,
        donor_rows or {},
        rotation,
        lengths=store.lengths,
        steps=headroom,
        device=slab.lengths.device,
    )
    return Built(slab, footprints, live)
