"""What is asserted: a claim, its citation, the region in which it is true.

A claim is data beside a test function; running it is `harness.study`'s work. No torch here.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeVar

from harness.errors import UsageError

TestFunction = TypeVar("TestFunction", bound=Callable[..., object])
ATTRIBUTE = "__kv_claim__"


@dataclass(frozen=True)
class Region:
    """The transfers for which a claim is true: low <= T <= high (a fraction, 1 is the source).

    An end left out is open: `Region(high=0.12)` holds for every T up to 0.12, negative
    transfer included.
    """

    low: float = -math.inf
    high: float = math.inf

    def __post_init__(self) -> None:
        if not all(isinstance(end, int | float) for end in (self.low, self.high)):
            raise UsageError(f"Region({self.low!r}, {self.high!r}): expected numbers")
        if not self.low < self.high:
            raise UsageError(f"Region({self.low}, {self.high}): expected low < high")
        if not self.edges:
            raise UsageError("Region(): expected at least one finite end, else no claim is made")

    @property
    def edges(self) -> tuple[tuple[float, Literal["greater", "less"]], ...]:
        """Finite ends, each with the side of it on which the claim is true."""
        ends: tuple[tuple[float, Literal["greater", "less"]], ...] = (
            (self.low, "greater"),
            (self.high, "less"),
        )
        return tuple(end for end in ends if math.isfinite(end[0]))

    def __contains__(self, transfer: float) -> bool:
        return self.low <= transfer <= self.high

    def __str__(self) -> str:
        if not math.isfinite(self.low):
            return f"<= {self.high:g}"
        if not math.isfinite(self.high):
            return f">= {self.low:g}"
        return f"[{self.low:g}, {self.high:g}]"


@dataclass(frozen=True)
class Claim:
    """A sentence from the literature, where it stands, and what would make it true.

    about: 'layer' where the sentence is about *these* layers, so that patching others is a
        control that must not do the same.
    margin: how far from no transfer a negative control may lie, as a share of source - base.
    """

    id: str
    says: str
    cites: str
    transfer: Region
    about: Literal["layer"] | None = None
    margin: float = 0.10

    def __post_init__(self) -> None:
        for field in ("id", "says", "cites"):
            if not getattr(self, field).strip():
                raise UsageError(f"claim {self.id!r}: `{field}` is empty")
        check_margin(self.margin, self.transfer, where=f"claim {self.id!r}: ")
        if self.about not in (None, "layer"):
            raise UsageError(f"claim {self.id!r}: about={self.about!r}, expected 'layer' or None")


def claim(
    id: str,
    *,
    says: str,
    cites: str,
    transfer: Region,
    about: Literal["layer"] | None = None,
    margin: float = 0.10,
) -> Callable[[TestFunction], TestFunction]:
    """Mark a test function as the test of a claim; see `Claim` for the fields."""
    asserted = Claim(id, says=says, cites=cites, transfer=transfer, about=about, margin=margin)

    def mark(function: TestFunction) -> TestFunction:
        setattr(function, ATTRIBUTE, asserted)
        return function

    return mark


def check_margin(margin: float, region: Region, *, where: str = "") -> None:
    """Raise UsageError for a margin that would let a control do what the claim says."""
    nearest = max(region.low, -region.high)
    if not 0 < margin < 1 or (nearest > 0 and margin > nearest):
        raise UsageError(
            f"{where}margin {margin:g} for the region {region}: expected above 0 and below 1, and "
            "at most the region's distance from no transfer"
        )


def claim_of(function: object) -> Claim | None:
    """The claim that a test function was marked with, if any."""
    found = getattr(function, ATTRIBUTE, None)
    return found if isinstance(found, Claim) else None
