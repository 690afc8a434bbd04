"""Claims that stand beside a table: read as those of a test file, and each fault named."""

from __future__ import annotations

from typing import Any

import pytest

from kv_claims.claims.claim import Region
from kv_claims.claims.patch import Patch
from kv_claims.errors import UsageError
from kv_claims.replay.own_claims import read_own

PATCH = {"site": "kv", "layers": "25/32", "positions": "last(1)"}
GOOD: dict[str, Any] = {
    "says": "Steering raises accuracy.",
    "cites": "somebody, 2025",
    "rate": {"low": 0.01},
    "margin": 0.01,
    "patch": PATCH,
}


def test_a_claim_is_that_of_a_test_file() -> None:
    (own,) = read_own({"rises": GOOD}, "own").values()
    assert own.claim.id == "rises"
    assert own.claim.rate == Region(low=0.01)
    assert (own.claim.margin, own.claim.outcome) == (0.01, "behavior")
    assert (own.patch, own.versus) == (Patch("kv", "25/32", "last(1)"), None)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"says": None}, "own: rises: says: None, expected text"),
        ({"cites": " "}, "`cites` is empty"),
        ({"rate": {"lowest": 0}}, "own: rises: rate: unknown key 'lowest', expected low, high"),
        ({"rate": {"low": "0"}}, "own: rises: rate: low: '0', expected a number"),
        ({"rate": {"low": 1, "high": 0}}, "own: rises: rate: .*expected low < high"),
        ({"rate": 0.3}, "own: rises: rate: 0.3, expected a mapping"),
        ({"shift": {"low": 0}}, "shift and rate claimed, expected exactly one"),
        ({"margin": True}, "own: rises: margin: True, expected a number"),
        ({"margin": 0.5}, "margin 0.5 for the region >= 0.01"),
        ({"patch": {**PATCH, "layer": 3}}, "own: rises: patch: unknown key 'layer'.*'layers'"),
        ({"patch": {"site": "kv"}}, "own: rises: patch: missing key layers, positions"),
        ({"patch": {**PATCH, "site": "kvs"}}, "own: rises: patch: .*site='kvs'"),
        ({"versus": PATCH}, "is not about a second patch"),
        ({"outcome": "happiness"}, "outcome 'happiness'"),
        ({"family": "x"}, "own: rises: unknown key 'family'"),
    ],
    ids=str,
)
def test_what_is_no_claim_is_one_error_that_says_where(change: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        read_own({"rises": {**GOOD, **change}}, "own")


def test_a_claim_of_a_patch_says_which() -> None:
    with pytest.raises(UsageError, match="it needs a patch"):
        read_own({"rises": {key: told for key, told in GOOD.items() if key != "patch"}}, "own")
