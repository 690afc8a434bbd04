"""Whether a patch can be tested at all, as failed checks: decided from geometry, before any run.

An arm that is its source under another name, a projection that changes nothing, an outcome that
cannot say anything on what is patched (`kv_claims.claims.reach`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from kv_claims.claims.outcome import Outcome
from kv_claims.claims.patch import Patch, is_full_swap, resolve_layers
from kv_claims.claims.reach import classify, is_donor
from kv_claims.judging.checks import DONOR, Check

Lengths = Sequence[tuple[int, int]]
"""Tokens of (source, base), of every pair; empty where they are not known."""

REACH_CHECKS = {"tautological": "measured-where-patched", "null": "null-by-construction"}
"""What an outcome that is not informative fails."""


def runs_donor(arms: Iterable[tuple[Patch, ...]], n_layers: int, lengths: Lengths) -> Check | None:
    """The failed check of an arm that is its source under another name; None where none is.

    arms: the patches of each, in one spelling. Without lengths, what they name must do.
    """
    for patches in arms:
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


def unreached(
    asked: Iterable[tuple[tuple[Patch, ...], Outcome]], n_layers: int, lengths: Lengths
) -> list[Check]:
    """Failed checks of arms that cannot be told by an outcome: one a check and outcome.

    asked: the patches of an arm, and the outcome that is to tell it.
    """
    failed: dict[str, Check] = {}
    for patches, outcome in asked:
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


def idle(arms: Iterable[tuple[Patch, ...]], n_layers: int) -> list[Check]:
    """Failed checks for projections that follow from a residual pasted below, and change nothing.

    One layer below they always do.
    """
    failed: dict[str, Check] = {}
    for patches in arms:
        for patch in patches:
            layers = resolve_layers(patch.layers, n_layers)
            for other in patches:
                if other.site != "residual" or patch.positions != other.positions:
                    continue
                below = resolve_layers(other.layers, n_layers)
                given = all(layer - 1 in below for layer in layers)
                if patch.site in ("kv_proj", "k_proj", "v_proj") and given:
                    detail = f"{patch} writes what {other} gives it already, and changes nothing"
                    failed.setdefault(detail, Check("hook-never-fired", False, detail))
    return list(failed.values())
