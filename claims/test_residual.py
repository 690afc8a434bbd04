"""Claims of the seed experiment on patching the residual stream, and its two-phase idea."""

import pytest

from kv_claims.claims.claim import Region, claim
from kv_claims.claims.patch import Patch

pytestmark = pytest.mark.embedded("stored-at-layer", "relay", "geometry-only")

SEED = "True KV Cache Patching Results (December 12, 2024)"

layers = pytest.mark.parametrize("layers", ["18/32", "25/32", "27/32"], ids=["L18", "L25", "L27"])


@claim(
    "residual-transfers-geometry",
    says="RESIDUAL patching transfers geometry: PR = 4.46, the source's own.",
    cites=f"{SEED}, Comparison",
    outcome="pr@27/32",
    transfer=Region(0.90, 1.10),
)
@layers
def test_residual_transfers_geometry(study, layers):
    study.judge(Patch("residual", layers=layers, positions="last(16)"))


@claim(
    "residual-transfers-no-behavior",
    says="RESIDUAL patching transfers no behavior: 0 points.",
    cites=f"{SEED}, Comparison",
    transfer=Region(-0.10, 0.10),
)
@layers
def test_residual_transfers_no_behavior(study, layers):
    study.judge(Patch("residual", layers=layers, positions="last(16)"))


@claim(
    "two-phases-beat-one",
    says="The mode is written at layer 25 and read at 27: patching both carries more than one.",
    cites=f"{SEED}, What we tested (relay chain layers)",
    difference=Region(low=0.10),
)
@pytest.mark.parametrize("written", ["18/32", "25/32"], ids=["L18-L27", "L25-L27"])
def test_two_phases_beat_one(study, written):
    write = Patch("residual", layers=written, positions="last(16)")
    read = Patch("v_proj", layers="27/32", positions="last(16)")
    study.judge([write, read], versus=read)
