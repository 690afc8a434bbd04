"""What a count of few leaves open: of n clusters k are unlike all others, but how many are?

Where every cluster has the same ratio (a patch changes none, or turns each into its source), a
contrast has no noise, and a t statistic takes what was seen for all there is. Where all but a few
have it, the few are too few to tell how skewed it is (`judging.hall`). What was not seen is bounded
by the count: n clusters drawn at random hold at most k of a kind whose share is s with the
binomial's probability P(at most k; n, s); shares at which that is below alpha are excluded at
one-sided alpha. It is the exact bound of a count (C. J. Clopper and E. S. Pearson, The use of
confidence or fiducial limits illustrated in the case of the binomial, Biometrika 26 (1934) 404); of
a count of zero it is 1 - alpha^(1/n).

From a share of clusters to a mean it takes an assumption, which evidence states and nothing
guarantees: clusters of that kind lie off by at most one source - base on average. A ratio T that
all others have then stands for T -+ that share. Where those that were seen lie off by more on
average, the assumption is false, and the count bounds nothing.

Where pairs share sources and bases, sources are counted, and bases; the wider bound stands.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import stats

from kv_claims.judging.arrays import Bools, Floats, Ints
from kv_claims.judging.crossed import Sharing
from kv_claims.judging.moments import NO_SPREAD


class Few(NamedTuple):
    """Clusters that are unlike the others, `[...]` each.

    known: where more than half have one ratio, `usual`, and the others bear out the assumption.
    counts: how many are unlike, of how many clusters, in each way of clustering.
    """

    known: Bools
    usual: Floats
    counts: tuple[tuple[Ints, int], ...]

    @property
    def none(self) -> Few:
        """The same, had none been unlike."""
        return self._replace(counts=tuple((np.zeros_like(k), n) for k, n in self.counts))

    def chance(self, share: Floats) -> Floats:
        """The largest probability of no more such clusters than were seen, at a share; `[...]`."""
        found: Floats = np.max([chance_of_few(share, n, k) for k, n in self.counts], 0)
        return found

    def share(self, alpha: float) -> Floats:
        """The largest share that the counts leave, at one-sided alpha; `[...]`."""
        found: Floats = np.max([largest_share(n, alpha, k) for k, n in self.counts], 0)
        return found


def few_unlike(
    effect: Floats,
    unit: Floats,
    size: Floats,
    most: Floats,
    sharing: Sharing | None,
) -> Few:
    """Count what is unlike the others. effect, unit, size: `[study, cluster]`; most: `[study]`."""
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(unit == 0, np.nan, effect / unit)
    # NaN are last in order, so that the middle of what is known is found without warnings.
    order = np.sort(ratio, -1)
    middle = np.maximum(np.sum(~np.isnan(ratio), -1) - 1, 0) // 2
    usual = np.nan_to_num(np.take_along_axis(order, middle[:, None], -1)[:, 0], posinf=0.0)
    off = np.abs(effect - usual[:, None] * unit)
    unlike = off > NO_SPREAD * np.max(size + np.abs(usual[:, None] * unit), -1, keepdims=True)
    number = unlike.sum(-1)
    # Where nothing bounds it, nothing is assumed.
    limit = np.where(np.isfinite(most), most, 0.0) * np.abs(np.mean(unit, -1)) * number
    assumed = np.sum(off * unlike, -1) <= limit * (1 + NO_SPREAD)
    counts = [(number, unlike.shape[-1])]
    if sharing is not None:
        counts = [(_clusters_with(unlike, side), int(side.max()) + 1) for side in sharing]
    few = np.all([2 * k < n for k, n in counts], 0)
    known: Bools = few & assumed & np.isfinite(most)
    return Few(known, usual, tuple(counts))


def _clusters_with(unlike: Bools, side: Ints) -> Ints:
    """How many clusters hold a pair that is unlike."""
    member = np.zeros((len(side), int(side.max()) + 1))
    member[np.arange(len(side)), side] = 1.0
    found: Ints = np.sum(unlike @ member > 0, -1)
    return found


def largest_share(clusters: int, alpha: float, seen: Ints | int = 0) -> Floats:
    """The largest share of a kind that so many seen of it leave, at one-sided alpha.

    `chance_of_few` is its inverse: of this share it is alpha.
    """
    found = stats.beta.ppf(1 - alpha, np.asarray(seen) + 1, clusters - np.asarray(seen))
    return np.asarray(found)[()]


def chance_of_few(share: Floats, clusters: int, seen: Ints | int = 0) -> Floats:
    """The probability that so many clusters hold no more of a kind of this share; 0 from 1 on."""
    found = stats.binom.cdf(seen, clusters, np.clip(share, 0.0, 1.0))
    return np.asarray(found)[()]


def clusters_for(share: float, alpha: float) -> int | None:
    """The fewest clusters that exclude a share at one-sided alpha where none is seen of it.

    None where no number does.
    """
    if share <= 0:
        return None
    if share >= 1:
        return 1
    return int(np.ceil(np.log(alpha) / np.log1p(-share)))
