"""Timing in turn: ratios of CPU time within one round, so that a busy machine slows both alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple


class Ratio(NamedTuple):
    """How many times as fast as another: median, smallest and largest over rounds."""

    median: float
    least: float
    most: float


class Timed(NamedTuple):
    """Seconds of each way by round, of the CPU unless another clock was asked for."""

    seconds: dict[str, list[float]]

    def ratio(self, slow: str, fast: str) -> Ratio:
        """How many times as fast `fast` is as `slow`, from times of the same round."""
        ratios = [
            one / other for one, other in zip(self.seconds[slow], self.seconds[fast], strict=True)
        ]
        return Ratio(statistics.median(ratios), min(ratios), max(ratios))


def in_turn(
    ways: Mapping[str, Callable[[], object]],
    rounds: int,
    clock: Callable[[], float] = time.process_time,
) -> Timed:
    """Run every way once a round, after a round that does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds + 1):
        for name, way in ways.items():
            started = clock()
            way()
            if number:
                seconds[name].append(clock() - started)
    return Timed(seconds)
