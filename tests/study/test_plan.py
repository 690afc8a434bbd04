"""A plan: what is settled before a trial is run, once; what is done with it resolves no more."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, replace
from pathlib import Path

import pytest

from kv_claims.claims.claim import Region
from kv_claims.claims.outcome import Outcome
from kv_claims.claims.patch import Patch
from kv_claims.errors import UsageError
from kv_claims.evidence.evidence import plan_sha
from kv_claims.evidence.stored import load_run
from kv_claims.models.load import LoadedModel
from kv_claims.planted.catalog import N_HEADS, N_KV_HEADS, N_LAYERS
from kv_claims.run.arms import canonical_arm
from kv_claims.run.ledger import Ledger
from kv_claims.run.runner import Runner
from kv_claims.run.sampling_settings import Sampling
from kv_claims.study import plan as plan_module
from kv_claims.study.cell import Cell
from kv_claims.study.plan import plan_of
from kv_claims.study.stated import KnownModel, described
from kv_claims.study.study import ModelStudy
from kv_claims.study.walk import Study
from kv_claims.tasks.task import Task
from tests.replay.conftest import MODEL, opened
from tests.runs import HERE, KINDS, claim, key_of, make_run

SIZE = KnownModel("planted", N_LAYERS, N_KV_HEADS, N_HEADS)
BEYOND = Cell.of(claim("beyond", transfer=Region(high=0.4)), "a", Patch("kv", "99", "last(4)"))


@pytest.mark.parametrize("cell", KINDS, ids=lambda cell: cell.claim.id)
def test_every_arm_is_in_one_spelling_and_every_outcome_parsed(cell: Cell) -> None:
    plan = plan_of(cell, SIZE, 30)
    assert plan.arms == {
        role: canonical_arm(arm, N_LAYERS, SIZE.heads) for role, arm in plan.arms.items()
    }
    assert [part.outcome for part in plan.parts] == [
        Outcome.parse(part.outcome) for part in (*cell.claim.parts, *cell.claim.given)
    ]
    assert plan.stated["sha"] == plan_sha(dict(plan.stated))
    with pytest.raises(FrozenInstanceError):
        plan.pairs = 3  # type: ignore[misc]


@pytest.mark.parametrize("source", ["run", "stored"])
@pytest.mark.parametrize("cell", [KINDS[2], KINDS[7]], ids=lambda cell: cell.claim.id)
def test_once_there_is_a_plan_nothing_is_worked_out_again(
    source: str,
    cell: Cell,
    stored: LoadedModel,
    stored_task: Task,
    a_run: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The plan is made once, and from then on no text of a claim or a layer is read in `study`."""
    study: Study = opened(a_run).study(MODEL)
    if source == "run":
        study = ModelStudy(Runner(stored, stored_task, Sampling(4), Ledger()), 12, n_seeds=1)
    plan, asked = study.plan(cell), []
    monkeypatch.setattr(type(study), "plan", lambda _self, one: asked.append(one) or plan)
    for name in ("canonical", "check_apart", "canonical_arm", "controls", "classify", "stated"):
        monkeypatch.setattr(plan_module, name, None)
    monkeypatch.setattr(Outcome, "parse", None)
    evidence, expected = study.judge(cell)
    assert asked == [cell]
    assert (evidence.plan, expected) == (plan.stated, plan.expected)


def test_looks_are_those_that_there_are_pairs_for() -> None:
    (asked,) = (cell for cell in KINDS if cell.claim.looks == (10, 30))
    assert [plan_of(asked, SIZE, n).looks for n in (9, 10, 29, 30, 99)] == [
        (),
        (10,),
        (10,),
        (10, 30),
        (10, 30),
    ]


def test_what_no_model_has_is_an_error_and_what_this_one_lacks_is_said() -> None:
    plan = plan_of(BEYOND, SIZE, 30)
    assert [check.name for check in plan.untestable] == ["no-such-cell"]
    assert (plan.arms, plan.cell) == ({}, BEYOND)
    assert plan.patch is not None
    assert plan.patch["resolved_layers"] == []
    twice = replace(BEYOND, patches=(HERE, HERE))
    with pytest.raises(UsageError, match="both write 'k' of layer 12"):
        plan_of(twice, SIZE, 30)


def test_a_run_with_a_cell_that_its_model_lacks_is_read_and_judged_again(
    stored: LoadedModel, tmp_path: Path
) -> None:
    run = make_run(tmp_path / "run", stored, [BEYOND, KINDS[1]], pairs=12, max_new_tokens=4)
    assert load_run(run).evidence[key_of("beyond")]["verdict"] == "invalid"
    found, expected = opened(run).study(MODEL).judge(BEYOND)
    assert found.reason.startswith("no-such-cell: layers '99'")
    assert expected is not None
    assert expected.because == "no-such-cell"


@pytest.mark.parametrize(
    ("patch", "heads", "kind"),
    [
        (Patch("kv", "9", "last(4)", heads="0"), [0], "KV heads"),
        (Patch("z", "9", "last(4)", heads="1"), [1], "query heads"),
        (Patch("q_proj", "9", "last(4)"), [0, 1], "query heads"),
        (Patch("z", "9", "last(4)", heads="2"), [], "query heads"),
        (Patch("attn_out", "9", "last(4)"), None, None),
    ],
    ids=str,
)
def test_heads_are_told_with_their_kind(
    patch: Patch, heads: list[int] | None, kind: str | None
) -> None:
    said = described([patch], SIZE)
    assert said is not None
    assert (said["resolved_heads"], said["head_kind"]) == (heads, kind)
