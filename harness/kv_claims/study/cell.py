"""One test of a claim as it is asked: the claim, the cell's id, and the patches put to the test.

Promises: what does not go together is an error before a model runs. Does not: know a model; what
becomes of a cell on one is its plan (`kv_claims.study.plan`).
"""

from __future__ import annotations

from dataclasses import dataclass

from kv_claims.claims.claim import UNPATCHED, Claim, Part
from kv_claims.claims.donors import FROM_SOURCE
from kv_claims.claims.outcome import Outcome
from kv_claims.claims.patch import Patch, as_patches, donor_of
from kv_claims.errors import UsageError
from kv_claims.judging.multiplicity import Share
from kv_claims.run.arms import Patches


@dataclass(frozen=True)
class Cell:
    """A claim on its way to a verdict.

    id: of the parametrized test, such as `L18-w16`. patches: of the arm that is judged, empty for
    a claim about source and base alone. versus: of the second arm, in a claim that compares two.
    siblings: how many cells the claim has, this one included, whatever part of them is run.
    """

    claim: Claim
    id: str
    patches: tuple[Patch, ...] = ()
    versus: tuple[Patch, ...] = ()
    siblings: int = 1

    @classmethod
    def of(
        cls,
        claim: Claim,
        cell: str,
        patches: Patches | None = None,
        versus: Patches | None = None,
        *,
        siblings: int = 1,
    ) -> Cell:
        """Check that the patches are those that the claim's estimands need."""
        found = cls(
            claim,
            cell,
            () if patches is None else as_patches(patches),
            () if versus is None else as_patches(versus),
            siblings,
        )
        wants_patch = bool(claim.estimands - {*UNPATCHED})
        wants_versus = "difference" in claim.estimands
        for name, given, wanted in (
            ("a patch", found.patches, wants_patch),
            ("a second patch (versus=...)", found.versus, wants_versus),
        ):
            if bool(given) != wanted:
                what = "needs" if wanted else "is not about"
                raise UsageError(f"{found}: it {what} {name}")
        if "carried" in claim.estimands and (donor := donor_of(found.patches)) != FROM_SOURCE:
            raise UsageError(
                f"{found}: what is `carried` comes from the source, but its patches are of donor "
                f"{donor!r}; expected donor 'source', or a shift, a rate or a transfer"
            )
        for part in found.parts:
            Outcome.parse(part.outcome)
        return found

    def check_task(self, sha: str | None, where: str) -> None:
        """Raise UsageError where a map found the cell, for a task of other pairs than it left.

        sha: of the task, None of a table. where: it came from.
        """
        if self.claim.found is not None:
            self.claim.found.check(self.claim.id, sha, where)

    def __str__(self) -> str:
        return f"claim {self.claim.id!r}, cell {self.id!r}"

    @property
    def share(self) -> Share:
        """What share of 0.05 it is judged at."""
        return Share.of(self.claim, self.siblings)

    @property
    def parts(self) -> tuple[Part, ...]:
        """Everything that is judged: what is claimed, then what is given."""
        return (*self.claim.parts, *self.claim.given)
