"""Answers on planted models: their truth is what the network gives them, pair by pair."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest

from kv_claims.claims.outcome import ANSWER_NAMES, Outcome
from kv_claims.claims.patch import Patch
from kv_claims.errors import UsageError
from kv_claims.models.load import LoadedModel, load_model
from kv_claims.planted.catalog import CATALOG
from kv_claims.planted.prompts import planted_task
from kv_claims.planted.truth import UnknownTruth, expected_means
from kv_claims.planted.words import MARKERS, PLAIN
from kv_claims.run.arms import Arm, controls
from kv_claims.study.scripting import run_study
from kv_claims.tasks.answers import Answers
from kv_claims.tasks.task import Task

N = 12
PATCHES = {
    "stored-at-layer": Patch("kv", "12", "last(30)"),
    "distributed": Patch("v", "4:12", "last(30)"),
    "relay": Patch("kv", "9+13", "last(30)"),
    "self-sustaining": Patch("kv", "12", "last(30)"),
    "bound-by-keys": Patch("kv", "12", "last(30)"),
    "through-blocks": Patch("z", "9", "last(12)"),
}


def answered_task(name: str, words: int = 1) -> Task:
    """The planted task, its sources answered by markers and its bases by plain words.

    Of several words the second ones are of the other kind, so that the order shows.
    """
    task = planted_task(CATALOG[name], n_pairs=N)

    def text(number: int, first: tuple[str, ...], second: tuple[str, ...]) -> str:
        lists = [first, second, first]
        return "".join(f" {lists[k][(5 * number + k) % 100]}" for k in range(words))

    def choices(number: int) -> tuple[str, ...]:
        own, foil = text(number, MARKERS, PLAIN), text(number, PLAIN, MARKERS)
        return (foil, own)

    return replace(
        task,
        sources=tuple(
            replace(
                one,
                answers=Answers(text(k, MARKERS, PLAIN), choices=choices(k)),
                continuation=f" {MARKERS[k]} {PLAIN[k]} {MARKERS[k + 1]} {MARKERS[k + 2]}",
            )
            for k, one in enumerate(task.sources)
        ),
        bases=tuple(
            replace(one, answers=Answers(text(k, PLAIN, MARKERS)))
            for k, one in enumerate(task.bases)
        ),
    )


@cache
def model(name: str) -> LoadedModel:
    return load_model(f"planted:{name}", device="cpu", dtype="float64")


def measured(name: str, task: Task, arm: Patch | Arm, outcome: str) -> dict[str, float]:
    frame = run_study(model(name), task, {"arm": arm}, outcome=outcome)
    return {str(k): float(v) for k, v in frame.groupby("arm").score.mean().items()}


@pytest.mark.parametrize(
    ("name", "outcome"),
    [
        *((name, "logit_diff") for name in PATCHES),
        *(("stored-at-layer", outcome) for outcome in (*ANSWER_NAMES[1:], "loss")),
    ],
)
def test_the_truth_of_answers_is_what_the_network_gives_them(name: str, outcome: str) -> None:
    task = answered_task(name)
    truth = expected_means(CATALOG[name], PATCHES[name], task, outcome=outcome, over="pairs")
    found = measured(name, task, PATCHES[name], outcome)
    assert found["base"] == pytest.approx(truth.base, abs=1e-5)
    assert found["source"] == pytest.approx(truth.source, abs=1e-5)
    assert found["arm"] == pytest.approx(truth.patched, abs=1e-5)


@pytest.mark.parametrize("name", ["relay", "self-sustaining"])
@pytest.mark.parametrize("outcome", ["logit_diff", "prob", "accuracy", "perplexity"])
def test_of_several_words_what_was_fed_before_counts(name: str, outcome: str) -> None:
    """In `self-sustaining` a marker that was fed raises the next ones."""
    task = answered_task(name, 3)
    truth = expected_means(CATALOG[name], PATCHES[name], task, outcome=outcome, over="pairs")
    found = measured(name, task, PATCHES[name], outcome)
    assert [found[arm] for arm in ("base", "source", "arm")] == pytest.approx(truth, rel=1e-5)


def test_what_was_fed_before_matters_there() -> None:
    """Else the test above would not see it: log p of words is not the sum of each alone."""
    name = "self-sustaining"
    first, all_three = (answered_task(name, words) for words in (1, 3))
    one, three = (
        expected_means(CATALOG[name], PATCHES[name], task, outcome="prob", over="pairs")
        for task in (first, all_three)
    )
    assert three.base < one.base**2 / 2


@pytest.mark.parametrize("donor", ["unrelated-base", "noise"])
@pytest.mark.parametrize("outcome", ["logit_diff", "prob"])
def test_controls_have_the_truth_of_answers_too(donor: str, outcome: str) -> None:
    """Of noise the mean over its draws, a normal law: 12 pairs lie within a few standard errors."""
    name, patch = "stored-at-layer", PATCHES["stored-at-layer"]
    task = answered_task(name)
    truth = expected_means(CATALOG[name], patch, task, donor=donor, outcome=outcome, over="pairs")
    frame = run_study(
        model(name),
        task,
        {donor: controls(patch, 16, about_layer=False)[donor]},
        outcome=outcome,
        seeds=1 if donor != "noise" else 40,
    )
    scores = frame[frame.arm == donor].score
    if donor == "noise":
        assert abs(scores.mean() - truth.patched) < 4 * scores.std() / len(scores) ** 0.5
        assert scores.std() > 0
    else:
        assert scores.mean() == pytest.approx(truth.patched, abs=1e-5)


def test_answers_are_those_of_the_tasks_own_pairs() -> None:
    """There is no population of answers: the pairs that there are stand for it."""
    task = answered_task("relay")
    patch = PATCHES["relay"]
    one, other = (
        expected_means(CATALOG["relay"], patch, task, outcome="logit_diff", over=over)
        for over in ("pairs", "population")
    )
    assert one == other


@pytest.mark.parametrize(
    ("answers", "outcome", "message"),
    [
        (Answers(" glimmer", " river"), "prob", "'glimmer' is no word that is spoken"),
        (Answers(f" {MARKERS[0]}", f" {MARKERS[1]}"), "accuracy", "as likely as each other"),
    ],
)
def test_where_it_ends_it_says_so(answers: Answers, outcome: str, message: str) -> None:
    task = planted_task(CATALOG["relay"], n_pairs=3)
    task = replace(task, sources=tuple(replace(one, answers=answers) for one in task.sources))
    with pytest.raises(UnknownTruth, match=message):
        expected_means(CATALOG["relay"], PATCHES["relay"], task, outcome=outcome, over="pairs")


def test_a_task_without_answers_has_no_truth_of_them() -> None:
    with pytest.raises(UsageError, match="no answer; expected `answer`"):
        expected_means(
            CATALOG["relay"],
            PATCHES["relay"],
            planted_task(CATALOG["relay"], n_pairs=3),
            outcome=Outcome.parse("prob"),
        )
