"""Claims on patches that stay on while the model generates (the seed's explanation 1).

In the seed's own lab a "persistent" V patch never ran: it was guarded against single tokens.
Here every step's writes are counted, and one that is missing makes the verdict invalid.
"""

import pytest

from kv_claims.claims.claim import Region, claim
from kv_claims.claims.patch import Patch

pytestmark = pytest.mark.embedded("stored-at-layer", "relay", "self-sustaining")

SEED = "True KV Cache Patching Results (December 12, 2024)"

sites = pytest.mark.parametrize("site", ["k_proj", "v_proj", "kv_proj"], ids=["K", "V", "both"])


@claim(
    "persistent-patch-transfers",
    says="Kept on at every generated token, the patch transfers the behavior.",
    cites=f"{SEED}, Possible Explanations 1; Option 3",
    transfer=Region(low=0.50),
)
@sites
def test_persistent_patch_transfers(study, site):
    study.judge(Patch(site, layers="25/32", positions="last(16)", active="every_step"))


@claim(
    "persistent-beats-once",
    says="The mode is recomputed from new tokens: a patch kept on carries more than one made once.",
    cites=f"{SEED}, Possible Explanations 1",
    difference=Region(low=0.10),
)
@pytest.mark.parametrize("active", ["every_step", "every_step(held)"], ids=["source-step", "held"])
def test_persistent_beats_once(study, active):
    once = Patch("kv_proj", layers="25/32", positions="last(16)")
    kept = Patch("kv_proj", layers="25/32", positions="last(16)", active=active)
    study.judge(kept, versus=once)
