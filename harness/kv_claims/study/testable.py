"""Whether a patch can be tested at all, as failed checks: decided from geometry, before any run.

An arm that is its source under another name, a patch that writes what stands there already, an
outcome that cannot say anything on what is patched (`kv_claims.claims.reach`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import product

from kv_claims.claims.donors import FROM_SOURCE, is_constant
from kv_claims.claims.layers import resolve_layers
from kv_claims.claims.outcome import Outcome
from kv_claims.claims.patch import Patch, donor_of, is_full_swap
from kv_claims.claims.positions import Prompted
from kv_claims.claims.reach import classify, is_donor
from kv_claims.claims.sites import Spot, given_by
from kv_claims.judging.checks import DONOR, Check

Lengths = Sequence[tuple[Prompted, Prompted]]
"""The prompts (source, base) of every pair as positions see them; empty where not known."""

REACH_CHECKS = {"tautological": "measured-where-patched", "null": "null-by-construction"}
"""What an outcome that is not informative fails."""


def runs_donor(arms: Iterable[tuple[Patch, ...]], n_layers: int, lengths: Lengths) -> Check | None:
    """The failed check of an arm that is its source under another name; None where none is.

    arms: the patches of each, in one spelling. Without lengths, what they name must do.
    """
    for patches in arms:
        whole = [
            is_donor(patches, n_layers=n_layers, source=n_source, base=n_base)
            for n_source, n_base in lengths
        ]
        if any(whole) or is_full_swap(patches, n_layers):
            of = "the source" if donor_of(patches) == FROM_SOURCE else "another"
            where = f" (in {sum(whole)} of {len(whole)} pairs)" if not all(whole) else ""
            return Check(
                DONOR,
                False,
                f"replacing the whole cache at every layer runs {of} prompt{where}: an "
                "instrument check, never a finding",
            )
    return None


def unreached(
    asked: Iterable[tuple[tuple[Patch, ...], Outcome]],
    n_layers: int,
    lengths: Lengths,
    fed: Mapping[str, int],
) -> list[Check]:
    """Failed checks of arms that cannot be told by an outcome: one a check and outcome.

    asked: the patches of an arm, and the outcome that is to tell it. fed: of outcomes by name, the
        fewest tokens that are fed behind a prompt to read them.
    """
    failed: dict[str, Check] = {}
    for patches, outcome in asked:
        for n_source, n_base in dict.fromkeys(lengths):
            reach = classify(
                patches,
                outcome,
                n_layers=n_layers,
                source=n_source,
                base=n_base,
                fed=fed.get(outcome.name),
            )
            if reach.kind != "informative":
                name = REACH_CHECKS[reach.kind]
                detail = f"{outcome} is {reach.kind}: {reach.why}"
                failed.setdefault(f"{name} {outcome}", Check(name, False, detail))
    return list(failed.values())


def idle(arms: Iterable[tuple[Patch, ...]], n_layers: int) -> list[Check]:
    """Failed checks for patches that write what another one gives there already.

    As projections do of a layer whose stream is pasted at the same positions, or below. Not so of
    constants: a mean of what is computed is not what is computed of a mean.
    """
    failed: dict[str, Check] = {}
    for patches in arms:
        for patch in patches:
            if patch.is_splice or is_constant(patch.donor):
                continue
            for other in patches:
                if not _gives_whole(other) or patch.positions != other.positions:
                    continue
                if patch.active not in ("prompt", other.active):
                    continue
                written = _spots(other, n_layers)
                if all(given_by(spot, written) for spot in _spots(patch, n_layers)):
                    detail = f"{patch} writes what {other} gives it already, and changes nothing"
                    failed.setdefault(detail, Check("hook-never-fired", False, detail))
    return list(failed.values())


def _gives_whole(patch: Patch) -> bool:
    """Whether what it writes is the donor's, whole, and computed on from there in the prompt."""
    return not patch.is_splice and patch.writes_whole


def _spots(patch: Patch, n_layers: int) -> set[Spot]:
    return set(product(resolve_layers(patch.layers, n_layers), patch.tensors))
