"""Decoding a batch of spliced rows: one loop for every arm.

The last prompt token is fed once, at its real position, and then each sampled token. Rows of
unequal length stand right-aligned with the padding masked, and positions are passed explicitly
(transformers would count them over the padding).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch

from kv_claims.models.finite import are_finite, not_finite
from kv_claims.models.load import LoadedModel
from kv_claims.patch.live import Live
from kv_claims.patch.slab import Slab
from kv_claims.run.sampling import choose
from kv_claims.run.sampling_settings import Sampling
from kv_claims.run.steps import stepping


class Compared(NamedTuple):
    """Logits of a row against another row of the same batch, as long as their tokens are the same.

    largest: the largest absolute difference. scale: the largest absolute logit.
    parted: the sampling margin of the row where its token is another; None where none is.
    """

    largest: float
    scale: float
    parted: float | None

    def is_near_tie(self, temperature: float) -> bool:
        """Whether the tokens part, and the difference of the logits explains it.

        Logits that differ by at most d move an edge of the CDF by at most
        (exp(2 d / temperature) - 1) / 4, and the lead of the best (greedy) by twice that.
        """
        if self.parted is None:
            return False
        return self.parted <= math.expm1(min(2 * self.largest / (temperature or 1.0), 1.0)) / 2


class Decoded(NamedTuple):
    """What a batch generated.

    tokens: generated ids of each row, the stop token included. ids: the same, and what a row that
    had stopped went on with, `row step` (without meaning where nothing is on while rows generate).
    stopped: whether it stopped itself. margins: the smallest sampling margin of each row.
    compared: for each (row, row) asked. logits: for each row asked, `step vocab` on the CPU.
    """

    tokens: list[list[int]]
    ids: list[list[int]]
    stopped: list[bool]
    margins: list[float]
    compared: list[Compared]
    logits: dict[int, torch.Tensor]


@torch.no_grad()
def decode(
    model: LoadedModel,
    slab: Slab,
    first: Sequence[int],
    uniform: torch.Tensor,
    sampling: Sampling,
    *,
    live: Live | None = None,
    compare: Sequence[tuple[int, int]] = (),
    keep: Sequence[int] = (),
    past_stops: bool = False,
) -> Decoded:
    """Generate from every row of a slab; the slab's free headroom is used up.

    first: the last prompt token of each row. uniform: float64, `batch step`.
    live: what is written while the rows generate.
    compare: pairs of rows whose logits are compared at each step. keep: rows whose logits are
    wanted back. past_stops: whether no token ends a row.
    """
    device = model.device
    n_rows, steps = len(first), sampling.max_new_tokens
    ends_at = [] if past_stops else sorted(model.stop_ids)
    stop_ids = torch.tensor(ends_at, dtype=torch.long, device=device)
    uniform = uniform.to(device)
    left = torch.tensor([a for a, _ in compare], dtype=torch.long, device=device)
    right = torch.tensor([b for _, b in compare], dtype=torch.long, device=device)
    kept = torch.tensor(list(keep), dtype=torch.long, device=device)

    token = torch.tensor(list(first), dtype=torch.long, device=device)
    going = torch.ones(n_rows, dtype=torch.bool, device=device)
    ids = torch.zeros(n_rows, steps, dtype=torch.long, device=device)
    lengths = torch.full((n_rows,), steps, dtype=torch.long, device=device)
    margins = torch.ones(n_rows, dtype=torch.float64, device=device)
    largest = torch.zeros(len(compare), dtype=torch.float64, device=device)
    scale = torch.zeros(len(compare), dtype=torch.float64, device=device)
    together = torch.ones(len(compare), dtype=torch.bool, device=device)
    parted = torch.full((len(compare),), -1.0, dtype=torch.float64, device=device)
    finite = torch.ones((), dtype=torch.bool, device=device)
    seen: list[torch.Tensor] = []
    with stepping(model, slab, steps, live) as fed:
        for step in range(steps):
            if live is not None:
                live.begin(range(step, step + 1), going)
            logits = fed.feed(token, step)
            finite &= are_finite(logits)
            if len(compare):
                apart = (logits[left] - logits[right]).abs().amax(-1).to(torch.float64)
                both = going[left] & going[right] & together
                largest = torch.maximum(largest, apart.where(both, 0.0))
                scale = torch.maximum(scale, logits[right].abs().amax(-1).to(torch.float64))
            if len(keep):
                seen.append(logits[kept])
            token, margin = choose(logits, uniform[:, step], sampling.temperature)
            if len(compare):
                parts = both & (token[left] != token[right])
                parted = torch.where(parts, margin[left], parted)
                together = together & ~parts
            ids[:, step] = token
            margins = torch.where(going, torch.minimum(margins, margin), margins)
            if len(stop_ids):
                ends = going & torch.isin(token, stop_ids)
                lengths = lengths.masked_fill(ends, step + 1)
                going = going & ~ends
                if fed.looks(step):
                    if not going.any():
                        break
                    fed.narrow(going)
    if not finite:
        raise not_finite(model, "its logits")
    counts, whole = lengths.tolist(), ids[:, : step + 1].tolist()
    return Decoded(
        tokens=[row[:n] for row, n in zip(whole, counts, strict=True)],
        ids=whole,
        stopped=(~going).tolist(),
        margins=margins.tolist(),
        compared=[
            Compared(most, size, None if where < 0 else where)
            for most, size, where in zip(
                largest.tolist(), scale.tolist(), parted.tolist(), strict=True
            )
        ],
        logits={
            row: torch.stack([s[i] for s in seen])[: counts[row]].to("cpu")
            for i, row in enumerate(keep)
        },
    )
