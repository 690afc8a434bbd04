"""Studies of scores that look like real ones: skewed counts, tied together, of no model.

Marginals. A score is a zero-inflated negative binomial count (`Counts`) whose mean and standard
deviation are given and met exactly.

Dependence. A Gaussian copula. The latent number of a score, a standard normal, is

    sqrt(pair) P + sqrt(source) S + sqrt(base) B + sqrt(1 - pair - source - base) E

with shares that sum to less than 1: P of the (pair, arm), S of the (source prompt, arm), B of the
(base prompt, arm), E of the (pair, arm, seed), all standard normal. P, S and B have correlation
`arm_correlation` between any two arms, E is independent. Two seeds of a (pair, arm) so have latent
correlation pair + source + base (the latent ICC), two arms of a pair that times `arm_correlation`.
Scores are correlated less than their latent numbers, as they are counts: for a latent ICC of 0.2
and 0.5, about 0.13-0.20 and 0.39-0.49.

Truth. What an arm's mean is over the population of sources, bases, pairs and seeds: the mean of
its marginal, whatever the dependence. Every study draws pairs, sources and bases afresh.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from math import lcm, sqrt
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import stats

from kv_claims.errors import UsageError

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

_BEYOND = 1e-14
"""Probability of counts that are not told apart from the largest that is."""
_CHUNK_SCORES = 2_000_000
"""Scores drawn at once: 16 MB an array, of which about five are alive."""


@dataclass(frozen=True)
class Counts:
    """A zero-inflated negative binomial law with a given mean and standard deviation.

    With probability z a count is 0, else it is negative binomial of mean m = mean / (1 - z) and
    variance m + m**2 / r. Mean and variance leave one of z and r free:

        sd**2 = mean + mean**2 * ((1 + 1/r) / (1 - z) - 1)

    so that z can be no more than excess / (1 + excess), with excess = (sd**2 - mean) / mean**2; at
    that bound what is not inflation is Poisson (1/r = 0), and at z = 0 all is negative binomial.
    zero_part: which part of the bound z is, from 0 to 1. Where sd**2 = mean the bound is 0, and the
    law is Poisson without inflation, whatever zero_part is.
    Raises UsageError for a mean that is not above 0, an sd**2 below the mean (no law of this family
    is less spread than Poisson), and a part outside [0, 1].
    """

    mean: float
    sd: float
    zero_part: float = 0.5

    def __post_init__(self) -> None:
        if not self.mean > 0:
            raise UsageError(f"{self}: expected a mean above 0")
        if not self.sd**2 >= self.mean * (1 - 1e-12):
            raise UsageError(
                f"{self}: expected an sd of at least {sqrt(self.mean):.4g}, the root of the mean"
            )
        if not 0 <= self.zero_part <= 1:
            raise UsageError(f"{self}: expected a zero_part from 0 to 1")

    @property
    def inflation(self) -> float:
        """z: the probability of a zero that is not the negative binomial's own."""
        return self.zero_part * self._excess / (1 + self._excess)

    @property
    def inverse_size(self) -> float:
        """1/r of the negative binomial; 0 where it is Poisson."""
        return max(0.0, (1 + self._excess) * (1 - self.inflation) - 1)

    @property
    def _excess(self) -> float:
        return max(0.0, (self.sd**2 - self.mean) / self.mean**2)

    def chances(self) -> Floats:
        """Probability of each count from 0 on, `[count]`; those left out sum to below 1e-13."""
        mean, z, inverse = self.mean / (1 - self.inflation), self.inflation, self.inverse_size
        # Below, scipy's negative binomial is no longer told apart from its limit.
        law = (
            stats.poisson(mean)
            if inverse < 1e-9
            else stats.nbinom(1 / inverse, 1 / (1 + mean * inverse))
        )
        found: Floats = (1 - z) * law.pmf(np.arange(int(law.isf(_BEYOND)) + 1))
        found[0] += z
        return found


@lru_cache(maxsize=64)
def _edges(law: Counts) -> Floats:
    """Above which standard normals the count is more than 0, 1, 2 ..., `[count]`."""
    chances = law.chances()
    # Upper tails are summed from above, where they are small.
    above = np.cumsum(chances[::-1])[::-1][1:]
    edges: Floats = stats.norm.isf(above)
    edges.flags.writeable = False
    return edges


BASE = Counts(0.8, 1.5)
SOURCE = Counts(6.0, 3.0)
PATCHED = {0.35: Counts(2.6, 2.7), 0.80: Counts(4.96, 3.2)}
"""By transfer: .346 (to two digits .35) and .80."""
WEAK_SOURCE = Counts(2.2, 2.2)
"""An assay in which source - base is 1.4 only."""


def at_transfer(transfer: float, base: Counts = BASE, source: Counts = SOURCE) -> Counts:
    """The law of an arm of exactly that transfer.

    Its variance lies between those of base and source as its mean does, so that for every transfer
    from 0 to 1 there is such a law. Raises UsageError where there is none beyond.
    """
    mean = base.mean + transfer * (source.mean - base.mean)
    variance = base.sd**2 + transfer * (source.sd**2 - base.sd**2)
    if variance <= 0:
        raise UsageError(f"transfer {transfer}: the variance would be {variance:.4g}")
    return Counts(mean, sqrt(variance), base.zero_part)


def arms(
    patched: Counts | float,
    *,
    base: Counts = BASE,
    source: Counts = SOURCE,
    **others: Counts | float,
) -> dict[str, Counts]:
    """Laws by role. A number stands for the law of an arm of that transfer (`at_transfer`).

    others: 'versus', 'unrelated_base', 'noise' and 'wrong_layer' (roles are written with a hyphen),
        such as `noise=0.0`, a control that transfers nothing.
    """
    named = {"patched": patched, **{role.replace("_", "-"): law for role, law in others.items()}}
    return {
        "base": base,
        "source": source,
        **{
            role: law if isinstance(law, Counts) else at_transfer(law, base, source)
            for role, law in named.items()
        },
    }


class Crossing(NamedTuple):
    """Sources and bases that pairs share, crossed as in a task of pairing 'crossed'.

    source_share, base_share: of the latent variance; see the module.
    """

    sources: int = 65
    bases: int = 99
    source_share: float = 0.2
    base_share: float = 0.2


class Prompts(NamedTuple):
    """Which source and which base each pair has, the same in every study, `[pair]` each."""

    source: Ints
    base: Ints


@dataclass(frozen=True, eq=False)
class ScoreStudies:
    """Studies of counts: `draw` their scores, `truth` what these are drawn from.

    arms: the law of each role, base and source among them; see `arms`.
    pair_share: of the latent variance, what the seeds of a (pair, arm) share beyond its prompts;
        without `crossing` this is the latent ICC.
    arm_correlation: of what pairs and prompts bring, between any two arms.
    crossing: prompts that pairs share; None where every pair has its own.
    Raises UsageError for shares that leave nothing to luck, or a role that is missing.
    """

    arms: Mapping[str, Counts]
    pair_share: float = 0.5
    arm_correlation: float = 0.5
    crossing: Crossing | None = None

    def __post_init__(self) -> None:
        if missing := {"base", "source"} - set(self.arms):
            raise UsageError(f"arms: no {', '.join(sorted(missing))}")
        shares = self._shares
        if min(shares) < 0 or sum(shares) > 1:
            raise UsageError(f"shares {shares}: expected none below 0, and a sum of 1 at most")
        if not 0 <= self.arm_correlation <= 1:
            raise UsageError(f"arm_correlation {self.arm_correlation}: expected 0 to 1")
        if self.crossing is not None and min(self.crossing.sources, self.crossing.bases) < 1:
            raise UsageError(f"{self.crossing}: expected at least one source and base")

    @property
    def truth(self) -> dict[str, float]:
        """Expected score of every role, over the population."""
        return {role: law.mean for role, law in self.arms.items()}

    @cached_property
    def _shares(self) -> tuple[float, float, float]:
        crossing = self.crossing or Crossing(source_share=0.0, base_share=0.0)
        return self.pair_share, crossing.source_share, crossing.base_share

    def prompts(self, pairs: int) -> Prompts:
        """The source and the base of each pair.

        Crossed as `kv_claims.tasks.task.Task` does: both go round at once, and when both are back
        at the start, bases move on by one. Raises UsageError for more pairs than there are.
        """
        number = np.arange(pairs)
        if self.crossing is None:
            return Prompts(number, number)
        sources, bases = self.crossing.sources, self.crossing.bases
        if pairs > sources * bases:
            raise UsageError(f"{pairs} pairs: {sources} sources x {bases} bases have fewer")
        return Prompts(number % sources, (number + number // lcm(sources, bases)) % bases)

    def draw(
        self, rng: np.random.Generator, studies: int, pairs: int, seeds: int
    ) -> dict[str, Floats]:
        """Scores by role, `[study, pair, seed]`. Equal generators give equal scores.

        Memory beside the scores stays under about 200 MB.
        """
        if min(studies, pairs, seeds) < 1:
            raise UsageError(f"{studies} studies, {pairs} pairs, {seeds} seeds: expected 1 or more")
        of = self.prompts(pairs)
        found = {role: np.empty((studies, pairs, seeds)) for role in self.arms}
        for some in _chunks(studies, pairs * seeds):
            n = some.stop - some.start
            common = self._common(rng, n, of)
            for role, law in self.arms.items():
                latent = sqrt(self.arm_correlation) * common
                latent += sqrt(1 - self.arm_correlation) * self._common(rng, n, of)
                luck = rng.standard_normal((n, pairs, seeds))
                luck *= sqrt(max(0.0, 1 - sum(self._shares)))
                luck += latent[..., None]
                found[role][some] = np.searchsorted(_edges(law), luck)
        return found

    def _common(self, rng: np.random.Generator, studies: int, of: Prompts) -> Floats:
        """What pairs and prompts bring to the latent numbers, `[study, pair]`."""
        pair, source, base = map(sqrt, self._shares)
        found: Floats = pair * rng.standard_normal((studies, len(of.source)))
        for weight, prompt in ((source, of.source), (base, of.base)):
            if weight:
                brought = rng.standard_normal((studies, int(prompt.max()) + 1))
                found += weight * brought[:, prompt]
        return found


def _chunks(studies: int, scores: int) -> Iterator[slice]:
    """The studies, so many at once that their scores are few. scores: of one study and arm."""
    width = max(1, _CHUNK_SCORES // scores)
    for start in range(0, studies, width):
        yield slice(start, min(start + width, studies))
