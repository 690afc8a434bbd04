"""Fixtures for all tests: small models that are built in memory, and the stored one where it is."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path

import pytest

# Read when torch loads: threads that wait by spinning are many times slower on shared cores.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch

from kv_claims.models.load import LoadedModel, load_model
from kv_claims.planted.prompts import planted_task
from kv_claims.tasks.load import load_task
from kv_claims.tasks.task import Task
from tests.device import DEVICE, PRETENDED
from tests.pretend_gpu import pretend_gpu
from tests.runs import make_run

ROOT = Path(__file__).parents[1]
STORIES = Path(os.environ.get("KV_CLAIMS_STORIES", ROOT.parent / "shared/models/stories260K"))


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "slow: left out of `make test`; `make test-slow` runs it")
    config.addinivalue_line("markers", "gpu: needs a CUDA device; `make gpu` runs it")
    if PRETENDED:
        opened = ExitStack()
        opened.enter_context(pretend_gpu())
        config.add_cleanup(opened.close)
    # A conftest below the root may not name plugins, but it may load some.
    for plugin in ("pytester", "tests.finished_runs"):
        config.pluginmanager.import_plugin(plugin)
    # The models here are so small that sharing a matrix out costs more than it gives.
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def stored() -> LoadedModel:
    """The planted model whose layer 12 of 16 carries the behavior, float64."""
    return load_model("planted:stored-at-layer", device=DEVICE)


@pytest.fixture(scope="session")
def stored_task(stored: LoadedModel) -> Task:
    """Its task: 40 pairs of unequal lengths."""
    assert stored.planted is not None
    return planted_task(stored.planted, n_pairs=40)


@pytest.fixture(scope="session")
def stories() -> LoadedModel:
    """stories260K, a real trained 260K-parameter Llama; skips, and says so, where it is not."""
    if not (STORIES / "config.json").is_file():
        pytest.skip(f"no model in {STORIES}: set KV_CLAIMS_STORIES to a stories260K folder")
    return load_model(str(STORIES), device=DEVICE, dtype="float32")


@pytest.fixture(scope="session")
def stories_task() -> Task:
    """The small task of stories260K."""
    return load_task(ROOT / "claims/tasks/sea_stories.yaml")


@pytest.fixture(scope="session")
def a_run(stored: LoadedModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run with one claim of each kind. Do not change it: copy it."""
    return make_run(tmp_path_factory.mktemp("runs") / "a", stored)
