"""The arms of a study: base, source, patched, and the controls of each.

An arm is data: which prompt it starts from, whose activations are pasted, by which patches. Two
arms that do the same are equal, so what cells share (base, source, a wrong layer that is another
cell's layer) runs once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from kv_claims.claims.donors import ABLATIONS, FROM_SOURCE, vector_of
from kv_claims.claims.layers import other_heads, resolve_layers, shifted_layers
from kv_claims.claims.patch import Active, Patch, as_patches, canonical, donor_of, is_full_swap
from kv_claims.claims.sites import HeadCounts, heads_of
from kv_claims.errors import UsageError

Patches = Patch | Sequence[Patch]
OF_SOURCE = ("source", "base", "unrelated-base", "noise")
"""Donors of arms whose patches are from the source, and of their checks and controls."""
OTHER_PROMPTS = ("unrelated-base", "resample")
"""Donors that are another pair's base."""


@dataclass(frozen=True)
class Arm:
    """One condition. donor None: nothing is pasted; else every patch pastes from that donor.

    It is the donor that the patches name, or what a check or a control of them takes instead: one
    of `OF_SOURCE`, or `random(NAME)`, directions of chance with the norms of those of a vector.
    """

    prompt: Literal["base", "source"] = "base"
    donor: str | None = None
    patches: tuple[Patch, ...] = ()

    def __post_init__(self) -> None:
        if (self.donor is None) != (not self.patches):
            raise UsageError(f"arm {self.id}: a donor and a patch come together")
        if self.patches and self.donor not in (known := _donors_of(donor_of(self.patches))):
            raise UsageError(
                f"arm {self.id}: its patches are of donor {donor_of(self.patches)!r}; expected one "
                f"of {', '.join(known)}"
            )

    @property
    def id(self) -> str:
        """Name in tables: `base`, `source`, or `donor>site@layers/positions`, joined by `&`.

        With `source<` before it where the source's run is patched, not the base's.
        """
        if self.donor is None:
            return self.prompt
        start = "" if self.prompt == "base" else f"{self.prompt}<"
        return f"{start}{self.donor}>{'&'.join(patch.where for patch in self.patches)}"

    @property
    def needs_donor_steps(self) -> bool:
        """Whether it reads its donor's own generation while it generates."""
        return any(patch.active == "every_step" for patch in self.patches)


def starts_from(arm: str) -> Literal["base", "source"]:
    """Whose prompt an arm of an id starts from: see `Arm.id`."""
    return "source" if arm == "source" or arm.startswith("source<") else "base"


def _donors_of(donor: str) -> tuple[str, ...]:
    """What an arm whose patches are of a donor may take."""
    if donor == FROM_SOURCE:
        return OF_SOURCE
    name = vector_of(donor)
    return (donor,) if name is None else (donor, f"random({name})")


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
    """The base with what the patches name as their donor."""
    found = as_patches(patches)
    return Arm("base", donor_of(found), found)


def self_patch(patches: Patches) -> Arm:
    """The base with its own activations pasted: must change nothing.

    Appending its own tail would change it, and so would holding its last position, or a direction:
    its own is replaced instead, and every step gets its own activation. Gather, rotation, write and
    the steps are the same, whatever the donor.
    """
    return Arm("base", "base", tuple(map(_identity, as_patches(patches))))


def _identity(patch: Patch) -> Patch:
    """The patch that leaves a base as it is when it gets its own activations."""
    mode = patch.mode if patch.how.kind in ("replace", "mix") else "replace"
    active: Active = "every_step" if patch.active == "every_step(held)" else patch.active
    return replace(patch, mode=mode, active=active, donor=FROM_SOURCE)


def controls(
    patches: Patches, n_layers: int, *, about_layer: bool, heads: HeadCounts | None = None
) -> dict[str, Arm]:
    """Negative controls by name: what the patches do elsewhere, or from another donor.

    Of the source: an unrelated base, norm-matched noise. Of a direction: one of chance. Of an
    ablation, which any other donor would be as well: the same in other heads, and in the wrong
    layer. about_layer: whether the claim is about these layers, so that the wrong layer is a
    control whatever the donor; there is none for `all`, nor where the layers half the depth away
    meet the patched ones. heads: of the model; None where it is not known.
    """
    patches = as_patches(patches)
    donor = donor_of(patches)
    arms: dict[str, Arm] = {}
    if donor == FROM_SOURCE:
        arms |= {name: Arm("base", name, patches) for name in ("unrelated-base", "noise")}
    elif (name := vector_of(donor)) is not None:
        arms["random-direction"] = Arm("base", f"random({name})", patches)
    elif heads is not None and (others := _in_other_heads(patches, heads)):
        arms["other-heads"] = patched(others)
    about_layer = about_layer or donor in ABLATIONS
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


def _in_other_heads(patches: Sequence[Patch], heads: HeadCounts) -> list[Patch]:
    """The patches in heads that they do not name; none where some name no heads, or too many."""
    moved = []
    for patch in patches:
        kind, count = heads_of(patch.site), heads.of(patch.site)
        if kind is None or not count or patch.heads == "all":
            return []
        others = other_heads(patch.heads, count, kind)
        if others is None:
            return []
        moved.append(replace(patch, heads=others))
    return moved


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
