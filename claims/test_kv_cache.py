"""Claims of the seed experiment on patching the KV cache, and the instrument's oracle check.

The eight cells are the seed's: one layer or two, the last 16 or 32 positions, K and V.
"""

import pytest

from kv_claims.claims.claim import Region, claim
from kv_claims.claims.patch import Patch

pytestmark = pytest.mark.embedded("stored-at-layer", "disrupted")

SEED = "True KV Cache Patching Results (December 12, 2024)"

layers = pytest.mark.parametrize(
    "layers",
    ["18/32", "25/32", "27/32", "25/32+27/32"],
    ids=["L18", "L25", "L27", "L25+L27"],
)
positions = pytest.mark.parametrize("positions", ["last(16)", "last(32)"], ids=["w16", "w32"])


@claim(
    "kv-cache-transfers-80",
    says="KV cache patching achieves ~80% behavior transfer.",
    cites=f"{SEED}, Hypothesis (Dec 7)",
    transfer=Region(0.70, 0.90),
    about="layer",
)
@positions
@layers
def test_kv_cache_transfers_80(study, layers, positions):
    study.judge(Patch("kv", layers=layers, positions=positions))


@claim(
    "kv-cache-transfers-at-most-12",
    says="KV cache patching gives ~0-12% behavior transfer.",
    cites=f"{SEED}, Key Findings 3",
    transfer=Region(high=0.12),
)
@positions
@layers
def test_kv_cache_transfers_at_most_12(study, layers, positions):
    study.judge(Patch("kv", layers=layers, positions=positions))


def test_full_swap_reproduces_the_source(study):
    """Not a claim: replacing the whole cache is running the source, so it tests the instrument."""
    study.check_full_swap()
