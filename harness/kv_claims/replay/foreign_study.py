"""Cells judged on a published table: by the rules of our own trials, with what a table can show.

The instrument's checks stand as not run, so no verdict here is *verified*, whatever its word.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, cast

import pandas as pd

from kv_claims.claims.claim import Part
from kv_claims.claims.outcome import Outcome
from kv_claims.evidence.evidence import Evidence
from kv_claims.judging.checks import CONTROLS, Check, with_all_named
from kv_claims.judging.estimand import stands_in_table
from kv_claims.judging.frame import ARMS
from kv_claims.judging.texts import degenerate_texts, parts_of_words
from kv_claims.replay.described import Described
from kv_claims.replay.edits import SCORER_CHANGED
from kv_claims.study.cell import Cell
from kv_claims.study.expectation import Expectation
from kv_claims.study.record import (
    SHOWN_GEOMETRY,
    Found,
    Look,
    Setting,
    evidence_of,
    not_judged,
    not_looked_at,
    plan_of,
)
from kv_claims.study.verdicts import judge_cell
from kv_claims.tasks.scorers import Scorer
from kv_claims.tasks.task import Task

UNKNOWN = "unknown"


class _Model(NamedTuple):
    name: str
    n_layers: int
    n_kv_heads: int


class _Published(NamedTuple):
    """Stands for a scorer that is known by its numbers only."""

    name: str = "as published"
    unit: str = "published score"


class _NoTask(NamedTuple):
    name: str
    scorer: _Published | Scorer


@dataclass(frozen=True)
class ForeignStudy:
    """The cells of a published table. frame: see `published.read_table`; study: its hash."""

    told: Described
    frame: pd.DataFrame
    task: Task | None
    study: str
    replayed: dict[str, Any]

    def judge(self, asked: Cell) -> tuple[Evidence, Expectation | None]:
        """Judge a cell on the arms that the description names; nothing is expected of it."""
        roles = self._roles(asked)
        rows = pd.concat(
            [self.frame[self.frame["arm"] == arm].assign(arm=role) for role, arm in roles.items()],
            ignore_index=True,
        )
        pairs = list(dict.fromkeys(rows["pair"]))
        failed = self._untestable(asked)
        looks = [n for n in asked.claim.looks if n <= len(pairs)] or [len(pairs)]
        if failed or (asked.claim.looks and len(pairs) < asked.claim.looks[0]):
            judged = (
                not_judged(asked.parts, failed, len(pairs))
                if failed
                else not_looked_at(asked, len(pairs))
            )
            made = tuple(with_all_named([*judged.verdicts[0].checks, *self._notes()]))
            verdicts = [replace(v, checks=made, verified=False) for v in judged.verdicts]
            found = Found(asked, judged._replace(verdicts=verdicts), plan_of(asked))
            return self._evidence(found, rows, {}), None
        seen: list[Look] = []
        for n in looks:
            table = rows[rows["pair"].isin(pairs[:n])]
            tables = {part: _of_part(table, part) for part in asked.parts}
            judged = judge_cell(asked, tables, self._checks(asked, table), None, None)
            seen.append(Look.of(n, judged))
            if judged.is_final:
                break
        found = Found(asked, judged, plan_of(asked), tuple(seen), looks[-1] - n)
        return self._evidence(found, table, roles), None

    def _roles(self, asked: Cell) -> Mapping[str, str]:
        """The arms that some part of the claim is judged on: no other is read."""
        named = self.told.claims[asked.claim.id][asked.id]
        estimands = asked.claim.estimands
        order = [role for role in (*ARMS, *CONTROLS) if role in named]
        return {r: named[r] for r in order if any(stands_in_table(r, e) for e in estimands)}

    def _untestable(self, asked: Cell) -> list[Check]:
        """What no number of such a patch could say, as far as the description tells."""
        lengths = [] if self.told.tokens is None else [self.told.tokens]
        if runs_donor := asked.runs_donor(self.told.n_layers, lengths):
            return [runs_donor]
        return asked.unreached(self.told.n_layers, lengths) if asked.patches else []

    def _checks(self, asked: Cell, table: pd.DataFrame) -> list[Check]:
        """What can be checked of a table; all else is listed as not run."""
        found = self._notes()
        if asked.patches and self.told.tokens is None:
            why = f"not run: {self.told.where.name} does not give the tokens of the prompts"
            found += [
                Check("measured-where-patched", None, why)
                for outcome in asked.outcomes
                if outcome.is_geometry
            ]
        about_text = any(outcome.name == "behavior" for outcome in asked.outcomes)
        if self.task is not None and about_text:
            judged = {r: list(t) for r, t in table.groupby("arm")["text"] if r in ARMS}
            texts = {str(role): some for role, some in judged.items()}
            found += [
                degenerate_texts(texts, self.task),
                parts_of_words(texts, [self.task.scorer]),
            ]
        return found

    def _notes(self) -> list[Check]:
        if self.task is None:
            return []
        detail = (
            f"texts scored again by {self.task.scorer.name} of {self.task.where} "
            f"({self.task.sha[:16]}); whether its prompts are those of the table cannot be seen"
        )
        return [Check(SCORER_CHANGED, None, detail)]

    def _evidence(self, found: Found, table: pd.DataFrame, roles: Mapping[str, str]) -> Evidence:
        told = self.told
        known = self.task or _NoTask("published table", _Published())
        setting = Setting(
            model=_Model(told.model, told.n_layers, told.n_kv_heads),
            # Without trials of ours, a task is asked for its name and its scorer's name alone.
            task=cast("Task", known),
            study=self.study,
            arm_id=lambda arm: arm.id,
            tokens=lambda _prompt: 0,
            pairs=(),
            n_seeds=int(table["seed"].nunique()),
            provenance=self._provenance(),
            planned=lambda _arm: 0,
            scorer=dict,
        )
        evidence = evidence_of(setting, found, None, {}, {}, {})
        rows = len(table) if roles else 0
        return replace(
            evidence,
            arms=dict(roles),
            trials={"planned": rows, "run": rows, "failed": 0},
            geometry=[
                {"outcome": str(shown), "means": {}, "reach": None, "why": "not published"}
                for shown in SHOWN_GEOMETRY
            ],
        )

    def _provenance(self) -> dict[str, Any]:
        """In the shape of a run's, with what is not known of somebody else's."""
        unknown = dict.fromkeys(
            ("python", "device", "hardware", "threads", "dtype", "revision", "weights_sha"), UNKNOWN
        )
        return {
            **unknown,
            "versions": {},
            "n_layers": self.told.n_layers,
            "task_sha": self.task.sha if self.task else UNKNOWN,
            "replayed": self.replayed,
        }


def _of_part(table: pd.DataFrame, part: Part) -> pd.DataFrame:
    """The table of a part: its arms, its outcome as the score."""
    outcome = str(Outcome.parse(part.outcome))
    rows = table[[stands_in_table(role, part.estimand) for role in table["arm"]]]
    if outcome != "behavior":
        rows = rows.assign(score=rows[outcome])
    return rows.reset_index(drop=True)
