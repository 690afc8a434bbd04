"""Transfer as the dose rises: over the share of positions, and over the number of layers."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from kv_claims.judging.fieller import Interval
from kv_claims.report.view.arms import ArmView
from kv_claims.report.view.heatmap import layers_text

MOST_CURVES = 6


class Dose(NamedTuple):
    """One arm of a curve."""

    x: float
    transfer: float
    interval: Interval
    truth: float | None


class Curve(NamedTuple):
    """Arms that differ in their dose alone, in its order."""

    label: str
    doses: list[Dose]


def curves_by_share(arms: Sequence[ArmView]) -> list[Curve]:
    """A curve for each set of layers at two windows or more; those at the start are another."""
    return _curves(
        arms,
        lambda arm: f"{layers_text(arm.layers)}{_from_the_start(arm.patch.positions)}",
        lambda arm: arm.share,
    )


def curves_by_layers(arms: Sequence[ArmView]) -> list[Curve]:
    """A curve for each window at two numbers of layers or more; sets of layers that are nested.

    A set stands on the curve if it holds the set before it, so that a curve adds layers only.
    """
    found = []
    for curve in _grouped(arms, lambda arm: arm.patch.positions):
        nested = _longest_chain(curve[1])
        if len(nested) > 1:
            found.append(Curve(curve[0], [_dose(arm, len(arm.layers)) for arm in nested]))
    return _most(found)


def _curves(
    arms: Sequence[ArmView], label: Callable[[ArmView], str], x: Callable[[ArmView], float]
) -> list[Curve]:
    found = []
    for name, some in _grouped(arms, label):
        doses = sorted((_dose(arm, x(arm)) for arm in some), key=lambda dose: dose.x)
        if len({dose.x for dose in doses}) > 1:
            found.append(Curve(name, doses))
    return _most(found)


def _grouped(
    arms: Sequence[ArmView], label: Callable[[ArmView], str]
) -> list[tuple[str, list[ArmView]]]:
    groups: dict[str, list[ArmView]] = {}
    for arm in arms:
        plain = arm.is_splice_of_kv and arm.patch.active == "prompt"
        if plain and arm.interval is not None and math.isfinite(arm.share):
            groups.setdefault(label(arm), []).append(arm)
    return list(groups.items())


def _longest_chain(arms: Sequence[ArmView]) -> list[ArmView]:
    """The longest row of arms of which each has all layers of the one before it, and more."""
    ordered = sorted(arms, key=lambda arm: (len(arm.layers), [-layer for layer in arm.layers]))
    best: list[list[ArmView]] = []
    for arm in ordered:
        before = [row for row in best if set(row[-1].layers) < set(arm.layers)]
        best.append([*max(before, key=len, default=[]), arm])
    return max(best, key=lambda row: (len(row), _gain(row)), default=[])


def _gain(row: Sequence[ArmView]) -> float:
    """Of chains of one length, that along which transfer moves most is the more telling."""
    values = [arm.transfer or 0.0 for arm in row]
    return max(values) - min(values)


def _most(curves: list[Curve]) -> list[Curve]:
    """The curves with the most doses, and among those the largest range, in the order given."""

    def weight(curve: Curve) -> tuple[int, float]:
        values = [dose.transfer for dose in curve.doses]
        return len(curve.doses), max(values) - min(values)

    kept = sorted(curves, key=weight, reverse=True)[:MOST_CURVES]
    return [curve for curve in curves if curve in kept]


def _dose(arm: ArmView, x: float) -> Dose:
    assert arm.transfer is not None
    assert arm.interval is not None
    return Dose(x, arm.transfer, arm.interval, arm.truth)


def _from_the_start(positions: str) -> str:
    return ", from the start" if positions.startswith("first") else ""
