"""From numbers to places on a line of 1000 units, for the small pictures beside a verdict."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

WIDTH = 1000
_GOLDEN = (math.sqrt(5) - 1) / 2
_WIDEST = (-1.0, 2.0)
"""Of a share of source - base: an interval beyond it ends in an arrow, so that others stay seen."""


class Mark(NamedTuple):
    """What is drawn for one interval, in units of the line; None where there is none.

    beyond: whether the interval goes on to the left, and to the right, of what is shown.
    """

    point: int | None
    interval: tuple[int, int] | None
    beyond: tuple[bool, bool]
    region: tuple[int, int]
    truth: int | None


class Tick(NamedTuple):
    """A labelled place."""

    at: int
    label: str


class Scale(NamedTuple):
    """A line from low to high."""

    low: float
    high: float

    @classmethod
    def of(cls, values: Iterable[float | None], *, share: bool) -> Scale:
        """A scale that holds some numbers; share: of source - base, so 0 and 1 are on it."""
        known = [value for value in values if value is not None and math.isfinite(value)]
        if share:
            known = [min(max(value, _WIDEST[0]), _WIDEST[1]) for value in known]
        known += [0.0, 1.0] if share else [0.0]
        low, high = min(known), max(known)
        pad = 0.06 * (high - low) or 1.0
        return cls(low - pad, high + pad)

    def at(self, value: float) -> int:
        """The place of a number, at the edge where it lies beyond."""
        share = (value - self.low) / (self.high - self.low)
        return round(WIDTH * min(max(share, 0.0), 1.0))

    def ticks(self, *, share: bool) -> list[Tick]:
        """0 and 1 of a share; of anything else 0 and the end that is farther from it."""
        if share:
            return [Tick(self.at(0.0), "0"), Tick(self.at(1.0), "1")]
        pad = 0.06 * (self.high - self.low) / 1.12
        far = max((self.low + pad, self.high - pad), key=abs)
        return [Tick(self.at(value), f"{value:.3g}") for value in sorted({0.0, far})]

    def mark(
        self,
        estimate: float | None,
        interval: Sequence[float] | None,
        region: tuple[float | None, float | None],
        truth: float | None,
    ) -> Mark:
        """An estimate with its interval over a region; an open end of that is None."""
        low, high = (
            0 if region[0] is None else self.at(region[0]),
            WIDTH if region[1] is None else self.at(region[1]),
        )
        return Mark(
            point=None if estimate is None else self.at(estimate),
            interval=None if interval is None else (self.at(interval[0]), self.at(interval[1])),
            beyond=(
                interval is not None and interval[0] < self.low,
                interval is not None and interval[1] > self.high,
            ),
            region=(low, high),
            truth=None if truth is None else self.at(truth),
        )

    def dots(self, values: Iterable[float], height: int) -> str:
        """Points as the data of one SVG path, each a stroke of no length.

        Heights follow the order of the values, so that a pair stands at the same height in each
        arm; points of one place are drawn once.
        """
        spots: dict[tuple[int, int], None] = {}
        for number, value in enumerate(values):
            if math.isfinite(value):
                y = 3 + round((height - 6) * ((number * _GOLDEN) % 1))
                spots[self.at(value), y] = None
        return "".join(f"M{x} {y}h0" for x, y in spots)
