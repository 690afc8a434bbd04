"""Figures of what a script has in its hands: verdicts, or a table of `run_study`.

Promises: a word is never shown without saying that it was not verified, where it was not; what
rests on no verdict says that it is exploratory, and an arm that could say nothing has no number.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from matplotlib.figure import Figure

from kv_claims.claims.claim import SHARES
from kv_claims.claims.patch import Patch
from kv_claims.errors import UsageError
from kv_claims.judging.estimand import Direction
from kv_claims.judging.frame import REFUSED, check_frame, holes
from kv_claims.judging.result import Verdict
from kv_claims.report.figures.grid import Field, draw_grid
from kv_claims.report.figures.intervals import Line, draw_intervals
from kv_claims.report.figures.style import Drawn, save_as
from kv_claims.report.view.arms import LEVEL, Transfer, parse_arm, transfer_in
from kv_claims.report.view.heatmap import layers_text

_UNIT = "share of source - base"
_EXPECTED = (
    "expected a Verdict, several, a mapping of names or patches to them, or a table of trials"
)


def show(
    what: Verdict
    | Sequence[Verdict]
    | Mapping[str, Verdict]
    | Mapping[Patch, Verdict]
    | pd.DataFrame,
    *,
    title: str | None = None,
    path: str | Path | None = None,
    direction: Direction = "up",
) -> Figure:
    """Draw verdicts, or the arms of a table; a notebook shows what comes back.

    what: verdicts, with names if they are given in a mapping: a line each, its interval over the
        claimed region. A mapping of patches, which differ in layers and positions alone: a map of
        layers and positions, with an estimate and a word in each field. A table of `run_study`: a
        map of what its arms transfer, where they are such patches of the source, else a line each
        with its interval at 95%; no verdict. Arms that could say nothing stand without a number.
    path: a file to write as well: .svg, .pdf, .png and what else matplotlib writes.
    direction: of a table, as in `judge`.
    Raises UsageError for anything else, for a table with holes, and for a path that cannot be.
    """
    if isinstance(what, pd.DataFrame):
        figure = _of_table(what, title, direction)
    else:
        figure = _of_verdicts(_named(what), title)
    if path is not None:
        save_as(Drawn(Path(path).stem, figure, ""), Path(path))
    return figure


def _named(what: object) -> dict[Hashable, Verdict]:
    """Verdicts by name; those without one are numbered."""
    if isinstance(what, Verdict):
        found: dict[Hashable, Verdict] = {"": what}
    elif isinstance(what, Mapping):
        found = dict(what)
    elif isinstance(what, Iterable) and not isinstance(what, str):
        found = {str(number): one for number, one in enumerate(what, 1)}
    else:
        raise UsageError(f"show: {type(what).__name__}, {_EXPECTED}")
    if not found or not all(isinstance(one, Verdict) for one in found.values()):
        kinds = sorted({type(one).__name__ for one in found.values()}) or "nothing"
        raise UsageError(f"show: {type(what).__name__} of {kinds}, {_EXPECTED}")
    return found


def _of_verdicts(verdicts: Mapping[Hashable, Verdict], title: str | None) -> Figure:
    estimands = list(dict.fromkeys(one.estimand for one in verdicts.values()))
    if len({estimand in SHARES for estimand in estimands}) > 1:
        raise UsageError(f"show: verdicts on {' and '.join(estimands)}, expected one unit a figure")
    foot = "" if all(one.verified for one in verdicts.values()) else "* not every check was made"
    what = " and ".join(estimands).capitalize()
    patches = {patch: one for patch, one in verdicts.items() if isinstance(patch, Patch)}
    if len(patches) == len(verdicts) and (places := _places(list(patches))) is not None:
        fields = {
            places.of(patch): Field(one.estimate, below=f"{one.word}{_star(one)}")
            for patch, one in patches.items()
        }
        head = title or f"{what} by layers and positions"
        return draw_grid(head, places.rows, places.columns, fields, foot=foot)
    lines = [
        Line(str(name), one.estimate, one.interval, one.region, one.word, _star(one))
        for name, one in verdicts.items()
    ]
    share = estimands[0] in SHARES
    unit = _UNIT if share else "in the outcome's unit"
    return draw_intervals(title or what, f"{unit}    {foot}".rstrip(), lines, is_share=share)


def _star(verdict: Verdict) -> str:
    return "" if verdict.verified else "*"


def _of_table(frame: pd.DataFrame, title: str | None, direction: Direction) -> Figure:
    check_frame(frame)
    arms = [arm for arm in frame["arm"].unique() if arm not in ("base", "source")]
    if lacking := holes(frame, ["base", "source", *arms]) or ("" if arms else "no patched arm"):
        raise UsageError(f"show: trials are missing: {lacking}")
    found = {arm: _transfer(frame, arm, direction) for arm in arms}
    patches = {arm: patch for arm in arms if (patch := _patch(frame, arm)) is not None}
    note = "exploratory, no verdict"
    if (places := _places(list(patches.values()))) is not None:
        fields = {places.of(patch): Field(found[arm].transfer) for arm, patch in patches.items()}
        head = title or "Transfer by layers and positions"
        return draw_grid(head, list(map(_short, places.rows)), places.columns, fields, foot=note)
    lines = [Line(str(arm), one.transfer, one.interval) for arm, one in found.items()]
    unit = f"{_UNIT}, intervals at {LEVEL:.0%} ({note})"
    return draw_intervals(title or "Transfer", unit, lines, is_share=True)


def _transfer(frame: pd.DataFrame, arm: str, direction: Direction) -> Transfer:
    """What an arm transfers; nothing where the table says that it could say nothing."""
    rows = frame[frame["arm"] == arm]
    if REFUSED in frame and rows[REFUSED].fillna("").ne("").any():
        return Transfer(None, None, None)
    ends = frame[frame["arm"].isin(["base", "source"])]
    return transfer_in(pd.concat([ends, rows.assign(arm="patched")]), direction)


def _patch(frame: pd.DataFrame, arm: str) -> Patch | None:
    """The single patch of the source that an arm is, where the table has it."""
    if "patch" not in frame:
        return None
    return parse_arm(str(frame.loc[frame["arm"] == arm, "patch"].iloc[0]))


def _short(layers: str) -> str:
    """`0 to 7` of the layers '0+1+2+3+4+5+6+7'; else as they are."""
    found = layers.split("+")
    return layers_text(list(map(int, found))) if all(map(str.isdecimal, found)) else layers


class _Places(NamedTuple):
    """Layers by row and positions by column, in the order in which they were met."""

    rows: list[str]
    columns: list[str]

    def of(self, patch: Patch) -> tuple[int, int]:
        return self.rows.index(patch.layers), self.columns.index(patch.positions)


def _places(patches: Sequence[Patch]) -> _Places | None:
    """A map's rows and columns; None of patches that differ in anything else, or of fewer than two
    places."""
    if len({(one.site, one.heads, one.mode, one.active) for one in patches}) != 1:
        return None
    if len({(one.layers, one.positions) for one in patches}) < 2:
        return None
    rows = dict.fromkeys(one.layers for one in patches)
    return _Places(list(rows), list(dict.fromkeys(one.positions for one in patches)))
