"""How well a score tells two arms apart: the area under the receiver's curve, of paired arms.

AUROC is the chance that a score of the first arm lies above one of the second, ties counted half,
over all n x n of them. It is a mean over clusters of V + W - AUROC, where V is the share of the
second arm's scores below the cluster's first, and W that of the first arm's above its second: their
spread is the variance of a U-statistic of paired samples (E. R. DeLong, D. M. DeLong, D. L.
Clarke-Pearson, Comparing the areas under two or more correlated receiver operating characteristic
curves, Biometrics 44 (1988) 837; of clusters N. A. Obuchowski, Biometrics 53 (1997) 567). So it is
tested as any other mean (`kv_claims.judging.contrast`).
"""

from __future__ import annotations

import numpy as np
from scipy import stats

from kv_claims.judging.arrays import Floats


def placements(first: Floats, second: Floats) -> Floats:
    """V + W - AUROC of each cluster, whose mean is the AUROC; `[..., cluster]`."""
    v, w = _shares(first, second), _shares(-second, -first)
    area = np.mean(v, -1, keepdims=True)
    found: Floats = v + w - area
    return found


def _shares(scores: Floats, others: Floats) -> Floats:
    """The share of others below each score, ties counted half, by ranks; `[..., cluster]`."""
    n = scores.shape[-1]
    among = stats.rankdata(np.concatenate([scores, others], -1), axis=-1)[..., :n]
    found: Floats = (among - stats.rankdata(scores, axis=-1)) / others.shape[-1]
    return found
