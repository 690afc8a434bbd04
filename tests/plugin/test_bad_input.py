"""Options that no run can use: one line, exit status 4, and nothing touched.

Every option is tried in `tests/plugin/test_session.py`, in memory; here is the way to the terminal.
"""

from __future__ import annotations

import shutil

import pytest

from tests.plugin.project import SMALL, STORED, Run, everything_in


def errors_of(result: pytest.RunResult) -> list[str]:
    """What a refused run says on stderr."""
    return [line for line in result.errlines if line.strip()]


def test_an_unknown_model_is_refused_and_leaves_earlier_reports_alone(
    project: pytest.Pytester, serial: Run
) -> None:
    shutil.copytree(serial.out, project.path / "out")
    before = everything_in(project.path / "out")
    result = project.runpytest_subprocess(
        "claims", "--model", "planted:stored-at-layr", *SMALL, "--claims-out=out", "--no-resume"
    )
    assert result.ret == 4
    (line,) = errors_of(result)
    assert line.startswith("ERROR: model 'planted:stored-at-layr': no planted model of that name")
    assert f"expected one of {STORED}, " in line
    assert not result.outlines
    assert everything_in(project.path / "out") == before


def test_what_can_be_refused_before_collecting_is(project: pytest.Pytester) -> None:
    result = project.runpytest_subprocess("claims", "--batch-size", "x")
    assert result.ret == 4
    assert errors_of(result) == ["ERROR: --claims-batch-size 'x': expected a whole number or auto"]
    assert not result.outlines
    assert not (project.path / "reports").exists()


def test_reruns_are_refused_once_there_are_claims(project: pytest.Pytester) -> None:
    told = (
        "ERROR: --reruns: a verdict is not run again until it pleases; expected a run of more "
        "pairs, or `looks` that the claim declares"
    )
    result = project.runpytest_subprocess("claims", "--reruns", "3")
    assert result.ret == 4
    assert errors_of(result) == [told]
    assert not (project.path / "reports").exists()
    (project.path / "test_none.py").write_text("def test_none(): pass\n")
    assert project.runpytest_inprocess("test_none.py", "--reruns", "3").ret == 0
