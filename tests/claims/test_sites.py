"""The table of sites, and what follows from it."""

from __future__ import annotations

from typing import get_args

import pytest

from kv_claims.claims.sites import (
    PARTS,
    SITES,
    TENSORS,
    HeadCounts,
    Site,
    Spot,
    Tensor,
    given_by,
    heads_of,
    in_order,
)


def test_every_site_writes_tensors_that_there_are_and_all_are_written() -> None:
    assert tuple(TENSORS) == SITES
    assert tuple(PARTS) == get_args(Tensor)
    assert {tensor for tensors in TENSORS.values() for tensor in tensors} == set(PARTS)


@pytest.mark.parametrize("site", SITES)
def test_tensors_of_a_site_are_alike(site: Site) -> None:
    """What is asked of a site is asked of its first tensor."""
    parts = [PARTS[tensor] for tensor in TENSORS[site]]
    assert len({(part.heads, part.feeds_cache, part.is_stream) for part in parts}) == 1


def test_nothing_follows_from_what_is_computed_later() -> None:
    for tensor, part in PARTS.items():
        if part.follows is not None:
            below, origin = part.follows
            assert in_order((1 - below, origin)) < in_order((1, tensor))


def test_heads_are_counted_by_their_kind() -> None:
    heads = HeadCounts(kv=2, query=8)
    assert {site: heads.of(site) for site in ("kv", "v_proj", "q_proj", "z", "attn_out")} == {
        "kv": 2,
        "v_proj": 2,
        "q_proj": 8,
        "z": 8,
        "attn_out": None,
    }
    assert [site for site in SITES if heads_of(site) == "query heads"] == ["q_proj", "z"]


@pytest.mark.parametrize(
    ("spot", "written", "is_given"),
    [
        ((2, "k"), {(1, "residual")}, True),
        ((2, "q"), {(2, "resid_pre")}, True),
        ((2, "attn_out"), {(2, "z")}, True),
        ((2, "mlp_out"), {(2, "resid_mid")}, True),
        ((2, "k"), {(2, "residual")}, False),
        ((3, "k"), {(1, "residual")}, False),
        ((2, "z"), {(2, "q"), (2, "k"), (2, "v")}, False),  # at other positions too
        ((2, "resid_mid"), {(2, "attn_out")}, False),
        ((2, "residual"), {(2, "mlp_out")}, False),
        ((0, "q"), {(0, "embed")}, False),  # GPT-2 adds positions between
    ],
)
def test_what_is_given_by_what(spot: Spot, written: set[Spot], is_given: bool) -> None:
    assert given_by(spot, written) is is_given
