"""Answered: what an arm makes of texts that the task itself puts behind a pair's prompts.

Of a pair's answers (the right one, its foil, other choices), or of a continuation. Each is fed to
the arm token by token in one forward pass: nothing is sampled, nothing decoded. Probabilities are
the model's own, at temperature 1, over its whole vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Annotated, Any

from msgspec import Meta

from kv_claims.claims.outcome import Behind
from kv_claims.files.reading import Count, Number, typed
from kv_claims.run.trial import check_fields

LogProbability = Annotated[float, Meta(le=1e-6)]


@dataclass(frozen=True)
class Answered:
    """One record of the ledger.

    key, study, pair, arm, seed: as in `run.trial.Trial`.
    behind: what was fed: the pair's answers, the right one first, then its foil if it has one, or a
    continuation, alone. texts_sha: of these texts. has_foil, are_choices: as in `tasks.answers`.
    logp: log-probability of each text, in nats, summed over its tokens. tokens, size: how many
    tokens each has, and bytes in UTF-8 without the blanks around it.
    rank: 1 + how many tokens are likelier than the first of the first text, right behind the
    prompt; tokens as likely do not count.
    oracle_error: largest relative error of the logits along the first two texts against the
    independent recomputation; None where they were not recomputed.
    """

    key: str
    study: str
    pair: str
    pair_index: Count
    arm: str
    seed: Count
    behind: Behind
    texts_sha: str
    has_foil: bool
    are_choices: bool
    logp: tuple[LogProbability, ...]
    tokens: tuple[Count, ...]
    size: tuple[Count, ...]
    rank: Count
    oracle_error: Number | None

    def value(self, outcome: str) -> float:
        """What it says on an outcome, by its name."""
        return _VALUES[outcome](self)

    @property
    def logit_diff(self) -> float:
        """Of a softmax of logits, the difference of two log-probabilities is that of the logits."""
        return self.logp[0] - self.logp[1]

    @property
    def prob(self) -> float:
        return math.exp(self.logp[0])

    @property
    def accuracy(self) -> float:
        """An answer that is only as likely as another does not count."""
        return float(self.logp[0] > max(self.logp[1:]))

    @property
    def choice(self) -> float:
        first, *others = (logp / size for logp, size in zip(self.logp, self.size, strict=True))
        return float(first > max(others))

    @property
    def loss(self) -> float:
        return -self.logp[0] / self.tokens[0]

    @property
    def perplexity(self) -> float:
        return math.exp(self.loss)

    @property
    def margin(self) -> float:
        """Nothing is sampled, so nothing can be near a tie."""
        return math.inf

    def says_the_same(self, other: Answered) -> bool:
        """Whether another record of the same measurement is over the same tokens."""
        return (self.texts_sha, self.tokens) == (other.texts_sha, other.tokens)

    def to_dict(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> Answered:
        """Raises ValueError where a field is missing, unknown or of the wrong type."""
        check_fields(cls, content)
        found = typed(content, cls, "an answer")
        sizes = {len(found.logp), len(found.tokens), len(found.size)}
        if sizes != {len(found.logp)} or not found.logp or not all(found.tokens):
            raise ValueError("an answer whose texts have no log-probability, length or tokens each")
        return found


_VALUES: dict[str, Callable[[Answered], float]] = {
    "logit_diff": lambda one: one.logit_diff,
    "prob": lambda one: one.prob,
    "rank": lambda one: float(one.rank),
    "accuracy": lambda one: one.accuracy,
    "choice": lambda one: one.choice,
    "loss": lambda one: one.loss,
    "perplexity": lambda one: one.perplexity,
}
