"""What a claim's test holds in its hands: `study.judge(...)`, or one of the two that judge nothing.

Turns evidence into a test result; how a verdict counts is decided in `harness.expectation`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from harness.cell import Cell
from harness.claim import Claim
from harness.errors import UsageError
from harness.evidence import (
    EVIDENCE,
    INSTRUMENT,
    PROTOCOL,
    Evidence,
    InstrumentEvidence,
    ProtocolEvidence,
    to_json,
)
from harness.expectation import outcome
from harness.published.replay import replay_published
from harness.run.arms import Patches
from harness.study import ModelStudy
from harness.tasks.load import load_task


@dataclass
class ClaimTest:
    """One test of one claim on one model.

    siblings: how many cells the claim has, whatever part of them is run. record: takes a kind and
    a JSON string.
    """

    study: ModelStudy
    claim: Claim | None
    cell: str
    strict: bool
    record: Callable[[str, str], None]
    siblings: int = 1
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
            evidence, expected = self.study.judge(cell)
        self._done = True
        self.record(EVIDENCE, to_json(evidence.__dict__))
        result, why = outcome(evidence.verdict, evidence.reason, expected, strict=self.strict)
        if result == "skip":
            pytest.skip(why)
        if result == "fail":
            pytest.fail(why, pytrace=False)
        return evidence

    def check_full_swap(self) -> InstrumentEvidence:
        """Run the instrument's oracle check on every pair, record it, and fail if it fails."""
        with _one_line_errors():
            evidence = self.study.check_full_swap()
        self.record(INSTRUMENT, to_json(evidence.__dict__))
        failed = [check for check in evidence.checks if check["passed"] is not True]
        if failed:
            lines = "; ".join(f"{check['name']}: {check['detail']}" for check in failed)
            pytest.fail(f"the instrument fails: {lines}", pytrace=False)
        return evidence

    def replay_published(self, prose: Path) -> ProtocolEvidence:
        """Replay the seed's procedure with its defects, and record what each does; no verdict.

        prose: the task file whose lexicon is held against the seed's own best cell.
        """
        study = self.study
        with _one_line_errors():
            evidence = replay_published(
                study.runner, study.pairs, load_task(prose), study.show_progress
            )
        self.record(PROTOCOL, to_json(evidence.__dict__))
        return evidence


@contextmanager
def _one_line_errors() -> Iterator[None]:
    """Fail with a usage error's message alone: its traceback says nothing about the input."""
    try:
        yield
    except UsageError as error:
        raise pytest.fail.Exception(str(error), pytrace=False) from None
