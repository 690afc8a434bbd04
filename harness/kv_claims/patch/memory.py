"""Memory for the caches of a batch that is taken once and filled again by every batch.

What is recorded on a GPU (`kv_claims.run.captured`) knows addresses, not tensors, so a batch's
caches must lie where those of the batch before lay. They are built here directly: a second copy
would cost 15 GB for 512 rows of a 7B model.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch

ROWS = 32
"""Rows are rounded up to a multiple of this, so that few shapes need be recorded."""


class Memory:
    """One piece for each layer's keys and each layer's values; it grows and does not shrink.

    held: whatever knows the addresses; it is dropped before they change.
    """

    def __init__(self) -> None:
        self.held: object | None = None
        self._pieces: list[torch.Tensor] = []

    @property
    def bytes(self) -> int:
        return sum(piece.nbytes for piece in self._pieces)

    def take(
        self, like: Sequence[torch.Tensor], rows: int, width: int, *, most: int = 0
    ) -> list[torch.Tensor]:
        """Zeros for every tensor of `like`, `row head pos d_head`, pos = width.

        like: `* head * d_head` each. most: the largest width that will be asked for, as far as is
        known; memory that need not grow keeps what is recorded. What was taken before is
        overwritten.
        """
        shapes = [(rows, tensor.shape[1], width, tensor.shape[3]) for tensor in like]
        sizes = [torch.Size(shape).numel() for shape in shapes]
        fits = len(self._pieces) == len(like) and all(
            piece.dtype == tensor.dtype and piece.device == tensor.device and len(piece) >= size
            for piece, tensor, size in zip(self._pieces, like, sizes, strict=True)
        )
        if not fits:
            self.release()  # first: both would not fit at once
            self._pieces = [
                tensor.new_empty(size // width * max(width, most))
                for tensor, size in zip(like, sizes, strict=True)
            ]
        return [
            # Zeros, not what the batch before left: hidden positions weigh 0, but 0 x NaN is NaN.
            piece[:size].zero_().view(shape)
            for piece, shape, size in zip(self._pieces, shapes, sizes, strict=True)
        ]

    def release(self) -> None:
        """Give it all back."""
        self.held = None
        self._pieces = []


class Frame(NamedTuple):
    """What a batch has taken: all rows, those counted in that round their number up.

    keys, values: by layer, `row head pos d_head`.
    """

    memory: Memory
    keys: list[torch.Tensor]
    values: list[torch.Tensor]
