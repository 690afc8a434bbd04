"""Which tokens a patched prompt pass runs, and how they stand in it.

What stands before the first position that a write touches is the store's, so a row is run from
there on: its *tail*. Cached positions end in one column and tails start in the next; neither has
a hole, so slots of a row are as far apart as its positions, which attention windows rely on.
Padding stands before what is cached, masked, and behind the tails, where no token sees it.

    position of one row     . . 0 1 2 | 3 4 5 6
    position of another     0 1 2 3 4 | 5 6 . .
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch

from kv_claims.patch.interception import KeysValues
from kv_claims.patch.plan import RowPlan
from kv_claims.patch.store import PromptStore

UNEQUAL = 2
"""Tails of one pass are at most so many times as long as its shortest: shorter ones are padded."""
CACHED = 4
"""Cached positions of one pass, to positions that it runs at most. They are only read, and held a
layer at a time, so they cost less than what is run."""


class Chunk(NamedTuple):
    """What goes through one pass.

    computed: rows of the batch whose tails are run. held: those that only hold a donor's vectors.
    donors: positions of each donor that are run, by the store's prompt.
    """

    computed: list[int]
    held: list[int]
    donors: dict[int, range]


def chunks(plans: Sequence[RowPlan], lengths: Sequence[int], most: int) -> Iterator[Chunk]:
    """The rows that need a prompt pass, those with tails alike together.

    most: positions that a pass may run, donors and padding counted; cached ones may be `CACHED`
    times as many. It has at least one row.
    """
    rows = [row for row, plan in enumerate(plans) if plan.needs_prompt_pass]
    chunk, runs = Chunk([], [], {}), list[range]()
    for row in sorted(rows, key=lambda row: len(plans[row].computed)):
        own = [run for run in [plans[row].computed] if run]
        read = _read(plans[row], lengths)
        wider = {prompt: _hull(chunk.donors.get(prompt), run) for prompt, run in read.items()}
        now = [*runs, *own, *{**chunk.donors, **wider}.values()]
        n_run = len(now) * max(map(len, now))
        n_cached = len(now) * max(run.start for run in now)
        unequal = own and runs and len(own[0]) > UNEQUAL * len(runs[0])
        if (chunk.computed or chunk.held) and (n_run > most or n_cached > CACHED * most or unequal):
            yield chunk
            chunk, runs, wider = Chunk([], [], {}), [], read
        (chunk.computed if own else chunk.held).append(row)
        runs += own
        chunk.donors.update(wider)
    if chunk.computed or chunk.held:
        yield chunk


def _read(plan: RowPlan, lengths: Sequence[int]) -> dict[int, range]:
    """Positions of its donors that a row reads while prompts are computed, a stretch a donor."""
    found: dict[int, range] = {}
    for write in plan.writes:
        pasted = []
        if not write.is_splice:
            pasted += [(prompt, window.source_slots) for prompt, window in write.reads]
        if write.active == "every_step(held)":
            end = lengths[write.donor]
            pasted += [(write.donor, range(end - 1, end))]
        for prompt, run in pasted:
            found[prompt] = _hull(found.get(prompt), run)
    return found


def _hull(one: range | None, other: range) -> range:
    return other if one is None else range(min(one.start, other.start), max(one.stop, other.stop))


class Tails:
    """Stretches of prompts, side by side, each behind what the store has of its prompt.

    prompts: the store's. runs: positions that are run, one stretch each.
    cached: columns before the tails.
    """

    def __init__(self, store: PromptStore, prompts: Sequence[int], runs: Sequence[range]) -> None:
        self._store = store
        self.cached = max(run.start for run in runs)
        self.width = max(map(len, runs))
        device = store.keys[0].device
        self.starts = torch.tensor([run.start for run in runs], device=device)
        self._prompts = torch.tensor(prompts, device=device)
        stops = torch.tensor([run.stop for run in runs], device=device)
        lengths = torch.tensor([store.lengths[prompt] for prompt in prompts], device=device)
        # Behind a tail its last position is repeated: no model has to know one beyond its prompt.
        self.positions = (self.starts[:, None] + torch.arange(self.width, device=device)).clamp(
            max=stops[:, None] - 1
        )
        ids = torch.zeros(len(runs), self.width, dtype=torch.long)
        for row, (prompt, run) in enumerate(zip(prompts, runs, strict=True)):
            ids[row, : len(run)] = torch.tensor(store.tokens[prompt][run.start : run.stop])
        self._ids = ids.to(device)
        before = torch.arange(self.cached, device=device) - self.cached + self.starts[:, None]
        self._is_cached = before >= 0
        first = store.keys[0].shape[2] - (lengths - 1)
        self._columns = (first[:, None] + before).clamp(min=0)

    def arguments(self) -> dict[str, Any]:
        """What a model's call is given: ids, positions and, behind cached columns, a mask."""
        given = {"input_ids": self._ids, "position_ids": self.positions}
        if not self.cached:
            return given
        mask = self._is_cached.long()
        run = mask.new_ones(len(mask), self.width)
        return {**given, "attention_mask": torch.cat([mask, run], 1)}

    def before(self, layer: int) -> KeysValues:
        """Keys and values of the cached columns of a layer, `row head column d_head`."""
        # What stands in the padding is some prompt's: numbers, which the mask leaves no weight.
        at = self._prompts[:, None], slice(None), self._columns
        keys, values = self._store.keys[layer][at], self._store.values[layer][at]
        return keys.transpose(1, 2), values.transpose(1, 2)
