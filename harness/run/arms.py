"""The arms of a study: base, source, patched, and the controls of each.

An arm is data: which prompt it starts from, whose cache is pasted, by which patch. Two arms that
do the same are equal, so what cells share (base, source, a wrong layer that is another cell's
layer) runs once.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from harness.errors import UsageError
from harness.spec import Patch, resolve_layers, shifted_layers

Donor = Literal["source", "base", "unrelated-base", "noise"]


@dataclass(frozen=True)
class Arm:
    """One condition. donor None: nothing is pasted."""

    prompt: Literal["base", "source"] = "base"
    donor: Donor | None = None
    patch: Patch | None = None

    def __post_init__(self) -> None:
        if (self.donor is None) != (self.patch is None):
            raise UsageError(f"arm {self.id}: a donor and a patch come together")

    @property
    def id(self) -> str:
        """Name in tables: `base`, `source`, or `donor>site@layers/positions`."""
        return self.prompt if self.donor is None else f"{self.donor}>{self.patch}"


BASE = Arm("base")
SOURCE = Arm("source")
FULL_SWAP = Arm("base", "source", Patch("kv", layers="all", positions="all"))


def patched(patch: Patch) -> Arm:
    """The base with the source's cache pasted by `patch`."""
    return Arm("base", "source", patch)


def self_patch(patch: Patch) -> Arm:
    """The base with its own cache pasted: must change nothing."""
    return Arm("base", "base", patch)


def controls(patch: Patch, n_layers: int, *, about_layer: bool) -> dict[str, Arm]:
    """Negative controls by name: unrelated base, norm-matched noise, and the wrong layer.

    about_layer: whether the claim is about these layers; there is no wrong layer for `all`.
    """
    arms = {
        "unrelated-base": Arm("base", "unrelated-base", patch),
        "noise": Arm("base", "noise", patch),
    }
    wrong = shifted_layers(patch.layers, n_layers) if about_layer else None
    if wrong is not None:
        arms["wrong-layer"] = patched(replace(patch, layers=wrong))
    return arms


def canonical_arm(arm: Arm, n_layers: int) -> Arm:
    """The same arm with its patch canonical."""
    return arm if arm.patch is None else replace(arm, patch=canonical(arm.patch, n_layers))


def canonical(patch: Patch, n_layers: int) -> Patch:
    """The same patch with its layers as plain numbers on this model (`all` stays)."""
    layers = resolve_layers(patch.layers, n_layers)
    text = "all" if len(layers) == n_layers else "+".join(map(str, layers))
    return replace(patch, layers=text)
