"""A run's state, made in memory: one model, twelve pairs, and its ledger on disk.

`state` has two claims of the usual kind, `every_kind` one of each other kind.
"""

from __future__ import annotations

import json
import shutil
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import pytest

from kv_claims.claims.claim import Claim, Part, Region
from kv_claims.claims.patch import Patch
from kv_claims.evidence.evidence import Evidence, InstrumentEvidence, to_json
from kv_claims.models.load import LoadedModel
from kv_claims.plugin.session import ClaimsSession
from kv_claims.plugin.settings import LEDGER_FOLDER, Settings
from kv_claims.run.ledger import Ledger
from kv_claims.run.runner import Runner
from kv_claims.run.sampling_settings import Sampling
from kv_claims.study.cell import Cell
from kv_claims.study.study import ModelStudy

ROOT = Path(__file__).parents[1]
CLAIMS = (
    Claim("transfers-80", says="About 80%.", cites="a test", transfer=Region(0.7, 0.9)),
    Claim("at-most-12", says="At most 12%.", cites="a test", transfer=Region(high=0.12)),
)
HERE, ELSEWHERE = (Patch("kv", layers=layer, positions="last(16)") for layer in ("12", "9"))
TRANSFER = Part.transfer("behavior", Region(0.1, 0.9))
GAP = Part.gap("loglik", Region(low=0.0))


def _claim(name: str, **asserted: object) -> Claim:
    return Claim(name, says="A | sentence.", cites="a test", **asserted)


KINDS = (
    (_claim("order", difference=Region(low=0.0)), HERE, ELSEWHERE),
    (_claim("gap", gap=Region(low=0.0), outcome="rv"), None, None),
    (
        _claim("both", all_of=(TRANSFER, GAP), given=(Part.gap("behavior", Region(low=0.0)),)),
        HERE,
        None,
    ),
    (
        _claim("loglik", transfer=Region(0.1, 0.9), outcome="loglik"),
        Patch("residual", "12", "last(2)", active="every_step"),
        None,
    ),
    (_claim("several", transfer=Region(high=0.12)), (ELSEWHERE, Patch("v_proj", "3", "all")), None),
    (
        _claim("pasted", transfer=Region(0.9, 1.1), outcome="pr@27/32"),
        Patch("v_proj", "27/32", "last(16)"),
        None,
    ),
)
"""Claims that the seed's own table has no place for, each with its patches."""


def _study(model: LoadedModel, settings: Settings, shard: str = "main") -> ModelStudy:
    ledger = Ledger(settings.out / LEDGER_FOLDER, shard)
    runner = Runner(model, settings.task_of(model.name), Sampling(8), ledger)
    return ModelStudy(runner, n_pairs=12, n_seeds=1)


def _as_reported(found: Evidence | InstrumentEvidence) -> dict[str, object]:
    return {**json.loads(to_json(found.__dict__)), "test": "a test"}


@pytest.fixture(scope="session")
def finished(stored: LoadedModel, tmp_path_factory: pytest.TempPathFactory) -> ClaimsSession:
    """A session at its end. Do not change it: take `state`."""
    out = tmp_path_factory.mktemp("finished")
    settings = Settings(
        root=ROOT, models=(stored.name,), device="cpu", pairs=12, max_new_tokens=8, out=out
    )
    study = _study(stored, settings)
    patch = Patch("kv", layers="25/32", positions="last(16)")
    return ClaimsSession(
        settings,
        evidence=[
            _as_reported(study.judge(Cell.of(claim, "L25-w16", patch))[0]) for claim in CLAIMS
        ],
        instrument=[_as_reported(study.check_full_swap())],
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


@pytest.fixture(scope="session")
def finished_kinds(
    finished: ClaimsSession, stored: LoadedModel, tmp_path_factory: pytest.TempPathFactory
) -> ClaimsSession:
    """A session with a claim of every other kind, and a ledger of its own."""
    settings = replace(finished.settings, out=tmp_path_factory.mktemp("kinds"))
    study = _study(stored, settings, shard="kinds")
    evidence = [
        _as_reported(study.judge(Cell.of(claim, "a-cell", patch, versus))[0])
        for claim, patch, versus in KINDS
    ]
    return ClaimsSession(settings, evidence=evidence)


@pytest.fixture
def every_kind(state: ClaimsSession, finished_kinds: ClaimsSession) -> ClaimsSession:
    """The usual session with a claim of every other kind behind it."""
    ledger = finished_kinds.settings.out / LEDGER_FOLDER
    shutil.copytree(ledger, state.settings.out / LEDGER_FOLDER, dirs_exist_ok=True)
    state.evidence.extend(deepcopy(finished_kinds.evidence))
    return state
