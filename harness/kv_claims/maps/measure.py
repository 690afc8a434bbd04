"""The cells of a map on a model: those that can be measured, and what the outcome was in each.

Promises: arms are run by the engine that claims are run by, through one ledger, so that a map which
was stopped goes on where it was; what cannot be measured is named, with why, before anything runs.
Does not: estimate anything (`maps.estimate`), run controls, or judge.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import pandas as pd

from kv_claims.claims.outcome import Outcome
from kv_claims.claims.patch import Patch, canonical
from kv_claims.claims.positions import Prompted
from kv_claims.errors import NoSuchCellError, UsageError
from kv_claims.maps.asked import EACH, Asked, Cell
from kv_claims.run.arms import BASE, SOURCE, Arm, patched
from kv_claims.run.feed import fed_to
from kv_claims.run.ledger import Ledger
from kv_claims.run.runner import Runner
from kv_claims.run.scores import Fed, fed_score, scored
from kv_claims.run.table import trials_frame
from kv_claims.study.scored import check_scored
from kv_claims.study.testable import runs_donor, unreached
from kv_claims.tasks.task import Pair

ROWS_AT_ONCE = 512
"""Arms times pairs that are run between two reports of progress."""


class Skipped(NamedTuple):
    """A cell that is not measured. why: in words that begin with the name of the failure."""

    cell: Cell
    why: str


class Measured(NamedTuple):
    """What a map is estimated from.

    cells: with the arm of each, as its id in the table. table: columns of `kv_claims.judging.frame`
    with `base` and `source` beside the cells' arms. oracle: the largest relative error of logits
    against the independent recomputation, and how many were recomputed; None where nothing was fed.
    """

    cells: list[tuple[Cell, str]]
    skipped: list[Skipped]
    table: pd.DataFrame
    oracle: tuple[float, int] | None


class Map:
    """A map on a model, checked: nothing has run.

    runner: of the task's discovery part. Raises UsageError for an outcome that the pairs do not
    have, and for whatever else would not fit.
    """

    def __init__(self, runner: Runner, asked: Asked, pairs: Sequence[Pair]) -> None:
        outcome = asked.measured
        check_scored([outcome], runner.task)
        self.runner = runner if outcome.behind is None else runner.brief()
        self.asked, self.pairs, rows = asked, pairs, self.runner.rows
        rows.behind.check([outcome], pairs)
        rows.make_room(rows.behind.longest([outcome], pairs))
        self.runner.check([BASE, SOURCE], pairs)
        model = runner.model
        self.shortest = min(
            len(rows.tokens(prompt)) for pair in pairs for prompt in (pair.source, pair.base)
        )
        n_heads = model.heads.of(asked.patch().site) or 0
        self.cells: list[tuple[Cell, Arm]] = []
        self.skipped: list[Skipped] = []
        found: dict[str, Cell] = {}
        for cell in asked.cells(model.n_layers, n_heads, self.shortest):
            arm, why = self._tried(cell)
            if arm is None:
                self.skipped.append(Skipped(cell, why))
            elif (other := found.setdefault(arm.id, cell)) is not cell:
                raise UsageError(
                    f"cells {other.patch} and {cell.patch} are the same on {model.name}"
                )
            else:
                self.cells.append((cell, arm))
        if not self.cells:
            raise UsageError(
                f"map: none of {len(self.skipped)} cells can be measured on {model.name}: "
                f"{self.skipped[0].cell.patch}: {self.skipped[0].why}"
            )

    @property
    def rows(self) -> int:
        """Arms times pairs, base and source among them."""
        return (len(self.cells) + 2) * len(self.pairs)

    def keep(self, ledger: Ledger) -> None:
        """Keep what is measured in a ledger, and take from it what it has."""
        self.runner.ledger = ledger

    def run(self, progress: Callable[[int], object]) -> Measured:
        """Measure every cell. progress: takes the number of rows that came in."""
        arms = [BASE, SOURCE, *(arm for _, arm in self.cells)]
        tables, errors = [], list[float]()
        for some in _groups(arms, max(1, ROWS_AT_ONCE // len(self.pairs))):
            table, found = self._measured(some)
            tables.append(table)
            errors += found
            progress(len(table))
        return Measured(
            [(cell, arm.id) for cell, arm in self.cells],
            self.skipped,
            pd.concat(tables, ignore_index=True),
            (max(errors), len(errors)) if errors else None,
        )

    def _tried(self, cell: Cell) -> tuple[Arm | None, str]:
        """The arm of a cell, or why it has none."""
        model = self.runner.model
        try:
            patch = canonical(cell.patch, model.n_layers, model.heads)
            arm = self.runner.canonical(patched(patch))
            self.runner.check([arm], self.pairs)
        except NoSuchCellError as error:
            return None, f"no-such-cell: {error}"
        if why := _says_nothing(self.runner, patch, self.asked, self.pairs):
            return None, why
        return arm, ""

    def _measured(self, arms: Sequence[Arm]) -> tuple[pd.DataFrame, list[float]]:
        """The outcome of arms on all pairs, and the oracle errors that were found on the way."""
        outcome, pairs, runner = self.asked.measured, self.pairs, self.runner
        if outcome.is_text:
            trials = runner.run(arms, pairs, [0])
            frame = trials_frame(trials, runner.task)
            scores = scored(frame, trials, outcome, runner.model.n_layers, Fed())
            spots = zip(scores["arm"], scores["pair"], strict=True)
            values = dict(zip(spots, scores["score"].astype(float), strict=True))
            errors: list[float] = []
        else:
            fed = fed_to(runner, [outcome], arms, pairs, [0])
            values = {
                (arm.id, pair.id): fed_score(fed, outcome, (arm.id, pair.id, 0))
                for arm in arms
                for pair in pairs
            }
            errors = [error for error in fed.oracle_errors if error is not None]
        return pd.DataFrame(list(self._rows(arms, values))), errors

    def _rows(
        self, arms: Sequence[Arm], values: dict[tuple[str, str], float]
    ) -> Iterator[dict[str, object]]:
        identity = self.runner.rows.identity
        for arm in arms:
            for pair in self.pairs:
                yield {
                    "pair": pair.id,
                    "arm": arm.id,
                    "seed": 0,
                    "score": values[arm.id, pair.id],
                    "source": identity(pair.source),
                    "base": identity(pair.base),
                }


def _groups(arms: Sequence[Arm], size: int) -> Iterator[Sequence[Arm]]:
    for start in range(0, len(arms), size):
        yield arms[start : start + size]


def _says_nothing(runner: Runner, patch: Patch, asked: Asked, pairs: Sequence[Pair]) -> str:
    """Why what a patch does to the outcome could say nothing, as a claim's test has it; or ''.

    Positions of `each` count from the end, so that what holds of the shortest and the longest
    prompt holds of those between.
    """
    n_layers, outcome = runner.model.n_layers, asked.measured
    extent = runner.rows.extent
    lengths: list[tuple[Prompted, Prompted]] = [
        (extent(pair.source, [patch]), extent(pair.base, [patch])) for pair in pairs
    ]
    if asked.positions == EACH:
        by_base = sorted(lengths, key=lambda both: _tokens(both[1]))
        lengths = [by_base[0], by_base[-1]]
    fed = _fewest(runner, outcome, pairs)
    failed = unreached([((patch,), outcome)], n_layers, lengths, fed)
    if patch.donor in ("source", "resample"):
        donor = runs_donor([(patch,)], n_layers, lengths)
        failed = [*([] if donor is None else [donor]), *failed]
    return f"{failed[0].name}: {failed[0].detail}" if failed else ""


def _fewest(runner: Runner, outcome: Outcome, pairs: Sequence[Pair]) -> dict[str, int]:
    read = runner.rows.behind.fewest_read(outcome, pairs)
    return {} if read is None else {outcome.name: read}


def _tokens(prompt: Prompted) -> int:
    return prompt if isinstance(prompt, int) else prompt.tokens
