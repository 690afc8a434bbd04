"""Scores that are the same where chance could not have made them so.

For tables of which only the numbers are known. A continuous score (a log-probability, a ratio of
dimensions) is never the same twice to the last digit, unless the run is the same: an arm in which
no hook fired, a control that controls nothing, a prompt that stands for several pairs. Promises
nothing where scores are counts, rates or rounded to three digits: those agree by chance, and are
not looked at.
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pandas as pd

from kv_claims.judging.checks import CONTROLS, DONOR, Check
from kv_claims.judging.fieller import Floats
from kv_claims.judging.frame import by_tokens

_GRID = 1000
"""Fractions of denominators up to this may be counts, rates, or rounded."""
_FEWEST_ROWS = 5
_SEEN = 200
"""Distinct scores that are looked at: of more, some tell enough."""

_SAME: tuple[tuple[str, str, str, str], ...] = (
    *(
        (arm, "base", "hook-never-fired", "nothing was patched, as far as its scores show")
        for arm in ("patched", "versus")
    ),
    ("patched", "versus", "hook-never-fired", "both patches are one, as far as their scores show"),
    *((arm, "source", DONOR, "it is the source's own run") for arm in ("patched", "versus")),
    *((arm, "base", "vacuous-control", "it controls for nothing") for arm in CONTROLS),
    *((arm, "patched", "vacuous-control", "it is the patched arm") for arm in CONTROLS),
)
"""Two arms, and what it is if they are the same."""


def coincidences(frame: pd.DataFrame) -> list[Check]:
    """Failed checks of scores that are the same in two arms, or in many pairs of one.

    frame: `pair, arm, seed, score`, arms by role, with the columns that say how pairs are
    clustered, of one outcome.
    """
    table = frame.pivot_table(index=["pair", "seed"], columns="arm", values="score", sort=False)
    found = [
        Check(name, False, f"{arm} scores as {other} in all {n} rows, to the last digit: {why}")
        for arm, other, name, why in _SAME
        if arm in table and other in table and (n := _same_rows(table[[arm, other]]))
    ]
    rows = by_tokens(frame)
    repeated = [told for side in ("source", "base") if (told := _repeated(rows, side))]
    if repeated:
        detail = (
            f"{'; '.join(repeated)}: prompts that repeat are no independent pairs; expected a "
            "column `cluster`, `source` or `base` that says which they are"
        )
        found.append(Check("clusters-ignored", False, detail))
    return found


def is_continuous(scores: Floats) -> bool:
    """Whether most of the distinct scores are no counts, no rates, and not rounded to 3 digits."""
    values = np.unique(scores[np.isfinite(scores)])
    seen = values[:: max(1, len(values) // _SEEN)]
    return len(values) > 1 and sum(map(_on_grid, seen)) <= len(seen) / 2


def _on_grid(value: float) -> bool:
    nearest = Fraction(value).limit_denominator(_GRID)
    return abs(value - float(nearest)) <= 1e-12 * max(1.0, abs(value))


def _same_rows(two: pd.DataFrame) -> int:
    """In how many rows two arms have one continuous score; 0 where some row differs."""
    whole = two.dropna()
    first, second = whole.to_numpy().T
    same = len(whole) >= _FEWEST_ROWS and np.array_equal(first, second) and is_continuous(first)
    return len(whole) if same else 0


def _repeated(frame: pd.DataFrame, side: str) -> str:
    """How a side's scores repeat over pairs that are not said to share it; '' if they do not."""
    rows = frame[frame["arm"] == side]
    by = next((name for name in ("cluster", side) if name in rows), "pair")
    scores = rows.groupby(by)["score"].mean().to_numpy(dtype=np.float64)
    distinct = len(np.unique(scores))
    if len(scores) < _FEWEST_ROWS or 2 * distinct > len(scores) or not is_continuous(scores):
        return ""
    return f"{distinct} scores of the {side} arm, to the last digit, in {len(scores)} by {by}"
