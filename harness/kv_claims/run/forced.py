"""Likelihoods of a runner's arms: what each makes of what source and base generated.

Every (pair, seed) of a batch brings the unpatched source along, once, for the divergence from its
distribution. How tokens are fed says `kv_claims.run.fed`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch

from kv_claims.run.arms import BASE, SOURCE, Arm
from kv_claims.run.distributions import Reference, along
from kv_claims.run.fed import FedRuns, Luck, Own, Spots, Want
from kv_claims.run.ledger import Records
from kv_claims.run.likelihood import Likelihood
from kv_claims.run.rows import Tokens
from kv_claims.run.runner import hash_of
from kv_claims.tasks.task import Pair


class Continuations(NamedTuple):
    """What the source and the base arm of a pair generated."""

    source: Tokens
    base: Tokens


@dataclass
class ForcedRuns(FedRuns[Likelihood]):
    """Measures likelihoods of a runner's arms, from its ledger where they are there."""

    _said: dict[Luck, Continuations] = field(default_factory=dict)

    @property
    def records(self) -> Records[Likelihood]:
        return self.runner.ledger.likelihoods

    def measure(
        self, arms: Iterable[Arm], pairs: Sequence[Pair], seeds: Sequence[int]
    ) -> list[Likelihood]:
        """Likelihoods of every (arm, pair, seed); base and source are run where they were not."""
        runner = self.runner
        runner.check_untouched()
        arms = list(dict.fromkeys(map(runner.canonical, arms)))
        runner.check(arms, pairs)
        self._said = self._continuations(pairs, seeds)
        return self.run(arms, pairs, seeds, "likelihoods")

    def key(self, pair: Pair, arm: Arm, seed: int) -> str:
        return hash_of(["likelihood", self.runner.key(pair, arm, seed)])

    def texts(self, want: Want) -> Sequence[Tokens]:
        return self._said[want.luck]

    def beside(self, want: Want) -> Tokens:
        return self._said[want.luck].source

    def read(
        self, wanted: Sequence[Want], spots: Sequence[Spots], logits: torch.Tensor, own: Own
    ) -> list[Likelihood]:
        references: dict[int, Reference] = {}
        found = []
        for want, spot in zip(wanted, spots, strict=True):
            assert spot.reference is not None
            if spot.reference not in references:
                references.clear()  # a pair's arms stand together, and it is large
                n = len(self._said[want.luck].source)
                references[spot.reference] = Reference.of(logits[spot.reference, :n])
            found.append(self._likelihood(want, logits, spot, references[spot.reference], own))
        return found

    def _likelihood(
        self, want: Want, logits: torch.Tensor, spots: Spots, reference: Reference, own: Own
    ) -> Likelihood:
        said = self._said[want.luck]
        of_source, of_base = spots.mine
        n = len(said.source)
        by_source = along(logits[of_source, :n], said.source, reference)
        by_base = along(logits[of_base], said.base)
        assert by_source.divergence is not None
        return Likelihood(
            **self.identifies(want),
            of_source=by_source.chosen,
            of_base=by_base.chosen,
            kl=by_source.divergence,
            source_tokens=n,
            base_tokens=len(said.base),
            oracle_error=self.error(want, said.source, logits[of_source], own)
            if want.oracle
            else None,
        )

    def _continuations(
        self, pairs: Sequence[Pair], seeds: Sequence[int]
    ) -> dict[Luck, Continuations]:
        trials = self.runner.run([SOURCE, BASE], pairs, seeds)
        tokens = {(trial.arm, trial.pair, trial.seed): trial.tokens for trial in trials}
        return {
            (pair.id, seed): Continuations(
                tokens[SOURCE.id, pair.id, seed], tokens[BASE.id, pair.id, seed]
            )
            for pair in pairs
            for seed in seeds
        }
