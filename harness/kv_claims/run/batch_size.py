"""How many rows are decoded together: as asked, or found out on the first batches.

Memory gives the most. Whether so many are faster than fewer depends on model and machine, so where
there is work for several batches the first ones are small, each twice the one before as long as
that decodes more rows a second. A trial's tokens do not depend on it (`docs/sameness.md`); in half
precision they do, so there the size is not measured.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch

Made = TypeVar("Made")
FIRST = 64
FASTER = 1.05
"""A larger batch is kept if it decodes so many times the rows a second."""
_WORTH_IT = 4
"""Batches of the largest size that must be there, else measuring costs more than it gives."""


_SAID = ("can't allocate memory", "out of memory", "CUBLAS_STATUS_ALLOC_FAILED")
"""How memory that ran out is said by a CPU, by CUDA itself, and by its matrix products."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out: by the error's kind or words, or those of the one that it came from.

    Where it runs out while a step is recorded, ending the recording fails too, and that error
    stands before the first.
    """
    found: BaseException | None = error
    seen: set[int] = set()
    while found is not None and id(found) not in seen:
        seen.add(id(found))
        if isinstance(found, torch.OutOfMemoryError):
            return True
        if isinstance(found, RuntimeError) and any(said in str(found) for said in _SAID):
            return True
        found = found.__cause__ or found.__context__
    return False


class BatchSize:
    """Rows of the next batch, `rows`; halved when memory runs out.

    asked: what the user wants, or None. most: what fits into memory. total: rows there are to run.
    reproducible: whether the plan may not depend on how fast batches were.
    """

    def __init__(
        self, asked: int | None, most: int, total: int, *, reproducible: bool = False
    ) -> None:
        self.rows = asked or most
        self._most = most
        self._growing = (
            asked is None and not reproducible and most > FIRST and total >= _WORTH_IT * most
        )
        if self._growing:
            self.rows = FIRST
        self._best = 0.0

    def ran(self, rows: int, seconds: float) -> None:
        """Take note that so many rows were decoded in so long."""
        if not self._growing or 2 * rows <= self.rows:
            return
        speed = rows / max(seconds, 1e-9)
        if speed < FASTER * self._best:
            self.rows, self._growing = self.rows // 2, False
        elif self.rows == self._most:
            self._growing = False
        else:
            self._best, self.rows = speed, min(2 * self.rows, self._most)

    def attempt(self, run: Callable[[], Made]) -> Made | None:
        """What a batch gives; None where memory ran out: then it is half as many from now on.

        When this returns the error is let go: its trace held the batch's caches. Raises it where
        there is nothing to halve.
        """
        try:
            return run()
        except RuntimeError as error:
            if self.rows == 1 or not is_out_of_memory(error):
                raise
        self.halve()
        return None

    def halve(self) -> None:
        """Memory ran out: half as many from now on."""
        self.rows, self._growing = max(1, self.rows // 2), False
