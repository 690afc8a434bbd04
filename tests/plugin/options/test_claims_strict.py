"""--claims-strict: inconclusive and invalid verdicts fail."""

from __future__ import annotations

import pytest

from kv_claims.pins.passes import outcome
from tests.plugin.options.conftest import Given


def test_it_is_off_until_asked_for(given: Given) -> None:
    assert not given().strict
    assert given("--claims-strict").strict


@pytest.mark.parametrize(
    ("word", "lenient"), [("inconclusive", "skip"), ("invalid", "fail"), ("supported", "pass")]
)
def test_what_decides_nothing_fails_with_it(word: str, lenient: str) -> None:
    assert outcome(word, "a reason", None, strict=False)[0] == lenient
    strict = "pass" if word == "supported" else "fail"
    assert outcome(word, "a reason", None, strict=True)[0] == strict
