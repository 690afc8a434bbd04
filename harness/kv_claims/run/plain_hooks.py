"""Hooks of the oracle: tensors of a plain run read, or overwritten, where a module gives them.

None of the engine's code: what modules are given is replaced, not written in place; the stream
between attention and MLP, which cannot be replaced there, is set by what attention adds to it. Keys
can be had, and set, behind their norm, before the model rotates them.

Promises: whatever happens, no hook stays on the model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import torch
from torch import nn

from kv_claims.claims.modes import Kind
from kv_claims.claims.sites import Spot, Tensor, in_order
from kv_claims.models.architectures import Anatomy, anatomy_of, output_of, with_output
from kv_claims.models.load import LoadedModel

Change = Callable[[torch.Tensor], torch.Tensor | None]
"""What becomes of a module's tensor `batch pos width`; None: it stays."""
_NORMED_BY_HEAD = ("gemma3_text",)
"""Architectures that norm keys as `batch head pos d_head`; others do so as `batch pos head d_head`.
"""


class Overwrite(NamedTuple):
    """What is to stand at some positions of a tensor of a layer.

    positions: of the row. values: `pos head d_head`, as the model holds them. mode, alpha: as of
    the paste. normed: whether keys are those behind their norm.
    """

    layer: int
    tensor: Tensor
    heads: tuple[int, ...]
    positions: list[int]
    values: torch.Tensor
    mode: Kind = "replace"
    alpha: float = 1.0
    normed: bool = False


def together(own: torch.Tensor, new: torch.Tensor, mode: Kind, alpha: float) -> torch.Tensor:
    """What is to stand where `own` stands; the last axis is the vector's."""
    if mode == "add":
        return own + alpha * new
    if mode == "project_out":
        along = torch.linalg.vecdot(own.double(), new.double()) / new.double().square().sum(-1)
        rest: torch.Tensor = (own.double() - along[..., None] * new.double()).to(own.dtype)
        return rest
    return (1 - alpha) * own + alpha * new


def capture(
    model: LoadedModel,
    tokens: Sequence[int],
    cells: Iterable[tuple[int, Tensor]],
    *,
    normed: bool = False,
) -> dict[tuple[int, Tensor], torch.Tensor]:
    """Tensors of a plain run over some tokens, `pos head d_head`, by layer and tensor.

    normed: whether keys are those behind their norm. They are never rotated.
    """
    found: dict[tuple[int, Tensor], torch.Tensor] = {}
    anatomy = anatomy_of(model.network)

    def keep(layer: int, tensor: Tensor) -> Change:
        def change(states: torch.Tensor) -> None:
            found[layer, tensor] = _part(anatomy, states, tensor)[0].clone()

        return change

    with ExitStack() as stack:
        for cell in cells:
            stack.callback(_hook(anatomy, cell, keep(*cell), normed=normed).remove)
        model.network(input_ids=row_of(model, tokens), use_cache=False)
    return found


@contextmanager
def overwriting(
    model: LoadedModel, overwrites: Sequence[Overwrite], first_position: int
) -> Iterator[None]:
    """Within it, a forward pass whose first token stands at a position is overwritten as told."""
    if not overwrites:
        yield
        return
    anatomy = anatomy_of(model.network)
    with ExitStack() as stack:
        for one in sorted(overwrites, key=lambda one: in_order((one.layer, one.tensor))):
            spot = one.layer, one.tensor
            write = _writer(anatomy, one, first_position)
            if one.tensor == "resid_mid":
                stream: list[torch.Tensor] = []
                before = _hook(anatomy, (one.layer, "resid_pre"), _keeper(stream))
                stack.callback(before.remove)
                spot, write = (one.layer, "attn_out"), _to_stream(write, stream)
            stack.callback(_hook(anatomy, spot, write, normed=one.normed).remove)
        yield


def _keeper(into: list[torch.Tensor]) -> Change:
    def change(states: torch.Tensor) -> None:
        into[:] = [states.clone()]

    return change


def _to_stream(write: Change, stream: list[torch.Tensor]) -> Change:
    """What attention must add for the stream behind it to be what is written there."""

    def change(states: torch.Tensor) -> torch.Tensor:
        behind = write(stream[0] + states)
        assert behind is not None
        return behind - stream[0]

    return change


def _writer(anatomy: Anatomy, one: Overwrite, first_position: int) -> Change:
    def change(states: torch.Tensor) -> torch.Tensor:
        states = states.clone()
        part = _part(anatomy, states, one.tensor)
        passed = range(first_position, first_position + part.shape[1])
        taken = [index for index, at in enumerate(one.positions) if at in passed]
        here = [[one.positions[index] - first_position] for index in taken]
        if taken:
            own, heads = part[0, here, list(one.heads)], list(one.heads)
            part[0, here, heads] = together(own, one.values[taken], one.mode, one.alpha)
        return states

    return change


def _part(anatomy: Anatomy, states: torch.Tensor, tensor: Tensor) -> torch.Tensor:
    """A tensor's share of what its module gives, `batch pos head d_head`, as a view."""
    if states.dim() == 3:
        return anatomy.part(states, tensor)
    return states.transpose(1, 2) if anatomy.kind in _NORMED_BY_HEAD else states


def _hook(anatomy: Anatomy, spot: Spot, change: Change, *, normed: bool = False) -> Any:
    """Let a tensor be changed where a module gives it or is given it; gives the hook's handle.

    normed: at the norm behind it, where keys have one.
    """

    def behind(_module: nn.Module, _args: Any, result: Any) -> Any:
        new = change(output_of(result))
        return result if new is None else with_output(result, new)

    def before(_module: nn.Module, args: Any, kwargs: Any) -> Any:
        new = change(args[0] if args else kwargs["hidden_states"])
        if new is None:
            return None
        return ((new, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": new})

    module = anatomy.module(*spot)
    if normed and spot[1] == "k":
        named = dict(anatomy.layers[spot[0]].named_modules())
        module = next((of for name, of in named.items() if name.endswith(".k_norm")), module)
    if anatomy.at(spot[1]) == "input":
        return module.register_forward_pre_hook(before, with_kwargs=True)
    return module.register_forward_hook(behind)


def row_of(model: LoadedModel, tokens: Sequence[int]) -> torch.Tensor:
    return torch.tensor([list(tokens)], device=model.device)
