"""Layers and heads as text: `9`, `18/32`, `a+b`, `a:b`, `all`, and their resolution to indices.

Promises: exact rational arithmetic for depths; two parts that meet are an error, as is a range that
is empty or beyond the end. What no model could have is a `UsageError`, what others have and this
one has not a `NoSuchCellError`. No torch here.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from fractions import Fraction
from functools import lru_cache
from math import floor

from kv_claims.claims.sites import HeadKind
from kv_claims.errors import NoSuchCellError, UsageError

_HELP = {
    "layers": "expected a layer such as '9', a depth such as '18/32', several joined by '+', "
    "a half-open range such as '0:8' or '16/32:32/32', or 'all'",
    "heads": "expected a head such as '0', several joined by '+', a half-open range such as "
    "'0:4', or 'all'",
}
_SIZES = range(1, 1025)
"""Layers, or heads, that some model may have."""
_Point = int | Fraction


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


def shifted_layers(text: str, n_layers: int) -> str | None:
    """The wrong-layer control: the same layers moved by half the depth, modulo the depth.

    None where there is no such control: for `all`, or when the moved set meets the patched one.
    """
    layers = resolve_layers(text, n_layers)
    moved = sorted((layer + n_layers // 2) % n_layers for layer in layers)
    if set(moved) & set(layers):
        return None
    return "+".join(map(str, moved))


def other_heads(text: str, n_heads: int, kind: HeadKind = "KV heads") -> str | None:
    """The other-heads control: as many heads that are not named, of the same kind.

    Moved by half their number where that meets none of the named ones, else the lowest others.
    None where fewer are left than are named.
    """
    heads = resolve_heads(text, n_heads, kind)
    moved = sorted((head + n_heads // 2) % n_heads for head in heads)
    if set(moved) & set(heads):
        moved = [head for head in range(n_heads) if head not in heads][: len(heads)]
    return "+".join(map(str, moved)) if len(moved) == len(heads) else None


def some_model_has(find: Callable[[int], object]) -> bool:
    """Whether a call raises no UsageError at some size. find: takes a number of layers or heads."""
    for size in _SIZES:
        try:
            find(size)
        except UsageError:
            continue
        return True
    return False


def squeezed(text: object, what: str) -> str:
    """A text without its blanks. what: it names, for an error."""
    if not isinstance(text, str):
        raise UsageError(f"{what} {text!r}: expected text, got {type(text).__name__}")
    if re.search(r"\d\s+\d", text):
        raise UsageError(f"{what} {text!r}: two numbers with nothing between them")
    return "".join(text.split())


def parse_spans(text: str, what: str) -> list[tuple[str, _Point, _Point | None]] | None:
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


def _resolve(text: str, n: int, what: str, kind: str = "layers") -> tuple[int, ...]:
    plain = squeezed(text, what)
    parse_spans(plain, what)
    try:
        return _indices(plain, n, what, kind)
    except UsageError as error:
        if _fits_some_model(plain, what):
            raise NoSuchCellError(str(error)) from None
        raise


@lru_cache(maxsize=1024)
def _fits_some_model(text: str, what: str) -> bool:
    return some_model_has(lambda size: _indices(text, size, what, what))


def _indices(text: str, n: int, what: str, kind: str) -> tuple[int, ...]:
    """Indices among n of a text that can be read. Raises UsageError where it does not fit n.

    kind: what is counted, in an error.
    """
    spans = parse_spans(text, what)
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
