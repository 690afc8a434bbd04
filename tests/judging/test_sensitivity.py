"""Sensitivity lines against brute force, what they may not depend on, and what has none."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from kv_claims.claims.claim import Part, Region
from kv_claims.errors import UsageError
from kv_claims.judging.resampling import BOOTSTRAP_RESAMPLES, SIGN_FLIPS
from kv_claims.judging.sensitivity import Lines, Range, Sensitivity, sensitivity
from tests.judging.frames import Study, fieller, table

pytestmark = pytest.mark.filterwarnings("error")

TRANSFER = Part.transfer("behavior", Region(0.7, 0.9))
DIFFERENCE = Part.difference("behavior", Region(low=0.1))
GAP = Part.gap("behavior", Region(low=5.0))
PARTS = [TRANSFER, DIFFERENCE, GAP]
ARMS = ("base", "source", "patched", "versus", "noise")


def drawn(n: int = 24, *, seeds: int = 1, **columns: list[str]) -> pd.DataFrame:
    """A random table in which every pair has a transfer of its own."""
    rng = np.random.default_rng([2026, n, seeds])
    base = rng.normal(2, 1, n)
    gap = rng.normal(6, 2, n)
    shares = {"base": 0.0, "source": 1.0, "patched": 0.8, "versus": 0.5, "noise": 0.0}
    arms = {arm: base + share * gap + rng.normal(0, 1, n) for arm, share in shares.items()}
    return table(arms, seeds=range(seeds), jitter=0.5, **columns)


def names(prefix: str, n: int, of: int) -> list[str]:
    return [f"{prefix}{i % of}" for i in range(n)]


def only(found: Sensitivity) -> Lines:
    (lines,) = found.lines
    return lines


def lines_of(frame: pd.DataFrame, part: Part = TRANSFER) -> Lines:
    return only(sensitivity(frame, part, direction="up"))


def estimate_by_hand(frame: pd.DataFrame, part: Part, by: str) -> float:
    """Ratio of means over clusters of means over pairs of means over seeds, step by step."""
    of, against = {
        "transfer": ("patched", "base"),
        "difference": ("patched", "versus"),
        "gap": ("source", "base"),
    }[part.estimand]
    effects, units = [], []
    for _, cluster in frame.groupby(by):
        means = [
            pair.groupby("arm")["score"].mean().to_dict() for _, pair in cluster.groupby("pair")
        ]
        effects.append(np.mean([mean[of] - mean[against] for mean in means]))
        units.append(np.mean([mean["source"] - mean["base"] for mean in means]))
    ratio = np.mean(effects) if part.estimand == "gap" else np.mean(effects) / np.mean(units)
    return float(ratio)


def assert_range(found: Range, by_name: dict[str, float]) -> None:
    low, high = min(by_name, key=by_name.__getitem__), max(by_name, key=by_name.__getitem__)
    assert (found.low_without, found.high_without) == (low, high)
    assert (found.low, found.high) == pytest.approx((by_name[low], by_name[high]), rel=1e-10)
    assert found.counted == len(by_name)


# --- one left out --------------------------------------------------------------------------


@pytest.mark.parametrize("part", PARTS, ids=str)
@pytest.mark.parametrize("seeds", [1, 3])
@pytest.mark.parametrize("by", ["pair", "cluster", "source"])
def test_without_one_cluster(by: str, seeds: int, part: Part) -> None:
    columns = {} if by == "pair" else {by: names("c", 24, 7)}
    frame = drawn(seeds=seeds, **columns)
    lines = lines_of(frame, part)
    assert (lines.by, lines.clusters) == (by, frame[by].nunique())
    assert lines.estimate == pytest.approx(estimate_by_hand(frame, part, by), rel=1e-12)
    assert lines.without_cluster is not None
    assert_range(
        lines.without_cluster,
        {
            label: estimate_by_hand(frame[frame[by] != label], part, by)
            for label in sorted(frame[by].unique())
        },
    )


@pytest.mark.parametrize("part", PARTS, ids=str)
@pytest.mark.parametrize("by", ["pair", "source"])
def test_without_one_family_of_source_or_base(by: str, part: Part) -> None:
    """Uneven families, one of which is both a source's and a base's."""
    sources = ["a" if i < 9 else "b" if i < 20 else "both" for i in range(24)]
    bases = ["x" if i % 3 else "both" for i in range(24)]
    columns = {} if by == "pair" else {"source": names("s", 24, 12)}
    frame = drawn(**columns)
    ids = sorted(frame["pair"].unique())
    families = dict(zip(ids, zip(sources, bases, strict=True), strict=True))
    found = only(sensitivity(frame, part, direction="up", families=families)).without_family
    assert found is not None
    by_name = {}
    for family in ("a", "b", "both", "x"):
        kept = [pair for pair in ids if family not in families[pair]]
        by_name[family] = estimate_by_hand(frame[frame["pair"].isin(kept)], part, by)
    assert_range(found, by_name)
    assert found.not_counted == {}


def test_a_family_that_leaves_too_little_is_named_and_not_counted() -> None:
    frame = drawn(12, cluster=[*names("c", 11, 3), "alone"])
    ids = sorted(frame["pair"].unique())
    families = {pair: ("everyone", "most" if i else "few") for i, pair in enumerate(ids)}
    found = only(sensitivity(frame, TRANSFER, direction="up", families=families)).without_family
    assert found is not None
    assert found.counted == 1
    assert found.low_without == found.high_without == "few"
    assert set(found.not_counted) == {"everyone", "most"}
    assert "no pairs" in found.not_counted["everyone"]
    assert "1 cluster " in found.not_counted["most"]


def test_one_family_for_all_leaves_no_range() -> None:
    frame = drawn(12)
    families = dict.fromkeys(frame["pair"], ("one", "one"))
    found = only(sensitivity(frame, TRANSFER, direction="up", families=families)).without_family
    assert found is not None
    assert (found.low, found.low_without, found.counted) == (None, None, 0)
    assert "no family" in found.why
    assert list(found.not_counted) == ["one"]


def test_families_that_are_not_known_leave_no_range() -> None:
    frame = drawn(12)
    families = dict.fromkeys(sorted(frame["pair"].unique())[1:], ("a", "b"))
    found = only(sensitivity(frame, TRANSFER, direction="up", families=families)).without_family
    assert found is not None
    assert found.low is None
    assert "1 pairs, such as pair-000" in found.why
    without = lines_of(frame).without_family
    assert without is not None
    assert "no families" in without.why


def test_a_cluster_or_family_without_which_there_is_no_gap_is_named_and_not_counted() -> None:
    """All of the gap is in one pair, so that without it the ratio means nothing."""
    gap = np.array([12.0, 0.1, -0.1, 0.2, -0.4])
    base = np.ones(5)
    frame = table({"base": base, "source": base + gap, "patched": base + 0.5 * gap + 0.1})
    families = {f"pair-{i:03d}": (f"s{i // 2}", "b" if i else "c") for i in range(5)}
    lines = only(sensitivity(frame, TRANSFER, direction="up", families=families))
    assert lines.without_cluster is not None
    assert list(lines.without_cluster.not_counted) == ["pair-000"]
    assert lines.without_cluster.counted == 4
    assert lines.without_family is not None
    assert lines.without_family.counted == 2
    assert "above 0" in lines.without_family.not_counted["s0"]
    assert lines.bootstrap is not None
    assert lines.bootstrap.crossed > 0.2 * BOOTSTRAP_RESAMPLES
    assert lines.bootstrap.interval is None


def test_ties_go_to_the_first_name() -> None:
    lines = lines_of(drawn(12).assign(score=lambda f: (f["arm"] != "base").astype(float)))
    assert lines.without_cluster is not None
    assert lines.without_cluster.low_without == lines.without_cluster.high_without == "pair-000"


# --- the lines together --------------------------------------------------------------------


def test_a_usual_study_has_an_interval_near_fiellers_and_p_at_both_edges() -> None:
    study = Study(0.80, noise=1.0, n=60)
    lines = lines_of(study.frame())
    interval = fieller(study.effects, study.differences, 0.95)
    assert interval is not None
    assert lines.bootstrap is not None
    assert lines.bootstrap.method == "BCa"
    assert lines.bootstrap.interval == pytest.approx(interval, abs=0.15 * np.ptp(interval))
    assert [(one.edge, one.side) for one in lines.sign_flips] == [(0.7, "greater"), (0.9, "less")]
    assert all(one.p is not None and one.p < 0.01 for one in lines.sign_flips)


def test_crossed_pairs_have_lines_by_source_and_by_base() -> None:
    frame = drawn(24, source=names("s", 24, 6), base=[f"b{i // 6}" for i in range(24)])
    by_source, by_base = sensitivity(frame, TRANSFER, direction="up").lines
    assert (by_source.by, by_source.clusters) == ("source", 6)
    assert (by_base.by, by_base.clusters) == ("base", 4)
    assert by_source.bootstrap != by_base.bootstrap
    assert [one.resamples for one in by_base.sign_flips] == [2**4] * 2


def test_the_level_is_that_of_the_bootstrap() -> None:
    at_80, at_95 = (
        only(sensitivity(drawn(), TRANSFER, direction="up", level=level)) for level in (0.8, 0.95)
    )
    assert at_80.bootstrap is not None
    assert at_95.bootstrap is not None
    assert at_80.bootstrap.interval.low > at_95.bootstrap.interval.low
    assert replace(at_80, bootstrap=None) == replace(at_95, bootstrap=None)


def mirrored(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(score=-frame["score"])


@pytest.mark.parametrize("part", [TRANSFER, DIFFERENCE], ids=str)
def test_a_source_below_the_base_is_read_downwards_where_it_may_be(part: Part) -> None:
    frame = drawn(9)  # so few that all signs are flipped
    up, down = (
        only(sensitivity(one, part, direction="either")) for one in (frame, mirrored(frame))
    )
    assert down.sign_flips == up.sign_flips
    assert down.without_cluster == up.without_cluster
    assert down.estimate == up.estimate


def test_a_gap_keeps_its_sign_in_either_direction() -> None:
    part = Part.gap("behavior", Region(high=-3.0))
    lines = only(sensitivity(mirrored(drawn(9)), part, direction="either"))
    assert lines.estimate is not None
    assert lines.estimate < -3
    (flips,) = lines.sign_flips
    assert flips.p is not None
    assert flips.p < 0.2


# --- what the numbers may not depend on ----------------------------------------------------


def test_the_order_of_rows_does_not_matter() -> None:
    frame = drawn(24, seeds=2, source=names("s", 24, 6), base=[f"b{i // 6}" for i in range(24)])
    families = {pair: (pair[-1], pair[-2]) for pair in frame["pair"]}
    first = sensitivity(frame, TRANSFER, direction="up", families=families)
    for seed in range(3):
        shuffled = frame.sample(frac=1, random_state=seed)
        assert sensitivity(shuffled, TRANSFER, direction="up", families=families) == first
    assert sensitivity(frame.iloc[::-1], TRANSFER, direction="up", families=families) == first


def test_arms_that_are_not_needed_do_not_matter() -> None:
    frame = drawn()
    bare = frame[~frame["arm"].isin(["versus", "noise"])]
    assert lines_of(bare) == lines_of(frame)
    holed = frame[~((frame["arm"] == "noise") & (frame["pair"] == "pair-003"))]
    assert lines_of(holed) == lines_of(frame)


@pytest.mark.parametrize("part", PARTS, ids=str)
def test_another_unit_of_the_score_leaves_the_lines(part: Part) -> None:
    """Another table has other luck, so the bootstrap agrees but for that."""
    frame, factor = drawn(9), 3.7
    scaled = frame.assign(score=factor * frame["score"] + 11)
    if part.estimand == "gap":
        region = Region(low=factor * part.region.low)
        before, after = lines_of(frame, part), lines_of(scaled, Part.gap("behavior", region))
    else:
        before, after, factor = lines_of(frame, part), lines_of(scaled, part), 1.0
    assert [one.p for one in after.sign_flips] == [one.p for one in before.sign_flips]
    left, left_after = before.without_cluster, after.without_cluster
    assert left is not None
    assert left_after is not None
    assert left_after.low == pytest.approx(factor * left.low)
    assert left_after.high == pytest.approx(factor * left.high)
    assert left_after.low_without == left.low_without
    assert left_after.high_without == left.high_without
    assert before.bootstrap is not None
    assert after.bootstrap is not None
    low, high = before.bootstrap.interval
    near = pytest.approx((factor * low, factor * high), abs=0.1 * factor * (high - low))
    assert after.bootstrap.interval == near


def test_the_same_table_has_the_same_numbers_and_no_global_luck_is_used() -> None:
    before = np.random.get_state()
    first = sensitivity(drawn(), TRANSFER, direction="up")
    assert str(np.random.get_state()) == str(before)
    assert sensitivity(drawn(), TRANSFER, direction="up") == first


def test_another_table_has_other_luck() -> None:
    frame = drawn()
    nudged = frame.assign(score=frame["score"] + 1e-9 * (frame.index == 0))
    renamed = frame.assign(pair="x" + frame["pair"])
    seeds = {sensitivity(one, TRANSFER, direction="up").seed for one in (frame, nudged, renamed)}
    assert len(seeds) == 3
    first, other = lines_of(frame), lines_of(nudged)
    assert first.bootstrap != other.bootstrap
    assert first.estimate == pytest.approx(other.estimate, abs=1e-9)


def test_pairs_may_be_numbers_and_scores_integers() -> None:
    frame = drawn(12)
    numbered = frame.assign(pair=frame["pair"].str[-3:].astype(int), score=frame["score"].round())
    as_integers = numbered.assign(score=numbered["score"].astype(int))
    assert lines_of(as_integers) == lines_of(numbered)
    assert lines_of(numbered).without_cluster is not None


# --- where there is no estimate ------------------------------------------------------------


def without(frame: pd.DataFrame, arm: str, pair: str | None = None) -> pd.DataFrame:
    gone = frame["arm"] == arm
    return frame[~(gone if pair is None else gone & (frame["pair"] == pair))]


def constant(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(score=0.1)


def no_gap(frame: pd.DataFrame) -> pd.DataFrame:
    """Source is base, computed in another way: their difference is rounding."""
    score = frame["score"].where(frame["arm"] != "source", np.nan)
    base = frame[frame["arm"] == "base"].set_index("pair")["score"]
    return frame.assign(score=score.fillna(frame["pair"].map(base) * 3 / 3))


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        pytest.param(lambda f: without(f, "patched"), "no patched arm", id="no-arm"),
        pytest.param(lambda f: f[f["arm"] == "noise"], "no base and no source", id="no-arms"),
        pytest.param(lambda f: without(f, "base", "pair-003"), "missing: base: 1 of 12", id="hole"),
    ],
)
def test_trials_that_are_missing(spoil: Callable[[pd.DataFrame], pd.DataFrame], why: str) -> None:
    found = sensitivity(spoil(drawn(12)), TRANSFER, direction="up")
    assert found.lines == ()
    assert why in found.why
    json.dumps(found.to_dict(), allow_nan=False)


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        pytest.param(lambda f: f[f["pair"] == "pair-000"], "1 cluster,", id="one-pair"),
        pytest.param(lambda f: f.assign(cluster="c"), "1 cluster,", id="one-cluster"),
        pytest.param(constant, "source - base is 0 ", id="constant"),
        pytest.param(no_gap, "source - base is", id="no-gap"),
        pytest.param(mirrored, "not above 0", id="below"),
    ],
)
def test_no_estimate(spoil: Callable[[pd.DataFrame], pd.DataFrame], why: str) -> None:
    lines = lines_of(spoil(drawn(12)))
    assert why in lines.why
    assert lines == Lines(lines.by, lines.clusters, why=lines.why)


def test_two_clusters_have_lines_but_none_to_leave_out() -> None:
    lines = lines_of(drawn(12, cluster=names("c", 12, 2)))
    assert lines.estimate is not None
    assert lines.without_cluster is not None
    assert lines.without_cluster.low is None
    assert "2 clusters" in lines.without_cluster.why


def test_a_patch_that_does_nothing() -> None:
    """Every effect is exactly 0: no p at the edge 0, and every estimate is 0."""
    frame = drawn(12)
    base = frame[frame["arm"] == "base"].set_index("pair")["score"]
    inert = frame["score"].where(frame["arm"] != "patched", frame["pair"].map(base))
    lines = lines_of(frame.assign(score=inert), Part.transfer("behavior", Region(0.0, 0.5)))
    assert lines.estimate == 0
    assert lines.bootstrap is not None
    assert lines.bootstrap.interval == (0, 0)
    at_0, at_half = lines.sign_flips
    assert at_0.p is None
    assert at_half.p is not None
    assert lines.without_cluster is not None
    assert (lines.without_cluster.low, lines.without_cluster.high) == (0, 0)


def test_a_gap_without_spread() -> None:
    frame = drawn(12).assign(score=lambda f: 6.0 * (f["arm"] == "source"))
    lines = lines_of(frame, GAP)
    assert lines.bootstrap is not None
    assert lines.bootstrap.interval == (6, 6)
    assert [one.p for one in lines.sign_flips] == [None]


# --- settings and JSON ---------------------------------------------------------------------


@pytest.mark.parametrize("level", [0.0, 1.0, 1.5, -0.1])
def test_a_level_that_is_none(level: float) -> None:
    with pytest.raises(UsageError, match="level"):
        sensitivity(drawn(), TRANSFER, direction="up", level=level)


def test_a_direction_that_is_none() -> None:
    with pytest.raises(UsageError, match="direction"):
        sensitivity(drawn(), TRANSFER, direction="sideways")  # type: ignore[arg-type]


def test_a_table_that_is_none() -> None:
    with pytest.raises(UsageError, match="missing columns"):
        sensitivity(drawn().drop(columns="seed"), TRANSFER, direction="up")


def test_it_is_plain_json() -> None:
    frame = drawn(24, source=names("s", 24, 6), base=[f"b{i // 6}" for i in range(24)])
    families = {pair: ("all", pair[-1]) for pair in frame["pair"]}
    found = sensitivity(frame, TRANSFER, direction="up", families=families).to_dict()
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert [lines["by"] for lines in found["lines"]] == ["source", "base"]
    first = found["lines"][0]
    low, high = first["bootstrap"]["interval"]
    assert low < first["estimate"] < high
    assert first["bootstrap"]["resamples"] == BOOTSTRAP_RESAMPLES
    assert first["sign_flips"][0]["side"] == "greater"
    assert first["sign_flips"][0]["resamples"] <= SIGN_FLIPS
    assert first["without_family"]["not_counted"] == {"all": "no pairs would be left"}


def test_skewness_is_that_of_the_contrast_over_the_root_of_the_pairs() -> None:
    """Of numbers with a long tail, by its definition; none where nothing varies."""
    gap, tail = np.full(20, 2.0), np.zeros(20)
    tail[0] = 1.0
    base = np.arange(20.0)
    arms = {"base": base, "source": base + gap, "patched": base + tail}
    (lines,) = sensitivity(table(arms), TRANSFER, direction="up").lines
    off = tail - tail.mean()
    wanted = (off**3).mean() / (off**2).mean() ** 1.5 / 20**0.5
    assert lines.skewness == pytest.approx(wanted)
    same = {**arms, "patched": base + 0.5 * gap}
    (lines,) = sensitivity(table(same), TRANSFER, direction="up").lines
    assert lines.skewness is None
