"""Laws of Holm's correction, for any p-values and any family that holds them."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.stats.multitest import multipletests

from kv_claims.judging.multiplicity import holm

pytestmark = pytest.mark.filterwarnings("error")

laws = settings(deadline=None, max_examples=150, derandomize=True)
p_values = st.lists(
    st.one_of(st.floats(0, 1), st.sampled_from([0.0, 1.0, 0.05, 0.01, 0.0125])),
    min_size=1,
    max_size=12,
)
spare = st.integers(0, 8)


@pytest.fixture(scope="module", autouse=True)
def _few_objects() -> Iterator[None]:
    """statsmodels' Holm collects garbage: let it not walk all that is loaded, 0.3 s a call."""
    gc.freeze()
    yield
    gc.unfreeze()


@laws
@given(p_values, spare)
def test_adjusted_values_are_those_of_statsmodels(p: list[float], more: int) -> None:
    """What was not tested counts as p = 1; ties included."""
    wanted = multipletests([*p, *[1.0] * more], method="holm")[1]
    found = holm(dict(enumerate(p)), len(p) + more)
    assert [found[key] for key in range(len(p))] == pytest.approx(
        wanted[: len(p)].tolist(), rel=1e-9
    )


@laws
@given(p_values, spare)
def test_order_is_kept_and_no_value_falls(p: list[float], more: int) -> None:
    size = len(p) + more
    found = holm(dict(enumerate(p)), size)
    for one, first in enumerate(p):
        assert first <= found[one] <= min(1.0, size * first)
        for other, second in enumerate(p):
            assert first > second or found[one] <= found[other]


@laws
@given(p_values, spare, st.randoms())
def test_values_belong_to_their_keys_whatever_the_order(
    p: list[float], more: int, luck: object
) -> None:
    size, keys = len(p) + more, list(range(len(p)))
    luck.shuffle(keys)  # type: ignore[attr-defined]
    assert holm({key: p[key] for key in keys}, size) == holm(dict(enumerate(p)), size)


@laws
@given(p_values, spare, st.integers(0, 11), st.floats(0, 1))
def test_a_smaller_p_raises_no_value(p: list[float], more: int, at: int, by: float) -> None:
    """Evidence for one test never speaks against another."""
    at %= len(p)
    smaller = [*p[:at], p[at] * by, *p[at + 1 :]]
    before, after = (holm(dict(enumerate(some)), len(p) + more) for some in (p, smaller))
    assert all(after[key] <= before[key] for key in before)


@laws
@given(p_values, st.floats(0.001, 0.2))
def test_rejected_is_what_the_step_down_procedure_rejects(p: list[float], alpha: float) -> None:
    """Holm's own words: go up from the smallest, at alpha / (tests left), and stop at the first."""
    rejected: set[int] = set()
    for rank, key in enumerate(sorted(range(len(p)), key=lambda key: p[key])):
        if (len(p) - rank) * p[key] > alpha:
            break
        rejected.add(key)
    found = holm(dict(enumerate(p)), len(p))
    assert {key for key in found if found[key] <= alpha} == rejected


@laws
@given(p_values, st.integers(1, 12))
def test_a_family_that_is_too_small_is_refused(p: list[float], fewer: int) -> None:
    with pytest.raises(ValueError, match="p-values in a family of"):
        holm(dict(enumerate(p)), max(0, len(p) - fewer))
