"""One step of decoding: a token a row in, logits out; plainly, with shared prompts, or recorded.

The slab says which: see `kv_claims.patch.slab`. With shared prompts, rows that have said the same
are run together below their patches (`kv_claims.run.shared_layers`). What is written while rows
generate is written on either route by the same edits, at the cache and on the layers' outputs. Rows
that have ended leave the batch once half of it has.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import Any

import torch

from kv_claims.models.forward import with_cache
from kv_claims.models.load import LoadedModel
from kv_claims.patch.interception import edited
from kv_claims.patch.live import Live
from kv_claims.patch.slab import Slab
from kv_claims.run.shared_attention import arguments, as_room, attending
from kv_claims.run.shared_layers import EVERY_ROW, Picked, SharedLayers, has_known_layers, picking
from kv_claims.run.slab_cache import as_cache, padding_mask
from kv_claims.run.static_step import step_of

NARROW = 0.5
"""The batch is narrowed to the rows that go on once they are no more than this share of it: the
copy of their caches costs about a step."""
LOOK = 8
"""On the static route it is looked up so rarely whether rows go on: each time the host waits for
the device, which has nothing to do until the host has caught up."""


@contextmanager
def stepping(
    model: LoadedModel, slab: Slab, steps: int, live: Live | None
) -> Iterator[Steps | StaticSteps]:
    """What feeds a slab's rows, while this is open. steps: how many there will be at most."""
    if slab.frame is not None:
        yield StaticSteps(model, slab, live)
        return
    spots, edit = (live.spots, live.edit) if live else ([], None)
    attention = nullcontext() if slab.shared is None else attending(model)
    shares = (
        slab.shared is not None
        and has_known_layers(model)
        and (live is None or live.ends_with_first_step)
    )
    fed = Steps(model, slab, steps, live, shares=shares)
    picked = picking(model, fed.running) if shares else nullcontext()
    with edited(model, spots, edit), attention, picked:
        yield fed
        fed.close()


class Steps:
    """Feeds rows. Made by `stepping`. shares: whether rows may be run together."""

    def __init__(
        self, model: LoadedModel, slab: Slab, steps: int, live: Live | None, *, shares: bool
    ) -> None:
        self._network, self._steps, self._live = model.network, steps, live
        self._rows = torch.arange(len(slab.lengths), device=slab.lengths.device)
        self._all = len(self._rows)
        self._wider: list[tuple[Slab, list[int]]] = []
        self._shared_layers: SharedLayers | None = None
        if shares and slab.shared is not None:
            self._shared_layers = SharedLayers(slab, slab.shared.prompts)
        self._fed = 0
        self._open(slab)

    def _open(self, slab: Slab) -> None:
        self._slab = slab
        is_plain = slab.shared is None
        if is_plain:
            cache = as_cache(slab, self._live, self._fed)
        else:
            cache = as_room(slab, self._live, self._fed, self._picked_in)
        self._cache: dict[str, Any] = with_cache(self._network, cache)
        self._mask = padding_mask(slab, self._steps) if is_plain else None

    def running(self) -> SharedLayers | None:
        """What says which rows are run in a layer; None while all are."""
        return (
            self._shared_layers
            if self._shared_layers is not None and self._shared_layers.picked
            else None
        )

    def _picked_in(self, layer: int) -> Picked:
        shared_layers = self.running()
        return EVERY_ROW if shared_layers is None else shared_layers.picked[layer]

    def looks(self, number: int) -> bool:  # noqa: ARG002
        """Whether it is looked up after a step which rows go on."""
        return True

    def feed(self, token: torch.Tensor, number: int) -> torch.Tensor:
        """Logits `row vocab` from the token of each row, `[row]`, and the number of the step.

        Those of rows that have left are 0.
        """
        slab = self._slab
        token = token[self._rows] if self._wider else token
        if self._shared_layers is not None:
            if number == 0 and self._live is not None:
                # What a patch writes with the last prompt token is written into rows by number.
                self._shared_layers.hear(token)
            elif self._shared_layers.part(token, self._fed):
                slab = self._shared_layers.slab
            else:
                self._shared_layers = None
        self._fed += 1
        if self._mask is None:
            attention = arguments(slab, number, self._picked_in)
        else:
            attention = {"attention_mask": self._mask[:, : slab.slots + number + 1]}
        logits: torch.Tensor = self._network(
            input_ids=token[:, None],
            position_ids=(slab.lengths - 1 + number)[:, None],
            **self._cache,
            **attention,
            use_cache=True,
            logits_to_keep=1,
        ).logits[:, -1]
        if not self._wider:
            return logits
        return logits.new_zeros(self._all, logits.shape[1]).index_copy_(0, self._rows, logits)

    def narrow(self, going: torch.Tensor) -> None:
        """Let rows leave that have ended, if that pays.

        Where something is on while rows generate, some read from others: all of them stay.
        """
        stay = going[self._rows]
        if self._live is not None or int(stay.sum()) > NARROW * len(self._rows):
            return
        kept = stay.nonzero().flatten()
        rows = kept.tolist()
        self._wider.append((self._slab, rows))
        self._rows = self._rows[kept]
        if self._shared_layers is not None:
            self._shared_layers.close(self._fed)
        slab = self._slab.narrowed(rows)
        if self._shared_layers is not None:
            self._shared_layers = SharedLayers(slab, self._shared_layers.groups[kept])
        self._open(slab)

    def close(self) -> None:
        """Put what was generated once for several rows, or after rows had left, into the slab."""
        if self._shared_layers is not None:
            self._shared_layers.close(self._fed)
        for wider, rows in reversed(self._wider):
            wider.take_back(self._slab, rows)
            self._slab = wider


class StaticSteps:
    """Feeds rows of a static slab. Made by `stepping`.

    What a patch writes with the last prompt token is Python, so that first step is taken plainly,
    on the same memory. What goes on while rows generate cannot be recorded at all.
    """

    def __init__(self, model: LoadedModel, slab: Slab, live: Live | None) -> None:
        if live is not None and not live.ends_with_first_step:
            raise ValueError("rows that are written to while they generate: expected a plain slab")
        self._model, self._slab, self._live = model, slab, live
        self._step = step_of(model, slab)

    def looks(self, number: int) -> bool:
        """Whether it is looked up after a step which rows go on."""
        return (number + 1) % LOOK == 0

    def feed(self, token: torch.Tensor, number: int) -> torch.Tensor:
        """As `Steps.feed`; the logits stand in memory that the next step overwrites."""
        if number == 0 and self._live is not None:
            plainly = replace(self._slab, frame=None)
            with stepping(self._model, plainly, 1, self._live) as first:
                return first.feed(token, 0)
        if number == (self._live is not None):
            self._step.start(self._slab.lengths, number)
        return self._step.feed(token, number)

    def narrow(self, going: torch.Tensor) -> None:
        """Rows that have ended stay: fewer rows would be another shape, recorded anew."""
