"""Trials as a table: one row a trial, with what was measured on its text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import pandas as pd

from harness.measure.behavior import behavior
from harness.run.trial import Trial
from harness.tasks.task import Task


def trials_frame(
    trials: Iterable[Trial], task: Task, names: Mapping[str, str] | None = None
) -> pd.DataFrame:
    """One row a trial: the trial's own fields, then the outcomes of `measure.behavior`.

    names: what to call each arm id in the column `arm`; other arms are left out. Without it every
        arm is kept under its id.
    """
    rows = []
    for trial in trials:
        if names is not None and trial.arm not in names:
            continue
        row = trial.to_dict()
        row["arm"] = names[trial.arm] if names is not None else trial.arm
        row["tokens"] = " ".join(map(str, trial.tokens))
        rows.append({**row, **behavior(trial.text, task)._asdict()})
    return pd.DataFrame(rows)
