"""A published table, read: one row a trial, in the columns that `judge` takes."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from kv_claims.errors import UsageError
from kv_claims.files.reading import listed, shown, unquoted
from kv_claims.files.tables import (
    check_texts,
    parquet_columns,
    read_csv,
    read_json,
    read_parquet,
)
from kv_claims.judging.frame import CLUSTERS, check_frame, check_sizes
from kv_claims.plain import nearest
from kv_claims.replay.described import BETWEEN, Described
from kv_claims.tasks.task import Task

ARM, SCORE = "\0arm", "\0score"
"""Columns of a table that was wide, under names that no file has."""


def read_table(told: Described, task: Task | None) -> pd.DataFrame:
    """The table with columns `pair, arm, seed, score`, `text` and clusters where it has them, and
    one more for each other outcome, under its name.

    Rows of arms that stand in no role are kept, and not looked at: what they lack is NaN.
    task: by whose scorer texts are scored again; None keeps the published score.
    Raises UsageError, naming table and column, for whatever cannot be read so.
    """
    raw = _read(told)
    if raw.empty:
        raise UsageError(f"{told.table}: no row, expected one a trial")
    if told.wide:
        raw = _melted(raw, told)
    keys = [key for key in ("pair", "seed", "text", *CLUSTERS) if key in told.columns]
    frame = pd.DataFrame({key: raw[told.columns[key]] for key in keys})
    frame.insert(1, "arm", _arm(raw, told))
    if (missing := frame.isna().any(axis=1) | (frame[["pair", "arm"]] == "").any(axis=1)).any():
        raise UsageError(f"{told.table}: nothing in a key or text of {_row(missing)}")
    frame = frame.astype(str)
    if "seed" not in frame:
        frame["seed"] = "0"
    used = frame["arm"].isin(told.arms)
    _check_arms(frame, told)
    if task is None:
        column = SCORE if told.wide else told.columns["score"]
        frame["score"] = _numbers(raw, column, used, told.table)
    elif "text" in frame:
        frame["score"] = [task.scorer(text) for text in frame["text"]]
    else:
        raise UsageError(
            f"{told.where}: columns has no text, expected one for task {task.where} to score"
        )
    for outcome, column in told.scores.items():
        frame[outcome] = _numbers(raw, column, used, told.table)
    try:
        if used.any():  # else no role is named, which the claims' tests will say
            check_frame(frame[used])
            check_sizes(frame[used])
    except UsageError as error:
        raise UsageError(f"{told.table}: {error}") from error
    return _averaged(frame) if told.averaged else frame


def _read(told: Described) -> pd.DataFrame:
    """The columns that are named: as text from CSV, in their own types from Parquet and JSON."""
    path, expected = told.table, "a CSV, Parquet or JSON file"
    suffix = path.suffix.lower()
    wanted = list(
        dict.fromkeys((*told.columns.values(), *told.arm, *told.wide, *told.scores.values()))
    )
    if suffix in (".parquet", ".pq"):
        has = parquet_columns(path, expected)
        raw = read_parquet(path, expected, wanted)
    elif suffix in (".csv", ".tsv", ".txt"):
        raw = read_csv(path, "," if suffix == ".csv" else "\t", expected)
        has = list(map(str, raw.columns))
    elif suffix in (".jsonl", ".json"):
        raw = read_json(path, expected, lines=suffix == ".jsonl")
        has = list(map(str, raw.columns))
    else:
        found = unquoted(path.suffix) or "no suffix"
        raise UsageError(f"{path}: {found}, expected .csv, .tsv, .jsonl, .json or .parquet")
    for name in wanted:
        if name not in has:
            raise UsageError(
                f"{path}: no column {shown(name)}, which {told.where.name} names; it has "
                f"{listed(has)}{nearest(name, has)}{_as_columns(name, has, told)}"
            )
    check_texts(raw[wanted], path)
    return raw


def _as_columns(name: str, has: list[str], told: Described) -> str:
    """A hint where the arms that roles name are columns of the table."""
    if name not in told.arm or not set(told.arms) <= set(has):
        return ""
    return f"; its arms are columns, which `columns: {{ arms: [{', '.join(told.arms)}] }}` says"


def _melted(raw: pd.DataFrame, told: Described) -> pd.DataFrame:
    """A row for each arm, of a table in which each arm is a column; index as in a long one."""
    kept = list(dict.fromkeys((*told.columns.values(), *told.scores.values())))
    return raw.melt(kept, [*told.wide], ARM, SCORE, ignore_index=True)


def _arm(raw: pd.DataFrame, told: Described) -> pd.Series:
    """What names each row's arm."""
    if told.wide:
        return raw[ARM]
    names = raw[[*told.arm]]
    found: pd.Series = names.astype(str).agg(BETWEEN.join, axis=1)
    return found.where(names.notna().all(axis=1))


def _averaged(frame: pd.DataFrame) -> pd.DataFrame:
    """A row for each pair and arm: the mean over its seeds, of every number; no text."""
    numbers = frame.select_dtypes("number").columns
    others = [name for name in frame.columns if name not in (*numbers, "pair", "arm", "text")]
    rules = {**dict.fromkeys(others, "first"), **dict.fromkeys(numbers, "mean")}
    found = frame.groupby(["pair", "arm"], sort=False, as_index=False).agg(rules)
    return found.assign(seed="mean")


def _numbers(raw: pd.DataFrame, column: str, used: pd.Series, path: Path) -> pd.Series:
    """A column as numbers; NaN where there is none in a row that nothing is judged on."""
    numbers = _plain_numbers(raw[column])
    if (bad := numbers.isna() & used).any():
        value = raw[column][bad].iloc[0]
        raise UsageError(
            f"{path}: {shown(column)} is no number in {_row(bad)}, such as "
            f"{unquoted(repr(value))}; expected a number in each, a share such as 20%, or true and "
            "false throughout"
        )
    return numbers


def _plain_numbers(values: pd.Series) -> pd.Series:
    """Numbers as they are, `20%` as 0.2; true and false as 1 and 0 where there is nothing else."""
    if values.dtype == bool:
        return values.astype(float)
    numbers = pd.to_numeric(values, errors="coerce")
    if not numbers.isna().any() or pd.api.types.is_numeric_dtype(values):
        return numbers.astype(float)
    texts = values.astype(str).str.strip()
    words = texts.str.lower().map({"true": 1.0, "false": 0.0})
    there = values.notna() & (texts != "")
    if there.any() and words[there].notna().all():
        return words
    shares = pd.to_numeric(texts.str.removesuffix("%"), errors="coerce") / 100
    return numbers.where(~texts.str.endswith("%"), shares).astype(float)


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
