"""The same logits by another route: one row at a time, none of the engine's code.

An unpatched row is one forward pass over prompt and generated tokens, without any cache: a last
token fed twice cannot hide (*duplicate-last-token*). A splice takes the donor's keys from a
forward pass at the positions where they are pasted, so no key is rotated by us
(*unrotated-keys*). An in-prefill patch overwrites the outputs of the projections, before the
model rotates them, or of decoder layers; the donor's come from a forward pass without a cache.

Promises: whatever happens, no hook stays on the model. Does not: check that windows, layers or
the architecture allow a patch (the engine's caller did), or know arms.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import torch
from torch import nn
from transformers import DynamicCache

from kv_claims.claims.patch import CACHE_SITES, TENSORS, Active, Site, Tensor, Window
from kv_claims.models.architectures import Anatomy, anatomy_of, output_of, with_output
from kv_claims.models.forward import with_cache
from kv_claims.models.load import LoadedModel


class Paste(NamedTuple):
    """A donor's prompt, which of its tensors are pasted, and where they go.

    heads: KV heads; the residual has none. window: positions of the donor and of the row, counted
    in the T-1 cached slots for splices and in the T tokens for in-prefill sites; `append` goes to
    T-1 .. T-2+W. alpha: the donor's weight. donor_generated: the tokens that the donor's own run
    generated, for 'every_step'.
    """

    donor: Sequence[int]
    site: Site
    layers: tuple[int, ...]
    heads: tuple[int, ...]
    window: Window
    mode: str = "replace"
    alpha: float = 1.0
    active: Active = "prompt"
    donor_generated: Sequence[int] = ()


@torch.no_grad()
def oracle_logits(
    model: LoadedModel,
    prompt: Sequence[int],
    generated: Sequence[int],
    pastes: Sequence[Paste] = (),
) -> torch.Tensor:
    """Logits from which each generated token was drawn, `step vocab`, on the CPU.

    Raises ValueError where 'every_step' needs more of the donor's generated tokens than there are,
    UsageError where activations are pasted in an architecture that is not in the table.
    """
    fed = [*prompt, *generated[:-1]]
    cached = len(prompt) - 1
    if not pastes:
        whole: torch.Tensor = model.network(input_ids=_row(model, fed), use_cache=False).logits[0]
        return whole[cached:].to("cpu")
    overwrites = [
        overwrite for paste in pastes for overwrite in _overwrites(model, paste, len(prompt), fed)
    ]
    with _overwriting(model, overwrites, first_position=0):
        cache = _prefill(model, fed[:cached], first_position=0)
    for paste in pastes:
        if paste.site in CACHE_SITES:
            _splice(model, cache, paste)
    with _overwriting(model, overwrites, first_position=cached):
        found: torch.Tensor = model.network(
            input_ids=_row(model, fed[cached:]), **with_cache(model.network, cache), use_cache=True
        ).logits[0]
    return found.to("cpu")


@torch.no_grad()
def oracle_keys(model: LoadedModel, paste: Paste) -> torch.Tensor:
    """The donor's keys as a forward pass at the new positions has them, `layer head pos d_head`.

    Heads are the pasted ones, before any mixing. Empty where the paste writes no keys.
    """
    if "k" not in TENSORS[paste.site]:
        return torch.empty(0)
    window = paste.window
    donor = _prefill(model, paste.donor[: window.source_slots.stop], first_position=window.shift)
    slots = _cut(window.source_slots)
    keys = [donor.layers[layer].keys[0, list(paste.heads), slots] for layer in paste.layers]
    return torch.stack(keys).to("cpu")


def relative_error(found: torch.Tensor, wanted: torch.Tensor) -> float:
    """Largest absolute difference of two sets of logits over the largest absolute logit."""
    found, wanted = found.to(torch.float64), wanted.to(torch.float64)
    return float((found - wanted).abs().max() / wanted.abs().max().clamp(min=1e-30))


def _splice(model: LoadedModel, cache: DynamicCache, paste: Paste) -> None:
    """Write a donor's cached keys and values into a cache, in place."""
    window, heads = paste.window, list(paste.heads)
    here, there = _cut(window.base_slots), _cut(window.source_slots)
    # Values are taken from where the donor's text stands by itself: they hold no rotation.
    moves = {tensor: window.shift if tensor == "k" else 0 for tensor in TENSORS[paste.site]}
    # Only what stands before the end of the window can reach it.
    donor_at = {
        first: _prefill(model, paste.donor[: there.stop], first_position=first)
        for first in set(moves.values())
    }
    for tensor, first in moves.items():
        donor = donor_at[first]
        name = "keys" if tensor == "k" else "values"
        for layer in paste.layers:
            own = getattr(cache.layers[layer], name)
            new = getattr(donor.layers[layer], name)[:, :, there]
            if paste.mode == "append":
                setattr(cache.layers[layer], name, torch.cat([own, new], dim=2))
            else:
                mixed = (1 - paste.alpha) * own[0, heads, here] + paste.alpha * new[0, heads]
                own[0, heads, here] = mixed


class _Overwrite(NamedTuple):
    """What is to stand at some positions of a tensor of a layer.

    positions: of the row. values: `pos head d_head`, as the module's output holds them.
    """

    layer: int
    tensor: Tensor
    heads: tuple[int, ...]
    positions: list[int]
    values: torch.Tensor


def _overwrites(
    model: LoadedModel, paste: Paste, tokens: int, fed: Sequence[int]
) -> list[_Overwrite]:
    """What a paste overwrites while the model runs: none for a splice into the prompt alone.

    tokens: of the row's prompt. fed: all tokens that the row is fed.
    """
    donor_of = _donor_positions(paste, tokens, len(fed))
    if not donor_of:
        return []
    known = [*paste.donor, *paste.donor_generated]
    needed = max(donor_of.values()) + 1
    if needed > len(known):
        raise ValueError(
            f"active {paste.active!r}: the row was fed {len(fed) - tokens} generated tokens, but "
            f"of the donor's own {len(paste.donor_generated)} are given; expected at least as many"
        )
    cells = [(layer, tensor) for layer in paste.layers for tensor in TENSORS[paste.site]]
    captured = _capture(model, known[:needed], cells)
    there = list(donor_of.values())
    return [
        _Overwrite(layer, tensor, heads, list(donor_of), captured[layer, tensor][there][:, heads])
        for layer, tensor in cells
        # The residual is one head, as wide as the model.
        for heads in [(0,) if tensor == "residual" else paste.heads]
    ]


def _donor_positions(paste: Paste, tokens: int, n_fed: int) -> dict[int, int]:
    """Position of the row to position of the donor, wherever a module's output is overwritten."""
    found: dict[int, int] = {}
    if paste.site not in CACHE_SITES:
        found.update(zip(paste.window.base_slots, paste.window.source_slots, strict=True))
    generated = range(tokens, n_fed)
    end = len(paste.donor)
    if paste.active == "every_step":
        found.update({position: end + step for step, position in enumerate(generated)})
    elif paste.active == "every_step(held)":
        found.update(dict.fromkeys(generated, end - 1))
    return found


def _capture(
    model: LoadedModel, tokens: Sequence[int], cells: Iterable[tuple[int, Tensor]]
) -> dict[tuple[int, Tensor], torch.Tensor]:
    """Tensors of a plain run over some tokens, `pos head d_head`, by layer and tensor."""
    found: dict[tuple[int, Tensor], torch.Tensor] = {}
    anatomy = anatomy_of(model.network)

    def keep(layer: int, tensor: Tensor) -> Callable[..., None]:
        def hook(_module: nn.Module, _given: Any, result: Any) -> None:
            found[layer, tensor] = anatomy.part(output_of(result), tensor)[0].clone()

        return hook

    with _hooked((anatomy.module(*cell), keep(*cell)) for cell in cells):
        model.network(input_ids=_row(model, tokens), use_cache=False)
    return found


@contextmanager
def _overwriting(
    model: LoadedModel, overwrites: Sequence[_Overwrite], first_position: int
) -> Iterator[None]:
    """Within it, a forward pass whose first token stands at a position is overwritten as told."""
    if not overwrites:
        yield
        return
    anatomy = anatomy_of(model.network)
    with _hooked(
        (anatomy.module(one.layer, one.tensor), _writer(anatomy, one, first_position))
        for one in overwrites
    ):
        yield


def _writer(anatomy: Anatomy, one: _Overwrite, first_position: int) -> Callable[..., Any]:
    def hook(_module: nn.Module, _given: Any, result: Any) -> Any:
        output = output_of(result).clone()
        passed = range(first_position, first_position + output.shape[1])
        taken = [index for index, at in enumerate(one.positions) if at in passed]
        here = [[one.positions[index] - first_position] for index in taken]
        if taken:
            anatomy.part(output, one.tensor)[0, here, list(one.heads)] = one.values[taken]
        return with_output(result, output)

    return hook


@contextmanager
def _hooked(hooks: Iterable[tuple[nn.Module, Callable[..., Any]]]) -> Iterator[None]:
    """Forward hooks, for as long as it lasts."""
    with ExitStack() as stack:
        for module, hook in hooks:
            stack.callback(module.register_forward_hook(hook).remove)
        yield


def _prefill(model: LoadedModel, tokens: Sequence[int], first_position: int) -> DynamicCache:
    cache = DynamicCache()
    # Positions are passed only where they are not the usual ones: a model without RoPE, whose
    # keys never move, then sees nothing unusual.
    where = (
        {"position_ids": torch.arange(len(tokens), device=model.device)[None] + first_position}
        if first_position
        else {}
    )
    model.network(
        input_ids=_row(model, tokens),
        **with_cache(model.network, cache),
        use_cache=True,
        logits_to_keep=1,  # none is looked at: a long vocabulary would be a fifth of the work
        **where,
    )
    return cache


def _row(model: LoadedModel, tokens: Sequence[int]) -> torch.Tensor:
    return torch.tensor([list(tokens)], device=model.device)


def _cut(slots: range) -> slice:
    return slice(slots.start, slots.stop)
