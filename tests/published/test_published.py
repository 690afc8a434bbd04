"""The published protocol: each defect does what it says and no more, and without any it is ours."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from kv_claims import run_study
from kv_claims.models.load import LoadedModel, load_model
from kv_claims.patch.build import build
from kv_claims.planted.prompts import planted_task
from kv_claims.published.defects import (
    ALL,
    CELLS,
    DEFECTS,
    DEGENERATE,
    DUPLICATE,
    ENGINE,
    NO_CEILING,
    ONE_TRIAL,
    SUBSTRINGS,
    UNCALIBRATED,
    UNROTATED,
)
from kv_claims.published.engine import DefectiveRunner, no_rotation
from kv_claims.published.replay import MOST_PAIRS, NONE, Replay, replay_published
from kv_claims.published.sample import BEST_CELL, explain_best_cell
from kv_claims.published.scoring import Hit, bonus, hits, scorer_under
from kv_claims.run.arms import BASE, SOURCE, patched
from kv_claims.run.ledger import Ledger
from kv_claims.run.runner import Runner
from kv_claims.run.sampling_settings import Sampling
from kv_claims.study.study import no_progress
from kv_claims.tasks.load import load_task
from kv_claims.tasks.scorers import Lexicon, Published
from kv_claims.tasks.task import Pair, Prompt, Task
from tests.conftest import ROOT

PAIRS, TOKENS = 12, 12
ARMS = [patched(patch) for patch in CELLS.values()]
TEXTS = [
    "",
    "nothing of the kind",
    "a complex process that involved itself",
    "Rewriting, mirrored: the SELF-aware looping observer returned.",
    "again and again " * 5,
    "the loop the loop the loop the loop itself",
]


@pytest.fixture(scope="module")
def prose() -> Task:
    return load_task(ROOT / "claims/tasks/self_observation.yaml")


@pytest.fixture(scope="module")
def replay(stored: LoadedModel, stored_task: Task) -> Replay:
    """Twelve pairs of the model that stores its behavior in layer 12."""
    pairs = stored_task.first_pairs(PAIRS)
    return Replay(stored, stored_task, Sampling(TOKENS), pairs, drawn=7)


def runner_of(replay: Replay, *defects: str) -> DefectiveRunner:
    return DefectiveRunner(
        replay.model, replay.task, replay.sampling, Ledger(), defects=frozenset(defects)
    )


# The score


@pytest.mark.parametrize("text", TEXTS)
def test_with_all_its_defects_the_score_is_the_published_one(text: str) -> None:
    assert scorer_under(ALL, frozenset())(text) == Published()(text)


@pytest.mark.parametrize("text", TEXTS)
def test_without_any_the_score_is_the_lexicons(text: str) -> None:
    words = frozenset({"itself", "process"})
    scorer = scorer_under(NONE, words)
    assert (scorer(text), scorer.unit) == (Lexicon(words)(text), Lexicon(words).unit)


def test_a_marker_counts_as_a_word_or_as_letters_in_one() -> None:
    text = "The process of rewriting itself"
    assert hits(text) == [
        Hit("itself", ("itself",), "whole word"),
        Hit("self", ("itself",), "substring"),
        Hit("process", ("process",), "whole word"),
        Hit("writing", ("rewriting",), "substring"),
    ]
    assert scorer_under({SUBSTRINGS, UNCALIBRATED}, frozenset())(text) == 4
    assert scorer_under({UNCALIBRATED}, frozenset())(text) == 2


def test_the_bonus_is_for_repetition_alone() -> None:
    assert [bonus(text) for text in TEXTS] == [0, 0, 0, 0, 5, 0]
    lexicon = frozenset({"again"})
    assert scorer_under({DEGENERATE}, lexicon)(TEXTS[4]) == Lexicon(lexicon)(TEXTS[4]) + 5


# The engine


def doubled(prompt: Prompt) -> Prompt:
    return replace(prompt, text=f"{prompt.text} {prompt.text.split()[-1]}")


def on_the_luck_of(pair: Pair, other: Pair) -> Pair:
    """The same pair under another's id, from which its uniforms are made."""
    pair.__dict__["id"] = other.id
    return pair


def test_a_last_token_fed_twice_is_a_prompt_that_ends_with_it_twice(replay: Replay) -> None:
    task = replay.task
    by_hand = replace(
        task,
        sources=tuple(map(doubled, task.sources)),
        bases=tuple(map(doubled, task.bases)),
    )
    pairs = [
        on_the_luck_of(pair, other)
        for pair, other in zip(by_hand.first_pairs(PAIRS), replay.pairs, strict=True)
    ]
    wanted = Runner(replay.model, by_hand, replay.sampling, Ledger()).run(ARMS, pairs, [0])
    found = runner_of(replay, DUPLICATE).run(ARMS, replay.pairs, [0])
    right = runner_of(replay).run(ARMS, replay.pairs, [0])
    assert [trial.tokens for trial in found] == [trial.tokens for trial in wanted]
    assert [trial.tokens for trial in found] != [trial.tokens for trial in right]
    assert {a.cached_slots - b.cached_slots for a, b in zip(found, right, strict=True)} == {1}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
def test_no_rotation_leaves_keys_as_they_are(stored: LoadedModel, dtype: torch.dtype) -> None:
    keys = torch.randn(5, 2, 8, generator=torch.Generator().manual_seed(0)).to(dtype)
    turned = no_rotation(stored)(3, keys, torch.tensor([0, 1, -7, 100, 3]))
    assert turned.dtype == dtype
    assert torch.equal(turned, keys)


@pytest.mark.parametrize("unrotated", [True, False], ids=["unrotated", "rotated"])
def test_unrotated_keys_stand_in_the_cache_as_the_source_had_them(
    replay: Replay, unrotated: bool
) -> None:
    runner = runner_of(replay, *([UNROTATED] if unrotated else []))
    pair = next(pair for pair in replay.pairs if runner.rows.moves(pair))
    arm = runner.canonical(patched(CELLS["L25-w16"]))
    runner.check([arm], [pair])
    runner.prefill([(pair, arm)])
    plan = runner.rows.plan(arm, pair, 0, runner.store)
    slab = build(runner.store, [plan], runner.rows.rotation, headroom=0).slab
    (layer,) = plan.writes[0].layers
    there = runner.store.keys[layer][runner.store.index(runner.rows.tokens(pair.source)), :, -16:]
    assert torch.equal(slab.keys[layer][0, :, -16:], there) == unrotated


def test_the_engines_are_compared_with_no_patch_and_with_the_oracle(replay: Replay) -> None:
    right, double, unrotated = replay.engines()
    assert right["defect"] is None
    assert (right["self_patch_changed"], right["patched_changed"]) == (0, 0)
    assert right["keys_error"] < 1e-5
    assert double["defect"] == DUPLICATE
    assert double["patched_changed"] > 0
    assert double["keys_error"] < 1e-5
    assert unrotated["defect"] == UNROTATED
    assert unrotated["keys_error"] > 0.1
    # A prompt's own cache does not move: a self-patch cannot see keys that are not rotated.
    assert unrotated["self_patch_changed"] == 0


# The table


def test_without_any_defect_the_numbers_are_those_of_run_study(replay: Replay) -> None:
    wanted = run_study(
        replay.model, replay.task, CELLS, pairs=PAIRS, max_new_tokens=TOKENS
    ).set_index(["arm", "pair"])
    found = replay.scores(NONE).set_index(["arm", "pair"])
    assert found["score"].to_dict() == wanted["score"].to_dict()
    assert found["text"].to_dict() == wanted["text"].to_dict()
    row = replay.row(NONE)
    means = wanted.groupby("arm")["score"].mean()
    assert row["cells"] == pytest.approx({cell: means[cell] for cell in CELLS})
    assert (row["base"], row["source"]) == pytest.approx((means["base"], means["source"]))
    shares = [(means[cell] - means["base"]) / (means["source"] - means["base"]) for cell in CELLS]
    assert row["transfer"] == pytest.approx(sum(shares) / 8)


def test_the_table_turns_off_one_defect_a_row(replay: Replay) -> None:
    rows = replay.rows()
    names = [defect.name for defect in DEFECTS]
    assert [row["turned_off"] for row in rows] == [None, *names]
    assert [row["defects"] for row in rows] == [names[k:] for k in range(len(names) + 1)]
    assert rows[-1] == {**replay.row(NONE), "turned_off": names[-1]}
    for above, row in pairwise(rows):
        if row["unit"] == above["unit"]:
            assert row["change"] == row["delta"] - above["delta"]
        else:
            assert row["change"] is None
    assert [row["unit"] for row in rows].count("markers present") == len(names)


def test_one_trial_is_one_pair_on_luck_that_is_told(replay: Replay) -> None:
    row = replay.row(ALL)
    assert row["pairs"] == 1
    assert row["source"] is None
    assert row["transfer"] is None
    assert row["reads"].endswith("transfer not identifiable: no source arm")
    assert row["words"] == {claim: {"invalid": 8} for claim in row["words"]}
    again = Replay(replay.model, replay.task, replay.sampling, replay.pairs, drawn=replay.drawn)
    assert again.row(ALL) == row
    seeds = [trials[0].seed for (_, _, one), trials in again._trials.items() if one]
    assert sorted(seeds) == [7, *range(9, 17)]


def test_luck_is_drawn_anew_unless_it_is_given(replay: Replay) -> None:
    drawn = {
        Replay(replay.model, replay.task, replay.sampling, replay.pairs).drawn for _ in range(3)
    }
    assert len(drawn) == 3


@pytest.mark.parametrize(
    ("defect", "same"),
    [
        (ONE_TRIAL, lambda row: row["pairs"] == 1 and row["transfer"] is None),
        (NO_CEILING, lambda row: row["pairs"] == PAIRS and row["source"] is None),
        (SUBSTRINGS, lambda row: row["transfer"] is not None),
        (DEGENERATE, lambda row: row["transfer"] is not None),
    ],
)
def test_a_defect_alone_changes_what_it_says(
    replay: Replay, defect: str, same: Callable[[dict[str, object]], bool]
) -> None:
    row, right = replay.row({defect}), replay.row(NONE)
    assert same(row)
    if defect == NO_CEILING:
        assert row["cells"] == right["cells"]
    if defect == SUBSTRINGS:
        # Whole words of the lexicon are counted: how the old markers are found is no matter.
        assert row == {**right, "defects": [SUBSTRINGS]}


def test_base_and_source_are_generated_in_the_usual_way() -> None:
    # A source of which only the first quarter says something: its last token twice is less of it.
    model = load_model("planted:early-tokens", device="cpu")
    assert model.planted is not None
    task = planted_task(model.planted, PAIRS)
    replay = Replay(model, task, Sampling(TOKENS), task.pairs)
    usual, twice = (
        [trial.text for trial in runner_of(replay, *defects).run([BASE, SOURCE], task.pairs, [0])]
        for defects in ((), (DUPLICATE,))
    )
    found = replay.scores(ENGINE)
    assert found["text"][found["arm"].isin(["base", "source"])].tolist() == usual != twice


@pytest.mark.slow
def test_collapse_is_a_success_with_the_bonus_and_invalid_without() -> None:
    model = load_model("planted:collapse", device="cpu")
    assert model.planted is not None
    task = planted_task(model.planted, PAIRS)
    replay = Replay(model, task, Sampling(40), task.pairs)
    paid = replay.row(ALL - {ONE_TRIAL, NO_CEILING})
    unpaid = replay.row({SUBSTRINGS, UNCALIBRATED})
    assert paid["best"] - unpaid["cells"][paid["best_cell"]] > 4
    assert not paid["degenerate_cells"]
    assert paid["best_cell"] in unpaid["degenerate_cells"]
    assert unpaid["words"]["~80%"]["invalid"] == len(unpaid["degenerate_cells"])


@pytest.mark.slow
def test_every_planned_trial_is_run_once(
    stored: LoadedModel, stored_task: Task, prose: Task
) -> None:
    runner = Runner(stored, stored_task, Sampling(4), Ledger())
    evidence = replay_published(runner, stored_task.pairs, prose, no_progress)
    assert evidence.pairs == len(stored_task.pairs) < MOST_PAIRS
    planned = evidence.trials["planned"]
    assert evidence.trials == {"planned": planned, "run": planned, "failed": 0}
    # Nine single trials; base, source, three engines of eight cells; the probe and the self-patch.
    assert planned == 9 + evidence.pairs * (2 + 3 * 8 + 3 * 2)
    # None of them in the study's own ledger.
    assert len(runner.ledger) == 0


# The seed's best cell


def test_the_seeds_best_cell_scores_by_process_in_plain_prose(prose: Task) -> None:
    found = explain_best_cell(prose)
    assert found["reported"] == found["published"] == 1
    assert found["hits"] == [{"marker": "process", "words": ("process",), "rule": "whole word"}]
    assert (found["bonus"], found["lexicon"]) == (0, 0)
    assert "process" not in prose.lexicon
    assert Published()(BEST_CELL.text.replace("process", "decline")) == 0


# A trained model


@pytest.mark.slow
def test_on_a_trained_model_the_defects_of_the_engine_show(
    stories: LoadedModel, stories_task: Task
) -> None:
    replay = Replay(stories, stories_task, Sampling(20), stories_task.first_pairs(PAIRS))
    right, double, unrotated = replay.engines()
    assert right["self_patch_changed"] == 0
    assert right["keys_error"] < 1e-4
    assert double["self_patch_changed"] > PAIRS / 2
    assert unrotated["patched_changed"] > PAIRS / 2
    assert unrotated["keys_error"] > 0.1
    assert [row["pairs"] for row in replay.rows()] == [1, *[PAIRS] * len(DEFECTS)]


def test_arms_of_a_replay_are_the_seeds(replay: Replay) -> None:
    assert [str(patch) for patch in CELLS.values()] == [
        f"kv@{layers}/last({width})"
        for width in (16, 32)
        for layers in ("18/32", "25/32", "27/32", "25/32+27/32")
    ]
    assert {BASE, SOURCE, *ARMS} <= {arm for arms in replay._plan().values() for arm in arms}
