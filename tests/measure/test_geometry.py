"""Participation ratios of windows whose singular values are known; what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy.linalg import hadamard

from kv_claims.claims.outcome import VARIANTS, Variant
from kv_claims.errors import UsageError
from kv_claims.measure.geometry import participation_ratio, participation_ratios, r_v

W = 16


def window(singular: list[float], width: int = 64, seed: int = 0) -> np.ndarray:
    """16 rows with these singular values; the first left vector is constant, the rest centred."""
    left = hadamard(W)[:, : len(singular)] / 4.0
    right, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(width, len(singular))))
    return np.asarray((left * singular) @ right.T)


@pytest.mark.parametrize(
    ("singular", "uncentred", "centred", "unsquared"),
    [
        ([0, 1], 1.0, 1.0, 1.0),
        ([0, 1, 1, 1], 3.0, 3.0, 3.0),
        ([0, 3, 1], 100 / 82, 100 / 82, 1.6),
        ([5, 1, 1], 27**2 / 627, 2.0, 49 / 27),
        ([1] * 16, 16.0, 15.0, 16.0),
    ],
)
def test_known_singular_values(
    singular: list[float], uncentred: float, centred: float, unsquared: float
) -> None:
    x = window(singular)
    assert participation_ratio(x) == pytest.approx(uncentred)
    assert participation_ratio(x, "centred") == pytest.approx(centred)
    assert participation_ratio(x, "unsquared") == pytest.approx(unsquared)


def test_one_matrix_three_numbers() -> None:
    """A strong mean over 15 weak directions gives the 1.5, 14.8 and 6.6 of the formulas' mix-up."""
    noise = np.random.default_rng(1).normal(size=(W, 1024)) * 0.002
    x = window([66.1**0.5] + [1.0] * 15, width=1024) + noise
    found = [participation_ratio(x, variant) for variant in VARIANTS]
    assert found == pytest.approx([1.5, 14.9, 6.6], abs=0.1)


def test_r_v_is_late_over_early() -> None:
    early, late = window([0, 1, 1, 1]), window([0, 1])
    assert r_v(early, late) == pytest.approx(1 / 3)
    assert r_v(late, early) == pytest.approx(3.0)
    assert r_v(window([5, 1, 1]), late, "centred") == pytest.approx(1 / 2)


@pytest.mark.parametrize("variant", VARIANTS)
def test_windows_at_once_are_the_windows_one_by_one(variant: Variant) -> None:
    many = np.random.default_rng(0).normal(size=(3, 2, W, 8))
    found = participation_ratios(many, variant)
    assert found.shape == (3, 2)
    for at in np.ndindex(3, 2):
        assert found[at] == pytest.approx(participation_ratio(many[at], variant), rel=1e-12)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_tensors_of_every_dtype_are_taken_as_their_own_numbers(dtype: torch.dtype) -> None:
    x = torch.randn(W, 8, generator=torch.Generator().manual_seed(0)).to(dtype)
    expected = participation_ratio(x.double().numpy())
    assert participation_ratio(x.requires_grad_()) == expected
    assert isinstance(expected, float)


def test_lists_and_whole_numbers_are_taken() -> None:
    assert participation_ratio([[1, 0], [0, 1]]) == 2.0
    assert participation_ratio([[1, 2, 3]]) == 1.0


@pytest.mark.parametrize("scale", [1e-200, 1e200])
def test_neither_large_nor_small_numbers_overflow(scale: float) -> None:
    assert participation_ratio(window([0, 3, 1]) * scale) == pytest.approx(100 / 82)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ([1.0, 2.0], r"shape \(2,\): expected \[rows, width\]"),
        (np.zeros((2, 3, 4)), r"shape \(2, 3, 4\): expected \[rows, width\]"),
        (np.zeros((0, 4)), r"shape \(0, 4\): expected \[rows, width\], at least 1"),
        (np.zeros((4, 0)), "at least 1"),
        ([[1.0, float("nan")]], "1 numbers are not finite"),
        ([[1.0, float("inf")]], "1 numbers are not finite"),
        (np.zeros((4, 4)), "it is undefined"),
        ([[1.0], [1.0, 2.0]], "expected an array of real numbers"),
        ([["a"]], "expected an array of real numbers"),
        ([[1j]], "expected an array of real numbers"),
        (None, "expected an array of real numbers"),
    ],
)
def test_what_has_no_participation_ratio_is_refused(given: Any, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        participation_ratio(given)


@pytest.mark.parametrize("rows", [[[0.1, 0.7, 0.3]] * 3, [[0.1, 0.7, 0.3]]])
def test_equal_rows_have_no_spread_around_their_mean(rows: list[list[float]]) -> None:
    assert participation_ratio(rows) == 1.0
    with pytest.raises(UsageError, match=r"'centred'.*equal rows"):
        participation_ratio(rows, "centred")


def test_an_unknown_variant_is_refused() -> None:
    with pytest.raises(UsageError, match="expected one of uncentred, centred, unsquared"):
        participation_ratio([[1.0]], "squared")  # type: ignore[arg-type]


def test_one_undefined_window_of_many_can_be_named_instead() -> None:
    many = np.stack([window([0, 1, 1]), np.zeros((W, 64))])
    with pytest.raises(UsageError, match="1 of 2 windows"):
        participation_ratios(many)
    found = participation_ratios(many, undefined=float("nan"))
    assert found[0] == pytest.approx(2.0)
    assert np.isnan(found[1])


def test_windows_of_different_rows_do_not_compare() -> None:
    with pytest.raises(UsageError, match="as many rows in both"):
        r_v(np.eye(4), np.eye(5))
