"""A small part of `make kill`, and that it would find what is wrong."""

from __future__ import annotations

import random
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from kv_claims.evidence.stored import load_run
from kv_claims.models.load import LoadedModel
from tests.reliability import kill
from tests.runs import KINDS, make_run


@pytest.fixture(scope="module")
def another(stored: LoadedModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("another") / "out", stored, KINDS[:2])


@pytest.mark.slow
@pytest.mark.parametrize(("workers", "number"), [(0, 2), (2, 0)], ids=["writing", "workers"])
def test_a_killed_run_leaves_one_run_and_ends_as_one_that_was_not(
    tmp_path: Path, workers: int, number: int
) -> None:
    known = kill.undisturbed(tmp_path, workers)
    found = kill.kill_once(tmp_path, workers, number, known, random.Random(7))
    assert found.good, found
    assert found.left in ("earlier", "new")


def test_the_same_run_does_not_differ(a_run: Path, another: Path) -> None:
    assert kill.differs(load_run(a_run), load_run(a_run)) == ""
    # Two runs of the same are the same, whatever their ids.
    wanted = load_run(another)
    assert kill.differs(replace(wanted, run={**wanted.run, "id": "another"}), wanted) == ""


def test_what_differs_is_found(a_run: Path) -> None:
    wanted = load_run(a_run)
    key = next(iter(wanted.evidence))
    one = wanted.evidence[key]
    for name, value in (("estimate", 0.5), ("verdict", "none"), ("trials", {})):
        other = replace(wanted, evidence={**wanted.evidence, key: {**one, name: value}})
        assert f"{key}: {name} " in kill.differs(other, wanted)
    fewer = {k: v for k, v in wanted.evidence.items() if k != key}
    assert kill.differs(replace(wanted, evidence=fewer), wanted) == f"no evidence on {key}"
    trials = wanted.trials.copy()
    trials.loc[3, "text"] += " x"
    assert kill.differs(replace(wanted, trials=trials), wanted) == "other trials"
    broken_off = {**wanted.run, "complete": False}
    assert "incomplete" in kill.differs(replace(wanted, run=broken_off), wanted)


def test_a_mixture_is_found(a_run: Path, another: Path, tmp_path: Path) -> None:
    out = Path(shutil.copytree(a_run, tmp_path / "out"))
    assert kill._left(out, a_run) == ("earlier", "")
    assert kill._left(Path(shutil.copytree(another, tmp_path / "new")), a_run) == ("new", "")
    shutil.copy(another / "trials.parquet", out / "trials.parquet")
    shutil.rmtree(tmp_path / "out-left")
    assert "files of two runs" in kill._left(out, a_run)[1]
    shutil.copy(a_run / "trials.parquet", out / "trials.parquet")
    shutil.copy(another / "report.md", out / "report.md")
    shutil.rmtree(tmp_path / "out-left")
    assert "report.md" in kill._left(out, a_run)[1]
