"""--claims-batch-size N|auto: rows that are decoded together."""

from __future__ import annotations

import pytest

from tests.plugin.options.conftest import Given, Refused


@pytest.mark.parametrize(("value", "found"), [("auto", None), ("4", 4)], ids=["chosen", "number"])
def test_it_is_a_number_or_is_chosen(given: Given, value: str, found: int | None) -> None:
    assert given("--claims-batch-size", value).batch_size == found


def test_without_it_it_is_chosen(given: Given) -> None:
    assert given().batch_size is None


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ("0", "batch-size 0: expected at least 1"),
        ("-1", "batch-size -1: expected at least 1"),
        ("x", "--claims-batch-size 'x': expected a whole number or auto"),
    ],
    ids=["0", "-1", "x"],
)
def test_what_no_run_can_use_is_refused(refused: Refused, value: str, told: str) -> None:
    assert told in refused(f"--claims-batch-size={value}")
