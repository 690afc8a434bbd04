"""Ablation and steering judged on planted models: words, controls, and what is said of them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from kv_claims.claims.claim import Claim, Region
from kv_claims.claims.patch import Patch
from kv_claims.errors import UsageError
from kv_claims.evidence.evidence import Evidence
from kv_claims.judging.instrument import no_control
from kv_claims.models.load import load_model
from kv_claims.pins.passes import outcome
from kv_claims.planted.catalog import COLUMN, HIDDEN
from kv_claims.run.arms import BASE, patched
from kv_claims.run.ledger import Ledger
from kv_claims.run.runner import Runner
from kv_claims.run.sampling_settings import Sampling
from kv_claims.study.cell import Cell
from kv_claims.study.expectation import Expectation
from kv_claims.study.study import ModelStudy
from kv_claims.study.testable import idle
from kv_claims.tasks.directions import Direction

COSTS = Region(high=-20)
HEAD_0 = Patch("z", "9", "all", heads="0", donor="zero", active="every_step")


def claims(region: Region = COSTS, margin: float = 5) -> Claim:
    return Claim("c", says="s", cites="c", shift=region, margin=margin)


@pytest.fixture(scope="module")
def study() -> ModelStudy:
    model = load_model("planted:standing")
    assert model.planted is not None
    along = np.zeros(HIDDEN)
    along[COLUMN["signal"]] = 0.3
    task = replace(model.planted.task(40), directions=(Direction("signal", {"": along}),))
    return ModelStudy(Runner(model, task, Sampling(20), Ledger()), 40, n_seeds=1)


def judged(study: ModelStudy, patch: Patch, claim: Claim) -> tuple[Evidence, Expectation]:
    evidence, expected = study.judge(Cell.of(claim, "cell", patch))
    assert expected is not None
    return evidence, expected


def test_a_head_that_is_needed(study: ModelStudy) -> None:
    """Other heads and other layers are ablated beside it, and cost nothing; so it is verified."""
    evidence, expected = judged(study, HEAD_0, claims())
    assert (evidence.verdict, evidence.verified, expected.word) == ("supported", True, "supported")
    assert evidence.estimate == pytest.approx(expected.transfer, abs=3)
    assert set(evidence.controls) == set(expected.controls) == {"other-heads", "wrong-layer"}
    assert evidence.arms["other-heads"] == "zero>z@9/all/heads=1/every_step"
    checks = {check["name"]: check["passed"] for check in evidence.checks}
    assert checks["self-patch"] is checks["hook-never-fired"] is checks["vacuous-control"] is True
    assert evidence.patch is not None
    assert evidence.patch["donor"] == "zero"


def test_a_head_that_is_not_is_refuted_or_nothing_moves(study: ModelStudy) -> None:
    """Head 1: the control of head 0. Nothing changes in any pair, which no shift can be told of."""
    evidence, expected = judged(study, replace(HEAD_0, heads="1"), claims())
    assert (evidence.verdict, expected.word) == ("invalid", "invalid")
    assert evidence.reason.startswith("degenerate")
    assert outcome(evidence.verdict, evidence.reason, expected, strict=False)[0] == "pass"


def test_a_control_that_does_something_fails(study: ModelStudy) -> None:
    """Layer 1 is idle, and half the depth away from it is the layer that holds the head."""
    claim = Claim("c", says="s", cites="c", transfer=Region(-0.1, 0.1))
    evidence, expected = judged(study, replace(HEAD_0, layers="1"), claim)
    assert evidence.verdict == expected.word == "supported"  # of no effect, which nothing gates
    assert evidence.controls["wrong-layer"]["state"] == "outside"
    assert expected.controls["wrong-layer"] < -1
    (check,) = (one for one in evidence.checks if one["name"] == "control wrong-layer")
    assert check["passed"] is False


def test_without_another_place_no_effect_is_supported(study: ModelStudy) -> None:
    evidence, expected = judged(study, replace(HEAD_0, layers="all", heads="all"), claims())
    assert evidence.verdict == expected.word == "inconclusive"
    assert evidence.reason.startswith("no-control: no other heads, nor layers")
    assert evidence.verified is False
    arms = {"base": BASE, "patched": patched(Patch("kv", "1", "all"))}
    assert no_control(arms) == []


def test_a_direction_has_one_of_chance_beside_it(study: ModelStudy) -> None:
    steer = Patch("residual", "12", "all", "all", "add(2)", "every_step", "vector(signal)")
    evidence, expected = judged(study, steer, claims(Region(low=10), margin=10))
    assert (evidence.verdict, expected.word) == ("supported", "supported")
    assert evidence.estimate == pytest.approx(expected.transfer, abs=3)
    assert set(evidence.controls) == {"random-direction"}
    assert expected.unless == "not specific"  # its truth is not known
    assert evidence.patch is not None
    assert study.task.directions[0].sha in evidence.patch["donor_told"]
    against = replace(steer, mode="add(-2)")
    evidence, expected = judged(study, against, claims(Region(high=-10), margin=10))
    assert (evidence.verdict, expected.word) == ("supported", "supported")


def test_a_constant_is_given_by_no_other() -> None:
    """What attention adds is computed from z; its mean, or zeros, are not."""
    for donor, n_idle in (("source", 1), ("resample", 1), ("mean", 0), ("zero", 0)):
        arm = tuple(Patch(site, "9", "all", donor=donor) for site in ("z", "attn_out"))
        assert len(idle([arm], 16)) == n_idle


def test_what_is_carried_comes_from_the_source() -> None:
    claim = Claim("c", says="s", cites="c", carried=Region(low=0.5))
    for patch in (HEAD_0, replace(HEAD_0, donor="resample")):
        with pytest.raises(UsageError, match="what is `carried` comes from the source"):
            Cell.of(claim, "cell", patch)


def test_a_mean_says_what_it_is_over(study: ModelStudy) -> None:
    evidence, _ = judged(study, replace(HEAD_0, donor="mean"), claims(Region(-5, 5)))
    assert evidence.patch is not None
    told = evidence.patch["donor_told"]
    assert "the mean over all T positions of the 40 bases of task 'planted:standing'" in told
    assert study.task.sha[:16] in told
