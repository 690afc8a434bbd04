"""--claims-max-new-tokens N: length of each generation."""

from __future__ import annotations

import pytest

from tests.plugin.options.conftest import Given, Refused


def test_it_is_the_length_of_a_generation(given: Given) -> None:
    assert given("--claims-max-new-tokens", "8").sampling.max_new_tokens == 8


def test_without_it_the_profile_decides(given: Given) -> None:
    assert given("--claims-profile", "smoke").sampling.max_new_tokens == 30


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ("0", "max-new-tokens 0: expected at least 1"),
        ("-8", "max-new-tokens -8: expected at least 1"),
    ],
    ids=["0", "-8"],
)
def test_what_no_run_can_use_is_refused(refused: Refused, value: str, told: str) -> None:
    assert told in refused(f"--claims-max-new-tokens={value}")
