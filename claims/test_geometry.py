"""Claims on the geometry of the values, and on geometry against behavior.

The participation ratio and R_V are read over the last 16 prompt tokens' v_proj outputs, in the
prompt pass. Patches that are spliced into the cache afterwards cannot change them.
"""

import pytest

from kv_claims.claims.claim import Part, Region, claim
from kv_claims.claims.patch import Patch

pytestmark = pytest.mark.embedded("stored-at-layer", "geometry-only")

SEED = "True KV Cache Patching Results (December 12, 2024)"

GEOMETRY_MOVES = Part.transfer("rv", Region(low=0.50))
BEHAVIOR_STAYS = Part.transfer("behavior", Region(-0.12, 0.12))
LATE = {"L24-28": "24/32:28/32", "L24-32": "24/32:32/32"}

late = pytest.mark.parametrize("layers", LATE.values(), ids=LATE.keys())


@claim(
    "rv-is-lower-for-sources",
    says="R_V is lower for self-observing prompts than for factual ones (0.96 against 1.15).",
    cites="docs/claims.md, 9",
    outcome="rv",
    gap=Region(high=0.0),
)
def test_rv_is_lower_for_sources(study):
    study.judge()


@claim(
    "geometry-and-behavior-dissociate",
    says="Geometry transfers, behavior doesn't.",
    cites=f"{SEED}, Conclusion",
    all_of=(GEOMETRY_MOVES, BEHAVIOR_STAYS),
)
@pytest.mark.parametrize("layers", ["0:8/32", "8/32:16/32"], ids=["L0-8", "L8-16"])
def test_geometry_and_behavior_dissociate(study, layers):
    study.judge(Patch("residual", layers=layers, positions="last(16)"))


@claim(
    "contraction-is-not-sufficient",
    says="R_V contraction is not sufficient for the behavior.",
    cites=f"{SEED}, Option 4",
    given=(GEOMETRY_MOVES,),
    transfer=Region(high=0.50),
)
@pytest.mark.parametrize("site", ["residual", "kv_proj"])
def test_contraction_is_not_sufficient(study, site):
    study.judge(Patch(site, layers="18/32", positions="last(32)"))


@claim(
    "contraction-is-necessary",
    says="R_V contraction is necessary for the behavior: what brings the behavior brings it too.",
    cites=f"{SEED}, Option 4",
    given=(Part.transfer("behavior", Region(low=0.50)),),
    outcome="rv",
    transfer=Region(low=0.50),
)
@pytest.mark.parametrize("site", ["residual", "kv_proj"])
def test_contraction_is_necessary(study, site):
    study.judge(Patch(site, layers="18/32", positions="last(32)"))
