"""Sensitivity lines: other ways to look at an estimate, beside a verdict and never part of it.

The verdict rests on Fieller's interval and Hall's t. These numbers say how much of it hangs on
that choice, on one cluster, or on one family of prompts:

- the cluster bootstrap interval. With few clusters it is too narrow, as it has no t quantile;
- sign flips of L = effect - edge * unit at each edge of the region, which ask of L not that it is
  normal but that it is symmetric;
- the estimate with one cluster left out, and with one family left out.

All luck comes from a hash of the table, so one table has one set of numbers, whatever the order
of its rows. What cannot be had is None, and `why` says why; nothing here is NaN or infinite.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, NamedTuple, get_args

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats

from kv_claims.claims.claim import OF_SPREADS, Part
from kv_claims.errors import UsageError
from kv_claims.judging.estimand import (
    NEEDED,
    Contrast,
    Direction,
    between,
    contrast,
    orientation,
    unit_text,
    whole,
)
from kv_claims.judging.fieller import Floats
from kv_claims.judging.frame import Grouping, by_tokens, check_frame, groupings, holes
from kv_claims.judging.moments import varies
from kv_claims.judging.resampling import Bootstrap, SignFlips, bootstrap, sign_flips

FEWEST_LEFT = 2
"""Clusters that must remain when some are left out: of one there is no spread to speak of."""

_ROUNDING = 1e-12
_NO_UNIT = "source - base would not be above 0"

Families = Mapping[Any, tuple[str, str]]
"""Family of the source and of the base, by pair id."""


@dataclass(frozen=True)
class Range:
    """The estimates with one thing left out at a time: the ends, and what was left out there.

    counted: how many things were left out in turn. not_counted: those whose estimate without them
        does not exist, by name, with the reason. Ties go to the first name.
    """

    low: float | None
    low_without: str | None
    high: float | None
    high_without: str | None
    counted: int
    not_counted: dict[str, str] = field(default_factory=dict)
    why: str = ""


@dataclass(frozen=True)
class Lines:
    """All lines for one way of clustering the pairs; `by` says what a cluster is.

    skewness: of effect - estimate * unit over clusters, divided by the root of their number: what
    Hall's transformation takes out of t; above 0.4 there is no test (`judging.hall`). None where
    nothing varies.
    Where there is no estimate, `why` says so and nothing else is filled in.
    """

    by: str
    clusters: int
    estimate: float | None = None
    bootstrap: Bootstrap | None = None
    sign_flips: tuple[SignFlips, ...] = ()
    without_cluster: Range | None = None
    without_family: Range | None = None
    skewness: float | None = None
    why: str = ""


@dataclass(frozen=True)
class Sensitivity:
    """Lines for every grouping of the pairs: two where sources and bases are crossed.

    level: of the bootstrap intervals. seed: SHA-256 of the table, hex, from which all luck comes.
    why: why there are no lines at all.
    """

    level: float
    seed: str
    lines: tuple[Lines, ...]
    why: str = ""

    def to_dict(self) -> dict[str, Any]:
        """The same in builtin types that JSON has: an interval is a list of two numbers."""
        return asdict(self, dict_factory=_with_lists)


class _Case(NamedTuple):
    """Whole trials in an order of their own, and what is asked of them. sign: as `orientation`."""

    table: pd.DataFrame
    part: Part
    sign: Floats
    level: float
    families: Families | None
    seed: str


class _Clusters(NamedTuple):
    """Numerator and denominator by cluster, `[cluster]`; a mean denominator up to `floor` is 0."""

    labels: list[object]
    found: Contrast
    floor: float


class _Pairs(NamedTuple):
    """Numerator, denominator and position of its cluster of each pair, `[pair]`."""

    ids: list[object]
    found: Contrast
    cluster: npt.NDArray[np.intp]


def sensitivity(
    frame: pd.DataFrame,
    part: Part,
    *,
    direction: Direction,
    level: float = 0.95,
    families: Families | None = None,
) -> Sensitivity:
    """The sensitivity lines of one part of a claim.

    frame: as in `judge`; arms that the estimand does not need are not looked at.
    part: its estimand and region; its outcome is what `score` holds.
    direction: as in `judge`. An estimate exists where source - base is above 0 on average, read
        the way the direction allows; a gap always has one.
    level: of the bootstrap intervals. families: None where prompts have none.
    Raises UsageError for a table that cannot be read as trials or a setting out of its range, and
    for nothing that a readable table holds.
    """
    check_frame(frame)
    if direction not in get_args(Direction):
        raise UsageError(f"direction {direction!r}, expected one of {get_args(Direction)}")
    if not 0 < level < 1:
        raise UsageError(f"level {level:g}, expected above 0 and below 1")
    table = by_tokens(_in_order(frame, NEEDED[part.estimand]))
    seed = _digest(table)
    if why := _lacking(table, NEEDED[part.estimand]):
        return Sensitivity(level, seed, (), why)
    if part.estimand in OF_SPREADS:
        return Sensitivity(level, seed, (), f"none is made of {part.estimand}, which is no mean")
    found = groupings(table)
    case = _Case(table, part, orientation(found[0].scores, direction), level, families, seed)
    return Sensitivity(level, seed, tuple(_lines(case, grouping) for grouping in found))


def _lines(case: _Case, grouping: Grouping) -> Lines:
    clusters = _clusters(case, grouping)
    if why := _no_estimate(clusters, case.part):
        return Lines(grouping.by, grouping.clusters, why=why)
    found, floor, luck = clusters.found, clusters.floor, f"{case.seed} by {grouping.by}"
    return Lines(
        by=grouping.by,
        clusters=grouping.clusters,
        estimate=float(found.estimate),
        bootstrap=bootstrap(found, case.level, _generator(f"{luck}: bootstrap"), floor=floor),
        sign_flips=sign_flips(found, case.part.region, _generator(f"{luck}: sign flips")),
        without_cluster=_without_cluster(clusters),
        without_family=_without_family(case, grouping.by, floor),
        skewness=_skewness(found),
    )


def _skewness(found: Contrast) -> float | None:
    """What is left of the contrast's skewness in its mean."""
    values = found.effect - float(found.estimate) * found.unit
    if not varies(values, found.size + np.abs(found.estimate * found.unit)):
        return None
    with np.errstate(all="ignore"):  # squares of what is tiny may be 0
        skewness = float(stats.skew(values) / np.sqrt(len(values)))
    return skewness if np.isfinite(skewness) else None


def _without_cluster(clusters: _Clusters) -> Range:
    effect, unit, n = clusters.found.effect, clusters.found.unit, len(clusters.labels)
    if n - 1 < FEWEST_LEFT:
        return _no_range(f"{n} clusters, at least {FEWEST_LEFT + 1} wanted")
    rest = (np.sum(unit) - unit) / (n - 1)
    exists = rest > clusters.floor
    estimates = (np.sum(effect) - effect) / (n - 1) / np.where(exists, rest, 1.0)
    each = zip(clusters.labels, estimates, exists, strict=True)
    return _range({str(name): float(one) if ok else _NO_UNIT for name, one, ok in each}, "cluster")


def _without_family(case: _Case, by: str, floor: float) -> Range:
    """A family goes with all pairs whose source or base has it; clusters stay as they were."""
    if (families := case.families) is None:
        return _no_range("no families were given")
    pairs = _pairs(case, by)
    if unknown := [pair for pair in pairs.ids if pair not in families]:
        return _no_range(f"no family is known of {len(unknown)} pairs, such as {unknown[0]!s:.12}")
    of_pair = [{str(family) for family in families[pair]} for pair in pairs.ids]
    return _range(
        {
            family: _estimate_of(pairs, np.array([family not in own for own in of_pair]), floor)
            for family in sorted(set().union(*of_pair))
        },
        "family",
    )


def _estimate_of(pairs: _Pairs, kept: npt.NDArray[np.bool_], floor: float) -> float | str:
    """The estimate from the pairs that are kept, or why there is none."""
    if not kept.any():
        return "no pairs would be left"
    sizes = np.bincount(pairs.cluster[kept])
    if (left := np.count_nonzero(sizes)) < FEWEST_LEFT:
        return f"{left} cluster would be left, at least {FEWEST_LEFT} wanted"
    effect, unit = (
        float(np.mean(np.bincount(pairs.cluster[kept], values[kept])[sizes > 0] / sizes[sizes > 0]))
        for values in (pairs.found.effect, pairs.found.unit)
    )
    return effect / unit if unit > floor else _NO_UNIT


def _range(estimates: Mapping[str, float | str], what: str) -> Range:
    """From what each thing left out gives: an estimate, or why there is none."""
    found = {name: value for name, value in estimates.items() if not isinstance(value, str)}
    not_counted = {name: value for name, value in estimates.items() if isinstance(value, str)}
    if not found:
        return replace(_no_range(f"no {what} can be left out"), not_counted=not_counted)
    low, high = min(found.values()), max(found.values())
    near = _ROUNDING * max(abs(low), abs(high))
    return Range(
        low=low,
        low_without=next(name for name, value in found.items() if value <= low + near),
        high=high,
        high_without=next(name for name, value in found.items() if value >= high - near),
        counted=len(found),
        not_counted=not_counted,
    )


def _no_range(why: str) -> Range:
    return Range(None, None, None, None, 0, why=why)


def _in_order(frame: pd.DataFrame, arms: Sequence[str]) -> pd.DataFrame:
    """The trials of some arms in an order of their own, so that sums round the same way."""
    arm = frame["arm"].astype(str)
    table = frame.assign(arm=arm, score=frame["score"].astype(float) + 0.0)[arm.isin(arms)]
    return table.sort_values(
        ["pair", "arm", "score"],
        key=lambda column: column if column.name == "score" else column.astype(str),
        ignore_index=True,
    )


def _digest(table: pd.DataFrame) -> str:
    """SHA-256 of the sorted (pair id, arm, score), hex; scores to the last bit."""
    scores = [float(score).hex() for score in table["score"]]
    rows = sorted(zip(table["pair"].astype(str), table["arm"], scores, strict=True))
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()


def _generator(luck: str) -> np.random.Generator:
    return np.random.default_rng(int(hashlib.sha256(luck.encode()).hexdigest(), 16))


def _lacking(table: pd.DataFrame, arms: Sequence[str]) -> str:
    """Why the trials do not make up the estimand; '' where they do."""
    if absent := [arm for arm in arms if arm not in set(table["arm"])]:
        return f"no {' and no '.join(absent)} arm was run"
    lacking = holes(table, list(arms))
    return f"trials are missing: {lacking}" if lacking else ""


def _no_estimate(clusters: _Clusters, part: Part) -> str:
    """Why the ratio of means does not exist; '' where it does."""
    if (n := len(clusters.labels)) < FEWEST_LEFT:
        return f"{n} cluster, at least {FEWEST_LEFT} wanted"
    mean = float(np.mean(clusters.found.unit))
    return (
        ""
        if mean > clusters.floor
        else f"{unit_text(part.estimand)} is {mean:.4g} on average, not above 0"
    )


def _clusters(case: _Case, grouping: Grouping) -> _Clusters:
    # `groupings` puts clusters in the order that groupby sorts them into.
    labels = list(case.table.groupby(grouping.by).size().index)
    floor = 0.0
    if (arms := whole(case.part.estimand)) is not None:
        apart = between(grouping.scores, *arms, case.sign)
        floor = _ROUNDING * float(np.max(apart.size))
    return _Clusters(labels, contrast(grouping.scores, case.part.estimand, case.sign), floor)


def _pairs(case: _Case, by: str) -> _Pairs:
    table = case.table
    means = table.groupby(["pair", "arm"])["score"].mean().unstack("arm")
    scores = {str(arm): means[arm].to_numpy(dtype=np.float64) for arm in means.columns}
    labels = table.groupby("pair")[by].first()
    codes, _ = pd.factorize(labels.loc[means.index])
    return _Pairs(list(means.index), contrast(scores, case.part.estimand, case.sign), codes)


def _with_lists(items: list[tuple[str, Any]]) -> dict[str, Any]:
    return {name: list(value) if isinstance(value, tuple) else value for name, value in items}
