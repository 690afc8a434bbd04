"""A map's files: `map.json` (what it is), `map.csv` (a row a cell), `map.svg` (the picture).

Promises: a folder holds one map. It names the map from its first moment on, and is refused to any
other, so that a map which was stopped can go on, and nobody's files are written over.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from kv_claims.errors import UsageError
from kv_claims.files.atomic import replace
from kv_claims.files.reading import read_json
from kv_claims.maps.asked import Asked
from kv_claims.maps.estimate import LEVEL, Estimate, Gap, Q
from kv_claims.maps.figure import drawn
from kv_claims.maps.measure import Measured
from kv_claims.maps.settings import EXPLORATORY
from kv_claims.report.figures.style import save_as

SCHEMA = 1
JSON_FILE, CSV_FILE, SVG_FILE = "map.json", "map.csv", "map.svg"


def check_free(out: Path) -> None:
    """Raise UsageError for a folder of something else; nothing is made, and no model is needed."""
    if out.exists() and not out.is_dir():
        raise UsageError(f"--out {out}: a file, expected a folder")
    others = [path.name for path in out.glob("[!.]*")] if out.is_dir() else []
    if others and JSON_FILE not in others:
        raise UsageError(
            f"--out {out}: has {sorted(others)[0]} and no {JSON_FILE}; expected an empty folder, "
            "or that of the same map, which then goes on"
        )


def begin(out: Path, said: Mapping[str, Any]) -> None:
    """Say in a folder which map it is of. Raises UsageError where it is another one's."""
    path = out / JSON_FILE
    if path.exists():
        found = read_json(path, "a map")
        plan = found.get("plan") if isinstance(found, dict) else None
        if plan != said["plan"]:
            raise UsageError(
                f"--out {out}: holds the map {str(plan)[:12]}, and this is {said['plan'][:12]}, "
                "with another question, task, pairs or model; expected a folder of its own"
            )
        return
    _write_json(path, {"schema": SCHEMA, "is": EXPLORATORY, **said, "complete": False})


def finish(
    out: Path,
    said: Mapping[str, Any],
    asked: Asked,
    rows: Sequence[Estimate],
    gap: Gap,
    found: Measured,
    shortest: int,
) -> list[Path]:
    """Write a map's files; returns their paths."""
    paths = [out / name for name in (CSV_FILE, SVG_FILE, JSON_FILE)]
    table = pd.DataFrame([_row(one, asked) for one in rows])
    replace(paths[0], lambda path: table.to_csv(path, index=False))
    title = f"{said['model']['name']}: {asked.estimand} of {asked.outcome}, {asked.site}"
    save_as(drawn(title, rows, asked), paths[1])
    content = {
        "schema": SCHEMA,
        "is": EXPLORATORY,
        **said,
        "complete": True,
        "level": LEVEL,
        "marked_below_q": Q,
        "gap": {"mean": gap.mean, "p": _number(gap.p), "clear": gap.is_clear},
        "shortest_prompt": shortest,
        "clusters": rows[0].clusters,
        "cells": {
            "measured": len(rows),
            "marked": sum(one.is_marked for one in rows),
            "skipped": [{"cell": str(one.cell.patch), "why": one.why} for one in found.skipped],
        },
        "oracle": None
        if found.oracle is None
        else {"largest_relative_error": found.oracle[0], "recomputed": found.oracle[1]},
    }
    _write_json(paths[2], content)
    return paths


def _row(one: Estimate, asked: Asked) -> dict[str, object]:
    return {
        "layer": one.cell.row,
        asked.axis: one.cell.column,
        "estimand": asked.estimand,
        "estimate": one.estimate,
        "low": one.low,
        "high": one.high,
        "p": one.p,
        "q": one.q,
        "pairs": one.pairs,
        "clusters": one.clusters,
        "patch": str(one.cell.patch),
    }


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    text = json.dumps(content, indent=1, allow_nan=False)
    replace(path, lambda beside: beside.write_text(text + "\n", encoding="utf-8"))
