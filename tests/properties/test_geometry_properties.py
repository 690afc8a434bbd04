"""Laws of the participation ratio, for random windows of any shape."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from kv_claims.claims.outcome import VARIANTS, Variant
from kv_claims.measure.geometry import participation_ratio, participation_ratios

Floats = NDArray[np.float64]
laws = settings(deadline=None, max_examples=100, derandomize=True)
variants = st.sampled_from(VARIANTS)


@st.composite
def windows(draw: st.DrawFn) -> Floats:
    """At least 2 rows, of any rank, with singular values over several orders of size and a mean."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    rows, width = draw(st.integers(2, 20)), draw(st.integers(1, 40))
    rank = draw(st.integers(1, min(rows, width)))
    sizes = 10.0 ** -rng.uniform(0, draw(st.floats(0, 4)), rank)
    x = (rng.normal(size=(rows, rank)) * sizes) @ rng.normal(size=(rank, width))
    return np.asarray(x + draw(st.floats(0, 10)) * rng.normal(size=width))


def by_svd(x: Floats, variant: Variant) -> float:
    """The formulas as they are written."""
    s = np.linalg.svd(x - x.mean(0) if variant == "centred" else x, compute_uv=False)
    if variant == "unsquared":
        return float(s.sum() ** 2 / (s**2).sum())
    return float((s**2).sum() ** 2 / (s**4).sum())


@laws
@given(windows(), variants)
def test_it_is_the_formula_of_singular_values(x: Floats, variant: Variant) -> None:
    assert participation_ratio(x, variant) == pytest.approx(by_svd(x, variant), rel=1e-9)


@laws
@given(windows(), variants)
def test_it_lies_between_1_and_the_rank(x: Floats, variant: Variant) -> None:
    found = participation_ratio(x, variant)
    assert 1 <= found <= min(x.shape)
    if variant == "centred":
        assert found <= x.shape[0] - 1 + 1e-9


@laws
@given(windows(), variants, st.data())
def test_order_scale_and_rotation_do_not_matter(
    x: Floats, variant: Variant, data: st.DataObject
) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    turn, _ = np.linalg.qr(rng.normal(size=(x.shape[1], x.shape[1])))
    scale = data.draw(st.floats(1e-6, 1e6))
    moved = scale * rng.permutation(x) @ turn
    assert participation_ratio(moved, variant) == pytest.approx(
        participation_ratio(x, variant), rel=1e-8
    )


@laws
@given(windows(), st.sampled_from(["uncentred", "unsquared"]), st.data())
def test_signs_of_rows_do_not_matter_but_to_the_centred_one(
    x: Floats, variant: Variant, data: st.DataObject
) -> None:
    signs = data.draw(st.lists(st.sampled_from([-1.0, 1.0]), min_size=len(x), max_size=len(x)))
    turned = np.asarray(signs)[:, None] * x
    assert participation_ratio(turned, variant) == pytest.approx(
        participation_ratio(x, variant), rel=1e-9
    )


@laws
@given(st.integers(2, 20), st.integers(1, 40), st.integers(0, 2**32 - 1), variants)
def test_rank_one_gives_1(rows: int, width: int, seed: int, variant: Variant) -> None:
    rng = np.random.default_rng(seed)
    x = np.outer(rng.normal(size=rows), rng.normal(size=width))
    # Square roots make rounding of 1e-16 visible as 1e-8 in the unsquared one.
    assert participation_ratio(x, variant) == pytest.approx(1.0, rel=1e-6)


@laws
@given(st.integers(1, 16), st.integers(0, 24), st.integers(0, 2**32 - 1))
def test_orthonormal_rows_give_their_number(rows: int, more: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    q, _ = np.linalg.qr(rng.normal(size=(rows + more, rows)))
    assert participation_ratio(q.T) == pytest.approx(rows)
    assert participation_ratio(q.T, "unsquared") == pytest.approx(rows)


@laws
@given(windows(), st.sampled_from(["uncentred", "centred"]))
def test_float32_input_agrees_with_float64(x: Floats, variant: Variant) -> None:
    centred = x - x.mean(0) if variant == "centred" else x
    # What is left of a float32 once a large mean is taken off has fewer digits.
    assume(np.abs(centred).max() > 1e-2 * np.abs(x).max())
    found = participation_ratio(x.astype(np.float32), variant)
    assert found == pytest.approx(participation_ratio(x, variant), rel=1e-4)


@laws
@given(windows())
def test_squaring_weighs_the_large_ones_more(x: Floats) -> None:
    assert participation_ratio(x) <= participation_ratio(x, "unsquared") + 1e-9


@laws
@given(st.lists(windows(), min_size=1, max_size=4), variants)
def test_a_batch_is_its_windows(many: list[Floats], variant: Variant) -> None:
    same = np.stack([x for x in many if x.shape == many[0].shape])
    found = participation_ratios(same, variant)
    assert found == pytest.approx([participation_ratio(x, variant) for x in same], rel=1e-9)
