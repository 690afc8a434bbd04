"""Answers of a runner's arms: what each makes of the texts that its task puts behind the prompts.

How tokens are fed says `kv_claims.run.fed`; which texts, and which of them are refused,
`kv_claims.run.behind`; what follows from the record, `kv_claims.run.answered`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch

from kv_claims.claims.outcome import Behind
from kv_claims.run.answered import Answered
from kv_claims.run.arms import Arm
from kv_claims.run.distributions import along
from kv_claims.run.fed import FedRuns, Own, Spots, Want
from kv_claims.run.ledger import Records
from kv_claims.run.rows import Tokens
from kv_claims.run.runner import hash_of
from kv_claims.tasks.task import Pair


@dataclass
class AnswerRuns(FedRuns[Answered]):
    """Measures answers, or continuations, of a runner's arms; what its ledger has is read there."""

    behind: Behind

    @property
    def records(self) -> Records[Answered]:
        return self.runner.ledger.answers

    def measure(
        self, arms: Iterable[Arm], pairs: Sequence[Pair], seeds: Sequence[int]
    ) -> list[Answered]:
        """What every (arm, pair, seed) makes of the pair's texts; nothing is decoded.

        Raises UsageError, before a model runs, for texts that are refused, or have no room.
        """
        runner = self.runner
        runner.check_untouched()
        arms = list(dict.fromkeys(map(runner.canonical, arms)))
        behind = runner.rows.behind
        texts = (behind.of(pair, self.behind).tokens for pair in pairs)
        runner.rows.make_room(max(len(text) for some in texts for text in some))
        runner.check(arms, pairs)
        return self.run(arms, pairs, seeds, "answers")

    def key(self, pair: Pair, arm: Arm, seed: int) -> str:
        tokens = self.runner.rows.behind.of(pair, self.behind).tokens
        return hash_of(["answers", self.behind, self.runner.key(pair, arm, seed), tokens])

    def texts(self, want: Want) -> Sequence[Tokens]:
        return self.runner.rows.behind.of(want.pair, self.behind).tokens

    def read(
        self, wanted: Sequence[Want], spots: Sequence[Spots], logits: torch.Tensor, own: Own
    ) -> list[Answered]:
        return [
            self._answered(want, [logits[row] for row in spot.mine], own)
            for want, spot in zip(wanted, spots, strict=True)
        ]

    def _answered(self, want: Want, logits: Sequence[torch.Tensor], own: Own) -> Answered:
        asked = self.runner.rows.behind.of(want.pair, self.behind)
        options, tokens = asked
        first = logits[0][0].double()
        checked = list(zip(tokens, logits, strict=True))[:2] if want.oracle else []
        return Answered(
            **self.identifies(want),
            behind=self.behind,
            texts_sha=asked.texts_sha,
            has_foil=options.has_foil,
            are_choices=options.are_choices,
            logp=tuple(
                along(rows, text).chosen * len(text)
                for rows, text in zip(logits, tokens, strict=True)
            ),
            tokens=tuple(map(len, tokens)),
            size=tuple(len(text.strip().encode()) for text in options.texts),
            rank=1 + int((first > first[tokens[0][0]]).sum()),
            oracle_error=max(
                (self.error(want, text, rows, own) for text, rows in checked), default=None
            ),
        )
