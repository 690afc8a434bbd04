"""What was timed and what agreed, as lines, JSON and a figure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from math import isfinite
from pathlib import Path
from typing import Any, NamedTuple

from kv_claims.benching.timing import Ratio, Timed
from tests.benchmarks.peers.agreement import NEAR, Parted
from tests.benchmarks.peers.ways import Meaning


class Result(NamedTuple):
    """A way, timed: seconds are of the whole work, extrapolated where fewer trials were run.

    trials: that were run. engine, same_meaning: how many times as fast the engine is, by its
    splice and by its own way of the same meaning (None: it has none). parted: rows whose tokens
    are not the engine's of that meaning. changed: rows that are not the bare loop's.
    """

    name: str
    by: str
    meaning: Meaning
    trials: int
    seconds: list[float]
    engine: Ratio
    same_meaning: Ratio | None
    parted: list[Parted]
    changed: int

    @property
    def failure(self) -> str:
        """Why its tokens cannot stand, or nothing."""
        wrong = [row for row in self.parted if not row.is_explained]
        if wrong:
            return f"{len(wrong)} rows disagree, the first: {wrong[0]}"
        if self.meaning != "unpatched" and not self.changed:
            return "the patch changed no token of any row"
        return ""

    @property
    def agreement(self) -> str:
        if not self.parted:
            return f"same in {self.trials}"
        near = sum(row.is_explained for row in self.parted)
        return f"{len(self.parted)} of {self.trials} part, {near} of them near ties"


def ratio(timed: Timed, slow: str, fast: str, trials: Mapping[str, int]) -> Ratio:
    """How many times as fast a way is as another, for the same number of trials."""
    scale = trials[fast] / trials[slow]
    return Ratio(*(value * scale for value in timed.ratio(slow, fast)))


def lines_of(results: Sequence[Result], work_trials: int) -> list[str]:
    """The table, and what fell short of agreement."""
    width = max(len(result.name) for result in results)
    head = (
        f"{'':{width}}  {'meaning':10}  {'trials run':>10}  {'CPU s':>8}  {'trials/s':>8}  "
        f"{'the engine is x as fast':24}  {'by the same meaning':20}  tokens"
    )
    rows = [
        f"{r.name:{width}}  {r.meaning:10}  {r.trials:10}  {min(r.seconds):8.2f}  "
        f"{work_trials / min(r.seconds):8.1f}  {_ratio(r.engine):24}  "
        f"{_ratio(r.same_meaning):20}  {r.agreement}"
        for r in results
    ]
    extrapolated = [
        f"Where fewer than {work_trials} trials were run, the seconds of the whole work are "
        "extrapolated from those."
    ]
    compared = [
        "Tokens are compared with those of the engine's way of the same meaning (of the bare loop, "
        f"where nothing is patched); a near tie: both tokens within {NEAR:.0e} of the best logit."
    ]
    changed = [
        f"{r.name}: patches changed the tokens of {r.changed} of {r.trials} rows"
        for r in results
        if r.by == "kv-claims"
    ]
    failed = [f"FAILED {r.name}: {r.failure}" for r in results if r.failure]
    return [head, *rows, *extrapolated, *compared, *changed, *failed]


def _ratio(ratio: Ratio | None) -> str:
    return f"{ratio.median:.2f} ({ratio.least:.2f} to {ratio.most:.2f})" if ratio else "-"


def write(
    results: Sequence[Result], lines: Sequence[str], about: Mapping[str, Any], out: Path
) -> list[Path]:
    """peers.json and peers.svg."""
    out.mkdir(parents=True, exist_ok=True)
    stored = {
        **about,
        "near": NEAR,
        "ways": [
            {
                **result._asdict(),
                "engine": result.engine._asdict(),
                "same_meaning": result.same_meaning and result.same_meaning._asdict(),
                "parted": [
                    {**row._asdict(), "gap": row.gap if isfinite(row.gap) else None}
                    for row in result.parted
                ],
                "failure": result.failure,
            }
            for result in results
        ],
        "lines": list(lines),
    }
    path, figure = out / "peers.json", out / "peers.svg"
    path.write_text(json.dumps(stored, indent=1), encoding="utf-8")
    _draw(results, about["trials"], figure)
    return [path, figure]


COLOURS: dict[Meaning, str] = {"unpatched": "0.6", "splice": "C0", "in-prefill": "C1"}


def _draw(results: Sequence[Result], trials: int, path: Path) -> None:
    """Trials a second of each way, a point a round, the fastest way on top."""
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D
    from matplotlib.ticker import LogLocator, NullLocator

    ordered = sorted(results, key=lambda result: -min(result.seconds))
    figure = Figure(figsize=(9, 0.9 + 0.28 * len(ordered)))
    axes = figure.subplots()
    for row, result in enumerate(ordered):
        speeds = [trials / seconds for seconds in result.seconds]
        axes.plot(speeds, [row] * len(speeds), "o-", markersize=5, color=COLOURS[result.meaning])
    axes.set_yticks(range(len(ordered)), [result.name for result in ordered])
    axes.set(xscale="log", xlabel="trials per CPU second, one thread")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter("{x:g}")
    axes.grid(alpha=0.3)
    axes.legend(
        handles=[Line2D([], [], marker="o", color=c, label=name) for name, c in COLOURS.items()],
        loc="lower right",
    )
    figure.tight_layout()
    figure.savefig(path)
