"""The stable interface for scripts, and that the docs' script does what it says."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import kv_claims
from kv_claims.models.load import LoadedModel

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("name", kv_claims.__all__)
def test_every_public_name_is_there_and_documented(name: str) -> None:
    assert getattr(kv_claims, name).__doc__


@pytest.mark.slow
def test_judge_stays_a_function_whatever_is_imported() -> None:
    """A package of the same name would take its place."""
    code = "import kv_claims, kv_claims.plugin.session; assert callable(kv_claims.judge)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_importing_it_imports_no_torch() -> None:
    code = "import sys, kv_claims, kv_claims.plugin.hooks; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = kv_claims.nothing


def test_the_script_of_the_docs_prints_what_they_say(capsys: pytest.CaptureFixture[str]) -> None:
    page = (ROOT / "docs/how-to/script.md").read_text(encoding="utf-8")
    script, printed = re.findall(r"```(?:python)?\n(.*?)```", page, re.DOTALL)[:2]
    exec(compile(script, "docs/how-to/script.md", "exec"), {})
    assert capsys.readouterr().out == printed


def test_planted_truth_is_at_hand(stored: LoadedModel) -> None:
    assert stored.planted is not None
    task = stored.planted.task(20)
    patch = kv_claims.Patch("kv", layers="25/32", positions="last(32)")
    assert stored.planted.true_transfer(patch, task, over="pairs") == pytest.approx(0.8, abs=0.03)


def test_controls_can_be_run_by_a_script(stored: LoadedModel) -> None:
    from kv_claims.run.arms import controls

    assert stored.planted is not None
    patch = kv_claims.Patch("kv", layers="12", positions="last(32)")
    arms = {"patched": patch, **controls(patch, stored.n_layers, about_layer=True)}
    frame = kv_claims.run_study(stored, stored.planted.task(40), arms)
    verdict = kv_claims.judge(frame, kv_claims.Region(0.7, 0.9))
    assert verdict.word == "supported"
    assert {found["state"] for found in verdict.controls.values()} == {"inside"}
