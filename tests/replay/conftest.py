"""A stored run as a source, and copies of it that may be spoiled."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from kv_claims.evidence.stored import TRIALS_FILE
from kv_claims.planted.catalog import CATALOG
from kv_claims.planted.prompts import planted_task
from kv_claims.replay.run import ReplayedRun
from kv_claims.tasks.task import Task

MODEL = "planted:stored-at-layer"


def own_task(model: str, _file: Path | None) -> Task:
    return planted_task(CATALOG[model.removeprefix("planted:")])


def opened(folder: Path, task: Task | None = None) -> ReplayedRun:
    return ReplayedRun.open(folder, (), own_task, task)


@pytest.fixture(scope="session")
def replayed(a_run: Path) -> ReplayedRun:
    """The run with one claim of each kind. It is only looked at."""
    return opened(a_run)


@pytest.fixture
def copy(a_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(a_run, tmp_path / "copy"))


@pytest.fixture
def spoil(copy: Path) -> Callable[[Callable[[pd.DataFrame], pd.DataFrame]], Path]:
    """Change the trials of the copy, whose folder comes back."""

    def change(edit: Callable[[pd.DataFrame], pd.DataFrame]) -> Path:
        path = copy / TRIALS_FILE
        edit(pd.read_parquet(path)).to_parquet(path)
        return copy

    return change
