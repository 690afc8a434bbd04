"""Dose-response: transfer over the share of positions, and over the number of layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kv_claims.report.figures.style import FAINT, INK, MARKERS, RULE, SERIES, Drawn, sheet, styled
from kv_claims.report.view.arms import ArmView
from kv_claims.report.view.dose import Curve, curves_by_layers, curves_by_share

_TRUTH: dict[str, Any] = {
    "linestyle": "none",
    "marker": "_",
    "markeredgewidth": 1.6,
    "color": INK,
}


def dose_response(name: str, title: str, arms: Sequence[ArmView]) -> Drawn | None:
    """Both panels, or None where no set of layers and no window was run at two doses."""
    by_share, by_layers = curves_by_share(arms), curves_by_layers(arms)
    if not by_share and not by_layers:
        return None
    with styled():
        figure = sheet(7.4, 3.3)
        figure.text(0.01, 0.965, title, fontsize=9.5, fontweight="bold", va="top")
        left, right = (figure.add_axes((x, 0.16, 0.25, 0.66)) for x in (0.07, 0.575))
        _panel(left, by_share, "share of the base's positions", "layers")
        left.set_xlim(0, 1.03)
        left.set_xticks([0, 0.25, 0.5, 0.75, 1.0])
        left.set_ylabel("transfer")
        _panel(right, by_layers, "number of layers", "positions")
        right.set_xlim(left=0)
    says = (
        f"{title}: {len(by_share)} sets of layers by share of positions, {len(by_layers)} windows"
    )
    return Drawn(name, figure, says + " by number of layers")


def _panel(axes: Any, curves: Sequence[Curve], unit: str, what: str) -> None:
    axes.axhline(0, color=RULE, linewidth=0.8, zorder=0)
    axes.axhline(1, color=RULE, linewidth=0.8, zorder=0)
    axes.set_xlabel(unit)
    for curve, color, marker in zip(curves, SERIES, MARKERS, strict=False):
        x = [dose.x for dose in curve.doses]
        y = [dose.transfer for dose in curve.doses]
        low = [max(dose.transfer - dose.interval.low, 0.0) for dose in curve.doses]
        high = [max(dose.interval.high - dose.transfer, 0.0) for dose in curve.doses]
        axes.errorbar(
            x,
            y,
            yerr=[low, high],
            color=color,
            marker=marker,
            markersize=4.5,
            linewidth=1.1,
            elinewidth=1.1,
            label=curve.label,
        )
        truth = [(dose.x, dose.truth) for dose in curve.doses if dose.truth is not None]
        if truth:
            axes.plot(*zip(*truth, strict=True), markersize=13, zorder=5, **_TRUTH)
    if any(dose.truth is not None for curve in curves for dose in curve.doses):
        axes.plot([], [], markersize=11, label="planted truth", **_TRUTH)
    if curves:
        axes.legend(
            title=what,
            loc="upper left",
            bbox_to_anchor=(1.0, 1.04),
            alignment="left",
            title_fontsize=8,
            handlelength=1.6,
            borderaxespad=0.2,
        )
    else:
        axes.text(
            0.5,
            0.5,
            "not run at two doses",
            color=FAINT,
            fontsize=8,
            ha="center",
            va="center",
            transform=axes.transAxes,
        )
