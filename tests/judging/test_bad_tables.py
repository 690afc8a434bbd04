"""Bad tables: each is *invalid* without a number, or refused with the rows named; none warns.

A number beside a word is a promise. A table that holds no answer must give none: no estimate, no
interval, no p-value, and no warning of scipy or numpy that a reader would have to interpret.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import numpy as np
import pandas as pd
import pytest

from kv_claims.claims.claim import ESTIMANDS, Estimand, Region
from kv_claims.errors import UsageError
from kv_claims.judging.checks import CONTROLS
from kv_claims.judging.fieller import Floats
from kv_claims.judging.result import Verdict
from kv_claims.judging.verdict import judge
from tests.judging.frames import Study, table, wave

pytestmark = pytest.mark.filterwarnings("error")

N = 12
EIGHTY = Region(0.7, 0.9)
Table = Callable[[], pd.DataFrame]


def good() -> pd.DataFrame:
    return Study(0.8, n=N).frame(seeds=(0, 1), jitter=0.2)


def of(**arms: Floats | float) -> pd.DataFrame:
    """A table of N pairs; a number is the score of every pair."""
    return table({arm: np.zeros(N) + score for arm, score in arms.items()})


def rows(where: str) -> pd.Index:
    return good().query(where).index


def with_score(value: object, row: int = 3) -> pd.DataFrame:
    frame = good().astype({"score": object})
    frame.loc[row, "score"] = value
    return frame


def says_nothing(verdict: Verdict) -> None:
    """It is invalid, says why, and holds no number that could be taken for an answer."""
    assert verdict.word == "invalid"
    assert verdict.reason
    assert any(check.passed is False for check in verdict.checks)
    assert verdict.estimate is None
    assert verdict.interval is None
    assert verdict.interval_other is None
    assert verdict.p_supported is None
    assert verdict.p_refuted is None
    assert verdict.pairs_needed is None
    assert verdict.controls == {}


def test_the_good_table_is_judged() -> None:
    """Else whatever is done to it would show nothing."""
    verdict = judge(good(), EIGHTY)
    assert verdict.word == "supported"
    assert verdict.estimate == pytest.approx(0.8)


# --- refused -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        pytest.param(
            lambda: pd.concat([good(), good().iloc[[7]]], ignore_index=True),
            r"more than once in 2 rows: row 7 \(base, pair pair-003, seed 1\), row 72 ",
            id="a-trial-twice",
        ),
        pytest.param(
            lambda: with_score(float("nan")), r"not finite numbers in 1 rows: row 3 ", id="nan"
        ),
        pytest.param(
            lambda: with_score(float("inf")), r"not finite numbers in 1 rows: row 3 ", id="inf"
        ),
        pytest.param(
            lambda: with_score(float("-inf"), 40), r"1 rows: row 40 \(source, pair", id="minus-inf"
        ),
        pytest.param(
            lambda: with_score("much"), r"not finite numbers in 1 rows: row 3 ", id="text"
        ),
        pytest.param(lambda: with_score(""), r"not finite numbers in 1 rows: row 3 ", id="no-text"),
        pytest.param(lambda: with_score([1.0]), r"not finite numbers in 1 rows: row 3 ", id="list"),
        pytest.param(
            lambda: with_score(1e200), r"scores above 1e\+50 in 1 rows: row 3 ", id="too-large"
        ),
        pytest.param(
            lambda: with_score(-1e51), r"scores above 1e\+50 in 1 rows: row 3 ", id="too-low"
        ),
        pytest.param(
            lambda: with_score(10**400), r"too large to convert to float", id="too-large-an-integer"
        ),
        pytest.param(
            lambda: good().assign(score=lambda f: f["score"] * 1e-60),
            r"the largest score is 1\.\d+e-59",
            id="too-small-to-be-squared",
        ),
        pytest.param(
            lambda: good().astype({"score": complex}),
            r"scores of type complex128",
            id="complex-numbers",
        ),
        pytest.param(
            lambda: good().assign(score=pd.Timestamp("2026-01-01")),
            r"scores of type datetime64",
            id="dates",
        ),
        pytest.param(lambda: good().drop(columns="score"), r"missing columns", id="no-scores"),
        pytest.param(lambda: good().drop(columns="arm"), r"missing columns", id="no-arms"),
        pytest.param(lambda: good().drop(columns="pair"), r"missing columns", id="no-pairs"),
        pytest.param(lambda: good().drop(columns="seed"), r"missing columns", id="no-seeds"),
        pytest.param(
            lambda: pd.concat([good(), good()[["score"]]], axis=1),
            r"columns \['score'\] more than once",
            id="a-column-twice",
        ),
        pytest.param(lambda: good().iloc[:0], r"the table is empty", id="empty"),
        pytest.param(lambda: pd.DataFrame(), r"missing columns", id="empty-without-columns"),
        pytest.param(lambda: [{"pair": 1}], r"list, expected a pandas DataFrame", id="no-table"),
        pytest.param(
            lambda: good().replace({"arm": {"patched": "pached"}}),
            r"arms \['pached'\], expected",
            id="an-arm-misspelt",
        ),
        pytest.param(
            lambda: good().replace({"arm": {"base": "Base"}}),
            r"arms \['Base'\], expected",
            id="an-arm-in-capitals",
        ),
        pytest.param(
            lambda: good().assign(
                pair=lambda f: [int(p[-3:]) if p < "pair-006" else p for p in f["pair"]]
            ),
            r"`pair` of types \['int', 'str'\]",
            id="pairs-of-two-types",
        ),
        pytest.param(
            lambda: good().assign(cluster=[[1]] * 6 * N),
            r"`cluster` of types \['list'\]",
            id="clusters-that-are-lists",
        ),
        pytest.param(
            lambda: good().assign(source=lambda f: f["pair"].where(f["pair"] != "pair-002")),
            r"no `source` in 6 rows: row 4 ",
            id="a-source-missing",
        ),
    ],
)
@pytest.mark.parametrize("estimand", ["transfer", "gap"])
def test_a_table_that_cannot_be_read_is_refused(
    bad: Table, message: str, estimand: Estimand
) -> None:
    with pytest.raises(UsageError, match=message):
        judge(bad(), EIGHTY, estimand=estimand)


# --- invalid, and no number ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        pytest.param(
            lambda: good().drop(rows("arm == 'patched' and pair == 'pair-005'")),
            "silent-n: trials are missing: patched: 2 of 24 (pair, seed), such as ('pair-005', 0)",
            id="a-pair-missing-in-one-arm",
        ),
        pytest.param(
            lambda: good().drop(rows("arm == 'base' and seed == 1")),
            "silent-n: trials are missing: base: 12 of 24",
            id="unequal-seeds-of-arms",
        ),
        pytest.param(
            lambda: good().drop(rows("arm == 'source' and pair == 'pair-000' and seed == 0")),
            "silent-n: trials are missing: source: 1 of 24 (pair, seed), such as ('pair-000', 0)",
            id="one-trial-missing",
        ),
        pytest.param(
            lambda: good().assign(
                seed=lambda f: f["seed"].where(f["arm"] != "patched", f["seed"] + 7)
            ),
            "silent-n: trials are missing: base: 24 of 48",
            id="other-seeds-in-one-arm",
        ),
        pytest.param(
            lambda: good().drop(rows("arm == 'patched'")),
            "silent-n: no patched arm was run",
            id="no-patched-arm",
        ),
        pytest.param(
            lambda: good().drop(rows("arm == 'source'")),
            "no-ceiling: no source arm was run",
            id="no-source-arm",
        ),
        pytest.param(
            lambda: good().query("pair == 'pair-000'"),
            "enough-pairs: 1 pairs, at least 10 wanted",
            id="one-pair",
        ),
        pytest.param(
            lambda: good().query("pair < 'pair-009'"),
            "enough-pairs: 9 pairs, at least 10 wanted",
            id="nine-pairs",
        ),
        pytest.param(
            lambda: good().assign(cluster="all of them"),
            "enough-pairs: 1 clusters of pairs by cluster",
            id="one-cluster",
        ),
        pytest.param(
            lambda: of(base=3.0, source=3.0, patched=3.0),
            "no-ceiling: source - base is 0 in every cluster",
            id="every-score-the-same",
        ),
        pytest.param(
            lambda: of(base=0.0, source=0.0, patched=0.0),
            "no-ceiling: source - base is 0 in every cluster",
            id="every-score-zero",
        ),
        pytest.param(
            lambda: of(base=0.1 + 0.2, source=0.3, patched=0.3 + wave(1, N)),
            "no-ceiling: source - base is",
            id="no-gap-but-rounding-downwards",
        ),
        pytest.param(
            lambda: of(base=3.0, source=3.0, patched=3 + wave(1, N)),
            "no-ceiling: source - base is 0 in every cluster",
            id="no-gap",
        ),
        pytest.param(
            lambda: of(base=3.0, source=3 + wave(1, N), patched=3.0),
            "no-ceiling: source - base ",
            id="no-gap-but-noise",
        ),
        pytest.param(
            lambda: of(base=9 + wave(2, N), source=3 + wave(1, N), patched=8.0),
            "no-ceiling: source - base -6, one-sided p 1, below 0.005 wanted",
            id="a-source-below-its-base",
        ),
        pytest.param(
            lambda: of(base=9.0, source=3.0, patched=8.0),
            "no-ceiling: source - base is -6 in every cluster",
            id="a-constant-source-below-its-base",
        ),
        pytest.param(
            lambda: of(base=3.0, source=9.0, patched=8.0),
            "degenerate: patched - base - edge * (source - base) does not vary at edge 0.7",
            id="constant-with-a-gap-inside",
        ),
        pytest.param(
            lambda: of(base=3.0, source=9.0, patched=3.0),
            "degenerate: patched - base - edge * (source - base) does not vary at edge 0.7",
            id="constant-with-a-gap-outside",
        ),
        pytest.param(
            lambda: of(base=0.1, source=0.3, patched=0.1 + 0.8 * 0.2),
            "degenerate: ",
            id="constant-but-rounding",
        ),
        pytest.param(
            lambda: of(base=3.0, source=9.0, patched=8.0, noise=3.0),
            "degenerate: ",
            id="constant-with-a-control",
        ),
        pytest.param(
            lambda: of(base=3.0, source=9 + wave(1, N), patched=3 + 0.7 * (6 + wave(1, N))),
            "degenerate: patched - base - edge * (source - base) does not vary at edge 0.7",
            id="every-ratio-on-the-edge",
        ),
    ],
)
def test_a_table_without_an_answer_is_invalid_and_gives_none(bad: Table, reason: str) -> None:
    verdict = judge(bad(), EIGHTY)
    says_nothing(verdict)
    assert verdict.reason.startswith(reason)


@pytest.mark.parametrize(
    ("bad", "estimand", "region"),
    [
        pytest.param(
            lambda: of(base=3.0, source=9.0, patched=8.0, versus=7.0),
            "difference",
            Region(low=0.1),
            id="difference",
        ),
        pytest.param(
            lambda: of(base=3.0, source=9.0, patched=8.0, versus=8.0),
            "difference",
            Region(-0.1, 0.1),
            id="sameness",
        ),
        pytest.param(lambda: of(base=3.0, source=9.0), "gap", Region(low=1.0), id="gap"),
        pytest.param(lambda: of(base=3.0, source=3.0), "gap", Region(low=1.0), id="gap-of-0"),
    ],
)
def test_constant_scores_decide_nothing_of_any_estimand(
    bad: Table, estimand: Estimand, region: Region
) -> None:
    verdict = judge(bad(), region, estimand=estimand)
    says_nothing(verdict)
    assert verdict.reason.startswith("degenerate: ")


# --- what looks bad and is not -------------------------------------------------------------


@pytest.mark.parametrize("constant", ["base", "patched", "source"])
def test_one_arm_may_be_the_same_in_every_pair(constant: str) -> None:
    """Such as a base that never shows the behavior: the others vary, and the ratio is theirs."""
    arms: dict[str, Floats | float] = {
        "base": 3 + 0.3 * wave(1, N),
        "source": 9 + 0.4 * wave(2, N),
        "patched": 7.8 + 0.2 * wave(3, N),
    }
    arms[constant] = {"base": 3.0, "source": 9.0, "patched": 7.8}[constant]
    verdict = judge(of(**arms), EIGHTY)
    assert verdict.word == "supported"
    assert verdict.estimate == pytest.approx(0.8)
    assert verdict.interval is not None
    assert 0.7 < verdict.interval.low < 0.8 < verdict.interval.high < 0.9


def test_numbers_of_every_kind_are_numbers() -> None:
    wanted = judge(good(), EIGHTY).estimate
    for kind in ("object", "str", "Float64", "float32"):
        assert judge(good().astype({"score": kind}), EIGHTY).estimate == pytest.approx(
            wanted, rel=1e-6
        )


# --- whatever the scores, no warning and no stray number -----------------------------------


VALUES: list[list[float]] = [
    [0.0],
    [3.0],
    [0.1, 0.2, 0.1 + 0.2, 0.3],
    [0.0, 1.0],
    [1e49, -1e49],
    [1e-49, 2e-49],
    [0.0, 1e-130, 1.0],
    [1e15, 1e15 + 1],
    [-2.0, -1.0, 0.0, 1.0, 2.0],
]


@pytest.mark.parametrize(
    ("values", "estimand"),
    [
        pytest.param(values, estimand, id=f"{number}-{estimand}")
        for (number, values), estimand in product(enumerate(VALUES), ESTIMANDS)
    ],
)
def test_coarse_and_extreme_scores_warn_of_nothing(values: list[float], estimand: Estimand) -> None:
    """Scores from few values, so that ties, zeros and rounding are everywhere."""
    rng = np.random.default_rng(len(values))
    arms = ("base", "source", "patched", "versus", *CONTROLS)
    for direction in ("up", "either"):
        frame = table({arm: rng.choice(values, 10) for arm in arms})
        frame.loc[frame["arm"] == "source", "score"] += values[-1] * (direction == "up")
        for region in (EIGHTY, Region(high=0.12), Region(low=0.0)):
            verdict = judge(frame, region, estimand=estimand, direction=direction)  # type: ignore[arg-type]
            shown = [verdict.estimate, verdict.p_supported, verdict.p_refuted]
            shown += [*(verdict.interval or ()), *(verdict.interval_other or ())]
            assert all(value is None or np.isfinite(value) for value in shown)
            if {"no-ceiling", "degenerate"} & {c.name for c in verdict.checks if c.passed is False}:
                says_nothing(verdict)
