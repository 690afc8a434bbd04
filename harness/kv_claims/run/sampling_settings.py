"""How tokens are drawn, as settings. No torch, so that options can be checked without it."""

from __future__ import annotations

from dataclasses import dataclass

from kv_claims.errors import UsageError

COLDEST = 1e-3


@dataclass(frozen=True)
class Sampling:
    """How many tokens at most, and at which temperature (0 is greedy)."""

    max_new_tokens: int = 50
    temperature: float = 0.7

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1:
            raise UsageError(f"max-new-tokens {self.max_new_tokens}: expected at least 1")
        if self.temperature != 0 and not COLDEST <= self.temperature < float("inf"):
            raise UsageError(
                f"temperature {self.temperature}: expected a number of 0 (greedy) or above "
                f"(from {COLDEST:g} on, as logits are divided by it)"
            )
