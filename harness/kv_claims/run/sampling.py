"""Choosing tokens: common random numbers, inverse CDF.

Every arm of a (pair, seed) uses the same uniform at the same token index, so arms are compared on
the same luck; the uniforms come from a hash, so they do not depend on batch, order or resume.
Softmax and CDF are in float64, in token-id order, over the full vocabulary: no top-k, no top-p.
"""

from __future__ import annotations

import hashlib
from typing import NamedTuple

import torch

NUMBERS_AT_ONCE = 1 << 20
"""Most logits whose CDFs a CPU makes at once: 8 MiB of float64, which stay in its caches. A batch's
as a whole are fresh memory for each of five steps (64 rows of 262,144 words: 4 times as long)."""


class Choice(NamedTuple):
    """A token for each row, and how far its uniform is from the nearer edge of its interval.

    In greedy decoding the margin is the lead of the best over the next probability.
    """

    tokens: torch.Tensor
    margin: torch.Tensor


def uniforms(pair: str, seed: int, n: int) -> torch.Tensor:
    """n uniforms in [0, 1) of a (pair id, seed), float64, `[n]`; number t is a hash of t."""
    return (
        torch.tensor(
            [
                int.from_bytes(hashlib.sha256(f"{pair}:{seed}:{t}".encode()).digest()[:8], "big")
                >> 11
                for t in range(n)
            ],
            dtype=torch.float64,
        )
        * 2.0**-53
    )


def choose(logits: torch.Tensor, uniform: torch.Tensor, temperature: float) -> Choice:
    """Draw a token for each row. logits: `batch vocab`; uniform: float64, `batch`."""
    rows = max(1, NUMBERS_AT_ONCE // logits.shape[-1])
    if logits.device.type != "cpu" or len(logits) <= rows:
        return _choose(logits, uniform, temperature)
    cut = [slice(start, start + rows) for start in range(0, len(logits), rows)]
    parts = [_choose(logits[few], uniform[few], temperature) for few in cut]
    return Choice(*map(torch.cat, zip(*parts, strict=True)))


def _choose(logits: torch.Tensor, uniform: torch.Tensor, temperature: float) -> Choice:
    wide = logits.to(torch.float64)
    if temperature == 0:
        best = torch.softmax(wide, -1).topk(2, -1)
        return Choice(best.indices[:, 0], best.values[:, 0] - best.values[:, 1])
    cdf = torch.softmax(wide / temperature, -1).cumsum(-1)
    target = (uniform * cdf[:, -1]).unsqueeze(-1)
    tokens = torch.searchsorted(cdf, target, right=True).clamp(max=cdf.shape[-1] - 1)
    upper = cdf.gather(-1, tokens) - target
    below = cdf.gather(-1, (tokens - 1).clamp(min=0))
    lower = torch.where(tokens > 0, target - below, torch.ones_like(target))
    return Choice(tokens.squeeze(-1), torch.minimum(upper, lower).squeeze(-1))
