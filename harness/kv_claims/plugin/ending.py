"""The end of a run of claims: evidence as it comes in, files and pins, and what the terminal says.

With workers it is the controller that collects, writes and tells; a worker only lets go.
"""

from __future__ import annotations

import json
import traceback
from collections.abc import Sequence
from typing import Any

import pytest

from kv_claims.claims.claim import Claim
from kv_claims.errors import UsageError
from kv_claims.evidence.cost import COST
from kv_claims.evidence.evidence import EVIDENCE, INSTRUMENT, PROTOCOL
from kv_claims.pins.file import Place
from kv_claims.plugin import terminal
from kv_claims.plugin.session import ClaimsSession
from kv_claims.report.shards import in_dispute

PIN = "claims_pin"
"""In a test's report: what it made for `--claims-update`, as JSON."""
TABLE = "claims_table"
"""In a test's report: the table of its own that was judged, as JSON."""
REFUSED = "claims_refused"
"""In a test's report: why the run's only model was refused."""


class Ending:
    """Takes evidence out of reports, wherever the tests ran, and makes the run's files of it.

    expected: tests that owe evidence. claims: those that were selected, one for each test of one,
    where this process collected.
    """

    def __init__(self, config: pytest.Config, state: ClaimsSession) -> None:
        self.state, self._config = state, config
        self.expected: list[str] = []
        self.claims: list[Claim] = []
        self._lines = terminal.Lines(state.cost)

    def expect(self, tests: Sequence[str]) -> None:
        """Hear which tests owe evidence."""
        self.expected = list(tests)
        self.state.cost.cells = len(self.expected)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if not _is_of_a_test(report) or hasattr(self._config, "workerinput"):
            return
        for kind, into in (
            (EVIDENCE, self.state.evidence),
            (INSTRUMENT, self.state.instrument),
            (PROTOCOL, self.state.protocol),
        ):
            if (content := _property(report, kind)) is not None:
                into.append({**content, "test": report.nodeid})
        if (pin := report.__dict__.get(PIN)) is not None:
            self.state.pins.add(json.loads(pin), failed=report.failed)
        if (table := report.__dict__.get(TABLE)) is not None:
            self.state.tables.append(json.loads(table))
        if (spent := _property(report, COST)) is not None:
            self.state.cost.add(**spent, seconds=report.duration)
            terminal.progress_line(self._config, self._lines)

    @pytest.hookimpl(tryfirst=True)
    def pytest_report_teststatus(self, report: pytest.TestReport) -> tuple[str, str, Any] | None:
        """Show a verdict in its own word; what counts as failed or skipped stays pytest's."""
        if not _is_of_a_test(report) or hasattr(report, "wasxfail"):
            return None
        # pytest's way to say that what was to fail passed: our word would read as good news.
        if report.failed and str(report.longrepr).startswith("[XPASS(strict)]"):
            return None
        evidence = _property(report, EVIDENCE)
        if evidence is None:
            return None
        return terminal.status(report.outcome, evidence["verdict"], verified=evidence["verified"])

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        state = self.state
        if hasattr(self._config, "workerinput"):
            state.release()  # a worker is ended before it comes to its cleanups
            return
        if state.reported:
            from kv_claims.plugin.write import write_reports

            try:
                write_reports(state)
            except (OSError, UsageError) as error:  # a full disk needs no traceback
                state.unwritten = str(error)
                session.exitstatus = exitstatus = pytest.ExitCode.INTERNAL_ERROR
            except Exception:  # whatever it is, the verdicts are still to be shown
                state.unwritten = traceback.format_exc()
                session.exitstatus = exitstatus = pytest.ExitCode.INTERNAL_ERROR
        disputed = [one for one in [*state.evidence, *state.instrument] if in_dispute(one)]
        for one in disputed:
            if "claim" in one:
                pinned = Place(one["claim"], one["cell"])
                state.pins.drop(one["model"], pinned, "two workers recorded other tokens")
        broken_off = session.shouldstop or session.shouldfail
        if exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED) and not broken_off:
            state.pins.write()
        else:
            state.pins.break_off()
        if exitstatus == pytest.ExitCode.OK and (disputed or self._without_evidence()):
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: Any, exitstatus: int) -> None:
        state, option = self.state, self._config.option
        if exitstatus == pytest.ExitCode.USAGE_ERROR and not state.reported:
            return  # the error says it all
        if option.collectonly and self._config.get_verbosity() >= -1:
            terminal.collected(terminalreporter, self.claims)
        screen = terminal.Screen(terminalreporter)
        if state.replayed is not None and not option.collectonly:
            for line in terminal.replay_lines(state, len(state.evidence))[1:]:
                screen.line(line)
        if state.reported:
            terminal.summary(terminalreporter, state)
        elif self.expected and not option.collectonly:
            screen.line(
                f"nothing was measured: what is in {state.settings.out} is of an earlier run, if "
                "any"
            )
        if missing := self._without_evidence():
            screen.line(
                f"no evidence: {len(missing)} of {len(self.expected)} selected tests ended "
                f"without a verdict, such as {missing[0]}",
                red=True,
            )

    def _without_evidence(self) -> list[str]:
        """Selected claims that ended without evidence."""
        found = {one["test"] for one in self.state.reported}
        if self._config.option.collectonly:
            return []
        return [test for test in self.expected if test not in found]


class Refusals:
    """With workers: ends a run whose only model is refused, before the terminal hears of it."""

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if (refused := report.__dict__.get(REFUSED)) is not None:
            pytest.exit(refused, returncode=pytest.ExitCode.USAGE_ERROR)


def _is_of_a_test(report: pytest.TestReport) -> bool:
    """Whether a report is of a test itself: those of its subtests carry its evidence again."""
    return type(report) is pytest.TestReport and report.when == "call"


def _property(report: Any, kind: str) -> Any:
    for name, content in getattr(report, "user_properties", []):
        if name == kind:
            return json.loads(content)
    return None
