"""A published table as a source: judged by the rules of our own trials, never *verified*."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from kv_claims.claims.claim import Claim
from kv_claims.claims.outcome import TEXT_NAMES, Outcome
from kv_claims.errors import UsageError
from kv_claims.files.reading import shown, unquoted
from kv_claims.judging.checks import Check
from kv_claims.judging.estimand import stands_in_table
from kv_claims.plain import nearest
from kv_claims.replay.described import FIXED, Described, read_description
from kv_claims.replay.dry_run import told_of
from kv_claims.replay.edits import SCORER_CHANGED
from kv_claims.replay.own_claims import OwnClaim
from kv_claims.replay.published import read_table
from kv_claims.replay.source import chosen, sha_of
from kv_claims.study.given_table import GivenScorer, GivenTask, TableStudy
from kv_claims.study.stated import KnownModel
from kv_claims.tasks.code import CodeFrom
from kv_claims.tasks.load import load_task
from kv_claims.tasks.scorers import counted_by
from kv_claims.tasks.task import Task

_PUBLISHED = GivenTask("published table", GivenScorer("as published", "published score"))


class _Names(NamedTuple):
    """A claim that is named, its test's cells, and the cells that are named."""

    claim: Claim
    known: set[str]
    named: Mapping[str, Mapping[str, str]]


@dataclass(frozen=True)
class ForeignTable:
    """A table and its description. frame: see `published.read_table`."""

    told: Described
    frame: pd.DataFrame
    task: Task | None

    @classmethod
    def open(
        cls, path: Path, models: Sequence[str], task: Task | None, code: CodeFrom | None = None
    ) -> ForeignTable:
        """Read the description at `path` and its table.

        task: by whose scorer texts are scored, before that which the description names.
        code: where the scorer of the latter may be imported from; None: from nowhere.
        Raises UsageError for whatever is wrong with either.
        """
        told = read_description(path)
        chosen(models, [told.model], path)
        if task is None and told.task is not None:
            task = load_task(told.task, code=code)
        return cls(told, read_table(told, task), task)

    @property
    def models(self) -> tuple[str, ...]:
        return (self.told.model,)

    @property
    def inputs(self) -> tuple[Path, ...]:
        return (self.told.where, self.told.table)

    @property
    def study_id(self) -> str:
        """Stands for the trials, as the hash of a run does."""
        return f"published-{sha_of(self.told.table)[:32]}"

    def own_tests(self) -> Mapping[str, tuple[OwnClaim, Sequence[str]]]:
        return {id: (own, list(self.told.claims[id])) for id, own in self.told.own.items()}

    def check_tests(self, cells: Mapping[str, tuple[Claim, set[str]]]) -> None:
        where = f"{self.told.where}: claims"
        for claim_id, named in self.told.claims.items():
            if claim_id not in cells:
                raise UsageError(
                    f"{where}: no claim {shown(claim_id)} was collected, but "
                    f"{', '.join(sorted(cells))}"
                    f"{nearest(claim_id, cells)}"
                )
            claim, known = cells[claim_id]
            self._check_claim(_Names(claim, known, named), f"{where}: {unquoted(claim_id)}")

    def _check_claim(self, names: _Names, where: str) -> None:
        claim = names.claim
        for part in (*claim.parts, *claim.given):
            outcome = str(Outcome.parse(part.outcome))
            if outcome != "behavior" and outcome not in self.told.scores:
                raise UsageError(
                    f"{where}: it is about {outcome}, expected its column under `scores`, which "
                    f"has {', '.join(self.told.scores) or 'none'}"
                )
        for cell, roles in names.named.items():
            if cell not in names.known:
                raise UsageError(
                    f"{where}: no cell {shown(cell)}, expected one of "
                    f"{', '.join(sorted(names.known))}"
                    f"{nearest(cell, names.known)}"
                )
            if not any(stands_in_table(role, e) for role in roles for e in claim.estimands):
                raise UsageError(
                    f"{where}: {unquoted(cell)}: no arm is named that the claim is judged on"
                )
            for role in roles:
                if role == "versus" and "difference" not in claim.estimands:
                    raise UsageError(
                        f"{where}: {unquoted(cell)}: the claim compares no two patches: versus"
                    )

    def lacks(self, claim: Claim, cell: str, model: str) -> str:
        named = model == self.told.model and cell in self.told.claims.get(claim.id, {})
        return "" if named else f"not named in {self.told.where.name}"

    def study(self, model: str) -> TableStudy:
        told = self.told
        assert model == told.model
        return TableStudy(
            model=KnownModel(told.model, told.n_layers, told.n_kv_heads, told.n_query_heads),
            rows=self.frame,
            arms=lambda asked: told.claims[asked.claim.id][asked.id],
            stands_for=_PUBLISHED,
            study=self.study_id,
            where=told.where.name,
            provenance={"replayed": self.facts()["replay"]},
            tokens=told.tokens,
            task=self.task,
            notes=self._notes(),
            tried=len(self._tried),
            unused=tuple(self._unused),
        )

    @property
    def _unused(self) -> list[str]:
        """Arms of the table in no role, and of which the description does not say what they are."""
        known = {*self.told.arms, *self.told.others}
        return [arm for arm in dict.fromkeys(self.frame["arm"]) if arm not in known]

    @property
    def _tried(self) -> list[str]:
        """Arms that might have been the patched one: all but the ends, the controls and others."""
        fixed = {*self.told.arms_of(*FIXED), *self.told.others}
        return [arm for arm in dict.fromkeys(self.frame["arm"]) if arm not in fixed]

    def _notes(self) -> tuple[Check, ...]:
        if self.task is None:
            return ()
        detail = (
            f"texts scored again by {self.task.scorer.name} of {self.task.where} "
            f"({self.task.sha[:16]}); whether its prompts are those of the table cannot be seen"
        )
        return (Check(SCORER_CHANGED, None, detail),)

    def trials(self, evidence: Sequence[dict[str, Any]]) -> pd.DataFrame:
        """The rows of the arms that were judged, under the names that our own trials have.

        `pair_index` counts the pairs of each arm, and `seed` its seeds, as far as is known.
        """
        used = {arm for one in evidence for arm in one["arms"].values()}
        rows = self.frame[self.frame["arm"].isin(used)].reset_index(drop=True)
        seeds = {name: code for code, name in enumerate(sorted(set(rows["seed"])))}
        index = rows.groupby("arm")["pair"].transform(lambda pairs: pd.factorize(pairs)[0])
        sides = {side: rows.get(side, rows["pair"]) for side in ("source", "base")}
        return rows.assign(
            model=self.told.model,
            study=self.study_id,
            pair_index=index.astype(int),
            seed=rows["seed"].map(seeds),
            seed_published=rows["seed"],
            **sides,
            **{f"{side}_sha": ids for side, ids in sides.items()},
            tokens="",
            geometry="{}",
            **{n: float("nan") for n in TEXT_NAMES if n != "behavior" and n not in rows.columns},
        )

    def dry_run(self) -> list[str]:
        return told_of(self.told, self.frame, len(self._tried))

    def facts(self) -> dict[str, Any]:
        told = self.told
        replay = {
            "folder": str(told.where.parent),
            "kind": "foreign",
            "description_sha": sha_of(told.where),
            "trials_sha": sha_of(told.table),
            "table": str(told.table),
            "about": told.about,
            "unused_arms": self._unused,
            "other_arms": dict(told.others),
            "scored_by": None
            if self.task is None
            else {"task": self.task.where, "sha": self.task.sha},
        }
        settings = dict.fromkeys(("profile", "pairs_asked", "max_new_tokens", "temperature"))
        scorers = {} if self.task is None else {told.model: counted_by(self.task.scorer)}
        seeds = self.frame["seed"].nunique()
        return {**settings, "seeds": seeds, "replay": replay, "scorers": scorers}
