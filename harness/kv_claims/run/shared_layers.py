"""Rows that have said the same on one prompt are one row below the layers where they differ.

Arms of a base differ by their patches alone: below the lowest layer that its patch changes, a row
computes what the unpatched one does, as long as both were fed the same tokens. There one of them,
the *leader*, is run for all; the others join at the layer from which they are their own. A row
that is fed another token parts: what its leader generated in the layers below becomes its own.

So an arm whose text stays that of the base costs the layers from its patch on only. Rows only ever
part; once too little is shared to pay for picking rows, every row is run in every layer again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, NamedTuple

import torch

from kv_claims.models.architectures import TABLE, decoder_layers, output_of, with_output
from kv_claims.models.load import LoadedModel
from kv_claims.patch.sharing import among
from kv_claims.patch.slab import Slab

LEAST = 0.1
"""Share of the rows of all layers that must be saved: picking rows costs some of it."""


class Picked(NamedTuple):
    """The rows that are run in a layer.

    rows: of the batch, ascending, `[n]`; None: all. source: where each of them, or its leader, is
    among those of the layer before, `[n]`; None: they are the same rows. stand_in: where each
    row of the batch, or its leader, is among those that are run, `[row]`.
    """

    rows: torch.Tensor | None = None
    source: torch.Tensor | None = None
    stand_in: torch.Tensor | None = None


EVERY_ROW = Picked()


class Picks(NamedTuple):
    """The rows that are run in each layer. picked: by layer; empty where every row is run in each.
    end: as `Picked.source`, behind the last layer."""

    picked: Sequence[Picked] = ()
    end: torch.Tensor | None = None

    def __bool__(self) -> bool:
        return bool(self.picked)


def leaders_of(own_from: torch.Tensor, groups: torch.Tensor) -> torch.Tensor:
    """Of each group the row that is its own from the highest layer on; of several the first.

    own_from: the lowest layer whose keys or values are a row's own, `[row]`; above the last: none.
    groups: rows that compute the same below have the same number, `[row]`. Returns `[row]`.
    """
    # So the leader of a group leads the part that it stays in.
    number = len(groups)
    rank = own_from * number + (number - 1 - torch.arange(number, device=groups.device))
    best = rank.new_zeros(number).scatter_reduce(0, groups, rank, "amax", include_self=False)
    return number - 1 - best[groups] % number


def picks_of(own_from: torch.Tensor, leaders: torch.Tensor, n_layers: int) -> Picks:
    """Which rows are run in which layer: none picked, if that saves too little. Both `[row]`."""
    number = len(leaders)
    every = torch.arange(number, device=leaders.device)
    run_from = own_from.where(leaders != every, 0)
    counts = run_from.bincount(minlength=n_layers + 1).cumsum(0).tolist()
    if sum(counts[:n_layers]) > (1 - LEAST) * number * n_layers:
        return Picks()
    picked = []
    rows = at = every
    for layer in range(n_layers):
        source = None
        if layer == 0 or counts[layer] > counts[layer - 1]:
            is_run = run_from <= layer
            rows = every[is_run]
            source = at[rows]
            at = (is_run.cumsum(0) - 1)[every.where(is_run, leaders)]
        picked.append(Picked(None if counts[layer] == number else rows, source, at))
    return Picks(picked, None if counts[n_layers - 1] == number else at)


class SharedLayers:
    """Which rows of a shared slab are run in which layer.

    groups: rows that have said the same on one prompt have the same number, `[row]`.
    picked: by layer; empty while every row is run in each. end: as `source`, behind the last layer.
    slab: as the rows that are run read it.
    """

    def __init__(self, slab: Slab, groups: torch.Tensor) -> None:
        assert slab.shared is not None
        self.slab = self._whole = slab
        self._shared = slab.shared
        self._own_from = slab.shared.own_from
        self.groups = groups
        self.picked: Sequence[Picked] = ()
        self.end: torch.Tensor | None = None
        self._rows = torch.arange(len(groups), device=groups.device)
        self._leaders = self._rows

    def hear(self, token: torch.Tensor) -> bool:
        """Take in the token that each row is fed next, `[row]`; whether rows part by it."""
        # A group and a token as one number: tokens are below 2^31, and so are groups.
        said, groups = torch.unique((self.groups << 31) + token, return_inverse=True)
        before, self.groups = self.groups, groups
        return len(said) > int(before.max()) + 1

    def part(self, token: torch.Tensor, filled: int) -> bool:
        """As `hear`, and lay down which rows are run now; whether enough of them share.

        filled: tokens in the headroom so far. After False every row has all that is its own.
        """
        if self.hear(token) or not self.picked:
            self._lead(leaders_of(self._own_from, self.groups), filled)
            self._pick()
        if self.picked:
            return True
        self.close(filled)
        return False

    def close(self, filled: int) -> None:
        """Give every row what its leader generated for it."""
        self._lead(self._rows, filled)
        self.picked, self.end, self.slab = (), None, self._whole

    def _lead(self, leaders: torch.Tensor, filled: int) -> None:
        """Change leaders; rows that lead from now on get what theirs generated below them."""
        shared = self._shared
        parted = self._rows[(leaders == self._rows) & (self._leaders != self._rows)]
        for layer, headrooms in enumerate(zip(shared.new_keys, shared.new_values, strict=True)):
            parted = parted[self._own_from[parted] > layer]
            if not len(parted):
                break
            for headroom in headrooms:
                headroom[parted, :, :filled] = headroom[self._leaders[parted], :, :filled]
        self._leaders = leaders

    def _pick(self) -> None:
        """Lay down which rows are run where; none, if that saves too little."""
        shared = self._shared
        self.picked, self.end = picks_of(self._own_from, self._leaders, len(shared.layouts))
        layouts, made = [], {}
        for layout, (rows, _, _) in zip(shared.layouts, self.picked, strict=False):
            key = id(layout), None if rows is None else len(rows)
            if key not in made:
                made[key] = layout if rows is None else among(layout, rows)
            layouts.append(made[key])
        if layouts:
            self.slab = replace(self._whole, shared=replace(shared, layouts=layouts))


Now = SharedLayers | Picks | None
"""What says which rows are run in a layer."""


def has_known_layers(model: LoadedModel) -> bool:
    """Whether it is known where a model keeps its decoder layers."""
    return model.config.model_type in TABLE


@contextmanager
def picking(model: LoadedModel, now: Callable[[], Now]) -> Iterator[None]:
    """While this is open, decoder layers are run on the rows that are picked for them.

    now: what says which, None where all are; asked at each layer.
    """
    layers = decoder_layers(model.network)
    handles = [
        module.register_forward_pre_hook(_before(layer, now), with_kwargs=True)
        for layer, module in enumerate(layers)
    ]
    handles.append(layers[-1].register_forward_hook(_behind(now)))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _before(layer: int, now: Callable[[], Now]) -> Callable[[Any, Any, Any], Any]:
    def hook(_module: Any, args: Any, kwargs: Any) -> Any:
        shared_layers = now()
        if shared_layers is None:
            return None
        rows, source, _ = shared_layers.picked[layer]
        if source is not None:
            if args:
                args = (args[0][source], *args[1:])
            else:
                kwargs = {**kwargs, "hidden_states": kwargs["hidden_states"][source]}
        if rows is not None:
            # Every layer is handed the positions, and the mask, of all rows; GPT-2's without names.
            args = (*args[:1], *(_of(rows, given) for given in args[1:]))
            kwargs = {
                name: _of(rows, given) if name.startswith(("position", "attention_mask")) else given
                for name, given in kwargs.items()
            }
        return args, kwargs

    return hook


def _of(rows: torch.Tensor, given: Any) -> Any:
    """Some rows of positions, of what turns by them, or of a mask: tensors, or several of them."""
    if isinstance(given, tuple):
        return tuple(_of(rows, one) for one in given)
    return given[rows] if torch.is_tensor(given) else given


def _behind(now: Callable[[], Now]) -> Callable[[Any, Any, Any], Any]:
    def hook(_module: Any, _args: Any, output: Any) -> Any:
        shared_layers = now()
        if shared_layers is None or shared_layers.end is None:
            return output
        return with_output(output, output_of(output)[shared_layers.end])

    return hook
