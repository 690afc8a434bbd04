"""The calibration as files: a table (Markdown and CSV) and a figure (SVG)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from kv_claims.calibration.judged import EDGES
from kv_claims.calibration.rows import COVERAGE, Row, groups, table

SYMMETRIC = 0.2
"""Largest skewness of a contrast that counts as symmetric."""
_LEAST_SKEW = 1e-3
"""Left end of the figure's axis."""


def write(rows: Sequence[Row], out: Path) -> list[Path]:
    """Write `calibration.csv`, `calibration.md` and `calibration.svg` into a folder."""
    out.mkdir(parents=True, exist_ok=True)
    paths = [out / f"calibration.{kind}" for kind in ("csv", "md", "svg")]
    table(rows).to_csv(paths[0], index=False)
    paths[1].write_text(markdown(rows), encoding="utf-8")
    draw(rows, paths[2])
    return paths


def markdown(rows: Sequence[Row]) -> str:
    """Summary, what falls short, and a table for each group."""
    parts = [
        "# Calibration",
        "",
        *summary(rows),
        "",
        "![Coverage and error rates](calibration.svg)",
    ]
    for name, some in groups(rows).items():
        parts += ["", f"## {name[0].upper()}{name[1:]}", "", _group_table(some)]
    return "\n".join(parts) + "\n"


def summary(rows: Sequence[Row]) -> list[str]:
    """Lines: how many cells, symmetric ones' mean coverage, and every cell that falls short."""
    short = [line for row in rows for line in row.shortfalls]
    cells = sum(bool(row.shortfalls) for row in rows)
    lines = [f"{len(rows)} cells, {cells} of which fall short of what is wanted of them."]
    even = symmetric(rows)
    if even:
        covered = np.mean([row.rate("covered") for row in even])
        lines.append(
            f"{len(even)} planted cells with a skewness of at most {SYMMETRIC}: the 95% interval "
            f"covers {covered:.2%} on average."
        )
    return [*lines, "", *(f"- {line}" for line in short)]


def symmetric(rows: Sequence[Row]) -> list[Row]:
    """Planted cells whose contrasts are symmetric, so that Student's t is all but exact."""
    return [
        row
        for row in rows
        if row.group == "planted" and abs(float(row.facts.get("skewness", np.inf))) <= SYMMETRIC
    ]


def draw(rows: Sequence[Row], path: Path) -> None:
    """Coverage and error rates at the edges against skewness, a point a cell, as SVG.

    Student's t is exact for normal scores; what is left of their skewness in a mean of n pairs,
    skewness / sqrt(n), is what it does not know. The file is the same whenever the numbers are: no
    date, fixed ids, text as text.
    """
    import matplotlib
    from matplotlib.figure import Figure

    shown = [row for row in rows if "skewness" in row.facts]
    panels: tuple[tuple[str, tuple[str, ...], float], ...] = (
        ("95% interval covers", ("covered",), 0.95),
        ("supported, truth on an edge", tuple(f"supported {edge}" for edge in EDGES), 0.05),
        ("refuted, truth on an edge", tuple(f"refuted {edge}" for edge in EDGES), 0.025),
    )
    with matplotlib.rc_context({"svg.hashsalt": "kv-claims", "svg.fonttype": "none"}):
        figure = Figure(figsize=(8, 9), layout="constrained")
        axes = figure.subplots(3, 1, sharex=True)
        for axis, (title, rates, wanted) in zip(axes, panels, strict=True):
            for name, some in groups(shown).items():
                place = [max(_LEAST_SKEW, _skewness_of_mean(row)) for row in some]
                worst = [max(row.rate(rate) for rate in rates) for row in some]
                axis.plot(place, worst, ".", markersize=5, label=name)
            axis.set_ylabel(title)
            axis.set_xscale("log")
            axis.axhline(wanted, color="0.3", linewidth=0.8, linestyle="--")
        axes[0].axhspan(*COVERAGE, color="0.9", zorder=0)
        axes[-1].set_xlabel("|skewness| / sqrt(pairs)")
        # Of groups without coverage nothing is drawn, and there is nothing to explain.
        if axes[0].get_legend_handles_labels()[0]:
            axes[0].legend(loc="lower left", fontsize="small")
        figure.savefig(path, format="svg", metadata={"Date": None})


def _skewness_of_mean(row: Row) -> float:
    return abs(float(row.facts["skewness"])) / math.sqrt(float(row.facts["pairs"]))


def _group_table(rows: Sequence[Row]) -> str:
    frame = table(rows).drop(columns=["group"]).dropna(axis=1, how="all")
    rates = {name for row in rows for name in row.counts}
    shown = pd.DataFrame(
        {
            column: [_cell(value, column in rates) for value in frame[column]]
            for column in frame.columns
            if column not in ("falls_short", "note") or (frame[column] != "").any()
        }
    )
    header = [f"| {' | '.join(shown.columns)} |", f"|{'---|' * len(shown.columns)}"]
    body = [f"| {' | '.join(values)} |" for values in shown.itertuples(index=False)]
    return "\n".join([*header, *body])


def _cell(value: Any, is_rate: bool) -> str:
    if isinstance(value, float) and np.isnan(value):
        return "-"
    if is_rate:
        return f"{value:.2%}"
    return f"{value:.3f}" if isinstance(value, float) else str(value).replace("|", "\\|")
