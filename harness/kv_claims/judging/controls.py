"""Negative controls: whether what a patch does is what any patch of its size does.

They qualify a supported claim and nothing else: they neither refute nor rescue. Controls are
those of the first arm, and a gap, which is of no patch, has none. Their tests are at 0.05 and
their intervals at 95%, whatever the claim's own level: a claim is not believed more easily because
it is one of many.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from enum import IntEnum
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from kv_claims.claims.claim import Region
from kv_claims.judging.checks import Check, control_check
from kv_claims.judging.contrast import edge_tests, interval_ends, pairs_to_decide
from kv_claims.judging.crossed import Sharing
from kv_claims.judging.estimand import Contrast, between, zero
from kv_claims.judging.fieller import Bools, Floats, Interval
from kv_claims.judging.rule import ALPHA, Rule


class Standing(IntEnum):
    """What the controls leave of a supported claim, the worst first."""

    MOVES = 0
    UNDECIDED = 1
    AS_FAR = 2
    MAYBE_AS_FAR = 3
    CLEAR = 4


class Controls(NamedTuple):
    """What one control does, `[...]` each.

    moved: how far it lies from where the estimand is 0 (base, or an unrelated base). apart: how far
        the patched arm lies from it.
    low, high: of `moved`, at 95%; NaN where unbounded.
    inside, outside: shown to lie in the margin, or out of it.
    beyond, behind: whether the patched arm is shown to lie beyond it, on the region's side of 0,
        or the reverse is shown.
    """

    moved: Contrast
    apart: Contrast
    low: Floats
    high: Floats
    inside: Bools
    outside: Bools
    beyond: Bools
    behind: Bools

    @property
    def undecided(self) -> Bools:
        """Neither shown inside the margin nor outside."""
        return ~self.inside & ~self.outside


def compare(
    scores: Mapping[str, Floats],
    arms: Sequence[str],
    sign: Floats,
    rule: Rule,
    sharing: Sharing | None = None,
) -> dict[str, Controls]:
    """What each control does, beside where the estimand is 0 and beside the patched arm.

    scores: mean score by cluster of each arm, `[..., cluster]`; sign: as `orientation`. sharing:
        of crossed pairs.
    """
    if not arms:
        return {}
    # All controls at once, `[control, ..., cluster]`: a test costs as much for one as for many.
    every = {**scores, "control": np.stack([scores[arm] for arm in arms])}
    band = band_of(rule)
    moved = between(every, "control", zero(rule.estimand), sign, rule.estimand, sharing)
    if rule.estimand == "shift":
        # What no cluster showed is taken to lie no further off than the patch moves the others.
        patch = between(every, "patched", "base", sign, rule.estimand)
        most = np.abs(np.mean(patch.effect, -1))
        moved = replace(moved, most=np.where(most > 0, most, np.inf))
    moved = replace(moved, is_gate=True)
    low, high = interval_ends(moved, 1 - ALPHA)
    tests = edge_tests(moved, band)
    # Where a test has no spread, the interval decides, which then is as wide as its count allows.
    flat, (inner_low, inner_high) = tests.flat.any(0), interval_ends(moved, 1 - 2 * ALPHA)
    within = (inner_low >= band.low) & (inner_high <= band.high)
    inside = np.where(flat, within, tests.p_supported <= ALPHA)
    outside = (high < band.low) | (low > band.high)
    apart = between(every, "patched", "control", sign, rule.estimand, sharing)
    apart = replace(apart, effect=_side(rule) * apart.effect + 0.0, is_gate=True)
    tests = edge_tests(apart, _AHEAD)
    flat, ahead = tests.flat.any(0), np.mean(apart.effect, -1) > 0
    beyond = np.where(flat, interval_ends(apart, 1 - 2 * ALPHA)[0] > 0, tests.p_supported <= ALPHA)
    behind = np.where(flat, ~ahead, tests.p_refuted <= ALPHA) & ~beyond
    return {
        arm: Controls(
            replace(moved, effect=moved.effect[i], size=moved.size[i]),
            replace(apart, effect=apart.effect[i], size=apart.size[i]),
            *(found[i] for found in (low, high, inside, outside, beyond, behind)),
        )
        for i, arm in enumerate(arms)
    }


def gate(
    controls: Mapping[str, Controls], rule: Rule, shape: tuple[int, ...] = ()
) -> npt.NDArray[np.int64]:
    """What the controls make of a supported claim, as codes of `Standing`, `[...]` of a shape.

    They gate a region that claims an effect. Each must be shown inside the margin, and the
    patched arm shown to lie beyond each, so that no control does what the claim says. For a
    transfer whose region lies at least the margin from 0 the second follows from the first (the t
    of a sum is no smaller than the smallest t of its terms); at an edge 0, and for a difference,
    it is a demand of its own.
    """
    if not controls or not rule.region.claims_effect:
        return np.full(shape, np.int64(Standing.CLEAR))

    def some(wheres: list[Bools]) -> Bools:
        found: Bools = np.any(wheres, axis=0)
        return found

    each = list(controls.values())
    return np.select(
        [
            some([one.outside for one in each]),
            some([one.undecided for one in each]),
            some([one.behind for one in each]),
            some([~one.beyond for one in each]),
        ],
        [np.int64(state) for state in Standing if state != Standing.CLEAR],
        np.int64(Standing.CLEAR),
    )


def state_of(control: Controls) -> str:
    """inside, outside or undecided of the margin, of one study."""
    return "inside" if control.inside else "outside" if control.outside else "undecided"


def described(
    controls: Mapping[str, Controls], scores: Mapping[str, Floats]
) -> dict[str, dict[str, object]]:
    """Mean, transfer, interval and state of each control of one study, for the evidence.

    Of what is carried, its `transfer` is that: from an unrelated base on.
    """
    return {
        arm: {
            "mean": float(np.mean(scores[arm])),
            "transfer": float(found.moved.estimate),
            "interval": None
            if np.isnan(found.low)
            else Interval(float(found.low), float(found.high)),
            "state": state_of(found),
        }
        for arm, found in controls.items()
    }


def control_checks(controls: Mapping[str, Controls], rule: Rule) -> list[Check]:
    """One check a control; the detail says where it cannot change the verdict."""
    of, margin, checks = "transfer", f"+-{rule.margin:g}", []
    if rule.estimand == "carried":
        of, margin = rule.estimand, str(band_of(rule))
    for arm, found in controls.items():
        state = state_of(found)
        detail = f"{of} {found.moved.estimate:.3g}, {state} {margin}"
        if not rule.region.claims_effect:
            detail += "; does not gate, as the region contains 0"
        checks.append(Check(control_check(arm), state == "inside", detail))
    return checks


def objection(controls: Mapping[str, Controls], standing: Standing, margin: float) -> str:
    """Why a supported claim is not believed, of one study: which controls, and what they do."""

    def named(where: str, wanted: bool = True) -> str:
        return ", ".join(a for a, one in controls.items() if bool(getattr(one, where)) is wanted)

    if standing == Standing.MOVES:
        return f"not specific: {named('outside')} moves the outcome by over {margin:g}"
    if standing == Standing.UNDECIDED:
        return f"controls undecided: {named('undecided')}"
    if standing == Standing.AS_FAR:
        return f"not specific: {named('behind')} moves the outcome as far as the patch"
    unsure = named("beyond", wanted=False)
    return f"controls undecided: {unsure} may move the outcome as far as the patch"


def clusters_to_decide(
    controls: Mapping[str, Controls], standing: Standing, rule: Rule
) -> int | None:
    """Clusters at which every undecided control of one study would be decided; None if never.

    At the observed means and spreads, as `pairs_to_decide`.
    """
    needs = []
    for found in controls.values():
        if standing == Standing.UNDECIDED and found.undecided:
            needs.append(pairs_to_decide(found.moved, band_of(rule), ALPHA))
        if standing == Standing.MAYBE_AS_FAR and not found.beyond:
            needs.append(pairs_to_decide(found.apart, _AHEAD, ALPHA))
    known = [n for n in needs if n is not None]
    return max(known) if known and len(known) == len(needs) else None


_AHEAD = Region(low=0.0)


def band_of(rule: Rule) -> Region:
    """The margin around 0; of what is carried on the region's side alone.

    A control that destroys more than an unrelated base does carries nothing all the same.
    """
    if rule.estimand == "carried":
        return Region(high=rule.margin) if _side(rule) > 0 else Region(low=-rule.margin)
    return Region(-rule.margin, rule.margin)


def _side(rule: Rule) -> float:
    """On which side of 0 the region lies."""
    return 1.0 if rule.region.low >= 0 else -1.0
