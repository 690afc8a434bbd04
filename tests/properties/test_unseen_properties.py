"""Clusters that are all alike: word, interval and p say the same, and err as seldom as they say."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from kv_claims.claims.claim import Region
from kv_claims.judging.contrast import edge_tests, interval
from kv_claims.judging.decide import decide
from kv_claims.judging.estimand import Contrast
from kv_claims.judging.rule import Rule
from kv_claims.judging.unseen import largest_share

CLUSTERS = st.integers(10, 300)
ALPHA = st.sampled_from([0.05, 0.05 / 8, 0.01])
EDGE = st.floats(-1.5, 1.5).filter(lambda edge: abs(edge) > 1e-3)


def _alike(ratio: float, n: int) -> Contrast:
    unit = 4.0 + np.arange(n) % 5
    return Contrast(ratio * unit, unit, 2 * unit)


@given(n=CLUSTERS, alpha=ALPHA, low=EDGE, width=st.floats(0.05, 1.0), ratio=st.sampled_from([0, 1]))
def test_word_and_interval_agree(
    n: int, alpha: float, low: float, width: float, ratio: int
) -> None:
    region = Region(low, low + width)
    found = _alike(float(ratio), n)
    tests = edge_tests(found, region)
    if tests.flat.any():
        return
    inner, outer = interval(found, 1 - 2 * alpha), interval(found, 1 - alpha)
    assert inner is not None
    assert outer is not None
    assert (tests.p_supported <= alpha) == inner.within(region.low, region.high)
    assert (tests.p_refuted <= alpha) == outer.disjoint(region.low, region.high)


@given(n=CLUSTERS, alpha=ALPHA, share=st.floats(0.001, 0.6), size=st.floats(0.05, 1.0))
def test_none_seen_errs_at_most_as_often_as_it_says(
    n: int, alpha: float, share: float, size: float
) -> None:
    """A share of clusters moves by `size`: the truth is share * size, and lies on an edge.

    The chance that none is seen is known, so that of a false word is, too: it is that or 0.
    """
    truth, base = share * size, np.linspace(0.0, 3.0, n)
    scores = {"base": base, "source": base + 4.0 + np.arange(n) % 5, "patched": base}
    none = (1 - share) ** n
    for region, word, level in (
        (Region(high=truth), "supported", alpha),
        (Region(low=truth), "refuted", alpha / 2),
        (Region(truth, truth + 0.5), "refuted", alpha / 2),
    ):
        rule = Rule(region, alpha=alpha, alpha_refuted=alpha, margin=min(0.1, truth))
        wrong = bool(decide(scores, rule).has_word(word))
        assert wrong * none <= level
        assert wrong == (truth >= largest_share(n, level))
