"""Claims that are written wrongly, one defect each; and a right one, to run on too few pairs."""

from kv_claims.claims.claim import Region, claim
from kv_claims.claims.patch import Patch

AT_MOST = {"says": "It transfers.", "cites": "a test", "transfer": Region(high=0.12)}
FINE = Patch("kv", layers="9", positions="last(16)")


@claim("layer-out-of-range", **AT_MOST)
def test_layer_out_of_range(study):
    study.judge(Patch("kv", layers="2000", positions="last(16)"))


@claim("window-too-long", **AT_MOST)
def test_window_too_long(study):
    study.judge(Patch("kv", layers="9", positions="last(99)"))


@claim("depths-meet", **AT_MOST)
def test_depths_meet(study):
    study.judge(Patch("kv", layers="9+9", positions="last(16)"))


def test_not_marked(study):
    study.judge(FINE)


@claim("too-few-pairs", **AT_MOST)
def test_too_few_pairs(study):
    study.judge(FINE)
