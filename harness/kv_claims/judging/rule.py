"""What a judgment is to decide and at which error rates, fixed before the table is looked at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

from kv_claims.claims.claim import ESTIMANDS, MARGIN, SHARES, Estimand, Region, check_margin
from kv_claims.errors import UsageError
from kv_claims.judging.estimand import NEGATIVE, Direction

ALPHA = 0.05


@dataclass(frozen=True)
class Rule:
    """A claimed region, what lies in it, and how sure one must be.

    alpha: one-sided at every edge, to support. alpha_refuted: two-sided, to refute. Both are
        smaller than 0.05 where a claim is one of many, or looked at more than once.
    margin: how far from 0 a control may lie, as a share of the same; a gap has no controls and does
        not read it.
    """

    region: Region
    estimand: Estimand = "transfer"
    direction: Direction = "up"
    margin: float = MARGIN
    alpha: float = ALPHA
    alpha_refuted: float = ALPHA

    def __post_init__(self) -> None:
        if not isinstance(self.region, Region):
            raise UsageError(f"region {self.region!r}, expected a Region(low, high)")
        for name in ("margin", "alpha", "alpha_refuted"):
            if not isinstance(value := getattr(self, name), int | float):
                raise UsageError(f"{name} {value!r}, expected a number")
        if self.estimand not in ESTIMANDS:
            raise UsageError(f"estimand {self.estimand!r}, expected one of {ESTIMANDS}")
        if self.direction not in get_args(Direction):
            raise UsageError(f"direction {self.direction!r}, expected one of {get_args(Direction)}")
        for alpha in (self.alpha, self.alpha_refuted):
            if not 0 < alpha < 0.5:
                raise UsageError(f"alpha {alpha:g}, expected above 0 and below 0.5")
        if self.has_controls:
            check_margin(self.margin, self.region, is_share=self.is_ratio)

    @property
    def is_ratio(self) -> bool:
        """Whether the estimate is a share of how far two arms lie apart, which must not be 0."""
        return self.estimand in SHARES

    @property
    def has_controls(self) -> bool:
        """Whether a patch is judged, which negative controls can be compared with."""
        return bool(NEGATIVE[self.estimand])

    @property
    def supported_level(self) -> float:
        """The level of the interval that lies inside the region exactly if it is supported."""
        return 1 - 2 * self.alpha

    @property
    def refuted_level(self) -> float:
        """The level of the interval that lies outside the region exactly if it is refuted."""
        return 1 - self.alpha_refuted
