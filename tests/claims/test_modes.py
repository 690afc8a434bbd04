"""Donors and modes: what goes together, what is refused, and in which words."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kv_claims.claims.donors import is_constant, vector_of
from kv_claims.claims.layers import other_heads
from kv_claims.claims.modes import mode_of
from kv_claims.claims.patch import Patch, as_patches, canonical, window_of
from kv_claims.claims.sites import HeadCounts
from kv_claims.errors import UsageError

HEADS = HeadCounts(kv=8, query=32)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"donor": "means"}, "did you mean 'mean'"),
        ({"donor": "vector()"}, r"expected one of source, zero, mean, resample, vector\(NAME\)"),
        ({"donor": "vector(../x)"}, "expected one of source"),
        ({"donor": 0}, "donor 0: expected text, got int"),
        ({"donor": "noise"}, "expected one of source"),
        ({"mode": "add(0)", "donor": "vector(x)"}, "an alpha other than 0"),
        ({"mode": "add(-)", "donor": "vector(x)"}, "an alpha other than 0"),
        ({"mode": "add(1e999)", "donor": "vector(x)"}, "an alpha other than 0"),
        ({"mode": "add(nan)", "donor": "vector(x)"}, "an alpha other than 0"),
        ({"mode": "add(2)"}, r"takes a direction, but donor='source'; expected 'vector\(NAME\)'"),
        ({"mode": "project_out", "donor": "mean"}, "takes a direction, but donor='mean'"),
        ({"mode": "mix(0.5)", "donor": "vector(x)"}, r"goes with 'add\(alpha\)', 'project_out'"),
        ({"donor": "mean", "active": "every_step(held)"}, "the same at every step anyway"),
        ({"donor": "vector(x)", "active": "every_step(held)"}, "the same at every step anyway"),
    ],
)
def test_what_does_not_go_together_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Patch("v", "1", "last(3)", **options)


def test_a_tail_is_appended_from_the_source_alone() -> None:
    with pytest.raises(UsageError, match="a tail of the source is appended, but donor='zero'"):
        Patch("kv", "all", "last(3)", mode="append", donor="zero")


def test_patches_of_one_arm_share_a_donor() -> None:
    one, other = (Patch("v", layer, "all", donor=d) for layer, d in (("1", "zero"), ("2", "mean")))
    with pytest.raises(UsageError, match="donors zero, mean; expected one donor for all"):
        as_patches([one, other])


def test_the_text_of_a_patch_names_its_donor_unless_it_is_the_source() -> None:
    patch = Patch("z", "9", "all", heads="6", donor="mean")
    assert str(patch) == "z@9/all/heads=6/donor=mean"
    assert patch.where == str(Patch("z", "9", "all", heads="6")) == "z@9/all/heads=6"


@given(st.floats(allow_nan=False, allow_infinity=False).filter(bool))
def test_an_alpha_has_one_spelling(alpha: float) -> None:
    patch = Patch("v", "1", "all", mode=f"add({alpha!r})", donor="vector(x)")
    assert patch.alpha == alpha
    plain = canonical(patch, 4, HEADS).mode
    assert mode_of(plain) is not None
    assert canonical(Patch("v", "1", "all", mode=plain, donor="vector(x)"), 4, HEADS).mode == plain


def test_spellings_of_one_number_are_one() -> None:
    said = ("add(2)", "add(2.0)", "add(+2.)", "add(2e0)")
    found = {
        canonical(Patch("v", "1", "all", mode=m, donor="vector(x)"), 4, HEADS).mode for m in said
    }
    assert found == {"add(2)"}


@given(st.integers(2, 60), st.integers(2, 60))
def test_a_donor_without_a_prompt_has_the_positions_of_the_base(source: int, base: int) -> None:
    for donor in ("zero", "mean", "resample", "vector(x)"):
        window = window_of(Patch("residual", "1", "all", donor=donor), source, base)
        assert (window.source_slots, window.base_slots) == (range(base), range(base))
        assert is_constant(donor) is (donor != "resample")
        assert (vector_of(donor) == "x") is (donor == "vector(x)")
    assert len(window_of(Patch("residual", "1", "all"), source, base).base_slots) == min(
        source, base
    )


@given(st.integers(1, 40), st.data())
def test_other_heads_are_as_many_and_none_of_those_named(n_heads: int, data: st.DataObject) -> None:
    named = data.draw(st.sets(st.integers(0, n_heads - 1), min_size=1))
    found = other_heads("+".join(map(str, sorted(named))), n_heads)
    if 2 * len(named) > n_heads:
        assert found is None
        return
    assert found is not None
    others = [int(head) for head in found.split("+")]
    assert others == sorted(set(others))
    assert len(others) == len(named)
    assert not named & set(others)
    assert max(others) < n_heads
