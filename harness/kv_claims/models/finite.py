"""What is said where a model computes no numbers: its weights are not sound, or its dtype ends.

float16 ends at 65,504. A model that was trained in bfloat16 may write more than that into its
residual stream (Gemma 3 270M does from its eighth layer on), and behind it every number is NaN. No
verdict may rest on one, so whoever computes numbers that others judge looks, and raises this.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from kv_claims.errors import UsageError

if TYPE_CHECKING:
    from kv_claims.models.load import LoadedModel


def are_finite(numbers: torch.Tensor) -> torch.Tensor:
    """Whether all are, as a tensor of one flag.

    The extremes carry every NaN and infinity, and make no second tensor of that size.
    """
    return torch.stack(numbers.aminmax()).isfinite().all()


def not_finite(model: LoadedModel, what: str) -> UsageError:
    """What is raised. what: the numbers, such as 'its logits'."""
    return UsageError(
        f"model {model.name!r} in {model.dtype_name}: {what} are not finite numbers; expected "
        f"sound weights, or a wider dtype ({model.dtype_name} ends at "
        f"{torch.finfo(model.dtype).max:.3g})"
    )
