"""What a calibration finds: a row a cell, with counts of studies and what was wanted of them.

A count is of studies, all of them in the denominator, invalid ones too. Whether a rate is as wanted
is decided by Wilson's interval at 99.9% (scipy), so that a cell that is right falls short once in
a thousand times (once in two thousand where one side counts).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import pandas as pd
from scipy import stats

LEVEL = 0.999
COVERAGE = (0.94, 0.96)
"""Where the coverage of a 95% interval is to lie."""

Kind = Literal["within", "at most", "at least"]


class Wanted(NamedTuple):
    """What is wanted of a rate: within COVERAGE, at most, or at least a number."""

    rate: str
    kind: Kind
    value: float = 0.0

    def falls_short(self, count: int, studies: int) -> bool:
        """Whether the rate is shown not to be as wanted."""
        low, high = wilson(count, studies)
        if self.kind == "within":
            return high < COVERAGE[0] or low > COVERAGE[1]
        return low > self.value if self.kind == "at most" else high < self.value

    def __str__(self) -> str:
        if self.kind == "within":
            return f"{self.rate} within [{COVERAGE[0]:.0%}, {COVERAGE[1]:.0%}]"
        return f"{self.rate} {self.kind} {self.value:.2%}"


@dataclass(frozen=True)
class Row:
    """One cell of the calibration.

    facts: what the cell is, and numbers beside the rates (the truth, the median width). counts: of
    studies, by rate. wanted: of the rates; empty where a rate is there to be seen.
    """

    group: str
    cell: str
    studies: int
    facts: dict[str, str | int | float] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    wanted: tuple[Wanted, ...] = ()
    note: str = ""

    def rate(self, name: str) -> float:
        """A count as a share of all studies."""
        return self.counts[name] / self.studies

    @property
    def shortfalls(self) -> list[str]:
        """Where the cell is not as wanted, in words."""
        size = " x ".join(
            f"{self.facts[name]} {name}" for name in ("pairs", "seeds") if name in self.facts
        )
        which = f"{self.group}, {self.cell}" + (f" ({size})" if size else "")
        return [
            f"{which}: {self.rate(wanted.rate):.2%}, wanted {wanted}"
            for wanted in self.wanted
            if wanted.falls_short(self.counts[wanted.rate], self.studies)
        ]


def wilson(count: int, studies: int) -> tuple[float, float]:
    """Wilson's interval of a rate at 99.9%."""
    found = stats.binomtest(count, studies).proportion_ci(LEVEL, "wilson")
    return float(found.low), float(found.high)


def table(rows: Iterable[Row]) -> pd.DataFrame:
    """One row a cell: group, cell, studies, facts, rates (shares of all studies), shortfalls."""
    return pd.DataFrame(
        [
            {
                "group": row.group,
                "cell": row.cell,
                "studies": row.studies,
                **row.facts,
                **{name: row.rate(name) for name in row.counts},
                "falls_short": "; ".join(row.shortfalls),
                "note": row.note,
            }
            for row in rows
        ]
    )


def groups(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Rows by group, in the order in which groups first come."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row.group, []).append(row)
    return found
