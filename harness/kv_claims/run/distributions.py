"""From logits to log-probabilities and divergences, in float64, a few positions at a time.

A vocabulary is long: of all positions at once, the copies in float64 would be many times the
logits. Promises: as exact as `log_softmax` of all logits in float64, to 1e-12 relative.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch

POSITIONS = 4
"""Taken at once: of 50,000 words 1.6 MB in float64, which a core's cache holds."""


class Along(NamedTuple):
    """A model's distributions along some tokens.

    chosen: mean log-probability of the tokens, nats. divergence: mean KL divergence from the
    reference's distributions to these, nats, not below 0; None where there was no reference.
    """

    chosen: float
    divergence: float | None = None


class Reference(NamedTuple):
    """Distributions that others are held against.

    shares: probabilities, float64 `step vocab`. own: their mean log-probability under themselves,
    `[step]`: the negative of their entropy.
    """

    shares: torch.Tensor
    own: torch.Tensor

    @classmethod
    def of(cls, logits: torch.Tensor) -> Reference:
        """logits: `step vocab`."""
        shares = torch.empty_like(logits, dtype=torch.float64)
        own = shares.new_empty(len(logits))
        for cut in _cuts(len(logits)):
            wide = logits[cut].double()
            total = wide.logsumexp(-1)
            torch.exp(wide - total[:, None], out=shares[cut])
            own[cut] = torch.linalg.vecdot(shares[cut], wide) - total
        return cls(shares, own)


def along(logits: torch.Tensor, tokens: Sequence[int], reference: Reference | None = None) -> Along:
    """What distributions make of tokens that would be drawn from them.

    logits: `step vocab`, from which each token would be drawn; steps behind the tokens are left
        out. reference: of as many steps.
    """
    n = len(tokens)
    chosen = torch.tensor(tokens, device=logits.device)[:, None]
    found = torch.empty(n, dtype=torch.float64, device=logits.device)
    apart = torch.empty_like(found)
    for cut in _cuts(n):
        wide = logits[cut.start : min(cut.stop, n)].double()
        total = wide.logsumexp(-1)
        found[cut] = wide.gather(-1, chosen[cut])[:, 0] - total
        if reference is not None:
            under = torch.linalg.vecdot(reference.shares[cut], wide) - total
            apart[cut] = reference.own[cut] - under
    kl = None if reference is None else max(0.0, float(apart.mean()))
    return Along(float(found.mean()), kl)


def _cuts(steps: int) -> list[slice]:
    return [slice(start, start + POSITIONS) for start in range(0, steps, POSITIONS)]
