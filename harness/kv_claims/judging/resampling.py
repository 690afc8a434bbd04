"""The cluster bootstrap of a ratio of means, and sign flips of a contrast; scipy does both.

Sources: B. Efron, Better bootstrap confidence intervals, JASA 82 (1987) 171 (BCa); C. A. Field and
A. H. Welsh, Bootstrapping clustered data, JRSS B 69 (2007) 369 (whole clusters are drawn).
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from scipy import stats

from kv_claims.claims.claim import Region
from kv_claims.judging.estimand import Contrast
from kv_claims.judging.fieller import Floats, Interval
from kv_claims.judging.moments import varies

BOOTSTRAP_RESAMPLES = 4999
SIGN_FLIPS = 1999
"""Resamples. An end of a 95% interval then has a Monte Carlo error of about 4% of the standard
error, and a p of 0.05 one of 0.005. Up to 10 clusters have all their 2^n flips made."""

_MOST_NUMBERS = 1_000_000  # in one array of resamples, so that memory does not grow with clusters


@dataclass(frozen=True)
class Bootstrap:
    """The cluster bootstrap interval of the ratio of means, in the unit of the estimand.

    method: 'BCa', or 'percentile' where BCa is not defined or not to be trusted (`why`).
    crossed: resamples in which the mean unit is not above 0, so that their ratio means nothing.
        Each is counted beyond both ends; the interval is None where they reach past a tail.
    """

    interval: Interval | None
    method: Literal["BCa", "percentile"]
    resamples: int
    crossed: int
    why: str = ""


@dataclass(frozen=True)
class SignFlips:
    """The one-sided p that the truth lies on the supporting side of an edge, by sign flips.

    side: of the edge, where the claim is true. exact: all 2^clusters flips were made; else p
    counts the observed signs as one of `resamples` + 1, so it is never 0.
    """

    edge: float
    side: Literal["greater", "less"]
    p: float | None
    resamples: int
    exact: bool
    why: str = ""


def bootstrap(
    found: Contrast, level: float, rng: np.random.Generator, *, floor: float = 0.0
) -> Bootstrap:
    """The interval at a level; scipy draws the clusters and finds the BCa ends.

    floor: a mean unit up to it is 0, or below. At least two clusters are wanted.
    """
    effect, unit, size = found.effect, found.unit, found.size
    drawn = stats.bootstrap(
        (effect, unit),
        _both_means,
        n_resamples=BOOTSTRAP_RESAMPLES,
        batch=_batch(found),
        paired=True,
        vectorized=True,
        axis=-1,
        method="percentile",
        random_state=rng,  # `rng` from scipy 1.15 on, where this name still holds
    )
    effects, units = drawn.bootstrap_distribution
    crosses = units <= floor
    ratios = effects / np.where(crosses, 1.0, units)
    if crossed := int(np.count_nonzero(crosses)):
        why = f"source - base is not above 0 in {crossed} of {BOOTSTRAP_RESAMPLES} resamples"
        interval = _percentiles(ratios, crosses, level)
        return Bootstrap(interval, "percentile", BOOTSTRAP_RESAMPLES, crossed, why)
    estimate = float(found.estimate)
    if not varies(effect - estimate * unit, size + np.abs(estimate * unit)):
        why = "no spread: the ratio is the same in every cluster"
        return Bootstrap(Interval(estimate, estimate), "percentile", BOOTSTRAP_RESAMPLES, 0, why)
    same = replace(drawn, bootstrap_distribution=ratios)
    if (interval := _bca(found, same, level)) is not None:
        return Bootstrap(interval, "BCa", BOOTSTRAP_RESAMPLES, 0)
    why = "BCa is not defined for these resamples"
    interval = _percentiles(ratios, crosses, level)
    return Bootstrap(interval, "percentile", BOOTSTRAP_RESAMPLES, 0, why)


def _bca(found: Contrast, drawn: Any, level: float) -> Interval | None:
    """The BCa ends of ratios that were drawn (a result of `stats.bootstrap`), or None.

    scipy adds the jackknife. It warns and gives NaN where BCa is not defined.
    """
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        low, high = stats.bootstrap(
            (found.effect, found.unit),
            _ratio_of_means,
            n_resamples=0,
            batch=_batch(found),
            bootstrap_result=drawn,
            paired=True,
            vectorized=True,
            axis=-1,
            confidence_level=level,
            method="BCa",
        ).confidence_interval
    return Interval(float(low), float(high)) if np.isfinite([low, high]).all() else None


def sign_flips(found: Contrast, region: Region, rng: np.random.Generator) -> tuple[SignFlips, ...]:
    """One test an edge of the region, low edge first; all edges share the same flips."""
    n = len(found.effect)
    exact = 2**n <= SIGN_FLIPS
    resamples = 2**n if exact else SIGN_FLIPS
    towards, tested = [], []
    for edge, side in region.edges:
        values = found.effect - edge * found.unit
        if varies(values, found.size + np.abs(edge * found.unit)):
            towards.append(values if side == "greater" else -values)
            tested.append(edge)
    p_at: dict[float, float] = {}
    if tested:
        result = stats.permutation_test(
            (np.stack(towards),),
            np.mean,
            permutation_type="samples",
            vectorized=True,
            n_resamples=SIGN_FLIPS,
            batch=_batch(found),
            alternative="greater",
            axis=-1,
            random_state=rng,
        )
        p_at = dict(zip(tested, map(float, result.pvalue), strict=True))
    return tuple(
        SignFlips(edge, side, p_at[edge], resamples, exact)
        if edge in p_at
        else SignFlips(edge, side, None, 0, False, "effect - edge * unit does not vary")
        for edge, side in region.edges
    )


def _batch(found: Contrast) -> int:
    """Resamples at a time; their number does not change the numbers drawn."""
    return max(1, _MOST_NUMBERS // len(found.effect))


def _both_means(effect: Floats, unit: Floats, axis: int) -> Floats:
    return np.stack([np.mean(effect, axis=axis), np.mean(unit, axis=axis)])


def _ratio_of_means(effect: Floats, unit: Floats, axis: int) -> Floats:
    return np.asarray(np.mean(effect, axis=axis) / np.mean(unit, axis=axis))


def _percentiles(ratios: Floats, crosses: npt.NDArray[np.bool_], level: float) -> Interval | None:
    """Percentile ends, with resamples that cross beyond both of them; None where unbounded."""
    tail = (1 - level) / 2
    low = float(np.quantile(np.where(crosses, -np.inf, ratios), tail, method="lower"))
    high = float(np.quantile(np.where(crosses, np.inf, ratios), 1 - tail, method="higher"))
    return Interval(low, high) if np.isfinite(low) and np.isfinite(high) else None
