"""A map of planted models: each cell is what the model's description says it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from kv_claims.errors import UsageError
from kv_claims.maps.asked import Asked
from kv_claims.maps.estimate import Estimate, Gap, estimates
from kv_claims.maps.measure import Map
from kv_claims.models.load import load_model
from kv_claims.planted.catalog import CATALOG
from kv_claims.planted.prompts import planted_task
from kv_claims.planted.truth import expected_means, true_transfer
from kv_claims.planted.words import MARKERS, PLAIN
from kv_claims.run.ledger import Ledger
from kv_claims.run.runner import Runner
from kv_claims.run.sampling_settings import Sampling
from kv_claims.tasks.answers import Answers
from kv_claims.tasks.task import Task

PAIRS = 16
TOKENS = 6


def answered(name: str) -> Task:
    """Sources answered by markers, bases by plain words: by one, or by two, as nothing could be
    tested without spread."""
    task = planted_task(CATALOG[name], n_pairs=PAIRS)
    sides = (
        tuple(
            replace(one, answers=Answers("".join(f" {words[k + n]}" for n in range(1 + k % 2))))
            for k, one in enumerate(side)
        )
        for side, words in ((task.sources, MARKERS), (task.bases, PLAIN))
    )
    return replace(task, sources=next(sides), bases=next(sides))


def opened(name: str, asked: Asked, task: Task | None = None) -> Map:
    task = answered(name) if task is None else task
    model = load_model(f"planted:{name}", device="cpu", dtype="float64")
    runner = Runner(model, task, Sampling(TOKENS), Ledger())
    return Map(runner, asked, task.first_pairs(PAIRS))


def mapped(name: str, asked: Asked) -> tuple[Sequence[Estimate], Gap, Map]:
    found = opened(name, asked)
    rows, gap = estimates(found.run(lambda _: None), asked)
    return rows, gap, found


def varies(found: Map, one: Estimate) -> bool:
    """Whether a cell moves some pairs further than others."""
    scores = found.run(lambda _: None).table.set_index(["arm", "pair"])["score"]
    return float((scores[one.arm] - scores["base"]).std()) > 1e-6


@pytest.mark.parametrize(
    ("name", "asked"),
    [
        ("stored-at-layer", Asked("kv", "3,8,9,11,12,13", "last(32),first(4)")),
        ("through-blocks", Asked("z", "8,9,12", "at(-1)", heads="each")),
        ("through-blocks", Asked("residual", "8,9,12", "at(-1),last(8)")),
        ("through-blocks", Asked("mlp_out", "9,12", "at(-1)", outcome="prob")),
        ("standing", Asked("z", "8,9,12", "at(-1)", heads="each", donor="zero")),
    ],
    ids=str,
)
def test_every_cell_is_its_truth(name: str, asked: Asked) -> None:
    rows, gap, found = mapped(name, asked)
    assert gap.is_clear
    task, planted = found.runner.task, CATALOG[name]
    assert len(rows) + len(found.skipped) == len(
        asked.cells(16, 2 if asked.heads else 0, found.shortest)
    )
    lit = set()
    for one in rows:
        patch = one.cell.patch
        if asked.estimand == "transfer":
            truth = true_transfer(planted, patch, task, over="pairs", outcome=asked.outcome)
        else:
            base, _, patched = expected_means(
                planted, patch, task, over="pairs", outcome=asked.outcome
            )
            truth = patched - base
        assert one.estimate == pytest.approx(truth, abs=1e-6), patch
        # What is the same in every pair has no test, here as in a verdict.
        if abs(truth) > 1e-9 and varies(found, one):
            lit.add((one.cell.row, one.cell.column))
    assert {(one.cell.row, one.cell.column) for one in rows if one.is_marked} == lit
    assert len(lit) < len(rows)


def test_cells_that_are_not_there_or_say_nothing_are_skipped_by_name() -> None:
    found = opened("stored-at-layer", Asked("residual", "3,15,16,40", "at(-1),at(-2)"))
    assert [str(cell.patch) for cell, _ in found.cells] == [
        "residual@3/at(-1)",
        "residual@3/at(-2)",
    ]
    whys = {str(one.cell.patch): one.why.split(":")[0] for one in found.skipped}
    assert whys == {
        "residual@15/at(-1)": "measured-where-patched",
        "residual@15/at(-2)": "null-by-construction",
        **{f"residual@{n}/at({k})": "no-such-cell" for n in (16, 40) for k in (-1, -2)},
    }


def test_each_position_is_counted_back_over_the_shortest_prompt() -> None:
    found = opened("stored-at-layer", Asked("kv", "12", "each"))
    lengths = [
        len(found.runner.rows.tokens(prompt))
        for pair in found.pairs
        for prompt in (pair.source, pair.base)
    ]
    assert min(lengths) < max(lengths)
    columns = [cell.column for cell, _ in found.cells]
    assert columns == [f"at({-k})" for k in range(min(lengths), 1, -1)]


def test_a_map_goes_on_from_its_ledger_and_reports_every_row() -> None:
    asked = Asked("kv", "11,12", "last(8),last(32)")
    found = opened("stored-at-layer", asked)
    seen: list[int] = []
    first = found.run(seen.append)
    assert sum(seen) == found.rows == 6 * PAIRS
    held = len(list(found.runner.ledger.answers.all()))
    again = found.run(seen.append)
    assert len(list(found.runner.ledger.answers.all())) == held == found.rows
    assert first.table.equals(again.table)
    assert first.oracle is not None
    assert first.oracle[0] < 1e-5


@pytest.mark.parametrize("outcome", ["loglik", "behavior"])
def test_outcomes_of_generated_texts_are_mapped_too(outcome: str) -> None:
    rows, gap, _ = mapped("stored-at-layer", Asked("kv", "11,12", "last(32)", outcome=outcome))
    assert gap.is_clear
    assert {one.cell.row: one.is_marked for one in rows} == {"11": False, "12": True}
    assert np.isclose(rows[0].estimate, 0.0, atol=1e-9)


def test_what_the_pairs_do_not_have_is_refused() -> None:
    own = planted_task(CATALOG["stored-at-layer"], n_pairs=PAIRS)
    with pytest.raises(UsageError, match="answer"):
        opened("stored-at-layer", Asked("kv", "12", "last(8)"), own)
    with pytest.raises(UsageError, match="are the same on"):
        opened("stored-at-layer", Asked("kv", "12,25/32", "last(8)"))
    with pytest.raises(UsageError, match="none of 1 cells can be measured"):
        opened("stored-at-layer", Asked("kv", "16", "last(8)"))
    with pytest.raises(UsageError, match="span"):
        opened("stored-at-layer", Asked("kv", "12", "last(subject)"))
