"""Trials as a table: one row a trial, with what was measured on its text."""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import cache

import pandas as pd

from kv_claims.measure.behavior import behavior
from kv_claims.run.arms import starts_from
from kv_claims.run.trial import Trial
from kv_claims.tasks.generation import Generation
from kv_claims.tasks.python_scorer import PythonScorer
from kv_claims.tasks.task import Task


def trials_frame(trials: Iterable[Trial], task: Task) -> pd.DataFrame:
    """One row a trial: the trial's own fields, then the outcomes of `measure.behavior`.

    `score` is the task's own scorer; `tokens` and `geometry` are text, the latter JSON.
    """
    # On common luck, many arms generate the same text.
    measured = cache(lambda said: behavior(said, task)._asdict())
    rows = [
        {
            **trial.to_dict(),
            "tokens": " ".join(map(str, trial.tokens)),
            "geometry": json.dumps(trial.geometry),
            **measured(generation_of(trial, task)),
        }
        for trial in trials
    ]
    return pd.DataFrame(rows)


def generation_of(trial: Trial, task: Task) -> Generation:
    """What the task's scorer reads of a trial: the text alone, but for a scorer in Python."""
    if not isinstance(task.scorer, PythonScorer):
        return Generation(trial.text)
    pair = task.by_id[trial.pair]
    prompt = pair.source if starts_from(trial.arm) == "source" else pair.base
    return Generation(trial.text, trial.tokens, pair, prompt)
