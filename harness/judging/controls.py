"""Negative controls: whether what a patch does is what any patch of its size does.

They qualify a supported claim and nothing else: they neither refute nor rescue. Controls are
those of the first arm, and a gap, which is of no patch, has none.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np

from harness.claim import Region
from harness.judging.checks import CONTROLS, Check, control_check
from harness.judging.contrast import edge_tests
from harness.judging.estimand import between
from harness.judging.fieller import Floats, fieller
from harness.judging.result import Word
from harness.judging.rule import Rule

State = Literal["inside", "outside", "undecided"]


class Gate(NamedTuple):
    """What the controls leave of a supported claim."""

    word: Word
    reason: str


def control_states(
    scores: dict[str, Floats], sign: Literal[1, -1], rule: Rule
) -> dict[str, dict[str, object]]:
    """Transfer of each control and whether it is inside, outside or undecided of the margin.

    scores: mean score by cluster of each arm, `[cluster]`; sign: as `orientation`.
    """
    found: dict[str, dict[str, object]] = {}
    band = Region(-rule.margin, rule.margin)
    for arm in CONTROLS:
        if arm not in scores:
            continue
        moved = between(scores, arm, "base", sign)
        interval = fieller(moved.effect, moved.unit, 1 - rule.alpha)
        tests = edge_tests(moved.effect, moved.unit, band, moved.size)
        if tests.degenerate:
            # Without spread there is nothing to test: the control's transfer is what it is.
            inside = abs(moved.estimate) < rule.margin
            outside = not inside
        else:
            inside = tests.p_supported <= rule.alpha
            outside = interval is not None and interval.disjoint(-rule.margin, rule.margin)
        state: State = "inside" if inside else "outside" if outside else "undecided"
        found[arm] = {
            "mean": float(np.mean(scores[arm])),
            "transfer": moved.estimate,
            "interval": interval,
            "state": state,
        }
    return found


def control_checks(controls: dict[str, dict[str, object]], rule: Rule) -> list[Check]:
    """One check a control; the detail says where it cannot change the verdict."""
    checks = []
    for arm, found in controls.items():
        detail = f"transfer {found['transfer']:.3g}, {found['state']} +-{rule.margin:g}"
        if not rule.region.claims_effect:
            detail += "; does not gate, as the region contains 0"
        checks.append(Check(control_check(arm), found["state"] == "inside", detail))
    return checks


def gate(
    controls: dict[str, dict[str, object]],
    scores: dict[str, Floats],
    sign: Literal[1, -1],
    rule: Rule,
) -> Gate | None:
    """What the negative controls make of a supported claim; None where they leave it.

    They gate a region that claims an effect. Each must be shown inside the margin, and the
    patched arm shown to lie beyond each, so that no control does what the claim says. For a
    transfer whose region lies at least the margin from 0 the second follows from the first (the t
    of a sum is no smaller than the smallest t of its terms); at an edge 0, and for a difference,
    it is a demand of its own.
    """
    if not rule.region.claims_effect:
        return None
    if outside := _named(controls, "outside"):
        return Gate("invalid", f"not specific: {outside} moves the outcome by over {rule.margin:g}")
    if undecided := _named(controls, "undecided"):
        return Gate("inconclusive", f"controls undecided: {undecided}")
    beyond = {arm: _lies_beyond(scores, arm, sign, rule) for arm in controls}
    if equal := ", ".join(arm for arm, shown in beyond.items() if shown is False):
        return Gate("invalid", f"not specific: {equal} moves the outcome as far as the patch")
    if unsure := ", ".join(arm for arm, shown in beyond.items() if shown is None):
        return Gate(
            "inconclusive", f"controls undecided: {unsure} may move the outcome as far as the patch"
        )
    return None


def _named(controls: dict[str, dict[str, object]], state: State) -> str:
    return ", ".join(arm for arm, found in controls.items() if found["state"] == state)


def _lies_beyond(
    scores: dict[str, Floats], arm: str, sign: Literal[1, -1], rule: Rule
) -> bool | None:
    """Whether the patched arm is shown to lie beyond a control, on the region's side of 0.

    False where the reverse is shown, None where neither is.
    """
    side: Literal[1, -1] = 1 if rule.region.low >= 0 else -1
    apart = between(scores, "patched", arm, sign)
    tests = edge_tests(side * apart.effect, apart.unit, Region(low=0.0), apart.size)
    if tests.degenerate:
        return bool(side * np.mean(apart.effect) > 0)
    if tests.p_supported <= rule.alpha:
        return True
    return False if tests.p_refuted <= rule.alpha else None
