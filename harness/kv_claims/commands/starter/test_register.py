"""A first claim, about the model that `claims_models` in pytest.toml names."""

from kv_claims import Patch, Region, claim


@claim(
    "lowest-layers-keep-the-register",  # evidence is kept under this name
    says="The lowest quarter of the layers keeps, in its keys and values, in which register a text "
    "began: to swap them moves more than half of the behavior.",
    cites="claims/README.md",
    transfer=Region(low=0.5),  # the sentence is true where transfer is at least 0.5
)
def test_lowest_layers_keep_the_register(study):
    study.judge(Patch("kv", layers="0:8/32", positions="all"))
