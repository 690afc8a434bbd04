"""Laws of sensitivity lines, for tables with and without a gap, a spread, or all trials."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kv_claims.claims.claim import ESTIMANDS, Part, Region
from kv_claims.judging.sensitivity import sensitivity

pytestmark = pytest.mark.filterwarnings("error")

laws = settings(deadline=None, max_examples=60, derandomize=True)
ARMS = ("base", "source", "patched", "versus")
regions = st.sampled_from([Region(0.7, 0.9), Region(low=0.0), Region(high=0.12), Region(-1, 0.5)])
parts = st.builds(Part, st.just("behavior"), st.sampled_from(ESTIMANDS), regions)
directions = st.sampled_from(["up", "down", "either"])


@st.composite
def tables(draw: st.DrawFn) -> pd.DataFrame:
    """Up to 9 pairs, coarse scores so that ties and zeros are common, and now and then a hole."""
    n, seeds = draw(st.integers(1, 9)), draw(st.integers(1, 2))
    scores = draw(
        st.sampled_from(
            [
                st.integers(-2, 2).map(float),
                st.floats(-1e6, 1e6, width=32),
                st.sampled_from([0.1, 0.2, 0.1 + 0.2, 0.3]),
                st.floats(-1e-150, 1e-150),
            ]
        )
    )
    rows = [
        {"pair": f"p{i}", "arm": arm, "seed": seed, "score": draw(scores)}
        for i in range(n)
        for arm in ARMS
        for seed in range(seeds)
    ]
    frame = pd.DataFrame(rows)
    for column in draw(st.sets(st.sampled_from(["cluster", "source", "base"]))):
        labels = {f"p{i}": draw(st.sampled_from("abc")) for i in range(n)}
        frame[column] = frame["pair"].map(labels)
    return frame.drop(index=draw(st.sets(st.integers(0, 200), max_size=1)), errors="ignore")


def numbers(content: Any) -> list[float]:
    if isinstance(content, dict):
        return [number for value in content.values() for number in numbers(value)]
    if isinstance(content, list):
        return [number for value in content for number in numbers(value)]
    return [content] if isinstance(content, float) else []


@laws
@given(tables(), parts, directions, st.data())
def test_every_table_has_plain_finite_lines_or_a_reason(
    frame: pd.DataFrame, part: Part, direction: Any, data: st.DataObject
) -> None:
    families = {
        pair: data.draw(st.tuples(st.sampled_from("xyz"), st.sampled_from("xyz")))
        for pair in frame["pair"].unique()
    }
    found = sensitivity(frame, part, direction=direction, families=families)
    plain = found.to_dict()
    assert json.loads(json.dumps(plain, allow_nan=False)) == plain
    assert all(math.isfinite(number) for number in numbers(plain))
    assert bool(found.lines) is not bool(found.why)
    for lines in found.lines:
        assert (lines.estimate is None) is bool(lines.why)
        if lines.estimate is None:
            continue
        assert lines.bootstrap is not None
        assert lines.bootstrap.interval is not None or lines.bootstrap.crossed
        assert all((flips.p is None) is bool(flips.why) for flips in lines.sign_flips)
        assert all(flips.p is None or 0 < flips.p <= 1 for flips in lines.sign_flips)
        for left in (lines.without_cluster, lines.without_family):
            assert left is not None
            assert (left.low is None) is bool(left.why)
            assert (left.low is None) is (left.counted == 0)
            assert left.low is None or left.low <= left.high


@laws
@given(tables(), parts, st.integers(0, 2**32 - 1))
def test_the_order_of_rows_does_not_matter(frame: pd.DataFrame, part: Part, seed: int) -> None:
    shuffled = frame.iloc[np.random.default_rng(seed).permutation(len(frame))]
    assert sensitivity(shuffled, part, direction="either") == sensitivity(
        frame, part, direction="either"
    )
