"""The arms of a study: base, source, patched, and the controls of each.

An arm is data: which prompt it starts from, whose activations are pasted, by which patches. Two
arms that do the same are equal, so what cells share (base, source, a wrong layer that is another
cell's layer) runs once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from kv_claims.claims.patch import (
    Active,
    Patch,
    as_patches,
    canonical,
    is_full_swap,
    resolve_layers,
    shifted_layers,
)
from kv_claims.claims.sites import HeadCounts
from kv_claims.errors import UsageError

Donor = Literal["source", "base", "unrelated-base", "noise"]
Patches = Patch | Sequence[Patch]


@dataclass(frozen=True)
class Arm:
    """One condition. donor None: nothing is pasted; else every patch pastes from that donor."""

    prompt: Literal["base", "source"] = "base"
    donor: Donor | None = None
    patches: tuple[Patch, ...] = ()

    def __post_init__(self) -> None:
        if (self.donor is None) != (not self.patches):
            raise UsageError(f"arm {self.id}: a donor and a patch come together")

    @property
    def id(self) -> str:
        """Name in tables: `base`, `source`, or `donor>site@layers/positions`, joined by `&`.

        With `source<` before it where the source's run is patched, not the base's.
        """
        if self.donor is None:
            return self.prompt
        start = "" if self.prompt == "base" else f"{self.prompt}<"
        return f"{start}{self.donor}>{'&'.join(map(str, self.patches))}"

    @property
    def needs_donor_steps(self) -> bool:
        """Whether it reads its donor's own generation while it generates."""
        return any(patch.active == "every_step" for patch in self.patches)


BASE = Arm("base")
SOURCE = Arm("source")
FULL_SWAP = Arm("base", "source", (Patch("kv", layers="all", positions="all"),))
UNPATCHED = {"base": BASE, "source": SOURCE, "full-swap": FULL_SWAP}
"""The arms that all cells share, by role."""

PROBE_PAIRS = 16
"""Pairs of which a self-patch is decoded as well; its write is checked for every pair."""


def n_planned(arm: Arm, pairs: int, seeds: int) -> int:
    """How many trials of an arm a cell has."""
    return (min(PROBE_PAIRS, pairs) if arm.donor == "base" else pairs) * seeds


def patched(patches: Patches) -> Arm:
    """The base with the source's activations pasted."""
    return Arm("base", "source", as_patches(patches))


def self_patch(patches: Patches) -> Arm:
    """The base with its own activations pasted: must change nothing.

    Appending its own tail would change it, and so would holding its last position: the tail is
    replaced instead, and every step gets its own activation. Gather, rotation, write and the
    steps are the same.
    """
    return Arm("base", "base", tuple(map(_identity, as_patches(patches))))


def _identity(patch: Patch) -> Patch:
    """The patch that leaves a base as it is when it gets its own activations."""
    mode = "replace" if patch.mode == "append" else patch.mode
    active: Active = "every_step" if patch.active == "every_step(held)" else patch.active
    return replace(patch, mode=mode, active=active)


def controls(patches: Patches, n_layers: int, *, about_layer: bool) -> dict[str, Arm]:
    """Negative controls by name: unrelated base, norm-matched noise, and the wrong layer.

    about_layer: whether the claim is about these layers; there is no wrong layer for `all`, nor
    where the layers half the depth away meet the patched ones.
    """
    patches = as_patches(patches)
    arms = {
        "unrelated-base": Arm("base", "unrelated-base", patches),
        "noise": Arm("base", "noise", patches),
    }
    wrong = [_wrong_layers(patch, n_layers) for patch in patches] if about_layer else [None]
    if None not in wrong:
        moved = [
            replace(p, layers=layers) for p, layers in zip(patches, wrong, strict=True) if layers
        ]
        here = {layer for p in patches for layer in resolve_layers(p.layers, n_layers)}
        there = {layer for p in moved for layer in resolve_layers(p.layers, n_layers)}
        if not here & there:
            arms["wrong-layer"] = patched(moved)
    return arms


def _wrong_layers(patch: Patch, n_layers: int) -> str | None:
    """The layers half the depth away; None where there are none, as of the one embedding."""
    return None if patch.site == "embed" else shifted_layers(patch.layers, n_layers)


def canonical_arm(arm: Arm, n_layers: int, heads: HeadCounts) -> Arm:
    """The same arm with its patches in one spelling on a model.

    Whatever names the whole cache is the full swap: the source's cache, length and last token. What
    such an arm writes besides stands there already, but for what is held: there it is the source's
    run that is patched.
    """
    patches = tuple(canonical(patch, n_layers, heads) for patch in arm.patches)
    if arm.prompt == "base" and arm.donor == "source" and is_full_swap(patches, n_layers):
        if all(patch.active != "every_step(held)" for patch in patches):
            return FULL_SWAP
        return replace(arm, prompt="source", patches=patches)
    return replace(arm, patches=patches)
