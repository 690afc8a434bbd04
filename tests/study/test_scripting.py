"""The engine for a script of one's own: arms by name in, a table of trials out."""

from __future__ import annotations

import json
from io import StringIO
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from kv_claims import Patch, Region, judge, run_study
from kv_claims.claims.claim import Claim
from kv_claims.errors import UsageError
from kv_claims.models.load import LoadedModel
from kv_claims.run.arms import Arm, controls, self_patch
from kv_claims.run.ledger import Ledger
from kv_claims.run.runner import Runner
from kv_claims.run.sampling_settings import Sampling
from kv_claims.run.trial import Trial
from kv_claims.study.cell import Cell
from kv_claims.study.study import ModelStudy
from tests.models.architectures import tiny
from tests.run.test_runner import number_task

TASK = number_task(((17, 24), (30, 18), (15, 20), (19, 33)))
PATCH = Patch("v_proj", "1", "last(4)", active="every_step")


@pytest.fixture(scope="module")
def model() -> LoadedModel:
    return tiny("llama")


def test_one_row_a_trial_under_the_names_given(model: LoadedModel) -> None:
    arms = {
        "patched": PATCH,
        "both": [PATCH, Patch("kv", "3", "last(4)")],
        "same": self_patch(PATCH),
        **controls(PATCH, model.n_layers, about_layer=False),
    }
    frame = run_study(model, TASK, arms, pairs=5, seeds=2, max_new_tokens=4)
    assert frame.groupby("arm").size().to_dict() == dict.fromkeys(["base", "source", *arms], 10)
    assert set(Trial.__dataclass_fields__) <= set(frame.columns)
    kept = frame.set_index(["arm", "pair", "seed"]).tokens
    assert kept["same"].equals(kept["base"])
    assert not kept["patched"].equals(kept["base"])
    assert set(json.loads(frame.geometry[0])) >= {"uncentred/prompt"}


@pytest.mark.parametrize("outcome", ["behavior", "loglik", "kl", "pr@1", "rv", "distinct_share"])
def test_the_score_is_the_outcome_asked_for(outcome: str, model: LoadedModel) -> None:
    frame = run_study(model, TASK, {"patched": PATCH}, outcome=outcome, pairs=8, max_new_tokens=4)
    scores = frame.set_index(["arm", "pair"]).score
    if outcome == "kl":
        assert (scores["source"] == 0).all()
        assert (scores["base"] < 0).all()
    if outcome in ("pr@1", "rv"):
        # A prompt of 15 tokens has no window of 16.
        short = frame.prompt_tokens < 16
        assert short.any()
        assert frame.score.isna().equals(short)
        first = json.loads(frame.geometry[0])["uncentred/prompt"]
        wanted = first[1] if outcome == "pr@1" else first[3] / first[0]
        assert frame.score[0] == wanted
    else:
        assert np.isfinite(frame.score).all()
    if outcome == "distinct_share":
        assert frame.score.equals(frame.distinct_share.astype(float))


def test_what_it_gives_can_be_judged(model: LoadedModel) -> None:
    frame = run_study(model, TASK, {"patched": PATCH}, outcome="loglik", max_new_tokens=6, seeds=2)
    verdict = judge(frame, Region(high=0.999))
    assert verdict.pairs == len(TASK.pairs)
    assert verdict.word in ("supported", "refuted", "inconclusive")
    assert not verdict.verified


REFUSED = {
    "full-swap": ("behavior", [Patch("kv", "all", "all")], "full-swap-is-the-donor"),
    "full-swap-in-two": (
        "behavior",
        [Patch("k", "all", "all"), Patch("v", "0:4", "all")],
        "full-swap-is-the-donor",
    ),
    "tautological": ("pr@1", [Patch("v_proj", "1", "last(4)")], "measured-where-patched"),
    "null": ("pr@1", [Patch("kv", "3", "last(4)")], "null-by-construction"),
    "idle": (
        "behavior",
        [Patch("residual", "1", "last(4)"), Patch("v_proj", "2", "last(4)")],
        "hook-never-fired",
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_could_say_nothing_is_as_invalid_as_in_a_test(kind: str, model: LoadedModel) -> None:
    """By the same reason, under any name, and through a file."""
    outcome, patches, why = REFUSED[kind]
    task = number_task(((17, 24), (30, 18), (19, 20), (19, 33)))
    frame = run_study(model, task, {"it": patches}, outcome=outcome, max_new_tokens=4)
    frame = pd.read_csv(StringIO(frame.replace({"arm": {"it": "patched"}}).to_csv()))
    verdict = judge(frame, Region(low=-9), direction="either")
    claim = Claim("c", says="s", cites="c", transfer=Region(low=-9), outcome=outcome)
    runner = Runner(model, task, Sampling(4), Ledger())
    tested, _ = ModelStudy(runner, len(task.pairs), n_seeds=1).judge(Cell.of(claim, "c", patches))
    assert (verdict.word, verdict.reason) == (tested.verdict, tested.reason)
    assert verdict.word == "invalid"
    assert verdict.reason.startswith(f"{why}: ")
    assert (verdict.estimate, verdict.interval, verdict.means) == (None, None, {})


def test_what_repeats_the_base_is_refused_and_what_can_be_judged_is_not(model: LoadedModel) -> None:
    arms = {"versus": self_patch(PATCH), "patched": PATCH, "noise": controls_of(model)["noise"]}
    frame = run_study(model, TASK, arms, outcome="loglik", max_new_tokens=4)
    told = frame.groupby("arm").refused.unique().map(list).to_dict()
    assert told.pop("versus") == [
        "null-by-construction: base>v_proj@1/last(4)/every_step pastes what stands there already"
    ]
    assert set(map(tuple, told.values())) == {("",)}
    assert frame.groupby("arm").patch.first()["patched"] == f"source>{PATCH}"
    # It is in the way of what rests on that arm alone.
    ask = {"region": Region(low=-9), "direction": "either"}
    assert judge(frame, estimand="difference", **ask).reason == told_of(frame, "versus")
    for estimand in ("transfer", "gap"):
        assert "null" not in judge(frame, estimand=estimand, **ask).reason


def controls_of(model: LoadedModel) -> dict[str, Arm]:
    return controls(PATCH, model.n_layers, about_layer=False)


def told_of(frame: pd.DataFrame, arm: str) -> str:
    return str(frame[frame.arm == arm].refused.iloc[0])


def test_a_column_of_ones_own_by_that_name_is_a_clear_error(model: LoadedModel) -> None:
    frame = run_study(model, TASK, {"patched": PATCH}, outcome="loglik", max_new_tokens=4)
    with pytest.raises(UsageError, match="`refused` 'True', expected lines of `check: detail`"):
        judge(frame.assign(refused=True), Region(low=0))


def test_a_ledger_lets_it_go_on(
    model: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"outcome": "loglik", "pairs": 4, "max_new_tokens": 4, "ledger": tmp_path}
    first = run_study(model, TASK, {"patched": PATCH}, **options)
    monkeypatch.setattr(type(model.network), "forward", None)
    again = run_study(model, TASK, {"patched": PATCH}, **options)
    assert again.equals(first)


@pytest.mark.parametrize(
    ("arms", "options", "message"),
    [
        ({"patched": Patch("kv", "4", "last(2)")}, {}, "out of range, expected layers 0 to 3"),
        ({"patched": Patch("v_proj", "1", "last(16)")}, {}, "need 16 positions"),
        ({"patched": []}, {}, "expected a Patch, or several"),
        ({"a": [PATCH, Patch("v", "1", "last(2)")]}, {}, "both write 'v' of layer 1"),
        ({"patched": PATCH}, {"outcome": "pr@9"}, "out of range"),
        ({"patched": PATCH}, {"outcome": "nothing"}, "outcome 'nothing'"),
        ({"patched": PATCH}, {"seeds": 0}, "seeds 0: expected at least 1"),
        ({"base": PATCH, "source": PATCH, "p": PATCH}, {}, "name 'base' is that of an arm which"),
        ({"p": PATCH, "Source": PATCH}, {}, "name 'Source' is that of an arm which every"),
        (
            {"noise": PATCH},
            {},
            "name 'noise' is that of a negative control, whose donor is 'noise'",
        ),
        ({"Unrelated-Base": PATCH}, {}, "is that of a negative control"),
        ({"": PATCH}, {}, "name '', expected text"),
        ({" p": PATCH}, {}, "name ' p', expected text without space around it"),
        ({1: PATCH}, {}, "name 1, expected text"),
        ({"caf\u00e9": PATCH, "Cafe\u0301": PATCH}, {}, "differ in case or form only"),
        ([PATCH], {}, "arms: list, expected names and patches"),
    ],
    ids=[
        *("layer", "window", "none", "meet", "outcome-layer", "outcome", "seeds"),
        *("base", "source-in-capitals", "noise", "unrelated", "empty", "space", "number", "twice"),
        "no-names",
    ],
)
def test_what_does_not_fit_is_refused_before_the_model_runs(
    arms: dict[str, Arm],
    options: dict[str, object],
    message: str,
    model: LoadedModel,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(type(model.network), "forward", None)
    with pytest.raises(UsageError, match=message):
        run_study(model, TASK, arms, **options)
