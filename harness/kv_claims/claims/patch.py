"""What is patched: site, layers, positions, and their resolution to indices. No torch here.

Promises: exact rational arithmetic for depths; a window that does not fit is an error, never
shortened (docs/failures.md names it *short-window*); two layer parts that meet are an error. What
no model could have is a `UsageError`, what others have and this one has not a `NoSuchCellError`.
Does not: touch tensors, know architectures, or know what a source and a base are.

Two experiments share the name "KV patch" and are kept apart by their site. A *splice* (`kv`, `k`,
`v`) overwrites slots of the cache once the base is prefilled: a prompt of T tokens caches T-1 of
them (slots 0 .. T-2), the last prompt token is fed afterwards, in every arm alike. An *in-prefill*
patch (all other sites) overwrites activations while the prompt is
computed, so that everything downstream is computed from them: its positions are the T tokens.
What the sites are is in `claims.sites`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache
from math import floor
from typing import Literal, get_args

from kv_claims.claims.positions import Positions, Span
from kv_claims.claims.sites import (
    CACHE_SITES,
    IN_CACHE,
    SITES,
    TENSORS,
    HeadCounts,
    HeadKind,
    Site,
    Tensor,
    heads_of,
)
from kv_claims.errors import NoSuchCellError, UsageError
from kv_claims.plain import nearest

Active = Literal["prompt", "every_step", "every_step(held)"]
ACTIVE: tuple[Active, ...] = get_args(Active)

_HELP = {
    "layers": "expected a layer such as '9', a depth such as '18/32', several joined by '+', "
    "a half-open range such as '0:8' or '16/32:32/32', or 'all'",
    "heads": "expected a head such as '0', several joined by '+', a half-open range such as "
    "'0:4', or 'all'",
}


_SIZES = range(1, 1025)
"""Layers, or heads, that some model may have."""


@dataclass(frozen=True)
class Patch:
    """One intervention: `site` in `layers` at `positions`, from the source into the base.

    site: 'kv', 'k', 'v' (the cache, spliced); in the prompt pass 'kv_proj', 'k_proj', 'v_proj',
        'q_proj' (the projections' outputs) | 'z' (what each query head gives to the output
        projection) | 'attn_out', 'mlp_out' (what attention and MLP add to the stream) |
        'resid_pre', 'resid_mid', 'residual' (the stream before a block, before its MLP, and
        behind it) | 'embed' (the embedding of the tokens).
    layers: '9' | '18/32' | 'a+b' | 'a:b' | 'all'; a depth d is layer floor(d * n_layers). Of
        'embed', which stands before all layers, '0'.
    positions: 'last(W)' | 'first(W)' | 'first(P%)' | 'all' | 'at(I)' | 'at(A:B)' | 'all(NAME)' |
        'last(NAME)' | 'first(NAME)'; see `claims.positions`.
    heads: '0' | 'a+b' | 'a:b' | 'all': KV heads of keys and values, query heads of 'q_proj' and
        'z'; other sites have none.
    mode: 'replace' | 'mix(alpha)' ((1 - alpha) base + alpha source; not of projected keys, which
        some models norm after) | 'append' (the source's last W slots behind the base's; 'kv' only).
    active: 'prompt' (written once) | 'every_step' (also on at each generated token: the source's
        own activation at the same step of its own generation) | 'every_step(held)' (there the
        source's last prompt position, held constant).
    Raises UsageError where the text cannot be read or the parts do not go together; whether it
    fits a model or a prompt is found by `resolve_layers`, `resolve_heads` and `resolve_window`.
    """

    site: Site
    layers: str
    positions: str
    heads: str = "all"
    mode: str = "replace"
    active: Active = "prompt"

    def __post_init__(self) -> None:
        if self.site not in SITES:
            near = nearest(self.site, SITES) if isinstance(self.site, str) else ""
            raise UsageError(f"Patch(site={self.site!r}): expected one of {', '.join(SITES)}{near}")
        if self.active not in ACTIVE:
            raise UsageError(f"Patch(active={self.active!r}): expected one of {', '.join(ACTIVE)}")
        for field in ("layers", "positions", "heads", "mode"):
            object.__setattr__(self, field, _squeeze(getattr(self, field), field))
        _parse_spans(self.layers, "layers")
        Positions.parse(self.positions)
        _parse_spans(self.heads, "heads")
        if self.heads != "all" and heads_of(self.site) is None:
            have = ", ".join(site for site in SITES if heads_of(site) is not None)
            raise UsageError(
                f"Patch(site={self.site!r}, heads={self.heads!r}): this site has no heads; "
                f"expected one of {have}, or heads 'all'"
            )
        if self.site == "embed" and self.layers != "0":
            raise UsageError(
                f"Patch(site='embed', layers={self.layers!r}): the embedding stands before all "
                "layers; expected layers '0'"
            )
        _check_mode(self)

    def __str__(self) -> str:
        extra = [f"heads={self.heads}"] if self.heads != "all" else []
        extra += [part for part in (self.mode, self.active) if part not in ("replace", "prompt")]
        return "/".join([f"{self.site}@{self.layers}/{self.positions}", *extra])

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """The tensors of a layer that are written."""
        return TENSORS[self.site]

    @property
    def is_splice(self) -> bool:
        """Whether the cache is overwritten; else activations, in the prompt pass."""
        return self.site in CACHE_SITES

    @property
    def span(self) -> Span:
        """Which positions its windows count."""
        return "cache" if self.is_splice else "prompt"

    @property
    def alpha(self) -> float:
        """The source's weight: 1 but for `mix(alpha)`."""
        return float(self.mode[4:-1]) if self.mode.startswith("mix(") else 1.0


def is_full_swap(patches: Sequence[Patch], n_layers: int) -> bool:
    """Whether the patches of an arm name the whole cache: K and V of every layer at all positions.

    In one patch or in several, whatever else the arm writes and however long. Such an arm takes the
    source's cache with its length, and the source's last token. patches: in one spelling.
    """
    named = {
        (layer, tensor)
        for patch in patches
        if patch.is_splice
        and (patch.positions, patch.heads, patch.mode) == ("all", "all", "replace")
        for layer in resolve_layers(patch.layers, n_layers)
        for tensor in patch.tensors
    }
    return len(named) == n_layers * len(IN_CACHE)


def as_patches(patches: Patch | Sequence[Patch]) -> tuple[Patch, ...]:
    """One patch or several of one arm, as a tuple. Raises UsageError for none."""
    found = (patches,) if isinstance(patches, Patch) else tuple(patches)
    if not found or not all(isinstance(patch, Patch) for patch in found):
        raise UsageError(f"patches {patches!r}: expected a Patch, or several")
    return found


def canonical(patch: Patch, n_layers: int, heads: HeadCounts) -> Patch:
    """The same patch in one spelling: layers and heads as plain numbers on this model.

    `all` stays, and stands for every range that is all; 'mix(1)' is 'replace'.
    """
    layers = resolve_layers(patch.layers, n_layers)
    is_all = len(layers) == n_layers and patch.site != "embed"
    picked = heads_on(patch, heads)
    return replace(
        patch,
        layers="all" if is_all else "+".join(map(str, layers)),
        heads="all" if picked is None else "+".join(map(str, picked)),
        mode="replace" if patch.mode.startswith("mix(") and patch.alpha == 1 else patch.mode,
    )


def names_span(arms: Iterable[Sequence[Patch]]) -> bool:
    """Whether some patch of some arms names a part of the prompt that a task marks."""
    return any(Positions.parse(patch.positions).needs_spans for arm in arms for patch in arm)


def some_model_has(find: Callable[[int], object]) -> bool:
    """Whether a call raises no UsageError at some size. find: takes a number of layers or heads."""
    for size in _SIZES:
        try:
            find(size)
        except UsageError:
            continue
        return True
    return False


def check_apart(patches: Sequence[Patch], n_layers: int) -> None:
    """Raise UsageError where two patches of one arm write the same tensor of the same layer."""
    owner: dict[tuple[int, Tensor], int] = {}
    for number, patch in enumerate(patches):
        for layer in resolve_layers(patch.layers, n_layers):
            for tensor in patch.tensors:
                if (other := owner.setdefault((layer, tensor), number)) != number:
                    raise UsageError(
                        f"patches {patches[other]} and {patch}: both write {tensor!r} of layer "
                        f"{layer}; expected different tensors or layers"
                    )
    if len(patches) > 1 and any(patch.mode == "append" for patch in patches):
        raise UsageError("mode 'append' moves every later position; expected it alone in its arm")


def resolve_layers(text: str, n_layers: int) -> tuple[int, ...]:
    """Layer indices, ascending, of a layers text on a model of `n_layers`.

    Raises UsageError for a layer out of range, an empty range, or two parts that meet, as a
    NoSuchCellError where it fits another model.
    """
    return _resolve(text, n_layers, "layers")


def resolve_heads(text: str, n_heads: int, kind: HeadKind = "KV heads") -> tuple[int, ...]:
    """Head indices, ascending, of a heads text on a model of `n_heads` of a kind.

    With grouped queries a KV head serves several query heads; which are meant is the site's.
    Raises UsageError for a head out of range, as a NoSuchCellError where another model has it: a
    slice past the end would silently be empty.
    """
    return _resolve(text, n_heads, "heads", kind)


def heads_on(patch: Patch, heads: HeadCounts) -> tuple[int, ...] | None:
    """The heads that a patch names on a model, ascending; None for all of them, or no heads.

    Errors as in `resolve_heads`.
    """
    kind, count = heads_of(patch.site), heads.of(patch.site)
    if kind is None or count is None:
        return None
    found = resolve_heads(patch.heads, count, kind)
    return None if len(found) == count else found


def _resolve(text: str, n: int, what: str, kind: str = "layers") -> tuple[int, ...]:
    squeezed = _squeeze(text, what)
    _parse_spans(squeezed, what)
    try:
        return _indices(squeezed, n, what, kind)
    except UsageError as error:
        if _fits_some_model(squeezed, what):
            raise NoSuchCellError(str(error)) from None
        raise


@lru_cache(maxsize=1024)
def _fits_some_model(text: str, what: str) -> bool:
    return some_model_has(lambda size: _indices(text, size, what, what))


def _indices(text: str, n: int, what: str, kind: str) -> tuple[int, ...]:
    """Indices among n of a text that can be read. Raises UsageError where it does not fit n.

    kind: what is counted, in an error.
    """
    spans = _parse_spans(text, what)
    if spans is None:
        return tuple(range(n))
    owner: dict[int, str] = {}
    for part, start, stop in spans:
        first = _layer_index(start, n)
        last = first + 1 if stop is None else _layer_index(stop, n)
        if not 0 <= first < n or last > n:
            raise UsageError(
                f"{what} {text!r}: {part!r} is out of range, "
                f"expected {kind} 0 to {n - 1} (the model has {n})"
            )
        if last <= first:
            raise UsageError(f"{what} {text!r}: the range {part!r} is empty on {n} {what}")
        for index in range(first, last):
            if index in owner:
                raise UsageError(
                    f"{what} {text!r}: {owner[index]!r} and {part!r} meet in {what[:-1]} {index} "
                    f"of {n}; expected parts that are different {what}"
                )
            owner[index] = part
    return tuple(sorted(owner))


def shifted_layers(text: str, n_layers: int) -> str | None:
    """The wrong-layer control: the same layers moved by half the depth, modulo the depth.

    None where there is no such control: for `all`, or when the moved set meets the patched one.
    """
    layers = resolve_layers(text, n_layers)
    moved = sorted((layer + n_layers // 2) % n_layers for layer in layers)
    if set(moved) & set(layers):
        return None
    return "+".join(map(str, moved))


_Point = int | Fraction


def _squeeze(text: object, what: str) -> str:
    if not isinstance(text, str):
        raise UsageError(f"{what} {text!r}: expected text, got {type(text).__name__}")
    if re.search(r"\d\s+\d", text):
        raise UsageError(f"{what} {text!r}: two numbers with nothing between them")
    return "".join(text.split())


def _check_mode(patch: Patch) -> None:
    """Raise UsageError for a mode that cannot be read, or that its site does not have."""
    given = f"Patch(site={patch.site!r}, mode={patch.mode!r})"
    if patch.mode == "replace":
        return
    number = re.fullmatch(r"mix\((\d*\.?\d+)\)", patch.mode)
    if patch.mode != "append" and not (number and 0 < float(number[1]) <= 1):
        raise UsageError(
            f"{given}: expected 'replace', 'append', or 'mix(alpha)' with 0 < alpha <= 1"
        )
    if number and "k" in patch.tensors and not patch.is_splice:
        raise UsageError(
            f"{given}: some models norm keys behind their projection, so what is mixed there is "
            "not what is read; expected site 'k' or 'kv', or mode 'replace'"
        )
    if patch.active != "prompt":
        raise UsageError(f"{given}: active={patch.active!r} goes with mode 'replace' only")
    if patch.mode == "append" and (patch.site, patch.layers, patch.heads) != ("kv", "all", "all"):
        raise UsageError(
            f"{given}: appending makes the cache longer, which it must be in every layer and head "
            "alike; expected site 'kv', layers 'all', heads 'all'"
        )
    if patch.mode == "append" and not patch.positions.startswith("last("):
        raise UsageError(f"{given}: the source's tail is appended; expected positions 'last(W)'")


def _parse_spans(text: str, what: str) -> list[tuple[str, _Point, _Point | None]] | None:
    """Parts as (text, start, stop or None for one index); None means all."""
    if text == "all":
        return None
    spans: list[tuple[str, _Point, _Point | None]] = []
    for part in text.split("+"):
        ends = part.split(":")
        if len(ends) > 2:
            raise UsageError(f"{what} {text!r}: cannot read {part!r}; {_HELP[what]}")
        is_range = len(ends) == 2
        start = _parse_point(ends[0], text, what, is_range_end=False)
        spans.append(
            (
                part,
                start,
                _parse_point(ends[1], text, what, is_range_end=True) if is_range else None,
            )
        )
    return spans


def _parse_point(point: str, text: str, what: str, *, is_range_end: bool) -> _Point:
    """An index or, of layers, a depth; a depth of 1 is a range's end and nothing else."""
    match = re.fullmatch(r"(-?\d+)(?:/(\d+))?", point)
    if match is None or (match[2] is not None and what == "heads"):
        raise UsageError(f"{what} {text!r}: cannot read {point!r}; {_HELP[what]}")
    number, denominator = int(match[1]), match[2]
    if denominator is None:
        if number < 0:
            raise UsageError(f"{what} {text!r}: {what[:-1]} {number} is below 0; {_HELP[what]}")
        return number
    if int(denominator) == 0:
        raise UsageError(f"{what} {text!r}: {point!r} divides by zero; {_HELP[what]}")
    depth = Fraction(number, int(denominator))
    if not 0 <= depth < 1 and not (is_range_end and depth == 1):
        raise UsageError(f"{what} {text!r}: depth {point} is outside [0, 1); {_HELP[what]}")
    return depth


def _layer_index(point: _Point, n_layers: int) -> int:
    return floor(point * n_layers) if isinstance(point, Fraction) else point
