"""From a table of trials to the numbers that are tested: one per cluster and arm.

Seeds are averaged inside (pair, arm), then pairs inside a cluster, unweighted. A table that is
not whole is an error that names the rows: no trial is dropped in silence (*silent-n*).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from kv_claims.errors import UsageError
from kv_claims.judging.arrays import Ints
from kv_claims.judging.checks import Check
from kv_claims.judging.crossed import Sharing, covariance_of_means
from kv_claims.judging.fieller import Floats

COLUMNS = ("pair", "arm", "seed", "score")
ARMS = ("base", "source", "patched", "versus")
CLUSTERS = ("cluster", "source", "base")
TOKENS = {"source": "source_tokens_sha", "base": "base_tokens_sha"}
"""Columns of our own trials that say which prompts are the same, whatever they are called."""
REFUSED = "refused"
"""A column of our own trials: why what an arm does to the score could say nothing; see `refusals`.
"""
LARGEST = 1e50
"""Of a score: the fourth powers in Fieller's formula then stay within what a float can hold."""


class Grouping(NamedTuple):
    """Mean score by cluster of each arm, `[cluster]`; `by` says what a cluster is.

    sharing: where pairs share sources and bases both; scores are then those of pairs, `[pair]`, and
        `clusters` counts what there is fewer of. sizes: pairs of each cluster.
    """

    by: str
    clusters: int
    scores: dict[str, Floats]
    sharing: Sharing | None = None
    sizes: Ints | None = None

    @property
    def counts(self) -> dict[str, int]:
        """Clusters by what they are."""
        if self.sharing is None:
            return {self.by: self.clusters}
        return dict(zip(("source", "base"), self.sharing.clusters, strict=True))

    @property
    def weighed(self) -> dict[str, dict[str, Floats]]:
        """Scores whose plain mean lets each pair, or each cluster, weigh the same, by which.

        What is judged comes first; no more where clusters are all of one size.
        """
        found = {"pairs" if self.sharing else _clusters_by(self.by): self.scores}
        if self.sizes is not None and np.ptp(self.sizes):
            share = self.sizes / self.sizes.mean()
            found["pairs"] = {arm: share * values for arm, values in self.scores.items()}
        for by, side in self.sharing._asdict().items() if self.sharing else ():
            sizes = np.bincount(side)
            if np.ptp(sizes):
                share = sizes.mean() / sizes[side]
                found[_clusters_by(by)] = {arm: share * v for arm, v in self.scores.items()}
        return found

    @property
    def fewest(self) -> str:
        """What there are fewest clusters by."""
        return min(self.counts, key=lambda by: self.counts[by])


class Spread(NamedTuple):
    """How the mean scores of arms vary and vary together over clusters; what planning needs.

    means: `[arm]`. covariance: `[arm, arm]`, n - 1 in the divisor; of crossed pairs that of so many
    clusters whose means would vary as those of the pairs do.
    """

    by: str
    clusters: int
    pairs: int
    arms: tuple[str, ...]
    means: list[float]
    covariance: list[list[float]]


def spread_of(grouping: Grouping, pairs: int) -> Spread | None:
    """Means and covariance of a grouping's arms; None of a single cluster."""
    if grouping.clusters < 2:
        return None
    scores = np.array(list(grouping.scores.values()))
    if grouping.sharing is None:
        covariance = np.atleast_2d(np.cov(scores))
    else:
        covariance = grouping.clusters * covariance_of_means(scores, grouping.sharing)
    return Spread(
        grouping.by,
        grouping.clusters,
        pairs,
        tuple(grouping.scores),
        scores.mean(1).tolist(),
        covariance.tolist(),
    )


def check_frame(frame: pd.DataFrame) -> None:
    """Raise UsageError for missing columns, scores that are no numbers, or doubled trials."""
    if not isinstance(frame, pd.DataFrame):
        raise UsageError(f"trials: {type(frame).__name__}, expected a pandas DataFrame")
    missing = [column for column in COLUMNS if column not in frame.columns]
    if missing:
        raise UsageError(f"trials: missing columns {missing}, expected {list(COLUMNS)}")
    if frame.empty:
        raise UsageError("trials: the table is empty, expected one row a trial")
    if doubled_columns := sorted({*map(str, frame.columns[frame.columns.duplicated()])}):
        raise UsageError(f"trials: columns {doubled_columns} more than once")
    for column in ("pair", "arm", "seed", *CLUSTERS, *TOKENS.values()):
        if column in frame:
            _check_key(frame, column)
    if (bad := ~np.isfinite(_numbers(frame["score"]))).any():
        raise UsageError(f"trials: scores that are not finite numbers in {_rows(frame, bad)}")
    doubled = frame.duplicated(["pair", "arm", "seed"], keep=False).to_numpy()
    if doubled.any():
        raise UsageError(f"trials: (pair, arm, seed) more than once in {_rows(frame, doubled)}")
    for column in (*CLUSTERS, *TOKENS.values()):
        if column in frame and (frame.groupby("pair")[column].nunique(dropna=False) > 1).any():
            raise UsageError(f"trials: a pair with more than one `{column}`, expected one each")


def check_sizes(frame: pd.DataFrame) -> None:
    """Raise UsageError for scores of which some are too large, or all too small, to be judged."""
    sizes = np.abs(_numbers(frame["score"]))
    if (bad := sizes > LARGEST).any():
        raise UsageError(f"trials: scores above {LARGEST:g} in {_rows(frame, bad)}")
    if 0 < (largest := sizes.max()) < 1 / LARGEST:
        raise UsageError(
            f"trials: the largest score is {largest:.3g}, expected at least {1 / LARGEST:g}: "
            "give them in a larger unit"
        )


def _check_key(frame: pd.DataFrame, column: str) -> None:
    """Raise UsageError for a key that is missing, or keys that cannot be told apart and sorted."""
    if (missing := frame[column].isna().to_numpy()).any():
        raise UsageError(f"trials: no `{column}` in {_rows(frame, missing)}")
    try:
        sorted(frame[column].unique())
    except TypeError as error:
        types = sorted({type(value).__name__ for value in frame[column]})
        raise UsageError(
            f"trials: `{column}` of types {types}, expected one type, such as text"
        ) from error


def _numbers(scores: pd.Series) -> Floats:
    """Scores as floats; NaN for what is no number. Raises UsageError for a type that has none."""
    try:
        if scores.dtype.kind in "cmM":  # complex numbers, spans, dates: pandas has floats of them
            raise TypeError("not a number")
        found = pd.to_numeric(scores, errors="coerce")
        return found.to_numpy(dtype=np.float64, na_value=np.nan)
    except (TypeError, OverflowError) as error:
        raise UsageError(
            f"trials: scores of type {scores.dtype} ({error}), expected finite numbers"
        ) from error


def holes(frame: pd.DataFrame, arms: list[str]) -> str:
    """Which (arm, pair, seed) are missing for arms to be compared; '' where none is."""
    present = {arm: set(_cells(frame, arm)) for arm in arms}
    wanted = set().union(*present.values())
    lacking = [
        f"{arm}: {len(wanted - cells)} of {len(wanted)} (pair, seed), such as "
        f"{sorted(map(str, wanted - cells))[0]}"
        for arm, cells in present.items()
        if wanted - cells
    ]
    return "; ".join(lacking)


def refusals(frame: pd.DataFrame, arms: Iterable[str]) -> list[Check]:
    """The failed checks that a table brings along for some arms, of the column `REFUSED`.

    None where it has no such column. Its text is a check a line, `name: detail`, as
    `refused_text` writes it. Raises UsageError for what is no such text.
    """
    if REFUSED not in frame:
        return []
    # What was saved as CSV has gaps where the text was empty.
    told = frame.loc[frame["arm"].isin([*arms]), REFUSED].dropna().unique()
    lines = dict.fromkeys(line for text in told for line in str(text).splitlines())
    found = [line.partition(": ") for line in lines]
    if bad := [line for line, (_, _, detail) in zip(lines, found, strict=True) if not detail]:
        raise UsageError(f"trials: `{REFUSED}` {bad[0]!r}, expected lines of `check: detail`")
    return [Check(name, False, detail) for name, _, detail in found]


def refused_text(checks: Iterable[Check]) -> str:
    """Failed checks as text of the column `REFUSED`; '' of none."""
    return "\n".join(f"{check.name}: {check.detail}" for check in checks)


def by_tokens(frame: pd.DataFrame) -> pd.DataFrame:
    """The table with prompts of equal tokens under one name, the first in the alphabet.

    As it is where it has no hashes of tokens (`TOKENS`).
    """
    for side, tokens in TOKENS.items():
        if side in frame and tokens in frame:
            frame = frame.assign(**{side: frame.groupby(tokens)[side].transform("min")})
    return frame


def groupings(frame: pd.DataFrame) -> list[Grouping]:
    """How pairs are clustered: by `cluster` if given, else by `source` and by `base`.

    Two groupings come back where pairs share sources and bases both (crossed); otherwise one.
    Prompts of equal tokens are one, see `by_tokens`.
    """
    frame = by_tokens(frame)
    if "cluster" in frame:
        return [_group(frame, "cluster")]
    shared = [
        column
        for column in ("source", "base")
        if column in frame and frame[column].nunique() < frame["pair"].nunique()
    ]
    return [_group(frame, column) for column in shared or ["pair"]]


def clustering(frame: pd.DataFrame) -> Grouping:
    """The pairs as they are judged: clustered as in `groupings`, or crossed where there are two."""
    found = groupings(frame)
    if len(found) == 1:
        return found[0]
    frame = by_tokens(frame)
    by_pair = _group(frame, "pair")
    first = frame.groupby("pair")[["source", "base"]].first().sort_index()
    sides = (np.unique(first[side], return_inverse=True)[1] for side in ("source", "base"))
    sharing = Sharing(*(side.astype(np.int64) for side in sides))
    return Grouping("source and base", sharing.fewest, by_pair.scores, sharing)


def _group(frame: pd.DataFrame, by: str) -> Grouping:
    keys = ["arm", "pair"] if by == "pair" else ["arm", by, "pair"]
    pairs = frame.assign(score=frame["score"].astype(float)).groupby(keys)["score"].mean()
    table = pairs.groupby(level=["arm", by]).mean().unstack("arm").sort_index()
    scores = {str(arm): table[arm].to_numpy(dtype=np.float64) for arm in table.columns}
    if by == "pair":
        return Grouping(by, len(table), scores)
    sizes: Ints = frame.groupby(by)["pair"].nunique().sort_index().to_numpy().astype(np.int64)
    return Grouping(by, len(table), scores, sizes=sizes)


def _clusters_by(by: str) -> str:
    return {"pair": "pairs", "cluster": "clusters"}.get(by, f"clusters by {by}")


def _cells(frame: pd.DataFrame, arm: str) -> list[tuple[object, object]]:
    rows = frame[frame["arm"] == arm]
    return list(zip(rows["pair"], rows["seed"], strict=True))


def _rows(frame: pd.DataFrame, where: npt.NDArray[np.bool_]) -> str:
    bad = frame[where]
    shown = ", ".join(
        f"row {index} ({row.arm}, pair {row.pair!s:.12}, seed {row.seed})"
        for index, row in zip(bad.index[:5], bad[:5].itertuples(), strict=True)
    )
    return f"{len(bad)} rows: {shown}"
