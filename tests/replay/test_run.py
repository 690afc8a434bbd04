"""A stored run as a source: what is wrong with it is one error, before anything is judged."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from kv_claims.errors import UsageError
from kv_claims.replay.run import ReplayedRun
from kv_claims.tasks.task import Prompt
from tests.plugin.project import everything_in
from tests.replay.conftest import MODEL, opened, own_task
from tests.runs import KINDS, edited_copy

Spoil = Callable[[Callable[[pd.DataFrame], pd.DataFrame]], Path]


def test_a_model_that_is_not_stored_is_named(a_run: Path) -> None:
    with pytest.raises(UsageError) as error:
        ReplayedRun.open(a_run, ["planted:inert"], own_task, None)
    assert str(error.value) == (
        f"--claims-model planted:inert: no trials of it in {a_run}, expected one of {MODEL}"
    )


def test_a_cell_that_is_not_stored_is_lacking(replayed: ReplayedRun) -> None:
    kind = KINDS[0]
    assert replayed.lacks(kind.claim, "a", MODEL) == ""
    assert replayed.lacks(kind.claim, "b", MODEL) == "not in the stored run"
    assert replayed.lacks(kind.claim, "a", "planted:inert") == "not in the stored run"


def test_likelihoods_that_were_not_kept_are_lacking(copy: Path) -> None:
    (loglik,) = (cell for cell in KINDS if cell.claim.id == "loglik")
    assert opened(copy).lacks(loglik.claim, "a", MODEL) == ""
    shutil.rmtree(copy / "ledger")
    why = opened(copy).lacks(loglik.claim, "a", MODEL)
    assert why == "likelihoods not in ledger/likelihoods of the stored run"


def test_nothing_is_written_into_what_is_replayed(copy: Path) -> None:
    (shard,) = (copy / "ledger/likelihoods").glob("*.jsonl")
    with shard.open("a", encoding="utf-8") as file:
        file.write("a torn line")
    before = everything_in(copy)
    source = opened(copy)
    for cell in KINDS:
        assert source.lacks(cell.claim, "a", MODEL) == ""
        source.study(MODEL).judge(cell)
    assert everything_in(copy) == before


def test_the_trials_are_those_that_the_evidence_rests_on(replayed: ReplayedRun) -> None:
    evidence = list(replayed.stored.evidence.values())
    table = replayed.trials(evidence)
    stored = replayed.stored.trials
    assert set(table["key"]) == set(stored["key"])
    order = ["model", "study", "arm", "pair_index", "seed"]
    one, other = (t.sort_values(order).reset_index(drop=True) for t in (table, stored))
    pd.testing.assert_frame_equal(one, other[list(one.columns)], check_dtype=False)
    few = [one for one in evidence if one["claim"] == "gap"]
    assert set(replayed.trials(few)["arm"]) == set(few[0]["arms"].values())


def without_evidence(content: dict[str, Any]) -> None:
    content["evidence"] = []


def test_a_run_without_a_verdict_is_refused(a_run: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"evidence\.json: no verdict on trials of ours in it"):
        opened(edited_copy(a_run, tmp_path / "edited", without_evidence))


def doubled(trials: pd.DataFrame) -> pd.DataFrame:
    return pd.concat([trials.iloc[1:], trials.iloc[-1:]], ignore_index=True)


SPOILED: dict[str, tuple[Callable[[pd.DataFrame], pd.DataFrame], str]] = {
    "a trial twice": (doubled, r"rests on|stand twice"),
    "text for a score": (
        lambda t: t.assign(score=["many", *map(str, t["score"].iloc[1:])]),
        "column 'score' holds something else",
    ),
    "no score": (
        lambda t: t.assign(score=[float("nan"), *t["score"].iloc[1:]]),
        "1 trials have no score, such as",
    ),
    "another score": (
        lambda t: t.assign(score=[t["score"].iloc[0] + 1, *t["score"].iloc[1:]]),
        "1 scores are not those of their texts, such as",
    ),
    "no column": (lambda t: t.drop(columns="margin"), r"missing columns \['margin'\]"),
    "fewer trials": (lambda t: t.iloc[1:], "its evidence rests on"),
    "no arm": (lambda t: t[t["arm"] != "source"], "no trials of arm 'source'"),
}


@pytest.mark.parametrize("what", SPOILED)
def test_trials_that_are_spoiled_are_refused(what: str, spoil: Spoil) -> None:
    edit, told = SPOILED[what]
    folder = spoil(edit)
    with pytest.raises(UsageError, match=told) as error:
        opened(folder)
    assert "trials.parquet" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_row_that_stands_twice_among_arms_that_no_cell_has_is_found(spoil: Spoil) -> None:
    def add(trials: pd.DataFrame) -> pd.DataFrame:
        more = trials.iloc[[0, 0]].assign(arm="mine")
        return pd.concat([trials, more], ignore_index=True)

    with pytest.raises(UsageError, match="1 trials stand twice, such as arm 'mine'"):
        opened(spoil(add))


# --- tasks ------------------------------------------------------------------------------------


def test_another_task_of_its_own_is_no_task_of_the_run(a_run: Path) -> None:
    def changed(model: str, file: Path | None) -> Any:
        task = own_task(model, file)
        return replace(task, lexicon=task.lexicon | {"qzx"}, where="task file mine.yaml")

    with pytest.raises(UsageError, match=r"mine\.yaml: not the task of .* give --claims-task FILE"):
        ReplayedRun.open(a_run, (), changed, None)


def test_prompts_that_are_not_those_of_the_run_are_named(a_run: Path) -> None:
    task = own_task(MODEL, None)
    other = Prompt(task.bases[0].id, task.bases[0].family, "another text")
    changed = replace(task, bases=(other, *task.bases[1:]), where="task file mine.yaml")
    with pytest.raises(UsageError) as error:
        opened(a_run, changed)
    assert "task file mine.yaml: not the prompts of" in str(error.value)
    assert "1 of 30 pairs are not among its pairs" in str(error.value)
    assert f"no base has the text of its {task.bases[0].id!r}" in str(error.value)
    swapped = replace(task, bases=(task.bases[1], task.bases[0], *task.bases[2:]))
    with pytest.raises(UsageError, match=r"2 of 30 pairs .* are not paired"):
        opened(a_run, swapped)


def test_the_runs_own_task_given_by_hand_changes_nothing(a_run: Path) -> None:
    source = opened(a_run, own_task(MODEL, None))
    assert source.facts()["replay"]["scored_by"] is None
    assert source.study(MODEL).judge(KINDS[0])[0].verified
