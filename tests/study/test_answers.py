"""Claims on answers: judged as others are, of trials that are two tokens long."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kv_claims.claims.claim import Claim, Part, Region
from kv_claims.claims.patch import Patch
from kv_claims.errors import UsageError
from kv_claims.evidence.evidence import Evidence
from kv_claims.models.load import LoadedModel
from kv_claims.planted.catalog import CATALOG
from kv_claims.planted.prompts import planted_task
from kv_claims.planted.words import MARKERS, PLAIN
from kv_claims.run.ledger import Ledger
from kv_claims.run.runner import BRIEF, Runner
from kv_claims.run.sampling_settings import Sampling
from kv_claims.study.cell import Cell
from kv_claims.study.expectation import Expectation
from kv_claims.study.scripting import run_study
from kv_claims.study.study import ModelStudy
from kv_claims.tasks.answers import Answers
from kv_claims.tasks.scorers import Unscored
from kv_claims.tasks.task import Task
from tests.planted.test_planted_answers import model

PAIRS, TOKENS = 60, 12
NAME = "stored-at-layer"
PATCH = Patch("kv", "12", "last(32)")


def answered(wrong: int = 12) -> Task:
    """Sources answered by markers, bases by plain words; one pair in so many the other way, as
    nothing could be judged without spread."""
    task = planted_task(CATALOG[NAME], n_pairs=PAIRS)
    words = [(MARKERS[k], PLAIN[k])[:: -1 if k % wrong == 0 else 1] for k in range(PAIRS)]
    return replace(
        task,
        sources=tuple(
            replace(one, answers=Answers(f" {own}"), continuation=f" {own} {MARKERS[-1]}")
            for one, (own, _) in zip(task.sources, words, strict=True)
        ),
        bases=tuple(
            replace(one, answers=Answers(f" {foil}"))
            for one, (_, foil) in zip(task.bases, words, strict=True)
        ),
    )


@pytest.fixture(scope="module")
def planted() -> LoadedModel:
    return model(NAME)


@pytest.fixture(scope="module")
def study(planted: LoadedModel) -> ModelStudy:
    return ModelStudy(Runner(planted, answered(), Sampling(TOKENS), Ledger()), PAIRS, n_seeds=1)


def claim(**asserted: Any) -> Claim:
    return Claim("c", says="s", cites="c", **asserted)


def judged(
    study: ModelStudy, asserted: Claim, patch: Patch | None = PATCH
) -> tuple[Evidence, Expectation]:
    evidence, expected = study.judge(Cell.of(asserted, "cell", patch))
    assert expected is not None
    return evidence, expected


@pytest.mark.parametrize(
    "asserted",
    [
        {"transfer": Region(0.3, 1.0), "outcome": "logit_diff"},
        {"transfer": Region(0.0, 0.1), "outcome": "logit_diff"},
        {"shift": Region(0.5, 4.0), "outcome": "logit_diff", "margin": 0.5},
        {"carried": Region(0.3, 1.0), "outcome": "logit_diff"},
        {"transfer": Region(0.3, 1.0), "outcome": "prob"},
        {"transfer": Region(0.3, 1.2), "outcome": "rank"},
        {"rate": Region(0.3, 1.0), "outcome": "accuracy", "margin": 0.3},
        {"rate": Region(-0.2, 0.1), "outcome": "accuracy"},
        {"transfer": Region(0.3, 1.2), "outcome": "accuracy"},
        {"shift": Region(high=-0.2), "outcome": "loss", "margin": 0.2},
        {"transfer": Region(0.3, 1.2), "outcome": "perplexity"},
    ],
    ids=lambda one: f"{one['outcome']}-{next(iter(one))}-{next(iter(one.values()))}",
)
def test_the_word_and_the_number_are_those_of_the_truth(
    asserted: dict[str, Any], study: ModelStudy
) -> None:
    """Of answers the truth is of these very pairs, and nothing is sampled: they are equal."""
    evidence, expected = judged(study, claim(**asserted))
    assert evidence.verdict == expected.word, evidence.reason
    if evidence.estimate is not None:
        assert evidence.estimate == pytest.approx(expected.transfer, abs=1e-5)
    failed = [one["name"] for one in evidence.checks if one["passed"] is False]
    assert not failed or evidence.verdict == "invalid"
    oracle = next(one for one in evidence.checks if one["name"] == "likelihood-oracle")
    assert oracle["passed"] is True


def test_words_of_all_kinds_are_among_them(study: ModelStudy) -> None:
    """Else the test above could pass on verdicts that nothing can change."""
    found = {
        judged(study, claim(outcome="logit_diff", transfer=region))[0].verdict
        for region in (Region(0.3, 1.0), Region(0.0, 0.1))
    }
    assert found == {"supported", "refuted"}


def test_nothing_is_decoded_but_for_the_instrument(study: ModelStudy) -> None:
    evidence, _ = judged(study, claim(transfer=Region(0.3, 1.0), outcome="logit_diff"))
    trials = list(study.runner.ledger.trials())
    of_it = [one for one in trials if one.study == evidence.study]
    assert {len(one.tokens) for one in of_it} == {BRIEF}
    assert evidence.study != study.runner.study
    assert evidence.provenance["sampling"]["max_new_tokens"] == BRIEF
    # 60 pairs of base, source, patched arm and two controls; a checked arm is not measured.
    assert (evidence.answers, evidence.likelihoods) == (300, 0)
    # What nothing was read of is not shown.
    assert (evidence.scorer, evidence.texts, evidence.repetition) == ({}, {}, {})


def test_beside_an_outcome_of_text_everything_is_generated(planted: LoadedModel) -> None:
    runner = Runner(planted, answered(), Sampling(TOKENS), Ledger())
    mixed = ModelStudy(runner, PAIRS, n_seeds=1)
    parts = (
        Part.transfer("behavior", Region(0.3, 1.0)),
        Part.transfer("logit_diff", Region(0.3, 1.0)),
        Part.gap("loglik", Region(low=0.0)),
    )
    evidence, _ = mixed.judge(Cell.of(claim(all_of=parts), "cell", PATCH))
    assert evidence.study == mixed.runner.study
    assert {len(one.tokens) for one in mixed.runner.ledger.trials()} == {TOKENS}
    assert evidence.answers == evidence.likelihoods == 300
    assert evidence.scorer
    alone, _ = mixed.judge(
        Cell.of(claim(transfer=Region(0.3, 1.0), outcome="logit_diff"), "cell", PATCH)
    )
    assert alone.estimate == pytest.approx(evidence.parts[1]["estimate"], abs=1e-9)


def test_a_gap_of_answers_needs_no_patch(study: ModelStudy) -> None:
    evidence, expected = judged(study, claim(gap=Region(1.0, 4.2), outcome="logit_diff"), None)
    assert evidence.verdict == expected.word == "supported"
    assert evidence.estimate == pytest.approx(expected.transfer, abs=1e-5)
    assert {"likelihood-oracle"} <= {one["name"] for one in evidence.checks}


def test_what_the_task_has_not_is_refused_before_a_model_runs(planted: LoadedModel) -> None:
    task = replace(answered(), scorer=Unscored(), lexicon=frozenset(), name="t")
    runner = Runner(planted, task, Sampling(TOKENS), Ledger())
    study = ModelStudy(runner, PAIRS, n_seeds=1)
    for outcome, message in (
        ("behavior", "outcome behavior: task 't' has no `scorer`"),
        ("score_lexicon", "outcome score_lexicon: task 't' has no `lexicon`"),
        ("choice", "outcome choice: pair 0 .*: no choices"),
    ):
        asserted = claim(transfer=Region(0.3, 1.0), outcome=outcome)
        with pytest.raises(UsageError, match=message):
            study.judge(Cell.of(asserted, "cell", PATCH))
        with pytest.raises(UsageError, match=message):
            run_study(planted, task, {"patched": PATCH}, outcome=outcome)
    assert not list(runner.ledger.trials())


def test_what_one_token_cannot_show_is_null_by_construction(study: ModelStudy) -> None:
    """The same patch moves what is generated, and a continuation of two tokens."""
    late = Patch("residual", "15", "first(4)", active="every_step")
    one, expected = judged(study, claim(transfer=Region(0.3, 1.0), outcome="logit_diff"), late)
    assert (one.verdict, expected.word) == ("invalid", "invalid")
    assert one.reason.startswith("null-by-construction: logit_diff is null")
    assert one.trials["run"] == 0
    two = study.judge(Cell.of(claim(shift=Region(-9.0, 9.0), outcome="loss"), "cell", late))[0]
    assert "null-by-construction" not in two.reason
    frame = run_study(
        study.model, study.task, {"patched": late}, outcome="logit_diff", pairs=5
    ).set_index(["arm", "pair"])
    assert (frame.refused["patched"] != "").all()
    assert frame.score["patched"].to_numpy() == pytest.approx(frame.score["base"].to_numpy())


def test_a_complete_ledger_is_judged_without_a_model(
    planted: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cell = Cell.of(claim(transfer=Region(0.3, 1.0), outcome="logit_diff"), "cell", PATCH)

    def judge() -> Evidence:
        runner = Runner(planted, answered(), Sampling(TOKENS), Ledger(tmp_path))
        return ModelStudy(runner, PAIRS, n_seeds=1).judge(cell)[0]

    first = judge()

    def no_more(*_: object, **__: object) -> None:
        raise AssertionError("run again")

    monkeypatch.setattr(type(planted.network), "forward", no_more)
    again = judge()
    assert (again.estimate, again.interval) == (first.estimate, first.interval)
