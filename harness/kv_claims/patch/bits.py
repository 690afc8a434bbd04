"""Whether numbers are the very same: by their bits, with no tolerance."""

from __future__ import annotations

import torch

_WHOLE_NUMBERS = {8: torch.int64, 4: torch.int32, 2: torch.int16}


def other_bits(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Where two tensors of one type and shape do not hold the same bits."""
    whole = _WHOLE_NUMBERS[one.dtype.itemsize]
    return one.view(whole) != other.view(whole)
