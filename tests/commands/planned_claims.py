"""Claims to plan for, one of each kind; pytest does not collect this file here."""

import pytest

from kv_claims.claims.claim import Part, Region, claim
from kv_claims.claims.patch import Patch

SAYS = {"says": "It transfers.", "cites": "a test"}
PATCH = Patch("kv", layers="12", positions="last(16)")
TRANSFER = Part.transfer("behavior", Region(0.1, 0.9))


@claim("simple", **SAYS, transfer=Region(0.1, 0.9))
@pytest.mark.parametrize("layers", ["9", "12"], ids=["L9", "L12"])
def test_simple(study, layers):
    study.judge(Patch("kv", layers=layers, positions="last(16)"))


@claim("two-parts", **SAYS, all_of=[TRANSFER, Part.gap("behavior", Region(low=1.0))])
def test_two_parts(study):
    study.judge(PATCH)


@claim("looks", **SAYS, transfer=Region(0.7, 0.9), looks=(10, 20))
def test_looks(study):
    study.judge(PATCH)


@claim("by-construction", **SAYS, transfer=Region(0.5, 1.5))
def test_by_construction(study):
    study.judge(Patch("kv", layers="all", positions="all"))
