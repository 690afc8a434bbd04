"""The exit status: 0, 1, 4, 5 (2 is in `test_resume.py`); never 0 without evidence."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.plugin.project import INERT, SMALL, STORED, Run, run_pytest


@pytest.fixture(scope="module")
def strict(shared_project: Path) -> Run:
    """One claim that is inconclusive on one model and invalid on the other, under strict."""
    options = ["--model", STORED, "--model", INERT, *SMALL, "--claims-strict", "-rf", "-q"]
    return run_pytest(
        shared_project,
        "test_small.py",
        *options,
        *("-k", "cannot_decide"),
        out=shared_project / "strict",
    )


def test_under_strict_inconclusive_and_invalid_fail(strict: Run) -> None:
    assert strict.code == 1, strict.stdout + strict.stderr
    verdicts = [(one["model"], one["verdict"], one["expected"]) for one in strict.evidence]
    assert verdicts == [(STORED, "inconclusive", "supported"), (INERT, "invalid", "invalid")]
    assert f"INCONCLUSIVE (failed) test_small.py::test_cannot_decide[{STORED}]" in strict.stdout
    assert f"INVALID (failed) test_small.py::test_cannot_decide[{INERT}]" in strict.stdout
    assert re.search(r"^inconclusive: the interval meets an edge", strict.stdout, re.MULTILINE)
    assert re.search(r"^invalid: no-ceiling: ", strict.stdout, re.MULTILINE)
    assert strict.content["run"]["strict"] is True


@pytest.fixture(scope="module")
def wrong(shared_project: Path) -> Run:
    """Tests that are written wrongly; nine pairs, which is too few for any claim."""
    options = ["--model", STORED, "--pairs", "9", "--max-new-tokens", "8", "-q"]
    return run_pytest(shared_project, "test_wrong.py", *options, out=shared_project / "wrong")


def message_of(run: Run, test: str) -> str:
    """What stands under the title of a failed test."""
    after = re.split(rf"^_+ {test}\[{re.escape(STORED)}\] _+$", run.stdout, flags=re.MULTILINE)[1]
    return re.split(r"^[_=-]{3,}", after, flags=re.MULTILINE)[0].strip()


@pytest.mark.parametrize(
    ("test", "given", "expected"),
    [
        ("test_layer_out_of_range", "'2000' is out of range", "expected layers 0 to 15"),
        ("test_window_too_long", "'last(99)' need 99 cached", "expected a window that fits both"),
        ("test_depths_meet", "'9' and '9' meet in layer 9", "expected parts that are"),
        ("test_not_marked", "study.judge needs", "a test marked with @claim(...)"),
    ],
    ids=["layer", "window", "meet", "not-marked"],
)
def test_a_test_that_asks_the_impossible_says_what_was_given_and_what_was_expected(
    wrong: Run, test: str, given: str, expected: str
) -> None:
    message = message_of(wrong, test)
    assert given in message.splitlines()[0]
    assert expected in message.splitlines()[0]


@pytest.mark.parametrize(
    "test", ["test_layer_out_of_range", "test_window_too_long", "test_depths_meet"]
)
def test_a_test_that_asks_the_impossible_fails_with_one_line(wrong: Run, test: str) -> None:
    assert len(message_of(wrong, test).splitlines()) == 1


def test_tests_without_evidence_are_counted(wrong: Run) -> None:
    first = f"test_wrong.py::test_layer_out_of_range[{STORED}]"
    assert (
        f"no evidence: 4 of 5 selected tests ended without a verdict, such as {first}"
    ) in wrong.stdout


def test_what_fails_before_it_runs_records_no_trial(wrong: Run) -> None:
    """Nor does what is known to be of too few pairs."""
    (judged,) = wrong.evidence
    assert judged["trials"] == {"planned": 0, "run": 0, "failed": 0}
    assert not list((wrong.out / "ledger").glob("*.jsonl"))


def test_an_unexpected_verdict_fails_and_says_both_words(wrong: Run) -> None:
    assert wrong.code == 1, wrong.stdout + wrong.stderr
    (judged,) = wrong.evidence
    assert (judged["verdict"], judged["expected"]) == ("invalid", "supported")
    message = message_of(wrong, "test_too_few_pairs")
    assert message.startswith("invalid (enough-pairs: 9 pairs, at least 10 wanted)")
    assert "the truth of the planted model makes it supported" in message
    assert "Traceback" not in wrong.stdout


def test_nothing_selected_is_5_and_leaves_nothing(project: pytest.Pytester) -> None:
    result = project.runpytest_subprocess("claims", "-q", "-k", "nothing_of_that_name")
    assert result.ret == 5
    assert not (project.path / "reports").exists()
    result.stdout.fnmatch_lines(["torch is loaded: False"])


def test_collecting_only_loads_no_torch_and_leaves_nothing(project: pytest.Pytester) -> None:
    result = project.runpytest_subprocess("--collect-only", "-q", "-o", f"claims_models={STORED}")
    assert result.ret == 0
    assert f"claims/test_kv_cache.py::test_kv_cache_transfers_80[{STORED}-L18-w16]" in (
        result.outlines
    )
    result.stdout.fnmatch_lines(["torch is loaded: False"])
    assert not (project.path / "reports").exists()
    result.stdout.no_fnmatch_line("no evidence*")


def test_a_claim_that_asks_for_no_study_has_no_evidence(project: pytest.Pytester) -> None:
    result = project.runpytest_subprocess("test_bare.py", "-q")
    result.assert_outcomes(passed=1)
    assert result.ret == 1


def test_a_file_that_cannot_be_written_costs_no_verdict(shared_project: Path) -> None:
    out = shared_project / "unwritable"
    (out / "report.html/in the way").mkdir(parents=True)
    options = ["--model", "mini", *SMALL, "-q", "-k", "at_most and L18-w16"]
    run = run_pytest(shared_project, "claims", *options, out=out)
    assert run.code == 3, run.stdout + run.stderr
    assert re.search(r"^  L18-w16 +(SUPPORTED|REFUTED|INCONCLUSIVE|INVALID)", run.stdout, re.M)
    assert f"no file was written: {out / 'report.html'}: is a folder" in run.stdout
    assert f"what stands in {out} is of an earlier run, if any" in run.stdout
    assert not (out / "evidence.json").exists()
    assert run.ledger_lines()
