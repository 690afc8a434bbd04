"""Claims on which of the prompt's tokens carry the behavior: all layers, some positions."""

import pytest

from kv_claims.claims.claim import Region, claim
from kv_claims.claims.patch import Patch

pytestmark = pytest.mark.embedded("stored-at-layer", "early-tokens")

POSITIONS = {"w16": "last(16)", "w32": "last(32)", "first25": "first(25%)", "first10": "first(10%)"}


@claim(
    "first-tenth-carries-99",
    says="The first 10% of the tokens carry 99% of the signal.",
    cites='docs/claims.md, 8 (retracted by its authors; the seed cites it as "Dec 4")',
    transfer=Region(low=0.90),
)
@pytest.mark.parametrize("positions", ["first(10%)", "first(25%)"], ids=["first10", "first25"])
def test_first_tenth_carries_99(study, positions):
    study.judge(Patch("kv", layers="all", positions=positions))


@claim(
    "early-tokens-carry-more-than-late",
    says="Only specific tokens, the first 25% of the prompt, carry the mode.",
    cites="True KV Cache Patching Results (December 12, 2024), Possible Explanations 3",
    difference=Region(low=0.10),
)
def test_early_tokens_carry_more_than_late(study):
    early = Patch("kv", layers="all", positions="first(10)")
    study.judge(early, versus=Patch("kv", layers="all", positions="last(10)"))


@claim(
    "tail-behind-the-base-transfers",
    says="The source's tail appended to the base's cache brings the behavior.",
    cites="docs/claims.md, also judged",
    transfer=Region(low=0.10),
)
@pytest.mark.parametrize("positions", ["last(16)", "last(32)"], ids=["w16", "w32"])
def test_tail_behind_the_base_transfers(study, positions):
    study.judge(Patch("kv", layers="all", positions=positions, mode="append"))
