"""The same logits by another route: one row at a time, none of the engine's code.

An unpatched row is one forward pass over prompt and generated tokens, without any cache: a last
token fed twice cannot hide (*duplicate-last-token*). A splice takes the donor's keys from a
forward pass at the positions where they are pasted, so no key is rotated by us
(*unrotated-keys*). An in-prefill patch overwrites what a module gives or is given: projections
before the model rotates them, heads, blocks, layers; the donor's come from a forward pass without a
cache. A constant's keys are written before the model rotates them, behind their norm: the model
turns them itself.

Promises: whatever happens, no hook stays on the model. Does not: check that windows, layers or
the architecture allow a patch (the engine's caller did), or know arms.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from transformers import DynamicCache

from kv_claims.claims.modes import Kind
from kv_claims.claims.patch import Active
from kv_claims.claims.positions import Window
from kv_claims.claims.sites import CACHE_SITES, TENSORS, Site, Tensor, heads_of
from kv_claims.models.forward import with_cache
from kv_claims.models.load import LoadedModel
from kv_claims.patch.constant import Constant
from kv_claims.patch.store import width_of
from kv_claims.run.plain_hooks import Overwrite, capture, overwriting, row_of, together


class Paste(NamedTuple):
    """A donor's prompt, which of its tensors are pasted, and where they go.

    heads: of the site's kind; not looked at where it has none. window: positions of the donor and
    of the row, counted in the T-1 cached slots for splices and in the T tokens for in-prefill
    sites; `append` goes to T-1 .. T-2+W. mode, alpha: how it is put together with what stands
    there, and the donor's weight. donor_generated: the tokens that the donor's own run generated,
    for 'every_step'. constant: what is written where no prompt is the donor.
    """

    donor: Sequence[int]
    site: Site
    layers: tuple[int, ...]
    heads: tuple[int, ...]
    window: Window
    mode: Kind = "replace"
    alpha: float = 1.0
    active: Active = "prompt"
    donor_generated: Sequence[int] = ()
    constant: Constant | None = None


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
        whole: torch.Tensor = model.network(input_ids=row_of(model, fed), use_cache=False).logits[0]
        return whole[cached:].to("cpu")
    overwrites = [
        overwrite for paste in pastes for overwrite in _overwrites(model, paste, len(prompt), fed)
    ]
    with overwriting(model, overwrites, first_position=0):
        cache = _prefill(model, fed[:cached], first_position=0)
    for paste in pastes:
        if paste.site in CACHE_SITES:
            _splice(model, cache, paste, fed[:cached])
    with overwriting(model, overwrites, first_position=cached):
        found: torch.Tensor = model.network(
            input_ids=row_of(model, fed[cached:]),
            **with_cache(model.network, cache),
            use_cache=True,
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


def _splice(model: LoadedModel, cache: DynamicCache, paste: Paste, prompt: Sequence[int]) -> None:
    """Write a donor's cached keys and values into a cache of a prompt, in place."""
    if paste.constant is not None:
        _splice_constant(model, cache, paste, paste.constant, prompt)
        return
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


def _splice_constant(
    model: LoadedModel,
    cache: DynamicCache,
    paste: Paste,
    constant: Constant,
    prompt: Sequence[int],
) -> None:
    """Put a constant together with the keys and values of a cache, in place."""
    window, heads = list(paste.window.base_slots), list(paste.heads)
    for layer in paste.layers:
        kept = cache.layers[layer]
        for tensor in TENSORS[paste.site]:
            held = kept.keys if tensor == "k" else kept.values
            values = _of_constant(constant, layer, tensor, held, heads, len(window))
            if tensor == "k":
                # The model itself turns a key that stands there before it rotates.
                one = Overwrite(layer, "k", paste.heads, window, values, normed=True)
                with overwriting(model, [one], first_position=0):
                    turned = _prefill(model, prompt, first_position=0)
                values = turned.layers[layer].keys[0, heads][:, window].transpose(0, 1)
            own = held[0, heads][:, window].transpose(0, 1)
            new = together(own, values, paste.mode, paste.alpha).transpose(0, 1)
            for place, head in enumerate(heads):
                held[0, head, window] = new[place]


def _of_constant(
    constant: Constant,
    layer: int,
    tensor: Tensor,
    like: torch.Tensor,
    heads: Sequence[int],
    positions: int,
) -> torch.Tensor:
    """A constant's vectors at so many positions, `pos head d_head`.

    like: a tensor of that kind, `batch head pos d_head`.
    """
    vectors = constant.of(layer, tensor, like)[list(heads)]
    return vectors.expand(positions, -1, -1)


def _overwrites(
    model: LoadedModel, paste: Paste, tokens: int, fed: Sequence[int]
) -> list[Overwrite]:
    """What a paste overwrites while the model runs: none for a splice into the prompt alone.

    tokens: of the row's prompt. fed: all tokens that the row is fed.
    """
    donor_of = _donor_positions(paste, tokens, len(fed))
    if not donor_of:
        return []
    if paste.constant is not None:
        return _constant_overwrites(model, paste, paste.constant, list(donor_of))
    known = [*paste.donor, *paste.donor_generated]
    needed = max(donor_of.values()) + 1
    if needed > len(known):
        raise ValueError(
            f"active {paste.active!r}: the row was fed {len(fed) - tokens} generated tokens, but "
            f"of the donor's own {len(paste.donor_generated)} are given; expected at least as many"
        )
    cells = [(layer, tensor) for layer in paste.layers for tensor in TENSORS[paste.site]]
    # What has no heads is one head, as wide as the model.
    heads = paste.heads if heads_of(paste.site) else (0,)
    captured = capture(model, known[:needed], cells)
    there = list(donor_of.values())
    return [
        Overwrite(
            *(layer, tensor, heads, list(donor_of)),
            captured[layer, tensor][there][:, heads],
            paste.mode,
            # What goes on while the row generates is never mixed.
            1.0 if paste.site in CACHE_SITES else paste.alpha,
        )
        for layer, tensor in cells
    ]


def _constant_overwrites(
    model: LoadedModel, paste: Paste, constant: Constant, positions: list[int]
) -> list[Overwrite]:
    """What a constant puts at some positions while the model runs."""
    heads = paste.heads if heads_of(paste.site) else (0,)
    found = []
    for layer in paste.layers:
        for tensor in TENSORS[paste.site]:
            count = model.heads.of(paste.site) or 1
            like = torch.empty(
                (1, count, 1, width_of(model, layer, tensor)),
                dtype=model.dtype,
                device=model.device,
            )
            values = _of_constant(constant, layer, tensor, like, heads, len(positions))
            found.append(
                Overwrite(
                    *(layer, tensor, heads, positions, values, paste.mode, paste.alpha),
                    normed=tensor == "k",
                )
            )
    return found


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
        input_ids=row_of(model, tokens),
        **with_cache(model.network, cache),
        use_cache=True,
        logits_to_keep=1,  # none is looked at: a long vocabulary would be a fifth of the work
        **where,
    )
    return cache


def _cut(slots: range) -> slice:
    return slice(slots.start, slots.stop)
