"""The seed's claims on the KV cache again, by what the model would rather write: `make real`.

The outcome is a likelihood, not a count of words: the patched cache is asked for how likely it
finds the continuation that the source wrote, and the one that the base wrote. It is there on every
token, where a small model uses the words of the register on two of a hundred; so it needs a model
that was trained, and fewer pairs. The cells and regions are those of `claims/test_kv_cache.py`.
"""

import pytest

from kv_claims.claims.claim import Region, claim
from kv_claims.claims.patch import Patch

SEED = "True KV Cache Patching Results (December 12, 2024)"

layers = pytest.mark.parametrize(
    "layers",
    ["18/32", "25/32", "27/32", "25/32+27/32"],
    ids=["L18", "L25", "L27", "L25+L27"],
)
positions = pytest.mark.parametrize("positions", ["last(16)", "last(32)"], ids=["w16", "w32"])


@claim(
    "kv-cache-transfers-80-by-likelihood",
    says="KV cache patching achieves ~80% behavior transfer.",
    cites=f"{SEED}, Hypothesis (Dec 7)",
    outcome="loglik",
    transfer=Region(0.70, 0.90),
    about="layer",
)
@positions
@layers
def test_kv_cache_transfers_80(study, layers, positions):
    study.judge(Patch("kv", layers=layers, positions=positions))


@claim(
    "kv-cache-transfers-at-most-12-by-likelihood",
    says="KV cache patching gives ~0-12% behavior transfer.",
    cites=f"{SEED}, Key Findings 3",
    outcome="loglik",
    transfer=Region(high=0.12),
)
@positions
@layers
def test_kv_cache_transfers_at_most_12(study, layers, positions):
    study.judge(Patch("kv", layers=layers, positions=positions))
