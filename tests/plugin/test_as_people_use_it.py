"""pytest as people use it: -x, --lf, collecting, marks that run a test again."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.plugin.project import SMALL, STORED, Run, run_pytest

STRICT = ("--model", STORED, *SMALL, "--claims-strict", "-q")


@pytest.fixture(scope="module")
def stopped(shared_project: Path) -> Run:
    """`-x`: the first claim passes, the second fails, two are not reached."""
    return run_pytest(
        shared_project, "test_small.py", *STRICT, "-x", out=shared_project / "x", cache=True
    )


@pytest.fixture(scope="module")
def last_failed(shared_project: Path, stopped: Run) -> Run:
    assert stopped.code == 1
    return run_pytest(
        shared_project, "test_small.py", *STRICT, "--lf", out=shared_project / "x", cache=True
    )


def test_x_stops_at_the_first_failure_and_keeps_what_was_reached(stopped: Run) -> None:
    assert stopped.code == 1, stopped.stdout + stopped.stderr
    assert [(one["claim"], one["verdict"]) for one in stopped.evidence] == [
        ("decides", "supported"),
        ("cannot-decide", "inconclusive"),
    ]
    assert "verdicts: 1 supported, 1 inconclusive" in stopped.stdout
    assert "no evidence: 2 of 4 selected tests ended without a verdict" in stopped.stdout


def test_lf_runs_what_failed_from_the_trials_that_are_there(last_failed: Run, stopped: Run) -> None:
    assert last_failed.code == 1
    (one,) = last_failed.evidence
    assert one["claim"] == "cannot-decide"
    before = next(two for two in stopped.evidence if two["claim"] == "cannot-decide")
    assert {name: one[name] for name in ("estimate", "interval", "level")} == {
        name: before[name] for name in ("estimate", "interval", "level")
    }


COLLECTED = """
decides (1 cell)
    "It transfers."
    a test
    behavior transfer <= 0.25
"""


def test_collecting_only_shows_claims_with_their_sentences(project: pytest.Pytester) -> None:
    result = project.runpytest_subprocess(
        "test_small.py", "--collect-only", "-q", "--model", STORED
    )
    assert result.ret == 0
    assert COLLECTED.strip() in result.stdout.str()
    assert f"test_small.py::test_decides[{STORED}]" in result.outlines


def test_a_claim_that_is_marked_flaky_is_refused(project: pytest.Pytester) -> None:
    text = (project.path / "test_small.py").read_text()
    again = text.replace('@pytest.mark.skip(reason="not today")', "@pytest.mark.flaky(reruns=3)")
    (project.path / "test_small.py").write_text(again)
    markers = "--override-ini=markers=flaky: run again"
    result = project.runpytest_subprocess("test_small.py", "--model", STORED, "-q", markers)
    assert result.ret == 4
    assert "test_small.py::test_skipped" in result.stderr.str()
    assert "marked flaky: a verdict is not run again until it pleases" in result.stderr.str()
