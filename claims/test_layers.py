"""Claims on which layers carry the behavior: the published localisation, and right against wrong.

The published numbers (n=50, no interval) are judged as regions of +-0.10 around them.
"""

import pytest

from kv_claims.claims.claim import Region, claim
from kv_claims.claims.patch import Patch

pytestmark = pytest.mark.embedded("stored-at-layer", "distributed", "relay")

LOCALISATION = "docs/claims.md, 6 (n=50)"

nothing = {"L0-8": "0:8/32", "L8-16": "8/32:16/32", "L16-24": "16/32:24/32"}


@claim(
    "early-and-middle-layers-carry-nothing",
    says="Swapping the cache of layers 0-8, 8-16 or 16-24 transfers about 0%; of 0-16, 2.3%.",
    cites=LOCALISATION,
    transfer=Region(-0.10, 0.12),
)
@pytest.mark.parametrize("layers", [*nothing.values(), "0:16/32"], ids=[*nothing.keys(), "L0-16"])
def test_early_and_middle_layers_carry_nothing(study, layers):
    study.judge(Patch("kv", layers=layers, positions="all"))


@claim(
    "last-quarter-carries-13",
    says="Swapping the cache of layers 24-32 transfers 12.8%.",
    cites=LOCALISATION,
    transfer=Region(0.03, 0.23),
    margin=0.03,
)
def test_last_quarter_carries_13(study):
    study.judge(Patch("kv", layers="24/32:32/32", positions="all"))


@claim(
    "late-half-carries-80",
    says="Swapping the cache of layers 16-32 transfers 79.8%.",
    cites=LOCALISATION,
    transfer=Region(0.70, 0.90),
)
def test_late_half_carries_80(study):
    study.judge(Patch("kv", layers="16/32:32/32", positions="all"))


@claim(
    "late-half-carries-80-of-its-own",
    says="Swapping the cache of layers 16-32 transfers 79.8%, and not by wiping what was there.",
    cites=f"{LOCALISATION}; beyond what the cache of an unrelated base does there",
    carried=Region(0.70, 0.90),
)
def test_late_half_carries_80_of_its_own(study):
    study.judge(Patch("kv", layers="16/32:32/32", positions="all"))


@claim(
    "all-layers-carry-90",
    says="Swapping the cache of all layers transfers 89.7%.",
    cites=LOCALISATION,
    transfer=Region(0.80, 1.00),
)
@pytest.mark.parametrize("positions", ["all", "last(32)"], ids=["all", "w32"])
def test_all_layers_carry_90(study, positions):
    study.judge(Patch("kv", layers="all", positions=positions))


@claim(
    "whole-cache-moves-behavior",
    says="Replacing the whole cache raises the score (0.76 to 2.62, d=0.63, n=300 pairs).",
    cites="docs/claims.md, 5",
    transfer=Region(low=0.10),
    # Published on 300 pairs; an effect of that size shows sooner. As many as the profiles have.
    looks=(20, 60, 200),
)
@pytest.mark.parametrize(
    ("layers", "positions"), [("all", "all"), ("16/32:32/32", "all")], ids=["all", "L16-32"]
)
def test_whole_cache_moves_behavior(study, layers, positions):
    study.judge(Patch("kv", layers=layers, positions=positions))


@claim(
    "wrong-layer-equals-right-layer",
    says="Patching a wrong layer does what patching the right one does (p=0.94).",
    cites="docs/claims.md, 5 and 11",
    difference=Region(-0.10, 0.10),
)
@pytest.mark.parametrize(
    ("right", "wrong"),
    [("25/32", "9/32"), ("16/32:32/32", "0:16/32")],
    ids=["L25-L9", "L16-32-L0-16"],
)
def test_wrong_layer_equals_right_layer(study, right, wrong):
    study.judge(
        Patch("kv", layers=right, positions="last(32)"),
        versus=Patch("kv", layers=wrong, positions="last(32)"),
    )
