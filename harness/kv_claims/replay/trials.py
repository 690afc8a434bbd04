"""The stored trials of one model: by arm and look, with the pairs and prompts that they show."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from kv_claims.claims.outcome import ANSWER_NAMES, CONTINUATION_NAMES, Behind, Outcome
from kv_claims.claims.positions import Prompted
from kv_claims.run.answered import Answered
from kv_claims.run.likelihood import Likelihood
from kv_claims.run.scores import Fed
from kv_claims.run.trial import Trial
from kv_claims.tasks.task import Pair, Prompt, Task


class At(NamedTuple):
    """The trials of a study on its first pairs and seeds."""

    study: str
    pairs: int
    seeds: int


@dataclass(frozen=True)
class StoredTrials:
    """Trials as a run kept them, its likelihoods and its answers."""

    trials: Sequence[Trial]
    likelihoods: Sequence[Likelihood] = ()
    answers: Sequence[Answered] = ()

    def of(self, arm: str, at: At) -> list[Trial]:
        """The trials of an arm."""
        return [
            trial
            for trial in self._by_arm[at.study, arm]
            if trial.pair_index < at.pairs and trial.seed < at.seeds
        ]

    def fed_to(self, arms: Sequence[str], outcomes: Sequence[Outcome], at: At) -> Fed:
        """What some arms made of tokens that were fed, as far as outcomes are read along them."""
        kinds = {outcome.behind for outcome in outcomes}
        likelihoods = self.likelihoods if any(one.is_likelihood for one in outcomes) else ()
        answers = [one for one in self.answers if one.behind in kinds]

        def is_of_it(one: Likelihood | Answered) -> bool:
            return (
                one.study == at.study
                and one.arm in arms
                and one.pair_index < at.pairs
                and one.seed < at.seeds
            )

        return Fed.of(filter(is_of_it, likelihoods), filter(is_of_it, answers))

    def fed_behind(self, at: At) -> dict[str, int]:
        """Of outcomes by name, the fewest tokens that were fed behind a prompt to read them."""
        fewest: dict[Behind, int] = {}
        for one in self.answers:
            if one.study == at.study and one.pair_index < at.pairs:
                fewest[one.behind] = min(max(one.tokens), fewest.get(one.behind, max(one.tokens)))
        names = (*ANSWER_NAMES, *CONTINUATION_NAMES)
        kinds = {name: Outcome.parse(name).behind for name in names}
        return {name: fewest[kind] for name, kind in kinds.items() if kind in fewest}

    def pairs(self, task: Task, at: At) -> list[Pair]:
        """The first pairs of a run, in its order, as a task has them."""
        known = {pair.id: pair for pair in task.pairs}
        found = {
            trial.pair_index: trial.pair
            for trial in self.trials
            if trial.study == at.study and trial.pair_index < at.pairs
        }
        return [known[found[index]] for index in sorted(found)]

    def lengths(self, task: Task, at: At) -> list[tuple[Prompted, Prompted]]:
        """Tokens of (source, base) of every pair whose prompts were run; none where none was."""
        known = self._prompt_tokens
        return [
            (known[pair.source.sha], known[pair.base.sha])
            for pair in self.pairs(task, at)
            if pair.source.sha in known and pair.base.sha in known
        ]

    def identity(self, prompt: Prompt) -> str:
        """The hash of a prompt's tokens."""
        return self._identities[prompt.sha]

    @cached_property
    def _identities(self) -> dict[str, str]:
        return {
            sha: tokens
            for trial in self.trials
            for sha, tokens in (
                (trial.source_sha, trial.source_tokens_sha),
                (trial.base_sha, trial.base_tokens_sha),
            )
        }

    @cached_property
    def _prompt_tokens(self) -> dict[str, int]:
        """Tokens of every prompt that was run, by the hash of its text."""
        return {
            trial.base_sha if trial.arm == "base" else trial.source_sha: trial.prompt_tokens
            for trial in self.trials
            if trial.arm in ("base", "source")
        }

    @cached_property
    def _by_arm(self) -> dict[tuple[str, str], list[Trial]]:
        found = defaultdict(list)
        for trial in self.trials:
            found[trial.study, trial.arm].append(trial)
        return found
