"""Participation ratios: over how many directions the rows of a window spread.

For: the PR and R_V of v_proj windows, as published (docs/methods.md: uncentred, from singular
values) and in two variants that are in circulation and give other numbers. Promises: float64
whatever comes in; 1 <= PR <= min(rows, width); an undefined ratio is an error, never NaN. Does not:
choose the window (`kv_claims.claims.outcome`), nor read a model. Tensors are converted by their own
methods, so that this module needs no torch.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from kv_claims.claims.outcome import VARIANTS, Variant
from kv_claims.errors import UsageError

__all__ = ["VARIANTS", "Variant", "participation_ratio", "participation_ratios", "r_v"]

Floats = NDArray[np.float64]
_ROUNDING = 16 * float(np.finfo(np.float64).eps)
"""Column means of equal rows miss them by this share of the largest number, at most."""


def participation_ratio(x: Any, variant: Variant = "uncentred") -> float:
    """Effective number of dimensions of a window, between 1 and min(rows, width).

    x: `[rows, width]`, at least one row: a numpy array, a torch tensor of any real dtype, or
        nested lists.
    variant, with singular values s (as in docs/methods.md; the first is the published one):
        'uncentred' (sum s^2)^2 / sum s^4 of x;
        'centred' the same of x less its column means (so of its covariance);
        'unsquared' (sum s)^2 / sum s^2 of x.
    Raises UsageError for another shape, numbers that are not finite, and a matrix of zeros (for
    'centred' also one of equal rows), of which the ratio is undefined.
    """
    window = _floats(x)
    if window.ndim != 2:
        raise UsageError(f"participation ratio of shape {window.shape}: expected [rows, width]")
    return float(participation_ratios(window, variant))


def participation_ratios(
    x: Any, variant: Variant = "uncentred", *, undefined: float | None = None
) -> Floats:
    """`participation_ratio` of many windows at once: `[..., rows, width]` to `[...]`.

    undefined: what stands for the ratio of a window of which it is undefined (such as nan), where
        one window is not to stop the others; None raises UsageError.
    """
    windows = _checked(_floats(x), variant)
    # The ratio does not depend on scale, but fourth powers of large or small numbers overflow.
    scaled, lost = _scaled(windows)
    if variant == "centred":
        scaled, equal = _scaled(scaled - scaled.mean(-2, keepdims=True), _ROUNDING)
        lost |= equal
    if undefined is None and lost.any():
        what = "zeros" + (" or equal rows (or of one row)" if variant == "centred" else "")
        raise UsageError(
            f"participation ratio, variant {variant!r}: {int(lost.sum())} of {lost.size} windows "
            f"{windows.shape[-2:]} are of {what}; it is undefined"
        )
    rows, width = windows.shape[-2:]
    # Rounding puts a matrix of rank one a hair below 1.
    ratios = np.clip(_ratios(scaled, variant), 1.0, float(min(rows, width)))
    stand_in = np.nan if undefined is None else undefined
    return np.asarray(np.where(lost, stand_in, ratios), dtype=np.float64)


def r_v(early: Any, late: Any, variant: Variant = "uncentred") -> float:
    """R_V = PR(late) / PR(early) of two windows; below 1 is the published 'contraction'.

    early, late: v_proj windows `[rows, width]` of the layers 5/32 and 27/32 deep.
    Raises UsageError as `participation_ratio` does, and for windows of different rows, whose ratios
    do not compare.
    """
    first, last = _floats(early), _floats(late)
    if first.shape[:1] != last.shape[:1]:
        raise UsageError(
            f"R_V of windows of shape {first.shape} (early) and {last.shape} (late): expected as "
            "many rows in both"
        )
    return participation_ratio(last, variant) / participation_ratio(first, variant)


def _ratios(windows: Floats, variant: Variant) -> Floats:
    """The formula, of windows of a sound scale; a window of zeros gives some number."""
    if variant == "unsquared":
        singular = np.linalg.svd(windows, compute_uv=False)
        over, under = singular.sum(-1) ** 2, np.square(singular).sum(-1)
    else:
        # sum s^2 = trace(G) and sum s^4 = ||G||_F^2 for either Gram matrix G; take the small one.
        rows, width = windows.shape[-2:]
        turned = np.swapaxes(windows, -1, -2)
        gram = windows @ turned if rows <= width else turned @ windows
        over = np.square(np.trace(gram, axis1=-2, axis2=-1))
        under = np.square(gram).sum((-1, -2))
    return np.asarray(over / np.where(under > 0, under, 1.0), dtype=np.float64)


def _scaled(windows: Floats, floor: float = 0.0) -> tuple[Floats, NDArray[np.bool_]]:
    """The windows over their largest number, and which of them have none above the floor."""
    largest = np.abs(windows).max((-2, -1), keepdims=True)
    lost = largest <= floor
    scaled = np.divide(windows, largest, out=np.zeros_like(windows), where=~lost)
    return scaled, np.asarray(lost[..., 0, 0], dtype=np.bool_)


def _checked(windows: Floats, variant: Variant) -> Floats:
    """The windows; UsageError for a wrong shape or variant and for numbers that are not finite."""
    if variant not in VARIANTS:
        raise UsageError(
            f"participation ratio, variant {variant!r}: expected one of {', '.join(VARIANTS)}"
        )
    if windows.ndim < 2 or 0 in windows.shape:
        raise UsageError(
            f"participation ratio of shape {windows.shape}: expected [rows, width], at least 1 of "
            "each"
        )
    if wrong := int((~np.isfinite(windows)).sum()):
        raise UsageError(
            f"participation ratio of shape {windows.shape}: {wrong} numbers are not finite"
        )
    return windows


def _floats(x: Any) -> Floats:
    """Anything array-like as float64. A torch tensor converts itself (numpy has no bfloat16)."""
    if hasattr(x, "detach"):
        x = x.detach().cpu().double().numpy()
    try:
        given = np.asarray(x)
        if given.dtype.kind not in "fiub":
            raise TypeError(f"numbers of type {given.dtype}")
        return np.asarray(given, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise UsageError(
            f"participation ratio of a {type(x).__name__}: {error}; expected an array of real "
            "numbers, [rows, width]"
        ) from error
