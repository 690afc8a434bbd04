"""`kv-claims compare`: what it prints and writes, its exit status, and bad usage."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from kv_claims.__main__ import main
from kv_claims.evidence.evidence import to_json
from tests.plugin.project import everything_in
from tests.runs import PAIRS, ROOT, edited_copy

pytestmark = pytest.mark.filterwarnings("error")


def set_patched(folder: Path, add: float) -> None:
    """Raise the scores of the first claim's patched arm, pair by pair a little differently."""
    one = json.loads((folder / "evidence.json").read_text())["evidence"][0]
    trials = pd.read_parquet(folder / "trials.parquet")
    patched = trials["arm"] == one["arms"]["patched"]
    trials.loc[patched, "score"] += add + trials.loc[patched, "pair_index"] % 3
    trials.to_parquet(folder / "trials.parquet")


@pytest.fixture
def copy(a_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(a_run, tmp_path / "copy"))


def test_the_same_run_exits_with_0(
    a_run: Path, copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", str(a_run), str(copy)]) == 0
    said = capsys.readouterr().out
    assert "10 cells in both: 0 with another verdict; estimates: 2 not compared, 11 same" in said
    assert "What differs in how they were run\n\nNothing that is recorded." in said
    assert "What differs in the claims" not in said


def test_the_table_is_markdown_that_fits_a_terminal(
    a_run: Path, copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["compare", str(a_run), str(copy)])
    lines = capsys.readouterr().out.splitlines()
    rows = [line for line in lines if line.startswith("|")]
    assert rows
    assert all(row.count("|") == 8 for row in rows)
    start = lines.index("## transfer on planted:stored-at-layer")
    head, rule, *cell = lines[start + 2 : start + 7]
    assert head.split("|")[1].strip() == "cell"
    assert set(rule) == set("|- ")
    assert [row.split("|")[2].strip() for row in cell] == ["A", "B", "B - A"]
    assert [row.split("|")[3].strip() for row in cell] == ["supported", "supported", "same"]
    assert len({len(row) for row in (head, rule, *cell)}) == 1
    assert max(map(len, cell)) <= 100


def test_what_moved_exits_with_1_and_is_bold(
    a_run: Path, copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    set_patched(copy, 30)
    assert main(["compare", str(a_run), str(copy)]) == 1
    said = capsys.readouterr().out
    assert "**moved**" in said
    assert "a: moved: beyond 0.05 of source - base" in said


def test_a_wide_margin_makes_it_the_same(
    a_run: Path, copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    set_patched(copy, 30)
    assert main(["compare", str(a_run), str(copy), "--margin", "0.9"]) == 0
    assert "**moved**" not in capsys.readouterr().out


def test_a_changed_verdict_exits_with_1(
    a_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def refute(content: dict[str, Any]) -> None:
        content["evidence"][3]["verdict"] = content["evidence"][3]["parts"][0]["verdict"] = (
            "refuted"
        )

    other = edited_copy(a_run, tmp_path / "b", refute)
    assert main(["compare", str(a_run), str(other)]) == 1
    said = capsys.readouterr().out
    assert "1 with another verdict" in said
    assert "**refuted**" in said


def test_an_edited_region_is_said_in_words(
    a_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def widen(content: dict[str, Any]) -> None:
        content["evidence"][0]["plan"]["parts"][0]["region"] = [0.05, 0.95]

    other = edited_copy(a_run, tmp_path / "b", widen)
    assert main(["compare", str(a_run), str(other)]) == 0
    said = capsys.readouterr().out
    assert "region of behavior transfer [0.1, 0.95] -> [0.05, 0.95]" in said
    assert "B, not as planned: the plan is not the one that its hash is of" in said


def test_what_is_in_one_run_only_is_listed(
    a_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def drop(content: dict[str, Any]) -> None:
        del content["evidence"][1:]
        content["evidence"][0]["provenance"]["versions"]["torch"] = "1.0"
        content["run"]["kv_claims"] = "0.0.1"

    other = edited_copy(a_run, tmp_path / "b", drop)
    assert main(["compare", str(a_run), str(other)]) == 0
    said = capsys.readouterr().out
    assert "- A: gap, cell a on planted:stored-at-layer\n" in said
    assert "versions.torch" in said
    assert "-> 1.0\n" in said
    assert "kv_claims 0.1.0 -> 0.0.1" in said


def test_files_are_written_where_asked(
    a_run: Path, copy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    set_patched(copy, 30)
    page, data = tmp_path / "compared.md", tmp_path / "compared.json"
    page.write_text("earlier")
    before = everything_in(a_run)
    assert main(["compare", str(a_run), str(copy), "--out", str(page), "--json", str(data)]) == 1
    assert page.read_text(encoding="utf-8") == capsys.readouterr().out
    found = json.loads(data.read_text(encoding="utf-8"))
    assert (found["schema"], found["holds"], found["margin"]) == (1, False, 0.05)
    cell = found["cells"][0]
    assert (cell["claim"], cell["moved"], cell["verdict_changed"]) == ("transfer", True, False)
    (part,) = cell["parts"]
    assert part["difference"]["found"] == "moved"
    assert part["difference"]["value"] > 0.3
    assert len(part["difference"]["interval"]) == 2
    assert part["pairs"] == PAIRS
    assert cell["tokens"]["base"]["equal"] == PAIRS
    assert everything_in(a_run) == before


# --- bad usage ------------------------------------------------------------------------------


def bad(name: str, run: Path, tmp_path: Path) -> Path:
    """A second folder that is no run."""
    if name == "the same":
        return run / "."
    if name == "none":
        return tmp_path / "nowhere"
    other = Path(shutil.copytree(run, tmp_path / "other"))
    if name == "no evidence":
        (other / "evidence.json").unlink()
    elif name == "no json":
        (other / "evidence.json").write_text("{")
    elif name == "schema":
        content = json.loads((other / "evidence.json").read_text())
        (other / "evidence.json").write_text(to_json({**content, "schema": 7}))
    elif name == "no trials":
        (other / "trials.parquet").unlink()
    else:
        trials = pd.read_parquet(other / "trials.parquet")
        trials[trials["arm"] != "base"].to_parquet(other / "trials.parquet")
    return other


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("the same", "the same folder twice"),
        ("none", "evidence.json: cannot be read"),
        ("no evidence", "evidence.json: cannot be read"),
        ("no json", "no JSON"),
        ("schema", "schema 7, expected 1"),
        ("no trials", "trials.parquet: cannot be read (No such file"),
        ("fewer trials", "no trials of arm 'base'"),
    ],
)
@pytest.mark.parametrize("turned", [False, True])
def test_what_is_no_run_is_one_line_and_overwrites_nothing(
    name: str,
    told: str,
    turned: bool,
    a_run: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folders = [str(a_run), str(bad(name, a_run, tmp_path))]
    out = tmp_path / "out.md"
    out.write_text("earlier")
    arguments = ["compare", *(reversed(folders) if turned else folders), "--out", str(out)]
    assert main(arguments) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert told in said.err
    assert said.err.count("\n") == 1
    assert out.read_text() == "earlier"


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--margin", "0"], "margin 0: expected above 0 and below 1"),
        (["--out", "RUN/evidence.json"], "is part of a run that is compared"),
        (["--json", "RUN/trials.csv"], "is part of a run that is compared"),
        (["--out", "TMP/x", "--json", "TMP/x"], "--out and --json are the same file"),
        (["--out", "TMP/no/x.md"], "expected a file in a folder that exists"),
        (["--json", "TMP"], "expected a file in a folder that exists"),
    ],
)
def test_options_that_do_not_do_are_one_line(
    options: list[str],
    told: str,
    a_run: Path,
    copy: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = everything_in(copy)
    given = [text.replace("RUN", str(copy)).replace("TMP", str(tmp_path)) for text in options]
    assert main(["compare", str(a_run), str(copy), *given]) == 2
    said = capsys.readouterr()
    assert told in said.err
    assert said.err.count("\n") == 1
    assert everything_in(copy) == before


def test_it_needs_no_torch() -> None:
    modules = "kv_claims.commands.compare, kv_claims.report.comparison, kv_claims.plugin.write"
    code = f"import sys, {modules}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
