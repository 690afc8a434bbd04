"""Checks: what was compared, whether it passed. A check that was not run says so (passed=None).

Names are those of the failures they exclude (docs/failures.md), where one has a name.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

INSTRUMENT_CHECKS = (
    "self-patch",
    "full-swap",
    "duplicate-last-token",
    "unrotated-keys",
    "hook-never-fired",
    "cache-aliasing",
    "vacuous-control",
    "silent-n",
    "prompt-drift",
    "prompt-scored",
    "degenerate-text",
    "substring-markers",
    "clusters-ignored",
)
"""Checks of the instrument, which a table of scores alone cannot make."""

CONTROLS = ("unrelated-base", "noise", "wrong-layer", "other-heads", "random-direction")
"""Negative controls: arms that should not move the outcome."""

STATISTICAL_CHECKS = ("enough-pairs", "no-ceiling", "degenerate", "weak-ratio")
"""Checks of the assay on one outcome: more pairs, or another outcome, may well pass them."""

DONOR = "full-swap-is-the-donor"
"""The check that a claim's patch is not the whole source run, which says nothing on the model."""


NO_SUCH_CELL = "no-such-cell"
"""The check that the model has what a claim is about: its layers, heads, and a wrong layer."""


NO_CONTROL = "no-control"
"""The check, never passed, that a claim of an effect has a negative control to be held against."""


class Check(NamedTuple):
    """One check. passed: None where it could not be run."""

    name: str
    passed: bool | None
    detail: str


def control_check(arm: str) -> str:
    """The name of the check on a negative control."""
    return f"control {arm}"


def instrument_failures(checks: Sequence[Check]) -> list[Check]:
    """The failed checks that are not of statistics: the run itself is not to be trusted."""
    statistical = {*STATISTICAL_CHECKS, *map(control_check, CONTROLS)}
    return [check for check in checks if check.passed is False and check.name not in statistical]


def with_all_named(checks: Sequence[Check]) -> list[Check]:
    """These checks, and those instrument checks that are not among them as not run."""
    made = {check.name for check in checks}
    absent = [
        Check(name, None, "not run: a table of scores cannot show it")
        for name in INSTRUMENT_CHECKS
        if name not in made
    ]
    return [*checks, *absent]
