"""Tables of trials whose sample means and spreads are known to the last bit but rounding.

Nothing here is random: a study's gap and effect are built from cosine waves that have mean 0 and
standard deviation 1 in the sample and are orthogonal to each other. So every t statistic of a
contrast is known in closed form, and a verdict can be placed just on either side of its limit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from kv_claims.judging.checks import INSTRUMENT_CHECKS, Check
from kv_claims.judging.estimand import Contrast
from kv_claims.judging.fieller import Floats, Interval, ends

PASSED = tuple(Check(name, True, "as it should be") for name in INSTRUMENT_CHECKS)


def contrast_of(effect: Floats, unit: Floats) -> Contrast:
    """A contrast of scores that are as large as both."""
    return Contrast(effect, unit, np.abs(effect) + np.abs(unit))


def fieller(effect: Floats, gap: Floats, level: float) -> Interval | None:
    """The interval of one study without a count of what was not seen; None where unbounded."""
    low, high = ends(contrast_of(effect, gap).moments, level)
    return None if np.isnan(low) else Interval(float(low), float(high))


def wave(k: int, n: int) -> Floats:
    """The k-th cosine wave at n points: mean 0, standard deviation 1 (n - 1 in the divisor)."""
    values = np.cos(np.pi * k * (np.arange(n) + 0.5) / n)
    return values / values.std(ddof=1)


def table(
    arms: Mapping[str, Floats],
    *,
    seeds: Sequence[int] = (0,),
    jitter: float = 0.0,
    **columns: Sequence[object],
) -> pd.DataFrame:
    """One row a trial: pair i of an arm scores `arms[arm][i]` on average over seeds.

    jitter: how far the seeds of a pair lie apart, around that mean.
    columns: one value a pair, for `cluster`, `source` or `base`.
    """
    spread = jitter * (np.arange(len(seeds)) - (len(seeds) - 1) / 2)
    return pd.DataFrame(
        [
            {
                "pair": f"pair-{i:03d}",
                "arm": arm,
                "seed": seed,
                "score": float(score + spread[k]),
                **{name: values[i] for name, values in columns.items()},
            }
            for arm, scores in arms.items()
            for i, score in enumerate(scores)
            for k, seed in enumerate(seeds)
        ]
    )


@dataclass(frozen=True)
class Study:
    """A study whose sample has exactly these moments.

    transfer: mean(A) / mean(D), where A = transfer * D + noise.
    noise: standard deviation of A - transfer * D, which is orthogonal to D.
    gap, gap_spread: mean and standard deviation of D = source - base.
    controls: transfer, and noise where it is not 0.3, of each negative control.
    versus: transfer of a second patched arm, without noise of its own; None for none. So the
        contrasts of the difference are those of a transfer of `transfer - versus`.
    """

    transfer: float
    noise: float = 0.3
    n: int = 40
    gap: float = 6.0
    gap_spread: float = 1.5
    controls: Mapping[str, float | tuple[float, float]] | None = None
    versus: float | None = None

    @property
    def base(self) -> Floats:
        return 10 + wave(6, self.n)

    @property
    def differences(self) -> Floats:
        """D, by pair."""
        return self.gap + self.gap_spread * wave(1, self.n)

    @property
    def effects(self) -> Floats:
        """A, by pair."""
        return self.transfer * self.differences + self.noise * wave(2, self.n)

    @property
    def arms(self) -> dict[str, Floats]:
        arms = {
            "base": self.base,
            "source": self.base + self.differences,
            "patched": self.base + self.effects,
        }
        if self.versus is not None:
            arms["versus"] = self.base + self.versus * self.differences
        for k, (name, given) in enumerate((self.controls or {}).items(), start=3):
            transfer, noise = given if isinstance(given, tuple) else (given, 0.3)
            arms[name] = self.base + transfer * self.differences + noise * wave(k, self.n)
        return arms

    def frame(self, **options: object) -> pd.DataFrame:
        """The table of this study; options as in `table`."""
        return table(self.arms, **options)  # type: ignore[arg-type]


def noise_for(t: float, distance: float, n: int = 40) -> float:
    """The noise at which a contrast with an edge at `distance` from the transfer has this t.

    L = A - e D has mean distance * gap and variance (distance * gap_spread)^2 + noise^2.
    """
    spread = abs(distance) * Study.gap * n**0.5 / t
    return float((spread**2 - (distance * Study.gap_spread) ** 2) ** 0.5)


def t_quantile(p: float, n: int = 40) -> float:
    """Student's quantile with n - 1 degrees of freedom: of clusters, not of trials."""
    return float(stats.t.ppf(p, n - 1))
