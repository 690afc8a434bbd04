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


LOCALISATION = "docs/claims.md, 6 (n=50)"
quarters = pytest.mark.parametrize(
    "layers",
    ["0:8/32", "8/32:16/32", "16/32:24/32", "0:16/32"],
    ids=["L0-8", "L8-16", "L16-24", "L0-16"],
)


@claim(
    "early-and-middle-layers-carry-nothing-by-likelihood",
    says="Swapping the cache of layers 0-8, 8-16 or 16-24 transfers about 0%; of 0-16, 2.3%.",
    cites=LOCALISATION,
    outcome="loglik",
    transfer=Region(-0.10, 0.12),
)
@quarters
def test_early_and_middle_layers_carry_nothing(study, layers):
    study.judge(Patch("kv", layers=layers, positions="all"))


@claim(
    "last-quarter-carries-13-by-likelihood",
    says="Swapping the cache of layers 24-32 transfers 12.8%.",
    cites=LOCALISATION,
    outcome="loglik",
    transfer=Region(0.03, 0.23),
    margin=0.03,
)
def test_last_quarter_carries_13(study):
    study.judge(Patch("kv", layers="24/32:32/32", positions="all"))


@claim(
    "late-half-carries-80-by-likelihood",
    says="Swapping the cache of layers 16-32 transfers 79.8%.",
    cites=LOCALISATION,
    outcome="loglik",
    transfer=Region(0.70, 0.90),
)
def test_late_half_carries_80(study):
    study.judge(Patch("kv", layers="16/32:32/32", positions="all"))


@claim(
    "late-half-carries-80-of-its-own-by-likelihood",
    says="Swapping the cache of layers 16-32 transfers 79.8%, and not by wiping what was there.",
    cites=f"{LOCALISATION}; beyond what the cache of an unrelated base does there",
    outcome="loglik",
    carried=Region(0.70, 0.90),
)
def test_late_half_carries_80_of_its_own(study):
    study.judge(Patch("kv", layers="16/32:32/32", positions="all"))


@claim(
    "all-layers-carry-90-by-likelihood",
    says="Swapping the cache of all layers transfers 89.7%.",
    cites=LOCALISATION,
    outcome="loglik",
    transfer=Region(0.80, 1.00),
)
def test_all_layers_carry_90(study):
    study.judge(Patch("kv", layers="all", positions="last(32)"))


@claim(
    "first-tenth-carries-99-by-likelihood",
    says="The first 10% of the tokens carry 99% of the signal.",
    cites='docs/claims.md, 8 (retracted by its authors; the seed cites it as "Dec 4")',
    outcome="loglik",
    transfer=Region(low=0.90),
)
@pytest.mark.parametrize("positions", ["first(10%)", "first(25%)"], ids=["first10", "first25"])
def test_first_tenth_carries_99(study, positions):
    study.judge(Patch("kv", layers="all", positions=positions))
