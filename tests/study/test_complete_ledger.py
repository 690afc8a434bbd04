"""A ledger that has everything: it is judged without the model, and says what was seen then."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import pytest

from kv_claims.claims.claim import Claim, Region
from kv_claims.claims.patch import Patch
from kv_claims.evidence.evidence import Evidence, to_json
from kv_claims.models.load import LoadedModel
from kv_claims.run.forced import ForcedRuns
from kv_claims.run.ledger import LIKELIHOODS, SELF_PATCHES, Ledger
from kv_claims.run.runner import Runner
from kv_claims.run.sampling_settings import Sampling
from kv_claims.run.self_patches import SelfPatches
from kv_claims.study.cell import Cell
from kv_claims.study.study import ModelStudy
from tests.judging.defects import (
    CLAIM,
    EVERY_STEP,
    LOGLIK,
    failed,
    model_of,
    self_patch_that_changes,
    write_into_the_store,
)
from tests.run.test_runner import number_task

SPLICE = Patch("kv", "1", "last(6)")
ORDER = Claim("order", says="s", cites="c", difference=Region(low=0.0))
CELLS: dict[str, Cell] = {
    "splice": Cell.of(CLAIM, "splice", SPLICE),
    "in-prefill": Cell.of(CLAIM, "in-prefill", Patch("kv_proj", "1", "last(6)")),
    "several-live": Cell.of(CLAIM, "several", (EVERY_STEP, Patch("k", "0", "last(6)"))),
    "likelihood": Cell.of(LOGLIK, "likelihood", EVERY_STEP),
    "order": Cell.of(ORDER, "order", SPLICE, Patch("kv", "2", "last(6)")),
}
N = 12


class Forwards:
    """Counts the forward passes of a network's class, from when it is made."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, model: LoadedModel) -> None:
        self.n = 0
        real: Callable[..., Any] = type(model.network).forward

        @wraps(real)
        def counted(*args: Any, **options: Any) -> Any:
            self.n += 1
            return real(*args, **options)

        monkeypatch.setattr(type(model.network), "forward", counted)


@pytest.fixture
def forwards(monkeypatch: pytest.MonkeyPatch) -> Forwards:
    return Forwards(monkeypatch, model_of("llama"))


def study(folder: Path) -> ModelStudy:
    """A study opened anew on a ledger; how its batches would be decoded is tried out, as it is
    once a run."""
    runner = Runner(model_of("llama"), number_task(), Sampling(6), Ledger(folder))
    assert runner.route
    return ModelStudy(runner, N, n_seeds=1)


def held(ledger: Ledger) -> dict[str, int]:
    """Records of each kind."""
    beside = {LIKELIHOODS: ledger.likelihoods, SELF_PATCHES: ledger.self_patches}
    return {"trials": len(ledger), **{name: len(some) for name, some in beside.items()}}


def held_lines(folder: Path) -> dict[str, int]:
    """Lines of each kind."""
    places = {"trials": folder, **{name: folder / name for name in (LIKELIHOODS, SELF_PATCHES)}}
    return {name: len((at / "main.jsonl").read_text().splitlines()) for name, at in places.items()}


def told(evidence: Evidence) -> str:
    return to_json(evidence.__dict__, sort_keys=True)


@pytest.mark.parametrize("name", CELLS)
def test_the_same_evidence_without_a_forward_pass(
    name: str, tmp_path: Path, forwards: Forwards
) -> None:
    first = study(tmp_path)
    wanted = first.judge(CELLS[name])[0]
    assert forwards.n > 0
    again = study(tmp_path)
    before = forwards.n
    found = again.judge(CELLS[name])[0]
    assert forwards.n == before
    assert told(found) == told(wanted)
    assert (again.runner.ran, again.runner.store.tokens) == (0, [])


@pytest.mark.parametrize("what", ["trials", SELF_PATCHES, LIKELIHOODS])
def test_what_one_kill_left_out_is_run_and_nothing_else(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, forwards: Forwards
) -> None:
    cell = CELLS["likelihood"]
    whole = told(study(tmp_path / "whole").judge(cell)[0])
    where: dict[str, tuple[type, str]] = {
        "trials": (Runner, "_run_batch"),
        SELF_PATCHES: (SelfPatches, "_written"),
        LIKELIHOODS: (ForcedRuns, "_run_batch"),
    }
    kind, method = where[what]

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    one = study(tmp_path / "killed")
    assert one._shared
    with monkeypatch.context() as dying:
        dying.setattr(kind, method, killed)
        with pytest.raises(KeyboardInterrupt):
            one.judge(cell)
    resumed = study(tmp_path / "killed")
    before = held(resumed.runner.ledger)
    assert told(resumed.judge(cell)[0]) == whole
    after = held(resumed.runner.ledger)
    assert before[what] < after[what] == held(Ledger(tmp_path / "whole"))[what]
    lines = held_lines(tmp_path / "killed")
    assert lines == after, "something was recorded twice"
    complete = study(tmp_path / "killed")
    seen = forwards.n
    assert told(complete.judge(cell)[0]) == whole
    assert forwards.n == seen


@pytest.mark.parametrize(
    ("defect", "check"),
    [(write_into_the_store, "cache-aliasing"), (self_patch_that_changes, "self-patch")],
)
def test_what_failed_then_is_not_made_good_by_a_run_that_has_nothing_to_do(
    defect: Callable[[pytest.MonkeyPatch], None], check: str, tmp_path: Path
) -> None:
    with pytest.MonkeyPatch.context() as broken:
        defect(broken)
        wanted = study(tmp_path).judge(CELLS["splice"])[0]
    assert check in failed(wanted)
    found = study(tmp_path).judge(CELLS["splice"])[0]
    assert told(found) == told(wanted)
