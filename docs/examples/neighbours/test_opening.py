"""With kv-claims: the same patch as a claim. Controls and checks of the instrument come along."""

from kv_claims import Patch, Region, claim


@claim(
    "opening-carries-the-register",
    says="Keys and values of the opening words, in the lowest two layers, carry the register.",
    cites="docs/coming-from.md",
    transfer=Region(low=0.5),
)
def test_opening_carries_the_register(study):
    study.judge(Patch("kv_proj", layers="0:2", positions="first(16)"))
