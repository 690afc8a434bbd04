"""Arms on their own: exploratory numbers, held against what was judged and against truth."""

from __future__ import annotations

from pathlib import Path

import pytest
from scipy import stats

from kv_claims.claims.patch import Patch, canonical
from kv_claims.claims.sites import HeadCounts
from kv_claims.evidence.stored import StoredRun, load_run
from kv_claims.models.load import LoadedModel
from kv_claims.report.view.arms import ArmView, arms_of, parse_arm
from kv_claims.report.view.dose import curves_by_layers, curves_by_share
from kv_claims.report.view.heatmap import grid_of, layers_text
from kv_claims.report.view.scores import Scores
from kv_claims.run.arms import patched
from tests.report.arms import view
from tests.runs import key_of, make_run


@pytest.fixture(scope="module")
def run(stored: LoadedModel, tmp_path_factory: pytest.TempPathFactory) -> StoredRun:
    return load_run(make_run(tmp_path_factory.mktemp("arms"), stored))


@pytest.fixture(scope="module")
def arms(run: StoredRun) -> list[ArmView]:
    return arms_of(list(run.evidence.values()), Scores(run))


@pytest.mark.parametrize(
    "patch",
    [
        Patch("kv", "12", "last(16)"),
        Patch("v", "all", "first(25%)", heads="0"),
        Patch("kv", "all", "last(8)", mode="append"),
        Patch("k", "3+4", "all", mode="mix(0.5)"),
        Patch("v_proj", "0:4", "last(2)", active="every_step(held)", heads="0+2"),
    ],
    ids=str,
)
def test_an_arm_is_read_from_its_id(patch: Patch) -> None:
    plain = canonical(patch, 16, HeadCounts(4, 4))
    assert parse_arm(patched(plain).id) == plain


@pytest.mark.parametrize(
    "arm",
    ["base", "noise>kv@1/all", "source>kv@1/all&v@2/all", "source>what", "source>kv@x/all", ""],
)
def test_what_pastes_nothing_of_the_source_alone_is_none(arm: str) -> None:
    assert parse_arm(arm) is None


def test_transfer_is_what_was_judged(run: StoredRun, arms: list[ArmView]) -> None:
    one = run.evidence[key_of("transfer")]
    arm = next(arm for arm in arms if arm.arm == one["arms"]["patched"])
    assert arm.transfer == pytest.approx(one["estimate"])
    assert arm.truth == pytest.approx(one["truth"]["transfer"])
    assert arm.pairs == one["pairs"]
    assert 0 < arm.share < 1
    assert arm.is_marked


def test_wrong_layers_are_arms_too(run: StoredRun, arms: list[ArmView]) -> None:
    wrong = run.evidence[key_of("transfer")]["arms"]["wrong-layer"]
    arm = next(arm for arm in arms if arm.arm == wrong)
    assert (arm.transfer, arm.truth, arm.p) == (0.0, 0.0, None)
    assert not arm.is_marked


def test_q_is_adjusted_by_benjamini_and_hochberg(arms: list[ArmView]) -> None:
    shown = [arm for arm in arms if arm.transfer is not None]
    p = [1.0 if arm.p is None else arm.p for arm in shown]
    assert [arm.q for arm in shown] == pytest.approx(list(stats.false_discovery_control(p)))
    assert len(shown) >= 3


def test_the_map_has_layers_down_and_windows_across() -> None:
    some = [
        view((12, 13), "last(16)", 0.4),
        view((9,), "last(32)", 0.8),
        view((12,), "all", 1.0),
        view((9,), "first(4)", 0.1),
        view((9,), "at(-2)", 0.1),
    ]
    grid = grid_of(some)
    assert grid is not None
    assert grid.rows == [(9,), (12,), (12, 13)]
    assert grid.columns == ["last(16)", "last(32)", "all", "first(4)", "at(-2)"]
    assert grid.fields[0, 1] is some[1]
    assert grid_of(some[:1]) is None


def test_a_curve_has_one_set_of_layers_and_several_shares() -> None:
    some = [view((9,), "last(16)", 0.4), view((9,), "last(32)", 0.8), view((12,), "all", 1.0)]
    (curve,) = curves_by_share(some)
    assert curve.label == "9"
    assert [dose.x for dose in curve.doses] == [0.4, 0.8]


def test_a_curve_over_layers_only_adds_layers() -> None:
    layers = [(1,), (9,), (9, 12), (0, 1, 2), (9, 10, 11, 12)]
    (curve,) = curves_by_layers([view(some, "all", 1.0) for some in layers])
    assert [dose.x for dose in curve.doses] == [1, 2, 4]


def test_layers_are_said_in_short() -> None:
    assert [layers_text(some) for some in ((9,), (12, 13), (0, 1, 2), (1, 3, 5))] == [
        "9",
        "12, 13",
        "0 to 2",
        "1, 3, 5",
    ]


def test_a_run_without_trials_has_no_arms(run: StoredRun, tmp_path: Path) -> None:
    empty = StoredRun(tmp_path, run.run, run.evidence, run.trials.iloc[:0])
    assert arms_of(list(run.evidence.values()), Scores(empty)) == []
