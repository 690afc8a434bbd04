"""--claims-protocol claims|published: the claims, or the seed's procedure.

Runs: `../test_protocol.py`.
"""

from __future__ import annotations

import pytest

from tests.plugin.options.conftest import Given


@pytest.mark.parametrize("name", ["claims", "published"])
def test_a_run_is_one_or_the_other(given: Given, name: str) -> None:
    assert given("--claims-protocol", name).protocol == name


def test_without_it_claims_are_run(given: Given) -> None:
    assert given().protocol == "claims"


def test_an_unknown_one_is_refused_by_pytest(given: Given) -> None:
    with pytest.raises(pytest.UsageError, match="--claims-protocol: invalid choice: 'mine'"):
        given("--claims-protocol", "mine")
