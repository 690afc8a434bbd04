"""A run's state, made in memory: one model, two claims, twelve pairs, and its ledger on disk."""

from __future__ import annotations

import json
import shutil
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import pytest

from harness.cell import Cell
from harness.claim import Claim, Region
from harness.evidence import Evidence, InstrumentEvidence, to_json
from harness.models.load import LoadedModel
from harness.run.ledger import Ledger
from harness.run.runner import Runner
from harness.run.sampling_settings import Sampling
from harness.session import LEDGER_FOLDER, ClaimsSession, Settings
from harness.spec import Patch
from harness.study import ModelStudy

ROOT = Path(__file__).parents[2]
CLAIMS = (
    Claim("transfers-80", says="About 80%.", cites="a test", transfer=Region(0.7, 0.9)),
    Claim("at-most-12", says="At most 12%.", cites="a test", transfer=Region(high=0.12)),
)


@pytest.fixture(scope="session")
def finished(stored: LoadedModel, tmp_path_factory: pytest.TempPathFactory) -> ClaimsSession:
    """A session at its end. Do not change it: take `state`."""
    out = tmp_path_factory.mktemp("finished")
    settings = Settings(
        root=ROOT, models=(stored.name,), device="cpu", pairs=12, max_new_tokens=8, out=out
    )
    runner = Runner(stored, settings.task_of(stored.name), Sampling(8), Ledger(out / LEDGER_FOLDER))
    study = ModelStudy(runner, n_pairs=12, n_seeds=1)
    patch = Patch("kv", layers="25/32", positions="last(16)")

    def as_reported(found: Evidence | InstrumentEvidence) -> dict[str, object]:
        return {**json.loads(to_json(found.__dict__)), "test": "a test"}

    return ClaimsSession(
        settings,
        evidence=[
            as_reported(study.judge(Cell.of(claim, "L25-w16", patch))[0]) for claim in CLAIMS
        ],
        instrument=[as_reported(study.check_full_swap())],
    )


@pytest.fixture
def state(finished: ClaimsSession, tmp_path: Path) -> ClaimsSession:
    """A copy of the finished session in a folder of its own, to do harm to."""
    out = tmp_path / "out"
    shutil.copytree(finished.settings.out / LEDGER_FOLDER, out / LEDGER_FOLDER)
    return ClaimsSession(
        replace(finished.settings, out=out),
        evidence=deepcopy(finished.evidence),
        instrument=deepcopy(finished.instrument),
    )
