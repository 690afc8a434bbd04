"""A table that a claim's test made itself, with whatever library: checked, and made a source.

Every defect of it is one error that says where it is and what was expected, before it is judged.
Promises no more of how the scores came about than the test says: nothing of it is verified.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import fields
from typing import Any, get_args, get_type_hints

import numpy as np
import pandas as pd
from pandas.api.types import is_bool_dtype, is_numeric_dtype

from kv_claims.claims.outcome import TEXT_NAMES
from kv_claims.claims.sites import HeadKind
from kv_claims.errors import UsageError
from kv_claims.evidence.schema import OWN_TABLE
from kv_claims.files.reading import listed, shown
from kv_claims.judging.checks import CONTROLS
from kv_claims.judging.frame import ARMS, CLUSTERS, TOKENS, check_frame, check_sizes, holes
from kv_claims.plain import nearest
from kv_claims.run.trial import Trial
from kv_claims.study.cell import Cell
from kv_claims.study.given_table import GivenScorer, GivenTask, TableStudy
from kv_claims.study.plan import parts_of, roles_in_tables
from kv_claims.study.stated import KnownModel

ROLES = (*ARMS, *CONTROLS)
_TASK = GivenTask(OWN_TABLE, GivenScorer("as given", "score as given"))


def table_study(
    frame: pd.DataFrame,
    asked: Cell,
    model: KnownModel,
    *,
    tokens: tuple[int, int] | None = None,
) -> TableStudy:
    """The source that a test's own table is, for its cell.

    frame: one row a trial, with columns `pair, arm, seed, score`: arm is base, source, patched,
        versus or a control (unrelated-base, noise, wrong-layer), and every arm has the same pairs
        and seeds. score is the claim's outcome; of several, that of its first part, and the others
        stand in columns of their names. Pairs are clustered by `cluster`, or by `source` and
        `base`, where it has them. Other columns are not read.
    tokens: of the source's and the base's prompt, by which it is told whether a geometry was read
        where it was pasted; without them that is not checked.
    Raises UsageError, naming the place, for whatever is not so.
    """
    _check_model(model)
    if tokens is not None and not _are_counts(tokens, 2):
        raise UsageError(f"judge_table: tokens {tokens!r}, expected (source, base), both 1 or more")
    rows = _checked(frame, asked)
    first = str(parts_of(asked)[0].outcome)
    content = rows.rename(columns={"score": first}).to_csv(index=False)
    sha = hashlib.sha256(content.encode()).hexdigest()
    return TableStudy(
        model=model,
        rows=rows,
        arms=lambda _asked: {arm: arm for arm in dict.fromkeys(rows["arm"])},
        stands_for=_TASK,
        study=f"{OWN_TABLE}-{sha[:32]}",
        where="the test",
        provenance={"table": {"sha": sha, "rows": len(rows)}},
        tokens=tokens,
        scores=first,
        no_geometry="not in the table",
    )


def as_trials(study: TableStudy) -> pd.DataFrame:
    """The rows of a table as trials are written: what only a run of ours has is blank, or 0.

    Each outcome stands in a column of its name.
    """
    rows = study.rows
    sides = {side: rows.get(side, rows["pair"]) for side in ("source", "base")}
    seeds = {seed: number for number, seed in enumerate(sorted(set(rows["seed"])))}
    known: dict[str, Any] = {
        "study": study.study,
        "model": study.model.name,
        "task": OWN_TABLE,
        **sides,
        **{f"{side}_sha": ids for side, ids in sides.items()},
        "seed": rows["seed"].map(seeds),
        "seed_given": rows["seed"].astype(str),
        "geometry": "{}",
        **{name: np.nan for name in TEXT_NAMES if name not in ("behavior", *rows.columns)},
        study.scores: rows["score"],
    }
    kinds = get_type_hints(Trial)
    blank = {
        field.name: _blank(kinds[field.name])
        for field in fields(Trial)
        if field.name not in (*known, *rows.columns)
    }
    return rows.assign(**blank, **known)


def _blank(kind: Any) -> Any:
    """What stands for a field of a trial that a table does not have."""
    if type(None) in getattr(kind, "__args__", ()):
        return None
    return {int: 0, bool: False}.get(kind, "")


_KINDS: tuple[HeadKind, ...] = get_args(HeadKind)


def _check_model(model: KnownModel) -> None:
    name, n_layers, *heads = model
    if not isinstance(name, str) or not name.strip():
        raise UsageError(
            f"judge_table: model {name!r}, expected the name of the model that the table is of"
        )
    if not _are_counts((n_layers,), 1):
        raise UsageError(
            f"judge_table: n_layers {n_layers!r}, expected how many layers {name} has, 1 or more"
        )
    for key, kind, count in zip(("n_kv_heads", "n_query_heads"), _KINDS, heads, strict=True):
        if count != 0 and not _are_counts((count,), 1):
            raise UsageError(f"judge_table: {key} {count!r}, expected how many {kind} {name} has")


def _are_counts(values: Any, n: int) -> bool:
    whole = isinstance(values, Sequence) and len(values) == n
    return whole and all(type(value) is int and 1 <= value <= 2**31 for value in values)


def _checked(frame: pd.DataFrame, asked: Cell) -> pd.DataFrame:
    """The columns that are read, keys as text, pairs in the order in which they first stand."""
    parts = parts_of(asked)
    others = list(dict.fromkeys(str(part.outcome) for part in parts))[1:]
    try:
        if isinstance(frame, pd.DataFrame):
            _check_types(frame, others)
        check_frame(frame)
        check_sizes(frame)
    except UsageError as error:
        raise UsageError(f"judge_table: {error}") from None
    for problem in _problems(frame, roles_in_tables(parts)):
        raise UsageError(f"judge_table: {problem}")
    keys = [name for name in ("pair", "arm", "seed", *CLUSTERS) if name in frame]
    rows = frame[[*keys, "score", *others]].reset_index(drop=True)
    for name in keys:
        if name != "seed":
            rows[name] = rows[name].astype(str)
    rows = rows.assign(pair_index=pd.factorize(rows["pair"])[0].astype(int))
    # What pins read of a trial, where they hold it against the one that they keep.
    for side in ("source", "base"):
        rows[TOKENS[side]] = rows.get(side, rows["pair"])
    rows = rows.assign(tokens="", margin=np.nan)
    return rows.sort_values("pair_index", kind="stable", ignore_index=True)


def _check_types(frame: pd.DataFrame, others: Sequence[str]) -> None:
    """Raise UsageError for scores that are text, or no numbers."""
    for name in ("score", *others):
        if name not in frame:
            if name == "score":
                return  # with the other columns that are missing
            raise UsageError(
                f"no column {shown(name)}, which the claim is about too; it has "
                f"{listed(list(map(str, frame.columns)))}"
            )
        column = frame[name]
        if isinstance(column, pd.DataFrame):
            return  # with the other columns that stand twice
        if not is_numeric_dtype(column) or is_bool_dtype(column):
            raise UsageError(f"column {name!r} of type {column.dtype}, expected numbers")
        if name != "score" and not np.isfinite(column.to_numpy(dtype=float)).all():
            raise UsageError(f"column {name!r} has values that are not finite numbers")


def _problems(frame: pd.DataFrame, wanted: Sequence[str]) -> Iterator[str]:
    """What is wrong with the arms of a table whose columns are right."""
    arms = [str(arm) for arm in dict.fromkeys(frame["arm"])]
    for arm in arms:
        if arm not in ROLES:
            near = nearest(arm, ROLES)
            yield f"unknown arm {shown(arm)}, expected {', '.join(wanted)}{near}"
        if arm not in wanted:
            yield f"arm {arm!r}, which the claim is not about, expected {', '.join(wanted)}"
    needed = [role for role in wanted if role not in CONTROLS]
    if missing := [role for role in needed if role not in arms]:
        yield f"no arm {', '.join(missing)}, expected {', '.join(needed)}; it has {listed(arms)}"
    if lacking := holes(frame, arms):
        yield f"arms of other pairs or seeds, expected the same of each: missing {lacking}"
    seeds = {str(pair): set(some) for pair, some in frame.groupby("pair")["seed"]}
    first = next(iter(seeds))
    if other := [pair for pair, some in seeds.items() if some != seeds[first]]:
        yield (
            f"pair {shown(other[0])} has other seeds than {shown(first)}, expected the same of each"
        )
