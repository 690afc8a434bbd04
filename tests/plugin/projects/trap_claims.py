"""Claims that meet what is known to go wrong between pytest, its workers and its reports."""

import numpy as np
import pytest

from kv_claims.claims.claim import Region, claim
from kv_claims.claims.patch import Patch
from kv_claims.planted.catalog import CATALOG
from kv_claims.planted.prompts import planted_task
from kv_claims.planted.truth import true_transfer

SAYS = {"says": "It transfers.", "cites": "a test"}
HALF = Patch("kv", layers="25/32", positions="last(16)")
STORED = CATALOG["stored-at-layer"]
TRUTH = true_transfer(STORED, HALF, planted_task(STORED), max_new_tokens=8)
ELSEWHERE = Patch("kv", layers="9", positions="last(16)")


# Numbers of numpy end up in the evidence: none of them may keep it from crossing to the controller.
@claim("of-numpy", **SAYS, transfer=Region(high=np.float64(0.25)), margin=np.float64(0.1))
def test_of_numpy(study):
    study.judge(ELSEWHERE)


@claim("known-refuted", **SAYS, transfer=Region(high=0.25))
@pytest.mark.xfail(strict=True, reason="known to be refuted")
def test_that_is_supported_after_all(study):
    study.judge(ELSEWHERE)


@claim("in-subtests", **SAYS, transfer=Region(high=0.25))
def test_in_subtests(study, subtests):
    evidence = study.judge(ELSEWHERE)
    for name in ("estimate", "level"):
        with subtests.test(name):
            assert getattr(evidence, name) is not None


# A region this narrow around the truth is neither shown nor refuted by 12 pairs.
@claim("undecided", **SAYS, transfer=Region(TRUTH - 0.01, TRUTH + 0.01))
def test_undecided(study):
    study.judge(HALF)
