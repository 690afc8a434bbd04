"""The pages of findings quote their runs: every row as it fell, and none left out."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs.findings import FOLDER, rows

PAGES = sorted(path for path in FOLDER.glob("*.md") if path.with_suffix(".json").exists())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_cell_of_the_runs_stands_on_its_page_as_it_fell(page: Path) -> None:
    lines = page.read_text(encoding="utf-8").splitlines()
    said = {line for line in lines if line.startswith("| `")}
    missing = [row for row in rows(page) if row not in said]
    assert missing == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_no_row_stands_there_that_no_run_has(page: Path) -> None:
    lines = page.read_text(encoding="utf-8").splitlines()
    known = set(rows(page))
    quoted = [line for line in lines if line.startswith("| `") and line.count("|") == 8]
    assert [line for line in quoted if line not in known] == []
