"""A table that somebody made as the source of trials: judged by the rules of our own.

The instrument's checks stand as not run, so no verdict here is *verified*, whatever its word.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, cast

import pandas as pd

from kv_claims.errors import UsageError
from kv_claims.evidence.evidence import plan_sha
from kv_claims.files.reading import listed
from kv_claims.judging.checks import CONTROLS, NO_CONTROL, Check, with_all_named
from kv_claims.judging.coincidence import coincidences
from kv_claims.judging.frame import ARMS
from kv_claims.judging.multiplicity import Share
from kv_claims.judging.openings import prompts_in_texts
from kv_claims.judging.texts import degenerate_texts, parts_of_words
from kv_claims.study.cell import Cell
from kv_claims.study.plan import Plan, PlannedPart, parts_of, plan_as_asked, roles_in_tables
from kv_claims.study.record import Seen, Setting
from kv_claims.study.stated import Subject
from kv_claims.study.tables import Table
from kv_claims.study.verdicts import Judged
from kv_claims.study.walk import Study
from kv_claims.tasks.task import Task

UNKNOWN = "unknown"
_LENGTHS = ((64, 64), (64, 96), (96, 64), (400, 400))
"""Tokens of source and base that stand for any, where they are not given."""


class GivenScorer(NamedTuple):
    """Stands for a scorer that is known by its numbers only."""

    name: str
    unit: str


class GivenTask(NamedTuple):
    """Stands for a task, of which the evidence names this much."""

    name: str
    scorer: GivenScorer
    falls: bool = False


@dataclass(frozen=True)
class TableStudy(Study):
    """The cells of one table.

    model: what it is said to be of. rows: `pair, arm, seed, score` and clusters, and a column for
    each other outcome, under its name. arms: the table's arm of each role, for a cell.
    stands_for: the task, where texts are not scored by `task`. study: the hash of the table.
    tokens: of source and base prompt, None where `where` does not give them. scores: the outcome
    that `score` holds. provenance: what is told of how it was made. notes: checks that a reader is
    to see with every verdict. no_geometry: why none is shown beside. tried: how many arms the
    table has that a patched one might have been chosen among. unused: arms in no role.
    """

    model: Subject
    rows: pd.DataFrame
    arms: Callable[[Cell], Mapping[str, str]]
    stands_for: GivenTask
    study: str
    where: str
    provenance: Mapping[str, Any]
    tokens: tuple[int, int] | None = None
    task: Task | None = None
    scores: str = "behavior"
    notes: tuple[Check, ...] = ()
    no_geometry: str = "not published"
    tried: int = 0
    unused: tuple[str, ...] = ()

    @property
    def n_pairs(self) -> int:
        """Pairs of the table."""
        return int(self.rows["pair"].nunique())

    def plan(self, asked: Cell) -> Plan:
        """The cell as it is asked, on the pairs of its arms in the table.

        All of them, once: whoever has the whole table has looked at all of it. Every arm that it
        tried is one of the family (*best-of-k*).
        """
        asked.check_task(None, self.where)
        pairs = self._of_cell(asked)["pair"].nunique()
        falls = self.task is not None and self.task.falls
        plan = plan_as_asked(asked, self.model, pairs, falls=falls)
        family = plan.share.family
        family = replace(family, size=max(family.size, self.tried))
        stated = {**plan.stated, "family_size": family.size, "looks": []}
        plan = replace(
            plan,
            looks=(pairs,),
            share=Share(family),
            stated={**stated, "sha": plan_sha(stated)},
        )
        plan = _reaching(plan) if self.tokens is None else plan.reaching([self.tokens])
        if not plan.untestable:
            return replace(plan, notes=self.notes)
        # Nothing else will say what was not checked.
        made = with_all_named([*plan.untestable, *self.notes])
        return replace(plan, notes=tuple(made[len(plan.untestable) :]))

    def too_few(self, plan: Plan) -> Judged | None:
        """None: the table itself shows it."""

    def seen(self, plan: Plan, pairs: int) -> Seen:
        """The rows of the arms that are judged, on the first so many pairs of the table."""
        rows = self._first(plan.asked, pairs)
        frames = [self._of_part(rows, part) for part in plan.parts]
        checks = self._checks(plan, rows, frames)
        tables = [Table(frame, checks) for frame in frames]
        arms = self._roles(plan.asked)
        return Seen(None, tables, arms, planned=len(rows), run=len(rows))

    def setting(self, plan: Plan, pairs: int) -> Setting:
        known = self.task or self.stands_for
        unknown = dict.fromkeys(
            ("python", "device", "hardware", "threads", "dtype", "revision", "weights_sha"), UNKNOWN
        )
        return Setting(
            # Without trials of ours, a task is asked for its name and its scorer's name alone.
            task=cast("Task", known),
            study=self.study,
            seeds=int(self._first(plan.asked, pairs)["seed"].nunique()),
            provenance={
                **unknown,
                "versions": {},
                "n_layers": self.model.n_layers,
                "task_sha": self.task.sha if self.task else UNKNOWN,
                **self.provenance,
            },
            scorer=dict,
            no_geometry=self.no_geometry,
        )

    def _roles(self, asked: Cell) -> dict[str, str]:
        """The arms that some part of the claim is judged on: no other is read."""
        named = self.arms(asked)
        return {role: named[role] for role in roles_in_tables(parts_of(asked)) if role in named}

    def _of_cell(self, asked: Cell) -> pd.DataFrame:
        """The rows of a cell's arms, by role."""
        frames = [
            self.rows[self.rows["arm"] == arm].assign(arm=role)
            for role, arm in self._roles(asked).items()
        ]
        return pd.concat(frames, ignore_index=True)

    def _first(self, asked: Cell, pairs: int) -> pd.DataFrame:
        rows = self._of_cell(asked)
        return rows[rows["pair"].isin(list(dict.fromkeys(rows["pair"]))[:pairs])]

    def _of_part(self, rows: pd.DataFrame, part: PlannedPart) -> pd.DataFrame:
        """The table of a part: its arms, its outcome as the score."""
        rows = rows[[part.stands(role) for role in rows["arm"]]]
        if str(part.outcome) != self.scores:
            rows = rows.assign(score=rows[str(part.outcome)])
        return rows.reset_index(drop=True)

    def _without_control(self, rows: pd.DataFrame) -> str:
        """What is missing to hold a patch against; '' where nothing is."""
        given = set(rows["arm"])
        lacks = []
        if not given & set(CONTROLS):
            lacks.append(f"no control is given ({', '.join(CONTROLS)})")
        if self.unused:
            lacks.append(
                f"arms of the table in no role, of which any may be one: {listed(self.unused)}"
            )
        return "; ".join(lacks)

    def _checks(
        self, plan: Plan, rows: pd.DataFrame, frames: Sequence[pd.DataFrame]
    ) -> list[Check]:
        """What can be checked of a table; all else is listed as not run. frames: of each part."""
        found = [*plan.notes]
        if plan.sides and self.tokens is None:
            why = f"not run: {self.where} does not give the tokens of the prompts"
            found += [
                Check("measured-where-patched", None, why)
                for outcome in plan.outcomes
                if outcome.is_geometry
            ]
        for frame in frames:
            found += coincidences(frame)
        if plan.sides and (lacks := self._without_control(rows)):
            found.append(Check(NO_CONTROL, None, lacks))
        about_text = any(outcome.name == "behavior" for outcome in plan.outcomes)
        if self.task is not None and about_text:
            judged = {r: list(t) for r, t in rows.groupby("arm")["text"] if r in ARMS}
            texts = {str(role): some for role, some in judged.items()}
            found += [
                degenerate_texts(texts, self.task),
                parts_of_words(texts, [self.task.scorer]),
            ]
            if (holds := prompts_in_texts(rows)) is not None:
                found.append(holds)
        return found


def _reaching(plan: Plan) -> Plan:
    """With what can be read of the arms whatever the lengths of the prompts are.

    Windows count from one end, so that most of it needs no lengths; what would hang on them is left
    open.
    """
    found = []
    for lengths in _LENGTHS:
        try:
            found.append(plan.reaching([lengths]))
        except UsageError:  # a window that does not fit these
            continue
    if found and all(one.untestable for one in found):
        return replace(found[0], readings=())
    return plan.reaching([])
