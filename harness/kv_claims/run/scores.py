"""From a trial to the number that a claim is about, by outcome."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import pandas as pd

from kv_claims.claims.outcome import Behind, Outcome
from kv_claims.errors import UsageError
from kv_claims.run.answered import Answered
from kv_claims.run.likelihood import Likelihood
from kv_claims.run.trial import Geometry, Trial


class Fed(NamedTuple):
    """What arms made of tokens that were fed: likelihoods by arm id, pair and seed; answers by
    what was put behind the prompts as well."""

    likelihoods: Mapping[tuple[str, str, int], Likelihood] = {}
    answers: Mapping[tuple[Behind, str, str, int], Answered] = {}

    @classmethod
    def of(cls, likelihoods: Iterable[Likelihood], answers: Iterable[Answered]) -> Fed:
        return cls(
            {(one.arm, one.pair, one.seed): one for one in likelihoods},
            {(one.behind, one.arm, one.pair, one.seed): one for one in answers},
        )

    @property
    def oracle_errors(self) -> list[float | None]:
        """Of each, in any order; None where it was not recomputed."""
        return [
            *(one.oracle_error for one in self.likelihoods.values()),
            *(one.oracle_error for one in self.answers.values()),
        ]


def scored(
    frame: pd.DataFrame,
    trials: Sequence[Trial],
    outcome: Outcome,
    n_layers: int,
    fed: Fed,
) -> pd.DataFrame:
    """A table of trials with the outcome as its `score`; NaN where a trial has none.

    frame: rows of `table.trials_frame`, in the order of `trials`.
    """
    if outcome.is_text:
        column = "score" if outcome.name == "behavior" else outcome.name
        return frame.assign(score=frame[column].astype(float))
    if outcome.is_fed:
        spots = [(trial.arm, trial.pair, trial.seed) for trial in trials]
        return frame.assign(score=[fed_score(fed, outcome, spot) for spot in spots])
    return frame.assign(score=[geometry_score(trial, outcome, n_layers) for trial in trials])


def fed_score(fed: Fed, outcome: Outcome, spot: tuple[str, str, int]) -> float:
    """An outcome that is read from tokens that were fed. spot: arm id, pair id, seed."""
    if (behind := outcome.behind) is not None:
        return fed.answers[behind, *spot].value(outcome.name)
    found = fed.likelihoods[spot]
    return found.loglik if outcome.name == "loglik" else -found.kl


def geometry_score(trial: Trial, outcome: Outcome, n_layers: int) -> float:
    """A participation ratio, or R_V, of a trial; NaN where its window does not fit."""
    return ratio_of(trial.geometry, outcome, n_layers)


def ratio_of(geometry: Geometry, outcome: Outcome, n_layers: int) -> float:
    """The same from what is kept of a trial's geometry.

    Raises UsageError for one of a model with another number of layers.
    """
    ratios = geometry.get(f"{outcome.variant}/{outcome.where}")
    if ratios is None:
        return float("nan")
    if len(ratios) != n_layers:
        raise UsageError(
            f"geometry of a stored trial: {len(ratios)} layers, expected {n_layers} as the model "
            "has; the trial is of another model, or was edited"
        )
    read = [ratios[layer] for layer in outcome.layers(n_layers)]
    known = [ratio for ratio in read if ratio is not None]
    if len(known) < len(read):
        return float("nan")
    return known[0] if outcome.name == "pr" else known[1] / known[0]
