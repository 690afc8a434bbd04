"""`kv-claims run`: pytest with the short options; the shipped claims from any folder."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from kv_claims.__main__ import main
from kv_claims.evidence.stored import read_evidence
from kv_claims.files.shipped import shipped
from tests.processes import inherited

SETTINGS = """[pytest]
claims_models = ["planted:stored-at-layer"]
claims_out = "evidence"
python_files = ["check_*.py"]
python_functions = ["check_*"]
addopts = ["--no-such-option"]
filterwarnings = ["error"]
"""


@pytest.fixture
def given_to_pytest(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What pytest was last called with; it ends with status 5."""
    given: list[str] = []

    def main(arguments: list[str], **_: object) -> int:
        given[:] = arguments
        return 5

    monkeypatch.setattr(pytest, "main", main)
    return given


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["claims", "--model", "mini"],
        ["-k", "run", "--pairs=3"],
        ["--collect-only", "--", "a b"],
    ],
    ids=["none", "short", "keywords", "rest"],
)
def test_what_is_typed_goes_to_pytest_as_it_is(
    given_to_pytest: list[str], arguments: list[str]
) -> None:
    assert main(["run", *arguments]) == 5
    plugins = ["kv_claims.plugin.hooks", "kv_claims.plugin.short_options"]
    assert given_to_pytest == ["-p", plugins[0], "-p", plugins[1], *arguments]


def test_its_own_help_is_its_own(
    given_to_pytest: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["run", "--help"])
    assert stopped.value.code == 0
    assert "--seed-claims" in capsys.readouterr().out
    assert given_to_pytest == []


def run(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "kv_claims", "run", "--seed-claims", *options],
        cwd=folder,
        env={**inherited(), "COLUMNS": "80"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_shipped_claims_run_in_a_project_of_another_kind(tmp_path: Path) -> None:
    (tmp_path / "pytest.toml").write_text(SETTINGS)
    selected = ("-k", "at_most_12 and L18 and w16", "--pairs", "12", "--max-new-tokens", "4")
    done = run(tmp_path, *selected)
    assert done.returncode == 0, done.stdout + done.stderr
    (evidence,) = read_evidence(tmp_path / "evidence/evidence.json")["evidence"]
    assert evidence["claim"] == "kv-cache-transfers-at-most-12"
    assert evidence["model"] == "planted:stored-at-layer"
    assert {path.name for path in tmp_path.iterdir()} <= {
        *("evidence", "pytest.toml", ".pytest_cache", ".benchmarks"),
    }


def test_the_shipped_claims_need_a_model_that_somebody_names(tmp_path: Path) -> None:
    done = run(tmp_path)
    assert done.returncode == 4
    told = (
        f"ERROR: no model to run claims on: expected claims_models in a pytest.toml in {tmp_path}"
    )
    assert done.stderr.startswith(told)


@pytest.mark.slow
def test_pins_of_the_shipped_model_are_not_those_of_a_caller(tmp_path: Path) -> None:
    assert (shipped() / "pins/mini.json").is_file()
    done = run(tmp_path, "--model", "mini", "-q", "-k", "transfers_80 and L18 and w16")
    assert "as pinned" not in done.stdout
    (evidence,) = read_evidence(tmp_path / "reports/latest/evidence.json")["evidence"]
    assert (evidence["verdict"], evidence["pinned"]) == ("refuted", None)
    assert done.returncode == 1
