"""--claims-temperature X: 0.7 by default; 0 is greedy."""

from __future__ import annotations

import pytest

from tests.plugin.options.conftest import Given, Refused


@pytest.mark.parametrize(("options", "found"), [([], 0.7), (["--claims-temperature", "0"], 0.0)])
def test_it_is_that_of_the_sampling(given: Given, options: list[str], found: float) -> None:
    assert given(*options).sampling.temperature == found


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ("-0.1", "temperature -0.1: expected a number of 0 (greedy) or above"),
        ("nan", "temperature nan: expected a number of 0 (greedy)"),
        ("inf", "temperature inf: expected a number of 0 (greedy)"),
    ],
    ids=["-0.1", "nan", "inf"],
)
def test_what_no_run_can_use_is_refused(refused: Refused, value: str, told: str) -> None:
    assert told in refused(f"--claims-temperature={value}")
