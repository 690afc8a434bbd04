"""What a run spends: time, trials, and how much of both is likely to be left.

Trials are those that were run; those that the ledger had are counted apart, as they cost nothing.
What is left is estimated from the cells that have ended, so it is said with an "about".
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

COST = "claim_spent"
"""Under this name it travels in a test report's properties, as one JSON string."""


class Counts(Protocol):
    """What runs trials on one model: how many it ran so far, and how many the ledger had."""

    ran: int
    read: int

    @property
    def model(self) -> Any: ...


def cost_by(runner: Counts) -> Callable[[], dict[str, Any]]:
    """Says what a runner has spent from here on, as `Cost.add` takes it."""
    ran, read = runner.ran, runner.read

    def since() -> dict[str, Any]:
        return {"model": runner.model.name, "run": runner.ran - ran, "read": runner.read - read}

    return since


class Left(NamedTuple):
    """What is likely to be left. trials: of the whole run, those that will have been run."""

    trials: int
    seconds: float


@dataclass
class _OfModel:
    run: int = 0
    read: int = 0
    seconds: float = 0.0


@dataclass
class Cost:
    """Time since the run started, and trials by model.

    cells: how many cells the run has, once they are known. ended: how many have ended.
    """

    clock: Callable[[], float] = time.monotonic
    cells: int = 0
    ended: int = 0
    _models: dict[str, _OfModel] = field(default_factory=dict)
    _stopped: float | None = None

    def __post_init__(self) -> None:
        self._started = self.clock()

    @property
    def seconds(self) -> float:
        """Time since the start, or until it was first written down."""
        return (self.clock() if self._stopped is None else self._stopped) - self._started

    @property
    def trials(self) -> int:
        """Trials that were run."""
        return sum(one.run for one in self._models.values())

    @property
    def trials_per_second(self) -> float:
        return self.trials / self.seconds if self.seconds > 0 else 0.0

    def add(self, model: str, *, run: int, read: int, seconds: float) -> None:
        """Count a test that ended. run, read: trials that were run, and that the ledger had."""
        one = self._models.setdefault(model, _OfModel())
        one.run, one.read, one.seconds = one.run + run, one.read + read, one.seconds + seconds
        self.ended += 1

    def read_by_model(self) -> dict[str, int]:
        """Trials that the ledger had."""
        return {model: one.read for model, one in self._models.items()}

    def left(self) -> Left | None:
        """What is likely to be left if the cells to come are like those that ended; None before."""
        if not self.ended or self.cells <= self.ended:
            return None
        share = (self.cells - self.ended) / self.ended
        return Left(round(self.trials * (1 + share)), self.seconds * share)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON, for the facts of a run; from here on time stands still."""
        if self._stopped is None:
            self._stopped = self.clock()
        return {
            "seconds": round(self.seconds, 1),
            "trials": self.trials,
            "models": {
                model: {"run": one.run, "read": one.read, "seconds": round(one.seconds, 1)}
                for model, one in self._models.items()
            },
        }


def incomplete_text(run: Mapping[str, Any]) -> str:
    """`incomplete: 2 of 8 cells`, from the facts of a run; empty where all were judged."""
    cells = run.get("cells")
    if run.get("complete") is not False or not isinstance(cells, dict):
        return ""
    judged, planned = (cells.get(name) for name in ("judged", "planned"))
    counted = type(judged) is int and type(planned) is int
    return f"incomplete: {judged} of {planned} cells" if counted else "incomplete"


def span(seconds: float) -> str:
    """`0:07`, `12:30` or `1:02:03`."""
    whole = max(0, round(seconds))
    hours, rest = divmod(whole, 3600)
    minutes, left = divmod(rest, 60)
    return f"{hours}:{minutes:02d}:{left:02d}" if hours else f"{minutes}:{left:02d}"
