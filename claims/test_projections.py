"""Claims of the seed experiment on patching the projections while the prompt is computed.

`v_proj` and `kv_proj` are the seed's V_PROJ and KV_CACHE (misnamed: it patched both projections'
outputs in the prompt pass, not the cache). Read at the layer that was patched, geometry is
arithmetic of what was pasted: those cells are *invalid*, as the published ones were.
"""

import pytest

from kv_claims.claims.claim import Region, claim
from kv_claims.claims.patch import Patch

pytestmark = pytest.mark.embedded("stored-at-layer", "relay", "bound-by-keys", "collapse")

SEED = "True KV Cache Patching Results (December 12, 2024)"

sites = pytest.mark.parametrize("site", ["v_proj", "kv_proj"])
layers = pytest.mark.parametrize("layers", ["18/32", "27/32"], ids=["L18", "L27"])


@claim(
    "projections-transfer-geometry",
    says="V_PROJ and KV_CACHE (K+V proj) patching transfer geometry: PR = 4.43, the source's own.",
    cites=f"{SEED}, Comparison",
    outcome="pr@27/32",
    transfer=Region(0.90, 1.10),
)
@sites
@layers
def test_projections_transfer_geometry(study, site, layers):
    study.judge(Patch(site, layers=layers, positions="last(16)"))


@claim(
    "projections-transfer-no-behavior",
    says="V_PROJ and KV_CACHE (K+V proj) patching transfer no behavior: 0 points.",
    cites=f"{SEED}, Comparison",
    transfer=Region(-0.10, 0.10),
)
@sites
@layers
def test_projections_transfer_no_behavior(study, site, layers):
    study.judge(Patch(site, layers=layers, positions="last(16)"))


@claim(
    "v-alone-carries-10",
    says="Patching V alone carries about 10% of the behavior.",
    cites="docs/claims.md, 7",
    transfer=Region(0.05, 0.15),
    margin=0.05,
)
@pytest.mark.parametrize("layers", ["25/32", "16/32:32/32"], ids=["L25", "L16-32"])
def test_v_alone_carries_10(study, layers):
    study.judge(Patch("v", layers=layers, positions="last(32)"))


@claim(
    "both-carry-more-than-v",
    says="K and V together carry more of the behavior than V alone (14/20 against 5/20).",
    cites="docs/claims.md, 7",
    difference=Region(low=0.10),
)
@pytest.mark.parametrize("layers", ["25/32", "16/32:32/32"], ids=["L25", "L16-32"])
def test_both_carry_more_than_v(study, layers):
    both = Patch("kv", layers=layers, positions="last(32)")
    study.judge(both, versus=Patch("v", layers=layers, positions="last(32)"))


@claim(
    "both-carry-more-than-k",
    says="K and V together carry more of the behavior than K alone (14/20 against 4/20).",
    cites="docs/claims.md, 7",
    difference=Region(low=0.10),
)
@pytest.mark.parametrize("layers", ["25/32", "16/32:32/32"], ids=["L25", "L16-32"])
def test_both_carry_more_than_k(study, layers):
    both = Patch("kv", layers=layers, positions="last(32)")
    study.judge(both, versus=Patch("k", layers=layers, positions="last(32)"))
