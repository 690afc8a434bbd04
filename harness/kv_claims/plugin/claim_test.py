"""What a claim's test holds in its hands: `study.judge(...)`, `study.judge_table(...)`, or one of
the two that judge nothing.

Turns evidence into a test result; how a verdict counts is decided in `kv_claims.pins.passes`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

import pytest

from kv_claims.claims.claim import Claim
from kv_claims.errors import UsageError
from kv_claims.evidence.evidence import (
    EVIDENCE,
    INSTRUMENT,
    PROTOCOL,
    Evidence,
    InstrumentEvidence,
    ProtocolEvidence,
    plain,
    to_json,
)
from kv_claims.pins.check import Pinned, against
from kv_claims.pins.file import PinFile, Place
from kv_claims.pins.passes import outcome
from kv_claims.pins.pin import pin_of, why_not_pinned
from kv_claims.plain import line_of
from kv_claims.run.arms import Patches
from kv_claims.study.cell import Cell
from kv_claims.tasks.load import load_task

if TYPE_CHECKING:
    import pandas as pd

    from kv_claims.study.stated import KnownModel
    from kv_claims.study.study import ModelStudy
    from kv_claims.study.walk import CellRun, Study


@dataclass
class ClaimTest:
    """One test of one claim on one model.

    study: None for a test that makes its own table. siblings: how many cells the claim has,
    whatever part of them is run. record: takes a kind and a JSON string. pins: of the model, None
    where it has none; pins_of_tables: of the tables on a model, by its name. pin: takes, under
    `--claims-update`, what is to be pinned. keep_table: takes the rows of a table that was judged,
    as JSON. test: file and function.
    """

    study: Study | None
    claim: Claim | None
    cell: str
    strict: bool
    record: Callable[[str, str], None]
    siblings: int = 1
    test: str = ""
    pins: PinFile | None = None
    pin: Callable[[str], None] | None = None
    pins_of_tables: Callable[[str], PinFile | None] = lambda _model: None
    keep_table: Callable[[str], None] = lambda _rows: None
    _done: bool = False

    def judge(self, patch: Patches | None = None, *, versus: Patches | None = None) -> Evidence:
        """Run the cell, record its evidence, and pass, skip or fail by its verdict.

        patch: one Patch or several at once; none for a claim about source and base alone.
        versus: of a claim that compares two patches, the second.
        """
        with self._one_cell("judge", patch, versus) as cell:
            if self.study is None:
                raise UsageError(
                    f"{cell}: its test is marked own_table, and no model is run; expected "
                    "study.judge_table, or no such mark"
                )
            done = self.study.run_cell(cell)
            # Pinned are models that are run: planted ones and replays have no pins.
            n_pairs = cast("ModelStudy", self.study).n_pairs if self.pins else 0
            pinned = self._pinned(self.pins, done, n_pairs) if self.pins else None
        return self._end(done, pinned)

    def judge_table(
        self,
        frame: pd.DataFrame,
        patch: Patches | None = None,
        *,
        versus: Patches | None = None,
        model: str | None = None,
        n_layers: int | None = None,
        n_kv_heads: int | None = None,
        n_query_heads: int | None = None,
        tokens: tuple[int, int] | None = None,
    ) -> Evidence:
        """Judge a table that the test made itself, by the claim, and record it as any other cell.

        frame: one row a trial, `pair, arm, seed, score`, with the arms base, source, patched, of a
            comparison versus, and the controls unrelated-base, noise, wrong-layer where there are
            some; see `kv_claims.study.own_table.table_study`.
        patch, versus: what the table's arms of that name were patched with, as for `judge`.
        model, n_layers, n_kv_heads, n_query_heads: its name and size, where the test is marked
            `own_table`; else they are those of the model that the test runs on.
        tokens: of source and base prompts, where all have as many.
        No check of the instrument is made: the verdict is never *verified*.
        """
        from kv_claims.study.own_table import as_trials, table_study

        with self._one_cell("judge_table", patch, versus) as cell:
            subject = self._subject(model, n_layers, n_kv_heads, n_query_heads)
            study = table_study(frame, cell, subject, tokens=tokens)
            rows = as_trials(study)
            done = study.run_cell(cell)
            pins = self.pins_of_tables(subject.name)
            pinned = self._pinned(pins, done, study.n_pairs) if pins else None
        self.keep_table(json.dumps(rows.to_dict("list")))
        return self._end(done, pinned)

    @contextmanager
    def _one_cell(self, name: str, patch: Patches | None, versus: Patches | None) -> Iterator[Cell]:
        """The cell that the test is, to be judged once; a usage error fails in one line."""
        if self.claim is None:
            pytest.fail(f"study.{name} needs a test marked with @claim(...)", pytrace=False)
        if self._done:
            pytest.fail(f"{self.claim.id}: a test judges one cell, once", pytrace=False)
        with _one_line_errors():
            yield Cell.of(self.claim, self.cell, patch, versus, siblings=self.siblings)
        self._done = True

    def _subject(
        self,
        name: str | None,
        n_layers: int | None,
        n_kv_heads: int | None,
        n_query_heads: int | None,
    ) -> KnownModel:
        """What a table is of. Raises UsageError for another model than the test runs on."""
        from kv_claims.study.stated import KnownModel

        known = getattr(self.study, "model", None)
        if known is None:
            heads = (0 if count is None else count for count in (n_kv_heads, n_query_heads))
            return KnownModel(*cast("tuple[str, int, int, int]", (name, n_layers, *heads)))
        for what, said, own in (
            ("model", name, known.name),
            ("n_layers", n_layers, known.n_layers),
            ("n_kv_heads", n_kv_heads, known.heads.kv),
            ("n_query_heads", n_query_heads, known.heads.query),
        ):
            if said is not None and said != own:
                raise UsageError(
                    f"judge_table: {what} {said!r}, but the test runs on {known.name}, which has "
                    f"{own!r}; expected that, or the mark own_table on the test"
                )
        return KnownModel(known.name, known.n_layers, *known.heads)

    def _end(self, done: CellRun, pinned: Pinned | None) -> Evidence:
        """Record a cell's evidence, and pass, skip or fail by its verdict."""
        evidence = replace(done.evidence, pinned=pinned.to_dict()) if pinned else done.evidence
        self.record(EVIDENCE, to_json(evidence.__dict__))
        result, why = outcome(
            evidence.verdict, evidence.reason, done.expected, pinned, strict=self.strict
        )
        if not evidence.verified:
            why += " (not verified)"
        why = line_of(why)
        if result == "skip":
            pytest.skip(why)
        if result == "fail":
            pytest.fail(why, pytrace=False)
        return evidence

    def _pinned(self, pins: PinFile, done: CellRun, n_pairs: int) -> Pinned | None:
        """How the cell stands to its pin; under `--claims-update` that is made anew."""
        evidence = plain(done.evidence.__dict__)
        fresh = pin_of(evidence, done.tables, test=self.test, pairs_asked=n_pairs)
        kept = pins.pins.get(Place(fresh.claim, fresh.cell))
        file = str(pins.path)
        found = against(kept, fresh, done.tables, file=file) if kept else None
        if self.pin is None:
            return found
        changes, notes = (found.changes, found.notes) if found else ((), ())
        if why := why_not_pinned(evidence):
            told = f"{fresh.claim}, cell {fresh.cell}: {why} failed"
            self.pin(to_json({"pin": None, "changes": [told], "notes": []}))
            return found
        made = {"model": evidence["model"], "pin": fresh.to_dict()}
        self.pin(to_json({**made, "changes": changes, "notes": notes}))
        return Pinned("recorded", fresh.verdict, fresh.estimate, file, changes, notes)

    def check_full_swap(self) -> InstrumentEvidence:
        """Run the instrument's oracle check on every pair, record it, and fail if it fails."""
        with _one_line_errors():
            evidence = self._model.check_full_swap()
        self.record(INSTRUMENT, to_json(evidence.__dict__))
        failed = [check for check in evidence.checks if check["passed"] is not True]
        if failed:
            lines = "; ".join(f"{check['name']}: {check['detail']}" for check in failed)
            pytest.fail(line_of(f"the instrument fails: {lines}"), pytrace=False)
        return evidence

    def replay_published(self, prose: Path) -> ProtocolEvidence:
        """Replay the seed's procedure with its defects, and record what each does; no verdict.

        prose: the task file whose lexicon is held against the seed's own best cell.
        """
        from kv_claims.published.replay import replay_published

        study = self._model
        with _one_line_errors():
            evidence = replay_published(
                study.runner, study.pairs, load_task(prose), study.show_progress
            )
        self.record(PROTOCOL, to_json(evidence.__dict__))
        return evidence

    @property
    def _model(self) -> ModelStudy:
        """The study, where it runs a model: stored trials cannot answer what is asked then."""
        from kv_claims.study.study import ModelStudy

        if not isinstance(self.study, ModelStudy):
            raise pytest.fail.Exception("it needs a model, and trials are replayed", pytrace=False)
        return self.study


@contextmanager
def _one_line_errors() -> Iterator[None]:
    """Fail with a usage error's message alone: its traceback says nothing about the input."""
    try:
        yield
    except UsageError as error:
        raise pytest.fail.Exception(str(error), pytrace=False) from None
