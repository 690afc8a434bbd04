"""`kv-claims map`: its files, that it goes on, and what it refuses before a model runs."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pandas as pd
import pytest

from kv_claims.__main__ import main
from kv_claims.run.fed import FedRuns
from tests.plugin.project import ROOT

MODEL = ("--model", "planted:stored-at-layer", "--outcome", "loglik", "--max-new-tokens", "6")
CELLS = ("--site", "kv", "--layers", "11,12,16", "--positions", "last(8),last(32)")


def run(out: Path, *options: str) -> int:
    return main(["map", *MODEL, *CELLS, "--pairs", "12", "--out", str(out), *options])


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    capsys.readouterr()
    assert main(["map", *arguments]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    return said.err


@pytest.fixture(scope="module")
def mapped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("a map") / "out"
    assert run(out) == 0
    return out


def test_the_planted_layer_lights_up_and_the_files_say_what_they_are(mapped: Path) -> None:
    table = pd.read_csv(mapped / "map.csv")
    assert list(table["patch"]) == [f"kv@{layer}/last({w})" for layer in (11, 12) for w in (8, 32)]
    by_layer = table.set_index(["layer", "position"])
    assert (by_layer.loc[12, "q"] < 0.05).all()
    assert (by_layer.loc[11, "p"] > 0.05).all()
    assert (
        by_layer.loc[12, "estimate"]
        .between(by_layer.loc[12, "low"], by_layer.loc[12, "high"])
        .all()
    )
    said = json.loads((mapped / "map.json").read_text())
    assert "no" in said["is"]
    assert "verdict" in said["is"]
    assert said["complete"] is True
    assert said["cells"]["measured"] == 4
    assert said["cells"]["marked"] == 2
    assert [one["cell"] for one in said["cells"]["skipped"]] == ["kv@16/last(8)", "kv@16/last(32)"]
    both = [said["split"][part]["pairs"] for part in ("discovery", "confirmation")]
    assert sum(both) == said["task"]["pairs"] == 300
    svg = (mapped / "map.svg").read_text()
    assert "exploratory, no verdict" in svg


def test_the_same_map_goes_on_and_measures_nothing_again(
    mapped: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {name: (mapped / name).read_bytes() for name in ("map.csv", "map.svg", "map.json")}
    monkeypatch.setattr(FedRuns, "_run_group", lambda *_: pytest.fail("it ran"))
    assert run(mapped) == 0
    assert {name: (mapped / name).read_bytes() for name in before} == before


def test_another_map_is_not_written_over_it(
    mapped: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (mapped / "map.csv").read_bytes()
    for options in (["--pairs", "13"], ["--layers", "12"], ["--mode", "mix(0.5)"]):
        said = refused(capsys, *MODEL, *CELLS, "--pairs", "12", "--out", str(mapped), *options)
        assert "holds the map" in said
    assert (mapped / "map.csv").read_bytes() == before


def test_what_no_map_can_be_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "letter.txt").write_text("mine")
    out = ("--out", str(tmp_path / "out"))
    for arguments, said in (
        ([*MODEL, *CELLS, "--out", str(other)], "has letter.txt and no map.json"),
        ([*MODEL, *CELLS, "--out", str(other / "letter.txt")], "a file, expected a folder"),
        ([*MODEL, *CELLS, *out, "--pairs", "9"], "expected at least 10"),
        ([*MODEL, *CELLS, *out, "--pairs", "299"], "pairs 299"),
        ([*MODEL, *CELLS, *out, "--site", "resid"], "site='resid'"),
        ([*MODEL, *CELLS, *out, "--outcome", "logits"], "outcome 'logits'"),
        ([*MODEL[:2], *CELLS, *out], "answer"),
        ([*MODEL[:2], *CELLS, *out, "--temperature", "1"], "nothing is generated"),
        ([*MODEL, *CELLS, *out, "--task", "t.yaml"], "brings its own task"),
        ([*MODEL, *CELLS, *out, "--model", "planted:nobody"], "nobody"),
    ):
        assert said in refused(capsys, *arguments)
    assert (other / "letter.txt").read_text() == "mine"
    assert not (tmp_path / "out").exists()


def test_the_planted_example_of_the_page_shows_layer_12_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (ROOT / "docs/how-to/map.md").read_text(encoding="utf-8").splitlines()
    (line,) = [one for one in page if one.startswith("kv-claims map --model planted:")]
    monkeypatch.chdir(tmp_path)
    assert main(shlex.split(line)[1:]) == 0
    table = pd.read_csv(tmp_path / "reports/planted-map/map.csv")
    assert set(table[table["q"] < 0.05]["layer"]) == {12}
    assert set(table["layer"]) == {9, 12, 13}
