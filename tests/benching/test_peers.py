"""Neighbours compared: near ties told from disagreements, the work cut, the table. No neighbour."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from kv_claims.benching.reference import ARMS, Reference
from kv_claims.benching.timing import Timed
from tests.benchmarks.peers.agreement import NEAR, Parted, Plain, compare
from tests.benchmarks.peers.report import Result, lines_of, ratio, write
from tests.benchmarks.peers.ways import (
    Cut,
    Meaning,
    Rows,
    a_few,
    arm_by_arm,
    at_once,
    greedy,
    in_batches,
    in_order,
)


@pytest.fixture(scope="module")
def small() -> Reference:
    return Reference(24, pairs=2, new_tokens=6)


@pytest.fixture(scope="module")
def engine(small: Reference) -> dict[Meaning, list[list[int]]]:
    return {
        "unpatched": small.bare_loop(),
        "splice": small.engine(),
        "in-prefill": small.engine(site="kv_proj"),
    }


@pytest.mark.parametrize("meaning", ["unpatched", "splice", "in-prefill"])
def test_the_engine_generates_what_the_plain_model_finds_likeliest(
    small: Reference, engine: dict[Meaning, list[list[int]]], meaning: Meaning
) -> None:
    logits = Plain(small).logits(meaning)
    for trial, tokens in enumerate(engine[meaning]):
        for step, token in enumerate(tokens):
            scores = logits(trial, tokens[:step])
            assert scores.max() - scores[token] <= NEAR


def test_another_meaning_is_a_disagreement(
    small: Reference, engine: dict[Meaning, list[list[int]]]
) -> None:
    """So that a patch put into the wrong place, or layer, could not pass."""
    spliced = in_order(engine["splice"])
    logits = Plain(small).logits("splice")
    in_prefill = compare(in_order(engine["in-prefill"]), spliced, logits)
    assert any(not row.is_explained for row in in_prefill)
    other_arm = {trial: spliced[trial // ARMS * ARMS + (trial + 1) % ARMS] for trial in spliced}
    assert any(not row.is_explained for row in compare(other_arm, spliced, logits))


@pytest.mark.parametrize(
    ("found", "parted"),
    [
        ([5, 1, 2], []),
        ([5, 3, 0], [Parted(7, 1, NEAR / 2)]),
        ([5, 0, 2], [Parted(7, 1, 0.5)]),
        ([5, 1], [Parted(7, 2, math.inf)]),
    ],
    ids=["same", "near-tie", "apart", "shorter"],
)
def test_rows_part_at_their_first_difference(found: list[int], parted: list[Parted]) -> None:
    def logits(trial: int, tokens: Sequence[int]) -> torch.Tensor:
        assert (trial, list(tokens)) == (7, [5])
        return torch.tensor([0.5, 1.0, 0.0, 1.0 - NEAR / 2], dtype=torch.float64)

    result = compare({7: found}, {7: [5, 1, 2], 8: [0]}, logits)
    assert [row[:2] for row in result] == [row[:2] for row in parted]
    assert [row.gap for row in result] == pytest.approx([row.gap for row in parted])
    assert [row.is_explained for row in result] == [row.gap < 0.1 for row in parted]


@pytest.mark.parametrize("cut", [at_once, arm_by_arm], ids=["at-once", "arm-by-arm"])
def test_a_cut_has_every_trial_once(small: Reference, cut: object) -> None:
    assert callable(cut)
    batches = cut(small).batches
    assert sorted(t for rows in batches for t in rows.trials) == list(range(small.trials))
    for rows in batches:
        for layer, places, donor in rows.by_layer():
            for place, source in zip(places.tolist(), donor.tolist(), strict=True):
                pair, arm = divmod(rows.trials[place], ARMS)
                assert layer == arm
                assert rows.bases[place].tolist() == small.bases[pair]
                assert rows.sources[source].tolist() == small.sources[pair]


def test_a_few_trials_are_of_several_pairs_and_arms(small: Reference) -> None:
    trials = [trial for rows in a_few(small, 2).batches for trial in rows.trials]
    assert trials == [0, 9]
    assert len(a_few(small, small.trials).batches) == small.trials


def test_batches_come_back_by_the_number_of_the_trial(small: Reference) -> None:
    def generate(rows: Rows) -> torch.Tensor:
        return torch.tensor(list(rows.trials))[:, None]

    found = in_batches("x", "x", "splice", arm_by_arm(small), generate).run()
    assert found == {trial: [trial] for trial in range(small.trials)}
    assert in_batches("x", "x", "splice", Cut("all", []), generate).name == "x, all"


def test_greedy_feeds_what_it_found_and_runs_the_prompt_once() -> None:
    def logits(ids: torch.Tensor, add: int) -> torch.Tensor:
        return torch.nn.functional.one_hot((ids + add) % 10, 10).float()

    ids = torch.tensor([[9, 1], [9, 4]])
    found = greedy(lambda ids: logits(ids, 1), ids, 3, prompt=lambda ids: logits(ids, 3))
    assert found.tolist() == [[4, 5, 6], [7, 8, 9]]


def test_a_ratio_counts_the_trials_that_were_run() -> None:
    timed = Timed({"one": [1.0, 2.0], "all": [2.0, 2.0]})
    assert ratio(timed, "one", "all", {"one": 4, "all": 64}) == (12.0, 8.0, 16.0)


def result(parted: list[Parted], changed: int = 3) -> Result:
    timed = Timed({"w": [2.0, 4.0], "e": [1.0, 1.0]})
    one = ratio(timed, "w", "e", {"w": 4, "e": 4})
    return Result("w", "x", "splice", 4, [2.0, 4.0], one, one, parted, changed)


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (result([]), ""),
        (result([Parted(0, 1, NEAR / 2)]), ""),
        (result([Parted(0, 1, NEAR / 2), Parted(1, 2, 0.3)]), "1 rows disagree"),
        (result([], changed=0), "changed no token"),
    ],
    ids=["same", "near-tie", "disagree", "nothing-patched"],
)
def test_a_failure_is_said_and_written(made: Result, said: str, tmp_path: Path) -> None:
    assert said in made.failure
    assert bool(made.failure) == bool(said)
    lines = lines_of([made], 4)
    assert ("FAILED" in "\n".join(lines)) == bool(said)
    paths = write([made], lines, {"trials": 4}, tmp_path)
    assert [path.name for path in paths] == ["peers.json", "peers.svg"]
    (stored,) = json.loads(paths[0].read_text())["ways"]
    assert stored["failure"] == made.failure
    assert stored["engine"] == {"median": 3.0, "least": 2.0, "most": 4.0}
    assert paths[1].stat().st_size
