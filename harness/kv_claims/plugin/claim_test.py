"""What a claim's test holds in its hands: `study.judge(...)`, or one of the two that judge nothing.

Turns evidence into a test result; how a verdict counts is decided in `kv_claims.pins.passes`.
"""

from __future__ import annotations

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
from kv_claims.study.expectation import Expectation
from kv_claims.tasks.load import load_task

if TYPE_CHECKING:
    from kv_claims.study.study import ModelStudy
    from kv_claims.study.walk import CellRun, Study


@dataclass
class ClaimTest:
    """One test of one claim on one model.

    siblings: how many cells the claim has, whatever part of them is run. record: takes a kind and
    a JSON string. pins: of the model, None where it has none. pin: takes, under `--claims-update`,
    what is to be pinned. test: file and function.
    """

    study: Study
    claim: Claim | None
    cell: str
    strict: bool
    record: Callable[[str, str], None]
    siblings: int = 1
    test: str = ""
    pins: PinFile | None = None
    pin: Callable[[str], None] | None = None
    _done: bool = False

    def judge(self, patch: Patches | None = None, *, versus: Patches | None = None) -> Evidence:
        """Run the cell, record its evidence, and pass, skip or fail by its verdict.

        patch: one Patch or several at once; none for a claim about source and base alone.
        versus: of a claim that compares two patches, the second.
        """
        if self.claim is None:
            pytest.fail("study.judge needs a test marked with @claim(...)", pytrace=False)
        if self._done:
            pytest.fail(f"{self.claim.id}: a test judges one cell, once", pytrace=False)
        with _one_line_errors():
            cell = Cell.of(self.claim, self.cell, patch, versus, siblings=self.siblings)
            evidence, expected, pinned = self._judged(cell)
        self._done = True
        self.record(EVIDENCE, to_json(evidence.__dict__))
        result, why = outcome(
            evidence.verdict, evidence.reason, expected, pinned, strict=self.strict
        )
        if not evidence.verified:
            why += " (not verified)"
        why = line_of(why)
        if result == "skip":
            pytest.skip(why)
        if result == "fail":
            pytest.fail(why, pytrace=False)
        return evidence

    def _judged(self, cell: Cell) -> tuple[Evidence, Expectation | None, Pinned | None]:
        """The cell's evidence; where its model has pins, with how it stands to its own."""
        if self.pins is None:
            return *self.study.judge(cell), None
        study = cast("ModelStudy", self.study)
        done = study.run_cell(cell)
        pinned = self._pinned(self.pins, done, study.n_pairs)
        known = pinned.to_dict() if pinned else None
        return replace(done.evidence, pinned=known), done.expected, pinned

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
