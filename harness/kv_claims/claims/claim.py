"""What is asserted: a claim, its citation, its parts, the regions in which they are true.

A claim is data beside a test function; running it is `kv_claims.study.study`'s work and judging it
that of `kv_claims.judging`. It does not know which outcomes there are: their names are plain text
here. No torch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, TypeVar, get_args

from kv_claims.claims.found import Found
from kv_claims.errors import UsageError

TestFunction = TypeVar("TestFunction", bound=Callable[..., object])
Item = TypeVar("Item")
ATTRIBUTE = "__kv_claim__"
BEHAVIOR = "behavior"
MARGIN = 0.10
SAME_WITHIN = 0.05
"""Share of source - base up to which two runs' estimates of one finding count as the same."""
FEWEST_PAIRS = 10
"""Fewer clusters of pairs than this are never judged."""

Estimand = Literal[
    "transfer", "difference", "carried", "shift", "rate", "effect_size", "gap", "auroc"
]
"""What is estimated, of one outcome, over pairs:

transfer: (patched - base) / (source - base), of one patch.
difference: (patched - versus) / (source - base), of two patches: an order or a sameness.
carried: (patched - unrelated-base) / (source - unrelated-base), of one patch: how much of what
    the base's own trace does not explain comes from the source, and not from wiping that trace.
shift: patched - base in the outcome's own unit, of one patch; no source is needed.
rate: the same of an outcome that is 0 or 1 in each pair: a difference of two rates.
effect_size: the same over the spread of that difference (paired d, Hedges-corrected).
gap: source - base in the outcome's own unit, of no patch at all.
auroc: the chance that the outcome of a source lies above that of a base, of no patch at all.
"""
ESTIMANDS: tuple[Estimand, ...] = get_args(Estimand)
SHARES: tuple[Estimand, ...] = ("transfer", "difference", "carried")
"""Estimands that are shares of how far two arms lie apart; the others have a unit of their own."""
OF_SPREADS: tuple[Estimand, ...] = ("effect_size", "auroc")
"""Estimands that hang on how scores spread, and not on their means alone."""
UNPATCHED: tuple[Estimand, ...] = ("gap", "auroc")
"""Estimands of source and base alone."""


@dataclass(frozen=True)
class Region:
    """The values of an estimand for which a claim is true: low <= value <= high.

    A transfer or a difference is a share of source - base (1 is the source), what is carried one
    of source - unrelated-base; a shift, a rate and a gap are in the outcome's own unit, an effect
    size is in spreads, an AUROC a chance. An end left out is open: `Region(high=0.12)` holds for
    every T up to 0.12, negative transfer included.
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

    @property
    def claims_effect(self) -> bool:
        """Whether what is shown to be inside is shown to differ from 0.

        So it is where 0 is outside or an edge: a contrast that passes at the edge 0 is above it.
        """
        return self.low >= 0 or self.high <= 0

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high

    def __str__(self) -> str:
        if not math.isfinite(self.low):
            return f"<= {self.high:g}"
        if not math.isfinite(self.high):
            return f">= {self.low:g}"
        return f"[{self.low:g}, {self.high:g}]"


@dataclass(frozen=True)
class Part:
    """One estimand of one outcome, and the region in which the claim has it.

    outcome: its name, such as 'behavior', 'pr@27/32', 'rv'.
    """

    outcome: str
    estimand: Estimand
    region: Region

    def __post_init__(self) -> None:
        if not isinstance(self.outcome, str) or not self.outcome.strip():
            raise UsageError(f"Part: outcome {self.outcome!r}, expected a name")
        if self.outcome != self.outcome.strip():
            raise UsageError(f"Part: outcome {self.outcome!r}, expected no space around it")
        if self.estimand not in ESTIMANDS:
            raise UsageError(f"Part: estimand {self.estimand!r}, expected one of {ESTIMANDS}")
        if not isinstance(self.region, Region):
            raise UsageError(f"Part: region {self.region!r}, expected a Region")
        if self.estimand == "difference" and self.region.claims_effect and self.region.low < 0:
            raise UsageError(
                f"Part: difference {self.region}: put the arm that transfers more first, as the "
                "controls are those of the first arm"
            )

    @classmethod
    def transfer(cls, outcome: str, region: Region) -> Part:
        """How far one patch moves the outcome, as a share of source - base."""
        return cls(outcome, "transfer", region)

    @classmethod
    def difference(cls, outcome: str, region: Region) -> Part:
        """By how much one patch moves it further than a second, as a share of source - base."""
        return cls(outcome, "difference", region)

    @classmethod
    def carried(cls, outcome: str, region: Region) -> Part:
        """How far it moves the outcome beyond what an unrelated base does in the same place."""
        return cls(outcome, "carried", region)

    @classmethod
    def shift(cls, outcome: str, region: Region) -> Part:
        """How far one patch moves the outcome, in its own unit."""
        return cls(outcome, "shift", region)

    @classmethod
    def rate(cls, outcome: str, region: Region) -> Part:
        """How far one patch moves the rate of an outcome that is 0 or 1 in each pair."""
        return cls(outcome, "rate", region)

    @classmethod
    def effect_size(cls, outcome: str, region: Region) -> Part:
        """How far one patch moves the outcome, over the spread of what it does."""
        return cls(outcome, "effect_size", region)

    @classmethod
    def auroc(cls, outcome: str, region: Region) -> Part:
        """How well the outcome tells sources from bases."""
        return cls(outcome, "auroc", region)

    @classmethod
    def gap(cls, outcome: str, region: Region) -> Part:
        """How far source lies above base, in the outcome's own unit."""
        return cls(outcome, "gap", region)

    def __str__(self) -> str:
        return f"{self.outcome} {self.estimand} {self.region}"


@dataclass(frozen=True)
class Family:
    """Headline tests of which any might be reported, and how many there are.

    Each of them is judged at alpha / size, whatever part of them is run (docs/failures.md names
    what this excludes: *best-of-k*). Claims that name the same family share it.
    """

    name: str
    size: int

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name.strip():
            raise UsageError(f"Family: name {self.name!r}, expected a name")
        if type(self.size) is not int or self.size < 1:
            raise UsageError(f"Family {self.name!r}: size {self.size!r}, expected at least 1 test")


@dataclass(frozen=True)
class Claim:
    """A sentence from the literature, where it stands, and what would make it true.

    transfer, difference, carried, shift, rate, effect_size, gap, auroc: the region of a simple
        claim, on `outcome`.
        all_of: the parts of a conjunction, which names its outcomes in them. Exactly one of them
        is given.
    given: what must hold for the claim to be tested at all; where it does not, the claim is
        neither supported nor refuted.
    about: 'layer' where the sentence is about *these* layers, so that patching others is a
        control that must not do the same.
    margin: how far from no transfer a negative control may lie, as a share of source - base (of a
        shift or a rate in the outcome's own unit, of an effect size in spreads); the same for
        every part, and of no meaning where no part is about a patch.
    family: the headline tests that this claim's cells are among; None: its own cells are the
        family.
    looks: numbers of pairs after which the study is judged, each time at alpha / the number of
        looks, and stops once it is decided; empty: once, on all pairs.
    found: the map in which the claim's cell was found, and on which pairs it is judged then.
    """

    id: str
    says: str
    cites: str
    transfer: Region | None = None
    difference: Region | None = None
    carried: Region | None = None
    shift: Region | None = None
    rate: Region | None = None
    effect_size: Region | None = None
    gap: Region | None = None
    auroc: Region | None = None
    outcome: str = BEHAVIOR
    all_of: tuple[Part, ...] = ()
    given: tuple[Part, ...] = ()
    about: Literal["layer"] | None = None
    margin: float = MARGIN
    family: Family | None = None
    looks: tuple[int, ...] = ()
    found: Found | None = None

    def __post_init__(self) -> None:
        where = f"claim {self.id!r}: "
        for field in ("id", "says", "cites"):
            if not getattr(self, field).strip():
                raise UsageError(f"{where}`{field}` is empty")
        self._check_one_estimand(where)
        _check_parts(self.all_of, f"{where}all_of: ")
        _check_parts(self.given, f"{where}given: ")
        if both := [part for part in self.parts if part in self.given]:
            raise UsageError(f"{where}`{both[0]}` is both claimed and given")
        if self.about not in (None, "layer"):
            raise UsageError(f"{where}about={self.about!r}, expected 'layer' or None")
        self._check_margin(where)
        if self.family is not None and not isinstance(self.family, Family):
            raise UsageError(f"{where}family={self.family!r}, expected a Family(name, size)")
        _check_looks(self.looks, where)
        if self.found is not None and not isinstance(self.found, Found):
            raise UsageError(f"{where}found={self.found!r}, expected a Found(plan, task)")

    @property
    def parts(self) -> tuple[Part, ...]:
        """What is claimed, all of it: one part for a simple claim."""
        return self.all_of or tuple(
            Part(self.outcome, estimand, region) for estimand, region in self._regions.items()
        )

    @property
    def estimands(self) -> frozenset[Estimand]:
        """The estimands of all parts, given ones included: they say which arms are to be run."""
        return frozenset(part.estimand for part in (*self.parts, *self.given))

    @property
    def _regions(self) -> dict[Estimand, Region]:
        # A field is named as its estimand.
        named: dict[Estimand, Region | None] = {name: getattr(self, name) for name in ESTIMANDS}
        return {name: region for name, region in named.items() if region is not None}

    def _check_one_estimand(self, where: str) -> None:
        named = [*self._regions, *(["all_of"] if self.all_of else [])]
        if len(named) != 1:
            raise UsageError(
                f"{where}{' and '.join(named) or 'nothing'} claimed, expected exactly one of "
                f"{', '.join(ESTIMANDS)} and all_of (of at least one part)"
            )
        if self.all_of and self.outcome != BEHAVIOR:
            raise UsageError(
                f"{where}outcome={self.outcome!r}, expected none beside all_of: its parts name "
                "their outcomes"
            )

    def _check_margin(self, where: str) -> None:
        patched = [part for part in (*self.parts, *self.given) if part.estimand not in UNPATCHED]
        for part in patched:
            which = f"{part}: " if len(patched) > 1 else ""
            is_share = part.estimand in SHARES
            check_margin(self.margin, part.region, is_share=is_share, where=f"{where}{which}")
        # A setting that nothing reads is an error, not a decoration.
        if not patched and self.margin != MARGIN:
            raise UsageError(f"{where}margin {self.margin:g}: no part is about a patch")
        if not patched and self.about:
            raise UsageError(f"{where}about={self.about!r}: no part is about a patch")
        if self.about and all(part.estimand == "carried" for part in patched):
            raise UsageError(
                f"{where}about={self.about!r} with nothing but `carried`: what wrong layers carry "
                "is not measured, as no unrelated base is pasted there; claim a transfer beside it"
            )


def claim(
    id: str,
    *,
    says: str,
    cites: str,
    transfer: Region | None = None,
    difference: Region | None = None,
    carried: Region | None = None,
    shift: Region | None = None,
    rate: Region | None = None,
    effect_size: Region | None = None,
    gap: Region | None = None,
    auroc: Region | None = None,
    outcome: str = BEHAVIOR,
    all_of: Sequence[Part] = (),
    given: Sequence[Part] = (),
    about: Literal["layer"] | None = None,
    margin: float = MARGIN,
    family: Family | None = None,
    looks: Sequence[int] = (),
    found: Found | None = None,
) -> Callable[[TestFunction], TestFunction]:
    """Mark a test function as the test of a claim; see `Claim` for the fields."""
    asserted = Claim(
        id,
        says=says,
        cites=cites,
        transfer=transfer,
        difference=difference,
        carried=carried,
        shift=shift,
        rate=rate,
        effect_size=effect_size,
        gap=gap,
        auroc=auroc,
        outcome=outcome,
        all_of=_as_tuple(all_of, f"claim {id!r}: all_of", "parts"),
        given=_as_tuple(given, f"claim {id!r}: given", "parts"),
        about=about,
        margin=margin,
        family=family,
        looks=_as_tuple(looks, f"claim {id!r}: looks", "numbers of pairs"),
        found=found,
    )

    def mark(function: TestFunction) -> TestFunction:
        setattr(function, ATTRIBUTE, asserted)
        return function

    return mark


def check_margin(margin: float, region: Region, *, is_share: bool = True, where: str = "") -> None:
    """Raise UsageError for a margin that would let a control do what the claim says."""
    nearest = max(region.low, -region.high)
    if not 0 < margin < (1 if is_share else math.inf) or (nearest > 0 and margin > nearest):
        limits = "above 0 and below 1" if is_share else "above 0"
        raise UsageError(
            f"{where}margin {margin:g} for the region {region}: expected {limits}, and at most the "
            f"region's distance from {'no transfer' if is_share else '0'}"
        )


def claim_of(function: object) -> Claim | None:
    """The claim that a test function was marked with, if any."""
    found = getattr(function, ATTRIBUTE, None)
    return found if isinstance(found, Claim) else None


def claim_in(item: object) -> Claim | None:
    """The claim that a collected test is of, if any."""
    return claim_of(getattr(item, "function", None))


def _check_looks(looks: tuple[int, ...], where: str) -> None:
    """Raise UsageError unless looks are numbers of pairs that can be judged, one above another."""
    if not looks:
        return
    good = len(looks) > 1 and all(isinstance(n, int) and n >= FEWEST_PAIRS for n in looks)
    if not good or any(late <= early for early, late in pairwise(looks)):
        raise UsageError(
            f"{where}looks={looks!r}, expected two or more numbers of pairs, each of at least "
            f"{FEWEST_PAIRS} and larger than the one before"
        )


def _as_tuple(given: Iterable[Item], where: str, of: str) -> tuple[Item, ...]:
    if not isinstance(given, Iterable):
        raise UsageError(f"{where}={given!r}, expected a sequence of {of}")
    return tuple(given)


def _check_parts(parts: tuple[Part, ...], where: str) -> None:
    seen: set[tuple[str, str]] = set()
    for part in parts:
        if not isinstance(part, Part):
            raise UsageError(f"{where}{part!r}, expected a Part")
        if (part.outcome, part.estimand) in seen:
            raise UsageError(
                f"{where}{part.outcome} {part.estimand} stands twice, expected one region for it"
            )
        seen.add((part.outcome, part.estimand))
