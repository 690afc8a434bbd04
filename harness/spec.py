"""What is patched: site, layers, positions, and their resolution to indices. No torch here.

Promises: exact rational arithmetic for depths; a window that does not fit is an error, never
shortened (FACTS.md names that failure *short-window*); two layer parts that meet are an error.
Does not: touch tensors, know architectures, or know what a source and a base are.

Slots are positions of the *cache*: a prompt of T tokens caches T-1 of them (slots 0 .. T-2);
the last prompt token is fed afterwards, in every arm alike.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from math import ceil, floor
from typing import Literal, NamedTuple, get_args

from harness.errors import UsageError

Site = Literal["kv", "k", "v"]
SITES: tuple[Site, ...] = get_args(Site)

_LAYERS_HELP = (
    "expected a layer such as '9', a depth such as '18/32', several joined by '+', "
    "a half-open range such as '0:8' or '16/32:32/32', or 'all'"
)
_POSITIONS_HELP = "expected 'last(W)', 'first(W)', 'first(P%)' or 'all'"


class Window(NamedTuple):
    """Which cached slots of the source go into which cached slots of the base, in order."""

    source_slots: range
    base_slots: range

    @property
    def shift(self) -> int:
        """How far each key moves, in positions (base position - source position)."""
        return self.base_slots.start - self.source_slots.start


@dataclass(frozen=True)
class Patch:
    """One intervention on the KV cache: `site` in `layers` at `positions`, spliced before decoding.

    The base is prefilled, the named cache slots are overwritten once by the donor's, and
    decoding goes on; nothing inside the prompt is recomputed (a *splice*).

    site: 'kv', 'k' or 'v'.
    layers: '9' | '18/32' | 'a+b' | 'a:b' | 'all'; a depth d is layer floor(d * n_layers).
    positions: 'last(W)' | 'first(W)' | 'first(P%)' | 'all'.
    Raises UsageError where the text cannot be read; whether it fits a model or a prompt is
    found by `resolve_layers` and `resolve_window`.
    """

    site: Site
    layers: str
    positions: str

    def __post_init__(self) -> None:
        if self.site not in SITES:
            raise UsageError(f"Patch(site={self.site!r}): expected one of {', '.join(SITES)}")
        object.__setattr__(self, "layers", _squeeze(self.layers, "layers"))
        object.__setattr__(self, "positions", _squeeze(self.positions, "positions"))
        _parse_layers(self.layers)
        _parse_positions(self.positions)

    def __str__(self) -> str:
        return f"{self.site}@{self.layers}/{self.positions}"

    def is_full_swap(self, n_layers: int) -> bool:
        """Whether this replaces the whole cache: K and V, all positions, every layer."""
        return (
            self.site == "kv"
            and self.positions == "all"
            and len(resolve_layers(self.layers, n_layers)) == n_layers
        )


def resolve_layers(text: str, n_layers: int) -> tuple[int, ...]:
    """Layer indices, ascending, of a layers text on a model of `n_layers`.

    Raises UsageError for a layer out of range, an empty range, or two parts that meet.
    """
    spans = _parse_layers(_squeeze(text, "layers"))
    if spans is None:
        return tuple(range(n_layers))
    owner: dict[int, str] = {}
    for part, start, stop in spans:
        first = _layer_index(start, n_layers)
        last = first + 1 if stop is None else _layer_index(stop, n_layers)
        if not 0 <= first < n_layers or last > n_layers:
            raise UsageError(
                f"layers {text!r}: {part!r} is out of range, "
                f"expected layers 0 to {n_layers - 1} (the model has {n_layers})"
            )
        if last <= first:
            raise UsageError(f"layers {text!r}: the range {part!r} is empty on {n_layers} layers")
        for layer in range(first, last):
            if layer in owner:
                raise UsageError(
                    f"layers {text!r}: {owner[layer]!r} and {part!r} meet in layer {layer} "
                    f"of {n_layers}; expected parts that are different layers"
                )
            owner[layer] = part
    return tuple(sorted(owner))


def resolve_window(
    text: str, source_tokens: int, base_tokens: int, *, where: str = "this pair"
) -> Window:
    """The slots that a positions text names for a source and a base of so many prompt tokens.

    `last(W)` aligns the ends of both caches, `first(W)` their starts, `first(p%)` takes
    ceil(p% of the shorter cache), `all` the whole of the shorter cache, aligned at the ends.
    Raises UsageError when a window does not fit both caches.
    """
    kind, size = _parse_positions(_squeeze(text, "positions"))
    source_cache, base_cache = source_tokens - 1, base_tokens - 1
    shorter = min(source_cache, base_cache)
    if kind == "all":
        kind, width = "last", shorter
    elif isinstance(size, Fraction):
        width = ceil(size * shorter)
    else:
        width = size
    if not 1 <= width <= shorter:
        raise UsageError(
            f"positions {text!r} need {width} cached positions, but in {where} the source caches "
            f"{source_cache} (of {source_tokens} tokens) and the base {base_cache} "
            f"(of {base_tokens}); expected a window that fits both"
        )
    if kind == "first":
        return Window(range(width), range(width))
    return Window(range(source_cache - width, source_cache), range(base_cache - width, base_cache))


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


def _parse_layers(text: str) -> list[tuple[str, _Point, _Point | None]] | None:
    """Parts as (text, start, stop or None for one layer); None means all layers."""
    if text == "all":
        return None
    spans: list[tuple[str, _Point, _Point | None]] = []
    for part in text.split("+"):
        ends = part.split(":")
        if len(ends) > 2:
            raise UsageError(f"layers {text!r}: cannot read {part!r}; {_LAYERS_HELP}")
        is_range = len(ends) == 2
        start = _parse_point(ends[0], text, is_range_end=False)
        spans.append(
            (part, start, _parse_point(ends[1], text, is_range_end=True) if is_range else None)
        )
    return spans


def _parse_point(point: str, text: str, *, is_range_end: bool) -> _Point:
    """A layer number or a depth; a depth of 1 is a range's end and nothing else."""
    match = re.fullmatch(r"(-?\d+)(?:/(\d+))?", point)
    if match is None:
        raise UsageError(f"layers {text!r}: cannot read {point!r}; {_LAYERS_HELP}")
    number, denominator = int(match[1]), match[2]
    if denominator is None:
        if number < 0:
            raise UsageError(f"layers {text!r}: layer {number} is below 0; {_LAYERS_HELP}")
        return number
    if int(denominator) == 0:
        raise UsageError(f"layers {text!r}: {point!r} divides by zero; {_LAYERS_HELP}")
    depth = Fraction(number, int(denominator))
    if not 0 <= depth < 1 and not (is_range_end and depth == 1):
        raise UsageError(f"layers {text!r}: depth {point} is outside [0, 1); {_LAYERS_HELP}")
    return depth


def _layer_index(point: _Point, n_layers: int) -> int:
    return floor(point * n_layers) if isinstance(point, Fraction) else point


def _parse_positions(text: str) -> tuple[Literal["last", "first", "all"], int | Fraction]:
    if text == "all":
        return "all", 0
    match = re.fullmatch(r"(last|first)\((\d+)(%?)\)", text)
    if match is None or (match[1] == "last" and match[3]):
        raise UsageError(f"positions {text!r}: cannot be read; {_POSITIONS_HELP}")
    kind: Literal["last", "first"] = "last" if match[1] == "last" else "first"
    number = int(match[2])
    if number < 1 or (match[3] and number > 100):
        raise UsageError(
            f"positions {text!r}: expected at least 1 position and at most 100%; {_POSITIONS_HELP}"
        )
    return kind, Fraction(number, 100) if match[3] else number
