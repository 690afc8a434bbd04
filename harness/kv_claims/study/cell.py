"""One test of a claim: the claim, the cell's id, and the patches that it puts to the test.

Promises: what does not go together is an error before a model runs; whether an outcome can say
anything on a patch is decided from their geometry alone (`kv_claims.claims.reach`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from kv_claims.claims.claim import Claim, Part
from kv_claims.claims.outcome import Outcome
from kv_claims.claims.patch import (
    Patch,
    as_patches,
    canonical,
    check_apart,
    is_full_swap,
    resolve_layers,
    some_model_has,
)
from kv_claims.claims.reach import classify, is_donor
from kv_claims.errors import NoSuchCellError, UsageError
from kv_claims.judging.checks import DONOR, NO_SUCH_CELL, Check
from kv_claims.judging.multiplicity import Share
from kv_claims.run.arms import Patches, controls, patched

REACH_CHECKS = {"tautological": "measured-where-patched", "null": "null-by-construction"}
"""What an outcome that is not informative fails."""


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
        wants_patch = bool({"transfer", "difference"} & claim.estimands)
        wants_versus = "difference" in claim.estimands
        for name, given, wanted in (
            ("a patch", found.patches, wants_patch),
            ("a second patch (versus=...)", found.versus, wants_versus),
        ):
            if bool(given) != wanted:
                what = "needs" if wanted else "is not about"
                raise UsageError(f"claim {claim.id!r}, cell {cell!r}: it {what} {name}")
        for part in (*claim.parts, *claim.given):
            Outcome.parse(part.outcome)
        return found

    @property
    def share(self) -> Share:
        """What share of 0.05 it is judged at."""
        return Share.of(self.claim, self.siblings)

    @property
    def parts(self) -> tuple[Part, ...]:
        """Everything that is judged: what is claimed, then what is given."""
        return (*self.claim.parts, *self.claim.given)

    @cached_property
    def outcomes(self) -> tuple[Outcome, ...]:
        """What is measured, each once."""
        return tuple(dict.fromkeys(Outcome.parse(part.outcome) for part in self.parts))

    def on(self, n_layers: int, n_heads: int) -> Cell:
        """The same cell with its patches in one spelling on a model. n_heads: KV heads.

        Raises NoSuchCellError where this model does not have it and another has: a layer or head
        beyond the end, layers that meet, arms that are one, a wrong layer that is a patched one.
        Raises UsageError where no model has it.
        """
        try:
            return self._on(n_layers, n_heads)
        except UsageError as error:
            elsewhere = isinstance(error, NoSuchCellError)
            if elsewhere or some_model_has(lambda size: self._on(size, size)):
                raise NoSuchCellError(str(error)) from None
            raise

    def _on(self, n_layers: int, n_heads: int) -> Cell:
        """As `on`, with any UsageError for what does not go together."""
        for outcome in self.outcomes:
            outcome.layers(n_layers)
        for patches in (self.patches, self.versus):
            check_apart(patches, n_layers)
        here, other = (
            tuple(canonical(patch, n_layers, n_heads) for patch in patches)
            for patches in (self.patches, self.versus)
        )
        where = f"claim {self.claim.id!r}, cell {self.id!r}"
        if other and here == other:
            raise UsageError(f"{where}: both arms are {patched(here).id}")
        if self.claim.about == "layer" and not _has_wrong_layer(here, n_layers):
            raise UsageError(
                f"{where}: it is about layers, and those half the depth away, which are its "
                f"control, meet the patched ones ({' & '.join(patch.layers for patch in here)} of "
                f"{n_layers})"
            )
        return replace(self, patches=here, versus=other)

    def runs_donor(self, n_layers: int, lengths: Sequence[tuple[int, int]]) -> Check | None:
        """The failed check of an arm that is its source under another name; None where none is.

        n_layers, lengths: as in `unreached`; without lengths, what the patches name must do.
        """
        for patches in filter(None, (self.patches, self.versus)):
            whole = [
                is_donor(patches, n_layers=n_layers, source_tokens=n_source, base_tokens=n_base)
                for n_source, n_base in lengths
            ]
            if any(whole) or is_full_swap(patches, n_layers):
                where = f" (in {sum(whole)} of {len(whole)} pairs)" if not all(whole) else ""
                return Check(
                    DONOR,
                    False,
                    f"replacing the whole cache at every layer runs the source prompt{where}: an "
                    "instrument check, never a finding",
                )
        return None

    def unreached(self, n_layers: int, lengths: Sequence[tuple[int, int]]) -> list[Check]:
        """Failed checks of what cannot be tested: an outcome that cannot say anything on the patch
        it is asked about, or a patch that writes only what another gives already.

        lengths: tokens of (source, base), of every pair.
        """
        failed: dict[str, Check] = {
            check.detail: check
            for patches in (self.patches, self.versus)
            for check in _idle(patches, n_layers)
        }
        for part in self.parts:
            outcome = Outcome.parse(part.outcome)
            asked = {"transfer": [self.patches], "difference": [self.patches, self.versus]}
            for patches in asked.get(part.estimand, []):
                for n_source, n_base in dict.fromkeys(lengths):
                    reach = classify(
                        patches,
                        outcome,
                        n_layers=n_layers,
                        source_tokens=n_source,
                        base_tokens=n_base,
                    )
                    if reach.kind != "informative":
                        name = REACH_CHECKS[reach.kind]
                        detail = f"{outcome} is {reach.kind}: {reach.why}"
                        failed.setdefault(f"{name} {outcome}", Check(name, False, detail))
        return list(failed.values())

    def check_windows(self, lengths: Sequence[tuple[int, int]], max_new_tokens: int) -> None:
        """Raise UsageError where an outcome's window does not fit (*short-window*)."""
        for outcome in self.outcomes:
            if outcome.is_geometry:
                for tokens in dict.fromkeys(tokens for pair in lengths for tokens in pair):
                    outcome.rows(tokens, max_new_tokens)


def no_such_cell(error: NoSuchCellError) -> Check:
    """The failed check of a cell that a model does not have."""
    return Check(NO_SUCH_CELL, False, str(error))


def _has_wrong_layer(patches: Sequence[Patch], n_layers: int) -> bool:
    """Whether there are layers to hold against the patched ones; of `all` none are wanted."""
    every = all(patch.layers == "all" for patch in patches)
    return every or "wrong-layer" in controls(patches, n_layers, about_layer=True)


def _idle(patches: Sequence[Patch], n_layers: int) -> list[Check]:
    """Failed checks for projections that follow from a residual pasted below, and change nothing.

    One layer below they always do.
    """
    failed = []
    for patch in patches:
        layers = resolve_layers(patch.layers, n_layers)
        for other in patches:
            if other.site != "residual" or patch.positions != other.positions:
                continue
            below = resolve_layers(other.layers, n_layers)
            given = all(layer - 1 in below for layer in layers)
            if patch.site in ("kv_proj", "k_proj", "v_proj") and given:
                detail = f"{patch} writes what {other} gives it already, and changes nothing"
                failed.append(Check("hook-never-fired", False, detail))
    return failed
