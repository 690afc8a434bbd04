"""A test that makes its own table: judged under its claim, with evidence, report and pins."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from kv_claims.claims.claim import Claim, Region
from kv_claims.claims.patch import Patch
from kv_claims.evidence.compare import compare
from kv_claims.evidence.schema import OWN_TABLE
from kv_claims.evidence.stored import Key, load_run
from kv_claims.models.load import LoadedModel
from kv_claims.pins.file import load_pins, save
from kv_claims.pins.pin import Pin
from kv_claims.pins.update import updated
from kv_claims.plugin.claim_test import ClaimTest
from kv_claims.replay.run import ReplayedRun
from kv_claims.run.ledger import Ledger
from kv_claims.run.runner import Runner
from kv_claims.run.sampling_settings import Sampling
from kv_claims.study.study import ModelStudy
from kv_claims.tasks.task import Task
from tests.plugin.project import FILES, PAIRS, SMALL, STORED, Run, run_pytest
from tests.replay.conftest import own_task
from tests.study.test_own_table import table

PATCH = Patch("residual", "9", "last(4)")
CLAIM = Claim("own", says="Own.", cites="a test", transfer=Region(0.7, 0.9))
GPT2: dict[str, Any] = {"model": "gpt2", "n_layers": 12}
Failed = pytest.fail.Exception


class Kept(dict[str, Any]):
    """What a test hands over, by kind; JSON as what it holds."""

    def __call__(self, kind: str, content: str) -> None:
        self[kind] = json.loads(content)


def claim_test(kept: Kept, **told: Any) -> ClaimTest:
    made = {"study": None, "claim": CLAIM, "cell": "a-cell", "strict": False, "record": kept}
    return ClaimTest(
        **{**made, "keep_table": lambda rows: kept("table", rows), **told}  # type: ignore[arg-type]
    )


# --- in a test's hands -----------------------------------------------------------------------


def test_a_table_is_judged_recorded_and_kept_as_trials() -> None:
    kept, frame = Kept(), table()
    evidence = claim_test(kept).judge_table(frame, PATCH, **GPT2)
    assert (evidence.verdict, evidence.verified) == ("supported", False)
    assert kept["claim_evidence"]["verdict"] == "supported"
    rows = pd.DataFrame(kept["table"])
    assert set(rows["study"]) == {evidence.study}
    # To the last digit: what is reported is what was judged.
    assert sorted(rows["score"]) == sorted(frame["score"])


def test_a_bad_table_fails_in_one_line_and_leaves_nothing() -> None:
    kept = Kept()
    test = claim_test(kept)
    with pytest.raises(Failed, match="judge_table: trials: missing columns") as failure:
        test.judge_table(table().drop(columns="arm"), PATCH, **GPT2)
    assert len(str(failure.value).splitlines()) == 1
    assert not kept
    assert test.judge_table(table(), PATCH, **GPT2).verdict == "supported"
    with pytest.raises(Failed, match="own: a test judges one cell, once"):
        test.judge_table(table(), PATCH, **GPT2)


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ({}, "model None, expected the name of the model that the table is of"),
        ({"model": "gpt2"}, "n_layers None, expected how many layers gpt2 has"),
    ],
)
def test_without_a_model_its_name_and_size_are_asked_for(
    told: dict[str, Any], message: str
) -> None:
    with pytest.raises(Failed, match=message):
        claim_test(Kept()).judge_table(table(), PATCH, **told)


def test_a_test_that_runs_no_model_judges_tables_only() -> None:
    with pytest.raises(Failed, match="marked own_table, and no model is run; expected study"):
        claim_test(Kept()).judge(PATCH)


def test_on_a_model_of_the_run_the_table_is_of_it(stored: LoadedModel, stored_task: Task) -> None:
    runner = Runner(stored, stored_task, Sampling(4), Ledger())
    study = ModelStudy(runner, n_pairs=12, n_seeds=1)
    one = claim_test(Kept(), study=study).judge_table(table(), PATCH)
    assert (one.model, one.provenance["n_layers"]) == (STORED, stored.n_layers)
    assert not list(runner.ledger.trials())
    with pytest.raises(Failed, match=f"model 'gpt2', but the test runs on {STORED}"):
        claim_test(Kept(), study=study).judge_table(table(), PATCH, model="gpt2")


def test_a_table_that_moved_from_its_pin_fails(tmp_path: Path) -> None:
    def judged(frame: pd.DataFrame, **told: Any) -> Any:
        own = {"pins_of_tables": lambda model: load_pins(tmp_path, model, None, OWN_TABLE)}
        test = "test_own.py::test_own"
        return claim_test(Kept(), **own, **told, test=test).judge_table(frame, PATCH, **GPT2)

    made: dict[str, Any] = {}
    judged(table(), pin=lambda content: made.update(json.loads(content)))
    empty = load_pins(tmp_path, "gpt2", None, OWN_TABLE)
    save(updated(empty, [Pin.from_dict(made["pin"])], [], {}).file)
    assert judged(table()).pinned["word"] == "as pinned"
    with pytest.raises(Failed, match=r"moved from its pin in .*gpt2.json: verdict: supported -> r"):
        judged(table(patched=3.0))
    with pytest.raises(Failed, match=r"moved from its pin .*: behavior transfer: beyond 0\.05"):
        judged(table(patched=8.2))


# --- a run of pytest -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project that names no model in its settings."""
    made = tmp_path_factory.mktemp("tables")
    (made / "pytest.toml").write_text('[pytest]\nstrict = true\nfilterwarnings = ["error"]\n')
    (made / "conftest.py").write_text(
        'pytest_plugins = ["kv_claims.plugin.hooks", "kv_claims.plugin.short_options"]\n'
    )
    shutil.copy(FILES / "table_claims.py", made / "test_tables.py")
    return made


@pytest.fixture(scope="module")
def without_a_model(folder: Path) -> Run:
    return run_pytest(folder, ".", "-k", "own", "--claims-update", out=folder / "own")


@pytest.fixture(scope="module")
def with_a_model(folder: Path, without_a_model: Run) -> Run:
    assert without_a_model.code == 0, without_a_model.stdout + without_a_model.stderr
    return run_pytest(folder, ".", "--model", STORED, *SMALL, "-n", "2", out=folder / "both")


def test_no_model_is_needed_where_no_test_runs_one(without_a_model: Run) -> None:
    assert "3 cells of 2 claims on no model" in without_a_model.stdout
    assert {(one["claim"], one["cell"]) for one in without_a_model.evidence} == {
        ("own", "9"),
        ("own", "10"),
        ("own-geometry", "only"),
    }
    assert without_a_model.content["run"]["complete"]
    assert not any(one["verified"] for one in without_a_model.evidence)
    report = (without_a_model.out / "report.md").read_text(encoding="utf-8")
    assert "not run: self-patch, full-swap" in report


def test_beside_cells_that_are_run_they_are_cells_like_any_other(
    folder: Path, with_a_model: Run
) -> None:
    """With workers, too: the tables cross, and so do their pins."""
    assert with_a_model.code == 0, with_a_model.stdout + with_a_model.stderr
    assert "verdicts: 4 supported" in with_a_model.stdout
    assert "pins: 3 as pinned" in with_a_model.stdout
    stored = load_run(with_a_model.out)
    own, geometry = Key("own", "9", "gpt2"), Key("own-geometry", "only", "gpt2")
    assert {role: len(rows) for role, rows in stored.roles(own).items()} == dict.fromkeys(
        ("base", "source", "patched", "noise"), 24
    )
    # What is kept is enough to judge each again, of whatever outcome.
    for key in (own, geometry):
        again = stored.judge_again(key)
        assert again is not None
        assert again.verdicts[0].estimate == stored.evidence[key]["estimate"]
    assert not compare(stored, load_run(folder / "own")).cells[0].moved
    assert len(stored.trials[stored.trials["model"] == STORED]) > 4 * PAIRS


def test_of_a_stored_run_what_was_run_is_judged_again_and_no_table(with_a_model: Run) -> None:
    source = ReplayedRun.open(with_a_model.out, (), own_task, None)
    assert source.models == (STORED,)
    assert source.lacks(CLAIM, "9", "gpt2") == "not in the stored run"
