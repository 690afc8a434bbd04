"""The calibration as files: nothing is left out, and equal numbers give equal bytes."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from kv_claims.calibration.report import SYMMETRIC, draw, markdown, summary, symmetric, write
from kv_claims.calibration.rows import Row, Wanted

pytestmark = pytest.mark.filterwarnings("error")

N = 10_000
EDGES = ("at low edge", "at high edge")


def row(
    group: str, cell: str, covered: int, *, skewness: float = 0.05, supported: int = 450
) -> Row:
    counts = {"covered": covered}
    counts |= {f"supported {edge}": supported for edge in EDGES}
    counts |= {f"refuted {edge}": 240 for edge in EDGES}
    wanted = (
        Wanted("covered", "within"),
        *(Wanted(f"supported {edge}", "at most", 0.05) for edge in EDGES),
    )
    facts: dict[str, str | int | float] = {"pairs": 20, "truth": 0.5, "skewness": skewness}
    return Row(group, cell, N, facts, counts, wanted)


ROWS = [
    row("planted", "even", 9_510),
    row("planted", "even too", 9_490, skewness=-SYMMETRIC),
    row("planted", "skewed|a lot", 9_100, skewness=-1.2, supported=800),
    row("real", "even counts", 9_000, skewness=0.1),
    Row("gates", "no gap", N, {"pairs": 20, "truth": "no gap"}, {"invalid": 9_900}),
]


def lines_of(group: str) -> list[str]:
    """The body of a group's table."""
    section = markdown(ROWS).split(f"\n## {group}\n")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    assert {line.replace("\\|", "").count("|") for line in lines} == {lines[0].count("|")}, (
        "columns as in the head"
    )
    return lines[2:]


def test_every_row_has_a_line() -> None:
    assert [len(lines_of(group)) for group in ("Planted", "Real", "Gates")] == [3, 1, 1]
    (line,) = lines_of("Gates")
    assert "no gap" in line
    assert "99.00%" in line
    even, _, skewed = lines_of("Planted")
    assert "95.10%" in even
    assert "skewed\\|a lot" in skewed
    assert "-1.200" in skewed


def test_the_summary_names_each_shortfall() -> None:
    found = summary(ROWS)
    short = [line for one in ROWS for line in one.shortfalls]
    assert found[0].startswith("5 cells, 2 of which fall short")
    assert [line for line in found if line.startswith("- ")] == [f"- {line}" for line in short]
    assert len(short) == 4, "coverage and both edges of the skewed cell, coverage of the real one"
    assert all(line in markdown(ROWS) for line in found)


def test_the_summary_averages_planted_cells_that_are_even() -> None:
    assert [one.cell for one in symmetric(ROWS)] == ["even", "even too"]
    assert "2 planted cells" in summary(ROWS)[1]
    assert "95.00%" in summary(ROWS)[1]


def test_nothing_short_is_said_as_well() -> None:
    found = summary(ROWS[:1])
    assert found[0].startswith("1 cells, 0 of which fall short")
    assert not [line for line in found if line.startswith("- ")]


def test_a_figure_is_the_same_whenever_its_numbers_are(tmp_path: Path) -> None:
    paths = [tmp_path / f"{name}.svg" for name in "abc"]
    draw(ROWS, paths[0])
    draw(ROWS, paths[1])
    draw([row("planted", "even", 9_400), *ROWS[1:]], paths[2])
    first, again, other = (path.read_bytes() for path in paths)
    assert first == again
    assert first != other


def test_a_figure_holds_its_text_as_text(tmp_path: Path) -> None:
    draw(ROWS, tmp_path / "figure.svg")
    svg = (tmp_path / "figure.svg").read_text(encoding="utf-8")
    for text in ("covers", "supported, truth on an edge", "refuted, truth on an edge"):
        assert text in svg.replace("covered", "covers")
    for group in ("planted", "real"):
        assert f">{group}<" in svg
    assert "<dc:date>" not in svg


def test_files_are_written_and_read_back(tmp_path: Path) -> None:
    out = tmp_path / "a folder" / "calibration"
    paths = write(ROWS, out)
    assert [path.name for path in paths] == [
        "calibration.csv",
        "calibration.md",
        "calibration.svg",
    ]
    assert all(path.is_file() for path in paths)
    assert sorted(out.iterdir()) == sorted(paths)
    found = pd.read_csv(paths[0], keep_default_na=False)
    assert found["cell"].tolist() == [one.cell for one in ROWS]
    assert found["falls_short"].tolist() == ["; ".join(one.shortfalls) for one in ROWS]
    assert paths[1].read_text(encoding="utf-8") == markdown(ROWS)
    again = write(ROWS, tmp_path / "again")
    assert [path.read_bytes() for path in again] == [path.read_bytes() for path in paths]
