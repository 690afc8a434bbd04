"""The content of the planted words: fixed random numbers in K and V that nothing reads.

They make every patch and control change elements. The truth of behavior does not depend on them;
the geometry of values does.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import numpy.typing as npt
import torch

from kv_claims.planted.catalog import CONTENT, N_CONTENT


@cache
def content_table(n_words: int) -> npt.NDArray[np.float64]:
    """Content of each word of a vocabulary, `[word, N_CONTENT]`, uniform on +-CONTENT."""
    generator = torch.Generator().manual_seed(0)
    uniform = torch.rand(n_words, N_CONTENT, generator=generator, dtype=torch.float64)
    table: npt.NDArray[np.float64] = CONTENT * (2 * uniform.numpy() - 1)
    table.flags.writeable = False
    return table
