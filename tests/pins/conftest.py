"""Cells of every kind, run once on a planted model, and the pins that come of them."""

from __future__ import annotations

from typing import NamedTuple

import pytest

from kv_claims.evidence.evidence import plain
from kv_claims.models.load import LoadedModel
from kv_claims.pins.pin import Pin, pin_of
from kv_claims.run.ledger import Ledger
from kv_claims.run.runner import Runner
from kv_claims.run.sampling_settings import Sampling
from kv_claims.study.study import ModelStudy
from kv_claims.study.walk import CellRun
from kv_claims.tasks.task import Task
from tests.runs import KINDS, PAIRS, TOKENS


class Pinning(NamedTuple):
    """A cell that was run, and its pin."""

    done: CellRun
    pin: Pin


def pinned(done: CellRun) -> Pinning:
    evidence = plain(done.evidence.__dict__)
    return Pinning(
        done, pin_of(evidence, done.tables, test="claims/test_a.py::test_a", pairs_asked=PAIRS)
    )


def study_of(model: LoadedModel, task: Task) -> ModelStudy:
    return ModelStudy(Runner(model, task, Sampling(TOKENS), Ledger()), PAIRS, 1)


@pytest.fixture(scope="package")
def all_kinds(stored: LoadedModel, stored_task: Task) -> dict[str, Pinning]:
    """By claim id: one claim of each kind."""
    study = study_of(stored, stored_task)
    return {cell.claim.id: pinned(study.run_cell(cell)) for cell in KINDS}
