"""How a model's cached keys turn with position.

Cached keys already carry the rotation of their old positions; moved by d positions they must be
turned by d more (docs/failures.md names it *unrotated-keys*). Where the frequencies lie is data
(`kv_claims.models.architectures`): an architecture that is not there is refused when keys would
move, never guessed.

Turning by d multiplies each pair of components (i, i + n/2) by the angle d * inv_freq. The
module's own cos/sin are not used: with yarn and longrope they hold an attention scaling that is in
the cached key already.

Promises: exact for the RoPE types of `FIXED_TYPES`, and for those of `FIXED_WITHIN` as long as no
position reaches `longest_fixed`, which the caller must check.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from kv_claims.errors import UsageError
from kv_claims.models.architectures import anatomy_of

FIXED_TYPES = ("default", "linear", "llama3", "yarn")
"""RoPE types whose frequencies never depend on the length of the text."""

FIXED_WITHIN = {
    "dynamic": "max_position_embeddings",
    "longrope": "original_max_position_embeddings",
}
"""RoPE types whose frequencies change once a text is longer than this entry of the configuration.

transformers then uses the new frequencies for all rows of the batch, while cached keys keep the
old ones."""


@dataclass(frozen=True)
class Rotation:
    """Turns keys of one model.

    inv_freq: for each layer radians per position, `[n_rotary / 2]`.
    scaling: for each layer what rotated components are multiplied by besides; empty: 1 everywhere.
    """

    inv_freq: tuple[torch.Tensor, ...]
    scaling: tuple[float, ...] = ()

    def __call__(self, layer: int, keys: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
        """A layer's keys moved by `shift` positions each; 0 returns the very same numbers.

        keys: `n head d_head`. shift: `n`, positions, negative moves a key to the front.
        Half-precision keys are turned in float32 and rounded once.
        """
        work = torch.promote_types(keys.dtype, torch.float32)
        half = self.inv_freq[layer].shape[0]
        angle = shift.to(work)[:, None, None] * self.inv_freq[layer].to(keys.device, work)
        cos, sin = angle.cos(), angle.sin()
        first, second = keys[..., :half].to(work), keys[..., half : 2 * half].to(work)
        turned = torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)
        moved = torch.cat([turned.to(keys.dtype), keys[..., 2 * half :]], dim=-1)
        # Turned by 0, a negative zero would come out positive: other bits.
        return torch.where(shift[:, None, None] == 0, keys, moved)

    def scaled(self, layer: int, keys: torch.Tensor, *, back: bool = False) -> torch.Tensor:
        """Keys as a layer's attention has them at position 0, from its projection's; or back.

        keys: `... d_head`, behind their norm. Moving them is not scaled again.
        """
        factor = self.scaling[layer] if self.scaling else 1.0
        if factor == 1:
            return keys
        width = 2 * self.inv_freq[layer].shape[0]
        part = keys[..., :width] / factor if back else keys[..., :width] * factor
        return torch.cat([part, keys[..., width:]], dim=-1)


def rotation_of(network: Any) -> Rotation:
    """The rotation of a model's keys.

    Raises UsageError for an architecture that is not in the table, one whose positions are
    learned, or frequencies that are not known to stay: moved keys cannot be made right there.
    """
    anatomy = anatomy_of(network)
    if anatomy.rotary is None:
        raise UsageError(
            f"architecture {anatomy.kind!r}: it learns absolute positions, which are inside its "
            "keys, so moved keys cannot be rotated"
        )
    types = _rope_types(network)
    for parameters in types.values():
        rope_type = parameters.get("rope_type", "default")
        if rope_type not in (*FIXED_TYPES, *FIXED_WITHIN):
            raise UsageError(
                f"architecture {anatomy.kind!r} with RoPE type {rope_type!r}: it is not known how "
                "its frequencies depend on the prompt's length, so keys cannot be moved. Expected "
                f"one of {', '.join((*FIXED_TYPES, *FIXED_WITHIN))}"
            )
    found = {name: _inv_freq(anatomy.rotary, name, types[name]) for name in types}
    scaling = {name: _scaling(anatomy.rotary, name) for name in types}
    if set(found) == {""}:
        n_layers = len(anatomy.layers)
        return Rotation((found[""],) * n_layers, (scaling[""],) * n_layers)
    kinds = network.config.get_text_config().layer_types
    return Rotation(tuple(found[kind] for kind in kinds), tuple(scaling[kind] for kind in kinds))


def longest_fixed(network: Any) -> int | None:
    """Number of positions, prompt and generated, within which the frequencies stay as they are.

    None: there is no limit. Read from the configuration, so that it holds for any architecture.
    """
    limits = [
        _limit(network, parameters, FIXED_WITHIN[parameters["rope_type"]])
        for parameters in _rope_types(network).values()
        if parameters.get("rope_type") in FIXED_WITHIN
    ]
    return min(limits, default=None)


def _rope_types(network: Any) -> dict[str, Mapping[str, Any]]:
    """RoPE parameters by type of layer; '' where all layers share them."""
    parameters = getattr(network.config.get_text_config(), "rope_parameters", None) or {}
    if parameters and all(isinstance(value, Mapping | None) for value in parameters.values()):
        return {kind: value for kind, value in parameters.items() if value}
    return {"": parameters}


def _limit(network: Any, parameters: Mapping[str, Any], name: str) -> int:
    """An entry of the RoPE parameters, or of the configuration around them."""
    return int(parameters.get(name) or getattr(network.config.get_text_config(), name))


def _scaling(rotary: Any, kind: str) -> float:
    """What the cosines and sines of one type of layer are multiplied by."""
    name = f"{kind}_attention_scaling" if kind else "attention_scaling"
    return float(getattr(rotary, name, 1.0))


def _inv_freq(rotary: Any, kind: str, parameters: Mapping[str, Any]) -> torch.Tensor:
    """Frequencies of one type of layer, as they are below the limit.

    Where they change with length, a longer text before may have left others in `inv_freq`.
    """
    changes = parameters.get("rope_type") in FIXED_WITHIN
    name = "original_inv_freq" if changes else "inv_freq"
    found: torch.Tensor = getattr(rotary, f"{kind}_{name}" if kind else name)
    return found.detach()
