"""A model that cannot be loaded: one line, once; alone it ends the run, else only its own tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.models.hostile import config, good_folder
from tests.plugin.project import INERT, ROOT, SMALL, run_pytest

CELL = (*SMALL, "-k", "L18-w16 and kv_cache_transfers_80", "-q")
WHY = "weights that the network has no place for"


@pytest.fixture(scope="module")
def half(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose configuration says half of its layers."""
    folder = tmp_path_factory.mktemp("models") / "half"
    good_folder(folder)
    config(num_hidden_layers=2)(folder)
    return folder


@pytest.mark.parametrize("workers", [(), ("-n", "2")], ids=["serial", "two-workers"])
def test_a_refused_model_is_one_line_and_4(
    workers: tuple[str, ...], half: Path, tmp_path: Path
) -> None:
    run = run_pytest(ROOT, "claims", "--model", str(half), *CELL, *workers, out=tmp_path / "out")
    assert run.code == 4, run.stdout + run.stderr
    said = [line for line in (run.stdout + run.stderr).splitlines() if WHY in line]
    assert len(said) == 1
    assert f"model '{half}': {WHY}" in said[0]
    assert "Traceback" not in run.stdout + run.stderr
    assert "ERROR at setup" not in run.stdout


def test_a_refused_model_of_two_fails_alone(half: Path, tmp_path: Path) -> None:
    models = ("--model", str(half), "--model", INERT)
    run = run_pytest(ROOT, "claims", *models, *CELL, out=tmp_path / "out")
    assert run.code == 1, run.stdout + run.stderr
    assert {one["model"] for one in run.evidence} == {INERT}
    said = [line for line in run.stdout.splitlines() if f"model '{half}'"[:60] in line]
    assert len(said) <= 2  # where it is told, and in the short summary
    assert WHY in run.stdout
    assert "Traceback" not in run.stdout + run.stderr
    assert "1 passed" in run.stdout
    assert "1 error" in run.stdout


def test_a_command_says_the_same_in_one_line(
    half: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from kv_claims.__main__ import main

    monkeypatch.chdir(ROOT)
    assert main(["bench", "--model", str(half), "--device", "cpu"]) == 2
    written = capsys.readouterr()
    assert written.err.count("\n") == 1
    assert written.err.startswith(f"kv-claims: model '{half}': {WHY}")
    assert written.out == ""
