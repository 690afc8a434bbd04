"""The published protocol on one model: its table with all defects, then with one less at a time.

Promises: the last row is this project's protocol on the same pairs, number for number; what was
drawn from the operating system is told, and given back as `drawn` repeats the run; nothing is
written anywhere. Does not: check the instrument. Its verdict words are what the rule says of the
row's numbers alone.
"""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import pandas as pd

from kv_claims.claims.patch import Patch
from kv_claims.evidence.evidence import ProtocolEvidence
from kv_claims.evidence.provenance import provenance
from kv_claims.judging.checks import Check
from kv_claims.judging.result import Verdict
from kv_claims.judging.verdict import judge
from kv_claims.measure.behavior import repetition
from kv_claims.models.load import LoadedModel
from kv_claims.published.defects import (
    ALL,
    CELLS,
    CLAIMED,
    DEFECTS,
    DEGENERATE,
    DUPLICATE,
    ENGINE,
    EXPECTED_POINTS,
    NO_CEILING,
    ONE_TRIAL,
    UNCALIBRATED,
    UNROTATED,
)
from kv_claims.published.engine import DefectiveRunner
from kv_claims.published.sample import explain, explain_best_cell
from kv_claims.published.scoring import scorer_under
from kv_claims.run.arms import BASE, SOURCE, Arm, patched, self_patch
from kv_claims.run.ledger import Ledger
from kv_claims.run.runner import Progress, Runner
from kv_claims.run.sampling_settings import Sampling
from kv_claims.run.trial import Trial
from kv_claims.tasks.task import Pair, Task

ShowProgress = Callable[[str, int], AbstractContextManager[Progress]]

MOST_PAIRS = 60
"""Pairs that a replay runs at most: enough to see what a defect does, in seconds."""
PROBE = Patch("kv", layers="18/32+25/32+27/32", positions="last(32)")
"""All that the eight cells paste, at once: on it the engine's defects are compared directly."""
ENGINES = (frozenset[str](), frozenset({DUPLICATE}), frozenset({UNROTATED}))
NONE: frozenset[str] = frozenset()
_ORDER = (BASE, SOURCE, *map(patched, CELLS.values()))


@dataclass
class Replay:
    """The eight cells of the seed on one model, under any set of its defects.

    pairs: the first of them stands for the seed's single one. drawn: the number from which the
        luck of each single trial is made; drawn by the operating system unless given.
    progress: called with the number of trials that just came in.
    """

    model: LoadedModel
    task: Task
    sampling: Sampling
    pairs: Sequence[Pair]
    batch_size: int | None = None
    drawn: int = field(default_factory=lambda: secrets.randbits(31))
    progress: Progress | None = None

    def __post_init__(self) -> None:
        self._runners: dict[frozenset[str], DefectiveRunner] = {}
        self._trials: dict[tuple[frozenset[str], Arm, bool], list[Trial]] = {}
        self._degenerate: dict[str, bool] = {}

    def rows(self) -> list[dict[str, Any]]:
        """The table: all defects first, then one less in each row, none in the last."""
        left, found = ALL, [self.row(ALL)]
        for defect in DEFECTS:
            left -= {defect.name}
            row = self.row(left)
            same_unit = row["unit"] == found[-1]["unit"]
            change = row["delta"] - found[-1]["delta"] if same_unit else None
            found.append({**row, "turned_off": defect.name, "change": change})
        return found

    def row(self, defects: Collection[str]) -> dict[str, Any]:
        """What the eight cells show under some defects.

        base, source, patched: mean scores, patched over all cells; transfer None where it is not
        identifiable. words: how often the rule gives which verdict to which claim. Without
        degenerate-text among the defects, a cell whose texts collapse is invalid.
        """
        frame = self.scores(defects)
        means = frame.groupby("arm")["score"].mean().to_dict()
        cells = {cell: float(means[cell]) for cell in CELLS}
        best = max(cells, key=lambda cell: cells[cell])
        base, source = float(means["base"]), means.get("source")
        collapsed = [] if DEGENERATE in defects else self._collapsed(frame)
        verdicts = {
            claim: {
                cell: judge(_of_cell(frame, cell), region, checks=_failed(cell in collapsed))
                for cell in CELLS
            }
            for claim, region in CLAIMED.items()
        }
        first = next(iter(verdicts.values()))
        shares = {cell: verdict.estimate for cell, verdict in first.items()}
        known = [share for share in shares.values() if share is not None]
        found = {
            "turned_off": None,
            "defects": [defect.name for defect in DEFECTS if defect.name in defects],
            "unit": scorer_under(defects, self.task.lexicon).unit,
            "pairs": frame["pair"].nunique(),
            "base": base,
            "source": None if source is None else float(source),
            "patched": sum(cells.values()) / len(cells),
            "best_cell": best,
            "best": cells[best],
            "delta": sum(cells.values()) / len(cells) - base,
            "best_delta": cells[best] - base,
            "change": None,
            "transfer": sum(known) / len(known) if len(known) == len(CELLS) else None,
            "best_transfer": shares[best],
            "words": {
                claim: dict(Counter(verdict.word for verdict in by_cell.values()))
                for claim, by_cell in verdicts.items()
            },
            "cells": cells,
            "degenerate_cells": collapsed,
        }
        return {**found, "reads": reading(found, first[best], points=UNCALIBRATED in defects)}

    def scores(self, defects: Collection[str]) -> pd.DataFrame:
        """One row a trial: `pair, arm, seed, score`, `source, base, text`; an arm may be a cell.

        Base and source are generated in the usual way under any defect: what the seed did to the
        cache, it did to the patched runs. `seed` counts a pair's generations; which luck they had
        is in the trials.
        """
        engine, one = ENGINE & frozenset(defects), ONE_TRIAL in defects
        scorer = scorer_under(defects, self.task.lexicon)
        arms = {"base": (NONE, BASE), "source": (NONE, SOURCE)}
        if NO_CEILING in defects:
            del arms["source"]
        arms |= {cell: (engine, patched(patch)) for cell, patch in CELLS.items()}
        return pd.DataFrame(
            {
                "pair": trial.pair,
                "arm": name,
                "seed": 0,
                "score": scorer(trial.text),
                "source": trial.source,
                "base": trial.base,
                "text": trial.text,
            }
            for name, (defective, arm) in arms.items()
            for trial in self._run(defective, arm, one=one)
        )

    def _collapsed(self, frame: pd.DataFrame) -> list[str]:
        """The cells of which more texts are degenerate than the task allows."""
        limit = self.task.max_degenerate_share
        shares = {
            cell: frame["text"][frame["arm"] == cell].map(self._is_degenerate).mean()
            for cell in CELLS
        }
        return [cell for cell, share in shares.items() if share > limit]

    def _is_degenerate(self, text: str) -> bool:
        if text not in self._degenerate:
            self._degenerate[text] = repetition(text).degenerate
        return self._degenerate[text]

    def engines(self) -> list[dict[str, Any]]:
        """The defects of the engine, each alone, held against no patch and against the oracle.

        self_patch_changed: pairs whose generation changes when the base's own cache is pasted.
        patched_changed: pairs whose patched generation is not that of the right engine.
        keys_error: largest relative error of pasted keys that moved, None where none did.
        """
        base, right = self._run(NONE, BASE), self._run(NONE, patched(PROBE))
        found = []
        for engine in ENGINES:
            own, pasted = self._run(engine, self_patch(PROBE)), self._run(engine, patched(PROBE))
            errors = [trial.oracle_keys_error for trial in pasted if trial.oracle_shift]
            found.append(
                {
                    "defect": next(iter(engine), None),
                    "patch": str(PROBE),
                    "pairs": len(self.pairs),
                    "self_patch_changed": _changed(own, base),
                    "patched_changed": _changed(pasted, right),
                    "keys_error": max((e for e in errors if e is not None), default=None),
                }
            )
        return found

    def best_text(self) -> dict[str, Any]:
        """The text of the published protocol's best cell here, and why it scores."""
        scorer = scorer_under(ALL, self.task.lexicon)
        texts = {
            cell: self._run(ENGINE, patched(patch), one=True)[0].text
            for cell, patch in CELLS.items()
        }
        best = max(texts, key=lambda cell: scorer(texts[cell]))
        return {"cell": best, "pair": self.pairs[0].id, **explain(texts[best], self.task)}

    @cached_property
    def planned(self) -> int:
        """Trials that table, engines and text need, each counted once."""
        return sum(
            len(arms) * (1 if one else len(self.pairs)) for (_, one), arms in self._plan().items()
        )

    @property
    def n_run(self) -> int:
        """Trials that came back."""
        return sum(map(len, self._trials.values()))

    def run(self) -> None:
        """Run everything that is needed, as many arms at once as can be.

        Raises UsageError, before the model runs, for a cell that does not fit model or prompts.
        """
        plan = self._plan()
        for (engine, _), arms in plan.items():
            self._runner(engine).check(arms, self.pairs)
        for (engine, one), arms in plan.items():
            if not one:
                self._runner(engine).run(arms, self.pairs, [0], progress=self.progress)
            for arm in arms:
                self._run(engine, arm, one=one)

    def _plan(self) -> dict[tuple[frozenset[str], bool], list[Arm]]:
        """Arms by engine, and by whether they are run once, on luck of their own."""
        wanted: dict[tuple[frozenset[str], bool], dict[Arm, None]] = {}
        left = ALL
        for name in (None, *(defect.name for defect in DEFECTS)):
            left -= {name}
            one = ONE_TRIAL in left
            ends = [BASE] if NO_CEILING in left else [BASE, SOURCE]
            wanted.setdefault((NONE, one), {}).update(dict.fromkeys(ends))
            cells = map(patched, CELLS.values())
            wanted.setdefault((ENGINE & left, one), {}).update(dict.fromkeys(cells))
        for engine in ENGINES:
            arms = [patched(PROBE), self_patch(PROBE)]
            wanted.setdefault((engine, False), {}).update(dict.fromkeys(arms))
        return {spot: list(arms) for spot, arms in wanted.items()}

    def _run(self, engine: frozenset[str], arm: Arm, *, one: bool = False) -> list[Trial]:
        """An arm on all pairs with seed 0; or on the first pair alone, on luck of its own."""
        spot = (engine, arm, one)
        if spot not in self._trials:
            runner = self._runner(engine)
            if one:
                luck = self.drawn + _ORDER.index(arm)
                found = runner.run([arm], self.pairs[:1], [luck], progress=self.progress)
            else:
                found = runner.run([arm], self.pairs, [0])
            self._trials[spot] = found
        return self._trials[spot]

    def _runner(self, engine: frozenset[str]) -> DefectiveRunner:
        if engine not in self._runners:
            self._runners[engine] = DefectiveRunner(
                self.model, self.task, self.sampling, Ledger(), self.batch_size, defects=engine
            )
        return self._runners[engine]


def replay_published(
    runner: Runner, pairs: Sequence[Pair], prose: Task, show_progress: ShowProgress
) -> ProtocolEvidence:
    """Replay the published protocol on a study's model, task and pairs (at most 60 of them).

    prose: the task whose lexicon is held against the seed's own best cell.
    Raises UsageError, before the model runs, for a cell that does not fit model or prompts.
    """
    chosen = pairs[:MOST_PAIRS]
    replay = Replay(runner.model, runner.task, runner.sampling, chosen, runner.batch_size)
    with show_progress(f"{runner.model.name} published protocol", replay.planned) as progress:
        replay.progress = progress
        replay.run()
    return ProtocolEvidence(
        name="published-protocol",
        model=runner.model.name,
        task=runner.task.name,
        pairs=len(chosen),
        pair=chosen[0].id,
        drawn=replay.drawn,
        defects=[defect._asdict() for defect in DEFECTS],
        rows=replay.rows(),
        engines=replay.engines(),
        best=replay.best_text(),
        sample=explain_best_cell(prose),
        trials={"planned": replay.planned, "run": replay.n_run, "failed": 0},
        provenance=provenance(runner, chosen),
    )


def reading(row: dict[str, Any], best: Verdict, *, points: bool) -> str:
    """What a reader would take from a row. points: whether the score is in the seed's points."""
    if row["source"] is None:
        few, many = EXPECTED_POINTS
        up = row["best_delta"]
        of = f" of '{few}-{many} expected' ({up / many:.0%} to {up / few:.0%})" if points else ""
        return f"best cell {up:+.2f}{of}; transfer not identifiable: no source arm"
    if row["transfer"] is None or best.estimate is None:
        return f"transfer not identifiable: {best.reason}"
    collapsed = len(row["degenerate_cells"])
    but = f"; the text of {collapsed} cells is degenerate" if collapsed else ""
    return f"transfer {row['transfer']:.2f} on average, {best.estimate:.2f} in the best cell{but}"


def _failed(collapsed: bool) -> list[Check]:
    """The check that fails where texts collapse; none where they do not, as no other is made."""
    return [Check("degenerate-text", False, "too many texts repeat")] if collapsed else []


def _of_cell(frame: pd.DataFrame, cell: str) -> pd.DataFrame:
    """The trials that one cell is judged by, the cell's own called patched."""
    wanted = frame[frame["arm"].isin(["base", "source", cell])]
    return wanted.assign(arm=wanted["arm"].replace(cell, "patched"))


def _changed(trials: Sequence[Trial], others: Sequence[Trial]) -> int:
    """How many pairs generated other tokens."""
    return sum(a.tokens != b.tokens for a, b in zip(trials, others, strict=True))
