"""A trial to run, which of them are decoded together, and how many at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch

from kv_claims.models.load import LoadedModel
from kv_claims.patch.plan import RowPlan
from kv_claims.patch.store import bytes_a_position
from kv_claims.run.arms import Arm
from kv_claims.tasks.task import Pair

MOST_ROWS = 512
_CPU_BYTES = 2 << 30
_GPU_SHARE = 0.5
_COPIES = 2
"""Slab plus the temporaries of attention and sampling, as multiples of the slab."""


class Work(NamedTuple):
    """One trial to run. reference: the arm whose row must stand in the same batch, or None."""

    pair: Pair
    arm: Arm
    seed: int
    key: str
    plan: RowPlan
    reference: Arm | None
    oracle: bool

    @property
    def rows(self) -> int:
        """Rows of a batch that it takes, with those beside it, at most."""
        return 1 + (self.reference is not None) + len(self.plan.step_donors)


def first_batch(works: Sequence[Work], size: int) -> tuple[list[Work], list[Work]]:
    """A batch of at most `size` rows, and what is left.

    Rows are alike in length, a pair's arms next to each other. A row counts with those that must
    stand beside it. A batch holds at least one trial, whatever its size.
    """
    ordered = sorted(works, key=lambda work: (work.plan.tokens, work.pair.index, work.seed))
    room, taken = size - ordered[0].rows, 1
    while taken < len(ordered) and ordered[taken].rows <= room:
        room -= ordered[taken].rows
        taken += 1
    return ordered[:taken], ordered[taken:]


def automatic_batch_size(slots: int, model: LoadedModel, *, held: int = 0) -> int:
    """Rows whose caches fit a share of the memory, at most 512.

    slots: positions of a row's cache, generated ones included.
    held: bytes that are taken for caches already, and used again.
    """
    logits = 4 * 8 * int(model.config.vocab_size)
    return _rows_of(_COPIES * slots * bytes_a_position(model) + logits, model, held)


def forced_batch_size(slots: int, steps: int, model: LoadedModel) -> int:
    """The same where so many steps are fed at once, of which all logits are kept."""
    logits = _COPIES * steps * int(model.config.vocab_size) * model.dtype.itemsize
    return _rows_of(_COPIES * slots * bytes_a_position(model) + logits, model, 0)


def _rows_of(row: int, model: LoadedModel, held: int) -> int:
    """Rows of so many bytes that fit a share of the memory."""
    if model.device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(model.device)
        # torch keeps what was freed: to the driver it is taken.
        kept = torch.cuda.memory_reserved(model.device) - torch.cuda.memory_allocated(model.device)
        budget = int((free + kept + held) * _GPU_SHARE)
    else:
        budget = _CPU_BYTES
    return max(1, min(MOST_ROWS, budget // row))
