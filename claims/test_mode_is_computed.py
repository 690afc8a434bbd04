"""Hypothesis 4 made testable: which part of the cache suffices?

"The mode is computed, not stored" is false as it stands: for an autoregressive transformer the
cache and the next token are everything, and the whole cache always suffices (the instrument's
own check, never a finding). What is left to ask is how little does.
"""

import pytest

from kv_claims.claims.claim import Region, claim
from kv_claims.claims.patch import Patch

pytestmark = pytest.mark.embedded("distributed", "early-tokens", "inert")

SEED = "True KV Cache Patching Results (December 12, 2024)"


@claim(
    "whole-cache-suffices",
    says="The complete set of layers and positions suffices.",
    cites=f"{SEED}, Possible Explanations 4",
    transfer=Region(0.90, 1.10),
)
def test_whole_cache_suffices(study):
    study.judge(Patch("kv", layers="all", positions="all"))


@claim(
    "a-smaller-set-suffices",
    says="A smaller set of layers and positions suffices.",
    cites=f"{SEED}, Possible Explanations 2 to 4",
    transfer=Region(low=0.90),
)
@pytest.mark.parametrize(
    ("layers", "positions"),
    [
        ("all", "last(32)"),
        ("16/32:32/32", "all"),
        ("25/32", "all"),
        ("18/32", "first(25%)"),
    ],
    ids=["all-w32", "L16-32", "L25", "L18-first25"],
)
def test_a_smaller_set_suffices(study, layers, positions):
    study.judge(Patch("kv", layers=layers, positions=positions))
