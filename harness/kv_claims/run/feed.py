"""All that some outcomes need of tokens that are fed: the one place that knows the kinds of it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from kv_claims.claims.outcome import Outcome
from kv_claims.run.answers import AnswerRuns
from kv_claims.run.arms import Arm
from kv_claims.run.forced import ForcedRuns
from kv_claims.run.runner import Runner
from kv_claims.run.scores import Fed
from kv_claims.tasks.task import Pair


def fed_to(
    runner: Runner,
    outcomes: Iterable[Outcome],
    arms: Sequence[Arm],
    pairs: Sequence[Pair],
    seeds: Sequence[int],
) -> Fed:
    """What arms make of all that the outcomes are read along; nothing where they are of none."""
    outcomes = list(outcomes)
    kinds = {outcome.behind for outcome in outcomes if outcome.behind is not None}
    likelihoods = (
        ForcedRuns(runner).measure(arms, pairs, seeds)
        if any(outcome.is_likelihood for outcome in outcomes)
        else []
    )
    answers = [AnswerRuns(runner, kind).measure(arms, pairs, seeds) for kind in sorted(kinds)]
    return Fed.of(likelihoods, [one for some in answers for one in some])
