"""The one way from a cell to its evidence: plan, look after look until it is decided, record.

What differs is where trials come from (`Study`): a model that is run here, trials that are stored,
a table that somebody made.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

import pandas as pd

from kv_claims.evidence.evidence import Evidence
from kv_claims.study.cell import Cell
from kv_claims.study.expectation import Expectation
from kv_claims.study.plan import Plan
from kv_claims.study.record import Found, Look, Seen, Setting, evidence_of
from kv_claims.study.unrun import not_run, noted
from kv_claims.study.verdicts import Judged, judge_cell


class CellRun(NamedTuple):
    """A cell that was run and judged.

    tables: for each part, the rows that it was judged on, one a trial; None where nothing was run.
    """

    evidence: Evidence
    expected: Expectation | None
    tables: list[pd.DataFrame | None]


class Study(ABC):
    """Where a cell's trials come from, and what is known of them; judges cell after cell."""

    @abstractmethod
    def plan(self, asked: Cell) -> Plan:
        """What is to be judged, settled before any trial; raises UsageError where it cannot be."""

    @abstractmethod
    def too_few(self, plan: Plan) -> Judged | None:
        """The verdicts on a plan whose pairs have too few clusters; None where trials must tell."""

    @abstractmethod
    def seen(self, plan: Plan, pairs: int) -> Seen:
        """The trials of a plan on the first so many pairs, run now or found."""

    @abstractmethod
    def setting(self, plan: Plan, pairs: int) -> Setting:
        """What the evidence says of all cells on so many pairs alike."""

    def judge(self, asked: Cell) -> tuple[Evidence, Expectation | None]:
        """A cell's evidence, and the word that was expected; errors as in `run_cell`."""
        done = self.run_cell(asked)
        return done.evidence, done.expected

    def run_cell(self, asked: Cell) -> CellRun:
        """Judge a cell's claim at each of its looks until it is decided.

        A cell that the model does not have is *invalid: no-such-cell*. Raises UsageError, before
        anything runs, for a patch that does not fit the prompts or that no model could have, and
        for trials that are of another one.
        """
        plan = self.plan(asked)
        if (unrun := not_run(plan) or self.too_few(plan)) is not None:
            found = Found(noted(unrun, plan.notes))
            evidence = evidence_of(self.setting(plan, plan.pairs), plan, found)
            return CellRun(evidence, plan.expected, [None] * len(plan.parts))
        looks: list[Look] = []
        for n in plan.looks:
            seen = self.seen(plan, n)
            judged = judge_cell(plan, seen.tables, seen.task)
            looks.append(Look.of(n, judged))
            if judged.is_final:
                break
        left = plan.looks[-1] - n + plan.pairs_not_run
        found = Found(judged, seen, tuple(looks), pairs_not_run=left)
        evidence = evidence_of(self.setting(plan, n), plan, found)
        return CellRun(evidence, plan.expected, [table.rows for table in seen.tables])
