"""What of a cell's trials is shown beside its verdict: texts, scorer, geometry. Decides nothing."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from kv_claims.measure.behavior import repetition as repetition_of
from kv_claims.measure.separation import Scored, repetition_share, separation
from kv_claims.run.scores import geometry_score
from kv_claims.run.table import generation_of
from kv_claims.run.trial import Trial
from kv_claims.study.plan import Reading
from kv_claims.study.tables import Trials
from kv_claims.tasks.python_scorer import PythonScorer, score_of
from kv_claims.tasks.task import Task


def repetition(trials: Sequence[Trial]) -> dict[str, float]:
    """Means over texts of how much of them repeats itself."""
    seen = [repetition_of(trial.text) for trial in trials]
    return {
        "distinct_share": statistics.fmean(one.distinct_share for one in seen),
        "repeated_4grams": statistics.fmean(one.repeated_4grams for one in seen),
        "degenerate": statistics.fmean(one.degenerate for one in seen),
        "words": statistics.fmean(one.words for one in seen),
    }


def scorer_on_ends(
    task: Task, clusters: Mapping[str, Mapping[str, str]], trials: Trials
) -> dict[str, Any]:
    """The task's scorer on what source and base generated: see `measure.separation`.

    clusters: as of `tasks.task.clusters_of`.
    """
    source, base = (
        [Scored(t.pair, t.seed, _score(t, task)) for t in trials[role]]
        for role in ("source", "base")
    )
    return {
        "name": task.scorer.name,
        "unit": task.scorer.unit,
        **({"falls": True} if task.falls else {}),
        **separation(source, base, clusters).to_dict(),
        "repetition_share": _repetition_shares(task, trials, ("base", "source")),
    }


def scorer_on_cell(ends: Mapping[str, Any], task: Task, trials: Trials) -> dict[str, Any]:
    """The same with the texts of a cell's own arms. ends: as of `scorer_on_ends`."""
    own = _repetition_shares(task, trials, ("patched", "versus"))
    return {**ends, "repetition_share": {**ends["repetition_share"], **own}}


def geometry(
    reading: Reading, n_layers: int, trials: Trials, roles: Sequence[str]
) -> dict[str, Any]:
    """Mean geometry of the arms, and whether it can say anything on the patch."""
    means: dict[str, float | None] = {}
    for role in roles if reading.is_read else ():
        if some := trials.get(role):
            scores = [geometry_score(trial, reading.outcome, n_layers) for trial in some]
            known = [score for score in scores if score == score]
            means[role] = statistics.fmean(known) if len(known) == len(scores) else None
    return {
        "outcome": str(reading.outcome),
        "means": means,
        "reach": reading.reach.kind if reading.reach else None,
        "why": reading.why,
    }


def texts(task: Task, trials: Trials) -> dict[str, Any]:
    """Base, source and patched text of the pair whose patched score is the median."""
    if not trials.get("patched"):
        return {}
    ranked = sorted((_score(t, task), t.pair) for t in trials["patched"] if not t.seed)
    middle = statistics.median_low(ranked)[1]
    found = {
        role: next(t for t in trials[role] if t.pair == middle and not t.seed)
        for role in ("base", "source", "patched")
    }
    return {
        "rule": "the pair of median patched score",
        "pair": middle,
        **{role: trial.text for role, trial in found.items()},
        "scores": {role: _score(trial, task) for role, trial in found.items()},
    }


def _score(trial: Trial, task: Task) -> float:
    return score_of(generation_of(trial, task), task.scorer)


def _repetition_shares(task: Task, trials: Trials, roles: Sequence[str]) -> dict[str, float | None]:
    if isinstance(task.scorer, PythonScorer):
        return {role: None for role in roles if trials.get(role)}  # what it counted is not known
    return {
        role: repetition_share((trial.text for trial in trials[role]), task.scorer)
        for role in roles
        if trials.get(role)
    }
