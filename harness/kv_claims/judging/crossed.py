"""The variance of a mean over pairs that share sources and bases both: two-way clustering.

Source: A. C. Cameron, J. B. Gelbach and D. L. Miller, Robust inference with multiway clustering,
Journal of Business & Economic Statistics 29 (2011) 238. Of sums over the pairs of each source, over
those of each base, and of pairs alone,

    V = V_source + V_base - V_pair

as what pairs have of their own is in both sums. Sums of cubes add in the same way, so that the mean
has a skewness too. Every pair weighs the same.

Where V is no variance (negative for some contrast) the larger one-way variance stands; `turned`
says where. Degrees of freedom are those of the fewer clusters.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from kv_claims.judging.arrays import Bools, Floats, Ints


class Sharing(NamedTuple):
    """Which source and which base each pair has, numbered from 0 without a gap, `[pair]` each."""

    source: Ints
    base: Ints

    @property
    def clusters(self) -> tuple[int, int]:
        """How many sources, how many bases."""
        return int(self.source.max()) + 1, int(self.base.max()) + 1

    @property
    def fewest(self) -> int:
        """Clusters that count: of the kind of which there are fewer."""
        return min(self.clusters)


class Sums(NamedTuple):
    """Of numbers x and y of mean 0: sums of squares, products, and cubes of x; `[...]` each."""

    xx: Floats
    xy: Floats
    yy: Floats
    xxx: Floats


def sums(x: Floats, y: Floats) -> Sums:
    """Over the last axis."""
    return Sums(np.sum(x * x, -1), np.sum(x * y, -1), np.sum(y * y, -1), np.sum(x**3, -1))


def two_way(x: Floats, y: Floats, sharing: Sharing) -> tuple[Sums, Sums, Bools]:
    """Sums for variances, each with its small-sample factor; the same without; and `turned`.

    x, y: of mean 0 over pairs, `[..., pair]`.
    """
    pairs = x.shape[-1]
    sides = [
        (side, count / (count - 1)) for side, count in zip(sharing, sharing.clusters, strict=True)
    ]
    own = sums(x, y)
    one_way = [(sums(_by(x, side), _by(y, side)), factor) for side, factor in sides]
    plain = _sum([some for some, _ in one_way], own)
    of_pairs = pairs / (pairs - 1)
    scaled = _sum([_times(some, factor) for some, factor in one_way], _times(own, of_pairs))
    turned: Bools = (scaled.xx <= 0) | (scaled.yy < 0) | (scaled.xx * scaled.yy < scaled.xy**2)
    # The variance of pairs alone, where even the larger one is 0.
    every = [(own, of_pairs), *one_way]
    largest = np.argmax([some.xx * factor for some, factor in every], axis=0)
    instead = [np.array([getattr(some, f) for some, _ in every]) for f in Sums._fields]
    factors = np.array([factor for _, factor in every])[largest]
    other = Sums(*(np.take_along_axis(one, largest[None], 0)[0] for one in instead))
    return (
        _chosen(turned, _times(other, factors), scaled),
        _chosen(turned, other, plain),
        turned,
    )


def covariance_of_means(values: Floats, sharing: Sharing) -> Floats:
    """The two-way covariance of the means of several numbers a pair, `[number, pair]`.

    Directions in which it is none (negative) are left without variance.
    """
    pairs = values.shape[-1]
    off = values - values.mean(-1, keepdims=True)
    found = -(off @ off.T) * pairs / (pairs - 1)
    for side, count in zip(sharing, sharing.clusters, strict=True):
        each = _by(off, side)
        found += each @ each.T * count / (count - 1)
    sizes, directions = np.linalg.eigh(found / pairs**2)
    whole: Floats = (directions * np.maximum(sizes, 0.0)) @ directions.T
    return whole


def _by(values: Floats, side: Ints) -> Floats:
    """Sums over the pairs of each cluster, `[..., cluster]`."""
    member = np.zeros((len(side), int(side.max()) + 1))
    member[np.arange(len(side)), side] = 1.0
    found: Floats = values @ member
    return found


def _sum(sides: list[Sums], own: Sums) -> Sums:
    return Sums(*(sum(some) - less for *some, less in zip(*sides, own, strict=True)))


def _times(some: Sums, factor: float | Floats) -> Sums:
    return Sums(*(factor * one for one in some))


def _chosen(where: Bools, one: Sums, other: Sums) -> Sums:
    return Sums(*(np.where(where, a, b) for a, b in zip(one, other, strict=True)))
