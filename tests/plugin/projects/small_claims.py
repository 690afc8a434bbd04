"""Claims that end in each way but the usual one; small enough for 12 pairs of 8 tokens."""

import pytest

from kv_claims.claims.claim import Region, claim
from kv_claims.claims.patch import Patch
from kv_claims.planted.catalog import CATALOG
from kv_claims.planted.prompts import planted_task
from kv_claims.planted.truth import true_transfer

SAYS = {"says": "It transfers.", "cites": "a test"}
AT_MOST = {**SAYS, "transfer": Region(high=0.25)}
STORED = CATALOG["stored-at-layer"]
HALF = Patch("kv", layers="25/32", positions="last(16)")
TRUTH = true_transfer(STORED, HALF, planted_task(STORED), max_new_tokens=8)


@claim("decides", **AT_MOST)
def test_decides(study):
    study.judge(Patch("kv", layers="9", positions="last(16)"))


# A region this narrow around the truth is neither shown nor refuted by 12 pairs.
@claim("cannot-decide", **SAYS, transfer=Region(TRUTH - 0.01, TRUTH + 0.01))
def test_cannot_decide(study):
    study.judge(HALF)


@claim("never-judged", **AT_MOST)
def test_never_judged(study):
    assert study


@claim("skipped", **AT_MOST)
@pytest.mark.skip(reason="not today")
def test_skipped(study):
    study.judge(HALF)
