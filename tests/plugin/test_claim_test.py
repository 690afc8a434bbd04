"""What a claim's test holds in its hands: evidence first, then the test's own result."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from kv_claims.claims.claim import Claim, Region
from kv_claims.claims.patch import Patch
from kv_claims.models.load import LoadedModel
from kv_claims.plugin.claim_test import ClaimTest
from kv_claims.run.ledger import Ledger
from kv_claims.run.runner import Runner
from kv_claims.run.sampling_settings import Sampling
from kv_claims.study.study import ModelStudy
from kv_claims.tasks.task import Task

Skipped, Failed = pytest.skip.Exception, pytest.fail.Exception
AT_MOST = Claim("at-most-12", says="At most 12%.", cites="a test", transfer=Region(high=0.12))
NOTHING_THERE = Patch("kv", layers="9", positions="last(16)")
HALF = Patch("kv", layers="12", positions="last(16)")


@pytest.fixture(scope="module")
def runner(stored: LoadedModel, stored_task: Task) -> Runner:
    return Runner(stored, stored_task, Sampling(8), Ledger())


@pytest.fixture
def unrun(stored: LoadedModel, stored_task: Task) -> ModelStudy:
    """A study with an empty ledger."""
    return ModelStudy(Runner(stored, stored_task, Sampling(8), Ledger()), n_pairs=12, n_seeds=1)


class Records(list[tuple[str, dict[str, Any]]]):
    def __call__(self, kind: str, content: str) -> None:
        self.append((kind, json.loads(content)))


def claim_test(study: ModelStudy, claim: Claim | None = AT_MOST, *, strict: bool = False) -> Any:
    records = Records()
    made = ClaimTest(study=study, claim=claim, cell="a-cell", strict=strict, record=records)
    return made, records


def test_a_supported_claim_passes_and_is_recorded(runner: Runner) -> None:
    test, records = claim_test(ModelStudy(runner, 12, 1))
    evidence = test.judge(NOTHING_THERE)
    ((kind, content),) = records
    assert kind == "claim_evidence"
    assert (evidence.verdict, content["verdict"]) == ("supported", "supported")
    assert (content["claim"], content["cell"]) == ("at-most-12", "a-cell")


def test_a_refuted_claim_that_is_false_passes_as_refuted(runner: Runner) -> None:
    test, _ = claim_test(ModelStudy(runner, 12, 1))
    assert test.judge(HALF).verdict == "refuted"


def test_a_claim_on_two_patches_passes_and_is_recorded_with_both(runner: Runner) -> None:
    ordered = Claim("more", says="More.", cites="a test", difference=Region(low=0.0))
    test, records = claim_test(ModelStudy(runner, 40, 1), ordered)
    assert test.judge(HALF, versus=NOTHING_THERE).verdict == "supported"
    ((_, content),) = records
    assert (content["patch"]["text"], content["versus"]["text"]) == (str(HALF), str(NOTHING_THERE))


def test_a_claim_on_no_patch_passes_without_one(runner: Runner) -> None:
    gap = Claim("gap", says="A gap.", cites="a test", gap=Region(low=0.0))
    test, records = claim_test(ModelStudy(runner, 12, 1), gap)
    assert test.judge().verdict == "supported"
    assert records[0][1]["patch"] is None


def test_several_patches_at_once_are_one_arm(runner: Runner) -> None:
    test, records = claim_test(ModelStudy(runner, 12, 1))
    test.judge([NOTHING_THERE, Patch("v_proj", "3", "last(2)")])
    assert len(records[0][1]["patch"]["all"]) == 2


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ((), "it needs a patch"),
        ((HALF, NOTHING_THERE), "it is not about a second patch"),
    ],
    ids=["none", "two"],
)
def test_a_cell_of_other_patches_than_the_claim_is_about_fails_in_one_line(
    unrun: ModelStudy, given: tuple[Patch, ...], message: str
) -> None:
    test, records = claim_test(unrun)
    with pytest.raises(Failed, match=message) as failure:
        test.judge(*given[:1], versus=given[1] if len(given) > 1 else None)
    assert len(str(failure.value).splitlines()) == 1
    assert not records
    assert not list(unrun.runner.ledger.trials())


def test_an_outcome_that_cannot_tell_passes_as_the_invalid_it_is(unrun: ModelStudy) -> None:
    pasted = replace(AT_MOST, outcome="pr@12")
    test, records = claim_test(unrun, pasted)
    evidence = test.judge(HALF)
    assert (evidence.verdict, evidence.expected) == ("invalid", "invalid")
    assert evidence.reason.startswith("measured-where-patched")
    assert len(records) == 1
    assert not list(unrun.runner.ledger.trials())


def test_a_second_judgement_fails_and_is_not_recorded(runner: Runner) -> None:
    test, records = claim_test(ModelStudy(runner, 12, 1))
    test.judge(NOTHING_THERE)
    with pytest.raises(Failed, match="at-most-12: a test judges one cell, once"):
        test.judge(HALF)
    assert len(records) == 1


def test_a_test_without_a_claim_fails_and_runs_nothing(unrun: ModelStudy) -> None:
    test, records = claim_test(unrun, None)
    with pytest.raises(Failed, match=r"study.judge needs a test marked with @claim\(\.\.\.\)"):
        test.judge(NOTHING_THERE)
    assert not records
    assert not list(unrun.runner.ledger.trials())


@pytest.mark.parametrize(
    ("layers", "positions", "message"),
    [
        ("9", "last(99)", r"need 99 cached positions, but in pair \d+ .*; expected a window that"),
        ("9", "first(44)", r"need 44 cached positions, but in pair \d+ .*; expected a window that"),
    ],
    ids=["last", "first"],
)
def test_a_patch_that_does_not_fit_fails_before_any_trial(
    unrun: ModelStudy, layers: str, positions: str, message: str
) -> None:
    test, records = claim_test(unrun)
    with pytest.raises(Failed, match=message) as failure:
        test.judge(Patch("kv", layers=layers, positions=positions))
    assert len(str(failure.value).splitlines()) == 1
    assert failure.value.pytrace is False
    assert not records
    assert not list(unrun.runner.ledger.trials())


def test_a_full_swap_is_no_finding(unrun: ModelStudy) -> None:
    """It passes, as what the truth says it is: invalid by construction, with nothing run."""
    test, records = claim_test(unrun)
    evidence = test.judge(Patch("kv", layers="all", positions="all"))
    assert (evidence.verdict, evidence.expected) == ("invalid", "invalid")
    assert evidence.reason.startswith("full-swap-is-the-donor")
    assert len(records) == 1
    assert not list(unrun.runner.ledger.trials())


def undecided(study: ModelStudy) -> Claim:
    """A claim whose region is narrower than twelve pairs can tell, around what they show."""
    estimate = claim_test(study)[0].judge(HALF).estimate
    return replace(AT_MOST, id="narrow", transfer=Region(estimate - 0.01, estimate + 0.01))


def test_an_inconclusive_claim_is_a_skip_with_evidence(runner: Runner) -> None:
    study = ModelStudy(runner, 12, 1)
    test, records = claim_test(study, undecided(study))
    with pytest.raises(Skipped, match="inconclusive: the interval meets an edge"):
        test.judge(HALF)
    assert records[0][1]["verdict"] == "inconclusive"


def test_an_inconclusive_claim_fails_under_strict(runner: Runner) -> None:
    study = ModelStudy(runner, 12, 1)
    test, records = claim_test(study, undecided(study), strict=True)
    with pytest.raises(Failed, match="inconclusive: the interval meets an edge"):
        test.judge(HALF)
    assert records[0][1]["verdict"] == "inconclusive"


def test_too_few_pairs_are_invalid_whatever_is_true(runner: Runner) -> None:
    test, records = claim_test(ModelStudy(runner, 9, 1))
    with pytest.raises(Failed, match=r"invalid \(enough-pairs: 9 pairs.* makes it supported"):
        test.judge(NOTHING_THERE)
    assert records[0][1]["verdict"] == "invalid"


def test_the_full_swap_is_an_instrument_check(runner: Runner) -> None:
    test, records = claim_test(ModelStudy(runner, 12, 1), None)
    assert test.check_full_swap().passed is True
    assert [kind for kind, _ in records] == ["instrument_evidence"]


def test_a_full_swap_that_is_not_the_source_fails_by_name(
    unrun: ModelStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fault injected: the trials of the full swap are said to have other tokens."""
    run: Callable[..., Any] = unrun.runner.run
    monkeypatch.setattr(
        unrun.runner,
        "run",
        lambda *args, **options: [
            replace(trial, reference_same_tokens=False) if trial.reference == "source" else trial
            for trial in run(*args, **options)
        ],
    )
    test, records = claim_test(unrun, None)
    with pytest.raises(Failed, match="the instrument fails: full-swap: "):
        test.check_full_swap()
    assert records[0][1]["passed"] is False
