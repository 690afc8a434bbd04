"""Tables that cannot be judged are refused by name; the others become one number a cluster."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from kv_claims.errors import UsageError
from kv_claims.judging.frame import check_frame, groupings, holes
from tests.judging.frames import Study, table

N = 12
COLUMNS = {
    "cluster": [f"c{i % 6}" for i in range(N)],
    "source": [f"s{i}" for i in range(N)],
    "base": [f"b{i}" for i in range(N)],
}


def good(**columns: list[str]) -> pd.DataFrame:
    return Study(0.5, n=N).frame(seeds=(0, 1), jitter=0.2, **columns)


def with_score(value: object, row: int = 3) -> pd.DataFrame:
    frame = good()
    frame["score"] = frame["score"].astype(object)
    frame.loc[row, "score"] = value
    return frame


def without(column: str) -> pd.DataFrame:
    return good().drop(columns=column)


def with_value(column: str, value: object, *, pair: str = "pair-003") -> pd.DataFrame:
    """The whole table, where every row of one pair has another value in a column."""
    frame = good(**COLUMNS)
    frame.loc[frame["pair"] == pair, column] = value
    return frame


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        pytest.param(lambda: without("pair"), r"missing columns \['pair'\]", id="no-pair"),
        pytest.param(lambda: without("arm"), r"missing columns \['arm'\]", id="no-arm"),
        pytest.param(lambda: without("seed"), r"missing columns \['seed'\]", id="no-seed"),
        pytest.param(lambda: without("score"), r"missing columns \['score'\]", id="no-score"),
        pytest.param(
            lambda: pd.DataFrame({"x": [1]}),
            r"\['pair', 'arm', 'seed', 'score'\], expected",
            id="no-column-at-all",
        ),
        pytest.param(lambda: good().iloc[:0], "the table is empty", id="no-rows"),
        pytest.param(
            lambda: with_score(float("nan")),
            r"not finite numbers in 1 rows: row 3 \(base, pair pair-001, seed 1\)",
            id="nan",
        ),
        pytest.param(lambda: with_score(float("inf")), "not finite .* 1 rows: row 3", id="inf"),
        pytest.param(
            lambda: with_score(-float("inf"), row=70),
            r"not finite .* row 70 \(patched, pair pair-011, seed 0\)",
            id="minus-inf",
        ),
        pytest.param(lambda: with_score(None), "not finite .* row 3", id="none"),
        pytest.param(lambda: with_score("high"), "not finite .* row 3", id="text"),
        pytest.param(
            lambda: pd.concat([good(), good().iloc[[7]]], ignore_index=True),
            r"\(pair, arm, seed\) more than once in 2 rows: row 7 \(base, pair pair-003, seed 1\)",
            id="doubled",
        ),
        pytest.param(
            lambda: pd.concat([good(), good().iloc[[7]].assign(score=0.0)], ignore_index=True),
            r"more than once in 2 rows: row 7 .* row 72 ",
            id="doubled-with-another-score",
        ),
        pytest.param(
            lambda: with_score("high", row=7).iloc[5:],
            r"not finite numbers in 1 rows: row 7 \(base, pair pair-003, seed 1\)",
            id="a-part-of-a-table",
        ),
    ],
)
def test_a_table_that_cannot_be_read_is_refused(
    broken: Callable[[], pd.DataFrame], message: str
) -> None:
    with pytest.raises(UsageError, match=f"^trials: .*{message}"):
        check_frame(broken())


@pytest.mark.parametrize("column", ["cluster", "source", "base"])
def test_a_pair_in_two_clusters_is_refused(column: str) -> None:
    frame = good(**COLUMNS)
    frame.loc[5, column] = "another"
    with pytest.raises(UsageError, match=f"a pair with more than one `{column}`"):
        check_frame(frame)


@pytest.mark.parametrize("column", ["pair", "arm", "seed", "cluster", "source", "base"])
def test_trials_whose_key_is_missing_are_refused_and_not_dropped(column: str) -> None:
    """pandas groups drop missing keys in silence: eleven pairs would be judged of twelve."""
    with pytest.raises(UsageError, match=f"^trials: no `{column}` in 6 rows: row 6 "):
        check_frame(with_value(column, None))


def test_a_missing_score_of_a_nullable_dtype_is_refused() -> None:
    """pandas' own `all` skips NA, so that isfinite(...).all() is true of it."""
    frame = good().astype({"score": "Float64"})
    frame.loc[3, "score"] = pd.NA
    with pytest.raises(UsageError, match=r"not finite .* row 3"):
        check_frame(frame)


def test_only_the_first_five_bad_rows_are_shown() -> None:
    frame = good()
    frame.loc[10:29, "score"] = np.nan
    with pytest.raises(UsageError, match="in 20 rows: row 10 ") as caught:
        check_frame(frame)
    assert str(caught.value).count("row ") == 5


@pytest.mark.parametrize(
    "frame",
    [
        pytest.param(good(), id="plain"),
        pytest.param(good(**COLUMNS), id="with-clusters"),
        pytest.param(good().astype({"arm": "category", "pair": "category"}), id="categories"),
        pytest.param(good().astype({"score": "Float64"}), id="nullable-without-gaps"),
        pytest.param(good().set_index(pd.Index([0] * 6 * N)), id="index-of-zeros"),
        pytest.param(good().assign(score=1), id="whole-numbers"),
    ],
)
def test_whole_tables_pass(frame: pd.DataFrame) -> None:
    check_frame(frame)


def test_no_holes_where_every_arm_has_the_same_trials() -> None:
    assert holes(good(), ["base", "source", "patched"]) == ""


def test_holes_name_the_arm_how_many_and_one_of_them() -> None:
    frame = good()
    gone = frame.query("arm == 'patched' and pair in ['pair-004', 'pair-009'] and seed == 1").index
    found = holes(frame.drop(gone), ["base", "source", "patched"])
    assert found == "patched: 2 of 24 (pair, seed), such as ('pair-004', 1)"


def test_holes_of_several_arms_and_of_a_whole_arm() -> None:
    frame = good()
    frame = frame[(frame["arm"] != "source") & ~((frame["arm"] == "base") & (frame["seed"] == 0))]
    found = holes(frame, ["base", "source", "patched"])
    assert "base: 12 of 24" in found
    assert "source: 24 of 24" in found
    assert "patched" not in found


def test_a_trial_of_no_arm_to_be_compared_leaves_no_hole() -> None:
    frame = good()
    extra = frame[frame["arm"] == "base"].head(1).assign(arm="noise", pair="another")
    assert holes(pd.concat([frame, extra]), ["base", "source", "patched"]) == ""


def test_seeds_are_averaged_within_a_pair_and_pairs_are_the_units() -> None:
    study = Study(0.5, n=N)
    (found,) = groupings(study.frame(seeds=(0, 1, 2), jitter=0.7))
    assert (found.by, found.clusters) == ("pair", N)
    for arm, scores in study.arms.items():
        np.testing.assert_allclose(found.scores[arm], scores, rtol=1e-12)


def test_scores_that_were_read_as_text_are_numbers() -> None:
    """As a CSV gives them where one column of the file was mixed."""
    frame = good()
    text = frame.assign(score=frame["score"].map(repr).astype(object))
    check_frame(text)
    (found,), (wanted,) = groupings(text), groupings(frame)
    for arm, scores in wanted.scores.items():
        np.testing.assert_array_equal(found.scores[arm], scores)


def test_a_pair_with_more_seeds_weighs_no_more_in_its_cluster() -> None:
    one = table({arm: np.array([2.0]) for arm in ("base", "source", "patched")}, cluster=["c"])
    many = table(
        {arm: np.array([8.0]) for arm in ("base", "source", "patched")},
        seeds=range(5),
        cluster=["c"],
    ).assign(pair="many-seeds")
    (found,) = groupings(pd.concat([one, many]))
    assert {arm: scores.tolist() for arm, scores in found.scores.items()} == {
        "base": [5.0],
        "source": [5.0],
        "patched": [5.0],
    }


def test_clusters_of_unequal_size_are_means_of_their_pairs() -> None:
    scores = np.array([1.0, 2.0, 3.0, 10.0])
    (found,) = groupings(table({"base": scores}, cluster=["a", "a", "a", "b"]))
    assert (found.by, found.clusters) == ("cluster", 2)
    assert found.scores["base"].tolist() == [2.0, 10.0]


@pytest.mark.parametrize(
    ("columns", "by"),
    [
        pytest.param({}, ["pair"], id="bare"),
        pytest.param({"source": "own", "base": "own"}, ["pair"], id="nothing-shared"),
        pytest.param({"source": "shared", "base": "own"}, ["source"], id="shared-source"),
        pytest.param({"source": "own", "base": "shared"}, ["base"], id="shared-base"),
        pytest.param({"source": "shared"}, ["source"], id="source-only"),
        pytest.param({"source": "shared", "base": "shared"}, ["source", "base"], id="crossed"),
        pytest.param(
            {"source": "shared", "base": "shared", "cluster": "own"}, ["cluster"], id="cluster"
        ),
    ],
)
def test_pairs_are_grouped_by_what_they_share(columns: dict[str, str], by: list[str]) -> None:
    values = {"own": [f"v{i}" for i in range(N)], "shared": [f"v{i // 2}" for i in range(N)]}
    frame = good(**{column: values[kind] for column, kind in columns.items()})
    assert [grouping.by for grouping in groupings(frame)] == by


def test_arms_of_a_grouping_are_aligned_whatever_the_order_of_rows() -> None:
    study = Study(0.5, n=N)
    shuffled = study.frame(seeds=(0, 1), jitter=0.3).sample(frac=1, random_state=0)
    (found,) = groupings(shuffled)
    np.testing.assert_allclose(
        found.scores["patched"] - found.scores["base"], study.effects, rtol=1e-12
    )
