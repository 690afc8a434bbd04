"""Time and trials of a run, and what is likely to be left."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from kv_claims.evidence.cost import Cost, Left, cost_by, span


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_nothing_is_said_before_a_cell_ended_nor_after_the_last(clock: Clock) -> None:
    spent = Cost(clock, cells=2)
    assert spent.left() is None
    for _ in range(2):
        spent.add("m", run=10, read=0, seconds=1.0)
    assert spent.left() is None


def test_cells_to_come_are_taken_to_be_like_those_that_ended(clock: Clock) -> None:
    spent = Cost(clock, cells=10)
    spent.add("a", run=300, read=20, seconds=3.0)
    spent.add("b", run=100, read=0, seconds=1.0)
    clock.now += 8
    assert spent.left() == Left(trials=2000, seconds=32.0)
    assert spent.trials_per_second == 50


def test_trials_of_the_ledger_cost_nothing(clock: Clock) -> None:
    spent = Cost(clock, cells=2)
    spent.add("a", run=0, read=500, seconds=0.5)
    assert (spent.trials, spent.left()) == (0, Left(0, 0.0))


def test_time_stands_still_once_it_is_written_down(clock: Clock) -> None:
    spent = Cost(clock)
    spent.add("a", run=7, read=1, seconds=2.0)
    clock.now += 4
    first = spent.to_dict()
    assert first == {
        "seconds": 4.0,
        "trials": 7,
        "models": {"a": {"run": 7, "read": 1, "seconds": 2.0}},
    }
    clock.now += 4
    assert spent.to_dict() == first


def test_a_test_spends_what_its_runner_ran_since() -> None:
    runner = SimpleNamespace(ran=10, read=5, model=SimpleNamespace(name="m"))
    since = cost_by(runner)
    runner.ran, runner.read = 25, 6
    assert since() == {"model": "m", "run": 15, "read": 1}


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0, "0:00"), (7.4, "0:07"), (750, "12:30"), (3723, "1:02:03"), (-1, "0:00")],
)
def test_spans(seconds: float, said: str) -> None:
    assert span(seconds) == said
