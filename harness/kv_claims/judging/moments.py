"""What a contrast L = effect - e * unit is judged by: means, their covariance, skewness.

Numbers are those of clusters that are independent, or of pairs that share sources and bases
(`kv_claims.judging.crossed`). All is kept around the estimate T = mean(effect) / mean(unit): with
off = effect - T * unit, whose mean is 0, L = off + (T - e) * unit for every e, without a loss of
digits near T.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from kv_claims.judging.arrays import Bools, Floats
from kv_claims.judging.crossed import Sharing, sums, two_way

NO_SPREAD = 1e-12
"""Of numbers as large as 1."""


class Moments(NamedTuple):
    """Of one study (0-d) or of many, `[...]` each.

    estimate: T; NaN where the mean unit is 0. unit: the mean unit, not negative: where it is, off
        and unit are read with the other sign. v_oo, v_ou, v_uu: (co)variances of the means of off
        and unit. skewness: of the mean of off. alike: where off does not vary, so that every
        cluster has the same ratio (but for rounding); skewness is 0 there. clusters: independent
        ones; of crossed pairs the fewer. turned: where a two-way variance was none.
    """

    estimate: Floats
    unit: Floats
    v_oo: Floats
    v_ou: Floats
    v_uu: Floats
    skewness: Floats
    alike: Bools
    clusters: int
    turned: Bools

    @property
    def freedom(self) -> int:
        """Degrees of freedom."""
        return self.clusters - 1

    def t(self, edge: Floats | float) -> Floats:
        """The mean of L at an edge over its standard error; infinite where L does not vary."""
        above = self.estimate - edge
        variance = self.v_oo + 2 * above * self.v_ou + above**2 * self.v_uu
        with np.errstate(divide="ignore", invalid="ignore"):
            found: Floats = above * self.unit / np.sqrt(np.maximum(variance, 0.0))
        return found


def varies(values: Floats, parts: Floats) -> Bools:
    """Whether values differ by more than the rounding of the numbers they were made of; `[...]`."""
    found: Bools = np.ptp(values, axis=-1) > NO_SPREAD * np.max(parts, axis=-1)
    return found


def moments(effect: Floats, unit: Floats, size: Floats, sharing: Sharing | None = None) -> Moments:
    """Of effect and unit by cluster, or by pair where these share sources and bases, `[..., n]`.

    size: magnitude of the scores that effect is the difference of, which bounds its rounding.
    """
    mean = np.mean(unit, -1)
    estimate = np.mean(effect, -1) / np.where(mean == 0, np.nan, mean)
    off = effect - estimate[..., None] * unit
    alike = np.isfinite(estimate) & ~varies(off, size + np.abs(estimate[..., None] * unit))
    off = off - np.mean(off, -1, keepdims=True)
    apart = np.broadcast_to(unit - mean[..., None], off.shape)
    n = off.shape[-1]
    if sharing is None:
        plain = sums(off, apart)
        scaled, clusters = plain, n
        weight = 1 / (n * (n - 1)) if n > 1 else np.nan
        turned: Bools = np.zeros(off.shape[:-1], np.bool_)
    else:
        scaled, plain, turned = two_way(off, apart, sharing)
        clusters, weight = sharing.fewest, 1 / n**2
    with np.errstate(divide="ignore", invalid="ignore"):
        skewness = np.where(alike, 0.0, plain.xxx / plain.xx**1.5)
    skewness = np.clip(np.nan_to_num(skewness, nan=0.0), -1.0, 1.0)
    sign = np.where(mean < 0, -1.0, 1.0)
    return Moments(
        estimate,
        np.abs(mean),
        weight * scaled.xx,
        weight * scaled.xy,
        weight * scaled.yy,
        sign * skewness,
        alike,
        clusters,
        turned,
    )
