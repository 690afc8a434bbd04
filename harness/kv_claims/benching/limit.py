"""What the reference work cannot be faster than on this machine.

Multiply-adds at the measured rate of the model's own matrix products, and bytes of weights and
caches at the measured rate of a copy. A CPU does one or the other well at a time, so the limit is
taken as the larger of the two, a phase; nothing else is counted (norms, softmax, dispatch).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

import torch

from kv_claims.benching.reference import Reference
from kv_claims.patch.store import bytes_a_position


class Machine(NamedTuple):
    """Measured on one thread: multiply-adds and copied bytes a second."""

    macs: float
    bytes: float


class Limit(NamedTuple):
    """Seconds of the reference work at best."""

    prefill: float
    decode_macs: float
    decode_bytes: float

    @property
    def total(self) -> float:
        return self.prefill + max(self.decode_macs, self.decode_bytes)


def measure_machine(wide: int = 256, wider: int = 512) -> Machine:
    """The rate of a projection of 256 rows from one width to another, and of a copy of 64 MiB."""
    rows, weight = torch.randn(256, wide), torch.randn(wider, wide)
    product = _best(lambda: torch.nn.functional.linear(rows, weight), 200)
    taken, given = torch.empty(1 << 24), torch.ones(1 << 24)
    copy = _best(lambda: taken.copy_(given), 10)
    return Machine(256 * wide * wider / product, 2 * taken.nbytes / copy)


def limit_of(work: Reference, machine: Machine) -> Limit:
    """Multiply-adds and bytes of the work, prompts prefilled and read once a base."""
    config, pairs = work.model.config, len(work.bases)
    weights = sum(
        p.numel() for name, p in work.model.network.named_parameters() if ".layers." in name
    )
    head = config.vocab_size * config.hidden_size
    # Scores and sums over a position: queries' heads, both as wide as a head.
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    position = 2 * config.num_attention_heads * width * config.num_hidden_layers
    kept = bytes_a_position(work.model)
    n, steps = work.tokens - 1, work.new_tokens
    prefill = 2 * pairs * (n * weights + n * (n + 1) / 2 * position)
    read = sum(work.tokens + step for step in range(steps))
    decode = work.trials * (steps * (weights + head) + read * position)
    # A step reads the weights, each base's prompt, the patched slots, and what rows generated.
    patched = sum(len(arm.layers) * arm.width for arm in work.arms) / config.num_hidden_layers
    prompts = pairs * (n + patched) * kept
    generated = work.trials * kept * steps * (steps + 1) / 2
    moved = steps * (4 * (weights + head) + prompts) + generated
    # A copy moves each byte twice.
    return Limit(prefill / machine.macs, decode / machine.macs, moved / machine.bytes)


def _best(way: Callable[[], object], times: int) -> float:
    way()
    best = float("inf")
    for _ in range(5):
        started = time.process_time()
        for _ in range(times):
            way()
        best = min(best, (time.process_time() - started) / times)
    return best
