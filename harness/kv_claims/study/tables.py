"""From trials by role to the tables that the parts of a plan are judged on. Runs nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import pandas as pd

from kv_claims.judging.checks import Check
from kv_claims.judging.instrument import clusters_ignored
from kv_claims.run.scores import Fed, scored
from kv_claims.run.table import trials_frame
from kv_claims.run.trial import Trial
from kv_claims.study.plan import Plan, PlannedPart
from kv_claims.tasks.task import Pair, Prompt, Task

Trials = Mapping[str, Sequence[Trial]]
"""By role: base, source, patched, a control's name."""


class Table(NamedTuple):
    """What one part is judged on: a row a trial, by role, and what was checked of it."""

    rows: pd.DataFrame
    checks: Sequence[Check]


@dataclass
class Tables:
    """Tables of the cells of a study, each arm's text measured once. n_layers: of the model."""

    task: Task
    n_layers: int
    _measured: dict[str, pd.DataFrame] = field(default_factory=dict)

    def of(
        self,
        plan: Plan,
        trials: Trials,
        fed: Fed,
        checks: Sequence[Check],
        pairs: Sequence[Pair],
        identity: Callable[[Prompt], str],
    ) -> list[Table]:
        """The table of each part of a plan.

        checks: of the instrument. pairs: those by whose prompts the tables are to be clustered.
        identity: of a prompt, by which it is the same as another: the hash of its tokens.
        """
        found = []
        for part in plan.parts:
            rows = self._rows(part, trials, fed)
            found.append(Table(rows, [*checks, clusters_ignored(rows, pairs, identity)]))
        return found

    def _rows(self, part: PlannedPart, trials: Trials, fed: Fed) -> pd.DataFrame:
        """One row a trial, by role; an arm that stands in two roles has a row in each."""
        frames = []
        for role, some in trials.items():
            if part.stands(role):
                arm = some[0].arm
                if arm not in self._measured:
                    self._measured[arm] = trials_frame(some, self.task)
                own = self._measured[arm]
                frame = scored(own, some, part.outcome, self.n_layers, fed)
                frames.append(frame.assign(arm=role))
        return pd.concat(frames, ignore_index=True)
