"""What commands take from the settings of the project that they are called in."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from kv_claims.__main__ import main
from kv_claims.commands.project import model_of, project_here, run_folder
from kv_claims.errors import UsageError

In = Callable[[str], None]


@pytest.fixture
def says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> In:
    """Be in a project whose settings say this."""

    def says(keys: str) -> None:
        (tmp_path / "pytest.toml").write_text(f"[pytest]\n{keys}\n")
        monkeypatch.chdir(tmp_path)

    return says


def test_settings_are_read_as_pytest_reads_them(says: In, tmp_path: Path) -> None:
    says('claims_models = ["mini"]\nclaims_out = "evidence"')
    project = project_here()
    assert (project.root, project.file) == (tmp_path, tmp_path / "pytest.toml")
    assert model_of(project, "bench") == "mini"
    assert run_folder(project) == Path("evidence")


def test_without_settings_there_are_the_defaults(says: In) -> None:
    says("")
    assert run_folder(project_here()) == Path("reports/latest")


def test_what_the_project_loads_for_its_tests_is_not_loaded(says: In, tmp_path: Path) -> None:
    says('addopts = ["--mine"]\nrequired_plugins = ["none-such"]\nfilterwarnings = ["error"]')
    (tmp_path / "conftest.py").write_text("raise SystemExit('loaded')")
    assert project_here().models == ()


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ("", r"bench: no --model, and claims_models in .*pytest\.toml is not there"),
        (
            'claims_models = ["mini", "a/b"]',
            r"bench: no --model, and .* has 2 models",
        ),
    ],
    ids=["none", "two"],
)
def test_a_command_needs_one_model(says: In, keys: str, told: str) -> None:
    says(keys)
    with pytest.raises(UsageError, match=told):
        model_of(project_here(), "bench")


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ("claims_models = 3", "claims_models"),
        ("claims_models = ", "pytest.toml"),
        ('claims_task = ""', "claims_task in"),
    ],
    ids=["type", "toml", "empty"],
)
def test_settings_that_cannot_be_read_are_one_line(
    says: In, keys: str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    says(keys)
    assert main(["report"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("kv-claims: ")
    assert told in line


@pytest.mark.parametrize("command", [["report"], ["compare", "earlier"]], ids=lambda c: c[0])
def test_a_run_is_that_of_the_project_unless_named(
    says: In, command: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    says('claims_out = "evidence"')
    (tmp_path / "earlier").symlink_to("evidence")
    assert main(command) == 2
    said = capsys.readouterr().err
    # The one has nothing to report on, the other is told that both are the same run.
    assert said.startswith("kv-claims: evidence")


def test_a_pilots_options_need_a_pilot(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--claim", "c", "--model", "mini", "--dtype", "float32"]) == 2
    assert "--claims-dtype=float32: expected --pilot-pairs" in capsys.readouterr().err
