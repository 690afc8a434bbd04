"""Files are written whole or not at all, and all of a run's together."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from csv import DictReader
from pathlib import Path

import pandas as pd
import pytest

from kv_claims.errors import UsageError
from kv_claims.evidence.stored import load_run
from kv_claims.files.atomic import replace
from kv_claims.files.lock import hold
from kv_claims.plugin import write
from kv_claims.plugin.session import ClaimsSession
from kv_claims.plugin.write import write_reports
from kv_claims.run.ledger import Ledger

FILES = ["evidence.json", "report.html", "report.md", "trials.csv", "trials.parquet"]


class DiskIsFullError(OSError):
    """Stands for whatever ends a write half-way."""


def half(path: Path) -> None:
    path.write_text("half of the new con")
    raise DiskIsFullError


def test_a_write_replaces_the_file(tmp_path: Path) -> None:
    for content in ("first", "second"):
        replace(tmp_path / "a.txt", lambda path, text=content: path.write_text(text))
        assert (tmp_path / "a.txt").read_text() == content
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_a_write_that_fails_leaves_the_earlier_file_whole(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("earlier")
    with pytest.raises(DiskIsFullError):
        replace(tmp_path / "a.txt", half)
    assert (tmp_path / "a.txt").read_text() == "earlier"


def test_a_write_that_fails_leaves_nothing_beside(tmp_path: Path) -> None:
    with pytest.raises(DiskIsFullError):
        replace(tmp_path / "a.txt", half)
    assert not list(tmp_path.iterdir())


def test_a_run_writes_its_files_and_nothing_beside(state: ClaimsSession) -> None:
    write_reports(state)
    found = sorted(path.name for path in state.settings.out.iterdir())
    assert found == sorted([".lock", *FILES, "ledger"])


def test_writing_again_gives_the_same_bytes(state: ClaimsSession) -> None:
    out = state.settings.out
    write_reports(state)
    before = {name: (out / name).read_bytes() for name in FILES}
    write_reports(state)
    assert {name: (out / name).read_bytes() for name in FILES} == before


@pytest.mark.parametrize("name", FILES)
def test_whichever_file_fails_all_are_those_of_the_earlier_run(
    state: ClaimsSession, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    out = state.settings.out
    for file in FILES:
        (out / file).write_text(f"earlier {file}")
    if name == "trials.csv":
        monkeypatch.setattr(pd.DataFrame, "to_csv", lambda _, path, **__: half(path))
    elif name == "trials.parquet":
        monkeypatch.setattr(write, "write_trials", lambda path, *_: half(path))
    else:
        write_text = write.write_text
        monkeypatch.setattr(
            write,
            "write_text",
            lambda path, text: half(path) if path.name == name else write_text(path, text),
        )
    with pytest.raises(DiskIsFullError):
        write_reports(state)
    assert {file: (out / file).read_text() for file in FILES} == {
        file: f"earlier {file}" for file in FILES
    }
    assert sorted(path.name for path in out.iterdir()) == sorted([".lock", *FILES, "ledger"])


def test_every_file_has_its_hash_and_the_evidence_its_own(state: ClaimsSession) -> None:
    write_reports(state)
    out = state.settings.out
    content = json.loads((out / "evidence.json").read_text())
    hashed = {name: hashlib.sha256((out / name).read_bytes()).hexdigest() for name in FILES[1:]}
    assert content["files"] == hashed
    stated = {name: some for name, some in content.items() if name != "sha"}
    text = json.dumps(stated, sort_keys=True, ensure_ascii=False)
    assert content["sha"] == hashlib.sha256(text.encode()).hexdigest()
    assert content["run"]["id"] == state.id
    assert load_run(out).integrity.is_whole


def test_each_run_has_an_id_of_its_own(state: ClaimsSession) -> None:
    assert dataclasses.replace(state).id == state.id
    assert ClaimsSession(state.settings).id != ClaimsSession(state.settings).id


def test_files_are_written_by_the_one_who_holds_the_folder(state: ClaimsSession) -> None:
    with (
        hold(state.settings.out, command="another run"),
        pytest.raises(UsageError, match="another run"),
    ):
        write_reports(state)
    state.hold()
    write_reports(state)
    state.release()


def test_a_run_that_was_broken_off_says_so_wherever_it_is_read(state: ClaimsSession) -> None:
    state.cost.cells = 8
    told = f"incomplete: {state.cells['judged']} of 8 cells"
    write_reports(state)
    out = state.settings.out
    run = json.loads((out / "evidence.json").read_text())["run"]
    assert run["complete"] is False
    assert run["cells"] == state.cells == {"planned": 8, "judged": state.cells["judged"]}
    for name in ("report.md", "report.html"):
        assert told in (out / name).read_text()
    state.cost.cells = 0
    write_reports(state)
    assert json.loads((out / "evidence.json").read_text())["run"]["complete"] is True
    for name in ("report.md", "report.html"):
        assert "incomplete:" not in (out / name).read_text()


def test_trials_of_other_runs_in_the_ledger_are_not_in_the_table(state: ClaimsSession) -> None:
    """The ledger may hold more pairs, more seeds and other arms than this run was about."""
    shard = state.settings.out / "ledger/main.jsonl"
    before = len(shard.read_text().splitlines())
    for one in [*state.evidence, *state.instrument]:
        one["pairs"] = 5
    state.evidence = state.evidence[:1]
    write_reports(state)
    table = pd.read_parquet(state.settings.out / "trials.parquet")
    arms = {*state.evidence[0]["arms"].values(), *state.instrument[0]["arms"].values()}
    assert len(table) == 5 * len(arms) < before
    assert set(table.arm) == arms
    assert table.pair.nunique() == 5


def test_text_that_csv_could_stumble_over_comes_back(state: ClaimsSession) -> None:
    """Quotes, commas, line breaks, and words that pandas would take for missing."""
    texts = ['a "quote", a comma', "two\nlines", "NA", "null", "", "\u2028", "a\r\nb"]
    folder = state.settings.out / "ledger"
    trials = list(Ledger(folder).trials())
    (folder / "main.jsonl").unlink()
    Ledger(folder).append(
        dataclasses.replace(trial, text=texts[i % len(texts)]) for i, trial in enumerate(trials)
    )
    write_reports(state)
    csv = state.settings.out / "trials.csv"
    with csv.open(encoding="utf-8", newline="") as file:
        found = {row["key"]: row["text"] for row in DictReader(file)}
    assert found == {trial.key: texts[i % len(texts)] for i, trial in enumerate(trials)}
    table = pd.read_parquet(csv.with_suffix(".parquet"))
    assert dict(zip(table.key, table.text, strict=True)) == found


def test_claims_of_every_kind_are_written_with_the_trials_they_rest_on(
    every_kind: ClaimsSession,
) -> None:
    write_reports(every_kind)
    out = every_kind.settings.out
    evidence = json.loads((out / "evidence.json").read_text())["evidence"]
    assert [one["claim"] for one in evidence] == [one["claim"] for one in every_kind.evidence]
    frame = pd.read_parquet(out / "trials.parquet")
    every = [*every_kind.evidence, *every_kind.instrument]
    arms = {arm for one in every for arm in one["arms"].values()}
    assert set(frame.arm) == arms
    assert any("every_step" in arm for arm in arms)
    # Geometry is one JSON text a trial; steps are counted.
    assert set(json.loads(frame.geometry[0])) >= {"uncentred/prompt", "uncentred/generated"}
    live = frame[frame.arm.str.contains("every_step")]
    assert (live.fired_steps == live.planned_steps).all()
    assert (live.fired_steps == 8).all()
