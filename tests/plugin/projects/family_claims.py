"""A family of two claims and five cells, one of them looked at twice; and one declared too small.

`KV_TEST_FAMILY_SIZE` is the size that the second family says it has; it has two tests.
"""

import os

import pytest

from kv_claims.claims.claim import Family, Region, claim
from kv_claims.claims.patch import Patch

SAYS = {"says": "It transfers.", "cites": "a test"}
FIVE = Family("a-family-of-two-claims", 5)
LOOKED_AT = Family("looked-at", int(os.environ.get("KV_TEST_FAMILY_SIZE", "2")))


@claim("at-most", **SAYS, transfer=Region(high=0.4), family=FIVE)
@pytest.mark.parametrize("layers", ["9", "12", "13"], ids=["L9", "L12", "L13"])
def test_at_most(study, layers):
    study.judge(Patch("kv", layers=layers, positions="last(16)"))


@claim("about-80", **SAYS, transfer=Region(0.7, 0.9), family=FIVE)
@pytest.mark.parametrize("layers", ["9", "12"], ids=["L9", "L12"])
def test_about_80(study, layers):
    study.judge(Patch("kv", layers=layers, positions="last(16)"))


@claim("looks", **SAYS, transfer=Region(0.7, 0.9), family=LOOKED_AT, looks=(10, 14))
@pytest.mark.parametrize("layers", ["9", "12"], ids=["L9", "L12"])
def test_looks(study, layers):
    study.judge(Patch("kv", layers=layers, positions="last(16)"))
