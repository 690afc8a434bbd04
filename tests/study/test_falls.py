"""A behavior that sources have less of: the same claim on the words that fall, from run to replay.

Of a planted model's words each is a marker or plain, so the rate of plain words is 100 less that of
markers: what is true of the one, turned upside down, is true of the other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from kv_claims.claims.claim import Region
from kv_claims.claims.patch import Patch
from kv_claims.evidence.compare import compare
from kv_claims.evidence.evidence import Evidence
from kv_claims.evidence.schema import unknown_fields
from kv_claims.evidence.stored import load_run, read_evidence
from kv_claims.planted.catalog import CATALOG
from kv_claims.planted.prompts import planted_task
from kv_claims.plugin.settings import Settings
from kv_claims.replay.run import ReplayedRun
from kv_claims.run.ledger import Ledger
from kv_claims.run.runner import Runner
from kv_claims.run.sampling_settings import Sampling
from kv_claims.study.cell import Cell
from kv_claims.study.study import ModelStudy
from kv_claims.tasks.python_scorer import PythonScorer
from kv_claims.tasks.task import Task
from tests.planted.test_planted_answers import model
from tests.runs import claim, key_of, make_run

NAME, PAIRS, TOKENS = "stored-at-layer", 60, 18
RISING = planted_task(CATALOG[NAME], n_pairs=PAIRS)
FALLING = replace(
    RISING,
    name="plain-words",
    scorer=PythonScorer("plain:rate", "0" * 64, lambda said: 100 - RISING.by_lexicon(said.text)),
    falls=True,
)
HERE, THERE = Patch("kv", "25/32", "last(32)"), Patch("kv", "9", "last(16)")
CELLS: Mapping[str, Cell] = {
    "transfer": Cell.of(claim("transfer", transfer=Region(0.6, 0.95)), "a", HERE),
    "carried": Cell.of(claim("carried", carried=Region(0.6, 0.95)), "a", HERE),
    "difference": Cell.of(claim("difference", difference=Region(low=0.2)), "a", HERE, versus=THERE),
    "nothing": Cell.of(claim("nothing", transfer=Region(high=0.2)), "a", THERE),
}


@cache
def study(task: Task) -> ModelStudy:
    """One for all tests of a task: its cells share arms."""
    return ModelStudy(Runner(model(NAME), task, Sampling(TOKENS), Ledger()), PAIRS, n_seeds=1)


def judged(task: Task, cell: Cell) -> tuple[Evidence, str | None]:
    found, expected = study(task).judge(cell)
    return found, expected and expected.word


@pytest.mark.parametrize("name", CELLS)
def test_what_falls_is_judged_as_what_rises(name: str) -> None:
    up, expected = judged(RISING, CELLS[name])
    down, unknown = judged(FALLING, CELLS[name])
    assert (down.verdict, unknown) == (up.verdict, None)
    assert up.verdict == expected == "supported"
    one, other = up.parts[0], down.parts[0]
    assert other["estimate"] == pytest.approx(one["estimate"])
    assert other["interval"] == pytest.approx(one["interval"])
    assert down.means["source"] == pytest.approx(100 - up.means["source"])
    assert other["outcome"]["falls"] is down.scorer["falls"] is True
    assert other["outcome"]["unit"].endswith("; less of it in the source")
    assert "falls" not in one["outcome"]
    told = next(check["detail"] for check in down.checks if check["name"] == "no-ceiling")
    assert ", which is to fall, one-sided p " in str(told)


@pytest.mark.slow
def test_it_must_fall_where_the_task_says_so_and_rise_where_it_does_not() -> None:
    for task in (replace(FALLING, falls=False), replace(RISING, falls=True)):
        found, expected = judged(task, CELLS["transfer"])
        assert found.verdict == "invalid"
        assert found.reason.startswith("no-ceiling: source - base")
        assert expected == ("invalid" if task.name == RISING.name else None)


def test_a_shift_keeps_its_sign() -> None:
    fell = Cell.of(claim("shift", shift=Region(high=-5.0), margin=5.0), "a", HERE)
    assert judged(FALLING, fell)[0].verdict == "supported"
    assert judged(RISING, fell)[0].verdict == "refuted"


def test_the_tasks_hash_knows_it_where_it_is_said() -> None:
    assert replace(RISING, falls=True).sha != RISING.sha
    assert replace(RISING, falls=False).sha == RISING.sha


@pytest.mark.slow
def test_a_run_of_it_is_read_compared_and_judged_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Settings, "task_of", lambda _self, _model: FALLING)
    cell = CELLS["transfer"]
    out = make_run(tmp_path / "run", model(NAME), [cell], pairs=PAIRS)
    assert not unknown_fields(read_evidence(out / "evidence.json"))
    stored, key = load_run(out), key_of("transfer")
    first = stored.evidence[key]["parts"][0]
    again = stored.judge_again(key)
    assert again is not None
    assert (again.verdicts[0].word, again.verdicts[0].estimate) == ("supported", first["estimate"])
    assert "less of it in the source" in (out / "report.md").read_text(encoding="utf-8")

    (part,) = compare(stored, stored).cells[0].parts
    assert part.difference is not None
    assert part.difference.first == pytest.approx(first["estimate"])

    replayed = ReplayedRun.open(out, (), lambda _model, _file: FALLING, None)
    found, _ = replayed.study(key.model).judge(cell)
    assert (found.verdict, found.parts[0]["estimate"]) == ("supported", first["estimate"])
