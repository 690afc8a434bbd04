"""--claims-pairs N: the first N pairs of the task."""

from __future__ import annotations

import pytest

from tests.plugin.options.conftest import Given, Refused
from tests.plugin.project import STORED


def test_it_is_so_many_from_the_first(given: Given) -> None:
    settings = given("--claims-pairs", "7")
    task = settings.task_of(STORED)
    assert settings.n_pairs(STORED, task) == 7
    assert task.first_pairs(7) == task.pairs[:7]


def test_without_it_the_profile_and_the_task_decide(given: Given) -> None:
    settings = given()
    task = settings.task_of(STORED)
    assert settings.pairs is None
    assert settings.n_pairs(STORED, task) == min(settings.budget.planted_pairs, len(task.pairs))


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ("0", "pairs 0: expected at least 1"),
        ("-3", "pairs -3: expected at least 1"),
        ("1000", "has 300 pairs"),
    ],
    ids=["0", "-3", "1000"],
)
def test_what_no_run_can_use_is_refused(refused: Refused, value: str, told: str) -> None:
    assert told in refused(f"--claims-pairs={value}")


def test_what_is_no_number_is_refused_by_pytest(given: Given) -> None:
    with pytest.raises(pytest.UsageError, match="--claims-pairs: invalid int value: 'many'"):
        given("--claims-pairs", "many")
