"""A stored run read again: the tables and verdicts that stand in it, and all that is no run."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from kv_claims.claims.claim import Region
from kv_claims.claims.patch import Patch
from kv_claims.errors import UsageError
from kv_claims.evidence.evidence import plain
from kv_claims.evidence.stored import load_run, trials_of
from kv_claims.models.load import load_model
from kv_claims.plugin.settings import LEDGER_FOLDER
from kv_claims.run.ledger import Ledger
from kv_claims.study.cell import Cell
from tests.runs import KINDS, PAIRS, claim, edited_copy, key_of, make_run

pytestmark = pytest.mark.filterwarnings("error")
UNSEEN = {"loglik", "pasted"}
"""Claims whose scores are not among the trials, or for which nothing was run."""


@pytest.mark.parametrize("name", [cell.claim.id for cell in KINDS if cell.claim.id not in UNSEEN])
def test_judged_again_a_cell_has_the_verdict_that_stands(name: str, a_run: Path) -> None:
    run = load_run(a_run)
    one, again = run.evidence[key_of(name)], run.judge_again(key_of(name))
    assert again is not None
    assert (again.combined.word, again.combined.reason) == (one["verdict"], one["reason"])
    assert again.combined.p_supported == one["p_supported"]
    for part, verdict in zip(one["parts"], again.verdicts, strict=True):
        interval = list(verdict.interval) if verdict.interval else None
        assert (verdict.word, verdict.estimate, interval, verdict.level) == (
            part["verdict"],
            part["estimate"],
            part["interval"],
            part["level"],
        )
        assert verdict.means == part["means"]
        assert plain(verdict.controls) == part["controls"]


def test_geometry_that_contracts_is_judged_again(tmp_path: Path) -> None:
    """The source lies below the base: read as a score, there would be nothing to transfer."""
    asserted = claim("contracts", transfer=Region(-0.5, 0.5), outcome="rv")
    cell = Cell.of(asserted, "a", Patch("v_proj", "18/32", "last(32)"))
    model = load_model("planted:geometry-only", device="cpu")
    run = load_run(make_run(tmp_path, model, [cell], pairs=10))
    (key,) = run.evidence
    again = run.judge_again(key)
    assert again is not None
    assert again.combined.word == run.evidence[key]["verdict"] != "invalid"
    assert again.verdicts[0].means["source"] < again.verdicts[0].means["base"]


def test_another_score_is_another_verdict(a_run: Path) -> None:
    run = load_run(a_run)
    patched = run.trials["arm"] == run.evidence[key_of("nothing")]["arms"]["patched"]
    run.trials.loc[patched, "score"] += 50
    again = run.judge_again(key_of("nothing"))
    assert again is not None
    assert again.combined.word == "refuted"


def test_a_table_has_the_arms_that_are_judged_and_the_controls(a_run: Path) -> None:
    table = load_run(a_run).table(key_of("order"), 0)
    assert table is not None
    assert {"pair", "arm", "seed", "score", "source", "base"} <= set(table.columns)
    assert set(table["arm"]) == {"base", "source", "patched", "versus", "unrelated-base", "noise"}
    assert set(table.groupby("arm").size()) == {PAIRS}
    gap = load_run(a_run).table(key_of("gap"), 0)
    assert gap is not None
    assert set(gap["arm"]) == {"base", "source"}


def test_a_cell_that_stopped_early_has_its_own_pairs_only(a_run: Path) -> None:
    table = load_run(a_run).table(key_of("looks"), 0)
    assert table is not None
    assert table["pair"].nunique() == 10


def test_likelihoods_and_what_was_not_run_have_no_table(a_run: Path) -> None:
    run = load_run(a_run)
    for name in UNSEEN:
        assert run.table(key_of(name), 0) is None
        assert run.judge_again(key_of(name)) is None
    assert run.roles(key_of("pasted")) == {}


def test_trials_are_those_of_the_ledger(a_run: Path) -> None:
    found = {trial.key: trial for trial in trials_of(load_run(a_run).trials)}
    ledger = {trial.key: trial for trial in Ledger(a_run / LEDGER_FOLDER).trials()}
    assert set(found) <= set(ledger)
    assert len(found) > 100
    assert found == {key: ledger[key] for key in found}


def test_trials_of_another_version_are_named(a_run: Path) -> None:
    with pytest.raises(UsageError, match=r"missing columns .*'margin'"):
        trials_of(load_run(a_run).trials.drop(columns="margin"))


def test_what_a_run_writes_is_read_by_the_strict_reader(a_run: Path) -> None:
    """Every field of it is one that the types have, and every object that may be empty is whole."""
    run = load_run(a_run)
    assert run.unknown == ()
    assert run.note == ""


def test_a_field_of_a_later_version_is_said_and_stays(a_run: Path, tmp_path: Path) -> None:
    def later(content: dict[str, Any]) -> None:
        content["evidence"][0]["mood"] = "good"
        content["run"]["signed_by"] = "\x1b[2J"

    run = load_run(edited_copy(a_run, tmp_path / "later", later))
    assert run.unknown == ("$.run.signed_by", "$.evidence[...].mood")
    assert "$.evidence[...].mood; written by 0.1.0" in run.note
    assert next(iter(run.evidence.values()))["mood"] == "good"


# --- what is no run -------------------------------------------------------------------------


def first(content: dict[str, Any]) -> dict[str, Any]:
    return dict(content["evidence"][0])


EDITS: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "other schema": (lambda c: c.update(schema=2), "schema 2, expected 1"),
    "no list": (lambda c: c.update(evidence={}), r"\$\.evidence: expected array, got object"),
    "no run": (lambda c: c.pop("run"), "missing required field run"),
    "no object": (
        lambda c: c["evidence"].insert(0, 3),
        r"\$\.evidence\[0\]: expected object, got int",
    ),
    "no pairs": (lambda c: c["evidence"][0].pop("pairs"), "missing required field pairs"),
    "no arms": (
        lambda c: c["evidence"][0].update(arms=[]),
        r"\$\.evidence\[0\]\.arms: expected object, got array",
    ),
    "no layers": (
        lambda c: c["evidence"][0]["provenance"].pop("n_layers"),
        r"missing required field n_layers",
    ),
    "no alpha": (
        lambda c: c["evidence"][0]["multiplicity"].pop("alpha"),
        "missing required field alpha",
    ),
    "no parts": (lambda c: c["evidence"][0].update(parts=[]), "array of length >= 1"),
    "half a part": (
        lambda c: c["evidence"][0]["parts"][0].pop("region"),
        "missing required field region",
    ),
    "no region": (
        lambda c: c["evidence"][0]["parts"][0]["region"].update(low=0.9, high=0.7),
        "expected low < high",
    ),
    "no command line": (lambda c: c["run"].update(command="a 'b"), r"\$\.run\.command: No closing"),
    "a premise first": (
        lambda c: c["evidence"][0]["parts"][0].update(given=True),
        r"parts\[0\]\.given: true, expected",
    ),
    "no such outcome": (
        lambda c: c["evidence"][0]["parts"][0]["outcome"].update(name="mood"),
        r"\$\.evidence\[0\]: outcome 'mood'",
    ),
    "half a text": (
        lambda c: c["evidence"][0]["texts"].pop("base"),
        r"\$\.evidence\[0\]\.texts: \$: object missing required field base",
    ),
    "half of where it ran": (
        lambda c: c["evidence"][0]["provenance"].pop("cores"),
        "missing required field cores",
    ),
    "another geometry": (
        lambda c: c["evidence"][0]["geometry"].pop(),
        r"\$\.evidence\[\d\]\.geometry: not the outcomes",
    ),
    "many layers": (
        lambda c: c["evidence"][0]["provenance"].update(n_layers=10**9),
        "n_layers: expected int <= 10000",
    ),
    "an interval of one end": (
        lambda c: c["evidence"][0]["parts"][0].update(interval=[0.5]),
        r"parts\[0\]\.interval: expected array of length >= 2",
    ),
    "a huge number": (
        lambda c: c["evidence"][0].update(estimate=1e200),
        r"\$\.evidence\[0\]\.estimate: expected float <= 1e\+150",
    ),
    "twice": (lambda c: c["evidence"].append(first(c)), "stands twice"),
}


@pytest.mark.parametrize("what", EDITS)
def test_evidence_that_is_none_is_refused(what: str, a_run: Path, tmp_path: Path) -> None:
    edit, told = EDITS[what]
    with pytest.raises(UsageError, match=told):
        load_run(edited_copy(a_run, tmp_path / "edited", edit))


@pytest.mark.parametrize(
    ("text", "told"),
    [("{", "no JSON"), ("[]", "schema 'list'"), ("{}", "schema None"), ("\xff", "no JSON")],
)
def test_a_file_that_is_no_evidence_is_refused(text: str, told: str, tmp_path: Path) -> None:
    (tmp_path / "evidence.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(UsageError, match=told):
        load_run(tmp_path)


def test_a_folder_without_evidence_is_refused(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "not there"):
        with pytest.raises(UsageError, match=r"evidence\.json: cannot be read"):
            load_run(folder)


@pytest.fixture
def copy(a_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(a_run, tmp_path / "copy"))


def test_a_run_without_its_trials_is_refused(copy: Path) -> None:
    (copy / "trials.parquet").unlink()
    with pytest.raises(UsageError, match=r"trials\.parquet: cannot be read \(No such file"):
        load_run(copy)


def test_trials_that_are_no_table_of_trials_are_refused(copy: Path) -> None:
    (copy / "trials.parquet").write_text("pair,arm")
    with pytest.raises(UsageError, match="cannot be read as Parquet"):
        load_run(copy)
    pd.DataFrame({"pair": ["a"]}).to_parquet(copy / "trials.parquet")
    with pytest.raises(UsageError, match=r"missing columns .*'arm'"):
        load_run(copy)


@pytest.mark.parametrize("column", ["arm", "text", "source_tokens_sha", "base_tokens_sha"])
def test_a_text_that_is_missing_in_a_row_is_refused(copy: Path, column: str) -> None:
    """Rows without a prompt's hash would fall out of every cluster, and their arm with them."""
    trials = pd.read_parquet(copy / "trials.parquet")
    trials.loc[0, column] = None
    trials.to_parquet(copy / "trials.parquet")
    with pytest.raises(UsageError, match=f"column '{column}' holds something else"):
        load_run(copy)


def test_trials_that_are_missing_are_named(copy: Path) -> None:
    trials = pd.read_parquet(copy / "trials.parquet")
    trials.iloc[1:].to_parquet(copy / "trials.parquet")
    lacking = load_run(copy)
    with pytest.raises(UsageError, match=r"trials of gap, cell a on .*rests on"):
        lacking.roles(key_of("gap"))
    trials[trials["arm"] != "source"].to_parquet(copy / "trials.parquet")
    lacking = load_run(copy)
    with pytest.raises(UsageError, match="no trials of arm 'source'"):
        lacking.table(key_of("transfer"), 0)


def test_a_run_of_which_nothing_was_run_is_a_run(a_run: Path, tmp_path: Path) -> None:
    def only_pasted(content: dict[str, Any]) -> None:
        content["evidence"] = [one for one in content["evidence"] if one["claim"] == "pasted"]

    folder = edited_copy(a_run, tmp_path / "empty", only_pasted)
    pd.DataFrame().to_parquet(folder / "trials.parquet")
    assert load_run(folder).table(key_of("pasted"), 0) is None


def test_the_evidence_is_left_as_it_was(a_run: Path) -> None:
    before = (a_run / "evidence.json").read_bytes()
    run = load_run(a_run)
    run.judge_again(key_of("both"))
    assert (a_run / "evidence.json").read_bytes() == before
    assert list(run.evidence.values()) == json.loads(before)["evidence"]
