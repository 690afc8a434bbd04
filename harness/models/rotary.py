"""Where each architecture keeps its rotary frequencies, and how its keys turn with position.

Cached keys already carry the rotation of their old positions; moved by d positions they must be
turned by d more (FACTS.md names the failure *unrotated-keys*). The table is data: an
architecture that is not in it is refused when keys would move, never guessed.

Turning by d multiplies each pair of components by the angle d * inv_freq. The module's own
cos/sin are not used: with yarn they hold an attention scaling that is in the cached key already.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from harness.errors import UsageError

ROTARY_MODULE = {
    "llama": "model.rotary_emb",
    "mistral": "model.rotary_emb",
    "mixtral": "model.rotary_emb",
    "qwen2": "model.rotary_emb",
    "qwen3": "model.rotary_emb",
    "gemma2": "model.rotary_emb",
    "phi3": "model.rotary_emb",
    "gpt_neox": "gpt_neox.rotary_emb",
}
"""Architectures whose rotation is tested: component i pairs with i + n/2 of the rotary part."""

FIXED_FREQUENCIES = ("default", "linear", "llama3", "yarn")
"""RoPE types whose frequencies do not depend on the length of the prompt."""


@dataclass(frozen=True)
class Rotation:
    """Turns keys of one model. inv_freq: radians per position, shape `[n_rotary / 2]`."""

    inv_freq: torch.Tensor

    def __call__(self, keys: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
        """Keys moved by `shift` positions each; a shift of 0 returns the very same numbers.

        keys: `n head d_head`. shift: `n`, positions, negative moves a key to the front.
        Half-precision keys are turned in float32 and rounded once.
        """
        work = torch.promote_types(keys.dtype, torch.float32)
        half = self.inv_freq.shape[0]
        angle = shift.to(work)[:, None, None] * self.inv_freq.to(keys.device, work)
        cos, sin = angle.cos(), angle.sin()
        first, second = keys[..., :half].to(work), keys[..., half : 2 * half].to(work)
        turned = torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)
        return torch.cat([turned.to(keys.dtype), keys[..., 2 * half :]], dim=-1)


def rotation_of(network: Any) -> Rotation:
    """The rotation of a model's keys.

    Raises UsageError for an architecture that is not in the table or frequencies that depend on
    the prompt's length: moved keys cannot be made right there.
    """
    config = network.config.get_text_config()
    kind = config.model_type
    if kind not in ROTARY_MODULE:
        raise UsageError(
            f"architecture {kind!r}: it is not known how its cached keys depend on position, so "
            "they cannot be moved. Expected one of "
            f"{', '.join(sorted(ROTARY_MODULE))}, or sources and bases of equal length"
        )
    module = network.get_submodule(ROTARY_MODULE[kind])
    rope_type = getattr(module, "rope_type", "default")
    if rope_type not in FIXED_FREQUENCIES:
        raise UsageError(
            f"architecture {kind!r} with RoPE type {rope_type!r}: its frequencies change with the "
            f"prompt's length, so keys cannot be moved. Expected one of {FIXED_FREQUENCIES}"
        )
    return Rotation(module.inv_freq.detach())
