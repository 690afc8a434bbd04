"""A published table, read: one row a trial, in the columns that `judge` takes."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from kv_claims.errors import UsageError
from kv_claims.files.reading import listed, nearest, shown, unquoted
from kv_claims.files.tables import check_texts, parquet_columns, read_csv, read_parquet
from kv_claims.judging.frame import CLUSTERS, check_frame, check_sizes
from kv_claims.replay.described import Described
from kv_claims.tasks.task import Task


def read_table(told: Described, task: Task | None) -> pd.DataFrame:
    """The table with columns `pair, arm, seed, score`, `text` and clusters where it has them, and
    one more for each other outcome, under its name.

    task: by whose scorer texts are scored again; None keeps the published score.
    Raises UsageError, naming table and column, for whatever cannot be read so.
    """
    raw = _read(told)
    if raw.empty:
        raise UsageError(f"{told.table}: no row, expected one a trial")
    keys = [key for key in ("pair", "arm", "seed", "text", *CLUSTERS) if key in told.columns]
    frame = pd.DataFrame({key: raw[told.columns[key]] for key in keys})
    if (missing := frame.isna().any(axis=1) | (frame[["pair", "arm"]] == "").any(axis=1)).any():
        raise UsageError(f"{told.table}: nothing in a key or text of {_row(missing)}")
    frame = frame.astype(str)
    if "seed" not in frame:
        frame["seed"] = "0"
    if task is None:
        frame["score"] = _numbers(raw, told.columns["score"], told.table)
    elif "text" in frame:
        frame["score"] = [task.scorer(text) for text in frame["text"]]
    else:
        raise UsageError(
            f"{told.where}: columns has no text, expected one for task {task.where} to score"
        )
    for outcome, column in told.scores.items():
        frame[outcome] = _numbers(raw, column, told.table)
    try:
        check_frame(frame)
        check_sizes(frame)
    except UsageError as error:
        raise UsageError(f"{told.table}: {error}") from error
    _check_arms(frame, told)
    return frame


def _read(told: Described) -> pd.DataFrame:
    """The columns that are named: as text from CSV, in their own types from Parquet."""
    path, expected = told.table, "a CSV or Parquet file"
    suffix = path.suffix.lower()
    wanted = list(dict.fromkeys((*told.columns.values(), *told.scores.values())))
    if suffix in (".parquet", ".pq"):
        has = parquet_columns(path, expected)
        raw = read_parquet(path, expected, wanted)
    elif suffix in (".csv", ".tsv", ".txt"):
        raw = read_csv(path, "," if suffix == ".csv" else "\t", expected)
        has = list(map(str, raw.columns))
    else:
        found = unquoted(path.suffix) or "no suffix"
        raise UsageError(f"{path}: {found}, expected .csv, .tsv or .parquet")
    for name in wanted:
        if name not in has:
            raise UsageError(
                f"{path}: no column {shown(name)}, which {told.where.name} names; it has "
                f"{listed(has)}{nearest(name, has)}"
            )
    check_texts(raw[wanted], path)
    return raw


def _numbers(raw: pd.DataFrame, column: str, path: Path) -> pd.Series:
    numbers = pd.to_numeric(raw[column], errors="coerce")
    if (bad := numbers.isna()).any():
        value = raw[column][bad].iloc[0]
        raise UsageError(
            f"{path}: {shown(column)} is no number in {_row(bad)}, such as "
            f"{unquoted(repr(value))}; expected a number in each"
        )
    return numbers


def _check_arms(frame: pd.DataFrame, told: Described) -> None:
    known = list(dict.fromkeys(frame["arm"]))
    for claim, cells in told.claims.items():
        for cell, roles in cells.items():
            for role, arm in roles.items():
                if arm not in known:
                    raise UsageError(
                        f"{told.where}: claims: {unquoted(claim)}: {unquoted(cell)}: {role}: "
                        f"no arm {shown(arm)} in {told.table.name}, which has {listed(known)}"
                        f"{nearest(arm, known)}"
                    )


def _row(bad: pd.Series) -> str:
    """Rows by number, as a reader counts them: the first below the header is 1."""
    numbers = [number for number, is_bad in enumerate(bad, start=1) if is_bad]
    return f"row {numbers[0]}" + (f" and {len(numbers) - 1} more" if len(numbers) > 1 else "")
