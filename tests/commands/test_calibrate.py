"""`kv-claims calibrate`: its files, and what its exit status says."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pandas as pd
import pytest

from kv_claims.__main__ import main
from kv_claims.calibration import cells

TWO = ["calibrate", "--only", "families", "--only", "looks", "--workers", "1"]
FILES = ["calibration.csv", "calibration.md", "calibration.svg"]


def run(out: Path, *options: str) -> int:
    return main([*TWO, "--out", str(out), *options])


@pytest.fixture(scope="module")
def calibrated(tmp_path_factory: pytest.TempPathFactory) -> tuple[int, Path]:
    out = tmp_path_factory.mktemp("calibration") / "made by the command"
    return run(out, "--studies", "40"), out


def test_two_groups_make_three_files(calibrated: tuple[int, Path]) -> None:
    code, out = calibrated
    assert code == 0
    assert sorted(path.name for path in out.iterdir()) == FILES
    table = pd.read_csv(out / "calibration.csv")
    assert list(dict.fromkeys(table.group)) == ["families", "looks"]
    assert set(table.studies) == {40}
    assert ElementTree.parse(out / "calibration.svg").getroot().tag.endswith("svg")
    text = (out / "calibration.md").read_text()
    assert text.startswith(f"# Calibration\n\n{len(table)} cells, 0 of which fall short")
    assert "## Families" in text
    assert "## Looks" in text


def test_it_says_what_it_found_and_where(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert run(tmp_path, "--studies", "2") == 0
    out = capsys.readouterr().out
    assert "cells, 0 of which fall short of what is wanted of them." in out
    assert f"written: {', '.join(str(tmp_path / name) for name in FILES)}" in out.splitlines()


def test_the_same_luck_gives_the_same_bytes(calibrated: tuple[int, Path], tmp_path: Path) -> None:
    assert run(tmp_path / "again", "--studies", "40") == 0
    for name in FILES:
        assert (tmp_path / "again" / name).read_bytes() == (calibrated[1] / name).read_bytes()
    assert run(tmp_path / "other", "--studies", "40", "--seed", "1") == 0
    table = "calibration.csv"
    assert (tmp_path / "other" / table).read_bytes() != (calibrated[1] / table).read_bytes()


def test_a_rule_that_errs_too_often_is_1_and_named(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Looks at nine times the rate that they are to share."""
    monkeypatch.setattr(cells, "ALPHA", 0.45)
    assert run(tmp_path, "--studies", "200") == 1
    out = capsys.readouterr().out
    assert "- looks, truth at low edge: " in out
    assert "wanted supported at most 5.00%" in out
    text = (tmp_path / "calibration.md").read_text()
    assert "0 of which fall short" not in text
    table = pd.read_csv(tmp_path / "calibration.csv")
    assert table.falls_short.notna().any()


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--only", "guesses"], "groups ['guesses']: expected some of planted, given pairs, "),
        (["--studies", "0"], "0 studies, 2000 of the network, 1 workers: expected at least"),
        (["--network-studies", "-1"], "10000 studies, -1 of the network, 1 workers: expected"),
        (["--workers", "0"], "10000 studies, 2000 of the network, 0 workers: expected at least"),
    ],
    ids=["group", "studies", "network", "workers"],
)
def test_what_cannot_be_run_is_2_and_leaves_earlier_files_alone(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, options: list[str], reason: str
) -> None:
    for name in FILES:
        (tmp_path / name).write_text("earlier")
    assert run(tmp_path, *options) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.splitlines()[-1].startswith(f"kv-claims: {reason}")
    assert "Traceback" not in said.err
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == dict.fromkeys(
        FILES, "earlier"
    )


def test_a_folder_that_cannot_be_written_is_2(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("in the way")
    assert run(tmp_path / "file") == 2
    assert "cannot be written" in capsys.readouterr().err
