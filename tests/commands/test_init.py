"""`kv-claims init`: what it writes, that it writes over nothing, and that it runs."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from kv_claims.__main__ import main
from kv_claims.commands.project import project_here
from kv_claims.tasks.load import load_task
from tests.plugin.project import everything_in, run_pytest

FILES = {
    ".github/workflows/claims.yml",
    "claims/README.md",
    "claims/tasks/kitchen_or_harbor.yaml",
    "claims/test_register.py",
    "pytest.toml",
}


def refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """The one line, once nothing was written."""
    assert main(["init", str(folder)]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    (line,) = said.err.splitlines()
    return line


def test_it_writes_a_project(tmp_path: Path) -> None:
    assert main(["init", str(tmp_path / "new")]) == 0
    assert set(everything_in(tmp_path / "new")) == FILES
    project = project_here(tmp_path / "new")
    assert project.models == ("mini",)
    assert project.task is not None
    assert len(load_task(project.task).pairs) == 60
    workflow = yaml.safe_load((tmp_path / "new/.github/workflows/claims.yml").read_text())
    assert any(
        "pytest claims" in step.get("run", "") for step in workflow["jobs"]["claims"]["steps"]
    )
    assert "{version}" not in str(workflow)


@pytest.mark.slow
def test_its_claim_is_supported_on_mini(tmp_path: Path) -> None:
    assert main(["init", str(tmp_path)]) == 0
    options = ("-p", "kv_claims.plugin.hooks", "--claims-strict", "-W", "error")
    run = run_pytest(tmp_path, "claims", *options, out=tmp_path / "out")
    assert run.code == 0, run.stdout + run.stderr
    (evidence,) = run.evidence
    assert evidence["verdict"] == "supported"
    # Well inside, so that another machine's rounding does not matter.
    assert evidence["interval"][0] > 0.5


@pytest.mark.parametrize("taken", sorted(FILES))
def test_nothing_is_written_where_a_file_of_it_is(
    tmp_path: Path, taken: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / taken).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / taken).write_text("[pytest]\n")
    before = everything_in(tmp_path)
    assert f"already there: {taken}; nothing was written" in refused(tmp_path, capsys)
    assert everything_in(tmp_path) == before


def test_all_that_is_there_is_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["init", str(tmp_path)]) == 0
    capsys.readouterr()
    line = refused(tmp_path, capsys)
    assert all(name in line for name in FILES)


@pytest.mark.parametrize(
    ("file", "content", "key"),
    [
        ("pyproject.toml", "[tool.pytest]\n", 'claims_models = ["mini"]'),
        ("pytest.ini", "", "claims_models = mini"),
        ("setup.cfg", "[tool:pytest]\n", "claims_models = mini"),
    ],
    ids=["pyproject", "ini", "cfg"],
)
def test_settings_that_are_there_are_not_hidden(
    tmp_path: Path, file: str, content: str, key: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / file).write_text(content)
    assert main(["init", str(tmp_path)]) == 0
    assert set(everything_in(tmp_path)) == FILES - {"pytest.toml"} | {file}
    assert (tmp_path / file).read_text() == content
    said = capsys.readouterr().out
    assert f"{tmp_path / file} has settings of pytest" in said
    assert f"    {key}\n" in said


def test_a_pyproject_without_settings_of_pytest_hides_nothing(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text("[project]\nname = 'lab'\n")
    assert main(["init", str(tmp_path)]) == 0
    assert set(everything_in(tmp_path)) == {*FILES, "pyproject.toml"}


@pytest.mark.parametrize("place", ["", "claims", ".github"], ids=["itself", "claims", "above"])
def test_a_file_is_no_folder(
    tmp_path: Path, place: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "lab"
    (folder / place).parent.mkdir(parents=True, exist_ok=True)
    (folder / place).write_text("mine")
    assert f"{folder / place} is a file, expected a folder" in refused(folder, capsys)
    assert (folder / place).read_text() == "mine"


def test_what_cannot_be_written_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine").touch()
    assert "cannot be written (Not a directory)" in refused(tmp_path / "mine/new", capsys)
