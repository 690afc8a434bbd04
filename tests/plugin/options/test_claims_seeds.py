"""--claims-seeds N: generations of each pair and arm."""

from __future__ import annotations

import pytest

from tests.plugin.options.conftest import Given, Refused


def test_it_is_the_number_of_generations(given: Given) -> None:
    assert given("--claims-seeds", "3").n_seeds == 3


def test_without_it_the_profile_decides(given: Given) -> None:
    assert given().n_seeds == 1
    assert given("--claims-profile", "full").n_seeds == 2


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ("0", "seeds 0: expected at least 1"),
        ("-1", "seeds -1: expected at least 1"),
    ],
    ids=["0", "-1"],
)
def test_what_no_run_can_use_is_refused(refused: Refused, value: str, told: str) -> None:
    assert told in refused(f"--claims-seeds={value}")
