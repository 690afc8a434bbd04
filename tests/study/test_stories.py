"""A real trained model end to end: stories260K with its own small task.

Skips, and says so, where the model's folder is not (see `conftest.py`).
"""

from __future__ import annotations

import pytest

from kv_claims import Patch, Region, judge, run_study
from kv_claims.claims.claim import Claim
from kv_claims.models.load import LoadedModel
from kv_claims.run.ledger import Ledger
from kv_claims.run.runner import Runner
from kv_claims.run.sampling_settings import Sampling
from kv_claims.study.cell import Cell
from kv_claims.study.study import ModelStudy
from kv_claims.tasks.task import Task

CLAIM = Claim(
    "a-claim", says="It transfers.", cites="a test", transfer=Region(0.7, 0.9), about="layer"
)


@pytest.fixture(scope="module")
def study(stories: LoadedModel, stories_task: Task) -> ModelStudy:
    runner = Runner(stories, stories_task, Sampling(40), Ledger())
    return ModelStudy(runner, n_pairs=20, n_seeds=1)


@pytest.mark.parametrize(
    ("layers", "positions"),
    [("18/32", "last(16)"), ("25/32+27/32", "last(32)"), ("all", "first(25%)"), ("0", "all")],
    ids=["L18-w16", "L25+L27-w32", "all-first", "first-all"],
)
def test_every_instrument_check_passes(study: ModelStudy, layers: str, positions: str) -> None:
    evidence, expected = study.judge(Cell.of(CLAIM, "cell", Patch("kv", layers, positions)))
    assert expected is None
    instrument = [c for c in evidence.checks if not c["name"].startswith(("control", "weak"))]
    failed = [c for c in instrument if c["passed"] is not True and c["name"] != "no-ceiling"]
    assert not failed
    assert evidence.trials["failed"] == 0


def test_the_full_swap_is_the_source(study: ModelStudy) -> None:
    evidence = study.check_full_swap()
    assert evidence.passed, evidence.checks


def test_a_script_of_ones_own(stories: LoadedModel, stories_task: Task) -> None:
    frame = run_study(
        stories,
        stories_task,
        {"patched": Patch("v", "2", "last(8)")},
        pairs=12,
        max_new_tokens=10,
    )
    assert frame.groupby("arm").size().to_dict() == {"base": 12, "patched": 12, "source": 12}
    verdict = judge(frame, Region(0.7, 0.9))
    assert not verdict.verified
    assert verdict.pairs == 12
