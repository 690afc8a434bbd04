"""trials.csv holds no formula, and Parquet the exact text."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kv_claims.plugin import write
from kv_claims.plugin.session import ClaimsSession
from kv_claims.report.spreadsheet import write_csv

FORMULAS = [
    '=HYPERLINK("http://192.0.2.1")',
    "+1+1",
    "-2+3",
    "@SUM(1)",
    "\t=1",
    "\r=1",
    "\n=1",
    "\uff1d1",
]


def rows_of(path: Path) -> list[list[str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


@pytest.mark.parametrize("formula", FORMULAS)
def test_no_cell_and_no_name_begins_as_a_formula(tmp_path: Path, formula: str) -> None:
    table = pd.DataFrame({formula: [formula, "plain"], "n": [-1.5, 2.0]})
    write_csv(table, tmp_path / "a.csv")
    assert rows_of(tmp_path / "a.csv") == [
        [f"'{formula}", "n"],
        [f"'{formula}", "-1.5"],
        ["plain", "2.0"],
    ]
    assert table.columns[0] == table.iloc[0, 0] == formula


def test_numbers_and_holes_stay_as_they_are(tmp_path: Path) -> None:
    table = pd.DataFrame(
        {
            "whole": pd.Series([-1, 2]),
            "share": [-0.25, float("nan")],
            "mixed": pd.Series([-3, "=a"], dtype=object),
            "none": [None, "a"],
            "text": pd.array(["-5", None], dtype="string"),
            "true": [True, False],
        }
    )
    write_csv(table, tmp_path / "a.csv")
    assert rows_of(tmp_path / "a.csv")[1:] == [
        ["-1", "-0.25", "-3", "", "'-5", "True"],
        ["2", "", "'=a", "a", "", "False"],
    ]


@given(text=st.text(min_size=1) | st.text(alphabet="=+-@\t\r\n,\"'x", min_size=1))
def test_any_text_is_read_back_but_for_the_apostrophe(
    tmp_path_factory: pytest.TempPathFactory, text: str
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.csv"
    write_csv(pd.DataFrame({"text": [text], "n": [1]}), path)
    head, *rows = rows_of(path)
    assert head == ["text", "n"]
    (row,) = rows
    assert row[0] in (text, f"'{text}")
    assert not row[0].startswith(tuple("=+-@\t\r\n"))


def test_trials_of_a_run(state: ClaimsSession, monkeypatch: pytest.MonkeyPatch) -> None:
    made = write.trials_of

    def trials_of(*given: Any) -> pd.DataFrame:
        return made(*given).assign(text=FORMULAS[0])

    monkeypatch.setattr(write, "trials_of", trials_of)
    write.write_reports(state)
    out = state.settings.out
    exact = pd.read_parquet(out / "trials.parquet")
    shown = pd.read_csv(out / "trials.csv", keep_default_na=False)
    assert set(exact["text"]) == {FORMULAS[0]}
    assert set(shown["text"]) == {f"'{FORMULAS[0]}"}
    assert (shown["score"] == exact["score"]).all()
