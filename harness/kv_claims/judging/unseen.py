"""What a count of zero leaves open: of n clusters none is unlike the others, but how many are?

Where every cluster has the same ratio (a patch changes none, or turns each into its source), a
contrast has no noise, and Student's t takes what was seen for all there is. What was not seen is
bounded by its count: n clusters drawn at random hold none of a kind whose share is s with
probability (1 - s)^n, so shares above 1 - alpha^(1/n) are excluded at one-sided alpha. That is the
exact bound of a count of zero (C. J. Clopper and E. S. Pearson, The use of confidence or fiducial
limits illustrated in the case of the binomial, Biometrika 26 (1934) 404).

From a share of clusters to a mean it takes an assumption, which evidence states and nothing
guarantees: clusters of the kind that was not seen lie off by at most one source - base on average.
A ratio T that every cluster has then stands for T -+ that share.

Does not: widen anything where clusters differ, be it one of them. What Student's t makes of few
that differ is in docs/calibration.md.
"""

from __future__ import annotations

import numpy as np

from kv_claims.judging.fieller import Floats


def largest_share(clusters: int, alpha: float) -> float:
    """The largest share of a kind that so many clusters without it leave, at one-sided alpha.

    `chance_of_none` is its inverse: of this share it is alpha.
    """
    return float(-np.expm1(np.log(alpha) / clusters))


def chance_of_none(share: Floats, clusters: int) -> Floats:
    """The probability that so many clusters hold none of a kind of this share; 0 from 1 on."""
    found: Floats = np.clip(1.0 - share, 0.0, 1.0) ** clusters
    return found


def clusters_for(share: float, alpha: float) -> int | None:
    """The fewest clusters that exclude a share at one-sided alpha; None where no number does."""
    if share <= 0:
        return None
    if share >= 1:
        return 1
    return int(np.ceil(np.log(alpha) / np.log1p(-share)))
