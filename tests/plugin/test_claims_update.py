"""--claims-update, and what pins do to later runs, on a model whose truth nobody knows."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.plugin.project import INERT, SMALL, Run, make_project, run_pytest, save_as_stranger

PINS = Path("claims/pins/checkpoint.json")
MODEL = ("--model", "checkpoint", "--task", "own.yaml", *SMALL)
CLAIMS = Path("claims/test_kv_cache.py")


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with a planted model saved as a folder, and its prompts as a task file."""
    project = make_project(tmp_path_factory.mktemp("pins") / "a project")
    save_as_stranger(project)
    return project


def run(project: Path, *options: str, out: str = "out") -> Run:
    return run_pytest(
        project, "claims", *MODEL, "-k", "L18-w16", *options, out=project / out, CI="true"
    )


@pytest.fixture(scope="module")
def recorded(own: Path) -> Run:
    return run(own, "--claims-update")


@pytest.fixture(scope="module")
def pinned(own: Path, recorded: Run) -> Run:
    """The same run again; its trials are those of the first."""
    assert recorded.code == 0
    return run(own)


def test_an_update_writes_the_pins_and_says_what_is_new(own: Path, recorded: Run) -> None:
    assert recorded.code == 0, recorded.stdout + recorded.stderr
    assert "pins: 2 recorded" in recorded.stdout
    assert f"pins in {own / PINS}: 2 changed of 2 that were run" in recorded.stdout
    assert "  kv-cache-transfers-80, cell L18-w16: new, refuted" in recorded.stdout
    content = json.loads((own / PINS).read_text())
    assert content["claims"]["kv-cache-transfers-80"]["test"] == (
        "claims/test_kv_cache.py::test_kv_cache_transfers_80"
    )


def test_a_claim_that_is_refuted_as_pinned_passes_as_refuted(pinned: Run) -> None:
    assert pinned.code == 0, pinned.stdout + pinned.stderr
    words = {one["claim"]: (one["verdict"], one["pinned"]["word"]) for one in pinned.evidence}
    assert words == {
        "kv-cache-transfers-80": ("refuted", "as pinned"),
        "kv-cache-transfers-at-most-12": ("supported", "as pinned"),
    }
    assert "pins: 2 as pinned" in pinned.stdout
    assert "  L18-w16           REFUTED" in pinned.stdout


@pytest.fixture(scope="module")
def copied(own: Path, pinned: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project, to be changed."""
    assert pinned.code == 0
    return Path(shutil.copytree(own, tmp_path_factory.mktemp("copy") / "changed"))


@pytest.fixture(scope="module")
def changed(copied: Path) -> Run:
    """One pin says another verdict; one claim was edited."""
    content = json.loads((copied / PINS).read_text())
    content["claims"]["kv-cache-transfers-80"]["cells"]["L18-w16"]["verdict"] = "supported"
    (copied / PINS).write_text(json.dumps(content))
    text = (copied / CLAIMS).read_text()
    assert text.count("Region(high=0.12)") == 1
    (copied / CLAIMS).write_text(text.replace("Region(high=0.12)", "Region(high=0.13)"))
    return run(copied, "-rf")


def test_what_moved_fails_and_says_what(changed: Run) -> None:
    assert changed.code == 1
    assert {one["pinned"]["word"] for one in changed.evidence} == {"moved"}
    assert "pins: 2 moved" in changed.stdout
    assert "moved from its pin in " in changed.stdout
    assert "verdict: supported -> refuted (transfer lies outside" in changed.stdout
    assert "region of behavior transfer: <= 0.12 -> <= 0.13" in changed.stdout
    assert "SUPPORTED (failed)" in changed.stdout


@pytest.mark.slow
def test_an_update_under_workers_writes_them_too(copied: Path, changed: Run) -> None:
    assert changed.code == 1
    renewed = run(copied, "-n", "2", "--claims-update")
    assert renewed.code == 0, renewed.stdout + renewed.stderr
    assert "supported 0" in renewed.stdout
    assert "-> refuted" in renewed.stdout
    again = json.loads((copied / PINS).read_text())
    assert again["claims"]["kv-cache-transfers-80"]["cells"]["L18-w16"]["verdict"] == "refuted"


@pytest.mark.parametrize(
    ("break_it", "told"),
    [
        (lambda text: "<<<<<<< HEAD\n" + text, "checkpoint.json: no JSON ("),
        (
            lambda text: text.replace("kv-cache-transfers-80", "a-vanished-claim"),
            "pins that no claim uses: a-vanished-claim, cell L18-w16; expected",
        ),
    ],
    ids=["conflict", "claim"],
)
def test_a_bad_pin_file_is_4_before_a_model_runs_and_stays(
    own: Path, pinned: Run, tmp_path: Path, break_it: Any, told: str
) -> None:
    assert pinned.code == 0
    project = Path(shutil.copytree(own, tmp_path / "broken"))
    broken = break_it((project / PINS).read_text())
    (project / PINS).write_text(broken)
    found = run(project, out="fresh")
    assert found.code == 4, found.stdout + found.stderr
    assert told in found.stderr
    assert (project / PINS).read_text() == broken
    assert not list((project / "fresh").rglob("*.*"))


def test_planted_models_have_no_pins(own: Path) -> None:
    found = run_pytest(
        own, "claims", "--model", INERT, *SMALL, "--claims-update", out=own / "planted"
    )
    assert found.code == 4
    assert "--claims-update: planted models have no pins" in found.stderr
