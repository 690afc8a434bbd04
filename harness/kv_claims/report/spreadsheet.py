"""A table as CSV that a spreadsheet may open: no cell of it is a formula.

Spreadsheets run what begins with `=`, `+`, `-` or `@`, and a model may generate that. Such text
gets an apostrophe before it, which they show as text; numbers stay numbers. All text is quoted, as
a bare carriage return in it would begin a row. The exact text is in Parquet.
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pandas as pd

_BEGINS_FORMULA = tuple("=+-@\t\r\n\uff1d\uff0b\uff0d\uff20")
"""Full-width signs too: spreadsheets in Japanese and Chinese take them for the others."""


def write_csv(table: pd.DataFrame, path: Path) -> None:
    """Write a table, with its column names and without its index."""
    shown = table.rename(columns=_no_formula)
    for place, kind in enumerate(shown.dtypes):
        if not pd.api.types.is_numeric_dtype(kind):
            column = shown.iloc[:, place].astype(object).map(_no_formula)
            shown.isetitem(place, column.to_numpy(dtype=object))
    shown.to_csv(path, index=False, quoting=csv.QUOTE_NONNUMERIC)


def _no_formula(cell: Any) -> Any:
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(_BEGINS_FORMULA) else cell
