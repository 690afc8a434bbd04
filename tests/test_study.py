"""A study on a ledger that holds more, or other, trials than it asks for."""

from __future__ import annotations

from pathlib import Path

from harness.claim import Claim, Region
from harness.evidence import Evidence
from harness.models.load import LoadedModel
from harness.run.ledger import Ledger
from harness.run.runner import Runner
from harness.run.sampling_settings import Sampling
from harness.spec import Patch
from harness.study import ModelStudy
from harness.tasks.task import Task

CLAIM = Claim("at-most-12", says="At most 12%.", cites="a test", transfer=Region(high=0.12))
PATCH = Patch("kv", layers="9", positions="last(16)")


def judged(model: LoadedModel, task: Task, ledger: Path, pairs: int) -> Evidence:
    runner = Runner(model, task, Sampling(4), Ledger(ledger))
    return ModelStudy(runner, pairs, n_seeds=1).judge(CLAIM, "cell", PATCH)[0]


def test_more_pairs_than_the_ledger_holds_run_the_missing_ones(
    stored: LoadedModel, stored_task: Task, tmp_path: Path
) -> None:
    few = judged(stored, stored_task, tmp_path, 12)
    more = judged(stored, stored_task, tmp_path, 40)
    fresh = judged(stored, stored_task, tmp_path / "fresh", 40)
    assert (few.verdict, more.verdict) == ("supported", "supported")
    assert (more.means, more.estimate) == (fresh.means, fresh.estimate)
    assert more.trials == fresh.trials


def test_fewer_pairs_than_the_ledger_holds_end_as_a_run_of_their_own(
    stored: LoadedModel, tmp_path: Path
) -> None:
    assert stored.planted is not None
    task = stored.planted.task(300)
    judged(stored, task, tmp_path, 300)
    few = judged(stored, task, tmp_path, 12)
    fresh = judged(stored, task, tmp_path / "fresh", 12)
    assert fresh.verdict == "supported"
    assert few.means == fresh.means
    assert (few.verdict, few.reason) == (fresh.verdict, fresh.reason)
