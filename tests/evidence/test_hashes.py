"""Files that are not as their run wrote them, and files of two runs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest

from kv_claims.errors import UsageError
from kv_claims.evidence.compare import compare
from kv_claims.evidence.evidence import to_json
from kv_claims.evidence.folder import EVIDENCE_FILE, FILES, READY, SIGNATURE_FILE
from kv_claims.evidence.hashes import content_sha
from kv_claims.evidence.stored import load_run
from kv_claims.files.lock import hold
from kv_claims.models.load import LoadedModel
from kv_claims.report.comparison import comparison_json, render_comparison
from kv_claims.report.render import render_reports
from tests.runs import KINDS, make_run


@pytest.fixture
def copy(a_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(a_run, tmp_path / "copy"))


@pytest.fixture(scope="module")
def another(stored: LoadedModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the same, by another id."""
    return make_run(tmp_path_factory.mktemp("another") / "out", stored, KINDS[:2])


def edit_evidence(run: Path, old: str, new: str) -> None:
    path = run / EVIDENCE_FILE
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")


def edit_trials(run: Path) -> None:
    path = run / "trials.parquet"
    trials = pd.read_parquet(path)
    trials.loc[0, "text"] += " x"
    trials.to_parquet(path)


def test_a_run_is_whole(a_run: Path) -> None:
    assert load_run(a_run).integrity.is_whole
    assert str(load_run(a_run).integrity) == ""


def test_another_layout_of_the_same_evidence_is_no_edit(copy: Path) -> None:
    content = json.loads((copy / EVIDENCE_FILE).read_text())
    (copy / EVIDENCE_FILE).write_text(json.dumps(dict(reversed(content.items()))))
    assert load_run(copy).integrity.is_whole


def test_an_edit_is_named(copy: Path) -> None:
    edit_evidence(copy, '"says": "A sentence."', '"says": "Another."')
    edit_trials(copy)
    (copy / "trials.csv").unlink()
    (copy / "report.md").write_text("all is well")
    found = load_run(copy).integrity
    assert found.edited == (EVIDENCE_FILE, "trials.parquet", "trials.csv")
    assert found.pages == ("report.md",)
    assert str(found) == "edited since the run: evidence.json, trials.parquet, trials.csv"


def test_a_number_that_was_edited_in_its_last_digit_is_an_edit(copy: Path) -> None:
    content = json.loads((copy / EVIDENCE_FILE).read_text())
    content["evidence"][0]["estimate"] *= 1 + 1e-15
    (copy / EVIDENCE_FILE).write_text(to_json(content))
    assert load_run(copy).integrity.edited == (EVIDENCE_FILE,)


@pytest.mark.parametrize("name", ["files", "sha"])
def test_without_its_hashes_nothing_is_whole(copy: Path, name: str) -> None:
    """Whoever edits may take the hashes away: that is no way to a whole run."""
    content = json.loads((copy / EVIDENCE_FILE).read_text())
    del content[name]
    (copy / EVIDENCE_FILE).write_text(to_json(content))
    found = load_run(copy).integrity
    assert not found.is_whole
    assert "has no hashes" in str(found)


def test_a_hash_taken_out_with_the_hash_of_it_made_again_is_an_edit(copy: Path) -> None:
    edit_trials(copy)
    content = json.loads((copy / EVIDENCE_FILE).read_text())
    del content["files"]["trials.parquet"]
    content["sha"] = content_sha(content)
    (copy / EVIDENCE_FILE).write_text(to_json(content))
    assert load_run(copy).integrity.edited == ("trials.parquet",)


@pytest.mark.parametrize("name", [EVIDENCE_FILE, "trials.parquet"])
def test_files_of_two_runs_are_refused_by_name(copy: Path, another: Path, name: str) -> None:
    """New evidence over old trials, or the other way round: what a kill between them once left."""
    shutil.copy(another / name, copy / name)
    with pytest.raises(UsageError, match=r"files of two runs, evidence.json of [0-9a-f]{32} and"):
        load_run(copy)


def test_it_is_said_wherever_the_run_is_shown(copy: Path, a_run: Path) -> None:
    edit_trials(copy)
    edited, whole = load_run(copy), load_run(a_run)
    told = "edited since the run: trials.parquet"
    for text in render_reports(edited).values():
        assert told in text
    for text in render_reports(whole).values():
        assert "edited since" not in text
    found = compare(whole, edited)
    assert f"copy`; {told}\n" in render_comparison(found, whole, edited)
    assert comparison_json(found, whole, edited)["amiss"] == {"A": [], "B": [told]}


def test_a_run_that_is_ready_and_not_moved_is_read_even_while_another_holds_the_folder(
    copy: Path, another: Path
) -> None:
    (copy / READY).mkdir()
    for name in FILES:
        if name != SIGNATURE_FILE:
            shutil.copy2(another / name, copy / READY / name)
    (copy / READY / "trials.parquet").replace(copy / "trials.parquet")  # a kill came here
    with hold(copy, command="a run"):
        assert load_run(copy).run["id"] == load_run(another).run["id"]
        assert load_run(copy).integrity.is_whole
    assert load_run(copy).integrity == load_run(another).integrity
    assert not (copy / READY).exists()
