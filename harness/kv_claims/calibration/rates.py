"""Paired rates: items that are right or wrong in two arms, near 0, near 1 and between.

The score test is corrected towards no finding (`kv_claims.judging.proportions`), so that its
intervals may cover more than 95%.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from kv_claims.calibration.judged import Size, errors_row
from kv_claims.calibration.rows import Row
from kv_claims.judging.fieller import Floats

ITEMS = (20, 60, 200)


class Rates(NamedTuple):
    """What share of items is right in both arms, in the patched alone, in the base alone."""

    both: float
    patched_alone: float
    base_alone: float

    @property
    def truth(self) -> dict[str, float]:
        return {"base": self.both + self.base_alone, "patched": self.both + self.patched_alone}

    def draw(
        self, rng: np.random.Generator, studies: int, pairs: int, seeds: int
    ) -> dict[str, Floats]:
        """Scores of 0 or 1, `[study, pair, seed]`; of one seed."""
        rest = 1 - sum(self)
        kinds = rng.choice(4, (studies, pairs, seeds), p=[*self, rest])
        return {
            "base": np.isin(kinds, (0, 2)).astype(float),
            "patched": np.isin(kinds, (0, 1)).astype(float),
        }


RATES = {
    "from 0.05 to 0.05": Rates(0.02, 0.03, 0.03),
    "from 0.05 to 0.25": Rates(0.03, 0.22, 0.02),
    "from 0.5 to 0.6": Rates(0.4, 0.2, 0.1),
    "from 0.9 to 0.95": Rates(0.88, 0.07, 0.02),
    "from 0.95 to 0.75": Rates(0.73, 0.02, 0.22),
}


def rate_rows(rng: np.random.Generator, studies: int) -> list[Row]:
    """A row for each pair of rates and number of items."""
    return [
        errors_row(
            "rates", name, law, rng, Size(studies, items), estimand="rate", conservative=True
        )
        for name, law in RATES.items()
        for items in ITEMS
    ]
