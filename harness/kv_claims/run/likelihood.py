"""Likelihoods of an arm: what it makes of the source's continuation, without sampling.

Continuations are those that the source and base arms of the same pair and seed generated; they
are fed to the arm token by token (teacher-forced) in one forward pass. Less noisy than a score
of sampled words, and without a word list. Probabilities are the model's own, at temperature 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any

from kv_claims.files.reading import Count, Number, typed
from kv_claims.run.trial import check_fields


@dataclass(frozen=True)
class Likelihood:
    """One record of the ledger.

    key, study, pair, arm, seed: as in `run.trial.Trial`.
    of_source, of_base: mean log-probability, in nats a token, that the arm gives to the source's
    and to the base's continuation. kl: mean divergence, in nats a token, from the source's
    next-token distribution to the arm's, along the source's continuation.
    source_tokens, base_tokens: how many tokens those means are over.
    oracle_error: relative error of the logits along the source's continuation against the
    independent recomputation; None where they were not recomputed.
    """

    key: str
    study: str
    pair: str
    pair_index: Count
    arm: str
    seed: Count
    of_source: Number
    of_base: Number
    kl: Number
    source_tokens: Count
    base_tokens: Count
    oracle_error: Number | None

    @property
    def loglik(self) -> float:
        """The source's continuation against the base's, in nats a token."""
        return self.of_source - self.of_base

    @property
    def margin(self) -> float:
        """Nothing is sampled, so nothing can be near a tie."""
        return math.inf

    def says_the_same(self, other: Likelihood) -> bool:
        """Whether another record of the same measurement is over the same tokens."""
        same_source = self.source_tokens == other.source_tokens
        return same_source and self.base_tokens == other.base_tokens

    def to_dict(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> Likelihood:
        """Raises ValueError where a field is missing, unknown or of the wrong type."""
        check_fields(cls, content)
        return typed(content, cls, "a likelihood")
